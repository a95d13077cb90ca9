/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions on a shared pool of KV blocks: forks share blocks until one of them writes, results are bit for bit those of
 * a session alone, exhausted pools refuse before anything changes, and blocks come back.
 */
#include "support/sessions.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIED GOLDEN_MODELS "/tied-f32"

enum { N_VOCAB = 512 };

static qn_kv_pool *open_pool(qn_model *model, int32_t n_ctx, int32_t n_tok, int32_t n_batch) {
    const qn_kv_pool_options options = {.n_ctx = n_ctx, .n_tok = n_tok, .n_batch = n_batch, .kv_dtype = QN_DTYPE_F16};
    qn_kv_pool *pool = NULL;
    assert_ok(qn_kv_pool_create(&pool, model, &options, err));
    return pool;
}

static qn_kv_pool_info info_of(const qn_kv_pool *pool) {
    qn_kv_pool_info info;
    qn_kv_pool_get_info(pool, &info);
    return info;
}
static int32_t used(const qn_kv_pool *pool) {
    const qn_kv_pool_info info = info_of(pool);
    return info.n_block - info.n_unused;
}

static qn_session *on_pool(qn_model *model, qn_kv_pool *pool, int32_t n_ctx) {
    return open_session_with(model, &(qn_session_options){.n_ctx = n_ctx, .pool = pool});
}

/* Check the logits against a session with its own pool. */
static void expect_logits(qn_model *model, const qn_session *s) {
    const size_t n = (size_t)qn_session_n_tok(s);
    qn_session *alone = open_session_with(model, &(qn_session_options){.n_ctx = (int32_t)n, .kv_dtype = QN_DTYPE_F16});
    assert_ok(qn_session_append(alone, qn_session_ids(s), n, NULL, NULL, err));
    assert_non_null(qn_session_logits(s));
    assert_memory_equal(qn_session_logits(s), qn_session_logits(alone), N_VOCAB * sizeof(float));
    qn_session_free(alone);
}

/* A fork holds the blocks of the original once; whoever writes first copies the partial last one, and neither sees what
 * the other appends. */
static void forks_share_blocks(void **state) {
    (void)state;
    const char *device;
    for (int32_t d = 0; (device = qn_backend_name(d)) != NULL; d++) {
        qn_model *model = open_model(device, 2, TIED);
        qn_kv_pool *pool = open_pool(model, 400, 4000, 64);
        const int32_t block = info_of(pool).block_tokens, n = 2 * block + 5;
        test_rng rng = {11};
        int32_t *ids = random_ids(&rng, (size_t)n + 8);
        qn_session *a = on_pool(model, pool, 0), *b = NULL, *c = NULL;
        assert_ok(qn_session_append(a, ids, (size_t)n, NULL, NULL, err));
        assert_int_equal(used(pool), 3);
        assert_ok(qn_session_fork(&b, a, err));
        assert_ok(qn_session_fork(&c, a, err));
        assert_int_equal(used(pool), 3);
        assert_int_equal(qn_session_n_tok(b), n);
        assert_memory_equal(qn_session_logits(b), qn_session_logits(a), N_VOCAB * sizeof(float));

        assert_ok(qn_session_step(b, 7, err)); /* copies the last block */
        assert_int_equal(used(pool), 4);
        assert_ok(qn_session_step(a, 9, err)); /* so does this: c still shares it */
        assert_int_equal(used(pool), 5);
        assert_ok(qn_session_step(c, 7, err)); /* no one else shares it now */
        assert_int_equal(used(pool), 5);
        expect_logits(model, a);
        expect_logits(model, b);
        expect_logits(model, c);
        assert_memory_equal(qn_session_logits(b), qn_session_logits(c), N_VOCAB * sizeof(float));

        /* Rewinding into a shared block and writing there does not affect the others. */
        assert_ok(qn_session_rewind(a, (size_t)block + 3, err));
        assert_int_equal(used(pool), 4);
        assert_ok(qn_session_append(a, ids + n, 4, NULL, NULL, err));
        assert_int_equal(used(pool), 5);
        assert_ok(qn_session_step(b, 3, err));
        expect_logits(model, a);
        expect_logits(model, b);

        qn_session_free(a);
        qn_session_free(c);
        assert_int_equal(used(pool), 3);
        qn_kv_pool_free(pool); /* b keeps it alive */
        assert_ok(qn_session_step(b, 4, err));
        expect_logits(model, b);
        qn_session_free(b);
        free(ids);
        qn_model_close(model);
    }
}

/* Sessions of different n_ctx and lengths on one pool in shared steps, over several steps. */
static void batches_equal_single_sessions(void **state) {
    (void)state;
    enum { N = 5 };
    qn_model *model = open_model("cpu", 3, TIED);
    qn_kv_pool *pool = open_pool(model, 600, 3000, 100);
    test_rng rng = {12};
    const int32_t n_ctx[N] = {600, 130, 40, 300, 7}, n_first[N] = {290, 129, 1, 128, 3}, n_next[N] = {200, 1, 30, 5, 4};
    qn_session *s[N];
    int32_t *ids[N];
    qn_span spans[N];
    for (int i = 0; i < N; i++) {
        s[i] = on_pool(model, pool, n_ctx[i]);
        ids[i] = random_ids(&rng, (size_t)n_first[i] + (size_t)n_next[i]);
        spans[i] = (qn_span){.session = s[i], .ids = ids[i], .n_ids = (size_t)n_first[i]};
    }
    assert_ok(qn_session_append_batch(spans, N, err));
    for (int i = 0; i < N; i++) expect_logits(model, s[i]);
    for (int i = 0; i < N; i++) {
        spans[i].ids = ids[i] + n_first[i];
        spans[i].n_ids = (size_t)n_next[i];
    }
    assert_ok(qn_session_append_batch(spans, N, err));
    for (int i = 0; i < N; i++) {
        expect_logits(model, s[i]);
        qn_session_free(s[i]);
        free(ids[i]);
    }
    assert_int_equal(used(pool), 0);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

/* A pool without enough blocks rejects the call, naming both numbers, and nothing has changed. */
static void exhausted_pool_changes_nothing(void **state) {
    (void)state;
    qn_model *model = open_model("cpu", 1, TIED);
    qn_kv_pool *pool = open_pool(model, 256, 384, 64); /* 3 blocks of 128 */
    test_rng rng = {13};
    int32_t *ids = random_ids(&rng, 256);
    qn_session *a = on_pool(model, pool, 0), *b = on_pool(model, pool, 0);
    qn_error error = {0};
    assert_int_equal(info_of(pool).n_block, 3);
    assert_ok(qn_session_append(a, ids, 200, NULL, NULL, err));
    assert_int_equal(qn_session_append(b, ids, 200, NULL, NULL, &error), QN_EFULL);
    assert_string_equal(error.message, "KV pool: 1 of 3 blocks are unused, 2 are needed");
    assert_int_equal(qn_session_n_tok(b), 0);
    assert_int_equal(used(pool), 2);
    const qn_span spans[] = {{.session = b, .ids = ids, .n_ids = 100}, {.session = a, .ids = ids, .n_ids = 57}};
    assert_int_equal(qn_session_append_batch(spans, 2, &error), QN_EFULL); /* context: 257 of 256 */
    const qn_span fits[] = {{.session = b, .ids = ids, .n_ids = 129}, {.session = a, .ids = ids, .n_ids = 56}};
    assert_int_equal(qn_session_append_batch(fits, 2, &error), QN_EFULL);
    assert_int_equal(used(pool), 2);
    /* What the first of a batch got is given back where the second gets nothing. */
    qn_session *c = on_pool(model, pool, 0);
    const qn_span partly[] = {{.session = b, .ids = ids, .n_ids = 100}, {.session = c, .ids = ids, .n_ids = 10}};
    assert_int_equal(qn_session_append_batch(partly, 2, &error), QN_EFULL);
    assert_int_equal(used(pool), 2);
    qn_session_free(c);
    assert_int_equal(qn_session_n_tok(a), 200);
    expect_logits(model, a);
    qn_session_free(a);
    assert_ok(qn_session_append(b, ids, 200, NULL, NULL, err));
    expect_logits(model, b);

    /* A session file does not depend on the pool it came from. */
    char path[] = "/tmp/quern-pool-XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_ok(qn_session_save(b, path, err));
    qn_session *alone = open_session_with(model, &(qn_session_options){.n_ctx = 230, .kv_dtype = QN_DTYPE_F16});
    assert_ok(qn_session_restore(alone, path, err));
    assert_ok(qn_session_step(alone, 5, err));
    expect_logits(model, alone);
    unlink(path);
    qn_session_free(alone);
    qn_session_free(b);
    free(ids);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

/* After EFULL a session is unchanged, whether the call was for other ids or for those of a file. */
static void full_context_changes_nothing(void **state) {
    (void)state;
    qn_model *model = open_model("cpu", 1, TIED);
    qn_kv_pool *pool = open_pool(model, 384, 384, 64); /* 3 blocks */
    test_rng rng = {14};
    int32_t *ids = random_ids(&rng, 300);
    qn_session *a = on_pool(model, pool, 0), *b = on_pool(model, pool, 0);
    qn_session *alone = open_session_with(model, &(qn_session_options){.n_ctx = 300, .kv_dtype = QN_DTYPE_F16});
    char path[] = "/tmp/quern-pool-XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_ok(qn_session_append(alone, ids, 300, NULL, NULL, err));
    assert_ok(qn_session_save(alone, path, err));
    assert_ok(qn_session_append(a, ids, 200, NULL, NULL, err));
    assert_ok(qn_session_append(b, ids, 5, NULL, NULL, err));
    ids[10] ^= 1;
    assert_int_equal(qn_session_sync(a, ids, 300, NULL, NULL), QN_EFULL);
    ids[10] ^= 1;
    assert_int_equal(qn_session_restore(a, path, NULL), QN_EFULL);
    assert_int_equal(qn_session_n_tok(a), 200);
    assert_memory_equal(qn_session_ids(a), ids, 200 * sizeof *ids);
    assert_int_equal(used(pool), 3);
    expect_logits(model, a);
    qn_session_free(b);
    assert_ok(qn_session_restore(a, path, err));
    assert_int_equal(qn_session_n_tok(a), 300);
    assert_memory_equal(qn_session_logits(a), qn_session_logits(alone), N_VOCAB * sizeof(float));
    unlink(path);
    qn_session_free(a);
    qn_session_free(alone);
    free(ids);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

static bool stop_at(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    (void)logits, (void)n_vocab;
    return position < *(const int32_t *)user;
}

/* What a call reserved for ids that it did not compute goes back, and a fork of what there is shares the right blocks.
 * */
static void canceled_calls_release_blocks(void **state) {
    (void)state;
    qn_model *model = open_model("cpu", 2, TIED);
    qn_kv_pool *pool = open_pool(model, 384, 384, 16); /* 3 blocks */
    test_rng rng = {15};
    int32_t *ids = random_ids(&rng, 300);
    const int32_t last = 20;
    qn_session *a = on_pool(model, pool, 0), *b = NULL;
    assert_int_equal(qn_session_append(a, ids, 300, stop_at, (void *)(uintptr_t)&last, NULL), QN_ECANCELED);
    assert_int_equal(qn_session_n_tok(a), 32);
    assert_int_equal(used(pool), 1);
    assert_ok(qn_session_fork(&b, a, err));
    assert_ok(qn_session_step(a, 3, err));
    assert_ok(qn_session_step(b, 4, err));
    assert_int_equal(used(pool), 2);
    expect_logits(model, a);
    expect_logits(model, b);
    qn_session_free(a);
    qn_session_free(b);
    free(ids);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

/* A session with few tokens per step, or with a NaN, does not hold up the others of its pool. */
static void sessions_do_not_block_each_other(void **state) {
    (void)state;
    qn_model *model = open_model("ref", 1, TIED);
    qn_kv_pool *pool = open_pool(model, 100, 400, 8);
    test_rng rng = {16};
    int32_t *ids = random_ids(&rng, 40);
    const qn_session_options small = {.n_ctx = 20, .n_batch = 1, .pool = pool};
    qn_session *slow = open_session_with(model, &small), *bad = on_pool(model, pool, 0),
               *good = on_pool(model, pool, 0);
    assert_ok(qn_session_append(bad, ids, 2, NULL, NULL, err));
    (void)poke_kv(bad, 1, true, NAN); /* f16: half of the bits form a NaN too */
    const qn_span spans[] = {{.session = slow, .ids = ids, .n_ids = 3},
                             {.session = bad, .ids = ids, .n_ids = 1},
                             {.session = good, .ids = ids, .n_ids = 40}};
    qn_error error = {0};
    assert_int_equal(qn_session_append_batch(spans, 3, &error), QN_ENUMERIC);
    assert_non_null(strstr(error.message, "logits of position 2: that of id "));
    assert_null(qn_session_logits(bad));
    assert_int_equal(qn_session_n_tok(bad), 3);
    assert_int_equal(qn_session_n_tok(slow), 3);
    assert_int_equal(qn_session_n_tok(good), 40);
    expect_logits(model, slow);
    expect_logits(model, good);
    qn_session_free(slow);
    qn_session_free(bad);
    qn_session_free(good);
    free(ids);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

typedef struct worker {
    qn_model *model;
    qn_kv_pool *pool;
    const int32_t *ids;
    int32_t n;
    float logits[N_VOCAB];
    bool good;
} worker;

/* Grows, rewinds, forks and frees sessions of a pool that other threads use too. */
static void *use_pool(void *user) {
    worker *w = user;
    for (int i = 0; i < 4 && (i == 0 || w->good); i++) {
        qn_session *s = NULL, *fork = NULL;
        const qn_session_options options = {.pool = w->pool};
        w->good = qn_session_create(&s, w->model, &options, NULL) == QN_OK &&
                  qn_session_append(s, w->ids, (size_t)w->n, NULL, NULL, NULL) == QN_OK &&
                  qn_session_rewind(s, 3, NULL) == QN_OK && qn_session_fork(&fork, s, NULL) == QN_OK &&
                  qn_session_step(s, 1, NULL) == QN_OK &&
                  qn_session_sync(fork, w->ids, (size_t)w->n, NULL, NULL) == QN_OK;
        if (w->good) memcpy(w->logits, qn_session_logits(fork), sizeof w->logits);
        qn_session_free(s);
        qn_session_free(fork);
    }
    return NULL;
}

static void threads_share_a_pool(void **state) {
    (void)state;
    enum { N = 4 };
    qn_model *model = open_model("cpu", 2, TIED);
    qn_kv_pool *pool = open_pool(model, 200, 200 * 2 * N + 128 * N, 32);
    test_rng rng = {17};
    int32_t *ids = random_ids(&rng, 200);
    static worker w[N];
    pthread_t thread[N];
    for (int i = 0; i < N; i++) {
        w[i] = (worker){.model = model, .pool = pool, .ids = ids, .n = 30 + 40 * i};
        assert_int_equal(pthread_create(&thread[i], NULL, use_pool, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_true(w[i].good);
        qn_session *alone = open_session_with(model, &(qn_session_options){.n_ctx = 200, .kv_dtype = QN_DTYPE_F16});
        assert_ok(qn_session_append(alone, ids, (size_t)w[i].n, NULL, NULL, err));
        assert_memory_equal(w[i].logits, qn_session_logits(alone), sizeof w[i].logits);
        qn_session_free(alone);
    }
    assert_int_equal(used(pool), 0);
    free(ids);
    qn_kv_pool_free(pool);
    qn_model_close(model);
}

/* A session continues after another one failed to allocate more scratch. */
static void continues_after_another_session_fails(void **state) {
    (void)state;
    counting_allocator counts = {0};
    const qn_device_options options = {.n_thread = 1, .allocator = counting(&counts)};
    qn_model *model = open_model_with("cpu", &options, TIED);
    qn_session *a = open_session(model, 64, 4), *b = NULL;
    assert_ok(qn_session_step(a, 5, err));
    for (size_t i = 1; i < 6; i++) { /* each allocation of a session that needs more scratch */
        counts.fail_at = counts.n_alloc + i;
        const qn_session_options large = {.n_ctx = 4000, .n_batch = 2000, .kv_dtype = QN_DTYPE_F32};
        qn_status status = qn_session_create(&b, model, &large, NULL);
        counts.fail_at = 0;
        if (status == QN_OK) qn_session_free(b);
        assert_ok(qn_session_step(a, (int32_t)i, err));
        qn_session *alone = open_session(model, 64, 4);
        assert_ok(qn_session_append(alone, qn_session_ids(a), (size_t)qn_session_n_tok(a), NULL, NULL, err));
        assert_memory_equal(qn_session_logits(a), qn_session_logits(alone), N_VOCAB * sizeof(float));
        qn_session_free(alone);
    }
    qn_session_free(a);
    qn_model_close(model);
}

static void refused(qn_model *model, qn_session_options options, const char *text) {
    qn_session *s = NULL;
    qn_error error = {0};
    assert_int_equal(qn_session_create(&s, model, &options, &error), QN_EINVAL);
    assert_string_equal(error.message, text);
    assert_null(s);
}

static void options_agree_with_the_pool(void **state) {
    (void)state;
    qn_model *model = open_model("cpu", 1, TIED), *other = open_model("cpu", 1, TIED);
    qn_kv_pool *pool = open_pool(model, 100, 0, 20), *bad = NULL;
    refused(other, (qn_session_options){.pool = pool}, "pool: belongs to another model than the session");
    refused(model, (qn_session_options){.pool = pool, .n_ctx = 101},
            "n_ctx: must be within 0 … 100, that of the pool, got 101");
    refused(model, (qn_session_options){.pool = pool, .n_batch = 21},
            "n_batch: must be within 0 … 20, that of the pool, got 21");
    refused(model, (qn_session_options){.pool = pool, .kv_dtype = QN_DTYPE_Q8}, "kv_dtype: the pool's is f16, got q8");
    refused(model, (qn_session_options){.pool = pool, .yarn = QN_YARN_ON}, "yarn: the pool is without it");
    qn_error error = {0};
    assert_int_equal(qn_kv_pool_create(&bad, model, &(qn_kv_pool_options){.n_tok = -1}, &error), QN_EINVAL);
    assert_string_equal(error.message, "n_tok: must be >= 0, got -1");
    assert_int_equal(qn_kv_pool_create(NULL, model, NULL, NULL), QN_EINVAL);
    assert_int_equal(qn_session_fork(NULL, NULL, NULL), QN_EINVAL);
    qn_kv_pool_free(pool);
    qn_kv_pool_free(NULL);
    qn_model_close(model);
    qn_model_close(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_share_blocks),
        cmocka_unit_test(batches_equal_single_sessions),
        cmocka_unit_test(exhausted_pool_changes_nothing),
        cmocka_unit_test(full_context_changes_nothing),
        cmocka_unit_test(canceled_calls_release_blocks),
        cmocka_unit_test(sessions_do_not_block_each_other),
        cmocka_unit_test(threads_share_a_pool),
        cmocka_unit_test(continues_after_another_session_fails),
        cmocka_unit_test(options_agree_with_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
