/* SPDX-License-Identifier: Apache-2.0 */
/* Loops that reach a GPU's peak rates: reads of memory and multiply-adds; and numbers to feed them. */
#include "element.cuh"

namespace qni {

enum { THREADS = 1024, LOADS = 8, CHAINS = 16, TURNS = 4096 };

/* Finite bf16 numbers of any bits; products of zeros draw less power than data does. */
__global__ void fill(uint32_t *out, size_t n) {
    for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n;
         i += static_cast<size_t>(gridDim.x) * blockDim.x) {
        uint32_t x = static_cast<uint32_t>(i) * 2654435761u; /* Knuth's multiplicative hash */
        x ^= x >> 15, x *= 2246822519u, x ^= x >> 13;
        out[i] = (x & 0x80FF80FFu) | 0x3F003F00u;
    }
}

__global__ void __launch_bounds__(THREADS) read(const uint4 *data, size_t n, uint32_t *out) {
    uint4 sum = {};
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = blockIdx.x * static_cast<size_t>(THREADS) + threadIdx.x; i < n; i += LOADS * stride) {
        uint4 x[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) x[k] = i + k * stride < n ? __ldcs(data + i + k * stride) : uint4{};
#pragma unroll
        for (int k = 0; k < LOADS; k++) sum.x ^= x[k].x, sum.y ^= x[k].y, sum.z ^= x[k].z, sum.w ^= x[k].w;
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345678u) *out = 1; /* so that the loads are not removed */
}

__global__ void __launch_bounds__(THREADS) multiply(float *out, float a, float b) {
    float x[CHAINS];
    for (int k = 0; k < CHAINS; k++) x[k] = static_cast<float>(threadIdx.x + k);
    for (int turn = 0; turn < TURNS; turn++) {
#pragma unroll
        for (int k = 0; k < CHAINS; k++) x[k] = fmaf(x[k], a, b);
    }
    float sum = 0;
    for (int k = 0; k < CHAINS; k++) sum += x[k];
    if (sum == 0.123f) *out = sum;
}

} // namespace qni

using namespace qni;

cudaError_t qni_cuda_peak_fill(cudaStream_t stream, void *out, size_t bytes, int32_t n_sm) {
    return launch(fill, dim3(static_cast<unsigned>(8 * n_sm)), dim3(256), 0, stream, false,
                  static_cast<uint32_t *>(out), bytes / 4);
}

cudaError_t qni_cuda_peak_read(cudaStream_t stream, const void *data, size_t bytes, int32_t n_sm, void *out) {
    return launch(read, dim3(static_cast<unsigned>(n_sm)), dim3(THREADS), 0, stream, false,
                  static_cast<const uint4 *>(data), bytes / 16, static_cast<uint32_t *>(out));
}

double qni_cuda_peak_multiply_ops(int32_t n_sm) {
    return 2.0 * n_sm * 2 * THREADS * CHAINS * TURNS;
}

cudaError_t qni_cuda_peak_multiply(cudaStream_t stream, int32_t n_sm, void *out) {
    return launch(multiply, dim3(static_cast<unsigned>(2 * n_sm)), dim3(THREADS), 0, stream, false,
                  static_cast<float *>(out), 0.999f, 0.001f);
}
