/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands in all their variants: mixed element types, strides, views of shared memory, three kinds of offsets, in
 * place. Also what must not change: cache rows outside the call, gaps between rows, packed layouts.
 */
#include "../src/base/half.h"
#include "support/cmocka_all.h"
#include "support/devices.h"
#include "support/problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qn_dtype floats[] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16};

/* Ragged for every vector width and tile; Nq/Nkv 3. */
static problem small(void) {
    problem p = {.b = 2,
                 .t = 3,
                 .h = 37,
                 .i = 53,
                 .nq = 6,
                 .nkv = 2,
                 .d = 10,
                 .c = 13,
                 .offset = 4,
                 .theta = 1e4,
                 .scale = 0.31,
                 .eps = 1e-6};
    problem_random(&p, 3);
    return p;
}

static float rounded(float x, qn_dtype dtype) {
    if (dtype == QN_DTYPE_BF16) return qni_f32_of_bf16(qni_bf16_of_f32(x));
    if (dtype == QN_DTYPE_F16) return qni_f32_of_f16(qni_f16_of_f32(x));
    return x;
}

/* A problem whose values are already rounded to these types. */
static problem rounded_problem(const problem *p, dtypes types) {
    problem r = *p;
    for (operand_id id = 0; id < N_OPERAND; id++) {
        int64_t n = operand_count(p, id);
        qn_dtype dtype = types.stream;
        if (id >= NORM1 && id <= K_NORM) dtype = types.norm;
        if (id >= Q_PROJ && id <= DOWN_PROJ) dtype = types.linear;
        if (id == K_CACHE) dtype = types.k_cache;
        if (id == V_CACHE) dtype = types.v_cache;
        r.values[id] = malloc((size_t)n * sizeof(float));
        assert_non_null(r.values[id]);
        for (int64_t i = 0; i < n; i++) r.values[id][i] = rounded(p->values[id][i], dtype);
    }
    return r;
}

static void expect_same_tensors(const char *name, const qn_tensor *got, const qn_tensor *want) {
    void *a = tensor_bits(got), *b = tensor_bits(want);
    assert_int_equal(qn_tensor_bytes(got), qn_tensor_bytes(want));
    expect_same_bits(name, qn_tensor_dtype(got), a, b, tensor_count(got));
    free(a);
    free(b);
}

/* bf16 and f16 operands are converted to f32 exactly, sums do not depend on them, and the result is rounded once. So
 * a call equals, bit for bit, the rounded result of the f32 call on the same values. (Not `layer`, whose two halves
 * exchange data in the dtype of hidden: see mixtures.) */
static void exact_widening(const device_case *dc, const problem *p) {
    qn_device *device = device_open(dc, 2);
    for (int k = 0; k < 9; k++) {
        dtypes types = all_f32;
        types.stream = floats[k % 3];
        types.linear = floats[k / 3];
        types.norm = floats[(k + k / 3) % 3];
        problem r = rounded_problem(p, types);
        bench half, wide;
        bench_make(&half, p, device, types, dc->packed);
        bench_make(&wide, &r, device, all_f32, dc->packed);
        for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
            if (id == LAYER && types.stream != QN_DTYPE_F32) continue;
            bench_reset(&half);
            bench_reset(&wide);
            float *a = tensor_floats(primitive_compute(id, &half)), *b = tensor_floats(primitive_compute(id, &wide));
            int64_t n = tensor_count(id == KV_ATTENTION ? half.attn_out : half.out);
            for (int64_t i = 0; i < n; i++) b[i] = rounded(b[i], types.stream);
            const char *name = case_text("%s on %s, stream %s, linear %s", primitive_name(id), dc->name,
                                         qn_dtype_name(types.stream), qn_dtype_name(types.linear));
            expect_same_bits(name, QN_DTYPE_F32, a, b, n);
            free(a);
            free(b);
        }
        bench_free(&half);
        bench_free(&wide);
        problem_free(&r);
    }
    qn_device_close(device);
}

/* Each dtype of stream, k cache and v cache against ref. With f32 throughout the bound is that of f32 sums;
 * otherwise a rounding may go the other way, which is one unit in the last place: 2^-7 of a bf16, 2^-10 of an f16
 * value. */
static void mixtures(const device_case *dc, const problem *p) {
    device_case ref_case = {.backend = "ref"};
    qn_device *device = device_open(dc, 2), *ref = device_open(&ref_case, 1);
    for (int k = 0; k < 27; k++) {
        dtypes types = {floats[k % 3], floats[k / 3 % 3], floats[k / 9], floats[(k + 1) % 3], floats[(k + 2) % 3]};
        qn_dtype coarsest[] = {types.stream, types.k_cache, types.v_cache};
        double bound = 1e-5;
        for (int i = 0; i < 3; i++) {
            if (coarsest[i] == QN_DTYPE_F16) bound = fmax(bound, 0x1p-10);
            if (coarsest[i] == QN_DTYPE_BF16) bound = fmax(bound, 0x1p-7);
        }
        bench s, o;
        bench_make(&s, p, device, types, dc->packed);
        bench_make(&o, p, ref, types, false);
        for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
            bench_reset(&s);
            bench_reset(&o);
            const qn_tensor *pairs[3][2] = {{primitive_compute(id, &s), primitive_compute(id, &o)},
                                            {s.t[K_CACHE], o.t[K_CACHE]},
                                            {s.t[V_CACHE], o.t[V_CACHE]}};
            for (int i = 0; i < 3; i++) {
                float *a = tensor_floats(pairs[i][0]), *b = tensor_floats(pairs[i][1]);
                const char *name = case_text("%s on %s, mixture %d, part %d", primitive_name(id), dc->name, k, i);
                expect_close(name, a, b, tensor_count(pairs[i][0]), bound);
                free(a);
                free(b);
            }
        }
        bench_free(&s);
        bench_free(&o);
    }
    qn_device_close(device);
    qn_device_close(ref);
}

/* Only rows offset … offset + T - 1 of the caches change. */
static void other_cache_rows(const device_case *dc, const problem *p) {
    qn_device *device = device_open(dc, 2);
    for (int k = 0; k < 3; k++) {
        dtypes types = all_f32;
        types.k_cache = floats[k];
        types.v_cache = floats[(k + 1) % 3];
        bench s;
        bench_make(&s, p, device, types, dc->packed);
        for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
            if (!primitive_has_cache(id)) continue;
            bench_reset(&s);
            for (operand_id cache = K_CACHE; cache <= V_CACHE; cache++) {
                unsigned char *before = tensor_bits(s.t[cache]);
                primitive_compute(id, &s);
                unsigned char *after = tensor_bits(s.t[cache]);
                size_t row = (size_t)p->d * qn_dtype_bytes(qn_tensor_dtype(s.t[cache]));
                for (int64_t r = 0; r < p->b * p->nkv * p->c; r++) {
                    bool inside = r % p->c >= p->offset && r % p->c < p->offset + p->t;
                    bool same = memcmp(before + (size_t)r * row, after + (size_t)r * row, row) == 0;
                    /* Random numbers are not overwritten with equal values. */
                    const char *what = primitive_name(id), *where = operand_name(cache);
                    if (cache == K_CACHE && inside && same) {
                        fail_msg("%s on %s: row %d is not written", what, dc->name, (int)r);
                    }
                    if (!inside && !same) fail_msg("%s on %s: row %d of %s is written", what, dc->name, (int)r, where);
                }
                free(before);
                free(after);
                bench_reset(&s);
            }
        }
        bench_free(&s);
    }
    qn_device_close(device);
}

/* A tensor inside poisoned memory, with gaps after each axis. */
typedef struct padded {
    unsigned char *data;
    size_t bytes;
    qn_tensor *t;
} padded;

enum { POISON = 0xA5, MARGIN = 64 };

static padded padded_like(const qn_tensor *dense, int64_t gap) {
    qn_wrap wrap = {.dtype = qn_tensor_dtype(dense), .rank = qn_tensor_rank(dense)};
    int64_t block = 1;
    for (int32_t i = wrap.rank; i-- > 0;) {
        wrap.shape[i] = qn_tensor_shape(dense)[i];
        wrap.stride[i] = block + (i == wrap.rank - 1 ? 0 : gap + i);
        block = wrap.stride[i] * wrap.shape[i];
    }
    padded p = {.bytes = (size_t)block * qn_dtype_bytes(wrap.dtype) + 2 * MARGIN};
    p.data = malloc(p.bytes);
    assert_non_null(p.data);
    memset(p.data, POISON, p.bytes);
    wrap.data = p.data + MARGIN;
    assert_int_equal(qn_tensor_wrap(&p.t, qn_tensor_device(dense), &wrap, NULL), QN_OK);
    void *bits = tensor_bits(dense);
    assert_int_equal(qn_tensor_write(p.t, bits, qn_tensor_bytes(dense), NULL), QN_OK);
    free(bits);
    return p;
}

/* Every byte outside the elements is still poison. Frees the tensor. */
static void padded_check(padded *p, const device_case *dc) {
    void *poison = malloc(qn_tensor_bytes(p->t));
    assert_non_null(poison);
    memset(poison, POISON, qn_tensor_bytes(p->t));
    assert_int_equal(qn_tensor_write(p->t, poison, qn_tensor_bytes(p->t), NULL), QN_OK);
    for (size_t i = 0; i < p->bytes; i++) {
        if (p->data[i] != POISON) fail_msg("%s: byte %d beside the elements is written", dc->name, (int)i);
    }
    qn_tensor_free(p->t);
    free(p->data);
    free(poison);
}

/* All operands strided: the same bits as dense ones, and nothing between the elements changes. */
static void strided(const device_case *dc, const problem *p) {
    if (is_gpu(dc->backend)) return;
    qn_device *device = device_open(dc, 2);
    for (int k = 0; k < 3; k++) {
        dtypes types = {floats[k], floats[(k + 1) % 3], floats[(k + 2) % 3], floats[k], floats[k]};
        bench dense, gaps;
        bench_make(&dense, p, device, types, false);
        gaps = dense;
        padded all[N_OPERAND], out = padded_like(dense.out, 3), attn_out = padded_like(dense.attn_out, 4);
        for (operand_id id = 0; id < N_OPERAND; id++) {
            all[id] = padded_like(dense.t[id], 2 + id % 5); /* each with its own strides */
            gaps.t[id] = all[id].t;
            if (dc->packed && id >= Q_PROJ && id <= DOWN_PROJ) {
                assert_int_equal(qn_linear_pack(&dense.packed[id], dense.t[id], QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL),
                                 QN_OK);
                assert_int_equal(qn_linear_pack(&gaps.packed[id], gaps.t[id], QN_LAYOUT_IN_OUT, QN_ARITH_F32, NULL),
                                 QN_OK);
            }
        }
        gaps.out = out.t;
        gaps.attn_out = attn_out.t;
        for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
            bench_reset(&dense);
            bench_reset(&gaps);
            const qn_tensor *pairs[3][2] = {{primitive_compute(id, &dense), primitive_compute(id, &gaps)},
                                            {dense.t[K_CACHE], gaps.t[K_CACHE]},
                                            {dense.t[V_CACHE], gaps.t[V_CACHE]}};
            for (int i = 0; i < 3; i++) {
                const char *name = case_text("%s on %s, strided part %d", primitive_name(id), dc->name, i);
                expect_same_tensors(name, pairs[i][1], pairs[i][0]);
            }
        }
        padded_check(&out, dc);
        padded_check(&attn_out, dc);
        for (operand_id id = 0; id < N_OPERAND; id++) {
            padded_check(&all[id], dc);
            qn_linear_free(gaps.packed[id]);
        }
        bench_free(&dense);
    }
    qn_device_close(device);
}

/* out may alias hidden: the same bits. */
static void in_place(const device_case *dc, const problem *p) {
    qn_device *device = device_open(dc, 2);
    for (int k = 0; k < 3; k++) {
        dtypes types = all_f32;
        types.stream = floats[k];
        bench s;
        bench_make(&s, p, device, types, dc->packed);
        const primitive_id ids[] = {MLP, ATTENTION_RESIDUAL, ATTENTION_BLOCK, LAYER};
        for (int i = 0; i < 4; i++) {
            bench_reset(&s);
            void *apart = tensor_bits(primitive_compute(ids[i], &s));
            bench_reset(&s);
            void *hidden = tensor_bits(s.t[HIDDEN]);
            bench same = s;
            same.out = s.t[HIDDEN];
            void *together = tensor_bits(primitive_compute(ids[i], &same));
            const char *name =
                case_text("%s on %s in place, %s", primitive_name(ids[i]), dc->name, qn_dtype_name(types.stream));
            expect_same_bits(name, types.stream, together, apart, tensor_count(s.out));
            assert_int_equal(qn_tensor_write(s.t[HIDDEN], hidden, qn_tensor_bytes(s.t[HIDDEN]), NULL), QN_OK);
            free(apart);
            free(hidden);
            free(together);
        }
        bench_free(&s);
    }
    qn_device_close(device);
}

/* Outputs of an f32 call: out, k_cache, v_cache. */
typedef struct result {
    void *part[3];
    size_t bytes[3];
} result;

static result run_at(primitive_id id, bench *s, qn_offset offset) {
    bench_reset(s);
    s->position = offset;
    const qn_tensor *t[3] = {primitive_compute(id, s), s->t[K_CACHE], s->t[V_CACHE]};
    result r;
    for (int i = 0; i < 3; i++) {
        r.part[i] = tensor_bits(t[i]);
        r.bytes[i] = qn_tensor_bytes(t[i]);
    }
    return r;
}

static void expect_same_result(const char *name, const result *got, const result *want) {
    for (int i = 0; i < 3; i++) {
        expect_same_bits(case_text("%s, part %d", name, i), QN_DTYPE_F32, got->part[i], want->part[i],
                         got->bytes[i] / sizeof(float));
    }
}

static void free_result(result *r) {
    for (int i = 0; i < 3; i++) free(r->part[i]);
}

static qn_tensor *integers(qn_device *device, qn_dtype dtype, int64_t n, int64_t first, int64_t second) {
    qn_tensor *t = tensor_make(device, dtype, 1, &n, NULL);
    int64_t wide[2] = {first, second};
    int32_t narrow[2] = {(int32_t)first, (int32_t)second};
    const void *data = dtype == QN_DTYPE_S64 ? (const void *)wide : narrow;
    assert_int_equal(qn_tensor_write(t, data, qn_tensor_bytes(t), NULL), QN_OK);
    return t;
}

/* C - T = 10: the requested offset, and the clamped one. */
static const struct {
    int64_t asked[2], meant[2];
} positions[] = {
    {{4, 4}, {4, 4}},    {{0, 10}, {0, 10}},       {{9, 2}, {9, 2}},
    {{-1, 11}, {0, 10}}, {{INT32_MIN, 3}, {0, 3}}, {{7, INT32_MAX}, {7, 10}},
};

/* Per-row offsets equal one call per row. Tensors, of both types and lengths, equal rows, and are clamped. */
static void offsets(const device_case *dc, const problem *p) {
    qn_device *device = device_open(dc, 2);
    bench s;
    bench_make(&s, p, device, all_f32, dc->packed);
    const primitive_id ids[] = {KV_ATTENTION, ATTENTION_BLOCK, LAYER};
    for (int i = 0; i < 3; i++) {
        const char *what = primitive_name(ids[i]);
        for (size_t k = 0; k < sizeof positions / sizeof positions[0]; k++) {
            const int64_t *asked = positions[k].asked, *meant = positions[k].meant;
            result rows = run_at(ids[i], &s, (qn_offset){.rows = meant, .n_rows = 2});
            /* Row b of the call with per-row offsets equals row b of the call that uses its offset for all rows. */
            for (int b = 0; b < 2; b++) {
                result whole = run_at(ids[i], &s, (qn_offset){.value = meant[b]});
                for (int part = 0; part < 3; part++) {
                    size_t half = rows.bytes[part] / 2, at = (size_t)b * half;
                    expect_same_bits(case_text("%s on %s, offsets %zu, row %d, part %d", what, dc->name, k, b, part),
                                     QN_DTYPE_F32, (char *)rows.part[part] + at, (char *)whole.part[part] + at,
                                     half / sizeof(float));
                }
                qn_dtype dtype = k % 2 ? QN_DTYPE_S64 : QN_DTYPE_S32;
                qn_tensor *one = integers(device, dtype, 1, asked[b], 0);
                result scalar = run_at(ids[i], &s, (qn_offset){.tensor = one});
                expect_same_result(case_text("%s on %s, tensor offset {1} %zu", what, dc->name, k), &scalar, &whole);
                free_result(&whole);
                free_result(&scalar);
                qn_tensor_free(one);
            }
            for (int d = 0; d < 2; d++) {
                qn_tensor *two = integers(device, d ? QN_DTYPE_S64 : QN_DTYPE_S32, 2, asked[0], asked[1]);
                result each = run_at(ids[i], &s, (qn_offset){.tensor = two});
                expect_same_result(case_text("%s on %s, tensor offset {B} %zu", what, dc->name, k), &each, &rows);
                free_result(&each);
                qn_tensor_free(two);
            }
            free_result(&rows);
        }
        qn_tensor *far = integers(device, QN_DTYPE_S64, 2, INT64_MIN, INT64_MAX);
        result clamped = run_at(ids[i], &s, (qn_offset){.tensor = far});
        result ends = run_at(ids[i], &s, (qn_offset){.rows = (const int64_t[]){0, 10}, .n_rows = 2});
        expect_same_result(case_text("%s on %s, clamped offsets", what, dc->name), &clamped, &ends);
        free_result(&clamped);
        free_result(&ends);
        qn_tensor_free(far);
    }
    bench_free(&s);
    qn_device_close(device);
}

/* A linear packed from {in, out}, from {out, in} or from a strided source is the same linear, in each dtype. */
static void layouts(const device_case *dc, const problem *p) {
    if (is_gpu(dc->backend)) return;
    if (!dc->packed) return;
    qn_device *device = device_open(dc, 3);
    for (int k = 0; k < 3; k++) {
        dtypes types = all_f32;
        types.linear = floats[k];
        bench s;
        bench_make(&s, p, device, types, true);
        void *want = tensor_bits(primitive_compute(ATTENTION_RESIDUAL, &s));
        int64_t a = p->nq * p->d, turned_shape[2] = {p->h, a};
        float *values = malloc((size_t)(a * p->h) * sizeof *values);
        assert_non_null(values);
        for (int64_t i = 0; i < a * p->h; i++) values[i] = p->values[O_PROJ][i % a * p->h + i / a];
        qn_tensor *transposed = tensor_make(device, floats[k], 2, turned_shape, values);
        padded gap = padded_like(transposed, 3);
        const qn_tensor *sources[] = {transposed, gap.t};
        for (int i = 0; i < 2; i++) {
            qn_linear_free(s.packed[O_PROJ]);
            s.packed[O_PROJ] = NULL;
            assert_int_equal(qn_linear_pack(&s.packed[O_PROJ], sources[i], QN_LAYOUT_OUT_IN, QN_ARITH_AUTO, NULL),
                             QN_OK);
            assert_int_equal(qn_linear_n_in(s.packed[O_PROJ]), a);
            assert_int_equal(qn_linear_n_out(s.packed[O_PROJ]), p->h);
            assert_int_equal(qn_linear_dtype(s.packed[O_PROJ]), floats[k]);
            assert_true(qn_linear_bytes(s.packed[O_PROJ]) >= qn_tensor_bytes(transposed));
            if (qn_linear_arith(s.packed[O_PROJ]) != QN_ARITH_F32) continue; /* auto chose native bf16 */
            void *got = tensor_bits(primitive_compute(ATTENTION_RESIDUAL, &s));
            const char *name = case_text("o_proj %s on %s, source %d", qn_dtype_name(floats[k]), dc->name, i);
            expect_same_bits(name, QN_DTYPE_F32, got, want, tensor_count(s.out));
            free(got);
        }
        free(want);
        free(values);
        padded_check(&gap, dc);
        qn_tensor_free(transposed);
        bench_free(&s);
    }
    qn_device_close(device);
}

static void on_all(void (*check)(const device_case *, const problem *)) {
    device_case cases[MAX_DEVICE_CASE];
    int n = device_cases(cases);
    problem p = small();
    for (int i = 0; i < n; i++) check(&cases[i], &p);
    problem_free(&p);
}

#define ON_ALL(name)                                                                                                   \
    static void test_##name(void **state) {                                                                            \
        (void)state;                                                                                                   \
        on_all(name);                                                                                                  \
    }
ON_ALL(exact_widening)
ON_ALL(mixtures)
ON_ALL(other_cache_rows)
ON_ALL(strided)
ON_ALL(in_place)
ON_ALL(offsets)
ON_ALL(layouts)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_widening), cmocka_unit_test(test_mixtures), cmocka_unit_test(test_other_cache_rows),
        cmocka_unit_test(test_strided),        cmocka_unit_test(test_in_place), cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
