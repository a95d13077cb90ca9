/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass of Qwen3: from ids and KV caches to hidden states and logits. */
#ifndef QNI_FORWARD_H
#define QNI_FORWARD_H

#include "../base/cut.h"
#include "model.h"

/* Rows of the head that are computed at once: bounds the logits in scratch, and is wide enough that a head over many
 * rows is bound by arithmetic and no longer by reading lm_head. */
enum { QNI_HEAD_ROWS = QNI_CUT(32, 3) };

/* Called while the device is held. */
typedef struct qni_forward_sink {
    /* Where the logits of a row go, if it is the only one with logits; or NULL: they go to scratch. */
    float *(*room)(void *user, int32_t row);
    /* Logits {n_vocab} of row `row`, in ascending order of logit_rows; false cancels. */
    bool (*logits)(void *user, int32_t row, const float *logits);
    /* All rows of a hidden state (qn_tap tells which); may be NULL. */
    void (*hidden)(void *user, int32_t state, const qni_mat *hidden);
    void *user;
} qni_forward_sink;

typedef struct qni_forward_call {
    const qn_model *model;
    qni_rows rows;
    const int32_t *ids; /* {n_row} */

    /* pages[s] is the KV of sequence s: {n_layer, k|v, n_kv_head, n_ctx} rows of kv_dtype. */
    void *const *pages;
    int32_t n_ctx;
    qn_dtype kv_dtype;

    const double *inv_freq; /* {head_dim / 2} */
    double attention_factor;

    const int32_t *logit_rows; /* {n_logit_row}, ascending: rows whose logits are wanted; maybe none */
    int32_t n_logit_row;
    qni_forward_sink sink;
} qni_forward_call;

/* Run it, or measure its scratch. Errors: ECANCELED by the sink; those of the ops. The caller holds the device. */
qn_status qni_forward(const qni_run *run, const qni_forward_call *call);

/* Scratch of any pass of at most n_row rows of one sequence, in a context of n_ctx. Looks at the model's device, its
 * config and the forms of its weights, not at their data: it works before they are read. */
qn_status qni_forward_measure(size_t *bytes, const qn_model *model, int32_t n_row, int32_t n_ctx, qn_dtype kv_dtype,
                              qn_error *err);

#endif
