/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen elements at a time: converting loads, masks, e^x. Private to the AVX-512 kernel files. */
#ifndef QNI_CPU_VECTOR_AVX512_H
#define QNI_CPU_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static inline __m512 widen16_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline __m512 load16_f32(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline __m512 load16_bf16(const uint16_t *p) {
    return widen16_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline __m512 load16_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Broadcast one possibly unaligned 32-bit value to all lanes. */
static inline __m512i spread16(const void *p) {
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
}

/* Mask of the lanes below n (1 … 15), for loads and stores. */
static inline __mmask16 mask16(int64_t n) {
    return (__mmask16)((1u << n) - 1);
}

/* e^x as in scalar.h, with fused multiply-adds; 2^n by an instruction that rounds once at the extremes. */
static inline __m512 exp16(__m512 x) {
    const __m512 log2_e = _mm512_set1_ps(0x1.715476p+0f);
    const __m512 ln2_high = _mm512_set1_ps(0x1.62e43p-1f), ln2_low = _mm512_set1_ps(-0x1.05c61p-29f);
    /* max returns its second operand if either is NaN. */
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2_e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, ln2_high, x);
    r = _mm512_fnmadd_ps(n, ln2_low, r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

#endif
