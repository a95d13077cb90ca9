/* SPDX-License-Identifier: Apache-2.0 */
/* Single elements of tensors and weights of any dtype, and what all kernels use. */
#ifndef QNI_CUDA_ELEMENT_CUH
#define QNI_CUDA_ELEMENT_CUH

#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

namespace qni {

__device__ inline float load(const void *data, qn_dtype dtype, int64_t i) {
    switch (dtype) {
    case QN_DTYPE_F32:
        return static_cast<const float *>(data)[i];
    case QN_DTYPE_BF16:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
    default:
        return __half2float(static_cast<const __half *>(data)[i]);
    }
}

__device__ inline void store(void *data, qn_dtype dtype, int64_t i, float x) {
    switch (dtype) {
    case QN_DTYPE_F32:
        static_cast<float *>(data)[i] = x;
        break;
    case QN_DTYPE_BF16:
        static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16(x);
        break;
    default:
        static_cast<__half *>(data)[i] = __float2half(x);
    }
}

__host__ __device__ inline int64_t element_bytes(qn_dtype dtype) {
    return dtype == QN_DTYPE_F32 || dtype == QN_DTYPE_U32 || dtype == QN_DTYPE_S32 ? 4
           : dtype == QN_DTYPE_S64                                                 ? 8
           : dtype == QN_DTYPE_F8 || dtype == QN_DTYPE_Q8                          ? 1
                                                                                   : 2;
}

/* The address of row r. */
__device__ inline void *row_of(const qni_mat &m, int64_t r) {
    const int64_t element = r / m.n_inner * m.outer_stride + r % m.n_inner * m.row_stride;
    return static_cast<unsigned char *>(m.data) + element * element_bytes(m.dtype);
}

__device__ inline float e4m3(unsigned char code) {
    __nv_fp8_e4m3 x;
    x.__x = code;
    return static_cast<float>(x);
}

/* W[i, o] of a quantized weight. */
__device__ inline float quantized_at(const qni_weight &w, int64_t i, int64_t o) {
    const unsigned char *data = static_cast<const unsigned char *>(w.data);
    const qni_quant &q = w.quant;
    int32_t bit;
    const int64_t at = qni_cuda_code_at(&q, i, &bit);
    const uint32_t byte = data[o * qni_cuda_row_bytes(&q, w.n_in) + at];
    const uint32_t code = byte >> bit & ((1u << qni_cuda_width(&q)) - 1);
    const int64_t n_scale_out = qni_cuda_n_scale_out(&q, w.n_out);
    const int64_t scale_at = i / q.group * n_scale_out + o / q.group_out;
    const float scale = load(data + qni_cuda_scales_at(&w), q.scale_dtype, scale_at);
    if (q.kind == QNI_FP8) return scale * e4m3(static_cast<unsigned char>(code));
    const float bias = q.symmetric ? -static_cast<float>(1 << (q.bits - 1)) * scale
                                   : load(data + qni_cuda_biases_at(&w), q.scale_dtype, scale_at);
    const float value = __fadd_rn(__fmul_rn(scale, static_cast<float>(code)), bias);
    return isfinite(value) ? value : fmaf(scale, static_cast<float>(code), bias);
}

/* W[i, o] of any weight. */
__device__ inline float weight_at(const qni_weight &w, int64_t i, int64_t o) {
    if (w.quant.kind != QNI_DENSE) return quantized_at(w, i, o);
    const int64_t at = o / w.nr * w.panel_stride + i / w.ki * w.group_stride + o % w.nr * w.ki + i % w.ki;
    return load(w.data, w.dtype, at);
}

/* Programmatic dependent launch: wait for the kernel before, and let the next one start. Nothing before sm_90. */
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* Launch, chained to the kernel before it if asked for. An SM must be empty to divide its L1 anew, so kernels that are to
 * overlap ask for the same division. */
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   bool chained, Arguments... arguments) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = chained ? 1 : 0;
    if (chained) {
        const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                       cudaSharedmemCarveoutMaxShared);
        if (error != cudaSuccess) return error;
    }
    return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

} // namespace qni

#endif
