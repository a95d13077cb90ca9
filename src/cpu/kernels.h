/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table of the cpu backend: function pointers, tile sizes and packing layout, set together. It starts with
 * the portable kernels, which each available ISA level overrides in ascending order; there is one file per op family
 * and level. Code outside the table must not assume its sizes.
 *
 * The summation order is part of the table. Each output of a product sums its inputs in one chain of fused (portable:
 * separately rounded) multiply-adds per block of `kc` inputs, counted from 0; block sums are added in order. Every path
 * (one row or many, packed or plain, any split over threads) follows this order, so results within one level are
 * bitwise identical. An int8 product is exact within a group of inputs; groups are added in order.
 */
#ifndef QNI_CPU_KERNELS_H
#define QNI_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Index of the arrays below: element types as stored. */
enum { QNI_CPU_F32, QNI_CPU_BF16, QNI_CPU_F16, QNI_CPU_N_DTYPE };

/* Element types of KV rows: additionally the int8 codes of q8. The kernels do not see its scales. */
enum { QNI_CPU_Q8 = QNI_CPU_N_DTYPE, QNI_CPU_N_KV };

/* KV positions per attention block; part of the summation order, the same on all levels. */
enum { QNI_CPU_KV_BLOCK = 128 };

/* The largest nr of any level. */
enum { QNI_CPU_NR_MAX = 64 };

/*
 * A panel of a quantized weight, one stream: for each group of inputs the scales of its nr outputs, their biases
 * (affine, not symmetric), then the codes. Codes are unsigned, 8 or 4 bits wide; narrower ones are widened by the
 * packing:
 *
 *   8 bits   {group / ki, nr, ki} bytes
 *   4 bits   {group / 2ki, nr, ki} bytes; the low half of byte i is input i of 2ki, the high half input ki + i
 *   fp8      {group, nr} bytes, ki = 1
 *
 * If the level multiplies words (qni_cpu_int8.widen), the top bit of an 8-bit code of an odd input is flipped, which
 * makes it the signed byte code - 128; codes of even inputs are unchanged.
 *
 * The last group and the outputs are padded to full size, with codes of weight 0. For int8 arithmetic, groups are small
 * enough for the sum of products to fit into 32 bits; partial sums that are added modulo 2^32 may wrap.
 */
typedef struct qni_cpu_quant {
    bool fp8, symmetric; /* symmetric: the code 2^(bits-1) is 0, no biases */
    int32_t bits;        /* 8 or 4 */
    int scale_dtype;     /* QNI_CPU_F32 or QNI_CPU_BF16 */
    int64_t n_in, group, n_group;
    int64_t nr, ki;
    int64_t scales_bytes; /* bytes of nr scales */
    int64_t codes_at;     /* byte offset of the codes within a group */
    int64_t group_bytes, panel_bytes;
} qni_cpu_quant;

/* Rows of activations as integer codes: value = code · scale; `sum` is the sum of the codes of a group. */
typedef struct qni_cpu_codes {
    const unsigned char *codes; /* row r at r · stride, int8 or words */
    int64_t stride;
    const float *scale;  /* {m, n_group} */
    const int32_t *sum;  /* {m, n_group} */
    const int32_t *even; /* {m, n_group} sums of the codes of even inputs; words only */
} qni_cpu_codes;

/* Integer products with weight codes of one width. */
typedef struct qni_cpu_int8 {
    int64_t ki; /* inputs per lane of a panel */
    /*
     * NULL: gemm takes int8 activations. Otherwise it takes words, made by this function: for every four codes, x0, x2,
     * x1 - 256 x0, x3 - 256 x2. A word of two weight bytes, even + 256 odd, times x0, plus odd times x1 - 256 x0, is
     * the sum of both products; the odd bytes need one shift, the even ones nothing. even: as in qni_cpu_codes. n is a
     * multiple of group, itself a multiple of 32. codes may alias the second half of words.
     */
    void (*widen)(int16_t *words, int32_t *even, const int8_t *codes, int64_t n, int64_t group);
    /*
     * c[r · ldc + p · nr + j] = sum over groups g of
     *       float(sum_i code_w[i, j] · code_x[r, i] - zero · sum[r, g]) · (scale_w[g, j] · scale_x[r, g])
     *     + bias_w[g, j] · (scale_x[r, g] · sum[r, g])
     * for r < m <= mr, p < n_panel. Symmetric: zero = 2^(bits-1) and no bias; otherwise zero = 0. One chain over
     * ascending groups.
     */
    void (*gemm)(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w, int64_t n_panel,
                 const qni_cpu_quant *q);
} qni_cpu_int8;

/* Index of qni_cpu_kernels.int8 by weight code width. */
enum { QNI_CPU_8_BITS, QNI_CPU_4_BITS, QNI_CPU_N_BITS };

/* Rows of keys or values, `stride` elements apart. The caller reads next_bytes at `next` afterwards: kernels that
 * prefetch spread the prefetches of that range evenly over their work. */
typedef struct qni_cpu_kv_rows {
    const void *data;
    int64_t stride, n;
    const void *next;
    int64_t next_bytes;
} qni_cpu_kv_rows;

typedef struct qni_cpu_kernels {
    const char *isa;

    int64_t nr; /* outputs per panel */
    int64_t mr; /* rows per tile of activations */
    int64_t kc; /* inputs per block */
    /* Panels per call of gemm and gemm_pairs for up to stream_rows rows; above that, one panel per call, so that each
     * block of inputs is read sequentially. */
    int64_t n_stream, stream_rows;
    int64_t d_align; /* d and n of attend_scores, _panels, _values and _reduce are multiples of it, zero-padded */

    /* bf16 with f32 arithmetic: a panel's row of nr outputs may be stored interleaved (lo/hi halves): output j is at
     * index (j % (nr/2)) · 2 + j / (nr/2), so that one load, a shift and a mask yield both vectors. */
    bool interleaves_bf16;

    /* c[r · ldc + p · nr + j] = (add ? c : 0) + sum_k a[k · m + r] · w[p · panel_stride + k · nr + j]
     * for r < m <= mr, p < n_panel, k < n_k <= kc; the sum is formed before it is added. w has the indexed dtype, bf16
     * interleaved. */
    void (*gemm[QNI_CPU_N_DTYPE])(float *c, int64_t ldc, const float *a, int64_t m, const void *w, int64_t panel_stride,
                                  int64_t n_panel, int64_t n_k, bool add);

    /* The same for bf16 arithmetic: a {n_k/2, m, 2}, w {n_k/2, nr, 2} with panels panel_stride elements apart; n_k is
     * even. Products of bf16 are exact in f32; each level defines how the two of a pair are added. */
    void (*gemm_pairs)(float *c, int64_t ldc, const uint16_t *a, int64_t m, const uint16_t *w, int64_t panel_stride,
                       int64_t n_panel, int64_t n_k, bool add);
    bool native_bf16; /* uses the processor's bf16 instruction; AUTO selects it. May flush subnormals to zero. */
    /* The same for weights far from 1 (qni_weight.far), from the same panels: subnormals are honored. */
    void (*gemm_pairs_far)(float *c, int64_t ldc, const uint16_t *a, int64_t m, const uint16_t *w, int64_t panel_stride,
                           int64_t n_panel, int64_t n_k, bool add);

    qni_cpu_int8 int8[QNI_CPU_N_BITS];

    /* Quantize a row: scale = max |x| of the group / 127, codes to nearest, sums of codes. n is a multiple of group,
     * itself a multiple of 32. A group with a NaN or an infinity gets a NaN scale; one entirely below 2^-100 gets 0. */
    void (*quantize)(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group);

    /* out[k · nr + j] = the weight of input k0 + k and output j of a quantized panel, k < n_k; k0 is a multiple of kc,
     * n_k is kc or the rest of n_in. */
    void (*unpack)(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k);

    /* Convert an interleaved bf16 panel of n elements (n % nr == 0) to f32, in output order. */
    void (*widen_panel_bf16)(float *out, const void *in, int64_t n);

    /* Convert to f32 (exact) and from f32 (to nearest even). */
    void (*widen[QNI_CPU_N_KV])(float *out, const void *in, int64_t n);
    void (*narrow[QNI_CPU_N_DTYPE])(void *out, const float *in, int64_t n);

    /* out[i · nr + j] = in[j · in_stride + i] for j < n_j <= nr, i < n_i, zeros for j >= n_j: transposes checkpoint
     * rows into part of a panel. Elements of 2 or 4 bytes, strides in elements. */
    void (*transpose2)(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);
    void (*transpose4)(uint32_t *out, const uint32_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);
    void (*transpose_bf16)(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t n_j,
                           int64_t n_i); /* interleaved */

    double (*sum_squares)(const float *x, int64_t n); /* accumulated in double */
    /* out = x · factor · w */
    void (*scale_mul)(float *out, const float *x, float factor, const float *w, int64_t n);
    /* x = x · factor */
    void (*scale)(float *x, float factor, int64_t n);
    void (*add)(float *out, const float *a, const float *b, int64_t n);
    /* silu(gate) · up; an element's result does not depend on n */
    void (*swiglu)(float *out, const float *gate, const float *up, int64_t n);
    /* e^x: within 2 ulp where the result is normal; underflows to 0, overflows to infinity, propagates NaN */
    void (*exp)(float *out, const float *x, int64_t n);
    /* rotate (x[i], x[i + d/2]) by the angle whose cos and sin are cos_sin[i] and cos_sin[i + d/2] */
    void (*rope)(float *x, const float *cos_sin, int64_t d);
    /* lowest index of the greatest element; -1 if any is NaN. n >= 1 */
    int64_t (*argmax)(const float *x, int64_t n);

    /* s[i · QNI_CPU_KV_BLOCK + j] = q[i · d] · k row j for i < n_q, j < k.n; q: f32 rows of d; k: rows of the indexed
     * dtype. A sum does not depend on n_q or k.n. d is a multiple of d_align, here and below. */
    void (*attend_scores[QNI_CPU_N_KV])(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *k, int64_t d);
    /* The same sums, bit for bit, from k {n_k / nr, d, nr} in f32, n_k in whole panels: keys as laid out by transpose4,
     * for many queries. NULL: no faster than rows. */
    void (*attend_panels)(float *s, const float *q, int64_t n_q, const float *k, int64_t n_k, int64_t d);
    /* Online softmax, in place: s[j] = e^(s[j] - m) for n <= QNI_CPU_KV_BLOCK scores, m the maximum of them and *max
     * (NaNs are ignored). s has QNI_CPU_KV_BLOCK elements; those beyond n are overwritten. Returns f = e^(*max - m),
     * then sets *max = m and *sum = *sum · f + the sum of the s[j]. */
    float (*attend_softmax)(float *s, int64_t n, float *max, float *sum);
    /* o[i · d + c] = (add ? o : 0) + sum_j p[i · QNI_CPU_KV_BLOCK + j] · v row j [c], in one chain over j that starts
     * from o */
    void (*attend_values[QNI_CPU_N_KV])(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d,
                                        bool add);
    /* o = o · a + b · c over n elements, a multiple of d_align: accesses whole vectors of both */
    void (*attend_reduce)(float *o, float a, const float *b, float c, int64_t n);
} qni_cpu_kernels;

/* Portable kernels, one function per op family. */
void qni_cpu_gemm_portable(qni_cpu_kernels *k);
void qni_cpu_quant_portable(qni_cpu_kernels *k); /* any nr, so that levels can fall back on them */
void qni_cpu_rows_portable(qni_cpu_kernels *k);
void qni_cpu_attention_portable(qni_cpu_kernels *k);

/* x86/: AVX2, FMA, F16C. */
void qni_cpu_gemm_avx2(qni_cpu_kernels *k);
void qni_cpu_pack_avx2(qni_cpu_kernels *k);
void qni_cpu_quant_avx2(qni_cpu_kernels *k);
void qni_cpu_rows_avx2(qni_cpu_kernels *k);
void qni_cpu_attention_avx2(qni_cpu_kernels *k);

/* x86/: AVX-512 F, BW, VL, DQ and VNNI, on top of AVX2; the last one needs AVX-512 BF16. */
void qni_cpu_gemm_avx512(qni_cpu_kernels *k);
void qni_cpu_pack_avx512(qni_cpu_kernels *k);
void qni_cpu_quant_avx512(qni_cpu_kernels *k);
void qni_cpu_rows_avx512(qni_cpu_kernels *k);
void qni_cpu_attention_avx512(qni_cpu_kernels *k);
void qni_cpu_gemm_avx512bf16(qni_cpu_kernels *k);

/* arm/: baseline AArch64 NEON; the last three need FEAT_DotProd, FEAT_I8MM and FEAT_BF16. */
void qni_cpu_gemm_neon(qni_cpu_kernels *k);
void qni_cpu_quant_neon(qni_cpu_kernels *k);
void qni_cpu_rows_neon(qni_cpu_kernels *k);
void qni_cpu_attention_neon(qni_cpu_kernels *k);
void qni_cpu_quant_neondot(qni_cpu_kernels *k);
void qni_cpu_quant_neoni8mm(qni_cpu_kernels *k);
void qni_cpu_gemm_neonbf16(qni_cpu_kernels *k);

#endif
