/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The skinny kernel: few rows times a weight, at the rate at which memory gives the weight.
 *
 * A tile is 8 outputs. A row of a weight is divided into runs of 64 bytes (layout.h; of a dense row: 32 inputs), which are
 * dealt to the 8 warps of a block round robin. A block computes TILES tiles in a pass. A lane loads its 16 bytes of a run
 * straight to registers, a batch ahead of what it multiplies; the first two before the previous kernel has ended.
 * Weights are the A operand of mma.m16n8k16, two tiles of it; rows of x, in shared memory as bf16, are the columns of B.
 *
 * RMS norm: what is multiplied is bf16(x · norm), the factor 1 / rms comes to the sums at the end. So the products need
 * not wait for it.
 *
 * An output is the sum, in this order, of the warps' sums, each over its runs in ascending order (even and odd ones
 * apart). Nothing of it depends on the number of rows, on the other rows, or on TILES.
 */
#ifndef QNI_CUDA_SKINNY_KERNEL_CUH
#define QNI_CUDA_SKINNY_KERNEL_CUH

#include "skinny_format.cuh"

namespace qni::skinny {

constexpr int WARPS = 8, THREADS = 32 * WARPS;
/* Loads of a lane in a batch; one batch is multiplied while the next is under way. Codes take registers to decode. */
template <class Format> constexpr int BATCH = Format::QUANTIZED ? 4 : 8;
constexpr int ROWS = QNI_CUDA_SKINNY_ROWS;

/* One weight. */
struct part {
    const unsigned char *codes, *scales, *biases;
    int32_t first_tile, n_scale_out;
};

struct matrix {
    unsigned char *data; /* NULL: none */
    int64_t row_bytes;
    qn_dtype dtype;
};

struct job {
    part parts[3];
    int32_t n_part, n_tile, n_pass;
    bool swiglu;
    int32_t n_row, n_in, n_run, chunk_runs; /* runs whose x is in shared memory at a time, a multiple of WARPS */
    int64_t row_bytes;
    matrix x, out, add;
    const void *norm;
    qn_dtype norm_dtype;
    float eps;
    /* Scales: blocks of 32 inputs per group, as a shift; W = scale · (code - center) + bias. */
    int32_t group_shift, n_group, group_out;
    qn_dtype scale_dtype;
    bool has_biases;
    uint32_t minus;
    float center;
    /* Shared memory: bytes per row of x, then where the parts are. */
    int32_t x_stride, scales_at, sums_at, squares_at, partials_at;
};

__device__ inline int32_t lane_id() {
    return static_cast<int32_t>(threadIdx.x) % 32;
}
__device__ inline int32_t warp_id() {
    return static_cast<int32_t>(threadIdx.x) / 32;
}

__device__ inline uint4 load_weights(const unsigned char *at) {
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(at));
    return x;
}

/* Tiles of a pass: tile i of the pass is lo (even i) or hi (odd i) of pair i / 2. */
template <class Format, int TILES> struct tiles_of {
    const unsigned char *codes[TILES]; /* of this lane, at run warp_id(); NULL: beyond the last tile */
    int32_t tile[TILES];               /* within its weight */
    int32_t which[TILES];              /* the weight */

    __device__ tiles_of(const job &j, int32_t pass) {
        const int32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            int32_t all = j.swiglu ? pass * (TILES / 2) + i / 2 : pass * TILES + i;
            which[i] = 0;
            const bool is_there = all < j.n_tile;
            if (j.swiglu) {
                which[i] = i % 2;
            } else {
                while (which[i] + 1 < j.n_part && all >= j.parts[which[i] + 1].first_tile) which[i]++;
                all -= j.parts[which[i]].first_tile;
            }
            tile[i] = all;
            codes[i] = is_there ? j.parts[which[i]].codes + (static_cast<int64_t>(all) * 8 + g) * j.row_bytes +
                                      warp_id() * 64 + t * 16
                                : nullptr;
        }
    }

    /* Batch b: BATCH / TILES runs of each tile. */
    __device__ void load(uint4 (&to)[BATCH<Format>], const job &j, int32_t b) const {
#pragma unroll
        for (int k = 0; k < BATCH<Format>; k++) {
            const int32_t local = b * (BATCH<Format> / TILES) + k / TILES;
            const bool is_there = local * WARPS + warp_id() < j.n_run && codes[k % TILES] != nullptr;
            to[k] = is_there ? load_weights(codes[k % TILES] + static_cast<int64_t>(local) * (64 * WARPS))
                             : make_uint4(0, 0, 0, 0);
        }
    }
};

/* --- x on its way to shared memory --- */

__device__ inline float4 load4(const unsigned char *row, qn_dtype dtype, int32_t i) {
    if (dtype == QN_DTYPE_F32) return __ldcg(reinterpret_cast<const float4 *>(row + 4ll * i));
    const uint2 x = __ldcg(reinterpret_cast<const uint2 *>(row + 2ll * i));
    if (dtype == QN_DTYPE_F16) {
        const float2 a = __half22float2(*reinterpret_cast<const __half2 *>(&x.x));
        const float2 b = __half22float2(*reinterpret_cast<const __half2 *>(&x.y));
        return make_float4(a.x, a.y, b.x, b.y);
    }
    return make_float4(__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xFFFF0000u), __uint_as_float(x.y << 16),
                       __uint_as_float(x.y & 0xFFFF0000u));
}

/* Inputs [first, first + n) of all rows that are bf16 already, by asynchronous copies: they take no registers. */
__device__ inline void copy_rows(const job &j, unsigned char *memory, int32_t first, int32_t n) {
    const int32_t units = n / 8, all = units * j.n_row;
    int32_t row = threadIdx.x / units, at = threadIdx.x % units;
    for (int32_t k = threadIdx.x; k < all; k += THREADS) {
        const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(memory + row * j.x_stride + at * 16));
        const unsigned char *from = j.x.data + row * j.x.row_bytes + 2 * first + 16 * at;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
        for (at += THREADS; at >= units; at -= units) row++;
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/*
 * The same of any dtype and with a norm, rounded, as one list of fours; with a norm n is a multiple of 128. `counts`: add
 * the squares of the inputs to each warp's sums, for the norm.
 */
__device__ inline void convert_rows(const job &j, unsigned char *memory, int32_t first, int32_t n, bool counts) {
    constexpr int DEPTH = 2; /* loads come first: each takes as long as all of them */
    float *squares = reinterpret_cast<float *>(memory + j.squares_at) + warp_id() * ROWS;
    const int32_t fours = n / 4, all = fours * j.n_row;
    int32_t row = threadIdx.x / fours, at = threadIdx.x % fours;
    for (int32_t begin = threadIdx.x; begin < all; begin += DEPTH * THREADS) {
        float4 v[DEPTH], w[DEPTH];
        int32_t rows[DEPTH], fourth[DEPTH];
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            rows[k] = row, fourth[k] = at;
            w[k] = make_float4(1, 1, 1, 1);
            if (begin + k * THREADS < all) {
                v[k] = load4(j.x.data + row * j.x.row_bytes, j.x.dtype, first + 4 * at);
                if (j.norm != nullptr) {
                    w[k] = load4(static_cast<const unsigned char *>(j.norm), j.norm_dtype, first + 4 * at);
                }
            }
            for (at += THREADS; at >= fours; at -= fours) row++;
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            if (begin + k * THREADS >= all) break;
            const float4 x = v[k];
            if (counts) { /* a warp's inputs are of one row */
                float square = fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, x.w * x.w)));
#pragma unroll
                for (int i = 16; i > 0; i /= 2) square += __shfl_xor_sync(~0u, square, i);
                if (lane_id() == 0) squares[rows[k]] += square;
            }
            *reinterpret_cast<uint2 *>(memory + rows[k] * j.x_stride + fourth[k] * 8) =
                make_uint2(bits_of(__floats2bfloat162_rn(x.x * w[k].x, x.y * w[k].y)),
                           bits_of(__floats2bfloat162_rn(x.z * w[k].z, x.w * w[k].w)));
        }
    }
}

/* Sums of the rounded inputs of each block of 32 of each row, for biases. */
__device__ inline void sum_blocks(const job &j, unsigned char *memory, int32_t n) {
    float *sums = reinterpret_cast<float *>(memory + j.sums_at);
    const int32_t blocks = n / 32;
    for (int32_t k = threadIdx.x; k < blocks * j.n_row; k += THREADS) {
        const int32_t row = k / blocks, block = k % blocks;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 x = *reinterpret_cast<const uint4 *>(memory + row * j.x_stride + block * 64 + i * 16);
            const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int c = 0; c < 4; c++) {
                sum += __uint_as_float(words[c] << 16) + __uint_as_float(words[c] & 0xFFFF0000u);
            }
        }
        sums[block * ROWS + row] = sum;
    }
}

template <class Format>
__device__ void stage(const job &j, unsigned char *memory, int32_t first, int32_t n, bool counts) {
    if (j.norm == nullptr && j.x.dtype == QN_DTYPE_BF16) {
        copy_rows(j, memory, first, n);
    } else {
        convert_rows(j, memory, first, n, counts);
    }
    if (Format::QUANTIZED && j.has_biases) {
        __syncthreads();
        sum_blocks(j, memory, n);
    }
}

/* The scales and biases of the pass's tiles: {n_group, 8 · TILES}, biases behind scales. */
template <class Format, int TILES>
__device__ void stage_scales(const job &j, unsigned char *memory, const tiles_of<Format, TILES> &tiles) {
    const int32_t element = j.scale_dtype == QN_DTYPE_F32 ? 4 : 2, n = j.n_group * TILES * 8;
    unsigned char *to = memory + j.scales_at;
    for (int32_t e = threadIdx.x; e < n; e += THREADS) {
        const int32_t g = e / (TILES * 8), o = e % (TILES * 8);
        int32_t i = 0; /* the tile: without indexing registers by a number that is not known at compile time */
        int32_t tile = tiles.tile[0], which = tiles.which[0];
#pragma unroll
        for (i = 1; i < TILES; i++) {
            if (o / 8 == i) tile = tiles.tile[i], which = tiles.which[i];
        }
        const part &p = j.parts[which];
        const int32_t out = tile * 8 + o % 8;
        const int64_t at = static_cast<int64_t>(g) * p.n_scale_out + (Format::OUTPUT_SCALES ? out : out / j.group_out);
        if ((Format::OUTPUT_SCALES ? out : out / j.group_out) >= p.n_scale_out) continue;
        if (element == 4) {
            reinterpret_cast<uint32_t *>(to)[e] = __ldg(reinterpret_cast<const uint32_t *>(p.scales) + at);
            if (j.has_biases) {
                reinterpret_cast<uint32_t *>(to)[n + e] = __ldg(reinterpret_cast<const uint32_t *>(p.biases) + at);
            }
        } else {
            reinterpret_cast<uint16_t *>(to)[e] = __ldg(reinterpret_cast<const uint16_t *>(p.scales) + at);
            if (j.has_biases) {
                reinterpret_cast<uint16_t *>(to)[n + e] = __ldg(reinterpret_cast<const uint16_t *>(p.biases) + at);
            }
        }
    }
}

__device__ inline float staged(const unsigned char *values, int32_t i, qn_dtype dtype) {
    if (dtype == QN_DTYPE_F32) return reinterpret_cast<const float *>(values)[i];
    return scale_of(reinterpret_cast<const uint16_t *>(values)[i], dtype);
}

/* --- products --- */

template <class Format, int TILES, int ROW_BLOCKS> struct sums_of {
    static constexpr int PAIRS = (TILES + 1) / 2, RUNS = BATCH<Format> / TILES;
    float acc[2][PAIRS][ROW_BLOCKS][4]; /* of even and odd runs */

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 2 * PAIRS * ROW_BLOCKS * 4; i++) (&acc[0][0][0][0])[i] = 0;
    }

    /* Batch b; x in shared memory starts at run chunk_first. */
    __device__ void multiply(const job &j, const unsigned char *memory, const uint4 (&codes)[BATCH<Format>], int32_t b,
                             int32_t chunk_first) {
        const int32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (int u = 0; u < RUNS; u++) {
            const int32_t local = b * RUNS + u, run = local * WARPS + warp_id();
            if (run >= j.n_run) break;
            const unsigned char *x[ROW_BLOCKS];
#pragma unroll
            for (int n = 0; n < ROW_BLOCKS; n++) { /* a row too many is some row again: its sums are not used */
                x[n] = memory + min(8 * n + g, j.n_row - 1) * j.x_stride + (run - chunk_first) * (Format::BLOCKS * 64) +
                       t * 16;
            }
            float (&to)[PAIRS][ROW_BLOCKS][4] = acc[RUNS > 1 ? u % 2 : 0];
            if constexpr (Format::QUANTIZED) {
                multiply_codes(j, memory, to, x, codes, u, run, chunk_first);
            } else {
#pragma unroll
                for (int n = 0; n < ROW_BLOCKS; n++) {
                    const uint4 in = *reinterpret_cast<const uint4 *>(x[n]);
#pragma unroll
                    for (int p = 0; p < PAIRS; p++) {
                        const uint4 lo = codes[u * TILES + 2 * p];
                        const uint4 hi = TILES > 1 ? codes[(u * TILES + 2 * p + 1) % BATCH<Format>] : make_uint4(0, 0, 0, 0);
                        mma(to[p][n], lo.x, lo.y, hi.x, hi.y, in.x, in.y);
                        mma(to[p][n], lo.z, lo.w, hi.z, hi.w, in.z, in.w);
                    }
                }
            }
        }
    }

    /* The warp's sums to {n_row, 8 · TILES + 4}. */
    __device__ void store(const job &j, float *partials) const {
        const int32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
#pragma unroll
            for (int n = 0; n < ROW_BLOCKS; n++) {
#pragma unroll
                for (int i = 0; i < (TILES > 1 ? 4 : 2); i++) {
                    const int32_t row = 8 * n + 2 * t + i % 2;
                    if (row >= j.n_row) continue;
                    partials[row * (8 * TILES + 4) + 8 * (2 * p + i / 2) + g] = acc[0][p][n][i] + acc[1][p][n][i];
                }
            }
        }
    }

  private:
    __device__ void multiply_codes(const job &j, const unsigned char *memory, float (&to)[PAIRS][ROW_BLOCKS][4],
                                   const unsigned char *const (&x)[ROW_BLOCKS], const uint4 (&codes)[BATCH<Format>], int u,
                                   int32_t run, int32_t chunk_first) {
        const int32_t g = lane_id() / 4, t = lane_id() % 4, bias_at = j.n_group * TILES * 8;
        const unsigned char *scales = memory + j.scales_at;
        const float *sums = reinterpret_cast<const float *>(memory + j.sums_at);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            float d[ROW_BLOCKS][4] = {}, sum[ROW_BLOCKS][2] = {};
#pragma unroll
            for (int b = 0; b < Format::BLOCKS; b++) {
                const int32_t block = run * Format::BLOCKS + b;
                if (block * 32 >= j.n_in) break;
                uint32_t lo[4], hi[4] = {};
                Format::decode(lo, codes[u * TILES + 2 * p], b, j.minus);
                if (TILES > 1) Format::decode(hi, codes[(u * TILES + 2 * p + 1) % BATCH<Format>], b, j.minus);
#pragma unroll
                for (int n = 0; n < ROW_BLOCKS; n++) {
                    const uint4 in = *reinterpret_cast<const uint4 *>(x[n] + b * 64);
                    mma(d[n], lo[0], lo[1], hi[0], hi[1], in.x, in.y);
                    mma(d[n], lo[2], lo[3], hi[2], hi[3], in.z, in.w);
                    if (j.has_biases) {
                        const float2 s = *reinterpret_cast<const float2 *>(
                            sums + (block - chunk_first * Format::BLOCKS) * ROWS + 8 * n + 2 * t);
                        sum[n][0] += s.x, sum[n][1] += s.y;
                    }
                }
                const bool ends = b + 1 == Format::BLOCKS || (block + 1) >> j.group_shift != block >> j.group_shift ||
                                  (block + 1) * 32 >= j.n_in;
                if (!ends) continue;
                const int32_t at = (block >> j.group_shift) * (TILES * 8) + 16 * p + g;
                const float s_lo = staged(scales, at, j.scale_dtype);
                const float s_hi = TILES > 1 ? staged(scales, at + 8, j.scale_dtype) : 0;
                float b_lo = 0, b_hi = 0;
                if (j.has_biases) {
                    b_lo = fmaf(j.center, s_lo, staged(scales, bias_at + at, j.scale_dtype));
                    if (TILES > 1) b_hi = fmaf(j.center, s_hi, staged(scales, bias_at + at + 8, j.scale_dtype));
                }
#pragma unroll
                for (int n = 0; n < ROW_BLOCKS; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        to[p][n][i] = fmaf(i < 2 ? s_lo : s_hi, d[n][i], to[p][n][i]);
                        if (j.has_biases) to[p][n][i] = fmaf(i < 2 ? b_lo : b_hi, sum[n][i % 2], to[p][n][i]);
                        d[n][i] = 0;
                    }
                    sum[n][0] = sum[n][1] = 0;
                }
            }
        }
    }
};

/* --- the end of a pass --- */

/* 1 / rms of each row from the warps' sums of squares {WARPS, ROWS}; 1 without a norm. */
__device__ inline float factor_of(const job &j, const unsigned char *memory, int32_t row) {
    if (j.norm == nullptr) return 1;
    const float *squares = reinterpret_cast<const float *>(memory + j.squares_at);
    float sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += squares[w * ROWS + row];
    return 1 / sqrtf(sum / static_cast<float>(j.n_in) + j.eps);
}

template <int TILES> __device__ float total_of(const job &j, const float *partials, int32_t row, int32_t o) {
    const float *at = partials + row * (8 * TILES + 4) + o;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += at[w * j.n_row * (8 * TILES + 4)];
    return sum;
}

/* The output of a thread in a pass: there are at most THREADS of them. */
template <int TILES> struct output {
    int32_t row, o, column;
    bool is_there;

    __device__ output(const job &j, int32_t pass) {
        const int32_t n_out = j.swiglu ? 4 * TILES : 8 * TILES;
        row = threadIdx.x / n_out, o = threadIdx.x % n_out;
        column = pass * n_out + o;
        is_there = row < j.n_row && column < j.n_tile * 8;
    }

    /* What the sum is added to. Loaded early, since it comes from far. */
    __device__ float before(const job &j) const {
        const bool adds = is_there && j.add.data != nullptr;
        return adds ? load(j.add.data + row * j.add.row_bytes, j.add.dtype, column) : 0;
    }

    /* Add the warps' sums, in order, and write it. */
    __device__ void finish(const job &j, const unsigned char *memory, const float *partials, float added) const {
        if (!is_there) return;
        const float factor = factor_of(j, memory, row);
        float y;
        if (j.swiglu) { /* 8 outputs of gate, then the same of up */
            const float gate = factor * total_of<TILES>(j, partials, row, o);
            y = gate / (1 + __expf(-gate)) * (factor * total_of<TILES>(j, partials, row, o + 8));
        } else {
            y = factor * total_of<TILES>(j, partials, row, o) + added;
        }
        store(j.out.data + row * j.out.row_bytes, j.out.dtype, column, y);
    }
};

template <class Format, int TILES, int ROW_BLOCKS>
__global__ void __launch_bounds__(THREADS, 2) kernel(const __grid_constant__ job j) {
    extern __shared__ __align__(128) unsigned char memory[];
    constexpr int RUNS = BATCH<Format> / TILES;
    const int32_t n_batch = (j.n_run + WARPS * RUNS - 1) / (WARPS * RUNS);
    uint4 now[BATCH<Format>], next[BATCH<Format>];
    tiles_of<Format, TILES> tiles(j, blockIdx.x);
    tiles.load(now, j, 0);
    if (n_batch > 1) tiles.load(next, j, 1);
    if constexpr (Format::QUANTIZED) stage_scales<Format>(j, memory, tiles);
    if (j.norm != nullptr) {
        if (threadIdx.x < WARPS * ROWS) reinterpret_cast<float *>(memory + j.squares_at)[threadIdx.x] = 0;
        const int64_t at = 128ll * threadIdx.x; /* a line of the norm's weights */
        const int64_t end = j.n_in * static_cast<int64_t>(j.norm_dtype == QN_DTYPE_F32 ? 4 : 2);
        if (at < end) asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char *>(j.norm) + at));
        __syncthreads();
    }
    wait_for_previous();
    let_next_start();

    sums_of<Format, TILES, ROW_BLOCKS> sums;
    int turn = 0;
    for (int32_t pass = blockIdx.x; pass < j.n_pass; pass += gridDim.x, turn ^= 1) {
        const bool is_first = pass == static_cast<int32_t>(blockIdx.x), is_last = pass + gridDim.x >= j.n_pass;
        const output<TILES> mine(j, pass);
        const float added = mine.before(j);
        sums.clear();
        for (int32_t b = 0; b < n_batch; b++) {
            const int32_t first_run = b * RUNS * WARPS, chunk_first = first_run / j.chunk_runs * j.chunk_runs;
            if (first_run == chunk_first && (is_first || j.chunk_runs < j.n_run)) {
                if (b > 0 || !is_first) __syncthreads(); /* the chunk before is used no more */
                const int32_t first = chunk_first * Format::BLOCKS * 32, all = j.chunk_runs * Format::BLOCKS * 32;
                stage<Format>(j, memory, first, min(all, j.n_in - first), is_first && j.norm != nullptr);
                __syncthreads();
            }
            sums.multiply(j, memory, now, b, chunk_first);
#pragma unroll
            for (int k = 0; k < BATCH<Format>; k++) now[k] = next[k];
            if (b + 2 < n_batch) {
                tiles.load(next, j, b + 2);
            } else if (!is_last) { /* the next pass's first two batches */
                const tiles_of<Format, TILES> ahead(j, pass + gridDim.x);
                if (n_batch == 1) {
                    ahead.load(now, j, 0);
                } else {
                    ahead.load(next, j, b + 2 - n_batch);
                }
            }
        }
        float *partials = reinterpret_cast<float *>(memory + j.partials_at) + turn * WARPS * j.n_row * (8 * TILES + 4);
        sums.store(j, partials + warp_id() * j.n_row * (8 * TILES + 4));
        __syncthreads();
        mine.finish(j, memory, partials, added);
        if (!is_last) {
            tiles = tiles_of<Format, TILES>(j, pass + gridDim.x);
            if constexpr (Format::QUANTIZED) {
                stage_scales<Format>(j, memory, tiles);
                __syncthreads();
            }
        }
    }
}

} // namespace qni::skinny

#endif
