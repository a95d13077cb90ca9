/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise of ops.h: on "cpu", at one instruction set level, results do not depend on threads, on the batch, on how
 * a prompt is divided into calls, on plain or packed linears of f32 arithmetic, or on fused or composed primitives. Bit
 * for bit; "ref" guarantees it too.
 */
#include "support/cmocka_all.h"
#include "support/problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than a tile of rows, wider than a block of inputs, and across the end of a block of positions. */
static problem long_problem(void) {
    problem p = {.b = 2,
                 .t = 29,
                 .h = 50,
                 .i = 300,
                 .nq = 6,
                 .nkv = 3,
                 .d = 20,
                 .c = 190,
                 .offset = 115,
                 .theta = 1e6,
                 .scale = 0.2236,
                 .eps = 1e-6};
    problem_random(&p, 21);
    return p;
}

/* One batch row of a problem; its values are borrowed. */
static problem batch_row(const problem *p, int64_t b) {
    problem r = *p;
    r.b = 1;
    for (operand_id id = 0; id < N_OPERAND; id++) {
        int64_t shape[QN_MAX_RANK];
        int32_t rank = operand_shape(p, id, shape);
        if (rank >= 3) r.values[id] += b * operand_count(&r, id);
    }
    return r;
}

/* A tensor's tokens [first, first + n) as a separate tensor, and back. */
static qn_tensor *tokens_of(const qn_tensor *t, int64_t first, int64_t n) {
    int64_t shape[QN_MAX_RANK];
    int32_t rank = qn_tensor_rank(t);
    memcpy(shape, qn_tensor_shape(t), (size_t)rank * sizeof *shape);
    size_t row = qn_tensor_bytes(t) / (size_t)(shape[0] * shape[1]);
    int64_t n_batch = shape[0], n_tok = shape[1];
    shape[1] = n;
    qn_tensor *part = tensor_make(qn_tensor_device(t), qn_tensor_dtype(t), rank, shape, NULL);
    char *all = tensor_bits(t), *some = tensor_bits(part);
    for (int64_t b = 0; b < n_batch; b++) {
        memcpy(some + (size_t)(b * n) * row, all + (size_t)(b * n_tok + first) * row, (size_t)n * row);
    }
    assert_int_equal(qn_tensor_write(part, some, qn_tensor_bytes(part), NULL), QN_OK);
    free(all);
    free(some);
    return part;
}

static void copy_tokens(char *all, const qn_tensor *whole, const qn_tensor *part, int64_t first) {
    const int64_t *shape = qn_tensor_shape(whole), n = qn_tensor_shape(part)[1];
    size_t row = qn_tensor_bytes(whole) / (size_t)(shape[0] * shape[1]);
    char *some = tensor_bits(part);
    for (int64_t b = 0; b < shape[0]; b++) {
        memcpy(all + (size_t)(b * shape[1] + first) * row, some + (size_t)(b * n) * row, (size_t)n * row);
    }
    free(some);
}

/* out, k_cache and v_cache, concatenated. */
typedef struct outcome {
    char *bytes;
    size_t n_out, n_k, n_v;
    dtypes types;
} outcome;

/* The primitive over all tokens, in calls of at most `chunk`. */
static outcome compute(primitive_id id, const problem *p, const device_case *dc, dtypes types, int32_t n_thread,
                       int64_t chunk) {
    qn_device *device = device_open(dc, n_thread);
    bench s;
    bench_make(&s, p, device, types, dc->packed);
    qn_tensor *whole = id == KV_ATTENTION ? s.attn_out : s.out;
    outcome o = {.n_out = qn_tensor_bytes(whole),
                 .n_k = qn_tensor_bytes(s.t[K_CACHE]),
                 .n_v = qn_tensor_bytes(s.t[V_CACHE]),
                 .types = types};
    o.bytes = malloc(o.n_out + o.n_k + o.n_v);
    assert_non_null(o.bytes);
    for (int64_t first = 0; first < p->t; first += chunk) {
        int64_t n = p->t - first < chunk ? p->t - first : chunk;
        bench part = s;
        const operand_id cut[] = {HIDDEN, Q, K, V, ATTN};
        for (int i = 0; i < 5; i++) part.t[cut[i]] = tokens_of(s.t[cut[i]], first, n);
        part.out = tokens_of(s.out, first, n);
        part.attn_out = tokens_of(s.attn_out, first, n);
        part.position = (qn_offset){.value = p->offset + first};
        copy_tokens(o.bytes, whole, primitive_compute(id, &part), first);
        for (int i = 0; i < 5; i++) qn_tensor_free(part.t[cut[i]]);
        qn_tensor_free(part.out);
        qn_tensor_free(part.attn_out);
    }
    qn_error err;
    assert_int_equal(qn_tensor_read(s.t[K_CACHE], o.bytes + o.n_out, o.n_k, &err), QN_OK);
    assert_int_equal(qn_tensor_read(s.t[V_CACHE], o.bytes + o.n_out + o.n_k, o.n_v, &err), QN_OK);
    bench_free(&s);
    qn_device_close(device);
    return o;
}

/* The result must not change with `what`. */
static void expect_same(const outcome *want, const outcome *got, primitive_id id, const device_case *dc,
                        const char *what) {
    const dtypes *t = &want->types;
    const char *name =
        case_text("%s on %s, stream %s, %s", primitive_name(id), dc->name, qn_dtype_name(t->stream), what);
    const char *a = got->bytes, *b = want->bytes;
    assert_int_equal(got->n_out, want->n_out);
    expect_same_bits(name, t->stream, a, b, want->n_out / qn_dtype_bytes(t->stream));
    a += want->n_out;
    b += want->n_out;
    expect_same_bits(case_text("%s, k_cache", name), t->k_cache, a, b, want->n_k / qn_dtype_bytes(t->k_cache));
    a += want->n_k;
    b += want->n_k;
    expect_same_bits(case_text("%s, v_cache", name), t->v_cache, a, b, want->n_v / qn_dtype_bytes(t->v_cache));
}

static const dtypes half_types = {QN_DTYPE_BF16, QN_DTYPE_F16, QN_DTYPE_BF16, QN_DTYPE_BF16, QN_DTYPE_F32};

/* Threads and chunks against one call on one thread. */
static void threads_and_chunks(const device_case *dc, const problem *p, dtypes types) {
    static const struct {
        int32_t n_thread;
        int64_t chunk;
        const char *what;
    } ways[] = {
        {2, 1000, "a second thread"},  {3, 1000, "a third thread"},  {1, 1, "decoding token by token"},
        {3, 1, "decoding by threads"}, {2, 5, "cutting into fives"}, {1, 16, "cutting into sixteens"},
        {3, 28, "leaving one over"},
    };
    for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
        outcome whole = compute(id, p, dc, types, 1, 1000);
        for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
            outcome other = compute(id, p, dc, types, ways[i].n_thread, ways[i].chunk);
            expect_same(&whole, &other, id, dc, ways[i].what);
            free(other.bytes);
        }
        free(whole.bytes);
    }
}

/* Row b of a batch against the row alone. */
static void batch(const device_case *dc, const problem *p, dtypes types) {
    for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
        outcome whole = compute(id, p, dc, types, 2, 1000);
        for (int64_t b = 0; b < p->b; b++) {
            problem row = batch_row(p, b);
            outcome alone = compute(id, &row, dc, types, 2, 1000);
            size_t n = (size_t)p->b;
            assert_int_equal(alone.n_out * n, whole.n_out);
            const char *name = case_text("%s on %s, stream %s, row %d of a batch", primitive_name(id), dc->name,
                                         qn_dtype_name(types.stream), (int)b);
            expect_same_bits(name, types.stream, whole.bytes + (size_t)b * alone.n_out, alone.bytes,
                             alone.n_out / qn_dtype_bytes(types.stream));
            free(alone.bytes);
        }
        free(whole.bytes);
    }
}

static void on_all(void (*check)(const device_case *, const problem *, dtypes)) {
    device_case cases[MAX_DEVICE_CASE];
    int n = device_cases(cases);
    problem p = long_problem();
    for (int i = 0; i < n; i++) {
        check(&cases[i], &p, all_f32);
        if (!cases[i].is_ref) check(&cases[i], &p, half_types);
    }
    problem_free(&p);
}

static void test_threads_and_chunks(void **state) {
    (void)state;
    on_all(threads_and_chunks);
}

static void test_batch(void **state) {
    (void)state;
    on_all(batch);
}

/* Plain and packed, fused and composed: one result per instruction set level. */
static void forms(void **state) {
    (void)state;
    device_case cases[MAX_DEVICE_CASE];
    int n = device_cases(cases);
    problem p = long_problem();
    const dtypes types[] = {all_f32, half_types};
    for (int k = 0; k < 2; k++) {
        for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
            outcome first = {0};
            for (int i = 0; i < n; i++) {
                bool same_level = i > 0 && strcmp(cases[i].isa, cases[i - 1].isa) == 0 &&
                                  strcmp(cases[i].backend, cases[i - 1].backend) == 0;
                outcome o = compute(id, &p, &cases[i], types[k], 2, 1000);
                if (same_level) {
                    expect_same(&first, &o, id, &cases[i], "the form");
                    free(o.bytes);
                } else {
                    free(first.bytes);
                    first = o;
                }
            }
            free(first.bytes);
        }
    }
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_and_chunks),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
