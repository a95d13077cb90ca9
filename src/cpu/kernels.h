/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table of the cpu backend: pointers, tile sizes and packing layout, set together. It is filled with the
 * portable kernels, then overwritten upward by each instruction set level that the machine has, one file for each op
 * family and level. Nothing outside the table knows its sizes.
 *
 * The order of sums is part of the table. Each output of a product is summed over its inputs by one chain of fused
 * (portable: rounded) multiply-adds in each block of `kc` inputs, counted from 0; the sums of the blocks are added in
 * order. Every path (one row or many, packed or plain, any split over threads) goes through this order, so results of
 * one level are bitwise the same. An int8 product is exact within a group of inputs; its groups are added in order.
 */
#ifndef QNI_CPU_KERNELS_H
#define QNI_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Index of the arrays below: the element types as stored. */
enum { QNI_CPU_F32, QNI_CPU_BF16, QNI_CPU_F16, QNI_CPU_N_DTYPE };

/* Those of KV rows: also the int8 codes of q8, whose scales the kernels do not see. */
enum { QNI_CPU_Q8 = QNI_CPU_N_DTYPE, QNI_CPU_N_KV };

/* KV positions of an attention block; part of the order of sums, alike on all levels. */
enum { QNI_CPU_KV_BLOCK = 128 };

/* Largest nr of any level. */
enum { QNI_CPU_NR_MAX = 64 };

/*
 * A panel of a quantized weight: for each group of inputs the scales of its nr outputs, their biases (affine, not
 * symmetric), then the codes, all in one stream. Codes are unsigned and 8 or 4 bits wide, narrower ones are widened when
 * they are packed:
 *
 *   8 bits   {group / ki, nr, ki} bytes
 *   4 bits   {group / 2ki, nr, ki} bytes; the low half of byte i is input i of 2ki, the high half input ki + i
 *   fp8      {group, nr} bytes, ki = 1
 *
 * Where the level multiplies words (qni_cpu_int8.widen) the top bit of an 8-bit code of an odd input is flipped, which
 * makes it the signed byte code - 128; those of even inputs stay as they are.
 *
 * The last group is whole, padded with codes whose weight is 0; so are outputs. For int8 arithmetic a group is small
 * enough that the sum of its products fits into 32 bits; parts of that sum need not, where they are added modulo 2^32.
 */
typedef struct qni_cpu_quant {
    bool fp8, symmetric; /* symmetric: the code 2^(bits-1) is 0, no biases */
    int32_t bits;        /* 8 or 4 */
    int scale_dtype;     /* QNI_CPU_F32 or QNI_CPU_BF16 */
    int64_t n_in, group, n_group;
    int64_t nr, ki;
    int64_t scales_bytes; /* of nr scales */
    int64_t codes_at;     /* bytes from the start of a group */
    int64_t group_bytes, panel_bytes;
} qni_cpu_quant;

/* Rows of activations as integer codes; code · scale is the value, and `sum` the sum of the codes of a group. */
typedef struct qni_cpu_codes {
    const unsigned char *codes; /* row r at r · stride, int8 or words */
    int64_t stride;
    const float *scale;  /* {m, n_group} */
    const int32_t *sum;  /* {m, n_group} */
    const int32_t *even; /* {m, n_group} the sum of those of even inputs; words alone */
} qni_cpu_codes;

/* Integer products with codes of one width. */
typedef struct qni_cpu_int8 {
    int64_t ki; /* inputs of a lane in a panel */
    /*
     * NULL: gemm takes activations as int8. Else it takes words, made by this: of each four codes x0, x2, x1 - 256 x0,
     * x3 - 256 x2. A word of two bytes of a weight, even + 256 odd, times x0, and odd times x1 - 256 x0, add up to the two
     * products, with a shift for the odd bytes and nothing for the even ones. even: as in qni_cpu_codes. n is a multiple
     * of group, which is one of 32; codes may be the second half of words.
     */
    void (*widen)(int16_t *words, int32_t *even, const int8_t *codes, int64_t n, int64_t group);
    /*
     * c[r · ldc + p · nr + j] = sum over groups g of
     *       float(sum_i code_w[i, j] · code_x[r, i] - zero · sum[r, g]) · (scale_w[g, j] · scale_x[r, g])
     *     + bias_w[g, j] · (scale_x[r, g] · sum[r, g])
     * for r < m <= mr, p < n_panel; zero = 2^(bits-1) and no bias where symmetric, else 0. A chain over ascending groups.
     */
    void (*gemm)(float *c, int64_t ldc, const qni_cpu_codes *x, int64_t m, const unsigned char *w, int64_t n_panel,
                 const qni_cpu_quant *q);
} qni_cpu_int8;

/* Index of qni_cpu_kernels.int8 by the width of the weights' codes. */
enum { QNI_CPU_8_BITS, QNI_CPU_4_BITS, QNI_CPU_N_BITS };

/* Rows of keys or values, `stride` elements apart. The next_bytes at `next` are read after them: a kernel that keeps
 * ahead of the memory asks for them, evenly while it works. */
typedef struct qni_cpu_kv_rows {
    const void *data;
    int64_t stride, n;
    const void *next;
    int64_t next_bytes;
} qni_cpu_kv_rows;

typedef struct qni_cpu_kernels {
    const char *isa;

    int64_t nr; /* outputs of a panel */
    int64_t mr; /* rows of a tile of activations */
    int64_t kc; /* inputs of a block */
    /* Panels that gemm and gemm_pairs like to take at once for at most stream_rows rows; for more it takes one after the other, whose
     * blocks of inputs are then read as they lie. */
    int64_t n_stream, stream_rows;
    int64_t d_align; /* d and n of attend_scores, _panels, _values and _merge are multiples of it; pad with zeros */

    /* Where bf16 meets f32 arithmetic a panel's row of nr outputs may be zipped: output j lies at place
     * (j % (nr/2)) · 2 + j / (nr/2), so that shift and mask make two vectors of it. */
    bool zips_bf16;

    /* c[r · ldc + p · nr + j] = (add ? c : 0) + sum_k a[k · m + r] · w[p · panel_stride + k · nr + j]
     * for r < m <= mr, p < n_panel, k < n_k <= kc; the sum is formed first. w by its dtype, bf16 zipped. */
    void (*gemm[QNI_CPU_N_DTYPE])(float *c, int64_t ldc, const float *a, int64_t m, const void *w, int64_t panel_stride,
                                  int64_t n_panel, int64_t n_k, bool add);

    /* The same for arithmetic bf16: a {n_k/2, m, 2}, w {n_k/2, nr, 2} with panels panel_stride elements apart; n_k is
     * even. Products of bf16 are exact in f32; how the two of a pair are added is the level's own. */
    void (*gemm_pairs)(float *c, int64_t ldc, const uint16_t *a, int64_t m, const uint16_t *w, int64_t panel_stride,
                       int64_t n_panel, int64_t n_k, bool add);
    bool native_bf16; /* gemm_pairs is the processor's: AUTO takes it. It may take subnormal numbers for zeros. */
    /* The same for weights far from 1 (qni_weight.far), from the same panels: subnormal numbers count. */
    void (*gemm_pairs_far)(float *c, int64_t ldc, const uint16_t *a, int64_t m, const uint16_t *w, int64_t panel_stride,
                           int64_t n_panel, int64_t n_k, bool add);

    qni_cpu_int8 int8[QNI_CPU_N_BITS];

    /* Codes of a row: scale = max |x| of the group / 127, codes to nearest, sums of codes. n is a multiple of group, which
     * is one of 32. A group with a NaN or an infinity gets a NaN as scale, one that is all below 2^-100 gets 0. */
    void (*quantize)(int8_t *codes, float *scale, int32_t *sum, const float *x, int64_t n, int64_t group);

    /* out[k · nr + j] = the weight of input k0 + k and output j of a quantized panel, k < n_k; k0 is a multiple of kc,
     * n_k kc or what is left of n_in. */
    void (*unpack)(float *out, const unsigned char *panel, const qni_cpu_quant *q, int64_t k0, int64_t n_k);

    /* A bf16 panel of n elements (n % nr == 0), zipped, as f32 in the order of the outputs. */
    void (*widen_panel_bf16)(float *out, const void *in, int64_t n);

    /* To f32 (exact) and from f32 (to nearest even). */
    void (*widen[QNI_CPU_N_KV])(float *out, const void *in, int64_t n);
    void (*narrow[QNI_CPU_N_DTYPE])(void *out, const float *in, int64_t n);

    /* out[i · nr + j] = in[j · in_stride + i] for j < n_j <= nr, i < n_i, zeros for j >= n_j: makes a piece of a panel
     * from rows of a checkpoint. Elements of 2 or 4 bytes, strides in elements. */
    void (*transpose2)(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);
    void (*transpose4)(uint32_t *out, const uint32_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);
    void (*transpose_bf16)(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t n_j, int64_t n_i); /* zipped */

    double (*sum_squares)(const float *x, int64_t n); /* in double */
    /* out = x · factor · w */
    void (*scale_mul)(float *out, const float *x, float factor, const float *w, int64_t n);
    /* x = x · factor */
    void (*scale)(float *x, float factor, int64_t n);
    void (*add)(float *out, const float *a, const float *b, int64_t n);
    /* silu(gate) · up; each element alike whatever n */
    void (*swiglu)(float *out, const float *gate, const float *up, int64_t n);
    /* e^x: at most 2 ulp where the result is normal; 0 below, infinity above, NaN stays NaN */
    void (*exp)(float *out, const float *x, int64_t n);
    /* x[i], x[i + d/2] turned by the angles whose cos and sin are cos_sin[i], cos_sin[i + d/2] */
    void (*rope)(float *x, const float *cos_sin, int64_t d);
    /* lowest index of the greatest element; -1 when one is NaN. n >= 1 */
    int64_t (*argmax)(const float *x, int64_t n);

    /* s[i · QNI_CPU_KV_BLOCK + j] = q[i · d] · k row j for i < n_q, j < k.n; q f32 rows of d, k by its dtype; each sum
     * alike whatever n_q and k.n. d is a multiple of d_align, here and below. */
    void (*attend_scores[QNI_CPU_N_KV])(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *k, int64_t d);
    /* The same sums, to the bit, from k {n_k / nr, d, nr} in f32, n_k in whole panels: keys as transpose4 lays them, for
     * many queries. NULL: rows do as well. */
    void (*attend_panels)(float *s, const float *q, int64_t n_q, const float *k, int64_t n_k, int64_t d);
    /* In place s[j] = e^(s[j] - m) of n <= QNI_CPU_KV_BLOCK of them, where m is the greatest of them and *max (a NaN is
     * passed over); s has QNI_CPU_KV_BLOCK places, those beyond n are overwritten. Returns f = e^(*max - m), then *max =
     * m and *sum = *sum · f + the sum of the s[j]. */
    float (*attend_softmax)(float *s, int64_t n, float *max, float *sum);
    /* o[i · d + c] = (add ? o : 0) + sum_j p[i · QNI_CPU_KV_BLOCK + j] · v row j [c], in one chain over j that begins
     * with o */
    void (*attend_values[QNI_CPU_N_KV])(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d,
                                        bool add);
    /* o = o · a + b · c over n elements, a multiple of d_align: whole vectors of both are read and written */
    void (*attend_merge)(float *o, float a, const float *b, float c, int64_t n);
} qni_cpu_kernels;

/* Portable kernels, one function for each op family. */
void qni_cpu_gemm_portable(qni_cpu_kernels *k);
void qni_cpu_quant_portable(qni_cpu_kernels *k); /* any nr, so that levels can do with them */
void qni_cpu_rows_portable(qni_cpu_kernels *k);
void qni_cpu_attention_portable(qni_cpu_kernels *k);

/* x86/: AVX2, FMA, F16C. */
void qni_cpu_gemm_avx2(qni_cpu_kernels *k);
void qni_cpu_pack_avx2(qni_cpu_kernels *k);
void qni_cpu_quant_avx2(qni_cpu_kernels *k);
void qni_cpu_rows_avx2(qni_cpu_kernels *k);
void qni_cpu_attention_avx2(qni_cpu_kernels *k);

/* x86/: AVX-512 F, BW, VL, DQ and VNNI, upon AVX2; last what needs AVX-512 BF16. */
void qni_cpu_gemm_avx512(qni_cpu_kernels *k);
void qni_cpu_pack_avx512(qni_cpu_kernels *k);
void qni_cpu_quant_avx512(qni_cpu_kernels *k);
void qni_cpu_rows_avx512(qni_cpu_kernels *k);
void qni_cpu_attention_avx512(qni_cpu_kernels *k);
void qni_cpu_gemm_avx512bf16(qni_cpu_kernels *k);

/* arm/: NEON as every AArch64 processor has it; last what needs the products of bytes or of bf16. */
void qni_cpu_gemm_neon(qni_cpu_kernels *k);
void qni_cpu_quant_neon(qni_cpu_kernels *k);
void qni_cpu_rows_neon(qni_cpu_kernels *k);
void qni_cpu_attention_neon(qni_cpu_kernels *k);
void qni_cpu_quant_neondot(qni_cpu_kernels *k);
void qni_cpu_quant_neoni8mm(qni_cpu_kernels *k);
void qni_cpu_gemm_neonbf16(qni_cpu_kernels *k);

#endif
