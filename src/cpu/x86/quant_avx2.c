/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantized weights with AVX2: quantizing activations, integer products, unpacking to f32.
 *
 * Layout    8 bits: {group / 4, 16, 4} bytes, codes of odd inputs with their top bit flipped, activations in words
 *           (kernels.h). A vector holds four inputs of 8 outputs. Its words as they are, then their odd bytes shifted
 *           down with sign, are operands of vpmaddwd, which adds two products each:
 *
 *               w       | o0 i0 + 256 i1 | o0 i2 + 256 i3 | o1 i0 + 256 i1 | …      w >> 8  | o0 i1 | o0 i3 | o1 i1 | …
 *               x       |      x0        |      x2        |      x0        | …              | x1 - 256 x0 | x3 - 256 x2 | …
 *
 *           4 bits: {group / 8, 16, 4} bytes, activations int8. A byte holds inputs i and i + 4. vpmaddubsw adds two of
 *           the four inputs of a lane into 16 bits, which hold 32 inputs (8 · 2 · 15 · 127 = 30480); vpmaddwd adds the
 *           rest:
 *
 *               w  | o0 i0|4 | o0 i1|5 | o0 i2|6 | o0 i3|7 | o1 i0|4 | … | o7 i3|7 |
 *
 * Tile      6 rows x 16 outputs: 12 integer sums, 2 weights, 1 activation. From three rows on the float sums are in
 *           memory. One panel at a time, prefetched some lines ahead: a single stream suits the hardware prefetchers
 *           best.
 * Tails     rows: instances for 1 … 6; groups (a multiple of 32 inputs) and panels are whole.
 * Bound     one row: memory. Many rows: one vpmaddwd (vpmaddubsw) for 16 (32) products.
 */
#include "../kernels.h"
#include "prefetch.h"
#include "vector_avx2.h"

enum {
    NR = 16,
    MR = 6,
    CHUNK = 32,              /* inputs whose sum fits into 16 bits */
    PREFETCH_BYTES_8 = 1280, /* prefetch distance in bytes: the twenty lines that a core keeps in flight */
    PREFETCH_BYTES_4 = 3072, /* best by measurement: 1,280 is a few percent slower */
};

static inline __m256 load8_scale(const unsigned char *p, const qni_cpu_quant *q, int64_t j) {
    if (q->scale_dtype == QNI_CPU_BF16) return load8_bf16((const uint16_t *)(const void *)p + j);
    return load8_f32((const float *)(const void *)p + j);
}

/* The same value, opaque to the compiler. It could turn a chain of integer sums into a tree; this keeps the chain in
 * one register, and each loaded value is loaded once. */
static inline __m256i chained(__m256i x) {
    __asm__("" : "+x"(x));
    return x;
}

/* Four bytes of activations in all lanes. */
static inline __m256i broadcast4(const unsigned char *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Add a group's integer sums, {m, 2} vectors, to the float sums. */
static inline __attribute__((always_inline)) void add_group(__m256 *total, const __m256i *sum, const int m,
                                                            const qni_cpu_codes *x, int64_t g,
                                                            const unsigned char *group, const qni_cpu_quant *q) {
    const __m256 s0 = load8_scale(group, q, 0), s1 = load8_scale(group, q, 8);
    for (int r = 0; r < m; r++) {
        const __m256 scale = _mm256_broadcast_ss(x->scale + r * q->n_group + g);
        total[2 * r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[2 * r]), _mm256_mul_ps(s0, scale), total[2 * r]);
        total[2 * r + 1] =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[2 * r + 1]), _mm256_mul_ps(s1, scale), total[2 * r + 1]);
    }
    if (q->symmetric) return;
    const unsigned char *biases = group + q->scales_bytes;
    const __m256 b0 = load8_scale(biases, q, 0), b1 = load8_scale(biases, q, 8);
    for (int r = 0; r < m; r++) {
        const int64_t at = r * q->n_group + g;
        const __m256 codes = _mm256_cvtepi32_ps(_mm256_set1_epi32(x->sum[at]));
        const __m256 values = _mm256_mul_ps(_mm256_broadcast_ss(x->scale + at), codes);
        total[2 * r] = _mm256_fmadd_ps(b0, values, total[2 * r]);
        total[2 * r + 1] = _mm256_fmadd_ps(b1, values, total[2 * r + 1]);
    }
}

/* Initial value of a group's integer sums: minus the zero of the codes times the activations. */
static inline __attribute__((always_inline)) void begin_group(__m256i *sum, const int m, const qni_cpu_codes *x,
                                                              int64_t g, const qni_cpu_quant *q) {
    for (int r = 0; r < m; r++) {
        const int64_t at = r * q->n_group + g;
        /* Modulo 2^32, like everything below: the final sum of a group fits, partial sums may wrap. */
        uint32_t start;
        if (q->bits == 8) { /* even inputs lack the -128 of symmetric codes, odd ones include it */
            start = 128u * (uint32_t)(q->symmetric ? -x->even[at] : x->sum[at] - x->even[at]);
        } else {
            start = q->symmetric ? (uint32_t)(-(1 << (q->bits - 1)) * x->sum[at]) : 0;
        }
        sum[2 * r] = sum[2 * r + 1] = _mm256_set1_epi32((int32_t)start);
    }
}

static inline __attribute__((always_inline)) void group_8(__m256 *total, const qni_cpu_codes *x, const int m, int64_t g,
                                                          const unsigned char *group, const qni_cpu_quant *q) {
    __m256i sum[2 * MR];
    begin_group(sum, m, x, g, q);
    const unsigned char *w = group + q->codes_at;
    const unsigned char *a = x->codes + g * q->group * 2;
    for (int64_t i = 0; i < q->group; i += 4, w += 4 * NR, a += 8) {
        prefetch_weight((const char *)w + PREFETCH_BYTES_8, m, MR);
        __m256i w0 = chained(_mm256_loadu_si256((const __m256i *)(const void *)w));
        __m256i w1 = chained(_mm256_loadu_si256((const __m256i *)(const void *)(w + 32)));
        for (int odd = 0; odd < 2; odd++) {
            if (odd == 1) w0 = _mm256_srai_epi16(w0, 8), w1 = _mm256_srai_epi16(w1, 8);
            for (int r = 0; r < m; r++) {
                const __m256i y = broadcast4(a + r * x->stride + 4 * odd);
                sum[2 * r] = chained(_mm256_add_epi32(sum[2 * r], _mm256_madd_epi16(w0, y)));
                sum[2 * r + 1] = chained(_mm256_add_epi32(sum[2 * r + 1], _mm256_madd_epi16(w1, y)));
            }
        }
    }
    add_group(total, sum, m, x, g, group, q);
}

/* 32 inputs into 16-bit sums {m, 2}. */
static inline __attribute__((always_inline)) void chunk_4(__m256i *sum, const unsigned char *w, const unsigned char *a,
                                                          int64_t stride, const int m) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int r = 0; r < 2 * m; r++) sum[r] = _mm256_setzero_si256();
    for (int i = 0; i < CHUNK; i += 8, w += 4 * NR, a += 8) {
        prefetch_weight((const char *)w + PREFETCH_BYTES_4, m, MR);
        for (int half = 0; half < 2; half++) {
            __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
            __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32));
            if (half == 1) w0 = _mm256_srli_epi16(w0, 4), w1 = _mm256_srli_epi16(w1, 4);
            w0 = _mm256_and_si256(w0, low), w1 = _mm256_and_si256(w1, low);
            for (int r = 0; r < m; r++) {
                const __m256i y = broadcast4(a + r * stride + 4 * half);
                sum[2 * r] = chained(_mm256_add_epi16(sum[2 * r], _mm256_maddubs_epi16(w0, y)));
                sum[2 * r + 1] = chained(_mm256_add_epi16(sum[2 * r + 1], _mm256_maddubs_epi16(w1, y)));
            }
        }
    }
}

static inline __attribute__((always_inline)) void group_4(__m256 *total, const qni_cpu_codes *x, const int m, int64_t g,
                                                          const unsigned char *group, const qni_cpu_quant *q) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[2 * MR], part[2 * MR];
    const unsigned char *w = group + q->codes_at;
    const unsigned char *a = x->codes + g * q->group;
    if (q->group == CHUNK && !q->symmetric) { /* the common case, without a second set of sums */
        chunk_4(part, w, a, x->stride, m);
        for (int r = 0; r < 2 * m; r++) part[r] = _mm256_madd_epi16(part[r], ones);
        add_group(total, part, m, x, g, group, q);
        return;
    }
    begin_group(sum, m, x, g, q);
    for (int64_t i = 0; i < q->group; i += CHUNK, w += CHUNK * NR / 2, a += CHUNK) {
        chunk_4(part, w, a, x->stride, m);
        for (int r = 0; r < 2 * m; r++) sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(part[r], ones));
    }
    add_group(total, sum, m, x, g, group, q);
}

/* A tile over all groups. m is a constant at every use. */
#define DEFINE_TILE(bits)                                                                                              \
    static inline __attribute__((always_inline)) void tile_##bits(                                                     \
        float *c, int64_t ldc, const qni_cpu_codes *x, const int m, const unsigned char *w, const qni_cpu_quant *q) {  \
        __m256 total[2 * MR];                                                                                          \
        for (int r = 0; r < 2 * m; r++) total[r] = _mm256_setzero_ps();                                                \
        for (int64_t g = 0; g < q->n_group; g++, w += q->group_bytes) group_##bits(total, x, m, g, w, q);              \
        for (int r = 0; r < m; r++) {                                                                                  \
            _mm256_storeu_ps(c + r * ldc, total[2 * r]);                                                               \
            _mm256_storeu_ps(c + r * ldc + 8, total[2 * r + 1]);                                                       \
        }                                                                                                              \
    }

#define DEFINE_GEMM(bits)                                                                                              \
    DEFINE_TILE(bits)                                                                                                  \
    static void gemm_##bits(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w,          \
                            int64_t n_panel, const qni_cpu_quant *q) {                                                 \
        for (int64_t p = 0; p < n_panel; p++, w += q->panel_bytes, c += NR) {                                          \
            switch (m) {                                                                                               \
            case 1:                                                                                                    \
                tile_##bits(c, ldc, x, 1, w, q);                                                                       \
                break;                                                                                                 \
            case 2:                                                                                                    \
                tile_##bits(c, ldc, x, 2, w, q);                                                                       \
                break;                                                                                                 \
            case 3:                                                                                                    \
                tile_##bits(c, ldc, x, 3, w, q);                                                                       \
                break;                                                                                                 \
            case 4:                                                                                                    \
                tile_##bits(c, ldc, x, 4, w, q);                                                                       \
                break;                                                                                                 \
            case 5:                                                                                                    \
                tile_##bits(c, ldc, x, 5, w, q);                                                                       \
                break;                                                                                                 \
            default:                                                                                                   \
                tile_##bits(c, ldc, x, 6, w, q);                                                                       \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_GEMM(8)
DEFINE_GEMM(4)

static float greatest_magnitude(const float *x, int64_t n, float *bad) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 max = _mm256_setzero_ps(), sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        max = _mm256_max_ps(max, _mm256_andnot_ps(sign, v));
        sum = _mm256_fmadd_ps(v, _mm256_setzero_ps(), sum); /* NaN if any is NaN or infinite */
    }
    *bad = sum8(sum);
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps(max, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
}

static int32_t sum8_epi32(__m256i v) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
}

static void quantize(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group) {
    const float least = 0x1p-100f; /* below `least`, 127 / max overflows */
    for (int64_t g = 0; g < n / group; g++, x += group, codes += group) {
        float bad;
        const float max = greatest_magnitude(x, group, &bad);
        const bool usable = bad == 0 && max >= least;
        const __m256 inverse = _mm256_set1_ps(usable ? 127.0f / max : 0.0f);
        __m256i total = _mm256_setzero_si256();
        for (int64_t i = 0; i < group; i += 8) {
            __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
            if (!usable) code = _mm256_setzero_si256();
            total = _mm256_add_epi32(total, code);
            const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
            _mm_storel_epi64((__m128i *)(void *)(codes + i), _mm_packs_epi16(words, words));
        }
        sum[g] = sum8_epi32(total);
        scale[g] = bad == 0 ? (usable ? max / 127.0f : 0.0f) : bad;
    }
}

/* Sixteen codes at a time, loaded before the words that may alias them are stored. */
static void widen(int16_t *words, int32_t *even, const int8_t *codes, int64_t n, int64_t group) {
    const __m256i low = _mm256_set1_epi32(0xFFFF);
    for (int64_t g = 0; g < n / group; g++) {
        __m256i total = _mm256_setzero_si256();
        for (int64_t i = 0; i < group; i += 16, codes += 16, words += 16) {
            const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)codes));
            const __m256i odd = _mm256_sub_epi16(_mm256_srli_epi32(x, 16), _mm256_slli_epi16(x, 8));
            __m256i y = _mm256_or_si256(_mm256_and_si256(x, low), _mm256_slli_epi32(odd, 16)); /* order 0 1 2 3 */
            y = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(y, 0xD8), 0xD8);
            _mm256_storeu_si256((__m256i *)(void *)words, y);
            total = _mm256_add_epi32(total, _mm256_madd_epi16(x, _mm256_set1_epi32(1)));
        }
        even[g] = sum8_epi32(total);
    }
}

static inline __m256 e4m3_of(__m256i code) {
    const __m256i magnitude = _mm256_and_si256(code, _mm256_set1_epi32(0x7F));
    const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(0x80)), 24);
    const __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(magnitude, 20), _mm256_set1_epi32(120 << 23));
    const __m256 subnormal = _mm256_mul_ps(_mm256_cvtepi32_ps(magnitude), _mm256_set1_ps(0x1p-9f));
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), magnitude);
    const __m256i is_nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7F));
    __m256i value = _mm256_blendv_epi8(normal, _mm256_castps_si256(subnormal), is_small);
    value = _mm256_or_si256(value, _mm256_and_si256(is_nan, _mm256_set1_epi32(0x7FC00000)));
    return _mm256_castsi256_ps(_mm256_or_si256(value, sign));
}

/* Unpack the codes of eight outputs from j on and n inputs from i on within the group; they start at a lane
 * boundary. */
static inline void unpack8(float *out, const unsigned char *codes, const qni_cpu_quant *q, int64_t i, int64_t n, int j,
                           __m256 scale, __m256 bias) {
    if (q->fp8) {
        for (int64_t k = 0; k < n; k++) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + (i + k) * NR + j));
            _mm256_storeu_ps(out + k * NR, _mm256_mul_ps(scale, e4m3_of(_mm256_cvtepu8_epi32(bytes))));
        }
    } else if (q->bits == 8) {
        for (int64_t k = 0; k < n; k += 4) {
            const unsigned char *w = codes + (i + k) * NR + 4 * j;
            const __m256i flipped = _mm256_set1_epi32((int)0x80008000u); /* of odd inputs */
            const __m256i four = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)w), flipped);
            for (int b = 0; b < 4; b++) {
                const __m256i code = _mm256_srli_epi32(four, 8 * b);
                const __m256 value = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(255)));
                _mm256_storeu_ps(out + (k + b) * NR, _mm256_fmadd_ps(scale, value, bias));
            }
        }
    } else {
        for (int64_t k = 0; k < n; k += 8) {
            const unsigned char *w = codes + (i + k) * NR / 2 + 4 * j;
            const __m256i eight = _mm256_loadu_si256((const __m256i *)(const void *)w);
            for (int b = 0; b < 8; b++) {
                const __m256i code = _mm256_srli_epi32(eight, b < 4 ? 8 * b : 8 * (b - 4) + 4);
                const __m256 value = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(15)));
                _mm256_storeu_ps(out + (k + b) * NR, _mm256_fmadd_ps(scale, value, bias));
            }
        }
    }
}

static void unpack(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k) {
    const float zero = -(float)(1 << (q->bits - 1));
    for (int64_t k = 0, n; k < n_k; k += n) {
        const unsigned char *group = panel + (k0 + k) / q->group * q->group_bytes;
        const int64_t i = (k0 + k) % q->group;
        n = q->group - i < n_k - k ? q->group - i : n_k - k;
        for (int j = 0; j < NR; j += 8) {
            const __m256 scale = load8_scale(group, q, j);
            const __m256 bias = q->symmetric ? _mm256_mul_ps(scale, _mm256_set1_ps(zero))
                                : q->fp8     ? _mm256_setzero_ps()
                                             : load8_scale(group + q->scales_bytes, q, j);
            unpack8(out + k * NR + j, group + q->codes_at, q, i, n, j, scale, bias);
        }
    }
}

void qni_cpu_quant_avx2(qni_cpu_kernels *k) {
    k->int8[QNI_CPU_8_BITS] = (qni_cpu_int8){.ki = 4, .widen = widen, .gemm = gemm_8};
    k->int8[QNI_CPU_4_BITS] = (qni_cpu_int8){.ki = 4, .gemm = gemm_4};
    k->quantize = quantize;
    k->unpack = unpack;
}
