/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparisons of numbers. A failure names the case (level, dtype, shape, …), the index and both values, and ends the
 * test at the line of the comparison.
 */
#ifndef QNI_TEST_CLOSE_H
#define QNI_TEST_CLOSE_H

#include "cmocka_all.h"

#include <quern/tensor.h>

#include <math.h>

/* Format the name of a case in one of eight rotating buffers; for immediate use. */
const char *case_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CASE(name, "gemm %s", isa) declares a name with its own storage. */
enum { CASE_SIZE = 200 };
void case_write(char text[CASE_SIZE], const char *format, ...) __attribute__((format(printf, 2, 3)));
#define CASE(name, ...)                                                                                                \
    char name[CASE_SIZE];                                                                                              \
    case_write(name, __VA_ARGS__)

typedef struct test_line {
    const char *file;
    int line;
} test_line;
#define TEST_LINE ((test_line){__FILE__, __LINE__})

/* |got - want| <= bound; `index` identifies the element. A NaN is never near. */
#define expect_near(name, index, got, want, bound) near_at(TEST_LINE, name, index, got, want, bound)

/* |got - want| <= tolerance * (1e-6 + max |want|) for all n. */
#define expect_close(name, got, want, n, tolerance) close_at(TEST_LINE, name, got, want, (int64_t)(n), tolerance)

/* n elements of a dtype must have the same bits. */
#define expect_same_bits(name, dtype, got, want, n) same_bits_at(TEST_LINE, name, dtype, got, want, (int64_t)(n))

/* A condition on element `index`, whose value is `got`. */
#define expect_that(condition, name, index, got)                                                                       \
    ((condition) ? (void)0 : that_failed(TEST_LINE, #condition, name, index, (double)(got)))

_Noreturn void near_failed(test_line at, const char *name, int64_t index, double got, double want, double bound);
_Noreturn void that_failed(test_line at, const char *condition, const char *name, int64_t index, double got);
void close_at(test_line at, const char *name, const float *got, const float *want, int64_t n, double tolerance);
void same_bits_at(test_line at, const char *name, qn_dtype dtype, const void *got, const void *want, int64_t n);

static inline void near_at(test_line at, const char *name, int64_t index, double got, double want, double bound) {
    if (!(fabs(got - want) <= bound)) near_failed(at, name, index, got, want, bound);
}

/* max |got - want| / (1e-6 + max |want|); infinite if a difference is NaN. */
double relative_error(const float *got, const float *want, int64_t n);

#endif
