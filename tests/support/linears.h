/* SPDX-License-Identifier: Apache-2.0 */
/* Packed linears built from host values, and their results. Every failure ends the test. */
#ifndef QNI_TEST_LINEARS_H
#define QNI_TEST_LINEARS_H

#include "problem.h"

/* A matrix {out, in} on the host, of f32 or (rounded) bf16 values. */
typedef struct matrix {
    qn_device *device;
    qn_dtype dtype;
    int64_t n_in, n_out;
    const float *values;
} matrix;

qn_tensor *matrix_tensor(const matrix *m);
qn_linear *matrix_pack(const matrix *m, qn_arith arith);
qn_linear *matrix_quantize(const matrix *m, qn_quantize to, qn_arith arith);

/* Affine {out, in}, or fp8 if group_out is not 0. `codes` has one byte per code and is packed here; biases NULL:
 * symmetric. */
typedef struct coded {
    qn_device *device;
    int64_t n_in, n_out;
    int bits, group, group_out;
    const unsigned char *codes;
    qn_dtype scale_dtype;
    const float *scales, *biases;
} coded;
qn_status coded_pack(qn_linear **out, const coded *c, qn_arith arith, qn_error *err);

/* x {n_row, in} · W {n_row, out}, allocated. */
float *linear_apply(qn_device *device, const qn_linear *linear, const float *x, int64_t n_row);

/* W {out, in} itself, allocated; recovered with one unit row per input. */
float *linear_values(qn_device *device, const qn_linear *linear);

#endif
