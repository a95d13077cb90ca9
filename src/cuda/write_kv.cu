/* SPDX-License-Identifier: Apache-2.0 */
/* The queries, keys and values of many tokens: normalized, rotated, and written where prefill reads them. */
#include "heads.cuh"

namespace qni {
namespace {

constexpr int n_warp = 8;

struct write_args {
    qni_mat qkv;
    qni_vec q_norm, k_norm;
    float eps;
    const float *cos_sin;
    const int32_t *tok_seq, *tok_pos, *block_table;
    int32_t max_block;
    int n_head;
    qni_kv_layer kv;
    void *q;
    qn_dtype q_dtype;
};

__device__ void *cache_row(const write_args &a, bool is_v, int head, int64_t token) {
    const qni_kv_layer &kv = a.kv;
    const int64_t pos = a.tok_pos[token], index = pos / kv.block_tokens;
    const int64_t block = a.block_table[static_cast<int64_t>(a.tok_seq[token]) * a.max_block + index];
    const int64_t in_block = pos - index * kv.block_tokens;
    const int64_t at = is_v ? block * kv.v_block_stride + head * kv.v_head_stride + in_block * kv.v_token_stride
                            : block * kv.k_block_stride + head * kv.k_head_stride + in_block * kv.k_token_stride;
    return static_cast<unsigned char *>(is_v ? kv.v : kv.k) + at * element_bytes(is_v ? kv.v_dtype : kv.k_dtype);
}

/* A warp for each token (x) and head (y) of q, then k, then v. */
template <int P> __global__ void __launch_bounds__(32 * n_warp) write_kv_kernel(const __grid_constant__ write_args a) {
    const int head_dim = static_cast<int>(a.kv.head_dim), half = head_dim / 2;
    const int n_kv_head = static_cast<int>(a.kv.n_kv_head);
    const int slot = static_cast<int>(blockIdx.y * n_warp + threadIdx.x / 32);
    const int64_t token = blockIdx.x;
    if (slot >= a.n_head + 2 * n_kv_head) return;
    const bool is_q = slot < a.n_head, is_v = slot >= a.n_head + n_kv_head;
    warp_head<P> h = load_head<P>(row_of(a.qkv, token), a.qkv.dtype, static_cast<int64_t>(slot) * head_dim, half);
    if (!is_v) {
        const qni_vec &norm = is_q ? a.q_norm : a.k_norm;
        const warp_head<P> cos_sin = load_pairs<P>(a.cos_sin + token * head_dim, half);
        if (norm.data != nullptr) normalize(h, load_head<P>(norm.data, norm.dtype, 0, half), a.eps, head_dim);
        rotate(h, cos_sin);
    }
    if (is_q) {
        const int64_t at = (token * a.n_head + slot) * head_dim;
        store_row(static_cast<unsigned char *>(a.q) + at * element_bytes(a.q_dtype), a.q_dtype, h, half);
    } else {
        const int head = slot - a.n_head - (is_v ? n_kv_head : 0);
        store_row(cache_row(a, is_v, head, token), is_v ? a.kv.v_dtype : a.kv.k_dtype, h, half);
    }
}

} // namespace
} // namespace qni

/* q has the dtype of the keys in the cache, for q8 bf16. head_dim: a multiple of 4 up to 256. */
extern "C" cudaError_t qni_cuda_write_kv(cudaStream_t stream, void *q, const qni_cuda_heads *job) {
    const qni_cuda_batch *b = job->batch;
    const int64_t head_dim = job->kv.head_dim;
    if (head_dim % 4 != 0 || head_dim > 256) return cudaErrorInvalidValue;
    if (b->n_tok == 0) return cudaSuccess;
    qni::write_args a = {};
    a.qkv = job->qkv;
    a.q_norm = job->q_norm;
    a.k_norm = job->k_norm;
    a.eps = static_cast<float>(job->eps);
    a.cos_sin = job->cos_sin;
    a.tok_seq = b->tok_seq;
    a.tok_pos = b->tok_pos;
    a.block_table = b->block_table;
    a.max_block = b->max_block;
    a.n_head = static_cast<int>(job->n_head);
    a.kv = job->kv;
    a.q = q;
    a.q_dtype = job->kv.k_dtype == QN_DTYPE_Q8 ? QN_DTYPE_BF16 : job->kv.k_dtype;
    const unsigned n_slot = static_cast<unsigned>(job->n_head + 2 * job->kv.n_kv_head);
    const dim3 grid(static_cast<unsigned>(b->n_tok), (n_slot + qni::n_warp - 1) / qni::n_warp);
    const auto kernel = head_dim <= 128 ? qni::write_kv_kernel<2> : qni::write_kv_kernel<4>;
    return qni::launch(kernel, grid, dim3(32 * qni::n_warp), 0, stream, false, a);
}
