/* SPDX-License-Identifier: Apache-2.0 */
/* An open device: the backend's state, the complete table of ops, the lock and the workspace of calls. */
#ifndef QNI_DEVICE_H
#define QNI_DEVICE_H

#include "../base/memory.h"
#include "backend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct qn_device {
    atomic_int refs;
    const qni_backend *backend;
    void *state;
    qni_ops ops; /* complete */
    const char *isa;
    char name[16]; /* "cuda:1" */
    char description[96];
    int32_t n_thread;
    qn_allocator allocator;
    pid_t owner;          /* the process that opened it */
    pthread_mutex_t lock; /* held while computing or copying, see qni_device_lock(); guards the fields below */
    qni_buffer scratch;
    void *host; /* host workspace of a call, the counterpart of scratch */
    size_t host_bytes;
};

void qni_device_retain(qn_device *device);
void qni_device_release(qn_device *device);

/* Acquire the device. EDEVICE in a forked child of the process that opened it: the child has none of the device's
 * workers, and a lock held at the fork would never be released there. */
qn_status qni_device_lock(qn_device *device, qn_error *err);
/* Acquire the device if it is free; always false in a forked child. */
bool qni_device_trylock(qn_device *device);
void qni_device_unlock(qn_device *device);
/* Whether this process opened the device (false in a forked child). The second form returns EDEVICE if not. */
bool qni_device_is_own(const qn_device *device);
qn_status qni_device_check_own(const qn_device *device, qn_error *err);

/* The memory that the device computes in; 0: unknown. */
void qni_device_memory(const qn_device *device, uint64_t *total_bytes, uint64_t *available_bytes);

/* Grow the device's workspace to at least `bytes`. The caller holds the lock. */
qn_status qni_device_reserve(qn_device *device, size_t bytes, qn_error *err);

/* Host memory of `bytes` for the current call, 8-byte aligned; NULL on allocation failure. The caller holds the
 * lock. */
void *qni_device_host(qn_device *device, size_t bytes);

/* Device memory. Errors: ENOMEM: "WHAT: no memory for N bytes". */
qn_status qni_buffer_create(qn_device *device, qni_buffer *out, size_t bytes, qni_memory_kind kind, const char *what,
                            qn_error *err);
void qni_buffer_free(qn_device *device, qni_buffer *buffer); /* accepts a zeroed buffer; zeroes it */

/* A run context over the device's whole workspace, or a measuring one. Unless measuring, the caller holds the lock. */
qni_run qni_device_run(qn_device *device, qni_scratch *scratch, bool measure, qn_error *err);

struct qn_linear {
    qn_device *device;
    qni_weight weight;
    qni_buffer data; /* what weight.data points to */
};

#endif
