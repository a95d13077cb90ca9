/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing checkpoint rows into parts of panels, with AVX-512.
 *
 * Layout    in 32 rows (outputs) at a stride, out {n_i, 32}; interleaved: rows in the order 0 16 1 17 … 15 31.
 * Tile      16 rows x a cache line of each, by four rounds of 16 shuffles of 32 bits. 16-bit elements are transposed as
 *           pairs and split when stored; interleaved ones are combined with those of the row 16 further on.
 * Tails     fewer than 32 rows or less than a line: element by element.
 * Bound     memory.
 */
#include "../kernels.h"

#include <immintrin.h>

enum { NR = 32, LINE2 = 32, LINE4 = 16 };

/* Transpose one line of 16 rows `stride` bytes apart: lane r of vector i is element i of row r. */
static inline void turn(__m512i a[16], const void *in, int64_t stride) {
    __m512i b[16];
    for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_si512((const char *)in + r * stride);
    for (int r = 0; r < 8; r++) {
        b[2 * r] = _mm512_unpacklo_epi32(a[2 * r], a[2 * r + 1]);
        b[2 * r + 1] = _mm512_unpackhi_epi32(a[2 * r], a[2 * r + 1]);
    }
    /* Quarter q of vector 4h + i: element 4q + i of rows 4h … 4h + 3. */
    for (int h = 0; h < 4; h++) {
        a[4 * h] = _mm512_unpacklo_epi64(b[4 * h], b[4 * h + 2]);
        a[4 * h + 1] = _mm512_unpackhi_epi64(b[4 * h], b[4 * h + 2]);
        a[4 * h + 2] = _mm512_unpacklo_epi64(b[4 * h + 1], b[4 * h + 3]);
        a[4 * h + 3] = _mm512_unpackhi_epi64(b[4 * h + 1], b[4 * h + 3]);
    }
    /* Then combine quarters of four vectors that hold the same elements: pairs of rows, pairs of elements. */
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x44);          /* elements i, 4 + i of rows 0 … 7 */
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xEE);      /* elements 8 + i, 12 + i */
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x44); /* the same of rows 8 … 15 */
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
        a[i + 4] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xDD);
        a[i + 8] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xDD);
    }
}

static inline void tile2(uint16_t *out, const uint16_t *in, int64_t in_stride) {
    for (int64_t j = 0; j < NR; j += 16) {
        __m512i a[16];
        turn(a, in + j * in_stride, in_stride * 2);
        for (int i = 0; i < 16; i++) {
            uint16_t *to = out + 2 * i * NR + j;
            _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(a[i]));
            to += NR;
            _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(a[i], 16)));
        }
    }
}

static inline void tile2_interleaved(uint16_t *out, const uint16_t *in, int64_t in_stride) {
    const __mmask32 odd = 0xAAAAAAAAu;
    __m512i a[16], b[16];
    turn(a, in, in_stride * 2);
    turn(b, in + 16 * in_stride, in_stride * 2);
    for (int i = 0; i < 16; i++, out += 2 * NR) {
        _mm512_storeu_si512(out, _mm512_mask_blend_epi16(odd, a[i], _mm512_slli_epi32(b[i], 16)));
        _mm512_storeu_si512(out + NR, _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(a[i], 16), b[i]));
    }
}

static inline void tile4(uint32_t *out, const uint32_t *in, int64_t in_stride) {
    for (int64_t j = 0; j < NR; j += 16) {
        __m512i a[16];
        turn(a, in + j * in_stride, in_stride * 4);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + i * NR + j, a[i]);
    }
}

#define DEFINE_TRANSPOSE(name, type, tile, line, interleaved)                                                          \
    static void name(type *out, const type *in, int64_t in_stride, int64_t n_j, int64_t n_i) {                         \
        const int64_t whole = n_j == NR ? n_i / (line) * (line) : 0;                                                   \
        for (int64_t i = 0; i < whole; i += (line)) tile(out + i * NR, in + i, in_stride);                             \
        for (int64_t i = whole; i < n_i; i++) {                                                                        \
            for (int64_t column = 0; column < NR; column++) {                                                          \
                const int64_t j = (interleaved) ? column % 2 * (NR / 2) + column / 2 : column;                         \
                out[i * NR + column] = j < n_j ? in[j * in_stride + i] : 0;                                            \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_TRANSPOSE(transpose2, uint16_t, tile2, LINE2, false)
DEFINE_TRANSPOSE(transpose_interleaved, uint16_t, tile2_interleaved, LINE2, true)
DEFINE_TRANSPOSE(transpose4, uint32_t, tile4, LINE4, false)

void qni_cpu_pack_avx512(qni_cpu_kernels *k) {
    k->transpose2 = transpose2;
    k->transpose_bf16 = transpose_interleaved;
    k->transpose4 = transpose4;
}
