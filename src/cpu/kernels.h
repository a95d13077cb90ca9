/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table of the cpu backend: pointers, tile sizes and packing layout, set together. It is filled with the
 * portable kernels, then overwritten upward by each instruction set level that the machine has, one file for each op
 * family and level. Nothing outside the table knows its sizes.
 *
 * The order of sums is part of the table. Each output of a product is summed over its inputs by one chain of fused
 * (portable: rounded) multiply-adds in each block of `kc` inputs, counted from 0; the sums of the blocks are added in
 * order. Every path (one row or many, packed or plain, any split over threads) goes through this order, so results of
 * one level are bitwise the same.
 */
#ifndef QNI_CPU_KERNELS_H
#define QNI_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Index of the arrays below: the element types as stored. */
enum { QNI_CPU_F32, QNI_CPU_BF16, QNI_CPU_F16, QNI_CPU_N_DTYPE };

/* KV positions of an attention block; part of the order of sums, alike on all levels. */
enum { QNI_CPU_KV_BLOCK = 64 };

/* Largest nr of any level. */
enum { QNI_CPU_NR_MAX = 64 };

typedef struct qni_cpu_kernels {
    const char *isa;

    int64_t nr;       /* outputs of a panel */
    int64_t ki;       /* inputs of a group in a panel */
    int64_t mr;       /* rows of a tile of activations */
    int64_t kc;       /* inputs of a block */
    int64_t n_stream; /* panels that gemm likes to take at once for few rows */
    int64_t d_align;  /* head dimensions that attend_* takes are multiples of it; pad with zeros */

    /* c[r · ldc + p · nr + j] = (add ? c : 0) + sum_k a[k · m + r] · w[p · panel_stride + k · nr + j]
     * for r < m <= mr, p < n_panel, k < n_k <= kc; the sum is formed first. w by its dtype. */
    void (*gemm[QNI_CPU_N_DTYPE])(float *c, int64_t ldc, const float *a, int64_t m, const void *w, int64_t panel_stride,
                                  int64_t n_panel, int64_t n_k, bool add);

    /* To f32 (exact) and from f32 (to nearest even). */
    void (*widen[QNI_CPU_N_DTYPE])(float *out, const void *in, int64_t n);
    void (*narrow[QNI_CPU_N_DTYPE])(void *out, const float *in, int64_t n);

    /* out[i · nr + j] = in[j · in_stride + i] for j < n_j <= nr, i < n_i, zeros for j >= n_j: makes a piece of a panel
     * from rows of a checkpoint. Elements of 2 or 4 bytes, strides in elements. */
    void (*transpose2)(uint16_t *out, const uint16_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);
    void (*transpose4)(uint32_t *out, const uint32_t *in, int64_t in_stride, int64_t n_j, int64_t n_i);

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

    /* s[i · QNI_CPU_KV_BLOCK + j] = q[i · d] · k[j · k_stride], i < n_q, j < n_k; q f32 rows of d, k by its dtype;
     * each sum alike whatever n_q and n_k. d % d_align == 0 */
    void (*attend_scores[QNI_CPU_N_DTYPE])(float *s, const float *q, int64_t n_q, const void *k, int64_t k_stride,
                                           int64_t n_k, int64_t d);
    /* In place s[j] = e^(s[j] - max); the sum and max of n <= QNI_CPU_KV_BLOCK of them; s has QNI_CPU_KV_BLOCK
     * places, those beyond n are overwritten. */
    void (*attend_softmax)(float *s, int64_t n, float *max, float *sum);
    /* o[i · d + c] = (add ? o : 0) + sum_j p[i · QNI_CPU_KV_BLOCK + j] · v[j · v_stride + c], in one chain over j that
     * begins with o */
    void (*attend_values[QNI_CPU_N_DTYPE])(float *o, const float *p, int64_t n_q, const void *v, int64_t v_stride,
                                           int64_t n_k, int64_t d, bool add);
    /* o = o · a + b · c over n elements */
    void (*attend_merge)(float *o, float a, const float *b, float c, int64_t n);
} qni_cpu_kernels;

/* Portable kernels, one function for each op family. */
void qni_cpu_gemm_portable(qni_cpu_kernels *k);
void qni_cpu_rows_portable(qni_cpu_kernels *k);
void qni_cpu_attention_portable(qni_cpu_kernels *k);

/* x86/: AVX2, FMA, F16C. */
void qni_cpu_gemm_avx2(qni_cpu_kernels *k);
void qni_cpu_pack_avx2(qni_cpu_kernels *k);
void qni_cpu_rows_avx2(qni_cpu_kernels *k);
void qni_cpu_attention_avx2(qni_cpu_kernels *k);

#endif
