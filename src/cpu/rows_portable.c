/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise row ops in portable C: conversions, norm, SwiGLU, RoPE, argmax.
 *
 * Layout    contiguous rows.
 * Tile      none; the compiler vectorizes.
 * Tails     none; all elements are computed the same way.
 * Bound     memory, except for conversions from and to f16.
 */
#include "scalar.h"

static void widen_f32(float *out, const void *in, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *out);
}
static void widen_bf16(float *out, const void *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_scalar_load_bf16(in, i);
}
static void widen_f16(float *out, const void *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_scalar_load_f16(in, i);
}
static void widen_q8(float *out, const void *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_scalar_load_q8(in, i);
}
static void narrow_f32(void *out, const float *in, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *in);
}
static void narrow_bf16(void *out, const float *in, int64_t n) {
    uint16_t *h = out;
    for (int64_t i = 0; i < n; i++) h[i] = qni_bf16_of_f32(in[i]);
}
static void narrow_f16(void *out, const float *in, int64_t n) {
    uint16_t *h = out;
    for (int64_t i = 0; i < n; i++) h[i] = qni_f16_of_f32(in[i]);
}

static double sum_squares(const float *x, int64_t n) {
    enum { LANES = 8 };
    double sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
    }
    for (int j = 0; i + j < n; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

static void scale_mul(float *out, const float *x, float factor, const float *w, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i] * factor * w[i];
}

static void scale(float *x, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void add(float *out, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = a[i] + b[i];
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_scalar_silu(gate[i]) * up[i];
}

static void exp_row(float *out, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_scalar_exp(x[i]);
}

static void rope(float *x, const float *cos_sin, int64_t d) {
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], c = cos_sin[i], s = cos_sin[i + half];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

static int64_t argmax(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] != x[i]) return -1;
        if (x[i] > x[best]) best = i;
    }
    return best;
}

void qni_cpu_rows_portable(qni_cpu_kernels *k) {
    k->isa = "portable";
    k->widen[QNI_CPU_F32] = widen_f32;
    k->widen[QNI_CPU_BF16] = k->widen_panel_bf16 = widen_bf16;
    k->widen[QNI_CPU_F16] = widen_f16;
    k->widen[QNI_CPU_Q8] = widen_q8;
    k->narrow[QNI_CPU_F32] = narrow_f32;
    k->narrow[QNI_CPU_BF16] = narrow_bf16;
    k->narrow[QNI_CPU_F16] = narrow_f16;
    k->sum_squares = sum_squares;
    k->scale_mul = scale_mul;
    k->scale = scale;
    k->add = add;
    k->swiglu = swiglu;
    k->exp = exp_row;
    k->rope = rope;
    k->argmax = argmax;
}
