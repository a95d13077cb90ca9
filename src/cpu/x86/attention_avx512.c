/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with AVX-512.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 64} f32; k, v rows of d elements at a stride, or k panels {d, 32} of keys.
 * Tile      scores: 16 pairs of (query, key), each with 16 partial sums over d that are added by one fixed tree: 8 x 2
 *           (of keys that are converted), 4 x 4, 2 x 8 or 1 x 16; of panels, queries x vectors of keys 8 x 2, one partial
 *           sum after the other. Values: queries x vectors of d 4 x 4, 2 x 8, 1 x 8, one chain over the positions each.
 * Tails     d is padded to 16; keys beyond the last repeat it and are not stored; queries 8, 4, 2, 1; vectors of d one by
 *           one.
 * Bound     compute for a converted block, memory where few queries read the cache itself.
 */
#include "../kernels.h"
#include "ahead.h"
#include "vector_avx512.h"

enum { BLOCK = QNI_CPU_KV_BLOCK, PAIRS = 16, PANEL = 32 };

static inline __m512 load16_q8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* Lane i of the result: the sum of vector i: of its quarters first, (l0+l2) + (l1+l3) of each, then (q0+q1) + (q2+q3). */
static inline __m512 sum_each(const __m512 v[PAIRS]) {
    __m512 pair[8], four[4], half[2];
    for (int i = 0; i < 8; i++) {
        pair[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    }
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(pair[2 * i]), b = _mm512_castps_pd(pair[2 * i + 1]);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++) {
        half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0x88),
                                _mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0xDD));
    }
    return _mm512_add_ps(_mm512_shuffle_f32x4(half[0], half[1], 0x88), _mm512_shuffle_f32x4(half[0], half[1], 0xDD));
}

/* The lane that it adds as the t-th: 0 2 1 3 4 6 5 7 … */
static inline int nth_partial(int t) {
    return (t & 12) | (t & 1) << 1 | (t >> 1 & 1);
}

#define DEFINE_SCORES(dtype, type)                                                                                     \
    /* Scores of n_q queries with n = 16 / n_q keys, of which n_valid exist. */                                        \
    static inline __attribute__((always_inline)) void score_tile_##dtype(float *s, const float *q, const int n_q,      \
                                                                         const type *k, int64_t k_stride,              \
                                                                         int64_t n_valid, int64_t d, ahead *next) {    \
        const int n = PAIRS / n_q;                                                                                     \
        const type *key[PAIRS];                                                                                        \
        __m512 sum[PAIRS];                                                                                             \
        for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * k_stride;                           \
        for (int i = 0; i < PAIRS; i++) sum[i] = _mm512_setzero_ps();                                                  \
        for (int64_t c = 0; c < d; c += 16) {                                                                          \
            __m512 x[8];                                                                                               \
            ask_for(next, (size_t)n * 16 * sizeof *k);                                                                 \
            for (int i = 0; i < n_q; i++) x[i] = _mm512_loadu_ps(q + i * d + c);                                       \
            for (int j = 0; j < n; j++) {                                                                              \
                const __m512 y = load16_##dtype(key[j] + c);                                                           \
                for (int i = 0; i < n_q; i++) sum[i * n + j] = _mm512_fmadd_ps(x[i], y, sum[i * n + j]);               \
            }                                                                                                          \
        }                                                                                                              \
        float all[PAIRS];                                                                                              \
        _mm512_storeu_ps(all, sum_each(sum));                                                                          \
        for (int i = 0; i < n_q; i++) {                                                                                \
            if (n_valid >= n) {                                                                                        \
                memcpy(s + i * BLOCK, all + i * n, (size_t)n * sizeof *s);                                             \
            } else {                                                                                                   \
                for (int j = 0; j < n_valid; j++) s[i * BLOCK + j] = all[i * n + j];                                   \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static inline __attribute__((always_inline)) void score_keys_##dtype(float *s, const float *q, const int n_q,      \
                                                                         const type *k, int64_t k_stride, int64_t n_k, \
                                                                         int64_t d, ahead *next) {                     \
        for (int64_t j = 0; j < n_k; j += PAIRS / n_q)                                                                 \
            score_tile_##dtype(s + j, q, n_q, k + j * k_stride, k_stride, n_k - j, d, next);                           \
    }                                                                                                                  \
    /* Sixteen keys at a time, which stay in the first cache for all queries. */                                       \
    static void scores_##dtype(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *rows, int64_t d) {        \
        const type *k = rows->data;                                                                                    \
        const int64_t stride = rows->stride;                                                                           \
        ahead next = ahead_of(rows);                                                                                   \
        for (int64_t j = 0; j < rows->n; j += 16, s += 16, k += 16 * stride) {                                         \
            const int64_t n = rows->n - j < 16 ? rows->n - j : 16;                                                     \
            int64_t i = 0;                                                                                             \
            for (; sizeof *k < sizeof *q && i + 8 <= n_q; i += 8) /* f32 wants no conversion to share */               \
                score_keys_##dtype(s + i * BLOCK, q + i * d, 8, k, stride, n, d, &next);                               \
            for (; i + 4 <= n_q; i += 4) score_keys_##dtype(s + i * BLOCK, q + i * d, 4, k, stride, n, d, &next);      \
            if (i + 2 <= n_q) {                                                                                        \
                score_keys_##dtype(s + i * BLOCK, q + i * d, 2, k, stride, n, d, &next);                               \
                i += 2;                                                                                                \
            }                                                                                                          \
            if (i < n_q) score_keys_##dtype(s + i * BLOCK, q + i * d, 1, k, stride, n, d, &next);                      \
        }                                                                                                              \
    }

#define DEFINE_VALUES(dtype, type)                                                                                     \
    /* n_q queries and n vectors of d. */                                                                              \
    static inline __attribute__((always_inline)) void value_tile_##dtype(                                              \
        float *o, const float *p, const int n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,      \
        bool add, ahead *next) {                                                                                       \
        const type *v = (const type *)rows->data + c0;                                                                 \
        __m512 sum[16];                                                                                                \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++)                                                                                \
                sum[i * n + c] = add ? _mm512_loadu_ps(o + i * d + c0 + c * 16) : _mm512_setzero_ps();                 \
        for (int64_t j = 0; j < rows->n; j++, v += rows->stride) {                                                     \
            __m512 x[4];                                                                                               \
            ask_for(next, (size_t)n * 16 * sizeof *v);                                                                 \
            for (int i = 0; i < n_q; i++) x[i] = _mm512_set1_ps(p[i * BLOCK + j]);                                     \
            for (int c = 0; c < n; c++) {                                                                              \
                const __m512 y = load16_##dtype(v + c * 16);                                                           \
                for (int i = 0; i < n_q; i++) sum[i * n + c] = _mm512_fmadd_ps(x[i], y, sum[i * n + c]);               \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++) _mm512_storeu_ps(o + i * d + c0 + c * 16, sum[i * n + c]);                     \
    }                                                                                                                  \
    /* Columns c0 … of n vectors, which stay in the first cache for all queries. */                                  \
    static inline __attribute__((always_inline)) void value_columns_##dtype(                                           \
        float *o, const float *p, int64_t n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,        \
        bool add, ahead *next) {                                                                                       \
        int64_t i = 0;                                                                                                 \
        if (n <= 4)                                                                                                    \
            for (; i + 4 <= n_q; i += 4) value_tile_##dtype(o + i * d, p + i * BLOCK, 4, n, rows, c0, d, add, next);   \
        for (; i + 2 <= n_q; i += 2) value_tile_##dtype(o + i * d, p + i * BLOCK, 2, n, rows, c0, d, add, next);       \
        if (i < n_q) value_tile_##dtype(o + i * d, p + i * BLOCK, 1, n, rows, c0, d, add, next);                       \
    }                                                                                                                  \
    static void values_##dtype(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) { \
        int64_t c = 0;                                                                                                 \
        ahead next = ahead_of(v);                                                                                      \
        for (; n_q < 4 && c + 128 <= d; c += 128) value_columns_##dtype(o, p, n_q, 8, v, c, d, add, &next);            \
        for (; c + 64 <= d; c += 64) value_columns_##dtype(o, p, n_q, 4, v, c, d, add, &next);                         \
        for (; c < d; c += 16) value_columns_##dtype(o, p, n_q, 1, v, c, d, add, &next);                               \
    }

#define DEFINE_ATTEND(dtype, type)                                                                                     \
    DEFINE_SCORES(dtype, type)                                                                                         \
    DEFINE_VALUES(dtype, type)

DEFINE_ATTEND(f32, float)
DEFINE_ATTEND(bf16, uint16_t)
DEFINE_ATTEND(f16, uint16_t)
DEFINE_ATTEND(q8, int8_t)

/*
 * n_q queries with a panel of 32 keys, which are the lanes: nothing is left to add within a vector. Each of the sixteen
 * partial sums of a score is formed by itself, those that sum_each() adds first one after the other, so that few wait.
 */
static inline __attribute__((always_inline)) void panel_tile(float *s, const float *q, const int n_q, const float *k,
                                                             int64_t d) {
    __m512 sum[16], waiting[4][16];
    int n_waiting = 0;
    for (int t = 0; t < 16; t++) {
        for (int i = 0; i < 2 * n_q; i++) sum[i] = _mm512_setzero_ps();
        for (int64_t c = nth_partial(t); c < d; c += 16) {
            const __m512 y0 = _mm512_loadu_ps(k + c * PANEL), y1 = _mm512_loadu_ps(k + c * PANEL + 16);
            for (int i = 0; i < n_q; i++) {
                const __m512 x = _mm512_set1_ps(q[i * d + c]);
                sum[2 * i] = _mm512_fmadd_ps(x, y0, sum[2 * i]);
                sum[2 * i + 1] = _mm512_fmadd_ps(x, y1, sum[2 * i + 1]);
            }
        }
        for (int pairs = t; pairs % 2 == 1; pairs /= 2) {
            n_waiting--;
            for (int i = 0; i < 2 * n_q; i++) sum[i] = _mm512_add_ps(waiting[n_waiting][i], sum[i]);
        }
        if (t == 15) break;
        for (int i = 0; i < 2 * n_q; i++) waiting[n_waiting][i] = sum[i];
        n_waiting++;
    }
    for (int i = 0; i < n_q; i++) {
        _mm512_storeu_ps(s + i * BLOCK, sum[2 * i]);
        _mm512_storeu_ps(s + i * BLOCK + 16, sum[2 * i + 1]);
    }
}

static void panels(float *s, const float *q, int64_t n_q, const float *k, int64_t n_k, int64_t d) {
    for (int64_t j = 0; j < n_k; j += PANEL, k += PANEL * d) {
        int64_t i = 0;
        for (; i + 8 <= n_q; i += 8) panel_tile(s + i * BLOCK + j, q + i * d, 8, k, d);
        for (; i + 2 <= n_q; i += 2) panel_tile(s + i * BLOCK + j, q + i * d, 2, k, d);
        if (i < n_q) panel_tile(s + i * BLOCK + j, q + i * d, 1, k, d);
    }
}

static float softmax(float *s, int64_t n, float *max, float *sum) {
    const __m512 before = _mm512_set1_ps(*max);
    __m512 m = before;
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 mask = n - j < 16 ? mask16(n - j) : 0xFFFF;
        m = _mm512_mask_max_ps(m, mask, _mm512_loadu_ps(s + j), m); /* a NaN is passed over */
    }
    const float greatest = _mm512_reduce_max_ps(m);
    m = _mm512_set1_ps(greatest);
    __m512 total = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 mask = n - j < 16 ? mask16(n - j) : 0xFFFF;
        const __m512 e = _mm512_maskz_mov_ps(mask, exp16(_mm512_sub_ps(_mm512_loadu_ps(s + j), m)));
        total = _mm512_add_ps(total, e);
        _mm512_storeu_ps(s + j, e);
    }
    const float factor = _mm512_cvtss_f32(exp16(_mm512_sub_ps(before, m)));
    *max = greatest;
    *sum = *sum * factor + _mm512_reduce_add_ps(total);
    return factor;
}

static void merge(float *o, float a, const float *b, float c, int64_t n) {
    const __m512 x = _mm512_set1_ps(a), y = _mm512_set1_ps(c);
    for (int64_t i = 0; i < n; i += 16) { /* n is padded */
        const __m512 second = _mm512_mul_ps(_mm512_loadu_ps(b + i), y);
        _mm512_storeu_ps(o + i, _mm512_fmadd_ps(_mm512_loadu_ps(o + i), x, second));
    }
}

void qni_cpu_attention_avx512(qni_cpu_kernels *k) {
    k->d_align = 16;
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
