/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products with AVX2, FMA and F16C.
 *
 * Layout    a {k, m}, one tile of m <= 6 rows; w panels {k, 16}, two vectors a row, bf16 interleaved;
 *           c {m, n_panel · 16}.
 * Tile      6 x 16 for many rows: 12 sums, 2 weights, 1 activation in 16 registers. For few rows several panels at
 *           once, for at least 8 independent chains and one read stream per panel: 1 row x 4 panels, 2 x 2, 3 … 6 x 1.
 * Tails     m: instances for 1 … 6 rows; remaining panels one at a time; outputs are padded by the packing.
 * Bound     1 … 3 rows of bf16 or f16: memory; from 4 rows on: compute, 2 FMA per cycle (6 rows: 95 % of that).
 */
#include "../kernels.h"
#include "prefetch.h"
#include "vector_avx2.h"

#include <immintrin.h>

enum {
    NR = 16,
    MR = 6,
    KC = 256,
    PREFETCH_BYTES = 384, /* prefetch distance in bytes (four streams, all line-fill buffers busy) */
};

/* A row of a panel as two vectors. */
static inline void load_f32(__m256 w[2], const float *p) {
    w[0] = _mm256_loadu_ps(p);
    w[1] = _mm256_loadu_ps(p + 8);
}
static inline void load_f16(__m256 w[2], const uint16_t *p) {
    w[0] = load8_f16(p);
    w[1] = load8_f16(p + 8);
}
/* Interleaved: the low halves are outputs 0 … 7, the high halves 8 … 15. */
static inline void load_bf16(__m256 w[2], const uint16_t *p) {
    const __m256i interleaved = _mm256_loadu_si256((const __m256i *)(const void *)p);
    w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(interleaved, 16));
    w[1] = _mm256_castsi256_ps(_mm256_and_si256(interleaved, _mm256_set1_epi32((int)0xFFFF0000u)));
}

/* The sums of m rows and n panels; m, n and load are constants at every use. */
#define DEFINE_TILE(dtype, type)                                                                                       \
    static inline __attribute__((always_inline)) void tile_##dtype(float *c, int64_t ldc, const float *a, const int m, \
                                                                   const type *w, int64_t panel_stride, const int n,   \
                                                                   int64_t n_k, bool add) {                            \
        __m256 sum[MR * 2] = {_mm256_setzero_ps()};                                                                    \
        for (int i = 0; i < m * n * 2; i++) sum[i] = _mm256_setzero_ps();                                              \
        for (int64_t k = 0; k < n_k; k++, a += m, w += NR) {                                                           \
            for (int p = 0; p < n; p++) {                                                                              \
                __m256 row[2];                                                                                         \
                prefetch_weight((const char *)(w + p * panel_stride) + PREFETCH_BYTES, m, MR);                         \
                load_##dtype(row, w + p * panel_stride);                                                               \
                for (int r = 0; r < m; r++) {                                                                          \
                    const __m256 x = _mm256_broadcast_ss(a + r);                                                       \
                    sum[(r * n + p) * 2] = _mm256_fmadd_ps(x, row[0], sum[(r * n + p) * 2]);                           \
                    sum[(r * n + p) * 2 + 1] = _mm256_fmadd_ps(x, row[1], sum[(r * n + p) * 2 + 1]);                   \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < m; r++) {                                                                                  \
            for (int i = 0; i < n * 2; i++) {                                                                          \
                float *to = c + r * ldc + i * 8;                                                                       \
                __m256 total = sum[r * n * 2 + i];                                                                     \
                if (add) total = _mm256_add_ps(_mm256_loadu_ps(to), total);                                            \
                _mm256_storeu_ps(to, total);                                                                           \
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
            STREAM(dtype, 3, 1) break;                                                                                 \
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

static void widen_panel_bf16(float *out, const void *in, int64_t n) {
    const uint16_t *panel = in;
    for (int64_t i = 0; i < n; i += NR) {
        __m256 row[2];
        load_bf16(row, panel + i);
        _mm256_storeu_ps(out + i, row[0]);
        _mm256_storeu_ps(out + i + 8, row[1]);
    }
}

void qni_cpu_gemm_avx2(qni_cpu_kernels *k) {
    k->interleaves_bf16 = true;
    k->widen_panel_bf16 = widen_panel_bf16;
    k->nr = NR;
    k->mr = MR;
    k->kc = KC;
    k->n_stream = 4;
    k->stream_rows = MR;
    k->gemm[QNI_CPU_F32] = gemm_f32;
    k->gemm[QNI_CPU_BF16] = gemm_bf16;
    k->gemm[QNI_CPU_F16] = gemm_f16;
}
