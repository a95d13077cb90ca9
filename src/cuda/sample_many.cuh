/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling from many candidates: a team shares the row, a range of ids for each warp. e of all ids is computed once; each
 * later pass reads it again. Sums are taken by warps, in an order that is always the same for a size of team but is not
 * the host's. Where the filters leave few candidates, the first block goes on as in sample_few.cuh.
 */
#ifndef QNI_CUDA_SAMPLE_MANY_CUH
#define QNI_CUDA_SAMPLE_MANY_CUH

#include "sample_few.cuh"

#include <climits>

namespace qni {
namespace sampling {

/* Sums over the team; `before`: candidates of the warps before this one. */
struct totals {
    double sum;
    uint32_t n, before;
    const exchange *parts; /* of each warp; until the next turn but one */
};

/* sum: of this lane; n: of this warp. */
__device__ inline totals add_up(team &t, double sum, uint32_t n) {
    exchange &x = t.slot();
    const int32_t own = t.rank * WARPS + warp_of();
    sum = warp_sum(sum);
    if (lane_of() == 0) {
        x.sum[own] = sum;
        x.n[own] = n;
    }
    t.meet();
    t.turn();
    totals all = {0, 0, 0, &x};
#pragma unroll 1
    for (int32_t w = lane_of(); w < t.size * WARPS; w += WARP) {
        const uint32_t n_here = __ldcg(&x.n[w]);
        all.sum += __ldcg(&x.sum[w]);
        all.n += n_here;
        all.before += w < own ? n_here : 0;
    }
    all.sum = warp_sum(all.sum);
    all.n = __reduce_add_sync(all_lanes, all.n);
    all.before = __reduce_add_sync(all_lanes, all.before);
    return all;
}

/* Which candidates are left: those above `last` in the order of top_p, and it itself. */
struct kept {
    double last;
    int32_t last_id;
    double min_p;
    __device__ bool operator()(double e, int32_t id) const {
        return e >= 0 && (e > last || (e == last && id <= last_id)) && e >= min_p;
    }
};
constexpr double above_none = -0.5; /* e of no candidate is below it */

/* The id of the n-th candidate whose e is `x`. */
__device__ inline int32_t id_of_equal(team &t, const row &r, const range &own, double x, uint32_t n) {
    const auto load = [&](int32_t i) { return __ldcg(r.values + i); };
    uint32_t n_here = 0;
    sweep(own, load, [&](int32_t, bool, double e) { n_here += __popc(__ballot_sync(all_lanes, e == x)); });
    const totals all = add_up(t, 0, n_here);
    exchange &slot = t.slot();
    if (all.before < n && n <= all.before + n_here) {
        uint32_t before = all.before;
        sweep(own, load, [&](int32_t i, bool, double e) {
            const uint32_t equal = __ballot_sync(all_lanes, e == x);
            if (e == x && before + __popc(equal & lower_lanes()) + 1 == n) slot.id = i;
            before += __popc(equal);
        });
    }
    t.meet();
    t.turn();
    return __ldcg(&slot.id);
}

/* Where top_p ends. Probabilities are added as integers of 2^-62. */
__device__ inline kept cut_many(team &t, const row &r, const range &own, const totals &all, double top_p, double min_p,
                                bool *is_close) {
    const double one = 0x1p62;
    const uint64_t target = top_p * one >= 1 ? __double2ull_rn(top_p * one) : 1;
    const numbers of = {r.values, nullptr, r.n, 0, 1, one / all.sum};
    const cut c = find_cut(t, of, target, 0);
    t.turns = c.turns;
    if (!c.is_found) { /* the probabilities add up to slightly less than top_p, which is almost 1 */
        *is_close = true;
        return {above_none, INT_MAX, min_p};
    }
    const double last = number_of(c.key), p = last / all.sum;
    const double rest = top_p - __ull2double_rn(c.above) / one; /* for the candidates equal to the last */
    const double n = fmin(fmax(ceil(rest / p), 1), c.count);
    /* the host adds one after another: what its roundings may come to */
    const double error = fmax(margin, all.n * 0x1p-53);
    *is_close |= fabs(n * p - rest) <= error || fabs((n - 1) * p - rest) <= error;
    const uint32_t n_last = static_cast<uint32_t>(n);
    return {last, n_last < c.count ? id_of_equal(t, r, own, last, n_last) : INT_MAX, min_p};
}

/* Draw where candidates are many: find the warp, then the id within its range. One warp. */
__device__ inline draw draw_many(const team &t, const row &r, const range &own, const totals &all, const kept &is_kept,
                                 double u) {
    const int32_t lane = lane_of();
    int32_t w = lane * t.size; /* the first of the lane's warps */
    double mine = 0;
#pragma unroll 1
    for (int32_t j = 0; j < t.size; j++) mine += __ldcg(&all.parts->sum[w + j]) / all.sum;
    const double up_to = warp_scan(mine);
    double before = __shfl_up_sync(all_lanes, up_to, 1);
    if (lane == 0) before = 0;
    const uint32_t beyond = __ballot_sync(all_lanes, mine > 0 && up_to > u), any = __ballot_sync(all_lanes, mine > 0);
#pragma unroll 1
    for (int32_t j = 0; j + 1 < t.size && beyond != 0; j++, w++) {
        const double next = before + __ldcg(&all.parts->sum[w]) / all.sum;
        if (next > u) break;
        before = next;
    }
    const int at = beyond != 0 ? __ffs(static_cast<int>(beyond)) - 1 : 31 - __clz(static_cast<int>(any));
    w = __shfl_sync(all_lanes, w, at);
    before = __shfl_sync(all_lanes, before, at);

    int32_t last = -1; /* taken if the sum rounds to less than u */
#pragma unroll 1
    for (int32_t first = w * own.each; first < r.n; first += WARP) {
        const int32_t i = first + lane;
        const double e = i < r.n ? __ldcg(r.values + i) : -1, p = is_kept(e, i) ? e / all.sum : 0;
        const double total = before + warp_scan(p);
        const uint32_t hit = __ballot_sync(all_lanes, p > 0 && total > u), some = __ballot_sync(all_lanes, p > 0);
        if (hit != 0) {
            const int l = __ffs(static_cast<int>(hit)) - 1;
            const double end = __shfl_sync(all_lanes, total, l), start = end - __shfl_sync(all_lanes, p, l);
            return {first + l, u - start <= margin || end - u <= margin};
        }
        if (some != 0) last = first + 31 - __clz(static_cast<int>(some));
        before = __shfl_sync(all_lanes, total, WARP - 1);
    }
    return {last, true};
}

/* Move the n candidates that are left to the first block's memory. */
__device__ inline void bring_few(team &t, const row &r, shared &s, const range &own, const totals &all,
                                 const kept &is_kept) {
    candidates &list = r.work->list;
    uint32_t before = all.before;
    sweep(
        own, [&](int32_t i) { return __ldcg(r.values + i); },
        [&](int32_t i, bool in, double e) {
            const bool stays = in && is_kept(e, i);
            const uint32_t lanes = __ballot_sync(all_lanes, stays);
            if (stays) {
                const uint32_t at = before + __popc(lanes & lower_lanes());
                list.e[at] = e;
                list.id[at] = i;
            }
            before += __popc(lanes);
        });
    t.meet();
    t.turn();
    if (t.rank > 0) return;
#pragma unroll 1
    for (uint32_t j = threadIdx.x; j < all.n; j += THREADS) {
        s.e[j] = __ldcg(list.e + j);
        s.id[j] = __ldcg(list.id + j);
    }
    __syncthreads();
}

/* The k-th greatest logit; -DBL_MAX if fewer are finite. */
__device__ inline double kth_of(team &t, const row &r, double top, int32_t k) {
    const numbers of = {r.moves ? r.values : nullptr, r.logits, r.n, -DBL_MAX, top, 0};
    const cut c = find_cut(t, of, static_cast<uint64_t>(k), 0);
    t.turns = c.turns;
    return c.is_found ? number_of(c.key) : -DBL_MAX;
}

/* e of all ids that top_k leaves, -1 for the others; of those that min_p leaves, if it is `min_p`. */
__device__ inline totals weigh(team &t, const row &r, const range &own, const settings &use, double top, double least,
                               double min_p) {
    double sum = 0;
    uint32_t n = 0;
    sweep(
        own, [&](int32_t i) { return r.value(i); },
        [&](int32_t i, bool in, double x) {
            const double exponential = x >= least ? exp((x - top) / use.temperature) : -1;
            const double e = exponential >= min_p ? exponential : -1;
            if (in) r.values[i] = e;
            if (e >= 0) sum += e;
            n += __popc(__ballot_sync(all_lanes, e >= 0));
        });
    return add_up(t, sum, n);
}

/* Add up those that are left. */
__device__ inline totals weigh_kept(team &t, const row &r, const range &own, const kept &is_kept) {
    double sum = 0;
    uint32_t n = 0;
    sweep(
        own, [&](int32_t i) { return __ldcg(r.values + i); },
        [&](int32_t i, bool in, double e) {
            const bool stays = in && is_kept(e, i);
            if (stays) sum += e;
            n += __popc(__ballot_sync(all_lanes, stays));
        });
    return add_up(t, sum, n);
}

/*
 * Apply the filters. If few candidates are left, they are brought to the first block's memory, and it draws: the result is
 * their number, and top_p and min_p of `use` are off if they have been applied. Else the result is above FEW, and `d` is the
 * first thread's draw.
 */
__device__ inline int32_t sample_many(team &t, const row &r, shared &s, settings &use, double top, draw *d) {
    const range own = range_of(t, r.n);
    const double least = use.top_k > 0 && use.top_k < r.n ? kth_of(t, r, top, use.top_k) : -DBL_MAX;
    kept is_kept = {above_none, INT_MAX, use.top_p < 1 ? 0 : use.min_p}; /* top_p comes before min_p */
    totals all = weigh(t, r, own, use, top, least, is_kept.min_p);
    if (use.top_p < 1 && all.n > FEW) {
        is_kept = cut_many(t, r, own, all, use.top_p, use.min_p, &d->is_close);
        all = weigh_kept(t, r, own, is_kept);
        use.top_p = 1;
        use.min_p = 0;
    }
    if (all.n <= FEW) {
        bring_few(t, r, s, own, all, is_kept);
    } else if (t.rank == 0 && warp_of() == 0) {
        const draw many = draw_many(t, r, own, all, is_kept, use.u);
        *d = {many.id, many.is_close || d->is_close};
    }
    return static_cast<int32_t>(all.n);
}

} // namespace sampling
} // namespace qni

#endif
