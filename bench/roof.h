/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at most: loops that only read, or only multiply and add. */
#ifndef QNI_BENCH_ROOF_H
#define QNI_BENCH_ROOF_H

#include <stddef.h>
#include <stdint.h>

/* The sum of n words (a multiple of 64), read as `n_stream` (1, 2, 4, 8) parallel streams. */
uint64_t roof_read(const uint64_t *data, size_t n, int n_stream);

/* `rounds` times ROOF_FLOP f32 operations in independent chains; the result keeps them alive. */
enum { ROOF_FLOP_PORTABLE = 2 * 12 * 4, ROOF_FLOP_AVX2 = 2 * 12 * 8 };
float roof_multiply_portable(int64_t rounds);
float roof_multiply_avx2(int64_t rounds);

#endif
