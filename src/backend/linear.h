/* SPDX-License-Identifier: Apache-2.0 */
/* Filling packed weights: from dense rows, from dense rows that are quantized on the way, from quantized ones. */
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

/* A packed weight while it is filled. Ranges of outputs may be filled on any threads at once. */
typedef struct qni_filling {
    const qn_device *device;
    qni_weight *weight; /* its data is memory of the device */
    atomic_bool far;    /* a range has weights far from 1 */
} qni_filling;

/* Fill outputs [first, first + n), first a multiple of the unit. `rows` begins at output `first`. */
void qni_linear_fill(qni_filling *filling, int64_t first, int64_t n, const qni_dense_rows *rows);
qn_status qni_linear_fill_quantized(qni_filling *filling, int64_t first, int64_t n, const qni_quant *source,
                                    const qni_quant_rows *rows, qn_error *err);
/* Once all outputs are filled: settle how weights far from 1 are multiplied, for the whole linear, so that an output
 * depends on no batch and no chunk. */
void qni_linear_finish(qni_filling *filling);
/* Quantize dense rows; `to` is from qni_quant_of(), and the inputs are a multiple of its group. */
qn_status qni_linear_quantize(qni_filling *filling, int64_t first, int64_t n, const qni_quant *to,
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
