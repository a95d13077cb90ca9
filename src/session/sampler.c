/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From logits to the next token: penalties and bias, temperature, top_k, top_p, min_p, draw; log probabilities.
 *
 * Everything is in double. With m the greatest logit after penalties and bias, e[i] = exp((x[i] - m) / temperature) is
 * computed once for the ids that top_k leaves, so that the best id has e = 1 whatever the range of the numbers; each
 * later filter only shortens the list of candidates, and the final probability is e[i] / sum of e.
 */
#include "../base/error.h"
#include "../base/memory.h"
#include "philox.h"

#include <quern/sampler.h>

#include <float.h>
#include <math.h>
#include <string.h>

struct qn_sampler {
    qn_sampler_params params;
    qn_logit_bias *bias;
    int32_t n_vocab, n_valid;
    double *value;   /* {n_valid}: logits, then e by id */
    double *best;    /* {min(top_k, n_valid)}: heap of the greatest logits */
    int32_t *list;   /* {n_valid}: candidates, ascending */
    int32_t *heap;   /* {n_valid}: candidates by probability; of top_p */
    uint32_t *count; /* {n_vocab}: zero between draws */
};

/* Penalties and biases move a logit to within ± this, so that no setting makes an infinity out of a finite logit. */
static const double limit = 1e300;

static bool within(double x, double low, double high) {
    return x >= low && x <= high;
}

static qn_status check_params(const qn_sampler_params *p, int32_t n_vocab, qn_error *err) {
    if (!within(p->temperature, 0, DBL_MAX)) {
        return qni_fail(err, QN_EINVAL, "temperature: must be finite and >= 0, got %g", p->temperature);
    }
    if (p->top_k < 0) return qni_fail(err, QN_EINVAL, "top_k: must be >= 0, got %d", p->top_k);
    if (!within(p->top_p, 0, 1)) {
        return qni_fail(err, QN_EINVAL, "top_p: must be within 0 … 1, got %g", p->top_p);
    }
    if (!within(p->min_p, 0, 1)) {
        return qni_fail(err, QN_EINVAL, "min_p: must be within 0 … 1, got %g", p->min_p);
    }
    if (!within(p->repetition_penalty, DBL_MIN, DBL_MAX)) {
        return qni_fail(err, QN_EINVAL, "repetition_penalty: must be finite and > 0, got %g", p->repetition_penalty);
    }
    if (!isfinite(p->presence_penalty)) {
        return qni_fail(err, QN_EINVAL, "presence_penalty: must be finite, got %g", p->presence_penalty);
    }
    if (!isfinite(p->frequency_penalty)) {
        return qni_fail(err, QN_EINVAL, "frequency_penalty: must be finite, got %g", p->frequency_penalty);
    }
    if (p->seed > (uint64_t)INT64_MAX) {
        return qni_fail(err, QN_EINVAL, "seed: must be within 0 … %lld, got %llu", (long long)INT64_MAX,
                        (unsigned long long)p->seed);
    }
    if (p->n_logit_bias > 0 && p->logit_bias == NULL) {
        return qni_fail(err, QN_EINVAL, "logit_bias: NULL, but %zu of them", p->n_logit_bias);
    }
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        const qn_logit_bias *b = &p->logit_bias[i];
        if (b->id < 0 || b->id >= n_vocab) {
            return qni_fail(err, QN_EINVAL, "logit_bias: id must be within 0 … %d, got %d", n_vocab - 1, b->id);
        }
        if (!isfinite(b->bias)) {
            return qni_fail(err, QN_EINVAL, "logit_bias: of id %d must be finite, got %g", b->id, (double)b->bias);
        }
    }
    return QN_OK;
}

qn_status qn_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab, int32_t n_valid,
                            qn_error *err) {
    if (out == NULL || params == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_sampler_create: %s is NULL", out == NULL ? "out" : "params");
    }
    if (n_vocab < 1) return qni_fail(err, QN_EINVAL, "n_vocab: must be >= 1, got %d", n_vocab);
    if (n_valid < 0 || n_valid > n_vocab) {
        return qni_fail(err, QN_EINVAL, "n_valid: must be within 0 … %d, got %d", n_vocab, n_valid);
    }
    QN_TRY(check_params(params, n_vocab, err));
    qn_sampler *s = qni_calloc(1, sizeof *s);
    if (s == NULL) return qni_fail(err, QN_ENOMEM, "sampler: out of memory");
    s->params = *params;
    s->n_vocab = n_vocab;
    s->n_valid = n_valid == 0 ? n_vocab : n_valid;
    size_t n = (size_t)s->n_valid;
    s->bias = qni_calloc(params->n_logit_bias, sizeof *s->bias);
    s->value = qni_calloc(n, sizeof *s->value);
    s->best = qni_calloc((size_t)qni_min_i64(params->top_k, s->n_valid), sizeof *s->best);
    s->list = qni_calloc(n, sizeof *s->list);
    s->heap = qni_calloc(n, sizeof *s->heap);
    s->count = qni_calloc((size_t)n_vocab, sizeof *s->count);
    if (!s->bias || !s->value || !s->best || !s->list || !s->heap || !s->count) {
        qn_sampler_free(s);
        return qni_fail(err, QN_ENOMEM, "sampler: no memory for %d ids", n_vocab);
    }
    if (params->n_logit_bias > 0) memcpy(s->bias, params->logit_bias, params->n_logit_bias * sizeof *s->bias);
    s->params.logit_bias = s->bias;
    *out = s;
    return QN_OK;
}

void qn_sampler_free(qn_sampler *sampler) {
    if (sampler == NULL) return;
    qni_free(sampler->bias);
    qni_free(sampler->value);
    qni_free(sampler->best);
    qni_free(sampler->list);
    qni_free(sampler->heap);
    qni_free(sampler->count);
    qni_free(sampler);
}

/* Whether the logits can be sampled from: no NaN, no +Inf, not all -Inf. */
static qn_status check_logits(const float *logits, int32_t n_valid, qn_error *err) {
    int bad = 0, usable = 0;
    for (int32_t i = 0; i < n_valid; i++) {
        bad |= !(logits[i] <= FLT_MAX);
        usable |= logits[i] >= -FLT_MAX;
    }
    if (bad) {
        int32_t i = 0;
        while (logits[i] <= FLT_MAX) i++;
        return qni_fail(err, QN_ENUMERIC, "logits: that of id %d is %s", i, isnan(logits[i]) ? "NaN" : "+Inf");
    }
    if (!usable) return qni_fail(err, QN_ENUMERIC, "logits: those of all %d ids are -Inf", n_valid);
    return QN_OK;
}

/* -Inf, an id that the model itself excludes, stays what it is. */
static void move_logit(double *x, double to) {
    if (*x < -limit) return;
    *x = fmin(fmax(to, -limit), limit);
}

static void apply_penalties(qn_sampler *s, const int32_t *history, size_t n_history, size_t prompt_len) {
    const qn_sampler_params *p = &s->params;
    double *x = s->value;
    if (p->repetition_penalty != 1) {
        for (size_t j = 0; j < n_history; j++) {
            int32_t id = history[j];
            if (id >= s->n_valid || s->count[id]++ > 0) continue;
            move_logit(&x[id], x[id] > 0 ? x[id] / p->repetition_penalty : x[id] * p->repetition_penalty);
        }
        for (size_t j = 0; j < n_history; j++) s->count[history[j]] = 0;
    }
    if (p->frequency_penalty != 0 || p->presence_penalty != 0) {
        for (size_t j = prompt_len; j < n_history; j++) s->count[history[j]]++;
        for (size_t j = prompt_len; j < n_history; j++) {
            int32_t id = history[j];
            uint32_t n = s->count[id];
            s->count[id] = 0;
            if (id >= s->n_valid || n == 0) continue;
            move_logit(&x[id], x[id] - (p->frequency_penalty * n + p->presence_penalty));
        }
    }
    for (size_t j = 0; j < p->n_logit_bias; j++) {
        int32_t id = s->bias[j].id;
        if (id < s->n_valid) move_logit(&x[id], x[id] + (double)s->bias[j].bias);
    }
}

/* The k-th greatest of n values, 1 <= k < n: the root of a min-heap of the k greatest so far. */
static double kth_greatest(double *heap, int32_t k, const double *value, int32_t n) {
    int32_t size = 0;
    for (int32_t i = 0; i < n; i++) {
        double x = value[i];
        int32_t at = 0;
        if (size < k) {
            at = size++;
            for (; at > 0 && heap[(at - 1) / 2] > x; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
        } else if (x > heap[0]) {
            for (int32_t child = 1; child < k; child = 2 * at + 1) {
                if (child + 1 < k && heap[child + 1] < heap[child]) child++;
                if (heap[child] >= x) break;
                heap[at] = heap[child];
                at = child;
            }
        } else {
            continue;
        }
        heap[at] = x;
    }
    return heap[0];
}

/* Whether candidate a comes before b: the more probable, the lower id in a tie. */
static bool before(const double *e, int32_t a, int32_t b) {
    return e[a] > e[b] || (e[a] == e[b] && a < b);
}

static void sift_down(const double *e, int32_t *heap, int32_t n, int32_t at) {
    int32_t id = heap[at];
    for (int32_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && before(e, heap[child + 1], heap[child])) child++;
        if (!before(e, heap[child], id)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = id;
}

static double sum_of(const double *e, const int32_t *list, int32_t n) {
    double sum = 0;
    for (int32_t j = 0; j < n; j++) sum += e[list[j]];
    return sum;
}

/*
 * Shorten the list to the fewest ids, best first, whose probabilities reach top_p; at least one stays.
 *
 * Candidates below (1 - top_p) / 2n of n have less than (1 - top_p) / 2 together, so the others reach top_p before
 * them, with a margin far above the rounding of the sums; only those others are put in order, and only as far as
 * needed.
 */
static int32_t apply_top_p(qn_sampler *s, int32_t n) {
    const double *e = s->value;
    double top_p = s->params.top_p, sum = sum_of(e, s->list, n);
    double least = 1 - top_p > 1e-9 ? (1 - top_p) / (2.0 * n) * sum : 0;
    int32_t n_heap = 0;
    for (int32_t j = 0; j < n; j++) {
        if (e[s->list[j]] >= least) s->heap[n_heap++] = s->list[j];
    }
    for (int32_t at = n_heap / 2 - 1; at >= 0; at--) sift_down(e, s->heap, n_heap, at);
    double total = 0;
    int32_t last;
    do {
        last = s->heap[0];
        total += e[last] / sum;
        s->heap[0] = s->heap[--n_heap];
        if (n_heap > 0) sift_down(e, s->heap, n_heap, 0);
    } while (n_heap > 0 && total < top_p);
    int32_t kept = 0;
    for (int32_t j = 0; j < n; j++) {
        if (!before(e, last, s->list[j])) s->list[kept++] = s->list[j];
    }
    return kept;
}

/* Fill `value` and `list` with the candidates that all filters leave; returns their number, at least 1. */
static int32_t select_candidates(qn_sampler *s) {
    const qn_sampler_params *p = &s->params;
    double *x = s->value, top = -INFINITY, least = -DBL_MAX;
    for (int32_t i = 0; i < s->n_valid; i++) top = x[i] > top ? x[i] : top;
    if (p->temperature == 0) {
        for (s->list[0] = 0; x[s->list[0]] < top;) s->list[0]++;
        x[s->list[0]] = 1;
        return 1;
    }
    if (p->top_k > 0 && p->top_k < s->n_valid) {
        double kth = kth_greatest(s->best, p->top_k, x, s->n_valid);
        if (kth > least) least = kth;
    }
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_valid; i++) {
        if (x[i] < least) continue;
        x[i] = exp((x[i] - top) / p->temperature);
        s->list[n++] = i;
    }
    if (p->top_p < 1) n = apply_top_p(s, n);
    int32_t kept = 0;
    for (int32_t j = 0; j < n; j++) {
        if (x[s->list[j]] >= p->min_p) s->list[kept++] = s->list[j];
    }
    return kept;
}

qn_status qn_sampler_draw(qn_sampler *sampler, int32_t *id, double *probs, const float *logits, const int32_t *history,
                          size_t n_history, size_t prompt_len, uint64_t position, qn_error *err) {
    if (sampler == NULL || id == NULL || logits == NULL || (history == NULL && n_history > 0)) {
        return qni_fail(err, QN_EINVAL, "qn_sampler_draw: an argument is NULL");
    }
    if (prompt_len > n_history) {
        return qni_fail(err, QN_EINVAL, "prompt_len: must be within 0 … %zu, got %zu", n_history, prompt_len);
    }
    for (size_t j = 0; j < n_history; j++) {
        if (history[j] < 0 || history[j] >= sampler->n_vocab) {
            return qni_fail(err, QN_EINVAL, "history: id must be within 0 … %d, got %d", sampler->n_vocab - 1,
                            history[j]);
        }
    }
    QN_TRY(check_logits(logits, sampler->n_valid, err));
    for (int32_t i = 0; i < sampler->n_valid; i++) sampler->value[i] = (double)logits[i];
    apply_penalties(sampler, history, n_history, prompt_len);
    int32_t n = select_candidates(sampler);

    double sum = sum_of(sampler->value, sampler->list, n);
    double u = qni_philox_uniform(sampler->params.seed, position), total = 0;
    if (probs != NULL) memset(probs, 0, (size_t)sampler->n_vocab * sizeof *probs);
    int32_t drawn = -1, last = sampler->list[0];
    for (int32_t j = 0; j < n; j++) {
        int32_t candidate = sampler->list[j];
        double p = sampler->value[candidate] / sum;
        total += p;
        if (p > 0) last = candidate;
        if (probs != NULL) probs[candidate] = p;
        if (drawn < 0 && total > u) drawn = candidate;
    }
    *id = drawn >= 0 ? drawn : last; /* the sum may round to a little less than u */
    return QN_OK;
}

/* Whether a is a worse alternative than b. */
static bool worse(qn_logprob a, qn_logprob b) {
    return a.logprob < b.logprob || (a.logprob == b.logprob && a.id > b.id);
}

static void sift_worst(qn_logprob *heap, int32_t n, int32_t at, qn_logprob x) {
    for (int32_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], x)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = x;
}

qn_status qn_sampler_logprobs(const qn_sampler *sampler, float *id_logprob, qn_logprob *best, int32_t *n_best,
                              const float *logits, int32_t id, int32_t k, qn_error *err) {
    if (sampler == NULL || id_logprob == NULL || n_best == NULL || logits == NULL || (best == NULL && k > 0)) {
        return qni_fail(err, QN_EINVAL, "qn_sampler_logprobs: an argument is NULL");
    }
    int32_t n_valid = sampler->n_valid;
    if (id < 0 || id >= n_valid) {
        return qni_fail(err, QN_EINVAL, "id: must be within 0 … %d, got %d", n_valid - 1, id);
    }
    if (k < 0) return qni_fail(err, QN_EINVAL, "k: must be >= 0, got %d", k);
    QN_TRY(check_logits(logits, n_valid, err));
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n_valid; i++) top = (double)logits[i] > top ? (double)logits[i] : top;
    for (int32_t i = 0; i < n_valid; i++) sum += exp((double)logits[i] - top);
    double log_sum = top + log(sum);

    /* A heap of the best by raw logit, its worst at the root; then sorted by taking the root away. */
    int32_t n = k < n_valid ? k : n_valid;
    for (int32_t i = 0; i < n; i++) best[i] = (qn_logprob){i, logits[i]};
    for (int32_t at = n / 2 - 1; at >= 0; at--) sift_worst(best, n, at, best[at]);
    for (int32_t i = n; n > 0 && i < n_valid; i++) {
        qn_logprob x = {i, logits[i]};
        if (worse(best[0], x)) sift_worst(best, n, 0, x);
    }
    for (int32_t size = n - 1; size > 0; size--) {
        qn_logprob x = best[size];
        best[size] = best[0];
        sift_worst(best, size, 0, x);
    }
    for (int32_t i = 0; i < n; i++) best[i].logprob = (float)((double)best[i].logprob - log_sum);
    *id_logprob = (float)((double)logits[id] - log_sum);
    *n_best = n;
    return QN_OK;
}
