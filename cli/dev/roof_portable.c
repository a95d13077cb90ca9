/* SPDX-License-Identifier: Apache-2.0 */
/* Roofline loops in plain C: reading, which is memory bound with any instruction set, and multiply and add with four
 * lanes. Sanitizer checks are disabled: they would instrument every word. */
#include "roof.h"

#define UNWATCHED __attribute__((no_sanitize("address", "thread", "undefined")))

enum { LINE_WORDS = 8 };

UNWATCHED void roof_fill(uint64_t *data, size_t n) {
    for (size_t i = 0; i < n; i++) data[i] = i;
}

UNWATCHED uint64_t roof_read(const uint64_t *data, size_t n, int n_stream) {
    uint64_t sum[LINE_WORDS] = {0};
    const size_t part = n / (size_t)n_stream;
    for (size_t i = 0; i < part; i += LINE_WORDS) {
        for (int s = 0; s < n_stream; s++) {
            const uint64_t *at = data + (size_t)s * part + i;
            for (int j = 0; j < LINE_WORDS; j++) sum[j] += at[j];
        }
    }
    uint64_t all = 0;
    for (int j = 0; j < LINE_WORDS; j++) all += sum[j];
    return all;
}

/* As many multiplications as additions, all independent, as in a matrix product without FMA. */
enum { CHAINS = 7, LANES = 4 };
typedef float lanes __attribute__((vector_size(4 * LANES)));

static double multiply(int64_t rounds) {
    const volatile float opaque = -1; /* not foldable by the compiler, and avoids subnormals */
    const lanes x = {opaque, opaque, opaque, opaque};
    lanes product[CHAINS], sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) product[c] = sum[c] = x * (float)(c + 1);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 7
        for (int c = 0; c < CHAINS; c++) {
            product[c] *= x;
            sum[c] += x;
        }
    }
    double all = 0;
    for (int c = 0; c < CHAINS; c++) all += (double)product[c][0] + (double)sum[c][0];
    return all;
}

const roof_loop roof_loop_portable = {"portable", ROOF_F32, 2.0 * CHAINS *LANES, multiply, NULL};
