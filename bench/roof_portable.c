/* SPDX-License-Identifier: Apache-2.0 */
/* Roofs in plain C: reading with any instruction set, multiply-add with that of every processor. */
#include "roof.h"

uint64_t roof_read(const uint64_t *data, size_t n, int n_stream) {
    enum { STEP = 8, MAX_STREAM = 8 };
    uint64_t sum[STEP] = {0};
    const size_t part = n / (size_t)n_stream;
    for (size_t i = 0; i < part; i += STEP) {
        for (int s = 0; s < n_stream; s++) {
            const uint64_t *at = data + (size_t)s * part + i;
            for (int j = 0; j < STEP; j++) sum[j] += at[j];
        }
    }
    uint64_t all = 0;
    for (int j = 0; j < STEP; j++) all += sum[j];
    return all;
}

typedef float float4 __attribute__((vector_size(16)));

float roof_multiply_portable(int64_t rounds) {
    enum { CHAINS = 12 };
    float4 sum[CHAINS] = {{0}};
    float4 x = {0.5f, 0.25f, 0.125f, 0.75f}, y = {1e-3f, 1e-3f, 1e-3f, 1e-3f};
    for (int64_t i = 0; i < rounds; i++) {
        /* The product must be formed anew each time. */
        __asm__ volatile("" : "+x"(x), "+x"(y));
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] += x * y;
        y += sum[0] * 0;
    }
    float all = 0;
    for (int c = 0; c < CHAINS; c++) all += sum[c][0] + sum[c][1] + sum[c][2] + sum[c][3];
    return all;
}
