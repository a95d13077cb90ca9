/* SPDX-License-Identifier: Apache-2.0 */
/* Each primitive against results that transformers computed in float64, on every device and in every form. */
#include "support/cmocka_all.h"
#include "support/problem.h"

#include <quern/ops.h>

#include <stdio.h>
#include <stdlib.h>

enum { N_GOLDEN = 9 };

/* Tighter than ops.h promises, to detect a loss of accuracy. Measured: 1.2e-7 on ref (rounding of f32 results and
 * intermediates) and 4.8e-7 on cpu (f32 sums of a few hundred products). */
static double bound_of(const device_case *dc) {
    return dc->is_ref ? 3e-7 : 2e-6;
}

static void compare(const char *path, const char *what, const char *part, const qn_tensor *got, const device_case *dc) {
    qn_tensor_file *file = NULL;
    qn_tensor *want = NULL;
    char name[64];
    snprintf(name, sizeof name, "%s.%s", what, part);
    assert_int_equal(qn_tensor_file_open(&file, path, NULL), QN_OK);
    assert_int_equal(qn_tensor_file_read(&want, file, qn_tensor_device(got), name, NULL), QN_OK);
    assert_int_equal(tensor_count(got), tensor_count(want));
    float *g = tensor_floats(got), *w = tensor_floats(want);
    expect_close(case_text("%s %s on %s", path, name, dc->name), g, w, tensor_count(got), bound_of(dc));
    free(g);
    free(w);
    qn_tensor_free(want);
    qn_tensor_file_close(file);
}

static void goldens(void **state) {
    (void)state;
    device_case cases[MAX_DEVICE_CASE];
    int n_case = device_cases(cases);
    for (int i = 0; i < N_GOLDEN; i++) {
        char path[64];
        problem p;
        snprintf(path, sizeof path, "tests/data/primitives/case%d.safetensors", i);
        problem_golden(&p, path);
        for (int c = 0; c < n_case; c++) {
            qn_device *device = device_open(&cases[c], 0);
            bench s;
            bench_make(&s, &p, device, all_f32, cases[c].packed);
            for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
                bench_reset(&s);
                compare(path, primitive_name(id), "out", primitive_compute(id, &s), &cases[c]);
                if (!primitive_has_cache(id)) continue;
                compare(path, primitive_name(id), "k_cache", s.t[K_CACHE], &cases[c]);
                compare(path, primitive_name(id), "v_cache", s.t[V_CACHE], &cases[c]);
            }
            bench_free(&s);
            qn_device_close(device);
        }
        problem_free(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(goldens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
