/* SPDX-License-Identifier: Apache-2.0 */
/* Models, sessions and golden data for tests, over the public headers. Every failure ends the test. */
#ifndef QNI_TEST_SESSIONS_H
#define QNI_TEST_SESSIONS_H

#include "close.h"
#include "cmocka_all.h"

#include <quern/session.h>

#define GOLDEN_MODELS "tests/data/models"
#define DEMO_MODEL    "models/demo"

/* A splitmix64 generator of test data. */
typedef struct test_rng {
    uint64_t state;
} test_rng;
uint64_t rng_next(test_rng *rng);
int32_t rng_below(test_rng *rng, int32_t n); /* 0 … n-1 */

/* A counting allocator for qn_device_options.allocator. */
typedef struct counting_allocator {
    size_t n_alloc, bytes, peak; /* number of calls, current bytes, peak bytes */
    size_t fail_at;              /* the call that fails, counting from 1; 0: none */
} counting_allocator;
qn_allocator counting(counting_allocator *counts);

/* Open a model on its own device, with f32 compute. Closing the model also closes the device. */
qn_model *open_model(const char *device, int32_t n_thread, const char *dir);
qn_model *open_model_with(const char *device, const qn_device_options *options, const char *dir);

/* Open a session with an f32 KV cache. */
qn_session *open_session(qn_model *model, int32_t n_ctx, int32_t n_batch);
qn_session *open_session_with(qn_model *model, const qn_session_options *options);

/* n random ids within the vocabulary of the test models, allocated. */
int32_t *random_ids(test_rng *rng, size_t n);

/* Read a tensor of a golden file as f32 (or s64), allocated; shape has QN_MAX_RANK elements, padded with 1. */
float *golden_f32(const char *dir, const char *name, int64_t *shape);
int64_t *golden_s64(const char *dir, const char *name, int64_t *shape);

/* Overwrite one f32 of a session's KV cache on the device: element 0 of position 0, KV head 0; returns the old
 * value. */
float poke_kv(const qn_session *session, int32_t layer, bool value, float x);

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        qn_error ok_err = {0};                                                                                         \
        qn_error *err = &ok_err;                                                                                       \
        if ((call) != QN_OK) fail_msg("%s: %s", #call, ok_err.message);                                                \
    } while (0)

#endif
