/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine is: instruction set, processors, memory. */
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
    bool neon; /* AArch64; what is beyond its first version: */
    bool neon_dotprod;
    bool neon_bf16;
    bool neon_i8mm;
} qni_cpu_features;

qni_cpu_features qni_cpu_detect(void);

/* CPUs that this process may use: those it may run on, or fewer where a quota of its control groups gives less time, rounded
 * down; at least 1. */
int32_t qni_cpu_count(void);

/* Bind a thread to the index-th of the CPUs that this process may run on, counted round and round; a hint: where it
 * cannot be done nothing is. */
void qni_cpu_pin(pthread_t thread, int32_t index);

/* The processor's name, into a buffer; "unknown processor" if it does not tell. */
void qni_cpu_name(char *out, size_t size);

/* Memory of the machine, and what can be had without swapping (MemAvailable), or less where control groups have limits;
 * 0: unknown. */
void qni_memory_info(uint64_t *total_bytes, uint64_t *available_bytes);

#endif
