/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qn_generation_next_batch with the demo model: what each generation of a batch gives is what it gives alone, bit for
 * bit, whatever else is in the batch, and however the others end.
 */
#include "support/sessions.h"

#include "../src/session/session.h"

#include <stdlib.h>
#include <string.h>

enum { N_CTX = 160, MOST_IDS = 200, MOST_TEXT = 2048, N_REQUEST = 12 };

typedef struct fixture {
    qn_model *model;
    qn_tokenizer *tokenizer;
} fixture;

/* A generation to run. */
typedef struct request {
    const char *prompt; /* NULL: n_ids ids */
    int32_t n_ids, n_ctx, n_predict;
    double temperature;
    uint64_t seed;
    int32_t end; /* this id is sampled first, and ends the text; 0: none */
    const char *stop;
    int32_t stop_id, stop_prefill; /* calls that return false, counted from 1; 0: none */
    bool is_reasoning;
} request;

/* Prompts of one step and of many, covering every way to end. */
static const request requests[N_REQUEST] = {
    {.prompt = "Once upon a time", .n_predict = 30},
    {.n_ids = 70, .n_predict = 20, .temperature = 0.8, .seed = 11},
    {.n_ids = 1, .n_predict = 45, .temperature = 1.2, .seed = 12},
    {.prompt = "Once upon a time", .n_predict = 30, .stop = " woods"},
    {.prompt = "There was a dog", .n_predict = 9, .end = 1},
    {.n_ids = 33, .n_predict = 0, .n_ctx = 50},        /* the context becomes full */
    {.n_ids = 60, .n_predict = 5, .n_ctx = 40},        /* the context is too small */
    {.n_ids = 16, .n_predict = 30, .stop_id = 7},      /* canceled by on_token */
    {.n_ids = 90, .n_predict = 30, .stop_prefill = 1}, /* and by on_prefill */
    {.n_ids = 48, .n_predict = 12, .n_ctx = 48},       /* no space for a token */
    {.prompt = "A cat<think>\n", .n_predict = 12, .is_reasoning = true},
    {.n_ids = 17, .n_predict = 1, .temperature = 0.5, .seed = 3},
};

/* What a generation emitted. */
typedef struct output {
    const request *request;
    qn_status status;
    qn_error error;
    qn_generate_result result;
    int32_t ids[MOST_IDS], n_id;
    uint64_t logits; /* a hash of the logits of all tokens */
    char text[2][MOST_TEXT];
    size_t size[2];
    int32_t n_prefill, n_tok; /* calls; tokens of the session at the end */
} output;

static bool on_token(void *user, const qn_token *token) {
    output *o = user;
    assert_true(o->n_id < MOST_IDS);
    o->ids[o->n_id++] = token->id;
    for (int32_t i = 0; i < token->n_vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &token->logits[i], sizeof bits);
        o->logits = (o->logits ^ bits) * 0x100000001B3;
    }
    return o->n_id != o->request->stop_id;
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    output *o = user;
    assert_true(o->size[piece] + size < MOST_TEXT);
    memcpy(o->text[piece] + o->size[piece], text, size);
    o->size[piece] += size;
    return true;
}

static bool on_prefill(void *user, int32_t done, int32_t total) {
    output *o = user;
    assert_true(done > 0 && done <= total);
    return ++o->n_prefill != o->request->stop_prefill;
}

static qn_generation *begin(const fixture *f, qn_session *session, const request *r, output *o) {
    static int32_t ids[N_CTX];
    qn_generation *g = NULL;
    qn_sampler_params p;
    const qn_logit_bias bias = {r->end > 0 ? qn_model_get_config(f->model)->eos[r->end - 1] : 0, 1000};
    const qn_string stop = {r->stop, r->stop != NULL ? strlen(r->stop) : 0};
    *o = (output){.request = r};
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    p.temperature = r->temperature;
    p.seed = r->seed;
    p.logit_bias = &bias;
    p.n_logit_bias = r->end > 0;
    for (int32_t i = 0; i < r->n_ids; i++) ids[i] = 100 + (i * r->n_ids + i) % 400;
    const qn_generate_args args = {.prompt = r->prompt,
                                   .ids = r->n_ids > 0 ? ids : NULL,
                                   .n_ids = (size_t)r->n_ids,
                                   .sampler = &p,
                                   .n_predict = r->n_predict,
                                   .ignore_eos = r->end == 0,
                                   .split_reasoning = r->is_reasoning,
                                   .stops = &stop,
                                   .n_stop = r->stop != NULL,
                                   .on_text = on_text,
                                   .on_token = on_token,
                                   .on_prefill = on_prefill,
                                   .user = o};
    assert_ok(qn_generation_create(&g, session, f->tokenizer, &args, err));
    return g;
}

static void finish(qn_generation *g, const qn_session *session, output *o) {
    qn_generation_get_result(g, &o->result);
    qn_generation_free(g);
    o->n_tok = qn_session_n_tok(session);
}

/* Alone, on its own session. */
static void run_alone(const fixture *f, const request *r, output *o) {
    qn_session *session = open_session(f->model, r->n_ctx > 0 ? r->n_ctx : N_CTX, 16);
    qn_generation *g = begin(f, session, r, o);
    for (bool done = false; !done && o->status == QN_OK;) o->status = qn_generation_next(g, &done, &o->error);
    finish(g, session, o);
    qn_session_free(session);
}

static void expect_same(const char *name, const output *got, const output *want) {
    const request *r = want->request;
    if (got->status != want->status) fail_msg("%s: %s: %s", name, qn_status_name(got->status), got->error.message);
    assert_string_equal(got->error.message, want->error.message);
    assert_int_equal(got->n_id, want->n_id);
    expect_same_bits(name, QN_DTYPE_S32, got->ids, want->ids, want->n_id);
    assert_true(got->logits == want->logits);
    for (int piece = 0; piece < 2; piece++) {
        assert_int_equal(got->size[piece], want->size[piece]);
        assert_memory_equal(got->text[piece], want->text[piece], want->size[piece]);
    }
    if (want->status != QN_OK) return;
    assert_int_equal(got->result.finish, want->result.finish);
    assert_int_equal(got->result.n_prompt, want->result.n_prompt);
    assert_int_equal(got->result.n_generated, want->result.n_generated);
    assert_true(got->result.n_reused == 0 && got->result.generate_s >= 0);
    /* a canceled prompt keeps the tokens computed so far, and a batch divides the prompt elsewhere */
    if (r->stop_prefill == 0) assert_int_equal(got->n_tok, want->n_tok);
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->model = open_model(qn_backend_name(0), 2, DEMO_MODEL);
    assert_ok(qn_tokenizer_open(&f->tokenizer, DEMO_MODEL, err));
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    qn_tokenizer_close(f->tokenizer);
    qn_model_close(f->model);
    free(f);
    return 0;
}

/* The generations still running: the input of a batch. */
typedef struct batch {
    qn_generation *generations[N_REQUEST];
    output *outputs[N_REQUEST];
    qn_session *sessions[N_REQUEST];
    size_t n;
    int32_t n_call;
} batch;

static void add(const fixture *f, batch *b, qn_session *session, const request *r, output *o) {
    b->generations[b->n] = begin(f, session, r, o);
    b->sessions[b->n] = session;
    b->outputs[b->n++] = o;
}

/* One call; finished generations leave the batch. */
static void advance(batch *b) {
    bool done[N_REQUEST];
    qn_error errors[N_REQUEST];
    memset(done, 1, sizeof done);
    memset(errors, 0x5A, sizeof errors);
    assert_ok(qn_generation_next_batch(b->generations, b->n, done, errors, err));
    b->n_call++;
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        assert_true(done[i] || errors[i].status == QN_OK);
        if (done[i]) {
            b->outputs[i]->status = errors[i].status;
            b->outputs[i]->error = errors[i];
            finish(b->generations[i], b->sessions[i], b->outputs[i]);
            continue;
        }
        b->generations[n] = b->generations[i];
        b->sessions[n] = b->sessions[i];
        b->outputs[n++] = b->outputs[i];
    }
    b->n = n;
}

static qn_kv_pool *open_pool(const fixture *f, int32_t n_tok, int32_t n_batch) {
    const qn_kv_pool_options options = {
        .n_ctx = N_CTX, .n_tok = n_tok, .n_batch = n_batch, .kv_dtype = QN_DTYPE_F32, .yarn = QN_YARN_AUTO};
    qn_kv_pool *pool = NULL;
    assert_ok(qn_kv_pool_create(&pool, f->model, &options, err));
    return pool;
}

/* All requests on n_pool pools, in rotated order, each joining `apart` calls after the previous one. */
static void run_together(const fixture *f, const output *alone, int32_t n_pool, int32_t n_batch, int32_t apart) {
    static output outputs[N_REQUEST];
    CASE(name, "%d pools, n_batch %d, %d calls apart", n_pool, n_batch, apart);
    qn_kv_pool *pools[N_REQUEST];
    qn_session *sessions[N_REQUEST];
    for (int32_t i = 0; i < n_pool; i++) pools[i] = open_pool(f, (N_CTX + 512) * N_REQUEST, n_batch);
    for (int32_t i = 0; i < N_REQUEST; i++) {
        const qn_session_options options = {.n_ctx = requests[i].n_ctx, .pool = pools[i % n_pool]};
        sessions[i] = open_session_with(f->model, &options);
    }
    batch b = {.n = 0};
    for (int32_t n_added = 0; n_added < N_REQUEST || b.n > 0;) {
        for (; n_added < N_REQUEST && (b.n == 0 || b.n_call >= n_added * apart); n_added++) {
            const int32_t at = (n_added + 5) % N_REQUEST;
            add(f, &b, sessions[at], &requests[at], &outputs[at]);
        }
        advance(&b);
    }
    for (int32_t i = 0; i < N_REQUEST; i++) {
        CASE(of, "%s: request %d", name, i);
        expect_same(of, &outputs[i], &alone[i]);
        qn_session_free(sessions[i]);
    }
    for (int32_t i = 0; i < n_pool; i++) qn_kv_pool_free(pools[i]);
}

static void test_equals_single_generations(void **state) {
    const fixture *f = *state;
    static output alone[N_REQUEST];
    for (int32_t i = 0; i < N_REQUEST; i++) run_alone(f, &requests[i], &alone[i]);
    /* They end as intended. */
    static const qn_finish ends[N_REQUEST] = {
        QN_FINISH_LENGTH,
        QN_FINISH_LENGTH,
        QN_FINISH_LENGTH,
        QN_FINISH_STOP,
        QN_FINISH_STOP,
        QN_FINISH_LENGTH,
        0,
        QN_FINISH_CANCELED,
        QN_FINISH_CANCELED,
        QN_FINISH_LENGTH,
        QN_FINISH_LENGTH,
        QN_FINISH_LENGTH,
    };
    for (int32_t i = 0; i < N_REQUEST; i++) {
        assert_int_equal(alone[i].status, i == 6 ? QN_EFULL : QN_OK);
        if (i != 6) assert_int_equal(alone[i].result.finish, ends[i]);
    }
    assert_int_equal(alone[5].n_id, 50 - 33);
    assert_int_equal(alone[9].n_id, 0);
    assert_true(alone[10].size[QN_PIECE_REASONING] > 0);
    assert_true(alone[1].n_prefill == 5 && alone[3].n_id < 30);

    run_together(f, alone, 1, 64, 0);
    run_together(f, alone, 1, 16, 3);
    run_together(f, alone, 1, 3, 0); /* fewer tokens per step than generations */
    run_together(f, alone, 2, 1, 7);
    run_together(f, alone, 3, 16, 1);
    run_together(f, alone, N_REQUEST, 16, 0);
}

/* Calls of taps, which distinguish shared steps from separate ones. */
typedef struct seen {
    char order[4096];
    int32_t n;
} seen;
typedef struct tapped {
    seen *seen;
    char name;
} tapped;

static void record_state(void *user, int32_t state, int32_t position, const float *row, int32_t d_model) {
    const tapped *t = user;
    (void)position, (void)row, (void)d_model;
    assert_true(t->seen->n + 1 < (int32_t)sizeof t->seen->order);
    if (state == 0 || state == 1) t->seen->order[t->seen->n++] = (char)(t->name + (state == 0 ? 'A' : 'a'));
}

/* Sessions on one pool share steps: in one, a state of all its tokens comes before the next state of any. Sampled
 * tokens come first, and prompts fill the step. */
static void test_shared_steps(void **state) {
    const fixture *f = *state;
    static const request two[] = {{.n_ids = 5, .n_predict = 8}, {.n_ids = 9, .n_predict = 8}};
    seen all = {.n = 0};
    tapped taps[2] = {{&all, 0}, {&all, 1}};
    static output outputs[2];
    qn_kv_pool *pool = open_pool(f, 2 * N_CTX, 8);
    qn_session *sessions[2];
    batch b = {.n = 0};
    for (int i = 0; i < 2; i++) {
        const qn_session_options options = {.pool = pool, .tap = {record_state, &taps[i]}};
        sessions[i] = open_session_with(f->model, &options);
        add(f, &b, sessions[i], &two[i], &outputs[i]);
    }
    advance(&b);
    assert_string_equal(all.order, "AAAAABBBaaaaabbb");
    assert_int_equal(outputs[0].n_id, 1);
    assert_int_equal(outputs[1].n_id + outputs[1].n_prefill, 1);
    all = (seen){.n = 0};
    advance(&b);
    assert_string_equal(all.order, "ABBBBBBabbbbbb");
    assert_int_equal(outputs[1].n_id, 1);
    all = (seen){.n = 0};
    advance(&b);
    assert_string_equal(all.order, "ABab");
    while (b.n > 0) advance(&b);
    for (int i = 0; i < 2; i++) qn_session_free(sessions[i]);
    qn_kv_pool_free(pool);
}

/* A prompt that does not fit into a step waits; sampled tokens never wait, and neither does the first prompt. */
static void test_prompts_wait(void **state) {
    const fixture *f = *state;
    static const request three[] = {
        {.n_ids = 1, .n_predict = 12}, {.n_ids = 9, .n_predict = 3}, {.n_ids = 9, .n_predict = 3}};
    static output outputs[3];
    qn_kv_pool *pool = open_pool(f, 3 * N_CTX, 1);
    qn_session *sessions[3];
    batch b = {.n = 0};
    for (int i = 0; i < 3; i++) {
        sessions[i] = open_session_with(f->model, &(qn_session_options){.pool = pool});
        add(f, &b, sessions[i], &three[i], &outputs[i]);
    }
    for (int32_t call = 1; call <= 9; call++) {
        advance(&b);
        assert_int_equal(outputs[0].n_id, call);
        assert_int_equal(qn_session_n_tok(sessions[1]), call);
        assert_int_equal(qn_session_n_tok(sessions[2]), call == 9); /* the last id of a prompt counts as a single id */
    }
    assert_int_equal(outputs[1].n_id, 1);
    advance(&b);
    assert_int_equal(outputs[1].n_id, 2);
    assert_int_equal(qn_session_n_tok(sessions[2]), 2);
    qn_generate_result r;
    qn_generation_get_result(b.generations[2], &r);
    assert_int_equal(r.n_prompt, 9);
    while (b.n > 0) advance(&b);
    assert_int_equal(outputs[2].n_id, 3);
    for (int i = 0; i < 3; i++) qn_session_free(sessions[i]);
    qn_kv_pool_free(pool);
}

/* Three generations on a pool of three blocks. */
typedef struct trio {
    qn_kv_pool *pool;
    qn_session *sessions[3];
    output alone[3], outputs[3];
} trio;

static trio *open_trio(const fixture *f, const request *r) {
    trio *t = calloc(1, sizeof *t);
    t->pool = open_pool(f, 3 * 128, 16);
    qn_kv_pool_info info;
    qn_kv_pool_get_info(t->pool, &info);
    assert_int_equal(info.n_block, 3);
    for (int i = 0; i < 3; i++) {
        t->sessions[i] = open_session_with(f->model, &(qn_session_options){.pool = t->pool});
        run_alone(f, &r[i], &t->alone[i]);
        assert_int_equal(t->alone[i].status, QN_OK);
    }
    return t;
}

static void run_trio(const fixture *f, trio *t, const request *r) {
    batch b = {.n = 0};
    for (int i = 0; i < 3; i++) add(f, &b, t->sessions[i], &r[i], &t->outputs[i]);
    while (b.n > 0) advance(&b);
    expect_same("first", &t->outputs[0], &t->alone[0]);
    expect_same("last", &t->outputs[2], &t->alone[2]);
    for (int i = 0; i < 3; i++) qn_session_free(t->sessions[i]);
    qn_kv_pool_info info;
    qn_kv_pool_get_info(t->pool, &info);
    assert_int_equal(info.n_unused, info.n_block);
    qn_kv_pool_free(t->pool);
}

/* A pool without a free block fails the generation that needs one, and no other. */
static void test_full_pool(void **state) {
    const fixture *f = *state;
    static const request r[3] = {
        {.n_ids = 20, .n_predict = 20}, {.n_ids = 100, .n_predict = 60}, {.n_ids = 9, .n_predict = 40}};
    trio *t = open_trio(f, r);
    run_trio(f, t, r);
    assert_int_equal(t->outputs[1].status, QN_EFULL);
    assert_int_equal(t->outputs[1].n_id, 29); /* of 128 tokens the last one is not computed */
    expect_same_bits("ids", QN_DTYPE_S32, t->outputs[1].ids, t->alone[1].ids, 29);
    free(t);
}

/* A NaN fails the generation that sees it, and no other. */
static void test_not_finite(void **state) {
    const fixture *f = *state;
    static const request r[3] = {
        {.n_ids = 20, .n_predict = 20}, {.n_ids = 16, .n_predict = 20}, {.n_ids = 9, .n_predict = 20}};
    trio *t = open_trio(f, r);
    batch b = {.n = 0};
    add(f, &b, t->sessions[1], &r[1], &t->outputs[1]);
    advance(&b);
    assert_int_equal(t->outputs[1].n_id, 1);
    qn_generation_free(b.generations[0]);
    (void)poke_kv(t->sessions[1], 5, true, NAN);
    run_trio(f, t, r);
    assert_int_equal(t->outputs[1].status, QN_ENUMERIC);
    assert_non_null(strstr(t->outputs[1].error.message, "logits of position 16: that of id "));
    assert_int_equal(t->outputs[1].n_id, 1); /* from the logits already computed */
    free(t);
}

/* Invalid calls are reported, and nothing has changed. */
static void test_invalid_calls(void **state) {
    const fixture *f = *state;
    static const request r = {.n_ids = 20, .n_predict = 1};
    static output outputs[4];
    qn_session *sessions[2] = {open_session(f->model, N_CTX, 32), open_session(f->model, N_CTX, 32)};
    qn_generation *g[4];
    for (int i = 0; i < 3; i++) g[i] = begin(f, sessions[i % 2], &r, &outputs[i]);
    g[3] = NULL;
    const struct {
        qn_generation *generations[2];
        size_t n;
        const char *message;
    } cases[] = {
        {{g[0], g[2]}, 2, "generations[1]: duplicate session"},
        {{g[0], g[0]}, 2, "generations[1]: duplicate session"},
        {{g[1], NULL}, 2, "generations[1]: is NULL"},
        {{g[1], NULL}, 0, "generations: must be 1 … 2147483647, got 0"},
        {{g[1], g[0]}, 2, "generations[1]: it is over"},
    };
    bool done[2];
    qn_error errors[2];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_error error = {0};
        if (i == 4) assert_ok(qn_generation_next_batch(&g[0], 1, done, errors, err));
        assert_int_equal(qn_generation_next_batch(cases[i].generations, cases[i].n, done, errors, &error), QN_EINVAL);
        assert_string_equal(error.message, cases[i].message);
        assert_int_equal(qn_session_n_tok(sessions[1]) + outputs[1].n_prefill, 0);
    }
    assert_true(done[0]);
    assert_int_equal(outputs[0].n_id, 1);
    assert_int_equal(qn_generation_next_batch(&g[1], 1, NULL, errors, NULL), QN_EINVAL);
    assert_int_equal(qn_generation_next_batch(&g[1], 1, done, NULL, NULL), QN_EINVAL);
    assert_ok(qn_generation_next_batch(&g[1], 1, done, errors, err));
    assert_true(done[0]);
    expect_same_bits("ids", QN_DTYPE_S32, outputs[1].ids, outputs[0].ids, 1);
    for (int i = 0; i < 3; i++) qn_generation_free(g[i]);
    for (int i = 0; i < 2; i++) qn_session_free(sessions[i]);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_equals_single_generations),
        TEST(test_shared_steps),
        TEST(test_prompts_wait),
        TEST(test_full_pool),
        TEST(test_not_finite),
        TEST(test_invalid_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
