/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling from few candidates, in the memory of one block of threads. Every sum has the order that sampler.h promises, so
 * a result can differ from the host's only by the last bit of exp.
 */
#ifndef QNI_CUDA_SAMPLE_FEW_CUH
#define QNI_CUDA_SAMPLE_FEW_CUH

#include "sample_team.cuh"

namespace qni {
namespace sampling {

struct draw {
    int32_t id;
    bool is_close; /* may differ from the host's */
};

/* Sort n numbers of s.sorted in descending order; they are there or in s.spare then. */
static __device__ __noinline__ const double *sort_few(int32_t n) {
    shared &s = memory();
    double *x = s.sorted;
    const int32_t own = static_cast<int32_t>(threadIdx.x);
    if (n <= FEW_TO_SORT) { /* count those before each */
        int32_t at = 0;
        for (int32_t j = 0; j < n && own < n; j++) at += x[j] > x[own] || (x[j] == x[own] && j < own);
        if (own < n) s.spare[at] = x[own];
        __syncthreads();
        return s.spare;
    }
    int32_t size = 2 * FEW_TO_SORT; /* bitonic */
    while (size < n) size *= 2;
    for (int32_t i = n + own; i < size; i += THREADS) x[i] = -infinity;
    __syncthreads();
    for (int32_t run = 2; run <= size; run *= 2) {
        for (int32_t d = run / 2; d > 0; d /= 2) {
            for (int32_t i = own; i < size / 2; i += THREADS) {
                const int32_t a = 2 * i - (i & (d - 1)), b = a + d;
                const double first = x[a], second = x[b];
                if ((a & run) == 0 ? first < second : first > second) {
                    x[a] = second;
                    x[b] = first;
                }
            }
            __syncthreads();
        }
    }
    return x;
}

/* Where a sum in the order of x reaches a limit. One thread; in portions, so that loads do not wait for sums. */
struct walk {
    int32_t at; /* n: never */
    double before, total;
};
template <bool beyond> __device__ walk walk_to(const double *x, int32_t n, double limit) {
    const auto reaches = [limit](double total) { return beyond ? total > limit : total >= limit; };
    double total = 0;
    int32_t at = 0;
    for (; at + 16 <= n; at += 16) {
        double next = total;
#pragma unroll
        for (int32_t i = 0; i < 16; i++) next += x[at + i];
        if (reaches(next)) break;
        total = next;
    }
    for (; at < n; at++) {
        const double before = total;
        total += x[at];
        if (reaches(total)) return {at, before, total};
    }
    return {n, total, total};
}

/* The sum of e of n candidates. */
static __device__ __noinline__ double sum_of(int32_t n) {
    shared &s = memory();
    if (threadIdx.x == 0) {
        double sum = 0;
#pragma unroll 16
        for (int32_t i = 0; i < n; i++) sum += s.e[i];
        s.number[0] = sum;
    }
    __syncthreads();
    const double sum = s.number[0];
    __syncthreads();
    return sum;
}

/* Replace x of each candidate by convert(in, x), which all threads call, in ascending order of ids; `in`: whether the
 * thread has a candidate. Those with a negative result are removed. Returns how many are left. */
template <typename Convert> __device__ int32_t filter(shared &s, int32_t n, Convert convert) {
    int32_t n_kept = 0;
#pragma unroll 1
    for (int32_t first = 0; first < n; first += THREADS) { /* none moves past those yet to be read */
        const int32_t i = first + static_cast<int32_t>(threadIdx.x), id = i < n ? s.id[i] : 0;
        const double e = convert(i < n, i < n ? s.e[i] : 0);
        const scanned<int32_t> n_stay = block_scan(static_cast<int32_t>(e >= 0));
        if (e >= 0) {
            s.e[n_kept + n_stay.up_to - 1] = e;
            s.id[n_kept + n_stay.up_to - 1] = id;
        }
        n_kept += n_stay.total;
    }
    __syncthreads();
    return n_kept;
}

/* top_p and min_p. Returns how many candidates are left. */
__device__ inline int32_t cut_few(shared &s, int32_t n, double top_p, double min_p, bool *is_close) {
    const int32_t own = static_cast<int32_t>(threadIdx.x);
    const double sum = sum_of(n);
#pragma unroll 1
    for (int32_t i = own; i < n; i += THREADS) s.sorted[i] = s.e[i];
    __syncthreads();
    const double *sorted = sort_few(n);
    double e[EACH];
#pragma unroll
    for (int32_t j = 0; j < EACH; j++) e[j] = own + j * THREADS < n ? sorted[own + j * THREADS] : -1;
    __syncthreads();
    for (int32_t j = 0; j < EACH; j++) {
        if (own + j * THREADS < n) s.sorted[own + j * THREADS] = e[j] / sum;
    }
    __syncthreads();
    if (own == 0) {
        const walk end = walk_to<false>(s.sorted, n, top_p);
        s.bin = end.at < n ? end.at : n - 1;
        *is_close |= fabs(end.total - top_p) <= margin || (end.at > 0 && fabs(end.before - top_p) <= margin);
    }
    __syncthreads();
    const int32_t at = s.bin; /* the last one that stays */
#pragma unroll
    for (int32_t j = 0; j < EACH; j++) {
        if (own + j * THREADS == at) s.number[0] = e[j];
    }
    __syncthreads();
    const double last = s.number[0];
    int32_t n_last = 0; /* of those equal to it, the first so many stay */
#pragma unroll
    for (int32_t j = 0; j < EACH; j++) n_last += __syncthreads_count(own + j * THREADS <= at && e[j] == last);
    int32_t n_equal = 0;
    return filter(s, n, [&](bool in, double x) {
        const bool is_equal = in && x == last;
        const scanned<int32_t> equal = block_scan(static_cast<int32_t>(is_equal));
        const int32_t rank = n_equal + equal.up_to;
        n_equal += equal.total;
        const bool stays = is_equal ? rank <= n_last : in && x > last;
        return stays && x >= min_p ? x : -1.0;
    });
}

/* Draw from n candidates, whose e and ids are in s.e and s.id. The result is thread 0's. */
__device__ inline draw draw_few(shared &s, int32_t n, const settings &use) {
    draw d = {-1, false};
    if (use.top_p < 1) n = cut_few(s, n, use.top_p, use.min_p, &d.is_close);
    const double sum = sum_of(n);
#pragma unroll 1
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < n; i += THREADS) s.sorted[i] = s.e[i] / sum;
    __syncthreads();
    if (threadIdx.x != 0) return d;
    const walk end = walk_to<true>(s.sorted, n, use.u);
    int32_t at = end.at;
    if (at == n) { /* the sum rounds to less than u */
        at--;
        while (at > 0 && s.sorted[at] == 0) at--;
    }
    d.id = s.id[at];
    d.is_close |= (at > 0 && use.u - end.before <= margin) || (at < n - 1 && end.total - use.u <= margin);
    return d;
}

/* Move the ids whose logits reach `least` to s.e and s.id, in ascending order. Returns how many they are; if more than
 * FEW, any number above it. */
__device__ inline int32_t gather(const row &r, shared &s, double least) {
    int32_t *picked = reinterpret_cast<int32_t *>(s.sorted); /* groups that hold some */
    int32_t n_picked = 0, n = 0;
#pragma unroll 1
    for (int32_t g = static_cast<int32_t>(threadIdx.x); g < whole_blocks(r.n_group); g += THREADS) {
        const bool in = g < r.n_group && __ldcg(r.greatest + g) >= least;
        const scanned<int32_t> here = block_scan(static_cast<int32_t>(in));
        if (in && n_picked + here.up_to <= FEW) picked[n_picked + here.up_to - 1] = g;
        n_picked += here.total;
    }
    if (n_picked > FEW) return FEW + 1;
    __syncthreads();
#pragma unroll 1
    for (int32_t p = warp_of(); p - warp_of() < n_picked; p += WARPS) {
        const int32_t first = p < n_picked ? picked[p] * GROUP : r.n;
        double x[GROUP / WARP];
        uint32_t reach[GROUP / WARP];
        int32_t n_here = 0;
#pragma unroll
        for (int32_t j = 0; j < GROUP / WARP; j++) {
            const int32_t i = first + j * WARP + lane_of();
            x[j] = i < r.n ? r.value(i) : -infinity;
        }
#pragma unroll
        for (int32_t j = 0; j < GROUP / WARP; j++) {
            reach[j] = __ballot_sync(all_lanes, x[j] >= least);
            n_here += __popc(reach[j]);
        }
        const scanned<int32_t> all = block_scan(lane_of() == 0 ? n_here : 0);
        int32_t at = n + all.up_to - n_here;
        n += all.total;
        if (n > FEW) return FEW + 1;
#pragma unroll
        for (int32_t j = 0; j < GROUP / WARP; j++) {
            const int32_t own = at + __popc(reach[j] & lower_lanes());
            if (x[j] >= least) {
                s.e[own] = x[j];
                s.id[own] = first + j * WARP + lane_of();
            }
            at += __popc(reach[j]);
        }
    }
    __syncthreads();
    return n;
}

/*
 * Gather the candidates of a row that top_k leaves, if they are few, with their e. k groups have a logit that reaches the
 * k-th greatest of their greatest ones, so no lower one can be the k-th.
 */
__device__ inline int32_t few_of(const row &r, shared &s, const settings &use, double top) {
    const int32_t top_k = use.top_k;
    const bool cuts = top_k > 0 && top_k < r.n;
    double least = -DBL_MAX;
    if (cuts && top_k <= r.n_group) {
        const team alone = {0, 1, 0, nullptr};
        const numbers of = {r.greatest, nullptr, r.n_group, -DBL_MAX, top, 0};
        const cut c = find_cut(alone, of, static_cast<uint64_t>(top_k), 12); /* for 20 up to 31 groups: one a warp */
        if (c.is_found) least = number_of(c.key);
    }
    const int32_t n = gather(r, s, least);
    if (n > FEW) return n;
    if (cuts && top_k <= n) {
#pragma unroll 1
        for (int32_t i = static_cast<int32_t>(threadIdx.x); i < n; i += THREADS) s.sorted[i] = s.e[i];
        __syncthreads();
        least = sort_few(n)[top_k - 1];
    }
    const double min_p = use.top_p < 1 ? 0 : use.min_p; /* top_p comes first */
    return filter(s, n, [&](bool in, double x) {
        const double e = in && x >= least ? exp((x - top) / use.temperature) : -1;
        return e >= min_p ? e : -1.0;
    });
}

} // namespace sampling
} // namespace qni

#endif
