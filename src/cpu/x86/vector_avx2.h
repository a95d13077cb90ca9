/* SPDX-License-Identifier: Apache-2.0 */
/* Eight elements at a time: converting loads, sums, e^x. Private to the AVX2 kernel files. */
#ifndef QNI_CPU_VECTOR_AVX2_H
#define QNI_CPU_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static inline __m256 load8_f32(const float *p) {
    return _mm256_loadu_ps(p);
}
/* One shuffle: both lanes load all eight, and each moves its four into the upper halves. */
static inline __m256 load8_bf16(const uint16_t *p) {
    const __m256i upper = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, /* low lane */
                                           -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(both, upper));
}
static inline __m256 load8_q8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
static inline __m256 load8_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Mask of the lanes below n (1 … 7), for loads and stores. */
static inline __m256i mask8(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline float sum8(__m256 v) {
    __m128 pair = _mm_hadd_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    pair = _mm_hadd_ps(pair, pair);
    return _mm_cvtss_f32(_mm_hadd_ps(pair, pair));
}

/* The lower halves of a and b, and the upper ones. */
static inline __m256 lower8(__m256 a, __m256 b) {
    return _mm256_insertf128_ps(a, _mm256_castps256_ps128(b), 1);
}
static inline __m256 upper8(__m256 a, __m256 b) {
    return _mm256_blend_ps(_mm256_castps128_ps256(_mm256_extractf128_ps(a, 1)), b, 0xF0);
}

/* Lane i of the result: ((v0+v2)+(v1+v3)) + ((v4+v6)+(v5+v7)) of vector i. */
static inline __m256 sum_each(const __m256 v[8]) {
    __m256 pair[4], four[2];
    for (int i = 0; i < 4; i++) {
        pair[i] = _mm256_add_ps(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        const __m256d a = _mm256_castps_pd(pair[2 * i]), b = _mm256_castps_pd(pair[2 * i + 1]);
        four[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return _mm256_add_ps(lower8(four[0], four[1]), upper8(four[0], four[1]));
}

/* x[i] = e^x[i] as in scalar.h, with fused multiply-adds, for n vectors, n a constant. One vector is a dependency chain
 * of twenty operations, and a core starts a second chain only after most of the first: so they are interleaved. */
static inline __attribute__((always_inline)) void exp_each(__m256 *x, const int n) {
    static const float factor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    const __m256 log2_e = _mm256_set1_ps(0x1.715476p+0f);
    const __m256 ln2_high = _mm256_set1_ps(0x1.62e43p-1f), ln2_low = _mm256_set1_ps(-0x1.05c61p-29f);
    const __m256i bias = _mm256_set1_epi32(127);
    __m256 r[4], whole[4], p[4];
    for (int i = 0; i < n; i++) {
        /* max returns its second operand if either is NaN. */
        x[i] = _mm256_max_ps(_mm256_set1_ps(-104.0f), x[i]);
        x[i] = _mm256_min_ps(_mm256_set1_ps(89.0f), x[i]);
        whole[i] = _mm256_round_ps(_mm256_mul_ps(x[i], log2_e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    for (int i = 0; i < n; i++) r[i] = _mm256_fnmadd_ps(whole[i], ln2_high, x[i]);
    for (int i = 0; i < n; i++) r[i] = _mm256_fnmadd_ps(whole[i], ln2_low, r[i]);
    for (int i = 0; i < n; i++) p[i] = _mm256_set1_ps(1.0f / 5040);
    for (size_t j = 0; j < sizeof factor / sizeof *factor; j++)
        for (int i = 0; i < n; i++) p[i] = _mm256_fmadd_ps(p[i], r[i], _mm256_set1_ps(factor[j]));
    for (int i = 0; i < n; i++) {
        const __m256i exponent = _mm256_cvtps_epi32(whole[i]), half = _mm256_srai_epi32(exponent, 1);
        const __m256i scale1 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
        const __m256i scale2 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(exponent, half), bias), 23);
        x[i] = _mm256_mul_ps(_mm256_mul_ps(p[i], _mm256_castsi256_ps(scale1)), _mm256_castsi256_ps(scale2));
    }
}

static inline __m256 exp8(__m256 x) {
    exp_each(&x, 1);
    return x;
}

#endif
