/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one definition of the model: embedding, n_layer decoder layers, final norm and lm_head, over rows of any mixture
 * of sequences. The layer itself is the backend's; see ops.h for its formulas.
 *
 * The hidden stream is f32 whatever the weights are. Source: Qwen3Model in transformers, arXiv 2505.09388.
 */
#include "forward.h"

#include <math.h>
#include <string.h>

static qni_kv kv_of_layer(const qni_forward_call *call, int32_t layer) {
    const qn_model_config *config = &call->model->config;
    int64_t row = qni_kv_row_elements(call->kv_dtype, config->head_dim), head = (int64_t)call->n_ctx * row;
    size_t plane = (size_t)config->n_kv_head * (size_t)head * qn_dtype_bytes(call->kv_dtype);
    return (qni_kv){
        .k_page = call->pages,
        .v_page = call->pages,
        .k_offset_bytes = 2 * (size_t)layer * plane,
        .v_offset_bytes = (2 * (size_t)layer + 1) * plane,
        .pages_per_seq = 1,
        .page_tokens = call->n_ctx,
        .n_kv_head = config->n_kv_head,
        .head_dim = config->head_dim,
        .k_dtype = call->kv_dtype,
        .v_dtype = call->kv_dtype,
        .k_head_stride = head,
        .k_token_stride = row,
        .v_head_stride = head,
        .v_token_stride = row,
    };
}

static qni_mat take_rows(const qni_run *run, int64_t n_row, int64_t n_col) {
    return qni_mat_of(qni_scratch_take(run->scratch, (size_t)n_row * (size_t)n_col * sizeof(float)), QN_DTYPE_F32,
                      n_row, n_col);
}

/* Logits of the wanted rows, QNI_HEAD_ROWS at a time. The first portion is the largest, so it measures for all. */
static qn_status head(const qni_run *run, const qni_forward_call *call, const qni_mat *hidden) {
    const qn_model *model = call->model;
    int32_t most = call->n_logit_row < QNI_HEAD_ROWS ? call->n_logit_row : QNI_HEAD_ROWS;
    if (most == 0) return QN_OK;
    size_t mark = run->scratch->used;
    qni_mat x = take_rows(run, most, model->config.d_model);
    qni_mat logits = take_rows(run, most, model->config.n_vocab);
    if (call->n_logit_row == 1 && !qni_scratch_measures(run->scratch)) {
        float *room = call->sink.room(call->sink.user, call->logit_rows[0]);
        if (room != NULL) logits.data = room;
    }
    for (int32_t first = 0; first < call->n_logit_row; first += most) {
        const int32_t *rows = call->logit_rows + first;
        int32_t n = call->n_logit_row - first < most ? call->n_logit_row - first : most;
        x = qni_mat_of(x.data, x.dtype, n, x.n_col);
        logits = qni_mat_of(logits.data, logits.dtype, n, logits.n_col);
        bool measures = qni_scratch_measures(run->scratch);
        for (int32_t r = 0; r < n && !measures; r++) {
            memcpy(qni_mat_row(&x, r), qni_mat_row(hidden, rows[r]), (size_t)x.n_col * sizeof(float));
        }
        QN_TRY(run->ops->head(run, logits, x, model->norm, &model->lm_head, model->config.rms_eps));
        if (measures) break;
        for (int32_t r = 0; r < n; r++) {
            if (!call->sink.logits(call->sink.user, rows[r], qni_mat_row(&logits, r))) {
                return qni_fail(run->err, QN_ECANCELED, "canceled by the logits callback");
            }
        }
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_forward(const qni_run *run, const qni_forward_call *call) {
    const qn_model *model = call->model;
    const qn_model_config *config = &model->config;
    const qni_forward_sink *sink = &call->sink;
    bool measures = qni_scratch_measures(run->scratch);
    size_t mark = run->scratch->used;

    qni_mat hidden = take_rows(run, call->rows.n_row, config->d_model);
    qni_mat cos_sin = take_rows(run, call->rows.n_row, config->head_dim);
    if (!measures) {
        qni_rope_fill(cos_sin.data, call->rows.pos, call->rows.n_row, call->inv_freq, call->attention_factor,
                      config->head_dim);
    }
    qni_attention_call attention = {
        .rows = call->rows,
        .rope = {cos_sin.data},
        .scale = 1 / sqrt((double)config->head_dim),
        .eps = config->rms_eps,
    };

    QN_TRY(run->ops->embed(run, hidden, &model->embedding, call->ids));
    if (sink->hidden != NULL && !measures) sink->hidden(sink->user, 0, &hidden);

    for (int32_t i = 0; i < config->n_layer; i++) { /* measured one by one: dtypes may differ between them */
        qni_kv kv = kv_of_layer(call, i);
        QN_TRY(run->ops->layer(run, hidden, hidden, &model->layers[i], &kv, &attention));
        bool last = i + 1 == config->n_layer;
        if (sink->hidden != NULL && !measures && !last) sink->hidden(sink->user, i + 1, &hidden);
    }

    QN_TRY(head(run, call, &hidden));
    if (sink->hidden != NULL) {
        QN_TRY(run->ops->rms_norm(run, hidden, hidden, model->norm, config->rms_eps));
        if (!measures) sink->hidden(sink->user, config->n_layer, &hidden);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static void no_tap(void *user, int32_t state, const qni_mat *hidden) {
    (void)user;
    (void)state;
    (void)hidden;
}

/* n_row rows at the end of one sequence, with logits of all of them and a tap. Fewer rows need no more: see backend.h. */
qn_status qni_forward_measure(size_t *bytes, const qn_model *model, int32_t n_row, int32_t n_ctx, qn_dtype kv_dtype,
                              qn_error *err) {
    int32_t *arrays = qni_calloc(2 * (size_t)n_row, sizeof *arrays);
    if (arrays == NULL) return qni_fail(err, QN_ENOMEM, "forward: no memory for %d rows", n_row);
    int32_t *zeros = arrays, *pos = arrays + n_row;
    for (int32_t r = 0; r < n_row; r++) pos[r] = n_ctx - n_row + r;
    void *page = NULL;
    qni_forward_call call = {
        .model = model,
        .rows = {n_row, 1, zeros, pos},
        .ids = zeros,
        .pages = &page,
        .n_ctx = n_ctx,
        .kv_dtype = kv_dtype,
        .logit_rows = zeros,
        .n_logit_row = n_row,
        .sink = {.hidden = no_tap},
    };
    qni_scratch scratch = {0};
    qni_run run = qni_device_run(model->device, &scratch, true, err);
    qn_status status = qni_forward(&run, &call);
    if (status == QN_OK) *bytes = scratch.peak;
    qni_free(arrays);
    return status;
}
