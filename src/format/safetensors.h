/* SPDX-License-Identifier: Apache-2.0 */
/* Safetensors files: the whole header is checked on open; data is read with pread, in any order. Source:
 * https://github.com/huggingface/safetensors (README, "Format"). */
#ifndef QNI_SAFETENSORS_H
#define QNI_SAFETENSORS_H

#include "../base/file.h"

#include <jansson.h>

/* Element type names and their bits, as the format spells them. */
#define QNI_ST_DTYPE_MAP(X)                                                                                            \
    X(BOOL, 8)                                                                                                         \
    X(F4, 4)                                                                                                           \
    X(F6_E2M3, 6)                                                                                                      \
    X(F6_E3M2, 6)                                                                                                      \
    X(U8, 8)                                                                                                           \
    X(I8, 8)                                                                                                           \
    X(F8_E5M2, 8)                                                                                                      \
    X(F8_E4M3, 8)                                                                                                      \
    X(F8_E8M0, 8)                                                                                                      \
    X(F8_E4M3FNUZ, 8)                                                                                                  \
    X(F8_E5M2FNUZ, 8)                                                                                                  \
    X(I16, 16)                                                                                                         \
    X(U16, 16)                                                                                                         \
    X(F16, 16)                                                                                                         \
    X(BF16, 16)                                                                                                        \
    X(I32, 32)                                                                                                         \
    X(U32, 32)                                                                                                         \
    X(F32, 32)                                                                                                         \
    X(C64, 64)                                                                                                         \
    X(F64, 64)                                                                                                         \
    X(I64, 64)                                                                                                         \
    X(U64, 64)

typedef enum qni_st_dtype {
#define QNI_ST_DTYPE_ENUM(name, bits) QNI_ST_##name,
    QNI_ST_DTYPE_MAP(QNI_ST_DTYPE_ENUM)
#undef QNI_ST_DTYPE_ENUM
} qni_st_dtype;

const char *qni_st_dtype_name(qni_st_dtype dtype);

enum {
    QNI_ST_MAX_RANK = 8,           /* of any tensor in a file */
    QNI_ST_MAX_HEADER = 100000000, /* bytes, as in the reference implementation */
};

typedef struct qni_st_tensor {
    const char *name; /* borrowed from the header */
    qni_st_dtype dtype;
    int32_t rank; /* 0: a scalar */
    int64_t shape[QNI_ST_MAX_RANK];
    uint64_t offset; /* of its first byte in the file */
    uint64_t bytes;
} qni_st_tensor;

typedef struct qni_safetensors {
    qni_file file;
    char *header; /* the JSON text of the file, header_bytes long */
    size_t header_bytes;
    json_t *root;
    qni_st_tensor *tensors; /* {n_tensor}, sorted by name */
    size_t n_tensor;
} qni_safetensors;

/* Open and check a file. On error nothing stays open. */
qn_status qni_safetensors_open(qni_safetensors *out, const char *path, qn_error *err);
void qni_safetensors_close(qni_safetensors *st); /* accepts a zeroed struct */

/* Find a tensor by name; NULL if not found. */
const qni_st_tensor *qni_safetensors_find(const qni_safetensors *st, const char *name);

/* A value of __metadata__; NULL if not found. */
const char *qni_safetensors_metadata(const qni_safetensors *st, const char *key);

/* "{2, 3}" for messages. */
typedef struct qni_shape_text {
    char text[160];
} qni_shape_text;
qni_shape_text qni_st_shape_text(const qni_st_tensor *tensor);

#endif
