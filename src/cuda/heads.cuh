/* SPDX-License-Identifier: Apache-2.0 */
/* One head in the registers of a warp: RMS norm, RoPE, and rows of a KV cache (src/backend/kv.c has their formats). */
#ifndef QNI_CUDA_HEADS_CUH
#define QNI_CUDA_HEADS_CUH

#include "element.cuh"

namespace qni {

/* Lane l holds the pairs (i, i + head_dim / 2) that RoPE rotates, for i = l, l + 32, …; zeros past the last one. */
template <int P> struct warp_head { float x[P], y[P]; };

__device__ inline int lane_id() {
    return static_cast<int>(threadIdx.x % 32);
}

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

/* The greatest |x| as bits: integer order is float order, and a NaN is the greatest. */
template <int P> __device__ inline uint32_t greatest_bits(const warp_head<P> &h) {
    uint32_t greatest = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
        greatest = max(greatest, max(__float_as_uint(h.x[p]) & 0x7FFFFFFF, __float_as_uint(h.y[p]) & 0x7FFFFFFF));
    }
    return __reduce_max_sync(~0u, greatest);
}

template <int P, typename T> __device__ inline warp_head<P> load_pairs(const T *from, int half) {
    warp_head<P> h;
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int i = lane_id() + 32 * p;
        h.x[p] = i < half ? static_cast<float>(from[i]) : 0;
        h.y[p] = i < half ? static_cast<float>(from[i + half]) : 0;
    }
    return h;
}

/* The head that starts at element `at` of a row. */
template <int P> __device__ inline warp_head<P> load_head(const void *row, qn_dtype dtype, int64_t at, int half) {
    if (dtype == QN_DTYPE_F32) return load_pairs<P>(static_cast<const float *>(row) + at, half);
    if (dtype == QN_DTYPE_BF16) return load_pairs<P>(static_cast<const __nv_bfloat16 *>(row) + at, half);
    return load_pairs<P>(static_cast<const __half *>(row) + at, half);
}

/* Here and below, products and sums are rounded as written, so that all kernels write the same bits to the cache. */

/* RMS norm, in f32. */
template <int P>
__device__ inline void normalize(warp_head<P> &h, const warp_head<P> &weight, float eps, int head_dim) {
    float sum = 0;
#pragma unroll
    for (int p = 0; p < P; p++) sum = __fmaf_rn(h.y[p], h.y[p], __fmaf_rn(h.x[p], h.x[p], sum));
    const float factor = rsqrtf(__fadd_rn(__fdiv_rn(warp_sum(sum), static_cast<float>(head_dim)), eps));
#pragma unroll
    for (int p = 0; p < P; p++) {
        h.x[p] = h.x[p] * factor * weight.x[p];
        h.y[p] = h.y[p] * factor * weight.y[p];
    }
}

/* RoPE; cos_sin: a row of the table, loaded as a head. */
template <int P> __device__ inline void rotate(warp_head<P> &h, const warp_head<P> &cos_sin) {
#pragma unroll
    for (int p = 0; p < P; p++) {
        const float a = h.x[p], b = h.y[p], c = cos_sin.x[p], s = cos_sin.y[p];
        h.x[p] = __fmaf_rn(-b, s, __fmul_rn(a, c));
        h.y[p] = __fmaf_rn(a, s, __fmul_rn(b, c));
    }
}

/* An element of a q8 row: its code, and in x what the code decodes to. scale is 0, NaN or a positive number. */
__device__ inline signed char q8_code(float &x, float scale) {
    const float code = scale > 0 ? rintf(fminf(fmaxf(__fdiv_rn(x, scale), -127), 127)) : 0;
    x = code * scale;
    return static_cast<signed char>(code);
}

template <int P> __device__ inline void store_q8_row(signed char *row, warp_head<P> &h, int half) {
    float scale = __fdiv_rn(__uint_as_float(greatest_bits(h)), 127);
    if (!isfinite(scale)) scale = __uint_as_float(0x7FC00000); /* the row never decodes to a number */
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int i = lane_id() + 32 * p;
        const signed char x = q8_code(h.x[p], scale), y = q8_code(h.y[p], scale);
        if (row == nullptr || i >= half) continue;
        row[i] = x;
        row[i + half] = y;
    }
    if (row != nullptr && lane_id() == 0) *reinterpret_cast<float *>(row + 2 * half) = scale;
}

__device__ inline float rounded(float x, qn_dtype dtype) {
    return dtype == QN_DTYPE_F32    ? x
           : dtype == QN_DTYPE_BF16 ? __bfloat162float(__float2bfloat16(x))
                                    : __half2float(__float2half(x));
}

/*
 * Write a head as a row of a KV cache and replace it by what the row decodes to. row NULL: only the latter. The bytes
 * are those that the CPU writes, but for the payloads of NaNs. q8: head_dim is a multiple of 4.
 */
template <int P> __device__ inline void store_row(void *row, qn_dtype dtype, warp_head<P> &h, int half) {
    if (dtype == QN_DTYPE_Q8) {
        store_q8_row(static_cast<signed char *>(row), h, half);
        return;
    }
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int i = lane_id() + 32 * p;
        if (row != nullptr && i < half) {
            store(row, dtype, i, h.x[p]);
            store(row, dtype, i + half, h.y[p]);
        }
        h.x[p] = rounded(h.x[p], dtype);
        h.y[p] = rounded(h.y[p], dtype);
    }
}

} // namespace qni

#endif
