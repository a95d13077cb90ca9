/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend's table: open, close and the list of ops. */
#include "pack.h"

static void close_cpu(void *state) {
    qni_cpu *cpu = state;
    if (cpu == NULL) return;
    qni_pool_free(cpu->pool);
    qni_free(cpu);
}

static qn_status open_cpu(void **state, const char **isa_out, const qni_opening *how, qn_error *err) {
    qni_cpu *cpu = qni_calloc(1, sizeof *cpu);
    if (cpu == NULL) return qni_fail(err, QN_ENOMEM, "no memory for the cpu device");
    cpu->n_thread = how->n_thread;
    qn_status status = qni_cpu_select(&cpu->kernels, how->options->isa, err);
    if (status == QN_OK) status = qni_pool_create(&cpu->pool, how->n_thread, how->options->pin, err);
    if (status != QN_OK) {
        close_cpu(cpu);
        return status;
    }
    *isa_out = cpu->kernels.isa;
    *state = cpu;
    return QN_OK;
}

static void parallel(void *state, int32_t n_task, qni_task task, void *context) {
    qni_cpu *cpu = state;
    qni_pool_run(cpu->pool, n_task, task, context);
}

const qni_backend qni_backend_cpu = {
    .name = "cpu",
    .kv_block_tokens = QNI_CPU_KV_BLOCK, /* one block of the summation order is one block of the pool */
    .kv_by_head = true,                  /* so that a task reads one stream */
    .isa_level = qni_cpu_isa_level,
    .open = open_cpu,
    .close = close_cpu,
    .memory = &qni_host_memory,
    .ops =
        {
            .embed = qni_cpu_op_embed,
            .rms_norm = qni_cpu_op_rms_norm,
            .linear = qni_cpu_op_linear,
            .rope = qni_op_rope,
            .kv_attention = qni_cpu_op_kv_attention,
            .linear_add = qni_cpu_op_linear_add,
            .swiglu = qni_cpu_op_swiglu,
            .argmax = qni_cpu_op_argmax,
            .mlp = qni_cpu_op_mlp,
            .attention_block = qni_cpu_op_attention_block,
            .layer = qni_cpu_op_layer,
            .lm_head = qni_cpu_op_lm_head,
        },
    .packing = qni_cpu_packing,
    .pack = qni_cpu_pack,
    .pack_quantized = qni_cpu_pack_quantized,
    .parallel = parallel,
    .first_touch = qni_cpu_first_touch,
};
