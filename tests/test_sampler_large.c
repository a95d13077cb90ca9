/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler over vocabularies of several blocks, bit for bit: against the definition implemented with full sorts, on
 * any number of threads, and with blocks processed in any order. */
#include "../src/session/philox.h"
#include "../src/session/sampler.h"
#include "support/best_first.h"
#include "support/sessions.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IDS = 30000, SUM_IDS = 4096 /* from sampler.h: the order of summation */ };

static test_rng rng = {20250601};

static double uniform(void) {
    return (double)(rng_next(&rng) >> 11) * 0x1p-53;
}
static float normal(void) {
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += uniform();
    return (float)(sum - 6);
}

typedef enum logits_kind { FLAT, PEAKED, WIDE, FEW_VALUES, ALL_EQUAL, EQUAL_TOP, CLOSE, N_KIND } logits_kind;

static void fill(float *logits, int32_t n, logits_kind kind) {
    for (int32_t i = 0; i < n; i++) {
        switch (kind) {
        case FLAT:
            logits[i] = 0.01f * normal();
            break;
        case PEAKED:
            logits[i] = 2 * normal() + (rng_below(&rng, 2000) ? 0 : 15);
            break;
        case WIDE:
            logits[i] = (float)(1e4 * (uniform() - 0.5));
            break;
        case FEW_VALUES:
            logits[i] = 0.5f * (float)rng_below(&rng, 7);
            break;
        case ALL_EQUAL:
            logits[i] = -3;
            break;
        case EQUAL_TOP: /* half of 14, or of 2000, or … equal ones: rounding of the sums decides */
            logits[i] = i % (n / 14 + 1) ? -40 + normal() : 10;
            break;
        default: /* neighbors in float */
            logits[i] = 1 + (float)rng_below(&rng, 5) * 0x1p-23f;
        }
        if (kind != ALL_EQUAL && rng_below(&rng, 50) == 0) logits[i] = -INFINITY;
    }
    logits[rng_below(&rng, n)] = kind == ALL_EQUAL || kind == EQUAL_TOP ? logits[0] : 0;
}

/* ---- the definition ---- */

static void put_in_order(int32_t *order, const double *key, int32_t n) {
    sort_key = key;
    for (int32_t i = 0; i < n; i++) order[i] = i;
    qsort(order, (size_t)n, sizeof *order, by_key);
}

/* Ids per block of sums: a single block if few are kept. */
static int32_t sum_ids(const bool *keep, int32_t n) {
    int32_t n_kept = 0;
    for (int32_t i = 0; i < n; i++) n_kept += keep[i];
    return n_kept <= SUM_IDS ? n : SUM_IDS;
}

static double sum_of(const double *e, const bool *keep, int32_t n) {
    const int32_t step = sum_ids(keep, n);
    double sum = 0;
    for (int32_t first = 0; first < n; first += step) {
        double part = 0;
        for (int32_t i = first; i < n && i < first + step; i++) part += keep[i] ? e[i] : 0;
        sum += part;
    }
    return sum;
}

static int32_t draw_from(const double *probs, const bool *keep, int32_t n, double u) {
    const int32_t step = sum_ids(keep, n);
    double before = 0;
    int32_t last = -1;
    for (int32_t first = 0; first < n; first += step) {
        double part = 0;
        for (int32_t i = first; i < n && i < first + step; i++) {
            part += probs[i];
            if (probs[i] > 0) last = i;
            if (keep[i] && before + part > u) return i;
        }
        before += part;
    }
    return last;
}

/* Fill probs {n}; returns the id sampled by u. */
static int32_t define(double *probs, const qn_sampler_params *p, const float *logits, int32_t n, double u) {
    static double x[MAX_IDS], e[MAX_IDS];
    static bool keep[MAX_IDS];
    static int32_t order[MAX_IDS];
    for (int32_t i = 0; i < n; i++) x[i] = (double)logits[i];
    for (size_t j = 0; j < p->n_logit_bias; j++) x[p->logit_bias[j].id] += (double)p->logit_bias[j].bias;
    put_in_order(order, x, n);
    const double top = x[order[0]], kth = p->top_k > 0 && p->top_k < n ? x[order[p->top_k - 1]] : -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        keep[i] = p->temperature == 0 ? i == order[0] : x[i] >= kth && x[i] >= -DBL_MAX;
        e[i] = !keep[i] ? 0 : p->temperature == 0 ? 1 : exp((x[i] - top) / p->temperature);
    }
    if (p->temperature > 0 && p->top_p < 1) {
        const double sum = sum_of(e, keep, n);
        double total = 0;
        put_in_order(order, e, n);
        for (int32_t j = 0; j < n; j++) {
            if (j > 0 && total >= p->top_p) keep[order[j]] = false;
            total += e[order[j]] / sum;
        }
    }
    for (int32_t i = 0; i < n; i++) keep[i] = keep[i] && e[i] >= p->min_p;
    const double sum = sum_of(e, keep, n);
    for (int32_t i = 0; i < n; i++) probs[i] = keep[i] ? e[i] / sum : 0;
    return draw_from(probs, keep, n, u);
}

/* ---- the sampler ---- */

static void draw(const qn_sampler_params *p, qn_device *device, const float *logits, int32_t n, uint64_t position,
                 int32_t *id, double *probs) {
    qn_sampler *sampler = NULL;
    assert_ok(qni_sampler_create(&sampler, p, n, 0, device, err));
    assert_ok(qni_sampler_alloc(sampler, err));
    assert_ok(qn_sampler_draw(sampler, id, probs, logits, NULL, 0, 0, position, err));
    qn_sampler_free(sampler);
}

static qn_device *open_threads(int32_t n_thread) {
    const qn_device_options options = {.n_thread = n_thread};
    qn_device *device = NULL;
    assert_ok(qn_device_open(&device, "cpu", &options, err));
    return device;
}

static void test_definition(void **state) {
    (void)state;
    static const double temperatures[] = {0, 0.3, 1, 1, 2}, top_ps[] = {1, 0.95, 0.5, 0.5, 0.1, 0, 1 - 1e-12},
                        min_ps[] = {0, 0, 0.05, 0.7};
    static const int32_t top_ks[] = {0, 0, 1, 14, 20, 300, 3000, 6000, 1000000};
    static float logits[MAX_IDS];
    static double probs[MAX_IDS], expected[MAX_IDS];
    qn_device *device = open_threads(3);
    for (int round = 0; round < 420; round++) {
        const int32_t n = round % 5 ? 1 + rng_below(&rng, MAX_IDS) : SUM_IDS * (1 + rng_below(&rng, 3));
        fill(logits, n, (logits_kind)(round % N_KIND));
        const qn_logit_bias bias[] = {{rng_below(&rng, n), 3}, {rng_below(&rng, n), -1}};
        const qn_sampler_params p = {.temperature = temperatures[rng_below(&rng, 5)],
                                     .top_k = top_ks[rng_below(&rng, 9)],
                                     .top_p = top_ps[rng_below(&rng, 7)],
                                     .min_p = min_ps[rng_below(&rng, 4)],
                                     .repetition_penalty = 1,
                                     .logit_bias = bias,
                                     .n_logit_bias = (size_t)rng_below(&rng, 3),
                                     .seed = rng_next(&rng) >> 1};
        const uint64_t position = rng_next(&rng);
        int32_t id = -1;
        draw(&p, round % 2 ? device : NULL, logits, n, position, &id, probs);
        int32_t expected_id = define(expected, &p, logits, n, qni_philox_uniform(p.seed, position));
        if (id != expected_id || memcmp(probs, expected, (size_t)n * sizeof *probs) != 0) {
            fail_msg("round %d: n %d, temperature %g, top_k %d, top_p %.17g, min_p %g: id %d, not %d", round, n,
                     p.temperature, p.top_k, p.top_p, p.min_p, id, expected_id);
        }
    }
    qn_device_close(device);
}

/* Call back with every combination of settings. */
static void each_setting(void (*with)(const qn_sampler_params *p, void *context), void *context) {
    static const double temperatures[] = {0, 0.6, 1.5}, top_ps[] = {1, 0.95, 0.5}, min_ps[] = {0, 0.1};
    static const int32_t top_ks[] = {0, 20, 5000};
    for (int i = 0; i < 3 * 3 * 3 * 2; i++) {
        const qn_sampler_params p = {.temperature = temperatures[i % 3],
                                     .top_k = top_ks[i / 3 % 3],
                                     .top_p = top_ps[i / 9 % 3],
                                     .min_p = min_ps[i / 27],
                                     .repetition_penalty = 1,
                                     .seed = 1};
        with(&p, context);
    }
}

typedef struct comparison {
    qn_device *devices[3];
    int n_device;
    const float *logits;
    int32_t n;
} comparison;

static void compare(const qn_sampler_params *p, void *context) {
    static double alone[MAX_IDS], shared[MAX_IDS];
    const comparison *c = context;
    int32_t id_alone = -1, id = -2;
    draw(p, NULL, c->logits, c->n, 7, &id_alone, alone);
    for (int i = 0; i < c->n_device; i++) {
        draw(p, c->devices[i], c->logits, c->n, 7, &id, shared);
        assert_int_equal(id, id_alone);
        CASE(name, "device %d, n %d, temperature %g, top_k %d, top_p %g, min_p %g", i, (int)c->n, p->temperature,
             (int)p->top_k, p->top_p, p->min_p);
        for (int32_t j = 0; j < c->n; j++) expect_near(name, j, shared[j], alone[j], 0);
    }
}

static void compare_kinds(comparison *c) {
    static const logits_kind kinds[] = {FLAT, PEAKED, FEW_VALUES, ALL_EQUAL};
    static float logits[MAX_IDS];
    c->logits = logits;
    c->n = MAX_IDS - 17;
    for (int i = 0; i < 4; i++) {
        fill(logits, c->n, kinds[i]);
        each_setting(compare, c);
    }
}

static void test_threads(void **state) {
    (void)state;
    comparison c = {.n_device = 3};
    for (int i = 0; i < 3; i++) c.devices[i] = open_threads(i + 1);
    compare_kinds(&c);
    for (int i = 0; i < 3; i++) qn_device_close(c.devices[i]);
}

/* A device that runs the last task first and counts its loops. */
static void run_backwards(void *state, int32_t n_task, void (*task)(void *context, int32_t task, int32_t thread),
                          void *context) {
    int *n_loop = state;
    ++*n_loop;
    for (int32_t i = n_task - 1; i >= 0; i--) task(context, i, 0);
}

static void test_order_of_blocks(void **state) {
    (void)state;
    const qni_backend backend = {.name = "backwards", .parallel = run_backwards};
    int n_loop = 0;
    qn_device device = {.backend = &backend, .state = &n_loop, .owner = getpid(), .n_thread = 1};
    atomic_init(&device.refs, 1);
    assert_int_equal(pthread_mutex_init(&device.lock, NULL), 0);
    comparison c = {.devices = {&device}, .n_device = 1};
    compare_kinds(&c);
    assert_true(n_loop > 0);
    /* The device is held, by this thread or another: sampling neither waits for it nor uses it. */
    n_loop = 0;
    pthread_mutex_lock(&device.lock);
    compare_kinds(&c);
    pthread_mutex_unlock(&device.lock);
    assert_int_equal(n_loop, 0);
    device.owner++; /* held by another process, as after fork() */
    compare_kinds(&c);
    assert_int_equal(n_loop, 0);
    pthread_mutex_destroy(&device.lock);
    assert_int_equal(atomic_load(&device.refs), 1);
}

/* 2^14 ids of exactly 2^-14 each, and some of probability 0: u selects the first id whose cumulative probability
 * exceeds it, also at block boundaries; beyond the total, the last id of nonzero probability. */
static void test_cumulative_bounds(void **state) {
    (void)state;
    enum { N = 1 << 14, N_ALL = N + 5000 };
    static float logits[N_ALL];
    qn_sampler *sampler = NULL;
    qn_sampler_params p;
    qn_error err = {0};
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    assert_int_equal(qn_sampler_create(&sampler, &p, N_ALL, 0, &err), QN_OK);
    for (int32_t i = 0; i < N_ALL; i++) logits[i] = i < N ? 0 : -1000;
    assert_int_equal(qni_candidates_read(sampler, logits, &err), QN_OK);
    qni_candidates_select(sampler);
    for (int32_t i = 0; i<N; i += i % 4096> 2 && i % 4096 < 4090 ? 61 : 1) {
        assert_int_equal(qni_candidates_draw(sampler, ldexp(i, -14), NULL), i);
        assert_int_equal(qni_candidates_draw(sampler, ldexp(i, -14) + 0x1p-15, NULL), i);
    }
    assert_int_equal(qni_candidates_draw(sampler, 1, NULL), N - 1);
    qn_sampler_free(sampler);
}

/* A bad logit is found in any block, and the lowest index is reported. */
static void test_bad_logits(void **state) {
    (void)state;
    static float logits[MAX_IDS];
    qn_device *device = open_threads(2);
    qn_sampler *sampler = NULL;
    qn_sampler_params p;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    assert_ok(qni_sampler_create(&sampler, &p, MAX_IDS, MAX_IDS - 1, device, err));
    assert_ok(qni_sampler_alloc(sampler, err));
    qn_device_close(device); /* the sampler keeps a reference to it */
    qn_error bad = {0};
    int32_t id = -7;
    logits[MAX_IDS - 1] = NAN; /* padding */
    assert_ok(qn_sampler_draw(sampler, &id, NULL, logits, NULL, 0, 0, 0, err));
    logits[29000] = NAN;
    logits[20000] = INFINITY;
    id = -7;
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, NULL, 0, 0, 0, &bad), QN_ENUMERIC);
    assert_string_equal(bad.message, "logits: that of id 20000 is +Inf");
    for (int32_t i = 0; i < MAX_IDS; i++) logits[i] = -INFINITY;
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, NULL, 0, 0, 0, &bad), QN_ENUMERIC);
    assert_string_equal(bad.message, "logits: those of all 29999 ids are -Inf");
    assert_int_equal(id, -7);
    qn_sampler_free(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_order_of_blocks), cmocka_unit_test(test_cumulative_bounds),
        cmocka_unit_test(test_bad_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
