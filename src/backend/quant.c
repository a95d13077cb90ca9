/* SPDX-License-Identifier: Apache-2.0 */
/* Decode rows of quantized matrices: scalar code, with fast paths for 4 and 8 bits. */
#include "quant.h"

#include "../base/half.h"
#include "../base/memory.h"
#include "backend.h"

static void read_floats(float *out, const unsigned char *data, qn_dtype dtype, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_load_f32(data, dtype, i);
}

void qni_quant_read_row(uint8_t *codes, float *scales, float *biases, const qni_quant *q, const qni_quant_rows *rows,
                        int64_t row, int64_t n_in) {
    const int64_t n_group = qni_quant_n_group(q, n_in);
    const int64_t scale_at = row / q->group_out * qni_quant_scale_bytes(q, n_in);
    qni_quant_read_codes(codes, rows->codes + row * qni_quant_code_bytes(q, n_in), q->bits, n_in);
    read_floats(scales, rows->scales + scale_at, q->scale_dtype, n_group);
    if (q->kind == QNI_FP8) return;
    if (rows->biases != NULL) {
        read_floats(biases, rows->biases + scale_at, q->scale_dtype, n_group);
        return;
    }
    for (int64_t g = 0; g < n_group; g++) biases[g] = -(float)(1 << (q->bits - 1)) * scales[g];
}

void qni_quant_values(float *out, const qni_quant *q, const uint8_t *codes, const float *scales, const float *biases,
                      int64_t n_in) {
    for (int64_t i = 0; i < n_in; i++) {
        const int64_t g = i / q->group;
        out[i] = q->kind == QNI_FP8 ? scales[g] * qni_f32_of_e4m3(codes[i])
                                    : qni_f32_of_affine(scales[g], codes[i], biases[g]);
    }
}

qn_status qni_quant_buffer_create(qni_quant_buffer *out, const qni_quant *q, int64_t n, int64_t n_in, qn_error *err) {
    const size_t n_scale = (size_t)(n * qni_quant_n_group(q, n_in));
    out->codes = qni_calloc((size_t)n, (size_t)n_in);
    out->scales = qni_calloc(2 * n_scale, sizeof *out->scales);
    out->biases = out->scales != NULL ? out->scales + n_scale : NULL;
    if (out->codes != NULL && out->scales != NULL) return QN_OK;
    qni_quant_buffer_free(out);
    return qni_fail(err, QN_ENOMEM, "linear: no memory for %lld quantized rows", (long long)n);
}

void qni_quant_buffer_free(qni_quant_buffer *buffer) {
    qni_free(buffer->codes);
    qni_free(buffer->scales);
    *buffer = (qni_quant_buffer){0};
}

qn_status qni_quant_dequantize(float *out, int64_t in_stride, int64_t out_stride, const qni_quant *q,
                               const qni_quant_rows *rows, int64_t n, int64_t n_in, qn_error *err) {
    qni_quant_buffer one;
    QN_TRY(qni_quant_buffer_create(&one, q, 1, n_in, err));
    float *row = qni_calloc((size_t)n_in, sizeof *row);
    if (row == NULL) {
        qni_quant_buffer_free(&one);
        return qni_fail(err, QN_ENOMEM, "linear: no memory for a row of %lld", (long long)n_in);
    }
    for (int64_t o = 0; o < n; o++) {
        qni_quant_read_row(one.codes, one.scales, one.biases, q, rows, o, n_in);
        qni_quant_values(row, q, one.codes, one.scales, one.biases, n_in);
        for (int64_t i = 0; i < n_in; i++) out[i * in_stride + o * out_stride] = row[i];
    }
    qni_free(row);
    qni_quant_buffer_free(&one);
    return QN_OK;
}

bool qni_quant_are_symmetric(const qni_quant *q, const void *scales, const void *biases, int64_t n) {
    const float factor = -(float)(1 << (q->bits - 1));
    for (int64_t i = 0; i < n; i++) {
        float wanted = factor * qni_load_f32(scales, q->scale_dtype, i), bias = qni_load_f32(biases, q->scale_dtype, i);
        if (qni_bits_of_float(wanted) != qni_bits_of_float(bias)) return false;
    }
    return true;
}

/* A value is not finite if all exponent bits are set; in f8, if all bits but the sign are. */
bool qni_quant_are_finite(const void *values, qn_dtype dtype, int64_t n) {
    bool bad = false;
    if (dtype == QN_DTYPE_F8) {
        for (int64_t i = 0; i < n; i++) bad |= (((const uint8_t *)values)[i] & 0x7F) == 0x7F;
    } else if (dtype == QN_DTYPE_F32) {
        for (int64_t i = 0; i < n; i++) bad |= (((const uint32_t *)values)[i] & 0x7F800000) == 0x7F800000;
    } else {
        const uint16_t mask = dtype == QN_DTYPE_BF16 ? 0x7F80 : 0x7C00;
        for (int64_t i = 0; i < n; i++) bad |= (((const uint16_t *)values)[i] & mask) == mask;
    }
    return !bad;
}
