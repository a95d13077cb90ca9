/* SPDX-License-Identifier: Apache-2.0 */
/** @file sampler.h
 * Samples the next token from logits.
 *
 * Order     repetition, frequency and presence penalties, logit bias, temperature, top_k (ties at the k-th are kept),
 *           top_p, min_p, random draw.
 * Draw      Philox4x32-10 with key {low, high word of the seed} and counter {low, high word of the position, 0, 0}
 *           gives x0 … x3; u = ((x1·2³² + x0) >> 11)·2⁻⁵³; the result is the first id in ascending order whose
 *           cumulative probability exceeds u. The same distribution, seed and position give the same token, whatever
 *           else runs.
 * Sums      in double. Probabilities are e / sum of e with e = exp((x - max x) / temperature). The sum and the
 *           cumulative probability add up to 4096 candidates in ascending order of ids. More candidates are summed in
 *           blocks of 4096 ids, counted from id 0, then over blocks. top_p adds probabilities in descending order, ties
 *           by ascending id.
 * Threads   a sampler may be used by one thread at a time.
 * Source    Philox: Salmon et al., SC11; top_p arXiv 1904.09751; min_p arXiv 2407.01082; order as in transformers.
 */
#ifndef QUERN_SAMPLER_H
#define QUERN_SAMPLER_H

#include "model.h"

/** A bias added to the logit of one id. */
typedef struct qn_logit_bias {
    int32_t id;
    float bias; /**< finite */
} qn_logit_bias;

/** Values are literal: temperature 0 means greedy, and 0 is a valid seed. Fill with qn_sampler_defaults, then adjust. */
typedef struct qn_sampler_params {
    double temperature;              /**< >= 0; 0: greedy, ties to the lowest id */
    int32_t top_k;                   /**< >= 0; 0: all */
    double top_p;                    /**< 0 … 1; 1: all; 0: only the best */
    double min_p;                    /**< 0 … 1; 0: all */
    double repetition_penalty;       /**< > 0; 1: none; over the whole history */
    double presence_penalty;         /**< finite; 0: none; over the generated part of the history */
    double frequency_penalty;        /**< finite; 0: none; over the generated part of the history */
    const qn_logit_bias *logit_bias; /**< n_logit_bias of them; copied by qn_sampler_create */
    size_t n_logit_bias;
    uint64_t seed; /**< 0 … 2⁶³-1 */
} qn_sampler_params;

/** Selects the defaults. */
typedef enum qn_sampler_mode {
    QN_SAMPLER_NEUTRAL = 0,  /**< temperature 1, everything else off */
    QN_SAMPLER_MODEL = 1,    /**< generation_config.json; greedy if do_sample is false */
    QN_SAMPLER_THINKING = 2, /**< Qwen's recommendation: temperature 0.6, top_p 0.95, top_k 20. generation_config.json
                                      overrides these except do_sample: greedy decoding loops in thinking mode */
    QN_SAMPLER_NON_THINKING = 3, /**< Qwen's recommendation: temperature 0.7, top_p 0.8, top_k 20; ignores the file */
} qn_sampler_mode;

typedef struct qn_sampler qn_sampler;

#ifdef __cplusplus
extern "C" {
#endif

/** Fill all of `params` (seed 0). If `model` is NULL, QN_SAMPLER_MODEL means QN_SAMPLER_NEUTRAL. Cannot fail. */
QN_API void qn_sampler_defaults(const qn_model *model, qn_sampler_mode mode, qn_sampler_params *params);

/**
 * Create a sampler for logits over n_vocab ids. Ids at or above n_valid (0: n_vocab) are never sampled. Sampling
 * allocates nothing.
 *
 * Errors   EINVAL: a parameter out of range or not finite (the message names it); a bias for an id >= n_vocab;
 *          n_vocab < 1; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab,
                                                int32_t n_valid, qn_error *err);
QN_API void qn_sampler_free(qn_sampler *sampler); /**< NULL is fine */

/**
 * Sample one token.
 *
 * logits     {n_vocab} f32, not modified.
 * history    n_history ids of the sequence so far; those from prompt_len on were generated.
 * position   position of the sampled token (n_history in a session).
 * probs      {n_vocab} f64 or NULL: receives the final distribution, 0 for excluded ids.
 * Errors     ENUMERIC: the valid logits contain a NaN or +Inf, or all are -Inf; EINVAL: an id in the history is out of
 *            range, or prompt_len > n_history.
 */
QN_NODISCARD QN_API qn_status qn_sampler_draw(qn_sampler *sampler, int32_t *id, double *probs, const float *logits,
                                              const int32_t *history, size_t n_history, size_t prompt_len,
                                              uint64_t position, qn_error *err);

/** An alternative token at one step. */
typedef struct qn_logprob {
    int32_t id;
    float logprob; /**< log softmax of the raw logits */
} qn_logprob;

/**
 * The k most likely ids under the raw logits (before any setting) in descending order, ties by ascending id, and the log
 * probability of `id`. `best` holds at least k entries; *n_best is set to min(k, n_valid).
 *
 * Errors     EINVAL: k < 0, or id out of range; ENUMERIC: as qn_sampler_draw.
 */
QN_NODISCARD QN_API qn_status qn_sampler_logprobs(const qn_sampler *sampler, float *id_logprob, qn_logprob *best,
                                                  int32_t *n_best, const float *logits, int32_t id, int32_t k,
                                                  qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
