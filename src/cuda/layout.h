/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed linears on CUDA. Valid in C and in CUDA.
 *
 * A dense weight is {n_out, n_in} in its own dtype, rows without padding.
 *
 * A quantized weight is three arrays, each aligned to QNI_CUDA_ALIGN bytes:
 *
 *   codes    {n_out, row_bytes}: unsigned codes of `width` bits, 2, 4 or 8 (of 3 bits in 4, of 5 and 6 bits in 8; fp8
 *            as it is)
 *   scales   {n_group, n_scale_out} of quant.scale_dtype, n_scale_out = ceil(n_out / group_out)
 *   biases   likewise; none if symmetric or fp8
 *
 * Each row of codes is divided into runs of 16 bytes times 4. A run holds 128 / width · 4 inputs, that is n_block =
 * 16 / width blocks of 32 inputs. Piece t (0 … 3) of 16 bytes holds the codes of inputs 32 b + 8 t … 32 b + 8 t + 7 for
 * each block b of the run, in ascending order of b; a code with a lower input is in lower bits. So a lane of
 * mma.m16n8k16 gets with one load what it multiplies, and all lanes of a block of 32 inputs are in the same group of
 * inputs, whose size is a multiple of 32. Rows are padded with zero codes to whole runs.
 */
#ifndef QNI_CUDA_LAYOUT_H
#define QNI_CUDA_LAYOUT_H

#include "../backend/types.h"

#if defined(__CUDACC__)
#define QNI_BOTH static __host__ __device__ inline
#else
#define QNI_BOTH static inline
#endif

enum { QNI_CUDA_ALIGN = 256 };

/* Bits that a code takes in memory. */
QNI_BOTH int32_t qni_cuda_width(const qni_quant *q) {
    return q->bits <= 2 ? 2 : q->bits <= 4 ? 4 : 8;
}
/* Inputs of a run. */
QNI_BOTH int64_t qni_cuda_run_inputs(const qni_quant *q) {
    return 512 / qni_cuda_width(q);
}
QNI_BOTH int64_t qni_cuda_row_bytes(const qni_quant *q, int64_t n_in) {
    const int64_t run = qni_cuda_run_inputs(q);
    return (n_in + run - 1) / run * 64;
}
/* Byte of the code of input i in its row, and the lowest bit within it. */
QNI_BOTH int64_t qni_cuda_code_at(const qni_quant *q, int64_t i, int32_t *bit) {
    const int32_t width = qni_cuda_width(q);
    const int64_t run = 512 / width, in_run = i % run, b = in_run / 32, t = in_run % 32 / 8, j = in_run % 8;
    const int64_t at = (8 * b + j) * width; /* within the piece, in bits */
    *bit = (int32_t)(at % 8);
    return i / run * 64 + t * 16 + at / 8;
}
QNI_BOTH int64_t qni_cuda_n_group(const qni_quant *q, int64_t n_in) {
    return (n_in + q->group - 1) / q->group;
}
QNI_BOTH int64_t qni_cuda_n_scale_out(const qni_quant *q, int64_t n_out) {
    return (n_out + q->group_out - 1) / q->group_out;
}
QNI_BOTH int64_t qni_cuda_scale_element(const qni_quant *q) {
    return q->scale_dtype == QN_DTYPE_F32 ? 4 : 2;
}
QNI_BOTH int64_t qni_cuda_aligned(int64_t bytes) {
    return (bytes + QNI_CUDA_ALIGN - 1) / QNI_CUDA_ALIGN * QNI_CUDA_ALIGN;
}
/* Offsets of the scales and of the biases, and the size of all. */
QNI_BOTH int64_t qni_cuda_scales_at(const qni_weight *w) {
    return qni_cuda_aligned(w->n_out * qni_cuda_row_bytes(&w->quant, w->n_in));
}
QNI_BOTH int64_t qni_cuda_scales_bytes(const qni_weight *w) {
    return qni_cuda_aligned(qni_cuda_n_group(&w->quant, w->n_in) * qni_cuda_n_scale_out(&w->quant, w->n_out) *
                            qni_cuda_scale_element(&w->quant));
}
QNI_BOTH bool qni_cuda_has_biases(const qni_quant *q) {
    return q->kind == QNI_AFFINE && !q->symmetric;
}
QNI_BOTH int64_t qni_cuda_biases_at(const qni_weight *w) {
    return qni_cuda_scales_at(w) + qni_cuda_scales_bytes(w);
}
QNI_BOTH int64_t qni_cuda_quant_bytes(const qni_weight *w) {
    return qni_cuda_biases_at(w) + (qni_cuda_has_biases(&w->quant) ? qni_cuda_scales_bytes(w) : 0);
}

#endif
