/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention for any dtype, head_dim and strides, in f32: the path of arith f32 and of level 1.
 *
 * A block of threads computes one query. Warp w takes positions w, w + 4, …, each with a partial softmax of its own; the
 * four are merged in order. So a query's result depends on its own position and keys only.
 */
#include "element.cuh"

namespace qni {

enum { WARPS = 4, LANES = 32, MAX_PAIRS = 8 /* head_dim 512 */ };

/* A row of a cache. */
__device__ void *cache_row(const qni_kv_layer &kv, bool value, const int32_t *blocks, int64_t head, int64_t p) {
    const qn_dtype dtype = value ? kv.v_dtype : kv.k_dtype;
    const int64_t block = blocks[p / kv.block_tokens], at = p % kv.block_tokens;
    const int64_t element = value ? block * kv.v_block_stride + head * kv.v_head_stride + at * kv.v_token_stride
                                  : block * kv.k_block_stride + head * kv.k_head_stride + at * kv.k_token_stride;
    return static_cast<unsigned char *>(value ? kv.v : kv.k) + element * element_bytes(dtype);
}

/* Element i of a row of a cache; q8: codes, padded to a multiple of four, then the scale (src/backend/kv.c). */
__device__ float load_cached(const void *row, qn_dtype dtype, int64_t i, int64_t head_dim) {
    if (dtype != QN_DTYPE_Q8) return load(row, dtype, i);
    const signed char *codes = static_cast<const signed char *>(row);
    return static_cast<float>(codes[i]) * *reinterpret_cast<const float *>(codes + (head_dim + 3) / 4 * 4);
}

/* Element i of a head after rotation: the pairs are (i, i + D/2). */
__device__ float rotated(const void *head, qn_dtype dtype, int64_t first, const float *cos_sin, int64_t i, int64_t d) {
    const int64_t half = d / 2, j = i < half ? i : i - half;
    const float a = load(head, dtype, first + j), b = load(head, dtype, first + half + j);
    const float c = cos_sin[j], s = cos_sin[half + j];
    return i < half ? __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s)) : __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
}

/* Write a row of one warp's elements {d}, which lane i % 32 holds in x[i / 32], to a cache. As qni_kv_store(). */
__device__ void store_cached(void *row, qn_dtype dtype, const float *x, int64_t d, int lane) {
    if (dtype != QN_DTYPE_Q8) {
        for (int64_t i = lane, n = 0; i < d; i += LANES, n++) store(row, dtype, i, x[n]);
        return;
    }
    uint32_t greatest = 0; /* of the bits of |x|: their order is that of the numbers, NaN above all */
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) greatest = max(greatest, __float_as_uint(x[n]) & 0x7FFFFFFFu);
    for (int k = 16; k > 0; k /= 2) greatest = max(greatest, __shfl_xor_sync(~0u, greatest, k));
    float scale = __fdiv_rn(__uint_as_float(greatest), 127);
    const bool is_any = isfinite(scale) && scale > 0;
    if (!isfinite(scale)) scale = __uint_as_float(0x7FC00000u);
    signed char *codes = static_cast<signed char *>(row);
    const int64_t padded = (d + 3) / 4 * 4;
    for (int64_t i = lane, n = 0; i < padded; i += LANES, n++) {
        float code = is_any && i < d ? __fdiv_rn(x[n], scale) : 0;
        code = fminf(fmaxf(code, -127), 127);
        codes[i] = static_cast<signed char>(__float2int_rn(code));
    }
    if (lane == 0) *reinterpret_cast<float *>(codes + padded) = scale;
}

/* One warp for each KV head of each token. */
__global__ void write_cache(qni_heads k, qni_heads v, qni_kv_layer kv, const float *cos_sin, qni_cuda_batch batch) {
    wait_for_previous();
    let_next_start();
    const int64_t t = blockIdx.x, head = blockIdx.y, d = kv.head_dim;
    const int lane = threadIdx.x;
    const int32_t *blocks = batch.block_table + static_cast<int64_t>(batch.tok_seq[t]) * batch.max_block;
    const int64_t p = batch.tok_pos[t];
    float x[2 * MAX_PAIRS];
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) {
        x[n] = rotated(row_of(k.rows, t), k.rows.dtype, head * k.head_stride, cos_sin + t * d, i, d);
    }
    store_cached(cache_row(kv, false, blocks, head, p), kv.k_dtype, x, d, lane);
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) {
        x[n] = load(row_of(v.rows, t), v.rows.dtype, head * v.head_stride + i);
    }
    store_cached(cache_row(kv, true, blocks, head, p), kv.v_dtype, x, d, lane);
}

/* A warp's partial softmax: the greatest score, the sum of weights, the weighted values of this lane. */
struct partial {
    float greatest, total, sum[2 * MAX_PAIRS];
};

__device__ void attend_position(partial *p, const float *q, const void *k_row, const void *v_row,
                                const qni_kv_layer &kv, int lane) {
    const int64_t d = kv.head_dim;
    float score = 0;
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) {
        score = fmaf(q[n], load_cached(k_row, kv.k_dtype, i, d), score);
    }
    for (int k = 16; k > 0; k /= 2) score += __shfl_xor_sync(~0u, score, k);
    const float greatest = fmaxf(p->greatest, score);
    const float before = expf(p->greatest - greatest), weight = expf(score - greatest);
    p->total = fmaf(p->total, before, weight);
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) {
        p->sum[n] = fmaf(weight, load_cached(v_row, kv.v_dtype, i, d), p->sum[n] * before);
    }
    p->greatest = greatest;
}

__global__ void __launch_bounds__(WARPS *LANES)
    attend(qni_mat out, qni_heads q, qni_kv_layer kv, const float *cos_sin, float scale, qni_cuda_batch batch) {
    __shared__ float greatest[WARPS], total[WARPS], sums[WARPS][2 * MAX_PAIRS * LANES];
    wait_for_previous();
    let_next_start();
    const int64_t t = blockIdx.x, head = blockIdx.y, d = kv.head_dim, group = head / (q.n_head / kv.n_kv_head);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int32_t *blocks = batch.block_table + static_cast<int64_t>(batch.tok_seq[t]) * batch.max_block;
    float mine[2 * MAX_PAIRS];
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) {
        mine[n] = scale * rotated(row_of(q.rows, t), q.rows.dtype, head * q.head_stride, cos_sin + t * d, i, d);
    }
    partial part = {-INFINITY, 0, {}};
    for (int64_t p = warp; p <= batch.tok_pos[t]; p += WARPS) {
        attend_position(&part, mine, cache_row(kv, false, blocks, group, p), cache_row(kv, true, blocks, group, p), kv,
                        lane);
    }
    if (lane == 0) greatest[warp] = part.greatest, total[warp] = part.total;
    for (int64_t i = lane, n = 0; i < d; i += LANES, n++) sums[warp][i] = part.sum[n];
    __syncthreads();
    float most = greatest[0], weight = 0; /* warp 0 has position 0: it is not empty */
    for (int w = 1; w < WARPS; w++) most = fmaxf(most, greatest[w]);
    for (int w = 0; w < WARPS; w++) weight += total[w] * expf(greatest[w] - most);
    for (int64_t i = threadIdx.x; i < d; i += WARPS * LANES) {
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += sums[w][i] * expf(greatest[w] - most);
        store(row_of(out, t), out.dtype, head * d + i, sum / weight);
    }
}

} // namespace qni

using namespace qni;

cudaError_t qni_cuda_attention(cudaStream_t stream, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                               const qni_kv_layer *kv, const float *cos_sin, double scale,
                               const qni_cuda_batch *batch) {
    const unsigned n_tok = static_cast<unsigned>(batch->n_tok);
    const cudaError_t error = launch(write_cache, dim3(n_tok, static_cast<unsigned>(kv->n_kv_head)), dim3(LANES), 0,
                                     stream, false, k, v, *kv, cos_sin, *batch);
    if (error != cudaSuccess) return error;
    return launch(attend, dim3(n_tok, static_cast<unsigned>(q.n_head)), dim3(WARPS * LANES), 0, stream, false, out, q,
                  *kv, cos_sin, static_cast<float>(scale), *batch);
}
