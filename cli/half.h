/* SPDX-License-Identifier: Apache-2.0 */
/* Conversion of float to bf16 and f16 bit patterns (round to nearest even) and back. */
#ifndef CLI_HALF_H
#define CLI_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint16_t bf16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float bf16_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Adding 0.5 aligns a subnormal's bits with those of f16, whose unit is 2^-24, and rounds to nearest even. */
static inline uint16_t f16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and above: infinity */
    if (size < 0x38800000u) {                                  /* below 2^-14 */
        float small;
        memcpy(&small, &size, sizeof(small));
        small += 0.5f;
        memcpy(&size, &small, sizeof(size));
        return (uint16_t)(sign | (size - 0x3f000000u));
    }
    return (uint16_t)(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13));
}

static inline float f16_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    float value;
    if (exponent == 0) { /* zero and subnormals, in units of 2^-24 */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#endif
