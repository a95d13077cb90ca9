/* SPDX-License-Identifier: Apache-2.0 */
/* One step of the sessions on a pool: choosing its ids, computing it, and updating the sequences. */
#ifndef QNI_STEP_H
#define QNI_STEP_H

#include "session.h"

/* A session's remaining ids, and its part of the current step. */
typedef struct qni_portion {
    qn_session *session;
    size_t keep; /* tokens of the sequence before these ids */
    const int32_t *ids;
    size_t n_left;
    qn_logits_fn logits; /* for each position; NULL: only the last one's logits are kept */
    void *user;
    qni_feed *feed;    /* in qni_session_feed: its feed */
    int32_t n_tok;     /* in this step */
    int32_t n_sampled; /* ids sampled after them */
    bool is_bad;       /* the logits after them could not be sampled from */
} qni_portion;

/* A step of sessions on one pool. */
typedef struct qni_step {
    qn_kv_pool *pool;
    qni_portion *portions; /* {n_seq}, in token order */
    int32_t n_seq, n_tok, n_wanted, max_block;
    bool traces;
    bool canceled; /* canceled by a callback */
} qni_step;

/* Plan a step: as many tokens of the portions as fit, and of each at most its session's n_batch. The others get
 * n_tok 0. */
qni_step qni_step_plan(qni_portion *portions, int32_t n_portion);

/* Run the step. On success the sequences contain what it computed. Errors: those of the device; ENUMERIC: a
 * session's logits are not finite, which does not affect the others. */
qn_status qni_step_run(qni_step *step, qn_error *err);

/* Sets the error for a session with non-finite logits. */
qn_status qni_step_bad_logits(const qn_session *session, qn_error *err);

#endif
