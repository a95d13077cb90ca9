/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise kernels and reductions over rows, for any dtype and strides: embed, rms_norm, rope, swiglu, argmax. */
#include "element.cuh"

namespace qni {

enum { THREADS = 256 };

__global__ void embed(qni_mat out, qni_weight table, const int32_t *ids) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.x, id = ids[r];
    void *to = row_of(out, r);
    for (int64_t i = threadIdx.x; i < out.n_col; i += blockDim.x) store(to, out.dtype, i, weight_at(table, i, id));
}

/* The sum of a value of each of blockDim.x threads, in an order of its own; the same in all threads. */
__device__ float sum_of_block(float x) {
    __shared__ float parts[32];
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0;
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

__global__ void rms_norm(qni_mat out, qni_mat x, qni_vec weight, float eps) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.x;
    const void *from = row_of(x, r);
    void *to = row_of(out, r);
    float sum = 0;
    for (int64_t i = threadIdx.x; i < x.n_col; i += blockDim.x) {
        const float value = load(from, x.dtype, i);
        sum = fmaf(value, value, sum);
    }
    const float factor = 1 / sqrtf(sum_of_block(sum) / static_cast<float>(x.n_col) + eps);
    for (int64_t i = threadIdx.x; i < x.n_col; i += blockDim.x) {
        store(to, out.dtype, i, load(from, x.dtype, i) * factor * load(weight.data, weight.dtype, i));
    }
}

/* In double, so that the error of an angle does not grow with the position. */
__global__ void rope(qni_mat cos_sin, const int32_t *tok_pos, const double *inv_freq, double factor) {
    wait_for_previous();
    let_next_start();
    const int64_t t = blockIdx.x, half = cos_sin.n_col / 2;
    float *row = static_cast<float *>(row_of(cos_sin, t));
    for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
        double sine, cosine;
        sincos(static_cast<double>(tok_pos[t]) * inv_freq[i], &sine, &cosine);
        row[i] = static_cast<float>(cosine * factor);
        row[half + i] = static_cast<float>(sine * factor);
    }
}

__global__ void swiglu(qni_mat out, qni_mat gate, qni_mat up) {
    wait_for_previous();
    let_next_start();
    const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x, r = blockIdx.x;
    if (i >= out.n_col) return;
    const float g = load(row_of(gate, r), gate.dtype, i);
    store(row_of(out, r), out.dtype, i, g / (1 + expf(-g)) * load(row_of(up, r), up.dtype, i));
}

__global__ void convert(qni_mat out, qni_mat x) {
    wait_for_previous();
    let_next_start();
    const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x, r = blockIdx.x;
    if (i < out.n_col) store(row_of(out, r), out.dtype, i, load(row_of(x, r), x.dtype, i));
}

/* The best logit of a part of a row. */
struct candidate {
    float value; /* NaN if there is one */
    int32_t id;
};

__device__ bool is_better(candidate a, candidate b) {
    if (isnan(a.value) || isnan(b.value)) return isnan(a.value);
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/* The best of the candidates of all threads; right in thread 0. */
__device__ candidate best_of_block(candidate mine) {
    __shared__ candidate parts[32];
    for (int i = 16; i > 0; i /= 2) {
        const candidate other = {__shfl_xor_sync(~0u, mine.value, i), __shfl_xor_sync(~0u, mine.id, i)};
        if (is_better(other, mine)) mine = other;
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
    __syncthreads();
    for (unsigned w = 0; threadIdx.x == 0 && w < blockDim.x / 32; w++) {
        if (is_better(parts[w], mine)) mine = parts[w];
    }
    return mine;
}

enum { ARGMAX_PARTS = 64 };

__global__ void argmax_parts(candidate *parts, qni_mat logits, int64_t n_valid) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.y, part = (n_valid + ARGMAX_PARTS - 1) / ARGMAX_PARTS, first = blockIdx.x * part;
    const int64_t end = first + part < n_valid ? first + part : n_valid;
    const void *row = row_of(logits, r);
    candidate mine = {-INFINITY, INT32_MAX};
    for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
        const candidate here = {load(row, logits.dtype, i), static_cast<int32_t>(i)};
        if (is_better(here, mine)) mine = here;
    }
    mine = best_of_block(mine);
    if (threadIdx.x == 0) parts[r * ARGMAX_PARTS + blockIdx.x] = mine;
}

__global__ void argmax_whole(int32_t *ids, const candidate *parts) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.x;
    const candidate best = best_of_block(parts[r * ARGMAX_PARTS + threadIdx.x]);
    if (threadIdx.x == 0) ids[r] = isnan(best.value) ? -1 : best.id;
}

} // namespace qni

using namespace qni;

cudaError_t qni_cuda_embed(cudaStream_t stream, qni_mat out, const qni_weight *table, const int32_t *ids) {
    return launch(embed, dim3(static_cast<unsigned>(out.n_row)), dim3(THREADS), 0, stream, true, out, *table, ids);
}

cudaError_t qni_cuda_rms_norm(cudaStream_t stream, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    const unsigned threads = x.n_col <= 128 ? 32 : THREADS;
    return launch(rms_norm, dim3(static_cast<unsigned>(x.n_row)), dim3(threads), 0, stream, true, out, x, weight,
                  static_cast<float>(eps));
}

cudaError_t qni_cuda_rope(cudaStream_t stream, qni_mat cos_sin, const int32_t *tok_pos, const double *inv_freq,
                          double attention_factor) {
    return launch(rope, dim3(static_cast<unsigned>(cos_sin.n_row)), dim3(64), 0, stream, true, cos_sin, tok_pos,
                  inv_freq, attention_factor);
}

cudaError_t qni_cuda_swiglu(cudaStream_t stream, qni_mat out, qni_mat gate, qni_mat up) {
    const unsigned n_row = static_cast<unsigned>(out.n_row);
    return launch(swiglu, dim3(n_row, static_cast<unsigned>((out.n_col + THREADS - 1) / THREADS)), dim3(THREADS), 0,
                  stream, true, out, gate, up);
}

cudaError_t qni_cuda_convert(cudaStream_t stream, qni_mat out, qni_mat x) {
    const unsigned n_row = static_cast<unsigned>(out.n_row);
    return launch(convert, dim3(n_row, static_cast<unsigned>((out.n_col + THREADS - 1) / THREADS)), dim3(THREADS), 0,
                  stream, true, out, x);
}

cudaError_t qni_cuda_argmax(cudaStream_t stream, int32_t *ids, qni_mat logits, int64_t n_valid, void *work) {
    candidate *parts = static_cast<candidate *>(work);
    const unsigned n_row = static_cast<unsigned>(logits.n_row);
    const cudaError_t error =
        launch(argmax_parts, dim3(ARGMAX_PARTS, n_row), dim3(THREADS), 0, stream, true, parts, logits, n_valid);
    if (error != cudaSuccess) return error;
    return launch(argmax_whole, dim3(n_row), dim3(ARGMAX_PARTS), 0, stream, true, ids, parts);
}
