/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands that a primitive must reject: missing, of wrong rank, size or dtype, on another device, read-only or
 * overlapping. Each with its full message, and with outputs and caches unchanged.
 */
#include "support/calls.h"
#include "support/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_device *device, *other_device;
static calls c;

static int setup(void **state) {
    (void)state;
    device_case first = {.backend = "ref"};
    device = device_open(&first, 0);
    other_device = device_open(&first, 0);
    calls_make(&c, device);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    calls_free(&c);
    qn_device_close(device);
    qn_device_close(other_device);
    return 0;
}

enum { F32 = QN_DTYPE_F32, BF16 = QN_DTYPE_BF16, S32 = QN_DTYPE_S32, U32 = QN_DTYPE_U32, S64 = QN_DTYPE_S64 };

/* An operand replaced by a tensor of this dtype and shape (nonzero sizes). */
typedef struct replacement {
    const char *name;
    int dtype;
    int64_t shape[QN_MAX_RANK];
    const char *message; /* without the layer's prefix */
} replacement;

/* The call with one operand replaced; a linear of rank 2 is also tried packed. */
static void check_replacement(call_id id, const char *prefix, const char *name, const replacement *r,
                              const char *message) {
    char full_name[64], full_message[256];
    snprintf(full_name, sizeof full_name, "%s%s", prefix, name);
    snprintf(full_message, sizeof full_message, "%s%s", prefix, message);
    slot *s = calls_slot(&c, id, full_name);
    assert_non_null(s);
    int32_t rank = 0;
    while (rank < QN_MAX_RANK && r->shape[rank] != 0) rank++;
    qn_tensor *t = NULL;
    assert_int_equal(qn_tensor_create(&t, device, (qn_dtype)r->dtype, rank, r->shape, NULL), QN_OK);
    call_args saved = c.args;
    if (s->linear == NULL) {
        *s->tensor = t;
        calls_refused(&c, id, QN_EINVAL, full_message);
    } else {
        *s->linear = (qn_operand){.plain = t};
        calls_refused(&c, id, QN_EINVAL, full_message);
        if (rank == 2 && r->dtype == F32) {
            bool is_vocabulary = strcmp(name, "lm_head") == 0 || strcmp(name, "embedding") == 0;
            qn_linear *packed = NULL;
            assert_int_equal(
                qn_linear_pack(&packed, t, is_vocabulary ? QN_LAYOUT_OUT_IN : QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL),
                QN_OK);
            *s->linear = (qn_operand){.packed = packed};
            calls_refused(&c, id, QN_EINVAL, full_message);
            qn_linear_free(packed);
        }
    }
    c.args = saved;
    qn_tensor_free(t);
}

static void all_replaced(call_id id, const char *prefix, const replacement *list, size_t n) {
    for (size_t i = 0; i < n; i++) check_replacement(id, prefix, list[i].name, &list[i], list[i].message);
}
#define ALL_REPLACED(id, prefix, list) all_replaced(id, prefix, list, sizeof(list) / sizeof((list)[0]))

static const char *const floats = "dtype must be f32, bf16 or f16, got s32";

/* {H} under the call's name for it. */
static void check_norm(call_id id, const char *prefix, const char *name) {
    char message[128];
    snprintf(message, sizeof message, "%s: rank must be 1, got 2", name);
    check_replacement(id, prefix, name, &(replacement){.dtype = F32, .shape = {24, 1}}, message);
    snprintf(message, sizeof message, "%s: length must be 24, got 25", name);
    check_replacement(id, prefix, name, &(replacement){.dtype = F32, .shape = {25}}, message);
    snprintf(message, sizeof message, "%s: %s", name, floats);
    check_replacement(id, prefix, name, &(replacement){.dtype = S32, .shape = {24}}, message);
}

static void check_attention_weights(call_id id, const char *prefix, const char *norm) {
    check_norm(id, prefix, norm);
    static const replacement list[] = {
        {"q_proj", F32, {24}, "q_proj: rank must be 2, got 1"},
        {"q_proj", F32, {25, 32}, "q_proj: input width must be 24, got 25"},
        {"q_proj", F32, {24, 40}, "o_proj: input width must be 40, got 32"},
        {"q_proj", S32, {24, 32}, "q_proj: dtype must be f32, bf16 or f16, got s32"},
        {"k_proj", F32, {24, 16, 1}, "k_proj: rank must be 2, got 3"},
        {"k_proj", F32, {23, 16}, "k_proj: input width must be 24, got 23"},
        {"k_proj", F32, {24, 24}, "v_proj: output width must be 24, got 16"},
        {"k_proj", U32, {24, 16}, "k_proj: dtype must be f32, bf16 or f16, got u32"},
        {"v_proj", F32, {16}, "v_proj: rank must be 2, got 1"},
        {"v_proj", F32, {1, 16}, "v_proj: input width must be 24, got 1"},
        {"v_proj", F32, {24, 8}, "v_proj: output width must be 16, got 8"},
        {"v_proj", S64, {24, 16}, "v_proj: dtype must be f32, bf16 or f16, got s64"},
        {"o_proj", F32, {32, 24, 1, 1}, "o_proj: rank must be 2, got 4"},
        {"o_proj", F32, {24, 24}, "o_proj: input width must be 32, got 24"},
        {"o_proj", F32, {32, 25}, "o_proj: output width must be 24, got 25"},
        {"o_proj", S32, {32, 24}, "o_proj: dtype must be f32, bf16 or f16, got s32"},
        {"q_norm", F32, {8, 1}, "q_norm: rank must be 1, got 2"},
        {"q_norm", S32, {8}, "q_norm: dtype must be f32, bf16 or f16, got s32"},
        {"k_norm", F32, {8, 1}, "k_norm: rank must be 1, got 2"},
        {"k_norm", F32, {9}, "k_norm: length must be 8, got 9"},
        {"k_norm", S32, {8}, "k_norm: dtype must be f32, bf16 or f16, got s32"},
    };
    ALL_REPLACED(id, prefix, list);
}

static void check_mlp_weights(call_id id, const char *prefix, const char *norm) {
    check_norm(id, prefix, norm);
    static const replacement list[] = {
        {"gate_proj", F32, {24}, "gate_proj: rank must be 2, got 1"},
        {"gate_proj", F32, {25, 40}, "gate_proj: input width must be 24, got 25"},
        {"gate_proj", F32, {24, 41}, "up_proj: output width must be 41, got 40"},
        {"gate_proj", S32, {24, 40}, "gate_proj: dtype must be f32, bf16 or f16, got s32"},
        {"up_proj", F32, {24}, "up_proj: rank must be 2, got 1"},
        {"up_proj", F32, {40, 24}, "up_proj: input width must be 24, got 40"},
        {"up_proj", F32, {24, 39}, "up_proj: output width must be 40, got 39"},
        {"up_proj", S32, {24, 40}, "up_proj: dtype must be f32, bf16 or f16, got s32"},
        {"down_proj", F32, {24}, "down_proj: rank must be 2, got 1"},
        {"down_proj", F32, {39, 24}, "down_proj: input width must be 40, got 39"},
        {"down_proj", F32, {40, 23}, "down_proj: output width must be 24, got 23"},
        {"down_proj", S32, {40, 24}, "down_proj: dtype must be f32, bf16 or f16, got s32"},
    };
    ALL_REPLACED(id, prefix, list);
}

static void check_caches(call_id id, const char *prefix) {
    static const replacement list[] = {
        {"k_cache", F32, {2, 2, 128}, "k_cache: rank must be 4, got 3"},
        {"k_cache", F32, {1, 2, 16, 8}, "k_cache: batch must be 2, got 1"},
        {"k_cache", F32, {2, 4, 16, 8}, "k_cache: heads must be 2, got 4"},
        {"k_cache", F32, {2, 2, 17, 8}, "v_cache: capacity must be 17, got 16"},
        {"k_cache", F32, {2, 2, 16, 4}, "k_cache: head_dim must be 8, got 4"},
        {"k_cache", S32, {2, 2, 16, 8}, "k_cache: dtype must be f32, bf16 or f16, got s32"},
        {"v_cache", F32, {2, 2, 128}, "v_cache: rank must be 4, got 3"},
        {"v_cache", F32, {3, 2, 16, 8}, "v_cache: batch must be 2, got 3"},
        {"v_cache", F32, {2, 1, 16, 8}, "v_cache: heads must be 2, got 1"},
        {"v_cache", F32, {2, 2, 15, 8}, "v_cache: capacity must be 16, got 15"},
        {"v_cache", F32, {2, 2, 16, 16}, "v_cache: head_dim must be 8, got 16"},
        {"v_cache", S64, {2, 2, 16, 8}, "v_cache: dtype must be f32, bf16 or f16, got s64"},
    };
    ALL_REPLACED(id, prefix, list);
}

static void check_stream(call_id id) {
    static const replacement list[] = {
        {"hidden", F32, {2, 72}, "hidden: rank must be 3, got 2"},
        {"hidden", F32, {3, 3, 24}, "out: batch must be 3, got 2"},
        {"hidden", F32, {2, 4, 24}, "out: tokens must be 4, got 3"},
        {"hidden", F32, {2, 3, 25}, "out: width must be 25, got 24"},
        {"hidden", S32, {2, 3, 24}, "hidden: dtype must be f32, bf16 or f16, got s32"},
        {"hidden", BF16, {2, 3, 24}, "out: dtype must be bf16, got f32"},
        {"out", F32, {2, 3, 24, 1}, "out: rank must be 3, got 4"},
        {"out", F32, {1, 3, 24}, "out: batch must be 2, got 1"},
        {"out", F32, {2, 2, 24}, "out: tokens must be 3, got 2"},
        {"out", F32, {2, 3, 23}, "out: width must be 24, got 23"},
        {"out", BF16, {2, 3, 24}, "out: dtype must be f32, got bf16"},
        {"out", S32, {2, 3, 24}, "out: dtype must be f32, got s32"},
    };
    ALL_REPLACED(id, "", list);
}

static void kv_attention_operands(void **state) {
    (void)state;
    static const replacement list[] = {
        {"q", F32, {2, 3, 32}, "q: rank must be 4, got 3"},
        {"q", F32, {1, 3, 4, 8}, "k: batch must be 1, got 2"},
        {"q", F32, {2, 4, 4, 8}, "k: tokens must be 4, got 3"},
        {"q", F32, {2, 3, 5, 8}, "query heads: must be a multiple of the 2 key/value heads, got 5"},
        {"q", F32, {2, 3, 1, 8}, "query heads: must be a multiple of the 2 key/value heads, got 1"},
        {"q", F32, {2, 3, 6, 8}, "out: width must be 48, got 32"},
        {"q", F32, {2, 3, 4, 10}, "k: head_dim must be 10, got 8"},
        {"q", S32, {2, 3, 4, 8}, "q: dtype must be f32, bf16 or f16, got s32"},
        {"q", BF16, {2, 3, 4, 8}, "out: dtype must be bf16, got f32"},
        {"k", F32, {2, 3, 16}, "k: rank must be 4, got 3"},
        {"k", F32, {3, 3, 2, 8}, "k: batch must be 2, got 3"},
        {"k", F32, {2, 1, 2, 8}, "k: tokens must be 3, got 1"},
        {"k", F32, {2, 3, 4, 8}, "v: heads must be 4, got 2"},
        {"k", F32, {2, 3, 2, 16}, "k: head_dim must be 8, got 16"},
        {"k", S32, {2, 3, 2, 8}, "k: dtype must be f32, bf16 or f16, got s32"},
        {"v", F32, {2, 3, 16}, "v: rank must be 4, got 3"},
        {"v", F32, {1, 3, 2, 8}, "v: batch must be 2, got 1"},
        {"v", F32, {2, 5, 2, 8}, "v: tokens must be 3, got 5"},
        {"v", F32, {2, 3, 1, 8}, "v: heads must be 2, got 1"},
        {"v", F32, {2, 3, 2, 6}, "v: head_dim must be 8, got 6"},
        {"v", U32, {2, 3, 2, 8}, "v: dtype must be f32, bf16 or f16, got u32"},
        {"out", F32, {6, 32}, "out: rank must be 3, got 2"},
        {"out", F32, {1, 3, 32}, "out: batch must be 2, got 1"},
        {"out", F32, {2, 4, 32}, "out: tokens must be 3, got 4"},
        {"out", F32, {2, 3, 16}, "out: width must be 32, got 16"},
        {"out", BF16, {2, 3, 32}, "out: dtype must be f32, got bf16"},
    };
    ALL_REPLACED(CALL_KV_ATTENTION, "", list);
    check_caches(CALL_KV_ATTENTION, "");
}

static void mlp_operands(void **state) {
    (void)state;
    check_stream(CALL_MLP);
    check_mlp_weights(CALL_MLP, "", "norm");
}

static void attention_residual_operands(void **state) {
    (void)state;
    check_stream(CALL_ATTENTION_RESIDUAL);
    static const replacement list[] = {
        {"attn", F32, {6, 32}, "attn: rank must be 3, got 2"},
        {"attn", F32, {3, 3, 32}, "attn: batch must be 2, got 3"},
        {"attn", F32, {2, 2, 32}, "attn: tokens must be 3, got 2"},
        {"attn", F32, {2, 3, 31}, "o_proj: input width must be 31, got 32"},
        {"attn", S32, {2, 3, 32}, "attn: dtype must be f32, bf16 or f16, got s32"},
        {"o_proj", F32, {32}, "o_proj: rank must be 2, got 1"},
        {"o_proj", F32, {24, 24}, "o_proj: input width must be 32, got 24"},
        {"o_proj", F32, {32, 32}, "o_proj: output width must be 24, got 32"},
        {"o_proj", S32, {32, 24}, "o_proj: dtype must be f32, bf16 or f16, got s32"},
    };
    ALL_REPLACED(CALL_ATTENTION_RESIDUAL, "", list);
}

static void attention_block_operands(void **state) {
    (void)state;
    check_stream(CALL_ATTENTION_BLOCK);
    check_attention_weights(CALL_ATTENTION_BLOCK, "", "norm");
    check_caches(CALL_ATTENTION_BLOCK, "");
}

static void layer_operands(void **state) {
    (void)state;
    check_stream(CALL_LAYER);
    check_attention_weights(CALL_LAYER, "", "norm1");
    check_mlp_weights(CALL_LAYER, "", "norm2");
    check_caches(CALL_LAYER, "");
}

static void greedy_operands(void **state) {
    (void)state;
    static const replacement list[] = {
        {"hidden", F32, {2, 72}, "hidden: rank must be 3, got 2"},
        {"hidden", F32, {3, 3, 24}, "out: batch must be 3, got 2"},
        {"hidden", F32, {2, 3, 25}, "norm: length must be 25, got 24"},
        {"hidden", S32, {2, 3, 24}, "hidden: dtype must be f32, bf16 or f16, got s32"},
        {"out", U32, {2, 1}, "out: rank must be 1, got 2"},
        {"out", U32, {3}, "out: batch must be 2, got 3"},
        {"out", S32, {2}, "out: dtype must be u32, got s32"},
        {"out", F32, {2}, "out: dtype must be u32, got f32"},
        {"lm_head", F32, {50}, "lm_head: rank must be 2, got 1"},
        {"lm_head", F32, {50, 23}, "lm_head: width must be 24, got 23"},
        {"lm_head", S32, {50, 24}, "lm_head: dtype must be f32, bf16 or f16, got s32"},
    };
    ALL_REPLACED(CALL_GREEDY, "", list);
    check_norm(CALL_GREEDY, "", "norm");
}

static void forward_greedy_operands(void **state) {
    (void)state;
    static const replacement list[] = {
        {"hidden", F32, {2, 72}, "hidden: rank must be 3, got 2"},
        {"hidden", F32, {1, 3, 24}, "out: batch must be 1, got 2"},
        {"hidden", F32, {2, 3, 25}, "norm: length must be 25, got 24"},
        {"hidden", S32, {2, 3, 24}, "hidden: dtype must be f32, bf16 or f16, got s32"},
        {"out", U32, {8}, "out: rank must be 2, got 1"},
        {"out", U32, {1, 4}, "out: batch must be 2, got 1"},
        {"out", U32, {2, 5}, "out: tokens must be 4, got 5"},
        {"out", S64, {2, 4}, "out: dtype must be u32, got s64"},
        {"lm_head", F32, {50, 24, 1}, "lm_head: rank must be 2, got 3"},
        {"lm_head", F32, {50, 25}, "lm_head: width must be 24, got 25"},
        {"lm_head", F32, {49, 24}, "embedding: vocabulary must be 49, got 50"},
        {"lm_head", S32, {50, 24}, "lm_head: dtype must be f32, bf16 or f16, got s32"},
        {"embedding", F32, {24}, "embedding: rank must be 2, got 1"},
        {"embedding", F32, {51, 24}, "embedding: vocabulary must be 50, got 51"},
        {"embedding", F32, {50, 23}, "embedding: width must be 24, got 23"},
        {"embedding", S32, {50, 24}, "embedding: dtype must be f32, bf16 or f16, got s32"},
    };
    ALL_REPLACED(CALL_FORWARD_GREEDY, "", list);
    check_norm(CALL_FORWARD_GREEDY, "", "norm");
    for (int layer = 0; layer < 2; layer++) {
        const char *prefix = layer == 0 ? "layer 0 " : "layer 1 ";
        check_attention_weights(CALL_FORWARD_GREEDY, prefix, "norm1");
        check_mlp_weights(CALL_FORWARD_GREEDY, prefix, "norm2");
        check_caches(CALL_FORWARD_GREEDY, prefix);
    }
    /* All layers share one head width: the angles are computed once. */
    check_replacement(CALL_FORWARD_GREEDY, "layer 1 ", "q_norm", &(replacement){.dtype = F32, .shape = {4}},
                      "q_norm: length must be 8, got 4");
}

/* Apply one generic mistake to each operand of each call in turn. */
static void for_each_slot(void (*mistake)(call_id id, slot *s)) {
    for (call_id id = 0; id < N_CALL; id++) {
        for (int i = 0; i < c.n_slot[id]; i++) {
            call_args saved = c.args;
            mistake(id, &c.slots[id][i]);
            c.args = saved;
        }
    }
}

static const qn_tensor *plain_of(const slot *s) {
    return s->linear != NULL ? s->linear->plain : *s->tensor;
}

static void absent_one(call_id id, slot *s) {
    char message[96];
    snprintf(message, sizeof message, "%s: is NULL", s->name);
    if (s->linear == NULL) {
        *s->tensor = NULL;
        if (id == CALL_FORWARD_GREEDY && strcmp(s->name, "hidden") == 0) {
            snprintf(message, sizeof message, "ids: exactly one of ids and hidden must be set, got none");
        }
        calls_refused(&c, id, QN_EINVAL, message);
        return;
    }
    const qn_tensor *plain = s->linear->plain;
    *s->linear = (qn_operand){0};
    calls_refused(&c, id, QN_EINVAL, message);
    qn_linear *packed = NULL;
    assert_int_equal(qn_linear_pack(&packed, plain, QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL), QN_OK);
    *s->linear = (qn_operand){.plain = plain, .packed = packed};
    snprintf(message, sizeof message, "%s: is both plain and packed", s->name);
    calls_refused(&c, id, QN_EINVAL, message);
    qn_linear_free(packed);
}

static void missing_operands(void **state) {
    (void)state;
    for_each_slot(absent_one);
    qn_error err;
    assert_int_equal(qn_kv_attention(NULL, &err), QN_EINVAL);
    assert_string_equal(err.message, "args: is NULL");
    assert_int_equal(qn_mlp(NULL, &err), QN_EINVAL);
    assert_int_equal(qn_attention_residual(NULL, &err), QN_EINVAL);
    assert_int_equal(qn_attention_block(NULL, &err), QN_EINVAL);
    assert_int_equal(qn_layer(NULL, &err), QN_EINVAL);
    assert_int_equal(qn_greedy(NULL, &err), QN_EINVAL);
    assert_int_equal(qn_forward_greedy(NULL, &err), QN_EINVAL);
}

/* The device is that of the first output; one operand of the same shape is placed on another device. */
static void elsewhere_one(call_id id, slot *s) {
    const qn_tensor *here = plain_of(s);
    qn_tensor *there = NULL;
    assert_int_equal(qn_tensor_create(&there, other_device, qn_tensor_dtype(here), qn_tensor_rank(here),
                                      qn_tensor_shape(here), NULL),
                     QN_OK);
    char message[96];
    /* With `out` itself on another device, the first other operand is reported. */
    const char *odd = strcmp(s->name, "out") == 0 ? c.slots[id][0].name : s->name;
    snprintf(message, sizeof message, "%s: is on another device than out", odd);
    if (s->linear == NULL) {
        *s->tensor = there;
    } else {
        *s->linear = (qn_operand){.plain = there};
    }
    calls_refused(&c, id, QN_EINVAL, message);
    if (s->linear != NULL) {
        bool is_vocabulary = strcmp(s->name, "lm_head") == 0 || strcmp(s->name, "embedding") == 0;
        qn_linear *packed = NULL;
        assert_int_equal(
            qn_linear_pack(&packed, there, is_vocabulary ? QN_LAYOUT_OUT_IN : QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL),
            QN_OK);
        *s->linear = (qn_operand){.packed = packed};
        calls_refused(&c, id, QN_EINVAL, message);
        qn_linear_free(packed);
    }
    qn_tensor_free(there);
}

static void operands_of_another_device(void **state) {
    (void)state;
    for_each_slot(elsewhere_one);
}

/* A tensor like `t` over the caller's bytes. */
static qn_tensor *wrapped(const qn_tensor *t, void *data, bool read_only) {
    qn_wrap wrap = {.dtype = qn_tensor_dtype(t), .rank = qn_tensor_rank(t), .data = data, .read_only = read_only};
    memcpy(wrap.shape, qn_tensor_shape(t), (size_t)wrap.rank * sizeof wrap.shape[0]);
    qn_tensor *w = NULL;
    assert_int_equal(qn_tensor_wrap(&w, qn_tensor_device(t), &wrap, NULL), QN_OK);
    return w;
}

static void read_only_one(call_id id, slot *s) {
    if (!s->written) return;
    void *data = calloc(1, qn_tensor_bytes(*s->tensor));
    assert_non_null(data);
    qn_tensor *w = wrapped(*s->tensor, data, true);
    *s->tensor = w;
    char message[96];
    snprintf(message, sizeof message, "%s: is read-only", s->name);
    calls_refused(&c, id, QN_EINVAL, message);
    qn_tensor_free(w);
    free(data);
}

static void read_only(void **state) {
    (void)state;
    for_each_slot(read_only_one);
}

/* Each written operand shares its last element with the first of each other operand. */
static void overlap_one(call_id id, slot *s) {
    if (!s->written) return;
    for (int j = 0; j < c.n_slot[id]; j++) {
        slot *o = &c.slots[id][j];
        if (o == s) continue;
        const qn_tensor *a = *s->tensor, *b = plain_of(o);
        size_t last = qn_tensor_bytes(a) - 4;
        unsigned char *data = calloc(1, last + qn_tensor_bytes(b));
        assert_non_null(data);
        call_args saved = c.args;
        qn_tensor *wa = wrapped(a, data, false), *wb = wrapped(b, data + last, false);
        *s->tensor = wa;
        if (o->linear != NULL) {
            *o->linear = (qn_operand){.plain = wb};
        } else {
            *o->tensor = wb;
        }
        char message[96];
        /* Of two written operands, the message begins with the first in the list. */
        bool swap = o->written && o < s;
        snprintf(message, sizeof message, "%s: overlaps %s", swap ? o->name : s->name, swap ? s->name : o->name);
        calls_refused(&c, id, QN_EINVAL, message);
        c.args = saved;
        qn_tensor_free(wa);
        qn_tensor_free(wb);
        free(data);
    }
}

static void overlapping_operands(void **state) {
    (void)state;
    for_each_slot(overlap_one);
}

/* `out` may be hidden itself, but not hidden shifted by a row, nor a hidden that is also attn. */
static void in_place(void **state) {
    (void)state;
    float data[2 * 4 * 24] = {0};
    qn_wrap wrap = {.dtype = QN_DTYPE_F32, .rank = 3, .shape = {2, 3, 24}, .stride = {96, 24, 1}, .data = data};
    qn_tensor *hidden = NULL, *moved = NULL, *dense = NULL, *same = NULL;
    assert_int_equal(qn_tensor_wrap(&hidden, device, &wrap, NULL), QN_OK);
    assert_int_equal(qn_tensor_wrap(&same, device, &wrap, NULL), QN_OK);
    wrap.data = data + 24;
    assert_int_equal(qn_tensor_wrap(&moved, device, &wrap, NULL), QN_OK);
    wrap.data = data;
    wrap.stride[0] = 72;
    assert_int_equal(qn_tensor_wrap(&dense, device, &wrap, NULL), QN_OK);
    call_args saved = c.args;
    c.args.mlp.hidden = hidden;
    c.args.mlp.out = moved;
    calls_refused(&c, CALL_MLP, QN_EINVAL, "out: overlaps hidden");
    c.args.mlp.out = dense;
    calls_refused(&c, CALL_MLP, QN_EINVAL, "out: overlaps hidden");
    c.args.mlp.out = same;
    assert_int_equal(calls_run(&c, CALL_MLP, NULL), QN_OK);

    qn_tensor *square = tensor_make(device, QN_DTYPE_F32, 2, (const int64_t[]){24, 24}, NULL);
    c.args.attention_residual.hidden = hidden;
    c.args.attention_residual.attn = hidden;
    c.args.attention_residual.out = hidden;
    c.args.attention_residual.o_proj.plain = square;
    calls_refused(&c, CALL_ATTENTION_RESIDUAL, QN_EINVAL, "out: overlaps attn");
    c.args = saved;
    qn_tensor *all[] = {hidden, moved, dense, same, square};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) qn_tensor_free(all[i]);
}

/* An operand directly after another does not overlap it, at any row distance; one element earlier it does. */
static void neighbors(void **state) {
    (void)state;
    enum { EXTENT = 96 + 72, DENSE = 2 * 72 };
    float data[EXTENT + DENSE] = {0};
    qn_wrap apart = {.dtype = QN_DTYPE_F32, .rank = 3, .shape = {2, 3, 24}, .stride = {96, 24, 1}};
    qn_wrap dense = {.dtype = QN_DTYPE_F32, .rank = 3, .shape = {2, 3, 24}, .stride = {72, 24, 1}};
    call_args saved = c.args;
    for (int i = 0; i < 4; i++) {
        const bool first = i % 2 == 0, touches = i >= 2;
        qn_tensor *hidden = NULL, *out = NULL;
        apart.data = first ? data : data + DENSE - touches;
        dense.data = first ? data + EXTENT - touches : data;
        assert_int_equal(qn_tensor_wrap(&hidden, device, &apart, NULL), QN_OK);
        assert_int_equal(qn_tensor_wrap(&out, device, &dense, NULL), QN_OK);
        c.args.mlp.hidden = hidden;
        c.args.mlp.out = out;
        if (touches) {
            calls_refused(&c, CALL_MLP, QN_EINVAL, "out: overlaps hidden");
        } else {
            assert_int_equal(calls_run(&c, CALL_MLP, NULL), QN_OK);
        }
        qn_tensor_free(hidden);
        qn_tensor_free(out);
    }
    c.args = saved;
}

/* K and V in one buffer {B, 2, Nkv, C, D} alternate and do not overlap; shifted by one element they do. */
static void interleaved(void **state) {
    (void)state;
    enum { BLOCK = 2 * 16 * 8 };
    float data[4 * BLOCK + 1] = {0};
    qn_wrap wrap = {
        .dtype = QN_DTYPE_F32, .rank = 4, .shape = {2, 2, 16, 8}, .stride = {2 * BLOCK, 128, 8, 1}, .data = data};
    qn_tensor *k = NULL, *v = NULL, *late = NULL;
    assert_int_equal(qn_tensor_wrap(&k, device, &wrap, NULL), QN_OK);
    wrap.data = data + BLOCK;
    assert_int_equal(qn_tensor_wrap(&v, device, &wrap, NULL), QN_OK);
    wrap.data = data + BLOCK + 1;
    assert_int_equal(qn_tensor_wrap(&late, device, &wrap, NULL), QN_OK);
    call_args saved = c.args;
    qn_tensor *pairs[][2] = {{k, v}, {v, k}};
    for (int i = 0; i < 2; i++) {
        c.args.layer.k_cache = pairs[i][0];
        c.args.layer.v_cache = pairs[i][1];
        assert_int_equal(calls_run(&c, CALL_LAYER, NULL), QN_OK);
    }
    for (int i = 0; i < 2; i++) {
        c.args.layer.k_cache = i ? late : k;
        c.args.layer.v_cache = i ? k : late;
        calls_refused(&c, CALL_LAYER, QN_EINVAL, "k_cache: overlaps v_cache");
    }
    c.args = saved;
    qn_tensor_free(k);
    qn_tensor_free(v);
    qn_tensor_free(late);
}

/* The calls that the tests above break are valid: each succeeds unmodified. */
static void valid_calls_succeed(void **state) {
    (void)state;
    for (call_id id = 0; id < N_CALL; id++) {
        qn_error err = {QN_OK, "untouched"};
        if (calls_run(&c, id, &err) != QN_OK) fail_msg("call %d: %s", (int)id, err.message);
        assert_string_equal(err.message, "untouched");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_calls_succeed),
        cmocka_unit_test(kv_attention_operands),
        cmocka_unit_test(mlp_operands),
        cmocka_unit_test(attention_residual_operands),
        cmocka_unit_test(attention_block_operands),
        cmocka_unit_test(layer_operands),
        cmocka_unit_test(greedy_operands),
        cmocka_unit_test(forward_greedy_operands),
        cmocka_unit_test(missing_operands),
        cmocka_unit_test(operands_of_another_device),
        cmocka_unit_test(read_only),
        cmocka_unit_test(overlapping_operands),
        cmocka_unit_test(in_place),
        cmocka_unit_test(neighbors),
        cmocka_unit_test(interleaved),
        cmocka_unit_test(valid_calls_succeed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
