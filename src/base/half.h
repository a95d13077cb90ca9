/* SPDX-License-Identifier: Apache-2.0 */
/* bf16 and f16 as 16-bit patterns: exact conversion to f32, round-to-nearest-even from f32. e4m3 and affine codes to
 * f32. */
#ifndef QNI_HALF_H
#define QNI_HALF_H

#include <stdint.h>
#include <string.h>

static inline float qni_float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t qni_bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float qni_f32_of_bf16(uint16_t h) {
    return qni_float_of_bits((uint32_t)h << 16);
}

static inline uint16_t qni_bf16_of_f32(float f) {
    uint32_t x = qni_bits_of_float(f);
    if ((x & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((x >> 16) | 0x40u); /* NaN stays NaN */
    return (uint16_t)((x + 0x7FFFu + ((x >> 16) & 1u)) >> 16);
}

static inline float qni_f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1Fu;
    uint32_t mantissa = h & 0x3FFu;
    if (exponent == 0x1Fu) {
        return qni_float_of_bits(sign | 0x7F800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0));
    }
    if (exponent != 0) return qni_float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    float magnitude = (float)mantissa * 0x1p-24f; /* subnormal: exact */
    return sign ? -magnitude : magnitude;
}

static inline uint16_t qni_f16_of_f32(float f) {
    uint32_t x = qni_bits_of_float(f);
    uint32_t sign = (x >> 16) & 0x8000u;
    uint32_t magnitude = x & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* >= 65520 rounds to infinity */
    if (magnitude >= 0x38800000u) {
        uint32_t shifted = magnitude - 0x38000000u;
        return (uint16_t)(sign | ((shifted + 0xFFFu + ((shifted >> 13) & 1u)) >> 13));
    }
    /* Subnormal: adding 0.5 aligns the mantissa so that the addition rounds at 2^-24. */
    float aligned = qni_float_of_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (qni_bits_of_float(aligned) - 0x3F000000u));
}

/* e4m3 without infinities: 4 exponent bits with bias 7, 3 mantissa bits; the greatest code of each sign is NaN. */
static inline float qni_f32_of_e4m3(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80u) << 24, magnitude = h & 0x7Fu;
    if (magnitude == 0x7F) return qni_float_of_bits(sign | 0x7FC00000u);
    if (magnitude >= 8) return qni_float_of_bits(sign | ((magnitude << 20) + (120u << 23)));
    float value = (float)magnitude * 0x1p-9f; /* subnormal: exact */
    return sign ? -value : value;
}

/* An affine weight, scale · code + bias. The product may overflow even if the weight does not. */
static inline float qni_f32_of_affine(float scale, uint8_t code, float bias) {
    const float value = scale * (float)code + bias;
    return __builtin_isfinite(value) ? value : __builtin_fmaf(scale, (float)code, bias);
}

#endif
