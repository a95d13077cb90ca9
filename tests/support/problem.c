/* SPDX-License-Identifier: Apache-2.0 */
/* Layers to compute, on the host and on a device. */
#include "problem.h"

#include "../../src/base/half.h"
#include "cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *level_name(int index) {
    const char *isa;
    bool usable;
    for (int32_t i = 0; (isa = qn_isa_name(i, &usable)) != NULL; i++) {
        if (usable && index-- == 0) return isa;
    }
    return NULL;
}

int device_cases(device_case *out) {
    int n = 0;
    const char *backend, *isa;
    bool usable;
    for (int32_t b = 0; (backend = qn_backend_name(b)) != NULL; b++) {
        const bool is_ref = strcmp(backend, "ref") == 0, is_gpu = strncmp(backend, "cuda", 4) == 0;
        if (is_gpu && backend[4] != '\0') continue; /* the first GPU stands for all */
        for (int32_t i = 0; (isa = qn_isa_name(i, &usable)) != NULL; i++) {
            if (!usable || ((is_ref || is_gpu) && i > 0)) continue; /* levels are the cpu's */
            for (int form = 0; form < 4; form++) {
                device_case dc = {
                    .backend = backend, .isa = isa, .compose = form >= 2, .packed = form % 2 == 1, .is_ref = is_ref};
                if (is_ref && dc.compose) continue; /* ref has no composed variant */
                snprintf(dc.name, sizeof dc.name, "%s %s %s %s", backend, isa, dc.compose ? "composed" : "fused",
                         dc.packed ? "packed" : "plain");
                assert_true(n < MAX_DEVICE_CASE);
                out[n++] = dc;
            }
        }
    }
    assert_true(n > 0);
    return n;
}

qn_device *device_open(const device_case *dc, int32_t n_thread) {
    qn_device_options options = {.n_thread = n_thread, .isa = dc->isa, .compose = dc->compose};
    qn_device *device = NULL;
    qn_error err = {0};
    if (qn_device_open(&device, dc->backend, &options, &err) != QN_OK) fail_msg("%s: %s", dc->name, err.message);
    return device;
}

static const struct operand {
    const char *name;
    double spread; /* standard deviation of random values; norms are 1 + spread · normal */
} operands[N_OPERAND] = {
    [HIDDEN] = {"hidden", 1},
    [NORM1] = {"norm1", 0.1},
    [NORM2] = {"norm2", 0.1},
    [Q_NORM] = {"q_norm", 0.1},
    [K_NORM] = {"k_norm", 0.1},
    [Q_PROJ] = {"q_proj", 0.1},
    [K_PROJ] = {"k_proj", 0.1},
    [V_PROJ] = {"v_proj", 0.1},
    [O_PROJ] = {"o_proj", 0.1},
    [GATE_PROJ] = {"gate_proj", 0.1},
    [UP_PROJ] = {"up_proj", 0.1},
    [DOWN_PROJ] = {"down_proj", 0.1},
    [K_CACHE] = {"k_cache", 1},
    [V_CACHE] = {"v_cache", 1},
    [Q] = {"q", 1},
    [K] = {"k", 1},
    [V] = {"v", 1},
    [ATTN] = {"attn", 1},
};

const char *operand_name(operand_id id) {
    return operands[id].name;
}

int32_t operand_shape(const problem *p, operand_id id, int64_t shape[QN_MAX_RANK]) {
    int64_t a = p->nq * p->d, kv = p->nkv * p->d;
    const struct {
        int32_t rank;
        int64_t shape[QN_MAX_RANK];
    } shapes[N_OPERAND] = {
        [HIDDEN] = {3, {p->b, p->t, p->h}},
        [NORM1] = {1, {p->h}},
        [NORM2] = {1, {p->h}},
        [Q_NORM] = {1, {p->d}},
        [K_NORM] = {1, {p->d}},
        [Q_PROJ] = {2, {p->h, a}},
        [K_PROJ] = {2, {p->h, kv}},
        [V_PROJ] = {2, {p->h, kv}},
        [O_PROJ] = {2, {a, p->h}},
        [GATE_PROJ] = {2, {p->h, p->i}},
        [UP_PROJ] = {2, {p->h, p->i}},
        [DOWN_PROJ] = {2, {p->i, p->h}},
        [K_CACHE] = {4, {p->b, p->nkv, p->c, p->d}},
        [V_CACHE] = {4, {p->b, p->nkv, p->c, p->d}},
        [Q] = {4, {p->b, p->t, p->nq, p->d}},
        [K] = {4, {p->b, p->t, p->nkv, p->d}},
        [V] = {4, {p->b, p->t, p->nkv, p->d}},
        [ATTN] = {3, {p->b, p->t, a}},
    };
    memcpy(shape, shapes[id].shape, sizeof shapes[id].shape);
    return shapes[id].rank;
}

int64_t operand_count(const problem *p, operand_id id) {
    int64_t shape[QN_MAX_RANK], n = 1;
    int32_t rank = operand_shape(p, id, shape);
    for (int32_t i = 0; i < rank; i++) n *= shape[i];
    return n;
}

double random_uniform(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)(*state >> 11) * 0x1p-53;
}

double random_normal(uint64_t *state) {
    double u = random_uniform(state), v = random_uniform(state);
    return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v);
}

void problem_random(problem *p, uint64_t seed) {
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    for (operand_id id = 0; id < N_OPERAND; id++) {
        int64_t n = operand_count(p, id);
        bool is_norm = id >= NORM1 && id <= K_NORM;
        p->values[id] = malloc((size_t)n * sizeof(float));
        assert_non_null(p->values[id]);
        for (int64_t i = 0; i < n; i++) {
            p->values[id][i] = (float)((is_norm ? 1.0 : 0.0) + operands[id].spread * random_normal(&state));
        }
    }
}

static double number(const qn_tensor_file *file, const char *key) {
    const char *text = qn_tensor_file_metadata(file, key);
    if (text == NULL) fail_msg("golden file without %s", key);
    return strtod(text, NULL);
}

void problem_golden(problem *p, const char *path) {
    qn_device *device = NULL;
    qn_tensor_file *file = NULL;
    assert_int_equal(qn_device_open(&device, "ref", NULL, NULL), QN_OK);
    assert_int_equal(qn_tensor_file_open(&file, path, NULL), QN_OK);
    *p = (problem){
        .b = (int64_t)number(file, "batch"),
        .t = (int64_t)number(file, "tokens"),
        .h = (int64_t)number(file, "hidden"),
        .i = (int64_t)number(file, "intermediate"),
        .nq = (int64_t)number(file, "heads"),
        .nkv = (int64_t)number(file, "kv_heads"),
        .d = (int64_t)number(file, "head_dim"),
        .c = (int64_t)number(file, "capacity"),
        .offset = (int64_t)number(file, "offset"),
        .theta = number(file, "theta"),
        .scale = number(file, "scale"),
        .eps = number(file, "eps"),
    };
    for (operand_id id = 0; id < N_OPERAND; id++) {
        qn_tensor *t = NULL;
        assert_int_equal(qn_tensor_file_read(&t, file, device, operand_name(id), NULL), QN_OK);
        assert_int_equal(tensor_count(t), operand_count(p, id));
        p->values[id] = tensor_floats(t);
        qn_tensor_free(t);
    }
    qn_tensor_file_close(file);
    qn_device_close(device);
}

void problem_free(problem *p) {
    for (operand_id id = 0; id < N_OPERAND; id++) free(p->values[id]);
    memset(p->values, 0, sizeof p->values);
}

int64_t tensor_count(const qn_tensor *t) {
    return (int64_t)(qn_tensor_bytes(t) / qn_dtype_bytes(qn_tensor_dtype(t)));
}

void *tensor_bits(const qn_tensor *t) {
    void *bits = malloc(qn_tensor_bytes(t));
    assert_non_null(bits);
    assert_int_equal(qn_tensor_read(t, bits, qn_tensor_bytes(t), NULL), QN_OK);
    return bits;
}

float *tensor_floats(const qn_tensor *t) {
    int64_t n = tensor_count(t);
    void *bits = tensor_bits(t);
    if (qn_tensor_dtype(t) == QN_DTYPE_F32) return bits;
    float *floats = malloc((size_t)n * sizeof *floats);
    assert_non_null(floats);
    for (int64_t i = 0; i < n; i++) {
        uint16_t half = ((const uint16_t *)bits)[i];
        floats[i] = qn_tensor_dtype(t) == QN_DTYPE_BF16 ? qni_f32_of_bf16(half) : qni_f32_of_f16(half);
    }
    free(bits);
    return floats;
}

static void tensor_set(qn_tensor *t, const float *values) {
    int64_t n = tensor_count(t);
    qn_dtype dtype = qn_tensor_dtype(t);
    uint16_t *half = malloc((size_t)n * sizeof *half);
    assert_non_null(half);
    for (int64_t i = 0; i < n && dtype != QN_DTYPE_F32; i++) {
        half[i] = dtype == QN_DTYPE_BF16 ? qni_bf16_of_f32(values[i]) : qni_f16_of_f32(values[i]);
    }
    const void *data = dtype == QN_DTYPE_F32 ? (const void *)values : half;
    assert_int_equal(qn_tensor_write(t, data, qn_tensor_bytes(t), NULL), QN_OK);
    free(half);
}

qn_tensor *tensor_make(qn_device *device, qn_dtype dtype, int32_t rank, const int64_t *shape, const float *values) {
    qn_tensor *t = NULL;
    assert_int_equal(qn_tensor_create(&t, device, dtype, rank, shape, NULL), QN_OK);
    if (values != NULL) tensor_set(t, values);
    return t;
}

static bool is_linear(operand_id id) {
    return id >= Q_PROJ && id <= DOWN_PROJ;
}

static qn_dtype dtype_for(const dtypes *types, operand_id id) {
    if (id == K_CACHE) return types->k_cache;
    if (id == V_CACHE) return types->v_cache;
    if (is_linear(id)) return types->linear;
    return id >= NORM1 && id <= K_NORM ? types->norm : types->stream;
}

void bench_make(bench *s, const problem *p, qn_device *device, dtypes types, bool packed) {
    *s = (bench){.p = p, .device = device, .position = {.value = p->offset}, .rope = {.theta = p->theta}};
    int64_t shape[QN_MAX_RANK];
    for (operand_id id = 0; id < N_OPERAND; id++) {
        int32_t rank = operand_shape(p, id, shape);
        s->t[id] = tensor_make(device, dtype_for(&types, id), rank, shape, p->values[id]);
        if (packed && is_linear(id)) {
            assert_int_equal(qn_linear_pack(&s->packed[id], s->t[id], QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL), QN_OK);
        }
    }
    s->out = tensor_make(device, types.stream, operand_shape(p, HIDDEN, shape), shape, NULL);
    s->attn_out = tensor_make(device, types.stream, 3, (const int64_t[]){p->b, p->t, p->nq * p->d}, NULL);
}

void bench_reset(bench *s) {
    tensor_set(s->t[K_CACHE], s->p->values[K_CACHE]);
    tensor_set(s->t[V_CACHE], s->p->values[V_CACHE]);
}

void bench_free(bench *s) {
    for (operand_id id = 0; id < N_OPERAND; id++) {
        qn_tensor_free(s->t[id]);
        qn_linear_free(s->packed[id]);
    }
    qn_tensor_free(s->out);
    qn_tensor_free(s->attn_out);
}

qn_operand bench_linear(const bench *s, operand_id id) {
    if (s->packed[id] != NULL) return (qn_operand){.packed = s->packed[id]};
    return (qn_operand){.plain = s->t[id]};
}

qn_layer_weights bench_weights(const bench *s) {
    return (qn_layer_weights){
        .attention = {.norm = s->t[NORM1],
                      .q_proj = bench_linear(s, Q_PROJ),
                      .k_proj = bench_linear(s, K_PROJ),
                      .v_proj = bench_linear(s, V_PROJ),
                      .o_proj = bench_linear(s, O_PROJ),
                      .q_norm = s->t[Q_NORM],
                      .k_norm = s->t[K_NORM]},
        .mlp = {.norm = s->t[NORM2],
                .gate_proj = bench_linear(s, GATE_PROJ),
                .up_proj = bench_linear(s, UP_PROJ),
                .down_proj = bench_linear(s, DOWN_PROJ)},
    };
}

const char *primitive_name(primitive_id id) {
    static const char *const names[] = {"kv_attention", "mlp", "attention_residual", "attention_block", "layer"};
    return names[id];
}

bool primitive_has_cache(primitive_id id) {
    return id == KV_ATTENTION || id == ATTENTION_BLOCK || id == LAYER;
}

qn_status primitive_run(primitive_id id, const bench *s, qn_error *err) {
    const problem *p = s->p;
    qn_layer_weights w = bench_weights(s);
    switch (id) {
    case KV_ATTENTION:
        return qn_kv_attention(&(qn_kv_attention_args){.out = s->attn_out,
                                                       .q = s->t[Q],
                                                       .k = s->t[K],
                                                       .v = s->t[V],
                                                       .k_cache = s->t[K_CACHE],
                                                       .v_cache = s->t[V_CACHE],
                                                       .offset = s->position,
                                                       .scale = p->scale,
                                                       .rope = s->rope},
                               err);
    case MLP:
        return qn_mlp(&(qn_mlp_args){.out = s->out,
                                     .hidden = s->t[HIDDEN],
                                     .norm = w.mlp.norm,
                                     .gate_proj = w.mlp.gate_proj,
                                     .up_proj = w.mlp.up_proj,
                                     .down_proj = w.mlp.down_proj,
                                     .eps = p->eps},
                      err);
    case ATTENTION_RESIDUAL:
        return qn_attention_residual(
            &(qn_attention_residual_args){
                .out = s->out, .hidden = s->t[HIDDEN], .attn = s->t[ATTN], .o_proj = w.attention.o_proj},
            err);
    case ATTENTION_BLOCK:
        return qn_attention_block(&(qn_attention_block_args){.out = s->out,
                                                             .hidden = s->t[HIDDEN],
                                                             .weights = w.attention,
                                                             .k_cache = s->t[K_CACHE],
                                                             .v_cache = s->t[V_CACHE],
                                                             .offset = s->position,
                                                             .scale = p->scale,
                                                             .rope = s->rope,
                                                             .eps = p->eps},
                                  err);
    case LAYER:
    case N_PRIMITIVE:
        break;
    }
    return qn_layer(&(qn_layer_args){.out = s->out,
                                     .hidden = s->t[HIDDEN],
                                     .weights = w,
                                     .k_cache = s->t[K_CACHE],
                                     .v_cache = s->t[V_CACHE],
                                     .offset = s->position,
                                     .scale = p->scale,
                                     .rope = s->rope,
                                     .eps = p->eps},
                    err);
}

qn_tensor *primitive_compute(primitive_id id, const bench *s) {
    qn_error err = {0};
    if (primitive_run(id, s, &err) != QN_OK) fail_msg("%s: %s", primitive_name(id), err.message);
    return id == KV_ATTENTION ? s->attn_out : s->out;
}
