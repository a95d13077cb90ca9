/* SPDX-License-Identifier: Apache-2.0 */
/* Times one test of quern bench. */
#include <stdlib.h>
#include <time.h>

#include "../open.h"
#include "../output.h"
#include "bench.h"

static int n_repetition(const bench *b) {
    return b->settings->repetitions.given ? (int)b->settings->repetitions.value : 5;
}

static void begin(const bench *b, bench_test *t) {
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc)) strftime(t->began, sizeof(t->began), "%Y-%m-%dT%H:%M:%SZ", &utc);
    t->samples_s = must_calloc((size_t)n_repetition(b), sizeof(double));
}

/* The first load warms the page cache. It counts as a measurement if repeating would take too long. */
int bench_load(bench *b, bench_test *t) {
    static const double patience_s = 20;
    double spent_s = 0;
    begin(b, t);
    for (int i = 0; i <= n_repetition(b); i++) {
        qn_model_close(b->model);
        b->model = NULL;
        double start = now_s();
        int code = open_model(&b->model, b->settings, b->device, b->dir);
        if (code) return code;
        double time = now_s() - start;
        spent_s += time;
        if (i <= 1) t->n_sample = 0;
        t->samples_s[t->n_sample++] = time;
        if (spent_s + time > patience_s) break;
    }
    b->config = *qn_model_get_config(b->model);
    return EXIT_DONE;
}

/* Create the pool, sized for the test with the most sequences. */
static int need_pool(bench *b) {
    enum { BLOCK = 256 }; /* at least the block size of any backend: each session has one partial block */
    if (b->pool) return EXIT_DONE;
    int64_t n_tok = 0;
    for (int i = 0; i < b->n_test; i++) {
        const int64_t of_test = (int64_t)b->tests[i].n_parallel * (b->n_ctx + BLOCK);
        if (of_test > n_tok) n_tok = of_test;
    }
    qn_kv_pool_options options = {.n_ctx = b->n_ctx,
                                  .n_tok = (int32_t)(n_tok < INT32_MAX ? n_tok : INT32_MAX),
                                  .kv_dtype = (qn_dtype)b->settings->kv,
                                  .yarn = (qn_yarn_mode)b->settings->yarn};
    qn_error err;
    return qn_kv_pool_create(&b->pool, b->model, &options, &err) ? fail_error(b->name, &err) : EXIT_DONE;
}

/* Create sessions for n parallel sequences. */
static int need_sessions(bench *b, int32_t n) {
    int code = need_pool(b);
    if (code) return code;
    if (!b->ids) {
        b->ids = must_calloc((size_t)b->n_ctx, sizeof(int32_t));
        uint64_t x = 1; /* xorshift64 (Marsaglia 2003) */
        for (int32_t i = 0; i < b->n_ctx; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            b->ids[i] = (int32_t)(x % (uint64_t)b->config.n_vocab);
        }
    }
    if (n > b->n_session) b->sessions = must_realloc(b->sessions, (size_t)n, sizeof(qn_session *));
    const qn_session_options options = {.pool = b->pool};
    for (qn_error err; b->n_session < n; b->n_session++) {
        if (qn_session_create(&b->sessions[b->n_session], b->model, &options, &err)) return fail_error(b->name, &err);
    }
    return EXIT_DONE;
}

/* Append the ids up to `end` to one session, in chunks, checking for an interrupt after each. */
static int feed(bench *b, qn_session *session, int32_t end, progress_bar *bar) {
    const int32_t piece = b->is_gpu ? 1 << 20 : 512; /* a GPU takes a prompt in large steps: not cut further here */
    qn_error err;
    for (int32_t at = qn_session_n_tok(session); at < end; at = qn_session_n_tok(session)) {
        size_t n = (size_t)(end - at < piece ? end - at : piece);
        if (interrupted()) return EXIT_INTERRUPTED;
        if (qn_session_append(session, b->ids + at, n, NULL, NULL, &err)) return fail_error(b->name, &err);
        if (bar) progress_report(bar, (uint64_t)qn_session_n_tok(session), (uint64_t)end);
    }
    return EXIT_DONE;
}

/* Bring the sessions of a test to its depth. All sequences share one prefix, so what is already computed is kept. */
static int to_depth(bench *b, const bench_test *t) {
    progress_bar bar;
    progress_begin(&bar, "filling");
    int code = EXIT_DONE;
    for (int32_t i = 0; !code && i < t->n_parallel; i++) {
        qn_session *session = b->sessions[i];
        qn_error err;
        if (qn_session_n_tok(session) > t->depth && qn_session_rewind(session, (size_t)t->depth, &err))
            code = fail_error(b->name, &err);
        else
            code = feed(b, session, t->depth, &bar);
    }
    progress_end(&bar);
    return code;
}

/* On a device that samples, ids never wait for the host: greedy, whatever comes. */
static int generate_sampled(bench *b, const bench_test *t, int32_t n) {
    const size_t n_seq = (size_t)t->n_parallel;
    qn_sampler_params greedy;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &greedy);
    greedy.temperature = 0;
    const qn_generate_args args = {
        .ids = b->ids, .n_ids = (size_t)t->depth + 1, .n_predict = n, .ignore_eos = true, .sampler = &greedy};
    qn_generation **generations = must_calloc(n_seq, sizeof(*generations));
    qn_error *errors = must_calloc(n_seq, sizeof(*errors)), err = {0};
    bool *done = must_calloc(n_seq, sizeof(*done));
    qn_status status = QN_OK;
    for (size_t i = 0; !status && i < n_seq; i++)
        status = qn_generation_create(&generations[i], b->sessions[i], NULL, &args, &err);
    while (!status && !done[0] && !interrupted()) /* all have the same length */
        status = n_seq == 1 ? qn_generation_next(generations[0], done, &err)
                            : qn_generation_next_batch(generations, n_seq, done, errors, &err);
    if (!status && errors[0].status) status = errors[0].status, err = errors[0];
    for (size_t i = 0; i < n_seq; i++) qn_generation_free(generations[i]);
    free(generations);
    free(errors);
    free(done);
    if (status) return fail_error(b->name, &err);
    return interrupted() ? EXIT_INTERRUPTED : EXIT_DONE;
}

static int generate(bench *b, const bench_test *t, int32_t n) {
    qn_error err;
    int code = EXIT_DONE;
    qn_span *spans = must_calloc((size_t)t->n_parallel, sizeof(*spans));
    for (int32_t step = 0; !code && step < n; step++) {
        const int32_t *id = b->ids + t->depth + step;
        for (int32_t i = 0; i < t->n_parallel; i++)
            spans[i] = (qn_span){.session = b->sessions[i], .ids = id, .n_ids = 1};
        qn_status status = t->n_parallel == 1 ? qn_session_step(b->sessions[0], *id, &err)
                                              : qn_session_append_batch(spans, (size_t)t->n_parallel, &err);
        if (status) code = fail_error(b->name, &err);
        if (interrupted()) code = EXIT_INTERRUPTED;
    }
    free(spans);
    return code;
}

int bench_sessions(bench *b, bench_test *t) {
    begin(b, t);
    int code = need_sessions(b, t->n_parallel);
    for (int i = -1; !code && i < n_repetition(b); i++) { /* -1: warm-up, a whole prompt or one step */
        code = to_depth(b, t);
        if (code) break;
        double start = now_s();
        code = t->kind == TEST_PROMPT ? feed(b, b->sessions[0], t->depth + t->n_tok, NULL)
               : b->is_gpu            ? generate_sampled(b, t, t->n_tok)
                                      : generate(b, t, i < 0 ? 1 : t->n_tok);
        if (!code && i >= 0) t->samples_s[t->n_sample++] = now_s() - start;
    }
    return code;
}
