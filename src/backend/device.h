/* SPDX-License-Identifier: Apache-2.0 */
/* An open device: a backend's state, its complete table of ops, the lock and the scratch memory of its calls. */
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
    char description[96];
    int32_t n_thread;
    qn_allocator allocator;
    pid_t owner;          /* the process that opened it */
    pthread_mutex_t lock; /* held by whatever computes or copies, see qni_device_lock(); guards what follows */
    qni_buffer scratch;
    void *host; /* host memory of a call, like scratch */
    size_t host_bytes;
};

void qni_device_retain(qn_device *device);
void qni_device_release(qn_device *device);

/* Wait for the device's turn. EDEVICE in a forked child of the process that opened the device: the child has none of the
 * device's workers, and no thread of its own would ever release a lock that was held at the fork. */
qn_status qni_device_lock(qn_device *device, qn_error *err);
/* Take the turn if it can be had at once; never in a forked child. */
bool qni_device_trylock(qn_device *device);
void qni_device_unlock(qn_device *device);
/* Whether this process opened the device; a forked child of it did not. EDEVICE says so. */
bool qni_device_is_own(const qn_device *device);
qn_status qni_device_check_own(const qn_device *device, qn_error *err);

/* Make the device's scratch at least `bytes` large. The caller holds the lock. */
qn_status qni_device_reserve(qn_device *device, size_t bytes, qn_error *err);

/* Host memory of `bytes` for the current call, 8-byte aligned; NULL: no memory. The caller holds the lock. */
void *qni_device_host(qn_device *device, size_t bytes);

/* Memory of the device. Errors: ENOMEM: "WHAT: no memory for N bytes". */
qn_status qni_buffer_create(qn_device *device, qni_buffer *out, size_t bytes, qni_memory_kind kind, const char *what,
                            qn_error *err);
void qni_buffer_free(qn_device *device, qni_buffer *buffer); /* a buffer of zeros is fine; leaves zeros */

/* A run context over the device's whole scratch (or a measuring one). The caller holds the lock for the former. */
qni_run qni_device_run(qn_device *device, qni_scratch *scratch, bool measure, qn_error *err);

struct qn_linear {
    qn_device *device;
    qni_weight weight;
    qni_buffer data; /* what weight.data points to */
};

#endif
