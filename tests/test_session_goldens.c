/* SPDX-License-Identifier: Apache-2.0 */
/* Whole checkpoints against transformers: logits, all hidden states, caches, greedy decoding; on every backend. */
#include "support/sessions.h"

#include "../src/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Both backends sum in f32 or wider, like the goldens' float32, but in other orders; the design bound for f32
 * arithmetic through a whole model. */
#define BOUND 3e-5
/* int8 rounds activations to 127 steps of a group's greatest value. With 64 normal values in a group (greatest 2.4
 * sigma) a product has an error of 2.4 / 127 / sqrt(12) = 0.5 % of its own sigma. Eight products in series in the
 * two layers add up to 1.5 % of sigma if each counts like the first; the worst of 10,000 values is 4 sigma off: 6 %. */
#define INT8_BOUND 6e-2
/* Below this margin the golden best and second-best logits are so close that rounding may swap them. */
#define MARGIN 1e-4

static const char *const models[] = {"models/tied-f32",         "models/untied-bf16-sharded", "models/mha-f16",
                                     "models/new-config-bf16",  "models/yarn-bf16",           "models/long-f32",
                                     "quantized/mlx-3bit-g128", "quantized/mlx-4bit-g64",     "quantized/mlx-5bit-g64",
                                     "quantized/mlx-8bit-g32",  "quantized/mlx-mixed-2-6-8",  "quantized/fp8-block128"};

static double bound = BOUND;

typedef struct capture {
    int32_t n_tok, d_model;
    float *hidden; /* {n_layer + 1, n_tok, d_model} */
    float *logits; /* {n_tok, n_vocab} */
    int32_t n_hidden, next;
} capture;

static void store_hidden(void *user, int32_t state, int32_t position, const float *row, int32_t d_model) {
    capture *c = user;
    assert_int_equal(d_model, c->d_model);
    if (position >= c->n_tok) return; /* greedy steps */
    memcpy(c->hidden + ((size_t)state * (size_t)c->n_tok + (size_t)position) * (size_t)d_model, row,
           (size_t)d_model * sizeof *row);
    c->n_hidden++;
}

static bool store_logits(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    capture *c = user;
    assert_int_equal(position, c->next++);
    memcpy(c->logits + (size_t)position * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

static void check(const char *what, const float *x, const float *expected, size_t n) {
    expect_close(what, x, expected, n, bound);
}

/* The id of the greatest logit, the lowest on a tie. */
static int32_t argmax(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

static void check_caches(qn_session *session, const char *dir, int64_t row, const qn_model_config *config) {
    size_t n_tok = (size_t)qn_session_n_tok(session);
    size_t n = (size_t)config->n_kv_head * n_tok * (size_t)config->head_dim;
    float *k = malloc(n * sizeof *k), *v = malloc(n * sizeof *v);
    for (int32_t layer = 0; layer < config->n_layer; layer++) {
        char name[64];
        assert_ok(qn_session_read_kv(session, layer, 0, (int32_t)n_tok, k, v, err));
        for (int value = 0; value < 2; value++) {
            snprintf(name, sizeof name, "%c_cache.%d", value ? 'v' : 'k', layer);
            float *expected = golden_f32(dir, name, NULL);
            check(name, value ? v : k, expected + (size_t)row * n, n);
            free(expected);
        }
    }
    free(k);
    free(v);
}

static void check_row(qn_model *model, const char *dir, int64_t row) {
    const qn_model_config *config = qn_model_get_config(model);
    int64_t shape[QN_MAX_RANK], steps[QN_MAX_RANK];
    int64_t *input = golden_s64(dir, "input_ids", shape), *greedy = golden_s64(dir, "greedy.tokens", steps);
    float *margin = golden_f32(dir, "greedy.margin", NULL), *logits = golden_f32(dir, "logits", NULL);
    size_t n_tok = (size_t)shape[1], d_model = (size_t)config->d_model, n_vocab = (size_t)config->n_vocab;
    capture c = {.n_tok = (int32_t)n_tok, .d_model = config->d_model};
    c.hidden = calloc((size_t)(config->n_layer + 1) * n_tok * d_model, sizeof *c.hidden);
    c.logits = calloc(n_tok * n_vocab, sizeof *c.logits);
    const qn_session_options options = {
        .n_batch = 64, .kv_dtype = QN_DTYPE_F32, .yarn = QN_YARN_ON, .tap = {store_hidden, &c}};
    qn_session *session = open_session_with(model, &options);

    int32_t *ids = calloc(n_tok, sizeof *ids);
    for (size_t t = 0; t < n_tok; t++) ids[t] = (int32_t)input[(size_t)row * n_tok + t];
    assert_ok(qn_session_append(session, ids, n_tok, store_logits, &c, err));
    assert_int_equal(c.next, n_tok);
    assert_int_equal(c.n_hidden, (size_t)(config->n_layer + 1) * n_tok);
    check("logits", c.logits, logits + (size_t)row * n_tok * n_vocab, n_tok * n_vocab);
    for (int32_t i = 0; i <= config->n_layer; i++) {
        char name[64];
        snprintf(name, sizeof name, "hidden.%d", i);
        float *expected = golden_f32(dir, name, NULL);
        check(name, c.hidden + (size_t)i * n_tok * d_model, expected + (size_t)row * n_tok * d_model, n_tok * d_model);
        free(expected);
    }
    check_caches(session, dir, row, config);

    for (int64_t step = 0; step < steps[1] && bound <= BOUND; step++) {
        size_t at = (size_t)(row * steps[1] + step);
        int32_t id = argmax(qn_session_logits(session), config->n_vocab);
        if (id != greedy[at]) {
            assert_true(margin[at] < (float)MARGIN);
            break;
        }
        assert_ok(qn_session_step(session, id, err));
    }
    qn_session_free(session);
    free(ids);
    free(c.hidden);
    free(c.logits);
    free(input);
    free(greedy);
    free(margin);
    free(logits);
}

static void test_goldens(void **state) {
    (void)state;
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
            char dir[256];
            int64_t shape[QN_MAX_RANK];
            snprintf(dir, sizeof dir, "tests/data/%s", models[i]);
            print_message("%s on %s\n", models[i], device);
            qn_model *model = open_model(device, 2, dir);
            free(golden_s64(dir, "input_ids", shape));
            for (int64_t row = 0; row < shape[0]; row++) check_row(model, dir, row);
            qn_model_close(model);
        }
    }
}

/*
 * q8 KV: an element is off by at most 1/254 of the greatest in its row, at random. The greatest is about 3 times the
 * rms, so a key or value has an rms error of 3/254/sqrt(3) = 0.7 %. With normed keys (|q| |k| scale = sqrt(D)) a score
 * is off by 0.7 % of 1, and a weight by the same fraction of itself. So the attention output has an rms error of 1 %,
 * and the logits at most that, because it is only a part of their stream. Errors and logits have similar distributions:
 * the greatest error is the same fraction of the greatest logit. It varies by a factor of 2 or 3 between models.
 */
#define Q8_BOUND 3e-2

static void test_q8(void **state) {
    (void)state;
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
            if (strcmp(device, "ref") == 0 && i > 2) break; /* slow */
            char dir[256];
            int64_t shape[QN_MAX_RANK];
            snprintf(dir, sizeof dir, "tests/data/%s", models[i]);
            qn_model *model = open_model(device, 2, dir);
            const size_t n_vocab = (size_t)qn_model_get_config(model)->n_vocab;
            const qn_session_options options = {.kv_dtype = QN_DTYPE_Q8, .yarn = QN_YARN_ON};
            qn_session *session = open_session_with(model, &options);
            int64_t *input = golden_s64(dir, "input_ids", shape);
            float *logits = golden_f32(dir, "logits", NULL);
            const size_t n_tok = (size_t)shape[1];
            capture c = {.n_tok = (int32_t)n_tok, .logits = calloc(n_tok * n_vocab, sizeof(float))};
            int32_t *ids = calloc(n_tok, sizeof *ids);
            for (size_t t = 0; t < n_tok; t++) ids[t] = (int32_t)input[t];
            assert_ok(qn_session_append(session, ids, n_tok, store_logits, &c, err));
            CASE(name, "%s on %s, q8", models[i], device);
            double error = relative_error(c.logits, logits, (int64_t)(n_tok * n_vocab));
            print_message("%s: %g\n", name, error);
            expect_close(name, c.logits, logits, n_tok * n_vocab, Q8_BOUND);
            if (!(error > BOUND)) fail_msg("%s was not used: relative error %g", name, error);
            qn_session_free(session);
            qn_model_close(model);
            free(ids);
            free(c.logits);
            free(input);
            free(logits);
        }
    }
}

/* Integer products, for affine checkpoints. */
static void test_int8(void **state) {
    (void)state;
    bound = INT8_BOUND;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        if (strstr(models[i], "mlx") == NULL) continue;
        char dir[256];
        qn_device *device = NULL;
        qn_model *model = NULL;
        const qn_model_options options = {.arith = QN_ARITH_INT8};
        snprintf(dir, sizeof dir, "tests/data/%s", models[i]);
        print_message("%s in int8\n", models[i]);
        assert_ok(qn_device_open(&device, "cpu", NULL, err));
        assert_ok(qn_model_open(&model, device, dir, &options, err));
        qn_device_close(device);
        check_row(model, dir, 0);
        qn_model_close(model);
    }
    bound = BOUND;
}

/* The trained demo model matches transformers for 160 tokens from each prompt. */
static void test_demo(void **state) {
    (void)state;
    if (getenv("QUICK") != NULL) skip(); /* takes minutes under an emulator or a sanitizer */
    const char *device;
    for (int32_t b = 0; (device = qn_backend_name(b)) != NULL; b++) {
        json_t *root = NULL;
        assert_ok(qni_json_read(&root, DEMO_MODEL "/golden.json", 1 << 22, err));
        qn_model *model = open_model(device, 2, DEMO_MODEL);
        int32_t n_vocab = qn_model_get_config(model)->n_vocab;
        qn_session *session = open_session(model, 512, 0);
        size_t i, j;
        json_t *row, *value;
        json_array_foreach(json_object_get(root, "greedy"), i, row) {
            if (strcmp(device, "ref") == 0 && i > 1) break; /* slow */
            int32_t prompt[256];
            json_t *prompt_ids = json_object_get(row, "prompt_ids"), *greedy = json_object_get(row, "greedy_ids");
            assert_in_range(json_array_size(prompt_ids), 1, 256);
            json_array_foreach(prompt_ids, j, value) prompt[j] = (int32_t)json_integer_value(value);
            assert_ok(qn_session_sync(session, prompt, json_array_size(prompt_ids), NULL, err));
            json_array_foreach(greedy, j, value) {
                int32_t id = argmax(qn_session_logits(session), n_vocab);
                if (id != json_integer_value(value)) {
                    double margin = json_number_value(json_array_get(json_object_get(row, "margins"), j));
                    if (margin >= 1e-3) fail_msg("prompt %zu, step %zu: %d", i, j, id);
                    break;
                }
                assert_ok(qn_session_step(session, id, err));
            }
        }
        qn_session_free(session);
        qn_model_close(model);
        json_decref(root);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_q8),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_demo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
