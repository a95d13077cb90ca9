/* SPDX-License-Identifier: Apache-2.0 */
/** @file sampler.h
 * From logits to the next token.
 *
 * Order     repetition, frequency, presence penalties, logit bias, temperature, top_k (ties at the k-th kept),
 *           top_p, min_p, draw.
 * Draw      Philox4x32-10 with key {low, high word of the seed} and counter {low, high word of the position, 0, 0}
 *           gives x0 … x3; u = ((x1·2³² + x0) >> 11)·2⁻⁵³; the first id in ascending order whose cumulative
 *           probability exceeds u. The same seed and position draw the same token whatever else runs.
 * Sums      in double. Probabilities are e / sum of e with e = exp((x - greatest x) / temperature). Up to 4096
 *           candidates are added, for that sum and for the cumulative probability, in ascending order of ids; more of
 *           them in blocks of 4096 ids, counted from 0, and then the blocks. top_p adds probabilities best first, the
 *           lower id first in a tie.
 * Threads   a sampler belongs to one thread at a time.
 * Source    Philox: Salmon et al., SC11; top_p arXiv 1904.09751; min_p arXiv 2407.01082; order as in transformers.
 */
#ifndef QUERN_SAMPLER_H
#define QUERN_SAMPLER_H

#include "model.h"

/** Added to the logit of one id. */
typedef struct qn_logit_bias {
    int32_t id;
    float bias; /**< finite */
} qn_logit_bias;

/** Literal settings: temperature 0 is greedy and seed 0 is a seed. Fill with qn_sampler_defaults and change what
 * you want. */
typedef struct qn_sampler_params {
    double temperature;              /**< >= 0; 0: the lowest id of the greatest logit */
    int32_t top_k;                   /**< >= 0; 0: all */
    double top_p;                    /**< 0 … 1; 1: all; 0: the best alone */
    double min_p;                    /**< 0 … 1; 0: all */
    double repetition_penalty;       /**< > 0; 1: none; over the whole history */
    double presence_penalty;         /**< finite; 0: none; over the generated part of the history */
    double frequency_penalty;        /**< finite; 0: none; over the generated part of the history */
    const qn_logit_bias *logit_bias; /**< n_logit_bias of them; copied by qn_sampler_create */
    size_t n_logit_bias;
    uint64_t seed; /**< 0 … 2⁶³-1 */
} qn_sampler_params;

/** Which defaults. */
typedef enum qn_sampler_mode {
    QN_SAMPLER_NEUTRAL = 0,      /**< temperature 1, nothing else */
    QN_SAMPLER_MODEL = 1,        /**< generation_config.json; greedy where it says do_sample false */
    QN_SAMPLER_THINKING = 2,     /**< Qwen's advice: 0.6, top_p 0.95, top_k 20; numbers that generation_config.json
                                      sets go first, do_sample does not: greedy thoughts run in circles */
    QN_SAMPLER_NON_THINKING = 3, /**< Qwen's advice: 0.7, top_p 0.8, top_k 20, whatever the file says */
} qn_sampler_mode;

typedef struct qn_sampler qn_sampler;

#ifdef __cplusplus
extern "C" {
#endif

/** Fill `params`, seed 0 included. `model` may be NULL: then QN_SAMPLER_MODEL is QN_SAMPLER_NEUTRAL. Cannot fail. */
QN_API void qn_sampler_defaults(const qn_model *model, qn_sampler_mode mode, qn_sampler_params *params);

/**
 * A sampler for logits over n_vocab ids, of which those at or above n_valid (0: n_vocab) are never drawn. After this,
 * drawing allocates nothing.
 *
 * Errors   EINVAL: a parameter out of its range or not finite, named; a bias for an id >= n_vocab; n_vocab < 1;
 *          ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab,
                                                int32_t n_valid, qn_error *err);
QN_API void qn_sampler_free(qn_sampler *sampler); /**< NULL is fine */

/**
 * Draw one token.
 *
 * logits     {n_vocab} f32, not changed.
 * history    n_history ids of the timeline so far; those from prompt_len on were generated.
 * position   of the token that is drawn (n_history in a session).
 * probs      {n_vocab} f64 or NULL: the final distribution, 0 where excluded.
 * Errors     ENUMERIC: a NaN or +Inf among the valid logits, or all are -Inf; EINVAL: an id of the history out of
 *            range, or prompt_len > n_history.
 */
QN_NODISCARD QN_API qn_status qn_sampler_draw(qn_sampler *sampler, int32_t *id, double *probs, const float *logits,
                                              const int32_t *history, size_t n_history, size_t prompt_len,
                                              uint64_t position, qn_error *err);

/** One alternative of a step. */
typedef struct qn_logprob {
    int32_t id;
    float logprob; /**< log softmax of the raw logits */
} qn_logprob;

/**
 * The k best ids under the raw logits (before any setting), best first, the lower id first in a tie; and the log
 * probability of `id`. `best` has room for k; *n_best becomes min(k, n_valid).
 *
 * Errors     EINVAL: k < 0 or id out of range; ENUMERIC as above.
 */
QN_NODISCARD QN_API qn_status qn_sampler_logprobs(const qn_sampler *sampler, float *id_logprob, qn_logprob *best,
                                                  int32_t *n_best, const float *logits, int32_t id, int32_t k,
                                                  qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
