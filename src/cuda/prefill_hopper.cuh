/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill attention for Hopper: a block of 64 or 128 rows on each multiprocessor, which works through many tiles. One
 * thread copies keys and values with tensor copies, two tiles of 128 keys ahead. Each warpgroup multiplies 64 rows with
 * wgmma: while it turns the scores of one tile of keys into terms, the terms of the tile before are multiplied with the
 * values, and the other warpgroup's products fill the gaps, because the two take turns to queue theirs.
 */
#ifndef QNI_CUDA_PREFILL_HOPPER_CUH
#define QNI_CUDA_PREFILL_HOPPER_CUH

#include "prefill_tile.cuh"

#include <cuda.h>

namespace qni {

enum {
    HOPPER_KEYS = 128,
    HOPPER_STAGES = 2,
    HOPPER_GROUP = 128,      /* threads of a warpgroup */
    HOPPER_OWN_BARRIER = 1,  /* and the next one: of one warpgroup */
    HOPPER_TURN_BARRIER = 3, /* and the next one: its warpgroup may queue products */
};

struct hopper_barriers {
    uint64_t k_full[HOPPER_STAGES], k_free[HOPPER_STAGES], v_full[HOPPER_STAGES], v_free[HOPPER_STAGES];
};

inline constexpr size_t hopper_panel_bytes(int32_t n_row, int32_t head_dim) {
    return size_t(2) * n_row * head_dim;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define QNI_RESULT_32                                                                                                  \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define QNI_RESULT_64                                                                                                  \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                 \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define QNI_4(d, i)  "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define QNI_16(d, i) QNI_4(d, i), QNI_4(d, (i) + 4), QNI_4(d, (i) + 8), QNI_4(d, (i) + 12)
#define QNI_32(d)    QNI_16(d, 0), QNI_16(d, 16)
#define QNI_64(d)    QNI_32(d), QNI_16(d, 32), QNI_16(d, 48)

/* d = a · b, or d += where `add`; a and b in shared memory, terms contiguous. */
#define QNI_SCORE(type)                                                                                                \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; "                                                              \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " QNI_RESULT_64                        \
                 ", %64, %65, p, 1, 1, 0, 0;}"                                                                         \
                 : QNI_64(d)                                                                                           \
                 : "l"(a), "l"(b), "r"(add))
/* d += a · b; a in registers, b in shared memory, columns contiguous. */
#define QNI_VALUES_128(type)                                                                                           \
    asm volatile("{.reg .pred p; setp.eq.b32 p, 0, 0; "                                                                \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " QNI_RESULT_64                        \
                 ", {%64, %65, %66, %67}, %68, p, 1, 1, 1;}"                                                           \
                 : QNI_64(d)                                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define QNI_VALUES_64(type)                                                                                            \
    asm volatile("{.reg .pred p; setp.eq.b32 p, 0, 0; "                                                                \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " QNI_RESULT_32                         \
                 ", {%32, %33, %34, %35}, %36, p, 1, 1, 1;}"                                                           \
                 : QNI_32(d)                                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

template <typename T> __device__ void queue_score_step(float (&d)[64], uint64_t a, uint64_t b, int32_t add) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        QNI_SCORE("bf16");
    else
        QNI_SCORE("f16");
}

template <typename T> __device__ void queue_values_step(float (&d)[64], const uint32_t *a, uint64_t b) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        QNI_VALUES_128("bf16");
    else
        QNI_VALUES_128("f16");
}

template <typename T> __device__ void queue_values_step(float (&d)[32], const uint32_t *a, uint64_t b) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        QNI_VALUES_64("bf16");
    else
        QNI_VALUES_64("f16");
}

/* Registers that are written before this stay so, and those that are read after it: the compiler moves none across. */
template <int N> __device__ void pin(float (&x)[N]) {
#pragma unroll
    for (int32_t i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}
template <int N> __device__ void pin(uint32_t (&x)[N]) {
#pragma unroll
    for (int32_t i = 0; i < N; i++) asm volatile("" : "+r"(x[i])::"memory");
}

/* Before the first product after registers that it takes were written. */
__device__ inline void fence_registers() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Wait until at most N groups of products are under way; d belongs to one that has ended. */
template <int N, int SIZE> __device__ void wait_products(float (&d)[SIZE]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
    pin(d);
}

/* A 128-byte-swizzled operand at a shared address; `far` is the distance between halves of 64 columns. */
__device__ inline uint64_t operand(const void *at, uint32_t far) {
    const uint64_t address = __cvta_generic_to_shared(at);
    const uint64_t swizzle_128 = 1, eight_rows = 1024;
    return (address & 0x3ffff) >> 4 | uint64_t(far >> 4) << 16 | (eight_rows >> 4) << 32 | swizzle_128 << 62;
}

/* s = q · K. */
template <typename T, int D>
__device__ void queue_scores(float (&s)[HOPPER_KEYS / 2], const unsigned char *q, const unsigned char *k) {
    const uint64_t a = operand(q, 16), b = operand(k, 16);
    fence_registers();
#pragma unroll
    for (int32_t step = 0; step < D / 16;
         step++) /* 16 elements are 32 bytes; a half of 64 is a panel of 128-byte rows */
        queue_score_step<T>(s, a + step / 4 * (64 * 128 >> 4) + step % 4 * (32 >> 4),
                            b + step / 4 * (HOPPER_KEYS * 128 >> 4) + step % 4 * (32 >> 4), step != 0);
    end_products();
}

/* o += p · V. */
template <typename T, int D>
__device__ void queue_values(float (&o)[D / 2], uint32_t (&p)[HOPPER_KEYS / 4], const unsigned char *v) {
    const uint64_t b = operand(v, HOPPER_KEYS * 128);
    pin(o);
    pin(p);
    fence_registers();
#pragma unroll
    for (int32_t step = 0; step < HOPPER_KEYS / 16; step++)
        queue_values_step<T>(o, p + 4 * step, b + step * (16 * 128 >> 4));
    end_products();
}

__device__ inline uint32_t shared_of(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void wait_for(uint64_t *barrier, uint32_t parity) {
    uint32_t is_done = 0;
    while (!is_done)
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(is_done)
                     : "r"(shared_of(barrier)), "r"(parity)
                     : "memory");
}

/* By every warp that used a stage. */
__device__ inline void free_stage(uint64_t *barrier) {
    if (threadIdx.x % 32 == 0)
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_of(barrier)) : "memory");
}

__device__ inline void sync_threads(int32_t barrier, int32_t n_thread) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(n_thread) : "memory");
}

/* Let the other of two warpgroups queue products. */
__device__ inline void give_turn(int32_t group) {
    asm volatile("bar.arrive %0, %1;" ::"r"(HOPPER_TURN_BARRIER + 1 - group), "n"(2 * HOPPER_GROUP) : "memory");
}

/* What ordinary stores wrote to shared memory is there for wgmma, once a warpgroup's threads have met. */
__device__ inline void publish(int32_t group) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    sync_threads(HOPPER_OWN_BARRIER + group, HOPPER_GROUP);
}

/* Tile i of this block's share: there and back over the blocks, as the tiles get cheaper on the whole. False: none. */
__device__ inline bool next_tile(prefill_tile *tile, const prefill_job &job, int32_t rows, int32_t n_tile, int32_t i) {
    const int32_t n = static_cast<int32_t>(gridDim.x), b = static_cast<int32_t>(blockIdx.x);
    const int32_t work = i * n + (i % 2 == 0 ? b : n - 1 - b);
    return work < n_tile * job.kv.n_kv_head && find_tile(tile, job, rows, n_tile, work);
}

/* Copy the keys or the values of one tile. Granules beyond the last key that a row sees may have no block. */
template <int D>
__device__ void copy_keys(unsigned char *panel, uint64_t *full, const CUtensorMap *map, const prefill_tile &tile,
                          const int32_t (&block)[2], const int32_t (&at)[2], int32_t n_granule) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_of(full)),
                 "r"(n_granule * PREFILL_GRANULE * D * 2)
                 : "memory");
    for (int32_t g = 0; g < n_granule; g++)
#pragma unroll
        for (int32_t half = 0; half < D / 64; half++)
            asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                         "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
                             shared_of(panel + half * HOPPER_KEYS * 128 + g * PREFILL_GRANULE * 128)),
                         "l"(map), "r"(shared_of(full)), "r"(64 * half), "r"(at[g]), "r"(tile.kv_head), "r"(block[g])
                         : "memory");
}

/* The copying thread's work. */
template <int D>
__device__ void copy_tiles(unsigned char *k_panels, unsigned char *v_panels, hopper_barriers *barriers,
                           const prefill_job &job, const CUtensorMap *k_map, const CUtensorMap *v_map, int32_t rows,
                           int32_t n_tile, int32_t n_share) {
    const int32_t block_tokens = static_cast<int32_t>(job.kv.block_tokens);
    constexpr size_t panel = hopper_panel_bytes(HOPPER_KEYS, D);
    uint32_t count = 0;
    for (int32_t i = 0; i < n_share; i++) {
        prefill_tile tile;
        if (!next_tile(&tile, job, rows, n_tile, i)) continue;
        const int32_t *table = job.batch.block_table + static_cast<int64_t>(tile.seq) * job.batch.max_block;
        for (int32_t key = 0; key < tile.n_key; key += HOPPER_KEYS, count++) {
            const int32_t n_granule = tile.n_key - key > PREFILL_GRANULE ? 2 : 1;
            int32_t block[2], at[2];
            for (int32_t g = 0; g < 2; g++) {
                const int32_t first = key + (g < n_granule ? g * PREFILL_GRANULE : 0);
                block[g] = table[first / block_tokens];
                at[g] = first % block_tokens;
            }
            const uint32_t stage = count % HOPPER_STAGES, parity = count / HOPPER_STAGES % 2 ^ 1;
            wait_for(&barriers->k_free[stage], parity);
            copy_keys<D>(k_panels + stage * panel, &barriers->k_full[stage], k_map, tile, block, at, n_granule);
            wait_for(&barriers->v_free[stage], parity);
            copy_keys<D>(v_panels + stage * panel, &barriers->v_full[stage], v_map, tile, block, at, n_granule);
        }
    }
}

/* Zero the values from `row` on, which no row sees: they may be NaN. All warpgroups do it; that is cheaper than to meet. */
template <int D> __device__ void clear_values(unsigned char *panel, int32_t row, int32_t group) {
    for (int32_t i = row * (D / 8) + static_cast<int32_t>(threadIdx.x % HOPPER_GROUP); i < HOPPER_KEYS * D / 8;
         i += HOPPER_GROUP)
        *reinterpret_cast<uint4 *>(panel + swizzled<HOPPER_KEYS>(i / (D / 8), i % (D / 8))) = make_uint4(0, 0, 0, 0);
    publish(group);
}

/* The terms as bf16 or f16, in the layout of wgmma's first operand. */
template <typename T> __device__ void round_terms(uint32_t (&p)[HOPPER_KEYS / 4], const float (&s)[HOPPER_KEYS / 2]) {
#pragma unroll
    for (int32_t i = 0; i < HOPPER_KEYS / 4; i++) p[i] = pack<T>(s[2 * i], s[2 * i + 1]);
}

/* Between the softmax and wait_products the branches of this keep the compiler from waiting before the softmax. */
__device__ inline void wait_for_keys(hopper_barriers *barriers, uint32_t count, bool is_next) {
    if (is_next) wait_for(&barriers->k_full[count % HOPPER_STAGES], count / HOPPER_STAGES % 2);
}

/* A warpgroup's rows of one tile. `count`: tiles of keys so far, those of earlier tiles included. */
template <typename T, int D, bool TURNS>
__device__ void attend(unsigned char *q_panel, unsigned char *k_panels, unsigned char *v_panels,
                       hopper_barriers *barriers, const prefill_job &job, const prefill_tile &tile, int32_t group,
                       uint32_t &count) {
    constexpr size_t panel = hopper_panel_bytes(HOPPER_KEYS, D);
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
    const int32_t in_group = static_cast<int32_t>(threadIdx.x % HOPPER_GROUP) / 32 * 16, row = group * 64 + in_group;
    load_rows<T, D>(q_panel, in_group, tile, job, row);
    publish(group);
    const int32_t position[2] = {row_position(tile, job, row + lane / 4), row_position(tile, job, row + lane / 4 + 8)};
    const int32_t n_open = row_position(tile, job, 0) + 1; /* keys that all rows see */
    softmax_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    float o[D / 2] = {}, s[HOPPER_KEYS / 2], shrink[2];
    uint32_t p[HOPPER_KEYS / 4];

    wait_for_keys(barriers, count, true);
    queue_scores<T, D>(s, q_panel, k_panels + count % HOPPER_STAGES * panel);
    wait_products<0>(s);
    free_stage(&barriers->k_free[count % HOPPER_STAGES]);
    if (HOPPER_KEYS > n_open) hide(s, 0, position);
    softmax_step(s, state, job.scale, shrink);
    round_terms<T>(p, s);
    wait_for_keys(barriers, count + 1, HOPPER_KEYS < tile.n_key);
    for (int32_t key = HOPPER_KEYS; key < tile.n_key; key += HOPPER_KEYS) {
        const uint32_t v_stage = count % HOPPER_STAGES, v_parity = count / HOPPER_STAGES % 2;
        count++;
        const uint32_t k_stage = count % HOPPER_STAGES;
        if (TURNS) sync_threads(HOPPER_TURN_BARRIER + group, 2 * HOPPER_GROUP);
        queue_scores<T, D>(s, q_panel, k_panels + k_stage * panel);
        wait_for(&barriers->v_full[v_stage], v_parity);
        queue_values<T, D>(o, p, v_panels + v_stage * panel);
        if (TURNS) give_turn(group);
        wait_products<1>(s);
        free_stage(&barriers->k_free[k_stage]);
        if (key + HOPPER_KEYS > n_open) hide(s, key, position);
        softmax_step(s, state, job.scale, shrink);
        pin(s);
        wait_for_keys(barriers, count + 1, key + HOPPER_KEYS < tile.n_key);
        wait_products<0>(o);
        free_stage(&barriers->v_free[v_stage]);
        scale_rows(o, shrink);
        round_terms<T>(p, s);
    }
    unsigned char *const v_panel = v_panels + count % HOPPER_STAGES * panel;
    wait_for(&barriers->v_full[count % HOPPER_STAGES], count / HOPPER_STAGES % 2);
    if (tile.n_key % HOPPER_KEYS != 0) clear_values<D>(v_panel, tile.n_key % HOPPER_KEYS, group);
    queue_values<T, D>(o, p, v_panel);
    wait_products<0>(o);
    free_stage(&barriers->v_free[count % HOPPER_STAGES]);
    count++;
    sync_threads(HOPPER_OWN_BARRIER + group, HOPPER_GROUP); /* nobody reads q any longer: the results pass through it */
    store_rows<T, D>(o, state, q_panel, in_group, tile, job, row);
    __syncwarp();
}

__device__ inline void init_barriers(hopper_barriers *barriers, int32_t n_group) {
    for (int32_t i = 0; i < HOPPER_STAGES; i++) {
        const auto init = [](uint64_t *barrier, int32_t n) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_of(barrier)), "r"(n) : "memory");
        };
        init(&barriers->k_full[i], 1);
        init(&barriers->v_full[i], 1);
        init(&barriers->k_free[i], n_group * HOPPER_GROUP / 32);
        init(&barriers->v_free[i], n_group * HOPPER_GROUP / 32);
    }
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}

#endif

/* n_share: tiles a block, at most. Compiled for anything but sm_90a it is empty, without static shared memory. */
template <typename T, int D, int GROUPS>
__global__ void __launch_bounds__((GROUPS + 1) * HOPPER_GROUP, 1)
    prefill_hopper(const __grid_constant__ prefill_job job, const __grid_constant__ CUtensorMap k_map,
                   const __grid_constant__ CUtensorMap v_map, const int32_t n_tile, const int32_t n_share) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __shared__ hopper_barriers barriers;
    extern __shared__ unsigned char dynamic[];
    unsigned char *const q_panels = dynamic + (-shared_of(dynamic) & 1023);
    unsigned char *const k_panels = q_panels + hopper_panel_bytes(64 * GROUPS, D);
    unsigned char *const v_panels = k_panels + HOPPER_STAGES * hopper_panel_bytes(HOPPER_KEYS, D);
    if (threadIdx.x == 0) init_barriers(&barriers, GROUPS);
    __syncthreads();
    if (threadIdx.x < HOPPER_GROUP) {
        /* 40 · 128 + 232 · 256 <= 65,536 registers */
        if (GROUPS > 1) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0)
            copy_tiles<D>(k_panels, v_panels, &barriers, job, &k_map, &v_map, 64 * GROUPS, n_tile, n_share);
    } else {
        if (GROUPS > 1) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int32_t group = static_cast<int32_t>(threadIdx.x / HOPPER_GROUP) - 1;
        uint32_t count = 0;
        if (GROUPS > 1 && group == 1) give_turn(group);
        for (int32_t i = 0; i < n_share; i++) {
            prefill_tile tile;
            if (next_tile(&tile, job, 64 * GROUPS, n_tile, i))
                attend<T, D, (GROUPS > 1)>(q_panels + hopper_panel_bytes(64, D) * group, k_panels, v_panels, &barriers,
                                           job, tile, group, count);
        }
        if (GROUPS > 1 && group == 0) sync_threads(HOPPER_TURN_BARRIER, 2 * HOPPER_GROUP); /* the turn that is left */
    }
#endif
}

/* The tensor copies' view of K or V: 64 elements of 64 tokens at a time. False: this driver or these strides cannot. */
inline bool view_cache(CUtensorMap *map, void *data, const qni_kv_layer &kv, int64_t block_stride, int64_t head_stride,
                       int64_t token_stride) {
    void *encode = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found) !=
            cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
        return false;
    const cuuint64_t size[4] = {static_cast<cuuint64_t>(kv.head_dim), static_cast<cuuint64_t>(kv.block_tokens),
                                static_cast<cuuint64_t>(kv.n_kv_head), INT32_MAX}; /* as many blocks as there may be */
    const cuuint64_t stride[3] = {static_cast<cuuint64_t>(token_stride * 2), static_cast<cuuint64_t>(head_stride * 2),
                                  static_cast<cuuint64_t>(block_stride * 2)};
    const cuuint32_t box[4] = {64, PREFILL_GRANULE, 1, 1}, step[4] = {1, 1, 1, 1};
    const CUtensorMapDataType type =
        kv.k_dtype == QN_DTYPE_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
               map, type, 4, data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T, int D, int GROUPS>
cudaError_t run_hopper(cudaStream_t stream, const prefill_job &job, int32_t n_sm, const CUtensorMap &k_map,
                       const CUtensorMap &v_map) {
    const size_t shared_bytes = hopper_panel_bytes(64 * GROUPS + 2 * HOPPER_STAGES * HOPPER_KEYS, D) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
        prefill_hopper<T, D, GROUPS>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
    const int64_t n_tile = prefill_n_tile(job, 64 * GROUPS), n_work = n_tile * job.kv.n_kv_head;
    const int64_t n_block = n_work < n_sm ? n_work : n_sm;
    return launch(prefill_hopper<T, D, GROUPS>, dim3(static_cast<unsigned>(n_block)), dim3((GROUPS + 1) * HOPPER_GROUP),
                  shared_bytes, stream, false, job, k_map, v_map, static_cast<int32_t>(n_tile),
                  static_cast<int32_t>((n_work + n_block - 1) / n_block));
}

/* Whether the kernel can be used here: on Hopper, and compiled for it. */
template <typename T, int D> bool is_hopper_here(int32_t *n_sm) {
    int device, major, minor, n;
    cudaFuncAttributes attributes;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        return false;
    *n_sm = n;
    return major == 9 && minor == 0 && cudaFuncGetAttributes(&attributes, prefill_hopper<T, D, 2>) == cudaSuccess &&
           attributes.sharedSizeBytes > 0;
}

} // namespace qni

#endif
