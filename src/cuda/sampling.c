/* SPDX-License-Identifier: Apache-2.0 */
/* Samplers on the device: their settings, biases and, where penalties need them, the ids so far. */
#include "cuda.h"

#include <quern/sampler.h>

#include <string.h>

static bool needs_history(const qn_sampler_params *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

static size_t aligned(size_t bytes) {
    return (bytes + 15) / 16 * 16;
}

/* Where the parts of one sampler are: the number of ids, the ids, the biases' ids, the biases. */
typedef struct parts {
    size_t n_id, ids, bias_ids, biases, end;
} parts;

static parts parts_of(const qni_sampling *s, int32_t n_more, size_t at) {
    const size_t n_history = needs_history(s->params) ? (size_t)s->n_id + (size_t)n_more : 0;
    parts p = {.n_id = at};
    p.ids = p.n_id + 16;
    p.bias_ids = p.ids + aligned(n_history * sizeof(int32_t));
    p.biases = p.bias_ids + aligned(s->params->n_logit_bias * sizeof(int32_t));
    p.end = p.biases + aligned(s->params->n_logit_bias * sizeof(float));
    return p;
}

static void fill(qni_cuda *c, int32_t row, const qni_sampling *s, const parts *at) {
    const qn_sampler_params *p = s->params;
    unsigned char *host = c->samplers.host, *device = c->samplers.device;
    int32_t *bias_ids = (int32_t *)(void *)(host + at->bias_ids);
    float *biases = (float *)(void *)(host + at->biases);
    const bool has_history = needs_history(p);
    *(int32_t *)(void *)(host + at->n_id) = s->n_id;
    if (has_history) memcpy(host + at->ids, s->ids, (size_t)s->n_id * sizeof *s->ids);
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        bias_ids[i] = p->logit_bias[i].id;
        biases[i] = p->logit_bias[i].bias;
    }
    ((qni_cuda_sampler *)(void *)host)[row] =
        (qni_cuda_sampler){.temperature = p->temperature,
                           .top_p = p->top_p,
                           .min_p = p->min_p,
                           .repetition_penalty = p->repetition_penalty,
                           .presence_penalty = p->presence_penalty,
                           .frequency_penalty = p->frequency_penalty,
                           .seed = p->seed,
                           .top_k = p->top_k,
                           .n_valid = s->n_valid,
                           .prompt_len = s->prompt_len,
                           .n_bias = (int32_t)p->n_logit_bias,
                           .bias_ids = (const int32_t *)(const void *)(device + at->bias_ids),
                           .biases = (const float *)(const void *)(device + at->biases),
                           .ids = has_history ? (int32_t *)(void *)(device + at->ids) : NULL,
                           .n_id = (int32_t *)(void *)(device + at->n_id)};
}

qn_status qni_cuda_samplers_put(qni_cuda *c, const qni_sampling *sampling, int32_t n, int32_t n_more, qn_error *err) {
    const size_t first = aligned((size_t)n * sizeof(qni_cuda_sampler));
    size_t bytes = first;
    for (int32_t r = 0; r < n; r++) bytes = parts_of(&sampling[r], n_more, bytes).end;
    QN_TRY(qni_cuda_grow(c, &c->n_close, sizeof(unsigned long long), false, "sampling", err)); /* once */
    QN_TRY(qni_cuda_grow(c, &c->samplers, bytes, true, "sampling", err));
    parts at = {.end = first};
    for (int32_t r = 0; r < n; r++) {
        at = parts_of(&sampling[r], n_more, at.end);
        fill(c, r, &sampling[r], &at);
    }
    QNI_CUDA_TRY(c, cudaMemcpyAsync(c->samplers.device, c->samplers.host, bytes, cudaMemcpyHostToDevice, c->stream),
                 "sampling", err);
    return QN_OK;
}

qn_status qni_cuda_count_close_draws(void *state, uint64_t *out, qn_error *err) {
    qni_cuda *c = state;
    unsigned long long n = 0;
    if (c->n_close.device != NULL) QN_TRY(qni_cuda_memory.read(c, &n, c->n_close.device, sizeof n, err));
    *out = n;
    return QN_OK;
}

qn_status qni_cuda_op_sample(const qni_run *run, int32_t *ids, qni_mat logits, const qni_sampling *sampling) {
    const size_t mark = run->scratch->used;
    void *work =
        qni_scratch_array(run->scratch, (int64_t)qni_cuda_sample_work((int32_t)logits.n_row, logits.n_col), 1, 1);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cuda *c = qni_cuda_of(run);
        QN_TRY(qni_cuda_samplers_put(c, sampling, (int32_t)logits.n_row, 0, run->err));
        QNI_CUDA_TRY(c, qni_cuda_sample(c->stream, ids, logits, c->samplers.device, c->n_close.device, work), "sample",
                     run->err);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}
