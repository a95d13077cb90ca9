/* SPDX-License-Identifier: Apache-2.0 */
/* Roofs of AVX-512 with its BF16 and VNNI extensions. Sixteen chains cover two units of up to eight cycles. */
#include "roof.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static double multiply_f32(int64_t rounds) {
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    __m512 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_fmadd_ps(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    return (double)_mm512_cvtss_f32(sum[0]);
}

/* vdpbf16ps: 32 products, added in pairs to 16 sums. Both signs keep the sums small. The level does not promise the
 * instruction, so that the function asks for it by itself. */
__attribute__((target("avx512bf16"))) static double multiply_bf16(int64_t rounds) {
    const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.25f), _mm512_set1_ps(-0.25f));
    const __m512bh y = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
    __m512 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    return (double)_mm512_cvtss_f32(sum[0]);
}

/* vpdpbusd: 64 products of u8 and s8, added in fours to 16 sums. */
static double multiply_int8(int64_t rounds) {
    const __m512i x = _mm512_set1_epi8(5), y = _mm512_set1_epi8(-3);
    __m512i sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_epi32(c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbusd_epi32(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_epi32(sum[0], sum[c]);
    return (double)_mm_cvtsi128_si32(_mm512_castsi512_si128(sum[0]));
}

static bool has_bf16(void) {
    return __builtin_cpu_supports("avx512bf16") != 0;
}
static bool has_vnni(void) {
    return __builtin_cpu_supports("avx512vnni") != 0;
}

const roof_loop roof_loops_avx512[N_ROOF_AVX512] = {
    {"avx512", ROOF_F32, 2.0 * CHAINS * 16, multiply_f32, NULL},
    {"avx512", ROOF_BF16, 2.0 * CHAINS * 32, multiply_bf16, has_bf16},
    {"avx512", ROOF_INT8, 2.0 * CHAINS * 64, multiply_int8, has_vnni},
};
