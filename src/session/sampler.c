/* SPDX-License-Identifier: Apache-2.0 */
/* From logits to the next token: settings, penalties and bias, sampling; log probabilities. Everything is computed
 * in double. Passes over the whole vocabulary are in candidates.c. */
#include "sampler.h"

#include "philox.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Penalties and biases are clamped to ± this, so that no setting turns a finite logit into an infinity. */
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
        return qni_fail(err, QN_EINVAL, "logit_bias: is NULL, but n_logit_bias is %zu", p->n_logit_bias);
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

static void free_arrays(qn_sampler *s) {
    qni_free(s->value);
    qni_free(s->id);
    qni_free(s->greatest);
    qni_free(s->key);
    qni_free(s->spare);
    qni_free(s->count);
    qni_free(s->blocks);
    s->value = s->greatest = NULL;
    s->id = NULL;
    s->key = s->spare = NULL;
    s->count = NULL;
    s->blocks = NULL;
}

qn_status qni_sampler_alloc(qn_sampler *s, qn_error *err) {
    const size_t n = (size_t)s->n_valid;
    if (s->blocks != NULL) return QN_OK;
    s->value = qni_calloc(n, sizeof *s->value);
    s->id = qni_calloc(n, sizeof *s->id);
    s->greatest = qni_calloc((size_t)s->n_group, sizeof *s->greatest);
    s->key = qni_calloc(n, sizeof *s->key);
    s->spare = qni_calloc(n, sizeof *s->spare);
    s->count = qni_calloc((size_t)s->n_vocab, sizeof *s->count);
    s->blocks = qni_calloc((size_t)s->n_block, sizeof *s->blocks);
    if (s->value && s->id && s->greatest && s->key && s->spare && s->count && s->blocks) return QN_OK;
    free_arrays(s);
    return qni_fail(err, QN_ENOMEM, "sampler: no memory for %d ids", s->n_vocab);
}

qn_status qni_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab, int32_t n_valid,
                             qn_device *device, qn_error *err) {
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
    s->n_block = (int32_t)qni_ceil_div(s->n_valid, QNI_BLOCK_IDS);
    s->n_group = (int32_t)qni_ceil_div(s->n_valid, QNI_GROUP_IDS);
    s->bias = qni_calloc(params->n_logit_bias, sizeof *s->bias);
    if (s->bias == NULL) {
        qn_sampler_free(s);
        return qni_fail(err, QN_ENOMEM, "sampler: no memory for %zu biases", params->n_logit_bias);
    }
    if (params->n_logit_bias > 0) memcpy(s->bias, params->logit_bias, params->n_logit_bias * sizeof *s->bias);
    s->params.logit_bias = s->bias;
    s->device = device;
    if (device != NULL) qni_device_retain(device);
    *out = s;
    return QN_OK;
}

qn_status qn_sampler_create(qn_sampler **out, const qn_sampler_params *params, int32_t n_vocab, int32_t n_valid,
                            qn_error *err) {
    qn_sampler *s = NULL;
    QN_TRY(qni_sampler_create(out != NULL ? &s : NULL, params, n_vocab, n_valid, NULL, err));
    const qn_status status = qni_sampler_alloc(s, err);
    if (status != QN_OK) {
        qn_sampler_free(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

void qn_sampler_free(qn_sampler *sampler) {
    if (sampler == NULL) return;
    if (sampler->device != NULL) qni_device_release(sampler->device);
    qni_free(sampler->bias);
    free_arrays(sampler);
    qni_free(sampler);
}

/* Whether the logits can be sampled from: no NaN, no +Inf, not all -Inf. */
static qn_status check_logits(const float *logits, int32_t n_valid, qn_error *err) {
    int bad = 0, usable = 0;
    for (int32_t i = 0; i < n_valid; i++) {
        bad |= !(logits[i] <= FLT_MAX);
        usable |= logits[i] >= -FLT_MAX;
    }
    return qni_candidates_check(logits, n_valid, bad, usable, err);
}

/* -Inf, an id that the model itself excludes, is left unchanged. */
static void set_logit(double *x, double to) {
    if (*x < -limit) return;
    *x = fmin(fmax(to, -limit), limit);
}

/* Returns whether logits may have moved. */
static bool apply_penalties(qn_sampler *s, const int32_t *history, size_t n_history, size_t prompt_len) {
    const qn_sampler_params *p = &s->params;
    double *x = s->value;
    if (p->repetition_penalty != 1) {
        for (size_t j = 0; j < n_history; j++) {
            int32_t id = history[j];
            if (id >= s->n_valid || s->count[id]++ > 0) continue;
            set_logit(&x[id], x[id] > 0 ? x[id] / p->repetition_penalty : x[id] * p->repetition_penalty);
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
            set_logit(&x[id], x[id] - (p->frequency_penalty * n + p->presence_penalty));
        }
    }
    for (size_t j = 0; j < p->n_logit_bias; j++) {
        int32_t id = s->bias[j].id;
        if (id < s->n_valid) set_logit(&x[id], x[id] + (double)s->bias[j].bias);
    }
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0 || p->n_logit_bias > 0;
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
    QN_TRY(qni_candidates_read(sampler, logits, err));
    if (apply_penalties(sampler, history, n_history, prompt_len)) qni_candidates_update_maxima(sampler);
    qni_candidates_select(sampler);
    *id = qni_candidates_draw(sampler, qni_philox_uniform(sampler->params.seed, position), probs);
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

    /* A heap of the best by raw logit, with the worst at the root; then sorted by repeatedly removing the root. */
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
