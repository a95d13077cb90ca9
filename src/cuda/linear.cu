/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with any weight in f32: the path of arith f32, and of weights that the tensor cores' kernels do not take.
 *
 * Each output is the sum over runs of 32 inputs, in order, each run summed in order: this depends on the number of inputs
 * alone, so a row's result depends neither on the other rows nor on how they are divided into calls.
 */
#include "element.cuh"

namespace qni {

enum { RUN = 32, TILE_OUT = 64, THREADS = 256 };

/* Out of line: the divisions of 64-bit numbers, unrolled for every output of a thread, keep ptxas busy for a minute. */
__device__ __noinline__ void *row_out_of_line(const qni_mat &m, int64_t r) {
    return row_of(m, r);
}

/* TILE_ROWS · TILE_OUT outputs by 256 threads: each has OWN rows of one column of outputs. */
template <int TILE_ROWS>
__global__ void __launch_bounds__(THREADS)
    linear(const __grid_constant__ qni_mat out, const __grid_constant__ qni_mat add, qni_mat x, qni_weight w,
           bool round_x) {
    enum { GROUPS = THREADS / TILE_OUT, OWN = TILE_ROWS / GROUPS };
    __shared__ float xs[TILE_ROWS][RUN + 1], ws[RUN][TILE_OUT + 1];
    wait_for_previous();
    let_next_start();
    const int64_t first_row = static_cast<int64_t>(blockIdx.y) * TILE_ROWS;
    const int64_t first_out = static_cast<int64_t>(blockIdx.x) * TILE_OUT;
    const int column = threadIdx.x % TILE_OUT, group = threadIdx.x / TILE_OUT;
    const bool by_inputs = w.nr == 1; /* which index is contiguous in memory */
    float total[OWN] = {};
    for (int64_t first = 0; first < w.n_in; first += RUN) {
        __syncthreads();
#pragma unroll 1
        for (int k = threadIdx.x; k < TILE_ROWS * RUN; k += THREADS) {
            const int64_t r = first_row + k / RUN, i = first + k % RUN;
            float value = r < x.n_row && i < w.n_in ? load(row_of(x, r), x.dtype, i) : 0;
            if (round_x) value = __bfloat162float(__float2bfloat16(value));
            xs[k / RUN][k % RUN] = value;
        }
#pragma unroll 1
        for (int k = threadIdx.x; k < RUN * TILE_OUT; k += THREADS) {
            const int at_in = by_inputs ? k % RUN : k / TILE_OUT, at_out = by_inputs ? k / RUN : k % TILE_OUT;
            const int64_t i = first + at_in, o = first_out + at_out;
            ws[at_in][at_out] = i < w.n_in && o < w.n_out ? weight_at(w, i, o) : 0;
        }
        __syncthreads();
        float run[OWN] = {};
        for (int i = 0; i < RUN; i++) {
            const float weight = ws[i][column];
#pragma unroll
            for (int r = 0; r < OWN; r++) run[r] = fmaf(xs[r * GROUPS + group][i], weight, run[r]);
        }
#pragma unroll
        for (int r = 0; r < OWN; r++) total[r] += run[r];
    }
    const int64_t o = first_out + column;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        const int64_t row = first_row + r * GROUPS + group;
        if (row >= x.n_row || o >= w.n_out) continue;
        const float before = add.data != nullptr ? load(row_out_of_line(add, row), add.dtype, o) : 0;
        store(row_out_of_line(out, row), out.dtype, o, before + total[r]);
    }
}

/* Eight inputs of a row by each thread. */
__global__ void dequantize(__nv_bfloat16 *out, qni_weight w) {
    wait_for_previous();
    let_next_start();
    const int64_t i = 8 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x), o = blockIdx.x;
#pragma unroll 1
    for (int64_t k = i; k < i + 8 && k < w.n_in; k++) {
        out[o * w.n_in + k] = __float2bfloat16(quantized_at(w, k, o));
    }
}

template <int TILE_ROWS>
cudaError_t run_linear(cudaStream_t stream, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w, bool round_x) {
    const dim3 grid(static_cast<unsigned>((w->n_out + TILE_OUT - 1) / TILE_OUT),
                    static_cast<unsigned>((x.n_row + TILE_ROWS - 1) / TILE_ROWS));
    return launch(linear<TILE_ROWS>, grid, dim3(THREADS), 0, stream, false, out, add, x, *w, round_x);
}

} // namespace qni

using namespace qni;

cudaError_t qni_cuda_linear(cudaStream_t stream, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w,
                            bool round_x) {
    return x.n_row <= 16 ? run_linear<4>(stream, out, add, x, w, round_x)
                         : run_linear<64>(stream, out, add, x, w, round_x);
}

cudaError_t qni_cuda_dequantize(cudaStream_t stream, void *out, const qni_weight *w) {
    enum { INPUTS = 8 * THREADS };
    const dim3 grid(static_cast<unsigned>(w->n_out), static_cast<unsigned>((w->n_in + INPUTS - 1) / INPUTS));
    return launch(dequantize, grid, dim3(THREADS), 0, stream, false, static_cast<__nv_bfloat16 *>(out), *w);
}
