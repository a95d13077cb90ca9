/* SPDX-License-Identifier: Apache-2.0 */
/* The primitives of ops.h, with operands in the order of Quern.Native. The library checks shapes and values. */
#include "quern_nif.h"

#include <string.h>

typedef struct op op;
struct op {
    qn_status (*run)(op *, qn_error *);
    qn_tensor *like; /* the result is created on its device */
    object *device;
    qn_tensor *out;
    qn_dtype dtype; /* dtype of the result; its shape follows */
    int32_t rank;
    int64_t shape[QN_MAX_RANK];
    int64_t *offset_rows; /* storage that an offset and a rope may point to */
    qn_yarn yarn;
    float *inv_freq;
    union {
        qn_mlp_args mlp;
        qn_kv_attention_args kv_attention;
        qn_attention_residual_args residual;
        qn_attention_block_args block;
        qn_layer_args layer;
        qn_greedy_args greedy;
    } args;
};

static bool run_op(job *j) {
    op *s = j->state;
    qn_error error;
    qn_device *device = ((device_value *)s->device->value)->device;
    qn_status status = qn_tensor_create(&s->out, device, s->dtype, s->rank, s->shape, &error);
    if (status == QN_OK) {
        status = s->run(s, &error);
        if (status != QN_OK) qn_tensor_free(s->out);
    }
    return status == QN_OK ? job_tensor(j, s->out, s->device) : job_error(j, status, &error);
}

static void finish_op(job *j) {
    const op *s = j->state;
    if (s->offset_rows != NULL) enif_free(s->offset_rows);
    if (s->inv_freq != NULL) enif_free(s->inv_freq);
}

/* The state of the job, or the dummy `nowhere` if allocation failed. */
static op *op_of(call *c, op *nowhere) {
    *nowhere = (op){0};
    return c->job == NULL || c->job->state == NULL ? nowhere : c->job->state;
}

/* The operand that determines the device and dtype of the result. */
static qn_tensor *first_operand(call *c, op *s, ERL_NIF_TERM term, const char *name) {
    object *o = call_object(c, term, name, KIND_TENSOR);
    if (o == NULL) return NULL;
    s->device = device_of(o);
    s->like = o->value;
    s->dtype = qn_tensor_dtype(s->like);
    s->rank = qn_tensor_rank(s->like);
    for (int32_t i = 0; i < s->rank; i++) s->shape[i] = qn_tensor_shape(s->like)[i];
    return s->like;
}

static ERL_NIF_TERM submit_op(call *c, op *s, qn_status (*run)(op *, qn_error *)) {
    s->run = run;
    return call_submit(c, s->device == NULL ? NULL : s->device->worker, run_op, finish_op);
}

/* An integer, a tensor, or a list of integers, one per batch row. */
static void decode_offset(call *c, op *s, qn_offset *to, ERL_NIF_TERM term) {
    unsigned n = 0;
    void *resource = NULL;
    if (c->has_failed) return;
    if (enif_get_resource(c->env, term, c->nif->object_type, &resource)) {
        to->tensor = call_tensor(c, term, "offset");
    } else if (enif_is_list(c->env, term)) {
        n = call_length(c, term, "offset", 4096);
        s->offset_rows = call_alloc(c, n, sizeof *s->offset_rows);
        ERL_NIF_TERM head, list = term;
        for (unsigned i = 0; s->offset_rows != NULL && enif_get_list_cell(c->env, list, &head, &list); i++) {
            s->offset_rows[i] = call_int(c, head, "offset", INT64_MIN, INT64_MAX);
        }
        to->rows = s->offset_rows;
        to->n_rows = n;
    } else {
        to->value = call_int(c, term, "offset", INT64_MIN, INT64_MAX);
    }
}

/* A list of D/2 inverse frequencies. */
static void decode_table(call *c, op *s, qn_rope *to, ERL_NIF_TERM list) {
    const unsigned n = call_length(c, list, "theta", 256);
    s->inv_freq = call_alloc(c, n, sizeof *s->inv_freq);
    ERL_NIF_TERM head;
    for (unsigned i = 0; s->inv_freq != NULL && enif_get_list_cell(c->env, list, &head, &list); i++) {
        s->inv_freq[i] = (float)call_number(c, head, "theta");
    }
    to->inv_freq = s->inv_freq;
    to->n_inv_freq = (int32_t)n;
}

/* A number; {yarn, Theta, Factor, OriginalCtx, BetaFast, BetaSlow, AttentionFactor}; {table, List, AttentionFactor}. */
static void decode_rope(call *c, op *s, qn_rope *to, ERL_NIF_TERM term) {
    const ERL_NIF_TERM *t = NULL;
    int n = 0;
    if (c->has_failed) return;
    if (!enif_get_tuple(c->env, term, &n, &t)) {
        to->theta = call_number(c, term, "theta");
    } else if (n == 7) {
        to->theta = call_number(c, t[1], "theta");
        s->yarn = (qn_yarn){.factor = call_number(c, t[2], "factor"),
                            .original_ctx = call_int(c, t[3], "original_ctx", INT64_MIN, INT64_MAX),
                            .beta_fast = call_number(c, t[4], "beta_fast"),
                            .beta_slow = call_number(c, t[5], "beta_slow"),
                            .attention_factor = call_number(c, t[6], "attention_factor")};
        to->yarn = &s->yarn;
    } else if (n == 3) {
        decode_table(c, s, to, t[1]);
        to->attention_factor = call_number(c, t[2], "attention_factor");
    } else {
        call_fail(c, "theta: must be a number, YaRN or a table, got %s", text_of(c->env, term).text);
    }
}

static qn_status run_mlp(op *s, qn_error *err) {
    s->args.mlp.out = s->out;
    return qn_mlp(&s->args.mlp, err);
}

/* Reference, Hidden, Norm, Gate, Up, Down, Eps. */
NIF_FUNCTION(nif_mlp) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_mlp_args *a = &s->args.mlp;
    a->hidden = first_operand(&c, s, argv[1], "hidden");
    a->norm = call_tensor(&c, argv[2], "norm");
    a->gate_proj = call_operand(&c, argv[3], "gate_proj");
    a->up_proj = call_operand(&c, argv[4], "up_proj");
    a->down_proj = call_operand(&c, argv[5], "down_proj");
    a->eps = call_number(&c, argv[6], "eps");
    return submit_op(&c, s, run_mlp);
}

static qn_status run_kv_attention(op *s, qn_error *err) {
    s->args.kv_attention.out = s->out;
    return qn_kv_attention(&s->args.kv_attention, err);
}

/* Reference, Q, K, V, KCache, VCache, Offset, Scale, Theta. */
NIF_FUNCTION(nif_kv_attention) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_kv_attention_args *a = &s->args.kv_attention;
    a->q = first_operand(&c, s, argv[1], "q");
    a->k = call_tensor(&c, argv[2], "k");
    a->v = call_tensor(&c, argv[3], "v");
    a->k_cache = call_tensor(&c, argv[4], "k_cache");
    a->v_cache = call_tensor(&c, argv[5], "v_cache");
    decode_offset(&c, s, &a->offset, argv[6]);
    a->scale = call_number(&c, argv[7], "scale");
    decode_rope(&c, s, &a->rope, argv[8]);
    if (s->rank == 4) s->shape[2] *= s->shape[3]; /* {B, T, Nq·D}; another q is refused anyway */
    s->rank = 3;
    if (s->like != NULL && qn_tensor_rank(s->like) < 3) s->shape[1] = s->shape[2] = 1;
    return submit_op(&c, s, run_kv_attention);
}

static qn_status run_residual(op *s, qn_error *err) {
    s->args.residual.out = s->out;
    return qn_attention_residual(&s->args.residual, err);
}

/* Reference, Hidden, Attn, OProj. */
NIF_FUNCTION(nif_attention_residual) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_attention_residual_args *a = &s->args.residual;
    a->hidden = first_operand(&c, s, argv[1], "hidden");
    a->attn = call_tensor(&c, argv[2], "attn");
    a->o_proj = call_operand(&c, argv[3], "o_proj");
    return submit_op(&c, s, run_residual);
}

/* Norm, Q, K, V, O, QNorm, KNorm. */
static void decode_attention_weights(call *c, qn_attention_weights *w, const ERL_NIF_TERM *argv, const char *norm) {
    w->norm = call_tensor(c, argv[0], norm);
    w->q_proj = call_operand(c, argv[1], "q_proj");
    w->k_proj = call_operand(c, argv[2], "k_proj");
    w->v_proj = call_operand(c, argv[3], "v_proj");
    w->o_proj = call_operand(c, argv[4], "o_proj");
    w->q_norm = call_tensor(c, argv[5], "q_norm");
    w->k_norm = call_tensor(c, argv[6], "k_norm");
}

/* Norm2, Gate, Up, Down. */
static void decode_mlp_weights(call *c, qn_mlp_weights *w, const ERL_NIF_TERM *argv) {
    w->norm = call_tensor(c, argv[0], "norm2");
    w->gate_proj = call_operand(c, argv[1], "gate_proj");
    w->up_proj = call_operand(c, argv[2], "up_proj");
    w->down_proj = call_operand(c, argv[3], "down_proj");
}

static qn_status run_block(op *s, qn_error *err) {
    s->args.block.out = s->out;
    return qn_attention_block(&s->args.block, err);
}

/* Reference, Hidden, Norm, Q, K, V, O, QNorm, KNorm, KCache, VCache, Offset, Scale, Theta, Eps. */
NIF_FUNCTION(nif_attention_block) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_attention_block_args *a = &s->args.block;
    a->hidden = first_operand(&c, s, argv[1], "hidden");
    decode_attention_weights(&c, &a->weights, argv + 2, "norm");
    a->k_cache = call_tensor(&c, argv[9], "k_cache");
    a->v_cache = call_tensor(&c, argv[10], "v_cache");
    decode_offset(&c, s, &a->offset, argv[11]);
    a->scale = call_number(&c, argv[12], "scale");
    decode_rope(&c, s, &a->rope, argv[13]);
    a->eps = call_number(&c, argv[14], "eps");
    return submit_op(&c, s, run_block);
}

static qn_status run_layer(op *s, qn_error *err) {
    s->args.layer.out = s->out;
    return qn_layer(&s->args.layer, err);
}

/* Reference, Hidden, Norm1, Q, K, V, O, QNorm, KNorm, KCache, VCache, Norm2, Gate, Up, Down, Offset, Scale, Theta, Eps. */
NIF_FUNCTION(nif_layer) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_layer_args *a = &s->args.layer;
    a->hidden = first_operand(&c, s, argv[1], "hidden");
    decode_attention_weights(&c, &a->weights.attention, argv + 2, "norm1");
    a->k_cache = call_tensor(&c, argv[9], "k_cache");
    a->v_cache = call_tensor(&c, argv[10], "v_cache");
    decode_mlp_weights(&c, &a->weights.mlp, argv + 11);
    decode_offset(&c, s, &a->offset, argv[15]);
    a->scale = call_number(&c, argv[16], "scale");
    decode_rope(&c, s, &a->rope, argv[17]);
    a->eps = call_number(&c, argv[18], "eps");
    return submit_op(&c, s, run_layer);
}

static qn_status run_greedy(op *s, qn_error *err) {
    s->args.greedy.out = s->out;
    return qn_greedy(&s->args.greedy, err);
}

/* Reference, Hidden, Norm, LmHead, Eps. */
NIF_FUNCTION(nif_greedy) {
    (void)argc;
    op nowhere;
    call c = call_begin(env, argv[0], sizeof(op));
    op *s = op_of(&c, &nowhere);
    qn_greedy_args *a = &s->args.greedy;
    a->hidden = first_operand(&c, s, argv[1], "hidden");
    a->norm = call_tensor(&c, argv[2], "norm");
    a->lm_head = call_operand(&c, argv[3], "lm_head");
    a->eps = call_number(&c, argv[4], "eps");
    s->dtype = QN_DTYPE_U32;
    s->rank = 1;
    return submit_op(&c, s, run_greedy);
}

/* A forward pass: one token per worker turn, so that other jobs get turns and cancellation is noticed. */
typedef struct forward {
    op op; /* holds the result */
    qn_forward_greedy_args args;
    qn_layer_weights *layers;
    qn_tensor **caches;  /* {2, n_layer}: k, then v */
    qn_tensor *token[2]; /* u32 {B, 1}: the last token, which is fed back, and the next, alternating */
    uint32_t *tokens;    /* {B, count} */
    int32_t n_done, count;
    int64_t n_batch;
} forward;

static void finish_forward(job *j) {
    forward *f = j->state;
    finish_op(j); /* op is the first member of the state */
    for (int i = 0; i < 2; i++) qn_tensor_free(f->token[i]);
    if (f->layers != NULL) enif_free(f->layers);
    if (f->caches != NULL) enif_free(f->caches);
    if (f->tokens != NULL) enif_free(f->tokens);
}

/* {Norm1, Norm2, QNorm, KNorm, Q, K, V, O, Gate, Up, Down}, {KCache, VCache}. */
static void decode_layer(call *c, forward *f, int32_t i, ERL_NIF_TERM layer, ERL_NIF_TERM cache) {
    const ERL_NIF_TERM *t = NULL, *pair = NULL;
    int n = 0, n_pair = 0;
    if (!enif_get_tuple(c->env, layer, &n, &t) || n != 11) call_fail(c, "layers[%d]: must be a tuple of 11", (int)i);
    if (!enif_get_tuple(c->env, cache, &n_pair, &pair) || n_pair != 2) {
        call_fail(c, "kv_cache[%d]: must be a pair of tensors", (int)i);
    }
    if (c->has_failed) return;
    const ERL_NIF_TERM attention[] = {t[0], t[4], t[5], t[6], t[7], t[2], t[3]}, mlp[] = {t[1], t[8], t[9], t[10]};
    decode_attention_weights(c, &f->layers[i].attention, attention, "norm1");
    decode_mlp_weights(c, &f->layers[i].mlp, mlp);
    f->caches[i] = call_tensor(c, pair[0], "k_cache");
    f->caches[f->args.n_layer + i] = call_tensor(c, pair[1], "v_cache");
}

static void decode_layers(call *c, forward *f, ERL_NIF_TERM layers, ERL_NIF_TERM caches) {
    const unsigned n = call_length(c, layers, "layers", 512), n_cache = call_length(c, caches, "kv_cache", 512);
    if (!c->has_failed && n < 1) call_fail(c, "layers: must be 1 to 512, got none");
    if (!c->has_failed && n != n_cache)
        call_fail(c, "kv_cache: must be %u pairs, as many as layers, got %u", n, n_cache);
    if (c->has_failed) return;
    f->args.n_layer = (int32_t)n;
    f->layers = call_alloc(c, n, sizeof *f->layers);
    f->caches = call_alloc(c, 2 * (size_t)n, sizeof *f->caches);
    ERL_NIF_TERM layer, cache;
    for (int32_t i = 0; !c->has_failed && enif_get_list_cell(c->env, layers, &layer, &layers) &&
                        enif_get_list_cell(c->env, caches, &cache, &caches);
         i++) {
        decode_layer(c, f, i, layer, cache);
    }
    f->args.layers = f->layers;
    f->args.k_caches = f->caches;
    f->args.v_caches = f->caches == NULL ? NULL : f->caches + n;
}

/* Capacity of the smallest cache; -1: one is not a cache and will be refused. */
static int64_t capacity_of(const forward *f) {
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < 2 * f->args.n_layer; i++) {
        if (qn_tensor_rank(f->caches[i]) != 4) return -1;
        const int64_t capacity = qn_tensor_shape(f->caches[i])[2];
        least = capacity < least ? capacity : least;
    }
    return least;
}

/* Whether every cache has capacity for all tokens. */
static bool has_room(const forward *f) {
    const int64_t capacity = capacity_of(f);
    if (f->args.offset.tensor != NULL) return false;
    for (int64_t i = 0; i < (f->args.offset.rows == NULL ? 1 : f->args.offset.n_rows); i++) {
        const int64_t offset = f->args.offset.rows == NULL ? f->args.offset.value : f->args.offset.rows[i];
        if (offset < 0 || offset > capacity - f->count) return false;
    }
    return true;
}

/* Positions in a tensor are read once and clamped for the whole call. */
static qn_status resolve_offset(forward *f, qn_error *err) {
    const qn_tensor *t = f->args.offset.tensor;
    if (t == NULL || f->count == 1) return QN_OK;
    const qn_dtype dtype = qn_tensor_dtype(t);
    const bool known = (dtype == QN_DTYPE_S32 || dtype == QN_DTYPE_S64) && qn_tensor_rank(t) == 1;
    if (!known || capacity_of(f) < 0) return QN_OK; /* will be refused at the first token */
    const int64_t n = qn_tensor_shape(t)[0], high = capacity_of(f) - f->count;
    if (n != 1 && n != f->n_batch) return QN_OK;
    int64_t *rows = enif_alloc((size_t)n * sizeof *rows);
    if (rows == NULL) return QN_ENOMEM;
    f->op.offset_rows = rows;
    qn_status status = qn_tensor_read(t, rows, qn_tensor_bytes(t), err);
    if (status != QN_OK) return status;
    for (int64_t i = n; i-- > 0;) { /* backwards, since s32 is widened in place */
        int32_t narrow;
        memcpy(&narrow, (const char *)rows + (size_t)i * sizeof narrow, sizeof narrow);
        const int64_t value = dtype == QN_DTYPE_S32 ? narrow : rows[i];
        rows[i] = value > high ? high : value;
        if (rows[i] < 0) rows[i] = 0;
    }
    f->args.offset = n == 1 ? (qn_offset){.value = rows[0]} : (qn_offset){.rows = rows, .n_rows = n};
    return QN_OK;
}

static qn_status begin_forward(forward *f, qn_error *err) {
    qn_device *device = ((device_value *)f->op.device->value)->device;
    qn_status status = resolve_offset(f, err);
    if (status != QN_OK) return status;
    f->tokens = enif_alloc((size_t)f->n_batch * (size_t)f->count * sizeof *f->tokens);
    if (f->tokens == NULL) {
        enif_snprintf(err->message, sizeof err->message, "forward_greedy: no memory");
        return QN_ENOMEM;
    }
    /* A call that the library will refuse is passed on whole, so that nothing is computed and the message is the
     * library's. */
    f->args.count = has_room(f) ? 1 : f->count;
    const int64_t shape[] = {f->n_batch, f->args.count};
    for (int i = 0; i < 2 && status == QN_OK; i++) {
        status = qn_tensor_create(&f->token[i], device, QN_DTYPE_U32, 2, shape, err);
    }
    return status;
}

/* Compute one token per row. */
static qn_status next_token(forward *f, qn_error *err) {
    qn_forward_greedy_args *a = &f->args;
    a->out = f->token[f->n_done % 2];
    qn_status status = qn_forward_greedy(a, err);
    uint32_t *last = f->tokens + (size_t)f->n_done * (size_t)f->n_batch;
    if (status == QN_OK) status = qn_tensor_read(a->out, last, (size_t)f->n_batch * sizeof *last, err);
    a->ids = a->out;
    a->hidden = NULL;
    f->args.offset.value++;
    for (int64_t i = 0; i < f->args.offset.n_rows && f->op.offset_rows != NULL; i++) f->op.offset_rows[i]++;
    return status;
}

static bool finish_tokens(job *j, forward *f) {
    qn_error error;
    qn_tensor *out = NULL;
    const size_t n_batch = (size_t)f->n_batch, count = (size_t)f->count;
    /* {count} for one sequence, {B, count} for several; {B} for one step. */
    const int64_t shape[2] = {count == 1 || n_batch > 1 ? f->n_batch : f->count, f->count};
    const int32_t rank = n_batch > 1 && count > 1 ? 2 : 1;
    qn_device *device = ((device_value *)f->op.device->value)->device;
    uint32_t *rows = enif_alloc(n_batch * count * sizeof *rows);
    qn_status status = rows == NULL ? QN_ENOMEM : qn_tensor_create(&out, device, QN_DTYPE_U32, rank, shape, &error);
    if (rows == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "forward_greedy: no memory"});
    for (size_t b = 0; b < n_batch; b++) {
        for (size_t i = 0; i < count; i++) rows[b * count + i] = f->tokens[i * n_batch + b];
    }
    if (status == QN_OK) status = qn_tensor_write(out, rows, n_batch * count * sizeof *rows, &error);
    enif_free(rows);
    if (status == QN_OK) return job_tensor(j, out, f->op.device);
    qn_tensor_free(out);
    return job_error(j, status, &error);
}

static bool step_forward(job *j) {
    forward *f = j->state;
    qn_error error = {.message = "forward_greedy: no memory"};
    qn_status status = f->token[0] == NULL ? begin_forward(f, &error) : QN_OK;
    if (status == QN_OK) status = next_token(f, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    return ++f->n_done == f->count && finish_tokens(j, f);
}

/* Reference, Ids | Hidden, Kind (ids or hidden), Embedding | nil, Layers, Caches, Norm, LmHead, Offset, Count, Scale,
 * Theta, Eps. */
NIF_FUNCTION(nif_forward_greedy) {
    (void)argc;
    forward nowhere = {0};
    call c = call_begin(env, argv[0], sizeof(forward));
    forward *f = c.job == NULL || c.job->state == NULL ? &nowhere : c.job->state;
    const bool has_ids = call_choice(&c, argv[2], "kind", (const char *const[]){"hidden", "ids", NULL}) == 1;
    qn_tensor *first = first_operand(&c, &f->op, argv[1], has_ids ? "ids" : "hidden");
    f->args.ids = has_ids ? first : NULL;
    f->args.hidden = has_ids ? NULL : first;
    f->n_batch = first == NULL ? 1 : qn_tensor_shape(first)[0];
    if (!enif_is_identical(argv[3], enif_make_atom(env, "nil"))) {
        f->args.embedding = call_operand(&c, argv[3], "embedding");
    }
    decode_layers(&c, f, argv[4], argv[5]);
    f->args.norm = call_tensor(&c, argv[6], "norm");
    f->args.lm_head = call_operand(&c, argv[7], "lm_head");
    f->count = (int32_t)call_int(&c, argv[9], "count", 1, 4096);
    if (!has_ids && f->count != 1) call_fail(&c, "count: must be 1 with hidden, got %d", (int)f->count);
    decode_offset(&c, &f->op, &f->args.offset, argv[8]);
    f->args.scale = call_number(&c, argv[10], "scale");
    decode_rope(&c, &f->op, &f->args.rope, argv[11]);
    f->args.eps = call_number(&c, argv[12], "eps");
    return call_submit(&c, f->op.device == NULL ? NULL : f->op.device->worker, step_forward, finish_forward);
}
