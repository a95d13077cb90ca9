/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer products with the matrix instructions (FEAT_I8MM): two outputs by two rows, eight inputs deep, unsigned by
 * signed codes.
 *
 * Layout    as in quant_neon.h with ki = 8; after each group, a row's four outputs are extracted from two vectors of
 *           sums:
 *
 *               w  | o0 i0 … i7 | o1 i0 … i7 |     x  | r0 i0 … i7 | r1 i0 … i7 |     sum  | o0 r0 | o0 r1 | o1 r0 | o1 r1 |
 *
 * Tile      6 x 16: 3 pairs of rows by 8 pairs of outputs in 24 registers. 1 and 2 rows x 2 panels, 3 … 6 x 1.
 * Tails     as in quant_neon.h; an odd row is paired with itself.
 * Bound     1 … 4 rows: memory; otherwise compute. Six rows and 8 inputs: 24 products of 32 terms for 14 loads (4 bits:
 *           48 for 28 loads and 16 operations; its bytes are read twice, as registers are scarce).
 */
#include "quant_neon.h"

enum { KI = 8, PAIRS = NR / 2 };

/* sum += codes of a group of n panels · codes of m rows, by products of pairs of rows {pairs, n, PAIRS}. */
static inline __attribute__((always_inline)) void add_matrices(int32x4_t *sum, const int8_t *x, int64_t stride,
                                                               const int m, const unsigned char *w, const int n,
                                                               const qni_cpu_quant *q, const int bits) {
    const int n_half = bits == 8 ? 1 : 2, n_pair = (m + 1) / 2;
    int32x4_t product[MR / 2 * PAIRS];
#pragma GCC unroll 24
    for (int i = 0; i < n_pair * n * PAIRS; i++) product[i] = vdupq_n_s32(0);
    for (int64_t k = 0; k < q->group; k += KI * n_half, w += NR * KI) {
#pragma GCC unroll 2
        for (int h = 0; h < n_half; h++, x += KI) {
            int8x16_t rows[MR / 2];
            for (int r = 0; r < n_pair; r++) {
                const int8_t *first = x + 2 * r * stride, *second = 2 * r + 1 < m ? first + stride : first;
                rows[r] = vcombine_s8(vld1_s8(first), vld1_s8(second));
            }
#pragma GCC unroll 16
            for (int i = 0; i < n * PAIRS; i++) {
                uint8x16_t codes = vld1q_u8(w + i / PAIRS * q->panel_bytes + i % PAIRS * 16);
                if (bits == 4) codes = h == 0 ? vandq_u8(codes, vdupq_n_u8(15)) : vshrq_n_u8(codes, 4);
#pragma GCC unroll 3
                for (int r = 0; r < n_pair; r++) {
                    int32x4_t *to = &product[r * n * PAIRS + i];
                    *to = vusmmlaq_s32(*to, codes, rows[r]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
#pragma GCC unroll 8
        for (int i = 0; i < n * VECTORS; i++) {
            const int32x4_t *two = &product[r / 2 * n * PAIRS + 2 * i];
            const int32x4_t four = r % 2 == 0 ? vuzp1q_s32(two[0], two[1]) : vuzp2q_s32(two[0], two[1]);
            sum[r * n * VECTORS + i] = vaddq_s32(sum[r * n * VECTORS + i], four);
        }
    }
}

DEFINE_GEMM(8, 0, add_matrices, 2, 2, 1)
DEFINE_GEMM(4, 0, add_matrices, 2, 2, 1)

void qni_cpu_quant_neoni8mm(qni_cpu_kernels *k) {
    k->int8[QNI_CPU_8_BITS] = (qni_cpu_int8){.ki = KI, .gemm = gemm_8};
    k->int8[QNI_CPU_4_BITS] = (qni_cpu_int8){.ki = KI, .gemm = gemm_4};
}
