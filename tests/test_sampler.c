/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler against transformers' distributions, and against a second, simple implementation of the documented order
 * (full sorts, sets as flags). */
#include "../src/base/json.h"
#include "../src/session/philox.h"
#include "support/best_first.h"
#include "support/close.h"

#include <quern/sampler.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The vectors were computed in float32 and printed with seven digits. */
#define PROB_BOUND 2e-5

/* A generator of test data: splitmix64. */
static uint64_t rng_state = 20240229;
static uint64_t rng(void) {
    uint64_t z = (rng_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static int32_t below(int32_t n) {
    return (int32_t)(rng() % (uint64_t)n);
}
static float normal(void) {
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += (double)(rng() >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

static qn_sampler_params neutral(void) {
    qn_sampler_params p;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    return p;
}

/* ---- the second implementation ---- */

/* Softmax over the flagged ids into p. */
static void soft(double *p, const double *x, const bool *keep, int32_t n) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        if (keep[i] && x[i] > top) top = x[i];
    }
    for (int32_t i = 0; i < n; i++) p[i] = keep[i] ? exp(x[i] - top) : 0;
    for (int32_t i = 0; i < n; i++) sum += p[i];
    for (int32_t i = 0; i < n; i++) p[i] /= sum;
}

static void reference(double *p, const qn_sampler_params *s, const float *logits, int32_t n, const int32_t *history,
                      size_t n_history, size_t prompt_len) {
    double *x = calloc((size_t)n, sizeof *x);
    bool *keep = calloc((size_t)n, sizeof *keep);
    int32_t *order = calloc((size_t)n, sizeof *order);
    for (int32_t i = 0; i < n; i++) {
        size_t all = 0, fresh = 0;
        for (size_t j = 0; j < n_history; j++) {
            all += history[j] == i;
            fresh += j >= prompt_len && history[j] == i;
        }
        x[i] = (double)logits[i];
        if (all > 0) x[i] = x[i] > 0 ? x[i] / s->repetition_penalty : x[i] * s->repetition_penalty;
        if (fresh > 0) x[i] -= s->frequency_penalty * (double)fresh + s->presence_penalty;
        for (size_t j = 0; j < s->n_logit_bias; j++) {
            if (s->logit_bias[j].id == i) x[i] += (double)s->logit_bias[j].bias;
        }
        keep[i] = true;
        order[i] = i;
    }
    sort_key = x;
    qsort(order, (size_t)n, sizeof *order, by_key);
    if (s->temperature == 0) {
        for (int32_t i = 0; i < n; i++) p[i] = i == order[0];
    } else {
        for (int32_t i = 0; i < n; i++) x[i] /= s->temperature;
        if (s->top_k > 0 && s->top_k < n) {
            double kth = x[order[s->top_k - 1]];
            for (int32_t i = 0; i < n; i++) keep[i] = x[i] >= kth;
        }
        soft(p, x, keep, n);
        if (s->top_p < 1) {
            sort_key = p;
            qsort(order, (size_t)n, sizeof *order, by_key);
            double total = 0;
            for (int32_t j = 0; j < n; j++) {
                keep[order[j]] = keep[order[j]] && (j == 0 || total < s->top_p);
                if (keep[order[j]]) total += p[order[j]];
            }
            soft(p, x, keep, n);
        }
        double best = 0;
        for (int32_t i = 0; i < n; i++) best = p[i] > best ? p[i] : best;
        for (int32_t i = 0; i < n; i++) keep[i] = keep[i] && p[i] >= s->min_p * best;
        soft(p, x, keep, n);
    }
    free(x);
    free(keep);
    free(order);
}

/* A second implementation of Philox and of sampling. */
static int32_t reference_draw(const double *p, int32_t n, uint64_t seed, uint64_t position) {
    uint64_t c[4] = {position & 0xFFFFFFFF, position >> 32, 0, 0}, k[2] = {seed & 0xFFFFFFFF, seed >> 32};
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xD2511F53 * c[0], b = 0xCD9E8D57 * c[2];
        uint64_t next[4] = {(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF};
        memcpy(c, next, sizeof c);
        k[0] = (k[0] + 0x9E3779B9) & 0xFFFFFFFF;
        k[1] = (k[1] + 0xBB67AE85) & 0xFFFFFFFF;
    }
    double u = ldexp((double)((c[1] * 4294967296u + c[0]) >> 11), -53), total = 0;
    int32_t last = -1;
    for (int32_t i = 0; i < n; i++) {
        if (p[i] == 0) continue;
        total += p[i];
        last = i;
        if (total > u) return i;
    }
    return last;
}

/* ---- comparisons ---- */

static qn_status draw(const qn_sampler_params *p, int32_t n_vocab, int32_t n_valid, int32_t *id, double *probs,
                      const float *logits, const int32_t *history, size_t n_history, size_t prompt_len,
                      uint64_t position, qn_error *err) {
    qn_sampler *sampler = NULL;
    assert_int_equal(qn_sampler_create(&sampler, p, n_vocab, n_valid, err), QN_OK);
    qn_status status = qn_sampler_draw(sampler, id, probs, logits, history, n_history, prompt_len, position, err);
    qn_sampler_free(sampler);
    return status;
}

static double difference(const double *a, const double *b, int32_t n) {
    double most = 0;
    for (int32_t i = 0; i < n; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

static void test_philox(void **state) {
    (void)state;
    /* The known answer of the Random123 distribution for counter 0, key 0. */
    uint32_t x[4];
    qni_philox(x, 0, 0);
    const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(x, zero, sizeof x);
    for (int i = 0; i < 1000; i++) {
        double u = qni_philox_uniform(rng() >> 1, rng());
        assert_true(u >= 0 && u < 1);
    }
}

static void test_vectors(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/text/sampler.jsonl", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0, n_line = 0;
    ssize_t size;
    while ((size = getline(&line, &capacity, file)) > 0) {
        json_t *row = NULL;
        qn_error err = {0};
        assert_int_equal(qni_json_parse(&row, "line", line, (size_t)size, &err), QN_OK);
        json_t *logits_in = json_object_get(row, "logits"), *history_in = json_object_get(row, "history");
        json_t *probs_in = json_object_get(row, "probs");
        int32_t n = (int32_t)json_array_size(logits_in);
        float logits[512];
        double probs[512], expected[512];
        int32_t history[512], id = -1;
        size_t n_history = json_array_size(history_in);
        assert_true(n > 0 && n <= 512 && n_history <= 512);
        for (int32_t i = 0; i < n; i++) {
            logits[i] = (float)json_number_value(json_array_get(logits_in, (size_t)i));
            expected[i] = json_number_value(json_array_get(probs_in, (size_t)i));
        }
        for (size_t i = 0; i < n_history; i++) history[i] = (int32_t)json_integer_value(json_array_get(history_in, i));
        qn_sampler_params p = neutral();
        p.temperature = json_number_value(json_object_get(row, "temperature"));
        p.top_k = (int32_t)json_integer_value(json_object_get(row, "top_k"));
        p.top_p = json_number_value(json_object_get(row, "top_p"));
        p.min_p = json_number_value(json_object_get(row, "min_p"));
        p.repetition_penalty = json_number_value(json_object_get(row, "repetition_penalty"));
        assert_int_equal(draw(&p, n, 0, &id, probs, logits, history, n_history, 0, n_line, &err), QN_OK);
        assert_true(difference(probs, expected, n) <= PROB_BOUND);
        assert_int_equal(id, reference_draw(probs, n, 0, n_line));
        json_decref(row);
        n_line++;
    }
    free(line);
    fclose(file);
    assert_int_equal(n_line, 24);
}

static double pick(const double *from, int32_t n) {
    return from[below(n)];
}

static void test_against_reference(void **state) {
    (void)state;
    static const int32_t vocabs[] = {1, 2, 7, 64, 500, 3000};
    static const double temperatures[] = {0, 0.3, 0.6, 1, 2, 50}, top_ps[] = {1, 0.95, 0.5, 0.1, 0},
                        min_ps[] = {0, 0.05, 0.3, 1}, repetitions[] = {1, 1.2, 0.8, 3}, presences[] = {0, 1.5, -1},
                        frequencies[] = {0, 0.4, -0.2};
    static const int32_t top_ks[] = {0, 1, 5, 20, 400, 1000000};
    static float logits[3000];
    static double probs[3000], expected[3000];
    for (int round = 0; round < 1500; round++) {
        int32_t n = vocabs[below(6)], history[30];
        int ties = round % 3; /* 0: random logits, else logits of few distinct values */
        for (int32_t i = 0; i < n; i++) logits[i] = ties ? (float)below(2 + 5 * ties) : 3 * normal();
        size_t n_history = (size_t)below(31), prompt_len = (size_t)below((int32_t)n_history + 1);
        for (size_t j = 0; j < n_history; j++) history[j] = below(n);
        qn_logit_bias bias[3];
        size_t n_bias = (size_t)below(4);
        for (size_t j = 0; j < n_bias; j++) bias[j] = (qn_logit_bias){below(n), below(2) ? 5.0f : -100.0f};
        qn_sampler_params p = {.temperature = pick(temperatures, 6),
                               .top_k = top_ks[below(6)],
                               .top_p = pick(top_ps, 5),
                               .min_p = pick(min_ps, 4),
                               .repetition_penalty = pick(repetitions, 4),
                               .presence_penalty = pick(presences, 3),
                               .frequency_penalty = pick(frequencies, 3),
                               .logit_bias = bias,
                               .n_logit_bias = n_bias,
                               .seed = rng() >> 1};
        uint64_t position = below(2) ? (uint64_t)round : ((uint64_t)1 << 33) + (uint64_t)round;
        int32_t id = -1;
        qn_error err = {0};
        assert_int_equal(draw(&p, n, 0, &id, probs, logits, history, n_history, prompt_len, position, &err), QN_OK);
        reference(expected, &p, logits, n, history, n_history, prompt_len);
        /* Both use double; only the order of summation and scaling differs. */
        assert_true(difference(probs, expected, n) <= 1e-12);
        assert_int_equal(id, reference_draw(probs, n, p.seed, position));
    }
}

/* One sampler over many calls equals fresh ones: no state carries over between samples. */
static void test_calls_are_independent(void **state) {
    (void)state;
    enum { N = 300 };
    float logits[N];
    double probs[N], fresh[N];
    int32_t history[40];
    qn_sampler_params p = neutral();
    p.temperature = 0.8;
    p.top_k = 50;
    p.top_p = 0.9;
    p.repetition_penalty = 1.3;
    p.frequency_penalty = 0.3;
    p.presence_penalty = 0.2;
    qn_sampler *sampler = NULL;
    assert_int_equal(qn_sampler_create(&sampler, &p, N, N - 10, NULL), QN_OK);
    for (uint64_t round = 0; round < 200; round++) {
        for (int32_t i = 0; i < N; i++) logits[i] = 2 * normal();
        for (int j = 0; j < 40; j++) history[j] = below(N);
        int32_t a = -1, b = -1;
        if (round % 10 == 3) logits[5] = NAN; /* a failed call in between changes nothing either */
        qn_status status = qn_sampler_draw(sampler, &a, probs, logits, history, 40, 10, round, NULL);
        assert_int_equal(status, round % 10 == 3 ? QN_ENUMERIC : QN_OK);
        if (status != QN_OK) continue;
        assert_int_equal(draw(&p, N, N - 10, &b, fresh, logits, history, 40, 10, round, NULL), QN_OK);
        assert_int_equal(a, b);
        for (int i = 0; i < N; i++) expect_near("a used sampler", i, probs[i], fresh[i], 0);
    }
    qn_sampler_free(sampler);
}

static void test_padding_is_never_sampled(void **state) {
    (void)state;
    float logits[8] = {0, 0, 0, 0, 0, 100, NAN, INFINITY};
    double probs[8];
    int32_t history[2] = {6, 7}, id;
    qn_sampler_params p = neutral();
    p.repetition_penalty = 2;
    p.presence_penalty = 1;
    qn_logit_bias bias = {7, 100};
    p.logit_bias = &bias;
    p.n_logit_bias = 1;
    for (uint64_t position = 0; position < 200; position++) {
        assert_int_equal(draw(&p, 8, 5, &id, probs, logits, history, 2, 0, position, NULL), QN_OK);
        assert_in_range(id, 0, 4);
    }
    for (int i = 0; i < 8; i++) assert_true(probs[i] == (i < 5 ? 0.2 : 0));
    p.temperature = 0;
    assert_int_equal(draw(&p, 8, 5, &id, NULL, logits, history, 2, 0, 0, NULL), QN_OK);
    assert_int_equal(id, 0);
}

/* Frequencies of many samples, each at its own position: chi-square with 7 degrees of freedom is below 24.3 with
 * probability 0.999. The seed is fixed, so the test is deterministic. */
static void test_frequencies(void **state) {
    (void)state;
    enum { N = 8, DRAWS = 40000 };
    float logits[N];
    double probs[N], chi = 0;
    int count[N] = {0};
    for (int i = 0; i < N; i++) logits[i] = (float)i * 0.3f;
    qn_sampler_params p = neutral();
    p.seed = 12345;
    qn_sampler *sampler = NULL;
    assert_int_equal(qn_sampler_create(&sampler, &p, N, 0, NULL), QN_OK);
    for (uint64_t position = 0; position < DRAWS; position++) {
        int32_t id;
        assert_int_equal(qn_sampler_draw(sampler, &id, probs, logits, NULL, 0, 0, position, NULL), QN_OK);
        count[id]++;
    }
    for (int i = 0; i < N; i++)
        chi += (count[i] - DRAWS * probs[i]) * (count[i] - DRAWS * probs[i]) / (DRAWS * probs[i]);
    assert_true(chi < 24.3);
    qn_sampler_free(sampler);
}

/* Settings and logits at the limits of their ranges give a distribution, never a NaN. */
static void test_extremes(void **state) {
    (void)state;
    static const double temperatures[] = {0, 5e-324, 1e-300, 1e300, DBL_MAX}, penalties[] = {DBL_MIN, 1, DBL_MAX},
                        shifts[] = {-DBL_MAX, 0, DBL_MAX};
    static const float values[][4] = {{FLT_MAX, -FLT_MAX, 0, 1},
                                      {-INFINITY, -INFINITY, -FLT_MAX, -INFINITY},
                                      {-1, -2, -3, -4},
                                      {FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX},
                                      {0, 0, 0, 0}};
    const int32_t history[] = {0, 1, 2, 3, 3};
    for (int t = 0; t < 5; t++) {
        for (int r = 0; r < 27; r++) {
            for (int v = 0; v < 5; v++) {
                qn_logit_bias bias = {r % 4, r % 2 ? FLT_MAX : -FLT_MAX};
                qn_sampler_params p = {.temperature = temperatures[t],
                                       .top_k = r % 4,
                                       .top_p = r % 5 * 0.25,
                                       .repetition_penalty = penalties[r % 3],
                                       .presence_penalty = shifts[r / 3 % 3],
                                       .frequency_penalty = shifts[r / 9],
                                       .logit_bias = &bias,
                                       .n_logit_bias = 1};
                double probs[4], sum = 0;
                int32_t id = -1;
                assert_int_equal(draw(&p, 4, 0, &id, probs, values[v], history, 5, 2, 9, NULL), QN_OK);
                for (int i = 0; i < 4; i++) {
                    assert_true(probs[i] >= 0 && probs[i] <= 1);
                    if (values[v][i] < -FLT_MAX) assert_true(probs[i] == 0);
                    sum += probs[i];
                }
                expect_near(case_text("values %d, settings %d", v, r), 0, sum, 1, 1e-12);
                assert_in_range(id, 0, 3);
                assert_true(probs[id] > 0);
            }
        }
    }
}

static void test_not_a_number(void **state) {
    (void)state;
    static const struct {
        float at2, at3;
        const char *message;
    } cases[] = {
        {NAN, 0, "logits: that of id 2 is NaN"},
        {0, INFINITY, "logits: that of id 3 is +Inf"},
        {INFINITY, NAN, "logits: that of id 2 is +Inf"},
    };
    qn_sampler_params p = neutral();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const float logits[4] = {0, -INFINITY, cases[i].at2, cases[i].at3};
        int32_t id = -7, n_best = -7;
        double probs[4] = {9, 9, 9, 9};
        float logprob = 9;
        qn_logprob best[4] = {{-7, 9}};
        qn_error err = {0};
        qn_sampler *sampler = NULL;
        assert_int_equal(qn_sampler_create(&sampler, &p, 4, 0, &err), QN_OK);
        assert_int_equal(qn_sampler_draw(sampler, &id, probs, logits, NULL, 0, 0, 0, &err), QN_ENUMERIC);
        assert_string_equal(err.message, cases[i].message);
        assert_int_equal(qn_sampler_logprobs(sampler, &logprob, best, &n_best, logits, 0, 4, &err), QN_ENUMERIC);
        assert_string_equal(err.message, cases[i].message);
        assert_true(id == -7 && probs[0] == 9 && n_best == -7 && logprob == 9 && best[0].id == -7);
        qn_sampler_free(sampler);
    }
    const float none[3] = {-INFINITY, -INFINITY, 0};
    int32_t id = -7;
    qn_error err = {0};
    assert_int_equal(draw(&p, 3, 2, &id, NULL, none, NULL, 0, 0, 0, &err), QN_ENUMERIC);
    assert_string_equal(err.message, "logits: those of all 2 ids are -Inf");
    assert_int_equal(id, -7);
}

static void expect_refused(const qn_sampler_params *p, int32_t n_vocab, int32_t n_valid, const char *message) {
    qn_sampler *sampler = NULL;
    qn_error err = {0};
    assert_int_equal(qn_sampler_create(&sampler, p, n_vocab, n_valid, &err), QN_EINVAL);
    assert_null(sampler);
    assert_string_equal(err.message, message);
    assert_int_equal(err.status, QN_EINVAL);
}

static void test_parameters(void **state) {
    (void)state;
    const qn_logit_bias high = {8, 0}, low = {-1, 0}, infinite = {3, INFINITY};
#define REFUSED(field, value, message)                                                                                 \
    do {                                                                                                               \
        qn_sampler_params p = neutral();                                                                               \
        p.field = (value);                                                                                             \
        expect_refused(&p, 8, 0, message);                                                                             \
    } while (0)
    REFUSED(temperature, -1, "temperature: must be finite and >= 0, got -1");
    REFUSED(temperature, (double)NAN, "temperature: must be finite and >= 0, got nan");
    REFUSED(temperature, (double)INFINITY, "temperature: must be finite and >= 0, got inf");
    REFUSED(top_k, -3, "top_k: must be >= 0, got -3");
    REFUSED(top_p, 1.5, "top_p: must be within 0 … 1, got 1.5");
    REFUSED(top_p, -0.1, "top_p: must be within 0 … 1, got -0.1");
    REFUSED(top_p, (double)NAN, "top_p: must be within 0 … 1, got nan");
    REFUSED(min_p, 2, "min_p: must be within 0 … 1, got 2");
    REFUSED(min_p, (double)NAN, "min_p: must be within 0 … 1, got nan");
    REFUSED(repetition_penalty, 0, "repetition_penalty: must be finite and > 0, got 0");
    REFUSED(repetition_penalty, (double)INFINITY, "repetition_penalty: must be finite and > 0, got inf");
    REFUSED(presence_penalty, (double)NAN, "presence_penalty: must be finite, got nan");
    REFUSED(frequency_penalty, (double)-INFINITY, "frequency_penalty: must be finite, got -inf");
    REFUSED(seed, (uint64_t)1 << 63, "seed: must be within 0 … 9223372036854775807, got 9223372036854775808");
    REFUSED(n_logit_bias, 2, "logit_bias: is NULL, but n_logit_bias is 2");
#undef REFUSED
    qn_sampler_params p = neutral();
    p.n_logit_bias = 1;
    p.logit_bias = &high;
    expect_refused(&p, 8, 0, "logit_bias: id must be within 0 … 7, got 8");
    p.logit_bias = &low;
    expect_refused(&p, 8, 0, "logit_bias: id must be within 0 … 7, got -1");
    p.logit_bias = &infinite;
    expect_refused(&p, 8, 0, "logit_bias: of id 3 must be finite, got inf");
    p = neutral();
    expect_refused(&p, 0, 0, "n_vocab: must be >= 1, got 0");
    expect_refused(&p, 8, 9, "n_valid: must be within 0 … 8, got 9");
    expect_refused(&p, 8, -1, "n_valid: must be within 0 … 8, got -1");
    expect_refused(NULL, 8, 0, "qn_sampler_create: params is NULL");
    assert_int_equal(qn_sampler_create(NULL, &p, 8, 0, NULL), QN_EINVAL);
    qn_sampler_free(NULL);
}

static void test_draw_arguments(void **state) {
    (void)state;
    qn_sampler_params p = neutral();
    qn_sampler *sampler = NULL;
    qn_error err = {0};
    const float logits[4] = {0};
    const int32_t low[] = {0, -1}, high[] = {0, 4};
    int32_t id = -7, n_best = -7;
    float logprob;
    qn_logprob best[1];
    assert_int_equal(qn_sampler_create(&sampler, &p, 4, 3, &err), QN_OK);
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, low, 2, 0, 0, &err), QN_EINVAL);
    assert_string_equal(err.message, "history: id must be within 0 … 3, got -1");
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, high, 2, 0, 0, &err), QN_EINVAL);
    assert_string_equal(err.message, "history: id must be within 0 … 3, got 4");
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, low, 1, 2, 0, &err), QN_EINVAL);
    assert_string_equal(err.message, "prompt_len: must be within 0 … 1, got 2");
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, logits, NULL, 1, 0, 0, &err), QN_EINVAL);
    assert_int_equal(qn_sampler_draw(sampler, &id, NULL, NULL, NULL, 0, 0, 0, &err), QN_EINVAL);
    assert_int_equal(qn_sampler_draw(NULL, &id, NULL, logits, NULL, 0, 0, 0, &err), QN_EINVAL);
    assert_int_equal(qn_sampler_draw(sampler, NULL, NULL, logits, NULL, 0, 0, 0, &err), QN_EINVAL);
    assert_int_equal(id, -7);
    assert_int_equal(qn_sampler_logprobs(sampler, &logprob, best, &n_best, logits, 3, 1, &err), QN_EINVAL);
    assert_string_equal(err.message, "id: must be within 0 … 2, got 3");
    assert_int_equal(qn_sampler_logprobs(sampler, &logprob, best, &n_best, logits, 0, -1, &err), QN_EINVAL);
    assert_string_equal(err.message, "k: must be >= 0, got -1");
    assert_int_equal(qn_sampler_logprobs(sampler, &logprob, NULL, &n_best, logits, 0, 1, &err), QN_EINVAL);
    assert_int_equal(n_best, -7);
    qn_sampler_free(sampler);
}

static void test_logprobs(void **state) {
    (void)state;
    enum { N = 200 };
    for (int round = 0; round < 200; round++) {
        float logits[N];
        double x[N], top = -1e9, sum = 0;
        int32_t order[N], n_valid = 1 + below(N), k = below(N + 5), n_best = -1, id = below(n_valid);
        for (int32_t i = 0; i < N; i++) logits[i] = round % 2 ? (float)below(6) : 3 * normal();
        if (n_valid > 3) logits[1] = -INFINITY;
        for (int32_t i = 0; i < n_valid; i++) {
            order[i] = i;
            x[i] = (double)logits[i];
            top = fmax(top, x[i]);
        }
        for (int32_t i = 0; i < n_valid; i++) sum += exp(x[i] - top);
        sort_key = x;
        qsort(order, (size_t)n_valid, sizeof *order, by_key);
        qn_sampler_params p = neutral();
        p.temperature = 0.1; /* must not matter */
        p.top_k = 1;
        qn_sampler *sampler = NULL;
        qn_logprob best[N + 5];
        float logprob = 1;
        assert_int_equal(qn_sampler_create(&sampler, &p, N, n_valid, NULL), QN_OK);
        assert_int_equal(qn_sampler_logprobs(sampler, &logprob, best, &n_best, logits, id, k, NULL), QN_OK);
        assert_int_equal(n_best, k < n_valid ? k : n_valid);
        for (int32_t j = 0; j < n_best; j++) {
            assert_int_equal(best[j].id, order[j]);
            double expected = x[order[j]] - top - log(sum);
            /* the result is rounded to float */
            if (isfinite(expected))
                expect_near("best", j, (double)best[j].logprob, expected, 1e-6 * (1 - expected));
            else
                assert_true(best[j].logprob < -FLT_MAX);
        }
        double expected = x[id] - top - log(sum);
        if (isfinite(expected)) expect_near("logprob", id, (double)logprob, expected, 1e-6 * (1 - expected));
        qn_sampler_free(sampler);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_calls_are_independent),
        cmocka_unit_test(test_padding_is_never_sampled),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_draw_arguments),
        cmocka_unit_test(test_logprobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
