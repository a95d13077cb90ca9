/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampler internals. A sample takes a few passes over the vocabulary, in blocks of ids. Any thread may process a block;
 * it writes only the block's own part of the arrays, and results are combined in block order. So a sample is the same,
 * bit for bit, for any number of threads.
 */
#ifndef QNI_SAMPLER_H
#define QNI_SAMPLER_H

#include "../backend/device.h"
#include "../base/thread_pool.h"

#include <quern/sampler.h>

enum {
    QNI_BLOCK_IDS = 4096, /* sampler.h promises it: the order of sums */
    QNI_GROUP_IDS = 128,  /* divides a block */
};

typedef struct qni_block {
    int32_t n;           /* candidates */
    double sum;          /* of its candidates' e; in the end of their probabilities */
    bool is_bad, is_any; /* a NaN or +Inf among its logits; one that is not -Inf */
} qni_block;

/* In the arrays {n_valid}, block b starts at index b · QNI_BLOCK_IDS; its candidates are the first n entries. */
struct qn_sampler {
    qn_sampler_params params;
    qn_logit_bias *bias;
    qn_device *device; /* retained; NULL: use only the caller's thread */
    int32_t n_vocab, n_valid;
    int32_t n_block, n_group;
    double *value;         /* {n_valid}: logits by id, then e of the candidates */
    int32_t *id;           /* {n_valid}: the candidates, ascending */
    double *greatest;      /* {n_group}: the greatest logit of each group */
    uint64_t *key, *spare; /* {n_valid}: for select.c */
    uint32_t *count;       /* {n_vocab}: zero between samples */
    qni_block *blocks;     /* {n_block} */
    int32_t n_used;        /* leading blocks that may have candidates */
    int32_t n_candidate;   /* in all */
    double sum;            /* of all candidates' e */
};

/* As qn_sampler_create, with a device (or NULL) whose threads a sample may use while it is idle. The memory that sampling
 * needs is not allocated yet: where the device samples, it may never be used. */
qn_status qni_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab, int32_t n_valid,
                             qn_device *device, qn_error *err);

/* Allocate what sampling needs, once. Errors: ENOMEM. */
qn_status qni_sampler_alloc(qn_sampler *sampler, qn_error *err);

/* Run a task for the first n_block blocks; n is the total number of their ids or candidates. The caller must not
 * hold the device. */
void qni_sampler_run(const qn_sampler *sampler, int32_t n_block, int64_t n, qni_task task, void *context);

/* candidates.c: the passes, in the order of a sample. */

/* ENUMERIC if the logits cannot be sampled from: one is NaN or +Inf, or none is finite. */
qn_status qni_candidates_check(const float *logits, int32_t n_valid, bool is_bad, bool is_any, qn_error *err);
/* Load logits into `value` and `greatest`. Errors: ENUMERIC. */
qn_status qni_candidates_read(qn_sampler *sampler, const float *logits, qn_error *err);
/* Recompute `greatest` after logits were changed. */
void qni_candidates_update_maxima(qn_sampler *sampler);
/* Apply all filters; at least one candidate remains. */
void qni_candidates_select(qn_sampler *sampler);
/* The id that u, within 0 … 1, selects among them; probs as in qn_sampler_draw. */
int32_t qni_candidates_draw(qn_sampler *sampler, double u, double *probs);

/* select.c: top_k and top_p. */

/* The k-th greatest logit, 1 <= k < n_valid; -DBL_MAX if fewer are finite. */
double qni_select_kth(const qn_sampler *sampler, int32_t k);

/* The last candidate, best first, that top_p keeps: its e, and how many candidates with this e are kept. */
typedef struct qni_cut {
    double e;
    int32_t n_equal;
} qni_cut;
qni_cut qni_select_top_p(const qn_sampler *sampler);

#endif
