/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: what a block of threads works on, and where the cache has it. */
#ifndef QNI_CUDA_DECODE_CACHE_CUH
#define QNI_CUDA_DECODE_CACHE_CUH

#include "heads.cuh"
#include "kv_operands.cuh"

#include <limits>

namespace qni {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int tile_size = 16; /* positions of a warp at a time */
constexpr int max_head = 8;   /* query heads of a block: half of the rows of a product */
constexpr int max_range = 64; /* of a sequence */
constexpr int range_size = 256;
constexpr int whole_size = 640; /* a sequence of up to so many positions is one range: many of them need no merge */
/* Slots of a ring; each has the keys or the values of a tile. Some GPUs that run the code for sm_80 and the PTX have
 * 99 KiB of shared memory for a block. */
constexpr int n_slot_hopper = 3, n_slot_portable = 2;
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr int n_slot = n_slot_portable;
#else
constexpr int n_slot = n_slot_hopper;
#endif
constexpr int max_pitch = 1 << 24; /* elements from one position to the next: offsets within a tile are 32-bit */
constexpr int n_counter = 1 << 16; /* the same for every call: what follows the counters is not kept zero */

/*
 * How a block reads the cache. Rows that asynchronous copies take in units of 16 bytes go through a ring of each warp in
 * shared memory: what is under way needs no registers, and 16 warps share a multiprocessor. Others go to registers,
 * ahead where keys and values of a tile fit together; then 3 blocks share a multiprocessor.
 */
template <int D, qn_dtype T> struct plan {
    using rows = kv_rows<D, T>;
    static constexpr bool has_ring = rows::bytes == 2 && D % 64 == 0 && D <= 128;
    static constexpr bool loads_ahead = !has_ring && rows::row_bytes <= 256;
    static constexpr int n_warp = has_ring ? 8 : 4, n_thread = 32 * n_warp, stride = n_warp * tile_size;
    static constexpr int n_resident = has_ring ? 16 / n_warp : loads_ahead ? 3 : 1; /* blocks */
    static constexpr int slot_bytes = tile_size * rows::row_bytes;
    static constexpr int acc_pitch = D + 4; /* floats; padded against bank conflicts */
    static constexpr int acc_bytes = max_head * acc_pitch * 4;
    static constexpr int warp_bytes_of(int slots) {
        return has_ring && slots * slot_bytes > acc_bytes ? slots * slot_bytes : acc_bytes;
    }
    static constexpr int n_slot = qni::n_slot, warp_bytes = warp_bytes_of(n_slot);
};

struct decode_args {
    qni_mat qkv, out;
    qni_vec q_norm, k_norm;
    float eps, scale; /* scale times log2(e) */
    const float *cos_sin;
    const int32_t *tok_pos, *block_table;
    int max_block, max_pos;
    int n_head, n_kv_head;
    int group, n_pack, pack; /* query heads of a KV head, shared among n_pack blocks, `pack` each */
    unsigned char *k, *v;
    int block_tokens;
    int64_t k_block_bytes, k_head_bytes, v_block_bytes, v_head_bytes;
    int k_token_bytes, v_token_bytes;
    unsigned *counters; /* {n_tok, n_kv_head · n_pack} */
    float2 *sums;       /* {n_tok, n_range, n_head}: greatest score, sum of exp2(score - greatest) */
    float *partials;    /* {n_tok, n_range, n_head, D}: sum of exp2(score - greatest) · value */
};

/* row_of without its divisions where they are not needed. */
__device__ inline void *row_at(const qni_mat &m, int64_t r) {
    if (r >= m.n_inner) return row_of(m, r);
    return static_cast<unsigned char *>(m.data) + r * m.row_stride * element_bytes(m.dtype);
}

/* Positions of a range of a sequence with n_past positions before the new one; 256 from 641 to 16,384 of them. */
__device__ inline int range_of(int n_past) {
    constexpr int most = max_range * range_size;
    if (n_past <= whole_size) return whole_size;
    return range_size * max(1, (n_past + most - 1) / most);
}

/* What a block works on. */
struct work_item {
    int token, range;
    int kv_head, first_head, n_head; /* query heads */
    int pos, size, first, end;       /* positions of the range, without the new one */
    __device__ bool has_new() const { return first + size >= pos; }
    __device__ int n_range() const { return max(1, (pos + size - 1) / size); }
};

template <int D, qn_dtype T> struct shared_data {
    using plan = qni::plan<D, T>;
    static constexpr int n_warp = plan::n_warp;
    unsigned char own[n_warp][plan::warp_bytes]; /* of each warp: its ring, then its sums */
    uint4 q[D / 16 * 32];     /* left operands; rows without a head hold anything: rows of a product do not mix */
    float q_factor[max_head]; /* f16: the power of two that a head was divided by */
    float new_k[D], new_v[D]; /* as in the cache */
    float new_score[max_head];
    float greatest[n_warp][max_head], sum[n_warp][max_head];
    work_item item; /* for the end: not held in registers until then */
    bool is_last_block;

    /* The sums of a warp for a head. */
    __device__ float *acc(int warp, int head) { return reinterpret_cast<float *>(own[warp]) + head * plan::acc_pitch; }
    __device__ const float *acc(int warp, int head) const {
        return reinterpret_cast<const float *>(own[warp]) + head * plan::acc_pitch;
    }
};

/* Where a position is: its entry in the block table (or any, past the end of the table) and its row in the block. */
struct place {
    const int32_t *entry;
    int in_block;
};

__device__ inline place place_of(const decode_args &a, const work_item &w, int position) {
    const unsigned p = static_cast<unsigned>(position), block_tokens = static_cast<unsigned>(a.block_tokens);
    const unsigned index = p / block_tokens, last = static_cast<unsigned>(a.max_block) - 1;
    const int32_t *row = a.block_table + static_cast<int64_t>(w.token) * a.max_block;
    return {row + min(index, last), static_cast<int>(p - index * block_tokens)};
}

/* The first of up to 16 positions, all in one block of the cache. */
struct tile {
    int block, in_block;
};

__device__ inline tile tile_at(const decode_args &a, const work_item &w, int first) {
    const place at = place_of(a, w, first);
    return {*at.entry, at.in_block};
}

/* The row of a tile's first position. */
__device__ inline unsigned char *keys_of(const decode_args &a, int kv_head, int block, int in_block) {
    return a.k +
           (block * a.k_block_bytes + kv_head * a.k_head_bytes + static_cast<int64_t>(in_block) * a.k_token_bytes);
}
__device__ inline unsigned char *values_of(const decode_args &a, int kv_head, int block, int in_block) {
    return a.v +
           (block * a.v_block_bytes + kv_head * a.v_head_bytes + static_cast<int64_t>(in_block) * a.v_token_bytes);
}

/* A tile's rows to L2, n of them: registers hold no more than one tile. */
template <int ROW_BYTES> __device__ inline void prefetch(const decode_args &a, int kv_head, const tile &t, int n) {
    constexpr int n_line = (ROW_BYTES + 127) / 128;
    const unsigned char *k = keys_of(a, kv_head, t.block, t.in_block);
    const unsigned char *v = values_of(a, kv_head, t.block, t.in_block);
#pragma unroll
    for (int i = 0; i < tile_size * n_line / 32 + (tile_size * n_line % 32 != 0); i++) {
        const int x = lane_id() + 32 * i, row = x / n_line, at = x % n_line * 128;
        if (row >= min(n, tile_size)) continue;
        asm volatile("prefetch.global.L2 [%0];" ::"l"(k + row * a.k_token_bytes + at));
        asm volatile("prefetch.global.L2 [%0];" ::"l"(v + row * a.v_token_bytes + at));
    }
}

} // namespace
} // namespace qni

#endif
