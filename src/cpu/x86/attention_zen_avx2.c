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
 * Tile      as in attention_tiles.h. Scores: 8 of them, queries x keys 4 x 2, 2 x 4 or 1 x 8, each with 8 partial sums.
 *           Values: queries x sixteens of d 4 x 1, 2 x 2, 1 x 4.
 * Bound     compute: 3 cycles for 16 bytes, about what they take to come.
 */
#include "../kernels.h"
#include "vector_avx2.h"

enum { WIDE = 16, SUMS = 8, KEYS = 8, QUERIES = 4, VALUE_SUMS = 4 };
typedef __m256 vec, spread;
typedef struct pair {
    __m256 even, odd;
} wide;

/* In a register: the compiler would load it anew for each use. */
static inline __m256i kept(__m256i v) {
    __asm__("" : "+x"(v));
    return v;
}

static inline __attribute__((always_inline)) wide load(const int dtype, const void *row, int64_t i) {
    (void)dtype; /* always f16 */
    const __m256i shift = kept(_mm256_set1_epi32(1 << 13)), mask = kept(_mm256_set1_epi32((int)0x8FFFE000u));
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)row + i));
    return (wide){_mm256_castsi256_ps(_mm256_and_si256(_mm256_madd_epi16(x, shift), mask)),
                  _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(x, 3), mask))};
}
static inline wide load_query(const float *q) {
    return (wide){_mm256_loadu_ps(q), _mm256_loadu_ps(q + 8)};
}
static inline vec zero(void) {
    return _mm256_setzero_ps();
}
/* sum + x · y. Written out, because the compiler copies x to overwrite the copy, and a copy takes a place too. */
static inline vec add_product(vec sum, __m256 x, __m256 y) {
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(x), "x"(y));
    return sum;
}
static inline vec add_products(vec sum, wide x, wide y) {
    return add_product(add_product(sum, x.even, y.even), x.odd, y.odd);
}
static inline void add_up(float *out, const vec *sum, int n) {
    (void)n; /* always 8 */
    _mm256_storeu_ps(out, sum_each(sum));
}

/* Sixteen elements as they lie, a and b, and in pairs. */
static inline wide split(__m256 a, __m256 b) {
    const __m256 low = lower8(a, b), high = upper8(a, b);
    return (wide){_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xDD)};
}
static inline wide zeros(void) {
    return (wide){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
static inline wide load_sum(const float *o) {
    return split(_mm256_loadu_ps(o), _mm256_loadu_ps(o + 8));
}
static inline void store_sum(float *o, wide sum) {
    const __m256 low = _mm256_unpacklo_ps(sum.even, sum.odd), high = _mm256_unpackhi_ps(sum.even, sum.odd);
    _mm256_storeu_ps(o, lower8(low, high));
    _mm256_storeu_ps(o + 8, upper8(low, high));
}
static inline spread spread_of(const float *p) {
    return _mm256_broadcast_ss(p);
}
static inline wide add_weighted(wide sum, spread p, wide y) {
    return (wide){add_product(sum.even, p, y.even), add_product(sum.odd, p, y.odd)};
}

#include "../attention_tiles.h"

DEFINE_ATTEND(f16, QNI_CPU_F16)

static void order(float *row, float factor, int64_t d) {
    const __m256 f = _mm256_set1_ps(factor);
    for (int64_t i = 0; i < d; i += 16) {
        const __m256 a = _mm256_mul_ps(_mm256_loadu_ps(row + i), f), b = _mm256_mul_ps(_mm256_loadu_ps(row + i + 8), f);
        const wide y = split(a, b);
        _mm256_storeu_ps(row + i, y.even);
        _mm256_storeu_ps(row + i + 8, y.odd);
    }
}

void qni_cpu_attention_zen_avx2(qni_cpu_kernels *k) {
    k->pairs = (qni_cpu_pairs){.order = order, .scores = scores_f16, .values = values_f16};
}
