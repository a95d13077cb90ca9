/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next token: ties, ids that never win, NaN; and qn_forward_greedy against the same steps made one by one, with all
 * forms of ids, offsets and operands. Also: a call whose shape was seen before allocates nothing.
 */
#include "support/calls.h"
#include "support/close.h"
#include "support/devices.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 8, VOCAB = 300 };

/* A head with freely chosen logits: hidden selects column 0 of lm_head, the norm of {1, 0, …} is constant. */
typedef struct picker {
    qn_device *device;
    qn_tensor *hidden, *norm, *lm_head, *out;
    qn_linear *packed;
    float rows[VOCAB][WIDTH];
    bool use_packed;
} picker;

static void picker_make(picker *p, const device_case *dc) {
    *p = (picker){.device = device_open(dc, 2), .use_packed = dc->packed};
    /* {1, 3, WIDTH}: only the last position counts; the others would reverse the order. */
    const float hidden[3][WIDTH] = {{-1}, {-1}, {1}};
    float norm[WIDTH];
    for (int i = 0; i < WIDTH; i++) norm[i] = 1;
    p->hidden = tensor_make(p->device, QN_DTYPE_F32, 3, (const int64_t[]){1, 3, WIDTH}, &hidden[0][0]);
    p->norm = tensor_make(p->device, QN_DTYPE_F32, 1, (const int64_t[]){WIDTH}, norm);
    p->lm_head = tensor_make(p->device, QN_DTYPE_F32, 2, (const int64_t[]){VOCAB, WIDTH}, NULL);
    p->out = tensor_make(p->device, QN_DTYPE_U32, 1, (const int64_t[]){1}, NULL);
}

static void picker_free(picker *p) {
    qn_tensor *all[] = {p->hidden, p->norm, p->lm_head, p->out};
    for (int i = 0; i < 4; i++) qn_tensor_free(all[i]);
    qn_linear_free(p->packed);
    qn_device_close(p->device);
}

static qn_status pick(picker *p, int64_t n_valid, uint32_t *id, qn_error *err) {
    qn_linear_free(p->packed);
    p->packed = NULL;
    assert_int_equal(qn_tensor_write(p->lm_head, p->rows, sizeof p->rows, NULL), QN_OK);
    qn_operand lm_head = {.plain = p->lm_head};
    if (p->use_packed) {
        assert_int_equal(qn_linear_pack(&p->packed, p->lm_head, QN_LAYOUT_OUT_IN, QN_ARITH_F32, NULL), QN_OK);
        lm_head = (qn_operand){.packed = p->packed};
    }
    qn_greedy_args args = {
        .out = p->out, .hidden = p->hidden, .norm = p->norm, .lm_head = lm_head, .n_valid = n_valid, .eps = 1e-6};
    qn_status status = qn_greedy(&args, err);
    assert_int_equal(qn_tensor_read(p->out, id, sizeof *id, NULL), QN_OK);
    return status;
}

static void expect(picker *p, int64_t n_valid, uint32_t want, const device_case *dc) {
    uint32_t id = 12345;
    qn_error err = {0};
    if (pick(p, n_valid, &id, &err) != QN_OK) fail_msg("%s: %s", dc->name, err.message);
    if (id != want) fail_msg("%s: n_valid %d: %u wins, not %u", dc->name, (int)n_valid, id, want);
}

static void picks(const device_case *dc) {
    picker p;
    picker_make(&p, dc);
    expect(&p, 0, 0, dc); /* all equal: the lowest id */
    p.rows[7][0] = p.rows[8][0] = p.rows[250][0] = p.rows[VOCAB - 1][0] = 2;
    expect(&p, 0, 7, dc);
    p.rows[250][0] = 2.5f;
    expect(&p, 0, 250, dc);
    expect(&p, 251, 250, dc);
    expect(&p, 250, 7, dc); /* ids at or above n_valid never win */
    expect(&p, 7, 0, dc);
    expect(&p, 1, 0, dc);
    p.rows[VOCAB - 1][0] = 3;
    expect(&p, VOCAB, VOCAB - 1, dc);
    expect(&p, VOCAB - 1, 250, dc);
    for (int i = 0; i < VOCAB; i++) p.rows[i][0] = -3 - (float)(i % 5 != 3);
    expect(&p, 0, 3, dc);    /* all negative */
    p.rows[4][0] = INFINITY; /* an infinity can win; only NaN is an error */
    expect(&p, 0, 4, dc);
    picker_free(&p);
}

/* A NaN among the ids that may win is an error wherever it is; out is unchanged, and the next call works. */
static void numeric(const device_case *dc) {
    picker p;
    picker_make(&p, dc);
    p.rows[5][0] = 1;
    expect(&p, 0, 5, dc);
    static const int at[] = {0, 5, 6, 255, 256, VOCAB - 1};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        float saved = p.rows[at[i]][0];
        uint32_t id = 0;
        qn_error err = {0};
        p.rows[at[i]][0] = NAN;
        if (pick(&p, 0, &id, &err) != QN_ENUMERIC) fail_msg("%s: NaN at %d is not found", dc->name, at[i]);
        assert_int_equal(err.status, QN_ENUMERIC);
        assert_non_null(strstr(err.message, "NaN"));
        assert_int_equal(id, 5);
        p.rows[at[i]][0] = saved;
        expect(&p, 0, 5, dc);
    }
    picker_free(&p);
}

/* The values of an f32 stream in another tensor's element type. */
static qn_tensor *embedded(const calls *c, const uint32_t *ids, qn_dtype dtype) {
    float *table = tensor_floats(c->embedding), rows[2 * 24];
    for (int b = 0; b < 2; b++) memcpy(rows + b * 24, table + ids[b] * 24, 24 * sizeof(float));
    free(table);
    return tensor_make(c->s.device, dtype, 3, (const int64_t[]){2, 1, 24}, rows);
}

/* forward_greedy as documented, composed of public calls: {2, count} ids. */
static void step_by_step(const calls *c, const qn_forward_greedy_args *f, qn_tensor *first, const int64_t offsets[2],
                         uint32_t *made) {
    qn_dtype dtype = qn_tensor_dtype(first);
    qn_tensor *hidden = first;
    int64_t rows[2] = {offsets[0], offsets[1]};
    for (int step = 0; step < f->count; step++) {
        qn_tensor *out = tensor_make(c->s.device, dtype, 3, qn_tensor_shape(hidden), NULL);
        for (int i = 0; i < f->n_layer; i++) {
            qn_layer_args layer = {.out = out,
                                   .hidden = i == 0 ? hidden : out,
                                   .weights = f->layers[i],
                                   .k_cache = f->k_caches[i],
                                   .v_cache = f->v_caches[i],
                                   .offset = {.rows = rows, .n_rows = 2},
                                   .scale = f->scale,
                                   .rope = f->rope,
                                   .eps = f->eps};
            assert_int_equal(qn_layer(&layer, NULL), QN_OK);
        }
        qn_greedy_args greedy = {.out = c->tokens,
                                 .hidden = out,
                                 .norm = f->norm,
                                 .lm_head = f->lm_head,
                                 .n_valid = f->n_valid,
                                 .eps = f->eps};
        uint32_t ids[2];
        assert_int_equal(qn_greedy(&greedy, NULL), QN_OK);
        assert_int_equal(qn_tensor_read(c->tokens, ids, sizeof ids, NULL), QN_OK);
        for (int b = 0; b < 2; b++) {
            made[b * f->count + step] = ids[b];
            rows[b] += qn_tensor_shape(hidden)[1];
        }
        qn_tensor_free(out);
        if (step > 0) qn_tensor_free(hidden);
        hidden = embedded(c, ids, dtype);
    }
    qn_tensor_free(hidden);
}

static void reset_caches(calls *c) {
    bench_reset(&c->s);
    for (int i = 0; i < 2; i++) {
        const qn_tensor *from = i ? c->s.t[V_CACHE] : c->s.t[K_CACHE];
        void *bits = tensor_bits(from);
        assert_int_equal(qn_tensor_write(i ? c->v_cache1 : c->k_cache1, bits, qn_tensor_bytes(from), NULL), QN_OK);
        free(bits);
    }
}

/* forward_greedy with c->args, against the steps from `first`: ids and all four caches. */
static void same_as_steps(calls *c, qn_tensor *first, const int64_t offsets[2], const device_case *dc) {
    const qn_forward_greedy_args *f = &c->args.forward_greedy;
    const qn_tensor *caches[] = {c->s.t[K_CACHE], c->s.t[V_CACHE], c->k_cache1, c->v_cache1};
    void *want_caches[4];
    uint32_t *want = calloc(2 * (size_t)f->count, sizeof *want), *got = calloc(2 * (size_t)f->count, sizeof *got);
    assert_non_null(want);
    assert_non_null(got);
    reset_caches(c);
    step_by_step(c, f, first, offsets, want);
    for (int i = 0; i < 4; i++) want_caches[i] = tensor_bits(caches[i]);
    reset_caches(c);
    qn_error err = {0};
    if (qn_forward_greedy(f, &err) != QN_OK) fail_msg("%s: %s", dc->name, err.message);
    assert_int_equal(qn_tensor_read(f->out, got, qn_tensor_bytes(f->out), NULL), QN_OK);
    for (int i = 0; i < 2 * f->count; i++) {
        if (want[i] != got[i]) fail_msg("%s: token %d is %u, not %u", dc->name, i, got[i], want[i]);
    }
    for (int i = 0; i < 4; i++) {
        void *bits = tensor_bits(caches[i]);
        expect_same_bits(case_text("%s, cache %d", dc->name, i), qn_tensor_dtype(caches[i]), bits, want_caches[i],
                         tensor_count(caches[i]));
        free(bits);
        free(want_caches[i]);
    }
    free(want);
    free(got);
}

/* The calls' tensors are plain; the second layer gets packed linears, and on request the head too. */
static void pack_some(calls *c, qn_linear **made, int *n) {
    qn_layer_weights *w = &c->args.layers[1];
    qn_operand *in_out[] = {&w->attention.q_proj, &w->attention.o_proj, &w->mlp.gate_proj, &w->mlp.down_proj};
    qn_operand *vocab[] = {&c->args.forward_greedy.lm_head, &c->args.forward_greedy.embedding};
    for (int i = 0; i < 6; i++) {
        qn_operand *o = i < 4 ? in_out[i] : vocab[i - 4];
        qn_linear_layout layout = i < 4 ? QN_LAYOUT_IN_OUT : QN_LAYOUT_OUT_IN;
        assert_int_equal(qn_linear_pack(&made[*n], o->plain, layout, QN_ARITH_F32, NULL), QN_OK);
        *o = (qn_operand){.packed = made[(*n)++]};
    }
}

static void forward(const device_case *dc) {
    qn_device *device = device_open(dc, 2);
    calls c;
    calls_make(&c, device);
    qn_linear *made[8];
    int n_made = 0;
    if (dc->packed) pack_some(&c, made, &n_made);
    qn_forward_greedy_args *f = &c.args.forward_greedy;
    static const int64_t five[2] = {5, 5}, apart[2] = {2, 9}, clamped[2] = {0, 10};
    same_as_steps(&c, c.s.t[HIDDEN], five, dc);
    f->offset = (qn_offset){.rows = apart, .n_rows = 2};
    same_as_steps(&c, c.s.t[HIDDEN], apart, dc);
    /* C - (T + count - 1) = 10 is the last position that a tensor may contain. */
    qn_tensor *far = tensor_make(device, QN_DTYPE_S64, 1, (const int64_t[]){2}, NULL);
    assert_int_equal(qn_tensor_write(far, (const int64_t[]){-4, 1000}, 16, NULL), QN_OK);
    f->offset = (qn_offset){.tensor = far};
    same_as_steps(&c, c.s.t[HIDDEN], clamped, dc);
    qn_tensor_free(far);
    /* Few valid ids, hidden in half precision: fed-back tokens are embedded in it too. */
    f->offset = (qn_offset){.value = 5};
    f->n_valid = 7;
    qn_tensor *half = tensor_make(device, QN_DTYPE_BF16, 3, qn_tensor_shape(c.s.t[HIDDEN]), c.p.values[HIDDEN]);
    f->hidden = half;
    same_as_steps(&c, half, five, dc);
    f->n_valid = 0;
    f->hidden = NULL;
    /* From ids, in each integer type; the stream is f32. */
    static const uint32_t start[2] = {49, 3};
    static const int64_t wide[2] = {49, 3};
    const struct {
        qn_dtype dtype;
        const void *values;
    } types[] = {{QN_DTYPE_S32, start}, {QN_DTYPE_U32, start}, {QN_DTYPE_S64, wide}};
    for (int i = 0; i < 3; i++) {
        qn_tensor *ids = tensor_make(device, types[i].dtype, 2, (const int64_t[]){2, 1}, NULL);
        assert_int_equal(qn_tensor_write(ids, types[i].values, qn_tensor_bytes(ids), NULL), QN_OK);
        f->ids = ids;
        qn_tensor *first = embedded(&c, start, QN_DTYPE_F32);
        same_as_steps(&c, first, five, dc);
        qn_tensor_free(first);
        qn_tensor_free(ids);
    }
    qn_tensor_free(half);
    for (int i = 0; i < n_made; i++) qn_linear_free(made[i]);
    calls_free(&c);
    qn_device_close(device);
}

/* A NaN that appears at the second step: out is unchanged, the first step is in the caches. */
static void forward_numeric(const device_case *dc) {
    qn_device *device = device_open(dc, 2);
    calls c;
    calls_make(&c, device);
    qn_forward_greedy_args *f = &c.args.forward_greedy;
    uint32_t tokens[8], after[8];
    assert_int_equal(qn_forward_greedy(f, NULL), QN_OK);
    assert_int_equal(qn_tensor_read(f->out, tokens, sizeof tokens, NULL), QN_OK);
    float *table = tensor_floats(c.embedding);
    for (int i = 0; i < 24; i++) table[tokens[0] * 24 + (uint32_t)i] = NAN;
    assert_int_equal(qn_tensor_write(c.embedding, table, qn_tensor_bytes(c.embedding), NULL), QN_OK);
    free(table);
    reset_caches(&c);
    qn_error err = {0};
    float *before = tensor_floats(c.k_cache1);
    assert_int_equal(qn_forward_greedy(f, &err), QN_ENUMERIC);
    assert_non_null(strstr(err.message, "NaN"));
    assert_int_equal(qn_tensor_read(f->out, after, sizeof after, NULL), QN_OK);
    expect_same_bits("tokens", QN_DTYPE_U32, after, tokens, 8);
    float *cache = tensor_floats(c.k_cache1);
    assert_memory_not_equal(before + 5 * 8, cache + 5 * 8, 3 * 8 * sizeof(float)); /* head 0, positions 5 … 7 */
    assert_true(isfinite(cache[5 * 8]));
    free(before);
    free(cache);
    calls_free(&c);
    qn_device_close(device);
}

/* An allocator that counts. */
static void *counting_alloc(void *user, size_t bytes, size_t alignment) {
    ++*(int *)user;
    void *p = NULL;
    return posix_memalign(&p, alignment, bytes) == 0 ? p : NULL;
}
static void counting_free(void *user, void *pointer, size_t bytes) {
    (void)user, (void)bytes;
    free(pointer);
}

/* After a first round, every call of the same or a smaller shape reuses its scratch. */
static void no_allocation(const device_case *dc) {
    if (is_gpu(dc->backend)) return;
    int count = 0;
    qn_device_options options = {
        .n_thread = 2, .isa = dc->isa, .compose = dc->compose, .allocator = {counting_alloc, counting_free, &count}};
    qn_device *device = NULL;
    assert_int_equal(qn_device_open(&device, dc->backend, &options, NULL), QN_OK);
    calls c;
    calls_make(&c, device);
    for (call_id id = 0; id < N_CALL; id++) assert_int_equal(calls_run(&c, id, NULL), QN_OK);
    int seen = count;
    assert_true(seen > 0);
    for (int round = 0; round < 3; round++) {
        for (call_id id = 0; id < N_CALL; id++) assert_int_equal(calls_run(&c, id, NULL), QN_OK);
    }
    if (count != seen) fail_msg("%s: %d allocations in repeated calls", dc->name, count - seen);
    calls_free(&c);
    qn_device_close(device);
}

static void on_all(void (*check)(const device_case *)) {
    device_case cases[MAX_DEVICE_CASE];
    int n = device_cases(cases);
    for (int i = 0; i < n; i++) check(&cases[i]);
}

#define ON_ALL(name)                                                                                                   \
    static void test_##name(void **state) {                                                                            \
        (void)state;                                                                                                   \
        on_all(name);                                                                                                  \
    }
ON_ALL(picks)
ON_ALL(numeric)
ON_ALL(forward)
ON_ALL(forward_numeric)
ON_ALL(no_allocation)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picks),           cmocka_unit_test(test_numeric),       cmocka_unit_test(test_forward),
        cmocka_unit_test(test_forward_numeric), cmocka_unit_test(test_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
