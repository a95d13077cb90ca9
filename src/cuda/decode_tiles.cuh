/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: what a block of threads works on, and a warp's attention over tiles of 16 positions. */
#ifndef QNI_CUDA_DECODE_TILES_CUH
#define QNI_CUDA_DECODE_TILES_CUH

#include "heads.cuh"
#include "kv_operands.cuh"

#include <limits>

namespace qni {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int n_warp = 4, n_thread = 32 * n_warp;
constexpr int tile_size = 16, stride = n_warp * tile_size; /* positions of a warp at a time, of a block */
constexpr int max_head = 8;                                /* query heads of a block: half of the rows of a product */
constexpr int max_range = 64;                              /* of a sequence */
constexpr int range_size = 256;
constexpr int max_pitch = 1 << 24; /* elements from one position to the next: offsets within a tile are 32-bit */
constexpr int n_counter = 1 << 16; /* the same for every call: what follows the counters is not kept zero */

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

/* Positions of a range of a sequence with n_past positions before the new one; 256 up to 16,384. */
__device__ inline int range_of(int n_past) {
    constexpr int most = max_range * range_size;
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

template <int D> struct shared_data {
    uint4 q[D / 16 * 32];     /* left operands; rows without a head hold anything: rows of a product do not mix */
    float q_factor[max_head]; /* f16: the power of two that a head was divided by */
    float new_k[D], new_v[D]; /* as in the cache */
    float new_score[max_head];
    float greatest[n_warp][max_head], sum[n_warp][max_head];
    float acc[n_warp][max_head][D + 4]; /* padded against bank conflicts */
    work_item item;                     /* for the end: not held in registers until then */
    bool is_last_block;
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

/* The positions that a warp has taken. Lane (g, t) is about query head g. */
template <int D, qn_dtype T> struct warp_state {
    using rows = kv_rows<D, T>;
    uint32_t k[2][rows::k_words], v[4][rows::v_words];
    float k_scale[4], v_scale[4]; /* q8, of positions 2t, 2t + 1, 2t + 8 and 2t + 9 */
    float greatest = -infinity, sum = 0;
    float acc[D / 8][4] = {}; /* [x]: product x */

    __device__ static int position(int i) { return lane_id() % 4 * 2 + i % 2 + i / 2 * 8; }

    __device__ void load_keys(const decode_args &a, int kv_head, const tile &at, int n) {
        const unsigned char *row = keys_of(a, kv_head, at.block, at.in_block);
        const int g = lane_id() / 4, t = lane_id() % 4;
        load_key<D, T>(k[0], row + g * a.k_token_bytes, t, g < n);
        load_key<D, T>(k[1], row + g * a.k_token_bytes + 8 * a.k_token_bytes, t, g + 8 < n);
        if constexpr (rows::is_q8) load_scales(k_scale, row, n, a.k_token_bytes);
    }
    __device__ void load_values(const decode_args &a, int kv_head, const tile &at, int n) {
        const unsigned char *row = values_of(a, kv_head, at.block, at.in_block);
        const unsigned char *first = row + position(0) * a.v_token_bytes;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int pitches = i % 2 + i / 2 * 8;
            load_value<D, T>(v[i], first + pitches * a.v_token_bytes, lane_id() / 4, position(i) < n);
        }
        if constexpr (rows::is_q8) load_scales(v_scale, row, n, a.v_token_bytes);
    }
    __device__ static void load_scales(float (&scale)[4], const unsigned char *row, int n, int pitch) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scale[i] = position(i) < n ? *reinterpret_cast<const float *>(row + position(i) * pitch + D) : 0;
        }
    }

    /* The scores of the tile's n positions, to the base 2. */
    __device__ void score(float (&s)[4], const shared_data<D> &shared, int n) const {
        float c[2][2][4] = {}; /* two chains for each 8 positions */
        const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(shared.q + lane_id()));
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint4 a; /* volatile, or the compiler keeps all of them in registers from tile to tile */
            asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(a.x), "=r"(a.y), "=r"(a.z), "=r"(a.w)
                         : "r"(from + i * 512));
#pragma unroll
            for (int r = 0; r < 2; r++) {
                uint32_t b[rows::n_part][2];
                key_operand<D, T>(b, k[r], i);
#pragma unroll
                for (int part = 0; part < rows::n_part; part++) {
                    mma<rows::is_f16>(c[r][i % 2], a, b[part][0], b[part][1]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = i / 2, j = i % 2;
            s[i] = (c[r][0][j] + c[r][1][j]) + (c[r][0][j + 2] + c[r][1][j + 2]);
            if constexpr (rows::is_f16) s[i] *= shared.q_factor[lane_id() / 4];
            if constexpr (rows::is_q8) s[i] *= k_scale[i];
            if (position(i) >= n) s[i] = -infinity;
        }
    }

    /* Add the tile's values, weighted by exp2(score). */
    __device__ void add_values(const float (&s)[4]) {
        float most = fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        most = fmaxf(most, greatest);
        const float factor = exp2f(greatest - most);
        greatest = most;
        float p[4];
#pragma unroll
        for (int i = 0; i < 4; i++) p[i] = exp2f(s[i] - most);
        sum = sum * factor + ((p[0] + p[1]) + (p[2] + p[3])); /* of this lane's positions */
        if constexpr (rows::is_q8) {
#pragma unroll
            for (int i = 0; i < 4; i++) p[i] *= v_scale[i];
        }
        uint4 a;
        split<rows::is_f16>(a.x, a.y, p[0], p[1]);
        split<rows::is_f16>(a.z, a.w, p[2], p[3]);
#pragma unroll
        for (int x = 0; x < D / 8; x++) {
            uint32_t b0[rows::n_part], b1[rows::n_part];
            value_pair<D, T>(b0, v[0], v[1], x);
            value_pair<D, T>(b1, v[2], v[3], x);
#pragma unroll
            for (int j = 0; j < 4; j++) acc[x][j] *= factor;
#pragma unroll
            for (int part = 0; part < rows::n_part; part++) mma<rows::is_f16>(acc[x], a, b0[part], b1[part]);
        }
    }

    __device__ void publish(shared_data<D> &s) {
        const int warp = static_cast<int>(threadIdx.x / 32), g = lane_id() / 4, t = lane_id() % 4;
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (g >= s.item.n_head) return;
        if (t == 0) {
            s.greatest[warp][g] = greatest;
            s.sum[warp][g] = sum;
        }
#pragma unroll
        for (int i = 0; i < D / (8 * rows::E); i++) {
            float *out = &s.acc[warp][g][8 * rows::E * i + 2 * rows::E * t]; /* both columns: 2 E dimensions */
            const auto at = [&](int x) {
                const float(&c)[4] = acc[rows::E * i + x % rows::E];
                return c[x / rows::E] + c[x / rows::E + 2];
            };
#pragma unroll
            for (int x = 0; x < 2 * rows::E; x += 4) {
                *reinterpret_cast<float4 *>(out + x) = {at(x), at(x + 1), at(x + 2), at(x + 3)};
            }
        }
    }
};

/* Tiles of which keys and values fit into registers together are loaded ahead, and 3 blocks share a multiprocessor. */
template <int D, qn_dtype T> constexpr bool loads_ahead = kv_rows<D, T>::row_bytes <= 256;

} // namespace
} // namespace qni

#endif
