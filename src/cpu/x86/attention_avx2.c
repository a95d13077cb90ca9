/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with AVX2.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 64} f32; k, v rows of d elements at a stride, or k panels {d, 16} of keys.
 * Tile      scores: 8 pairs of (query, key), each with 8 partial sums over d that are added by one fixed tree: 4 x 2,
 *           2 x 4 or 1 x 8; of panels, queries x vectors of keys 4 x 2, one partial sum after the other. Values: queries x
 *           vectors of d 4 x 2, 2 x 4, 1 x 8, one chain over the positions each.
 * Tails     d is padded to 8; keys beyond the last repeat it and are not stored; queries 4, 2, 1; vectors of d one by
 *           one.
 * Bound     compute for a converted block, memory where few queries read the cache itself; f16 on the first Zen processors
 *           has a file of its own.
 */
#include "../kernels.h"
#include "ahead.h"
#include "vector_avx2.h"

enum { BLOCK = QNI_CPU_KV_BLOCK, PANEL = 16 };

/* In a register: the compiler would load it anew for each use. */
static inline __m256 kept(__m256 v) {
    __asm__("" : "+x"(v));
    return v;
}

#define DEFINE_ATTEND(dtype, type)                                                                                     \
    /* Scores of n_q queries with n = 8 / n_q keys, of which n_valid exist. */                                         \
    static inline __attribute__((always_inline)) void score_tile_##dtype(float *s, const float *q, const int n_q,      \
                                                                         const type *k, int64_t k_stride,              \
                                                                         int64_t n_valid, int64_t d, ahead *next) {    \
        const int n = 8 / n_q;                                                                                         \
        const type *key[8];                                                                                            \
        __m256 sum[8];                                                                                                 \
        for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * k_stride;                           \
        for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_ps();                                                      \
        for (int64_t c = 0; c < d; c += 8) {                                                                           \
            __m256 x[4];                                                                                               \
            ask_for(next, (size_t)n * 8 * sizeof *k);                                                                  \
            for (int i = 0; i < n_q; i++) x[i] = kept(_mm256_loadu_ps(q + i * d + c));                                 \
            for (int j = 0; j < n; j++) {                                                                              \
                const __m256 y = load8_##dtype(key[j] + c);                                                            \
                for (int i = 0; i < n_q; i++) sum[i * n + j] = _mm256_fmadd_ps(x[i], y, sum[i * n + j]);               \
            }                                                                                                          \
        }                                                                                                              \
        store_scores(s, BLOCK, sum, n_q, n_valid);                                                                     \
    }                                                                                                                  \
    /* Eight keys at a time, which stay in the first cache for all queries. */                                         \
    static void scores_##dtype(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *rows, int64_t d) {        \
        const type *k = rows->data;                                                                                    \
        const int64_t stride = rows->stride;                                                                           \
        ahead next = ahead_of(rows);                                                                                   \
        for (int64_t j = 0; j < rows->n; j += 8, s += 8, k += 8 * stride) {                                            \
            const int64_t n = rows->n - j < 8 ? rows->n - j : 8;                                                       \
            int64_t i = 0;                                                                                             \
            for (; i + 4 <= n_q; i += 4)                                                                               \
                for (int64_t l = 0; l < n; l += 2)                                                                     \
                    score_tile_##dtype(s + i * BLOCK + l, q + i * d, 4, k + l * stride, stride, n - l, d, &next);      \
            for (; i + 2 <= n_q; i += 2)                                                                               \
                for (int64_t l = 0; l < n; l += 4)                                                                     \
                    score_tile_##dtype(s + i * BLOCK + l, q + i * d, 2, k + l * stride, stride, n - l, d, &next);      \
            if (i < n_q) score_tile_##dtype(s + i * BLOCK, q + i * d, 1, k, stride, n, d, &next);                      \
        }                                                                                                              \
    }                                                                                                                  \
    /* n_q queries and n vectors of d. */                                                                              \
    static inline __attribute__((always_inline)) void value_tile_##dtype(                                              \
        float *o, const float *p, const int n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,      \
        bool add, ahead *next) {                                                                                       \
        const type *v = (const type *)rows->data + c0;                                                                 \
        __m256 sum[8];                                                                                                 \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++)                                                                                \
                sum[i * n + c] = add ? _mm256_loadu_ps(o + i * d + c0 + c * 8) : _mm256_setzero_ps();                  \
        for (int64_t j = 0; j < rows->n; j++, v += rows->stride) {                                                     \
            __m256 x[4];                                                                                               \
            ask_for(next, (size_t)n * 8 * sizeof *v);                                                                  \
            for (int i = 0; i < n_q; i++) x[i] = _mm256_broadcast_ss(p + i * BLOCK + j);                               \
            for (int c = 0; c < n; c++) {                                                                              \
                const __m256 y = load8_##dtype(v + c * 8);                                                             \
                for (int i = 0; i < n_q; i++) sum[i * n + c] = _mm256_fmadd_ps(x[i], y, sum[i * n + c]);               \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++) _mm256_storeu_ps(o + i * d + c0 + c * 8, sum[i * n + c]);                      \
    }                                                                                                                  \
    /* Columns of n vectors from c0 on, which stay in the first cache for all queries. */                              \
    static inline __attribute__((always_inline)) void value_columns_##dtype(                                           \
        float *o, const float *p, int64_t n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,        \
        bool add, ahead *next) {                                                                                       \
        int64_t i = 0;                                                                                                 \
        if (n <= 2)                                                                                                    \
            for (; i + 4 <= n_q; i += 4) value_tile_##dtype(o + i * d, p + i * BLOCK, 4, n, rows, c0, d, add, next);   \
        if (n <= 4)                                                                                                    \
            for (; i + 2 <= n_q; i += 2) value_tile_##dtype(o + i * d, p + i * BLOCK, 2, n, rows, c0, d, add, next);   \
        for (; i < n_q; i++) value_tile_##dtype(o + i * d, p + i * BLOCK, 1, n, rows, c0, d, add, next);               \
    }                                                                                                                  \
    static void values_##dtype(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) { \
        int64_t c = 0;                                                                                                 \
        ahead next = ahead_of(v);                                                                                      \
        for (; n_q == 1 && c + 64 <= d; c += 64) value_columns_##dtype(o, p, n_q, 8, v, c, d, add, &next);             \
        for (; n_q < 4 && c + 32 <= d; c += 32) value_columns_##dtype(o, p, n_q, 4, v, c, d, add, &next);              \
        for (; c + 16 <= d; c += 16) value_columns_##dtype(o, p, n_q, 2, v, c, d, add, &next);                         \
        for (; c < d; c += 8) value_columns_##dtype(o, p, n_q, 1, v, c, d, add, &next);                                \
    }

DEFINE_ATTEND(f32, float)
DEFINE_ATTEND(bf16, uint16_t)
DEFINE_ATTEND(f16, uint16_t)
DEFINE_ATTEND(q8, int8_t)

/*
 * n_q queries with a panel of sixteen keys, which are the lanes: nothing is left to add within a vector. Each of the eight
 * partial sums of a score is formed by itself, those that sum_each() adds first one after the other, so that few wait.
 */
static inline __attribute__((always_inline)) void panel_tile(float *s, const float *q, const int n_q, const float *k,
                                                             int64_t d) {
    __m256 sum[8], waiting[3][8];
    int n_waiting = 0;
    for (int t = 0; t < 8; t++) {
        for (int i = 0; i < 2 * n_q; i++) sum[i] = _mm256_setzero_ps();
        for (int64_t c = nth_partial(t); c < d; c += 8) {
            const __m256 y0 = _mm256_loadu_ps(k + c * PANEL), y1 = _mm256_loadu_ps(k + c * PANEL + 8);
            for (int i = 0; i < n_q; i++) {
                const __m256 x = _mm256_broadcast_ss(q + i * d + c);
                sum[2 * i] = _mm256_fmadd_ps(x, y0, sum[2 * i]);
                sum[2 * i + 1] = _mm256_fmadd_ps(x, y1, sum[2 * i + 1]);
            }
        }
        for (int pairs = t; pairs % 2 == 1; pairs /= 2) {
            n_waiting--;
            for (int i = 0; i < 2 * n_q; i++) sum[i] = _mm256_add_ps(waiting[n_waiting][i], sum[i]);
        }
        if (t == 7) break;
        for (int i = 0; i < 2 * n_q; i++) waiting[n_waiting][i] = sum[i];
        n_waiting++;
    }
    for (int i = 0; i < n_q; i++) {
        _mm256_storeu_ps(s + i * BLOCK, sum[2 * i]);
        _mm256_storeu_ps(s + i * BLOCK + 8, sum[2 * i + 1]);
    }
}

static void panels(float *s, const float *q, int64_t n_q, const float *k, int64_t n_k, int64_t d) {
    for (int64_t j = 0; j < n_k; j += PANEL, k += PANEL * d) {
        int64_t i = 0;
        for (; i + 4 <= n_q; i += 4) panel_tile(s + i * BLOCK + j, q + i * d, 4, k, d);
        for (; i + 2 <= n_q; i += 2) panel_tile(s + i * BLOCK + j, q + i * d, 2, k, d);
        if (i < n_q) panel_tile(s + i * BLOCK + j, q + i * d, 1, k, d);
    }
}

static float softmax(float *s, int64_t n, float *max, float *sum) {
    const __m256 low = _mm256_set1_ps(*max);
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
    __m256 factor = exp8(_mm256_sub_ps(low, m)); /* before the others, a chain as long as theirs: beside them */
    int64_t j = 0;
    for (; j + 32 <= n; j += 32) {
        __m256 e[4];
        for (int i = 0; i < 4; i++) e[i] = _mm256_sub_ps(_mm256_loadu_ps(s + j + 8 * i), m);
        exp_each(e, 4);
        for (int i = 0; i < 4; i++) {
            total = _mm256_add_ps(total, e[i]);
            _mm256_storeu_ps(s + j + 8 * i, e[i]);
        }
    }
    for (; j < n; j += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j), m));
        if (n - j < 8) e = _mm256_and_ps(e, _mm256_castsi256_ps(mask8(n - j)));
        total = _mm256_add_ps(total, e);
        _mm256_storeu_ps(s + j, e);
    }
    *max = _mm_cvtss_f32(m4);
    *sum = *sum * _mm256_cvtss_f32(factor) + sum8(total);
    return _mm256_cvtss_f32(factor);
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
    k->attend_scores[QNI_CPU_Q8] = scores_q8;
    k->attend_panels = panels;
    k->attend_softmax = softmax;
    k->attend_values[QNI_CPU_F32] = values_f32;
    k->attend_values[QNI_CPU_BF16] = values_bf16;
    k->attend_values[QNI_CPU_F16] = values_f16;
    k->attend_values[QNI_CPU_Q8] = values_q8;
    k->attend_merge = merge;
}
