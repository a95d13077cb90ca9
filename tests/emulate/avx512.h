/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512 made of AVX2 with SIMDe (https://github.com/simd-everywhere/simde), and in here what its version 0.7.4 lacks or
 * rounds otherwise than the processor does. CONFIG=simde includes it ahead of the kernel files of that level, so that
 * their arithmetic can be tested on any x86-64; it is no part of other builds.
 */
#ifndef QNI_TEST_EMULATE_AVX512_H
#define QNI_TEST_EMULATE_AVX512_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The lanes of a vector, in memory. */
typedef union emulated {
    __m512 f;
    __m512i i;
    __m512d d;
    __m512bh pairs;
    __m256 f256[2];
    __m256d d256[2];
    __m256i i256[2];
    __m128i i128[4];
    float f32[16];
    int32_t i32[16];
    uint32_t u32[16];
    uint16_t u16[32];
} emulated;

/* --- masked memory: lanes that are left out are neither read nor written --- */

static inline __m512 emulated_maskz_loadu_ps(__mmask16 mask, const void *p) {
    emulated v = {.u32 = {0}};
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) memcpy(&v.f32[i], (const float *)p + i, sizeof(float));
    }
    return v.f;
}
static inline void emulated_mask_storeu_ps(void *p, __mmask16 mask, __m512 a) {
    const emulated v = {.f = a};
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) memcpy((float *)p + i, &v.f32[i], sizeof(float));
    }
}
static inline __m256i emulated_maskz_loadu_epi16(__mmask16 mask, const void *p) {
    emulated v = {.u32 = {0}};
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) memcpy(&v.u16[i], (const uint16_t *)p + i, sizeof(uint16_t));
    }
    return v.i256[0];
}
static inline void emulated_mask_storeu_epi16(void *p, __mmask16 mask, __m256i a) {
    const emulated v = {.i256 = {a}};
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) memcpy((uint16_t *)p + i, &v.u16[i], sizeof(uint16_t));
    }
}

/* --- conversions, by halves or lane by lane --- */

static inline __m512 emulated_cvtph_ps(__m256i a) {
    const emulated v = {
        .f256 = {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))}};
    return v.f;
}
#define emulated_cvtps_ph(a, rounding)                                                                                 \
    _mm256_set_m128i(_mm256_cvtps_ph(((emulated){.f = (a)}).f256[1], (rounding)&7),                                    \
                     _mm256_cvtps_ph(((emulated){.f = (a)}).f256[0], (rounding)&7))
static inline __m512i emulated_cvtepu16_epi32(__m256i a) {
    const emulated v = {.i256 = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                                 _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))}};
    return v.i;
}
static inline __m512i emulated_cvtepu8_epi32(__m128i a) {
    const emulated v = {.i256 = {_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))}};
    return v.i;
}
static inline __m512i emulated_cvtepi8_epi32(__m128i a) {
    const emulated v = {.i256 = {_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8))}};
    return v.i;
}
static inline float emulated_cvtss_f32(__m512 a) {
    return ((emulated){.f = a}).f32[0];
}
static inline __m256i emulated_cvtepi32_epi16(__m512i a) {
    const emulated v = {.i = a};
    emulated out = {.u32 = {0}};
    for (int i = 0; i < 16; i++) out.u16[i] = (uint16_t)v.u32[i];
    return out.i256[0];
}
static inline __m128i emulated_cvtepi32_epi8(__m512i a) {
    const emulated v = {.i = a};
    uint8_t out[16];
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)v.u32[i];
    return _mm_loadu_si128((const __m128i *)(const void *)out);
}
static inline __m512i emulated_cvtps_epi32(__m512 a) {
    const emulated v = {.f = a};
    const emulated out = {.i256 = {_mm256_cvtps_epi32(v.f256[0]), _mm256_cvtps_epi32(v.f256[1])}};
    return out.i;
}
static inline __m512 emulated_cvtepi32_ps(__m512i a) {
    const emulated v = {.i = a};
    const emulated out = {.f256 = {_mm256_cvtepi32_ps(v.i256[0]), _mm256_cvtepi32_ps(v.i256[1])}};
    return out.f;
}
static inline __m512d emulated_cvtps_pd(__m256 a) {
    const emulated v = {
        .d256 = {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))}};
    return v.d;
}

/* --- lanes together --- */

static inline __mmask16 emulated_cmplt_epi32_mask(__m512i a, __m512i b) {
    const emulated x = {.i = a}, y = {.i = b};
    uint32_t mask = 0;
    for (int i = 0; i < 16; i++) mask |= (uint32_t)(x.i32[i] < y.i32[i]) << i;
    return (__mmask16)mask;
}
static inline uint32_t emulated_reduce_max_epu32(__m512i a) {
    const emulated v = {.i = a};
    uint32_t max = 0;
    for (int i = 0; i < 16; i++) max = v.u32[i] > max ? v.u32[i] : max;
    return max;
}
static inline float emulated_reduce_max_ps(__m512 a) {
    const emulated v = {.f = a};
    float max = v.f32[0];
    for (int i = 1; i < 16; i++) max = v.f32[i] > max ? v.f32[i] : max;
    return max;
}
/* In the order of the compiler's: halves onto each other. */
static inline float emulated_reduce_add_ps(__m512 a) {
    emulated v = {.f = a};
    for (int n = 8; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) v.f32[i] += v.f32[i + n];
    }
    return v.f32[0];
}
static inline int32_t emulated_reduce_add_epi32(__m512i a) {
    const emulated v = {.i = a};
    uint32_t sum = 0;
    for (int i = 0; i < 16; i++) sum += v.u32[i];
    return (int32_t)sum;
}

/* --- arithmetic --- */

/* a · 2^floor(b), rounded once. */
static inline __m512 emulated_scalef_ps(__m512 a, __m512 b) {
    const emulated x = {.f = a}, y = {.f = b};
    emulated out;
    for (int i = 0; i < 16; i++) {
        const float n = fminf(fmaxf(floorf(y.f32[i]), -1000), 1000);
        out.f32[i] = isnan(y.f32[i]) ? y.f32[i] : scalbnf(x.f32[i], (int)n);
    }
    return out.f;
}

static inline float emulated_flush(float x) {
    return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}
static inline float emulated_f32_of_bf16(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return emulated_flush(x);
}
/* The odd products first, then the even ones, each by a fused multiply-add to nearest even; subnormals are zeros. */
static inline __m512 emulated_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    const emulated x = {.pairs = a}, y = {.pairs = b};
    emulated out = {.f = sum};
    for (int i = 0; i < 16; i++) {
        for (int j = 1; j >= 0; j--) {
            out.f32[i] = emulated_flush(fmaf(emulated_f32_of_bf16(x.u16[2 * i + j]),
                                             emulated_f32_of_bf16(y.u16[2 * i + j]), emulated_flush(out.f32[i])));
        }
    }
    return out.f;
}

#undef _mm512_scalef_ps
#undef _mm512_dpbf16_ps
#define _mm512_maskz_loadu_ps    emulated_maskz_loadu_ps
#define _mm512_mask_storeu_ps    emulated_mask_storeu_ps
#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu_epi16
#define _mm256_mask_storeu_epi16 emulated_mask_storeu_epi16
#define _mm512_cvtph_ps          emulated_cvtph_ps
#define _mm512_cvtps_ph          emulated_cvtps_ph
#define _mm512_cvtepu16_epi32    emulated_cvtepu16_epi32
#define _mm512_cvtepu8_epi32     emulated_cvtepu8_epi32
#define _mm512_cvtepi32_epi16    emulated_cvtepi32_epi16
#define _mm512_cvtepi32_epi8     emulated_cvtepi32_epi8
#define _mm512_cvtps_epi32       emulated_cvtps_epi32
#define _mm512_cvtepi32_ps       emulated_cvtepi32_ps
#define _mm512_cvtps_pd          emulated_cvtps_pd
#define _mm512_cmplt_epi32_mask  emulated_cmplt_epi32_mask
#define _mm512_reduce_max_epu32  emulated_reduce_max_epu32
#define _mm512_cvtepi8_epi32     emulated_cvtepi8_epi32
#define _mm512_shuffle_f32x4     simde_mm512_shuffle_f32x4
#define _mm512_reduce_max_ps     emulated_reduce_max_ps
#define _mm512_reduce_add_ps     emulated_reduce_add_ps
#define _mm512_cvtss_f32         emulated_cvtss_f32
#define _mm512_reduce_add_epi32  emulated_reduce_add_epi32
#define _mm512_scalef_ps         emulated_scalef_ps
#define _mm512_dpbf16_ps         emulated_dpbf16_ps

#endif
