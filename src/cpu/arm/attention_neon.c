/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with NEON.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 128} f32; k, v rows of d elements at a stride.
 * Tile      as in attention_tiles.h. Scores: 16 at once, queries x keys 4 x 4, 2 x 8, or half of that, 1 x 8, each with
 *           4 partial sums. Values: queries x vectors of d 4 x 4, 2 x 8, 1 x 16.
 * Bound     compute for a converted block, memory when few queries read the cache in place.
 */
#include "../kernels.h"
#include "vector_neon.h"

enum { WIDE = 8, SUMS = 16, KEYS = 8, QUERIES = 4, VALUE_SUMS = 8 };
typedef float32x4_t vec;
typedef float32x4x2_t wide;
typedef float spread; /* the instruction selects a lane */
static inline wide load(const int dtype, const void *row, int64_t i) {
    switch (dtype) {
    case QNI_CPU_F32:
        return load8_f32((const float *)row + i);
    case QNI_CPU_BF16:
        return load8_bf16((const uint16_t *)row + i);
    case QNI_CPU_F16:
        return load8_f16((const uint16_t *)row + i);
    default:
        return load8_q8((const int8_t *)row + i);
    }
}
static inline wide load_query(const float *q) {
    return load8_f32(q);
}
static inline vec zero(void) {
    return vdupq_n_f32(0);
}
static inline vec add_products(vec sum, wide x, wide y) {
    return vfmaq_f32(vfmaq_f32(sum, x.val[0], y.val[0]), x.val[1], y.val[1]);
}
/* (l0+l1) + (l2+l3) */
static inline void add_up(float *out, const vec *sum, int n) {
    for (int i = 0; i < n; i += 4) {
        const vec *v = sum + i;
        vst1q_f32(out + i, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
    }
}
static inline wide zeros(void) {
    return (wide){{vdupq_n_f32(0), vdupq_n_f32(0)}};
}
static inline wide load_sum(const float *o) {
    return load8_f32(o);
}
static inline void store_sum(float *o, wide sum) {
    vst1q_f32(o, sum.val[0]);
    vst1q_f32(o + 4, sum.val[1]);
}
static inline spread spread_of(const float *p) {
    return *p;
}
static inline wide add_weighted(wide sum, spread p, wide y) {
    return (wide){{vfmaq_n_f32(sum.val[0], y.val[0], p), vfmaq_n_f32(sum.val[1], y.val[1], p)}};
}

#include "../attention_tiles.h"

DEFINE_ATTEND(f32, QNI_CPU_F32)
DEFINE_ATTEND(bf16, QNI_CPU_BF16)
DEFINE_ATTEND(f16, QNI_CPU_F16)
DEFINE_ATTEND(q8, QNI_CPU_Q8)

/* Lanes below n (1 … 3) from v, the others from rest. */
static inline float32x4_t keep(float32x4_t v, float32x4_t rest, int64_t n) {
    static const int32_t lanes[4] = {0, 1, 2, 3};
    return vbslq_f32(vcltq_s32(vld1q_s32(lanes), vdupq_n_s32((int32_t)n)), v, rest);
}

static float softmax(float *s, int64_t n, float *max, float *sum) {
    const float32x4_t low = vdupq_n_f32(*max), zero = vdupq_n_f32(0);
    float32x4_t m = low;
    for (int64_t j = 0; j < n; j += 4) {
        float32x4_t v = vld1q_f32(s + j);
        if (n - j < 4) v = keep(v, low, n - j);
        m = vmaxnmq_f32(m, v); /* ignores NaNs */
    }
    *max = vmaxnmvq_f32(m);
    m = vdupq_n_f32(*max);
    float32x4_t total = zero;
    for (int64_t j = 0; j < n; j += 4) {
        float32x4_t e = exp4(vsubq_f32(vld1q_f32(s + j), m));
        if (n - j < 4) e = keep(e, zero, n - j);
        total = vaddq_f32(total, e);
        vst1q_f32(s + j, e);
    }
    const float factor = vgetq_lane_f32(exp4(vsubq_f32(low, m)), 0);
    *sum = *sum * factor + vaddvq_f32(total);
    return factor;
}

static void reduce(float *o, float a, const float *b, float c, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) { /* n is padded */
        const float32x4_t second = vmulq_n_f32(vld1q_f32(b + i), c);
        vst1q_f32(o + i, vfmaq_n_f32(second, vld1q_f32(o + i), a));
    }
}

void qni_cpu_attention_neon(qni_cpu_kernels *k) {
    k->d_align = 8;
    k->attend_scores[QNI_CPU_F32] = scores_f32;
    k->attend_scores[QNI_CPU_BF16] = scores_bf16;
    k->attend_scores[QNI_CPU_F16] = scores_f16;
    k->attend_scores[QNI_CPU_Q8] = scores_q8;
    k->attend_softmax = softmax;
    k->attend_values[QNI_CPU_F32] = values_f32;
    k->attend_values[QNI_CPU_BF16] = values_bf16;
    k->attend_values[QNI_CPU_F16] = values_f16;
    k->attend_values[QNI_CPU_Q8] = values_q8;
    k->attend_reduce = reduce;
}
