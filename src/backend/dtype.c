/* SPDX-License-Identifier: Apache-2.0 */
/* Dtypes: names, sizes, those of safetensors files, and single elements as f32. */
#include "dtype.h"

#include "../base/half.h"
#include "backend.h"

const char *qn_dtype_name(qn_dtype dtype) {
    switch (dtype) {
#define NAME_CASE(name, value, bytes, text)                                                                            \
    case QN_DTYPE_##name:                                                                                              \
        return text;
        QN_DTYPE_MAP(NAME_CASE)
#undef NAME_CASE
    case QN_DTYPE_DEFAULT:
        break;
    }
    return "?";
}

size_t qn_dtype_bytes(qn_dtype dtype) {
    switch (dtype) {
#define BYTES_CASE(name, value, bytes, text)                                                                           \
    case QN_DTYPE_##name:                                                                                              \
        return bytes;
        QN_DTYPE_MAP(BYTES_CASE)
#undef BYTES_CASE
    case QN_DTYPE_DEFAULT:
        break;
    }
    return 0;
}

qn_dtype qni_dtype_of_stored(qni_st_dtype stored) {
    switch (stored) {
    case QNI_ST_F32:
        return QN_DTYPE_F32;
    case QNI_ST_BF16:
        return QN_DTYPE_BF16;
    case QNI_ST_F16:
        return QN_DTYPE_F16;
    case QNI_ST_I32:
        return QN_DTYPE_S32;
    case QNI_ST_I64:
        return QN_DTYPE_S64;
    case QNI_ST_U32:
        return QN_DTYPE_U32;
    case QNI_ST_F8_E4M3:
        return QN_DTYPE_F8;
    default:
        return QN_DTYPE_DEFAULT;
    }
}

float qni_load_f32(const void *data, qn_dtype dtype, int64_t index) {
    if (dtype == QN_DTYPE_F32) return ((const float *)data)[index];
    uint16_t half = ((const uint16_t *)data)[index];
    return dtype == QN_DTYPE_BF16 ? qni_f32_of_bf16(half) : qni_f32_of_f16(half);
}

void qni_store_f32(void *data, qn_dtype dtype, int64_t index, float value) {
    if (dtype == QN_DTYPE_F32) {
        ((float *)data)[index] = value;
    } else {
        ((uint16_t *)data)[index] = dtype == QN_DTYPE_BF16 ? qni_bf16_of_f32(value) : qni_f16_of_f32(value);
    }
}
