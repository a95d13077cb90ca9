/* SPDX-License-Identifier: Apache-2.0 */
/** @file tensor.h
 * Dense tensors on a device: the operands of ops.h.
 *
 * A tensor is row-major. Its last axis is contiguous. The other axes may have larger strides in tensors that wrap the
 * caller's memory. Views share memory with their source and keep it alive.
 *
 * Threads: tensors may be created, read, written and freed on any thread. Reads and writes are serialized with the
 * computations of their device; ordering between threads is up to the caller.
 */
#ifndef QUERN_TENSOR_H
#define QUERN_TENSOR_H

#include "device.h"

/** Element types: QN_DTYPE_ name, value, bytes, text. bf16 and f16 are stored as 16-bit patterns, f8 (e4m3, without
 * infinities) as bytes. f8 is only for the codes of quantized matrices. q8 (int8 codes with one scale per row) is only
 * for a session's KV cache, never for a tensor. */
#define QN_DTYPE_MAP(X)                                                                                                \
    X(F32, 1, 4, "f32")                                                                                                \
    X(BF16, 2, 2, "bf16")                                                                                              \
    X(F16, 3, 2, "f16")                                                                                                \
    X(S32, 4, 4, "s32")                                                                                                \
    X(S64, 5, 8, "s64")                                                                                                \
    X(U32, 6, 4, "u32")                                                                                                \
    X(F8, 7, 1, "f8")                                                                                                  \
    X(Q8, 8, 1, "q8")

typedef enum qn_dtype {
    QN_DTYPE_DEFAULT = 0, /**< in options: the documented default of the field; never the dtype of a tensor */
#define QN_DTYPE_ENUM(name, value, bytes, text) QN_DTYPE_##name = (value),
    QN_DTYPE_MAP(QN_DTYPE_ENUM)
#undef QN_DTYPE_ENUM
} qn_dtype;

#define QN_MAX_RANK 4

typedef struct qn_tensor qn_tensor;

/** Describes the caller's memory, to be used as a tensor without a copy. */
typedef struct qn_wrap {
    qn_dtype dtype;
    int32_t rank;               /**< 1 … QN_MAX_RANK */
    int64_t shape[QN_MAX_RANK]; /**< each >= 1 */
    /** In elements; all zeros: contiguous. Otherwise the last stride is 1 and each other stride is at least the extent
     * (stride × shape) of the next axis, so that rows never overlap. */
    int64_t stride[QN_MAX_RANK];
    void *data;     /**< aligned to the element size; on "cpu" and "ref" ordinary memory */
    bool read_only; /**< the library never writes to it, and rejects it as an output or a cache */
    /** Called once, when the last tensor over the memory is freed, on the thread that frees it; may be NULL. */
    void (*release)(void *user, void *data);
    void *user;
} qn_wrap;

#ifdef __cplusplus
extern "C" {
#endif

/** "f32", "bf16", …; "?" for an unknown dtype. Static storage. */
QN_API const char *qn_dtype_name(qn_dtype dtype);

/** Bytes of one element; 0 for an unknown dtype. */
QN_API size_t qn_dtype_bytes(qn_dtype dtype);

/**
 * Create a tensor filled with zeros.
 *
 * shape    rank sizes, each >= 1; their product times the element size must fit in memory.
 * Errors   EINVAL: rank, a size or the dtype; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tensor_create(qn_tensor **out, qn_device *device, qn_dtype dtype, int32_t rank,
                                               const int64_t *shape, qn_error *err);

/**
 * Wrap the caller's memory as a tensor. It must stay valid until `release` is called (or the last tensor is freed).
 *
 * Errors   EINVAL: rank, a size, a stride, the dtype, NULL or misaligned data; ENOMEM. `release` is not called on error.
 */
QN_NODISCARD QN_API qn_status qn_tensor_wrap(qn_tensor **out, qn_device *device, const qn_wrap *wrap, qn_error *err);

/**
 * View elements [first, first + product of shape) of a contiguous tensor under another shape. Memory is shared.
 *
 * Errors   EINVAL: rank, a size, out of range, or the source is not contiguous; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tensor_view(qn_tensor **out, const qn_tensor *tensor, int64_t first, int32_t rank,
                                             const int64_t *shape, qn_error *err);

/** Free a tensor. Memory shared with views stays until the last of them is freed. NULL is fine. */
QN_API void qn_tensor_free(qn_tensor *tensor);

/**
 * Copy all elements in (write) or out (read), densely packed, in the tensor's own dtype.
 *
 * bytes    must be qn_tensor_bytes().
 * Errors   EINVAL: bytes differ, NULL data, or writing to a read-only tensor.
 */
QN_NODISCARD QN_API qn_status qn_tensor_write(qn_tensor *tensor, const void *data, size_t bytes, qn_error *err);
QN_NODISCARD QN_API qn_status qn_tensor_read(const qn_tensor *tensor, void *data, size_t bytes, qn_error *err);

QN_API qn_device *qn_tensor_device(const qn_tensor *tensor); /**< borrowed */
QN_API qn_dtype qn_tensor_dtype(const qn_tensor *tensor);
QN_API int32_t qn_tensor_rank(const qn_tensor *tensor);
QN_API const int64_t *qn_tensor_shape(const qn_tensor *tensor); /**< borrowed; rank sizes */
QN_API size_t qn_tensor_bytes(const qn_tensor *tensor);         /**< elements × element size, without gaps */

/** A safetensors file open for reading. Its header has been fully validated: sizes, overlaps, gaps, duplicate names.
 * May be used by one thread at a time. */
typedef struct qn_tensor_file qn_tensor_file;

/**
 * Open a safetensors file.
 *
 * Errors   EIO: it cannot be read; EFORMAT: it is malformed; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tensor_file_open(qn_tensor_file **out, const char *path, qn_error *err);
QN_API void qn_tensor_file_close(qn_tensor_file *file); /**< NULL is fine */

/** Name of the index-th tensor in sorted order; NULL past the last. Borrowed. */
QN_API const char *qn_tensor_file_name(const qn_tensor_file *file, size_t index);

/** A value of the file's metadata, or NULL. Borrowed. */
QN_API const char *qn_tensor_file_metadata(const qn_tensor_file *file, const char *key);

/**
 * Read one tensor onto a device. F32, BF16, F16, I32, I64, U32 and F8_E4M3 can be read; a scalar becomes {1}.
 *
 * Errors   EINVAL: no tensor of that name; EUNSUPPORTED: its dtype or a rank above QN_MAX_RANK; EIO; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tensor_file_read(qn_tensor **out, qn_tensor_file *file, qn_device *device,
                                                  const char *name, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
