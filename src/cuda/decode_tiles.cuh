/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: a warp's attention over tiles of 16 positions. */
#ifndef QNI_CUDA_DECODE_TILES_CUH
#define QNI_CUDA_DECODE_TILES_CUH

#include "decode_ring.cuh"

namespace qni {
namespace {

/* The positions that a warp has taken. Lane (g, t) is about query head g. */
template <int D, qn_dtype T> struct warp_state {
    using rows = kv_rows<D, T>;
    static constexpr bool has_ring = plan<D, T>::has_ring;
    uint32_t k[2][has_ring ? 1 : rows::k_words], v[4][has_ring ? 1 : rows::v_words];
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

    /* The scores of the tile's n positions, to the base 2; keys from registers, or from `slot` of a ring. */
    __device__ void score(float (&s)[4], const shared_data<D, T> &shared, int n, uint32_t slot = 0) const {
        float c[2][2][4] = {}; /* two chains for each 8 positions */
        const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(shared.q + lane_id()));
        uint32_t run[2][rows::k_run];
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint4 a; /* volatile, or the compiler keeps all of them in registers from tile to tile */
            asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(a.x), "=r"(a.y), "=r"(a.z), "=r"(a.w)
                         : "r"(from + i * 512));
#pragma unroll
            for (int r = 0; r < 2; r++) {
                uint32_t b[rows::n_part][2];
                if constexpr (has_ring) {
                    if (i % 2 == 0) ring_key<D, T>(run[r], slot, r, i / 2);
                    key_operand<D, T>(b, run[r], i % 2);
                } else {
                    key_operand<D, T>(b, k[r], i);
                }
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

    /* Add the tile's values, weighted by exp2(score); from registers, or from `slot` of a ring. */
    __device__ void add_values(const float (&s)[4], uint32_t slot = 0) {
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
        for (int i = 0; i < D / (8 * rows::E); i++) {
            uint32_t run[4][rows::v_run];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if constexpr (has_ring) {
                    ring_value<D, T>(run[j], slot, i, j);
                } else {
#pragma unroll
                    for (int y = 0; y < rows::v_run; y++) run[j][y] = v[j][i * rows::v_run + y];
                }
            }
            add_run(acc + rows::E * i, run, a, factor);
        }
    }

    /* The dimensions of a run of values. */
    __device__ static void add_run(float (*to)[4], const uint32_t (&run)[4][rows::v_run], const uint4 &a,
                                   float factor) {
#pragma unroll
        for (int x = 0; x < rows::E; x++) {
            uint32_t b0[rows::n_part], b1[rows::n_part];
            value_pair<D, T>(b0, run[0], run[1], x);
            value_pair<D, T>(b1, run[2], run[3], x);
#pragma unroll
            for (int j = 0; j < 4; j++) to[x][j] *= factor;
#pragma unroll
            for (int part = 0; part < rows::n_part; part++) mma<rows::is_f16>(to[x], a, b0[part], b1[part]);
        }
    }

    __device__ void publish(shared_data<D, T> &s) {
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
            float *out = s.acc(warp, g) + 8 * rows::E * i + 2 * rows::E * t; /* both columns: 2 E dimensions */
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

} // namespace
} // namespace qni

#endif
