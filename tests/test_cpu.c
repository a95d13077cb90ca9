/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cpu backend's ops on each level: against plain double arithmetic at odd shapes, and bit for bit against
 * themselves: any number of rows and threads, packed or plain, fused or composed, chunked or not, pages of any size.
 */
#include "../src/backend/linear.h"
#include "../src/base/half.h"
#include "support/close.h"
#include "support/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const qn_dtype dtypes_all[] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16};

static qn_device *open_cpu(int level, int32_t n_thread, bool compose) {
    qn_device *device = NULL;
    qn_device_options options = {.n_thread = n_thread, .isa = level_name(level), .compose = compose};
    assert_int_equal(qn_device_open(&device, "cpu", &options, NULL), QN_OK);
    return device;
}

/* Measures `call`, reserves the workspace that it reports, and runs it; `run` is its context. It must not use more
 * than it measured. */
#define RUN_STATUS(device, status, call)                                                                               \
    do {                                                                                                               \
        qni_scratch scratch;                                                                                           \
        qn_error error = {0};                                                                                          \
        qni_run context = qni_device_run(device, &scratch, true, &error), *run = &context;                             \
        assert_int_equal(call, QN_OK);                                                                                 \
        assert_int_equal(scratch.used, 0);                                                                             \
        size_t measured = scratch.peak;                                                                                \
        assert_int_equal(qni_device_reserve(device, measured, &error), QN_OK);                                         \
        context = qni_device_run(device, &scratch, false, &error);                                                     \
        status = (call);                                                                                               \
        assert_true(scratch.peak <= measured && scratch.used == 0);                                                    \
    } while (0)
#define RUN(device, call)                                                                                              \
    do {                                                                                                               \
        qn_status run_status;                                                                                          \
        RUN_STATUS(device, run_status, call);                                                                          \
        assert_int_equal(run_status, QN_OK);                                                                           \
    } while (0)

static void *new_block(size_t bytes) {
    void *p = calloc(1, bytes);
    assert_non_null(p);
    return p;
}

static void *random_block(qn_dtype dtype, int64_t n, double size, uint64_t seed) {
    void *data = new_block((size_t)n * qn_dtype_bytes(dtype));
    for (int64_t i = 0; i < n; i++) qni_store_f32(data, dtype, i, (float)(size * random_normal(&seed)));
    return data;
}

/* --- linears --- */

/* W {in, out} in all layouts: plain {in, out}, plain {out, in}, packed from either. */
enum { PLAIN_IN_OUT, PLAIN_OUT_IN, PACKED_IN_OUT, PACKED_OUT_IN, N_FORM };

typedef struct matrix {
    void *in_out, *out_in;
    qn_dtype dtype;
    int64_t n_in, n_out;
} matrix;

static matrix make_matrix(qn_dtype dtype, int64_t n_in, int64_t n_out, uint64_t seed) {
    matrix w = {random_block(dtype, n_in * n_out, 1, seed), NULL, dtype, n_in, n_out};
    w.out_in = new_block((size_t)(n_in * n_out) * qn_dtype_bytes(dtype));
    for (int64_t i = 0; i < n_in; i++) {
        for (int64_t o = 0; o < n_out; o++) {
            qni_store_f32(w.out_in, dtype, o * n_in + i, qni_load_f32(w.in_out, dtype, i * n_out + o));
        }
    }
    return w;
}
static void free_matrix(matrix *w) {
    free(w->in_out);
    free(w->out_in);
}

/* The weight in a layout; *linear owns the memory if packed. */
static qni_weight weight_of(const matrix *w, int form, qn_device *device, qn_linear **linear) {
    *linear = NULL;
    qni_weight plain = {.dtype = w->dtype, .arith = QN_ARITH_F32, .n_in = w->n_in, .n_out = w->n_out, .ki = 1};
    if (form == PLAIN_IN_OUT) {
        plain.data = w->in_out;
        plain.nr = plain.group_stride = w->n_out;
        return plain;
    }
    if (form == PLAIN_OUT_IN) {
        plain.data = w->out_in;
        plain.nr = plain.group_stride = 1;
        plain.panel_stride = w->n_in;
        return plain;
    }
    const qni_source source = {.dtype = w->dtype, .arith = QN_ARITH_F32, .n_in = w->n_in, .n_out = w->n_out};
    assert_int_equal(qni_linear_create(linear, device, &source, NULL), QN_OK);
    memset((*linear)->data.address, 0xFF, (*linear)->data.bytes); /* all bytes set are a NaN: padding must be written */
    const qni_weight *form_of = &(*linear)->weight;
    int64_t half = w->n_out / 2 / form_of->nr * form_of->nr; /* in two ranges */
    for (int part = 0; part < 2; part++) {
        int64_t first = part == 0 ? 0 : half, n = part == 0 ? half : w->n_out - half;
        size_t bytes = qn_dtype_bytes(w->dtype);
        if (form == PACKED_IN_OUT) {
            const char *src = (const char *)w->in_out + (size_t)first * bytes;
            device->backend->pack(device->state, form_of, (*linear)->data.address, first, n, src, w->n_out, 1);
        } else {
            const char *src = (const char *)w->out_in + (size_t)(first * w->n_in) * bytes;
            device->backend->pack(device->state, form_of, (*linear)->data.address, first, n, src, 1, w->n_in);
        }
    }
    return *form_of;
}

/* x · W in double. */
static double exact(const matrix *w, const float *x, int64_t o, double *size) {
    double sum = 0;
    *size = 0;
    for (int64_t i = 0; i < w->n_in; i++) {
        double p = (double)x[i] * (double)qni_load_f32(w->in_out, w->dtype, i * w->n_out + o);
        sum += p;
        *size += fabs(p);
    }
    return sum;
}

/* Every layout, row count and thread count gives the same bits as one row, one thread, packed. */
static void check_linear(int level, const matrix *w) {
    enum { MAX_ROW = 13 };
    float *x = random_block(QN_DTYPE_F32, MAX_ROW * w->n_in, 1, 99);
    float *one = new_block((size_t)(MAX_ROW * w->n_out) * sizeof *one);
    float *all = new_block((size_t)(MAX_ROW * w->n_out) * sizeof *all);
    for (int32_t n_thread = 1; n_thread <= 3; n_thread++) {
        qn_device *device = open_cpu(level, n_thread, false);
        for (int f = 0; f < N_FORM; f++) {
            int form = N_FORM - 1 - f; /* packed first */
            qn_linear *linear;
            qni_weight weight = weight_of(w, form, device, &linear);
            bool is_first = n_thread == 1 && f == 0;
            CASE(name, "linear %s %s {%d, %d}, form %d, threads %d", level_name(level), qn_dtype_name(w->dtype),
                 (int)w->n_in, (int)w->n_out, form, (int)n_thread);
            for (int64_t r = 0; is_first && r < MAX_ROW; r++) {
                float *row = one + r * w->n_out;
                RUN(device, run->ops->linear(run, qni_mat_of(row, QN_DTYPE_F32, 1, w->n_out),
                                             qni_mat_of(x + r * w->n_in, QN_DTYPE_F32, 1, w->n_in), &weight));
                for (int64_t o = 0; o < w->n_out; o++) {
                    double size, want = exact(w, x + r * w->n_in, o, &size);
                    expect_near(name, r * w->n_out + o, (double)row[o], want,
                                4e-6 * size); /* as in test_cpu_kernels.c */
                }
            }
            for (int64_t n_row = 1; n_row <= MAX_ROW; n_row += n_thread == 1 ? 1 : 4) {
                memset(all, 0xFF, (size_t)(MAX_ROW * w->n_out) * sizeof *all);
                RUN(device, run->ops->linear(run, qni_mat_of(all, QN_DTYPE_F32, n_row, w->n_out),
                                             qni_mat_of(x, QN_DTYPE_F32, n_row, w->n_in), &weight));
                expect_same_bits(case_text("%s, rows %d", name, (int)n_row), QN_DTYPE_F32, all, one, n_row * w->n_out);
                if (n_row < MAX_ROW) {
                    const int64_t end = n_row * w->n_out;
                    expect_that(isnan(all[end]), name, end, all[end]);
                }
            }
            qn_linear_free(linear);
        }
        qn_device_close(device);
    }
    free(x);
    free(one);
    free(all);
}

static void linears_are_bit_identical(void **state) {
    (void)state;
    const int64_t sizes[][2] = {{1, 1}, {17, 5}, {300, 33}, {257, 130}, {600, 16}};
    for (int level = 0; level_name(level) != NULL; level++) {
        for (int i = 0; i < 5; i++) {
            matrix w = make_matrix(dtypes_all[i % 3], sizes[i][0], sizes[i][1], (uint64_t)i + 1);
            check_linear(level, &w);
            free_matrix(&w);
        }
    }
}

/* More rows than one task handles; strided rows; every dtype of x and out; residuals in place. */
static void rows_of_any_layout(void **state) {
    (void)state;
    enum { N_ROW = 1100, N_IN = 20, N_OUT = 18, STRIDE = 23, INNER = 100 };
    matrix w = make_matrix(QN_DTYPE_BF16, N_IN, N_OUT, 4);
    for (int level = 0; level_name(level) != NULL; level++) {
        for (int t = 0; t < 3; t++) {
            qn_dtype dtype = dtypes_all[t];
            CASE(name, "linear_add %s, rows in %s", level_name(level), qn_dtype_name(dtype));
            qn_device *device = open_cpu(level, 2, false);
            qn_linear *linear;
            qni_weight weight = weight_of(&w, PACKED_OUT_IN, device, &linear);
            const int64_t outer = INNER * STRIDE + 7, n = N_ROW / INNER * outer;
            void *x = random_block(dtype, n, 1, 5), *hidden = random_block(dtype, n, 1, 6);
            void *out = random_block(dtype, n, 1, 7), *kept = random_block(dtype, n, 1, 7);
            /* Misaligned by one element. */
            qni_mat mx = {(char *)x + qn_dtype_bytes(dtype), dtype, N_ROW, N_IN, INNER, outer, STRIDE};
            qni_mat mh = {hidden, dtype, N_ROW, N_OUT, INNER, outer, STRIDE}, mo = mh;
            mo.data = out;
            RUN(device, run->ops->linear_add(run, mo, mh, mx, &weight));
            for (int64_t r = 0; r < N_ROW; r++) {
                float row[N_IN];
                for (int64_t i = 0; i < N_IN; i++) row[i] = qni_load_f32(qni_mat_row(&mx, r), dtype, i);
                for (int64_t o = 0; o < N_OUT; o++) {
                    double size, want = exact(&w, row, o, &size);
                    want += (double)qni_load_f32(qni_mat_row(&mh, r), dtype, o);
                    double got = (double)qni_load_f32(qni_mat_row(&mo, r), dtype, o);
                    double unit = dtype == QN_DTYPE_F32 ? 0 : dtype == QN_DTYPE_BF16 ? 0x1p-8 : 0x1p-11;
                    expect_near(name, r * N_OUT + o, got, want, 2e-6 * (size + 1) + unit * fabs(want));
                }
                /* Gaps between rows are not written. */
                const size_t bytes = qn_dtype_bytes(dtype);
                size_t gap = (size_t)((char *)qni_mat_row(&mo, r) - (char *)out) + N_OUT * bytes;
                expect_same_bits(case_text("%s, behind row %d", name, (int)r), dtype, (char *)out + gap,
                                 (char *)kept + gap, STRIDE - N_OUT);
            }
            RUN(device, run->ops->linear_add(run, mh, mh, mx, &weight)); /* in place */
            for (int64_t r = 0; r < N_ROW; r++) {
                expect_same_bits(case_text("%s in place, row %d", name, (int)r), dtype, qni_mat_row(&mh, r),
                                 qni_mat_row(&mo, r), N_OUT);
            }
            free(x);
            free(hidden);
            free(out);
            free(kept);
            qn_linear_free(linear);
            qn_device_close(device);
        }
    }
    free_matrix(&w);
}

static void embeddings_from_any_layout(void **state) {
    (void)state;
    enum { N_IN = 70, N_VOCAB = 37, N_ROW = 5 };
    const int32_t ids[N_ROW] = {0, 36, 15, 16, 16};
    for (int level = 0; level_name(level) != NULL; level++) {
        for (int t = 0; t < 3; t++) {
            matrix w = make_matrix(dtypes_all[t], N_IN, N_VOCAB, 8);
            qn_device *device = open_cpu(level, 2, false);
            for (int form = 0; form < N_FORM; form++) {
                qn_linear *linear;
                qni_weight table = weight_of(&w, form, device, &linear);
                float out[N_ROW * N_IN];
                CASE(name, "embed %s %s, form %d", level_name(level), qn_dtype_name(w.dtype), form);
                RUN(device, run->ops->embed(run, qni_mat_of(out, QN_DTYPE_F32, N_ROW, N_IN), &table, ids));
                for (int64_t r = 0; r < N_ROW; r++) {
                    for (int64_t i = 0; i < N_IN; i++) {
                        const double want = (double)qni_load_f32(w.out_in, w.dtype, ids[r] * N_IN + i);
                        expect_near(name, r * N_IN + i, (double)out[r * N_IN + i], want, 0);
                    }
                }
                qn_linear_free(linear);
            }
            qn_device_close(device);
            free_matrix(&w);
        }
    }
}

static void refuses_bad_packings(void **state) {
    (void)state;
    qn_device *device = open_cpu(0, 1, false);
    qn_linear *linear = NULL;
    qn_error err = {0};
    qni_source source = {.dtype = QN_DTYPE_F16, .arith = QN_ARITH_BF16, .n_in = 4, .n_out = 4};
    assert_int_equal(qni_linear_create(&linear, device, &source, &err), QN_EUNSUPPORTED);
    assert_string_equal(err.message, "arith bf16: for bf16 weights, these are f16");
    source.arith = QN_ARITH_INT8;
    assert_int_equal(qni_linear_create(&linear, device, &source, &err), QN_EUNSUPPORTED);
    assert_string_equal(err.message, "arith int8: for affine quantized weights, these are f16");
    qni_packing packing;
    source = (qni_source){.dtype = QN_DTYPE_F32, .n_in = INT64_MAX / 4, .n_out = INT64_MAX / 4};
    assert_int_equal(device->backend->packing(device->state, &packing, &source, &err), QN_ENOMEM);
    assert_null(linear);
    qn_device_close(device);
}

/* --- argmax --- */

static void argmax_of_large_rows(void **state) {
    (void)state;
    enum { N = 40000, N_ROW = 3 };
    for (int level = 0; level_name(level) != NULL; level++) {
        qn_device *device = open_cpu(level, 3, false);
        for (int t = 0; t < 3; t++) {
            void *data = random_block(dtypes_all[t], N_ROW * N, 1, 11);
            qni_mat logits = qni_mat_of(data, dtypes_all[t], N_ROW, N);
            const int64_t best[N_ROW] = {39990, 16384, 0};
            for (int64_t r = 0; r < N_ROW; r++) {
                qni_store_f32(data, dtypes_all[t], r * N + best[r], 50);
                qni_store_f32(data, dtypes_all[t], r * N + N - 2, 50); /* a tie across tasks */
                qni_store_f32(data, dtypes_all[t], r * N + N - 1, 60); /* beyond n_valid */
            }
            uint32_t ids[N_ROW] = {7, 7, 7};
            RUN(device, run->ops->argmax(run, ids, logits, N - 1));
            CASE(name, "argmax %s %s", level_name(level), qn_dtype_name(dtypes_all[t]));
            for (int64_t r = 0; r < N_ROW; r++) expect_that(ids[r] == best[r], name, r, ids[r]);
            qni_store_f32(data, dtypes_all[t], N + 20000, NAN);
            uint32_t untouched[N_ROW] = {7, 7, 7};
            qn_status status;
            RUN_STATUS(device, status, run->ops->argmax(run, untouched, logits, N - 1));
            assert_int_equal(status, QN_ENUMERIC);
            for (int64_t r = 0; r < N_ROW; r++) expect_that(untouched[r] == 7, name, r, untouched[r]);
            free(data);
        }
        qn_device_close(device);
    }
}

/* First touch writes to each page of each weight, and to no byte outside. */
static void first_touch_writes_every_page(void **state) {
    (void)state;
    enum { N_IN = 300, PAGE = 4096, MARK = 0xAA };
    const int64_t outs[] = {700, 130, 130, 90, 1000, 1000, 90, 3001};
    for (int32_t n_thread = 1; n_thread <= 3; n_thread++) {
        qn_device *device = open_cpu(0, n_thread, false);
        qni_layer_view layer = {0};
        qni_weight head, *weights[] = {&layer.attention.q_proj, &layer.attention.k_proj,
                                       &layer.attention.v_proj, &layer.attention.o_proj,
                                       &layer.mlp.gate_proj,    &layer.mlp.up_proj,
                                       &layer.mlp.down_proj,    &head};
        unsigned char *blocks[8];
        size_t bytes[8];
        for (int i = 0; i < 8; i++) {
            const qni_source source = {.dtype = i % 2 == 0 ? QN_DTYPE_BF16 : QN_DTYPE_F32,
                                       .arith = QN_ARITH_F32,
                                       .n_in = N_IN,
                                       .n_out = outs[i]};
            qni_packing packing;
            assert_int_equal(device->backend->packing(device->state, &packing, &source, NULL), QN_OK);
            bytes[i] = packing.bytes;
            blocks[i] = new_block(bytes[i] + 2 * PAGE);
            memset(blocks[i], MARK, bytes[i] + 2 * PAGE);
            *weights[i] = packing.form;
            weights[i]->data = blocks[i] + PAGE;
        }
        device->backend->first_touch(device->state, &layer, NULL);
        assert_int_equal(blocks[7][PAGE], MARK);
        device->backend->first_touch(device->state, NULL, &head);
        for (int i = 0; i < 8; i++) {
            const unsigned char *data = blocks[i] + PAGE;
            size_t last = 0; /* position of the last overwritten marker */
            assert_int_equal(data[0], 0);
            for (size_t at = 0; at < bytes[i]; at++) {
                if (data[at] == 0) last = at;
                assert_true(at - last < PAGE);
            }
            for (int j = 0; j < PAGE; j++) assert_true(blocks[i][j] == MARK && data[bytes[i] + (size_t)j] == MARK);
            free(blocks[i]);
        }
        qn_device_close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears_are_bit_identical),  cmocka_unit_test(rows_of_any_layout),
        cmocka_unit_test(embeddings_from_any_layout), cmocka_unit_test(refuses_bad_packings),
        cmocka_unit_test(argmax_of_large_rows),       cmocka_unit_test(first_touch_writes_every_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
