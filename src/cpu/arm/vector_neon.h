/* SPDX-License-Identifier: Apache-2.0 */
/* Four elements at a time, or eight 16- or 8-bit ones as two vectors: converting loads, e^x. Private to the NEON kernel
 * files.
 *
 * Unlike on x86, and helpfully, min and max propagate NaN, and a NaN converts to the integer 0. */
#ifndef QNI_CPU_VECTOR_NEON_H
#define QNI_CPU_VECTOR_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

static inline float32x4x2_t load8_f32(const float *p) {
    return (float32x4x2_t){{vld1q_f32(p), vld1q_f32(p + 4)}};
}
/* A bf16 is the upper half of an f32: interleave with zeros. */
static inline float32x4x2_t load8_bf16(const uint16_t *p) {
    const uint16x8_t h = vld1q_u16(p), zero = vdupq_n_u16(0);
    return (float32x4x2_t){{vreinterpretq_f32_u16(vzip1q_u16(zero, h)), vreinterpretq_f32_u16(vzip2q_u16(zero, h))}};
}
static inline float32x4x2_t load8_f16(const uint16_t *p) {
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p));
    return (float32x4x2_t){{vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)}};
}
static inline float32x4x2_t load8_q8(const int8_t *p) {
    const int16x8_t codes = vmovl_s8(vld1_s8(p));
    return (float32x4x2_t){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes))), vcvtq_f32_s32(vmovl_high_s16(codes))}};
}

/* e^x as in scalar.h, with fused multiply-adds. */
static inline float32x4_t exp4(float32x4_t x) {
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-104.0f)), vdupq_n_f32(89.0f));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0f)); /* x / ln 2 */
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e43p-1f));      /* ln 2, high part */
    r = vfmsq_f32(r, n, vdupq_n_f32(-0x1.05c61p-29f));                /* low part */
    float32x4_t p = vdupq_n_f32(1.0f / 5040);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    const int32x4_t exponent = vcvtq_s32_f32(n), half = vshrq_n_s32(exponent, 1), bias = vdupq_n_s32(127);
    const int32x4_t scale1 = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t scale2 = vshlq_n_s32(vaddq_s32(vsubq_s32(exponent, half), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(scale1)), vreinterpretq_f32_s32(scale2));
}

#endif
