/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of a call as a whole: numbers out of range, head counts that do not divide, offsets in all forms, capacity,
 * counts of forward_greedy; the order of checks; and operands too large to exist.
 */
#include "support/calls.h"
#include "support/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static qn_device *device;
static calls c;

static int setup(void **state) {
    (void)state;
    device_case first = {.backend = "ref"};
    device = device_open(&first, 0);
    calls_make(&c, device);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    calls_free(&c);
    qn_device_close(device);
    return 0;
}

/* "layer 0 " in forward_greedy, where the first layer is checked first. */
static const char *layer_prefix(call_id id) {
    return id == CALL_FORWARD_GREEDY ? "layer 0 " : "";
}

static void refused(call_id id, const char *prefix, const char *message) {
    char full[256];
    snprintf(full, sizeof full, "%s%s", prefix, message);
    calls_refused(&c, id, QN_EINVAL, full);
}

static void scalar_arguments(void **state) {
    (void)state;
    call_args saved = c.args;
    for (call_id id = 0; id < N_CALL; id++) {
        double *eps = calls_eps(&c, id), *scale = calls_scale(&c, id);
        static const double wrong_eps[] = {0, -1e-6, INFINITY, NAN};
        static const char *const eps_message[] = {"0", "-1e-06", "inf", "nan"};
        for (int i = 0; eps != NULL && i < 4; i++) {
            char message[96];
            snprintf(message, sizeof message, "eps: must be positive and finite, got %s", eps_message[i]);
            *eps = wrong_eps[i];
            refused(id, "", message);
        }
        c.args = saved;
        if (scale == NULL) continue;
        *scale = NAN;
        refused(id, "", "scale: must be finite, got nan");
        *scale = -INFINITY;
        refused(id, "", "scale: must be finite, got -inf");
        c.args = saved;
    }
}

static void rope(void **state) {
    (void)state;
    static const qn_yarn good = {.factor = 4, .original_ctx = 256};
    qn_yarn yarn = good;
    static const float table[] = {1, 0.5f, 0.25f, NAN, 1};
    static const struct {
        qn_rope rope;
        const char *message;
    } cases[] = {
        {{.theta = 0}, "rope: theta must be positive and finite, got 0"},
        {{.theta = -1}, "rope: theta must be positive and finite, got -1"},
        {{.theta = INFINITY}, "rope: theta must be positive and finite, got inf"},
        {{.theta = NAN}, "rope: theta must be positive and finite, got nan"},
        {{.theta = 1e4, .n_inv_freq = 4}, "rope: n_inv_freq must be 0 without a table, got 4"},
        {{.theta = 1e4, .inv_freq = table, .n_inv_freq = 4}, "rope: theta must be 0 with a table, got 10000"},
        {{.yarn = &good, .inv_freq = table, .n_inv_freq = 4}, "rope: yarn must be NULL with a table"},
        {{.inv_freq = table, .n_inv_freq = 0}, "rope: n_inv_freq must be at least 1 with a table, got 0"},
        {{.inv_freq = table, .n_inv_freq = -4}, "rope: n_inv_freq must be at least 1 with a table, got -4"},
        {{.inv_freq = table, .n_inv_freq = 4}, "rope: inv_freq[3] must be finite, got nan"},
        {{.inv_freq = table, .n_inv_freq = 3, .attention_factor = INFINITY},
         "rope: attention_factor must be finite, got inf"},
    };
    static const struct {
        qn_yarn yarn;
        const char *message;
    } yarns[] = {
        {{.factor = 1, .original_ctx = 256}, "rope: yarn factor must be finite and above 1, got 1"},
        {{.factor = NAN, .original_ctx = 256}, "rope: yarn factor must be finite and above 1, got nan"},
        {{.factor = INFINITY, .original_ctx = 256}, "rope: yarn factor must be finite and above 1, got inf"},
        {{.factor = 4, .original_ctx = 0}, "rope: yarn original_ctx must be at least 1, got 0"},
        {{.factor = 4, .original_ctx = 256, .beta_fast = -1},
         "rope: yarn beta_fast must be finite and not negative, got -1"},
        {{.factor = 4, .original_ctx = 256, .beta_slow = INFINITY},
         "rope: yarn beta_slow must be finite and not negative, got inf"},
        {{.factor = 4, .original_ctx = 256, .attention_factor = NAN},
         "rope: yarn attention_factor must be finite, got nan"},
    };
    call_args saved = c.args;
    for (call_id id = 0; id < N_CALL; id++) {
        qn_rope *r = calls_rope(&c, id);
        if (r == NULL) continue;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            *r = cases[i].rope;
            refused(id, "", cases[i].message);
        }
        for (size_t i = 0; i < sizeof yarns / sizeof yarns[0]; i++) {
            yarn = yarns[i].yarn;
            *r = (qn_rope){.theta = 1e4, .yarn = &yarn};
            refused(id, "", yarns[i].message);
        }
        yarn = good;
        *r = (qn_rope){.theta = 1, .yarn = &yarn};
        refused(id, "", "rope: theta must be above 1 with yarn, got 1");
        /* A table must have D/2 = 4 entries. */
        *r = (qn_rope){.inv_freq = table, .n_inv_freq = 3};
        refused(id, layer_prefix(id), "rope: n_inv_freq must be 4, got 3");
        c.args = saved;
    }
}

/* A block whose projections and norms have these widths; only the first failing check matters. */
static void with_widths(call_id id, int64_t q_width, int64_t kv_width, int64_t d, const char *message) {
    const int64_t h = 24;
    const char *names[] = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"};
    const int64_t shapes[][2] = {{h, q_width}, {h, kv_width}, {h, kv_width}, {q_width, h}, {d, 0}, {d, 0}};
    qn_tensor *made[6];
    call_args saved = c.args;
    for (int i = 0; i < 6; i++) {
        char name[32];
        made[i] = tensor_make(device, QN_DTYPE_F32, i < 4 ? 2 : 1, shapes[i], NULL);
        for (int layer = 0; layer < (id == CALL_FORWARD_GREEDY ? 2 : 1); layer++) {
            snprintf(name, sizeof name, "%s%s",
                     id != CALL_FORWARD_GREEDY ? ""
                     : layer                   ? "layer 1 "
                                               : "layer 0 ",
                     names[i]);
            slot *s = calls_slot(&c, id, name);
            assert_non_null(s);
            if (s->linear != NULL) {
                *s->linear = (qn_operand){.plain = made[i]};
            } else {
                *s->tensor = made[i];
            }
        }
    }
    refused(id, layer_prefix(id), message);
    c.args = saved;
    for (int i = 0; i < 6; i++) qn_tensor_free(made[i]);
}

static void divisibility(void **state) {
    (void)state;
    const call_id ids[] = {CALL_ATTENTION_BLOCK, CALL_LAYER, CALL_FORWARD_GREEDY};
    for (int i = 0; i < 3; i++) {
        with_widths(ids[i], 36, 16, 8, "q_proj: output width must be a multiple of head_dim 8, got 36");
        with_widths(ids[i], 32, 12, 8, "k_proj: output width must be a multiple of head_dim 8, got 12");
        with_widths(ids[i], 4, 16, 8, "q_proj: output width must be a multiple of head_dim 8, got 4");
        with_widths(ids[i], 40, 16, 8, "query heads: must be a multiple of the 2 key/value heads, got 5");
        with_widths(ids[i], 8, 16, 8, "query heads: must be a multiple of the 2 key/value heads, got 1");
        with_widths(ids[i], 27, 9, 9, "head_dim: must be even and 2 to 512, got 9");
        with_widths(ids[i], 4, 2, 1, "head_dim: must be even and 2 to 512, got 1");
        with_widths(ids[i], 514, 514, 514, "head_dim: must be even and 2 to 512, got 514");
        /* Width against head_dim is checked before heads against heads, and both before the caches. */
        with_widths(ids[i], 28, 12, 8, "q_proj: output width must be a multiple of head_dim 8, got 28");
        with_widths(ids[i], 32, 32, 16, "k_cache: head_dim must be 16, got 8");
    }
    const int64_t odd[] = {2, 3, 4, 7}, kv[] = {2, 3, 2, 7};
    qn_tensor *q = tensor_make(device, QN_DTYPE_F32, 4, odd, NULL), *k = tensor_make(device, QN_DTYPE_F32, 4, kv, NULL);
    call_args saved = c.args;
    c.args.kv_attention.q = q;
    c.args.kv_attention.k = c.args.kv_attention.v = k;
    refused(CALL_KV_ATTENTION, "", "head_dim: must be even and 2 to 512, got 7");
    c.args = saved;
    qn_tensor_free(q);
    qn_tensor_free(k);
}

static void offset_forms(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 2, 3}, negative[] = {0, -7};
    qn_tensor *two = tensor_make(device, QN_DTYPE_S32, 1, (const int64_t[]){2}, NULL);
    qn_tensor *three = tensor_make(device, QN_DTYPE_S64, 1, (const int64_t[]){3}, NULL);
    qn_tensor *matrix = tensor_make(device, QN_DTYPE_S32, 2, (const int64_t[]){1, 2}, NULL);
    qn_tensor *floats = tensor_make(device, QN_DTYPE_F32, 1, (const int64_t[]){2}, NULL);
    qn_tensor *words = tensor_make(device, QN_DTYPE_U32, 1, (const int64_t[]){1}, NULL);
    const struct {
        qn_offset offset;
        const char *message;
    } cases[] = {
        {{.value = -1}, "offset: must be at least 0, got -1"},
        {{.value = INT64_MIN}, "offset: must be at least 0, got -9223372036854775808"},
        {{.value = 1, .rows = rows, .n_rows = 2}, "offset: must have one form, got 2"},
        {{.tensor = two, .rows = rows, .n_rows = 2}, "offset: must have one form, got 2"},
        {{.value = 1, .tensor = two, .rows = rows, .n_rows = 2}, "offset: must have one form, got 3"},
        {{.n_rows = 2}, "offset: must have no rows, got 2"},
        {{.rows = rows, .n_rows = -2}, "offset: must have no rows, got -2"},
        {{.rows = negative, .n_rows = 2}, "offset: row 1 must be at least 0, got -7"},
        {{.rows = rows, .n_rows = 1}, "offset: rows must be 2, got 1"},
        {{.rows = rows, .n_rows = 3}, "offset: rows must be 2, got 3"},
        {{.rows = rows, .n_rows = 0}, "offset: rows must be 2, got 0"},
        {{.tensor = three}, "offset: length must be 1 or 2, got 3"},
        {{.tensor = matrix}, "offset: rank must be 1, got 2"},
        {{.tensor = floats}, "offset: dtype must be s32 or s64, got f32"},
        {{.tensor = words}, "offset: dtype must be s32 or s64, got u32"},
    };
    call_args saved = c.args;
    for (call_id id = 0; id < N_CALL; id++) {
        qn_offset *o = calls_offset(&c, id);
        for (size_t i = 0; o != NULL && i < sizeof cases / sizeof cases[0]; i++) {
            *o = cases[i].offset;
            refused(id, "", cases[i].message);
        }
        c.args = saved;
    }
    qn_tensor *all[] = {two, three, matrix, floats, words};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) qn_tensor_free(all[i]);
}

/* A tensor offset must be on the device and outside the written memory. */
static void offset_tensor(void **state) {
    (void)state;
    device_case ref = {.backend = "ref"};
    qn_device *other = device_open(&ref, 0);
    qn_tensor *there = tensor_make(other, QN_DTYPE_S32, 1, (const int64_t[]){1}, NULL);
    call_args saved = c.args;
    for (call_id id = 0; id < N_CALL; id++) {
        if (calls_offset(&c, id) == NULL) continue;
        *calls_offset(&c, id) = (qn_offset){.tensor = there};
        refused(id, "", "offset: is on another device than out");
        /* over the bytes of `out` */
        slot *out = calls_slot(&c, id, "out");
        size_t bytes = qn_tensor_bytes(*out->tensor);
        int32_t *data = calloc(1, bytes);
        assert_non_null(data);
        qn_wrap wrap = {.dtype = qn_tensor_dtype(*out->tensor), .rank = qn_tensor_rank(*out->tensor), .data = data};
        memcpy(wrap.shape, qn_tensor_shape(*out->tensor), (size_t)wrap.rank * sizeof wrap.shape[0]);
        qn_wrap wrap_offset = {.dtype = QN_DTYPE_S32, .rank = 1, .shape = {1}, .data = data};
        qn_tensor *a = NULL, *b = NULL;
        assert_int_equal(qn_tensor_wrap(&a, device, &wrap, NULL), QN_OK);
        assert_int_equal(qn_tensor_wrap(&b, device, &wrap_offset, NULL), QN_OK);
        *out->tensor = a;
        calls_offset(&c, id)->tensor = b;
        refused(id, "", "out: overlaps offset");
        c.args = saved;
        qn_tensor_free(a);
        qn_tensor_free(b);
        free(data);
    }
    qn_tensor_free(there);
    qn_device_close(other);
}

static void full(call_id id, qn_offset offset, const char *message) {
    char text[256];
    *calls_offset(&c, id) = offset;
    snprintf(text, sizeof text, "%s%s", layer_prefix(id), message);
    calls_refused(&c, id, QN_EFULL, text);
}

/* offset + T against C = 16, T = 3, in 64 bits. */
static void capacity(void **state) {
    (void)state;
    const call_id ids[] = {CALL_KV_ATTENTION, CALL_ATTENTION_BLOCK, CALL_LAYER};
    call_args saved = c.args;
    static const int64_t rows[] = {3, 14}, far[] = {INT64_MAX, 0};
    for (int i = 0; i < 3; i++) {
        qn_offset *o = calls_offset(&c, ids[i]);
        full(ids[i], (qn_offset){.value = 14},
             "capacity: 16 tokens are fewer than the 17 that offset 14 + 3 tokens need");
        full(ids[i], (qn_offset){.value = INT32_MAX},
             "capacity: 16 tokens are fewer than the 2147483650 that offset 2147483647 + 3 tokens need");
        full(ids[i], (qn_offset){.value = INT64_MAX},
             "capacity: 16 tokens are fewer than the 9223372036854775810 that offset 9223372036854775807 + 3 tokens "
             "need");
        full(ids[i], (qn_offset){.rows = rows, .n_rows = 2},
             "capacity: 16 tokens are fewer than the 17 that offset 14 + 3 tokens need");
        full(ids[i], (qn_offset){.rows = far, .n_rows = 2},
             "capacity: 16 tokens are fewer than the 9223372036854775810 that offset 9223372036854775807 + 3 tokens "
             "need");
        *o = (qn_offset){.value = 13};
        assert_int_equal(calls_run(&c, ids[i], NULL), QN_OK);
        c.args = saved;
    }
    /* forward_greedy makes 4 tokens from 3: offset + 6. */
    full(CALL_FORWARD_GREEDY, (qn_offset){.value = 11},
         "capacity: 16 tokens are fewer than the 17 that offset 11 + 6 tokens need");
    full(CALL_FORWARD_GREEDY, (qn_offset){.value = INT32_MAX},
         "capacity: 16 tokens are fewer than the 2147483653 that offset 2147483647 + 6 tokens need");
    c.args.forward_greedy.offset = (qn_offset){.value = 10};
    assert_int_equal(calls_run(&c, CALL_FORWARD_GREEDY, NULL), QN_OK);
    c.args = saved;
}

/* A call longer than the cache: a tensor offset, which is clamped, does not help either. Possibly only the second
 * layer's cache is too short. */
static void short_cache(void **state) {
    (void)state;
    const int64_t shape[] = {2, 2, 2, 8};
    qn_tensor *k = tensor_make(device, QN_DTYPE_F32, 4, shape, NULL),
              *v = tensor_make(device, QN_DTYPE_F32, 4, shape, NULL);
    qn_tensor *zero = tensor_make(device, QN_DTYPE_S32, 1, (const int64_t[]){1}, NULL);
    const call_id ids[] = {CALL_KV_ATTENTION, CALL_ATTENTION_BLOCK, CALL_LAYER};
    call_args saved = c.args;
    for (int i = 0; i < 3; i++) {
        *calls_slot(&c, ids[i], "k_cache")->tensor = k;
        *calls_slot(&c, ids[i], "v_cache")->tensor = v;
        full(ids[i], (qn_offset){.tensor = zero},
             "capacity: 2 tokens are fewer than the 3 that offset 0 + 3 tokens need");
    }
    c.args = saved;
    c.args.k_caches[1] = k;
    c.args.v_caches[1] = v;
    c.args.forward_greedy.offset = (qn_offset){.tensor = zero};
    calls_refused(&c, CALL_FORWARD_GREEDY, QN_EFULL,
                  "layer 1 capacity: 2 tokens are fewer than the 6 that offset 0 + 6 tokens need");
    c.args = saved;
    qn_tensor_free(k);
    qn_tensor_free(v);
    qn_tensor_free(zero);
}

static void forward_counts(void **state) {
    (void)state;
    call_args saved = c.args;
    qn_forward_greedy_args *f = &c.args.forward_greedy;
    const call_id id = CALL_FORWARD_GREEDY;
    static const int32_t wrong_layers[] = {0, -1, 513, INT32_MAX}, wrong_counts[] = {0, -1, 4097, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        char message[96];
        snprintf(message, sizeof message, "n_layer: must be 1 to 512, got %d", wrong_layers[i]);
        f->n_layer = wrong_layers[i];
        refused(id, "", message);
        f->n_layer = 2;
        snprintf(message, sizeof message, "count: must be 1 to 4096, got %d", wrong_counts[i]);
        f->count = wrong_counts[i];
        refused(id, "", message);
        f->count = 4;
    }
    f->ids = c.ids;
    refused(id, "", "ids: exactly one of ids and hidden must be set, got both");
    c.args = saved;
    f->layers = NULL;
    refused(id, "", "layers: is NULL");
    c.args = saved;
    f->k_caches = NULL;
    refused(id, "", "k_caches: is NULL");
    c.args = saved;
    f->v_caches = NULL;
    refused(id, "", "v_caches: is NULL");
    c.args = saved;
    /* Without an embedding only one token can be computed, and only from hidden. */
    f->embedding.plain = NULL;
    refused(id, "", "embedding: is NULL");
    f->count = 1;
    qn_tensor *one = tensor_make(device, QN_DTYPE_U32, 2, (const int64_t[]){2, 1}, NULL);
    f->out = one;
    assert_int_equal(calls_run(&c, id, NULL), QN_OK);
    f->ids = c.ids;
    f->hidden = NULL;
    refused(id, "", "embedding: is NULL");
    c.args = saved;
    qn_tensor_free(one);
}

static void n_valid(void **state) {
    (void)state;
    call_args saved = c.args;
    c.args.greedy.n_valid = c.args.forward_greedy.n_valid = 51;
    refused(CALL_GREEDY, "", "n_valid: must be 0 to 50, got 51");
    refused(CALL_FORWARD_GREEDY, "", "n_valid: must be 0 to 50, got 51");
    c.args.greedy.n_valid = c.args.forward_greedy.n_valid = -1;
    refused(CALL_GREEDY, "", "n_valid: must be 0 to 50, got -1");
    refused(CALL_FORWARD_GREEDY, "", "n_valid: must be 0 to 50, got -1");
    c.args = saved;
}

/* Ids are values, so they are checked last; each integer dtype. */
static void ids_out_of_range(void **state) {
    (void)state;
    const int64_t shape[] = {2, 1}, wide[] = {2, 2}, three[] = {3, 1};
    static const int32_t narrow[2] = {49, 50};
    static const int64_t large[2] = {-1, 3}, huge[2] = {0, INT64_MAX};
    static const uint32_t word[2] = {0, UINT32_MAX};
    const struct {
        qn_dtype dtype;
        const void *values;
        const char *message;
    } cases[] = {
        {QN_DTYPE_S32, narrow, "ids: row 1 must be 0 to 49, got 50"},
        {QN_DTYPE_S64, large, "ids: row 0 must be 0 to 49, got -1"},
        {QN_DTYPE_S64, huge, "ids: row 1 must be 0 to 49, got 9223372036854775807"},
        {QN_DTYPE_U32, word, "ids: row 1 must be 0 to 49, got 4294967295"},
    };
    call_args saved = c.args;
    qn_forward_greedy_args *f = &c.args.forward_greedy;
    f->hidden = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_tensor *t = tensor_make(device, cases[i].dtype, 2, shape, NULL);
        assert_int_equal(qn_tensor_write(t, cases[i].values, qn_tensor_bytes(t), NULL), QN_OK);
        f->ids = t;
        c.slots[CALL_FORWARD_GREEDY][0].tensor = &f->ids;
        refused(CALL_FORWARD_GREEDY, "", cases[i].message);
        qn_tensor_free(t);
    }
    const struct {
        qn_dtype dtype;
        int32_t rank;
        const int64_t *shape;
        const char *message;
    } shapes[] = {
        {QN_DTYPE_S32, 1, shape, "ids: rank must be 2, got 1"},
        {QN_DTYPE_S32, 2, wide, "ids: tokens must be 1, got 2"},
        {QN_DTYPE_S32, 2, three, "out: batch must be 3, got 2"},
        {QN_DTYPE_F32, 2, shape, "ids: dtype must be s32, s64 or u32, got f32"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        qn_tensor *t = tensor_make(device, shapes[i].dtype, shapes[i].rank, shapes[i].shape, NULL);
        f->ids = t;
        refused(CALL_FORWARD_GREEDY, "", shapes[i].message);
        qn_tensor_free(t);
    }
    c.args = saved;
    c.slots[CALL_FORWARD_GREEDY][0].tensor = &f->hidden;
}

/* Mistakes of every kind at once: fixed one by one, they are reported in the documented order. */
static void errors_in_documented_order(void **state) {
    (void)state;
    device_case ref = {.backend = "ref"};
    qn_device *other = device_open(&ref, 0);
    static float frozen[2 * 3 * 24];
    qn_wrap wrap = {.dtype = QN_DTYPE_F32, .rank = 3, .shape = {2, 3, 24}, .data = frozen, .read_only = true};
    qn_tensor *fixed = NULL;
    assert_int_equal(qn_tensor_wrap(&fixed, device, &wrap, NULL), QN_OK);
    qn_tensor *rank = tensor_make(device, QN_DTYPE_F32, 2, (const int64_t[]){8, 1}, NULL);
    qn_tensor *size = tensor_make(device, QN_DTYPE_F32, 2, (const int64_t[]){25, 16}, NULL);
    qn_tensor *q40 = tensor_make(device, QN_DTYPE_F32, 2, (const int64_t[]){24, 40}, NULL);
    qn_tensor *o40 = tensor_make(device, QN_DTYPE_F32, 2, (const int64_t[]){40, 24}, NULL);
    qn_tensor *heads = tensor_make(device, QN_DTYPE_F32, 4, (const int64_t[]){2, 4, 16, 8}, NULL);
    qn_tensor *integers = tensor_make(device, QN_DTYPE_S32, 1, (const int64_t[]){24}, NULL);
    qn_tensor *there = tensor_make(other, QN_DTYPE_F32, 2, (const int64_t[]){24, 16}, NULL);
    call_args saved = c.args;
    qn_attention_block_args *a = &c.args.attention_block, *good = &saved.attention_block;
    a->weights.o_proj = (qn_operand){0};
    a->eps = 0;
    a->weights.q_norm = rank;
    a->weights.k_proj.plain = size;
    a->weights.q_proj.plain = q40;
    a->k_cache = heads;
    a->weights.norm = integers;
    a->weights.v_proj.plain = there;
    a->out = fixed;
    a->offset.value = 20;
    const call_id id = CALL_ATTENTION_BLOCK;
    refused(id, "", "o_proj: is NULL");
    a->weights.o_proj.plain = o40;
    refused(id, "", "eps: must be positive and finite, got 0");
    a->eps = 1e-6;
    refused(id, "", "q_norm: rank must be 1, got 2");
    a->weights.q_norm = good->weights.q_norm;
    refused(id, "", "k_proj: input width must be 24, got 25");
    a->weights.k_proj = good->weights.k_proj;
    refused(id, "", "query heads: must be a multiple of the 2 key/value heads, got 5");
    a->weights.q_proj = good->weights.q_proj;
    a->weights.o_proj = good->weights.o_proj;
    refused(id, "", "k_cache: heads must be 2, got 4");
    a->k_cache = good->k_cache;
    refused(id, "", "norm: dtype must be f32, bf16 or f16, got s32");
    a->weights.norm = good->weights.norm;
    refused(id, "", "v_proj: is on another device than out");
    a->weights.v_proj = good->weights.v_proj;
    refused(id, "", "out: is read-only");
    a->out = (qn_tensor *)(uintptr_t)good->k_cache;
    refused(id, "", "out: rank must be 3, got 4");
    a->out = good->out;
    calls_refused(&c, id, QN_EFULL, "capacity: 16 tokens are fewer than the 23 that offset 20 + 3 tokens need");
    a->offset = good->offset;
    assert_int_equal(calls_run(&c, id, NULL), QN_OK);
    c.args = saved;
    qn_tensor *all[] = {fixed, rank, size, q40, o40, heads, integers, there};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) qn_tensor_free(all[i]);
    qn_device_close(other);
}

/* Sizes whose products exceed 2^31 and 2^63 are rejected by arithmetic, before any of their memory is touched. */
static void too_large(void **state) {
    (void)state;
    size_t reserved = (size_t)1 << 34;
    void *space = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) skip(); /* the address space is too small */
    qn_wrap tall = {.dtype = QN_DTYPE_BF16, .rank = 3, .shape = {2, (int64_t)1 << 30, 1}, .data = space};
    qn_wrap deep = {.dtype = QN_DTYPE_BF16, .rank = 4, .shape = {1, 1, (int64_t)1 << 31, 2}, .data = space};
    qn_wrap wide = {.dtype = QN_DTYPE_BF16, .rank = 2, .shape = {1, (int64_t)1 << 32}, .data = space};
    qn_wrap many = {.dtype = QN_DTYPE_BF16, .rank = 3, .shape = {1, (int64_t)1 << 30, 1}, .data = space};
    qn_tensor *rows = NULL, *cache = NULL, *linear = NULL, *tokens = NULL;
    assert_int_equal(qn_tensor_wrap(&rows, device, &tall, NULL), QN_OK);
    assert_int_equal(qn_tensor_wrap(&cache, device, &deep, NULL), QN_OK);
    assert_int_equal(qn_tensor_wrap(&linear, device, &wide, NULL), QN_OK);
    assert_int_equal(qn_tensor_wrap(&tokens, device, &many, NULL), QN_OK);
    many.data = (unsigned char *)space + (reserved >> 1);
    qn_tensor *out = NULL, *norm = tensor_make(device, QN_DTYPE_F32, 1, (const int64_t[]){1}, NULL);
    assert_int_equal(qn_tensor_wrap(&out, device, &many, NULL), QN_OK);
    qn_error err;
    qn_mlp_args mlp = {.out = rows,
                       .hidden = rows,
                       .norm = norm,
                       .gate_proj = {.plain = linear},
                       .up_proj = {.plain = linear},
                       .down_proj = {.plain = linear},
                       .eps = 1};
    assert_int_equal(qn_mlp(&mlp, &err), QN_EINVAL);
    assert_string_equal(err.message, "down_proj: input width must be 4294967296, got 1");
    qn_wrap down = {.dtype = QN_DTYPE_BF16, .rank = 2, .shape = {(int64_t)1 << 32, 1}, .data = space};
    qn_tensor *down_proj = NULL;
    assert_int_equal(qn_tensor_wrap(&down_proj, device, &down, NULL), QN_OK);
    mlp.down_proj.plain = down_proj;
    assert_int_equal(qn_mlp(&mlp, &err), QN_EINVAL);
    assert_string_equal(err.message, "hidden: batch 2 by 1073741824 tokens is more than 2147483647");
    /* 2^30 rows of 2^32 f32 intermediates are 2^64 bytes. */
    mlp.hidden = tokens;
    mlp.out = out;
    assert_int_equal(qn_mlp(&mlp, &err), QN_ENOMEM);
    assert_string_equal(err.message, "scratch: no memory for 18446744073709551615 bytes");

    const int64_t one[] = {1, 1, 1, 2};
    qn_tensor *q = tensor_make(device, QN_DTYPE_F32, 4, one, NULL);
    qn_tensor *attn = tensor_make(device, QN_DTYPE_F32, 3, (const int64_t[]){1, 1, 2}, NULL);
    qn_kv_attention_args kv = {
        .out = attn, .q = q, .k = q, .v = q, .k_cache = cache, .v_cache = cache, .scale = 1, .rope = {.theta = 1e4}};
    assert_int_equal(qn_kv_attention(&kv, &err), QN_EINVAL);
    assert_string_equal(err.message, "k_cache: capacity must be at most 2147483647, got 2147483648");
    qn_wrap crowd = {.dtype = QN_DTYPE_BF16, .rank = 4, .shape = {1, (int64_t)1 << 30, 2, 2}, .data = space};
    qn_tensor *heads = NULL;
    assert_int_equal(qn_tensor_wrap(&heads, device, &crowd, NULL), QN_OK);
    kv.q = kv.k = kv.v = heads;
    assert_int_equal(qn_kv_attention(&kv, &err), QN_EINVAL);
    assert_string_equal(err.message, "query heads: 2 of 1073741824 rows are more than 2147483647");
    qn_tensor *all[] = {rows, cache, linear, tokens, out, norm, down_proj, q, attn, heads};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) qn_tensor_free(all[i]);
    munmap(space, reserved);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_arguments),
        cmocka_unit_test(rope),
        cmocka_unit_test(divisibility),
        cmocka_unit_test(offset_forms),
        cmocka_unit_test(capacity),
        cmocka_unit_test(short_cache),
        cmocka_unit_test(offset_tensor),
        cmocka_unit_test(ids_out_of_range),
        cmocka_unit_test(forward_counts),
        cmocka_unit_test(n_valid),
        cmocka_unit_test(errors_in_documented_order),
        cmocka_unit_test(too_large),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
