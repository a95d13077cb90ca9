/* SPDX-License-Identifier: Apache-2.0 */
/* What a decode step does besides the model: take its ids, move on to the next positions, tell the host. */
#include "element.cuh"

namespace qni {

/* One thread for each sequence. */
__global__ void advance(qni_cuda_decode_state s, int32_t n_seq, const qni_cuda_sampler *samplers) {
    wait_for_previous();
    let_next_start();
    const int32_t i = threadIdx.x + blockIdx.x * blockDim.x;
    if (i >= n_seq) return;
    const int32_t id = s.ids[i], step = s.n_step[i];
    const qni_cuda_sampler *sampler = &samplers[i];
    if (sampler->ids != nullptr) sampler->ids[*sampler->n_id] = id;
    *sampler->n_id += 1;
    s.tok_pos[i] += 1;
    s.pos_begin[i] += 1;
    s.n_step[i] = step + 1;
    s.input[i] = id < 0 ? 0 : id; /* logits that cannot be sampled: the host will stop */
    /* memory of the host */
    *reinterpret_cast<volatile int32_t *>(&s.ring[static_cast<int64_t>(step) * n_seq + i]) = id;
}

} // namespace qni

using namespace qni;

cudaError_t qni_cuda_advance(cudaStream_t stream, const qni_cuda_decode_state *state, int32_t n_seq,
                             const qni_cuda_sampler *samplers) {
    const dim3 grid((static_cast<unsigned>(n_seq) + 127) / 128);
    return launch(advance, grid, dim3(128), 0, stream, true, *state, n_seq, samplers);
}
