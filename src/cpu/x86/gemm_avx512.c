/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products with AVX-512: f32 arithmetic with weights of all three types, and bf16 pairs for processors without a
 * bf16 instruction.
 *
 * Layout, tile and tails: see gemm_avx512.h. A pair takes two chained multiply-adds, its first input first; its halves
 * are extracted from 32 bits by a shift and a mask.
 *
 * Bound     1 … 3 rows of bf16 or f16: memory; from 6 rows on: compute. With 12 rows, 24 multiply-adds of 45
 *           instructions per step, of 44 for 16-bit elements.
 */
#include "gemm_avx512.h"
#include "../kernels.h"

typedef __m512 vector_f32, vector_bf16, vector_f16;
typedef __m512i vector_pairs;

static inline __m512 low_halves(__m512i v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
static inline __m512 high_halves(__m512i v) {
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int32_t)0xFFFF0000u)));
}

static inline __m512 load_f32(const float *w, const int half) {
    return load16_f32(w + half * 16);
}
static inline __m512 load_bf16(const uint16_t *w, const int half) {
    const __m512i interleaved = _mm512_loadu_si512(w);
    return half == 0 ? low_halves(interleaved) : high_halves(interleaved);
}
static inline __m512 load_f16(const uint16_t *w, const int half) {
    return load16_f16(w + half * 16);
}
static inline __m512i load_pairs(const uint16_t *w, const int half) {
    return _mm512_loadu_si512(w + half * 32);
}

#define spread_f32(a) _mm512_set1_ps(*(a))
#define spread_bf16   spread_f32
#define spread_f16    spread_f32
#define spread_pairs  spread16

#define add_f32(sum, x, y) _mm512_fmadd_ps(x, y, sum)
#define add_bf16           add_f32
#define add_f16            add_f32
static inline __m512 add_pairs(__m512 sum, __m512i x, __m512i y) {
    sum = _mm512_fmadd_ps(low_halves(x), low_halves(y), sum);
    return _mm512_fmadd_ps(high_halves(x), high_halves(y), sum);
}

DEFINE_GEMM(f32, float, void, float, 1)
DEFINE_GEMM(bf16, float, void, uint16_t, 1)
DEFINE_GEMM(f16, float, void, uint16_t, 1)
DEFINE_GEMM(pairs, uint16_t, uint16_t, uint16_t, 2)

static void widen_panel_bf16(float *out, const void *in, int64_t n) {
    const uint16_t *panel = in;
    for (int64_t i = 0; i < n; i += NR) {
        _mm512_storeu_ps(out + i, load_bf16(panel + i, 0));
        _mm512_storeu_ps(out + i + 16, load_bf16(panel + i, 1));
    }
}

void qni_cpu_gemm_avx512(qni_cpu_kernels *k) {
    k->interleaves_bf16 = true;
    k->widen_panel_bf16 = widen_panel_bf16;
    k->nr = NR;
    k->mr = MR;
    k->kc = KC;
    k->n_stream = 4;
    k->stream_rows = 3;
    k->gemm[QNI_CPU_F32] = gemm_f32;
    k->gemm[QNI_CPU_BF16] = gemm_bf16;
    k->gemm[QNI_CPU_F16] = gemm_f16;
    k->gemm_pairs = k->gemm_pairs_far = gemm_pairs;
}
