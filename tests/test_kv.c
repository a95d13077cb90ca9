/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of KV caches: q8 against its definition in double; floats rounded to nearest even; non-finite values. */
#include "../src/backend/backend.h"
#include "../src/backend/device.h"
#include "support/close.h"
#include "support/problem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 512, ROOM = MOST + 8 };

/* A row of n, two bytes off any alignment; the bytes after it must not change. */
static void store(unsigned char *row, const float *x, int64_t n) {
    const int64_t size = qni_kv_row_elements(QN_DTYPE_Q8, n);
    memset(row, 0xAA, ROOM);
    qni_kv_store(row, QN_DTYPE_Q8, x, n);
    for (int64_t i = size; i < ROOM; i++) assert_int_equal(row[i], 0xAA);
    for (int64_t i = n; i < size - 4; i++) assert_int_equal(row[i], 0);
}

static void q8_is_nearest(void **state) {
    (void)state;
    uint64_t seed = 3;
    unsigned char block[ROOM + 2], *row = block + 2;
    float x[MOST], back[MOST];
    for (int64_t n = 2; n <= MOST; n += 2) {
        const double sizes[] = {1, 1e-30, 1e30, 1e4};
        double greatest = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)(random_normal(&seed) * sizes[n / 2 % 4]);
            greatest = fmax(greatest, fabs((double)x[i]));
        }
        store(row, x, n);
        qni_kv_load(back, row, QN_DTYPE_Q8, n);
        const double scale = (double)qni_q8_scale(row, n);
        CASE(name, "q8 row of %d", (int)n);
        expect_near(name, 0, scale, greatest / 127, 0x1p-24 * scale);
        for (int64_t i = 0; i < n; i++) {
            const int8_t code = (int8_t)row[i];
            expect_that(code >= -127, name, i, code);
            /* Half a step, plus the roundings of scale, quotient and product. */
            expect_near(name, i, (double)code * scale, (double)x[i], scale * (0.5 + 127 * 0x1p-23));
            expect_near(name, i, (double)back[i], (double)(float)(code * scale), 0);
        }
    }
}

/* 127 steps of 1, so that the codes are the numbers rounded to nearest even. */
static void q8_ties_go_to_even(void **state) {
    (void)state;
    const float x[] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, -0.0f};
    const int8_t want[] = {127, 0, 2, 2, 0, -2, -126, 0};
    unsigned char row[ROOM];
    store(row, x, 8);
    expect_same_bits("ties", QN_DTYPE_Q8, row, want, sizeof want);
}

static void q8_of_extremes(void **state) {
    (void)state;
    unsigned char row[ROOM];
    float back[4];
    const float zeros[] = {0, -0.0f, 0, 0}, largest[] = {FLT_MAX / 2, -FLT_MAX / 2, 0, FLT_MAX / 4};
    store(row, zeros, 4);
    qni_kv_load(back, row, QN_DTYPE_Q8, 4);
    for (int i = 0; i < 4; i++) expect_that(back[i] == 0, "zeros", i, back[i]);
    store(row, largest, 4);
    qni_kv_load(back, row, QN_DTYPE_Q8, 4);
    for (int i = 0; i < 4; i++) expect_near("largest", i, (double)back[i], (double)largest[i], (double)FLT_MAX / 507);
    /* Subnormal scales are coarse, but still accurate within a step. */
    for (int exponent = -149; exponent < -120; exponent++) {
        const float tiny = ldexpf(1.375f, exponent);
        const float x[] = {tiny, -tiny, tiny / 2, 0};
        store(row, x, 4);
        qni_kv_load(back, row, QN_DTYPE_Q8, 4);
        CASE(name, "subnormal, 2^%d", exponent);
        for (int i = 0; i < 4; i++) {
            expect_near(name, i, (double)back[i], (double)x[i], fmax((double)tiny / 127, 127 * 0x1p-149));
        }
    }
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        const float x[] = {1, 2, bad[i], 3};
        store(row, x, 4);
        qni_kv_load(back, row, QN_DTYPE_Q8, 4);
        for (int j = 0; j < 4; j++) assert_true(isnan(back[j]));
    }
}

static void floats_are_elements(void **state) {
    (void)state;
    const float x[] = {1, -2.5f, 0x1.01p0f, 3e-5f};
    const qn_dtype kinds[] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16};
    for (int d = 0; d < 3; d++) {
        unsigned char row[16];
        float back[4];
        assert_int_equal(qni_kv_row_elements(kinds[d], 4), 4);
        qni_kv_store(row, kinds[d], x, 4);
        qni_kv_load(back, row, kinds[d], 4);
        for (int i = 0; i < 4; i++) {
            uint32_t place;
            qni_store_f32(&place, kinds[d], 0, x[i]);
            assert_true(back[i] == qni_load_f32(&place, kinds[d], 0));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_is_nearest),
        cmocka_unit_test(q8_ties_go_to_even),
        cmocka_unit_test(q8_of_extremes),
        cmocka_unit_test(floats_are_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
