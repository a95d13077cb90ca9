/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of threads that share a row, and the search for the k-th greatest number, or for where the greatest ones have a
 * given sum.
 */
#ifndef QNI_CUDA_SAMPLE_TEAM_CUH
#define QNI_CUDA_SAMPLE_TEAM_CUH

#include "sample_block.cuh"

namespace qni {
namespace sampling {

/*
 * A cluster, or a block on its own. They exchange through two slots of global memory in turn: write to the slot, meet,
 * read, turn. So a slot is only written again after the next meeting, when all have read it.
 */
struct team {
    int32_t rank, size, turns;
    exchange *slots;

    __device__ exchange &slot() const { return slots[turns & 1]; }
    __device__ void turn() { turns++; }
    __device__ void meet() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (size > 1) {
            __syncwarp();
            asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
            asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
            return;
        }
#endif
        __syncthreads();
    }
};

/* The team of this block. Before sm_90 blocks with a rank above 0 have nothing to do. */
__device__ inline team own_team() {
    uint32_t size = 1;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
#endif
    return {static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(size), 0, nullptr};
}

struct range {
    int32_t begin, end; /* of this warp; begin may be above end: none */
    int32_t each;       /* indices of a warp */
};

__device__ inline range range_of(const team &t, int32_t n) {
    const int32_t n_warp = t.size * WARPS, each = ((n + n_warp - 1) / n_warp + WARP - 1) / WARP * WARP;
    const int32_t begin = (t.rank * WARPS + warp_of()) * each;
    return {begin, begin + each < n ? begin + each : n, each};
}

/* visit(i, in, load(i)) for the range of the warp, ascending; `in`: whether the lane has an i. Four loads are under way
 * together. */
template <typename Load, typename Visit> __device__ void sweep(const range &own, Load load, Visit visit) {
#pragma unroll 1
    for (int32_t first = own.begin; first < own.end; first += 4 * WARP) {
        double x[4];
#pragma unroll
        for (int32_t j = 0; j < 4; j++) {
            const int32_t i = first + j * WARP + lane_of();
            x[j] = i < own.end ? load(i) : -infinity;
        }
#pragma unroll
        for (int32_t j = 0; j < 4; j++) {
            const int32_t i = first + j * WARP + lane_of();
            visit(i, i < own.end, x[j]);
        }
    }
}

/* Numbers to search. Those below `least` do not count. */
struct numbers {
    const double *x;
    const float *x32; /* if x is NULL */
    int32_t n;
    double least, most;
    double unit; /* a number weighs itself in units of 1 / unit; 0: it weighs 1 */

    __device__ double at(int32_t i) const {
        return x != nullptr ? __ldcg(x + i) : static_cast<double>(__ldcg(x32 + i));
    }
    __device__ uint64_t weight(double number) const { return unit == 0 ? 1 : __double2ull_rn(number * unit); }
};

/* Where the greatest numbers reach a target. */
struct cut {
    bool is_found;  /* false: all together do not */
    uint64_t key;   /* of the number that reaches it; if not exact, the lowest key of its bin */
    uint64_t above; /* what the greater numbers (greater bins) weigh */
    uint32_t count; /* numbers of this key (in this bin) */
    int32_t turns;  /* of the team, after the search */
};

/* Count a number of each lane in the histogram, lanes `in` only. Equal numbers are common, and atomics to one address
 * take turns: then one lane adds for all. Integers, so that the order does not matter. */
__device__ inline void tally(shared &s, bool in, uint32_t bin, uint64_t weight) {
    const uint32_t lanes = __ballot_sync(all_lanes, in);
    if (lanes == 0) return;
    const int leader = __ffs(static_cast<int>(lanes)) - 1;
    const bool agrees = bin == __shfl_sync(all_lanes, bin, leader);
    uint32_t n = 1;
    if (__all_sync(all_lanes, !in || agrees)) {
        weight = in ? weight : 0;
        for (int d = WARP / 2; d > 0; d /= 2) weight += __shfl_xor_sync(all_lanes, weight, d);
        n = __popc(lanes);
        in = lane_of() == leader;
    }
    if (!in) return;
    const uint32_t low = static_cast<uint32_t>(weight), before = atomicAdd(&s.low[bin], low);
    atomicAdd(&s.high[bin], static_cast<uint32_t>(weight >> 32) + (before + low < before));
    atomicAdd(&s.count[bin], n);
}

/* Add up the parts' histograms; the bin of this thread comes out. */
__device__ inline void merge(team &t, const shared &s, uint64_t &weight, uint32_t &count, uint64_t &least,
                             uint64_t &most) {
    const int32_t bin = static_cast<int32_t>(threadIdx.x);
    count = s.count[bin];
    weight = uint64_t{s.high[bin]} << 32 | s.low[bin];
    if (t.size == 1) return;
    exchange &x = t.slot();
    x.count[t.rank][bin] = count;
    x.weight[t.rank][bin] = weight;
    if (bin == 0) {
        x.least[t.rank] = least;
        x.most[t.rank] = most;
    }
    t.meet();
    count = 0;
    weight = 0;
#pragma unroll 4
    for (int32_t p = 0; p < t.size; p++) {
        const uint64_t part_least = __ldcg(&x.least[p]), part_most = __ldcg(&x.most[p]);
        count += __ldcg(&x.count[p][bin]);
        weight += __ldcg(&x.weight[p][bin]);
        least = part_least < least ? part_least : least;
        most = part_most > most ? part_most : most;
    }
    t.turn();
}

/*
 * The greatest number such that those from it on weigh `target` or more together. A histogram of the leading bits of their
 * keys finds the bin that holds it; the next one is of that bin only. The search ends where all keys are equal, or where
 * the bin has no more than `enough` numbers.
 */
static __device__ __noinline__ cut find_cut(team t, numbers of, uint64_t target, uint32_t enough) {
    shared &s = memory();
    const int32_t own = static_cast<int32_t>(threadIdx.x); /* bin 0 is the greatest */
    const range ids = range_of(t, of.n);
    cut c = {false, key_of(of.least), 0, 0, 0};
    const int width = 64 - __clzll(static_cast<long long>(key_of(of.most) - c.key));
    for (int shift = width > BIN_BITS ? width - BIN_BITS : 0;; shift = shift > BIN_BITS ? shift - BIN_BITS : 0) {
        s.count[own] = 0;
        s.low[own] = 0;
        s.high[own] = 0;
        if (own == 0) s.bin = -1;
        __syncthreads();
        uint64_t least = ~uint64_t{0}, most = 0;
        const auto load = [&](int32_t i) { return of.at(i); };
        sweep(ids, load, [&](int32_t, bool, double x) {
            const uint64_t key = key_of(x), from_low = (key - c.key) >> shift;
            const bool in = x >= of.least && key >= c.key && from_low < BINS;
            if (in && key < least) least = key;
            if (in && key > most) most = key;
            tally(s, in, static_cast<uint32_t>(BINS - 1 - from_low), in ? of.weight(x) : 0);
        });
        least = block_min(least);
        most = block_max(most);
        uint64_t weight;
        uint32_t count;
        merge(t, s, weight, count, least, most);
        const uint64_t reached = c.above + block_scan(weight).up_to, before = reached - weight;
        if (before < target && target <= reached) {
            s.bin = own;
            s.above = before;
            s.in_bin = count;
        }
        __syncthreads();
        const int32_t bin = s.bin;
        if (bin >= 0) c = {true, c.key + (static_cast<uint64_t>(BINS - 1 - bin) << shift), s.above, s.in_bin, t.turns};
        __syncthreads();
        if (bin < 0) return {false, 0, 0, 0, t.turns};
        if (least == most) c.key = least;
        if (least == most || shift == 0 || c.count <= enough) return c;
    }
}

} // namespace sampling
} // namespace qni

#endif
