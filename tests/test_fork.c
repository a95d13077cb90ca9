/* SPDX-License-Identifier: Apache-2.0 */
/* fork(): a child can close what its parent opened, gets an error if it computes on it, and can compute on its own
 * device; the parent continues as before. A child has a time limit, so that a hang fails the test. */
#include "../src/backend/device.h"
#include "support/sessions.h"

#include <quern/ops.h>

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIED GOLDEN_MODELS "/tied-f32"

enum { N_CTX = 8, N_ID = 3, CHILD_SECONDS = 60 };
static const int32_t ids[N_ID] = {1, 2, 3};

typedef struct family {
    qn_device *device;
    qn_tensor *tensor, *attn, *view;
    qn_linear *linear;
    qn_model *model;
    qn_session *session;
} family;

static const struct {
    const char *backend;
    int32_t n_thread;
} devices[] = {{"cpu", 3}, {"cpu", 1}, {"ref", 1}};
enum { N_DEVICE = sizeof devices / sizeof devices[0] };

static void make(family *f, const char *backend, int32_t n_thread) {
    static const int64_t shape[] = {1, 32, 32}, matrix[] = {32, 32};
    const qn_session_options small = {.n_ctx = N_CTX};
    const qn_device_options options = {.n_thread = n_thread};
    assert_ok(qn_device_open(&f->device, backend, &options, err));
    assert_ok(qn_tensor_create(&f->tensor, f->device, QN_DTYPE_F32, 3, shape, err));
    assert_ok(qn_tensor_create(&f->attn, f->device, QN_DTYPE_F32, 3, shape, err));
    assert_ok(qn_tensor_view(&f->view, f->tensor, 0, 2, matrix, err));
    assert_ok(qn_linear_pack(&f->linear, f->view, QN_LAYOUT_IN_OUT, QN_ARITH_F32, err));
    assert_ok(qn_model_open(&f->model, f->device, TIED, NULL, err));
    assert_ok(qn_session_create(&f->session, f->model, &small, err));
    assert_ok(qn_session_append(f->session, ids, N_ID, NULL, NULL, err));
}

static void end(const family *f) {
    qn_session_free(f->session);
    qn_model_close(f->model);
    qn_linear_free(f->linear);
    qn_tensor_free(f->view);
    qn_tensor_free(f->attn);
    qn_tensor_free(f->tensor);
    qn_device_close(f->device);
}

/* Runs in a child: returns 0, or the line of the failed check. */
typedef int (*child)(const family *f);
#define REQUIRE(condition)                                                                                             \
    if (!(condition)) return __LINE__

/* Run it in a child, which must exit by itself and in time. */
static void in_child(child run, const family *f) {
    int end_of[2], line = 0, status = 0;
    assert_int_equal(pipe(end_of), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        line = run(f);
        _exit(write(end_of[1], &line, sizeof line) == (ssize_t)sizeof line ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) fail_msg("the child ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(read(end_of[0], &line, sizeof line), sizeof line);
    if (line != 0) fail_msg("in the child: line %d", line);
    (void)close(end_of[0]);
    (void)close(end_of[1]);
}

static int close_all(const family *f) {
    end(f);
    return 0;
}

static bool names_fork(qn_status status, const qn_error *err) {
    return status == QN_EDEVICE && err->status == QN_EDEVICE && strstr(err->message, "fork()") != NULL;
}

/* Everything that computes, or that copies what another thread of the parent may have been writing. */
static int compute(const family *f) {
    qn_error err = {0};
    float values[32 * 32] = {0};
    qn_linear *linear = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    const qn_session_options small = {.n_ctx = N_CTX};
    qn_attention_residual_args args = {
        .out = f->tensor, .hidden = f->tensor, .attn = f->attn, .o_proj.packed = f->linear};
    REQUIRE(names_fork(qn_session_append(f->session, ids, N_ID, NULL, NULL, &err), &err));
    REQUIRE(names_fork(qn_session_step(f->session, 1, &err), &err));
    REQUIRE(names_fork(qn_tensor_read(f->view, values, sizeof values, &err), &err));
    REQUIRE(names_fork(qn_tensor_write(f->view, values, sizeof values, &err), &err));
    REQUIRE(names_fork(qn_linear_pack(&linear, f->view, QN_LAYOUT_IN_OUT, QN_ARITH_F32, &err), &err));
    REQUIRE(
        names_fork(qn_linear_quantize(&linear, f->view, QN_LAYOUT_IN_OUT, QN_QUANTIZE_Q4, QN_ARITH_AUTO, &err), &err));
    REQUIRE(names_fork(qn_attention_residual(&args, &err), &err));
    REQUIRE(names_fork(qn_model_open(&model, f->device, TIED, NULL, &err), &err));
    REQUIRE(names_fork(qn_session_create(&session, f->model, &small, &err), &err));
    REQUIRE(linear == NULL && model == NULL && session == NULL);
    REQUIRE(!qni_device_trylock(f->device)); /* a sampler falls back to its own thread */
    REQUIRE(qn_session_n_tok(f->session) == N_ID && qn_session_logits(f->session) != NULL);
    end(f);
    return 0;
}

/* On its own device, with the same results. */
static int compute_alone(const family *f) {
    /* ThreadSanitizer does not support threads in the child of a multithreaded process. */
#if defined(__SANITIZE_THREAD__)
    const qn_device_options options = {.n_thread = 1};
#else
    const qn_device_options options = {.n_thread = 2};
#endif
    const qn_session_options small = {.n_ctx = N_CTX};
    qn_device_info info;
    qn_device_get_info(f->device, &info);
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    REQUIRE(qn_device_open(&device, info.name, &options, NULL) == QN_OK);
    REQUIRE(qn_model_open(&model, device, TIED, NULL, NULL) == QN_OK);
    REQUIRE(qn_session_create(&session, model, &small, NULL) == QN_OK);
    REQUIRE(qn_session_append(session, ids, N_ID, NULL, NULL, NULL) == QN_OK);
    const size_t bytes = (size_t)qn_model_get_config(model)->n_vocab * sizeof(float);
    REQUIRE(memcmp(qn_session_logits(session), qn_session_logits(f->session), bytes) == 0);
    qn_session_free(session);
    qn_model_close(model);
    qn_device_close(device);
    end(f);
    return 0;
}

static void calls_in_a_child(void **state) {
    (void)state;
    const child runs[] = {close_all, compute, compute_alone};
    for (int i = 0; i < N_DEVICE; i++) {
        family f;
        make(&f, devices[i].backend, devices[i].n_thread);
        for (int pause = 0; pause < 2; pause++) {
            if (pause) usleep(20000); /* the workers are asleep by now */
            for (int k = 0; k < 3; k++) {
                in_child(runs[k], &f);
                assert_ok(qn_session_rewind(f.session, N_ID - 1, err)); /* the parent's session is unchanged */
                assert_ok(qn_session_step(f.session, ids[N_ID - 1], err));
            }
        }
        end(&f);
    }
}

/* Holds the device until it is told to stop. */
typedef struct holder {
    qn_device *device;
    int started[2], stop[2];
} holder;

static void *hold(void *argument) {
    holder *h = argument;
    char byte = 0;
    if (qni_device_lock(h->device, NULL) != QN_OK) return h;
    ssize_t moved = write(h->started[1], &byte, 1);
    moved += read(h->stop[0], &byte, 1);
    qni_device_unlock(h->device);
    return moved == 2 ? NULL : h;
}

/* A thread of the parent computes while another forks: in the child the device stays locked forever. */
static void device_locked_at_fork(void **state) {
    (void)state;
    const child runs[] = {close_all, compute, compute_alone};
    for (int i = 0; i < N_DEVICE; i++) {
        family f;
        make(&f, devices[i].backend, devices[i].n_thread);
        holder h = {.device = f.device};
        pthread_t thread;
        void *failed = NULL;
        char byte = 0;
        assert_int_equal(pipe(h.started), 0);
        assert_int_equal(pipe(h.stop), 0);
        assert_int_equal(pthread_create(&thread, NULL, hold, &h), 0);
        assert_int_equal(read(h.started[0], &byte, 1), 1);
        for (int k = 0; k < 3; k++) in_child(runs[k], &f);
        assert_int_equal(write(h.stop[1], &byte, 1), 1);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        for (int j = 0; j < 2; j++) assert_int_equal(close(h.started[j]) | close(h.stop[j]), 0);
        end(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_in_a_child),
        cmocka_unit_test(device_locked_at_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
