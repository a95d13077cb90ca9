/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How sessions compute: ids are cut into passes of at most n_batch rows, each pass is one qni_forward(), and a pass
 * that succeeded is added to the timelines.
 */
#include "session.h"

#include <math.h>
#include <string.h>

/* What is left of one session's ids, and what of it is in the current pass. */
typedef struct portion {
    qn_session *session;
    const int32_t *ids;
    size_t n_left;
    qn_logits_fn logits; /* of each position; NULL: of the last alone */
    void *user;
    int32_t n_row; /* in this pass */
} portion;

typedef struct pass {
    qn_session *leader; /* lends its arrays */
    portion *portions;  /* {n_seq}, in the order of their rows */
    int32_t n_seq, n_row, n_logit_row;
} pass;

/* Whether row r of a pass ends its portion. */
static bool ends(const pass *p, int32_t r) {
    const portion *q = &p->portions[p->leader->row_seq[r]];
    return (size_t)q->n_row == q->n_left && p->leader->row_pos[r] + 1 == q->session->n_tok + q->n_row;
}

/* The last row's logits are the session's; there are none from when they are computed until the pass is committed. */
static float *room_for_logits(void *user, int32_t row) {
    const pass *p = user;
    qn_session *s = p->portions[p->leader->row_seq[row]].session;
    if (!ends(p, row)) return NULL;
    s->has_logits = false;
    return s->logits;
}

static bool take_logits(void *user, int32_t row, const float *logits) {
    const pass *p = user;
    const portion *q = &p->portions[p->leader->row_seq[row]];
    int32_t n_vocab = q->session->model->config.n_vocab, position = p->leader->row_pos[row];
    float *room = room_for_logits(user, row);
    if (room != NULL && room != logits) memcpy(room, logits, (size_t)n_vocab * sizeof *logits);
    return q->logits == NULL || q->logits(q->user, position, logits, n_vocab);
}

static void take_hidden(void *user, int32_t state, const qni_mat *hidden) {
    const pass *p = user;
    for (int32_t r = 0; r < p->n_row; r++) {
        const qn_tap *tap = &p->portions[p->leader->row_seq[r]].session->options.tap;
        if (tap->hidden == NULL) continue;
        tap->hidden(tap->user, state, p->leader->row_pos[r], qni_mat_row(hidden, r), (int32_t)hidden->n_col);
    }
}

/* Lay out the rows of the portions, as many as one pass takes; the others are left with n_row 0. */
static pass plan_pass(qn_session *leader, portion *portions, int32_t n_portion) {
    pass p = {.leader = leader, .portions = portions};
    for (; p.n_seq < n_portion && p.n_row < leader->options.n_batch; p.n_seq++) {
        portion *q = &portions[p.n_seq];
        int32_t room = leader->options.n_batch - p.n_row;
        q->n_row = q->n_left < (size_t)room ? (int32_t)q->n_left : room;
        leader->pages[p.n_seq] = q->session->arena;
        for (int32_t i = 0; i < q->n_row; i++, p.n_row++) {
            leader->row_seq[p.n_row] = p.n_seq;
            leader->row_pos[p.n_row] = q->session->n_tok + i;
            leader->row_id[p.n_row] = q->ids[i];
            if (q->logits != NULL || ends(&p, p.n_row)) leader->logit_row[p.n_logit_row++] = p.n_row;
        }
    }
    return p;
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
    return qni_fail(err, QN_ENUMERIC, "logits of position %d: that of id %d is %s", s->n_tok - 1, id,
                    isnan(s->logits[id]) ? "NaN" : "infinite");
}

/* The timelines take over what was computed. */
static qn_status commit(const pass *p, bool complete, qn_error *err) {
    qn_status status = QN_OK;
    for (int32_t i = 0; i < p->n_seq; i++) {
        portion *q = &p->portions[i];
        qn_session *s = q->session;
        memmove(s->ids + s->n_tok, q->ids, (size_t)q->n_row * sizeof *s->ids);
        s->n_tok += q->n_row;
        q->ids += q->n_row;
        q->n_left -= (size_t)q->n_row;
        q->n_row = 0;
        s->has_logits = complete && q->n_left == 0;
        if (!s->has_logits || are_finite(s->logits, s->model->config.n_vocab)) continue;
        s->has_logits = false;
        status = bad_logits(s, err);
    }
    return status;
}

static qn_status run_pass(pass *p, qn_error *err) {
    qn_session *leader = p->leader;
    qn_device *device = leader->model->device;
    qni_forward_call call = {
        .model = leader->model,
        .rows = {p->n_row, p->n_seq, leader->row_seq, leader->row_pos},
        .ids = leader->row_id,
        .pages = leader->pages,
        .n_ctx = leader->options.n_ctx,
        .kv_dtype = leader->options.kv_dtype,
        .inv_freq = leader->inv_freq,
        .attention_factor = leader->attention_factor,
        .logit_rows = leader->logit_row,
        .n_logit_row = p->n_logit_row,
        .sink = {.room = room_for_logits, .logits = take_logits, .user = p},
    };
    for (int32_t i = 0; i < p->n_seq; i++) {
        const qn_session *s = p->portions[i].session;
        if (s->options.tap.hidden != NULL) call.sink.hidden = take_hidden;
    }
    QN_TRY(qni_device_lock(device, err));
    qni_scratch scratch = {0};
    qni_run run = qni_device_run(device, &scratch, true, err);
    qn_status status = qni_forward(&run, &call);
    if (status == QN_OK) status = qni_device_reserve(device, scratch.peak, err);
    if (status == QN_OK) {
        run = qni_device_run(device, &scratch, false, err);
        status = qni_forward(&run, &call);
    }
    qni_device_unlock(device);
    /* A callback cancels when all rows are in the caches already. */
    if (status == QN_ECANCELED) (void)commit(p, false, NULL);
    return status == QN_OK ? commit(p, true, err) : status;
}

/* Compute all of the portions, whose sessions agree in n_ctx, kv_dtype and rope. */
static qn_status feed(portion *portions, int32_t n_portion, const qni_feed_progress *progress, qn_error *err) {
    while (n_portion > 0) {
        qn_session *leader = portions[0].session;
        pass p = plan_pass(leader, portions, n_portion);
        QN_TRY(run_pass(&p, err));
        if (progress != NULL && !progress->report(progress->user, leader->n_tok)) {
            return qni_fail(err, QN_ECANCELED, "canceled after %d tokens", leader->n_tok);
        }
        for (; n_portion > 0 && portions[0].n_left == 0; n_portion--) portions++;
    }
    return QN_OK;
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
    if (n_ids > (size_t)s->options.n_ctx - n_tok) {
        return qni_fail(err, QN_EFULL, "context: %d tokens are too few for %zu", s->options.n_ctx, n_tok + n_ids);
    }
    return QN_OK;
}

qn_status qni_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused,
                           const qni_feed_progress *progress, qn_error *err) {
    QN_TRY(check_ids(session, ids, n_ids, err));
    QN_TRY(check_room(session, 0, n_ids, err));
    size_t keep = 0;
    while (keep < n_ids && keep < (size_t)session->n_tok && session->ids[keep] == ids[keep]) keep++;
    if (keep == n_ids && !(session->has_logits && (size_t)session->n_tok == n_ids)) keep--;
    *n_reused = keep;
    if (keep == n_ids) return QN_OK;
    QN_TRY(qn_session_rewind(session, keep, err));
    session->has_logits = false;
    portion all = {.session = session, .ids = ids + keep, .n_left = n_ids - keep};
    return feed(&all, 1, progress, err);
}

qn_status qn_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused, qn_error *err) {
    size_t kept = 0;
    QN_TRY(qni_session_sync(session, ids, n_ids, &kept, NULL, err));
    if (n_reused != NULL) *n_reused = kept;
    return QN_OK;
}

qn_status qn_session_step(qn_session *session, int32_t id, qn_error *err) {
    return qn_session_append(session, &id, 1, NULL, NULL, err);
}

qn_status qn_session_append(qn_session *session, const int32_t *ids, size_t n_ids, qn_logits_fn logits, void *user,
                            qn_error *err) {
    QN_TRY(check_ids(session, ids, n_ids, err));
    QN_TRY(check_room(session, (size_t)session->n_tok, n_ids, err));
    portion all = {.session = session, .ids = ids, .n_left = n_ids, .logits = logits, .user = user};
    return feed(&all, 1, NULL, err);
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
        status = check_room(spans[i].session, (size_t)spans[i].session->n_tok, spans[i].n_ids, err);
    }
    return status;
}

static bool alike(const qn_session *a, const qn_session *b) {
    return a->options.n_ctx == b->options.n_ctx && a->options.kv_dtype == b->options.kv_dtype && a->yarn == b->yarn;
}

qn_status qn_session_append_batch(const qn_span *spans, size_t n_span, qn_error *err) {
    if (spans == NULL || n_span < 1 || n_span > INT32_MAX) {
        return qni_fail(err, QN_EINVAL, "spans: must be 1 … %d, got %zu", INT32_MAX, spans == NULL ? 0 : n_span);
    }
    QN_TRY(check_batch(spans, n_span, err));
    portion *portions = qni_calloc(n_span, sizeof *portions);
    if (portions == NULL) return qni_fail(err, QN_ENOMEM, "spans: no memory for %zu", n_span);
    qn_status status = QN_OK;
    /* Sessions with the same form of KV go together: one group after another. */
    for (size_t first = 0; first < n_span && status == QN_OK; first++) {
        int32_t n = 0;
        bool leads = true;
        for (size_t i = 0; i < first && leads; i++) leads = !alike(spans[i].session, spans[first].session);
        for (size_t i = first; i < n_span && leads; i++) {
            if (!alike(spans[i].session, spans[first].session)) continue;
            portions[n++] = (portion){.session = spans[i].session,
                                      .ids = spans[i].ids,
                                      .n_left = spans[i].n_ids,
                                      .logits = spans[i].logits,
                                      .user = spans[i].user};
        }
        status = feed(portions, n, NULL, err);
    }
    qni_free(portions);
    return status;
}
