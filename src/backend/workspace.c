/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a device, and the workspace that its calls share. */
#include "device.h"

qn_status qni_buffer_create(qn_device *device, qni_buffer *out, size_t bytes, qni_memory_kind kind, const char *what,
                            qn_error *err) {
    qn_status status = device->backend->memory->alloc(device->state, out, bytes, kind, &device->allocator);
    if (status != QN_ENOMEM) return status == QN_OK ? status : qni_fail(err, status, "%s: the device failed", what);
    if (device->backend->describe == NULL) return qni_fail(err, status, "%s: no memory for %zu bytes", what, bytes);
    qni_device_facts facts = {0};
    device->backend->describe(device->state, &facts);
    return qni_fail(err, status, "%s: no memory on %s for %zu bytes, %llu are free", what, device->name, bytes,
                    (unsigned long long)facts.memory_available_bytes);
}

void qni_buffer_free(qn_device *device, qni_buffer *buffer) {
    if (buffer->address != NULL) {
        (void)device->backend->memory->wait(device->state, NULL); /* a queued op may still be using it */
        device->backend->memory->release(device->state, buffer, &device->allocator);
    }
    *buffer = (qni_buffer){0};
}

qn_status qni_device_reserve(qn_device *device, size_t bytes, qn_error *err) {
    size_t wanted = qni_scratch_round(bytes > 0 ? bytes : 1);
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
