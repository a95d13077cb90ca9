/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of an f16 cache, for the first Zen processors. There a fused multiply-add keeps the port of the
 * conversion from f16: with two queries, eight elements take four cycles. Here shifts and masks, which have other ports,
 * make f32 of the two f16 that lie in 32 bits, and it is three:
 *
 *     x                    |s eeeee mmmmmmmmmm|s eeeee mmmmmmmmmm|   elements 2i + 1 and 2i
 *     x >> 3               |ssss eeeee mmmmmmmmmm .............  |   & MASK: element 2i + 1, times 2^-112
 *     low half · 2^13      |ssss eeeee mmmmmmmmmm 0000000000000  |   & MASK: element 2i, times 2^-112
 *
 * Layout    as in attention_avx2.c, but q comes ordered (evens of each sixteen first) and times 2^112, p times 2^112. So
 *           each product, and each sum of them, is the one that a conversion would give, to the bit: an f16 below 2^-14
 *           is an f32 below 2^-126, which this processor multiplies as fast. What is not finite would look like a number.
 * Tile      scores: 8 pairs of (query, key), each with 8 partial sums over d that are added by one fixed tree: 4 x 2,
 *           2 x 4 or 1 x 8. Values: queries x sixteens of d 4 x 1, 2 x 2, 1 x 4, one chain over the positions each.
 * Tails     d is a multiple of 16; keys beyond the last repeat it and are not stored; queries 4, 2, 1; sixteens one by one.
 * Bound     compute: 3 cycles for 16 bytes, about what they take to come.
 */
#include "../kernels.h"
#include "ahead.h"
#include "vector_avx2.h"

enum { BLOCK = QNI_CPU_KV_BLOCK };

typedef struct pair {
    __m256 even, odd;
} pair;

typedef struct constants {
    __m256i mask, shift;
} constants;

/* In registers: the compiler would load them anew for each use. */
static inline constants make_constants(void) {
    constants c = {_mm256_set1_epi32((int)0x8FFFE000u), _mm256_set1_epi32(1 << 13)};
    __asm__("" : "+x"(c.mask), "+x"(c.shift));
    return c;
}

static inline __attribute__((always_inline)) pair load_pair(const uint16_t *p, const constants *by) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return (pair){_mm256_castsi256_ps(_mm256_and_si256(_mm256_madd_epi16(x, by->shift), by->mask)),
                  _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(x, 3), by->mask))};
}

/* sum += x · y. Written out, because the compiler copies x to overwrite the copy, and a copy takes a place too. */
static inline void add_product(__m256 *sum, __m256 x, __m256 y) {
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(*sum) : "x"(x), "x"(y));
}

/* Sixteen elements as they lie, a and b, and in pairs. */
static inline pair split(__m256 a, __m256 b) {
    const __m256 low = lower8(a, b), high = upper8(a, b);
    return (pair){_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xDD)};
}
static inline void store_joined(float *to, pair y) {
    const __m256 low = _mm256_unpacklo_ps(y.even, y.odd), high = _mm256_unpackhi_ps(y.even, y.odd);
    _mm256_storeu_ps(to, lower8(low, high));
    _mm256_storeu_ps(to + 8, upper8(low, high));
}

static void order(float *row, float factor, int64_t d) {
    const __m256 f = _mm256_set1_ps(factor);
    for (int64_t i = 0; i < d; i += 16) {
        const __m256 a = _mm256_mul_ps(_mm256_loadu_ps(row + i), f), b = _mm256_mul_ps(_mm256_loadu_ps(row + i + 8), f);
        const pair y = split(a, b);
        _mm256_storeu_ps(row + i, y.even);
        _mm256_storeu_ps(row + i + 8, y.odd);
    }
}

/* Scores of n_q queries with n = 8 / n_q keys, of which n_valid exist. */
static inline __attribute__((always_inline)) void score_tile(float *s, const float *q, const int n_q, const uint16_t *k,
                                                             int64_t k_stride, int64_t n_valid, int64_t d,
                                                             const constants *by, ahead *next) {
    const int n = 8 / n_q;
    const uint16_t *key[8];
    __m256 sum[8];
    for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * k_stride;
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < d; c += 16) {
        ask_for(next, (size_t)n * 16 * sizeof *k);
        for (int j = 0; j < n; j++) {
            const pair y = load_pair(key[j] + c, by);
            for (int i = 0; i < n_q; i++) {
                add_product(&sum[i * n + j], _mm256_loadu_ps(q + i * d + c), y.even);
                add_product(&sum[i * n + j], _mm256_loadu_ps(q + i * d + c + 8), y.odd);
            }
        }
    }
    store_scores(s, BLOCK, sum, n_q, n_valid);
}

/* Eight keys at a time, which stay in the first cache for all queries. */
static void scores(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *rows, int64_t d) {
    const constants by = make_constants();
    const uint16_t *k = rows->data;
    const int64_t stride = rows->stride;
    ahead next = ahead_of(rows);
    for (int64_t j = 0; j < rows->n; j += 8, s += 8, k += 8 * stride) {
        const int64_t n = rows->n - j < 8 ? rows->n - j : 8;
        int64_t i = 0;
        for (; i + 4 <= n_q; i += 4)
            for (int64_t l = 0; l < n; l += 2)
                score_tile(s + i * BLOCK + l, q + i * d, 4, k + l * stride, stride, n - l, d, &by, &next);
        for (; i + 2 <= n_q; i += 2)
            for (int64_t l = 0; l < n; l += 4)
                score_tile(s + i * BLOCK + l, q + i * d, 2, k + l * stride, stride, n - l, d, &by, &next);
        if (i < n_q) score_tile(s + i * BLOCK, q + i * d, 1, k, stride, n, d, &by, &next);
    }
}

/* n_q queries and n sixteens of d. */
static inline __attribute__((always_inline)) void value_tile(float *o, const float *p, const int n_q, const int n,
                                                             const qni_cpu_kv_rows *rows, int64_t d, int64_t c0,
                                                             bool add, const constants *by, ahead *next) {
    const uint16_t *v = (const uint16_t *)rows->data + c0;
    pair sum[4];
    for (int i = 0; i < n_q; i++) {
        for (int c = 0; c < n; c++) {
            const float *from = o + i * d + c0 + c * 16;
            sum[i * n + c] = (pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
            if (add) sum[i * n + c] = split(_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8));
        }
    }
    for (int64_t j = 0; j < rows->n; j++, v += rows->stride) {
        __m256 x[4];
        ask_for(next, (size_t)n * 16 * sizeof *v);
        for (int i = 0; i < n_q; i++) x[i] = _mm256_broadcast_ss(p + i * BLOCK + j);
        for (int c = 0; c < n; c++) {
            const pair y = load_pair(v + c * 16, by);
            for (int i = 0; i < n_q; i++) {
                add_product(&sum[i * n + c].even, x[i], y.even);
                add_product(&sum[i * n + c].odd, x[i], y.odd);
            }
        }
    }
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n; c++) store_joined(o + i * d + c0 + c * 16, sum[i * n + c]);
}

/* Columns of n sixteens, which stay in the first cache for all queries. */
static inline __attribute__((always_inline)) void value_columns(float *o, const float *p, int64_t n_q, const int n,
                                                                const qni_cpu_kv_rows *rows, int64_t d, int64_t c0,
                                                                bool add, const constants *by, ahead *next) {
    int64_t i = 0;
    if (n == 1)
        for (; i + 4 <= n_q; i += 4) value_tile(o + i * d, p + i * BLOCK, 4, n, rows, d, c0, add, by, next);
    if (n <= 2)
        for (; i + 2 <= n_q; i += 2) value_tile(o + i * d, p + i * BLOCK, 2, n, rows, d, c0, add, by, next);
    for (; i < n_q; i++) value_tile(o + i * d, p + i * BLOCK, 1, n, rows, d, c0, add, by, next);
}

static void values(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) {
    const constants by = make_constants();
    ahead next = ahead_of(v);
    int64_t c = 0;
    for (; n_q == 1 && c + 64 <= d; c += 64) value_columns(o, p, n_q, 4, v, d, c, add, &by, &next);
    for (; n_q < 4 && c + 32 <= d; c += 32) value_columns(o, p, n_q, 2, v, d, c, add, &by, &next);
    for (; c < d; c += 16) value_columns(o, p, n_q, 1, v, d, c, add, &by, &next);
}

void qni_cpu_attention_zen_avx2(qni_cpu_kernels *k) {
    k->pairs = (qni_cpu_pairs){.order = order, .scores = scores, .values = values};
}
