/* SPDX-License-Identifier: Apache-2.0 */
/* quern verify: a checkpoint against its golden.json, {"greedy": [{prompt_ids, greedy_ids, margins}],
 * "held_out": {ids, windows, length, perplexity}}. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/json.h"
#include "../output.h"
#include "../perplexity.h"
#include "verify_rows.h"

enum { MAX_BYTES = 1 << 30 };

/* Relative error bound for the perplexity. */
static const double perplexity_bound = 1e-3;

/* The rows of "greedy" and the data they borrow. */
typedef struct prompts {
    row *rows;
    qn_ids *ids, *greedy;
    double **margins;
    size_t n;
} prompts;

static void prompts_release(prompts *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->ids[i].data);
        free(p->greedy[i].data);
        free(p->margins[i]);
    }
    free(p->rows);
    free(p->ids);
    free(p->greedy);
    free(p->margins);
}

static bool read_prompt_row(prompts *p, size_t i, json_t *item, record_error *error) {
    if (!json_is_object(item)) return record_fail(error, "greedy[%zu]: must be an object", i);
    json_t *margins = json_object_get(item, "margins");
    if (!field_ids(item, "prompt_ids", &p->ids[i], error) || !field_ids(item, "greedy_ids", &p->greedy[i], error))
        return false;
    if (!p->ids[i].size || p->ids[i].size > INT32_MAX / 4 || p->greedy[i].size > INT32_MAX / 4)
        return record_fail(error, "greedy[%zu]: prompt_ids must not be empty", i);
    if (json_array_size(margins) != p->greedy[i].size)
        return record_fail(error, "greedy[%zu]: %zu margins for %zu tokens", i, json_array_size(margins),
                           p->greedy[i].size);
    p->margins[i] = must_calloc(p->greedy[i].size, sizeof(double));
    for (size_t j = 0; j < p->greedy[i].size; j++) {
        json_t *margin = json_array_get(margins, j);
        if (!json_is_number(margin)) return record_fail(error, "greedy[%zu]: margins must be numbers", i);
        p->margins[i][j] = json_number_value(margin);
    }
    p->rows[i] = (row){.ids = p->ids[i].data,
                       .n_ids = (int32_t)p->ids[i].size,
                       .greedy = p->greedy[i].data,
                       .margins = p->margins[i],
                       .n_greedy = (int32_t)p->greedy[i].size};
    return true;
}

static bool read_prompts(prompts *p, json_t *list, record_error *error) {
    size_t n = json_array_size(list);
    if (n > 1024) return record_fail(error, "greedy: %zu prompts are too many", n);
    *p = (prompts){must_calloc(n, sizeof(row)), must_calloc(n, sizeof(qn_ids)), must_calloc(n, sizeof(qn_ids)),
                   must_calloc(n, sizeof(double *)), n};
    for (size_t i = 0; i < n; i++)
        if (!read_prompt_row(p, i, json_array_get(list, i), error)) return false;
    return true;
}

static void verify_greedy(verifier *vf, qn_model *model, prompts *p, verdict *v) {
    row_run run = {.verifier = vf,
                   .model = model,
                   .config = qn_model_get_config(model),
                   .verdict = v,
                   .rows = p->rows,
                   .n_row = (int32_t)p->n,
                   .chunk = (int32_t)vf->settings->chunk.value,
                   .batch = (int32_t)vf->settings->batch.value};
    char digest[65];
    memcpy(digest, v->digest, sizeof(digest));
    if (rows_run(&run)) rows_report(&run, v->bound, false);
    if (*digest) memcpy(v->digest, digest, sizeof(digest)); /* the digest of golden.safetensors takes precedence */
    rows_release(&run);
}

/* Sum of the negative log-likelihoods in a window. */
typedef struct score {
    const int32_t *next;
    double nll;
} score;

static bool on_logits(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    score *s = user;
    s->nll += log_sum_exp(logits, n_vocab) - logits[s->next[position]];
    return !interrupted();
}

static bool score_windows(qn_session *session, const qn_ids *ids, size_t windows, size_t length, double *nll,
                          qn_error *err) {
    progress_bar bar;
    progress_begin(&bar, "scoring");
    bool good = true;
    for (size_t w = 0; good && w < windows; w++) {
        score window = {ids->data + w * length + 1, 0};
        good = !qn_session_rewind(session, 0, err) &&
               !qn_session_append(session, ids->data + w * length, length, on_logits, &window, err);
        *nll += window.nll;
        progress_report(&bar, w + 1, windows);
    }
    progress_end(&bar);
    return good;
}

static bool read_held_out(json_t *held_out, qn_ids *ids, int64_t *windows, int64_t *length, double *perplexity,
                          int32_t n_vocab, record_error *error) {
    whole w = {0, false}, n = {0, false};
    real y = {0, false};
    if (!field_ids(held_out, "ids", ids, error) || !field_whole(held_out, "windows", 1, INT32_MAX, &w, error) ||
        !field_whole(held_out, "length", 1, INT32_MAX, &n, error) || !field_real(held_out, "perplexity", &y, error))
        return false;
    if (!w.given || !n.given || !y.given || ids->size < (uint64_t)w.value * (uint64_t)n.value + 1)
        return record_fail(error, "held_out: needs windows, length, perplexity and %lld x %lld + 1 ids, has %zu",
                           (long long)w.value, (long long)n.value, ids->size);
    for (size_t i = 0; i < ids->size; i++)
        if (ids->data[i] >= n_vocab)
            return record_fail(error, "held_out: id %d is beyond the vocabulary of %d", ids->data[i], n_vocab);
    *windows = w.value;
    *length = n.value;
    *perplexity = y.value;
    return true;
}

static void verify_held_out(verifier *vf, qn_model *model, json_t *held_out, bool counts, verdict *v) {
    qn_ids ids = {0};
    int64_t windows = 0, length = 0;
    double perplexity = 0, nll = 0;
    record_error error;
    qn_error err;
    qn_session *session = NULL;
    if (!read_held_out(held_out, &ids, &windows, &length, &perplexity, qn_model_get_config(model)->n_vocab, &error)) {
        verdict_fail(v, "golden.json: %s", error.text);
    } else {
        qn_session_options options = {.n_ctx = (int32_t)length, .kv_dtype = (qn_dtype)vf->compute.kv};
        if (qn_session_create(&session, model, &options, &err) ||
            !score_windows(session, &ids, (size_t)windows, (size_t)length, &nll, &err)) {
            verdict_fail_error(v, &err);
        } else {
            float got = (float)exp(nll / ((double)windows * (double)length)), want = (float)perplexity;
            measure m = {0};
            measure_add(&m, &got, &want, 1);
            verdict_tensor(v, "perplexity", &m, perplexity_bound, counts);
        }
    }
    qn_session_free(session);
    free(ids.data);
}

void verify_golden_json(verifier *vf, const char *file, qn_model *model, verdict *v) {
    qn_error err;
    json_t *root = NULL;
    if (qni_json_read(&root, file, MAX_BYTES, &err)) {
        verdict_fail_error(v, &err);
        return;
    }
    prompts p = {0};
    record_error error;
    json_t *greedy = json_object_get(root, "greedy"), *held_out = json_object_get(root, "held_out");
    bool counts = !*v->digest; /* no golden.safetensors: the verdict is on the perplexity */
    if (counts) v->bound = perplexity_bound;
    if (!json_array_size(greedy) || !json_is_object(held_out))
        verdict_fail(v, "golden.json: needs greedy and held_out");
    else if (!read_prompts(&p, greedy, &error))
        verdict_fail(v, "golden.json: %s", error.text);
    else
        verify_greedy(vf, model, &p, v);
    if (!*v->error) verify_held_out(vf, model, held_out, counts, v);
    prompts_release(&p);
    json_decref(root);
}
