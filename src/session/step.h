/* SPDX-License-Identifier: Apache-2.0 */
/* One step of the sessions on a pool: which ids it takes, computing it, and what the sequences have of it. */
#ifndef QNI_STEP_H
#define QNI_STEP_H

#include "session.h"

/* What is left of one session's ids, and what of it is in the current step. */
typedef struct qni_portion {
    qn_session *session;
    size_t keep; /* tokens of the sequence that the ids follow */
    const int32_t *ids;
    size_t n_left;
    qn_logits_fn logits; /* of each position; NULL: of the last alone */
    void *user;
    qni_feed *feed;    /* in qni_session_feed: what it is of */
    int32_t n_tok;     /* in this step */
    int32_t n_sampled; /* ids that followed them */
    bool is_bad;       /* and then logits that cannot be sampled from */
} qni_portion;

/* A step of sessions on one pool. */
typedef struct qni_step {
    qn_kv_pool *pool;
    qni_portion *portions; /* {n_seq}, in the order of their tokens */
    int32_t n_seq, n_tok, n_wanted, max_block;
    bool traces;
    bool canceled; /* by a callback */
} qni_step;

/* As many tokens of the portions as one step takes, of each as many as its session does; the others are left with n_tok
 * 0. */
qni_step qni_step_plan(qni_portion *portions, int32_t n_portion);

/* Compute the step. The sequences take over what it computed, if it succeeded. Errors: those of the device; ENUMERIC:
 * logits of a session are not finite, which does not concern the others. */
qn_status qni_step_run(qni_step *step, qn_error *err);

/* The message for logits of a session that are not finite. */
qn_status qni_step_bad_logits(const qn_session *session, qn_error *err);

#endif
