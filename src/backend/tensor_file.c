/* SPDX-License-Identifier: Apache-2.0 */
/* The public reader of safetensors files: loads one tensor at a time onto a device, through a small buffer. */
#include "../base/cut.h"
#include "../base/memory.h"
#include "../format/safetensors.h"
#include "dtype.h"
#include "tensor.h"

#include <quern/tensor.h>

/* Chunk size for copying to the device: reading needs no second copy of the tensor. */
enum { PIECE_BYTES = QNI_CUT(1 << 20, 1 << 10) };

struct qn_tensor_file {
    qni_safetensors st;
};

qn_status qn_tensor_file_open(qn_tensor_file **out, const char *path, qn_error *err) {
    if (out == NULL || path == NULL) return qni_fail(err, QN_EINVAL, "tensor_file_open: out or path is NULL");
    qn_tensor_file *file = qni_calloc(1, sizeof *file);
    if (file == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", path);
    qn_status status = qni_safetensors_open(&file->st, path, err);
    if (status != QN_OK) {
        qni_free(file);
        return status;
    }
    *out = file;
    return QN_OK;
}

void qn_tensor_file_close(qn_tensor_file *file) {
    if (file == NULL) return;
    qni_safetensors_close(&file->st);
    qni_free(file);
}

const char *qn_tensor_file_name(const qn_tensor_file *file, size_t index) {
    return file != NULL && index < file->st.n_tensor ? file->st.tensors[index].name : NULL;
}

const char *qn_tensor_file_metadata(const qn_tensor_file *file, const char *key) {
    return file != NULL && key != NULL ? qni_safetensors_metadata(&file->st, key) : NULL;
}

/* Copy one chunk, elements [first, first + n) of a tensor, from the file through `buffer`. */
static qn_status copy_piece(const qn_tensor *tensor, int64_t first, int64_t n, const qn_tensor_file *file,
                            uint64_t offset, void *buffer, qn_error *err) {
    size_t element = qn_dtype_bytes(qn_tensor_dtype(tensor));
    size_t bytes = (size_t)n * element;
    QN_TRY(qni_file_read(&file->st.file, buffer, offset + (uint64_t)first * element, bytes, err));
    qn_tensor *view = NULL;
    QN_TRY(qn_tensor_view(&view, tensor, first, 1, &n, err));
    qn_status status = qn_tensor_write(view, buffer, bytes, err);
    qn_tensor_free(view);
    return status;
}

static qn_status copy_all(const qn_tensor *tensor, const qn_tensor_file *file, const qni_st_tensor *source,
                          qn_error *err) {
    size_t element = qn_dtype_bytes(qn_tensor_dtype(tensor));
    int64_t total = (int64_t)(source->bytes / element), piece = PIECE_BYTES / (int64_t)element;
    void *buffer = qni_calloc((size_t)qni_min_i64(total, piece), element);
    if (buffer == NULL) {
        return qni_fail(err, QN_ENOMEM, "%s: tensor %s: out of memory", file->st.file.path, source->name);
    }
    qn_status status = QN_OK;
    for (int64_t first = 0; first < total && status == QN_OK; first += piece) {
        status = copy_piece(tensor, first, qni_min_i64(piece, total - first), file, source->offset, buffer, err);
    }
    qni_free(buffer);
    return status;
}

qn_status qn_tensor_file_read(qn_tensor **out, qn_tensor_file *file, qn_device *device, const char *name,
                              qn_error *err) {
    if (out == NULL || file == NULL || device == NULL || name == NULL) {
        return qni_fail(err, QN_EINVAL, "tensor_file_read: out, file, device or name is NULL");
    }
    const char *path = file->st.file.path;
    const qni_st_tensor *source = qni_safetensors_find(&file->st, name);
    if (source == NULL) return qni_fail(err, QN_EINVAL, "%s: no tensor %s", path, name);
    qn_dtype dtype = qni_dtype_of_stored(source->dtype);
    if (dtype == QN_DTYPE_DEFAULT) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype %s cannot be read", path, name,
                        qni_st_dtype_name(source->dtype));
    }
    if (source->rank > QN_MAX_RANK) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: rank %d, at most %d", path, name, (int)source->rank,
                        QN_MAX_RANK);
    }
    if (source->bytes == 0) return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s has no elements", path, name);
    static const int64_t one = 1;
    bool scalar = source->rank == 0;
    qn_tensor *tensor = NULL;
    QN_TRY(qn_tensor_create(&tensor, device, dtype, scalar ? 1 : source->rank, scalar ? &one : source->shape, err));
    qn_status status = copy_all(tensor, file, source, err);
    if (status != QN_OK) {
        qn_tensor_free(tensor);
        return status;
    }
    *out = tensor;
    return QN_OK;
}
