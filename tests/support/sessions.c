/* SPDX-License-Identifier: Apache-2.0 */
/* Models, sessions and golden data for tests. */
#include "sessions.h"

#include "../../src/session/session.h"
#include "files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t rng_next(test_rng *rng) {
    uint64_t z = (rng->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int32_t rng_below(test_rng *rng, int32_t n) {
    return (int32_t)(rng_next(rng) % (uint64_t)n);
}

static void *count_alloc(void *user, size_t bytes, size_t alignment) {
    counting_allocator *counts = user;
    if (++counts->n_alloc == counts->fail_at) return NULL;
    void *pointer = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (pointer == NULL) return NULL;
    counts->bytes += bytes;
    if (counts->bytes > counts->peak) counts->peak = counts->bytes;
    return pointer;
}

static void count_free(void *user, void *pointer, size_t bytes) {
    counting_allocator *counts = user;
    counts->bytes -= bytes;
    free(pointer);
}

qn_allocator counting(counting_allocator *counts) {
    return (qn_allocator){count_alloc, count_free, counts};
}

qn_model *open_model_with(const char *device_name, const qn_device_options *options, const char *dir) {
    qn_device *device = NULL;
    qn_model *model = NULL;
    const qn_model_options model_options = {.arith = QN_ARITH_F32};
    assert_ok(qn_device_open(&device, device_name, options, err));
    assert_ok(qn_model_open(&model, device, dir, &model_options, err));
    qn_device_close(device);
    return model;
}

qn_model *open_model(const char *device_name, int32_t n_thread, const char *dir) {
    const qn_device_options options = {.n_thread = n_thread};
    return open_model_with(device_name, &options, dir);
}

qn_session *open_session_with(qn_model *model, const qn_session_options *options) {
    qn_session *session = NULL;
    assert_ok(qn_session_create(&session, model, options, err));
    return session;
}

qn_session *open_session(qn_model *model, int32_t n_ctx, int32_t n_batch) {
    const qn_session_options options = {.n_ctx = n_ctx, .n_batch = n_batch, .kv_dtype = QN_DTYPE_F32};
    return open_session_with(model, &options);
}

int32_t *random_ids(test_rng *rng, size_t n) {
    int32_t *ids = calloc(n, sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) ids[i] = rng_below(rng, 500);
    return ids;
}

static void *golden(const char *dir, const char *name, int64_t *shape, qn_dtype dtype) {
    qn_device *device = NULL;
    qn_tensor_file *file = NULL;
    qn_tensor *tensor = NULL;
    char *path = files_path(dir, "golden.safetensors");
    assert_ok(qn_device_open(&device, "ref", NULL, err));
    assert_ok(qn_tensor_file_open(&file, path, err));
    assert_ok(qn_tensor_file_read(&tensor, file, device, name, err));
    assert_int_equal(qn_tensor_dtype(tensor), dtype);
    for (int32_t i = 0; i < QN_MAX_RANK && shape != NULL; i++) {
        shape[i] = i < qn_tensor_rank(tensor) ? qn_tensor_shape(tensor)[i] : 1;
    }
    void *data = malloc(qn_tensor_bytes(tensor));
    assert_non_null(data);
    assert_ok(qn_tensor_read(tensor, data, qn_tensor_bytes(tensor), err));
    qn_tensor_free(tensor);
    qn_tensor_file_close(file);
    qn_device_close(device);
    free(path);
    return data;
}

float *golden_f32(const char *dir, const char *name, int64_t *shape) {
    return golden(dir, name, shape, QN_DTYPE_F32);
}

int64_t *golden_s64(const char *dir, const char *name, int64_t *shape) {
    return golden(dir, name, shape, QN_DTYPE_S64);
}

float poke_kv(const qn_session *session, int32_t layer, bool value, float x) {
    const qni_block_pool *pool = session->seq.pool;
    const qn_device *device = pool->device;
    void *at = qni_block_pool_rows(pool, layer, value, session->seq.blocks[0], 0);
    float before;
    assert_ok(device->backend->memory->read(device->state, &before, at, sizeof before, err));
    assert_ok(device->backend->memory->write(device->state, at, &x, sizeof x, err));
    return before;
}
