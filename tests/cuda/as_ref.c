/* SPDX-License-Identifier: Apache-2.0 */
/* Replaces src/backend/registry.c: the CUDA backend over the stand-in as "ref", so that the tests of `ref` run on it:
 * it computes in f32 unless it is told otherwise, has ref's defaults, and asks the caller's allocator for the bytes that
 * it takes, which tests count. */
#include "../../src/backend/backend.h"
#include "../../src/base/memory.h"

extern const qni_backend qni_cuda_backend;

static qn_status packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err) {
    qni_source exact = *source;
    if (exact.arith == QN_ARITH_AUTO) exact.arith = QN_ARITH_F32;
    return qni_cuda_backend.packing(state, out, &exact, err);
}

static qn_status alloc(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind,
                       const qn_allocator *allocator) {
    void *accounted = bytes <= PTRDIFF_MAX ? qni_device_alloc(allocator, bytes) : NULL;
    if (accounted == NULL) return QN_ENOMEM;
    const qn_status status = qni_cuda_backend.memory->alloc(state, out, bytes, kind, allocator);
    if (status == QN_OK) out->handle = accounted;
    if (status != QN_OK) qni_device_free(allocator, accounted, bytes);
    return status;
}

static void release(void *state, const qni_buffer *buffer, const qn_allocator *allocator) {
    qni_cuda_backend.memory->release(state, buffer, allocator);
    qni_device_free(allocator, buffer->handle, buffer->bytes);
}

static qni_backend as_ref;
static qni_memory_ops memory;

__attribute__((constructor)) static void make(void) {
    as_ref = qni_cuda_backend;
    memory = *as_ref.memory;
    memory.alloc = alloc;
    memory.release = release;
    as_ref.memory = &memory;
    as_ref.name = "ref";
    as_ref.packing = packing;
    as_ref.describe = NULL;
    as_ref.kv_dtype = qni_backend_ref.kv_dtype;
    as_ref.n_batch = qni_backend_ref.n_batch;
    as_ref.kv_block_tokens = qni_backend_ref.kv_block_tokens;
}

const qni_backend *qni_backend_at(int32_t index) {
    return index == 0 ? &qni_backend_cpu : index == 1 ? &as_ref : NULL;
}
