/* SPDX-License-Identifier: Apache-2.0 */
/* Machine properties: instruction set, processors, memory. */
#ifndef QNI_PROCESSOR_H
#define QNI_PROCESSOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Features that both the processor and the operating system (XCR0; AArch64: AT_HWCAP) support. */
typedef struct qni_cpu_features {
    bool avx2_fma_f16c; /* AVX2, FMA, F16C */
    bool avx512;        /* F BW VL DQ, and all of AVX2 */
    bool avx512_bf16;
    bool avx512_vnni;
    bool neon; /* AArch64; extensions beyond the baseline: */
    bool neon_dotprod;
    bool neon_bf16;
    bool neon_i8mm;
} qni_cpu_features;

qni_cpu_features qni_cpu_detect(void);

/* CPUs available to this process: those in its affinity mask, or fewer if a control group's quota (rounded down)
 * limits it; at least 1. */
int32_t qni_cpu_count(void);

/* Pin a thread to the index-th CPU of this process's affinity mask, modulo their number. Best effort. */
void qni_cpu_pin(pthread_t thread, int32_t index);

/* Copy the processor's name into a buffer; "unknown processor" if not available. */
void qni_cpu_name(char *out, size_t size);

/* Total memory of the machine, and memory available without swapping (MemAvailable); less if control groups limit
 * it. 0: unknown. */
void qni_memory_info(uint64_t *total_bytes, uint64_t *available_bytes);

#endif
