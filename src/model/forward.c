/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only definition of the model: embedding, n_layer decoder layers, final norm and LM head, over a batch of tokens
 * from any mix of sequences. The backend implements the layer; see ops.h for its formulas.
 *
 * The hidden stream is f32 regardless of the weights. Source: Qwen3Model in transformers, arXiv 2505.09388.
 */
#include "forward.h"

#include <math.h>

static qni_mat alloc_rows(const qni_run *run, int64_t n_row, int64_t n_col) {
    return qni_mat_of(qni_scratch_array(run->scratch, n_row, n_col, sizeof(float)), QN_DTYPE_F32, n_row, n_col);
}

/* Hidden state `state` of a trace. */
static float *trace_at(const qni_step_output *out, int32_t state) {
    return out->trace + state * out->hidden.n_row * out->hidden.n_col;
}

static qn_status trace(const qni_run *run, const qni_step_output *out, int32_t state) {
    if (out->trace == NULL) return QN_OK;
    const size_t n = (size_t)out->hidden.n_row * (size_t)out->hidden.n_col;
    return qni_copy(run, trace_at(out, state), out->hidden.data, n * sizeof(float));
}

qni_transformer qni_model_transformer(const qn_model *model) {
    const qn_model_config *c = &model->config;
    return (qni_transformer){.embedding = model->embedding,
                             .lm_head = &model->lm_head,
                             .layers = model->layers,
                             .norm = model->norm,
                             .n_layer = c->n_layer,
                             .head_dim = c->head_dim,
                             .d_model = c->d_model,
                             .n_vocab = c->n_vocab,
                             .eps = c->rms_eps};
}

qn_status qni_forward(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_step_output *out) {
    const qni_mat hidden = out->hidden;
    size_t mark = run->scratch->used;
    qni_mat cos_sin = alloc_rows(run, in->batch->n_tok, model->head_dim);
    const qni_attention_call call = {
        .batch = in->batch, .cos_sin = cos_sin.data, .scale = 1 / sqrt((double)model->head_dim), .eps = model->eps};
    int32_t *ids = qni_scratch_array(run->scratch, in->batch->n_tok, 1, sizeof *ids);
    QN_TRY(qni_write(run, ids, in->ids, (size_t)in->batch->n_tok * sizeof *ids));
    QN_TRY(run->ops->rope(run, cos_sin, in->batch, &in->rope));
    QN_TRY(run->ops->embed(run, hidden, model->embedding, ids));
    for (int32_t i = 0; i < model->n_layer; i++) {
        QN_TRY(trace(run, out, i));
        const qni_kv_layer kv = qni_kv_at(in->kv, i);
        QN_TRY(run->ops->layer(run, hidden, hidden, &model->layers[i], &kv, &call));
    }
    if (out->trace != NULL) {
        qni_mat normed = hidden;
        normed.data = trace_at(out, model->n_layer);
        QN_TRY(run->ops->rms_norm(run, normed, hidden, model->norm, model->eps));
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_logits(const qni_run *run, const qni_transformer *model, qni_mat logits, qni_mat hidden) {
    return run->ops->lm_head(run, logits, hidden, model->norm, model->lm_head, model->eps);
}

qni_step_buffers qni_step_alloc(const qni_run *run, const qni_transformer *model, int64_t n_tok, bool traces) {
    const int64_t n_row = qni_min_i64(n_tok, QNI_HEAD_ROWS);
    qni_step_buffers b = {.output = {.hidden = alloc_rows(run, n_tok, model->d_model)}};
    if (traces) {
        b.output.trace = qni_scratch_array(run->scratch, (model->n_layer + 1) * n_tok, model->d_model, sizeof(float));
    }
    b.rows = alloc_rows(run, n_row, model->d_model);
    b.logits = alloc_rows(run, n_row, model->n_vocab);
    b.ids = qni_scratch_array(run->scratch, n_row, 1, sizeof *b.ids);
    return b;
}

/* Workspace of `step` with as many sequences as tokens. */
static qn_status measure_decode(const qni_run *run, const qni_transformer *model, const qni_step_input *in) {
    if (run->ops->step == NULL) return QN_OK;
    qni_scratch_reset(run->scratch, 0);
    qni_batch batch = *in->batch;
    batch.n_seq = (int32_t)batch.n_tok;
    const qni_step_input many = {.batch = &batch, .kv = in->kv};
    return run->ops->step(run, model, &many, &(qni_decode){.n_token = 1});
}

qn_status qni_step_measure(size_t *bytes, const qn_model *model, int32_t n_tok, int32_t n_ctx, qn_dtype kv_dtype,
                           bool traces, qn_error *err) {
    const qn_model_config *config = &model->config;
    /* A non-null address, so that pointer arithmetic stays defined; it is never dereferenced. */
    const qni_block_pool pool = {
        .data = {.address = (void *)(uintptr_t)QNI_ALIGN}, // NOLINT(performance-no-int-to-ptr)
        .format = {kv_dtype, config->n_layer, config->n_kv_head, config->head_dim},
        .block_tokens = model->device->backend->kv_block_tokens,
        .n_block = qni_kv_blocks_for(model->device, n_ctx),
    };
    const int32_t tok_begin[] = {0, n_tok}, pos_begin[] = {n_ctx - n_tok};
    const qni_batch batch = {
        .n_tok = n_tok, .n_seq = 1, .max_block = pool.n_block, .tok_begin = tok_begin, .pos_begin = pos_begin};
    const qni_kv kv = qni_block_pool_kv(&pool);
    const qni_transformer t = qni_model_transformer(model);
    const qni_step_input in = {.batch = &batch, .kv = &kv};
    qni_scratch scratch = {0};
    const qni_run run = qni_device_run(model->device, &scratch, true, err);
    const qni_step_buffers b = qni_step_alloc(&run, &t, n_tok, traces);
    QN_TRY(qni_forward(&run, &t, &in, &b.output));
    QN_TRY(qni_logits(&run, &t, b.logits, b.rows));
    if (run.ops->sample != NULL) QN_TRY(run.ops->sample(&run, b.ids, b.logits, NULL));
    QN_TRY(measure_decode(&run, &t, &in));
    *bytes = scratch.peak;
    return QN_OK;
}
