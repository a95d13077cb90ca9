/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: what they reject, what they allocate, and that results do not depend on how ids were fed. */
#include "support/devices.h"
#include "support/sessions.h"

#include "../src/session/session.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TIED GOLDEN_MODELS "/tied-f32"
#define YARN GOLDEN_MODELS "/yarn-bf16"

typedef struct rows {
    float *data; /* {n, n_vocab} */
    int32_t first, n, stop_after;
} rows;

static bool collect(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    rows *r = user;
    assert_int_equal(position, r->first + r->n);
    memcpy(r->data + (size_t)r->n++ * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return r->n != r->stop_after;
}

/* The whole state of a session, to compare bit by bit. */
typedef struct snapshot {
    int32_t n_tok;
    int32_t *ids;
    float *kv;
    size_t n_kv;
    float *logits; /* NULL: none */
    int32_t n_vocab;
} snapshot;

static snapshot snap(const qn_session *s) {
    const qn_model_config *config = qn_model_get_config(qn_session_model(s));
    snapshot x = {.n_tok = qn_session_n_tok(s), .n_vocab = config->n_vocab};
    x.ids = calloc((size_t)x.n_tok + 1, sizeof *x.ids);
    memcpy(x.ids, qn_session_ids(s), (size_t)x.n_tok * sizeof *x.ids);
    size_t plane = (size_t)config->n_kv_head * (size_t)x.n_tok * (size_t)config->head_dim;
    x.n_kv = plane * 2 * (size_t)config->n_layer;
    x.kv = calloc(x.n_kv + 1, sizeof *x.kv);
    for (int32_t i = 0; i < config->n_layer && x.n_tok > 0; i++) {
        float *k = x.kv + 2 * (size_t)i * plane;
        assert_ok(qn_session_read_kv(s, i, 0, x.n_tok, k, k + plane, err));
    }
    if (qn_session_logits(s) != NULL) {
        x.logits = calloc((size_t)x.n_vocab, sizeof *x.logits);
        memcpy(x.logits, qn_session_logits(s), (size_t)x.n_vocab * sizeof *x.logits);
    }
    return x;
}

static void release(snapshot *x) {
    free(x->ids);
    free(x->kv);
    free(x->logits);
}

static void same_snapshots(test_line at, const char *name, const snapshot *a, const snapshot *b) {
    if (a->n_tok != b->n_tok) fail_msg("line %d: %s: %d tokens, not %d", at.line, name, a->n_tok, b->n_tok);
    same_bits_at(at, case_text("%s, ids", name), QN_DTYPE_S32, a->ids, b->ids, a->n_tok);
    same_bits_at(at, case_text("%s, KV", name), QN_DTYPE_F32, a->kv, b->kv, (int64_t)a->n_kv);
    if ((a->logits == NULL) != (b->logits == NULL)) {
        fail_msg("line %d: %s: one has logits, the other none", at.line, name);
    }
    if (a->logits != NULL)
        same_bits_at(at, case_text("%s, logits", name), QN_DTYPE_F32, a->logits, b->logits, a->n_vocab);
}
#define assert_same(a, b)            same_snapshots(TEST_LINE, "snapshot", a, b)
#define assert_same_case(name, a, b) same_snapshots(TEST_LINE, name, a, b)

/* A snapshot of a session that computed the ids at once. */
static snapshot fresh(qn_model *model, const int32_t *ids, size_t n_ids) {
    qn_session *s = open_session(model, 0, 0);
    assert_ok(qn_session_append(s, ids, n_ids, NULL, NULL, err));
    snapshot x = snap(s);
    qn_session_free(s);
    return x;
}

/* Prefill at once, in chunks of any size, step by step, on 1, 2 and 3 threads, with composed ops, and with logits of
 * all positions: the same bits. */
static void test_invariance(void **state) {
    (void)state;
    static const char *const dirs[] = {TIED, YARN, GOLDEN_MODELS "/untied-bf16-sharded", GOLDEN_MODELS "/mha-f16"};
    test_rng rng = {1};
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        for (size_t d = 0; d < sizeof dirs / sizeof dirs[0]; d++) {
            const int32_t n = d == 0 ? 134 : 40; /* one checkpoint gets more than a KV block of 128 */
            int32_t *ids = random_ids(&rng, n);
            qn_model *model = open_model(device, 1, dirs[d]);
            size_t n_vocab = (size_t)qn_model_get_config(model)->n_vocab;
            const size_t n_logit = (size_t)n * n_vocab;
            rows all = {.data = calloc(n_logit, sizeof(float))}, one = {.data = calloc(n_logit, sizeof(float))};
            snapshot expected = fresh(model, ids, n);
            qn_session *s = open_session(model, 0, 16);
            assert_ok(qn_session_append(s, ids, n, collect, &all, err));
            qn_session_free(s);
            qn_model_close(model);
            bool slow = strcmp(device, "ref") == 0;
            for (int32_t n_thread = 1; n_thread <= (slow ? 1 : 3); n_thread++) {
                for (int32_t chunk = 1; chunk <= n; chunk = slow || n_thread == 2 ? chunk * 9 : chunk * 3 + 1) {
                    const qn_device_options options = {.n_thread = n_thread, .compose = chunk == 4};
                    model = open_model_with(device, &options, dirs[d]);
                    s = open_session(model, 300, chunk);
                    one.n = 0;
                    for (int32_t t = 0; t < n && chunk == 1; t++) {
                        assert_ok(qn_session_step(s, ids[t], err));
                        assert_true(collect(&one, t, qn_session_logits(s), (int32_t)n_vocab));
                    }
                    if (chunk > 1) assert_ok(qn_session_append(s, ids, n, collect, &one, err));
                    snapshot got = snap(s);
                    CASE(name, "%s on %s, %d threads, chunks of %d", dirs[d], device, (int)n_thread, (int)chunk);
                    assert_same_case(name, &got, &expected);
                    expect_same_bits(name, QN_DTYPE_F32, one.data, all.data, n_logit);
                    release(&got);
                    qn_session_free(s);
                    qn_model_close(model);
                }
            }
            release(&expected);
            free(all.data);
            free(one.data);
            free(ids);
        }
    }
}

/* Sessions of different lengths, capacities and KV types in shared steps equal single ones. */
static void test_batch(void **state) {
    (void)state;
    enum { S = 5, MOST = 60 };
    test_rng rng = {2};
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        qn_model *model = open_model(device, 2, TIED);
        for (int round = 0; round < 6; round++) {
            qn_session *together[S], *alone[S];
            qn_span spans[S];
            int32_t *ids[S];
            rows got[S], expected[S];
            for (int i = 0; i < S; i++) {
                const qn_session_options options = {.n_ctx = i % 2 ? 128 : 200,
                                                    .n_batch = round % 2 ? 16 : 512,
                                                    .kv_dtype = i == 2   ? QN_DTYPE_F16
                                                                : i == 3 ? QN_DTYPE_Q8
                                                                         : QN_DTYPE_F32};
                together[i] = open_session_with(model, &options);
                alone[i] = open_session_with(model, &options);
                ids[i] = random_ids(&rng, MOST);
                size_t before = (size_t)rng_below(&rng, 20);
                if (before > 0) {
                    assert_ok(qn_session_append(together[i], ids[i], before, NULL, NULL, err));
                    assert_ok(qn_session_append(alone[i], ids[i], before, NULL, NULL, err));
                }
                got[i] = expected[i] = (rows){.first = (int32_t)before};
                got[i].data = calloc(MOST * 512, sizeof(float));
                expected[i].data = calloc(MOST * 512, sizeof(float));
                size_t n = round == 5 ? 1 : 1 + (size_t)rng_below(&rng, MOST - 20);
                bool wanted = rng_below(&rng, 2);
                spans[i] = (qn_span){together[i], ids[i] + before, n, wanted ? collect : NULL, &got[i]};
                assert_ok(qn_session_append(alone[i], ids[i] + before, n, wanted ? collect : NULL, &expected[i], err));
            }
            assert_ok(qn_session_append_batch(spans, S, err));
            for (int i = 0; i < S; i++) {
                snapshot x = snap(together[i]), y = snap(alone[i]);
                CASE(name, "%s, round %d, session %d of a batch", device, round, i);
                assert_same_case(name, &x, &y);
                assert_int_equal(got[i].n, expected[i].n);
                expect_same_bits(name, QN_DTYPE_F32, got[i].data, expected[i].data, MOST * 512);
                release(&x);
                release(&y);
                free(got[i].data);
                free(expected[i].data);
                free(ids[i]);
                qn_session_free(together[i]);
                qn_session_free(alone[i]);
            }
        }
        qn_model_close(model);
    }
}

/* Random edits of a sequence: sync reuses exactly the common prefix, and equals a fresh session. */
static void test_sync(void **state) {
    (void)state;
    enum { MOST = 50 };
    test_rng rng = {3};
    qn_model *model = open_model(qn_backend_name(0), 2, TIED);
    qn_session *s = open_session(model, 64, 8);
    int32_t ids[MOST];
    size_t n = 1;
    ids[0] = 7;
    for (int round = 0; round < 120; round++) {
        int32_t before[64];
        size_t n_before = (size_t)qn_session_n_tok(s), common = 0, reused = 99;
        memcpy(before, qn_session_ids(s), n_before * sizeof *before);
        bool had_logits = qn_session_logits(s) != NULL;
        switch (rng_below(&rng, 6)) {
        case 0: /* unchanged */
            break;
        case 1: /* shorter */
            n = 1 + (size_t)rng_below(&rng, (int32_t)n);
            break;
        case 2: /* one id replaced */
            ids[rng_below(&rng, (int32_t)n)] = rng_below(&rng, 500);
            break;
        case 3: /* everything replaced */
            ids[0] = rng_below(&rng, 500);
            break;
        default: /* longer */
            for (int32_t more = rng_below(&rng, 12); more > 0 && n < MOST; more--) ids[n++] = rng_below(&rng, 500);
        }
        if (rng_below(&rng, 8) == 0) {
            n_before = (size_t)rng_below(&rng, (int32_t)n_before + 1);
            had_logits = had_logits && n_before == (size_t)qn_session_n_tok(s);
            assert_ok(qn_session_rewind(s, n_before, err));
            assert_true((qn_session_logits(s) != NULL) == had_logits);
        }
        while (common < n && common < n_before && before[common] == ids[common]) common++;
        if (common == n && !(had_logits && n_before == n)) common--;
        assert_ok(qn_session_sync(s, ids, n, &reused, err));
        assert_int_equal(reused, common);
        snapshot got = snap(s), expected = fresh(model, ids, n);
        assert_non_null(got.logits);
        assert_same(&got, &expected);
        release(&got);
        release(&expected);
    }
    qn_session_free(s);
    qn_model_close(model);
}

static void expect_unchanged(const qn_session *s, const snapshot *before) {
    snapshot now = snap(s);
    assert_same(before, &now);
    release(&now);
}

#define REFUSED(code, text, call)                                                                                      \
    do {                                                                                                               \
        qn_error refused_err = {0};                                                                                    \
        qn_error *err = &refused_err;                                                                                  \
        assert_int_equal(call, code);                                                                                  \
        assert_string_equal(refused_err.message, text);                                                                \
        assert_int_equal(refused_err.status, code);                                                                    \
    } while (0)

static void test_invalid_calls(void **state) {
    (void)state;
    qn_model *model = open_model("ref", 1, TIED), *other = open_model("ref", 1, TIED);
    qn_session *s = open_session(model, 16, 4), *t = open_session(other, 16, 4), *u = open_session(model, 16, 4);
    const int32_t ids[20] = {1, 2, 3, 4, 5}, low[] = {1, -1}, high[] = {1, 2, 512};
    float k[64];
    assert_ok(qn_session_append(s, ids, 5, NULL, NULL, err));
    snapshot before = snap(s);
    size_t reused = 77;

    REFUSED(QN_EINVAL, "n_ids: must be >= 1, got 0", qn_session_sync(s, ids, 0, &reused, err));
    REFUSED(QN_EINVAL, "ids: is NULL", qn_session_sync(s, NULL, 3, &reused, err));
    REFUSED(QN_EINVAL, "session: is NULL", qn_session_sync(NULL, ids, 3, &reused, err));
    REFUSED(QN_EINVAL, "ids[1]: must be within 0 … 511, got -1", qn_session_sync(s, low, 2, &reused, err));
    REFUSED(QN_EINVAL, "ids[2]: must be within 0 … 511, got 512", qn_session_append(s, high, 3, NULL, NULL, err));
    REFUSED(QN_EINVAL, "ids[0]: must be within 0 … 511, got 512", qn_session_step(s, 512, err));
    REFUSED(QN_EFULL, "context: 16 tokens are too few for 17", qn_session_sync(s, ids, 17, &reused, err));
    REFUSED(QN_EFULL, "context: 16 tokens are too few for 17", qn_session_append(s, ids, 12, NULL, NULL, err));
    REFUSED(QN_EINVAL, "n_tok: must be within 0 … 5, got 6", qn_session_rewind(s, 6, err));
    REFUSED(QN_EINVAL, "layer: must be within 0 … 1, got 2", qn_session_read_kv(s, 2, 0, 1, k, k, err));
    REFUSED(QN_EINVAL, "layer: must be within 0 … 1, got -1", qn_session_read_kv(s, -1, 0, 1, k, k, err));
    REFUSED(QN_EINVAL, "positions: 2 from 4 on are not within the sequence of 5",
            qn_session_read_kv(s, 0, 4, 2, k, k, err));
    REFUSED(QN_EINVAL, "positions: 2147483647 from 1 on are not within the sequence of 5",
            qn_session_read_kv(s, 0, 1, INT32_MAX, k, k, err));
    REFUSED(QN_EINVAL, "positions: 0 from 0 on are not within the sequence of 5",
            qn_session_read_kv(s, 0, 0, 0, k, k, err));

    qn_span spans[2] = {{.session = s, .ids = ids, .n_ids = 1}, {.session = s, .ids = ids, .n_ids = 1}};
    REFUSED(QN_EINVAL, "spans[1]: duplicate session", qn_session_append_batch(spans, 2, err));
    spans[1].session = t;
    REFUSED(QN_EINVAL, "spans[1]: its session belongs to another model than that of spans[0]",
            qn_session_append_batch(spans, 2, err));
    spans[1] = (qn_span){.session = u, .ids = ids, .n_ids = 17};
    REFUSED(QN_EFULL, "context: 16 tokens are too few for 17", qn_session_append_batch(spans, 2, err));
    spans[1] = (qn_span){.session = u, .ids = low, .n_ids = 2};
    REFUSED(QN_EINVAL, "ids[1]: must be within 0 … 511, got -1", qn_session_append_batch(spans, 2, err));
    spans[1].session = NULL;
    REFUSED(QN_EINVAL, "session: is NULL", qn_session_append_batch(spans, 2, err));
    REFUSED(QN_EINVAL, "spans: must be 1 … 2147483647, got 0", qn_session_append_batch(spans, 0, err));
    expect_unchanged(s, &before);
    assert_int_equal(qn_session_n_tok(u), 0);
    assert_int_equal(reused, 77);

    /* The last position of the context is usable. */
    assert_ok(qn_session_append(s, ids, 11, NULL, NULL, err));
    REFUSED(QN_EFULL, "context: 16 tokens are too few for 17", qn_session_step(s, 1, err));
    assert_non_null(qn_session_logits(s));
    release(&before);
    qn_session_free(s);
    qn_session_free(t);
    qn_session_free(u);
    qn_session_free(NULL);
    qn_model_close(model);
    qn_model_close(other);
}

static void expect_create_refused(qn_model *model, qn_session_options options, qn_status status, const char *text) {
    qn_session *s = NULL;
    qn_error err = {0};
    assert_int_equal(qn_session_create(&s, model, &options, &err), status);
    assert_null(s);
    assert_string_equal(err.message, text);
}

static void test_create(void **state) {
    (void)state;
    qn_model *model = open_model("ref", 1, TIED);
    expect_create_refused(model, (qn_session_options){.n_ctx = -1}, QN_EINVAL, "n_ctx: must be >= 0, got -1");
    expect_create_refused(model, (qn_session_options){.n_batch = -4}, QN_EINVAL, "n_batch: must be >= 0, got -4");
    expect_create_refused(model, (qn_session_options){.kv_dtype = QN_DTYPE_S32}, QN_EINVAL,
                          "kv_dtype: must be f16, bf16, f32 or q8, got s32");
    expect_create_refused(model, (qn_session_options){.yarn = (qn_yarn_mode)9}, QN_EINVAL, "yarn: no such mode: 9");
    expect_create_refused(model, (qn_session_options){.n_ctx = 4097}, QN_EUNSUPPORTED,
                          "n_ctx: the model supports at most 4096 tokens, got 4097");
    expect_create_refused(NULL, (qn_session_options){0}, QN_EINVAL, "qn_session_create: model is NULL");
    assert_int_equal(qn_session_create(NULL, model, NULL, NULL), QN_EINVAL);

    qn_session *s = open_session_with(model, NULL);
    assert_int_equal(qn_session_n_ctx(s), 4096);
    assert_int_equal(s->n_batch, 512);
    assert_int_equal(s->pool->settings.kv_dtype, QN_DTYPE_F16);
    assert_int_equal(qn_session_n_tok(s), 0);
    assert_null(qn_session_logits(s));
    assert_ptr_equal(qn_session_model(s), model);
    qn_model_close(model); /* the session keeps a reference */
    assert_ok(qn_session_step(s, 3, err));
    qn_session_free(s);
}

/* YaRN is used only if the context needs it, or if forced; it changes the results. */
static void test_yarn(void **state) {
    (void)state;
    static const struct {
        int32_t n_ctx;
        qn_yarn_mode mode;
        bool yarn;
        int32_t expected_n_ctx;
    } cases[] = {
        {0, QN_YARN_AUTO, true, 1024},    {256, QN_YARN_AUTO, false, 256}, {257, QN_YARN_AUTO, true, 257},
        {1024, QN_YARN_AUTO, true, 1024}, {64, QN_YARN_ON, true, 64},      {256, QN_YARN_OFF, false, 256},
    };
    qn_model *model = open_model("ref", 1, YARN);
    test_rng rng = {4};
    int32_t *ids = random_ids(&rng, 40);
    float plain[512], scaled[512];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_session_options options = {.n_ctx = cases[i].n_ctx, .yarn = cases[i].mode, .kv_dtype = QN_DTYPE_F32};
        qn_session *s = open_session_with(model, &options);
        assert_int_equal(s->pool->settings.yarn, cases[i].yarn);
        assert_int_equal(qn_session_n_ctx(s), cases[i].expected_n_ctx);
        assert_ok(qn_session_append(s, ids, 40, NULL, NULL, err));
        memcpy(cases[i].yarn ? scaled : plain, qn_session_logits(s), sizeof plain);
        qn_session_free(s);
    }
    assert_memory_not_equal(plain, scaled, sizeof plain);
    expect_create_refused(model, (qn_session_options){.n_ctx = 1025}, QN_EUNSUPPORTED,
                          "n_ctx: the model supports at most 1024 tokens, got 1025");
    free(ids);
    qn_model_close(model);
}

/* Create allocates what the plan reported; nothing is allocated on the device afterwards; freeing returns
 * everything. */
static void test_memory(void **state) {
    (void)state;
    test_rng rng = {5};
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        static const int32_t batches[] = {1, 7, 64, 0};
        for (size_t i = 0; i < 4 && !is_gpu(device); i++) {
            counting_allocator counts = {0};
            const qn_device_options options = {.n_thread = 3, .allocator = counting(&counts)};
            qn_model *model = open_model_with(device, &options, TIED);
            size_t before = counts.bytes;
            qn_plan plan;
            const qn_plan_options po = {.device = device,
                                        .n_thread = 3,
                                        .arith = QN_ARITH_F32,
                                        .n_ctx = 300,
                                        .n_batch = batches[i],
                                        .kv_dtype = QN_DTYPE_BF16};
            const qn_session_options so = {.n_ctx = 300, .n_batch = batches[i], .kv_dtype = QN_DTYPE_BF16};
            assert_ok(qn_model_plan(&plan, TIED, &po, err));
            qn_session *s = open_session_with(model, &so);
            assert_int_equal(plan.kv_bytes, (b == 0 ? 384 : 304) * 2 * 2 * 2 * 32 * 2);
            assert_int_equal(before, plan.weight_bytes);
            assert_int_equal(counts.bytes - before, plan.session_bytes + plan.scratch_bytes);
            size_t after_create = counts.n_alloc;
            /* "ref" is slow; only the full context of the other backend covers the last positions. */
            size_t n = strcmp(device, "ref") == 0 ? 80 : 290;
            int32_t *ids = random_ids(&rng, n);
            rows all = {.data = calloc(n * 512, sizeof(float))};
            assert_ok(qn_session_append(s, ids, n, collect, &all, err));
            for (int j = 0; j < 10; j++) assert_ok(qn_session_step(s, ids[j], err));
            assert_ok(qn_session_sync(s, ids, n - 40, NULL, err));
            assert_ok(qn_session_sync(s, ids + 1, n - 10, NULL, err));
            assert_ok(qn_session_rewind(s, 3, err));
            assert_ok(qn_session_append(s, ids, n - 20, NULL, NULL, err));
            assert_int_equal(counts.n_alloc, after_create);
            free(all.data);
            free(ids);
            qn_model_close(model);
            qn_session_free(s);
            assert_int_equal(counts.bytes, 0);
        }
    }
}

/* Every allocation of create fails once: a clean error and no leak. */
static void test_no_memory(void **state) {
    (void)state;
    counting_allocator counts = {0};
    const qn_device_options options = {.n_thread = 1, .allocator = counting(&counts)};
    qn_model *model = open_model_with(qn_backend_name(0), &options, TIED);
    size_t before = counts.bytes;
    qn_session *s = NULL;
    int failures = 0;
    for (size_t nth = 1;; nth++) {
        counts.fail_at = counts.n_alloc + nth;
        qn_error err = {0};
        const qn_session_options so = {.n_ctx = 64 + (int32_t)nth, .n_batch = 32 + (int32_t)nth};
        qn_status status = qn_session_create(&s, model, &so, &err);
        counts.fail_at = 0;
        if (status == QN_OK) break;
        assert_int_equal(status, QN_ENOMEM);
        assert_int_equal(err.status, QN_ENOMEM);
        assert_null(s);
        assert_true(counts.bytes <= before || failures > 0);
        failures++;
        assert_in_range(failures, 1, 10);
    }
    assert_true(failures >= 2);
    qn_session_free(s);
    qn_model_close(model);
    assert_int_equal(counts.bytes, 0);
}

/* A callback that cancels leaves a sequence of what was computed, which sync continues. */
static void test_cancel(void **state) {
    (void)state;
    test_rng rng = {6};
    qn_model *model = open_model(qn_backend_name(0), 2, TIED);
    int32_t *ids = random_ids(&rng, 60);
    for (int32_t stop = 1; stop <= 60; stop += 7) {
        qn_session *s = open_session(model, 64, 16);
        rows r = {.data = calloc(60 * 512, sizeof(float)), .stop_after = stop};
        REFUSED(QN_ECANCELED, "canceled by the logits callback", qn_session_append(s, ids, 60, collect, &r, err));
        assert_int_equal(r.n, stop);
        int32_t n_tok = qn_session_n_tok(s);
        assert_true(n_tok >= stop && n_tok < stop + 16);
        assert_null(qn_session_logits(s));
        expect_same_bits(case_text("canceled after %d", (int)stop), QN_DTYPE_S32, qn_session_ids(s), ids, n_tok);
        assert_ok(qn_session_sync(s, ids, 60, NULL, err));
        snapshot got = snap(s), expected = fresh(model, ids, 60);
        assert_same(&got, &expected);
        release(&got);
        release(&expected);
        free(r.data);
        qn_session_free(s);
    }
    free(ids);
    qn_model_close(model);
}

/* Non-finite logits are an error that names position and id; the sequence holds what was computed. */
static void test_not_finite(void **state) {
    (void)state;
    qn_model *model = open_model("ref", 1, TIED);
    qn_session *s = open_session(model, 16, 4), *t = open_session(model, 16, 4);
    const int32_t ids[] = {1, 2, 3, 4, 5, 6};
    assert_ok(qn_session_append(s, ids, 5, NULL, NULL, err));
    /* Poison one cached value of the last layer: later positions attend to it. */
    const float sound = poke_kv(s, 1, true, NAN);
    qn_error error = {0};
    assert_int_equal(qn_session_step(s, 6, &error), QN_ENUMERIC);
    assert_non_null(strstr(error.message, "logits of position 5: that of id "));
    assert_int_equal(qn_session_n_tok(s), 6);
    assert_null(qn_session_logits(s));
    (void)poke_kv(s, 1, true, sound);
    size_t reused = 0;
    assert_ok(qn_session_sync(s, ids, 6, &reused, err));
    assert_int_equal(reused, 5);
    snapshot got = snap(s), expected = fresh(model, ids, 6);
    assert_same(&got, &expected);

    /* In a batch the others are unaffected. */
    (void)poke_kv(s, 1, true, NAN);
    assert_ok(qn_session_append(t, ids, 5, NULL, NULL, err));
    assert_ok(qn_session_rewind(s, 5, err));
    const qn_span spans[] = {{.session = s, .ids = ids + 5, .n_ids = 1}, {.session = t, .ids = ids + 5, .n_ids = 1}};
    assert_int_equal(qn_session_append_batch(spans, 2, &error), QN_ENUMERIC);
    assert_null(qn_session_logits(s));
    snapshot other = snap(t);
    assert_same(&other, &expected);
    release(&got);
    release(&expected);
    release(&other);
    qn_session_free(s);
    qn_session_free(t);
    qn_model_close(model);
}

typedef struct worker {
    qn_session *session;
    int32_t *ids;
    pthread_t thread;
    qn_status status;
} worker;

static void *work(void *argument) {
    worker *w = argument;
    for (int round = 0; round < 3 && w->status == QN_OK; round++) {
        w->status = qn_session_sync(w->session, w->ids, 30, NULL, NULL);
        for (int i = 30; i < 40 && w->status == QN_OK; i++) {
            w->status = qn_session_step(w->session, w->ids[i], NULL);
        }
    }
    return NULL;
}

/* Sessions of one model on separate threads give the same results as alone. */
static void test_threads(void **state) {
    (void)state;
    enum { W = 4 };
    test_rng rng = {8};
    qn_model *model = open_model(qn_backend_name(0), 2, TIED);
    worker workers[W];
    for (int i = 0; i < W; i++) {
        workers[i] = (worker){.session = open_session(model, 64, 4 + i), .ids = random_ids(&rng, 40)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < W; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].status, QN_OK);
        snapshot got = snap(workers[i].session), expected = fresh(model, workers[i].ids, 40);
        assert_same(&got, &expected);
        release(&got);
        release(&expected);
        qn_session_free(workers[i].session);
        free(workers[i].ids);
    }
    qn_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariance),    cmocka_unit_test(test_batch),     cmocka_unit_test(test_sync),
        cmocka_unit_test(test_invalid_calls), cmocka_unit_test(test_create),    cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_not_finite),    cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
