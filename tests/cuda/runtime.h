/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for the CUDA runtime, so that the host code of src/cuda runs without a GPU. Work is queued and runs when
 * somebody waits for it or asks whether it is done, so copies and kernels that the host does not wait for really come
 * late. Device memory is accessible only while work runs (not in sanitizer builds, where it is ordinary memory with their
 * red zones). A use that CUDA would not allow ends the program.
 */
#ifndef QNI_TEST_CUDA_RUNTIME_H
#define QNI_TEST_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the next calls do; tests set it while nothing runs. */
typedef struct fake_settings {
    int64_t fail_malloc;  /* this allocation from now on fails, of the device's and of pinned memory; 0: none */
    int64_t fail_capture; /* this cudaGraphInstantiate fails for lack of memory */
    int64_t lose_at;      /* from this call on everything fails with cudaErrorIllegalAddress; 0: never */
    int driver;           /* its version; 0: no driver */
    int n_device;
    int major, minor;
    cudaError_t count_error; /* of cudaGetDeviceCount */
} fake_settings;

/* What has happened. */
typedef struct fake_counts {
    int64_t n_call, n_malloc;
    int64_t n_block, n_pinned, n_stream, n_event, n_graph, n_exec, n_blas; /* that exist */
    int64_t n_instantiated, n_launched;
} fake_counts;

/* A GPU of compute capability 9.0 that works; what exists is kept. */
void fake_reset(void);
void fake_set(const fake_settings *settings);
fake_settings fake_defaults(void);
fake_counts fake_get(void);
/* All that exists, in one number. */
int64_t fake_living(void);

/* Queue work on a copy of `arguments`. */
typedef void fake_work(void *arguments);
cudaError_t fake_queue(cudaStream_t stream, fake_work *work, const void *arguments, size_t bytes);
void fake_count_blas(int change);

/* End the program: CUDA would not allow this. */
_Noreturn void fake_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define FAKE_CHECK(condition) ((condition) ? (void)0 : fake_refuse("%s:%d: %s", __FILE__, __LINE__, #condition))

#endif
