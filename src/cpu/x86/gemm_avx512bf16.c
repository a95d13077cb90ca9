/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products of bf16 pairs with the AVX-512 BF16 dot product instruction.
 *
 * Layout, tile and tails: see gemm_avx512.h. The instruction adds the second product of a pair first, then the first,
 * each fused and rounded to nearest even; subnormals are treated as zeros.
 *
 * Bound     1 … 6 rows: memory; from 7 rows on: compute. With 12 rows, 24 dot products of 45 instructions per step.
 */
#include "../kernels.h"
#include "gemm_avx512.h"

typedef __m512bh vector_pairs;

static inline __m512bh pairs_of(__m512i bits) {
    __m512bh pairs;
    memcpy(&pairs, &bits, sizeof pairs);
    return pairs;
}
static inline __m512bh load_pairs(const uint16_t *w, const int half) {
    return pairs_of(_mm512_loadu_si512(w + half * 32));
}
static inline __m512bh spread_pairs(const uint16_t *a) {
    return pairs_of(spread16(a));
}
#define add_pairs _mm512_dpbf16_ps

DEFINE_GEMM(pairs, uint16_t, uint16_t, uint16_t, 2)

void qni_cpu_gemm_avx512bf16(qni_cpu_kernels *k) {
    k->gemm_pairs = gemm_pairs;
    k->native_bf16 = true;
}
