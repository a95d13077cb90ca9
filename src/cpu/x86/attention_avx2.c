/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with AVX2.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 128} f32; k, v rows of d elements at a stride, or k panels {d, 16} of keys.
 * Tile      as in attention_tiles.h. Scores: 8 at once, queries x keys 4 x 2, 2 x 4 or 1 x 8, each with 8 partial sums;
 *           from panels, queries x vectors of keys 4 x 2, one partial sum after another. Values: queries x vectors of d
 *           4 x 2, 2 x 4, 1 x 8.
 * Bound     compute for a converted block, memory when few queries read the cache in place.
 */
#include "../kernels.h"
#include "vector_avx2.h"

enum { WIDE = 8, SUMS = 8, KEYS = 8, QUERIES = 4, VALUE_SUMS = 8 };
typedef __m256 wide, vec, spread;

static inline wide load(const int dtype, const void *row, int64_t i) {
    switch (dtype) {
    case QNI_CPU_F32:
        return load8_f32((const float *)row + i);
    case QNI_CPU_BF16:
        return load8_bf16((const uint16_t *)row + i);
    case QNI_CPU_F16:
        return load8_f16((const uint16_t *)row + i);
    default:
        return load8_q8((const int8_t *)row + i);
    }
}
/* Keep it in a register: the compiler would reload it for each use. */
static inline wide load_query(const float *q) {
    __m256 v = _mm256_loadu_ps(q);
    __asm__("" : "+x"(v));
    return v;
}
static inline vec zero(void) {
    return _mm256_setzero_ps();
}
static inline vec add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
static inline vec add_products(vec sum, wide x, wide y) {
    return _mm256_fmadd_ps(x, y, sum);
}
static inline void add_up(float *out, const vec *sum, int n) {
    (void)n; /* always 8 */
    _mm256_storeu_ps(out, sum_each(sum));
}
static inline wide zeros(void) {
    return _mm256_setzero_ps();
}
static inline wide load_sum(const float *o) {
    return _mm256_loadu_ps(o);
}
static inline void store_sum(float *o, wide sum) {
    _mm256_storeu_ps(o, sum);
}
static inline spread spread_of(const float *p) {
    return _mm256_broadcast_ss(p);
}
static inline wide add_weighted(wide sum, spread p, wide y) {
    return _mm256_fmadd_ps(p, y, sum);
}

#include "../attention_tiles.h"

#include "attention_panels.h"

DEFINE_ATTEND(f32, QNI_CPU_F32)
DEFINE_ATTEND(bf16, QNI_CPU_BF16)
DEFINE_ATTEND(f16, QNI_CPU_F16)
DEFINE_ATTEND(q8, QNI_CPU_Q8)

static float softmax(float *s, int64_t n, float *max, float *sum) {
    const __m256 low = _mm256_set1_ps(*max);
    __m256 m = low;
    for (int64_t j = 0; j < n; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (n - j < 8) v = _mm256_blendv_ps(low, v, _mm256_castsi256_ps(mask8(n - j)));
        m = _mm256_max_ps(v, m); /* ignores NaNs */
    }
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    m4 = _mm_max_ss(m4, _mm_movehdup_ps(m4));
    m = _mm256_broadcastss_ps(m4);
    __m256 total = _mm256_setzero_ps();
    __m256 factor = exp8(_mm256_sub_ps(low, m)); /* computed first: a chain as long as the others', which it overlaps */
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

static void reduce(float *o, float a, const float *b, float c, int64_t n) {
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
    k->attend_reduce = reduce;
}
