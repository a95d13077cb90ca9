/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise kernels and reductions over rows, for any dtype and strides: embed, rms_norm, rope, swiglu, argmax. */
#include "element.cuh"

namespace qni {

enum { THREADS = 256 };

/* Eight elements from or to an even row. */
struct eight {
    float x[8];
};
__device__ eight load8(const void *row, qn_dtype dtype, int64_t i) {
    eight out;
    if (dtype == QN_DTYPE_F32) {
        const float4 *from = static_cast<const float4 *>(row) + i / 4;
        const float4 a = from[0], b = from[1];
        return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    }
    const uint4 words = static_cast<const uint4 *>(row)[i / 8];
    const uint32_t w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (dtype == QN_DTYPE_BF16) {
            out.x[2 * k] = __uint_as_float(w[k] << 16), out.x[2 * k + 1] = __uint_as_float(w[k] & 0xFFFF0000u);
        } else {
            const float2 pair = __half22float2(*reinterpret_cast<const __half2 *>(&w[k]));
            out.x[2 * k] = pair.x, out.x[2 * k + 1] = pair.y;
        }
    }
    return out;
}
__device__ void store8(void *row, qn_dtype dtype, int64_t i, const eight &v) {
    if (dtype == QN_DTYPE_F32) {
        float4 *to = static_cast<float4 *>(row) + i / 4;
        to[0] = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]), to[1] = make_float4(v.x[4], v.x[5], v.x[6], v.x[7]);
        return;
    }
    uint32_t w[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (dtype == QN_DTYPE_BF16) {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(v.x[2 * k], v.x[2 * k + 1]);
            w[k] = *reinterpret_cast<const uint32_t *>(&pair);
        } else {
            const __half2 pair = __floats2half2_rn(v.x[2 * k], v.x[2 * k + 1]);
            w[k] = *reinterpret_cast<const uint32_t *>(&pair);
        }
    }
    static_cast<uint4 *>(row)[i / 8] = make_uint4(w[0], w[1], w[2], w[3]);
}
__device__ unsigned char *even_row(const qni_mat &m, int64_t r) {
    return static_cast<unsigned char *>(m.data) + r * m.row_stride * element_bytes(m.dtype);
}

/* The same as the kernels of these names below, for even rows. */
__global__ void embed_even(qni_mat out, qni_mat table, const int32_t *ids) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.x;
    const void *from = even_row(table, ids[r]);
    void *to = even_row(out, r);
    for (int64_t i = 8 * threadIdx.x; i < out.n_col; i += 8 * blockDim.x) {
        store8(to, out.dtype, i, load8(from, table.dtype, i));
    }
}
__global__ void swiglu_even(qni_mat out, qni_mat gate, qni_mat up) {
    wait_for_previous();
    let_next_start();
    const int64_t i = 8 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x), r = blockIdx.x;
    if (i >= out.n_col) return;
    eight g = load8(even_row(gate, r), gate.dtype, i);
    const eight u = load8(even_row(up, r), up.dtype, i);
#pragma unroll
    for (int k = 0; k < 8; k++) g.x[k] = g.x[k] / (1 + expf(-g.x[k])) * u.x[k];
    store8(even_row(out, r), out.dtype, i, g);
}

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

/* Even rows of at most 8 · blockDim.x elements: x is read once. */
__global__ void rms_norm_even(qni_mat out, qni_mat x, qni_vec weight, float eps) {
    wait_for_previous();
    let_next_start();
    const int64_t r = blockIdx.x, i = 8 * threadIdx.x;
    const bool is_there = i < x.n_col;
    eight v = {};
    float sum = 0;
    if (is_there) v = load8(even_row(x, r), x.dtype, i);
#pragma unroll
    for (int k = 0; k < 8; k++) sum = fmaf(v.x[k], v.x[k], sum);
    const float factor = 1 / sqrtf(sum_of_block(sum) / static_cast<float>(x.n_col) + eps);
    if (!is_there) return;
    const eight w = load8(weight.data, weight.dtype, i);
#pragma unroll
    for (int k = 0; k < 8; k++) v.x[k] *= factor * w.x[k];
    store8(even_row(out, r), out.dtype, i, v);
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
    const dim3 grid(static_cast<unsigned>(out.n_row));
    const bool by_inputs =
        table->quant.kind == QNI_DENSE && table->nr == 1 && table->ki == 1 && table->group_stride == 1;
    const qni_mat rows = {const_cast<void *>(table->data),
                          table->dtype,
                          table->n_out,
                          table->n_in,
                          table->n_out,
                          table->panel_stride,
                          table->panel_stride};
    if (by_inputs && qni_cuda_is_even(&out) && qni_cuda_is_even(&rows)) {
        return launch(embed_even, grid, dim3(128), 0, stream, true, out, rows, ids);
    }
    return launch(embed, grid, dim3(THREADS), 0, stream, true, out, *table, ids);
}

cudaError_t qni_cuda_rms_norm(cudaStream_t stream, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    const dim3 grid(static_cast<unsigned>(x.n_row));
    const int64_t eights = (x.n_col + 7) / 8;
    if (x.n_col >= 512 && eights <= 1024 && qni_cuda_is_even(&out) && qni_cuda_is_even(&x) &&
        reinterpret_cast<uintptr_t>(weight.data) % 16 == 0) {
        const unsigned threads = static_cast<unsigned>((eights + 31) / 32 * 32);
        return launch(rms_norm_even, grid, dim3(threads), 0, stream, true, out, x, weight, static_cast<float>(eps));
    }
    const unsigned threads = x.n_col <= 128 ? 32 : THREADS;
    return launch(rms_norm, grid, dim3(threads), 0, stream, true, out, x, weight, static_cast<float>(eps));
}

cudaError_t qni_cuda_rope(cudaStream_t stream, qni_mat cos_sin, const int32_t *tok_pos, const double *inv_freq,
                          double attention_factor) {
    return launch(rope, dim3(static_cast<unsigned>(cos_sin.n_row)), dim3(64), 0, stream, true, cos_sin, tok_pos,
                  inv_freq, attention_factor);
}

cudaError_t qni_cuda_swiglu(cudaStream_t stream, qni_mat out, qni_mat gate, qni_mat up) {
    const unsigned n_row = static_cast<unsigned>(out.n_row);
    if (qni_cuda_is_even(&out) && qni_cuda_is_even(&gate) && qni_cuda_is_even(&up)) {
        const unsigned n_block = static_cast<unsigned>((out.n_col + 8 * THREADS - 1) / (8 * THREADS));
        return launch(swiglu_even, dim3(n_row, n_block), dim3(THREADS), 0, stream, true, out, gate, up);
    }
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
