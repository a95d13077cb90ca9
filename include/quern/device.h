/* SPDX-License-Identifier: Apache-2.0 */
/** @file device.h
 * A device computes: it owns worker threads, scratch memory and the choice of kernels.
 *
 * Two backends exist: "cpu" (threaded, vectorized) and "ref" (plain C with double accumulation:
 * slow, one thread, and what all others are tested against).
 *
 * Threads: any thread may call anything with one device; calls that compute take turns on it. A
 * call on "cpu" or "ref" is complete when it returns. Tensors, linears, models and sessions keep
 * their device alive: qn_device_close() gives up the caller's reference, and the device ends with
 * the last of them, in any order and on any thread.
 *
 * fork(): a device belongs to the process that opened it. A child may close it, and what was made on it, which frees
 * the child's copy of the memory and leaves the parent's device alone; it may open a device of its own. Whatever would
 * compute on the parent's device or copy its tensors, on "ref" and with one thread too, is EDEVICE in the child.
 */
#ifndef QUERN_DEVICE_H
#define QUERN_DEVICE_H

#include "status.h"

typedef struct qn_device qn_device;

/** Where the memory of tensors, linears, models, sessions and scratch comes from. Both functions may be called from
 * any thread. Leave both NULL for the C library's allocator. */
typedef struct qn_allocator {
    /** alignment: a power of two, at most 4096; NULL: no memory */
    void *(*alloc)(void *user, size_t bytes, size_t alignment);
    /** bytes: as given to alloc */
    void (*free)(void *user, void *pointer, size_t bytes);
    void *user;
} qn_allocator;

typedef struct qn_device_options {
    /** Threads that compute, the caller's included, at most 512; 0: one for each CPU that this process may use: those
     * of its affinity mask, or fewer where a control group (a container) has a quota, which is rounded down to whole
     * CPUs, at least one. */
    int32_t n_thread;
    /** Bind each thread that the device starts to a CPU of its own; the caller's are left alone. For machines whose
     * scheduler moves threads about; a hint. */
    bool pin;
    /** The highest instruction set level to use ("portable", "avx2", …; see qn_isa_name); NULL: the best there is. A
     * known name above what the machine has is a cap and no error; an unknown name is one. */
    const char *isa;
    /** Run large primitives as compositions of the small ones (for verification). */
    bool compose;
    /** Must outlive the device and everything made on it. */
    qn_allocator allocator;
} qn_device_options;

/** What a device is; the strings live as long as the device. */
typedef struct qn_device_info {
    const char *name;        /**< "cpu" or "ref" */
    const char *isa;         /**< level in use: "portable", "avx2", … */
    const char *description; /**< the processor's name */
    int32_t n_thread;
    uint64_t memory_total_bytes;     /**< of the machine, or the least limit of its control groups; 0: unknown */
    uint64_t memory_available_bytes; /**< now, as the operating system estimates it, and at most what the control
                                          groups leave; 0: unknown */
} qn_device_info;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Open a device.
 *
 * name     "cpu" or "ref"; NULL means "cpu".
 * options  NULL for defaults; copied.
 * Errors   EINVAL: n_thread out of range, unknown isa, half an allocator; EUNSUPPORTED: no backend of that name;
 *          ENOMEM: no memory or no thread.
 */
QN_NODISCARD QN_API qn_status qn_device_open(qn_device **out, const char *name, const qn_device_options *options,
                                             qn_error *err);

/** Give up the caller's reference. NULL is fine. */
QN_API void qn_device_close(qn_device *device);

/** Describe a device; cannot fail. */
QN_API void qn_device_get_info(const qn_device *device, qn_device_info *out);

/** Names of the backends of this build, best first; NULL from `index` = their number on. Static storage. */
QN_API const char *qn_backend_name(int32_t index);

/** Names of the instruction set levels that `isa` accepts, lowest first; NULL from `index` = their number on.
 * `usable` (may be NULL) tells whether this build has kernels for the level and this machine can run them. */
QN_API const char *qn_isa_name(int32_t index, bool *usable);

#ifdef __cplusplus
}
#endif
#endif
