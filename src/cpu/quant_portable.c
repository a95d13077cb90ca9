/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weights in portable C: quantizing activations, integer products, unpacking to f32.
 *
 * Layout    panels as in kernels.h, any nr and ki; activations {m, n_in} int8.
 * Tile      one row x one panel.
 * Tails     none: groups and panels are whole.
 * Bound     compute.
 */
#include "scalar.h"

#include <string.h>

static float scale_at(const unsigned char *scales, const qni_cpu_quant *q, int64_t j) {
    if (q->scale_dtype == QNI_CPU_F32) {
        float scale;
        memcpy(&scale, scales + (size_t)j * sizeof scale, sizeof scale);
        return scale;
    }
    uint16_t half;
    memcpy(&half, scales + (size_t)j * sizeof half, sizeof half);
    return qni_f32_of_bf16(half);
}

/* Code of input i of a group and output j. */
static uint32_t code_at(const unsigned char *codes, const qni_cpu_quant *q, int64_t i, int64_t j) {
    const int64_t ki = q->ki;
    if (q->bits == 8) return codes[(i / ki * q->nr + j) * ki + i % ki];
    return codes[(i / (2 * ki) * q->nr + j) * ki + i % ki] >> (i / ki % 2 * 4) & 15u;
}

static void quantize(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group) {
    const float to_integer = 0x1.8p23f, least = 0x1p-100f; /* below `least`, 127 / max overflows */
    for (int64_t g = 0; g < n / group; g++, x += group, codes += group) {
        float max = 0, bad = 0;
        for (int64_t i = 0; i < group; i++) {
            float magnitude = x[i] < 0 ? -x[i] : x[i];
            max = magnitude > max ? magnitude : max;
            bad += x[i] * 0;
        }
        const float inverse = bad == 0 && max >= least ? 127.0f / max : 0.0f;
        int32_t total = 0;
        for (int64_t i = 0; i < group; i++) {
            float code = inverse != 0 ? (x[i] * inverse + to_integer) - to_integer : 0.0f;
            codes[i] = (int8_t)code;
            total += codes[i];
        }
        scale[g] = bad == 0 ? (max >= least ? max / 127.0f : 0.0f) : bad;
        sum[g] = total;
    }
}

static void gemm_row(float *c, const int8_t *x, const float *scale, const int32_t *sum, const unsigned char *panel,
                     const qni_cpu_quant *q) {
    const float zero = q->symmetric ? (float)(1 << (q->bits - 1)) : 0.0f;
    for (int64_t j = 0; j < q->nr; j++) c[j] = 0;
    for (int64_t g = 0; g < q->n_group; g++, panel += q->group_bytes, x += q->group) {
        const unsigned char *codes = panel + q->codes_at;
        for (int64_t j = 0; j < q->nr; j++) {
            int32_t total = -(int32_t)zero * sum[g];
            for (int64_t i = 0; i < q->group; i++) total += (int32_t)code_at(codes, q, i, j) * x[i];
            c[j] += (float)total * (scale_at(panel, q, j) * scale[g]);
            if (!q->symmetric) c[j] += scale_at(panel + q->scales_bytes, q, j) * (scale[g] * (float)sum[g]);
        }
    }
}

static void gemm(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w, int64_t n_panel,
                 const qni_cpu_quant *q) {
    for (int64_t p = 0; p < n_panel; p++) {
        for (int64_t r = 0; r < m; r++) {
            gemm_row(c + r * ldc + p * q->nr, (const int8_t *)(x->codes + r * x->stride), x->scale + r * q->n_group,
                     x->sum + r * q->n_group, w + p * q->panel_bytes, q);
        }
    }
}

static void unpack(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k) {
    const float zero = (float)(1 << (q->bits - 1));
    for (int64_t k = 0; k < n_k; k++, out += q->nr) {
        const unsigned char *group = panel + (k0 + k) / q->group * q->group_bytes;
        const int64_t i = (k0 + k) % q->group;
        for (int64_t j = 0; j < q->nr; j++) {
            const float scale = scale_at(group, q, j);
            const uint32_t code = code_at(group + q->codes_at, q, i, j);
            if (q->fp8) {
                out[j] = scale * qni_f32_of_e4m3((uint8_t)code);
            } else {
                const float bias = q->symmetric ? -zero * scale : scale_at(group + q->scales_bytes, q, j);
                out[j] = qni_f32_of_affine(scale, (uint8_t)code, bias);
            }
        }
    }
}

void qni_cpu_quant_portable(qni_cpu_kernels *k) {
    for (int i = 0; i < QNI_CPU_N_BITS; i++) k->int8[i] = (qni_cpu_int8){.ki = 4, .gemm = gemm};
    k->quantize = quantize;
    k->unpack = unpack;
}
