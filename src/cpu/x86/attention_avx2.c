/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with AVX2.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 64} f32; k, v rows of d elements at a stride.
 * Tile      scores: 8 pairs of (query, key), each with 8 partial sums over d that are added by one fixed tree: 4 x 2,
 *           2 x 4 or 1 x 8. Values: queries x vectors of d 4 x 2, 2 x 4, 1 x 8, one chain over the positions each.
 * Tails     d is padded to 8; keys beyond the last repeat it and are not stored; queries 4, 2, 1; vectors of d one by
 *           one.
 * Bound     compute for a converted block, memory where few queries read the cache itself.
 */
#include "../kernels.h"
#include "vector_avx2.h"

enum { BLOCK = QNI_CPU_KV_BLOCK };

/* Lane i of the result: ((v0+v1)+(v2+v3)) + ((v4+v5)+(v6+v7)) of vector i. */
static inline __m256 sum_each(const __m256 v[8]) {
    __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    return _mm256_add_ps(low, high);
}

#define DEFINE_ATTEND(dtype, type)                                                                                     \
    /* Scores of n_q queries with n = 8 / n_q keys from j on, of which n_valid exist. */                               \
    static inline __attribute__((always_inline)) void score_tile_##dtype(                                              \
        float *s, const float *q, const int n_q, const type *k, int64_t k_stride, int64_t n_valid, int64_t d) {        \
        const int n = 8 / n_q;                                                                                         \
        const type *key[8];                                                                                            \
        __m256 sum[8];                                                                                                 \
        for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * k_stride;                           \
        for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_ps();                                                      \
        for (int64_t c = 0; c < d; c += 8) {                                                                           \
            __m256 x[4];                                                                                               \
            for (int i = 0; i < n_q; i++) x[i] = _mm256_loadu_ps(q + i * d + c);                                       \
            for (int j = 0; j < n; j++) {                                                                              \
                const __m256 y = load8_##dtype(key[j] + c);                                                            \
                for (int i = 0; i < n_q; i++) sum[i * n + j] = _mm256_fmadd_ps(x[i], y, sum[i * n + j]);               \
            }                                                                                                          \
        }                                                                                                              \
        float all[8];                                                                                                  \
        _mm256_storeu_ps(all, sum_each(sum));                                                                          \
        for (int i = 0; i < n_q; i++) {                                                                                \
            for (int j = 0; j < n && j < n_valid; j++) s[i * BLOCK + j] = all[i * n + j];                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void scores_##dtype(float *s, const float *q, int64_t n_q, const void *keys, int64_t k_stride, int64_t n_k, \
                               int64_t d) {                                                                            \
        const type *k = keys;                                                                                          \
        for (; n_q >= 4; n_q -= 4, s += 4 * BLOCK, q += 4 * d)                                                         \
            for (int64_t j = 0; j < n_k; j += 2)                                                                       \
                score_tile_##dtype(s + j, q, 4, k + j * k_stride, k_stride, n_k - j, d);                               \
        for (; n_q >= 2; n_q -= 2, s += 2 * BLOCK, q += 2 * d)                                                         \
            for (int64_t j = 0; j < n_k; j += 4)                                                                       \
                score_tile_##dtype(s + j, q, 2, k + j * k_stride, k_stride, n_k - j, d);                               \
        for (int64_t j = 0; n_q > 0 && j < n_k; j += 8)                                                                \
            score_tile_##dtype(s + j, q, 1, k + j * k_stride, k_stride, n_k - j, d);                                   \
    }                                                                                                                  \
    /* n_q queries and n vectors of d. */                                                                              \
    static inline __attribute__((always_inline)) void value_tile_##dtype(float *o, const float *p, const int n_q,      \
                                                                         const int n, const type *v, int64_t v_stride, \
                                                                         int64_t n_k, int64_t d, bool add) {           \
        __m256 sum[8];                                                                                                 \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++)                                                                                \
                sum[i * n + c] = add ? _mm256_loadu_ps(o + i * d + c * 8) : _mm256_setzero_ps();                       \
        for (int64_t j = 0; j < n_k; j++, v += v_stride) {                                                             \
            __m256 x[4];                                                                                               \
            for (int i = 0; i < n_q; i++) x[i] = _mm256_broadcast_ss(p + i * BLOCK + j);                               \
            for (int c = 0; c < n; c++) {                                                                              \
                const __m256 y = load8_##dtype(v + c * 8);                                                             \
                for (int i = 0; i < n_q; i++) sum[i * n + c] = _mm256_fmadd_ps(x[i], y, sum[i * n + c]);               \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++) _mm256_storeu_ps(o + i * d + c * 8, sum[i * n + c]);                           \
    }                                                                                                                  \
    static inline __attribute__((always_inline)) void value_rows_##dtype(                                              \
        float *o, const float *p, const int n_q, const type *v, int64_t v_stride, int64_t n_k, int64_t d, bool add) {  \
        const int n = 8 / n_q;                                                                                         \
        int64_t c = 0;                                                                                                 \
        for (; c + n * 8 <= d; c += n * 8) value_tile_##dtype(o + c, p, n_q, n, v + c, v_stride, n_k, d, add);         \
        for (; c < d; c += 8) value_tile_##dtype(o + c, p, n_q, 1, v + c, v_stride, n_k, d, add);                      \
    }                                                                                                                  \
    static void values_##dtype(float *o, const float *p, int64_t n_q, const void *values, int64_t v_stride,            \
                               int64_t n_k, int64_t d, bool add) {                                                     \
        const type *v = values;                                                                                        \
        for (; n_q >= 4; n_q -= 4, o += 4 * d, p += 4 * BLOCK) value_rows_##dtype(o, p, 4, v, v_stride, n_k, d, add);  \
        for (; n_q >= 2; n_q -= 2, o += 2 * d, p += 2 * BLOCK) value_rows_##dtype(o, p, 2, v, v_stride, n_k, d, add);  \
        if (n_q > 0) value_rows_##dtype(o, p, 1, v, v_stride, n_k, d, add);                                            \
    }

DEFINE_ATTEND(f32, float)
DEFINE_ATTEND(bf16, uint16_t)
DEFINE_ATTEND(f16, uint16_t)

static void softmax(float *s, int64_t n, float *max, float *sum) {
    const __m256 low = _mm256_set1_ps(-__builtin_inff());
    __m256 m = low;
    for (int64_t j = 0; j < n; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (n - j < 8) v = _mm256_blendv_ps(low, v, _mm256_castsi256_ps(mask8(n - j)));
        m = _mm256_max_ps(v, m); /* a NaN is passed over */
    }
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    m4 = _mm_max_ss(m4, _mm_movehdup_ps(m4));
    m = _mm256_broadcastss_ps(m4);
    __m256 total = _mm256_setzero_ps();
    for (int64_t j = 0; j < n; j += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j), m));
        if (n - j < 8) e = _mm256_and_ps(e, _mm256_castsi256_ps(mask8(n - j)));
        total = _mm256_add_ps(total, e);
        _mm256_storeu_ps(s + j, e);
    }
    *max = _mm_cvtss_f32(m4);
    *sum = sum8(total);
}

static void merge(float *o, float a, const float *b, float c, int64_t n) {
    const __m256 x = _mm256_set1_ps(a), y = _mm256_set1_ps(c);
    for (int64_t i = 0; i < n; i += 8) { /* n is padded */
        __m256 second = _mm256_mul_ps(_mm256_loadu_ps(b + i), y);
        _mm256_storeu_ps(o + i, _mm256_fmadd_ps(_mm256_loadu_ps(o + i), x, second));
    }
}

void qni_cpu_attention_avx2(qni_cpu_kernels *k) {
    k->d_align = 8;
    k->attend_scores[QNI_CPU_F32] = scores_f32;
    k->attend_scores[QNI_CPU_BF16] = scores_bf16;
    k->attend_scores[QNI_CPU_F16] = scores_f16;
    k->attend_softmax = softmax;
    k->attend_values[QNI_CPU_F32] = values_f32;
    k->attend_values[QNI_CPU_BF16] = values_bf16;
    k->attend_values[QNI_CPU_F16] = values_f16;
    k->attend_merge = merge;
}
