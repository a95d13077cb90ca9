/* SPDX-License-Identifier: Apache-2.0 */
/* Packing of the cpu backend; kernels.h has the layouts, backend.h documents the functions. */
#ifndef QNI_CPU_PACK_H
#define QNI_CPU_PACK_H

#include "cpu.h"

qn_status qni_cpu_packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err);
void qni_cpu_pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                  int64_t in_stride, int64_t out_stride);
qn_status qni_cpu_pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                 const qni_quant *source, const qni_quant_rows *rows, qn_error *err);

/* The layout of a quantized weight's panels. */
qni_cpu_quant qni_cpu_quant_of(const qni_weight *weight);

/* The weights of one output as f32 {n_in}. scratch: at least n_in, and kc · nr, floats. */
void qni_cpu_read_output(const qni_cpu_kernels *k, float *out, const qni_weight *weight, int64_t output,
                         float *scratch);

#endif
