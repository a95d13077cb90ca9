/* SPDX-License-Identifier: Apache-2.0 */
/* RoPE frequencies and angles. Everything is in double until the final rounding, so that the error of an angle does not
 * grow with the position. */
#include "backend.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* The dimension whose wavelength fits `turns` times into the original context (arXiv 2309.00071, section 3.2). */
static double yarn_dimension(double turns, int64_t head_dim, int64_t original_ctx, double theta) {
    return (double)head_dim * log((double)original_ctx / (turns * 2.0 * pi)) / (2.0 * log(theta));
}

static double clamp(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/* Dimensions below `low` keep their frequency, those above `high` are divided by the factor, with a ramp in between. */
static void apply_yarn(double *inv_freq, const qn_yarn *yarn, double theta, int64_t head_dim) {
    double beta_fast = yarn->beta_fast > 0 ? yarn->beta_fast : 32.0;
    double beta_slow = yarn->beta_slow > 0 ? yarn->beta_slow : 1.0;
    double last = (double)(head_dim - 1);
    double low = clamp(floor(yarn_dimension(beta_fast, head_dim, yarn->original_ctx, theta)), 0.0, last);
    double high = clamp(ceil(yarn_dimension(beta_slow, head_dim, yarn->original_ctx, theta)), 0.0, last);
    double width = high > low ? high - low : 0.001; /* as in transformers: a step instead of a division by zero */
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double ramp = clamp(((double)i - low) / width, 0.0, 1.0);
        inv_freq[i] = inv_freq[i] / yarn->factor * ramp + inv_freq[i] * (1.0 - ramp);
    }
}

void qni_rope_resolve(double *inv_freq, double *attention_factor, const qn_rope *rope, int64_t head_dim) {
    if (rope->inv_freq != NULL) {
        for (int64_t i = 0; i < head_dim / 2; i++) inv_freq[i] = (double)rope->inv_freq[i];
        *attention_factor = rope->attention_factor != 0 ? rope->attention_factor : 1.0;
        return;
    }
    for (int64_t i = 0; i < head_dim / 2; i++) inv_freq[i] = pow(rope->theta, -2.0 * (double)i / (double)head_dim);
    *attention_factor = 1.0;
    if (rope->yarn == NULL) return;
    apply_yarn(inv_freq, rope->yarn, rope->theta, head_dim);
    double given = rope->yarn->attention_factor;
    *attention_factor = given != 0 ? given : 0.1 * log(rope->yarn->factor) + 1.0;
}

void qni_rope_fill(qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope) {
    const int64_t half = cos_sin.n_col / 2;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        for (int64_t t = batch->tok_begin[s]; t < batch->tok_begin[s + 1]; t++) {
            float *row = qni_mat_row(&cos_sin, t);
            const double position = (double)(batch->pos_begin[s] + (t - batch->tok_begin[s]));
            for (int64_t i = 0; i < half; i++) {
                const double angle = position * rope->inv_freq[i];
                row[i] = (float)(cos(angle) * rope->attention_factor);
                row[half + i] = (float)(sin(angle) * rope->attention_factor);
            }
        }
    }
}

qn_status qni_op_rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope) {
    if (!qni_scratch_measures(run->scratch)) qni_rope_fill(cos_sin, batch, rope);
    return QN_OK;
}
