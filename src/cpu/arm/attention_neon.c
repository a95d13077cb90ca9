/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions with NEON.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 64} f32; k, v rows of d elements at a stride.
 * Tile      scores: 16 pairs of (query, key), each with 4 partial sums over d that are added by one fixed tree: 4 x 4,
 *           2 x 8, or half of that, 1 x 8. Values: queries x vectors of d 4 x 4, 2 x 8, 1 x 16, one chain over the
 *           positions each.
 * Tails     d is padded to 8; keys beyond the last repeat it and are not stored; queries 4, 2, 1; vectors of d two by
 *           two.
 * Bound     compute for a converted block, memory where few queries read the cache itself.
 */
#include "../kernels.h"
#include "vector_neon.h"

enum { BLOCK = QNI_CPU_KV_BLOCK, TILE = 16, KEYS = 8 };

/* Lane i of the result: (v0+v1) + (v2+v3) of vector i. */
static inline float32x4_t sum_each(const float32x4_t v[4]) {
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}

/* What is left to ask for of the bytes that are read next: a few at a time, evenly while this block is worked on, so that
 * they never take all the places of the lines that a core has under way. */
typedef struct ahead {
    const char *at, *end;
} ahead;

static inline ahead ahead_of(const qni_cpu_kv_rows *rows) {
    const char *next = rows->next;
    return (ahead){next, next == NULL ? next : next + rows->next_bytes};
}

/* As many lines as `bytes` fill, at least one. */
static inline void ask_for(ahead *a, size_t bytes) {
    for (size_t i = 0; i < bytes && a->at < a->end; i += 64, a->at += 64) __builtin_prefetch(a->at, 0, 3);
}

#define DEFINE_SCORES(dtype, type)                                                                                     \
    /* Scores of n_q queries with n keys, of which n_valid exist. */                                                   \
    static inline __attribute__((always_inline)) void score_tile_##dtype(float *s, const float *q, const int n_q,      \
                                                                         const int n, const type *k, int64_t k_stride, \
                                                                         int64_t n_valid, int64_t d, ahead *next) {    \
        const type *key[KEYS];                                                                                         \
        float32x4_t sum[TILE];                                                                                         \
        for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * k_stride;                           \
        for (int i = 0; i < n_q * n; i++) sum[i] = vdupq_n_f32(0);                                                     \
        for (int64_t c = 0; c < d; c += 8) {                                                                           \
            float32x4x2_t x[4];                                                                                        \
            ask_for(next, (size_t)n * 8 * sizeof *k);                                                                  \
            for (int i = 0; i < n_q; i++) x[i] = load8_f32(q + i * d + c);                                             \
            for (int j = 0; j < n; j++) {                                                                              \
                const float32x4x2_t y = load8_##dtype(key[j] + c);                                                     \
                for (int i = 0; i < n_q; i++) sum[i * n + j] = vfmaq_f32(sum[i * n + j], x[i].val[0], y.val[0]);       \
                for (int i = 0; i < n_q; i++) sum[i * n + j] = vfmaq_f32(sum[i * n + j], x[i].val[1], y.val[1]);       \
            }                                                                                                          \
        }                                                                                                              \
        float all[TILE];                                                                                               \
        for (int i = 0; i < n_q * n; i += 4) vst1q_f32(all + i, sum_each(sum + i));                                    \
        for (int i = 0; i < n_q; i++) {                                                                                \
            for (int j = 0; j < n && j < n_valid; j++) s[i * BLOCK + j] = all[i * n + j];                              \
        }                                                                                                              \
    }                                                                                                                  \
    /* Eight keys at a time, which stay in the first cache for all queries. */                                         \
    static void scores_##dtype(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *rows, int64_t d) {        \
        const type *k = rows->data;                                                                                    \
        const int64_t stride = rows->stride;                                                                           \
        ahead next = ahead_of(rows);                                                                                   \
        for (int64_t j = 0; j < rows->n; j += KEYS, s += KEYS, k += KEYS * stride) {                                   \
            const int64_t n = rows->n - j < KEYS ? rows->n - j : KEYS;                                                 \
            int64_t i = 0;                                                                                             \
            for (; i + 4 <= n_q; i += 4)                                                                               \
                for (int64_t l = 0; l < n; l += 4)                                                                     \
                    score_tile_##dtype(s + i * BLOCK + l, q + i * d, 4, 4, k + l * stride, stride, n - l, d, &next);   \
            for (; i + 2 <= n_q; i += 2) score_tile_##dtype(s + i * BLOCK, q + i * d, 2, 8, k, stride, n, d, &next);   \
            if (i < n_q) score_tile_##dtype(s + i * BLOCK, q + i * d, 1, 8, k, stride, n, d, &next);                   \
        }                                                                                                              \
    }

#define DEFINE_VALUES(dtype, type)                                                                                     \
    /* n_q queries and n vectors of d from column c0 on. */                                                            \
    static inline __attribute__((always_inline)) void value_tile_##dtype(                                              \
        float *o, const float *p, const int n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,      \
        bool add, ahead *next) {                                                                                       \
        const type *v = (const type *)rows->data + c0;                                                                 \
        float32x4_t sum[TILE];                                                                                         \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++) sum[i * n + c] = add ? vld1q_f32(o + i * d + c0 + c * 4) : vdupq_n_f32(0);     \
        for (int64_t j = 0; j < rows->n; j++, v += rows->stride) {                                                     \
            ask_for(next, (size_t)n * 4 * sizeof *v);                                                                  \
            for (int c = 0; c < n; c += 2) {                                                                           \
                const float32x4x2_t y = load8_##dtype(v + c * 4);                                                      \
                for (int i = 0; i < n_q; i++) {                                                                        \
                    float32x4_t *to = sum + i * n + c;                                                                 \
                    to[0] = vfmaq_n_f32(to[0], y.val[0], p[i * BLOCK + j]);                                            \
                    to[1] = vfmaq_n_f32(to[1], y.val[1], p[i * BLOCK + j]);                                            \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < n_q; i++)                                                                                  \
            for (int c = 0; c < n; c++) vst1q_f32(o + i * d + c0 + c * 4, sum[i * n + c]);                             \
    }                                                                                                                  \
    /* Columns c0 … of n vectors, which stay in the first cache for all queries. */                                  \
    static inline __attribute__((always_inline)) void value_columns_##dtype(                                           \
        float *o, const float *p, int64_t n_q, const int n, const qni_cpu_kv_rows *rows, int64_t c0, int64_t d,        \
        bool add, ahead *next) {                                                                                       \
        int64_t i = 0;                                                                                                 \
        if (n <= 4)                                                                                                    \
            for (; i + 4 <= n_q; i += 4) value_tile_##dtype(o + i * d, p + i * BLOCK, 4, n, rows, c0, d, add, next);   \
        if (n <= 8)                                                                                                    \
            for (; i + 2 <= n_q; i += 2) value_tile_##dtype(o + i * d, p + i * BLOCK, 2, n, rows, c0, d, add, next);   \
        for (; i < n_q; i++) value_tile_##dtype(o + i * d, p + i * BLOCK, 1, n, rows, c0, d, add, next);               \
    }                                                                                                                  \
    static void values_##dtype(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) { \
        int64_t c = 0;                                                                                                 \
        ahead next = ahead_of(v);                                                                                      \
        for (; n_q == 1 && c + 64 <= d; c += 64) value_columns_##dtype(o, p, n_q, 16, v, c, d, add, &next);            \
        for (; n_q < 4 && c + 32 <= d; c += 32) value_columns_##dtype(o, p, n_q, 8, v, c, d, add, &next);              \
        for (; c + 16 <= d; c += 16) value_columns_##dtype(o, p, n_q, 4, v, c, d, add, &next);                         \
        for (; c < d; c += 8) value_columns_##dtype(o, p, n_q, 2, v, c, d, add, &next);                                \
    }

DEFINE_SCORES(f32, float)
DEFINE_SCORES(bf16, uint16_t)
DEFINE_SCORES(f16, uint16_t)
DEFINE_SCORES(q8, int8_t)
DEFINE_VALUES(f32, float)
DEFINE_VALUES(bf16, uint16_t)
DEFINE_VALUES(f16, uint16_t)
DEFINE_VALUES(q8, int8_t)

/* Lanes below n (1 … 3) of v, the others of rest. */
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
        m = vmaxnmq_f32(m, v); /* a NaN is passed over */
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

static void merge(float *o, float a, const float *b, float c, int64_t n) {
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
    k->attend_merge = merge;
}
