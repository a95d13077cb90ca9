/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel selection for this machine: the portable kernels, overridden by each supported level in ascending order. */
#include "cpu.h"

#include "../base/processor.h"

#include <string.h>

/* Levels in ascending order; `fill` is NULL if this build has no kernels for the level. */
typedef struct level {
    const char *name;
    void (*fill)(qni_cpu_kernels *k);
} level;

static void fill_portable(qni_cpu_kernels *k) {
    qni_cpu_gemm_portable(k);
    qni_cpu_quant_portable(k);
    qni_cpu_rows_portable(k);
    qni_cpu_attention_portable(k);
}

#if defined(__x86_64__)
static void fill_avx2(qni_cpu_kernels *k) {
    if (!qni_cpu_detect().avx2_fma_f16c) return;
    qni_cpu_gemm_avx2(k);
    qni_cpu_pack_avx2(k);
    qni_cpu_quant_avx2(k);
    qni_cpu_rows_avx2(k);
    qni_cpu_attention_avx2(k);
}

static void fill_avx512(qni_cpu_kernels *k) {
    const qni_cpu_features has = qni_cpu_detect();
    if (!has.avx512_vnni) return;
    qni_cpu_gemm_avx512(k);
    qni_cpu_pack_avx512(k);
    qni_cpu_quant_avx512(k);
    qni_cpu_rows_avx512(k);
    qni_cpu_attention_avx512(k);
    if (has.avx512_bf16) qni_cpu_gemm_avx512bf16(k);
}
#else
static void (*const fill_avx2)(qni_cpu_kernels *) = NULL;
static void (*const fill_avx512)(qni_cpu_kernels *) = NULL;
#endif

#if defined(__aarch64__)
static void fill_neon(qni_cpu_kernels *k) {
    const qni_cpu_features has = qni_cpu_detect();
    qni_cpu_gemm_neon(k);
    qni_cpu_quant_neon(k);
    qni_cpu_rows_neon(k);
    qni_cpu_attention_neon(k);
    if (has.neon_dotprod) qni_cpu_quant_neondot(k);
    if (has.neon_i8mm) qni_cpu_quant_neoni8mm(k);
    if (has.neon_bf16) qni_cpu_gemm_neonbf16(k);
}
#else
static void (*const fill_neon)(qni_cpu_kernels *) = NULL;
#endif

static const level levels[] = {
    {"portable", fill_portable}, {"avx2", fill_avx2}, {"avx512", fill_avx512}, {"neon", fill_neon}};

enum { N_LEVEL = sizeof levels / sizeof levels[0] };

const char *qni_cpu_isa_level(int32_t index) {
    return index >= 0 && index < N_LEVEL ? levels[index].name : NULL;
}

qn_status qni_cpu_select(qni_cpu_kernels *out, const char *isa, qn_error *err) {
    int cap = N_LEVEL - 1;
    if (isa != NULL) {
        cap = 0;
        while (cap < N_LEVEL && strcmp(levels[cap].name, isa) != 0) cap++;
        if (cap == N_LEVEL) return qni_fail(err, QN_EINVAL, "isa: unknown instruction set level \"%s\"", isa);
    }
    memset(out, 0, sizeof *out);
    for (int i = 0; i <= cap; i++) {
        if (levels[i].fill != NULL) levels[i].fill(out);
    }
    return QN_OK;
}
