/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch: a bump allocator that, without memory, measures what a call needs; and a device's workspace. Under the
 * address sanitizer only allocated bytes may be touched: red zones are included in the measurement. */
#include "device.h"

static size_t rounded(size_t bytes) {
    return bytes > SIZE_MAX - QNI_ALIGN - QNI_RED_ZONE ? SIZE_MAX : qni_round_up(bytes, QNI_ALIGN);
}

void *qni_scratch_take(qni_scratch *scratch, size_t bytes) {
    size_t at = scratch->used, end;
    if (!qni_add_size(&end, at, rounded(bytes)) || !qni_add_size(&end, end, QNI_RED_ZONE)) end = SIZE_MAX;
    scratch->used = end;
    if (end > scratch->peak) scratch->peak = end;
    /* While measuring, an aligned non-NULL address, so that arithmetic on it stays defined. */
    if (qni_scratch_measures(scratch)) return (void *)(uintptr_t)QNI_ALIGN; // NOLINT(performance-no-int-to-ptr)
    qni_unpoison(scratch->base + at, bytes);
    qni_poison(scratch->base + at + bytes, end - at - bytes);
    return scratch->base + at;
}

void qni_scratch_reset(qni_scratch *scratch, size_t mark) {
    if (!qni_scratch_measures(scratch)) qni_poison(scratch->base + mark, scratch->used - mark);
    scratch->used = mark;
}

void *qni_scratch_array(qni_scratch *scratch, int64_t count, int64_t n, size_t size) {
    size_t bytes;
    if (!qni_mul_size(&bytes, (size_t)count, (size_t)n) || !qni_mul_size(&bytes, bytes, size)) bytes = SIZE_MAX;
    return qni_scratch_take(scratch, bytes);
}

qn_status qni_buffer_create(qn_device *device, qni_buffer *out, size_t bytes, qni_memory_kind kind, const char *what,
                            qn_error *err) {
    qn_status status = device->backend->memory->alloc(device->state, out, bytes, kind, &device->allocator);
    return status == QN_OK ? status : qni_fail(err, status, "%s: no memory for %zu bytes", what, bytes);
}

void qni_buffer_free(qn_device *device, qni_buffer *buffer) {
    if (buffer->address != NULL) {
        (void)device->backend->memory->wait(device->state, NULL); /* a queued op may still be using it */
        device->backend->memory->release(device->state, buffer, &device->allocator);
    }
    *buffer = (qni_buffer){0};
}

qn_status qni_device_reserve(qn_device *device, size_t bytes, qn_error *err) {
    size_t wanted = rounded(bytes > 0 ? bytes : 1);
    if (wanted <= device->scratch.bytes) return QN_OK;
    qni_buffer_free(device, &device->scratch);
    return qni_buffer_create(device, &device->scratch, wanted, QNI_MEMORY_WORKSPACE, "scratch", err);
}

void *qni_device_host(qn_device *device, size_t bytes) {
    return qni_grow(&device->host, &device->host_bytes, bytes > 0 ? bytes : 1, 1) ? device->host : NULL;
}

qni_run qni_device_run(qn_device *device, qni_scratch *scratch, bool measure, qn_error *err) {
    if (!measure && device->scratch.address != NULL) qni_poison(device->scratch.address, device->scratch.bytes);
    *scratch =
        (qni_scratch){.base = measure ? NULL : device->scratch.address, .size = measure ? 0 : device->scratch.bytes};
    return (qni_run){.ops = &device->ops,
                     .memory = device->backend->memory,
                     .backend = device->state,
                     .scratch = scratch,
                     .err = err};
}
