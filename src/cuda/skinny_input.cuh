/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input of the skinny kernels on its way to shared memory: normalized, rounded to bf16, in the order in which lanes
 * multiply it. Each warp fetches the inputs of its own runs, so no barrier of the whole block is needed. What is computed for a row does not depend on the number of rows.
 */
#ifndef QNI_CUDA_SKINNY_INPUT_CUH
#define QNI_CUDA_SKINNY_INPUT_CUH

#include "skinny_format.cuh"
#include "skinny_stream.cuh"

namespace qni::skinny {

/* Unpack 8 elements in shared memory: f32, bf16 or (MAY_BE_F16) f16. */
template <bool MAY_BE_F16> __device__ inline void unpack(float (&v)[8], const unsigned char *from, qn_dtype dtype) {
    const uint4 low = *reinterpret_cast<const uint4 *>(from);
    const uint32_t words[4] = {low.x, low.y, low.z, low.w};
    if (dtype == QN_DTYPE_F32) {
        const uint4 high = *reinterpret_cast<const uint4 *>(from + 16);
        const uint32_t others[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __uint_as_float(i < 4 ? words[i] : others[i - 4]);
    } else if (!MAY_BE_F16 || dtype == QN_DTYPE_BF16) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __uint_as_float(i % 2 ? words[i / 2] & 0xFFFF0000 : words[i / 2] << 16);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = scale_of(words[i / 2] >> i % 2 * 16 & 0xFFFF, dtype);
    }
}

/*
 * The inputs of a warp's runs, in order, are its pieces of 8; units of 16 bytes are what is fetched. They go to `raw`
 * first, from there converted to their place; where there is nothing to convert, to their place.
 */
template <class Format, int TILES, int ROW_BLOCKS> struct input {
    static constexpr int RUN_PIECES = 4 * Format::BLOCKS, STEP_PIECES = SLOTS / TILES * RUN_PIECES;

    const job &j;
    unsigned char *memory;

    __device__ input(const job &j, unsigned char *memory) : j(j), memory(memory) {}

    /* Start to load the norm's weights of the warp's pieces, as a group of copies. */
    __device__ void load_norm() const {
        const int32_t bytes = j.norm_dtype == QN_DTYPE_F32 ? 32 : 16;
#pragma unroll 1
        for (int32_t p = lane_id(); p < j.n_step * STEP_PIECES; p += 32) {
            const int32_t at = first_of(p);
            if (at >= j.n_in) continue;
            const unsigned char *from = static_cast<const unsigned char *>(j.norm) + at / 8 * bytes;
            const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(norm_at(p)));
            copy16(to, from);
            if (bytes == 32) copy16(to + 16, from + 16);
        }
        end_group();
    }

    /* With a norm: fetch the rows and leave the warp's sums of squares in shared memory. */
    __device__ void measure_rows() const {
        if (j.norm != nullptr) measure();
    }

    /* Put a chunk of steps into shared memory; is_fetched: measure_rows() has fetched all of it. */
    __device__ void stage(int32_t first_step, bool is_fetched) const {
        if (j.raw_rows == 0) {
            __syncwarp(); /* all lanes are done with the last chunk */
            fetch(0, j.n_row, first_step * STEP_PIECES);
            return;
        }
        const int32_t n_piece = j.chunk * STEP_PIECES, bytes = j.x_dtype == QN_DTYPE_F32 ? 32 : 16;
#pragma unroll 1
        for (int32_t first_row = 0; first_row < j.n_row; first_row += j.raw_rows) {
            const int32_t n_row = min(j.raw_rows, j.n_row - first_row), n = n_row * n_piece;
            __syncwarp();
            if (!is_fetched) fetch(first_row, n_row, first_step * STEP_PIECES);
#pragma unroll 1
            for (int32_t base = 0; base < n; base += 32) {
                /* All lanes take part, some again with the last piece. */
                const int32_t i = min(base + lane_id(), n - 1), row = __umulhi(i, j.piece_magic);
                const int32_t local = i - row * n_piece;
                float v[8];
                unpack<false>(v, raw_at(row) + local * bytes, j.x_dtype);
                if (j.norm != nullptr) weigh(v, first_step * STEP_PIECES + local);
                put(v, first_row + row, local, base + lane_id() < n);
            }
        }
    }

  private:
    /* The first input of a piece. */
    __device__ int32_t first_of(int32_t p) const {
        return ((p / RUN_PIECES * WARPS + warp_id()) * RUN_PIECES + p % RUN_PIECES) * 8;
    }
    __device__ unsigned char *norm_at(int32_t p) const {
        return memory + j.norm_at + (warp_id() * j.n_step * STEP_PIECES + p) * (j.norm_dtype == QN_DTYPE_F32 ? 32 : 16);
    }
    __device__ unsigned char *raw_at(int32_t row) const {
        return memory + j.raw_at + (warp_id() * j.raw_rows + row) * j.raw_stride;
    }
    __device__ unsigned char *place_of(int32_t row) const {
        return memory + j.x_at + row * j.x_stride + warp_id() * j.chunk * STEP_PIECES * 16;
    }

    /* Fetch n_row rows of a chunk that starts with a piece. */
    __device__ void fetch(int32_t first_row, int32_t n_row, int32_t first) const {
        const int32_t shift = j.x_dtype == QN_DTYPE_F32; /* a piece has 1 << shift units */
        const int32_t row_units = j.chunk * STEP_PIECES << shift, n = n_row * row_units;
        constexpr int AT_A_TIME = 4;
#pragma unroll 1
        for (int32_t base = lane_id(); base < n; base += 32 * AT_A_TIME) {
            uint4 units[AT_A_TIME];
#pragma unroll
            for (int h = 0; h < AT_A_TIME; h++) {
                const int32_t unit = base + 32 * h, row = __umulhi(unit, j.unit_magic);
                const int32_t local = unit - row * row_units, at = first_of(first + (local >> shift));
                units[h] = make_uint4(0, 0, 0, 0);
                if (unit >= n || at >= j.n_in) continue;
                /* Not through L1, which may have what an earlier kernel read there. */
                const uint4 *from = static_cast<const uint4 *>(j.x[first_row + row]);
                units[h] = __ldcg(from + (at / 8 << shift) + (local & shift));
            }
#pragma unroll
            for (int h = 0; h < AT_A_TIME; h++) {
                const int32_t unit = base + 32 * h, row = __umulhi(unit, j.unit_magic);
                if (unit >= n) continue;
                unsigned char *to = j.raw_rows > 0 ? raw_at(row) : place_of(row);
                reinterpret_cast<uint4 *>(to)[unit - row * row_units] = units[h];
            }
        }
        __syncwarp();
    }

    /* Sum the squares of each row's pieces of this warp: a lane's in order, then those of the lanes. */
    __device__ void measure() const {
        float *squares = reinterpret_cast<float *>(memory + j.squares_at);
        const int32_t n_piece = j.n_step * STEP_PIECES, bytes = j.x_dtype == QN_DTYPE_F32 ? 32 : 16;
#pragma unroll 1
        for (int32_t row = 0; row < j.n_row; row++) {
            if (row % j.raw_rows == 0) {
                __syncwarp();
                fetch(row, min(j.raw_rows, j.n_row - row), 0);
            }
            float sum = 0;
#pragma unroll 1
            for (int32_t p = lane_id(); p < n_piece; p += 32) {
                float v[8];
                unpack<false>(v, raw_at(row % j.raw_rows) + p * bytes, j.x_dtype);
#pragma unroll
                for (int k = 0; k < 8; k++) sum = fmaf(v[k], v[k], sum);
            }
#pragma unroll
            for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
            if (lane_id() == 0) squares[row * WARPS + warp_id()] = sum;
        }
    }

    /* Times the norm's weights. The factor 1 / rms comes to the sums at the end, so that products need not wait for it. */
    __device__ void weigh(float (&v)[8], int32_t p) const {
        if (first_of(p) >= j.n_in) return; /* no weights, and v is 0 */
        float w[8];
        unpack<true>(w, norm_at(p), j.norm_dtype);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] *= w[i];
    }

    /* Round a piece, and sum the blocks of 4 pieces for the biases. */
    __device__ void put(const float (&v)[8], int32_t row, int32_t local, bool is_own) const {
        constexpr int next = Format::SPLIT ? 1 : 2, apart = Format::SPLIT ? 4 : 1;
        uint32_t words[4];
        float sums[4];
#pragma unroll
        for (int s = 0; s < 4; s++) {
            words[s] = bits_of(__floats2bfloat162_rn(v[s * next], v[s * next + apart]));
            sums[s] = __uint_as_float(words[s] << 16) + __uint_as_float(words[s] & 0xFFFF0000);
        }
        if (is_own)
            reinterpret_cast<uint4 *>(place_of(row))[local] = make_uint4(words[0], words[1], words[2], words[3]);
        if (!Format::QUANTIZED || !j.has_biases) return;
        float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        float *block = reinterpret_cast<float *>(memory + j.sums_at);
        if (is_own && local % 4 == 0)
            block[(warp_id() * j.chunk * STEP_PIECES + local) / 4 * (8 * ROW_BLOCKS) + row] = sum;
    }
};

} // namespace qni::skinny

#endif
