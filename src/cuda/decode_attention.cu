/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one new token per sequence, with norm, RoPE and the write to the cache before it.
 *
 * The positions before the new one are divided into ranges, by a rule that knows only their number. A block of warps
 * takes one range of one KV head and up to 8 of its query heads (of more, a second block takes the rest and reads keys
 * and values again, mostly from L2). Warp w of n takes tiles of 16 positions, w, w + n, …: keys and values go to shared
 * memory by asynchronous copies, or straight to registers (decode_cache.cuh says which), and from there to tensor cores
 * (kv_operands.cuh). The block merges its warps; with more than one range, the last block of a KV head to arrive merges
 * their results, in an order that depends only on the number of ranges. So no bit of a result depends on other
 * sequences, on max_pos or on who arrives last.
 *
 * The new position belongs to the last range. Its block writes key and value to the cache and attends to them from
 * registers, as they are in the cache (rounded), as one more partial result. No other block needs them.
 */
#include "decode_merge.cuh"
#include "heads.cuh"

namespace qni {
namespace {

/* The heads that a warp prepares: of k, v and the block's query heads those with an index of warp + n_warp i. */
template <int D, qn_dtype T> struct prepared {
    static constexpr int P = (D + 63) / 64, n_warp = plan<D, T>::n_warp, n = (2 + max_head + n_warp - 1) / n_warp;
    warp_head<P> head[n];
    __device__ static int index(int i) { return static_cast<int>(threadIdx.x / 32) + n_warp * i; }
};

template <int D, qn_dtype T, typename X>
__device__ inline void load_heads(prepared<D, T> &h, const decode_args &a, const work_item &w, const X *row) {
#pragma unroll
    for (int i = 0; i < h.n; i++) {
        const int x = h.index(i);
        const int slot = x == 0   ? a.n_head + w.kv_head
                         : x == 1 ? a.n_head + a.n_kv_head + w.kv_head
                                  : w.first_head + x - 2;
        if (x < 2 + w.n_head) h.head[i] = load_pairs<h.P>(row + slot * D, D / 2);
    }
}

/* A query head as rows `head` and head + 8 of the left operand. */
template <int D, qn_dtype T, int P>
__device__ inline void put_query(shared_data<D, T> &s, const warp_head<P> &h, int head) {
    using rows = kv_rows<D, T>;
    float factor = 1;
    if constexpr (rows::is_f16) { /* f16 has a narrow range: divide by the power of two below the greatest number */
        const uint32_t power = min(max(greatest_bits(h) & 0x7F800000, 0x00800000), 0x7E800000);
        factor = __uint_as_float(0x7F000000 - power);
        if (lane_id() == 0) s.q_factor[head] = __uint_as_float(power);
    }
    const auto put = [&](int d, float x) {
        constexpr int F = rows::F;
        const int step = d / (4 * F) * (F / 4) + d % F / 4, t = d / F % 4, inner = d % 4;
        uint32_t upper, rest;
        split<rows::is_f16>(upper, rest, x * factor, 0);
        uint16_t *at = reinterpret_cast<uint16_t *>(&s.q[step * 32 + 4 * head + t]) + inner / 2 * 4 + inner % 2;
        at[0] = static_cast<uint16_t>(upper);
        at[2] = static_cast<uint16_t>(rest);
    };
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int i = lane_id() + 32 * p;
        if (i >= D / 2) continue;
        put(i, h.x[p]);
        put(i + D / 2, h.y[p]);
    }
}

/* Normalize and rotate the warp's heads and publish them: queries times the scale, key and value as in the cache. */
template <int D, qn_dtype T, int P>
__device__ inline void prepare(shared_data<D, T> &s, prepared<D, T> &heads, const decode_args &a, const work_item &w,
                               const warp_head<P> &q_weight, const warp_head<P> &k_weight,
                               const warp_head<P> &cos_sin) {
#pragma unroll
    for (int i = 0; i < heads.n; i++) {
        const int x = heads.index(i);
        warp_head<P> &h = heads.head[i];
        if (x >= 2 + w.n_head || (x < 2 && !w.has_new())) continue;
        if (x == 0 && a.k_norm.data != nullptr) normalize(h, k_weight, a.eps, D);
        if (x >= 2 && a.q_norm.data != nullptr) normalize(h, q_weight, a.eps, D);
        if (x != 1) rotate(h, cos_sin);
        if (x < 2) {
            warp_head<P> cached = h;
            store_row(nullptr, T, cached, D / 2);
            store_row(x == 0 ? s.new_k : s.new_v, QN_DTYPE_F32, cached, D / 2);
        } else {
#pragma unroll
            for (int p = 0; p < P; p++) {
                h.x[p] *= a.scale;
                h.y[p] *= a.scale;
            }
            put_query<D, T>(s, h, x - 2);
        }
    }
}

/* Write the new position to the cache, where the block with the KV head's first query heads does it. */
template <int D, qn_dtype T>
__device__ inline void write_new(prepared<D, T> &heads, const decode_args &a, const work_item &w, const tile &at) {
    if (w.first_head != w.kv_head * a.group || heads.index(0) > 1) return;
    void *row = heads.index(0) == 0 ? keys_of(a, w.kv_head, at.block, at.in_block)
                                    : values_of(a, w.kv_head, at.block, at.in_block);
    store_row(row, T, heads.head[0], D / 2);
}

/* The scores of the new position for the warp's query heads. */
template <int D, qn_dtype T>
__device__ inline void score_new(shared_data<D, T> &s, const prepared<D, T> &heads, int n_head) {
    constexpr int P = heads.P;
    const warp_head<P> k = load_pairs<P>(s.new_k, D / 2);
#pragma unroll
    for (int i = 0; i < heads.n; i++) {
        const int x = heads.index(i);
        if (x < 2 || x >= 2 + n_head) continue;
        float dot = 0;
#pragma unroll
        for (int p = 0; p < P; p++) dot += heads.head[i].x[p] * k.x[p] + heads.head[i].y[p] * k.y[p];
        dot = warp_sum(dot);
        if (lane_id() == 0) s.new_score[x - 2] = dot;
    }
}

/* The warp's tiles from position `first` on, by a ring that has begun to copy them. */
template <int D, qn_dtype T>
__device__ inline void take_range(warp_state<D, T> &state, const shared_data<D, T> &s, const decode_args &a, int first,
                                  ring<D, T> &copies) {
    const work_item &w = s.item;
#pragma unroll 1
    for (int n = w.end - first; n > 0; n -= plan<D, T>::stride) {
        float score[4];
        state.score(score, s, n, copies.wait());
        copies.copy_after_keys(a, w);
        state.add_values(score, copies.wait());
        copies.copy_after_values(a, w);
    }
}

/* The same by loads to registers; the blocks of the first two tiles are known. */
template <int D, qn_dtype T>
__device__ inline void take_range(warp_state<D, T> &state, shared_data<D, T> &s, const decode_args &a,
                                  const work_item &w, int first, tile now, tile next) {
    constexpr int stride = plan<D, T>::stride;
    constexpr bool loads_ahead = plan<D, T>::loads_ahead;
    for (int n = w.end - first; n > 0; n -= stride) {
        float score[4];
        if (!loads_ahead) state.load_keys(a, w.kv_head, now, n);
        state.score(score, s, n);
        if (!loads_ahead) state.load_values(a, w.kv_head, now, n);
        if (loads_ahead && n > stride) state.load_keys(a, w.kv_head, next, n - stride);
        state.add_values(score);
        if (loads_ahead && n > stride) state.load_values(a, w.kv_head, next, n - stride);
        now = next;
        next = tile_at(a, w, w.end - n + 2 * stride);
    }
}

/* What block (range x, pack y % n_pack of KV head y / n_pack, token z) works on; its range is not known yet. */
__device__ inline work_item item_of(const decode_args &a) {
    const int y = static_cast<int>(blockIdx.y), pack = a.n_pack == 1 ? 0 : y % 2;
    work_item w;
    w.token = static_cast<int>(blockIdx.z);
    w.range = static_cast<int>(blockIdx.x);
    w.kv_head = a.n_pack == 1 ? y : y / 2;
    w.first_head = w.kv_head * a.group + pack * a.pack;
    w.n_head = min(a.pack, a.group - pack * a.pack);
    w.size = range_size;
    return w;
}

/*
 * When this kernel begins, all kernels but the one before it have ended, and that one writes qkv and nothing else that is
 * read here. So positions, block tables, angles and the cache are read, and the first tiles are under way, before the
 * wait. All blocks wait, so that what runs after this kernel can rely on what ran before it.
 */
template <int D, qn_dtype T>
__global__ void __launch_bounds__(plan<D, T>::n_thread, plan<D, T>::n_resident)
    decode_kernel(const __grid_constant__ decode_args a) {
    using plan = qni::plan<D, T>;
    constexpr int P = (D + 63) / 64;
    extern __shared__ __align__(128) unsigned char memory[];
    shared_data<D, T> &s = *reinterpret_cast<shared_data<D, T> *>(memory);
    const int warp = static_cast<int>(threadIdx.x / 32);
    work_item w = item_of(a);
    int first = w.range * w.size + tile_size * warp; /* of the warp */
    const place place_now = place_of(a, w, first), place_next = place_of(a, w, first + plan::stride);
    w.pos = a.tok_pos[w.token];
    tile now = {*place_now.entry, place_now.in_block}, next = {*place_next.entry, place_next.in_block};
    /* Up to 16,384 the tiles above are right, since the first range begins at 0 whatever its size: their blocks are
     * found without waiting for the position. */
    w.size = range_of(w.pos);
    if (a.max_pos > max_range * range_size) {
        first = w.range * w.size + tile_size * warp;
        now = tile_at(a, w, first);
        next = tile_at(a, w, first + plan::stride);
    }
    w.first = w.range * w.size;
    w.end = min(w.first + w.size, w.pos);
    const bool is_empty = w.first >= max(w.pos, 1);

    warp_state<D, T> state;
    ring<D, T> copies;
    if constexpr (plan::has_ring) {
        if (!is_empty) copies.start(a, w, s.own[warp], now, next, w.end - first);
    } else {
        if (plan::loads_ahead && first < w.end) {
            state.load_keys(a, w.kv_head, now, w.end - first);
            state.load_values(a, w.kv_head, now, w.end - first);
        }
        prefetch<kv_rows<D, T>::row_bytes>(a, w.kv_head, next, w.end - first - plan::stride);
    }
    warp_head<P> q_weight, k_weight;
    if (a.q_norm.data != nullptr) q_weight = load_head<P>(a.q_norm.data, a.q_norm.dtype, 0, D / 2);
    if (a.k_norm.data != nullptr) k_weight = load_head<P>(a.k_norm.data, a.k_norm.dtype, 0, D / 2);
    const warp_head<P> cos_sin = load_pairs<P>(a.cos_sin + static_cast<int64_t>(w.token) * D, D / 2);
    const tile new_row = tile_at(a, w, w.pos);
    wait_for_previous();
    let_next_start();
    if (is_empty) return;

    const void *row = row_at(a.qkv, w.token);
    prepared<D, T> heads;
    if (a.qkv.dtype == QN_DTYPE_F32) {
        load_heads(heads, a, w, static_cast<const float *>(row));
    } else {
        load_heads(heads, a, w, static_cast<const __nv_bfloat16 *>(row));
    }
    prepare(s, heads, a, w, q_weight, k_weight, cos_sin);
    if (threadIdx.x == 0) s.item = w;
    __syncthreads();
    if (w.has_new()) {
        score_new(s, heads, w.n_head);
        write_new(heads, a, w, new_row);
    }
    if constexpr (plan::has_ring) {
        take_range(state, s, a, first, copies);
    } else {
        take_range(state, s, a, w, first, now, next);
    }
    state.publish(s);
    __syncthreads();
    finish(s, a);
}

int32_t n_range_of(int32_t max_pos) {
    if (max_pos <= whole_size) return 1;
    const int32_t n = (max_pos + range_size - 1) / range_size;
    return n < 1 ? 1 : n > max_range ? max_range : n;
}

/* The device's code for a head_dim and a dtype. */
struct variant {
    void (*kernel)(decode_args);
    int n_thread;
    size_t shared_bytes, slot_bytes; /* of shared memory; of them for the slots that only sm_90a has */
};

template <int D, qn_dtype T> variant variant_of() {
    using plan = qni::plan<D, T>;
    const int more = plan::warp_bytes - plan::warp_bytes_of(n_slot_portable);
    return {decode_kernel<D, T>, plan::n_thread, sizeof(shared_data<D, T>), static_cast<size_t>(plan::n_warp * more)};
}

template <int D> variant variant_for(qn_dtype dtype) {
    return dtype == QN_DTYPE_F32    ? variant_of<D, QN_DTYPE_F32>()
           : dtype == QN_DTYPE_BF16 ? variant_of<D, QN_DTYPE_BF16>()
           : dtype == QN_DTYPE_F16  ? variant_of<D, QN_DTYPE_F16>()
                                    : variant_of<D, QN_DTYPE_Q8>();
}

cudaError_t start(cudaStream_t stream, const variant &v, dim3 grid, bool chained, const decode_args &a) {
    int device, major;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error != cudaSuccess) return error;
    const size_t bytes = v.shared_bytes - (major == 9 ? 0 : v.slot_bytes);
    error = cudaFuncSetAttribute(v.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess) return error;
    return launch(v.kernel, grid, dim3(static_cast<unsigned>(v.n_thread)), bytes, stream, chained, a);
}

decode_args arguments_of(const qni_cuda_heads *job, int32_t n_range) {
    const qni_cuda_batch *b = job->batch;
    const qni_kv_layer *kv = &job->kv;
    const int64_t bytes = element_bytes(kv->k_dtype);
    decode_args a = {};
    a.qkv = job->qkv;
    a.out = job->out;
    a.q_norm = job->q_norm;
    a.k_norm = job->k_norm;
    a.eps = static_cast<float>(job->eps);
    a.scale = static_cast<float>(job->scale * 1.44269504088896340736);
    a.cos_sin = job->cos_sin;
    a.tok_pos = b->tok_pos;
    a.block_table = b->block_table;
    a.max_block = b->max_block;
    a.max_pos = b->max_pos;
    a.n_head = static_cast<int>(job->n_head);
    a.n_kv_head = static_cast<int>(kv->n_kv_head);
    a.group = a.n_head / a.n_kv_head;
    a.n_pack = (a.group + max_head - 1) / max_head;
    a.pack = (a.group + a.n_pack - 1) / a.n_pack;
    a.k = static_cast<unsigned char *>(kv->k);
    a.v = static_cast<unsigned char *>(kv->v);
    a.block_tokens = static_cast<int>(kv->block_tokens);
    a.k_block_bytes = kv->k_block_stride * bytes;
    a.k_head_bytes = kv->k_head_stride * bytes;
    a.k_token_bytes = static_cast<int>(kv->k_token_stride * bytes);
    a.v_block_bytes = kv->v_block_stride * bytes;
    a.v_head_bytes = kv->v_head_stride * bytes;
    a.v_token_bytes = static_cast<int>(kv->v_token_stride * bytes);
    a.counters = static_cast<unsigned *>(job->work);
    a.partials = reinterpret_cast<float *>(a.counters + n_counter);
    a.sums =
        reinterpret_cast<float2 *>(a.partials + static_cast<int64_t>(b->n_tok) * n_range * a.n_head * kv->head_dim);
    return a;
}

} // namespace
} // namespace qni

extern "C" size_t qni_cuda_decode_work(int32_t n_tok, int64_t n_head, int64_t head_dim, int32_t max_pos) {
    const size_t n_partial =
        static_cast<size_t>(n_tok) * static_cast<size_t>(n_head) * static_cast<size_t>(qni::n_range_of(max_pos));
    return qni::n_counter * sizeof(unsigned) + n_partial * (static_cast<size_t>(head_dim) + 2) * sizeof(float);
}

/* head_dim 64, 80, 96, 128 or 256; up to 16 query heads a KV head; keys and values of one dtype; blocks of a multiple
 * of 16 positions; rows aligned to 16 bytes (q8: 4). */
extern "C" bool qni_cuda_decode_takes(const qni_kv_layer *kv, int64_t n_head) {
    const int64_t d = kv->head_dim, n_kv = kv->n_kv_head;
    const bool is_q8 = kv->k_dtype == QN_DTYPE_Q8;
    if (kv->k_dtype != QN_DTYPE_F32 && kv->k_dtype != QN_DTYPE_BF16 && kv->k_dtype != QN_DTYPE_F16 && !is_q8)
        return false;
    if (kv->v_dtype != kv->k_dtype || (d != 64 && d != 80 && d != 96 && d != 128 && d != 256)) return false;
    if (n_kv <= 0 || n_head % n_kv != 0 || n_head / n_kv < 1 || n_head / n_kv > 2 * qni::max_head) return false;
    if (kv->block_tokens <= 0 || kv->block_tokens % qni::tile_size != 0 || kv->block_tokens > INT32_MAX) return false;
    if (kv->k_token_stride < 0 || kv->k_token_stride > qni::max_pitch) return false;
    if (kv->v_token_stride < 0 || kv->v_token_stride > qni::max_pitch) return false;
    const int64_t strides = kv->k_block_stride | kv->k_head_stride | kv->k_token_stride | kv->v_block_stride |
                            kv->v_head_stride | kv->v_token_stride;
    const int64_t align = is_q8 ? 4 : 16;
    const uintptr_t addresses = reinterpret_cast<uintptr_t>(kv->k) | reinterpret_cast<uintptr_t>(kv->v);
    return strides * qni::element_bytes(kv->k_dtype) % align == 0 && addresses % static_cast<uintptr_t>(align) == 0;
}

/* n_tok times KV heads (times 2 for more than 8 query heads each) is at most 65,536. */
extern "C" cudaError_t qni_cuda_decode_attention(cudaStream_t stream, const qni_cuda_heads *job, bool chained) {
    const qni_cuda_batch *b = job->batch;
    if (b->n_tok == 0) return cudaSuccess;
    if (!qni_cuda_decode_takes(&job->kv, job->n_head)) return cudaErrorInvalidValue;
    const int32_t n_range = qni::n_range_of(b->max_pos);
    const qni::decode_args a = qni::arguments_of(job, n_range);
    if (a.qkv.dtype != QN_DTYPE_F32 && a.qkv.dtype != QN_DTYPE_BF16) return cudaErrorInvalidValue;
    const int64_t n_block = static_cast<int64_t>(a.n_kv_head) * a.n_pack;
    if (n_block * b->n_tok > qni::n_counter || n_block > 65535 || b->n_tok > 65535) return cudaErrorInvalidValue;
    const dim3 grid(static_cast<unsigned>(n_range), static_cast<unsigned>(n_block), static_cast<unsigned>(b->n_tok));
    const qn_dtype dtype = job->kv.k_dtype;
    const qni::variant v = job->kv.head_dim == 64    ? qni::variant_for<64>(dtype)
                           : job->kv.head_dim == 80  ? qni::variant_for<80>(dtype)
                           : job->kv.head_dim == 96  ? qni::variant_for<96>(dtype)
                           : job->kv.head_dim == 128 ? qni::variant_for<128>(dtype)
                                                     : qni::variant_for<256>(dtype);
    return qni::start(stream, v, grid, chained, a);
}
