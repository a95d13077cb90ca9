/* SPDX-License-Identifier: Apache-2.0 */
/* Peak loops for AVX2. Twelve chains hide the latency of two units with four to five cycles; with the operands, the
 * sixteen registers hold no more. */
#include "roof.h"

#include <immintrin.h>

enum { CHAINS = 12 };

static double multiply_f32(int64_t rounds) {
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    __m256 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_ps((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_fmadd_ps(sum[c], x, y);
    }
    float lane[8];
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm256_add_ps(sum[0], sum[c]);
    _mm256_storeu_ps(lane, sum[0]);
    return (double)lane[0] + (double)lane[7];
}

/* u8 times s8, summed in pairs to s16, then to s32, and accumulated: three instructions for 32 products. */
static double multiply_int8(int64_t rounds) {
    const __m256i ones = _mm256_set1_epi16(1), y = _mm256_set1_epi8(-3);
    __m256i x = _mm256_set1_epi8(5), sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_epi32(c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            __asm__("" : "+x"(x)); /* keeps the constant product from being hoisted out of the loop */
            __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones);
            sum[c] = _mm256_add_epi32(sum[c], pairs);
        }
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm256_add_epi32(sum[0], sum[c]);
    return (double)_mm256_extract_epi32(sum[0], 0) + (double)_mm256_extract_epi32(sum[0], 7);
}

const roof_loop roof_loops_avx2[N_ROOF_AVX2] = {
    {"avx2", ROOF_F32, 2.0 * CHAINS * 8, multiply_f32, NULL},
    {"avx2", ROOF_INT8, 2.0 * CHAINS * 32, multiply_int8, NULL},
};
