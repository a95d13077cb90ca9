/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a sampler. A draw is a few passes over the vocabulary in blocks of ids. A block belongs to whichever thread
 * takes it and writes nothing but its own part of the arrays; what blocks found is put together in their order. So a
 * draw is the same, bit for bit, whatever the number of threads.
 */
#ifndef QNI_SAMPLER_H
#define QNI_SAMPLER_H

#include "../backend/device.h"
#include "../base/thread_pool.h"

#include <quern/sampler.h>

enum {
    QNI_BLOCK_IDS = 4096,    /* sampler.h promises it: the order of sums */
    QNI_GROUP_IDS = 128,     /* divides a block */
    QNI_BLOCK_BUCKETS = 512, /* of a search by select.c */
};

typedef struct qni_block {
    int32_t n;           /* candidates */
    int32_t n_key;       /* numbers in a search */
    uint64_t low, high;  /* the least and the greatest of their keys */
    double sum;          /* of its candidates' e; in the end of their probabilities */
    bool is_bad, is_any; /* a NaN or +Inf among its logits; one that is not -Inf */
    double weight[QNI_BLOCK_BUCKETS];
} qni_block;

/* Of the arrays {n_valid} block b has the places from b · QNI_BLOCK_IDS on, and its candidates are the first n. */
struct qn_sampler {
    qn_sampler_params params;
    qn_logit_bias *bias;
    qn_device *device; /* retained; NULL: the caller's thread does all */
    int32_t n_vocab, n_valid;
    int32_t n_block, n_group;
    double *value;         /* {n_valid}: logits by id, then e of the candidates */
    int32_t *id;           /* {n_valid}: the candidates, ascending */
    double *greatest;      /* {n_group}: of the logits of each group */
    uint64_t *key, *spare; /* {n_valid}: of select.c */
    uint32_t *count;       /* {n_vocab}: zero between draws */
    qni_block *blocks;     /* {n_block} */
    int32_t n_used;        /* blocks that may have candidates: the first ones */
    int32_t n_candidate;   /* in all */
    double sum;            /* of all candidates' e */
};

/* As qn_sampler_create, with a device (or NULL) on whose threads a draw may run while it is idle. */
qn_status qni_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab, int32_t n_valid,
                             qn_device *device, qn_error *err);

/* Run a task for the first n_block blocks; n is the number of ids or candidates in all of them. The caller does not
 * hold the device. */
void qni_sampler_run(const qn_sampler *sampler, int32_t n_block, int64_t n, qni_task task, void *context);

/* candidates.c: the passes, in the order of a draw. */

/* ENUMERIC where logits cannot be sampled from: a NaN or +Inf is among them, or none is finite. */
qn_status qni_candidates_check(const float *logits, int32_t n_valid, bool is_bad, bool is_any, qn_error *err);
/* Logits into `value` and `greatest`. Errors: ENUMERIC. */
qn_status qni_candidates_read(qn_sampler *sampler, const float *logits, qn_error *err);
/* `greatest` anew, after logits were moved. */
void qni_candidates_moved(qn_sampler *sampler);
/* The candidates that all filters leave, at least one. */
void qni_candidates_select(qn_sampler *sampler);
/* The id that u, within 0 … 1, draws among them; probs as in qn_sampler_draw. */
int32_t qni_candidates_draw(qn_sampler *sampler, double u, double *probs);

/* select.c: top_k and top_p. */

/* The k-th greatest logit, 1 <= k < n_valid; -DBL_MAX if fewer are finite. */
double qni_select_kth(qn_sampler *sampler, int32_t k);

/* The last of the candidates, best first, that top_p leaves: its e, and how many of those with this e stay. */
typedef struct qni_cut {
    double e;
    int32_t n_equal;
} qni_cut;
qni_cut qni_select_top_p(qn_sampler *sampler);

#endif
