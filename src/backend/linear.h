/* SPDX-License-Identifier: Apache-2.0 */
/* Filling packed linears: from dense rows, from dense rows quantized on the fly, or from quantized rows. Disjoint
 * ranges of outputs may be filled concurrently. */
#ifndef QNI_LINEAR_H
#define QNI_LINEAR_H

#include "tensor.h"

/* Outputs of a dense matrix: W[i, o] at data[i · in_stride + o · out_stride], in elements of dtype. */
typedef struct qni_dense_rows {
    const void *data;
    qn_dtype dtype;
    int64_t in_stride, out_stride;
} qni_dense_rows;

/* A packed linear with its data allocated but not yet filled. */
qn_status qni_linear_create(qn_linear **out, qn_device *device, const qni_source *source, qn_error *err);

/* Ranges of outputs are split at multiples of this: whole panels and whole groups of outputs. */
static inline int64_t qni_linear_unit(const qni_weight *form, const qni_source *source) {
    int64_t group_out = source->quant.kind == QNI_FP8 ? source->quant.group_out : 1;
    int64_t unit = form->nr;
    while (unit % group_out != 0) unit += form->nr;
    return unit;
}

/* Fill outputs [first, first + n), first a multiple of the unit. `rows` starts at output `first`. */
void qni_linear_fill(qn_linear *linear, int64_t first, int64_t n, const qni_dense_rows *rows);
qn_status qni_linear_fill_quantized(qn_linear *linear, int64_t first, int64_t n, const qni_quant *source,
                                    const qni_quant_rows *rows, qn_error *err);
/* Call once all outputs are filled: decide for the whole linear how weights far from 1 are multiplied, so that an
 * output does not depend on batch or chunk. Copies of linear->weight must be refreshed. */
void qni_linear_finish(qn_linear *linear);
/* Quantize dense rows; `to` is from qni_quant_of(), and the number of inputs is a multiple of its group. */
qn_status qni_linear_quantize(qn_linear *linear, int64_t first, int64_t n, const qni_quant *to,
                              const qni_dense_rows *rows, qn_error *err);

/* Output of quantizing a block of dense rows. */
typedef struct qni_quantized_rows {
    unsigned char *codes;
    uint16_t *scales, *biases;
    float *row; /* buffer for one row in f32 */
} qni_quantized_rows;

/* Quantize n rows of n_in inputs as qni_quantize_row() does; the first is row `first` of its matrix. Errors: EFORMAT: a
 * value that cannot be represented, named by row and input. */
qn_status qni_quantize_rows(const qni_quantized_rows *out, const qni_quant *to, const qni_dense_rows *rows,
                            int64_t first, int64_t n, int64_t n_in, qn_error *err);

/* Validate a quantized operand and fill in quant, n_in and n_out of *source (quant_check.c). */
qn_status qni_quantized_check(qni_source *source, const qn_quantized *weight, qn_error *err);

#endif
