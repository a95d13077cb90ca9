/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with the headers that it needs before it, and the choice of cases to run. */
#ifndef QNI_TEST_CMOCKA_ALL_H
#define QNI_TEST_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* After its own prerequisites. */
#include <cmocka.h>

/* TEST=word in the environment: run only the cases whose names hold it; cmocka's * and ? may be used. */
void pick_cases(void);
#undef cmocka_run_group_tests
#define cmocka_run_group_tests(tests, setup, teardown)                                                                 \
    (pick_cases(), _cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown))

#endif
