/* SPDX-License-Identifier: Apache-2.0 */
/* Session internals: its settings, its memory, and the path from all calls to the forward pass. */
#ifndef QNI_SESSION_H
#define QNI_SESSION_H

#include "../kv/sequence.h"
#include "../model/forward.h"

#include <quern/session.h>

/* Settings that a session and its pool must agree on, with defaults filled in. */
typedef struct qni_kv_settings {
    int32_t n_ctx, n_batch;
    qn_dtype kv_dtype;
    bool yarn; /* whether the model's YaRN scaling applies */
} qni_kv_settings;

/* Fill in defaults and check against the model; n_batch is capped at n_ctx. Errors: as qn_session_create. */
qn_status qni_kv_resolve_options(qni_kv_settings *out, const qn_kv_pool_options *options, const qn_model *model,
                                 qn_error *err);

qni_kv_format qni_kv_format_of(const qn_model_config *config, qn_dtype kv_dtype);

/* The host arrays of a step, for at most n_batch tokens; guarded by the device's lock. */
typedef struct qni_step_arrays {
    int32_t *tok_begin, *pos_begin; /* {n_batch + 1}, {n_batch} */
    int32_t *ids, *wanted;          /* {n_batch}: all ids; tokens whose logits are wanted */
    qni_sampling *sampling;         /* {n_batch}, like the next two: for the backend's own step, or NULL */
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
    qni_step_arrays step; /* guarded by the device's lock, like: */
    size_t scratch_bytes; /* enough for any step of its sessions */
};

void qni_kv_pool_retain(qn_kv_pool *pool);

/* Add or remove a session. Joining grows the arrays of a step, and reserves the device's scratch for a step with or
 * without a trace. Errors: ENOMEM. */
qn_status qni_kv_pool_join(qn_kv_pool *pool, bool traces, qn_error *err);
void qni_kv_pool_leave(qn_kv_pool *pool);

/* Layout of a session's host memory: logits, then ids. */
typedef struct qni_session_layout {
    size_t ids_offset; /* {n_ctx} s32, after {n_vocab} f32 */
    size_t bytes;
} qni_session_layout;

/* Errors: ENOMEM if larger than the address space. */
qn_status qni_session_measure(qni_session_layout *out, const qn_model_config *config, int32_t n_ctx, qn_error *err);

struct qn_session {
    qn_kv_pool *pool; /* retained */
    qn_model *model;  /* the pool's */
    int32_t n_ctx, n_batch;
    qn_tap tap;
    qni_sequence seq;

    qni_session_layout layout;
    unsigned char *memory; /* on the host, from the device's allocator */
    float *logits;         /* points into it */
    bool has_logits;       /* logits are those of the last id */
    bool marked;           /* while a batch is checked */
};

/* Number of ids that the sequence already holds, as qn_session_sync counts it: n_ids if there is nothing to compute.
 * Changes nothing. */
qn_status qni_session_match(const qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_kept, qn_error *err);

/* Ids to append after the first n_kept tokens of a session's sequence, and the result of one pass over them. */
typedef struct qni_feed {
    qn_session *session;
    size_t n_kept;
    const int32_t *ids;
    size_t n_ids;  /* 0: nothing to compute */
    size_t n_done; /* ids computed */
    /* If the device samples: the number of ids to sample, at most qni_session_max_sampled() and the free positions,
     * and the settings (without `ids` and `n_id`). 0: the session receives the logits of the last id instead. */
    int32_t n_sample;
    qni_sampling sampling;
    int32_t n_sampled; /* ids sampled; they follow the computed ids. The last one is not computed itself. */
    qn_status status;  /* of this feed only */
    qn_error *err;     /* may be NULL */
} qni_feed;

/* Maximum number of ids that the session's device samples in one step; 0: the host samples. */
int32_t qni_session_max_sampled(const qn_session *session);

/* One pass over all feeds, whose sessions are distinct. Feeds on one pool share steps. The pass computes every feed
 * with a single id, and as many ids of the longer feeds, in order, as fit into one step beside them: at least one,
 * and at most n_batch of each session. Blocks are reserved for all ids of a feed, so that later passes cannot fail
 * for lack of blocks. A failing feed does not stop the others. Errors: ENOMEM, before anything has changed. */
qn_status qni_session_feed(qni_feed *feeds, int32_t n_feed, qn_error *err);

/* Release the blocks that were reserved for ids that were not computed. */
void qni_session_trim(qn_session *session);

#endif
