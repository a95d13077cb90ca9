/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a tile of rows with panels, for all element types. Private to the NEON kernel files.
 *
 * Layout    a {k, m}, one tile of m <= 6 rows; w panels {k, 16}, four vectors a row; c {m, n_panel · 16}. Elements may
 *           also be pairs: a {k/2, m, 2}, w {k/2, 16, 2}.
 * Tile      6 x 16 for many rows: 24 sums, 4 weights, 2 of activations in 32 registers; a row's activation is a lane.
 *           For few rows several panels at once, for at least 16 independent chains (4 cycles of latency on 4 pipes)
 *           and one read stream per panel: 1 row x 4 panels, 2 x 2, 3 x 2, 4 … 6 x 1.
 * Tails     m: instances for 1 … 6 rows; remaining panels one at a time; outputs are padded by the packing.
 */
#ifndef QNI_CPU_GEMM_NEON_H
#define QNI_CPU_GEMM_NEON_H

#include "../kernels.h"
#include "vector_neon.h"

enum { NR = 16, VECTORS = NR / 4, MR = 6, KC = 256 };

/* n (1 … 4) activations or pairs of 32 bits each; the remaining lanes are unspecified. Reads nothing beyond them. */
static inline __attribute__((always_inline)) float32x4_t load_rows(const void *a, const int n) {
    const uint8_t *bytes = a;
    uint32_t last;
    if (n >= 4) return vreinterpretq_f32_u8(vld1q_u8(bytes));
    memcpy(&last, bytes + (n - 1) * 4, sizeof last);
    const uint32x4_t all = vdupq_n_u32(last);
    if (n == 1) return vreinterpretq_f32_u32(all);
    return vreinterpretq_f32_u32(vcombine_u32(vreinterpret_u32_u8(vld1_u8(bytes)), vget_low_u32(all)));
}

/* sum[r] += a[r] · w of one panel, if row r exists. */
#define ROW(name, r, a)                                                                                                \
    if (m > (r)) {                                                                                                     \
        for (int v = 0; v < VECTORS; v++) {                                                                            \
            float32x4_t *s = &sum[((r)*n + p) * VECTORS + v];                                                          \
            *s = add_##name(*s, w_row.val[v], a, (r) % 4);                                                             \
        }                                                                                                              \
    }

/* `name` selects load_NAME(w), a struct whose val[4] holds 16 weights or pairs, and add_NAME(sum, w, a, lane), sum + w
 * · lane of a. `inputs` is 1, or 2 for pairs; m and n are constants at every use. */
#define DEFINE_TILE(name, a_type, w_type, inputs)                                                                      \
    static inline __attribute__((always_inline)) void tile_##name(float *c, int64_t ldc, const a_type *a, const int m, \
                                                                  const w_type *w, int64_t panel_stride, const int n,  \
                                                                  int64_t n_k, bool add) {                             \
        float32x4_t sum[MR * VECTORS];                                                                                 \
        for (int i = 0; i < m * n * VECTORS; i++) sum[i] = vdupq_n_f32(0);                                             \
        for (int64_t k = 0; k < n_k; k += (inputs), a += m * (inputs), w += NR * (inputs)) {                           \
            const float32x4_t a0 = load_rows(a, m), a1 = m > 4 ? load_rows(a + 4 * (inputs), m - 4) : a0;              \
            for (int p = 0; p < n; p++) {                                                                              \
                const vectors_##name w_row = load_##name(w + p * panel_stride);                                        \
                ROW(name, 0, a0)                                                                                       \
                ROW(name, 1, a0)                                                                                       \
                ROW(name, 2, a0)                                                                                       \
                ROW(name, 3, a0)                                                                                       \
                ROW(name, 4, a1)                                                                                       \
                ROW(name, 5, a1)                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < m; r++) {                                                                                  \
            for (int i = 0; i < n * VECTORS; i++) {                                                                    \
                float *to = c + r * ldc + i * 4;                                                                       \
                float32x4_t total = sum[r * n * VECTORS + i];                                                          \
                if (add) total = vaddq_f32(vld1q_f32(to), total);                                                      \
                vst1q_f32(to, total);                                                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }

#define STREAM(name, m, n)                                                                                             \
    for (; n_panel >= (n); n_panel -= (n), w += (n)*panel_stride, c += (n)*NR)                                         \
        tile_##name(c, ldc, a, m, w, panel_stride, n, n_k, add);

/* gemm_NAME with the signature of kernels.h, for weights passed as w_arg. */
#define DEFINE_GEMM(name, a_type, w_arg, w_type, inputs)                                                               \
    DEFINE_TILE(name, a_type, w_type, inputs)                                                                          \
    static void gemm_##name(float *c, int64_t ldc, const a_type *a, int64_t m, const w_arg *weight,                    \
                            int64_t panel_stride, int64_t n_panel, int64_t n_k, bool add) {                            \
        const w_type *w = weight;                                                                                      \
        switch (m) {                                                                                                   \
        case 1:                                                                                                        \
            STREAM(name, 1, 4) STREAM(name, 1, 1) break;                                                               \
        case 2:                                                                                                        \
            STREAM(name, 2, 2) STREAM(name, 2, 1) break;                                                               \
        case 3:                                                                                                        \
            STREAM(name, 3, 2) STREAM(name, 3, 1) break;                                                               \
        case 4:                                                                                                        \
            STREAM(name, 4, 1) break;                                                                                  \
        case 5:                                                                                                        \
            STREAM(name, 5, 1) break;                                                                                  \
        default:                                                                                                       \
            STREAM(name, 6, 1) break;                                                                                  \
        }                                                                                                              \
    }

#endif
