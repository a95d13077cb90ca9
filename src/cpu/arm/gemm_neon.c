/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products with NEON.
 *
 * Layout    a {k, m}, one tile of m <= 6 rows; w panels {k, 16}, four vectors a row; c {m, n_panel · 16}.
 * Tile      6 x 16 for many rows: 24 sums, 4 weights, 2 of activations in 32 registers; a row's activation is a lane.
 *           For few rows several panels at once, so that there are at least 16 independent chains (4 cycles of latency
 *           on 4 pipes) and as many read streams as panels: 1 row x 4 panels, 2 x 2, 3 x 2, 4 … 6 x 1.
 * Tails     m by instances for 1 … 6 rows, panels left over one at a time; outputs are padded by the packing.
 * Bound     1 … 3 rows of bf16 or f16: memory; from 4 rows on: compute. A step of the whole tile is 24 FMA for 6 loads,
 *           or 4 loads and 4 conversions.
 */
#include "../kernels.h"
#include "vector_neon.h"

enum { NR = 16, VECTORS = NR / 4, MR = 6, KC = 256 };

/* n (1 … 4) activations; lanes beyond are of no account. Nothing beyond them is read. */
static inline __attribute__((always_inline)) float32x4_t load_rows(const float *a, const int n) {
    if (n >= 4) return vld1q_f32(a);
    if (n == 1) return vld1q_dup_f32(a);
    const float32x2_t two = vld1_f32(a);
    return n == 3 ? vld1q_lane_f32(a + 2, vcombine_f32(two, two), 2) : vcombine_f32(two, two);
}

/* sum[r] += a[r] · w of one panel, where row r is there. */
#define ROW(r, a)                                                                                                      \
    if (m > (r)) {                                                                                                     \
        for (int v = 0; v < VECTORS; v++) {                                                                            \
            float32x4_t *s = &sum[((r)*n + p) * VECTORS + v];                                                          \
            *s = vfmaq_laneq_f32(*s, w_row[v], a, (r) % 4);                                                            \
        }                                                                                                              \
    }

/* The sums of m rows and n panels; m and n are constants wherever it is used. */
#define DEFINE_TILE(dtype, type)                                                                                       \
    static inline __attribute__((always_inline)) void tile_##dtype(float *c, int64_t ldc, const float *a, const int m, \
                                                                   const type *w, int64_t panel_stride, const int n,   \
                                                                   int64_t n_k, bool add) {                            \
        float32x4_t sum[MR * VECTORS];                                                                                 \
        for (int i = 0; i < m * n * VECTORS; i++) sum[i] = vdupq_n_f32(0);                                             \
        for (int64_t k = 0; k < n_k; k++, a += m, w += NR) {                                                           \
            const float32x4_t a0 = load_rows(a, m), a1 = m > 4 ? load_rows(a + 4, m - 4) : a0;                         \
            for (int p = 0; p < n; p++) {                                                                              \
                const float32x4x2_t low = load8_##dtype(w + p * panel_stride);                                         \
                const float32x4x2_t high = load8_##dtype(w + p * panel_stride + 8);                                    \
                const float32x4_t w_row[VECTORS] = {low.val[0], low.val[1], high.val[0], high.val[1]};                 \
                ROW(0, a0) ROW(1, a0) ROW(2, a0) ROW(3, a0) ROW(4, a1) ROW(5, a1)                                      \
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

#define STREAM(dtype, m, n)                                                                                            \
    for (; n_panel >= (n); n_panel -= (n), w += (n)*panel_stride, c += (n)*NR)                                         \
        tile_##dtype(c, ldc, a, m, w, panel_stride, n, n_k, add);

#define DEFINE_GEMM(dtype, type)                                                                                       \
    DEFINE_TILE(dtype, type)                                                                                           \
    static void gemm_##dtype(float *c, int64_t ldc, const float *a, int64_t m, const void *weight,                     \
                             int64_t panel_stride, int64_t n_panel, int64_t n_k, bool add) {                           \
        const type *w = weight;                                                                                        \
        switch (m) {                                                                                                   \
        case 1:                                                                                                        \
            STREAM(dtype, 1, 4) STREAM(dtype, 1, 1) break;                                                             \
        case 2:                                                                                                        \
            STREAM(dtype, 2, 2) STREAM(dtype, 2, 1) break;                                                             \
        case 3:                                                                                                        \
            STREAM(dtype, 3, 2) STREAM(dtype, 3, 1) break;                                                             \
        case 4:                                                                                                        \
            STREAM(dtype, 4, 1) break;                                                                                 \
        case 5:                                                                                                        \
            STREAM(dtype, 5, 1) break;                                                                                 \
        default:                                                                                                       \
            STREAM(dtype, 6, 1) break;                                                                                 \
        }                                                                                                              \
    }

DEFINE_GEMM(f32, float)
DEFINE_GEMM(bf16, uint16_t)
DEFINE_GEMM(f16, uint16_t)

void qni_cpu_gemm_neon(qni_cpu_kernels *k) {
    k->nr = NR;
    k->mr = MR;
    k->kc = KC;
    k->n_stream = 4;
    k->gemm[QNI_CPU_F32] = gemm_f32;
    k->gemm[QNI_CPU_BF16] = gemm_bf16;
    k->gemm[QNI_CPU_F16] = gemm_f16;
}
