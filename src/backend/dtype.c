/* SPDX-License-Identifier: Apache-2.0 */
/* Names and sizes of dtypes. */
#include <quern/tensor.h>

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
