/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a session: its settings, its memory, and the common way of all calls to the forward pass. */
#ifndef QNI_SESSION_H
#define QNI_SESSION_H

#include "../kv/sequence.h"
#include "../model/forward.h"

#include <quern/session.h>

/* Settings that a session and its pool must agree on, with defaults filled in. */
typedef struct qni_kv_settings {
    int32_t n_ctx, n_batch;
    qn_dtype kv_dtype;
    bool yarn; /* whether the model's scaling applies */
} qni_kv_settings;

/* Fill in defaults and check against the model; n_batch becomes at most n_ctx. Errors: as qn_session_create. */
qn_status qni_kv_settle(qni_kv_settings *out, const qn_kv_pool_options *options, const qn_model_config *config,
                        qn_error *err);

qni_kv_format qni_kv_format_of(const qn_model_config *config, qn_dtype kv_dtype);

/* The host arrays of a step, for at most n_batch tokens; guarded by the device's lock. */
typedef struct qni_step_arrays {
    int32_t *tok_begin, *pos_begin; /* {n_batch + 1}, {n_batch} */
    int32_t *ids, *wanted;          /* {n_batch}: all ids; tokens whose logits are wanted */
    qni_sampling *sampling;         /* {n_batch}, and so are the next two: for the backend's own step, or NULL */
    int32_t *n_sampled;
    bool *is_bad;
    int32_t *block_table; /* {table_size} */
    size_t table_size;
} qni_step_arrays;

struct qn_kv_pool {
    atomic_int refs;
    qn_model *model; /* retained */
    qni_kv_settings settings;
    double *inv_freq; /* {head_dim / 2} */
    double attention_factor;
    qni_block_pool *blocks;
    atomic_int n_session;
    qni_step_arrays step; /* guarded by the device's lock, and so is: */
    size_t scratch_bytes; /* that any step of its sessions needs */
};

void qni_kv_pool_retain(qn_kv_pool *pool);

/* A session more, or one less. Joining makes room for it in the arrays of a step, and reserves the device's scratch for
 * a step with or without a trace. Errors: ENOMEM. */
qn_status qni_kv_pool_join(qn_kv_pool *pool, bool traces, qn_error *err);
void qni_kv_pool_leave(qn_kv_pool *pool);

/* Host memory of a session: logits, then ids. */
typedef struct qni_session_layout {
    size_t ids_offset; /* {n_ctx} s32, after {n_vocab} f32 */
    size_t bytes;
} qni_session_layout;

/* Errors: ENOMEM: more than an address space. */
qn_status qni_session_measure(qni_session_layout *out, const qn_model_config *config, int32_t n_ctx, qn_error *err);

struct qn_session {
    qn_kv_pool *pool; /* retained */
    qn_model *model;  /* the pool's */
    int32_t n_ctx, n_batch;
    qn_tap tap;
    qni_sequence seq;

    qni_session_layout layout;
    unsigned char *memory; /* on the host, by the device's allocator */
    float *logits;         /* in it */
    bool has_logits;       /* of the last id */
    bool marked;           /* while a batch is checked */
};

/* How many of the ids the sequence holds already, as qn_session_sync needs them: all n_ids when there is nothing to
 * compute. Nothing changes. */
qn_status qni_session_match(const qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_kept, qn_error *err);

/* Ids that follow the first n_kept tokens of a session's sequence, and what one pass made of them. */
typedef struct qni_feed {
    qn_session *session;
    size_t n_kept;
    const int32_t *ids;
    size_t n_ids;  /* 0: nothing to compute */
    size_t n_done; /* ids that were computed */
    /* Where the device samples: ids that may follow, at most qni_session_most_sampled() and the room that is left, and
     * how (without `ids` and `n_id`). 0: the logits of the last id come to the session instead. */
    int32_t n_sample;
    qni_sampling sampling;
    int32_t n_sampled; /* how many did; they stand behind those computed, the last of them not being computed itself */
    qn_status status;  /* of this feed alone */
    qn_error *err;     /* may be NULL */
} qni_feed;

/* Ids that the session's device samples in one step, at most; 0: the host samples. */
int32_t qni_session_most_sampled(const qn_session *session);

/* One pass for all feeds, whose sessions are distinct. Those on one pool are computed in common steps: every feed of a
 * single id, and of the longer ones, in order, as many ids as fit into a step beside them (one at least; of each at
 * most the session's n_batch). Blocks are reserved for all ids of a feed, so that the passes after it cannot fail for
 * want of them. A feed that fails does not stop the others. Errors: ENOMEM, before anything has changed. */
qn_status qni_session_feed(qni_feed *feeds, int32_t n_feed, qn_error *err);

/* Give up the blocks that were reserved for more ids than were computed. */
void qni_session_trim(qn_session *session);

#endif
