/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor internals: a view of storage that several tensors may share. */
#ifndef QNI_TENSOR_H
#define QNI_TENSOR_H

#include "device.h"

typedef struct qni_storage {
    atomic_int refs;
    qn_device *device;
    qni_buffer own; /* zeros: wraps the caller's memory */
    void *wrapped;
    bool read_only;
    void (*release)(void *user, void *data);
    void *user;
} qni_storage;

struct qn_tensor {
    qni_storage *storage;
    unsigned char *data; /* on the device */
    qn_dtype dtype;
    int32_t rank;
    int64_t shape[QN_MAX_RANK];
    int64_t stride[QN_MAX_RANK]; /* in elements; the last is 1 */
    int64_t n_element;
    int64_t extent; /* elements spanned from first to last, gaps included */
};

static inline bool qni_tensor_is_contiguous(const qn_tensor *tensor) {
    return tensor->extent == tensor->n_element;
}

#endif
