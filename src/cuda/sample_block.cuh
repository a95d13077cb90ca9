/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling, what its parts share: the row being sampled, the memory of a block of threads, and what all threads of a block
 * do together. Each such function must be called by all of them, and they get the same results.
 *
 * The code runs once a token, mostly not in the instruction cache: what is called from several places is not inlined.
 */
#ifndef QNI_CUDA_SAMPLE_BLOCK_CUH
#define QNI_CUDA_SAMPLE_BLOCK_CUH

#include "element.cuh"

#include <cfloat>
#include <cmath>

namespace qni {
namespace sampling {

enum {
    WARP = 32,
    GROUP = 128, /* ids whose greatest logit the first kernel finds */
    FEW = 4096,  /* sampler.h: up to so many candidates are added in ascending order of ids */
    WARPS = 32,  /* of a block of threads */
    THREADS = WARP * WARPS,
    EACH = FEW / THREADS, /* candidates of a thread, if there are few */
    BINS = THREADS,       /* of a histogram */
    BIN_BITS = 10,
    PARTS = 8, /* blocks of threads that share a row with many candidates */
    FEW_TO_SORT = 256,
};
constexpr unsigned all_lanes = 0xffffffffu;
constexpr double infinity = INFINITY;
/* A result this close to where another would begin may differ from the host's: in exp and in the order of sums. */
constexpr double margin = 1e-12;

/* What the parts of a row tell each other. */
struct exchange {
    uint64_t weight[PARTS][BINS];
    uint32_t count[PARTS][BINS];
    uint64_t least[PARTS], most[PARTS];
    double sum[PARTS * WARPS]; /* of each warp, in ascending order of their ids */
    uint32_t n[PARTS * WARPS];
    int32_t id;
};
struct candidates {
    double e[FEW];
    int32_t id[FEW];
};

/* A row in the workspace. `value` takes the logits that penalties or biases may move, and later e of each id. */
struct workspace {
    exchange slot[2];
    candidates list;
};
__host__ __device__ inline int64_t groups_of(int64_t n) {
    return (n + GROUP - 1) / GROUP;
}
__host__ __device__ inline int64_t values_at() {
    return qni_cuda_aligned(sizeof(workspace));
}
__host__ __device__ inline int64_t greatest_at(int64_t n_vocab) {
    return values_at() + groups_of(n_vocab) * GROUP * 8;
}
__host__ __device__ inline int64_t row_bytes(int64_t n_vocab) {
    return qni_cuda_aligned(greatest_at(n_vocab) + groups_of(n_vocab) * 8);
}

/* What `finish` needs of a sampler; u: the random number. */
struct settings {
    double temperature, top_p, min_p, u;
    int32_t top_k;
};

struct row {
    const float *logits;
    workspace *work;
    double *values;     /* {n_vocab} */
    double *greatest;   /* {n_group}: NaN where a logit is NaN or +Inf */
    int32_t n, n_group; /* valid ids and their groups */
    bool moves;         /* penalties or biases move logits: they are in `values` */

    /* A logit after penalties and biases. Loads bypass L1: other blocks of threads write to the workspace. */
    __device__ double value(int32_t i) const {
        return moves ? __ldcg(values + i) : static_cast<double>(__ldcg(logits + i));
    }
};

__device__ inline row row_at(const qni_mat &logits, const qni_cuda_sampler &s, unsigned char *work, int32_t r) {
    unsigned char *own = work + r * row_bytes(logits.n_col);
    row at;
    at.logits = static_cast<const float *>(row_of(logits, r));
    at.work = reinterpret_cast<workspace *>(own);
    at.values = reinterpret_cast<double *>(own + values_at());
    at.greatest = reinterpret_cast<double *>(own + greatest_at(logits.n_col));
    at.n = static_cast<int32_t>(s.n_valid < logits.n_col ? s.n_valid : logits.n_col);
    at.n_group = static_cast<int32_t>(groups_of(at.n));
    at.moves = s.repetition_penalty != 1 || s.frequency_penalty != 0 || s.presence_penalty != 0 || s.n_bias > 0;
    return at;
}

/* The memory of a block of threads. */
struct shared {
    double e[FEW];      /* few candidates: their logits, then their e */
    double sorted[FEW]; /* the same in descending order, probabilities, … */
    double spare[FEW_TO_SORT];
    int32_t id[FEW];
    uint32_t count[BINS], low[BINS], high[BINS]; /* a histogram; the two halves of weights */
    uint64_t part[WARPS];
    uint64_t above;
    double number[2];
    uint32_t in_bin;
    int32_t bin;
};

/* By name, not by a pointer, so that the compiler knows that it is shared memory. */
__device__ inline shared &memory() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return *reinterpret_cast<shared *>(bytes);
}

__device__ inline int32_t lane_of() {
    return static_cast<int32_t>(threadIdx.x % WARP);
}
__device__ inline int32_t warp_of() {
    return static_cast<int32_t>(threadIdx.x / WARP);
}
__device__ inline uint32_t lower_lanes() {
    return (1u << lane_of()) - 1;
}

/* Maps doubles to integers of the same order. */
__device__ inline uint64_t key_of(double x) {
    const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(x));
    return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
__device__ inline double number_of(uint64_t key) {
    return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(uint64_t{1} << 63) : ~key));
}

__device__ inline uint64_t warp_max(uint64_t x) {
    const uint32_t high = static_cast<uint32_t>(x >> 32), low = static_cast<uint32_t>(x);
    const uint32_t top = __reduce_max_sync(all_lanes, high);
    return uint64_t{top} << 32 | __reduce_max_sync(all_lanes, high == top ? low : 0u);
}
static __device__ __noinline__ uint64_t block_max(uint64_t x) {
    shared &s = memory();
    x = warp_max(x);
    if (lane_of() == 0) s.part[warp_of()] = x;
    __syncthreads();
    x = warp_max(s.part[lane_of()]);
    __syncthreads();
    return x;
}
__device__ inline uint64_t block_min(uint64_t x) {
    return ~block_max(~x);
}

__device__ inline double warp_sum(double x) {
    for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(all_lanes, x, d);
    return x;
}

/* The sum over this lane and those below. */
template <typename T> __device__ T warp_scan(T x) {
    for (int d = 1; d < WARP; d *= 2) {
        const T below = __shfl_up_sync(all_lanes, x, d);
        if (lane_of() >= d) x += below;
    }
    return x;
}
/* The sum over this thread and those below, and over all. */
template <typename T> struct scanned { T up_to, total; };
template <typename T> __device__ __noinline__ scanned<T> block_scan(T x) {
    shared &s = memory();
    x = warp_scan(x);
    if (lane_of() == WARP - 1) s.part[warp_of()] = static_cast<uint64_t>(x);
    __syncthreads();
    const T sums = warp_scan(static_cast<T>(s.part[lane_of()]));
    const T below = __shfl_sync(all_lanes, sums, warp_of() > 0 ? warp_of() - 1 : 0);
    const T total = __shfl_sync(all_lanes, sums, WARP - 1);
    __syncthreads();
    return {warp_of() > 0 ? below + x : x, total};
}

/* A multiple of the size of the block of threads, so that all of them run a loop equally often. */
__device__ inline int32_t whole_blocks(int32_t n) {
    return (n + THREADS - 1) / THREADS * THREADS;
}

/* Uniform in [0, 1): Philox4x32-10 as philox.h of the host's sampler. */
__device__ inline double uniform(uint64_t key, uint64_t counter) {
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return static_cast<double>((uint64_t{c1} << 32 | c0) >> 11) * 0x1p-53;
}

} // namespace sampling
} // namespace qni

#endif
