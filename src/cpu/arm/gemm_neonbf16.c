/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products of bf16 pairs with the FEAT_BF16 dot product instruction.
 *
 * Layout, tile and tails: see gemm_neon.h. The instruction adds the two products of a pair, then adds that to the sum,
 * each rounded to odd; subnormals are treated as zeros. The matrix instruction does twice as much but is not used:
 * bitwise agreement of one row and many would depend on two instructions rounding alike.
 *
 * Bound     1 … 3 rows: memory; from 4 rows on: compute. With 6 rows, 24 dot products for 6 loads per step.
 */
#include "gemm_neon.h"

typedef struct vectors_pairs {
    bfloat16x8_t val[VECTORS];
} vectors_pairs;

static inline vectors_pairs load_pairs(const uint16_t *w) {
    vectors_pairs pairs;
    for (int v = 0; v < VECTORS; v++) pairs.val[v] = vreinterpretq_bf16_u16(vld1q_u16(w + v * 8));
    return pairs;
}

#define add_pairs(sum, w, a, lane) vbfdotq_laneq_f32(sum, w, vreinterpretq_bf16_f32(a), lane)

DEFINE_GEMM(pairs, uint16_t, uint16_t, uint16_t, 2)

void qni_cpu_gemm_neonbf16(qni_cpu_kernels *k) {
    k->gemm_pairs = gemm_pairs;
    k->native_bf16 = true;
}
