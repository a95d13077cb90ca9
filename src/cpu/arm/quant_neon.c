/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weights with NEON: integer products, quantizing activations, unpacking to f32.
 *
 * Layout    products: as in quant_neon.h with ki = 4. Unpacking: any of kernels.h with nr = 16 and ki = 4 or 8.
 * Tile      products: as in quant_neon.h, one panel at a time: emulating the dot product needs registers. Unpacking:
 *           the codes of a group, 64 or 128 bytes at a time, become vectors of 16 outputs, one per input.
 * Tails     groups (integer codes: a multiple of 32 inputs) and panels are whole.
 * Bound     compute.
 */
#include "quant_neon.h"

#include <float.h>

/* --- integer products --- */

/* Products of codes in -128 … 127 and -127 … 127: the sum of two fits into 16 bits. */
static inline int32x4_t add_four(int32x4_t sum, int8x16_t w, int8x16_t x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}
#define DOT(sum, w, x, lane) add_four(sum, w, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane)))

DEFINE_ADD_DOTS(DOT)
DEFINE_GEMM(8, 128, add_dots, 1, 1, 1)
DEFINE_GEMM(4, 0, add_dots, 1, 1, 1)

/* --- quantizing activations --- */

static void quantize(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group) {
    const float least = 0x1p-100f; /* below `least`, 127 / max overflows */
    for (int64_t g = 0; g < n / group; g++, x += group, codes += group) {
        float32x4_t magnitude = vdupq_n_f32(0);
        for (int64_t i = 0; i < group; i += 4) magnitude = vmaxq_f32(magnitude, vabsq_f32(vld1q_f32(x + i)));
        const float max = vmaxvq_f32(magnitude); /* NaN if any is */
        scale[g] = max <= FLT_MAX ? (max >= least ? max / 127.0f : 0.0f) : __builtin_nanf("");
        sum[g] = 0;
        if (!(scale[g] > 0)) {
            memset(codes, 0, (size_t)group);
            continue;
        }
        const float inverse = 127.0f / max;
        int32x4_t total = vdupq_n_s32(0);
        for (int64_t i = 0; i < group; i += 8) {
            const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), inverse));
            const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), inverse));
            const int16x8_t code = vmovn_high_s32(vmovn_s32(low), high);
            vst1_s8(codes + i, vmovn_s16(code));
            total = vpadalq_s16(total, code);
        }
        sum[g] = vaddvq_s32(total);
    }
}

/* --- unpacking --- */

/* Convert 16 bytes to four vectors of integers. */
static inline uint32x4x4_t widen16(uint8x16_t bytes) {
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    return (uint32x4x4_t){
        {vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)}};
}

/* Store integer codes of one input and 16 outputs as weights. */
static inline void store_weights(float *out, uint8x16_t codes, const float32x4_t *scale, const float32x4_t *bias) {
    const uint32x4x4_t code = widen16(codes);
    for (int v = 0; v < VECTORS; v++) {
        vst1q_f32(out + v * 4, vfmaq_f32(bias[v], scale[v], vcvtq_f32_u32(code.val[v])));
    }
}

/* A panel's next ki inputs, 4 or 8: input[i] holds the bytes of 16 outputs. */
static inline void load_inputs(uint8x16_t input[8], const unsigned char *codes, int64_t ki) {
    const uint8x16x4_t first = vld4q_u8(codes);
    if (ki == 4) {
        for (int i = 0; i < 4; i++) input[i] = first.val[i];
        return;
    }
    const uint8x16x4_t second = vld4q_u8(codes + 64); /* inputs i and i + 4 of 8 outputs are interleaved */
    for (int i = 0; i < 4; i++) {
        input[i] = vuzp1q_u8(first.val[i], second.val[i]);
        input[i + 4] = vuzp2q_u8(first.val[i], second.val[i]);
    }
}

/* Inputs [first, first + n) of a group; first and n are multiples of 32. */
static void unpack_group(float *out, const unsigned char *group, int64_t first, int64_t n, const qni_cpu_quant *q) {
    const int64_t ki = q->ki, step = q->bits == 8 ? ki : 2 * ki;
    const unsigned char *codes = group + q->codes_at + first * NR * q->bits / 8;
    float32x4_t scale[VECTORS], bias[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        scale[v] = load4_scale(group, q, v * 4);
        bias[v] = q->symmetric ? vmulq_n_f32(scale[v], -(float)(1 << (q->bits - 1)))
                               : load4_scale(group + q->scales_bytes, q, v * 4);
    }
    for (int64_t k = 0; k < n; k += step, codes += NR * ki) {
        uint8x16_t input[8];
        load_inputs(input, codes, ki);
        for (int64_t i = 0; i < ki; i++, out += NR) {
            if (q->bits == 8) {
                store_weights(out, input[i], scale, bias);
            } else {
                store_weights(out, vandq_u8(input[i], vdupq_n_u8(15)), scale, bias);
                store_weights(out + ki * NR, vshrq_n_u8(input[i], 4), scale, bias);
            }
        }
        if (q->bits == 4) out += ki * NR;
    }
}

/* Decode e4m3: shift exponent and mantissa into their f32 positions; if the exponent is 0, subtract the implied one
 * again, which is exact. */
static inline float32x4_t f32_of_e4m3(uint32x4_t code) {
    const uint32x4_t magnitude = vandq_u32(code, vdupq_n_u32(0x7F));
    const uint32x4_t is_subnormal = vcltq_u32(magnitude, vdupq_n_u32(8));
    const uint32x4_t exponent = vbslq_u32(is_subnormal, vdupq_n_u32(121 << 23), vdupq_n_u32(120 << 23));
    float32x4_t value = vreinterpretq_f32_u32(vaddq_u32(vshlq_n_u32(magnitude, 20), exponent));
    value = vbslq_f32(is_subnormal, vsubq_f32(value, vdupq_n_f32(0x1p-6f)), value);
    value = vbslq_f32(vceqq_u32(magnitude, vdupq_n_u32(0x7F)), vdupq_n_f32(__builtin_nanf("")), value);
    const uint32x4_t sign = vshlq_n_u32(vshrq_n_u32(code, 7), 31);
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(value), sign));
}

static void unpack_group_fp8(float *out, const unsigned char *group, int64_t first, int64_t n, const qni_cpu_quant *q) {
    const unsigned char *codes = group + q->codes_at + first * NR;
    for (int64_t i = 0; i < n; i++, codes += NR, out += NR) {
        const uint32x4x4_t code = widen16(vld1q_u8(codes));
        for (int v = 0; v < VECTORS; v++) {
            vst1q_f32(out + v * 4, vmulq_f32(load4_scale(group, q, v * 4), f32_of_e4m3(code.val[v])));
        }
    }
}

static void unpack(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k) {
    for (int64_t end = k0 + n_k, n; k0 < end; k0 += n, out += n * NR) {
        const unsigned char *group = panel + k0 / q->group * q->group_bytes;
        const int64_t first = k0 % q->group;
        n = q->group - first < end - k0 ? q->group - first : end - k0;
        (q->fp8 ? unpack_group_fp8 : unpack_group)(out, group, first, n, q);
    }
}

void qni_cpu_quant_neon(qni_cpu_kernels *k) {
    k->int8[QNI_CPU_8_BITS] = (qni_cpu_int8){.ki = 4, .gemm = gemm_8};
    k->int8[QNI_CPU_4_BITS] = (qni_cpu_int8){.ki = 4, .gemm = gemm_4};
    k->quantize = quantize;
    k->unpack = unpack;
}
