/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with AVX-512.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 128} f32; k, v rows of d elements at a stride, or k panels {d, 32} of keys.
 * Tile      as in attention_tiles.h. Scores: 16 at once, queries x keys 8 x 2 (if keys are converted on load), 4 x 4, 2
 *           x 8 or 1 x 16, each with 16 partial sums; from panels, queries x vectors of keys 8 x 2, one partial sum
 *           after another. Values: queries x vectors of d 4 x 4, 2 x 8, 1 x 16.
 * Bound     compute for a converted block, memory when few queries read the cache in place.
 */
#include "../kernels.h"
#include "vector_avx512.h"

enum { WIDE = 16, SUMS = 16, KEYS = 16, QUERIES = 8, VALUE_SUMS = 16 };
typedef __m512 wide, vec, spread;

static inline __m512 load16_q8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* Lane i of the result is the sum of vector i: within each quarter (l0+l2) + (l1+l3), then (q0+q1) + (q2+q3). */
static inline __m512 sum_each(const __m512 v[SUMS]) {
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

static inline wide load(const int dtype, const void *row, int64_t i) {
    switch (dtype) {
    case QNI_CPU_F32:
        return load16_f32((const float *)row + i);
    case QNI_CPU_BF16:
        return load16_bf16((const uint16_t *)row + i);
    case QNI_CPU_F16:
        return load16_f16((const uint16_t *)row + i);
    default:
        return load16_q8((const int8_t *)row + i);
    }
}
static inline wide load_query(const float *q) {
    return _mm512_loadu_ps(q);
}
static inline vec zero(void) {
    return _mm512_setzero_ps();
}
static inline vec add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec add_products(vec sum, wide x, wide y) {
    return _mm512_fmadd_ps(x, y, sum);
}
static inline void add_up(float *out, const vec *sum, int n) {
    (void)n; /* always 16 */
    _mm512_storeu_ps(out, sum_each(sum));
}
static inline wide zeros(void) {
    return _mm512_setzero_ps();
}
static inline wide load_sum(const float *o) {
    return _mm512_loadu_ps(o);
}
static inline void store_sum(float *o, wide sum) {
    _mm512_storeu_ps(o, sum);
}
static inline spread spread_of(const float *p) {
    return _mm512_set1_ps(*p);
}
static inline wide add_weighted(wide sum, spread p, wide y) {
    return _mm512_fmadd_ps(p, y, sum);
}

#include "../attention_tiles.h"

#include "attention_panels.h"

DEFINE_ATTEND(f32, QNI_CPU_F32)
DEFINE_ATTEND(bf16, QNI_CPU_BF16)
DEFINE_ATTEND(f16, QNI_CPU_F16)
DEFINE_ATTEND(q8, QNI_CPU_Q8)

static float softmax(float *s, int64_t n, float *max, float *sum) {
    const __m512 before = _mm512_set1_ps(*max);
    __m512 m = before;
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 mask = n - j < 16 ? mask16(n - j) : 0xFFFF;
        m = _mm512_mask_max_ps(m, mask, _mm512_loadu_ps(s + j), m); /* ignores NaNs */
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

static void reduce(float *o, float a, const float *b, float c, int64_t n) {
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
    k->attend_reduce = reduce;
}
