/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors: row-major arrays in device memory or in the caller's. */
#include "tensor.h"

/* Fill in all of `t` except storage and data; stride NULL or zeros: contiguous. */
static qn_status lay_out(qn_tensor *t, qn_dtype dtype, int32_t rank, const int64_t *shape, const int64_t *stride,
                         qn_error *err) {
    if (qn_dtype_bytes(dtype) == 0) return qni_fail(err, QN_EINVAL, "dtype: %d is none", (int)dtype);
    if (dtype == QN_DTYPE_Q8) return qni_fail(err, QN_EINVAL, "dtype: no tensor is q8");
    if (rank < 1 || rank > QN_MAX_RANK) {
        return qni_fail(err, QN_EINVAL, "rank: must be 1 to %d, got %d", QN_MAX_RANK, (int)rank);
    }
    if (shape == NULL) return qni_fail(err, QN_EINVAL, "shape: is NULL");
    t->dtype = dtype;
    t->rank = rank;
    t->n_element = 1;
    for (int32_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        if (shape[i] < 1) {
            return qni_fail(err, QN_EINVAL, "shape[%d]: must be at least 1, got %lld", (int)i, (long long)shape[i]);
        }
    }
    bool strided = false;
    for (int32_t i = 0; stride != NULL && i < rank; i++) strided = strided || stride[i] != 0;
    int64_t block = 1; /* extent of the axes after i */
    for (int32_t i = rank; i-- > 0;) {
        t->stride[i] = strided ? stride[i] : block;
        bool fits = i == rank - 1 ? t->stride[i] == 1 : t->stride[i] >= block;
        if (!fits) {
            return qni_fail(err, QN_EINVAL, "stride[%d]: must be %s%lld, got %lld", (int)i,
                            i == rank - 1 ? "" : "at least ", (long long)block, (long long)t->stride[i]);
        }
        if (__builtin_mul_overflow(t->stride[i], t->shape[i], &block) ||
            __builtin_mul_overflow(t->n_element, t->shape[i], &t->n_element)) {
            return qni_fail(err, QN_EINVAL, "shape: the product of the sizes is too large");
        }
    }
    t->extent = 1;
    for (int32_t i = 0; i < rank; i++) t->extent += (t->shape[i] - 1) * t->stride[i];
    if (t->extent > (int64_t)(PTRDIFF_MAX / qn_dtype_bytes(dtype))) {
        return qni_fail(err, QN_EINVAL, "shape: the product of the sizes is too large");
    }
    return QN_OK;
}

/* Allocate and fill a tensor and, unless shared, its storage; `proto` is copied. */
static qn_status make_tensor(qn_tensor **out, const qn_tensor *proto, qni_storage *shared, qn_device *device,
                             qn_error *err) {
    qn_tensor *tensor = qni_calloc(1, sizeof *tensor);
    qni_storage *storage = shared != NULL ? shared : qni_calloc(1, sizeof *storage);
    if (tensor == NULL || storage == NULL) {
        qni_free(tensor);
        if (shared == NULL) qni_free(storage);
        return qni_fail(err, QN_ENOMEM, "tensor: no memory");
    }
    *tensor = *proto;
    tensor->storage = storage;
    if (shared != NULL) {
        atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
    } else {
        atomic_init(&storage->refs, 1);
        storage->device = device;
        qni_device_retain(device);
    }
    *out = tensor;
    return QN_OK;
}

qn_status qn_tensor_create(qn_tensor **out, qn_device *device, qn_dtype dtype, int32_t rank, const int64_t *shape,
                           qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    if (device == NULL) return qni_fail(err, QN_EINVAL, "device: is NULL");
    qn_tensor proto = {0}, *tensor;
    QN_TRY(lay_out(&proto, dtype, rank, shape, NULL, err));
    const size_t bytes = (size_t)proto.n_element * qn_dtype_bytes(dtype);
    qni_buffer own = {0};
    QN_TRY(qni_buffer_create(device, &own, bytes, QNI_MEMORY_TENSOR, "tensor", err));
    proto.data = own.address;
    qn_status status = device->backend->memory->clear(device->state, own.address, bytes, err);
    if (status == QN_OK) status = make_tensor(&tensor, &proto, NULL, device, err);
    if (status != QN_OK) {
        qni_buffer_free(device, &own);
        return status;
    }
    tensor->storage->own = own;
    *out = tensor;
    return QN_OK;
}

qn_status qn_tensor_wrap(qn_tensor **out, qn_device *device, const qn_wrap *wrap, qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    if (device == NULL) return qni_fail(err, QN_EINVAL, "device: is NULL");
    if (wrap == NULL) return qni_fail(err, QN_EINVAL, "wrap: is NULL");
    if (!device->backend->memory->wraps) {
        return qni_fail(err, QN_EUNSUPPORTED, "wrap: device %s cannot use memory of the host", device->backend->name);
    }
    qn_tensor proto = {0}, *tensor;
    QN_TRY(lay_out(&proto, wrap->dtype, wrap->rank, wrap->shape, wrap->stride, err));
    if (wrap->data == NULL) return qni_fail(err, QN_EINVAL, "data: is NULL");
    size_t element = qn_dtype_bytes(wrap->dtype);
    uintptr_t first = (uintptr_t)wrap->data;
    if (first % element != 0) {
        return qni_fail(err, QN_EINVAL, "data: must be aligned to %zu bytes, is off by %zu", element,
                        (size_t)(first % element));
    }
    if ((size_t)proto.extent * element > UINTPTR_MAX - first) {
        return qni_fail(err, QN_EINVAL, "shape: the product of the sizes is too large");
    }
    proto.data = wrap->data;
    QN_TRY(make_tensor(&tensor, &proto, NULL, device, err));
    tensor->storage->wrapped = wrap->data;
    tensor->storage->read_only = wrap->read_only;
    tensor->storage->release = wrap->release;
    tensor->storage->user = wrap->user;
    *out = tensor;
    return QN_OK;
}

qn_status qn_tensor_view(qn_tensor **out, const qn_tensor *tensor, int64_t first, int32_t rank, const int64_t *shape,
                         qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    if (tensor == NULL) return qni_fail(err, QN_EINVAL, "tensor: is NULL");
    if (!qni_tensor_is_contiguous(tensor)) return qni_fail(err, QN_EINVAL, "tensor: is not contiguous");
    qn_tensor proto = {0};
    QN_TRY(lay_out(&proto, tensor->dtype, rank, shape, NULL, err));
    if (first < 0 || first > tensor->n_element || proto.n_element > tensor->n_element - first) {
        return qni_fail(err, QN_EINVAL, "view: %lld elements from %lld on are beyond the tensor's %lld",
                        (long long)proto.n_element, (long long)first, (long long)tensor->n_element);
    }
    proto.data = tensor->data + (size_t)first * qn_dtype_bytes(tensor->dtype);
    return make_tensor(out, &proto, tensor->storage, NULL, err);
}

void qn_tensor_free(qn_tensor *tensor) {
    if (tensor == NULL) return;
    qni_storage *storage = tensor->storage;
    qni_free(tensor);
    if (atomic_fetch_sub_explicit(&storage->refs, 1, memory_order_acq_rel) != 1) return;
    if (storage->release != NULL) storage->release(storage->user, storage->wrapped);
    qni_buffer_free(storage->device, &storage->own);
    qni_device_release(storage->device);
    qni_free(storage);
}

/* Copy between the tensor and a dense buffer, row by row if there are gaps. Exactly one of `from` and `to` is
 * non-NULL. */
static qn_status copy(const qn_tensor *t, const unsigned char *from, unsigned char *to, qn_error *err) {
    const qn_device *device = t->storage->device;
    const qni_memory_ops *memory = device->backend->memory;
    const size_t element = qn_dtype_bytes(t->dtype);
    const int64_t n_inner = qni_tensor_is_contiguous(t) ? t->n_element : t->shape[t->rank - 1];
    const size_t bytes = (size_t)n_inner * element;
    for (int64_t i = 0; i < t->n_element / n_inner; i++) {
        int64_t rest = i, offset = 0;
        for (int32_t axis = t->rank - 1; axis-- > 0;) {
            offset += rest % t->shape[axis] * t->stride[axis];
            rest /= t->shape[axis];
        }
        if (n_inner == t->n_element) offset = 0;
        unsigned char *own = t->data + (size_t)offset * element;
        const size_t at = (size_t)i * bytes;
        QN_TRY(from != NULL ? memory->write(device->state, own, from + at, bytes, err)
                            : memory->read(device->state, to + at, own, bytes, err));
    }
    return QN_OK;
}

static qn_status check_copy(const qn_tensor *tensor, const void *data, size_t bytes, qn_error *err) {
    if (tensor == NULL) return qni_fail(err, QN_EINVAL, "tensor: is NULL");
    if (data == NULL) return qni_fail(err, QN_EINVAL, "data: is NULL");
    if (bytes != qn_tensor_bytes(tensor)) {
        return qni_fail(err, QN_EINVAL, "bytes: must be %zu, got %zu", qn_tensor_bytes(tensor), bytes);
    }
    return QN_OK;
}

qn_status qn_tensor_write(qn_tensor *tensor, const void *data, size_t bytes, qn_error *err) {
    QN_TRY(check_copy(tensor, data, bytes, err));
    if (tensor->storage->read_only) return qni_fail(err, QN_EINVAL, "tensor: is read-only");
    QN_TRY(qni_device_lock(tensor->storage->device, err));
    qn_status status = copy(tensor, data, NULL, err);
    qni_device_unlock(tensor->storage->device);
    return status;
}

qn_status qn_tensor_read(const qn_tensor *tensor, void *data, size_t bytes, qn_error *err) {
    QN_TRY(check_copy(tensor, data, bytes, err));
    QN_TRY(qni_device_lock(tensor->storage->device, err));
    qn_status status = copy(tensor, NULL, data, err);
    qni_device_unlock(tensor->storage->device);
    return status;
}

qn_device *qn_tensor_device(const qn_tensor *tensor) {
    return tensor != NULL ? tensor->storage->device : NULL;
}
qn_dtype qn_tensor_dtype(const qn_tensor *tensor) {
    return tensor != NULL ? tensor->dtype : QN_DTYPE_DEFAULT;
}
int32_t qn_tensor_rank(const qn_tensor *tensor) {
    return tensor != NULL ? tensor->rank : 0;
}
const int64_t *qn_tensor_shape(const qn_tensor *tensor) {
    return tensor != NULL ? tensor->shape : NULL;
}
size_t qn_tensor_bytes(const qn_tensor *tensor) {
    return tensor != NULL ? (size_t)tensor->n_element * qn_dtype_bytes(tensor->dtype) : 0;
}
