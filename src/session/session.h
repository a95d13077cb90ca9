/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a session: its settings, its arena, and the common way of all calls to the forward pass. */
#ifndef QNI_SESSION_H
#define QNI_SESSION_H

#include "../model/forward.h"

#include <quern/session.h>

/* The one block of device memory of a session. The KV comes first: {n_layer, k|v, n_kv_head, n_ctx} rows (kv.c). */
typedef struct qni_arena {
    size_t token_bytes;   /* KV of one token, all layers */
    size_t plane_bytes;   /* k, or v, of one layer */
    size_t kv_bytes;      /* n_ctx · token_bytes */
    size_t logits_offset; /* {n_vocab} f32 */
    size_t ids_offset;    /* {n_ctx} s32 */
    size_t total_bytes;
} qni_arena;

/* Bytes of a key or value of one KV head. */
size_t qni_session_row(const qn_model_config *config, qn_dtype kv_dtype);

/* Errors: ENOMEM: more than an address space. The config is checked; n_ctx >= 1. */
qn_status qni_session_layout(qni_arena *out, const qn_model_config *config, int32_t n_ctx, qn_dtype kv_dtype,
                             qn_error *err);

/* Replace the zeros of options by the defaults and check them against the model; n_batch becomes at most n_ctx.
 * yarn: whether the model's scaling applies. Errors: as qn_session_create. */
qn_status qni_session_settle(qn_session_options *options, bool *yarn, const qn_model_config *config, qn_error *err);

struct qn_session {
    qn_model *model;            /* retained */
    qn_session_options options; /* settled */
    bool yarn;
    double *inv_freq; /* {head_dim / 2} */
    double attention_factor;

    qni_arena layout;
    unsigned char *arena; /* from the device's allocator */
    float *logits;        /* in the arena */
    int32_t *ids;         /* in the arena */
    int32_t n_tok;
    bool has_logits; /* of the last id */
    bool marked;     /* while a batch is checked */

    /* The rows of a pass that this session leads, n_batch each. */
    int32_t *row_seq, *row_pos, *row_id, *logit_row;
    void **pages;
};

/* k (or v) of one layer: {n_kv_head, n_ctx, head_dim}. */
unsigned char *qni_session_plane(const qn_session *session, int32_t layer, bool value);

/* Reports after each pass; false cancels. */
typedef struct qni_feed_progress {
    bool (*report)(void *user, int32_t n_tok);
    void *user;
} qni_feed_progress;

/* qn_session_sync with a report after each pass (may be NULL); *n_reused is set before the first. */
qn_status qni_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused,
                           const qni_feed_progress *progress, qn_error *err);

#endif
