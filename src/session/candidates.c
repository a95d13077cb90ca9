/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The candidates of a draw: from logits to those that the filters leave, and to one of them. All passes over the
 * vocabulary are here, but the selection of top_k and top_p (select.c).
 *
 * With m the greatest logit after penalties and bias, e = exp((x - m) / temperature) is computed once for the ids that
 * top_k keeps. So the best id has e = 1 whatever the range of the logits. Each later filter only removes candidates,
 * and the final probability is e / sum of e.
 */
#include "../base/cut.h"
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    MIN_PARALLEL_IDS = QNI_CUT(1 << 14, 1 << 6), /* below this, a parallel loop costs more than it saves */
    GROUPS_PER_BLOCK = QNI_BLOCK_IDS / QNI_GROUP_IDS,
};

/*
 * Uses the device's threads if they are idle. If another thread is computing, possibly a long prompt, one thread
 * finishes this work sooner than waiting would take; the result is the same.
 */
void qni_sampler_run(const qn_sampler *s, int32_t n_block, int64_t n, qni_task task, void *context) {
    qn_device *device = s->device;
    if (n >= MIN_PARALLEL_IDS && device != NULL && device->backend->parallel != NULL && qni_device_trylock(device)) {
        device->backend->parallel(device->state, n_block, task, context);
        qni_device_unlock(device);
    } else {
        for (int32_t b = 0; b < n_block; b++) task(context, b, 0);
    }
}

/* Context of a pass. */
typedef struct pass {
    qn_sampler *s;
    const float *logits;
    double top, least; /* the greatest logit; the least one that top_k keeps */
    double min_p;      /* 0 if top_p is applied first */
    qni_cut cut;       /* for top_p */
    int32_t cut_id;    /* the last id with cut.e that is kept */
    double *probs;
} pass;

static int32_t n_logit(const qn_sampler *s, int32_t b) {
    return (int32_t)qni_min_i64(QNI_BLOCK_IDS, s->n_valid - b * QNI_BLOCK_IDS);
}

/* In four interleaved parts, so that the compiler vectorizes it; the maximum does not depend on the order. */
static double greatest_of(const double *x, int32_t n) {
    double part[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int32_t l = 0; l < 4; l++) part[l] = x[i + l] > part[l] ? x[i + l] : part[l];
    }
    for (; i < n; i++) part[0] = x[i] > part[0] ? x[i] : part[0];
    double a = part[0] > part[1] ? part[0] : part[1], b = part[2] > part[3] ? part[2] : part[3];
    return a > b ? a : b;
}

static void update_maxima(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const pass *p = context;
    const qn_sampler *s = p->s;
    const int32_t n = n_logit(s, b);
    const double *x = s->value + b * QNI_BLOCK_IDS;
    double *greatest = s->greatest + b * GROUPS_PER_BLOCK;
    for (int32_t i = 0; i < n; i += QNI_GROUP_IDS) {
        greatest[i / QNI_GROUP_IDS] = greatest_of(x + i, n - i < QNI_GROUP_IDS ? n - i : QNI_GROUP_IDS);
    }
}

static void read_block(void *context, int32_t b, int32_t thread) {
    const pass *p = context;
    const qn_sampler *s = p->s;
    const int32_t n = n_logit(s, b);
    const float *logits = p->logits + b * QNI_BLOCK_IDS;
    double *x = s->value + b * QNI_BLOCK_IDS;
    int is_bad = 0, is_any = 0;
    for (int32_t i = 0; i < n; i++) {
        is_bad |= !(logits[i] <= FLT_MAX);
        is_any |= logits[i] >= -FLT_MAX;
        x[i] = (double)logits[i];
    }
    s->blocks[b].is_bad = is_bad;
    s->blocks[b].is_any = is_any;
    update_maxima(context, b, thread);
}

qn_status qni_candidates_check(const float *logits, int32_t n_valid, bool is_bad, bool is_any, qn_error *err) {
    if (is_bad) {
        int32_t i = 0;
        while (logits[i] <= FLT_MAX) i++;
        return qni_fail(err, QN_ENUMERIC, "logits: that of id %d is %s", i, isnan(logits[i]) ? "NaN" : "+Inf");
    }
    if (!is_any) return qni_fail(err, QN_ENUMERIC, "logits: those of all %d ids are -Inf", n_valid);
    return QN_OK;
}

qn_status qni_candidates_read(qn_sampler *s, const float *logits, qn_error *err) {
    pass p = {.s = s, .logits = logits};
    qni_sampler_run(s, s->n_block, s->n_valid, read_block, &p);
    bool is_bad = false, is_any = false;
    for (int32_t b = 0; b < s->n_block; b++) {
        is_bad |= s->blocks[b].is_bad;
        is_any |= s->blocks[b].is_any;
    }
    return qni_candidates_check(logits, s->n_valid, is_bad, is_any, err);
}

void qni_candidates_update_maxima(qn_sampler *s) {
    pass p = {.s = s};
    qni_sampler_run(s, s->n_block, s->n_valid, update_maxima, &p);
}

/* Keep only the lowest id of the greatest logit. */
static void keep_greatest(qn_sampler *s, double top) {
    int32_t group = 0;
    while (s->greatest[group] < top) group++;
    int32_t id = group * QNI_GROUP_IDS;
    while (s->value[id] < top) id++;
    s->id[0] = id;
    s->value[0] = 1;
    s->blocks[0].n = s->n_used = s->n_candidate = 1;
    s->sum = 1;
}

/* The candidates of a block overwrite its first logits, which are no longer needed. */
static void exp_block(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const pass *p = context;
    const qn_sampler *s = p->s;
    const double temperature = s->params.temperature;
    const int32_t first = b * QNI_BLOCK_IDS, n = n_logit(s, b);
    double *value = s->value + first, sum = 0;
    int32_t *id = s->id + first, n_candidate = 0;
    for (int32_t at = 0; at < n; at += QNI_GROUP_IDS) {
        if (s->greatest[(first + at) / QNI_GROUP_IDS] < p->least) continue;
        for (int32_t i = at; i < n && i < at + QNI_GROUP_IDS; i++) {
            if (value[i] < p->least) continue;
            const double e = exp((value[i] - p->top) / temperature);
            if (e < p->min_p) continue;
            value[n_candidate] = e;
            id[n_candidate++] = first + i;
            sum += e;
        }
    }
    s->blocks[b].n = n_candidate;
    s->blocks[b].sum = sum;
}

/* Count the candidates and add up their e. If they fit into one block, they are merged into one and added in plain
 * order. */
static void compact(qn_sampler *s) {
    s->n_candidate = 0;
    s->sum = 0;
    for (int32_t b = 0; b < s->n_used; b++) {
        s->n_candidate += s->blocks[b].n;
        s->sum += s->blocks[b].sum;
    }
    if (s->n_used == 1 || s->n_candidate > QNI_BLOCK_IDS) return;
    int32_t n = 0;
    for (int32_t b = 0; b < s->n_used; b++) {
        const int32_t first = b * QNI_BLOCK_IDS, n_here = s->blocks[b].n;
        memmove(s->value + n, s->value + first, (size_t)n_here * sizeof *s->value);
        memmove(s->id + n, s->id + first, (size_t)n_here * sizeof *s->id);
        n += n_here;
    }
    s->sum = 0;
    for (int32_t j = 0; j < n; j++) s->sum += s->value[j];
    s->blocks[0].n = n;
    s->n_used = 1;
}

/* Branch-free, because the branches would be unpredictable: a removed candidate is overwritten and adds nothing. */
static void filter_block(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const pass *p = context;
    const qn_sampler *s = p->s;
    const double min_p = s->params.min_p, cut = p->cut.e;
    double *value = s->value + b * QNI_BLOCK_IDS;
    int32_t *id = s->id + b * QNI_BLOCK_IDS, n = 0;
    double sum = 0;
    for (int32_t j = 0; j < s->blocks[b].n; j++) {
        const double e = value[j];
        const int32_t candidate = id[j];
        const bool stays = ((e > cut) | ((e == cut) & (candidate <= p->cut_id))) & (e >= min_p);
        value[n] = e;
        id[n] = candidate;
        n += stays;
        sum += stays * e;
    }
    s->blocks[b].n = n;
    s->blocks[b].sum = sum;
}

/* The id of the n-th candidate with this e. */
static int32_t id_of_equal(const qn_sampler *s, double e, int32_t n) {
    for (int32_t b = 0; b < s->n_used; b++) {
        const int32_t first = b * QNI_BLOCK_IDS;
        for (int32_t j = first; j < first + s->blocks[b].n; j++) {
            if (s->value[j] == e && --n == 0) return s->id[j];
        }
    }
    return s->n_valid;
}

void qni_candidates_select(qn_sampler *s) {
    const qn_sampler_params *params = &s->params;
    pass p = {.s = s, .least = -DBL_MAX, .min_p = params->top_p < 1 ? 0 : params->min_p};
    p.top = greatest_of(s->greatest, s->n_group);
    if (params->temperature == 0) {
        keep_greatest(s, p.top);
        return;
    }
    if (params->top_k > 0 && params->top_k < s->n_valid) p.least = qni_select_kth(s, params->top_k);
    s->n_used = s->n_block;
    qni_sampler_run(s, s->n_used, s->n_valid, exp_block, &p);
    compact(s);
    if (params->top_p == 1) return;
    p.cut = qni_select_top_p(s);
    p.cut_id = id_of_equal(s, p.cut.e, p.cut.n_equal);
    qni_sampler_run(s, s->n_used, s->n_candidate, filter_block, &p);
    compact(s);
}

static void sum_probabilities(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const pass *p = context;
    const qn_sampler *s = p->s;
    const int32_t first = b * QNI_BLOCK_IDS;
    double total = 0;
    for (int32_t j = first; j < first + s->blocks[b].n; j++) {
        const double probability = s->value[j] / s->sum;
        total += probability;
        if (p->probs != NULL) p->probs[s->id[j]] = probability;
    }
    s->blocks[b].sum = total;
}

int32_t qni_candidates_draw(qn_sampler *s, double u, double *probs) {
    pass p = {.s = s, .probs = probs};
    if (probs != NULL) memset(probs, 0, (size_t)s->n_vocab * sizeof *probs);
    qni_sampler_run(s, s->n_used, s->n_candidate, sum_probabilities, &p);
    double before = 0;
    int32_t b = 0;
    while (b < s->n_used && before + s->blocks[b].sum <= u) before += s->blocks[b++].sum;
    if (b < s->n_used) {
        double total = 0; /* added as by sum_probabilities, so it exceeds u within the block */
        for (int32_t j = b * QNI_BLOCK_IDS;; j++) {
            total += s->value[j] / s->sum;
            if (before + total > u) return s->id[j];
        }
    }
    /* The sum may round to slightly less than u: use the last id with a nonzero probability. */
    for (b = s->n_used - 1;; b--) {
        const int32_t first = b * QNI_BLOCK_IDS;
        for (int32_t j = first + s->blocks[b].n - 1; j >= first; j--) {
            if (s->value[j] / s->sum > 0) return s->id[j];
        }
    }
}
