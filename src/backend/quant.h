/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of quantized matrices: decoding, and quantizing dense rows. types.h has the formats. */
#ifndef QNI_QUANT_H
#define QNI_QUANT_H

#include "../base/error.h"
#include "types.h"

static inline int64_t qni_quant_n_group(const qni_quant *q, int64_t n_in) {
    return (n_in + q->group - 1) / q->group;
}

/* Bytes per row of codes, and per row of scales. */
static inline int64_t qni_quant_code_bytes(const qni_quant *q, int64_t n_in) {
    return (n_in * q->bits + 7) / 8;
}
static inline int64_t qni_quant_scale_bytes(const qni_quant *q, int64_t n_in) {
    return qni_quant_n_group(q, n_in) * (int64_t)qn_dtype_bytes(q->scale_dtype);
}

/* Read n unsigned codes of `bits` bits from a little-endian bit stream. */
void qni_quant_read_codes(uint8_t *codes, const unsigned char *stream, int32_t bits, int64_t n);

/* Unpack a row: codes {n_in}, one byte each; scales and biases {n_group}. fp8 has no biases and does not write them. */
void qni_quant_read_row(uint8_t *codes, float *scales, float *biases, const qni_quant *q, const qni_quant_rows *rows,
                        int64_t row, int64_t n_in);

/* The weights of an unpacked row. */
void qni_quant_values(float *out, const qni_quant *q, const uint8_t *codes, const float *scales, const float *biases,
                      int64_t n_in);

/* The weights of n rows: W[i, o] to out[i · in_stride + o · out_stride]. Errors: ENOMEM. */
qn_status qni_quant_dequantize(float *out, int64_t in_stride, int64_t out_stride, const qni_quant *q,
                               const qni_quant_rows *rows, int64_t n, int64_t n_in, qn_error *err);

/* Buffers for unpacked rows: codes {n, n_in}, scales and biases {n, n_group} each. */
typedef struct qni_quant_buffer {
    uint8_t *codes;
    float *scales, *biases;
} qni_quant_buffer;
qn_status qni_quant_buffer_create(qni_quant_buffer *out, const qni_quant *q, int64_t n, int64_t n_in, qn_error *err);
void qni_quant_buffer_free(qni_quant_buffer *buffer);

/* Whether n biases equal -2^(bits-1) times their scales, bit for bit in scale_dtype. */
bool qni_quant_are_symmetric(const qni_quant *q, const void *scales, const void *biases, int64_t n);

/* Whether all of n values (f32, bf16, f16 or f8) are finite. */
bool qni_quant_are_finite(const void *values, qn_dtype dtype, int64_t n);

/* The formats that the library itself produces (docs/quantization.md): affine, bf16 scales; Q8 symmetric, Q4 not. */
qni_quant qni_quant_of(qn_quantize to);

/*
 * Quantize a row: codes, scales and biases laid out as in qni_quant_rows (biases for symmetric formats too). Everything
 * written decodes to finite weights. Returns -1, or the index of an input that cannot be represented, in which case the
 * row is incomplete: a NaN, an infinity, or, in 8 bits, a value whose bias, -128 · scale, overflows bf16 (from 3.376e38
 * on).
 *
 * q     from qni_quant_of(); n_in is a multiple of q->group.
 * Q8    scale = max |x| / 127 or / 128, whichever has the smaller squared error; codes rounded to nearest.
 * Q4    the scale and bias with the least squared error among several ranges that shrink the minimum and maximum, each
 *       refined by one least-squares fit.
 *
 * Where a step is below 2^-126 (bf16 is coarse there) or a magnitude is above 2^126, the bf16 scales just below and
 * above the nearest are also tried.
 */
int64_t qni_quantize_row(unsigned char *codes, uint16_t *scales, uint16_t *biases, const qni_quant *q, const float *x,
                         int64_t n_in);

#endif
