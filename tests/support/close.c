/* SPDX-License-Identifier: Apache-2.0 */
/* Numeric comparisons that report what differs. */
#include "close.h"

#include "../../src/backend/backend.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *case_text(const char *format, ...) {
    enum { N_TEXT = 8 };
    static char texts[N_TEXT][CASE_SIZE];
    static int next;
    char *text = texts[next++ % N_TEXT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, CASE_SIZE, format, arguments);
    va_end(arguments);
    return text;
}

void case_write(char text[CASE_SIZE], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, CASE_SIZE, format, arguments);
    va_end(arguments);
}

/* cmocka reports the line of the test itself. */
static _Noreturn void fail_line(test_line at, const char *format, ...) __attribute__((format(printf, 2, 3)));
static _Noreturn void fail_line(test_line at, const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    print_error("%s\n", text);
    _fail(at.file, at.line);
    abort(); /* cmocka does not declare that it never returns */
}

void near_failed(test_line at, const char *name, int64_t index, double got, double want, double bound) {
    fail_line(at, "%s: [%" PRId64 "] is %.9g, not %.9g: they differ by %.3g, and %.3g is allowed", name, index, got,
              want, fabs(got - want), bound);
}

void that_failed(test_line at, const char *condition, const char *name, int64_t index, double got) {
    fail_line(at, "%s: [%" PRId64 "] is %.9g, which does not satisfy %s", name, index, got, condition);
}

/* Index of the element with the largest error, a NaN before all others; -1 if n is 0. */
static int64_t farthest(const float *got, const float *want, int64_t n, double *largest) {
    int64_t worst = -1;
    double most = -1;
    *largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = isfinite(got[i]) ? fabs((double)got[i] - (double)want[i]) : INFINITY;
        if (difference > most) {
            most = difference;
            worst = i;
        }
        *largest = fmax(*largest, fabs((double)want[i]));
    }
    return worst;
}

double relative_error(const float *got, const float *want, int64_t n) {
    double largest;
    int64_t worst = farthest(got, want, n, &largest);
    if (worst < 0) return 0;
    if (!isfinite(got[worst])) return INFINITY;
    return fabs((double)got[worst] - (double)want[worst]) / (1e-6 + largest);
}

void close_at(test_line at, const char *name, const float *got, const float *want, int64_t n, double tolerance) {
    double largest, error = relative_error(got, want, n);
    if (error <= tolerance) return;
    int64_t worst = farthest(got, want, n, &largest);
    fail_line(at, "%s: [%" PRId64 "] of %" PRId64 " is %.9g, not %.9g: %.3g of the largest, %.9g, and %.3g is allowed",
              name, worst, n, (double)got[worst], (double)want[worst], error, largest, tolerance);
}

/* An element as text, with its bits. */
static void element_text(char *text, size_t size, qn_dtype dtype, const unsigned char *at) {
    uint64_t bits = 0; /* little-endian, as on all supported processors */
    double value;
    size_t bytes = qn_dtype_bytes(dtype);
    memcpy(&bits, at, bytes);
    switch (dtype) {
    case QN_DTYPE_F32:
    case QN_DTYPE_BF16:
    case QN_DTYPE_F16:
        value = (double)qni_load_f32(at, dtype, 0);
        break;
    case QN_DTYPE_S32:
        value = (int32_t)bits;
        break;
    case QN_DTYPE_Q8:
        value = (int8_t)bits;
        break;
    default:
        value = (double)bits;
        break;
    }
    (void)snprintf(text, size, "%.9g (0x%0*" PRIx64 ")", value, (int)(2 * bytes), bits);
}

void same_bits_at(test_line at, const char *name, qn_dtype dtype, const void *got, const void *want, int64_t n) {
    const unsigned char *a = got, *b = want;
    const size_t bytes = qn_dtype_bytes(dtype);
    char texts[2][64];
    int64_t first = -1, n_other = 0;
    if (n == 0 || memcmp(a, b, (size_t)n * bytes) == 0) return;
    for (int64_t i = 0; i < n; i++) {
        if (memcmp(a + (size_t)i * bytes, b + (size_t)i * bytes, bytes) == 0) continue;
        if (first < 0) first = i;
        n_other++;
    }
    element_text(texts[0], sizeof texts[0], dtype, a + (size_t)first * bytes);
    element_text(texts[1], sizeof texts[1], dtype, b + (size_t)first * bytes);
    fail_line(at, "%s: [%" PRId64 "] is %s, not %s; %" PRId64 " of %" PRId64 " %s differ", name, first, texts[0],
              texts[1], n_other, n, qn_dtype_name(dtype));
}
