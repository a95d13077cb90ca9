/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the primitives of a case on one device with one combination of dtypes. */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/half.h"
#include "../output.h"
#include "verify_case.h"

/* Operands and outputs on the device. */
typedef struct bench {
    const primitive_case *c;
    qn_device *device;
    const case_types *types;
    qn_tensor *in[CASE_INPUTS];
    qn_linear *packed[CASE_INPUTS];
    qn_tensor *out, *attention_out;
} bench;

static qn_dtype type_of(const case_types *types, int input) {
    if (input == IN_K_CACHE || input == IN_V_CACHE) return types->cache;
    return input == IN_HIDDEN || input >= IN_Q ? types->hidden : types->weight;
}

static bool is_linear(int input) {
    return input >= IN_Q_PROJ && input <= IN_DOWN_PROJ;
}

static qn_status write_floats(qn_tensor *tensor, const float *values, size_t n, qn_error *err) {
    qn_dtype dtype = qn_tensor_dtype(tensor);
    if (dtype == QN_DTYPE_F32) return qn_tensor_write(tensor, values, n * sizeof(float), err);
    uint16_t *half = must_calloc(n, sizeof(*half));
    for (size_t i = 0; i < n; i++)
        half[i] = dtype == QN_DTYPE_BF16 ? qni_bf16_of_f32(values[i]) : qni_f16_of_f32(values[i]);
    qn_status status = qn_tensor_write(tensor, half, n * sizeof(*half), err);
    free(half);
    return status;
}

static qn_status read_floats(const qn_tensor *tensor, array *out, qn_error *err) {
    qn_dtype dtype = qn_tensor_dtype(tensor);
    out->n = qn_tensor_bytes(tensor) / qn_dtype_bytes(dtype);
    out->data = must_calloc(out->n, sizeof(float));
    if (dtype == QN_DTYPE_F32) return qn_tensor_read(tensor, out->data, out->n * sizeof(float), err);
    uint16_t *half = must_calloc(out->n, sizeof(*half));
    qn_status status = qn_tensor_read(tensor, half, out->n * sizeof(*half), err);
    for (size_t i = 0; i < out->n; i++)
        out->data[i] = dtype == QN_DTYPE_BF16 ? qni_f32_of_bf16(half[i]) : qni_f32_of_f16(half[i]);
    free(half);
    return status;
}

static qn_status bench_open(bench *b, bool packed, qn_error *err) {
    qn_status status = QN_OK;
    for (int i = 0; !status && i < CASE_INPUTS; i++) {
        const array *a = &b->c->in[i];
        status = qn_tensor_create(&b->in[i], b->device, type_of(b->types, i), a->rank, a->shape, err);
        if (!status) status = write_floats(b->in[i], a->data, a->n, err);
        if (!status && packed && is_linear(i))
            status = qn_linear_pack(&b->packed[i], b->in[i], QN_LAYOUT_IN_OUT, b->types->arith, err);
    }
    if (!status) status = qn_tensor_create(&b->out, b->device, b->types->hidden, 3, b->c->in[IN_HIDDEN].shape, err);
    if (!status)
        status = qn_tensor_create(&b->attention_out, b->device, b->types->hidden, 3, b->c->attention_shape, err);
    return status;
}

static void bench_close(bench *b) {
    for (int i = 0; i < CASE_INPUTS; i++) {
        qn_linear_free(b->packed[i]);
        qn_tensor_free(b->in[i]);
    }
    qn_tensor_free(b->out);
    qn_tensor_free(b->attention_out);
}

static qn_operand operand(const bench *b, int input) {
    return b->packed[input] ? (qn_operand){.packed = b->packed[input]} : (qn_operand){.plain = b->in[input]};
}

static qn_attention_weights attention_weights(const bench *b) {
    return (qn_attention_weights){.norm = b->in[IN_NORM1],
                                  .q_proj = operand(b, IN_Q_PROJ),
                                  .k_proj = operand(b, IN_K_PROJ),
                                  .v_proj = operand(b, IN_V_PROJ),
                                  .o_proj = operand(b, IN_O_PROJ),
                                  .q_norm = b->in[IN_Q_NORM],
                                  .k_norm = b->in[IN_K_NORM]};
}

static qn_mlp_weights mlp_weights(const bench *b) {
    return (qn_mlp_weights){.norm = b->in[IN_NORM2],
                            .gate_proj = operand(b, IN_GATE_PROJ),
                            .up_proj = operand(b, IN_UP_PROJ),
                            .down_proj = operand(b, IN_DOWN_PROJ)};
}

/* Reset the caches to the case's contents, since primitives write into them. */
static qn_status reset_caches(bench *b, qn_error *err) {
    const array *k = &b->c->in[IN_K_CACHE], *v = &b->c->in[IN_V_CACHE];
    qn_status status = write_floats(b->in[IN_K_CACHE], k->data, k->n, err);
    return status ? status : write_floats(b->in[IN_V_CACHE], v->data, v->n, err);
}

static qn_status run_kv_attention(bench *b, qn_error *err) {
    qn_kv_attention_args args = {.out = b->attention_out,
                                 .q = b->in[IN_Q],
                                 .k = b->in[IN_K],
                                 .v = b->in[IN_V],
                                 .k_cache = b->in[IN_K_CACHE],
                                 .v_cache = b->in[IN_V_CACHE],
                                 .offset = {.value = b->c->offset},
                                 .scale = b->c->scale,
                                 .rope = {.theta = b->c->theta}};
    return qn_kv_attention(&args, err);
}

static qn_status run_mlp(bench *b, qn_error *err) {
    qn_mlp_weights w = mlp_weights(b);
    qn_mlp_args args = {.out = b->out,
                        .hidden = b->in[IN_HIDDEN],
                        .norm = w.norm,
                        .gate_proj = w.gate_proj,
                        .up_proj = w.up_proj,
                        .down_proj = w.down_proj,
                        .eps = b->c->eps};
    return qn_mlp(&args, err);
}

static qn_status run_residual(bench *b, qn_error *err) {
    qn_attention_residual_args args = {
        .out = b->out, .hidden = b->in[IN_HIDDEN], .attn = b->in[IN_ATTN], .o_proj = operand(b, IN_O_PROJ)};
    return qn_attention_residual(&args, err);
}

static qn_status run_block(bench *b, qn_error *err) {
    qn_attention_block_args args = {.out = b->out,
                                    .hidden = b->in[IN_HIDDEN],
                                    .weights = attention_weights(b),
                                    .k_cache = b->in[IN_K_CACHE],
                                    .v_cache = b->in[IN_V_CACHE],
                                    .offset = {.value = b->c->offset},
                                    .scale = b->c->scale,
                                    .rope = {.theta = b->c->theta},
                                    .eps = b->c->eps};
    return qn_attention_block(&args, err);
}

static qn_status run_layer(bench *b, qn_error *err) {
    qn_layer_args args = {.out = b->out,
                          .hidden = b->in[IN_HIDDEN],
                          .weights = {attention_weights(b), mlp_weights(b)},
                          .k_cache = b->in[IN_K_CACHE],
                          .v_cache = b->in[IN_V_CACHE],
                          .offset = {.value = b->c->offset},
                          .scale = b->c->scale,
                          .rope = {.theta = b->c->theta},
                          .eps = b->c->eps};
    return qn_layer(&args, err);
}

static const struct {
    qn_status (*run)(bench *b, qn_error *err);
    int result;
    bool has_caches;
} primitives[] = {
    {run_kv_attention, OUT_ATTENTION, true},
    {run_mlp, OUT_MLP, false},
    {run_residual, OUT_RESIDUAL, false},
    {run_block, OUT_BLOCK, true},
    {run_layer, OUT_LAYER, true},
};

bool case_run(const primitive_case *c, qn_device *device, const case_types *types, bool packed, array got[CASE_RESULTS],
              verdict *v) {
    bench b = {.c = c, .device = device, .types = types};
    qn_error err;
    memset(got, 0, CASE_RESULTS * sizeof(*got));
    qn_status status = bench_open(&b, packed, &err);
    for (size_t i = 0; !status && i < sizeof(primitives) / sizeof(*primitives); i++) {
        int result = primitives[i].result;
        status = reset_caches(&b, &err);
        if (!status) status = primitives[i].run(&b, &err);
        if (!status) status = read_floats(result == OUT_ATTENTION ? b.attention_out : b.out, &got[result], &err);
        if (!status && primitives[i].has_caches) status = read_floats(b.in[IN_K_CACHE], &got[result + 1], &err);
        if (!status && primitives[i].has_caches) status = read_floats(b.in[IN_V_CACHE], &got[result + 2], &err);
    }
    bench_close(&b);
    return status ? verdict_fail_error(v, &err) : true;
}
