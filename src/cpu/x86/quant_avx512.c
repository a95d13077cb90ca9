/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weights with AVX-512 VNNI: integer products, quantizing activations, unpacking to f32.
 *
 * Layout    panels as in kernels.h with nr = 32, ki = 4: 64 bytes are 4 inputs of 16 outputs, or for 4 bits 8 inputs
 *           (low halves, then high halves). Activations {m, n_in} int8, one tile of m <= 12 rows. c {m, n_panel · 32}.
 * Tile      up to 6 x 32, so that the 12 integer sums of a group, the 12 sums over groups, 2 or 4 vectors of codes and
 *           1 of activations fit in 32 registers; more rows are two tiles, for which a panel stays in cache. One panel
 *           at a time, prefetched some lines ahead: a single stream suits the hardware prefetchers best. A group's sums
 *           start at -zero · sum of its activation codes.
 * Tails     m: instances for 1 … 6 rows; groups and panels are whole.
 * Bound     few rows: memory; otherwise compute: for each group 4 float operations per sum (3 if symmetric) beside the
 *           dot products, of which 6 rows of 8-bit codes have 12 per step of 4 inputs.
 */
#include "../kernels.h"
#include "prefetch.h"
#include "vector_avx512.h"

#include <float.h>

enum {
    NR = 32,
    MR = 12,
    TILE_ROWS = 6, /* of the MR rows of a tile of activations */
    KI = 4,
    LINE = 64,
    PREFETCH_BYTES_8 = 1280, /* prefetch distances in bytes for up to three rows: those that were best with AVX2 */
    PREFETCH_BYTES_4 = 3072,
    PREFETCH_BYTES_FAR = 4096, /* for more rows, of either width */
};

/* Integer sums, in the type of the compiler's dot product: with __m512i GCC copies each sum twice per step. */
typedef int32_t int32x16 __attribute__((vector_size(64)));

/* 16 scales or biases. */
static inline __m512 load_scales(const unsigned char *scales, const qni_cpu_quant *q, int64_t first) {
    if (q->scale_dtype == QNI_CPU_F32) return _mm512_loadu_ps(scales + first * 4);
    return widen16_bf16(_mm256_loadu_si256((const __m256i *)(const void *)(scales + first * 2)));
}

/* --- integer products --- */

/* From 64 bytes, the codes of 4 inputs: all of them for 8 bits, the low (0) or high (1) halves for 4 bits. */
static inline __m512i codes_of(__m512i bytes, const int bits, const int half) {
    if (bits == 8) return bytes;
    if (half == 1) bytes = _mm512_srli_epi16(bytes, 4);
    return _mm512_and_si512(bytes, _mm512_set1_epi8(15));
}

static inline int32x16 dot(int32x16 sum, __m512i w, __m512i x) {
    return (int32x16)_mm512_dpbusd_epi32((__m512i)sum, w, x);
}

/* Per-row terms for up to 16 groups of activations, computed together: the factors of the integer sums and of the
 * biases, and the initial sums. */
typedef struct factors {
    float scale[TILE_ROWS][16], bias[TILE_ROWS][16];
    int32_t start[TILE_ROWS][16];
} factors;

static void load_factors(factors *f, const qni_cpu_codes *x, int64_t m, int64_t g, const qni_cpu_quant *q) {
    const __mmask16 mask = q->n_group - g < 16 ? mask16(q->n_group - g) : 0xFFFF;
    const __m512i zero = _mm512_set1_epi32(q->symmetric ? -(1 << (q->bits - 1)) : 0);
    for (int64_t r = 0; r < m; r++) {
        const __m512 scale = _mm512_maskz_loadu_ps(mask, x->scale + r * q->n_group + g);
        const __m512i sum = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, x->sum + r * q->n_group + g));
        _mm512_storeu_ps(f->scale[r], scale);
        _mm512_storeu_ps(f->bias[r], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
        _mm512_storeu_si512(f->start[r], _mm512_mullo_epi32(sum, zero));
    }
}

/* Prefetch as many bytes of a panel, further on, as are read now. */
static inline __attribute__((always_inline)) void prefetch_lines(const unsigned char *w, int64_t bytes, const int m,
                                                                 const int bits) {
    const int ahead = m > 3 ? PREFETCH_BYTES_FAR : bits == 8 ? PREFETCH_BYTES_8 : PREFETCH_BYTES_4;
    for (int64_t i = 0; i < bytes; i += LINE) prefetch_weight((const char *)w + i + ahead, m, TILE_ROWS);
}

/* sum += codes of a group of a panel · codes of m rows. */
static inline __attribute__((always_inline)) void add_group(int32x16 sum[2 * TILE_ROWS], const unsigned char *x,
                                                            int64_t stride, const int m, const unsigned char *w,
                                                            int64_t group, const int bits) {
    const int n_half = bits == 8 ? 1 : 2;
    for (int64_t i = 0; i < group; i += KI * n_half, w += 2 * LINE, x += KI * n_half) {
        prefetch_lines(w, 2 * LINE, m, bits);
        const __m512i bytes0 = _mm512_loadu_si512(w), bytes1 = _mm512_loadu_si512(w + LINE);
        for (int h = 0; h < n_half; h++) {
            const __m512i y0 = codes_of(bytes0, bits, h), y1 = codes_of(bytes1, bits, h);
#pragma GCC unroll 6
            for (int r = 0; r < m; r++) {
                const __m512i a = spread16(x + r * stride + h * KI);
                sum[2 * r] = dot(sum[2 * r], y0, a);
                sum[2 * r + 1] = dot(sum[2 * r + 1], y1, a);
            }
        }
    }
}

/* total += the sums of group g of 16, as f32. Fully unrolled, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void accumulate_group(__m512 total[2 * TILE_ROWS],
                                                                   const int32x16 sum[2 * TILE_ROWS], const factors *f,
                                                                   int64_t g, const int m, const unsigned char *w,
                                                                   const qni_cpu_quant *q, const bool biased) {
    const __m512 scale[2] = {load_scales(w, q, 0), load_scales(w, q, 16)};
    __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (biased) bias[0] = load_scales(w + q->scales_bytes, q, 0), bias[1] = load_scales(w + q->scales_bytes, q, 16);
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        const __m512 scale_x = _mm512_set1_ps(f->scale[r][g]), bias_x = _mm512_set1_ps(f->bias[r][g]);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            __m512 *to = &total[2 * r + i];
            *to = _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)sum[2 * r + i]), _mm512_mul_ps(scale[i], scale_x), *to);
            if (biased) *to = _mm512_fmadd_ps(bias[i], bias_x, *to);
        }
    }
}

static inline __attribute__((always_inline)) void tile(float *c, int64_t ldc, const qni_cpu_codes *x, const int m,
                                                       const unsigned char *w, const qni_cpu_quant *q, const int bits) {
    factors f;
    __m512 total[2 * TILE_ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < 2 * m; r++) total[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < q->n_group; g++, w += q->group_bytes) {
        int32x16 sum[2 * TILE_ROWS];
        if (g % 16 == 0) load_factors(&f, x, m, g, q);
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) sum[2 * r] = sum[2 * r + 1] = (int32x16)_mm512_set1_epi32(f.start[r][g % 16]);
        prefetch_lines(w, q->codes_at, m, bits);
        add_group(sum, x->codes + g * q->group, x->stride, m, w + q->codes_at, q->group, bits);
        if (q->symmetric) {
            accumulate_group(total, sum, &f, g % 16, m, w, q, false);
        } else {
            accumulate_group(total, sum, &f, g % 16, m, w, q, true);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        _mm512_storeu_ps(c + r * ldc, total[2 * r]);
        _mm512_storeu_ps(c + r * ldc + 16, total[2 * r + 1]);
    }
}

/* The rows of x from a row on. */
static inline qni_cpu_codes rows_from(const qni_cpu_codes *x, int64_t row, const qni_cpu_quant *q) {
    qni_cpu_codes rows = *x;
    rows.codes += row * x->stride;
    rows.scale += row * q->n_group;
    rows.sum += row * q->n_group;
    return rows;
}

#define CASE(bits, m)                                                                                                  \
    case m:                                                                                                            \
        tile(c, ldc, x, m, w, q, bits);                                                                                \
        break;

/* gemm_NAME with the signature of kernels.h. */
#define DEFINE_GEMM(name, bits)                                                                                        \
    static void tile_##name(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w,          \
                            const qni_cpu_quant *q) {                                                                  \
        switch (m) {                                                                                                   \
            CASE(bits, 1)                                                                                              \
            CASE(bits, 2)                                                                                              \
            CASE(bits, 3)                                                                                              \
            CASE(bits, 4)                                                                                              \
            CASE(bits, 5)                                                                                              \
            CASE(bits, 6)                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void gemm_##name(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w,          \
                            int64_t n_panel, const qni_cpu_quant *q) {                                                 \
        for (; n_panel > 0; n_panel--, w += q->panel_bytes, c += NR) {                                                 \
            for (int64_t r = 0; r < m; r += TILE_ROWS) {                                                               \
                const qni_cpu_codes rows = rows_from(x, r, q);                                                         \
                tile_##name(c + r * ldc, ldc, &rows, m - r < TILE_ROWS ? m - r : TILE_ROWS, w, q);                     \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_GEMM(8_bits, 8)
DEFINE_GEMM(4_bits, 4)

/* --- quantizing activations --- */

static void quantize(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group) {
    const float least = 0x1p-100f; /* below `least`, 127 / max overflows */
    for (int64_t g = 0; g < n / group; g++, x += group, codes += group) {
        /* Magnitudes compare like their bit patterns, infinity and NaN above all. */
        __m512i magnitude = _mm512_setzero_si512();
        for (int64_t i = 0; i < group; i += 16) {
            const __m512i bits = _mm512_loadu_si512(x + i);
            magnitude = _mm512_max_epu32(magnitude, _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX)));
        }
        const uint32_t max_bits = _mm512_reduce_max_epu32(magnitude);
        float max;
        memcpy(&max, &max_bits, sizeof max);
        scale[g] = max <= FLT_MAX ? (max >= least ? max / 127.0f : 0.0f) : __builtin_nanf("");
        sum[g] = 0;
        if (!(scale[g] > 0)) {
            memset(codes, 0, (size_t)group);
            continue;
        }
        const __m512 inverse = _mm512_set1_ps(127.0f / max);
        __m512i total = _mm512_setzero_si512();
        for (int64_t i = 0; i < group; i += 16) {
            const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
            _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm512_cvtepi32_epi8(code));
            total = _mm512_add_epi32(total, code);
        }
        sum[g] = _mm512_reduce_add_epi32(total);
    }
}

/* --- unpacking --- */

/* Inputs [first, first + n) of a group; first is a multiple of 8. */
static inline __attribute__((always_inline)) void unpack_group(float *out, const unsigned char *group, int64_t first,
                                                               int64_t n, const qni_cpu_quant *q, const int bits) {
    const int n_half = bits == 8 ? 1 : 2;
    const unsigned char *codes = group + q->codes_at + first / n_half * NR;
    for (int v = 0; v < 2; v++) {
        const __m512 scale = load_scales(group, q, v * 16);
        const __m512 bias = q->symmetric ? _mm512_mul_ps(scale, _mm512_set1_ps(-(float)(1 << (bits - 1))))
                                         : load_scales(group + q->scales_bytes, q, v * 16);
        float *to = out + v * 16;
        for (int64_t i = 0; i < n; i += KI * n_half) {
            const __m512i bytes = _mm512_loadu_si512(codes + i / n_half * NR + v * LINE);
            for (int h = 0; h < n_half; h++) {
                __m512i four = codes_of(bytes, bits, h);
                for (int64_t k = i + h * KI; k < i + (h + 1) * KI && k < n; k++) {
                    const __m512i code = _mm512_and_si512(four, _mm512_set1_epi32(255));
                    _mm512_storeu_ps(to + k * NR, _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scale, bias));
                    four = _mm512_srli_epi32(four, 8);
                }
            }
        }
    }
}

/* Decode e4m3 in 32-bit lanes: shift exponent and mantissa into their f32 positions; if the exponent is 0, subtract the
 * implied one again, which is exact. */
static inline __m512 f32_of_e4m3(__m512i code) {
    const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi32(0x7F));
    const __mmask16 subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(8));
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7F));
    const __m512i exponent =
        _mm512_mask_mov_epi32(_mm512_set1_epi32(120 << 23), subnormal, _mm512_set1_epi32(121 << 23));
    __m512 value = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(magnitude, 20), exponent));
    value = _mm512_mask_sub_ps(value, subnormal, value, _mm512_set1_ps(0x1p-6f));
    value = _mm512_mask_mov_ps(value, nan, _mm512_set1_ps(__builtin_nanf("")));
    const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(code, 7), 31);
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(value), sign));
}

static void unpack_group_fp8(float *out, const unsigned char *group, int64_t first, int64_t n, const qni_cpu_quant *q) {
    const unsigned char *codes = group + q->codes_at + first * NR;
    const __m512 scale0 = load_scales(group, q, 0), scale1 = load_scales(group, q, 16);
    for (int64_t i = 0; i < n; i++, codes += NR, out += NR) {
        const __m512i code0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)codes));
        const __m512i code1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(codes + 16)));
        _mm512_storeu_ps(out, _mm512_mul_ps(scale0, f32_of_e4m3(code0)));
        _mm512_storeu_ps(out + 16, _mm512_mul_ps(scale1, f32_of_e4m3(code1)));
    }
}

static void unpack(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k) {
    for (int64_t end = k0 + n_k, n; k0 < end; k0 += n, out += n * NR) {
        const unsigned char *group = panel + k0 / q->group * q->group_bytes;
        const int64_t first = k0 % q->group;
        n = q->group - first < end - k0 ? q->group - first : end - k0;
        if (q->fp8) {
            unpack_group_fp8(out, group, first, n, q);
        } else if (q->bits == 8) {
            unpack_group(out, group, first, n, q, 8);
        } else {
            unpack_group(out, group, first, n, q, 4);
        }
    }
}

void qni_cpu_quant_avx512(qni_cpu_kernels *k) {
    k->int8[QNI_CPU_8_BITS] = (qni_cpu_int8){.ki = KI, .gemm = gemm_8_bits};
    k->int8[QNI_CPU_4_BITS] = (qni_cpu_int8){.ki = KI, .gemm = gemm_4_bits};
    k->quantize = quantize;
    k->unpack = unpack;
}
