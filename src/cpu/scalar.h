/* SPDX-License-Identifier: Apache-2.0 */
/* Scalar math shared by the portable kernels; branch-free, so that loops over it vectorize. */
#ifndef QNI_CPU_SCALAR_H
#define QNI_CPU_SCALAR_H

#include "../base/half.h"
#include "kernels.h"

/*
 * e^x = 2^n · e^r with n = round(x / ln 2), |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder 5e-9).
 * 2^n is applied as two factors, so that extremes overflow to infinity and underflow to 0 naturally.
 */
static inline float qni_scalar_exp(float x) {
    const float log2_e = 0x1.715476p+0f;
    const float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f; /* high: 15 bits, n · high is exact */
    const float to_integer = 0x1.8p23f;                             /* adding it rounds to an integer */
    float clamped = x < -104.0f ? -104.0f : x;                      /* a NaN passes both comparisons */
    clamped = clamped > 89.0f ? 89.0f : clamped;
    float n = (clamped * log2_e + to_integer) - to_integer;
    float r = (clamped - n * ln2_high) - n * ln2_low;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t exponent = (int32_t)(n == n ? n : 0.0f);
    int32_t half = exponent >> 1;
    float scale1 = qni_float_of_bits((uint32_t)(half + 127) << 23);
    float scale2 = qni_float_of_bits((uint32_t)(exponent - half + 127) << 23);
    return p * scale1 * scale2;
}

static inline float qni_scalar_silu(float x) {
    return x / (1.0f + qni_scalar_exp(-x));
}

static inline float qni_scalar_load_f32(const void *data, int64_t i) {
    return ((const float *)data)[i];
}
static inline float qni_scalar_load_bf16(const void *data, int64_t i) {
    return qni_f32_of_bf16(((const uint16_t *)data)[i]);
}
static inline float qni_scalar_load_q8(const void *data, int64_t i) {
    return (float)((const int8_t *)data)[i];
}
static inline float qni_scalar_load_f16(const void *data, int64_t i) {
    return qni_f32_of_f16(((const uint16_t *)data)[i]);
}

#endif
