/* SPDX-License-Identifier: Apache-2.0 */
/* Device, tensor, view, linear, model and session are closed in every order, and concurrently on separate threads.
 * What remains still works, and the last one frees all memory. */
#include "support/sessions.h"

#include <pthread.h>
#include <string.h>

#define TIED GOLDEN_MODELS "/tied-f32"

typedef enum kind { DEVICE, TENSOR, VIEW, LINEAR, MODEL, SESSION, N_KIND } kind;

typedef struct family {
    qn_device *device;
    qn_tensor *tensor, *view;
    qn_linear *linear;
    qn_model *model;
    qn_session *session;
} family;

static void make(family *f, const qn_device_options *options) {
    static const int64_t square[] = {8, 8}, row[] = {8};
    static const qn_session_options small = {.n_ctx = 8};
    assert_ok(qn_device_open(&f->device, "cpu", options, err));
    assert_ok(qn_tensor_create(&f->tensor, f->device, QN_DTYPE_F32, 2, square, err));
    assert_ok(qn_tensor_view(&f->view, f->tensor, 8, 1, row, err));
    assert_ok(qn_linear_pack(&f->linear, f->tensor, QN_LAYOUT_IN_OUT, QN_ARITH_F32, err));
    assert_ok(qn_model_open(&f->model, f->device, TIED, NULL, err));
    assert_ok(qn_session_create(&f->session, f->model, &small, err));
}

/* Whether an object works. */
static bool works(const family *f, kind k) {
    float values[64];
    qn_device_info info;
    switch (k) {
    case DEVICE:
        qn_device_get_info(f->device, &info);
        return strcmp(info.name, "cpu") == 0;
    case TENSOR:
        return qn_tensor_read(f->tensor, values, sizeof values, NULL) == QN_OK;
    case VIEW:
        return qn_tensor_read(f->view, values, 8 * sizeof values[0], NULL) == QN_OK;
    case LINEAR:
        return qn_linear_n_out(f->linear) == 8;
    case MODEL:
        return qn_model_get_config(f->model)->n_layer == 2 && qn_model_device(f->model) != NULL;
    default:
        return qn_session_step(f->session, 1, NULL) == QN_OK;
    }
}

static void end(family *f, kind k) {
    switch (k) {
    case DEVICE:
        qn_device_close(f->device);
        break;
    case TENSOR:
        qn_tensor_free(f->tensor);
        break;
    case VIEW:
        qn_tensor_free(f->view);
        break;
    case LINEAR:
        qn_linear_free(f->linear);
        break;
    case MODEL:
        qn_model_close(f->model);
        break;
    default:
        qn_session_free(f->session);
    }
}

/* The digits of the number in the factorial number system select the next object among the remaining ones. */
static void objects_end_in_any_order(void **state) {
    (void)state;
    enum { N_ORDER = 720 };
    for (int order = 0; order < N_ORDER; order++) {
        counting_allocator counts = {0};
        const qn_device_options options = {.n_thread = 1, .allocator = counting(&counts)};
        family f;
        make(&f, &options);
        kind left[N_KIND] = {DEVICE, TENSOR, VIEW, LINEAR, MODEL, SESSION};
        int digits = order;
        for (int n = N_KIND; n > 0; n--) {
            int next = digits % n;
            digits /= n;
            end(&f, left[next]);
            memmove(left + next, left + next + 1, (size_t)(n - 1 - next) * sizeof left[0]);
            if (n > 1) assert_true(works(&f, left[n - 2]));
        }
        assert_int_equal(counts.bytes, 0);
    }
}

typedef struct ender {
    family *family;
    kind kind;
    bool worked;
    pthread_t thread;
} ender;

static void *run(void *argument) {
    ender *e = argument;
    e->worked = works(e->family, e->kind);
    end(e->family, e->kind);
    return NULL;
}

static void objects_end_concurrently(void **state) {
    (void)state;
    enum { ROUNDS = 20 };
    const qn_device_options options = {.n_thread = 2};
    for (int round = 0; round < ROUNDS; round++) {
        family f;
        ender enders[N_KIND];
        make(&f, &options);
        for (int i = 0; i < N_KIND; i++) {
            enders[i] = (ender){.family = &f, .kind = (kind)((i + round) % N_KIND)};
            assert_int_equal(pthread_create(&enders[i].thread, NULL, run, &enders[i]), 0);
        }
        for (int i = 0; i < N_KIND; i++) {
            assert_int_equal(pthread_join(enders[i].thread, NULL), 0);
            assert_true(enders[i].worked);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_end_in_any_order),
        cmocka_unit_test(objects_end_concurrently),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
