/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations that sample on the device give the same ids as the host's sampler. on_token receives the logits, so a
 * generation that sets it samples on the host. The guarded backend (guarded/) has both sampling ops, `sample` and
 * `step`, and with the device option compose `sample` alone; a backend without them samples on the host both times.
 */
#include "support/sessions.h"

#include "../src/backend/device.h"
#include "../src/session/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CTX = 96, MOST_TEXT = 2048, N_PROMPT = 7 };

/* A generation to run. */
typedef struct request {
    const char *name;
    double temperature, repetition_penalty;
    int32_t top_k, n_predict, min_tokens, n_ctx;
    int32_t end_at; /* the id sampled at this count (from 1) becomes a stop id; 0: none */
    const char *stop;
    bool ignore_eos;
    uint64_t seed;
} request;

static const request requests[] = {
    {.name = "greedy", .n_predict = 33},
    {.name = "one", .n_predict = 1},
    {.name = "as many as a step makes", .n_predict = 5},
    {.name = "sampled", .n_predict = 40, .temperature = 0.8, .top_k = 20, .seed = 3},
    {.name = "penalty", .n_predict = 24, .temperature = 1, .repetition_penalty = 1.3, .seed = 4},
    {.name = "stop id", .n_predict = 30, .end_at = 8},
    {.name = "stop id at once", .n_predict = 30, .end_at = 1},
    {.name = "stop string", .n_predict = 60, .stop = " the"},
    {.name = "min_tokens", .n_predict = 30, .end_at = 4, .min_tokens = 9},
    {.name = "full context", .n_ctx = 21, .ignore_eos = true},
    {.name = "no room", .n_ctx = N_PROMPT, .ignore_eos = true},
};
enum { N_REQUEST = sizeof requests / sizeof requests[0] };

typedef struct output {
    qn_status status;
    qn_error error;
    qn_generate_result result;
    char text[MOST_TEXT];
    size_t size;
    int32_t ids[N_CTX], n_tok;
    int32_t sampled[N_CTX], n_sampled; /* by on_token */
} output;

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    output *o = user;
    (void)piece;
    assert_true(o->size + size < MOST_TEXT);
    memcpy(o->text + o->size, text, size);
    o->size += size;
    return true;
}

static bool on_token(void *user, const qn_token *token) {
    output *o = user;
    assert_non_null(token->logits);
    o->sampled[o->n_sampled++] = token->id;
    return true;
}

typedef struct fixture {
    qn_model *model[2]; /* with the backend's fused ops, and composed */
    qn_tokenizer *tokenizer;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    for (int i = 0; i < 2; i++) {
        const qn_device_options options = {.n_thread = 2, .compose = i == 1};
        f->model[i] = open_model_with("ref", &options, GOLDEN_MODELS "/tied-f32");
    }
    assert_ok(qn_tokenizer_open(&f->tokenizer, DEMO_MODEL, err));
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    qn_tokenizer_close(f->tokenizer);
    for (int i = 0; i < 2; i++) qn_model_close(f->model[i]);
    free(f);
    return 0;
}

static qn_generation *begin(const fixture *f, qn_session *session, const request *r, bool on_host, int32_t end,
                            output *o) {
    static const int32_t prompt[N_PROMPT] = {100, 131, 162, 193, 224, 255, 286};
    qn_generation *g = NULL;
    qn_sampler_params p;
    const qn_string stop = {r->stop, r->stop != NULL ? strlen(r->stop) : 0};
    *o = (output){0};
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    p.temperature = r->temperature;
    p.top_k = r->top_k;
    p.seed = r->seed;
    if (r->repetition_penalty > 0) p.repetition_penalty = r->repetition_penalty;
    const qn_generate_args args = {.ids = prompt,
                                   .n_ids = N_PROMPT,
                                   .sampler = &p,
                                   .n_predict = r->n_predict,
                                   .min_tokens = r->min_tokens,
                                   .ignore_eos = r->ignore_eos,
                                   .stop_ids = &end,
                                   .n_stop_id = end > 0,
                                   .stops = &stop,
                                   .n_stop = r->stop != NULL,
                                   .on_text = on_text,
                                   .on_token = on_host ? on_token : NULL,
                                   .user = o};
    assert_ok(qn_generation_create(&g, session, f->tokenizer, &args, err));
    return g;
}

static qn_session *session_for(const fixture *f, int composed, const request *r) {
    return open_session(f->model[composed], r->n_ctx > 0 ? r->n_ctx : N_CTX, 16);
}

static void finish(qn_generation *g, qn_session *session, output *o) {
    qn_generation_get_result(g, &o->result);
    qn_generation_free(g);
    o->n_tok = qn_session_n_tok(session);
    memcpy(o->ids, qn_session_ids(session), (size_t)o->n_tok * sizeof *o->ids);
    qn_session_free(session);
}

static output run(const fixture *f, int composed, const request *r, bool on_host, int32_t end) {
    output o;
    qn_session *session = session_for(f, composed, r);
    qn_generation *g = begin(f, session, r, on_host, end, &o);
    for (bool done = false; !done && o.status == QN_OK;) o.status = qn_generation_next(g, &done, &o.error);
    finish(g, session, &o);
    return o;
}

static void expect_same(const char *name, const output *got, const output *want) {
    if (got->status != want->status) fail_msg("%s: %s: %s", name, qn_status_name(got->status), got->error.message);
    if (got->n_tok != want->n_tok || got->size != want->size || got->result.n_generated != want->result.n_generated ||
        got->result.finish != want->result.finish) {
        fail_msg("%s: %d tokens, %zu bytes, %d generated, finish %d; not %d, %zu, %d, %d", name, got->n_tok, got->size,
                 got->result.n_generated, (int)got->result.finish, want->n_tok, want->size, want->result.n_generated,
                 (int)want->result.finish);
    }
    assert_memory_equal(got->ids, want->ids, (size_t)want->n_tok * sizeof *want->ids);
    assert_memory_equal(got->text, want->text, want->size);
}

/* The id that ends a request, found by running it without a stop id. */
static int32_t end_of(const fixture *f, const request *r) {
    if (r->end_at == 0) return 0;
    request free_run = *r;
    free_run.min_tokens = 0;
    return run(f, 0, &free_run, true, 0).sampled[r->end_at - 1];
}

static void single_generation(void **state) {
    const fixture *f = *state;
    for (int i = 0; i < N_REQUEST; i++) {
        const int32_t end = end_of(f, &requests[i]);
        const output want = run(f, 0, &requests[i], true, end);
        assert_int_equal(want.status, QN_OK);
        for (int composed = 0; composed < 2; composed++) {
            const output got = run(f, composed, &requests[i], false, end);
            expect_same(requests[i].name, &got, &want);
        }
    }
}

/* All at once, every other one with on_token. */
static void batched_generations(void **state) {
    const fixture *f = *state;
    for (int composed = 0; composed < 2; composed++) {
        qn_generation *g[N_REQUEST], *left[N_REQUEST];
        qn_session *sessions[N_REQUEST];
        output *out = calloc(N_REQUEST, sizeof *out);
        int32_t ends[N_REQUEST], which[N_REQUEST];
        qn_kv_pool *pool = NULL;
        const qn_kv_pool_options options = {
            .n_ctx = N_CTX, .n_batch = 16, .n_tok = 128 * N_REQUEST, .kv_dtype = QN_DTYPE_F32};
        assert_ok(qn_kv_pool_create(&pool, f->model[composed], &options, err));
        size_t n = N_REQUEST;
        for (int32_t i = 0; i < N_REQUEST; i++) {
            const qn_session_options o = {.pool = pool, .n_ctx = requests[i].n_ctx};
            ends[i] = end_of(f, &requests[i]);
            sessions[i] = open_session_with(f->model[composed], &o);
            left[i] = g[i] = begin(f, sessions[i], &requests[i], i % 2 == 1, ends[i], &out[i]);
            which[i] = i;
        }
        while (n > 0) {
            bool done[N_REQUEST];
            qn_error errors[N_REQUEST];
            assert_ok(qn_generation_next_batch(left, n, done, errors, err));
            size_t n_left = 0;
            for (size_t i = 0; i < n; i++) {
                const int32_t k = which[i];
                if (errors[i].status != QN_OK) fail_msg("%s: %s", requests[k].name, errors[i].message);
                if (done[i]) {
                    finish(g[k], sessions[k], &out[k]);
                    continue;
                }
                left[n_left] = left[i];
                which[n_left++] = k;
            }
            n = n_left;
        }
        qn_kv_pool_info info;
        qn_kv_pool_get_info(pool, &info);
        assert_int_equal(info.n_unused, info.n_block);
        qn_kv_pool_free(pool);
        for (int i = 0; i < N_REQUEST; i++) {
            const output want = run(f, 0, &requests[i], true, ends[i]);
            expect_same(requests[i].name, &out[i], &want);
        }
        free(out);
    }
}

/* A step that was to sample several ids and samples only one, because the sequence beside it samples on the host: both
 * sessions keep the blocks of their tokens and no more. */
static void spare_blocks(void **state) {
    enum { ON_DEVICE, ON_HOST };
    static const request endless = {.name = "two", .n_predict = 40};
    const fixture *f = *state;
    const qn_kv_pool_options options = {.n_ctx = N_CTX, .n_batch = 16, .n_tok = 2 * N_CTX, .kv_dtype = QN_DTYPE_F32};
    output out[2];
    qn_kv_pool *pool = NULL;
    qn_generation *g[2];
    qn_session *sessions[2];
    assert_ok(qn_kv_pool_create(&pool, f->model[0], &options, err));
    for (int i = 0; i < 2; i++) {
        sessions[i] = open_session_with(f->model[0], &(qn_session_options){.pool = pool});
        g[i] = begin(f, sessions[i], &endless, i == ON_HOST, 0, &out[i]);
    }
    for (int32_t n_pass = 0; n_pass < 30; n_pass++) {
        bool done[2];
        qn_error errors[2];
        assert_ok(qn_generation_next_batch(g, 2, done, errors, err));
        qn_kv_pool_info info;
        qn_kv_pool_get_info(pool, &info);
        int32_t n_used = 0;
        for (int i = 0; i < 2; i++) {
            assert_false(done[i]);
            assert_int_equal(qn_session_n_tok(sessions[i]), N_PROMPT + n_pass);
            n_used += (N_PROMPT + n_pass + info.block_tokens - 1) / info.block_tokens;
        }
        assert_int_equal(info.n_block - info.n_unused, n_used);
    }
    for (int i = 0; i < 2; i++) finish(g[i], sessions[i], &out[i]);
    qn_kv_pool_free(pool);
}

/* Logits that cannot be sampled from end the generation wherever they occur. */
static void bad_logits_end_generation(void **state) {
    const fixture *f = *state;
    for (int composed = 0; composed < 2; composed++) {
        for (int on_host = 0; on_host < 2; on_host++) {
            output o;
            bool done = false;
            qn_session *session = session_for(f, composed, &requests[0]);
            qn_generation *g = begin(f, session, &requests[0], on_host, 0, &o);
            assert_ok(qn_generation_next(g, &done, err));
            const int32_t n_tok = qn_session_n_tok(session);
            (void)poke_kv(session, 1, true, NAN);
            o.status = qn_generation_next(g, &done, &o.error);
            assert_int_equal(o.status, QN_ENUMERIC);
            char want[32];
            snprintf(want, sizeof want, "logits of position %d: ", n_tok);
            if (strncmp(o.error.message, want, strlen(want)) != 0) fail_msg("%s, not %s", o.error.message, want);
            assert_int_equal(qn_session_n_tok(session), n_tok + 1);
            finish(g, session, &o);
        }
    }
}

/* A sampler that keeps the two greatest logits, and whose random number at this position is their boundary, but for a
 * rounding. */
static qn_sampler_params boundary_sampler(const float *logits, int32_t n_vocab, uint64_t position) {
    qn_sampler_params p;
    int32_t best = 0, second = -1;
    for (int32_t i = 1; i < n_vocab; i++) best = logits[i] > logits[best] ? i : best;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (i != best && (second < 0 || logits[i] > logits[second])) second = i;
    }
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    p.top_k = 2;
    double u; /* becomes the probability of the lower id */
    do {
        u = qni_philox_uniform(++p.seed, position);
    } while (best < second ? u < 0.6 || u > 0.9 : u < 0.1 || u > 0.4);
    const double odds = best < second ? u / (1 - u) : (1 - u) / u;
    p.temperature = ((double)logits[best] - (double)logits[second]) / log(odds);
    return p;
}

static uint64_t count_close(qn_device *device) {
    uint64_t n = 99;
    assert_ok(qn_device_count_close_draws(device, &n, err));
    return n;
}

/* A device that samples counts the draws at a boundary, and no others; in a step of several tokens and in one of one. */
static void draws_at_a_boundary(void **state) {
    (void)state;
    enum { N_VOCAB = 512 };
    static const int32_t prompt[N_PROMPT] = {100, 131, 162, 193, 224, 255, 286};
    const char *name;
    for (int32_t b = 0; (name = qn_backend_name(b)) != NULL; b++) {
        qn_device *device = NULL;
        qn_model *model = NULL;
        assert_ok(qn_device_open(&device, name, NULL, err));
        assert_ok(
            qn_model_open(&model, device, GOLDEN_MODELS "/tied-f32", &(qn_model_options){.arith = QN_ARITH_F32}, err));
        const uint64_t one = device->backend->count_close_draws != NULL;
        qn_session *session = open_session(model, N_CTX, 16);
        assert_ok(qn_session_append(session, prompt, N_PROMPT, NULL, NULL, err));
        qn_sampler_params p = boundary_sampler(qn_session_logits(session), N_VOCAB, N_PROMPT);
        qn_session_free(session);
        session = open_session(model, N_CTX, 16);
        uint64_t want = 0;
        expect_that(count_close(device) == want, name, -1, count_close(device));
        /* first the whole prompt is computed, later only its last id; every third time away from the boundary */
        for (int i = 0; i < 6; i++) {
            qn_sampler_params used = p;
            if (i % 3 == 2) used.temperature *= 1 + 1e-9;
            if (i % 3 != 2) want += one;
            const qn_generate_args args = {
                .ids = prompt, .n_ids = N_PROMPT, .sampler = &used, .n_predict = 1, .ignore_eos = true};
            assert_ok(qn_generate(session, NULL, &args, NULL, err));
            expect_that(count_close(device) == want, name, i, count_close(device));
        }
        qn_session_free(session);
        qn_model_close(model);
        qn_device_close(device);
    }
    uint64_t n = 0;
    qn_error error;
    assert_int_equal(qn_device_count_close_draws(NULL, &n, &error), QN_EINVAL);
    assert_string_equal(error.message, "close draws: device or out is NULL");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(single_generation), cmocka_unit_test(batched_generations),
                                       cmocka_unit_test(spare_blocks), cmocka_unit_test(bad_logits_end_generation),
                                       cmocka_unit_test(draws_at_a_boundary)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
