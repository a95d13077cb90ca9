/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing checkpoint rows into parts of panels, with AVX2.
 *
 * Layout    in 16 rows (outputs) at a stride, out {n_i, 16}; interleaved: rows in the order 0 8 1 9 … 7 15.
 * Tile      8 rows x 8 inputs in registers, by three rounds of unpack; a cache line of each of 8 rows is consumed
 *           before the next 8 rows, as rows 4 KiB apart all map to the same L1 set.
 * Tails     fewer than 16 rows or 8 inputs: element by element.
 * Bound     memory.
 */
#include "../kernels.h"

#include <immintrin.h>

enum { NR = 16, LINE2 = 32, LINE4 = 16 };

/* The source row of an output index. */
static inline int64_t row_at(int64_t column, const bool interleaved) {
    return interleaved ? column % 2 * (NR / 2) + column / 2 : column;
}

static inline __attribute__((always_inline)) void tile2(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t j,
                                                        const bool interleaved) {
    __m128i a[8], b[8];
    for (int r = 0; r < 8; r++) {
        a[r] = _mm_loadu_si128((const __m128i *)(const void *)(in + row_at(j + r, interleaved) * in_stride));
    }
    for (int r = 0; r < 4; r++) {
        b[2 * r] = _mm_unpacklo_epi16(a[2 * r], a[2 * r + 1]);
        b[2 * r + 1] = _mm_unpackhi_epi16(a[2 * r], a[2 * r + 1]);
    }
    for (int h = 0; h < 2; h++) { /* rows 0 … 3, then 4 … 7: inputs 0 1, 2 3, 4 5, 6 7 */
        a[4 * h] = _mm_unpacklo_epi32(b[4 * h], b[4 * h + 2]);
        a[4 * h + 1] = _mm_unpackhi_epi32(b[4 * h], b[4 * h + 2]);
        a[4 * h + 2] = _mm_unpacklo_epi32(b[4 * h + 1], b[4 * h + 3]);
        a[4 * h + 3] = _mm_unpackhi_epi32(b[4 * h + 1], b[4 * h + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m128i *to = (__m128i *)(void *)(out + 2 * i * NR);
        _mm_storeu_si128(to, _mm_unpacklo_epi64(a[i], a[i + 4]));
        to = (__m128i *)(void *)(out + (2 * i + 1) * NR);
        _mm_storeu_si128(to, _mm_unpackhi_epi64(a[i], a[i + 4]));
    }
}

static inline __attribute__((always_inline)) void tile4(uint32_t *out, const uint32_t *in, int64_t in_stride, int64_t j,
                                                        const bool interleaved) {
    __m256 a[8], b[8];
    for (int r = 0; r < 8; r++) {
        a[r] = _mm256_loadu_ps((const float *)(const void *)(in + row_at(j + r, interleaved) * in_stride));
    }
    for (int r = 0; r < 4; r++) {
        b[2 * r] = _mm256_unpacklo_ps(a[2 * r], a[2 * r + 1]);
        b[2 * r + 1] = _mm256_unpackhi_ps(a[2 * r], a[2 * r + 1]);
    }
    for (int h = 0; h < 2; h++) { /* in each half of 128 bits: inputs 0, 1, 2, 3 of rows 0 … 3, then 4 … 7 */
        a[4 * h] = _mm256_shuffle_ps(b[4 * h], b[4 * h + 2], 0x44);
        a[4 * h + 1] = _mm256_shuffle_ps(b[4 * h], b[4 * h + 2], 0xEE);
        a[4 * h + 2] = _mm256_shuffle_ps(b[4 * h + 1], b[4 * h + 3], 0x44);
        a[4 * h + 3] = _mm256_shuffle_ps(b[4 * h + 1], b[4 * h + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps((float *)(void *)(out + i * NR), _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
        _mm256_storeu_ps((float *)(void *)(out + (i + 4) * NR), _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    }
}

#define DEFINE_TRANSPOSE(name, type, tile, line, interleaved)                                                          \
    static void name(type *out, const type *in, int64_t in_stride, int64_t n_j, int64_t n_i) {                         \
        const int64_t whole = n_j == NR ? n_i / 8 * 8 : 0;                                                             \
        for (int64_t first = 0; first < whole; first += (line)) {                                                      \
            int64_t end = first + (line) < whole ? first + (line) : whole;                                             \
            for (int64_t j = 0; j < NR; j += 8) {                                                                      \
                for (int64_t i = first; i < end; i += 8) tile(out + i * NR + j, in + i, in_stride, j, interleaved);    \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t i = whole; i < n_i; i++) {                                                                        \
            for (int64_t j = 0; j < NR; j++) {                                                                         \
                const int64_t row = row_at(j, interleaved);                                                            \
                out[i * NR + j] = row < n_j ? in[row * in_stride + i] : 0;                                             \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_TRANSPOSE(transpose2, uint16_t, tile2, LINE2, false)
DEFINE_TRANSPOSE(transpose4, uint32_t, tile4, LINE4, false)
DEFINE_TRANSPOSE(transpose_interleaved, uint16_t, tile2, LINE2, true)

void qni_cpu_pack_avx2(qni_cpu_kernels *k) {
    k->transpose2 = transpose2;
    k->transpose4 = transpose4;
    k->transpose_bf16 = transpose_interleaved;
}
