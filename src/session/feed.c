/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How sessions compute: ids are cut into steps of at most n_batch tokens, each step is one qni_step(), and the sequences
 * take over what a step that succeeded has computed.
 */
#include "session.h"

#include <math.h>
#include <string.h>

/* What is left of one session's ids, and what of it is in the current step. */
typedef struct portion {
    qn_session *session;
    size_t keep; /* tokens of the sequence that the ids follow */
    const int32_t *ids;
    size_t n_left;
    qn_logits_fn logits; /* of each position; NULL: of the last alone */
    void *user;
    qni_feed *feed; /* in qni_session_feed: what it is of */
    int32_t n_tok;  /* in this step */
} portion;

/* A step of sessions on one pool. */
typedef struct step {
    qn_kv_pool *pool;
    portion *portions; /* {n_seq}, in the order of their tokens */
    int32_t n_seq, n_tok, n_wanted, max_block;
    bool traces;
    bool canceled; /* by a callback */
} step;

/* As many tokens of the portions as one step takes, of each as many as its session does; the others are left with n_tok
 * 0. */
static step plan_step(portion *portions, int32_t n_portion) {
    step st = {.pool = portions[0].session->pool, .portions = portions};
    for (; st.n_seq < n_portion && st.n_tok < st.pool->settings.n_batch; st.n_seq++) {
        portion *p = &portions[st.n_seq];
        const int64_t most = qni_min_i64(p->session->n_batch, st.pool->settings.n_batch - st.n_tok);
        p->n_tok = p->n_left < (size_t)most ? (int32_t)p->n_left : (int32_t)most;
        st.n_tok += p->n_tok;
        st.max_block = (int32_t)qni_max_i64(st.max_block, p->session->seq.n_block);
        st.traces = st.traces || p->session->tap.hidden != NULL;
    }
    return st;
}

/* Fill the pool's arrays. The caller holds the device. */
static qni_batch fill_arrays(step *st) {
    const qni_step_arrays *a = &st->pool->step;
    int32_t at = 0;
    for (int32_t s = 0; s < st->n_seq; s++) {
        const portion *p = &st->portions[s];
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

/* The logits of token t come to its session: to stay if they are the last of its ids, and for its callback. */
static qn_status take_logits(const qni_run *run, step *st, const qni_batch *batch, int32_t t, const float *logits) {
    const int32_t s = qni_batch_seq(batch, t), i = t - batch->tok_begin[s];
    const portion *p = &st->portions[s];
    qn_session *session = p->session;
    const int32_t n_vocab = session->model->config.n_vocab;
    session->has_logits = false; /* until the step is committed */
    QN_TRY(qni_read(run, session->logits, logits, (size_t)n_vocab * sizeof *logits));
    st->canceled = p->logits != NULL && !p->logits(p->user, batch->pos_begin[s] + i, session->logits, n_vocab);
    return QN_OK;
}

/* Logits of the wanted tokens, QNI_HEAD_ROWS at a time. */
static qn_status run_head(const qni_run *run, step *st, const qni_batch *batch, const qni_step_buffers *b) {
    const qn_model *model = st->pool->model;
    const qni_mat *hidden = &b->output.hidden;
    const int32_t *wanted = st->pool->step.wanted;
    for (int32_t first = 0; first < st->n_wanted && !st->canceled; first += (int32_t)b->rows.n_row) {
        const int64_t n = qni_min_i64(st->n_wanted - first, b->rows.n_row);
        const qni_mat x = qni_mat_of(b->rows.data, QN_DTYPE_F32, n, hidden->n_col);
        const qni_mat logits = qni_mat_of(b->logits.data, QN_DTYPE_F32, n, b->logits.n_col);
        for (int64_t r = 0; r < n; r++) {
            QN_TRY(qni_copy(run, qni_mat_row(&x, r), qni_mat_row(hidden, wanted[first + r]),
                            (size_t)x.n_col * sizeof(float)));
        }
        QN_TRY(qni_logits(run, model, logits, x));
        for (int64_t r = 0; r < n && !st->canceled; r++) {
            QN_TRY(take_logits(run, st, batch, wanted[first + r], qni_mat_row(&logits, r)));
        }
    }
    return QN_OK;
}

/* Hand the hidden states to the sessions that have a tap. */
static qn_status report_trace(const qni_run *run, const step *st, const qni_batch *batch, const qni_step_output *out) {
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

/* In integers and without a jump, so that it is a matter of microseconds while all threads wait: the bits of magnitudes
 * are in the order of their values, infinity and NaN above all. */
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

static qn_status bad_logits(const qn_session *s, qn_error *err) {
    int32_t id = 0;
    while (isfinite(s->logits[id])) id++;
    return qni_fail(err, QN_ENUMERIC, "logits of position %d: that of id %d is %s", s->seq.n_tok - 1, id,
                    isnan(s->logits[id]) ? "NaN" : "infinite");
}

/* The sequences take over what was computed. */
static qn_status commit(const step *st, qn_error *err) {
    qn_status status = QN_OK;
    for (int32_t i = 0; i < st->n_seq; i++) {
        portion *p = &st->portions[i];
        qn_session *s = p->session;
        qni_sequence_append(&s->seq, p->ids, p->n_tok);
        p->ids += p->n_tok;
        p->n_left -= (size_t)p->n_tok;
        p->n_tok = 0;
        s->has_logits = !st->canceled && p->n_left == 0;
        if (!s->has_logits || are_finite(s->logits, s->model->config.n_vocab)) continue;
        s->has_logits = false;
        status = bad_logits(s, err);
    }
    return status;
}

static qn_status run_step(step *st, qn_error *err) {
    qn_kv_pool *pool = st->pool;
    qn_device *device = pool->model->device;
    QN_TRY(qni_device_lock(device, err));
    const qni_batch batch = fill_arrays(st);
    const qni_step_input in = {
        .batch = &batch, .ids = pool->step.ids, .pool = pool->blocks, .rope = {pool->inv_freq, pool->attention_factor}};
    /* It was reserved when the sessions were created, but may be gone since another call found no memory for more. */
    qn_status status = qni_device_reserve(device, pool->scratch_bytes, err);
    if (status != QN_OK) {
        qni_device_unlock(device);
        return status;
    }
    qni_scratch scratch;
    const qni_run run = qni_device_run(device, &scratch, false, err);
    const qni_step_buffers b = qni_step_take(&run, pool->model, st->n_tok, st->traces);
    status = qni_step(&run, pool->model, &in, &b.output);
    if (status == QN_OK) status = report_trace(&run, st, &batch, &b.output);
    if (status == QN_OK) status = run_head(&run, st, &batch, &b);
    qni_device_unlock(device);
    return status == QN_OK ? commit(st, err) : status;
}

void qni_session_trim(qn_session *session) {
    qni_sequence_rewind(&session->seq, session->seq.n_tok);
}

/* Blocks for all ids of the portions, or for none. A sequence that has to be cut is the only portion. */
static qn_status reserve(const portion *portions, int32_t n, qn_error *err) {
    for (int32_t i = 0; i < n; i++) {
        const portion *p = &portions[i];
        const bool cuts = p->keep < (size_t)p->session->seq.n_tok;
        qn_status status = qni_sequence_reserve(&p->session->seq, (int32_t)p->keep, (int32_t)p->n_left, err);
        if (status == QN_OK && cuts) p->session->has_logits = false;
        if (status == QN_OK) continue;
        for (int32_t k = 0; k <= i; k++) qni_session_trim(portions[k].session);
        return status;
    }
    return QN_OK;
}

/* Those that have ids left, in order. */
static int32_t remove_finished(portion *portions, int32_t n) {
    int32_t n_left = 0;
    for (int32_t i = 0; i < n; i++) {
        if (portions[i].n_left > 0) portions[n_left++] = portions[i];
    }
    return n_left;
}

/* Compute all of the portions, whose sessions are on one pool. Logits of one session that are not finite do not concern the
 * others: ENUMERIC, of the first, is returned when all are computed. */
static qn_status feed(portion *portions, int32_t n_portion, qn_error *err) {
    qn_status result = QN_OK;
    while (n_portion > 0) {
        qn_error error = {0};
        step st = plan_step(portions, n_portion);
        qn_status status = run_step(&st, &error);
        if (status == QN_OK && st.canceled) {
            status = qni_fail(&error, QN_ECANCELED, "canceled by the logits callback");
        }
        const bool goes_on = status == QN_OK || status == QN_ENUMERIC;
        if (status != QN_OK && (result == QN_OK || !goes_on)) result = qni_fail(err, status, "%s", error.message);
        if (!goes_on) {
            for (int32_t i = 0; i < n_portion; i++) qni_session_trim(portions[i].session);
            return result;
        }
        n_portion = remove_finished(portions, n_portion);
    }
    return result;
}

static qn_status check_ids(const qn_session *s, const int32_t *ids, size_t n_ids, qn_error *err) {
    if (s == NULL || ids == NULL) {
        return qni_fail(err, QN_EINVAL, "session: %s is NULL", s == NULL ? "it" : "ids");
    }
    if (n_ids < 1) return qni_fail(err, QN_EINVAL, "n_ids: must be >= 1, got 0");
    int32_t n_vocab = s->model->config.n_vocab;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            return qni_fail(err, QN_EINVAL, "ids[%zu]: must be within 0 … %d, got %d", i, n_vocab - 1, ids[i]);
        }
    }
    return QN_OK;
}

static qn_status check_room(const qn_session *s, size_t n_tok, size_t n_ids, qn_error *err) {
    if (n_ids > (size_t)s->n_ctx - n_tok) {
        return qni_fail(err, QN_EFULL, "context: %d tokens are too few for %zu", s->n_ctx, n_tok + n_ids);
    }
    return QN_OK;
}

qn_status qni_session_match(const qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_kept,
                            qn_error *err) {
    QN_TRY(check_ids(session, ids, n_ids, err));
    QN_TRY(check_room(session, 0, n_ids, err));
    const qni_sequence *seq = &session->seq;
    size_t keep = 0;
    while (keep < n_ids && keep < (size_t)seq->n_tok && seq->ids[keep] == ids[keep]) keep++;
    if (keep == n_ids && !(session->has_logits && (size_t)seq->n_tok == n_ids)) keep--;
    *n_kept = keep;
    return QN_OK;
}

/* Blocks for all ids of a feed. */
static void reserve_feed(qni_feed *f) {
    const portion all = {.session = f->session, .keep = f->n_kept, .ids = f->ids, .n_left = f->n_ids};
    f->n_done = 0;
    f->status = check_room(f->session, f->n_kept, f->n_ids, f->err);
    if (f->status == QN_OK) f->status = reserve(&all, 1, f->err);
}

/* Those of the feeds from `first` on that have ids and whose sessions are on the pool of feeds[first], single ids first; none
 * if an earlier feed's session is on it. */
static int32_t collect_feeds(portion *out, qni_feed *feeds, int32_t n_feed, int32_t first) {
    const qn_kv_pool *pool = feeds[first].session->pool;
    for (int32_t i = 0; i < first; i++) {
        if (feeds[i].session->pool == pool) return 0;
    }
    int32_t n = 0;
    for (int longer = 0; longer < 2; longer++) {
        for (int32_t i = first; i < n_feed; i++) {
            qni_feed *f = &feeds[i];
            if (f->session->pool != pool || f->status != QN_OK || f->n_ids == 0 || (f->n_ids > 1) != longer) continue;
            out[n++] =
                (portion){.session = f->session, .keep = f->n_kept, .ids = f->ids, .n_left = f->n_ids, .feed = f};
        }
    }
    return n;
}

/* Tell the feed what a step made of its portion. One that has failed is not computed further. */
static void conclude(portion *p, qn_status status, const qn_error *error) {
    qni_feed *f = p->feed;
    f->n_done = f->n_ids - p->n_left;
    if (status != QN_OK && status != QN_ENUMERIC) {
        f->status = qni_fail(f->err, status, "%s", error->message);
    } else if (p->n_left == 0 && !p->session->has_logits) {
        f->status = bad_logits(p->session, f->err);
    }
    if (f->status == QN_OK) return;
    p->n_left = 0;
    qni_session_trim(p->session);
}

/* All single ids, and one step with longer portions. */
static void feed_pool(portion *portions, int32_t n_portion) {
    bool has_longer = false;
    while (n_portion > 0 && (portions[0].feed->n_ids == 1 || !has_longer)) {
        qn_error error = {0};
        step st = plan_step(portions, n_portion);
        const qn_status status = run_step(&st, &error);
        for (int32_t i = 0; i < st.n_seq; i++) {
            has_longer = has_longer || portions[i].feed->n_ids > 1;
            conclude(&portions[i], status, &error);
        }
        n_portion = remove_finished(portions, n_portion);
    }
}

qn_status qni_session_feed(qni_feed *feeds, int32_t n_feed, qn_error *err) {
    portion one, *portions = &one;
    if (n_feed > 1) portions = qni_calloc((size_t)n_feed, sizeof *portions);
    if (portions == NULL) return qni_fail(err, QN_ENOMEM, "batch: no memory for %d sessions", n_feed);
    for (int32_t i = 0; i < n_feed; i++) reserve_feed(&feeds[i]);
    for (int32_t i = 0; i < n_feed; i++) feed_pool(portions, collect_feeds(portions, feeds, n_feed, i));
    if (portions != &one) qni_free(portions);
    return QN_OK;
}

qn_status qn_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused, qn_error *err) {
    size_t kept = 0;
    QN_TRY(qni_session_match(session, ids, n_ids, &kept, err));
    if (kept < n_ids) {
        portion all = {.session = session, .keep = kept, .ids = ids + kept, .n_left = n_ids - kept};
        QN_TRY(reserve(&all, 1, err));
        QN_TRY(feed(&all, 1, err));
    }
    if (n_reused != NULL) *n_reused = kept;
    return QN_OK;
}

qn_status qn_session_step(qn_session *session, int32_t id, qn_error *err) {
    return qn_session_append(session, &id, 1, NULL, NULL, err);
}

qn_status qn_session_append(qn_session *session, const int32_t *ids, size_t n_ids, qn_logits_fn logits, void *user,
                            qn_error *err) {
    QN_TRY(check_ids(session, ids, n_ids, err));
    QN_TRY(check_room(session, (size_t)session->seq.n_tok, n_ids, err));
    portion all = {.session = session,
                   .keep = (size_t)session->seq.n_tok,
                   .ids = ids,
                   .n_left = n_ids,
                   .logits = logits,
                   .user = user};
    QN_TRY(reserve(&all, 1, err));
    return feed(&all, 1, err);
}

/* Sessions are marked while their spans are looked at, to find one that comes twice. */
static qn_status check_batch(const qn_span *spans, size_t n_span, qn_error *err) {
    qn_status status = QN_OK;
    size_t n_marked = 0;
    for (size_t i = 0; i < n_span && status == QN_OK; i++) {
        status = check_ids(spans[i].session, spans[i].ids, spans[i].n_ids, err);
        if (status != QN_OK) break;
        if (spans[i].session->model != spans[0].session->model) {
            status = qni_fail(err, QN_EINVAL, "spans[%zu]: its session is of another model than spans[0]", i);
        } else if (spans[i].session->marked) {
            status = qni_fail(err, QN_EINVAL, "spans[%zu]: its session is there twice", i);
        } else {
            spans[i].session->marked = true;
            n_marked++;
        }
    }
    for (size_t i = 0; i < n_marked; i++) spans[i].session->marked = false;
    for (size_t i = 0; i < n_span && status == QN_OK; i++) {
        status = check_room(spans[i].session, (size_t)spans[i].session->seq.n_tok, spans[i].n_ids, err);
    }
    return status;
}

/* The portions of the spans from `first` on whose sessions are on the pool of spans[first]; none if an earlier span's is. */
static int32_t collect(portion *out, const qn_span *spans, size_t n_span, size_t first) {
    const qn_kv_pool *pool = spans[first].session->pool;
    for (size_t i = 0; i < first; i++) {
        if (spans[i].session->pool == pool) return 0;
    }
    int32_t n = 0;
    for (size_t i = first; i < n_span; i++) {
        if (spans[i].session->pool != pool) continue;
        out[n++] = (portion){.session = spans[i].session,
                             .keep = (size_t)spans[i].session->seq.n_tok,
                             .ids = spans[i].ids,
                             .n_left = spans[i].n_ids,
                             .logits = spans[i].logits,
                             .user = spans[i].user};
    }
    return n;
}

/* Pool after pool. Blocks are reserved for all before any is computed. */
static qn_status append_all(portion *portions, const qn_span *spans, size_t n_span, qn_error *err) {
    size_t n_all = 0;
    for (size_t first = 0; first < n_span; first++) n_all += (size_t)collect(portions + n_all, spans, n_span, first);
    QN_TRY(reserve(portions, (int32_t)n_all, err));
    qn_status result = QN_OK;
    for (size_t first = 0, n = 0; first < n_all; first += n) {
        for (n = 1; first + n < n_all; n++) {
            if (portions[first + n].session->pool != portions[first].session->pool) break;
        }
        qn_error error = {0};
        const qn_status status = feed(portions + first, (int32_t)n, &error);
        const bool goes_on = status == QN_OK || status == QN_ENUMERIC;
        if (status != QN_OK && (result == QN_OK || !goes_on)) result = qni_fail(err, status, "%s", error.message);
        if (goes_on) continue;
        for (size_t i = first + n; i < n_all; i++) qni_session_trim(portions[i].session);
        break;
    }
    return result;
}

qn_status qn_session_append_batch(const qn_span *spans, size_t n_span, qn_error *err) {
    if (spans == NULL || n_span < 1 || n_span > INT32_MAX) {
        return qni_fail(err, QN_EINVAL, "spans: must be 1 … %d, got %zu", INT32_MAX, spans == NULL ? 0 : n_span);
    }
    QN_TRY(check_batch(spans, n_span, err));
    portion *portions = qni_calloc(n_span, sizeof *portions);
    if (portions == NULL) return qni_fail(err, QN_ENOMEM, "spans: no memory for %zu", n_span);
    qn_status status = append_all(portions, spans, n_span, err);
    qni_free(portions);
    return status;
}
