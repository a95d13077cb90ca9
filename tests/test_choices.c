/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy choices in bf16 arithmetic against a reference, `cpu` in f32 arithmetic, on every device but `ref`. All are fed
 * the 256 ids that the reference generates, and choose after each of them. The model is models/demo, or CHOICES_MODEL=DIR,
 * which tests/gpu.sh sets to random weights of the shape of 0.6B.
 */
#include "support/sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ID = 256, N_PROMPT = 8, MAX_RUN = 16 };

/*
 * How far the best logit may lead and still lose, as a fraction of the position's greatest magnitude: the design's bound
 * for a logit in bf16 arithmetic on any backend. It is for the worst of all logits; the two that compete are rarely that,
 * so their difference is held to it too.
 */
#define BOUND 1.5e-2

typedef struct choices {
    int32_t n, id[N_ID];
} choices;

/* The reference beside the choices of each device, in one step and token by token, which are other kernels on cuda. */
typedef struct comparison {
    char names[MAX_RUN][32];
    choices of[MAX_RUN];
    int n_run;
    choices reference;
    int32_t n_decided; /* positions whose margin is above the bound */
} comparison;

static int32_t argmax(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

static bool choose(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    choices *c = user;
    assert_int_equal(position, c->n);
    c->id[c->n++] = argmax(logits, n_vocab);
    return true;
}

/* A choice that the reference puts further behind than the bound is wrong; so above the margin all are equal. */
static bool compare(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    comparison *c = user;
    (void)choose(&c->reference, position, logits, n_vocab);
    const int32_t best = c->reference.id[position];
    float second = -INFINITY, scale = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (i != best) second = fmaxf(second, logits[i]);
        scale = fmaxf(scale, fabsf(logits[i]));
    }
    const double bound = BOUND * (double)scale;
    c->n_decided += (double)logits[best] - (double)second > bound;
    for (int d = 0; d < c->n_run; d++) {
        const int32_t id = c->of[d].id[position];
        CASE(name, "%s, position %d, which chooses %d and not %d", c->names[d], position, id, best);
        expect_near(name, id, logits[id], logits[best], bound);
    }
    return true;
}

static qn_session *open_on(const char *device_name, const char *dir, qn_arith arith, qn_session_options how) {
    qn_device *device = NULL;
    qn_model *model = NULL;
    assert_ok(qn_device_open(&device, device_name, NULL, err));
    assert_ok(qn_model_open(&model, device, dir, &(qn_model_options){.arith = arith}, err));
    how.n_ctx = N_ID;
    qn_session *session = open_session_with(model, &how);
    qn_model_close(model);
    qn_device_close(device);
    return session;
}

/* A few random ids and what the reference makes of them. */
static void generate(qn_session *reference, int32_t *ids) {
    const int32_t n_vocab = qn_model_get_config(qn_session_model(reference))->n_vocab;
    test_rng rng = {13};
    for (int i = 0; i < N_PROMPT; i++) ids[i] = rng_below(&rng, n_vocab);
    assert_ok(qn_session_append(reference, ids, N_PROMPT, NULL, NULL, err));
    for (int i = N_PROMPT; i < N_ID; i++) {
        ids[i] = argmax(qn_session_logits(reference), n_vocab);
        assert_ok(qn_session_step(reference, ids[i], err));
    }
    assert_ok(qn_session_rewind(reference, 0, err));
}

static void chooses_as_the_reference(void **state) {
    (void)state;
    const char *model = getenv("CHOICES_MODEL"), *dir = model != NULL ? model : DEMO_MODEL, *name;
    static comparison c;
    int32_t ids[N_ID];
    qn_session *reference = open_on("cpu", dir, QN_ARITH_F32, (qn_session_options){.kv_dtype = QN_DTYPE_F32});
    generate(reference, ids);
    for (int32_t b = 0; (name = qn_backend_name(b)) != NULL && c.n_run < MAX_RUN; b++) {
        if (strcmp(name, "ref") == 0) continue; /* it has no bf16 arithmetic */
        for (int single = 0; single < 2; single++, c.n_run++) {
            const qn_session_options how = {.n_batch = single ? 1 : N_ID, .kv_dtype = QN_DTYPE_BF16};
            qn_session *session = open_on(name, dir, QN_ARITH_BF16, how);
            assert_ok(qn_session_append(session, ids, N_ID, choose, &c.of[c.n_run], err));
            assert_int_equal(c.of[c.n_run].n, N_ID);
            qn_session_free(session);
            snprintf(c.names[c.n_run], sizeof c.names[0], "%s%s", name, single ? ", token by token" : "");
        }
    }
    assert_ok(qn_session_append(reference, ids, N_ID, compare, &c, err));
    qn_session_free(reference);
    for (int d = 0; d < c.n_run; d++) {
        int32_t n_equal = 0;
        for (int i = 0; i < N_ID; i++) n_equal += c.of[d].id[i] == c.reference.id[i];
        print_message("%s: %d of %d above the margin, all equal; %d of all equal\n", c.names[d], c.n_decided, N_ID,
                      n_equal);
    }
    const bool is_enough = c.n_decided >= 0.9 * N_ID;
    if (!is_enough) print_message("%s has too few positions above the margin: fewer than 90 %%\n", dir);
    /* random weights lead by less than trained ones */
    if (model == NULL) assert_true(is_enough);
    expect_that(c.n_decided >= N_ID / 2, "positions above the margin", -1, c.n_decided);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chooses_as_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
