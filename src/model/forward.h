/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass of Qwen3: one step from ids and the KV of a pool to hidden states, and from those to logits. */
#ifndef QNI_FORWARD_H
#define QNI_FORWARD_H

#include "../base/cut.h"
#include "../kv/block_pool.h"
#include "model.h"

/* Rows of the LM head that are computed at once: bounds the logits in scratch, and is wide enough that a head over many
 * rows is bound by arithmetic and no longer by reading lm_head. */
enum { QNI_HEAD_ROWS = QNI_CUT(32, 3) };

/* The model as steps take it. It borrows from the model. */
qni_transformer qni_model_transformer(const qn_model *model);

/* Hidden states of a step in f32, on the device. */
typedef struct qni_step_output {
    qni_mat hidden; /* {n_tok, d_model}: the stream after the last layer, before the final norm */
    float *trace; /* NULL, or {n_layer + 1, n_tok, d_model}: the embedding, each layer's output, the last one normed */
} qni_step_output;

/* Embedding and all layers. Errors: those of the ops. The caller holds the device, or measures. */
qn_status qni_forward(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_step_output *out);

/* Final norm and LM head: logits {n, n_vocab} of hidden {n, d_model}, n <= QNI_HEAD_ROWS. */
qn_status qni_logits(const qni_run *run, const qni_transformer *model, qni_mat logits, qni_mat hidden);

/* Memory of a step that its session works with, in scratch. */
typedef struct qni_step_buffers {
    qni_step_output output;
    qni_mat rows;   /* {QNI_HEAD_ROWS or n_tok, d_model}: hidden states whose logits are computed */
    qni_mat logits; /* {as many, n_vocab} */
    int32_t *ids;   /* {as many}: sampled from them */
} qni_step_buffers;
qni_step_buffers qni_step_take(const qni_run *run, const qni_transformer *model, int64_t n_tok, bool traces);

/* Scratch of any step of at most n_tok tokens, of sequences of at most n_ctx. Looks at the model's device, its config
 * and the forms of its weights, not at their data: it works before they are read. */
qn_status qni_step_measure(size_t *bytes, const qn_model *model, int32_t n_tok, int32_t n_ctx, qn_dtype kv_dtype,
                           bool traces, qn_error *err);

#endif
