/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embeddings: frequencies, YaRN, tables, and angles that stay exact at any position. */
#include "../src/backend/backend.h"
#include "../src/backend/device.h"
#include "support/close.h"

#include <math.h>
#include <stdlib.h>

enum { D = 128 };

static long double exact_freq(long double theta, int i) {
    return powl(theta, -2.0L * i / D);
}

/* cos and sin of one position. */
static void fill_one(float *cos_sin, int32_t pos, const double *inv_freq, double factor) {
    const qni_batch batch = {1, 1, 0, (const int32_t[]){0, 1}, &pos, NULL};
    qni_rope_fill(qni_mat_of(cos_sin, QN_DTYPE_F32, 1, D), &batch, &(qni_frequencies){inv_freq, factor});
}

/* Half a unit in the last place of a float below 1 is 2^-25; the double angle adds 131,071 · 2^-53 · a few. */
static void positions(void **state) {
    (void)state;
    static const int32_t pos[] = {0, 1, 2, 1000, 40959, 131071, 262143, 1048575};
    enum { N = sizeof pos / sizeof pos[0] };
    static const double thetas[] = {1e4, 1e6, 5e6};
    for (int k = 0; k < 3; k++) {
        double inv_freq[D / 2], factor;
        float cos_sin[N * D];
        qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = thetas[k]}, D);
        assert_true(factor == 1.0);
        for (int r = 0; r < (int)N; r++) fill_one(cos_sin + r * D, pos[r], inv_freq, factor);
        for (int r = 0; r < N; r++) {
            for (int i = 0; i < D / 2; i++) {
                long double angle = (long double)pos[r] * exact_freq(thetas[k], i);
                long double c = fabsl(cosl(angle) - (long double)cos_sin[r * D + i]);
                long double s = fabsl(sinl(angle) - (long double)cos_sin[r * D + D / 2 + i]);
                if (c > 0x1p-25L + 1e-9L || s > 0x1p-25L + 1e-9L) {
                    fail_msg("theta %g position %d pair %d: errors %Lg %Lg", thetas[k], (int)pos[r], i, c, s);
                }
            }
        }
    }
}

/* Frequencies with corners at these pairs, and the factor on cos and sin. */
static void check_yarn(qn_yarn y, int low, int high, double want_factor) {
    double inv_freq[D / 2], factor;
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = 1e6, .yarn = &y}, D);
    expect_near("attention factor", 0, factor, want_factor, 1e-6);
    for (int i = 0; i < D / 2; i++) {
        long double ramp = (long double)(i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        long double want = exact_freq(1e6L, i) * (ramp / (long double)y.factor + (1 - ramp));
        if (fabsl(inv_freq[i] / want - 1) > 1e-14L) fail_msg("pair %d: %.17g, not %.17Lg", i, inv_freq[i], want);
    }
}

/* Qwen3's published setting: D 128, theta 1e6, 32,768 positions, factor 4 gives corners 23 and 40, and 1.138629. */
static void yarn(void **state) {
    (void)state;
    check_yarn((qn_yarn){.factor = 4, .original_ctx = 32768}, 23, 40, 1.138629);
    check_yarn((qn_yarn){.factor = 4, .original_ctx = 32768, .beta_fast = 32, .beta_slow = 1}, 23, 40, 1.138629);
    /* D·ln(32768 / (2 pi r)) / (2 ln theta) is 26.81 for r = 16 and 36.44 for r = 2. */
    check_yarn((qn_yarn){.factor = 8, .original_ctx = 32768, .beta_fast = 16, .beta_slow = 2, .attention_factor = 0.5},
               26, 37, 0.5);
    /* 44.8 for r = 1e8 and 130.2 for r = 1: the upper corner is clamped to D - 1. */
    check_yarn((qn_yarn){.factor = 4, .original_ctx = 10000000000000, .beta_fast = 1e8}, 44, 127, 1.138629);
}

/* A context so short that both corners fall below pair 0, and one so long that they lie beyond the last: clamped. */
static void yarn_clamped(void **state) {
    (void)state;
    double inv_freq[D / 2], factor;
    const qn_yarn brief = {.factor = 2, .original_ctx = 1}, ages = {.factor = 2, .original_ctx = INT64_MAX};
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = 1e4, .yarn = &brief}, D);
    assert_true(inv_freq[0] == 1.0); /* low = high = 0: pair 0 keeps its frequency, all others are scaled down */
    for (int i = 1; i < D / 2; i++) {
        const double want = (double)(exact_freq(1e4L, i) / 2);
        expect_near("brief", i, inv_freq[i], want, 1e-14 * want);
    }
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = 1e4, .yarn = &ages}, D);
    for (int i = 0; i < D / 2; i++) {
        const double want = (double)exact_freq(1e4L, i);
        expect_near("ages", i, inv_freq[i], want, 1e-14 * want);
    }
}

static void table(void **state) {
    (void)state;
    float given[D / 2];
    double inv_freq[D / 2], factor;
    for (int i = 0; i < D / 2; i++) given[i] = 1.0f / (float)(1 + i);
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.inv_freq = given, .n_inv_freq = D / 2}, D);
    assert_true(factor == 1.0);
    for (int i = 0; i < D / 2; i++) expect_near("given", i, inv_freq[i], (double)given[i], 0);
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.inv_freq = given, .n_inv_freq = D / 2, .attention_factor = 1.25},
                     D);
    assert_true(factor == 1.25);
    float cos_sin[D];
    fill_one(cos_sin, 3, inv_freq, factor);
    expect_near("cos", 0, (double)cos_sin[0], 1.25 * cos(3.0), 1e-7);
    expect_near("sin", 0, (double)cos_sin[D / 2], 1.25 * sin(3.0), 1e-7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions),
        cmocka_unit_test(yarn),
        cmocka_unit_test(yarn_clamped),
        cmocka_unit_test(table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
