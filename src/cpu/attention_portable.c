/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions in portable C.
 *
 * Layout    q, o {n_q, d} f32; s, p {n_q, 128} f32; k, v rows of d elements at a stride.
 * Tile      scores: 8 partial sums over d; values: one query at a time over d.
 * Tails     d is padded to 8; n_q and n_k are arbitrary.
 * Bound     compute.
 */
#include "scalar.h"

#include <math.h>

enum { LANES = 8 };

#define DEFINE_ATTEND(dtype, type)                                                                                     \
    static void scores_##dtype(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *k, int64_t d) {           \
        for (int64_t j = 0; j < k->n; j++) {                                                                           \
            const void *key = (const type *)k->data + j * k->stride;                                                   \
            for (int64_t i = 0; i < n_q; i++) {                                                                        \
                float sum[LANES] = {0};                                                                                \
                for (int64_t c = 0; c < d; c += LANES) {                                                               \
                    for (int l = 0; l < LANES; l++) sum[l] += q[i * d + c + l] * qni_scalar_load_##dtype(key, c + l);  \
                }                                                                                                      \
                s[i * QNI_CPU_KV_BLOCK + j] =                                                                          \
                    ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));                 \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void values_##dtype(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) { \
        for (int64_t i = 0; i < n_q; i++) {                                                                            \
            float *restrict out = o + i * d;                                                                           \
            for (int64_t c = 0; !add && c < d; c++) out[c] = 0;                                                        \
            for (int64_t j = 0; j < v->n; j++) {                                                                       \
                const void *value = (const type *)v->data + j * v->stride;                                             \
                float weight = p[i * QNI_CPU_KV_BLOCK + j];                                                            \
                for (int64_t c = 0; c < d; c++) out[c] += weight * qni_scalar_load_##dtype(value, c);                  \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_ATTEND(f32, float)
DEFINE_ATTEND(bf16, uint16_t)
DEFINE_ATTEND(f16, uint16_t)
DEFINE_ATTEND(q8, int8_t)

static float softmax(float *s, int64_t n, float *max, float *sum) {
    float m = *max;
    for (int64_t j = 0; j < n; j++) m = s[j] > m ? s[j] : m;
    float total[LANES] = {0};
    for (int64_t j = 0; j < QNI_CPU_KV_BLOCK; j++) s[j] = j < n ? qni_scalar_exp(s[j] - m) : 0;
    for (int64_t j = 0; j < QNI_CPU_KV_BLOCK; j += LANES) {
        for (int l = 0; l < LANES; l++) total[l] += s[j + l];
    }
    const float factor = qni_scalar_exp(*max - m);
    *max = m;
    *sum = *sum * factor +
           (((total[0] + total[1]) + (total[2] + total[3])) + ((total[4] + total[5]) + (total[6] + total[7])));
    return factor;
}

static void reduce(float *o, float a, const float *b, float c, int64_t n) {
    for (int64_t i = 0; i < n; i++) o[i] = o[i] * a + b[i] * c;
}

void qni_cpu_attention_portable(qni_cpu_kernels *k) {
    k->d_align = LANES;
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
