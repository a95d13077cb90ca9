/* SPDX-License-Identifier: Apache-2.0 */
/* The operands of each primitive as tables: name, form, use, sizes. validate.c checks them. */
#include "validate.h"

#include <string.h>

/* Rows of a table: (name, object), optionally with explicit sizes. */
#define READ(name_, form_, tensor_, ...)                                                                               \
    { .name = (name_), .form = (form_), .use = QNI_READ_FLOAT, .dims = {__VA_ARGS__}, .tensor = (tensor_) }
#define LINEAR(name_, operand_, in_, out_)                                                                             \
    { .name = (name_), .form = QNI_LINEAR, .use = QNI_READ_FLOAT, .dims = {in_, out_}, .linear = (operand_) }
#define VOCABULARY(name_, operand_)                                                                                    \
    { .name = (name_), .form = QNI_VOCABULARY, .use = QNI_READ_FLOAT, .dims = {QNI_V, QNI_H}, .linear = (operand_) }
#define STREAM_OUT(tensor_)                                                                                            \
    { .name = "out", .form = QNI_HIDDEN, .use = QNI_WRITE_STREAM, .dims = {QNI_B, QNI_T, QNI_H}, .tensor = (tensor_) }
#define HIDDEN(tensor_)                                                                                                \
    { .name = "hidden", .form = QNI_HIDDEN, .use = QNI_READ_STREAM, .dims = {QNI_B, QNI_T, QNI_H}, .tensor = (tensor_) }
#define CACHE(name_, tensor_)                                                                                          \
    {                                                                                                                  \
        .name = (name_), .form = QNI_CACHE, .use = QNI_WRITE_CACHE, .dims = {QNI_B, QNI_NKV, QNI_C, QNI_D},            \
        .tensor = (tensor_), .late = true                                                                              \
    }

/* An operand table being built; rows are appended. */
typedef struct table {
    qni_arg *rows;
    int n;
} table;

static void append(table *t, const qni_arg *rows, size_t bytes) {
    memcpy(t->rows + t->n, rows, bytes);
    t->n += (int)(bytes / sizeof *rows);
}
#define APPEND(t, ...)                                                                                                 \
    do {                                                                                                               \
        const qni_arg rows_[] = {__VA_ARGS__};                                                                         \
        append((t), rows_, sizeof rows_);                                                                              \
    } while (0)

static void append_offset(table *t, const qn_offset *offset) {
    if (offset->tensor == NULL) return;
    APPEND(t,
           {.name = "offset", .form = QNI_OFFSET, .use = QNI_READ_POSITION, .dims = {QNI_B}, .tensor = offset->tensor});
}

static void append_attention(table *t, const qn_attention_weights *w, const char *norm) {
    APPEND(t, READ(norm, QNI_VECTOR, w->norm, QNI_H), LINEAR("q_proj", &w->q_proj, QNI_H, QNI_A),
           LINEAR("k_proj", &w->k_proj, QNI_H, QNI_KV), LINEAR("v_proj", &w->v_proj, QNI_H, QNI_KV),
           LINEAR("o_proj", &w->o_proj, QNI_A, QNI_H), READ("q_norm", QNI_VECTOR, w->q_norm, QNI_D),
           READ("k_norm", QNI_VECTOR, w->k_norm, QNI_D));
}

static void append_mlp(table *t, const qn_mlp_weights *w, const char *norm) {
    APPEND(t, READ(norm, QNI_VECTOR, w->norm, QNI_H), LINEAR("gate_proj", &w->gate_proj, QNI_H, QNI_I),
           LINEAR("up_proj", &w->up_proj, QNI_H, QNI_I), LINEAR("down_proj", &w->down_proj, QNI_I, QNI_H));
}

static void append_caches(table *t, const qn_tensor *k_cache, const qn_tensor *v_cache) {
    APPEND(t, CACHE("k_cache", k_cache), CACHE("v_cache", v_cache));
}

static qn_status missing_args(qn_error *err) {
    return qni_fail(err, QN_EINVAL, "args: is NULL");
}

static int kv_attention_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_kv_attention_args *a = args;
    table t = {out, 0};
    APPEND(&t, READ("q", QNI_HEADS, a->q, QNI_B, QNI_T, QNI_NQ, QNI_D),
           READ("k", QNI_HEADS, a->k, QNI_B, QNI_T, QNI_NKV, QNI_D),
           READ("v", QNI_HEADS, a->v, QNI_B, QNI_T, QNI_NKV, QNI_D),
           {.name = "out",
            .form = QNI_HIDDEN,
            .use = QNI_WRITE_STREAM,
            .dims = {QNI_B, QNI_T, QNI_A},
            .tensor = a->out,
            .late = true});
    append_caches(&t, a->k_cache, a->v_cache);
    append_offset(&t, &a->offset);
    return t.n;
}

qn_status qni_check_kv_attention(const qn_kv_attention_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {.args = args,
                     .table = kv_attention_table,
                     .out = args->out,
                     .stream = args->q,
                     .offset = &args->offset,
                     .rope = &args->rope,
                     .scale = &args->scale};
    return qni_validate(&call, dims, err);
}

static int mlp_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_mlp_args *a = args;
    table t = {out, 0};
    APPEND(&t, HIDDEN(a->hidden), STREAM_OUT(a->out), READ("norm", QNI_VECTOR, a->norm, QNI_H),
           LINEAR("gate_proj", &a->gate_proj, QNI_H, QNI_I), LINEAR("up_proj", &a->up_proj, QNI_H, QNI_I),
           LINEAR("down_proj", &a->down_proj, QNI_I, QNI_H));
    return t.n;
}

qn_status qni_check_mlp(const qn_mlp_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {.args = args, .table = mlp_table, .out = args->out, .stream = args->hidden, .eps = &args->eps};
    return qni_validate(&call, dims, err);
}

static int attention_residual_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_attention_residual_args *a = args;
    table t = {out, 0};
    APPEND(&t, HIDDEN(a->hidden), STREAM_OUT(a->out), READ("attn", QNI_HIDDEN, a->attn, QNI_B, QNI_T, QNI_A),
           LINEAR("o_proj", &a->o_proj, QNI_A, QNI_H));
    return t.n;
}

qn_status qni_check_attention_residual(const qn_attention_residual_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {.args = args, .table = attention_residual_table, .out = args->out, .stream = args->hidden};
    return qni_validate(&call, dims, err);
}

static int attention_block_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_attention_block_args *a = args;
    table t = {out, 0};
    APPEND(&t, HIDDEN(a->hidden), STREAM_OUT(a->out));
    append_attention(&t, &a->weights, "norm");
    append_caches(&t, a->k_cache, a->v_cache);
    append_offset(&t, &a->offset);
    return t.n;
}

qn_status qni_check_attention_block(const qn_attention_block_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {.args = args,
                     .table = attention_block_table,
                     .out = args->out,
                     .stream = args->hidden,
                     .offset = &args->offset,
                     .rope = &args->rope,
                     .scale = &args->scale,
                     .eps = &args->eps};
    return qni_validate(&call, dims, err);
}

static int layer_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_layer_args *a = args;
    table t = {out, 0};
    APPEND(&t, HIDDEN(a->hidden), STREAM_OUT(a->out));
    append_attention(&t, &a->weights.attention, "norm1");
    append_mlp(&t, &a->weights.mlp, "norm2");
    append_caches(&t, a->k_cache, a->v_cache);
    append_offset(&t, &a->offset);
    return t.n;
}

qn_status qni_check_layer(const qn_layer_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {.args = args,
                     .table = layer_table,
                     .out = args->out,
                     .stream = args->hidden,
                     .offset = &args->offset,
                     .rope = &args->rope,
                     .scale = &args->scale,
                     .eps = &args->eps};
    return qni_validate(&call, dims, err);
}

static int greedy_table(const void *args, int32_t layer, qni_arg *out) {
    (void)layer;
    const qn_greedy_args *a = args;
    table t = {out, 0};
    APPEND(&t, HIDDEN(a->hidden),
           {.name = "out", .form = QNI_TOKENS, .use = QNI_WRITE_ID, .dims = {QNI_B}, .tensor = a->out},
           READ("norm", QNI_VECTOR, a->norm, QNI_H), VOCABULARY("lm_head", &a->lm_head));
    return t.n;
}

qn_status qni_check_greedy(const qn_greedy_args *args, qni_dims *dims, qn_error *err) {
    if (args == NULL) return missing_args(err);
    qni_call call = {
        .args = args, .table = greedy_table, .out = args->out, .eps = &args->eps, .n_valid = &args->n_valid};
    return qni_validate(&call, dims, err);
}

static int forward_greedy_table(const void *args, int32_t layer, qni_arg *out) {
    const qn_forward_greedy_args *a = args;
    table t = {out, 0};
    if (layer >= 0) {
        append_attention(&t, &a->layers[layer].attention, "norm1");
        append_mlp(&t, &a->layers[layer].mlp, "norm2");
        append_caches(&t, a->k_caches[layer], a->v_caches[layer]);
        return t.n;
    }
    if (a->ids != NULL) {
        APPEND(&t, {.name = "ids", .form = QNI_IDS, .use = QNI_READ_ID, .dims = {QNI_B, QNI_T}, .tensor = a->ids});
    } else {
        APPEND(&t, HIDDEN(a->hidden));
    }
    APPEND(&t, {.name = "out", .form = QNI_IDS, .use = QNI_WRITE_ID, .dims = {QNI_B, QNI_COUNT}, .tensor = a->out},
           READ("norm", QNI_VECTOR, a->norm, QNI_H), VOCABULARY("lm_head", &a->lm_head));
    if (a->ids != NULL || a->count > 1 || a->embedding.plain != NULL || a->embedding.packed != NULL) {
        APPEND(&t, VOCABULARY("embedding", &a->embedding));
    }
    append_offset(&t, &a->offset);
    return t.n;
}

qn_status qni_check_forward_greedy(const qn_forward_greedy_args *args, qni_dims *dims, qn_error *err) {
    enum { MAX_LAYER = 512, MAX_COUNT = 4096 };
    if (args == NULL) return missing_args(err);
    if ((args->ids == NULL) == (args->hidden == NULL)) {
        return qni_fail(err, QN_EINVAL, "ids: exactly one of ids and hidden must be set, got %s",
                        args->ids == NULL ? "none" : "both");
    }
    if (args->layers == NULL) return qni_fail(err, QN_EINVAL, "layers: is NULL");
    if (args->k_caches == NULL) return qni_fail(err, QN_EINVAL, "k_caches: is NULL");
    if (args->v_caches == NULL) return qni_fail(err, QN_EINVAL, "v_caches: is NULL");
    if (args->n_layer < 1 || args->n_layer > MAX_LAYER) {
        return qni_fail(err, QN_EINVAL, "n_layer: must be 1 to %d, got %d", MAX_LAYER, (int)args->n_layer);
    }
    if (args->count < 1 || args->count > MAX_COUNT) {
        return qni_fail(err, QN_EINVAL, "count: must be 1 to %d, got %d", MAX_COUNT, (int)args->count);
    }
    dims->of[QNI_COUNT] = args->count;
    if (args->ids != NULL) dims->of[QNI_T] = 1;
    qni_call call = {.args = args,
                     .table = forward_greedy_table,
                     .n_layer = args->n_layer,
                     .out = args->out,
                     .offset = &args->offset,
                     .rope = &args->rope,
                     .scale = &args->scale,
                     .eps = &args->eps,
                     .n_valid = &args->n_valid,
                     .n_more = args->count - 1};
    return qni_validate(&call, dims, err);
}
