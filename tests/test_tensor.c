/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, tensors and packed linears as objects: accepted arguments, references between them, and out-of-memory
 * handling. */
#include "support/close.h"
#include "support/problem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_device *device;

static int setup(void **state) {
    (void)state;
    return qn_device_open(&device, "ref", NULL, NULL);
}
static int teardown(void **state) {
    (void)state;
    qn_device_close(device);
    return 0;
}

static void assert_refused(qn_status got, qn_status want, const qn_error *err, const char *message) {
    if (got != want || strcmp(err->message, message) != 0) {
        fail_msg("expected %s \"%s\", got %s \"%s\"", qn_status_name(want), message, qn_status_name(got), err->message);
    }
}

static void *some_alloc(void *user, size_t bytes, size_t alignment) {
    (void)user, (void)alignment;
    return malloc(bytes);
}
static void some_free(void *user, void *pointer, size_t bytes) {
    (void)user, (void)bytes;
    free(pointer);
}

static void device_options(void **state) {
    (void)state;
    qn_device *out = (qn_device *)&out;
    qn_error err;
    const struct {
        const char *name;
        qn_device_options options;
        qn_status status;
        const char *message;
    } cases[] = {
        {"ref", {.n_thread = -1}, QN_EINVAL, "n_thread: must be 0 to 512, got -1"},
        {"ref", {.n_thread = 513}, QN_EINVAL, "n_thread: must be 0 to 512, got 513"},
        {"ref", {.isa = "avx9"}, QN_EINVAL, "isa: unknown instruction set level \"avx9\""},
        {"ref", {.isa = ""}, QN_EINVAL, "isa: unknown instruction set level \"\""},
        {"ref", {.allocator = {.alloc = some_alloc}}, QN_EINVAL, "allocator: needs both alloc and free"},
        {"ref", {.allocator = {.free = some_free}}, QN_EINVAL, "allocator: needs both alloc and free"},
        {"gpu", {0}, QN_EUNSUPPORTED, "device: no backend is named \"gpu\"; this build has cpu, ref, cuda"},
        {"", {0}, QN_EUNSUPPORTED, "device: no backend is named \"\"; this build has cpu, ref, cuda"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_status status = qn_device_open(&out, cases[i].name, &cases[i].options, &err);
        assert_refused(status, cases[i].status, &err, cases[i].message);
        assert_ptr_equal(out, &out); /* outputs are written only on success */
    }
    assert_refused(qn_device_open(NULL, "ref", NULL, &err), QN_EINVAL, &err, "out: is NULL");
    qn_device_close(NULL);
}

static void device_describes_itself(void **state) {
    (void)state;
    bool usable = false;
    assert_string_equal(qn_isa_name(0, &usable), "portable");
    assert_true(usable);
    assert_null(qn_isa_name(-1, &usable));
    int32_t n_isa = 0, n_backend = 0;
    while (qn_isa_name(n_isa, NULL) != NULL) n_isa++;
    assert_null(qn_isa_name(n_isa + 1, NULL));
    bool has_ref = false;
    for (const char *name; (name = qn_backend_name(n_backend)) != NULL; n_backend++) {
        has_ref = has_ref || strcmp(name, "ref") == 0;
        /* Every level acts as a cap: one above the machine's best is no error, and a higher level is never used. */
        for (int32_t i = 0; i < n_isa; i++) {
            const char *isa = qn_isa_name(i, &usable);
            qn_device_options options = {.n_thread = 2, .isa = isa};
            qn_device *d = NULL;
            qn_device_info info;
            assert_int_equal(qn_device_open(&d, name, &options, NULL), QN_OK);
            qn_device_get_info(d, &info);
            assert_string_equal(info.name, name);
            if (strcmp(name, "cpu") == 0 && usable) assert_string_equal(info.isa, isa);
            assert_int_equal(info.n_thread, strcmp(name, "ref") == 0 ? 1 : 2);
            assert_true(strlen(info.description) > 0);
            assert_true(info.memory_available_bytes <= info.memory_total_bytes);
            qn_device_close(d);
        }
    }
    assert_true(has_ref);
    assert_null(qn_backend_name(-1));
    assert_null(qn_backend_name(n_backend + 1));
}

static void dtypes_have_names(void **state) {
    (void)state;
    assert_string_equal(qn_dtype_name(QN_DTYPE_F32), "f32");
    assert_string_equal(qn_dtype_name(QN_DTYPE_S64), "s64");
    assert_string_equal(qn_dtype_name(QN_DTYPE_DEFAULT), "?");
    assert_string_equal(qn_dtype_name((qn_dtype)99), "?");
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_BF16), 2);
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_U32), 4);
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_S64), 8);
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_DEFAULT), 0);
    assert_int_equal(qn_dtype_bytes((qn_dtype)-1), 0);
}

static void create(void **state) {
    (void)state;
    qn_tensor *t = NULL;
    qn_error err;
    const int64_t shape[] = {2, 3, 4, 5};
    assert_int_equal(qn_tensor_create(&t, device, QN_DTYPE_F16, 4, shape, NULL), QN_OK);
    assert_ptr_equal(qn_tensor_device(t), device);
    assert_int_equal(qn_tensor_dtype(t), QN_DTYPE_F16);
    assert_int_equal(qn_tensor_rank(t), 4);
    assert_memory_equal(qn_tensor_shape(t), shape, sizeof shape);
    assert_int_equal(qn_tensor_bytes(t), 240);
    unsigned char bytes[240], zeros[240] = {0};
    assert_int_equal(qn_tensor_read(t, bytes, sizeof bytes, NULL), QN_OK);
    assert_memory_equal(bytes, zeros, sizeof bytes);
    qn_tensor_free(t);
    qn_tensor_free(NULL);
    t = NULL;
    const struct {
        qn_dtype dtype;
        int32_t rank;
        int64_t shape[5];
        const char *message;
    } cases[] = {
        {QN_DTYPE_DEFAULT, 1, {1}, "dtype: 0 is none"},
        {(qn_dtype)77, 1, {1}, "dtype: 77 is none"},
        {QN_DTYPE_Q8, 1, {1}, "dtype: no tensor is q8"},
        {QN_DTYPE_F32, 0, {1}, "rank: must be 1 to 4, got 0"},
        {QN_DTYPE_F32, 5, {1, 1, 1, 1, 1}, "rank: must be 1 to 4, got 5"},
        {QN_DTYPE_F32, -1, {1}, "rank: must be 1 to 4, got -1"},
        {QN_DTYPE_F32, 2, {3, 0}, "shape[1]: must be at least 1, got 0"},
        {QN_DTYPE_F32, 3, {-2, 1, 1}, "shape[0]: must be at least 1, got -2"},
        {QN_DTYPE_F32, 2, {(int64_t)1 << 32, (int64_t)1 << 32}, "shape: the product of the sizes is too large"},
        {QN_DTYPE_S64, 1, {(int64_t)1 << 60}, "shape: the product of the sizes is too large"},
        {QN_DTYPE_F32, 1, {INT64_MAX}, "shape: the product of the sizes is too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_status status = qn_tensor_create(&t, device, cases[i].dtype, cases[i].rank, cases[i].shape, &err);
        assert_refused(status, QN_EINVAL, &err, cases[i].message);
    }
    assert_refused(qn_tensor_create(&t, NULL, QN_DTYPE_F32, 1, shape, &err), QN_EINVAL, &err, "device: is NULL");
    assert_refused(qn_tensor_create(NULL, device, QN_DTYPE_F32, 1, shape, &err), QN_EINVAL, &err, "out: is NULL");
    assert_refused(qn_tensor_create(&t, device, QN_DTYPE_F32, 1, NULL, &err), QN_EINVAL, &err, "shape: is NULL");
    const int64_t much = (int64_t)1 << 60;
    assert_refused(qn_tensor_create(&t, device, QN_DTYPE_F32, 1, &much, &err), QN_ENOMEM, &err,
                   "tensor: no memory for 4611686018427387904 bytes");
    assert_null(t);
}

static void wrap_refusals(void **state) {
    (void)state;
    float data[64];
    const struct {
        qn_wrap wrap;
        const char *message;
    } cases[] = {
        {{.dtype = QN_DTYPE_F32, .rank = 1, .shape = {4}}, "data: is NULL"},
        {{.dtype = QN_DTYPE_F32, .rank = 1, .shape = {4}, .data = (char *)data + 2},
         "data: must be aligned to 4 bytes, is off by 2"},
        {{.dtype = QN_DTYPE_BF16, .rank = 1, .shape = {4}, .data = (char *)data + 1},
         "data: must be aligned to 2 bytes, is off by 1"},
        {{.dtype = QN_DTYPE_F32, .rank = 2, .shape = {4, 4}, .stride = {4, 2}, .data = data},
         "stride[1]: must be 1, got 2"},
        {{.dtype = QN_DTYPE_F32, .rank = 2, .shape = {4, 4}, .stride = {3, 1}, .data = data},
         "stride[0]: must be at least 4, got 3"},
        {{.dtype = QN_DTYPE_F32, .rank = 3, .shape = {2, 2, 4}, .stride = {9, 5, 1}, .data = data},
         "stride[0]: must be at least 10, got 9"},
        {{.dtype = QN_DTYPE_F32, .rank = 2, .shape = {4, 4}, .stride = {-4, 1}, .data = data},
         "stride[0]: must be at least 4, got -4"},
        {{.dtype = QN_DTYPE_F32, .rank = 2, .shape = {4, 4}, .stride = {0, 1}, .data = data},
         "stride[0]: must be at least 4, got 0"},
        {{.dtype = QN_DTYPE_F32, .rank = 2, .shape = {4, 4}, .stride = {INT64_MAX, 1}, .data = data},
         "shape: the product of the sizes is too large"},
        {{.dtype = QN_DTYPE_F32, .rank = 1, .shape = {((int64_t)1 << 61) - 1}, .data = (void *)(UINTPTR_MAX - 3)},
         "shape: the product of the sizes is too large"},
        {{.dtype = QN_DTYPE_F32, .rank = 7, .shape = {1}, .data = data}, "rank: must be 1 to 4, got 7"},
        {{.dtype = (qn_dtype)-3, .rank = 1, .shape = {1}, .data = data}, "dtype: -3 is none"},
    };
    qn_error err;
    qn_tensor *t = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(qn_tensor_wrap(&t, device, &cases[i].wrap, &err), QN_EINVAL, &err, cases[i].message);
    }
    assert_refused(qn_tensor_wrap(&t, device, NULL, &err), QN_EINVAL, &err, "wrap: is NULL");
    assert_refused(qn_tensor_wrap(&t, NULL, &cases[0].wrap, &err), QN_EINVAL, &err, "device: is NULL");
    assert_refused(qn_tensor_wrap(NULL, device, &cases[0].wrap, &err), QN_EINVAL, &err, "out: is NULL");
    assert_null(t);
}

/* {2, 3, 4} with gaps of one element after each row and five after each block. */
static void wrap_strides(void **state) {
    (void)state;
    int32_t data[40], dense[24], read[24];
    for (int i = 0; i < 40; i++) data[i] = -1;
    for (int i = 0; i < 24; i++) dense[i] = i;
    qn_wrap wrap = {.dtype = QN_DTYPE_S32, .rank = 3, .shape = {2, 3, 4}, .stride = {20, 5, 1}, .data = data};
    qn_tensor *t = NULL, *v = NULL;
    qn_error err;
    assert_int_equal(qn_tensor_wrap(&t, device, &wrap, NULL), QN_OK);
    assert_int_equal(qn_tensor_bytes(t), sizeof dense);
    assert_int_equal(qn_tensor_write(t, dense, sizeof dense, NULL), QN_OK);
    for (int i = 0; i < 40; i++) {
        int b = i / 20, r = i % 20 / 5, c = i % 5;
        assert_int_equal(data[i], r < 3 && c < 4 ? b * 12 + r * 4 + c : -1);
    }
    assert_int_equal(qn_tensor_read(t, read, sizeof read, NULL), QN_OK);
    expect_same_bits("strided", QN_DTYPE_S32, read, dense, 24);
    const int64_t flat = 24;
    assert_refused(qn_tensor_view(&v, t, 0, 1, &flat, &err), QN_EINVAL, &err, "tensor: is not contiguous");
    assert_refused(qn_tensor_write(t, dense, sizeof data, &err), QN_EINVAL, &err, "bytes: must be 96, got 160");
    assert_refused(qn_tensor_read(t, read, 95, &err), QN_EINVAL, &err, "bytes: must be 96, got 95");
    assert_refused(qn_tensor_write(t, NULL, 96, &err), QN_EINVAL, &err, "data: is NULL");
    assert_refused(qn_tensor_read(NULL, read, 96, &err), QN_EINVAL, &err, "tensor: is NULL");
    qn_tensor_free(t);
    wrap.read_only = true;
    assert_int_equal(qn_tensor_wrap(&t, device, &wrap, NULL), QN_OK);
    assert_refused(qn_tensor_write(t, dense, sizeof dense, &err), QN_EINVAL, &err, "tensor: is read-only");
    qn_tensor_free(t);
}

static void count_release(void *user, void *data) {
    *(void **)user = data;
    ((int *)user)[4]++;
}

/* Views keep the memory, read-only stays read-only, release is called once and at the end; likewise the device lives
 * until the last tensor is freed. */
static void lifetimes(void **state) {
    (void)state;
    float data[12] = {0};
    union {
        void *data;
        int count[6];
    } released = {0};
    qn_device *own = NULL;
    assert_int_equal(qn_device_open(&own, "ref", NULL, NULL), QN_OK);
    qn_wrap wrap = {.dtype = QN_DTYPE_F32,
                    .rank = 2,
                    .shape = {3, 4},
                    .data = data,
                    .read_only = true,
                    .release = count_release,
                    .user = &released};
    qn_tensor *t = NULL, *row = NULL, *cell = NULL;
    const int64_t four = 4, one = 1;
    assert_int_equal(qn_tensor_wrap(&t, own, &wrap, NULL), QN_OK);
    assert_int_equal(qn_tensor_view(&row, t, 4, 1, &four, NULL), QN_OK);
    assert_int_equal(qn_tensor_view(&cell, row, 3, 1, &one, NULL), QN_OK);
    qn_device_close(own);
    qn_tensor_free(t);
    qn_tensor_free(row);
    assert_int_equal(released.count[4], 0);
    data[7] = 2.5f;
    float value = 0;
    qn_error err;
    assert_int_equal(qn_tensor_read(cell, &value, sizeof value, NULL), QN_OK);
    assert_true(value == 2.5f);
    assert_refused(qn_tensor_write(cell, &value, sizeof value, &err), QN_EINVAL, &err, "tensor: is read-only");
    qn_tensor_free(cell);
    assert_int_equal(released.count[4], 1);
    assert_ptr_equal(released.data, data);
}

static void views(void **state) {
    (void)state;
    const int64_t shape[] = {4, 6}, part[] = {2, 2, 3}, huge[] = {INT64_MAX};
    float values[24], read[12];
    for (int i = 0; i < 24; i++) values[i] = (float)i;
    qn_tensor *t = tensor_make(device, QN_DTYPE_F32, 2, shape, values), *v = NULL;
    assert_int_equal(qn_tensor_view(&v, t, 12, 3, part, NULL), QN_OK);
    assert_int_equal(qn_tensor_read(v, read, sizeof read, NULL), QN_OK);
    expect_same_bits("view", QN_DTYPE_F32, read, values + 12, 12);
    assert_int_equal(qn_tensor_write(v, values, sizeof read, NULL), QN_OK);
    float *all = tensor_floats(t);
    expect_same_bits("below the view", QN_DTYPE_F32, all, values, 12);
    expect_same_bits("the view", QN_DTYPE_F32, all + 12, values, 12);
    free(all);
    qn_tensor_free(v);
    v = NULL;
    qn_error err;
    assert_refused(qn_tensor_view(&v, t, 13, 3, part, &err), QN_EINVAL, &err,
                   "view: 12 elements from 13 on are beyond the tensor's 24");
    assert_refused(qn_tensor_view(&v, t, -1, 3, part, &err), QN_EINVAL, &err,
                   "view: 12 elements from -1 on are beyond the tensor's 24");
    assert_refused(qn_tensor_view(&v, t, INT64_MAX, 3, part, &err), QN_EINVAL, &err,
                   "view: 12 elements from 9223372036854775807 on are beyond the tensor's 24");
    assert_refused(qn_tensor_view(&v, t, 0, 1, huge, &err), QN_EINVAL, &err,
                   "shape: the product of the sizes is too large");
    assert_refused(qn_tensor_view(&v, t, 0, 5, part, &err), QN_EINVAL, &err, "rank: must be 1 to 4, got 5");
    assert_refused(qn_tensor_view(&v, NULL, 0, 1, part, &err), QN_EINVAL, &err, "tensor: is NULL");
    assert_refused(qn_tensor_view(NULL, t, 0, 1, part, &err), QN_EINVAL, &err, "out: is NULL");
    assert_null(v);
    qn_tensor_free(t);
    /* Functions that cannot fail return NULL for NULL. */
    assert_null(qn_tensor_device(NULL));
    assert_null(qn_tensor_shape(NULL));
    assert_int_equal(qn_tensor_bytes(NULL), 0);
    assert_int_equal(qn_tensor_rank(NULL), 0);
    assert_int_equal(qn_tensor_dtype(NULL), QN_DTYPE_DEFAULT);
}

static void linears(void **state) {
    (void)state;
    qn_tensor *t = tensor_make(device, QN_DTYPE_BF16, 2, (const int64_t[]){3, 5}, NULL);
    qn_tensor *flat = tensor_make(device, QN_DTYPE_F32, 1, (const int64_t[]){5}, NULL);
    qn_tensor *ints = tensor_make(device, QN_DTYPE_S32, 2, (const int64_t[]){3, 5}, NULL);
    qn_linear *l = NULL;
    qn_error err;
    assert_refused(qn_linear_pack(NULL, t, QN_LAYOUT_IN_OUT, QN_ARITH_AUTO, &err), QN_EINVAL, &err, "out: is NULL");
    assert_refused(qn_linear_pack(&l, NULL, QN_LAYOUT_IN_OUT, QN_ARITH_AUTO, &err), QN_EINVAL, &err, "weight: is NULL");
    assert_refused(qn_linear_pack(&l, t, (qn_linear_layout)2, QN_ARITH_AUTO, &err), QN_EINVAL, &err,
                   "layout: 2 is none");
    assert_refused(qn_linear_pack(&l, t, QN_LAYOUT_IN_OUT, (qn_arith)9, &err), QN_EINVAL, &err, "arith: 9 is none");
    assert_refused(qn_linear_pack(&l, flat, QN_LAYOUT_IN_OUT, QN_ARITH_AUTO, &err), QN_EINVAL, &err,
                   "weight: rank must be 2, got 1");
    assert_refused(qn_linear_pack(&l, ints, QN_LAYOUT_IN_OUT, QN_ARITH_AUTO, &err), QN_EINVAL, &err,
                   "weight: dtype must be f32, bf16 or f16, got s32");
    assert_refused(qn_linear_pack(&l, t, QN_LAYOUT_IN_OUT, QN_ARITH_BF16, &err), QN_EUNSUPPORTED, &err,
                   "arith: \"ref\" computes in f32 only, got bf16");
    assert_refused(qn_linear_pack(&l, t, QN_LAYOUT_IN_OUT, QN_ARITH_INT8, &err), QN_EUNSUPPORTED, &err,
                   "arith: \"ref\" computes in f32 only, got int8");
    assert_null(l);
    assert_int_equal(qn_linear_pack(&l, t, QN_LAYOUT_OUT_IN, QN_ARITH_AUTO, NULL), QN_OK);
    assert_int_equal(qn_linear_n_in(l), 5);
    assert_int_equal(qn_linear_n_out(l), 3);
    assert_int_equal(qn_linear_bytes(l), 30);
    assert_int_equal(qn_linear_dtype(l), QN_DTYPE_BF16);
    assert_int_equal(qn_linear_arith(l), QN_ARITH_F32);
    qn_linear_free(l);
    qn_linear_free(NULL);
    assert_int_equal(qn_linear_n_in(NULL) + qn_linear_n_out(NULL) + (int64_t)qn_linear_bytes(NULL), 0);
    qn_tensor_free(t);
    qn_tensor_free(flat);
    qn_tensor_free(ints);
}

/* An allocator that fails at the n-th request and tracks outstanding allocations. */
typedef struct rationed {
    int n_left;
    size_t bytes_out;
} rationed;

static void *rationed_alloc(void *user, size_t bytes, size_t alignment) {
    rationed *r = user;
    if (r->n_left-- <= 0) return NULL;
    void *p = NULL;
    if (posix_memalign(&p, alignment, bytes) != 0) return NULL;
    r->bytes_out += bytes;
    return p;
}
static void rationed_free(void *user, void *pointer, size_t bytes) {
    ((rationed *)user)->bytes_out -= bytes;
    free(pointer);
}

/* Tensors, packing and a layer's scratch with memory for n blocks, n = 0, 1, …: ENOMEM until it suffices, without
 * leaks. */
static void memory_runs_out(void **state) {
    (void)state;
    problem p = {
        .b = 1, .t = 2, .h = 8, .i = 12, .nq = 2, .nkv = 1, .d = 4, .c = 6, .theta = 1e4, .scale = 0.5, .eps = 1e-6};
    problem_random(&p, 1);
    device_case cases[MAX_DEVICE_CASE];
    int n_case = device_cases(cases);
    for (int i = 0; i < n_case; i++) {
        bool enough = false;
        for (int n = 0; !enough; n++) {
            rationed r = {.n_left = n};
            qn_device_options options = {.n_thread = 2,
                                         .isa = cases[i].isa,
                                         .compose = cases[i].compose,
                                         .allocator = {rationed_alloc, rationed_free, &r}};
            qn_device *d = NULL;
            qn_error err = {0};
            assert_int_equal(qn_device_open(&d, cases[i].backend, &options, NULL), QN_OK);
            qn_tensor *t[N_OPERAND] = {0}, *out = NULL;
            qn_linear *l = NULL;
            int64_t shape[QN_MAX_RANK];
            qn_status status = qn_tensor_create(&out, d, QN_DTYPE_F32, operand_shape(&p, HIDDEN, shape), shape, &err);
            for (operand_id id = 0; id < N_OPERAND && status == QN_OK; id++) {
                int32_t rank = operand_shape(&p, id, shape);
                status = qn_tensor_create(&t[id], d, QN_DTYPE_F32, rank, shape, &err);
            }
            if (status == QN_OK) status = qn_linear_pack(&l, t[DOWN_PROJ], QN_LAYOUT_IN_OUT, QN_ARITH_F32, &err);
            bench s = {.p = &p, .device = d, .out = out, .rope = {.theta = p.theta}};
            memcpy(s.t, t, sizeof t);
            if (status == QN_OK) {
                s.packed[DOWN_PROJ] = l;
                status = primitive_run(LAYER, &s, &err);
                enough = status == QN_OK;
            }
            if (!enough) assert_int_equal(status, QN_ENOMEM);
            if (!enough) assert_non_null(strstr(err.message, "no memory for"));
            for (operand_id id = 0; id < N_OPERAND; id++) qn_tensor_free(t[id]);
            qn_tensor_free(out);
            qn_linear_free(l);
            qn_device_close(d);
            assert_int_equal(r.bytes_out, 0);
            assert_true(n < 100);
        }
    }
    problem_free(&p);
}

typedef struct worker {
    pthread_t thread;
    qn_device *device;
    const problem *p;
    bool packed;
    float *result;
} worker;

static void *work(void *argument) {
    worker *w = argument;
    for (int round = 0; round < 5; round++) {
        bench s;
        bench_make(&s, w->p, w->device, all_f32, w->packed);
        free(w->result);
        w->result = tensor_floats(primitive_compute(LAYER, &s));
        bench_free(&s);
    }
    return NULL;
}

/* Several threads use one device at once: they take turns, and all get the same results. */
static void threads_share_a_device(void **state) {
    (void)state;
    problem p = {.b = 1,
                 .t = 5,
                 .h = 24,
                 .i = 40,
                 .nq = 4,
                 .nkv = 2,
                 .d = 8,
                 .c = 16,
                 .offset = 3,
                 .theta = 1e4,
                 .scale = 0.35,
                 .eps = 1e-6};
    problem_random(&p, 8);
    device_case cases[MAX_DEVICE_CASE];
    int n_case = device_cases(cases);
    for (int i = 0; i < n_case; i++) {
        enum { N = 3 };
        worker w[N];
        qn_device *d = device_open(&cases[i], 2);
        for (int k = 0; k < N; k++) {
            w[k] = (worker){.device = d, .p = &p, .packed = cases[i].packed};
            assert_int_equal(pthread_create(&w[k].thread, NULL, work, &w[k]), 0);
        }
        for (int k = 0; k < N; k++) pthread_join(w[k].thread, NULL);
        for (int k = 0; k < N; k++) {
            expect_same_bits(case_text("thread %d on %s", k, cases[i].name), QN_DTYPE_F32, w[k].result, w[0].result,
                             p.t * p.h);
        }
        for (int k = 0; k < N; k++) free(w[k].result);
        qn_device_close(d);
    }
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_options),
        cmocka_unit_test(device_describes_itself),
        cmocka_unit_test(dtypes_have_names),
        cmocka_unit_test(create),
        cmocka_unit_test(wrap_refusals),
        cmocka_unit_test(wrap_strides),
        cmocka_unit_test(lifetimes),
        cmocka_unit_test(views),
        cmocka_unit_test(linears),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(threads_share_a_device),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
