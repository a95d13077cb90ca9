/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public primitives: convert validated operands to rows, matrices and weights, and run the backend's op on them
 * under the device's lock. Each body runs twice: once with a measuring scratch, then for real with that much reserved.
 */
#include "validate.h"

typedef qn_status (*body)(const qni_run *run, const void *args, const qni_dims *dims);

static qn_status execute(const qn_tensor *out, body run_body, const void *args, const qni_dims *dims, qn_error *err) {
    qn_device *device = out->storage->device;
    QN_TRY(qni_device_lock(device, err));
    qni_scratch scratch;
    qni_run run = qni_device_run(device, &scratch, true, err);
    qn_status status = run_body(&run, args, dims);
    if (status == QN_OK) status = qni_device_reserve(device, scratch.peak, err);
    if (status == QN_OK) {
        run = qni_device_run(device, &scratch, false, err);
        status = run_body(&run, args, dims);
    }
    qni_device_unlock(device);
    return status;
}

static qn_device *device_of(const qn_tensor *t) {
    return t->storage->device;
}

/* {B, T, width} */
static qni_mat mat_of(const qn_tensor *t) {
    return (qni_mat){t->data,      t->dtype,    t->shape[0] * t->shape[1], t->shape[2], t->shape[1],
                     t->stride[0], t->stride[1]};
}

/* The last token of each batch row, of a matrix with n_batch · n_tok rows. */
static qni_mat last_rows(qni_mat m, int64_t n_batch) {
    int64_t n_tok = m.n_row / n_batch;
    return (qni_mat){qni_mat_row(&m, n_tok - 1), m.dtype, n_batch, m.n_col, 1, m.outer_stride, m.row_stride};
}

/* {B, T, N, D} */
static qni_heads heads_of(const qn_tensor *t) {
    qni_mat rows = {t->data,      t->dtype,    t->shape[0] * t->shape[1], t->shape[2] * t->shape[3], t->shape[1],
                    t->stride[0], t->stride[1]};
    return (qni_heads){rows, t->shape[2], t->shape[3], t->stride[2]};
}

static qni_vec vec_of(const qn_tensor *t) {
    return (qni_vec){t->data, t->dtype, t->shape[0]};
}

/* {in, out}: one panel of all outputs */
static qni_weight linear_of(const qn_operand *o) {
    if (o->packed != NULL) return o->packed->weight;
    const qn_tensor *t = o->plain;
    return (qni_weight){.data = t->data,
                        .dtype = t->dtype,
                        .arith = QN_ARITH_F32,
                        .n_in = t->shape[0],
                        .n_out = t->shape[1],
                        .nr = t->shape[1],
                        .ki = 1,
                        .panel_stride = t->extent,
                        .group_stride = t->stride[0]};
}

/* {V, H}: one output per panel */
static qni_weight vocabulary_of(const qn_operand *o) {
    if (o->packed != NULL) return o->packed->weight;
    const qn_tensor *t = o->plain;
    return (qni_weight){.data = t->data,
                        .dtype = t->dtype,
                        .arith = QN_ARITH_F32,
                        .n_in = t->shape[1],
                        .n_out = t->shape[0],
                        .nr = 1,
                        .ki = 1,
                        .panel_stride = t->stride[0],
                        .group_stride = 1};
}

static qni_attention_view attention_of(const qn_attention_weights *w) {
    return (qni_attention_view){vec_of(w->norm),       linear_of(&w->q_proj), linear_of(&w->k_proj),
                                linear_of(&w->v_proj), linear_of(&w->o_proj), vec_of(w->q_norm),
                                vec_of(w->k_norm)};
}

static qni_mlp_view mlp_of(const qn_mlp_weights *w) {
    return (qni_mlp_view){vec_of(w->norm), linear_of(&w->gate_proj), linear_of(&w->up_proj), linear_of(&w->down_proj)};
}

static qni_layer_view layer_of(const qn_layer_weights *w) {
    return (qni_layer_view){attention_of(&w->attention), mlp_of(&w->mlp)};
}

/* Each batch row is one block: its slice of the cache. */
static qni_kv_layer kv_of(const qn_tensor *k, const qn_tensor *v) {
    return (qni_kv_layer){.k = k->data,
                          .v = v->data,
                          .k_dtype = k->dtype,
                          .v_dtype = v->dtype,
                          .block_tokens = k->shape[2],
                          .n_kv_head = k->shape[1],
                          .head_dim = k->shape[3],
                          .k_block_stride = k->stride[0],
                          .k_head_stride = k->stride[1],
                          .k_token_stride = k->stride[2],
                          .v_block_stride = v->stride[0],
                          .v_head_stride = v->stride[1],
                          .v_token_stride = v->stride[2]};
}

/* Element of an s32, s64 or u32 tensor. */
static qn_status read_integer(const qni_run *run, int64_t *out, const qn_tensor *t, int64_t index) {
    const size_t bytes = qn_dtype_bytes(t->dtype);
    union {
        int64_t s64;
        uint32_t u32;
        int32_t s32;
    } value = {0};
    QN_TRY(qni_read(run, &value, t->data + (size_t)index * bytes, bytes));
    *out = value.s32;
    if (t->dtype == QN_DTYPE_S64) *out = value.s64;
    if (t->dtype == QN_DTYPE_U32) *out = value.u32;
    return QN_OK;
}

/* Position of token 0 of batch row b. Only a tensor's value can be out of range; it is clamped to [0, greatest]. */
static qn_status read_position(const qni_run *run, int32_t *out, const qn_offset *offset, int64_t b, int64_t greatest) {
    int64_t p = offset->rows != NULL ? offset->rows[b] : offset->value;
    if (offset->tensor != NULL) {
        QN_TRY(read_integer(run, &p, offset->tensor, offset->tensor->shape[0] == 1 ? 0 : b));
        p = qni_max_i64(0, qni_min_i64(p, greatest));
    }
    *out = (int32_t)p;
    return QN_OK;
}

/* The batch of a call, in host memory, and its angles, in scratch. */
typedef struct positions {
    qni_batch batch;
    int32_t *tok_begin, *pos_begin, *blocks; /* {B + 1}, {B}, {B} */
    int32_t *first;                          /* {B}: position of the call's first token */
    qni_frequencies rope;
    qni_mat cos_sin; /* {B·T, D} */
    void *rest;      /* call_options.host_bytes */
} positions;

/* The batch with n_tok tokens per batch row, starting `ahead` tokens after the call's first. */
static qn_status set_positions(const qni_run *run, positions *p, int64_t n_tok, int64_t ahead) {
    const int32_t n_batch = p->batch.n_seq;
    p->batch.n_tok = n_batch * n_tok;
    for (int32_t b = 0; b < n_batch; b++) {
        p->tok_begin[b] = (int32_t)(b * n_tok);
        p->tok_begin[b + 1] = (int32_t)((b + 1) * n_tok);
        p->pos_begin[b] = p->first[b] + (int32_t)ahead;
        p->blocks[b] = b;
    }
    p->cos_sin = qni_mat_of(p->cos_sin.data, QN_DTYPE_F32, p->batch.n_tok, p->cos_sin.n_col);
    return run->ops->rope(run, p->cos_sin, &p->batch, &p->rope);
}

/* A call's position and RoPE arguments. */
typedef struct call_options {
    qn_device *device;
    size_t host_bytes; /* additional host memory for the call */
    const qn_offset *offset;
    const qn_rope *rope;
    int64_t greatest; /* upper clamp for positions read from a tensor */
    double scale, eps;
} call_options;

/* Fill in *p and *call, which points into *p, for the first tokens of a call. */
static qn_status begin(const qni_run *run, positions *p, qni_attention_call *call, const qni_dims *dims,
                       const call_options *o) {
    const int64_t n_batch = dims->of[QNI_B], d = dims->of[QNI_D];
    const size_t n_freq = (size_t)d / 2, n_int = 4 * (size_t)n_batch + 1;
    double *inv_freq =
        qni_device_host(o->device, n_freq * sizeof(double) + (n_int + 1) * sizeof(int32_t) + o->host_bytes);
    if (inv_freq == NULL) return qni_fail(run->err, QN_ENOMEM, "batch: no memory for %lld rows", (long long)n_batch);
    *p = (positions){.tok_begin = (int32_t *)(void *)(inv_freq + n_freq), .rope = {.inv_freq = inv_freq}};
    p->pos_begin = p->tok_begin + n_batch + 1;
    p->blocks = p->pos_begin + n_batch;
    p->first = p->blocks + n_batch;
    p->rest = p->tok_begin + (n_int + 1) / 2 * 2;
    float *cos_sin = qni_scratch_array(run->scratch, n_batch * dims->of[QNI_T], d, sizeof *cos_sin);
    p->cos_sin = qni_mat_of(cos_sin, QN_DTYPE_F32, n_batch * dims->of[QNI_T], d);
    for (int64_t b = 0; b < n_batch; b++) QN_TRY(read_position(run, &p->first[b], o->offset, b, o->greatest));
    qni_rope_resolve(inv_freq, &p->rope.attention_factor, o->rope, d);
    p->batch = (qni_batch){.n_seq = (int32_t)n_batch,
                           .max_block = 1,
                           .tok_begin = p->tok_begin,
                           .pos_begin = p->pos_begin,
                           .block_table = p->blocks};
    *call = (qni_attention_call){.batch = &p->batch, .cos_sin = cos_sin, .scale = o->scale, .eps = o->eps};
    return set_positions(run, p, dims->of[QNI_T], 0);
}

/* The greatest position at which a call's tokens still fit into the cache. */
static int64_t greatest_of(const qni_dims *dims) {
    return dims->of[QNI_C] - dims->of[QNI_T];
}

static qn_status kv_attention_body(const qni_run *run, const void *args, const qni_dims *dims) {
    const qn_kv_attention_args *a = args;
    positions p;
    qni_attention_call call;
    QN_TRY(begin(run, &p, &call, dims,
                 &(call_options){device_of(a->out), 0, &a->offset, &a->rope, greatest_of(dims), a->scale, 0}));
    qni_kv_layer kv = kv_of(a->k_cache, a->v_cache);
    return run->ops->kv_attention(run, mat_of(a->out), heads_of(a->q), heads_of(a->k), heads_of(a->v), &kv, &call);
}

qn_status qn_kv_attention(const qn_kv_attention_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_kv_attention(args, &dims, err));
    return execute(args->out, kv_attention_body, args, &dims, err);
}

static qn_status mlp_body(const qni_run *run, const void *args, const qni_dims *dims) {
    (void)dims;
    const qn_mlp_args *a = args;
    qni_mlp_view w = {vec_of(a->norm), linear_of(&a->gate_proj), linear_of(&a->up_proj), linear_of(&a->down_proj)};
    return run->ops->mlp(run, mat_of(a->out), mat_of(a->hidden), &w, a->eps);
}

qn_status qn_mlp(const qn_mlp_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_mlp(args, &dims, err));
    return execute(args->out, mlp_body, args, &dims, err);
}

static qn_status attention_residual_body(const qni_run *run, const void *args, const qni_dims *dims) {
    (void)dims;
    const qn_attention_residual_args *a = args;
    qni_weight w = linear_of(&a->o_proj);
    return run->ops->linear_add(run, mat_of(a->out), mat_of(a->hidden), mat_of(a->attn), &w);
}

qn_status qn_attention_residual(const qn_attention_residual_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_attention_residual(args, &dims, err));
    return execute(args->out, attention_residual_body, args, &dims, err);
}

static qn_status attention_block_body(const qni_run *run, const void *args, const qni_dims *dims) {
    const qn_attention_block_args *a = args;
    positions p;
    qni_attention_call call;
    QN_TRY(begin(run, &p, &call, dims,
                 &(call_options){device_of(a->out), 0, &a->offset, &a->rope, greatest_of(dims), a->scale, a->eps}));
    qni_kv_layer kv = kv_of(a->k_cache, a->v_cache);
    qni_attention_view w = attention_of(&a->weights);
    return run->ops->attention_block(run, mat_of(a->out), mat_of(a->hidden), &w, &kv, &call);
}

qn_status qn_attention_block(const qn_attention_block_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_attention_block(args, &dims, err));
    return execute(args->out, attention_block_body, args, &dims, err);
}

static qn_status layer_body(const qni_run *run, const void *args, const qni_dims *dims) {
    const qn_layer_args *a = args;
    positions p;
    qni_attention_call call;
    QN_TRY(begin(run, &p, &call, dims,
                 &(call_options){device_of(a->out), 0, &a->offset, &a->rope, greatest_of(dims), a->scale, a->eps}));
    qni_kv_layer kv = kv_of(a->k_cache, a->v_cache);
    qni_layer_view w = layer_of(&a->weights);
    return run->ops->layer(run, mat_of(a->out), mat_of(a->hidden), &w, &kv, &call);
}

qn_status qn_layer(const qn_layer_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_layer(args, &dims, err));
    return execute(args->out, layer_body, args, &dims, err);
}

static int64_t n_valid_of(int64_t n_valid, const qni_dims *dims) {
    return n_valid > 0 ? n_valid : dims->of[QNI_V];
}

static qn_status greedy_body(const qni_run *run, const void *args, const qni_dims *dims) {
    const qn_greedy_args *a = args;
    qni_weight lm_head = vocabulary_of(&a->lm_head);
    return run->ops->greedy(run, (uint32_t *)(void *)a->out->data, last_rows(mat_of(a->hidden), dims->of[QNI_B]),
                            vec_of(a->norm), &lm_head, n_valid_of(a->n_valid, dims), a->eps);
}

qn_status qn_greedy(const qn_greedy_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_greedy(args, &dims, err));
    return execute(args->out, greedy_body, args, &dims, err);
}

/* Copy the first ids of qn_forward_greedy to `out` on the device, by way of `ids` in host memory. Being tensor
 * contents, they can only be read and checked now. */
static qn_status take_ids(const qni_run *run, uint32_t *out, int32_t *ids, const qn_tensor *t, int64_t n_vocab) {
    for (int64_t b = 0; b < t->shape[0]; b++) {
        int64_t id = 0;
        QN_TRY(read_integer(run, &id, t, b * t->stride[0]));
        if (id < 0 || id >= n_vocab) {
            return qni_fail(run->err, QN_EINVAL, "ids: row %lld must be 0 to %lld, got %lld", (long long)b,
                            (long long)(n_vocab - 1), (long long)id);
        }
        ids[b] = (int32_t)id;
    }
    return qni_write(run, out, ids, (size_t)t->shape[0] * sizeof *ids);
}

/* Write ids {B, count} to a tensor, from `made` {count, B} on the device by way of the host memory `rows` {2,
 * B·count}. */
static qn_status put_ids(const qni_run *run, const qn_tensor *out, const uint32_t *made, uint32_t *rows) {
    const int64_t n_batch = out->shape[0], count = out->shape[1];
    uint32_t *turned = rows + n_batch * count;
    QN_TRY(qni_read(run, rows, made, (size_t)(n_batch * count) * sizeof *rows));
    for (int64_t i = 0; i < n_batch * count && !qni_scratch_measures(run->scratch); i++) {
        turned[i] = rows[i % count * n_batch + i / count];
    }
    for (int64_t b = 0; b < n_batch; b++) {
        QN_TRY(qni_write(run, out->data + (size_t)(b * out->stride[0]) * sizeof *rows, turned + b * count,
                         (size_t)count * sizeof *rows));
    }
    return QN_OK;
}

/* Run all layers: the first may read `hidden`, the others run in place on the stream. */
static qn_status forward_layers(const qni_run *run, const qn_forward_greedy_args *a, qni_mat stream, qni_mat hidden,
                                const qni_attention_call *call) {
    for (int32_t i = 0; i < a->n_layer; i++) {
        qni_kv_layer kv = kv_of(a->k_caches[i], a->v_caches[i]);
        qni_layer_view w = layer_of(&a->layers[i]);
        QN_TRY(run->ops->layer(run, stream, i == 0 ? hidden : stream, &w, &kv, call));
    }
    return QN_OK;
}

static qn_status forward_greedy_body(const qni_run *run, const void *args, const qni_dims *dims) {
    const qn_forward_greedy_args *a = args;
    int64_t n_batch = dims->of[QNI_B], n_tok = dims->of[QNI_T], count = a->count;
    int64_t greatest = INT32_MAX;
    for (int32_t i = 0; i < a->n_layer; i++) greatest = qni_min_i64(greatest, a->k_caches[i]->shape[2]);
    greatest -= n_tok + count - 1;

    qn_dtype dtype = a->hidden != NULL ? a->hidden->dtype : QN_DTYPE_F32;
    int64_t d_model = dims->of[QNI_H];
    uint32_t *ids = qni_scratch_array(run->scratch, n_batch, 1, sizeof *ids);
    uint32_t *made = qni_scratch_array(run->scratch, count, n_batch, sizeof *made);
    void *memory = qni_scratch_array(run->scratch, n_batch * n_tok, d_model, qn_dtype_bytes(dtype));
    const bool measures = qni_scratch_measures(run->scratch);
    size_t host_bytes;
    if (!qni_mul_size(&host_bytes, 2 * sizeof *made, (size_t)n_batch) ||
        !qni_mul_size(&host_bytes, host_bytes, (size_t)count)) {
        return qni_fail(run->err, QN_ENOMEM, "forward_greedy: no memory for %lld tokens", (long long)count);
    }

    positions p;
    qni_attention_call call;
    QN_TRY(begin(run, &p, &call, dims,
                 &(call_options){device_of(a->out), host_bytes, &a->offset, &a->rope, greatest, a->scale, a->eps}));
    if (a->ids != NULL) QN_TRY(take_ids(run, ids, p.rest, a->ids, dims->of[QNI_V]));
    qni_weight lm_head = vocabulary_of(&a->lm_head);
    int64_t n_valid = n_valid_of(a->n_valid, dims);
    for (int64_t step = 0; step < (measures ? qni_min_i64(2, count) : count); step++) {
        if (step > 0) QN_TRY(set_positions(run, &p, 1, n_tok + step - 1));
        bool embeds = step > 0 || a->hidden == NULL;
        const int64_t n_inner = step > 0 ? 1 : n_tok;
        qni_mat stream = qni_mat_of(memory, dtype, n_batch * n_inner, d_model);
        stream.n_inner = n_inner;
        stream.outer_stride = n_inner * d_model;
        if (embeds) {
            qni_weight embedding = vocabulary_of(&a->embedding);
            QN_TRY(run->ops->embed(run, stream, &embedding, (const int32_t *)ids));
        }
        QN_TRY(forward_layers(run, a, stream, embeds ? stream : mat_of(a->hidden), &call));
        ids = made + step * n_batch; /* the next step reads its ids there */
        QN_TRY(run->ops->greedy(run, ids, last_rows(stream, n_batch), vec_of(a->norm), &lm_head, n_valid, a->eps));
    }
    return put_ids(run, a->out, made, p.rest);
}

qn_status qn_forward_greedy(const qn_forward_greedy_args *args, qn_error *err) {
    qni_dims dims = {0};
    QN_TRY(qni_check_forward_greedy(args, &dims, err));
    return execute(args->out, forward_greedy_body, args, &dims, err);
}
