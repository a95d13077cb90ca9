/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products in portable C.
 *
 * Layout    a {k, m}, one tile of m <= 4 rows; w panels {k, 16}; c {m, n_panel · 16}. Pairs: a {k/2, m, 2},
 *           w {k/2, 16, 2}.
 * Tile      4 x 16 sums; the compiler vectorizes over the 16 outputs.
 * Tails     m: instances for 1 … 4 rows; outputs and inputs are padded by the packing.
 * Bound     compute: multiply and add are rounded separately, as the file is compiled for any processor.
 */
#include "scalar.h"

enum { NR = 16, MR = 4, KC = 256 };

#define DEFINE_GEMM(dtype, type)                                                                                       \
    static inline void tile_##dtype(float *restrict c, int64_t ldc, const float *restrict a, int m,                    \
                                    const void *restrict w, int64_t n_k, bool add) {                                   \
        float sum[MR][NR] = {{0}};                                                                                     \
        for (int64_t k = 0; k < n_k; k++) {                                                                            \
            float row[NR];                                                                                             \
            for (int j = 0; j < NR; j++) row[j] = qni_scalar_load_##dtype(w, k * NR + j);                              \
            for (int r = 0; r < m; r++) {                                                                              \
                for (int j = 0; j < NR; j++) sum[r][j] += a[k * m + r] * row[j];                                       \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < m; r++) {                                                                                  \
            for (int j = 0; j < NR; j++) c[r * ldc + j] = add ? c[r * ldc + j] + sum[r][j] : sum[r][j];                \
        }                                                                                                              \
    }                                                                                                                  \
    static void gemm_##dtype(float *c, int64_t ldc, const float *a, int64_t m, const void *w, int64_t panel_stride,    \
                             int64_t n_panel, int64_t n_k, bool add) {                                                 \
        for (int64_t p = 0; p < n_panel; p++) {                                                                        \
            const void *panel = (const type *)w + p * panel_stride;                                                    \
            float *out = c + p * NR;                                                                                   \
            switch (m) {                                                                                               \
            case 1:                                                                                                    \
                tile_##dtype(out, ldc, a, 1, panel, n_k, add);                                                         \
                break;                                                                                                 \
            case 2:                                                                                                    \
                tile_##dtype(out, ldc, a, 2, panel, n_k, add);                                                         \
                break;                                                                                                 \
            case 3:                                                                                                    \
                tile_##dtype(out, ldc, a, 3, panel, n_k, add);                                                         \
                break;                                                                                                 \
            default:                                                                                                   \
                tile_##dtype(out, ldc, a, 4, panel, n_k, add);                                                         \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_GEMM(f32, float)
DEFINE_GEMM(bf16, uint16_t)
DEFINE_GEMM(f16, uint16_t)

/* bf16 pairs: both products are exact; the second is added to the first, and the result to the sum. */
static void gemm_pairs(float *c, int64_t ldc, const uint16_t *a, int64_t m, const uint16_t *w, int64_t panel_stride,
                       int64_t n_panel, int64_t n_k, bool add) {
    for (int64_t p = 0; p < n_panel; p++, w += panel_stride, c += NR) {
        for (int64_t r = 0; r < m; r++) {
            float sum[NR] = {0};
            for (int64_t k = 0; k < n_k / 2; k++) {
                const uint16_t *x = a + (k * m + r) * 2, *y = w + k * NR * 2;
                const float x0 = qni_f32_of_bf16(x[0]), x1 = qni_f32_of_bf16(x[1]);
                for (int j = 0; j < NR; j++) {
                    sum[j] += x0 * qni_f32_of_bf16(y[2 * j]) + x1 * qni_f32_of_bf16(y[2 * j + 1]);
                }
            }
            for (int j = 0; j < NR; j++) c[r * ldc + j] = add ? c[r * ldc + j] + sum[j] : sum[j];
        }
    }
}

#define DEFINE_TRANSPOSE(name, type)                                                                                   \
    static void name(type *out, const type *in, int64_t in_stride, int64_t n_j, int64_t n_i) {                         \
        enum { BLOCK = 32 }; /* one row of a block fills whole cache lines */                                          \
        for (int64_t first = 0; first < n_i; first += BLOCK) {                                                         \
            int64_t end = first + BLOCK < n_i ? first + BLOCK : n_i;                                                   \
            for (int64_t j = 0; j < NR; j++) {                                                                         \
                for (int64_t i = first; i < end; i++) out[i * NR + j] = j < n_j ? in[j * in_stride + i] : 0;           \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_TRANSPOSE(transpose2, uint16_t)
DEFINE_TRANSPOSE(transpose4, uint32_t)

void qni_cpu_gemm_portable(qni_cpu_kernels *k) {
    k->nr = NR;
    k->mr = MR;
    k->kc = KC;
    k->n_stream = 1;
    k->stream_rows = k->mr;
    k->gemm[QNI_CPU_F32] = gemm_f32;
    k->gemm[QNI_CPU_BF16] = gemm_bf16;
    k->gemm[QNI_CPU_F16] = gemm_f16;
    k->gemm_pairs = k->gemm_pairs_far = gemm_pairs;
    k->transpose2 = transpose2;
    k->transpose4 = transpose4;
    k->transpose_bf16 = transpose2;
}
