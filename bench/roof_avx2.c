/* SPDX-License-Identifier: Apache-2.0 */
/* Multiply-add roof of AVX2: 12 chains cover 2 units of 4 to 5 cycles. */
#include "roof.h"

#include <immintrin.h>

float roof_multiply_avx2(int64_t rounds) {
    enum { CHAINS = 12 };
    __m256 sum[CHAINS];
    __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_ps((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_fmadd_ps(x, sum[c], y);
    }
    __m256 all = sum[0];
    for (int c = 1; c < CHAINS; c++) all = _mm256_add_ps(all, sum[c]);
    float lane[8];
    _mm256_storeu_ps(lane, all);
    return lane[0] + lane[7];
}
