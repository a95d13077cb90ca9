/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a KV cache: the storage format of the key or value of one token and KV head. Float rows are D elements. q8 is
 *
 *   {D} int8 codes, zero-padded to a multiple of 4, f32 scale   scale = max |x| / 127, code = x / scale to nearest even
 *
 * so each row is self-contained, independent of paging. The scale is f32: f16 would save 2 bytes of 132 at D = 128, but
 * keys and values are unbounded, and f16 overflows above 65504 and is coarse below 6e-5. A row that contains a NaN or
 * an infinity gets a NaN scale, so that it never decodes to a number.
 */
#include "../base/half.h"
#include "../base/memory.h"
#include "backend.h"

#include <math.h>
#include <string.h>

static int64_t scale_at(int64_t n) {
    return (int64_t)qni_round_up((size_t)n, sizeof(float));
}

int64_t qni_kv_row_elements(qn_dtype dtype, int64_t n) {
    return dtype == QN_DTYPE_Q8 ? scale_at(n) + (int64_t)sizeof(float) : n;
}

float qni_q8_scale(const void *row, int64_t n) {
    float scale;
    memcpy(&scale, (const char *)row + scale_at(n), sizeof scale);
    return scale;
}

void qni_q8_store(void *row, const float *x, int64_t n) {
    const float round = 0x1.8p23f; /* at this magnitude f32 holds integers only */
    int8_t *codes = row;
    int32_t greatest = 0; /* max of the bits of |x|: integer order is float order, NaN greatest */
    for (int64_t i = 0; i < n; i++) {
        int32_t bits = (int32_t)(qni_bits_of_float(x[i]) & 0x7FFFFFFF);
        greatest = bits > greatest ? bits : greatest;
    }
    float scale = qni_float_of_bits((uint32_t)greatest) / 127;
    const bool any = isfinite(scale) && scale > 0;
    if (!isfinite(scale)) scale = NAN;
    memset(codes, 0, (size_t)scale_at(n));
    for (int64_t i = 0; any && i < n; i++) {
        float code = x[i] / scale;
        code = code > 127 ? 127 : code < -127 ? -127 : code; /* a subnormal scale is coarse */
        codes[i] = (int8_t)(int32_t)((code + round) - round);
    }
    memcpy(codes + scale_at(n), &scale, sizeof scale);
}

void qni_kv_store(void *row, qn_dtype dtype, const float *x, int64_t n) {
    if (dtype == QN_DTYPE_Q8) {
        qni_q8_store(row, x, n);
    } else {
        for (int64_t i = 0; i < n; i++) qni_store_f32(row, dtype, i, x[i]);
    }
}

void qni_kv_load(float *x, const void *row, qn_dtype dtype, int64_t n) {
    if (dtype == QN_DTYPE_Q8) {
        const float scale = qni_q8_scale(row, n);
        for (int64_t i = 0; i < n; i++) x[i] = (float)((const int8_t *)row)[i] * scale;
    } else {
        for (int64_t i = 0; i < n; i++) x[i] = qni_load_f32(row, dtype, i);
    }
}
