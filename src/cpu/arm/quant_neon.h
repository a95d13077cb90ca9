/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integer product of a tile of rows with panels of codes. Private to the NEON kernel files, which differ in the
 * instruction that forms the sums of a group.
 *
 * Layout    panels as in kernels.h with nr = 16; activations {m, n_in} int8, one tile of m <= 6 rows;
 *           c {m, n_panel · 16}.
 * Tile      the sums of a group in 24 registers, four outputs of a row each; the sums over groups are accumulated in c,
 *           which stays in L1. For few rows several panels at once.
 * Tails     m: instances for 1 … 6 rows; remaining panels one at a time; groups (a multiple of 32 inputs) and panels
 *           are whole.
 */
#ifndef QNI_CPU_QUANT_NEON_H
#define QNI_CPU_QUANT_NEON_H

#include "../kernels.h"
#include "vector_neon.h"

enum { NR = 16, VECTORS = NR / 4, MR = 6 };

/* Four scales or biases. */
static inline float32x4_t load4_scale(const unsigned char *scales, const qni_cpu_quant *q, int64_t first) {
    if (q->scale_dtype == QNI_CPU_F32) return vreinterpretq_f32_u8(vld1q_u8(scales + first * 4));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(scales + first * 2)), 16));
}

/* Add the group's sums of m rows and n panels, as f32, to c. Fully unrolled, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void accumulate_group(float *c, int64_t ldc, const int32x4_t *sum,
                                                                   const float *scale, const int32_t *code_sum,
                                                                   const int m, const unsigned char *w, const int n,
                                                                   const qni_cpu_quant *q) {
#pragma GCC unroll 16
    for (int i = 0; i < n * VECTORS; i++) {
        const unsigned char *panel = w + i / VECTORS * q->panel_bytes;
        const float32x4_t scale_w = load4_scale(panel, q, i % VECTORS * 4);
        float32x4_t bias_w = vdupq_n_f32(0);
        if (!q->symmetric) bias_w = load4_scale(panel + q->scales_bytes, q, i % VECTORS * 4);
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            const float scale_x = scale[r * q->n_group];
            float *to = c + r * ldc + i * 4;
            float32x4_t total = vld1q_f32(to);
            total = vfmaq_f32(total, vcvtq_f32_s32(sum[r * n * VECTORS + i]), vmulq_n_f32(scale_w, scale_x));
            if (!q->symmetric) total = vfmaq_n_f32(total, bias_w, scale_x * (float)code_sum[r * q->n_group]);
            vst1q_f32(to, total);
        }
    }
}

/* ADD_PRODUCTS(sum, x, stride, m, w, n, q, bits): sum += (codes of a group - origin) · codes of m rows, n panels. m and
 * n are constants at every use. */
#define DEFINE_TILE(bits, origin, ADD_PRODUCTS)                                                                        \
    static inline                                                                                                      \
        __attribute__((always_inline)) void tile_##bits(float *c, int64_t ldc, const qni_cpu_codes *x, const int m,    \
                                                        const unsigned char *w, const int n, const qni_cpu_quant *q) { \
        const int32_t zero = q->symmetric ? 1 << ((bits)-1) : 0;                                                       \
        for (int r = 0; r < m; r++) {                                                                                  \
            for (int i = 0; i < n * NR; i += 4) vst1q_f32(c + r * ldc + i, vdupq_n_f32(0));                            \
        }                                                                                                              \
        for (int64_t g = 0; g < q->n_group; g++, w += q->group_bytes) {                                                \
            int32x4_t sum[MR * VECTORS];                                                                               \
            for (int r = 0; r < m; r++) {                                                                              \
                const int32x4_t start = vdupq_n_s32(((origin)-zero) * x->sum[r * q->n_group + g]);                     \
                for (int i = 0; i < n * VECTORS; i++) sum[r * n * VECTORS + i] = start;                                \
            }                                                                                                          \
            ADD_PRODUCTS(sum, (const int8_t *)x->codes + g * q->group, x->stride, m, w + q->codes_at, n, q, bits);     \
            accumulate_group(c, ldc, sum, x->scale + g, x->sum + g, m, w, n, q);                                       \
        }                                                                                                              \
    }

#define STREAM(bits, m, n)                                                                                             \
    for (; n_panel >= (n); n_panel -= (n), w += (n)*q->panel_bytes, c += (n)*NR) tile_##bits(c, ldc, x, m, w, n, q);

/* gemm_BITS with the signature of kernels.h; n1 … n3: panels at once for 1 … 3 rows. */
#define DEFINE_GEMM(bits, origin, ADD_PRODUCTS, n1, n2, n3)                                                            \
    DEFINE_TILE(bits, origin, ADD_PRODUCTS)                                                                            \
    static void gemm_##bits(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w,          \
                            int64_t n_panel, const qni_cpu_quant *q) {                                                 \
        switch (m) {                                                                                                   \
        case 1:                                                                                                        \
            STREAM(bits, 1, n1) STREAM(bits, 1, 1) break;                                                              \
        case 2:                                                                                                        \
            STREAM(bits, 2, n2) STREAM(bits, 2, 1) break;                                                              \
        case 3:                                                                                                        \
            STREAM(bits, 3, n3) STREAM(bits, 3, 1) break;                                                              \
        case 4:                                                                                                        \
            STREAM(bits, 4, 1) break;                                                                                  \
        case 5:                                                                                                        \
            STREAM(bits, 5, 1) break;                                                                                  \
        default:                                                                                                       \
            STREAM(bits, 6, 1) break;                                                                                  \
        }                                                                                                              \
    }

/*
 * Dot products over four inputs, ki = 4. DOT(sum, w, x, lane): each lane of sum += the dot product of its four codes of
 * w with the four in the given lane of x. The origin 128 is subtracted from 8-bit codes first, so that they fit int8:
 *
 *     w  | o0 i0 | o0 i1 | o0 i2 | o0 i3 | o1 i0 | … | o3 i3 |        x lane 0  | i0 | i1 | i2 | i3 |
 */
#define ADD_DOTS(DOT, w_codes, lane)                                                                                   \
    _Pragma("GCC unroll 6") for (int r = 0; r < m; r++) {                                                              \
        int32x4_t *to = &sum[(r * n + i / VECTORS) * VECTORS + i % VECTORS];                                           \
        *to = DOT(*to, vreinterpretq_s8_u8(w_codes), row[r], lane);                                                    \
    }
#define ADD_BYTES(DOT, lane)                                                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < n * VECTORS; i++) {                                                   \
        const unsigned char *at = w + i / VECTORS * q->panel_bytes + ((lane)*VECTORS + i % VECTORS) * 16;              \
        const uint8x16_t codes = veorq_u8(vld1q_u8(at), vdupq_n_u8(128));                                              \
        ADD_DOTS(DOT, codes, lane)                                                                                     \
    }
#define ADD_HALVES(DOT, lane)                                                                                          \
    _Pragma("GCC unroll 16") for (int i = 0; i < n * VECTORS; i++) {                                                   \
        const unsigned char *at = w + i / VECTORS * q->panel_bytes + ((lane) / 2 * VECTORS + i % VECTORS) * 16;        \
        const uint8x16_t bytes = vld1q_u8(at);                                                                         \
        const uint8x16_t low = vandq_u8(bytes, vdupq_n_u8(15)), high = vshrq_n_u8(bytes, 4);                           \
        ADD_DOTS(DOT, low, lane)                                                                                       \
        ADD_DOTS(DOT, high, (lane) + 1)                                                                                \
    }
#define DEFINE_ADD_DOTS(DOT)                                                                                           \
    static inline __attribute__((always_inline)) void add_dots(int32x4_t *sum, const int8_t *x, int64_t stride,        \
                                                               const int m, const unsigned char *w, const int n,       \
                                                               const qni_cpu_quant *q, const int bits) {               \
        for (int64_t k = 0; k < q->group; k += 16, x += 16, w += 2 * NR * bits) {                                      \
            int8x16_t row[MR];                                                                                         \
            for (int r = 0; r < m; r++) row[r] = vld1q_s8(x + r * stride);                                             \
            if (bits == 8) {                                                                                           \
                ADD_BYTES(DOT, 0)                                                                                      \
                ADD_BYTES(DOT, 1)                                                                                      \
                ADD_BYTES(DOT, 2)                                                                                      \
                ADD_BYTES(DOT, 3)                                                                                      \
            } else {                                                                                                   \
                ADD_HALVES(DOT, 0)                                                                                     \
                ADD_HALVES(DOT, 2)                                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }

#endif
