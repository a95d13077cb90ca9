/* SPDX-License-Identifier: Apache-2.0 */
/* Packed linears built from host values, and their results. */
#include "linears.h"

#include "sessions.h"

#include <stdlib.h>
#include <string.h>

static void *zeros(int64_t n, size_t size) {
    void *p = calloc((size_t)n, size);
    assert_non_null(p);
    return p;
}

qn_tensor *matrix_tensor(const matrix *m) {
    const int64_t shape[] = {m->n_out, m->n_in};
    return tensor_make(m->device, m->dtype, 2, shape, m->values);
}

qn_linear *matrix_pack(const matrix *m, qn_arith arith) {
    qn_tensor *weight = matrix_tensor(m);
    qn_linear *linear = NULL;
    assert_ok(qn_linear_pack(&linear, weight, QN_LAYOUT_OUT_IN, arith, err));
    qn_tensor_free(weight);
    return linear;
}

qn_linear *matrix_quantize(const matrix *m, qn_quantize to, qn_arith arith) {
    qn_tensor *weight = matrix_tensor(m);
    qn_linear *linear = NULL;
    assert_ok(qn_linear_quantize(&linear, weight, QN_LAYOUT_OUT_IN, to, arith, err));
    qn_tensor_free(weight);
    return linear;
}

/* A row of codes as one little-endian bit stream. */
static unsigned char *stream_of(const coded *c) {
    const int64_t row_bytes = c->n_in * c->bits / 8;
    unsigned char *stream = zeros(c->n_out * row_bytes, 1);
    for (int64_t i = 0; i < c->n_out * c->n_in; i++) {
        const int64_t at = i / c->n_in * row_bytes * 8 + i % c->n_in * c->bits;
        const unsigned spread = (unsigned)c->codes[i] << at % 8;
        stream[at / 8] |= (unsigned char)spread;
        if (spread > 255) stream[at / 8 + 1] |= (unsigned char)(spread >> 8);
    }
    return stream;
}

qn_status coded_pack(qn_linear **out, const coded *c, qn_arith arith, qn_error *err) {
    const bool fp8 = c->group_out > 0;
    const int64_t n_group = (c->n_in + c->group - 1) / c->group;
    const int64_t n_group_out = fp8 ? (c->n_out + c->group_out - 1) / c->group_out : c->n_out;
    const int64_t codes[] = {c->n_out, fp8 ? c->n_in : c->n_in * c->bits / 32}, scales[] = {n_group_out, n_group};
    unsigned char *stream = stream_of(c);
    qn_tensor *t = NULL;
    assert_int_equal(qn_tensor_create(&t, c->device, fp8 ? QN_DTYPE_F8 : QN_DTYPE_U32, 2, codes, NULL), QN_OK);
    assert_int_equal(qn_tensor_write(t, stream, qn_tensor_bytes(t), NULL), QN_OK);
    qn_tensor *s = tensor_make(c->device, c->scale_dtype, 2, scales, c->scales);
    qn_tensor *b = c->biases != NULL ? tensor_make(c->device, c->scale_dtype, 2, scales, c->biases) : NULL;
    const qn_quantized quantized = {
        .codes = t, .scales = s, .biases = b, .bits = fp8 ? 0 : c->bits, .group = c->group, .group_out = c->group_out};
    qn_status status = qn_linear_pack_quantized(out, &quantized, arith, err);
    qn_tensor_free(t);
    qn_tensor_free(s);
    qn_tensor_free(b);
    free(stream);
    return status;
}

float *linear_apply(qn_device *device, const qn_linear *linear, const float *x, int64_t n_row) {
    const int64_t n_in = qn_linear_n_in(linear), n_out = qn_linear_n_out(linear);
    const int64_t in[] = {1, n_row, n_in}, out[] = {1, n_row, n_out};
    float *none = zeros(n_row * n_out, sizeof *none);
    qn_tensor *attn = tensor_make(device, QN_DTYPE_F32, 3, in, x);
    qn_tensor *hidden = tensor_make(device, QN_DTYPE_F32, 3, out, none);
    const qn_attention_residual_args args = {.out = hidden, .hidden = hidden, .attn = attn, .o_proj.packed = linear};
    assert_ok(qn_attention_residual(&args, err));
    free(none);
    float *y = tensor_floats(hidden);
    qn_tensor_free(attn);
    qn_tensor_free(hidden);
    return y;
}

float *linear_values(qn_device *device, const qn_linear *linear) {
    const int64_t n_in = qn_linear_n_in(linear), n_out = qn_linear_n_out(linear);
    float *ones = zeros(n_in * n_in, sizeof *ones), *w = zeros(n_out * n_in, sizeof *w);
    for (int64_t i = 0; i < n_in; i++) ones[i * n_in + i] = 1;
    float *y = linear_apply(device, linear, ones, n_in);
    for (int64_t o = 0; o < n_out; o++) {
        for (int64_t i = 0; i < n_in; i++) w[o * n_in + i] = y[i * n_out + o];
    }
    free(ones);
    free(y);
    return w;
}
