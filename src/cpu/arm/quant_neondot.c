/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer products with the dot product instructions (FEAT_DotProd).
 *
 * Layout, tile and tails: see quant_neon.h, with ki = 4; 1 row x 4 panels, 2 and 3 rows x 2, 4 … 6 x 1.
 *
 * Bound     1 … 3 rows: memory; otherwise compute. Six rows and 16 inputs: 96 dot products for 22 loads and 16
 *           operations on 8-bit codes, or 14 loads and 16 operations on 4-bit codes; 4 float operations per sum and
 *           group.
 */
#include "quant_neon.h"

#define DOT vdotq_laneq_s32

DEFINE_ADD_DOTS(DOT)
DEFINE_GEMM(8, 128, add_dots, 4, 2, 2)
DEFINE_GEMM(4, 0, add_dots, 4, 2, 2)

void qni_cpu_quant_neondot(qni_cpu_kernels *k) {
    k->int8[QNI_CPU_8_BITS] = (qni_cpu_int8){.ki = 4, .gemm = gemm_8};
    k->int8[QNI_CPU_4_BITS] = (qni_cpu_int8){.ki = 4, .gemm = gemm_4};
}
