/* SPDX-License-Identifier: Apache-2.0 */
/* A valid call of each primitive, and checks of what a refused call leaves unchanged. */
#include "calls.h"

#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(calls *c, call_id id, const char *prefix, const char *name, const void *field, bool written) {
    slot *s = &c->slots[id][c->n_slot[id]++];
    assert_true(c->n_slot[id] <= MAX_SLOT);
    snprintf(s->name, sizeof s->name, "%s%s", prefix, name);
    s->tensor = (const qn_tensor **)(uintptr_t)field;
    s->written = written;
}

static void add_linear(calls *c, call_id id, const char *prefix, const char *name, qn_operand *linear) {
    add(c, id, prefix, name, NULL, false);
    c->slots[id][c->n_slot[id] - 1].linear = linear;
}

static void add_attention(calls *c, call_id id, const char *prefix, const char *norm, qn_attention_weights *w) {
    add(c, id, prefix, norm, &w->norm, false);
    add_linear(c, id, prefix, "q_proj", &w->q_proj);
    add_linear(c, id, prefix, "k_proj", &w->k_proj);
    add_linear(c, id, prefix, "v_proj", &w->v_proj);
    add_linear(c, id, prefix, "o_proj", &w->o_proj);
    add(c, id, prefix, "q_norm", &w->q_norm, false);
    add(c, id, prefix, "k_norm", &w->k_norm, false);
}

static void add_mlp(calls *c, call_id id, const char *prefix, const char *norm, const qn_tensor **norm_field,
                    qn_operand *gate, qn_operand *up, qn_operand *down) {
    add(c, id, prefix, norm, norm_field, false);
    add_linear(c, id, prefix, "gate_proj", gate);
    add_linear(c, id, prefix, "up_proj", up);
    add_linear(c, id, prefix, "down_proj", down);
}

static void list_slots(calls *c) {
    call_args *a = &c->args;
    call_id id = CALL_KV_ATTENTION;
    add(c, id, "", "q", &a->kv_attention.q, false);
    add(c, id, "", "k", &a->kv_attention.k, false);
    add(c, id, "", "v", &a->kv_attention.v, false);
    add(c, id, "", "out", &a->kv_attention.out, true);
    add(c, id, "", "k_cache", &a->kv_attention.k_cache, true);
    add(c, id, "", "v_cache", &a->kv_attention.v_cache, true);
    id = CALL_MLP;
    add(c, id, "", "hidden", &a->mlp.hidden, false);
    add(c, id, "", "out", &a->mlp.out, true);
    add_mlp(c, id, "", "norm", &a->mlp.norm, &a->mlp.gate_proj, &a->mlp.up_proj, &a->mlp.down_proj);
    id = CALL_ATTENTION_RESIDUAL;
    add(c, id, "", "hidden", &a->attention_residual.hidden, false);
    add(c, id, "", "out", &a->attention_residual.out, true);
    add(c, id, "", "attn", &a->attention_residual.attn, false);
    add_linear(c, id, "", "o_proj", &a->attention_residual.o_proj);
    id = CALL_ATTENTION_BLOCK;
    add(c, id, "", "hidden", &a->attention_block.hidden, false);
    add(c, id, "", "out", &a->attention_block.out, true);
    add_attention(c, id, "", "norm", &a->attention_block.weights);
    add(c, id, "", "k_cache", &a->attention_block.k_cache, true);
    add(c, id, "", "v_cache", &a->attention_block.v_cache, true);
    id = CALL_LAYER;
    qn_mlp_weights *m = &a->layer.weights.mlp;
    add(c, id, "", "hidden", &a->layer.hidden, false);
    add(c, id, "", "out", &a->layer.out, true);
    add_attention(c, id, "", "norm1", &a->layer.weights.attention);
    add_mlp(c, id, "", "norm2", &m->norm, &m->gate_proj, &m->up_proj, &m->down_proj);
    add(c, id, "", "k_cache", &a->layer.k_cache, true);
    add(c, id, "", "v_cache", &a->layer.v_cache, true);
    id = CALL_GREEDY;
    add(c, id, "", "hidden", &a->greedy.hidden, false);
    add(c, id, "", "out", &a->greedy.out, true);
    add(c, id, "", "norm", &a->greedy.norm, false);
    add_linear(c, id, "", "lm_head", &a->greedy.lm_head);
    id = CALL_FORWARD_GREEDY;
    add(c, id, "", "hidden", &a->forward_greedy.hidden, false);
    add(c, id, "", "out", &a->forward_greedy.out, true);
    add(c, id, "", "norm", &a->forward_greedy.norm, false);
    add_linear(c, id, "", "lm_head", &a->forward_greedy.lm_head);
    add_linear(c, id, "", "embedding", &a->forward_greedy.embedding);
    for (int i = 0; i < 2; i++) {
        const char *prefix = i == 0 ? "layer 0 " : "layer 1 ";
        m = &a->layers[i].mlp;
        add_attention(c, id, prefix, "norm1", &a->layers[i].attention);
        add_mlp(c, id, prefix, "norm2", &m->norm, &m->gate_proj, &m->up_proj, &m->down_proj);
        add(c, id, prefix, "k_cache", &a->k_caches[i], true);
        add(c, id, prefix, "v_cache", &a->v_caches[i], true);
    }
}

static void fill_args(calls *c) {
    const bench *s = &c->s;
    qn_layer_weights w = bench_weights(s);
    double scale = c->p.scale, eps = c->p.eps;
    call_args *a = &c->args;
    a->kv_attention = (qn_kv_attention_args){.out = s->attn_out,
                                             .q = s->t[Q],
                                             .k = s->t[K],
                                             .v = s->t[V],
                                             .k_cache = s->t[K_CACHE],
                                             .v_cache = s->t[V_CACHE],
                                             .offset = s->position,
                                             .scale = scale,
                                             .rope = s->rope};
    a->mlp = (qn_mlp_args){.out = s->out,
                           .hidden = s->t[HIDDEN],
                           .norm = w.mlp.norm,
                           .gate_proj = w.mlp.gate_proj,
                           .up_proj = w.mlp.up_proj,
                           .down_proj = w.mlp.down_proj,
                           .eps = eps};
    a->attention_residual = (qn_attention_residual_args){
        .out = s->out, .hidden = s->t[HIDDEN], .attn = s->t[ATTN], .o_proj = w.attention.o_proj};
    a->attention_block = (qn_attention_block_args){.out = s->out,
                                                   .hidden = s->t[HIDDEN],
                                                   .weights = w.attention,
                                                   .k_cache = s->t[K_CACHE],
                                                   .v_cache = s->t[V_CACHE],
                                                   .offset = s->position,
                                                   .scale = scale,
                                                   .rope = s->rope,
                                                   .eps = eps};
    a->layer = (qn_layer_args){.out = s->out,
                               .hidden = s->t[HIDDEN],
                               .weights = w,
                               .k_cache = s->t[K_CACHE],
                               .v_cache = s->t[V_CACHE],
                               .offset = s->position,
                               .scale = scale,
                               .rope = s->rope,
                               .eps = eps};
    a->greedy = (qn_greedy_args){
        .out = c->tokens, .hidden = s->t[HIDDEN], .norm = s->t[NORM1], .lm_head = {.plain = c->lm_head}, .eps = eps};
    a->layers[0] = a->layers[1] = w;
    a->k_caches[0] = s->t[K_CACHE], a->k_caches[1] = c->k_cache1;
    a->v_caches[0] = s->t[V_CACHE], a->v_caches[1] = c->v_cache1;
    a->forward_greedy = (qn_forward_greedy_args){.out = c->made,
                                                 .hidden = s->t[HIDDEN],
                                                 .embedding = {.plain = c->embedding},
                                                 .layers = a->layers,
                                                 .k_caches = a->k_caches,
                                                 .v_caches = a->v_caches,
                                                 .n_layer = 2,
                                                 .norm = s->t[NORM1],
                                                 .lm_head = {.plain = c->lm_head},
                                                 .count = 4,
                                                 .offset = s->position,
                                                 .scale = scale,
                                                 .rope = s->rope,
                                                 .eps = eps};
}

void calls_make(calls *c, qn_device *device) {
    memset(c, 0, sizeof *c);
    c->p = (problem){.b = 2,
                     .t = 3,
                     .h = 24,
                     .i = 40,
                     .nq = 4,
                     .nkv = 2,
                     .d = 8,
                     .c = 16,
                     .offset = 5,
                     .theta = 10000,
                     .scale = 0.35,
                     .eps = 1e-6};
    problem_random(&c->p, 11);
    bench_make(&c->s, &c->p, device, all_f32, false);
    int64_t shape[QN_MAX_RANK], vocab[2] = {CALL_VOCAB, c->p.h};
    int32_t rank = operand_shape(&c->p, K_CACHE, shape);
    float table[CALL_VOCAB * 24];
    uint64_t random = 5;
    c->k_cache1 = tensor_make(device, QN_DTYPE_F32, rank, shape, c->p.values[K_CACHE]);
    c->v_cache1 = tensor_make(device, QN_DTYPE_F32, rank, shape, c->p.values[V_CACHE]);
    for (int i = 0; i < CALL_VOCAB * 24; i++) table[i] = (float)random_normal(&random);
    c->lm_head = tensor_make(device, QN_DTYPE_F32, 2, vocab, table);
    for (int i = 0; i < CALL_VOCAB * 24; i++) table[i] = (float)random_normal(&random);
    c->embedding = tensor_make(device, QN_DTYPE_F32, 2, vocab, table);
    c->ids = tensor_make(device, QN_DTYPE_S32, 2, (const int64_t[]){c->p.b, 1}, NULL);
    c->tokens = tensor_make(device, QN_DTYPE_U32, 1, &c->p.b, NULL);
    c->made = tensor_make(device, QN_DTYPE_U32, 2, (const int64_t[]){c->p.b, 4}, NULL);
    fill_args(c);
    list_slots(c);
}

void calls_free(calls *c) {
    qn_tensor *own[] = {c->k_cache1, c->v_cache1, c->lm_head, c->embedding, c->ids, c->tokens, c->made};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) qn_tensor_free(own[i]);
    bench_free(&c->s);
    problem_free(&c->p);
}

qn_status calls_run(const calls *c, call_id id, qn_error *err) {
    const call_args *a = &c->args;
    switch (id) {
    case CALL_KV_ATTENTION:
        return qn_kv_attention(&a->kv_attention, err);
    case CALL_MLP:
        return qn_mlp(&a->mlp, err);
    case CALL_ATTENTION_RESIDUAL:
        return qn_attention_residual(&a->attention_residual, err);
    case CALL_ATTENTION_BLOCK:
        return qn_attention_block(&a->attention_block, err);
    case CALL_LAYER:
        return qn_layer(&a->layer, err);
    case CALL_GREEDY:
        return qn_greedy(&a->greedy, err);
    case CALL_FORWARD_GREEDY:
    case N_CALL:
        break;
    }
    return qn_forward_greedy(&a->forward_greedy, err);
}

slot *calls_slot(calls *c, call_id id, const char *name) {
    for (int i = 0; i < c->n_slot[id]; i++) {
        if (strcmp(c->slots[id][i].name, name) == 0) return &c->slots[id][i];
    }
    return NULL;
}

qn_offset *calls_offset(calls *c, call_id id) {
    call_args *a = &c->args;
    qn_offset *of[N_CALL] = {[CALL_KV_ATTENTION] = &a->kv_attention.offset,
                             [CALL_ATTENTION_BLOCK] = &a->attention_block.offset,
                             [CALL_LAYER] = &a->layer.offset,
                             [CALL_FORWARD_GREEDY] = &a->forward_greedy.offset};
    return of[id];
}

qn_rope *calls_rope(calls *c, call_id id) {
    call_args *a = &c->args;
    qn_rope *of[N_CALL] = {[CALL_KV_ATTENTION] = &a->kv_attention.rope,
                           [CALL_ATTENTION_BLOCK] = &a->attention_block.rope,
                           [CALL_LAYER] = &a->layer.rope,
                           [CALL_FORWARD_GREEDY] = &a->forward_greedy.rope};
    return of[id];
}

double *calls_scale(calls *c, call_id id) {
    call_args *a = &c->args;
    double *of[N_CALL] = {[CALL_KV_ATTENTION] = &a->kv_attention.scale,
                          [CALL_ATTENTION_BLOCK] = &a->attention_block.scale,
                          [CALL_LAYER] = &a->layer.scale,
                          [CALL_FORWARD_GREEDY] = &a->forward_greedy.scale};
    return of[id];
}

double *calls_eps(calls *c, call_id id) {
    call_args *a = &c->args;
    double *of[N_CALL] = {[CALL_MLP] = &a->mlp.eps,
                          [CALL_ATTENTION_BLOCK] = &a->attention_block.eps,
                          [CALL_LAYER] = &a->layer.eps,
                          [CALL_GREEDY] = &a->greedy.eps,
                          [CALL_FORWARD_GREEDY] = &a->forward_greedy.eps};
    return of[id];
}

void calls_refused(const calls *c, call_id id, qn_status status, const char *message) {
    void *before[MAX_SLOT] = {0};
    for (int i = 0; i < c->n_slot[id]; i++) {
        const slot *s = &c->slots[id][i];
        if (s->written && *s->tensor != NULL) before[i] = tensor_bits(*s->tensor);
    }
    qn_error err = {0};
    qn_status got = calls_run(c, id, &err);
    if (got != status || strcmp(err.message, message) != 0 || err.status != status) {
        fail_msg("call %d: expected %s \"%s\", got %s \"%s\"", (int)id, qn_status_name(status), message,
                 qn_status_name(got), err.message);
    }
    assert_int_equal(calls_run(c, id, NULL), status);
    for (int i = 0; i < c->n_slot[id]; i++) {
        if (before[i] == NULL) continue;
        const qn_tensor *t = *c->slots[id][i].tensor;
        void *after = tensor_bits(t);
        expect_same_bits(case_text("call %d, refused, slot %d", (int)id, i), qn_tensor_dtype(t), after, before[i],
                         tensor_count(t));
        free(after);
        free(before[i]);
    }
}
