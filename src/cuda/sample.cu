/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling, in two kernels. `measure` reads the logits, a block of threads for each 4096 ids of a row, applies penalties and
 * biases and notes the greatest logit of each group of 128 ids. `finish`, started early, has a cluster for each row. For
 * greedy decoding and a small top_k its first block does all: it reads again only the few groups that matter. Else the
 * whole cluster works (sample_many.cuh). Settings are read on the device, so one captured sequence serves all of them.
 */
#include "sample_many.cuh"

namespace qni {
namespace sampling {

enum { MEASURE_THREADS = 256, MEASURE_WARPS = MEASURE_THREADS / WARP, GROUPS_A_WARP = FEW / GROUP / MEASURE_WARPS };
constexpr double limit = 1e300; /* as in the host's sampler: no setting turns a finite logit into an infinity */
constexpr uint32_t in_history = 1u << 31;

__device__ inline double moved(double x, double to) {
    return x < -limit ? x : fmin(fmax(to, -limit), limit);
}

/* Biases of the ids first … first + n - 1, those of one id in order: of the pending ones the lowest owns the id. */
__device__ void add_biases(const qni_cuda_sampler &s, double *x, int32_t first, int32_t n, uint32_t *owner) {
    for (int32_t begin = 0; begin < s.n_bias; begin += MEASURE_THREADS) {
        const int32_t j = begin + static_cast<int32_t>(threadIdx.x);
        const int32_t at = j < s.n_bias ? s.bias_ids[j] - first : -1;
        bool is_pending = at >= 0 && at < n;
        while (__syncthreads_or(is_pending)) {
            if (is_pending) owner[at] = ~0u;
            __syncthreads();
            if (is_pending) atomicMin(&owner[at], static_cast<uint32_t>(j));
            __syncthreads();
            if (is_pending && owner[at] == static_cast<uint32_t>(j)) {
                x[at] = moved(x[at], x[at] + static_cast<double>(s.biases[j]));
                is_pending = false;
            }
        }
    }
}

/* Write the logits of the ids first … first + n - 1 to x, with penalties and biases. */
__device__ void move_logits(const qni_cuda_sampler &s, const float *logits, double *x, int32_t first, int32_t n) {
    __shared__ uint32_t mark[FEW]; /* of each id: how often it was generated, and whether it is in the history */
    const int32_t own = static_cast<int32_t>(threadIdx.x);
    const bool repeats = s.repetition_penalty != 1, counts = s.frequency_penalty != 0 || s.presence_penalty != 0;
    const int32_t n_id = s.ids != nullptr && (repeats || counts) ? *s.n_id : 0;
    for (int32_t i = own; i < n; i += MEASURE_THREADS) mark[i] = 0;
    __syncthreads();
#pragma unroll 4
    for (int32_t j = (repeats ? 0 : s.prompt_len) + own; j < n_id; j += MEASURE_THREADS) {
        const int32_t at = s.ids[j] - first;
        if (at < 0 || at >= n) continue;
        if (repeats) atomicOr(&mark[at], in_history);
        if (counts && j >= s.prompt_len) atomicAdd(&mark[at], 1u);
    }
    __syncthreads();
    for (int32_t i = own; i < n; i += MEASURE_THREADS) {
        double to = static_cast<double>(logits[i]);
        const uint32_t times = mark[i] & ~in_history;
        if (mark[i] & in_history) {
            to = moved(to, to > 0 ? to / s.repetition_penalty : to * s.repetition_penalty);
        }
        if (times > 0) { /* rounded twice, as on the host */
            const double penalty = __dadd_rn(__dmul_rn(s.frequency_penalty, times), s.presence_penalty);
            to = moved(to, to - penalty);
        }
        x[i] = to;
    }
    __syncthreads();
    add_biases(s, x, first, n, mark);
    __syncthreads();
}

__global__ void __launch_bounds__(MEASURE_THREADS)
    measure(qni_mat logits, const qni_cuda_sampler *samplers, unsigned char *work) {
    let_next_start();
    const int32_t row_index = static_cast<int32_t>(blockIdx.y), first = static_cast<int32_t>(blockIdx.x) * FEW;
    const row r = row_at(logits, samplers[row_index], work, row_index);
    if (first >= r.n) return;
    const int32_t begin = first + warp_of() * GROUPS_A_WARP * GROUP + lane_of();
    float x[GROUPS_A_WARP][GROUP / WARP];
#pragma unroll
    for (int32_t g = 0; g < GROUPS_A_WARP; g++) {
#pragma unroll
        for (int32_t j = 0; j < GROUP / WARP; j++) {
            const int32_t i = begin + g * GROUP + j * WARP;
            x[g][j] = i < r.n ? r.logits[i] : -INFINITY;
        }
    }
    if (r.moves) {
        const int32_t n = r.n - first < FEW ? r.n - first : FEW;
        move_logits(samplers[row_index], r.logits + first, r.values + first, first, n);
    }
#pragma unroll
    for (int32_t g = 0; g < GROUPS_A_WARP; g++) {
        bool is_bad = false;
        float raw = -INFINITY;
#pragma unroll
        for (int32_t j = 0; j < GROUP / WARP; j++) {
            is_bad |= !(x[g][j] <= FLT_MAX);
            raw = fmaxf(raw, x[g][j]);
        }
        double most = raw;
        if (r.moves) {
            most = -infinity;
            for (int32_t i = begin + g * GROUP; i < begin + (g + 1) * GROUP && i < r.n; i += WARP) {
                most = fmax(most, r.values[i]);
            }
        }
        const uint64_t key = warp_max(key_of(most));
        is_bad = __any_sync(all_lanes, is_bad);
        const int32_t group = (begin + g * GROUP) / GROUP;
        if (lane_of() == 0 && group < r.n_group) r.greatest[group] = is_bad ? NAN : number_of(key);
    }
}

/* The greatest logit of a row; NaN if one is NaN or +Inf. */
__device__ double greatest_of(const row &r) {
    uint64_t most = 0;
    bool is_bad = false;
    for (int32_t g = static_cast<int32_t>(threadIdx.x); g < r.n_group; g += THREADS) {
        const double x = __ldcg(r.greatest + g);
        const uint64_t key = key_of(x);
        is_bad |= isnan(x);
        most = key > most ? key : most;
    }
    most = block_max(most);
    return __syncthreads_or(is_bad) ? NAN : number_of(most);
}

/* The lowest id with the greatest logit. */
__device__ int32_t greedy(const row &r, double top) {
    uint64_t group = ~uint64_t{0};
    for (int32_t g = r.n_group - 1 - static_cast<int32_t>(threadIdx.x); g >= 0; g -= THREADS) {
        if (__ldcg(r.greatest + g) >= top) group = static_cast<uint64_t>(g);
    }
    group = block_min(group);
    for (int32_t j = 0; j < GROUP / WARP; j++) {
        const int32_t i = static_cast<int32_t>(group) * GROUP + j * WARP + lane_of();
        const uint32_t best = __ballot_sync(all_lanes, i < r.n && r.value(i) >= top);
        if (best != 0) return i - lane_of() + __ffs(static_cast<int>(best)) - 1;
    }
    return -1;
}

__device__ draw sample(team &t, const row &r, shared &s, settings &use, bool is_few) {
    const double top = greatest_of(r);
    draw d = {-1, false};
    if (!(top >= -DBL_MAX)) return d;
    if (use.temperature == 0) return {greedy(r, top), false};
    int32_t n = is_few ? few_of(r, s, use, top) : FEW + 1;
    if (n > FEW) {
        if (is_few) t.size = 1; /* many equal logits at the k-th, or the greatest ones in few groups */
        n = sample_many(t, r, s, use, top, &d);
    }
    if (n > FEW || t.rank > 0) return d;
    const draw few = draw_few(s, n, use);
    return {few.id, few.is_close || d.is_close};
}

__device__ settings settings_of(const qni_cuda_sampler &s) {
    const double u = s.temperature == 0 ? 0 : uniform(s.seed, static_cast<uint64_t>(*s.n_id));
    return {s.temperature, s.top_p, s.min_p, u, s.top_k};
}

__global__ void __launch_bounds__(THREADS, 1) finish(int32_t *ids, qni_mat logits, const qni_cuda_sampler *samplers,
                                                     unsigned long long *n_close, unsigned char *work) {
    const int32_t row_index = static_cast<int32_t>(blockIdx.y);
    const row r = row_at(logits, samplers[row_index], work, row_index);
    settings use = settings_of(samplers[row_index]);
    const bool is_few = use.temperature == 0 || r.n <= FEW || (use.top_k > 0 && use.top_k <= r.n_group / 2);
    team t = own_team();
    t.slots = r.work->slot;
    if (t.rank > 0 && (is_few || t.size == 1)) return;
    wait_for_previous();
    const draw d = sample(t, r, memory(), use, is_few);
    if (t.rank > 0 || threadIdx.x > 0) return;
    ids[row_index] = d.id;
    if (d.is_close && n_close != nullptr) atomicAdd(n_close, 1ull);
}

/* Launch `finish`, chained to `measure`; in clusters where the device has them. */
cudaError_t launch_finish(cudaStream_t stream, int32_t *ids, const qni_mat &logits, const qni_cuda_sampler *samplers,
                          unsigned long long *n_close, unsigned char *work) {
    int device = 0, has_clusters = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&has_clusters, cudaDevAttrClusterLaunch, device);
    if (error == cudaSuccess) {
        error = cudaFuncSetAttribute(finish, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(shared));
    }
    if (error != cudaSuccess) return error;
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim.x = PARTS;
    attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(has_clusters ? PARTS : 1, static_cast<unsigned>(logits.n_row));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = sizeof(shared);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = has_clusters ? 2 : 0;
    return cudaLaunchKernelEx(&config, finish, ids, logits, samplers, n_close, work);
}

} // namespace sampling
} // namespace qni

size_t qni_cuda_sample_work(int32_t n_row, int64_t n_vocab) {
    return static_cast<size_t>(n_row) * static_cast<size_t>(qni::sampling::row_bytes(n_vocab));
}

cudaError_t qni_cuda_sample(cudaStream_t stream, int32_t *ids, qni_mat logits, const qni_cuda_sampler *samplers,
                            unsigned long long *n_close, void *work) {
    using namespace qni::sampling;
    if (logits.n_row == 0) return cudaSuccess;
    unsigned char *bytes = static_cast<unsigned char *>(work);
    const dim3 blocks(static_cast<unsigned>((logits.n_col + FEW - 1) / FEW), static_cast<unsigned>(logits.n_row));
    const cudaError_t error =
        qni::launch(measure, blocks, dim3(MEASURE_THREADS), 0, stream, false, logits, samplers, bytes);
    return error != cudaSuccess ? error : launch_finish(stream, ids, logits, samplers, n_close, bytes);
}
