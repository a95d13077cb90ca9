/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: from the results of warps and ranges to the output. */
#ifndef QNI_CUDA_DECODE_MERGE_CUH
#define QNI_CUDA_DECODE_MERGE_CUH

#include "decode_tiles.cuh"

namespace qni {
namespace {

/* Merge what the warps published, and the new position: as a partial result, or (is_final) as the output. */
template <int D, qn_dtype T>
__device__ inline void merge(const shared_data<D, T> &s, const decode_args &a, const work_item &w, bool has_new,
                             bool is_final) {
    void *out = row_at(a.out, w.token);
    const int64_t at = (static_cast<int64_t>(w.token) * gridDim.x + w.range) * a.n_head + w.first_head;
    for (int i = static_cast<int>(threadIdx.x); i < w.n_head * D; i += plan<D, T>::n_thread) {
        const int h = i / D, d = i % D;
        float greatest = has_new ? s.new_score[h] : -infinity;
#pragma unroll
        for (int j = 0; j < s.n_warp; j++) greatest = fmaxf(greatest, s.greatest[j][h]);
        float sum = has_new ? exp2f(s.new_score[h] - greatest) : 0;
        float value = has_new ? sum * s.new_v[d] : 0;
#pragma unroll
        for (int j = 0; j < s.n_warp; j++) {
            const float factor = exp2f(s.greatest[j][h] - greatest);
            sum += factor * s.sum[j][h];
            value += factor * s.acc(j, h)[d];
        }
        if (is_final) {
            store(out, a.out.dtype, static_cast<int64_t>(w.first_head) * D + i, value / sum);
        } else {
            a.partials[at * D + i] = value;
            if (d == 0) a.sums[at + h] = {greatest, sum};
        }
    }
}

/* Merge the ranges w, w + n_warp, … of warp w and publish the result. A lane takes 2 vectors of 4 dimensions at a time, of 4
 * ranges, to have 8 loads under way. */
template <int D, qn_dtype T>
__device__ inline void gather(shared_data<D, T> &s, const decode_args &a, const work_item &w, int n_range) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    for (int x = lane_id(); x < w.n_head * D / 4; x += 64) {
        float greatest[2] = {-infinity, -infinity}, sum[2] = {};
        float4 acc[2] = {};
        for (int first = warp; first < n_range; first += 4 * s.n_warp) {
            float2 part[2][4];
            float4 value[2][4];
#pragma unroll
            for (int c = 0; c < 2; c++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int range = first + j * s.n_warp, v = x + 32 * c;
                    const bool is_valid = range < n_range && v < w.n_head * D / 4;
                    const int64_t at = (static_cast<int64_t>(w.token) * gridDim.x + range) * a.n_head + w.first_head;
                    part[c][j] = is_valid ? __ldcg(a.sums + at + v / (D / 4)) : float2{-infinity, 0};
                    value[c][j] =
                        is_valid ? __ldcg(reinterpret_cast<const float4 *>(a.partials + at * D) + v) : float4{};
                }
            }
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float most = greatest[c];
#pragma unroll
                for (int j = 0; j < 4; j++) most = fmaxf(most, part[c][j].x);
                const float old = exp2f(greatest[c] - most);
                greatest[c] = most;
                sum[c] *= old;
                acc[c] = {acc[c].x * old, acc[c].y * old, acc[c].z * old, acc[c].w * old};
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float factor = exp2f(part[c][j].x - most);
                    sum[c] += factor * part[c][j].y;
                    acc[c].x += factor * value[c][j].x;
                    acc[c].y += factor * value[c][j].y;
                    acc[c].z += factor * value[c][j].z;
                    acc[c].w += factor * value[c][j].w;
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int v = x + 32 * c, h = v / (D / 4), d = v % (D / 4) * 4;
            if (v >= w.n_head * D / 4) continue;
            *reinterpret_cast<float4 *>(s.acc(warp, h) + d) = acc[c];
            if (d == 0) {
                s.greatest[warp][h] = greatest[c];
                s.sum[warp][h] = sum[c];
            }
        }
    }
}

/* Whether this block is the last of its KV head to have stored its partial result; it then sees those of all. */
template <int D, qn_dtype T>
__device__ inline bool is_last_block(shared_data<D, T> &s, const decode_args &a, const work_item &w, int n_range) {
    __syncthreads(); /* the atomic releases what all threads of the block stored */
    if (threadIdx.x == 0) {
        unsigned *counter = a.counters + static_cast<int64_t>(w.token) * gridDim.y + blockIdx.y, n_before;
        asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(n_before) : "l"(counter) : "memory");
        s.is_last_block = n_before == static_cast<unsigned>(n_range - 1);
        if (s.is_last_block) *counter = 0; /* for the next call */
    }
    __syncthreads();
    return s.is_last_block;
}

/* From what the warps published to the output. */
template <int D, qn_dtype T> __device__ inline void finish(shared_data<D, T> &s, const decode_args &a) {
    const work_item w = s.item;
    const int n_range = w.n_range();
    merge(s, a, w, w.has_new(), n_range == 1);
    if (n_range == 1 || !is_last_block(s, a, w, n_range)) return;
    gather(s, a, w, n_range);
    __syncthreads();
    merge(s, a, w, false, true);
}

} // namespace
} // namespace qni

#endif
