/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass of Qwen3: from ids and a pool's KV to hidden states, and from those to logits. */
#ifndef QNI_FORWARD_H
#define QNI_FORWARD_H

#include "../base/cut.h"
#include "../kv/block_pool.h"
#include "model.h"

/* Rows per LM head call. Bounds the logits in scratch, and is large enough that the head over many rows is
 * compute-bound rather than bound by reading lm_head. */
enum { QNI_HEAD_ROWS = QNI_CUT(32, 3) };

/* The model in the form that steps use. Borrows from the model. */
qni_transformer qni_model_transformer(const qn_model *model);

/* Hidden states of a step in f32, on the device. */
typedef struct qni_step_output {
    qni_mat hidden; /* {n_tok, d_model}: the stream after the last layer, before the final norm */
    float *trace; /* NULL, or {n_layer + 1, n_tok, d_model}: embedding, each layer's output, the last one normalized */
} qni_step_output;

/* Embedding and all layers. Errors: those of the ops. The caller holds the device, or only measures scratch. */
qn_status qni_forward(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_step_output *out);

/* Final norm and LM head: computes logits {n, n_vocab} from hidden {n, d_model}, n <= QNI_HEAD_ROWS. */
qn_status qni_logits(const qni_run *run, const qni_transformer *model, qni_mat logits, qni_mat hidden);

/* A session's buffers for a step, in scratch. */
typedef struct qni_step_buffers {
    qni_step_output output;
    qni_mat rows;   /* {QNI_HEAD_ROWS or n_tok, d_model}: hidden states to compute logits for */
    qni_mat logits; /* {same number of rows, n_vocab} */
    int32_t *ids;   /* {same number of rows}: ids sampled from them */
} qni_step_buffers;
qni_step_buffers qni_step_alloc(const qni_run *run, const qni_transformer *model, int64_t n_tok, bool traces);

/* Scratch size for any step of at most n_tok tokens, with sequences of at most n_ctx. Uses the model's device,
 * config and weight layouts, not the weight data: it works before weights are read. */
qn_status qni_step_measure(size_t *bytes, const qn_model *model, int32_t n_tok, int32_t n_ctx, qn_dtype kv_dtype,
                           bool traces, qn_error *err);

#endif
