/* SPDX-License-Identifier: Apache-2.0 */
/* Devices: opening, sharing and describing them. ops.c has the computation, the backends its implementations. */
#include "device.h"
#include "../base/processor.h"
#include "plugin.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREAD = 512 };

/* Name of the index-th instruction set level of the backends; NULL past the last. */
static const char *isa_level(int32_t index) {
    const qni_backend *backend;
    for (int32_t i = 0; (backend = qni_backend_at(i)) != NULL; i++) {
        if (backend->isa_level != NULL) return backend->isa_level(index);
    }
    return NULL;
}

static bool isa_is_known(const char *name) {
    const char *level;
    for (int32_t i = 0; (level = isa_level(i)) != NULL; i++) {
        if (strcmp(level, name) == 0) return true;
    }
    return false;
}

/* A level is usable if some backend accepts it as a cap: only the backends know their kernels. */
static bool isa_is_usable(const char *name) {
    const qn_device_options options = {.isa = name};
    const qni_opening how = {.options = &options, .n_thread = 1, .host = &qni_this_host};
    const qni_backend *backend;
    for (int32_t i = 0; (backend = qni_backend_at(i)) != NULL; i++) {
        void *state = NULL;
        const char *isa = NULL;
        if (backend->open(&state, &isa, &how, NULL) != QN_OK) continue;
        bool same = strcmp(isa, name) == 0;
        backend->close(state);
        if (same) return true;
    }
    return false;
}

const char *qn_isa_name(int32_t index, bool *usable) {
    const char *level = index >= 0 ? isa_level(index) : NULL;
    if (level != NULL && usable != NULL) *usable = isa_is_usable(level);
    return level;
}

static qn_status check_options(const qn_device_options *o, qn_error *err) {
    if (o->n_thread < 0 || o->n_thread > MAX_THREAD) {
        return qni_fail(err, QN_EINVAL, "n_thread: must be 0 to %d, got %d", MAX_THREAD, (int)o->n_thread);
    }
    if (o->isa != NULL && !isa_is_known(o->isa)) {
        return qni_fail(err, QN_EINVAL, "isa: unknown instruction set level \"%s\"", o->isa);
    }
    if ((o->allocator.alloc == NULL) != (o->allocator.free == NULL)) {
        return qni_fail(err, QN_EINVAL, "allocator: needs both alloc and free");
    }
    return QN_OK;
}

qn_status qn_device_open(qn_device **out, const char *name, const qn_device_options *options, qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    qn_device_options o = options != NULL ? *options : (qn_device_options){0};
    if (name == NULL) name = "cpu";
    QN_TRY(check_options(&o, err));
    const qni_backend *backend = NULL;
    int32_t index = 0;
    QN_TRY(qni_backend_find(&backend, &index, name, o.cuda_library, err));

    qn_device *device = qni_calloc(1, sizeof *device);
    if (device == NULL) return qni_fail(err, QN_ENOMEM, "device: no memory");
    device->backend = backend;
    device->allocator = o.allocator;
    device->owner = getpid();
    device->n_thread = backend->parallel == NULL ? 1
                       : o.n_thread > 0          ? o.n_thread
                                                 : (int32_t)qni_min_i64(qni_cpu_count(), MAX_THREAD);
    snprintf(device->name, sizeof device->name, index > 0 ? "%s:%d" : "%s", backend->name, (int)index);
    if (pthread_mutex_init(&device->lock, NULL) != 0) {
        qni_free(device);
        return qni_fail(err, QN_ENOMEM, "device: no memory for a lock");
    }
    const qni_opening how = {.options = &o, .index = index, .n_thread = device->n_thread, .host = &qni_this_host};
    qn_status status = backend->open(&device->state, &device->isa, &how, err);
    if (status != QN_OK) {
        pthread_mutex_destroy(&device->lock);
        qni_free(device);
        return status;
    }
    device->ops = backend->ops;
    qni_compose(&device->ops, o.compose);
    qni_cpu_name(device->description, sizeof device->description);
    if (backend->describe != NULL) {
        qni_device_facts facts;
        backend->describe(device->state, &facts);
        snprintf(device->description, sizeof device->description, "%s", facts.description);
    }
    atomic_init(&device->refs, 1);
    *out = device;
    return QN_OK;
}

void qni_device_retain(qn_device *device) {
    atomic_fetch_add_explicit(&device->refs, 1, memory_order_relaxed);
}

void qni_device_release(qn_device *device) {
    if (device == NULL || atomic_fetch_sub_explicit(&device->refs, 1, memory_order_acq_rel) != 1) return;
    qni_buffer_free(device, &device->scratch);
    device->backend->close(device->state);
    qni_free(device->host);
    /* A parent thread may have held the lock at the fork; in the child it then stays locked forever. */
    if (qni_device_is_own(device)) pthread_mutex_destroy(&device->lock);
    qni_free(device);
}

qn_status qni_device_check_own(const qn_device *device, qn_error *err) {
    if (qni_device_is_own(device)) return QN_OK;
    return qni_fail(err, QN_EDEVICE, "device: opened by process %d before fork(); process %d must open its own",
                    (int)device->owner, (int)getpid());
}

qn_status qni_device_lock(qn_device *device, qn_error *err) {
    QN_TRY(qni_device_check_own(device, err));
    pthread_mutex_lock(&device->lock);
    return QN_OK;
}

bool qni_device_trylock(qn_device *device) {
    return qni_device_is_own(device) && pthread_mutex_trylock(&device->lock) == 0;
}

bool qni_device_is_own(const qn_device *device) {
    return device->owner == getpid();
}

void qni_device_unlock(qn_device *device) {
    pthread_mutex_unlock(&device->lock);
}

void qn_device_close(qn_device *device) {
    qni_device_release(device);
}

void qni_device_memory(const qn_device *device, uint64_t *total_bytes, uint64_t *available_bytes) {
    if (device->backend->describe == NULL) {
        qni_memory_info(total_bytes, available_bytes);
        return;
    }
    qni_device_facts facts = {0};
    if (qni_device_is_own(device)) device->backend->describe(device->state, &facts);
    *total_bytes = facts.memory_total_bytes;
    *available_bytes = facts.memory_available_bytes;
}

void qn_device_get_info(const qn_device *device, qn_device_info *out) {
    if (device == NULL || out == NULL) return;
    *out = (qn_device_info){
        .name = device->name, .isa = device->isa, .description = device->description, .n_thread = device->n_thread};
    qni_device_memory(device, &out->memory_total_bytes, &out->memory_available_bytes);
}

qn_status qn_device_measure_peaks(qn_device *device, qn_device_peaks *out, qn_error *err) {
    if (device == NULL || out == NULL) return qni_fail(err, QN_EINVAL, "peaks: device or out is NULL");
    if (device->backend->measure_peaks == NULL) {
        return qni_fail(err, QN_EUNSUPPORTED, "peaks: the program itself can measure those of \"%s\"", device->name);
    }
    QN_TRY(qni_device_lock(device, err));
    const qn_status status = device->backend->measure_peaks(device->state, out, err);
    qni_device_unlock(device);
    return status;
}

qn_status qn_device_count_close_draws(qn_device *device, uint64_t *out, qn_error *err) {
    if (device == NULL || out == NULL) return qni_fail(err, QN_EINVAL, "close draws: device or out is NULL");
    QN_TRY(qni_device_lock(device, err));
    uint64_t n = 0;
    qn_status status = QN_OK;
    if (device->backend->count_close_draws != NULL) {
        status = device->backend->count_close_draws(device->state, &n, err);
    }
    qni_device_unlock(device);
    if (status == QN_OK) *out = n;
    return status;
}
