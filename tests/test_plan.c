/* SPDX-License-Identifier: Apache-2.0 */
/* The plan equals the bytes allocated from the device's allocator exactly, and a context that it reports as fitting
 * does fit. */
#include "../src/base/memory.h"
#include "../src/session/session.h"
#include "support/cmocka_all.h"
#include "support/devices.h"

#include <quern/session.h>

#include <stdlib.h>
#include <string.h>

static const char *const models[] = {
    "tests/data/models/long-f32",
    "tests/data/models/mha-f16",
    "tests/data/models/untied-bf16-sharded",
    "tests/data/models/yarn-bf16",
    "models/demo",
};
enum { N_MODEL = sizeof models / sizeof models[0] };

typedef struct counter {
    uint64_t bytes, peak;
    int n_alloc;
} counter;
static void *counted_alloc(void *user, size_t bytes, size_t alignment) {
    counter *c = user;
    c->n_alloc++;
    c->bytes += bytes;
    if (c->bytes > c->peak) c->peak = c->bytes;
    return aligned_alloc(alignment, qni_round_up(bytes, alignment));
}
static void counted_free(void *user, void *pointer, size_t bytes) {
    counter *c = user;
    c->bytes -= bytes;
    free(pointer);
}

static qn_plan plan_of(const char *dir, const qn_plan_options *options) {
    qn_plan plan;
    qn_error err = {0};
    if (qn_model_plan(&plan, dir, options, &err) != QN_OK) fail_msg("%s: %s", dir, err.message);
    return plan;
}

/* Open, create, one full prefill and a step; the bytes allocated at each stage. */
static void check(const char *dir, const char *name, int32_t n_thread, const qn_session_options *session_options) {
    qn_plan_options po = {.device = name,
                          .n_thread = n_thread,
                          .n_ctx = session_options->n_ctx,
                          .n_batch = session_options->n_batch,
                          .kv_dtype = session_options->kv_dtype};
    qn_plan plan = plan_of(dir, &po);
    counter c = {0};
    qn_device_options options = {.n_thread = n_thread, .allocator = {counted_alloc, counted_free, &c}};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    assert_int_equal(qn_device_open(&device, name, &options, NULL), QN_OK);
    uint64_t before = c.bytes;
    int blocks = c.n_alloc;
    assert_int_equal(qn_model_open(&model, device, dir, NULL, NULL), QN_OK);
    assert_int_equal(c.n_alloc, blocks + 1); /* all weights are in one block, so that large pages can hold them */
    assert_int_equal(c.bytes - before, plan.weight_bytes);
    const qn_model_config *config = qn_model_get_config(model);
    const uint64_t table = (uint64_t)config->n_vocab * (uint64_t)config->d_model * qn_dtype_bytes(config->dtype);
    assert_int_equal(plan.table_bytes, config->tied ? 0 : table);
    assert_int_not_equal(qn_model_arith(model), QN_ARITH_AUTO);
    assert_int_equal(qn_session_create(&session, model, session_options, NULL), QN_OK);
    assert_int_equal(c.bytes, plan.total_bytes);
    assert_int_equal(qn_session_n_ctx(session), plan.n_ctx);
    qn_kv_pool_info pool;
    qn_kv_pool *own = session->pool;
    qn_kv_pool_get_info(own, &pool);
    const int32_t device_block_tokens = pool.block_tokens;
    int n_alloc = c.n_alloc;
    size_t n = (size_t)plan.n_ctx - 1;
    int32_t *ids = calloc(n, sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(i * 7 % 500);
    qn_error err = {0};
    if (qn_session_sync(session, ids, n, NULL, &err) != QN_OK) fail_msg("%s: %s", dir, err.message);
    assert_int_equal(qn_session_step(session, 3, NULL), QN_OK);
    assert_int_equal(c.n_alloc, n_alloc); /* computing allocates nothing */
    assert_int_equal(c.peak, plan.total_bytes);
    free(ids);
    qn_session_free(session);
    qn_model_close(model);
    qn_device_close(device);
    assert_int_equal(c.bytes, 0);
    assert_int_equal(plan.total_bytes, plan.weight_bytes + plan.session_bytes + plan.scratch_bytes);
    const uint64_t block = (uint64_t)device_block_tokens; /* KV is in whole blocks */
    assert_int_equal(plan.kv_bytes, plan.kv_token_bytes * ((plan.n_ctx + block - 1) / block * block));
}

static void plan_equals_allocations(void **state) {
    (void)state;
    static const qn_session_options sessions[] = {
        {.n_ctx = 64},
        {.n_ctx = 200, .n_batch = 7, .kv_dtype = QN_DTYPE_F32},
        {.n_ctx = 333, .n_batch = 100, .kv_dtype = QN_DTYPE_BF16},
        {.n_ctx = 90, .n_batch = 30, .kv_dtype = QN_DTYPE_Q8},
        {.n_ctx = 1},
    };
    const char *name;
    for (int32_t d = 0; (name = qn_backend_name(d)) != NULL; d++) {
        for (int i = 0; i < N_MODEL && !is_gpu(name); i++) {
            /* Prefills of hundreds of tokens are for the fast backend; the slow one needs only a few to show the
             * same. */
            size_t n = strcmp(name, "ref") == 0 ? 1 : sizeof sessions / sizeof sessions[0] - 1;
            for (size_t k = 0; k < n; k++) check(models[i], name, 1 + (int32_t)k, &sessions[k]);
        }
    }
}

static void finds_the_longest_context(void **state) {
    (void)state;
    for (int i = 0; i < N_MODEL; i++) {
        qn_model_config config;
        assert_int_equal(qn_model_read_config(&config, models[i], NULL, NULL), QN_OK);
        int32_t most = config.n_ctx_max;
        qn_plan whole = plan_of(models[i], &(qn_plan_options){.n_ctx = most, .memory_limit_bytes = UINT64_MAX});
        assert_int_equal(whole.n_ctx_fits, most);
        /* With a limit equal to the plan of n tokens, n fit; with one byte less they do not. */
        for (int32_t n = 1; n <= most; n = n * 3 + 1) {
            qn_plan_options o = {.n_ctx = n, .memory_limit_bytes = UINT64_MAX};
            uint64_t total = plan_of(models[i], &o).total_bytes;
            o.memory_limit_bytes = total;
            assert_int_equal(plan_of(models[i], &o).n_ctx_fits, n);
            o.memory_limit_bytes = total - 1;
            assert_int_equal(plan_of(models[i], &o).n_ctx_fits, n - 1);
        }
        qn_plan_options o = {.memory_limit_bytes = whole.weight_bytes};
        assert_int_equal(plan_of(models[i], &o).n_ctx_fits, 0);
        o.memory_limit_bytes = 1;
        assert_int_equal(plan_of(models[i], &o).n_ctx_fits, 0);
        o.memory_limit_bytes = 0;
        assert_true(plan_of(models[i], &o).n_ctx_fits > 0); /* these are tiny: the machine's memory is enough */
    }
}

static void refuses_bad_arguments(void **state) {
    (void)state;
    qn_plan plan, before;
    memset(&plan, 0x5A, sizeof plan);
    before = plan;
    qn_error err = {0};
    static const struct {
        qn_plan_options options;
        qn_status status;
        const char *why;
    } cases[] = {
        {{.n_ctx = 99999}, QN_EUNSUPPORTED, "n_ctx"},
        {{.n_ctx = -1}, QN_EINVAL, "n_ctx"},
        {{.n_batch = -1}, QN_EINVAL, "n_batch"},
        {{.kv_dtype = QN_DTYPE_S32}, QN_EINVAL, "kv_dtype"},
        {{.arith = (qn_arith)9}, QN_EINVAL, "arith: unknown value 9"},
        {{.arith = QN_ARITH_INT8}, QN_EUNSUPPORTED, ""},
        {{.n_thread = -1}, QN_EINVAL, "n_thread"},
        {{.isa = "unheard-of"}, QN_EINVAL, "isa"},
        {{.device = "unheard-of"}, QN_EUNSUPPORTED, "unheard-of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err = (qn_error){0};
        assert_int_equal(qn_model_plan(&plan, "models/demo", &cases[i].options, &err), cases[i].status);
        if (strstr(err.message, cases[i].why) == NULL) fail_msg("\"%s\" lacks %s", err.message, cases[i].why);
    }
    assert_int_equal(qn_model_plan(&plan, "models", NULL, &err), QN_EIO);
    assert_int_equal(qn_model_plan(&plan, NULL, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_model_plan(NULL, "models/demo", NULL, &err), QN_EINVAL);
    assert_memory_equal(&plan, &before, sizeof plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_equals_allocations),
        cmocka_unit_test(finds_the_longest_context),
        cmocka_unit_test(refuses_bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
