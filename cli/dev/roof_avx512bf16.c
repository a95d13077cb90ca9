/* SPDX-License-Identifier: Apache-2.0 */
/* Peak loops for AVX-512 with its BF16 and VNNI extensions. Sixteen chains hide the latency of two units with up to
 * eight cycles. */
#include "roof.h"

#include <immintrin.h>
#include <string.h>

enum { CHAINS = 16 };

/* Integer accumulators, in the type of the compiler's dot product builtin: with __m512i, GCC copies each accumulator
 * twice per step. */
typedef int32_t int32x16 __attribute__((vector_size(64)));

/* Broadcast a pair of bf16 to all lanes. */
static __m512bh spread_pair(uint32_t bits) {
    const __m512i all = _mm512_set1_epi32((int32_t)bits);
    __m512bh pairs;
    memcpy(&pairs, &all, sizeof pairs);
    return pairs;
}

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

/* vdpbf16ps: 32 products, added in pairs to 16 sums. Opposite signs keep the sums small. */
static double multiply_bf16(int64_t rounds) {
    const __m512bh x = spread_pair(0xBE803E80u), y = spread_pair(0x3F003F00u); /* 0.25 and -0.25, 0.5 twice */
    __m512 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    return (double)_mm512_cvtss_f32(sum[0]);
}

/* vpdpbusd: 64 products of u8 and s8, added in groups of four to 16 sums. */
static double multiply_int8(int64_t rounds) {
    const __m512i x = _mm512_set1_epi8(5), y = _mm512_set1_epi8(-3);
    int32x16 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = (int32x16)_mm512_set1_epi32(c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sum[c] = (int32x16)_mm512_dpbusd_epi32((__m512i)sum[c], x, y);
    }
    int64_t total = 0;
    for (int c = 0; c < CHAINS; c++) total += sum[c][0];
    return (double)total;
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
