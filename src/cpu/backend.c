/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend's table: opening, packing, and the list of its ops. */
#include "cpu.h"

#include <string.h>

static void close_cpu(void *state) {
    qni_cpu *cpu = state;
    if (cpu == NULL) return;
    qni_pool_free(cpu->pool);
    qni_free(cpu);
}

static qn_status open_cpu(void **state, const char **isa_out, const qn_device_options *options, int32_t n_thread,
                          qn_error *err) {
    qni_cpu *cpu = qni_calloc(1, sizeof *cpu);
    if (cpu == NULL) return qni_fail(err, QN_ENOMEM, "no memory for the cpu device");
    cpu->n_thread = n_thread;
    qn_status status = qni_cpu_select(&cpu->kernels, options->isa, err);
    if (status == QN_OK) status = qni_pool_create(&cpu->pool, n_thread, err);
    if (status != QN_OK) {
        close_cpu(cpu);
        return status;
    }
    *isa_out = cpu->kernels.isa;
    *state = cpu;
    return QN_OK;
}

/* Panels are padded to whole ones, groups likewise; rows of a panel follow each other. */
static qn_status packing(const void *state, qni_packing *out, qn_dtype dtype, qn_arith arith, int64_t n_in,
                         int64_t n_out, qn_error *err) {
    const qni_cpu *cpu = state;
    const qni_cpu_kernels *k = &cpu->kernels;
    if (arith == QN_ARITH_BF16) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith bf16: needs a native bf16 dot product, which isa %s does not have",
                        k->isa);
    }
    if (arith == QN_ARITH_INT8) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith int8: for quantised weights, these are %s", qn_dtype_name(dtype));
    }
    if (dtype != QN_DTYPE_F32 && dtype != QN_DTYPE_BF16 && dtype != QN_DTYPE_F16) {
        return qni_fail(err, QN_EUNSUPPORTED, "weights must be f32, bf16 or f16, these are %s", qn_dtype_name(dtype));
    }
    qni_weight form = {.dtype = dtype, .arith = QN_ARITH_F32, .packed = true, .n_in = n_in, .n_out = n_out};
    form.nr = k->nr;
    form.ki = k->ki;
    form.group_stride = k->nr * k->ki;
    size_t n_panel = (size_t)qni_ceil_div(n_out, k->nr), panel, elements, bytes;
    if (!qni_mul_size(&panel, (size_t)qni_ceil_div(n_in, k->ki), (size_t)form.group_stride) ||
        !qni_mul_size(&elements, panel, n_panel) || !qni_mul_size(&bytes, elements, qn_dtype_bytes(dtype)) ||
        bytes > INT64_MAX) {
        return qni_fail(err, QN_ENOMEM, "a linear of %lld x %lld is too large", (long long)n_in, (long long)n_out);
    }
    form.panel_stride = (int64_t)panel;
    *out = (qni_packing){form, bytes};
    return QN_OK;
}

/* One panel, its n_valid outputs from src on. Sources with contiguous outputs are copied, all others are taken as rows
 * of inputs: those with a stride (neither axis contiguous) through single elements. */
static void pack_panel(const qni_cpu_kernels *k, const qni_weight *form, unsigned char *panel, int64_t n_valid,
                       const unsigned char *src, int64_t in_stride, int64_t out_stride) {
    const size_t bytes = qn_dtype_bytes(form->dtype);
    if (in_stride == 1 && bytes == 2) {
        k->transpose2((uint16_t *)(void *)panel, (const uint16_t *)(const void *)src, out_stride, n_valid, form->n_in);
        return;
    }
    if (in_stride == 1) {
        k->transpose4((uint32_t *)(void *)panel, (const uint32_t *)(const void *)src, out_stride, n_valid, form->n_in);
        return;
    }
    for (int64_t i = 0; i < form->n_in; i++) {
        unsigned char *row = panel + (size_t)(i * form->nr) * bytes;
        if (out_stride == 1) {
            memcpy(row, src + (size_t)(i * in_stride) * bytes, (size_t)n_valid * bytes);
        } else {
            for (int64_t o = 0; o < n_valid; o++) {
                memcpy(row + (size_t)o * bytes, src + (size_t)(i * in_stride + o * out_stride) * bytes, bytes);
            }
        }
        memset(row + (size_t)n_valid * bytes, 0, (size_t)(form->nr - n_valid) * bytes);
    }
}

static void pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride) {
    const qni_cpu *cpu = state;
    const size_t bytes = qn_dtype_bytes(form->dtype);
    for (int64_t o = 0; o < n; o += form->nr) {
        unsigned char *panel = (unsigned char *)data + (size_t)((first + o) / form->nr * form->panel_stride) * bytes;
        const unsigned char *from = (const unsigned char *)src + (size_t)(o * out_stride) * bytes;
        pack_panel(&cpu->kernels, form, panel, qni_min_i64(form->nr, n - o), from, in_stride, out_stride);
    }
}

static void parallel(void *state, int32_t n_task, void (*task)(void *context, int32_t task, int32_t thread),
                     void *context) {
    qni_cpu *cpu = state;
    qni_pool_run(cpu->pool, n_task, task, context);
}

const qni_backend qni_backend_cpu = {
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
    .ops =
        {
            .embed = qni_cpu_op_embed,
            .rms_norm = qni_cpu_op_rms_norm,
            .linear = qni_cpu_op_linear,
            .kv_attention = qni_cpu_op_kv_attention,
            .attention_residual = qni_cpu_op_attention_residual,
            .swiglu = qni_cpu_op_swiglu,
            .argmax = qni_cpu_op_argmax,
            .mlp = qni_cpu_op_mlp,
            .attention_block = qni_cpu_op_attention_block,
            .layer = qni_cpu_op_layer,
            .head = qni_cpu_op_head,
        },
    .packing = packing,
    .pack = pack,
    .parallel = parallel,
};
