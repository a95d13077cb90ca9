/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds rows of reference ids to sessions and compares logits, hidden states, caches and greedy tokens. */
#include "verify_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/sha256.h"
#include "../output.h"

static void on_hidden(void *user, int32_t state, int32_t position, const float *values, int32_t d_model) {
    row *r = user;
    if (position >= r->n_ids || state > r->run->config->n_layer || !r->hidden[state]) return;
    measure_add(&r->run->hidden[state], values, r->hidden[state] + (size_t)position * (size_t)d_model, (size_t)d_model);
}

static bool on_logits(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    row *r = user;
    size_t at = (size_t)position * (size_t)n_vocab;
    memcpy(r->logits + at, logits, (size_t)n_vocab * sizeof(float));
    if (r->golden_logits) measure_add(&r->run->logits, logits, r->golden_logits + at, (size_t)n_vocab);
    return !interrupted();
}

static bool open_row(row_run *run, row *r, qn_kv_pool *pool) {
    qn_session_options options = {.pool = pool};
    if (r->hidden) options.tap = (qn_tap){on_hidden, r};
    qn_error err;
    r->run = run;
    if (qn_session_create(&r->session, run->model, &options, &err)) return verdict_fail_error(run->verdict, &err);
    if (r->is_golden) r->logits = must_calloc((size_t)r->n_ids * (size_t)run->config->n_vocab, sizeof(float));
    return true;
}

/* One step: spans of n rows. A single span uses the single-session calls. */
static bool feed(row_run *run, const qn_span *spans, size_t n) {
    qn_error err;
    qn_status status =
        n == 1 ? qn_session_append(spans->session, spans->ids, spans->n_ids, spans->logits, spans->user, &err)
               : qn_session_append_batch(spans, n, &err);
    return status ? verdict_fail_error(run->verdict, &err) : true;
}

static bool prefill(row_run *run, row *rows, int32_t n_row, qn_span *spans) {
    for (;;) {
        size_t n = 0;
        for (int32_t i = 0; i < n_row; i++) {
            row *r = rows + i;
            int32_t left = r->n_ids - r->n_fed;
            if (!left) continue;
            if (run->chunk && left > run->chunk) left = run->chunk;
            spans[n++] = (qn_span){r->session, r->ids + r->n_fed, (size_t)left, r->is_golden ? on_logits : NULL, r};
            r->n_fed += left;
        }
        if (!n) return true;
        if (!feed(run, spans, n)) return false;
    }
}

static bool compare_cache(row_run *run, row *r) {
    const qn_model_config *c = run->config;
    size_t n = (size_t)c->n_kv_head * (size_t)r->n_ids * (size_t)c->head_dim;
    float *k = must_calloc(n, sizeof(float)), *v = must_calloc(n, sizeof(float));
    bool good = true;
    for (int32_t layer = 0; good && layer < c->n_layer; layer++) {
        qn_error err;
        if (qn_session_read_kv(r->session, layer, 0, r->n_ids, k, v, &err))
            good = verdict_fail_error(run->verdict, &err);
        if (good && r->k_cache[layer]) measure_add(&run->k_cache[layer], k, r->k_cache[layer], n);
        if (good && r->v_cache[layer]) measure_add(&run->v_cache[layer], v, r->v_cache[layer], n);
    }
    free(k);
    free(v);
    return good;
}

/* The lowest id with the largest logit. */
static int32_t best_id(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* If the golden token's margin is below this, a different token is not an error: 1e-4, or with 16 bits twice the bound
 * of the logits. */
static double margin_bound(const row_run *run, const float *logits) {
    if (!run->narrow) return 1e-4;
    double top = 0;
    for (int32_t i = 0; i < run->config->n_vocab; i++) top = fmax(top, fabs(logits[i]));
    return 2 * verify_model_bound(run->verifier, run->config) * top;
}

static bool greedy(row_run *run, row *rows, int32_t n_row, qn_span *spans, int32_t *drawn) {
    int32_t n_vocab = run->config->n_vocab, n_step = 0;
    for (int32_t i = 0; i < n_row; i++)
        if (rows[i].n_greedy > n_step) n_step = rows[i].n_greedy;
    for (int32_t step = 0; step < n_step; step++) {
        size_t n = 0;
        bool compares = false;
        for (int32_t i = 0; i < n_row; i++) {
            row *r = rows + i;
            if (r->is_golden && (r->stopped || step >= r->n_greedy)) continue;
            const float *logits = step || !r->is_golden ? qn_session_logits(r->session)
                                                        : r->logits + (size_t)(r->n_ids - 1) * (size_t)n_vocab;
            drawn[i] = best_id(logits, n_vocab);
            if (r->is_golden && drawn[i] != r->greedy[step]) {
                r->stopped = true;
                r->wrong = !(r->margins[step] < margin_bound(run, logits));
                continue;
            }
            r->n_agreed += r->is_golden;
            compares |= r->is_golden && step + 1 < r->n_greedy;
            spans[n++] = (qn_span){.session = r->session, .ids = &drawn[i], .n_ids = 1};
        }
        if (!compares) return true;
        if (!feed(run, spans, n)) return false;
    }
    return true;
}

/* A pool for n_row sessions of n_ctx tokens: only sessions of one pool are computed in batched steps. */
static qn_kv_pool *open_pool(row_run *run, int32_t n_row, int32_t n_ctx) {
    enum { BLOCK = 256 }; /* at least the block size of any backend: each session has one partial block */
    const int64_t wanted = (int64_t)n_row * (n_ctx + BLOCK);
    qn_kv_pool_options options = {
        .n_ctx = n_ctx,
        .n_tok = (int32_t)(wanted < INT32_MAX ? wanted : INT32_MAX),
        .kv_dtype = (qn_dtype)run->verifier->compute.kv,
        .yarn = run->config->yarn.factor > 0 ? QN_YARN_ON : QN_YARN_AUTO,
    };
    qn_error err;
    qn_kv_pool *pool = NULL;
    if (qn_kv_pool_create(&pool, run->model, &options, &err)) verdict_fail_error(run->verdict, &err);
    return pool;
}

/* Run n_row rows as one batch: create sessions, feed the ids, generate tokens. */
static bool run_together(row_run *run, row *rows, int32_t n_row) {
    int32_t n_ctx = (int32_t)run->verifier->settings->n_ctx.value;
    for (int32_t i = 0; i < n_row; i++)
        if (rows[i].n_ids + rows[i].n_greedy > n_ctx) n_ctx = rows[i].n_ids + rows[i].n_greedy;
    qn_span *spans = must_calloc((size_t)n_row, sizeof(*spans));
    int32_t *drawn = must_calloc((size_t)n_row, sizeof(*drawn));
    qn_kv_pool *pool = open_pool(run, n_row, n_ctx);
    bool good = pool != NULL;
    for (int32_t i = 0; good && i < n_row; i++) good = open_row(run, rows + i, pool);
    good = good && prefill(run, rows, n_row, spans);
    for (int32_t i = 0; good && i < n_row; i++)
        if (rows[i].k_cache) good = compare_cache(run, rows + i);
    good = good && greedy(run, rows, n_row, spans, drawn);
    for (int32_t i = 0; i < n_row; i++) {
        qn_session_free(rows[i].session);
        rows[i].session = NULL;
    }
    qn_kv_pool_free(pool);
    free(spans);
    free(drawn);
    return good;
}

/* Filler rows for a batch: random prompts, all shorter than the first golden row. */
static void fill_batch(row *rows, int32_t first, int32_t n, int32_t n_vocab, int32_t **storage) {
    int32_t longest = rows[0].n_ids;
    uint64_t random = 0x9e3779b97f4a7c15u;
    *storage = must_calloc((size_t)(n - first) * (size_t)longest + 1, sizeof(int32_t));
    int32_t *ids = *storage;
    for (int32_t i = first; i < n; i++, ids += longest) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        int32_t length = longest > 1 ? 1 + (int32_t)((random >> 33) % (uint64_t)(longest - 1)) : 1;
        for (int32_t j = 0; j < length; j++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            ids[j] = (int32_t)((random >> 33) % (uint64_t)n_vocab);
        }
        rows[i] = (row){.ids = ids, .n_ids = length};
    }
}

static bool run_batch(row_run *run) {
    int32_t n = run->batch > run->n_row ? run->batch : run->n_row;
    row *rows = must_calloc((size_t)n, sizeof(*rows));
    memcpy(rows, run->rows, (size_t)run->n_row * sizeof(*rows));
    int32_t *storage;
    fill_batch(rows, run->n_row, n, run->config->n_vocab, &storage);
    bool good = run_together(run, rows, n);
    memcpy(run->rows, rows, (size_t)run->n_row * sizeof(*rows));
    free(storage);
    free(rows);
    return good;
}

static void make_digest(row_run *run) {
    qni_sha256 hash;
    uint8_t digest[32];
    qni_sha256_init(&hash);
    for (int32_t i = 0; i < run->n_row; i++) {
        const row *r = run->rows + i;
        qni_sha256_update(&hash, r->logits, (size_t)r->n_ids * (size_t)run->config->n_vocab * sizeof(float));
    }
    qni_sha256_final(&hash, digest);
    for (int i = 0; i < 32; i++) snprintf(run->verdict->digest + 2 * i, 3, "%02x", digest[i]);
}

bool rows_run(row_run *run) {
    size_t n_layer = (size_t)run->config->n_layer;
    run->hidden = must_calloc(n_layer + 1, sizeof(measure));
    run->k_cache = must_calloc(n_layer, sizeof(measure));
    run->v_cache = must_calloc(n_layer, sizeof(measure));
    run->narrow = verify_model_bound(run->verifier, run->config) > 1e-3;
    for (int32_t i = 0; i < run->n_row; i++) run->rows[i].is_golden = true;
    bool good = true;
    if (run->batch)
        good = run_batch(run);
    else
        for (int32_t i = 0; good && i < run->n_row; i++) good = run_together(run, run->rows + i, 1);
    if (good) make_digest(run);
    return good;
}

void rows_release(row_run *run) {
    for (int32_t i = 0; i < run->n_row; i++) free(run->rows[i].logits);
    free(run->hidden);
    free(run->k_cache);
    free(run->v_cache);
}

static void report_tensor(row_run *run, const char *name, int32_t index, const measure *m, double bound, bool counts) {
    char text[64];
    snprintf(text, sizeof(text), index < 0 ? "%s" : "%s.%d", name, index);
    verdict_tensor(run->verdict, text, m, bound, counts);
}

void rows_report(row_run *run, double bound, bool counts) {
    const row *first = run->rows;
    verdict *v = run->verdict;
    int32_t n_layer = run->config->n_layer, agreed = 0, all = 0;
    if (first->golden_logits) report_tensor(run, "logits", -1, &run->logits, bound, counts);
    for (int32_t i = 0; first->hidden && i <= n_layer; i++)
        if (first->hidden[i]) report_tensor(run, "hidden", i, &run->hidden[i], bound, counts);
    for (int32_t i = 0; first->k_cache && i < n_layer; i++) {
        if (first->k_cache[i]) report_tensor(run, "k_cache", i, &run->k_cache[i], bound, counts);
        if (first->v_cache[i]) report_tensor(run, "v_cache", i, &run->v_cache[i], bound, counts);
    }
    bool wrong = false;
    for (int32_t i = 0; i < run->n_row; i++) {
        agreed += run->rows[i].n_agreed;
        all += run->rows[i].n_greedy;
        wrong |= run->rows[i].wrong;
    }
    v->ok = v->ok && !wrong;
    if (!all || !v->prints) return;
    verdict_path(v);
    printf("%-34s %d of %d tokens agree  %s\n", "greedy", agreed, all, wrong ? "WRONG" : "ok");
}
