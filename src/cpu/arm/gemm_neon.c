/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products with NEON, f32 arithmetic.
 *
 * Layout, tile and tails: see gemm_neon.h.
 *
 * Bound     1 … 3 rows of bf16 or f16: memory; from 4 rows on: compute. One step of a full tile is 24 FMA for 6 loads,
 *           or for 4 loads and 4 conversions.
 */
#include "gemm_neon.h"

typedef float32x4x4_t vectors_f32, vectors_bf16, vectors_f16;

#define DEFINE_LOAD(name, type)                                                                                        \
    static inline float32x4x4_t load_##name(const type *w) {                                                           \
        const float32x4x2_t low = load8_##name(w), high = load8_##name(w + 8);                                         \
        return (float32x4x4_t){{low.val[0], low.val[1], high.val[0], high.val[1]}};                                    \
    }

DEFINE_LOAD(f32, float)
DEFINE_LOAD(bf16, uint16_t)
DEFINE_LOAD(f16, uint16_t)

#define add_f32  vfmaq_laneq_f32
#define add_bf16 vfmaq_laneq_f32
#define add_f16  vfmaq_laneq_f32

DEFINE_GEMM(f32, float, void, float, 1)
DEFINE_GEMM(bf16, float, void, uint16_t, 1)
DEFINE_GEMM(f16, float, void, uint16_t, 1)

void qni_cpu_gemm_neon(qni_cpu_kernels *k) {
    k->nr = NR;
    k->mr = MR;
    k->kc = KC;
    k->n_stream = 4;
    k->stream_rows = MR;
    k->gemm[QNI_CPU_F32] = gemm_f32;
    k->gemm[QNI_CPU_BF16] = gemm_bf16;
    k->gemm[QNI_CPU_F16] = gemm_f16;
}
