/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise row ops with AVX-512: conversions, norm, SwiGLU, e^x. RoPE and argmax use the AVX2 kernels: half a head
 * is at most four vectors, and argmax is memory-bound.
 *
 * Layout    contiguous rows.
 * Tile      one vector of 16.
 * Tails     the last n % 16 elements use masked loads and stores and the same arithmetic as the others.
 * Bound     memory.
 */
#include "../kernels.h"
#include "vector_avx512.h"

#define DEFINE_WIDEN(name, convert)                                                                                    \
    static void name(float *out, const void *in, int64_t n) {                                                          \
        const uint16_t *h = in;                                                                                        \
        int64_t i = 0;                                                                                                 \
        for (; i + 16 <= n; i += 16) {                                                                                 \
            _mm512_storeu_ps(out + i, convert(_mm256_loadu_si256((const __m256i *)(const void *)(h + i))));            \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const __mmask16 mask = mask16(n - i);                                                                      \
            _mm512_mask_storeu_ps(out + i, mask, convert(_mm256_maskz_loadu_epi16(mask, h + i)));                      \
        }                                                                                                              \
    }

DEFINE_WIDEN(widen_bf16, widen16_bf16)
DEFINE_WIDEN(widen_f16, _mm512_cvtph_ps)

/* To nearest even; a NaN keeps its sign and upper bits and becomes quiet. (The AVX-512 BF16 instruction would treat
 * subnormals as zeros.) */
static inline __m256i bf16_of(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}
static inline __m256i f16_of(__m512 x) {
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#define DEFINE_NARROW(name, convert)                                                                                   \
    static void name(void *out, const float *in, int64_t n) {                                                          \
        uint16_t *h = out;                                                                                             \
        int64_t i = 0;                                                                                                 \
        for (; i + 16 <= n; i += 16) {                                                                                 \
            _mm256_storeu_si256((__m256i *)(void *)(h + i), convert(_mm512_loadu_ps(in + i)));                         \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const __mmask16 mask = mask16(n - i);                                                                      \
            _mm256_mask_storeu_epi16(h + i, mask, convert(_mm512_maskz_loadu_ps(mask, in + i)));                       \
        }                                                                                                              \
    }

DEFINE_NARROW(narrow_bf16, bf16_of)
DEFINE_NARROW(narrow_f16, f16_of)

static double sum_squares(const float *x, int64_t n) {
    __m512d sum[4] = {_mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd()};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        for (int j = 0; j < 4; j++) {
            const __m512d v = _mm512_cvtps_pd(_mm256_loadu_ps(x + i + 8 * j));
            sum[j] = _mm512_fmadd_pd(v, v, sum[j]);
        }
    }
    double lane[8];
    _mm512_storeu_pd(lane, _mm512_add_pd(_mm512_add_pd(sum[0], sum[1]), _mm512_add_pd(sum[2], sum[3])));
    double total = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    for (; i < n; i++) total += (double)x[i] * (double)x[i];
    return total;
}

/* `expression` of vectors x and y for every sixteen of n elements; the tail is masked. */
#define FOR_EACH_16(out, a, b, n, expression)                                                                          \
    int64_t i = 0;                                                                                                     \
    for (; i + 16 <= (n); i += 16) {                                                                                   \
        const __m512 x = _mm512_loadu_ps((a) + i), y = _mm512_loadu_ps((b) + i);                                       \
        (void)y;                                                                                                       \
        _mm512_storeu_ps((out) + i, expression);                                                                       \
    }                                                                                                                  \
    if (i < (n)) {                                                                                                     \
        const __mmask16 mask = mask16((n)-i);                                                                          \
        const __m512 x = _mm512_maskz_loadu_ps(mask, (a) + i), y = _mm512_maskz_loadu_ps(mask, (b) + i);               \
        (void)y;                                                                                                       \
        _mm512_mask_storeu_ps((out) + i, mask, expression);                                                            \
    }

static void scale_mul(float *out, const float *x_row, float factor, const float *w, int64_t n) {
    const __m512 f = _mm512_set1_ps(factor);
    FOR_EACH_16(out, x_row, w, n, _mm512_mul_ps(_mm512_mul_ps(x, f), y))
}

static void scale(float *x_row, float factor, int64_t n) {
    const __m512 f = _mm512_set1_ps(factor);
    FOR_EACH_16(x_row, x_row, x_row, n, _mm512_mul_ps(x, f))
}

static void add(float *out, const float *a, const float *b, int64_t n) {
    FOR_EACH_16(out, a, b, n, _mm512_add_ps(x, y))
}

static inline __m512 silu16(__m512 x) {
    const __m512 e = exp16(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n) {
    FOR_EACH_16(out, gate, up, n, _mm512_mul_ps(silu16(x), y))
}

static void exp_row(float *out, const float *row, int64_t n) {
    FOR_EACH_16(out, row, row, n, exp16(x))
}

void qni_cpu_rows_avx512(qni_cpu_kernels *k) {
    k->isa = "avx512";
    k->widen[QNI_CPU_BF16] = widen_bf16;
    k->widen[QNI_CPU_F16] = widen_f16;
    k->narrow[QNI_CPU_BF16] = narrow_bf16;
    k->narrow[QNI_CPU_F16] = narrow_f16;
    k->sum_squares = sum_squares;
    k->scale_mul = scale_mul;
    k->scale = scale;
    k->add = add;
    k->swiglu = swiglu;
    k->exp = exp_row;
}
