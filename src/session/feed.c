/* SPDX-License-Identifier: Apache-2.0 */
/* How sessions compute: ids are divided into steps of at most n_batch tokens (step.c). */
#include "step.h"

#include <string.h>

void qni_session_trim(qn_session *session) {
    qni_sequence_rewind(&session->seq, session->seq.n_tok);
}

/* Reserve blocks for all ids of the portions, or for none. A sequence that must be truncated is the only portion. */
static qn_status reserve(const qni_portion *portions, int32_t n, qn_error *err) {
    for (int32_t i = 0; i < n; i++) {
        const qni_portion *p = &portions[i];
        const bool cuts = p->keep < (size_t)p->session->seq.n_tok;
        qn_status status = qni_sequence_reserve(&p->session->seq, (int32_t)p->keep, (int32_t)p->n_left, err);
        if (status == QN_OK && cuts) p->session->has_logits = false;
        if (status == QN_OK) continue;
        for (int32_t k = 0; k <= i; k++) qni_session_trim(portions[k].session);
        return status;
    }
    return QN_OK;
}

/* Keep the portions that have ids left, in order. */
static int32_t remove_finished(qni_portion *portions, int32_t n) {
    int32_t n_left = 0;
    for (int32_t i = 0; i < n; i++) {
        if (portions[i].n_left > 0) portions[n_left++] = portions[i];
    }
    return n_left;
}

/* Compute all portions, whose sessions share one pool. Non-finite logits of one session do not affect the others:
 * ENUMERIC, for the first such session, is returned after all are computed. */
static qn_status feed(qni_portion *portions, int32_t n_portion, qn_error *err) {
    qn_status result = QN_OK;
    while (n_portion > 0) {
        qn_error error = {0};
        qni_step st = qni_step_plan(portions, n_portion);
        qn_status status = qni_step_run(&st, &error);
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
        return qni_fail(err, QN_EINVAL, "%s: is NULL", s == NULL ? "session" : "ids");
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

static qn_status check_capacity(const qn_session *s, size_t n_tok, size_t n_ids, qn_error *err) {
    if (n_ids > (size_t)s->n_ctx - n_tok) {
        return qni_fail(err, QN_EFULL, "context: %d tokens are too few for %zu", s->n_ctx, n_tok + n_ids);
    }
    return QN_OK;
}

qn_status qni_session_match(const qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_kept,
                            qn_error *err) {
    QN_TRY(check_ids(session, ids, n_ids, err));
    QN_TRY(check_capacity(session, 0, n_ids, err));
    const qni_sequence *seq = &session->seq;
    size_t keep = 0;
    while (keep < n_ids && keep < (size_t)seq->n_tok && seq->ids[keep] == ids[keep]) keep++;
    if (keep == n_ids && !(session->has_logits && (size_t)seq->n_tok == n_ids)) keep--;
    *n_kept = keep;
    return QN_OK;
}

int32_t qni_session_max_sampled(const qn_session *session) {
    const qn_device *device = session->model->device;
    return device->ops.step != NULL ? device->backend->step_tokens : device->ops.sample != NULL ? 1 : 0;
}

/* Reserve blocks for all ids of a feed, and for the sampled ones if enough are free, otherwise for the first of
 * those only. */
static void reserve_feed(qni_feed *f) {
    f->n_done = 0;
    f->n_sampled = 0;
    f->status = check_capacity(f->session, f->n_kept, f->n_ids, f->err);
    if (f->status != QN_OK) return;
    qni_portion all = {.session = f->session, .keep = f->n_kept, .ids = f->ids, .n_left = f->n_ids};
    if (f->n_sample > 1) {
        all.n_left += (size_t)f->n_sample - 1;
        if (reserve(&all, 1, NULL) == QN_OK) return;
        f->n_sample = 1;
        all.n_left = f->n_ids;
    }
    f->status = reserve(&all, 1, f->err);
}

/* Collect the feeds from `first` on that have ids and whose sessions share the pool of feeds[first], single ids
 * first. None if an earlier feed's session is on that pool. */
static int32_t collect_feeds(qni_portion *out, qni_feed *feeds, int32_t n_feed, int32_t first) {
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
                (qni_portion){.session = f->session, .keep = f->n_kept, .ids = f->ids, .n_left = f->n_ids, .feed = f};
        }
    }
    return n;
}

/* Report a step's result for a portion to its feed. A failed feed is not computed further. A feed that is over gives
 * back the blocks of ids that it might have sampled and did not. */
static void report_result(qni_portion *p, qn_status status, const qn_error *error) {
    qni_feed *f = p->feed;
    f->n_done = f->n_ids - p->n_left;
    f->n_sampled = p->n_sampled;
    if (status != QN_OK && status != QN_ENUMERIC) {
        f->status = qni_fail(f->err, status, "%s", error->message);
    } else if (p->is_bad) {
        f->status =
            qni_fail(f->err, QN_ENUMERIC, "logits of position %d: not all are numbers", p->session->seq.n_tok - 1);
    } else if (p->n_left == 0 && p->n_sampled == 0 && !p->session->has_logits) {
        f->status = qni_step_bad_logits(p->session, f->err);
    }
    if (f->status != QN_OK) p->n_left = 0;
    if (p->n_left == 0) qni_session_trim(p->session);
}

/* All single ids, and one step that includes longer portions. */
static void feed_pool(qni_portion *portions, int32_t n_portion) {
    bool has_longer = false;
    while (n_portion > 0 && (portions[0].feed->n_ids == 1 || !has_longer)) {
        qn_error error = {0};
        qni_step st = qni_step_plan(portions, n_portion);
        const qn_status status = qni_step_run(&st, &error);
        for (int32_t i = 0; i < st.n_seq; i++) {
            has_longer = has_longer || portions[i].feed->n_ids > 1;
            report_result(&portions[i], status, &error);
        }
        n_portion = remove_finished(portions, n_portion);
    }
}

qn_status qni_session_feed(qni_feed *feeds, int32_t n_feed, qn_error *err) {
    qni_portion one, *portions = &one;
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
        qni_portion all = {.session = session, .keep = kept, .ids = ids + kept, .n_left = n_ids - kept};
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
    QN_TRY(check_capacity(session, (size_t)session->seq.n_tok, n_ids, err));
    qni_portion all = {.session = session,
                       .keep = (size_t)session->seq.n_tok,
                       .ids = ids,
                       .n_left = n_ids,
                       .logits = logits,
                       .user = user};
    QN_TRY(reserve(&all, 1, err));
    return feed(&all, 1, err);
}

/* Sessions are marked while their spans are checked, to detect duplicates. */
static qn_status check_batch(const qn_span *spans, size_t n_span, qn_error *err) {
    qn_status status = QN_OK;
    size_t n_marked = 0;
    for (size_t i = 0; i < n_span && status == QN_OK; i++) {
        status = check_ids(spans[i].session, spans[i].ids, spans[i].n_ids, err);
        if (status != QN_OK) break;
        if (spans[i].session->model != spans[0].session->model) {
            status =
                qni_fail(err, QN_EINVAL, "spans[%zu]: its session belongs to another model than that of spans[0]", i);
        } else if (spans[i].session->marked) {
            status = qni_fail(err, QN_EINVAL, "spans[%zu]: duplicate session", i);
        } else {
            spans[i].session->marked = true;
            n_marked++;
        }
    }
    for (size_t i = 0; i < n_marked; i++) spans[i].session->marked = false;
    for (size_t i = 0; i < n_span && status == QN_OK; i++) {
        status = check_capacity(spans[i].session, (size_t)spans[i].session->seq.n_tok, spans[i].n_ids, err);
    }
    return status;
}

/* Collect the portions of the spans from `first` on whose sessions share the pool of spans[first]. None if an
 * earlier span's session is on that pool. */
static int32_t collect(qni_portion *out, const qn_span *spans, size_t n_span, size_t first) {
    const qn_kv_pool *pool = spans[first].session->pool;
    for (size_t i = 0; i < first; i++) {
        if (spans[i].session->pool == pool) return 0;
    }
    int32_t n = 0;
    for (size_t i = first; i < n_span; i++) {
        if (spans[i].session->pool != pool) continue;
        out[n++] = (qni_portion){.session = spans[i].session,
                                 .keep = (size_t)spans[i].session->seq.n_tok,
                                 .ids = spans[i].ids,
                                 .n_left = spans[i].n_ids,
                                 .logits = spans[i].logits,
                                 .user = spans[i].user};
    }
    return n;
}

/* Pool by pool. Blocks are reserved for all spans before any is computed. */
static qn_status append_all(qni_portion *portions, const qn_span *spans, size_t n_span, qn_error *err) {
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
    qni_portion *portions = qni_calloc(n_span, sizeof *portions);
    if (portions == NULL) return qni_fail(err, QN_ENOMEM, "spans: no memory for %zu", n_span);
    qn_status status = append_all(portions, spans, n_span, err);
    qni_free(portions);
    return status;
}
