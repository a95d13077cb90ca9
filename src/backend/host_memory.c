/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory that is host memory: calls complete before they return, and copies are memcpy(). */
#include "../base/memory.h"
#include "backend.h"

#include <string.h>

static qn_status alloc(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind,
                       const qn_allocator *allocator) {
    (void)state;
    void *address = bytes <= PTRDIFF_MAX ? qni_device_alloc(allocator, bytes) : NULL;
    if (address == NULL) return QN_ENOMEM;
    if (kind == QNI_MEMORY_WEIGHTS) qni_advise_large_pages(address, bytes);
    *out = (qni_buffer){.address = address, .bytes = bytes};
    return QN_OK;
}

static void release(void *state, const qni_buffer *buffer, const qn_allocator *allocator) {
    (void)state;
    qni_device_free(allocator, buffer->address, buffer->bytes);
}

static qn_status transfer(void *state, void *to, const void *from, size_t bytes, qn_error *err) {
    (void)state, (void)err;
    if (bytes > 0) memcpy(to, from, bytes);
    return QN_OK;
}

static qn_status clear(void *state, void *to, size_t bytes, qn_error *err) {
    (void)state, (void)err;
    memset(to, 0, bytes);
    return QN_OK;
}

static qn_status wait_done(void *state, qn_error *err) {
    (void)state, (void)err;
    return QN_OK;
}

const qni_memory_ops qni_host_memory = {.alloc = alloc,
                                        .release = release,
                                        .write = transfer,
                                        .read = transfer,
                                        .copy = transfer,
                                        .clear = clear,
                                        .wait = wait_done,
                                        .wraps = true};
