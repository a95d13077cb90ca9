/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both kernels of prefill attention share: tiles of queries, their way through shared memory, online softmax.
 *
 * Row i of a sequence is query head i % group, of those that share a KV head, of token i / group. A tile is some
 * consecutive rows of one sequence and one KV head. Packing the heads so makes a short sequence, even of one token,
 * read its keys once for the whole group, and costs a long one nothing.
 *
 * A row's result depends on its position and keys only: tiles of keys start at multiples of their size, are merged in
 * order, and a tile of keys that is hidden from a row changes none of its bits: its greatest score stays, all factors
 * are exactly 1 and all terms exactly 0. (Except for V that is infinite or NaN at later positions of the same tile.)
 */
#ifndef QNI_CUDA_PREFILL_TILE_CUH
#define QNI_CUDA_PREFILL_TILE_CUH

#include "element.cuh"

#include <type_traits>

namespace qni {

struct prefill_job {
    const void *q;
    void *out;
    qni_kv_layer kv;
    qni_cuda_batch batch;
    int32_t n_head, group;
    float scale; /* times log2(e): the softmax is one of powers of 2 */
};

struct prefill_tile {
    int32_t seq, kv_head;
    int32_t first_tok, first_pos; /* of the sequence in the step */
    int32_t first_row, n_row;     /* of the tile; of the sequence */
    int32_t n_key;                /* keys that the last row of the tile sees */
};

enum { PREFILL_GRANULE = 64 }; /* keys that are in one block for sure */

/*
 * Tiles of a KV head, where the host knows no lengths: sequence s has those from tok_begin[s] · group / rows + s on, and
 * some numbers are nobody's. The last is at most this - 1, because floor(x) + ceil(y) <= ceil(x + y).
 */
inline int64_t prefill_n_tile(const prefill_job &job, int32_t rows) {
    return (static_cast<int64_t>(job.batch.n_tok) * job.group + rows - 1) / rows + job.batch.n_seq - 1;
}

/* Tile `work` of all KV heads, the last tiles of the step, which tend to see the most keys, first. False: none. */
__device__ inline bool find_tile(prefill_tile *tile, const prefill_job &job, int32_t rows, int32_t n_tile,
                                 int32_t work) {
    const qni_cuda_batch &batch = job.batch;
    const int32_t n_kv_head = static_cast<int32_t>(job.kv.n_kv_head), index = n_tile - 1 - work / n_kv_head;
    int32_t seq = 0, n = batch.n_seq;
    while (n > 1) { /* invariant: it is one of the n from `seq` on */
        const int32_t half = n / 2, s = seq + half;
        if (batch.tok_begin[s] * job.group / rows + s <= index) {
            seq = s;
            n -= half;
        } else {
            n = half;
        }
    }
    tile->seq = seq;
    tile->kv_head = work % n_kv_head;
    tile->first_tok = batch.tok_begin[seq];
    tile->first_pos = batch.pos_begin[seq];
    tile->first_row = (index - (tile->first_tok * job.group / rows + seq)) * rows;
    tile->n_row = (batch.tok_begin[seq + 1] - tile->first_tok) * job.group;
    tile->n_key = tile->first_pos + (min(tile->first_row + rows, tile->n_row) - 1) / job.group + 1;
    return tile->first_row < tile->n_row;
}

/* The position of row r of a tile; a row past the sequence's last stands for that one. */
__device__ inline int32_t row_position(const prefill_tile &tile, const prefill_job &job, int32_t r) {
    return tile.first_pos + min(tile.first_row + r, tile.n_row - 1) / job.group;
}

/* The first element of row r of a tile, in q and in out. */
template <int D> __device__ int64_t row_at(const prefill_tile &tile, const prefill_job &job, int32_t r) {
    const int32_t row = min(tile.first_row + r, tile.n_row - 1);
    const int64_t tok = tile.first_tok + row / job.group;
    return (tok * job.n_head + tile.kv_head * job.group + row % job.group) * D;
}

/*
 * Where chunk c (8 elements) of a row is in a panel of ROWS rows in shared memory, in bytes: 64 elements of all rows,
 * then the next 64. The chunks of a row are exchanged such that 8 rows of one chunk lie in different banks; it is the
 * 128-byte swizzle of the tensor copies and of wgmma.
 */
template <int ROWS> __device__ uint32_t swizzled(int32_t row, int32_t c) {
    return static_cast<uint32_t>(c / 8 * (ROWS * 128) + row * 128 + (c % 8 ^ row % 8) * 16);
}

/* Load 16 rows of a tile, from tile row r on, to rows `to` … of a panel of 64. By one warp. */
template <typename T, int D>
__device__ void load_rows(unsigned char *panel, int32_t to, const prefill_tile &tile, const prefill_job &job,
                          int32_t r) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), n_chunk = D / 8;
    const T *q = static_cast<const T *>(job.q);
#pragma unroll
    for (int32_t i = 0; i < 16 * n_chunk / 32; i++) {
        const int32_t row = (32 * i + lane) / n_chunk, c = (32 * i + lane) % n_chunk;
        const uint4 chunk = *reinterpret_cast<const uint4 *>(q + row_at<D>(tile, job, r + row) + 8 * c);
        *reinterpret_cast<uint4 *>(panel + swizzled<64>(to + row, c)) = chunk;
    }
}

template <typename T> __device__ uint32_t pack(float low, float high) {
    uint32_t bits;
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        memcpy(&bits, &pair, sizeof bits);
    } else {
        const __half2 pair = __floats2half2_rn(low, high);
        memcpy(&bits, &pair, sizeof bits);
    }
    return bits;
}

/*
 * A thread holds parts of two rows of a warp's 16, lane / 4 and that plus 8. Element i of an array belongs to row
 * i / 2 % 2 of them and to column i / 4 · 8 + lane % 4 · 2 + i % 2: the layout of the tensor cores' results.
 */
struct softmax_state {
    float top[2]; /* the greatest score so far */
    float sum[2]; /* this thread's part */
};

/* Powers of 2; exactly 1 for 0 and 0 for -infinity. */
__device__ inline float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Hide keys beyond the rows' positions; the scores of memory that nobody wrote may be NaN. */
template <int N> __device__ void hide(float (&s)[N], int32_t first_key, const int32_t (&position)[2]) {
    const int32_t first = first_key + static_cast<int32_t>(threadIdx.x % 4) * 2;
#pragma unroll
    for (int32_t i = 0; i < N; i++)
        if (first + i / 4 * 8 + i % 2 > position[i / 2 % 2]) s[i] = -INFINITY;
}

/* Turn scores into their terms relative to the greatest so far. What was summed before is to be multiplied by shrink. */
template <int N> __device__ void softmax_step(float (&s)[N], softmax_state &state, float scale, float (&shrink)[2]) {
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float top = state.top[h];
#pragma unroll
        for (int32_t i = 2 * h; i < N; i += 4) top = fmaxf(top, fmaxf(s[i], s[i + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float from = top == -INFINITY ? 0.0f : top;
        shrink[h] = power_of_2(__fmul_rn(state.top[h] - from, scale));
        const float offset = __fmul_rn(from, scale);
        float even = 0.0f, odd = 0.0f;
#pragma unroll
        for (int32_t i = 2 * h; i < N; i += 4) {
            even += s[i] = power_of_2(fmaf(s[i], scale, -offset));
            odd += s[i + 1] = power_of_2(fmaf(s[i + 1], scale, -offset));
        }
        state.top[h] = top;
        state.sum[h] = fmaf(state.sum[h], shrink[h], even + odd);
    }
}

template <int N> __device__ void scale_rows(float (&o)[N], const float (&by)[2]) {
#pragma unroll
    for (int32_t i = 0; i < N; i++) o[i] *= by[i / 2 % 2];
}

/* Store 16 rows of results as load_rows loads them. The panel's rows `to` … are for this warp to use. */
template <typename T, int D>
__device__ void store_rows(float (&o)[D / 2], const softmax_state &state, unsigned char *panel, int32_t to,
                           const prefill_tile &tile, const prefill_job &job, int32_t r) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), n_chunk = D / 8;
    float by[2];
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float sum = state.sum[h] + __shfl_xor_sync(0xffffffffu, state.sum[h], 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        by[h] = 1.0f / sum;
    }
    scale_rows(o, by);
#pragma unroll
    for (int32_t c = 0; c < n_chunk; c++) {
        const uint32_t at = swizzled<64>(to + lane / 4, c) + lane % 4 * 4; /* 8 rows further it is swizzled alike */
        *reinterpret_cast<uint32_t *>(panel + at) = pack<T>(o[4 * c], o[4 * c + 1]);
        *reinterpret_cast<uint32_t *>(panel + at + 8 * 128) = pack<T>(o[4 * c + 2], o[4 * c + 3]);
    }
    __syncwarp();
    T *out = static_cast<T *>(job.out);
#pragma unroll
    for (int32_t i = 0; i < 16 * n_chunk / 32; i++) {
        const int32_t row = (32 * i + lane) / n_chunk, c = (32 * i + lane) % n_chunk;
        if (tile.first_row + r + row >= tile.n_row) continue;
        const uint4 chunk = *reinterpret_cast<const uint4 *>(panel + swizzled<64>(to + row, c));
        *reinterpret_cast<uint4 *>(out + row_at<D>(tile, job, r + row) + 8 * c) = chunk;
    }
}

} // namespace qni

#endif
