/* SPDX-License-Identifier: Apache-2.0 */
/* Causal attention of many queries: the kernel for any GPU from sm_80 on, and the launchers. */
#include "prefill_hopper.cuh"

namespace qni {

enum { PORTABLE_ROWS = 64, PORTABLE_KEYS = PREFILL_GRANULE, PORTABLE_THREADS = PORTABLE_ROWS / 16 * 32 };

__device__ inline uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void load_matrices(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void load_transposed(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d += a · b for 16 rows, 8 columns and 16 terms. */
template <typename T>
__device__ void multiply(float *d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Start to copy the keys and values from first_key on. Those that no row sees become zeros: 0 times NaN is NaN. */
template <typename T, int D>
__device__ void start_keys(unsigned char *k_panel, unsigned char *v_panel, const prefill_job &job,
                           const prefill_tile &tile, int32_t first_key) {
    const qni_kv_layer &kv = job.kv;
    const int32_t *table = job.batch.block_table + static_cast<int64_t>(tile.seq) * job.batch.max_block;
    const int32_t block_tokens = static_cast<int32_t>(kv.block_tokens);
    const int64_t block = table[first_key / block_tokens], at = first_key % block_tokens;
    const T *k = static_cast<const T *>(kv.k) + block * kv.k_block_stride + tile.kv_head * kv.k_head_stride;
    const T *v = static_cast<const T *>(kv.v) + block * kv.v_block_stride + tile.kv_head * kv.v_head_stride;
#pragma unroll
    for (int32_t i = 0; i < PORTABLE_KEYS * D / 8 / PORTABLE_THREADS; i++) {
        const int32_t chunk = i * PORTABLE_THREADS + static_cast<int32_t>(threadIdx.x);
        const int32_t row = chunk / (D / 8), c = chunk % (D / 8);
        const uint32_t to = swizzled<PORTABLE_KEYS>(row, c), bytes = first_key + row < tile.n_key ? 16 : 0;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(k_panel + to)),
                     "l"(k + (at + row) * kv.k_token_stride + 8 * c), "r"(bytes)
                     : "memory");
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(v_panel + to)),
                     "l"(v + (at + row) * kv.v_token_stride + 8 * c), "r"(bytes)
                     : "memory");
    }
}

/* s = q · K for a warp's 16 rows. */
template <typename T, int D>
__device__ void score(float (&s)[PORTABLE_KEYS / 2], const uint32_t (&q)[D / 16][4], const unsigned char *k_panel) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), matrix = lane / 8;
#pragma unroll
    for (int32_t i = 0; i < PORTABLE_KEYS / 2; i++) s[i] = 0.0f;
#pragma unroll
    for (int32_t step = 0; step < D / 16; step++) {
#pragma unroll
        for (int32_t n = 0; n < PORTABLE_KEYS / 16;
             n++) { /* matrices: 8 keys and chunk, the next chunk, the next 8 keys */
            uint32_t b[4];
            load_matrices(b,
                          k_panel + swizzled<PORTABLE_KEYS>(16 * n + matrix / 2 * 8 + lane % 8, 2 * step + matrix % 2));
            const uint32_t(&a)[4] = q[step];
            multiply<T>(s + 8 * n, a[0], a[1], a[2], a[3], b[0], b[1]);
            multiply<T>(s + 8 * n + 4, a[0], a[1], a[2], a[3], b[2], b[3]);
        }
    }
}

/* o += p · V for a warp's 16 rows. */
template <typename T, int D>
__device__ void add_values(float (&o)[D / 2], const float (&p)[PORTABLE_KEYS / 2], const unsigned char *v_panel) {
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), matrix = lane / 8;
#pragma unroll
    for (int32_t step = 0; step < PORTABLE_KEYS / 16; step++) {
        const float *x = p + 8 * step;
        const uint32_t a0 = pack<T>(x[0], x[1]), a1 = pack<T>(x[2], x[3]);
        const uint32_t a2 = pack<T>(x[4], x[5]), a3 = pack<T>(x[6], x[7]);
#pragma unroll
        for (int32_t n = 0; n < D / 16; n++) { /* matrices: 8 keys and chunk, the next 8 keys, the next chunk */
            uint32_t b[4];
            load_transposed(b, v_panel +
                                   swizzled<PORTABLE_KEYS>(16 * step + matrix % 2 * 8 + lane % 8, 2 * n + matrix / 2));
            multiply<T>(o + 8 * n, a0, a1, a2, a3, b[0], b[1]);
            multiply<T>(o + 8 * n + 4, a0, a1, a2, a3, b[2], b[3]);
        }
    }
}

/* A tile of 64 rows a block, 16 a warp. Keys and values are copied one tile ahead. */
template <typename T, int D>
__global__ void __launch_bounds__(PORTABLE_THREADS)
    prefill_portable(const __grid_constant__ prefill_job job, const int32_t n_tile) {
    extern __shared__ __align__(1024) unsigned char q_panel[];
    constexpr int32_t panel_bytes = PORTABLE_KEYS * D * 2;
    unsigned char *const panels = q_panel + PORTABLE_ROWS * D * 2; /* k, v, k, v */
    const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), row = static_cast<int32_t>(threadIdx.x / 32) * 16;
    prefill_tile tile;
    if (!find_tile(&tile, job, PORTABLE_ROWS, n_tile, static_cast<int32_t>(blockIdx.x))) return;
    start_keys<T, D>(panels, panels + panel_bytes, job, tile, 0);
    asm volatile("cp.async.commit_group;" ::: "memory");

    uint32_t q[D / 16][4];
    load_rows<T, D>(q_panel, row, tile, job, row);
    __syncwarp();
#pragma unroll
    for (int32_t step = 0; step < D / 16; step++)
        load_matrices(q[step], q_panel + swizzled<64>(row + lane % 16, 2 * step + lane / 16));

    const int32_t position[2] = {row_position(tile, job, row + lane / 4), row_position(tile, job, row + lane / 4 + 8)};
    const int32_t n_open = row_position(tile, job, 0) + 1; /* keys that all rows see */
    softmax_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    float o[D / 2] = {};
    for (int32_t key = 0; key < tile.n_key; key += PORTABLE_KEYS) {
        unsigned char *const k_panel = panels + key / PORTABLE_KEYS % 2 * 2 * panel_bytes;
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads(); /* all copies are here, and nobody reads the panels of the tile before any longer */
        if (key + PORTABLE_KEYS < tile.n_key) {
            unsigned char *const next = panels + (key / PORTABLE_KEYS + 1) % 2 * 2 * panel_bytes;
            start_keys<T, D>(next, next + panel_bytes, job, tile, key + PORTABLE_KEYS);
            asm volatile("cp.async.commit_group;" ::: "memory");
        }
        float s[PORTABLE_KEYS / 2], shrink[2];
        score<T, D>(s, q, k_panel);
        if (key + PORTABLE_KEYS > n_open) hide(s, key, position);
        softmax_step(s, state, job.scale, shrink);
        scale_rows(o, shrink);
        add_values<T, D>(o, s, k_panel + panel_bytes);
    }
    __syncwarp();
    store_rows<T, D>(o, state, q_panel, row, tile, job, row);
}

template <typename T, int D> cudaError_t run_portable(cudaStream_t stream, const prefill_job &job) {
    const size_t shared_bytes = (PORTABLE_ROWS + 4 * PORTABLE_KEYS) * D * 2;
    const int64_t n_tile = prefill_n_tile(job, PORTABLE_ROWS);
    const cudaError_t error = cudaFuncSetAttribute(prefill_portable<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(n_tile * job.kv.n_kv_head));
    return launch(prefill_portable<T, D>, grid, dim3(PORTABLE_THREADS), shared_bytes, stream, false, job,
                  static_cast<int32_t>(n_tile));
}

/* The number of rows a tile has changes no result. */
template <typename T, int D> cudaError_t run(cudaStream_t stream, const prefill_job &job) {
    const qni_kv_layer &kv = job.kv;
    CUtensorMap k_map, v_map;
    int32_t n_sm;
    if (!is_hopper_here<T, D>(&n_sm) ||
        !view_cache(&k_map, kv.k, kv, kv.k_block_stride, kv.k_head_stride, kv.k_token_stride) ||
        !view_cache(&v_map, kv.v, kv, kv.v_block_stride, kv.v_head_stride, kv.v_token_stride))
        return run_portable<T, D>(stream, job);
    if (prefill_n_tile(job, 64) * kv.n_kv_head <= n_sm) return run_hopper<T, D, 1>(stream, job, n_sm, k_map, v_map);
    return run_hopper<T, D, 2>(stream, job, n_sm, k_map, v_map);
}

} // namespace qni

static bool rows_are_aligned(const void *data, int64_t block_stride, int64_t head_stride, int64_t token_stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && block_stride % 8 == 0 && head_stride % 8 == 0 &&
           token_stride % 8 == 0;
}

extern "C" bool qni_cuda_prefill_takes(const qni_kv_layer *kv, int64_t n_head) {
    return (kv->k_dtype == QN_DTYPE_BF16 || kv->k_dtype == QN_DTYPE_F16) && kv->v_dtype == kv->k_dtype &&
           (kv->head_dim == 64 || kv->head_dim == 128) && kv->block_tokens > 0 &&
           kv->block_tokens % qni::PREFILL_GRANULE == 0 && kv->block_tokens <= INT32_MAX && kv->n_kv_head > 0 &&
           n_head > 0 && n_head % kv->n_kv_head == 0 &&
           rows_are_aligned(kv->k, kv->k_block_stride, kv->k_head_stride, kv->k_token_stride) &&
           rows_are_aligned(kv->v, kv->v_block_stride, kv->v_head_stride, kv->v_token_stride);
}

extern "C" cudaError_t qni_cuda_prefill_attention(cudaStream_t stream, const qni_cuda_queries *job) {
    const bool is_aligned = (reinterpret_cast<uintptr_t>(job->q) | reinterpret_cast<uintptr_t>(job->out)) % 16 == 0;
    if (!qni_cuda_prefill_takes(&job->kv, job->n_head) || !is_aligned || !(job->scale > 0))
        return cudaErrorInvalidValue;
    if (job->batch->n_tok == 0) return cudaSuccess;
    const qni::prefill_job it = {job->q,
                                 job->out,
                                 job->kv,
                                 *job->batch,
                                 static_cast<int32_t>(job->n_head),
                                 static_cast<int32_t>(job->n_head / job->kv.n_kv_head),
                                 static_cast<float>(job->scale * 1.4426950408889634)};
    if (it.kv.k_dtype == QN_DTYPE_BF16)
        return it.kv.head_dim == 128 ? qni::run<__nv_bfloat16, 128>(stream, it)
                                     : qni::run<__nv_bfloat16, 64>(stream, it);
    return it.kv.head_dim == 128 ? qni::run<__half, 128>(stream, it) : qni::run<__half, 64>(stream, it);
}
