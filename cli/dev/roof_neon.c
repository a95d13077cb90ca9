/* SPDX-License-Identifier: Apache-2.0 */
/* Peak loops for NEON: fmla; bfdot and bfmmla; sdot and smmla. Twenty-four chains hide the latency of four units with
 * up to six cycles. The optional instructions are written in assembly: they are selected at run time, and so need no
 * compiler flags. */
#include "roof.h"

#include <arm_neon.h>
#include <sys/auxv.h>

enum { CHAINS = 24 };

/* Feature bits of AT_HWCAP and AT_HWCAP2 (Linux, Documentation/arm64/elf_hwcaps.rst). */
static bool has_dotprod(void) {
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0;
}
static bool has_i8mm(void) {
    return (getauxval(AT_HWCAP2) >> 13 & 1) != 0;
}
static bool has_bf16(void) {
    return (getauxval(AT_HWCAP2) >> 14 & 1) != 0;
}

static double multiply_f32(int64_t rounds) {
    const float32x4_t x = vdupq_n_f32(1e-3f), y = vdupq_n_f32(1e-3f);
    float32x4_t sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) sum[c] = vdupq_n_f32((float)c);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++) sum[c] = vfmaq_f32(sum[c], x, y);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = vaddq_f32(sum[0], sum[c]);
    return (double)vgetq_lane_f32(sum[0], 0);
}

/* A loop over one instruction with two 128-bit operands whose bit patterns are `bits_x` and `bits_y`. */
#define LOOP(name, type, zero, first, instruction, bits_x, bits_y)                                                     \
    static double name(int64_t rounds) {                                                                               \
        const uint32x4_t x = vdupq_n_u32(bits_x), y = vdupq_n_u32(bits_y);                                             \
        type sum[CHAINS];                                                                                              \
        for (int c = 0; c < CHAINS; c++) sum[c] = zero(0);                                                             \
        for (int64_t i = 0; i < rounds; i++) {                                                                         \
            _Pragma("GCC unroll 24") for (int c = 0; c < CHAINS; c++) {                                                \
                __asm__(".arch armv8.6-a\n\t" instruction : "+w"(sum[c]) : "w"(x), "w"(y));                            \
            }                                                                                                          \
        }                                                                                                              \
        double all = 0;                                                                                                \
        for (int c = 0; c < CHAINS; c++) all += (double)first(sum[c], 0);                                              \
        return all;                                                                                                    \
    }

/* bf16 pairs of 0.25 and -0.25 times 0.5, so that sums stay small; s8 5 times -3. */
LOOP(dot_bf16, float32x4_t, vdupq_n_f32, vgetq_lane_f32, "bfdot %0.4s, %1.8h, %2.8h", 0xBE803E80, 0x3F003F00)
LOOP(matrix_bf16, float32x4_t, vdupq_n_f32, vgetq_lane_f32, "bfmmla %0.4s, %1.8h, %2.8h", 0xBE803E80, 0x3F003F00)
LOOP(dot_int8, int32x4_t, vdupq_n_s32, vgetq_lane_s32, "sdot %0.4s, %1.16b, %2.16b", 0x05050505, 0xFDFDFDFD)
LOOP(matrix_int8, int32x4_t, vdupq_n_s32, vgetq_lane_s32, "smmla %0.4s, %1.16b, %2.16b", 0x05050505, 0xFDFDFDFD)

const roof_loop roof_loops_neon[N_ROOF_NEON] = {
    {"neon", ROOF_F32, 2.0 * CHAINS * 4, multiply_f32, NULL},
    {"neon", ROOF_BF16, 2.0 * CHAINS * 8, dot_bf16, has_bf16},
    {"neon", ROOF_BF16, 2.0 * CHAINS * 16, matrix_bf16, has_bf16},
    {"neon", ROOF_INT8, 2.0 * CHAINS * 16, dot_int8, has_dotprod},
    {"neon", ROOF_INT8, 2.0 * CHAINS * 32, matrix_int8, has_i8mm},
};
