/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise row ops with AVX2: conversions, norm, SwiGLU, RoPE, argmax.
 *
 * Layout    contiguous rows.
 * Tile      one or two vectors of 8.
 * Tails     the last n % 8 elements use a masked or padded vector and the same arithmetic as the others.
 * Bound     memory.
 */
#include "../kernels.h"
#include "vector_avx2.h"

static void widen_bf16(float *out, const void *in, int64_t n) {
    const uint16_t *h = in;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8_bf16(h + i));
    for (; i < n; i++) {
        uint32_t bits = (uint32_t)h[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

static void widen_f16(float *out, const void *in, int64_t n) {
    const uint16_t *h = in;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8_f16(h + i));
    for (; i < n; i++) out[i] = _cvtsh_ss(h[i]);
}

static void widen_q8(float *out, const void *in, int64_t n) {
    const int8_t *codes = in;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8_q8(codes + i));
    for (; i < n; i++) out[i] = codes[i];
}

/* To nearest even; a NaN keeps its sign and upper bits and becomes quiet. */
static inline __m128i bf16_of(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

#define DEFINE_NARROW(name, convert)                                                                                   \
    static void name(void *out, const float *in, int64_t n) {                                                          \
        uint16_t *h = out;                                                                                             \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i *)(void *)(h + i), convert(_mm256_loadu_ps(in + i)));     \
        if (i < n) {                                                                                                   \
            uint16_t last[8];                                                                                          \
            __m256 x = _mm256_maskload_ps(in + i, mask8(n - i));                                                       \
            _mm_storeu_si128((__m128i *)(void *)last, convert(x));                                                     \
            memcpy(h + i, last, (size_t)(n - i) * sizeof *h);                                                          \
        }                                                                                                              \
    }

static inline __m128i f16_of(__m256 x) {
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

DEFINE_NARROW(narrow_bf16, bf16_of)
DEFINE_NARROW(narrow_f16, f16_of)

static double sum_squares(const float *x, int64_t n) {
    __m256d sum[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 4; j++) {
            __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4 * j));
            sum[j] = _mm256_fmadd_pd(v, v, sum[j]);
        }
    }
    __m256d all = _mm256_add_pd(_mm256_add_pd(sum[0], sum[1]), _mm256_add_pd(sum[2], sum[3]));
    double lane[4];
    _mm256_storeu_pd(lane, all);
    double total = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    for (; i < n; i++) total += (double)x[i] * (double)x[i];
    return total;
}

/* Elementwise loop: `expression` of vectors x and y for every eight of n elements; the tail is masked. */
#define FOR_EACH_8(out, a, b, n, expression)                                                                           \
    int64_t i = 0;                                                                                                     \
    for (; i + 8 <= (n); i += 8) {                                                                                     \
        const __m256 x = _mm256_loadu_ps((a) + i), y = _mm256_loadu_ps((b) + i);                                       \
        (void)y;                                                                                                       \
        _mm256_storeu_ps((out) + i, expression);                                                                       \
    }                                                                                                                  \
    if (i < (n)) {                                                                                                     \
        const __m256i mask = mask8((n)-i);                                                                             \
        const __m256 x = _mm256_maskload_ps((a) + i, mask), y = _mm256_maskload_ps((b) + i, mask);                     \
        (void)y;                                                                                                       \
        float last[8];                                                                                                 \
        _mm256_storeu_ps(last, expression);                                                                            \
        memcpy((out) + i, last, (size_t)((n)-i) * sizeof *last);                                                       \
    }

static void scale_mul(float *out, const float *x_row, float factor, const float *w, int64_t n) {
    const __m256 f = _mm256_set1_ps(factor);
    FOR_EACH_8(out, x_row, w, n, _mm256_mul_ps(_mm256_mul_ps(x, f), y))
}

static void scale(float *x_row, float factor, int64_t n) {
    const __m256 f = _mm256_set1_ps(factor);
    FOR_EACH_8(x_row, x_row, x_row, n, _mm256_mul_ps(x, f))
}

static void add(float *out, const float *a, const float *b, int64_t n) {
    FOR_EACH_8(out, a, b, n, _mm256_add_ps(x, y))
}

static inline __m256 silu8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 e = exp8(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(one, e));
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n) {
    FOR_EACH_8(out, gate, up, n, _mm256_mul_ps(silu8(x), y))
}

static void exp_row(float *out, const float *row, int64_t n) {
    FOR_EACH_8(out, row, row, n, exp8(x))
}

static inline void rope8(float *row, const float *cos_sin, int64_t half) {
    const __m256 a = _mm256_loadu_ps(row), b = _mm256_loadu_ps(row + half);
    const __m256 c = _mm256_loadu_ps(cos_sin), s = _mm256_loadu_ps(cos_sin + half);
    _mm256_storeu_ps(row, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_storeu_ps(row + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
}

static void rope(float *row, const float *cos_sin, int64_t d) {
    const int64_t half = d / 2, n = half % 8;
    int64_t i = 0;
    for (; i + 8 <= half; i += 8) rope8(row + i, cos_sin + i, half);
    if (n == 0) return;
    float x[16] = {0}, turn[16] = {0};
    const size_t bytes = (size_t)n * sizeof *x;
    memcpy(x, row + i, bytes);
    memcpy(x + 8, row + half + i, bytes);
    memcpy(turn, cos_sin + i, bytes);
    memcpy(turn + 8, cos_sin + half + i, bytes);
    rope8(x, turn, 8);
    memcpy(row + i, x, bytes);
    memcpy(row + half + i, x + 8, bytes);
}

static int64_t argmax(const float *x, int64_t n) {
    /* First the greatest value and whether any is NaN, then its first index. */
    __m256 best = _mm256_set1_ps(x[0]), bad = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        bad = _mm256_or_ps(bad, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        best = _mm256_max_ps(best, v);
    }
    bool has_nan = _mm256_movemask_ps(bad) != 0;
    float lane[8];
    _mm256_storeu_ps(lane, best);
    float greatest = lane[0];
    for (int j = 1; j < 8; j++) greatest = lane[j] > greatest ? lane[j] : greatest;
    for (; i < n; i++) {
        has_nan |= x[i] != x[i];
        greatest = x[i] > greatest ? x[i] : greatest;
    }
    if (has_nan) return -1;
    int64_t first = 0;
    while (x[first] != greatest) first++;
    return first;
}

void qni_cpu_rows_avx2(qni_cpu_kernels *k) {
    k->isa = "avx2";
    k->widen[QNI_CPU_BF16] = widen_bf16;
    k->widen[QNI_CPU_F16] = widen_f16;
    k->widen[QNI_CPU_Q8] = widen_q8;
    k->narrow[QNI_CPU_BF16] = narrow_bf16;
    k->narrow[QNI_CPU_F16] = narrow_f16;
    k->sum_squares = sum_squares;
    k->scale_mul = scale_mul;
    k->scale = scale;
    k->add = add;
    k->swiglu = swiglu;
    k->exp = exp_row;
    k->rope = rope;
    k->argmax = argmax;
}
