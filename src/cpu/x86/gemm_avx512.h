/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a tile of rows with panels, for all element types. Private to the AVX-512 kernel files.
 *
 * Layout    a {k, m}, one tile of m <= 12 rows; w panels {k, 32}, two vectors a row, bf16 interleaved; c {m, n_panel ·
 *           32}. Elements may also be pairs: a {k/2, m, 2}, w {k/2, 32, 2}.
 * Tile      12 x 32 for many rows: 24 sums, 2 weights and 1 activation in 32 registers. For few rows several panels at
 *           once, for at least 8 independent chains and one read stream per panel: 1 … 3 rows x 4 panels, 4 … 12 x 1.
 * Tails     m: instances for 1 … 12 rows; remaining panels one at a time; outputs are padded by the packing.
 */
#ifndef QNI_CPU_GEMM_AVX512_H
#define QNI_CPU_GEMM_AVX512_H

#include "prefetch.h"
#include "vector_avx512.h"

#include <stdbool.h>

enum {
    NR = 32,
    MR = 12,
    KC = 512,                  /* two blocks of bf16 fit in L1; one of f32 fits in L2 with all tiles that use it */
    PREFETCH_BYTES = 1536,     /* prefetch distance in bytes for up to three rows, over all panels together */
    PREFETCH_BYTES_FAR = 8192, /* for more rows */
};

/* Prefetch distance in bytes of one of n panels. More than three rows read one panel, whose stream alone must keep the
 * memory busy: with the short distance it falls behind by 3 (Zen 4) to 30 percent (Zen 5). */
static inline int prefetch_bytes(const int m, const int n) {
    return m > 3 ? PREFETCH_BYTES_FAR : PREFETCH_BYTES / n;
}

/* `name` selects the type vector_NAME, load_NAME(w, half): weights or pairs of 16 outputs of a panel row,
 * spread_NAME(a): an activation in all lanes, and add_NAME(sum, x, y): sum + x · y. `inputs` is 1, or 2 for pairs; m
 * and n are constants at every use. */
#define DEFINE_TILE(name, a_type, w_type, inputs)                                                                      \
    static inline __attribute__((always_inline)) void tile_##name(float *c, int64_t ldc, const a_type *a, const int m, \
                                                                  const w_type *w, int64_t panel_stride, const int n,  \
                                                                  int64_t n_k, bool add) {                             \
        __m512 sum[MR * 2];                                                                                            \
        for (int i = 0; i < m * n * 2; i++) sum[i] = _mm512_setzero_ps();                                              \
        for (int64_t k = 0; k < n_k; k += (inputs), a += m * (inputs), w += NR * (inputs)) {                           \
            for (int p = 0; p < n; p++) {                                                                              \
                const char *further = (const char *)(w + p * panel_stride) + prefetch_bytes(m, n);                     \
                for (size_t i = 0; i < NR * (inputs) * sizeof *w; i += 64) prefetch_weight(further + i, m, MR);        \
                const vector_##name y0 = load_##name(w + p * panel_stride, 0);                                         \
                const vector_##name y1 = load_##name(w + p * panel_stride, 1);                                         \
                for (int r = 0; r < m; r++) {                                                                          \
                    const vector_##name x = spread_##name(a + r * (inputs));                                           \
                    sum[(r * n + p) * 2] = add_##name(sum[(r * n + p) * 2], x, y0);                                    \
                    sum[(r * n + p) * 2 + 1] = add_##name(sum[(r * n + p) * 2 + 1], x, y1);                            \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < m; r++) {                                                                                  \
            for (int i = 0; i < n * 2; i++) {                                                                          \
                float *to = c + r * ldc + i * 16;                                                                      \
                __m512 total = sum[r * n * 2 + i];                                                                     \
                if (add) total = _mm512_add_ps(_mm512_loadu_ps(to), total);                                            \
                _mm512_storeu_ps(to, total);                                                                           \
            }                                                                                                          \
        }                                                                                                              \
    }

#define STREAM(name, m, n)                                                                                             \
    for (; n_panel >= (n); n_panel -= (n), w += (n)*panel_stride, c += (n)*NR)                                         \
        tile_##name(c, ldc, a, m, w, panel_stride, n, n_k, add);
#define CASE(name, m, n)                                                                                               \
    case m:                                                                                                            \
        STREAM(name, m, n)                                                                                             \
        if ((n) > 1) STREAM(name, m, 1)                                                                                \
        break;

/* gemm_NAME with the signature of kernels.h, for weights passed as w_arg. */
#define DEFINE_GEMM(name, a_type, w_arg, w_type, inputs)                                                               \
    DEFINE_TILE(name, a_type, w_type, inputs)                                                                          \
    static void gemm_##name(float *c, int64_t ldc, const a_type *a, int64_t m, const w_arg *weight,                    \
                            int64_t panel_stride, int64_t n_panel, int64_t n_k, bool add) {                            \
        const w_type *w = weight;                                                                                      \
        switch (m) {                                                                                                   \
            CASE(name, 1, 4)                                                                                           \
            CASE(name, 2, 4)                                                                                           \
            CASE(name, 3, 4)                                                                                           \
            CASE(name, 4, 1)                                                                                           \
            CASE(name, 5, 1)                                                                                           \
            CASE(name, 6, 1)                                                                                           \
            CASE(name, 7, 1)                                                                                           \
            CASE(name, 8, 1)                                                                                           \
            CASE(name, 9, 1)                                                                                           \
            CASE(name, 10, 1)                                                                                          \
            CASE(name, 11, 1)                                                                                          \
            CASE(name, 12, 1)                                                                                          \
        }                                                                                                              \
    }

#endif
