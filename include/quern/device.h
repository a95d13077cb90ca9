/* SPDX-License-Identifier: Apache-2.0 */
/** @file device.h
 * A device runs computations. It owns the worker threads and the workspace, and selects the kernels.
 *
 * There are three backends: "cpu" (threaded, vectorized), "cuda" (an NVIDIA GPU; "cuda:1" is the second), and "ref" (plain
 * single-threaded C with double accumulation; slow, and the reference that all other backends are tested against). "cuda"
 * is in a library of its own, libquern-cuda.so, which is opened with the first such device; without it or without a GPU
 * everything else works.
 *
 * Threads: a device may be used from any thread; calls that compute are serialized. Calls on "cpu" and "ref" are
 * synchronous. Calls on "cuda" return when the work is queued; reading a tensor waits for it, and reports what failed
 * since (EDEVICE; ELOST: the device is gone, close it and open it again). Tensors, linears, models and sessions hold a reference to their device. qn_device_close() drops the
 * caller's reference; the device is freed with the last reference, in any order and on any thread.
 *
 * fork(): a device belongs to the process that opened it. A child may close it and free the objects created on it. That
 * frees the child's copy of the memory and does not affect the parent. The child may open its own device. Computing on
 * the parent's device or copying its tensors fails with EDEVICE in the child, on "ref" and with one thread too.
 */
#ifndef QUERN_DEVICE_H
#define QUERN_DEVICE_H

#include "status.h"

typedef struct qn_device qn_device;

/** Allocator for tensors, linears, models, sessions and the workspace. Both functions may be called from any thread.
 * Leave both NULL for the C library's allocator. */
typedef struct qn_allocator {
    /** alignment: a power of two, at most 4096; returns NULL when out of memory */
    void *(*alloc)(void *user, size_t bytes, size_t alignment);
    /** bytes: as given to alloc */
    void (*free)(void *user, void *pointer, size_t bytes);
    void *user;
} qn_allocator;

typedef struct qn_device_options {
    /** Compute threads, including the caller's; at most 512. On "cuda" they load weights. 0: one per CPU available to the process, which is the size
     * of its affinity mask, capped by the CPU quota of its control groups (container). The quota is rounded down to
     * whole CPUs, but at least one. */
    int32_t n_thread;
    /** Pin each worker thread to its own CPU; the calling thread is not pinned. For machines whose scheduler migrates
     * threads. Best effort. */
    bool pin;
    /** The highest instruction set level to use ("portable", "avx2", …; see qn_isa_name); NULL: the best available. A level
     * the machine lacks acts as a cap; an unknown name is an error. */
    const char *isa;
    /** Run fused primitives as compositions of smaller ones (for verification). */
    bool compose;
    /** Must outlive the device and everything created on it. On "cuda" it gives host memory only. */
    qn_allocator allocator;
    /** Path of libquern-cuda.so. NULL: beside the library or the program that contains this one, or in ../lib from there,
     * or where the dynamic linker looks. */
    const char *cuda_library;
} qn_device_options;

/** Description of a device. The strings live as long as the device. */
typedef struct qn_device_info {
    const char *name;        /**< "cpu", "cuda", "cuda:1", …, "ref" */
    const char *isa;         /**< instruction set level in use: "portable", "avx2", …; on "cuda" "sm_90", … */
    const char *description; /**< the processor's or the GPU's name */
    int32_t n_thread;
    uint64_t memory_total_bytes;     /**< of the machine, or the lowest limit of the control groups; of the GPU;
                                          0: unknown */
    uint64_t memory_available_bytes; /**< currently available, as estimated by the operating system and capped by
                                          what the control groups leave; 0: unknown */
} qn_device_info;

/** Peak rates of a device, per second; 0: it has no such operation. */
typedef struct qn_device_peaks {
    double read_bytes;        /**< reading its memory */
    double upload_bytes;      /**< copies from pinned host memory to it */
    double f32_ops, bf16_ops; /**< multiplications and additions, in products of matrices */
} qn_device_peaks;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Open a device.
 *
 * name     "cpu", "cuda", "cuda:N" or "ref"; NULL means "cpu".
 * options  NULL for defaults; copied.
 * Errors   EINVAL: n_thread out of range, unknown isa, half an allocator; EUNSUPPORTED: no backend of that name, or
 *           it cannot be used here (no library, driver or GPU; the message says which);
 *           ENOMEM: out of memory, or a thread could not be started.
 */
QN_NODISCARD QN_API qn_status qn_device_open(qn_device **out, const char *name, const qn_device_options *options,
                                             qn_error *err);

/** Drop the caller's reference. NULL is fine. */
QN_API void qn_device_close(qn_device *device);

/** Describe a device; cannot fail. */
QN_API void qn_device_get_info(const qn_device *device, qn_device_info *out);

/**
 * Measure the peak rates of a GPU: the best of five runs of each loop, about 0.1 s in all.
 *
 * Errors   EUNSUPPORTED: on "cpu" and "ref", whose rates any program on this machine can measure; ENOMEM: needs 2 GiB;
 *          EDEVICE, ELOST.
 */
QN_NODISCARD QN_API qn_status qn_device_measure_peaks(qn_device *device, qn_device_peaks *out, qn_error *err);

/**
 * Count the ids sampled on the device that may differ from those the CPU would sample from the same logits: the random
 * number was within 1e-12 of a boundary between two ids, or top_p within rounding of one. Includes ids computed beyond the
 * end of a text. Starts at 0 when the device is opened; stays 0 on "cpu" and "ref".
 *
 * Errors   EINVAL: NULL; EDEVICE, ELOST.
 */
QN_NODISCARD QN_API qn_status qn_device_count_close_draws(qn_device *device, uint64_t *out, qn_error *err);

/** Name of the index-th device that can be opened, backend by backend: "cpu", "ref", then each GPU; NULL past the last.
 * Static storage. */
QN_API const char *qn_backend_name(int32_t index);

/** Name of the index-th instruction set level that `isa` accepts, lowest first; NULL past the last. `usable` (may be
 * NULL) is set to whether this build has kernels for the level and this machine can run them. */
QN_API const char *qn_isa_name(int32_t index, bool *usable);

#ifdef __cplusplus
}
#endif
#endif
