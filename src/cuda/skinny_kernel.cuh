/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The skinny kernel: few rows times a weight. Weights are the A operand of mma.m16n8k16 (two tiles of 8 outputs), rows
 * of x its columns, so that 8 rows cost as much as one. Rows never meet: a row's result does not depend on the others.
 */
#ifndef QNI_CUDA_SKINNY_KERNEL_CUH
#define QNI_CUDA_SKINNY_KERNEL_CUH

#include "skinny_input.cuh"

namespace qni::skinny {

__device__ inline void unpack4(float (&v)[4], const unsigned char *from, qn_dtype dtype) {
    if (dtype == QN_DTYPE_F32) {
        const float4 x = *reinterpret_cast<const float4 *>(from);
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
        return;
    }
    const uint2 x = *reinterpret_cast<const uint2 *>(from);
    const uint32_t words[2] = {x.x, x.y};
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = scale_of(words[i / 2] >> i % 2 * 16 & 0xFFFF, dtype);
}

/* The scales and offsets of a step in f32, for each item of 8 outputs, or one. W = scale · operand + offset. */
template <class Format> __device__ void convert_scales(float2 *table, const unsigned char *items, const job &j) {
    const int32_t lane = lane_id();
    if constexpr (!Format::OUTPUT_SCALES) {
        if (lane >= SLOTS * j.run_groups) return;
        const uint2 item = *reinterpret_cast<const uint2 *>(items + lane * 8);
        const float scale = j.scale_dtype == QN_DTYPE_F32 ? __uint_as_float(item.x)
                                                          : scale_of(item.x >> item.y * 16 & 0xFFFF, j.scale_dtype);
        table[lane] = make_float2(scale, 0);
    } else {
        const int32_t n = SLOTS * j.run_groups * 8, bytes = j.scale_dtype == QN_DTYPE_F32 ? 4 : 2;
#pragma unroll 1
        for (int32_t e = lane * 4; e < n; e += 128) {
            float scales[4], biases[4] = {};
            unpack4(scales, items + e * bytes, j.scale_dtype);
            if (j.has_biases) {
                unpack4(biases, items + (n + e) * bytes, j.scale_dtype);
#pragma unroll
                for (int i = 0; i < 4; i++) biases[i] = fmaf(j.center, scales[i], biases[i]);
            }
            float4 *to = reinterpret_cast<float4 *>(table + e);
            to[0] = make_float4(scales[0], biases[0], scales[1], biases[1]);
            to[1] = make_float4(scales[2], biases[2], scales[3], biases[3]);
        }
    }
}

template <class Format, int TILES, int ROW_BLOCKS> struct multiplier {
    static constexpr int HALF = (TILES + 1) / 2, RUNS = SLOTS / TILES;
    static constexpr int CHAINS = Format::QUANTIZED ? 1 : RUNS; /* independent sums, for short chains of mma */

    const job &j;
    const unsigned char *x[ROW_BLOCKS]; /* the lane's 16 bytes of block 0 */
    const float *sums;                  /* of block 0, of the lane's two rows */
    const float2 *table;
    float acc[CHAINS][HALF][ROW_BLOCKS][4];

    __device__ multiplier(const job &j, unsigned char *memory, float2 *table) : j(j), table(table) {
        const int32_t lane = lane_id(), first_block = warp_id() * j.chunk * RUNS * Format::BLOCKS;
#pragma unroll
        for (int n = 0; n < ROW_BLOCKS; n++) {
            /* A row too many is some row again: its results are not stored. */
            const int32_t row = min(8 * n + lane / 4, j.n_row - 1);
            x[n] = memory + j.x_at + row * j.x_stride + first_block * 64 + lane % 4 * 16;
        }
        sums = reinterpret_cast<const float *>(memory + j.sums_at) + first_block * (8 * ROW_BLOCKS) + lane % 4 * 2;
    }

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < CHAINS * HALF * ROW_BLOCKS * 4; i++) (&acc[0][0][0][0])[i] = 0;
    }

    /* Multiply a step; `local`: its number in the chunk of x. */
    __device__ void multiply(const uint4 (&codes)[SLOTS], int32_t step, int32_t local) {
#pragma unroll
        for (int u = 0; u < RUNS; u++) {
            const int32_t run = (step * RUNS + u) * WARPS + warp_id();
            if (run >= j.n_run) break;
            if constexpr (Format::QUANTIZED) {
                multiply_quantized(codes, u, run, local * RUNS + u);
            } else {
                multiply_dense(codes, u, local * RUNS + u);
            }
        }
    }

    /* Store the warp's sums as {n_row, PARTIAL_STRIDE}. */
    __device__ void store(float *partials) {
        const int32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (int p = 0; p < HALF; p++) {
#pragma unroll
            for (int n = 0; n < ROW_BLOCKS; n++) {
#pragma unroll
                for (int i = 0; i < (TILES > 1 ? 4 : 2); i++) {
                    float sum = acc[0][p][n][i];
#pragma unroll
                    for (int c = 1; c < CHAINS; c++) sum += acc[c][p][n][i];
                    const int32_t row = 8 * n + 2 * t + i % 2;
                    if (row < j.n_row) partials[row * PARTIAL_STRIDE<TILES> + 8 * (p + i / 2 * HALF) + g] = sum;
                }
            }
        }
    }

  private:
    __device__ void multiply_dense(const uint4 (&codes)[SLOTS], int u, int32_t local_run) {
#pragma unroll
        for (int n = 0; n < ROW_BLOCKS; n++) {
            const uint4 b = *reinterpret_cast<const uint4 *>(x[n] + local_run * 64);
#pragma unroll
            for (int p = 0; p < HALF; p++) {
                const uint4 lo = codes[u * TILES + p];
                const uint4 hi = TILES > 1 ? codes[(u * TILES + p + HALF) % SLOTS] : make_uint4(0, 0, 0, 0);
                mma(acc[u % CHAINS][p][n], lo.x, lo.y, hi.x, hi.y, b.x, b.y);
                mma(acc[u % CHAINS][p][n], lo.z, lo.w, hi.z, hi.w, b.z, b.w);
            }
        }
    }

    __device__ void multiply_quantized(const uint4 (&codes)[SLOTS], int u, int32_t run, int32_t local_run) {
        const int32_t first_group = group_of(j, run * Format::BLOCKS);
#pragma unroll
        for (int b = 0; b < Format::BLOCKS; b++) {
            const int32_t local = local_run * Format::BLOCKS + b;
            const int32_t item = (group_of(j, run * Format::BLOCKS + b) - first_group) * SLOTS + u * TILES;
            uint4 in[ROW_BLOCKS];
            float2 sum[ROW_BLOCKS];
#pragma unroll
            for (int n = 0; n < ROW_BLOCKS; n++) {
                in[n] = *reinterpret_cast<const uint4 *>(x[n] + local * 64);
                if (j.has_biases) sum[n] = *reinterpret_cast<const float2 *>(sums + local * (8 * ROW_BLOCKS) + 8 * n);
            }
#pragma unroll
            for (int p = 0; p < HALF; p++) {
                uint32_t lo[4], hi[4] = {};
                Format::decode(lo, codes[u * TILES + p], b, j.minus);
                if (TILES > 1) Format::decode(hi, codes[(u * TILES + p + HALF) % SLOTS], b, j.minus);
                const float2 s = scale_at(item + p), s_hi = TILES > 1 ? scale_at(item + p + HALF) : make_float2(0, 0);
#pragma unroll
                for (int n = 0; n < ROW_BLOCKS; n++) {
                    float d[4] = {}, (&to)[4] = acc[0][p][n];
                    mma(d, lo[0], lo[1], hi[0], hi[1], in[n].x, in[n].y);
                    mma(d, lo[2], lo[3], hi[2], hi[3], in[n].z, in[n].w);
                    to[0] = fmaf(s.x, d[0], to[0]);
                    to[1] = fmaf(s.x, d[1], to[1]);
                    to[2] = fmaf(s_hi.x, d[2], to[2]);
                    to[3] = fmaf(s_hi.x, d[3], to[3]);
                    if (!Format::OUTPUT_SCALES || !j.has_biases) continue;
                    to[0] = fmaf(s.y, sum[n].x, to[0]);
                    to[1] = fmaf(s.y, sum[n].y, to[1]);
                    to[2] = fmaf(s_hi.y, sum[n].x, to[2]);
                    to[3] = fmaf(s_hi.y, sum[n].y, to[3]);
                }
            }
        }
    }

    __device__ float2 scale_at(int32_t item) const {
        return table[Format::OUTPUT_SCALES ? item * 8 + lane_id() / 4 : item];
    }
};

/* Adds the sums of the warps, in order, and finishes the outputs of a pass. */
template <int TILES> struct epilogue {
    static constexpr int OUTPUTS = 8 * TILES, MOST = (OUTPUTS * ROWS + THREADS - 1) / THREADS;

    const job &j;
    int32_t column, n; /* of `out`: the pass's first, and their number */
    float added[MOST];

    /* What the sums are added to. Loaded early, since it comes from far. */
    __device__ epilogue(const job &j, int32_t column, int32_t n) : j(j), column(column), n(n) {
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            const int32_t row = (threadIdx.x + THREADS * i) / OUTPUTS, o = threadIdx.x % OUTPUTS;
            added[i] = 0;
            if (row >= j.n_row || o >= n || j.add[row] == nullptr) continue;
            if (j.add_dtype == QN_DTYPE_F32) {
                added[i] = __ldcg(static_cast<const float *>(j.add[row]) + column + o);
            } else {
                const unsigned short *add = static_cast<const unsigned short *>(j.add[row]);
                added[i] = scale_of(__ldcg(add + column + o), j.add_dtype);
            }
        }
    }

    /* squares: {ROWS, WARPS}, of the rows' inputs, for a norm. */
    __device__ void finish(const float *partials, const float4 *squares) const {
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            const int32_t row = (threadIdx.x + THREADS * i) / OUTPUTS, o = threadIdx.x % OUTPUTS;
            if (row >= j.n_row || o >= n) continue;
            const float factor = factor_of(squares + 2 * row);
            float y = factor * sum(partials, row, o);
            if (j.swiglu) {
                y = y / (1.0f + expf(-y)) * (factor * sum(partials, row, o + OUTPUTS / 2));
            } else if (j.add[row] != nullptr) {
                y += added[i];
            }
            qni::store(j.out[row], j.out_dtype, column + o, y);
        }
    }

  private:
    /* 1 / rms of a row. */
    __device__ float factor_of(const float4 *squares) const {
        if (j.norm == nullptr) return 1;
        const float4 a = squares[0], b = squares[1];
        const float sum = ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
        return rsqrtf(sum / static_cast<float>(j.n_in) + j.eps);
    }

    __device__ float sum(const float *partials, int32_t row, int32_t o) const {
        const float *at = partials + row * PARTIAL_STRIDE<TILES> + o;
        float y = at[0];
#pragma unroll
        for (int w = 1; w < WARPS; w++) y += at[w * j.n_row * PARTIAL_STRIDE<TILES>];
        return y;
    }
};

/* Blocks of threads whose registers an SM holds, the next kernel's among them: as many as cost no spills in the loop. */
template <class Format, int TILES, int ROW_BLOCKS>
constexpr int RESIDENT = Format::QUANTIZED              ? (ROW_BLOCKS == 1 && Format::BLOCKS < 8 ? 3 : 2)
                         : ROW_BLOCKS == 1 && TILES > 1 ? 4
                         : ROW_BLOCKS == 1 || TILES > 1 ? 3
                                                        : 2;

template <class Format, int TILES, int ROW_BLOCKS>
__global__ void __launch_bounds__(THREADS, RESIDENT<Format, TILES, ROW_BLOCKS>) kernel(const __grid_constant__ job j) {
    extern __shared__ __align__(128) unsigned char memory[];
    int32_t part = 0;
    if (!j.swiglu)
        while (part + 1 < j.n_part && static_cast<int32_t>(blockIdx.x) >= j.parts[part + 1].first_block) part++;
    const int32_t first = (blockIdx.x - j.parts[part].first_block) * j.n_unit;
    const int32_t n = min(j.n_unit, j.parts[part].n_tile - first);
    const uint32_t ring = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
    stream<Format, TILES> weights(j, ring, part, first, n);
    input<Format, TILES, ROW_BLOCKS> in(j, memory);
    if (j.norm != nullptr) in.load_norm();
#pragma unroll 1
    for (int32_t i = 0; i < j.depth; i++) {
        if (j.paced && i >= PACE) wait_groups<PACE - 1>();
        weights.load();
    }

    float2 *table = reinterpret_cast<float2 *>(memory + j.table_at) +
                    warp_id() * SLOTS * j.run_groups * (Format::OUTPUT_SCALES ? 8 : 1);
    multiplier<Format, TILES, ROW_BLOCKS> product(j, memory, table);
    float *partials = reinterpret_cast<float *>(memory + j.partials_at);
    const int32_t n_partial = j.n_row * PARTIAL_STRIDE<TILES>;
    wait_for_previous();
    let_next_start();

    int32_t slot = 0;
#pragma unroll 1
    for (int32_t done = 0; done < n; done += j.per_pass) {
        const int32_t units = min(j.per_pass, n - done);
        const epilogue<TILES> end(j, j.parts[part].column + (first + done) * 8, units * 8);
        if (done == 0 && j.norm != nullptr) wait_groups(j.depth); /* for its weights */
        if (done == 0) in.measure_rows();
        product.clear();
#pragma unroll 1
        for (int32_t step = 0, local = 0; step < j.n_step; step++, local++) {
            if (local == j.chunk) local = 0;
            if (local == 0 && (done == 0 || j.chunk < j.n_step))
                in.stage(step, j.norm != nullptr && j.raw_rows == j.n_row);
            wait_groups(j.depth - 1);
            __syncwarp();
            const unsigned char *at = memory + (slot * WARPS + warp_id()) * j.warp_step_bytes;
            uint4 codes[SLOTS];
#pragma unroll
            for (int s = 0; s < SLOTS; s++)
                codes[s] = *reinterpret_cast<const uint4 *>(at + s * SLOT_BYTES + lane_id() * 16);
            if constexpr (Format::QUANTIZED) {
                convert_scales<Format>(table, at + SLOTS * SLOT_BYTES, j);
                __syncwarp();
            }
            weights.load(); /* into the slots just read */
            product.multiply(codes, step, local);
            slot = slot + 1 == j.depth ? 0 : slot + 1;
        }
        product.store(partials + warp_id() * n_partial);
        __syncthreads();
        end.finish(partials, reinterpret_cast<const float4 *>(memory + j.squares_at));
        /* The next pass has the other half: this one is read until the next barrier. */
        partials += done / j.per_pass % 2 == 0 ? WARPS * n_partial : -WARPS * n_partial;
    }
}

} // namespace qni::skinny

#endif
