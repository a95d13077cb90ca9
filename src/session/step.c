/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a step is computed: its batch, the forward pass, then the logits of the wanted tokens. If the device samples, the
 * logits of tokens whose next id is sampled stay on the device, and only the ids are returned.
 */
#include "step.h"

#include <math.h>
#include <string.h>

qni_step qni_step_plan(qni_portion *portions, int32_t n_portion) {
    qni_step st = {.pool = portions[0].session->pool, .portions = portions};
    for (; st.n_seq < n_portion && st.n_tok < st.pool->settings.n_batch; st.n_seq++) {
        qni_portion *p = &portions[st.n_seq];
        const int64_t most = qni_min_i64(p->session->n_batch, st.pool->settings.n_batch - st.n_tok);
        p->n_tok = p->n_left < (size_t)most ? (int32_t)p->n_left : (int32_t)most;
        st.n_tok += p->n_tok;
        st.max_block = (int32_t)qni_max_i64(st.max_block, p->session->seq.n_block);
        st.traces = st.traces || p->session->tap.hidden != NULL;
    }
    return st;
}

/* Whether the id after a portion is sampled on the device. */
static bool is_sampled(const qni_portion *p) {
    return p->feed != NULL && p->feed->n_sample > 0 && (size_t)p->n_tok == p->n_left;
}

/* What the device needs in order to sample. The ids of this step must already be in the sequence. */
static qni_sampling sampling_of(const qni_portion *p) {
    qni_sequence *seq = &p->session->seq;
    qni_sampling sampling = p->feed->sampling;
    memcpy(seq->ids + seq->n_tok, p->ids, (size_t)p->n_tok * sizeof *seq->ids);
    sampling.ids = seq->ids;
    sampling.n_id = seq->n_tok + p->n_tok;
    return sampling;
}

/* Fill the pool's arrays. The caller holds the device. */
static qni_batch fill_arrays(qni_step *st) {
    const qni_step_arrays *a = &st->pool->step;
    int32_t at = 0;
    for (int32_t s = 0; s < st->n_seq; s++) {
        const qni_portion *p = &st->portions[s];
        const qni_sequence *seq = &p->session->seq;
        a->tok_begin[s] = at;
        a->pos_begin[s] = seq->n_tok;
        memcpy(a->block_table + (size_t)s * (size_t)st->max_block, seq->blocks,
               (size_t)seq->n_block * sizeof *seq->blocks);
        memcpy(a->ids + at, p->ids, (size_t)p->n_tok * sizeof *a->ids);
        at += p->n_tok;
        for (int32_t t = at - p->n_tok; t < at; t++) {
            const bool is_last = t + 1 == at && (size_t)p->n_tok == p->n_left;
            if (p->logits != NULL || is_last) a->wanted[st->n_wanted++] = t;
        }
    }
    a->tok_begin[st->n_seq] = at;
    return (qni_batch){.n_tok = at,
                       .n_seq = st->n_seq,
                       .max_block = st->max_block,
                       .tok_begin = a->tok_begin,
                       .pos_begin = a->pos_begin,
                       .block_table = a->block_table};
}

/* Copy the logits of token t to the session: kept if they belong to its last id, and passed to its callback. */
static qn_status store_logits(const qni_run *run, qni_step *st, const qni_batch *batch, int32_t t,
                              const float *logits) {
    const int32_t s = qni_batch_seq(batch, t), i = t - batch->tok_begin[s];
    const qni_portion *p = &st->portions[s];
    qn_session *session = p->session;
    const int32_t n_vocab = session->model->config.n_vocab;
    session->has_logits = false; /* until the step is committed */
    QN_TRY(qni_read(run, session->logits, logits, (size_t)n_vocab * sizeof *logits));
    st->canceled = p->logits != NULL && !p->logits(p->user, batch->pos_begin[s] + i, session->logits, n_vocab);
    return QN_OK;
}

/* Sample the next ids of n tokens on the device. */
static qn_status sample(const qni_run *run, const qni_step *st, const qni_batch *batch, const int32_t *wanted,
                        int32_t n, qni_mat logits, int32_t *sampled) {
    qni_sampling sampling[QNI_HEAD_ROWS];
    int32_t ids[QNI_HEAD_ROWS];
    for (int32_t r = 0; r < n; r++) sampling[r] = sampling_of(&st->portions[qni_batch_seq(batch, wanted[r])]);
    QN_TRY(run->ops->sample(run, sampled, logits, sampling));
    QN_TRY(qni_read(run, ids, sampled, (size_t)n * sizeof *ids));
    for (int32_t r = 0; r < n; r++) {
        qni_portion *p = &st->portions[qni_batch_seq(batch, wanted[r])];
        p->is_bad = ids[r] < 0;
        p->n_sampled = p->is_bad ? 0 : 1;
        p->session->has_logits = false;
        if (!p->is_bad) sampling[r].ids[sampling[r].n_id] = ids[r];
    }
    return QN_OK;
}

/* How many of the wanted tokens, at most `most`, can be handled together: all sampled on the device, or none. */
static int32_t count_alike(const qni_step *st, const qni_batch *batch, const int32_t *wanted, int32_t most,
                           bool *sampled) {
    *sampled = is_sampled(&st->portions[qni_batch_seq(batch, wanted[0])]);
    int32_t n = 1;
    while (n < most && is_sampled(&st->portions[qni_batch_seq(batch, wanted[n])]) == *sampled) n++;
    return n;
}

/* Logits of the wanted tokens, QNI_HEAD_ROWS at a time. */
static qn_status run_head(const qni_run *run, qni_step *st, const qni_transformer *model, const qni_batch *batch,
                          const qni_step_buffers *b) {
    const qni_mat *hidden = &b->output.hidden;
    for (int32_t first = 0, n; first < st->n_wanted && !st->canceled; first += n) {
        const int32_t *wanted = st->pool->step.wanted + first;
        bool sampled;
        n = count_alike(st, batch, wanted, (int32_t)qni_min_i64(st->n_wanted - first, b->rows.n_row), &sampled);
        const qni_mat x = qni_mat_of(b->rows.data, QN_DTYPE_F32, n, hidden->n_col);
        const qni_mat logits = qni_mat_of(b->logits.data, QN_DTYPE_F32, n, b->logits.n_col);
        for (int64_t r = 0; r < n; r++) {
            QN_TRY(qni_copy(run, qni_mat_row(&x, r), qni_mat_row(hidden, wanted[r]), (size_t)x.n_col * sizeof(float)));
        }
        QN_TRY(qni_logits(run, model, logits, x));
        if (sampled) QN_TRY(sample(run, st, batch, wanted, n, logits, b->ids));
        for (int64_t r = 0; r < n && !sampled && !st->canceled; r++) {
            QN_TRY(store_logits(run, st, batch, wanted[r], qni_mat_row(&logits, r)));
        }
    }
    return QN_OK;
}

/* Pass the hidden states to the sessions that have a tap. */
static qn_status report_trace(const qni_run *run, const qni_step *st, const qni_batch *batch,
                              const qni_step_output *out) {
    if (out->trace == NULL) return QN_OK;
    const int32_t n_state = st->pool->model->config.n_layer + 1;
    const int64_t d_model = out->hidden.n_col;
    float *row = qni_device_host(st->pool->model->device, (size_t)d_model * sizeof *row);
    if (row == NULL) return qni_fail(run->err, QN_ENOMEM, "trace: no memory for a row");
    for (int32_t state = 0; state < n_state; state++) {
        for (int32_t s = 0; s < st->n_seq; s++) {
            const qn_tap *tap = &st->portions[s].session->tap;
            for (int32_t t = batch->tok_begin[s]; t < batch->tok_begin[s + 1] && tap->hidden != NULL; t++) {
                const float *from = out->trace + (state * batch->n_tok + t) * d_model;
                QN_TRY(qni_read(run, row, from, (size_t)d_model * sizeof *row));
                tap->hidden(tap->user, state, batch->pos_begin[s] + t - batch->tok_begin[s], row, (int32_t)d_model);
            }
        }
    }
    return QN_OK;
}

/* In integers and without branches, so that it takes only microseconds while all threads wait: the bit patterns of
 * magnitudes are ordered like their values, with infinity and NaN at the top. */
static bool are_finite(const float *x, int32_t n) {
    int32_t greatest = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= INT32_MAX;
        greatest = bits > greatest ? bits : greatest;
    }
    return greatest < 0x7F800000;
}

qn_status qni_step_bad_logits(const qn_session *s, qn_error *err) {
    int32_t id = 0;
    while (isfinite(s->logits[id])) id++;
    return qni_fail(err, QN_ENUMERIC, "logits of position %d: that of id %d is %s", s->seq.n_tok - 1, id,
                    isnan(s->logits[id]) ? "NaN" : "infinite");
}

/* Append the computed tokens to the sequences. */
static qn_status commit(const qni_step *st, qn_error *err) {
    qn_status status = QN_OK;
    for (int32_t i = 0; i < st->n_seq; i++) {
        qni_portion *p = &st->portions[i];
        qn_session *s = p->session;
        qni_sequence_append(&s->seq, p->ids, p->n_tok);
        /* the last of the sampled ids is not computed */
        if (p->n_sampled > 1) qni_sequence_append(&s->seq, s->seq.ids + s->seq.n_tok, p->n_sampled - 1);
        p->ids += p->n_tok;
        p->n_left -= (size_t)p->n_tok;
        p->n_tok = 0;
        s->has_logits = !st->canceled && p->n_left == 0 && p->n_sampled == 0 && !p->is_bad;
        if (!s->has_logits || are_finite(s->logits, s->model->config.n_vocab)) continue;
        s->has_logits = false;
        status = qni_step_bad_logits(s, err);
    }
    return status;
}

/* Whether the backend's own step can run this one: ids of all sequences are sampled, and hidden states are not
 * requested. */
static bool uses_step_op(const qni_step *st) {
    if (st->pool->model->device->ops.step == NULL || st->traces) return false;
    const bool single = st->pool->model->device->backend->steps_single;
    for (int32_t s = 0; s < st->n_seq; s++) {
        if (single && st->portions[s].n_tok > 1) return false;
        if (!is_sampled(&st->portions[s])) return false;
    }
    return true;
}

static qn_status run_decode(const qni_run *run, const qni_step *st, const qni_transformer *model,
                            const qni_step_input *in) {
    const qni_step_arrays *a = &st->pool->step;
    int32_t n_token = st->pool->model->device->backend->step_tokens;
    for (int32_t s = 0; s < st->n_seq; s++) {
        const qni_portion *p = &st->portions[s];
        a->sampling[s] = sampling_of(p);
        a->n_sampled[s] = 0;
        a->is_bad[s] = false;
        n_token = p->feed->n_sample < n_token ? p->feed->n_sample : n_token;
    }
    const qni_decode decode = {
        .sampling = a->sampling, .n_token = n_token, .n_sampled = a->n_sampled, .is_bad = a->is_bad};
    QN_TRY(run->ops->step(run, model, in, &decode));
    for (int32_t s = 0; s < st->n_seq; s++) {
        qni_portion *p = &st->portions[s];
        p->n_sampled = a->n_sampled[s];
        p->is_bad = a->is_bad[s];
        p->session->has_logits = false;
    }
    return QN_OK;
}

/* Run the forward pass and the LM head, and pass the results to the sessions. */
static qn_status run_forward(const qni_run *run, qni_step *st, const qni_transformer *model, const qni_step_input *in) {
    const qni_step_buffers b = qni_step_alloc(run, model, st->n_tok, st->traces);
    QN_TRY(qni_forward(run, model, in, &b.output));
    QN_TRY(report_trace(run, st, in->batch, &b.output));
    return run_head(run, st, model, in->batch, &b);
}

qn_status qni_step_run(qni_step *st, qn_error *err) {
    qn_kv_pool *pool = st->pool;
    qn_device *device = pool->model->device;
    QN_TRY(qni_device_lock(device, err));
    const qni_batch batch = fill_arrays(st);
    const qni_kv kv = qni_block_pool_kv(pool->blocks);
    const qni_transformer model = qni_model_transformer(pool->model);
    const qni_step_input in = {
        .batch = &batch, .ids = pool->step.ids, .kv = &kv, .rope = {pool->inv_freq, pool->attention_factor}};
    /* It was reserved when the sessions were created, but may be gone if another call failed to enlarge it. */
    qn_status status = qni_device_reserve(device, pool->scratch_bytes, err);
    if (status != QN_OK) {
        qni_device_unlock(device);
        return status;
    }
    qni_scratch scratch;
    const qni_run run = qni_device_run(device, &scratch, false, err);
    status = uses_step_op(st) ? run_decode(&run, st, &model, &in) : run_forward(&run, st, &model, &in);
    qni_device_unlock(device);
    return status == QN_OK ? commit(st, err) : status;
}
