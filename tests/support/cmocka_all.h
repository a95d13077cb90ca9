/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with its prerequisite headers, and the selection of cases to run. */
#ifndef QNI_TEST_CMOCKA_ALL_H
#define QNI_TEST_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Must follow its prerequisites. */
#include <cmocka.h>

/* With TEST=word in the environment, run only the cases whose names contain it; cmocka's * and ? are allowed. */
void pick_cases(void);
#undef cmocka_run_group_tests
#define cmocka_run_group_tests(tests, setup, teardown)                                                                 \
    (pick_cases(), _cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown))

#endif
