/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise row ops with NEON: conversions, norm, SwiGLU, RoPE, argmax.
 *
 * Layout    contiguous rows.
 * Tile      one vector of 4, or two for 16- or 8-bit elements.
 * Tails     the last elements use a zero-padded vector and the same arithmetic as the others.
 * Bound     memory.
 */
#include "../kernels.h"
#include "vector_neon.h"

#define DEFINE_WIDEN(dtype, type)                                                                                      \
    static void widen_##dtype(float *out, const void *in, int64_t n) {                                                 \
        const type *narrow = in;                                                                                       \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8) vst1q_f32_x2(out + i, load8_##dtype(narrow + i));                                   \
        if (i < n) {                                                                                                   \
            type last[8] = {0};                                                                                        \
            float wide[8];                                                                                             \
            memcpy(last, narrow + i, (size_t)(n - i) * sizeof *narrow);                                                \
            vst1q_f32_x2(wide, load8_##dtype(last));                                                                   \
            memcpy(out + i, wide, (size_t)(n - i) * sizeof *out);                                                      \
        }                                                                                                              \
    }

DEFINE_WIDEN(bf16, uint16_t)
DEFINE_WIDEN(f16, uint16_t)
DEFINE_WIDEN(q8, int8_t)

/* To nearest even; a NaN keeps its sign and upper bits and becomes quiet. */
static inline uint16x4_t bf16_of(float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

static inline uint16x4_t f16_of(float32x4_t x) {
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}

#define DEFINE_NARROW(name, convert)                                                                                   \
    static void name(void *out, const float *in, int64_t n) {                                                          \
        uint16_t *h = out;                                                                                             \
        int64_t i = 0;                                                                                                 \
        for (; i + 4 <= n; i += 4) vst1_u16(h + i, convert(vld1q_f32(in + i)));                                        \
        if (i < n) {                                                                                                   \
            float last[4] = {0};                                                                                       \
            uint16_t narrow[4];                                                                                        \
            memcpy(last, in + i, (size_t)(n - i) * sizeof *in);                                                        \
            vst1_u16(narrow, convert(vld1q_f32(last)));                                                                \
            memcpy(h + i, narrow, (size_t)(n - i) * sizeof *h);                                                        \
        }                                                                                                              \
    }

DEFINE_NARROW(narrow_bf16, bf16_of)
DEFINE_NARROW(narrow_f16, f16_of)

static double sum_squares(const float *x, int64_t n) {
    float64x2_t sum[4] = {vdupq_n_f64(0), vdupq_n_f64(0), vdupq_n_f64(0), vdupq_n_f64(0)};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 2; j++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * j);
            const float64x2_t low = vcvt_f64_f32(vget_low_f32(v)), high = vcvt_high_f64_f32(v);
            sum[2 * j] = vfmaq_f64(sum[2 * j], low, low);
            sum[2 * j + 1] = vfmaq_f64(sum[2 * j + 1], high, high);
        }
    }
    double total = vaddvq_f64(vaddq_f64(vaddq_f64(sum[0], sum[1]), vaddq_f64(sum[2], sum[3])));
    for (; i < n; i++) total += (double)x[i] * (double)x[i];
    return total;
}

/* Elementwise loop: `expression` of vectors x and y for every four of n elements; the tail is padded. */
#define FOR_EACH_4(out, a, b, n, expression)                                                                           \
    int64_t i = 0;                                                                                                     \
    for (; i + 4 <= (n); i += 4) {                                                                                     \
        const float32x4_t x = vld1q_f32((a) + i), y = vld1q_f32((b) + i);                                              \
        (void)y;                                                                                                       \
        vst1q_f32((out) + i, expression);                                                                              \
    }                                                                                                                  \
    if (i < (n)) {                                                                                                     \
        const size_t bytes = (size_t)((n)-i) * sizeof(float);                                                          \
        float last[2][4] = {{0}};                                                                                      \
        memcpy(last[0], (a) + i, bytes);                                                                               \
        memcpy(last[1], (b) + i, bytes);                                                                               \
        const float32x4_t x = vld1q_f32(last[0]), y = vld1q_f32(last[1]);                                              \
        (void)y;                                                                                                       \
        vst1q_f32(last[0], expression);                                                                                \
        memcpy((out) + i, last[0], bytes);                                                                             \
    }

static void scale_mul(float *out, const float *x_row, float factor, const float *w, int64_t n) {
    FOR_EACH_4(out, x_row, w, n, vmulq_f32(vmulq_n_f32(x, factor), y))
}

static void scale(float *x_row, float factor, int64_t n) {
    FOR_EACH_4(x_row, x_row, x_row, n, vmulq_n_f32(x, factor))
}

static void add(float *out, const float *a, const float *b, int64_t n) {
    FOR_EACH_4(out, a, b, n, vaddq_f32(x, y))
}

static inline float32x4_t silu4(float32x4_t x) {
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(x))));
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n) {
    FOR_EACH_4(out, gate, up, n, vmulq_f32(silu4(x), y))
}

static void exp_row(float *out, const float *row, int64_t n) {
    FOR_EACH_4(out, row, row, n, exp4(x))
}

static inline void rope4(float *row, const float *cos_sin, int64_t half) {
    const float32x4_t a = vld1q_f32(row), b = vld1q_f32(row + half);
    const float32x4_t c = vld1q_f32(cos_sin), s = vld1q_f32(cos_sin + half);
    vst1q_f32(row, vfmsq_f32(vmulq_f32(a, c), b, s));
    vst1q_f32(row + half, vfmaq_f32(vmulq_f32(b, c), a, s));
}

static void rope(float *row, const float *cos_sin, int64_t d) {
    const int64_t half = d / 2, n = half % 4;
    int64_t i = 0;
    for (; i + 4 <= half; i += 4) rope4(row + i, cos_sin + i, half);
    if (n == 0) return;
    float x[8] = {0}, turn[8] = {0};
    const size_t bytes = (size_t)n * sizeof *x;
    memcpy(x, row + i, bytes);
    memcpy(x + 4, row + half + i, bytes);
    memcpy(turn, cos_sin + i, bytes);
    memcpy(turn + 4, cos_sin + half + i, bytes);
    rope4(x, turn, 4);
    memcpy(row + i, x, bytes);
    memcpy(row + half + i, x + 4, bytes);
}

static int64_t argmax(const float *x, int64_t n) {
    /* First the greatest value (NaN if any element is), then its first index. */
    enum { LANES = 16 };
    float32x4_t best[4];
    for (int j = 0; j < 4; j++) best[j] = vdupq_n_f32(x[0]);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < 4; j++) best[j] = vmaxq_f32(best[j], vld1q_f32(x + i + 4 * j));
    }
    for (; i < n; i++) best[0] = vmaxq_f32(best[0], vdupq_n_f32(x[i]));
    const float greatest = vmaxvq_f32(vmaxq_f32(vmaxq_f32(best[0], best[1]), vmaxq_f32(best[2], best[3])));
    if (greatest != greatest) return -1;
    int64_t first = 0;
    while (x[first] != greatest) first++;
    return first;
}

void qni_cpu_rows_neon(qni_cpu_kernels *k) {
    k->isa = "neon";
    k->widen[QNI_CPU_BF16] = widen_bf16;
    k->widen[QNI_CPU_F16] = widen_f16;
    k->widen[QNI_CPU_Q8] = widen_q8;
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
