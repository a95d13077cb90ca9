/* SPDX-License-Identifier: Apache-2.0 */
/* KV blocks of a pool: memory, reference counts, free stack. */
#include "block_pool.h"

size_t qni_kv_row_bytes(const qni_kv_format *format) {
    return (size_t)qni_kv_row_elements(format->dtype, format->head_dim) * qn_dtype_bytes(format->dtype);
}

size_t qni_kv_token_bytes(const qni_kv_format *format) {
    return 2 * (size_t)format->n_layer * (size_t)format->n_kv_head * qni_kv_row_bytes(format);
}

int32_t qni_kv_blocks_for(const qn_device *device, int32_t n_tok) {
    return (int32_t)qni_ceil_div(n_tok, device->backend->kv_block_tokens);
}

qn_status qni_block_pool_measure(size_t *bytes, const qn_device *device, const qni_kv_format *format, int32_t n_block,
                                 qn_error *err) {
    const size_t block_tokens = (size_t)device->backend->kv_block_tokens;
    size_t all;
    if (!qni_mul_size(&all, qni_kv_token_bytes(format), block_tokens) || !qni_mul_size(&all, all, (size_t)n_block) ||
        all > SIZE_MAX / 4) {
        return qni_fail(err, QN_ENOMEM, "KV cache: %d blocks of %zu tokens are more than the address space holds",
                        n_block, block_tokens);
    }
    *bytes = all;
    return QN_OK;
}

static qn_status fill(qni_block_pool *pool, size_t bytes, qn_error *err) {
    QN_TRY(qni_buffer_create(pool->device, &pool->data, bytes, QNI_MEMORY_KV, "KV cache", err));
    pool->refs = qni_calloc((size_t)pool->n_block, sizeof *pool->refs);
    pool->unused = qni_calloc((size_t)pool->n_block, sizeof *pool->unused);
    if (pool->refs == NULL || pool->unused == NULL) {
        return qni_fail(err, QN_ENOMEM, "KV cache: no memory for %d blocks", pool->n_block);
    }
    /* The lowest numbers are on top, so that a sequence growing alone gets contiguous blocks. */
    for (int32_t i = 0; i < pool->n_block; i++) pool->unused[i] = pool->n_block - 1 - i;
    pool->n_unused = pool->n_block;
    return QN_OK;
}

qn_status qni_block_pool_create(qni_block_pool **out, qn_device *device, const qni_kv_format *format, int32_t n_block,
                                qn_error *err) {
    size_t bytes = 0;
    QN_TRY(qni_block_pool_measure(&bytes, device, format, n_block, err));
    qni_block_pool *pool = qni_calloc(1, sizeof *pool);
    if (pool == NULL || pthread_mutex_init(&pool->lock, NULL) != 0) {
        qni_free(pool);
        return qni_fail(err, QN_ENOMEM, "KV cache: out of memory");
    }
    pool->device = device;
    pool->format = *format;
    pool->block_tokens = device->backend->kv_block_tokens;
    pool->n_block = n_block;
    pool->plane_bytes = bytes / (2 * (size_t)format->n_layer);
    pool->block_step = device->backend->kv_by_head ? 1 : format->n_kv_head;
    pool->head_step = device->backend->kv_by_head ? n_block : 1;
    qn_status status = fill(pool, bytes, err);
    if (status != QN_OK) {
        qni_block_pool_free(pool);
        return status;
    }
    *out = pool;
    return QN_OK;
}

void qni_block_pool_free(qni_block_pool *pool) {
    if (pool == NULL) return;
    qni_buffer_free(pool->device, &pool->data);
    qni_free(pool->refs);
    qni_free(pool->unused);
    /* Like the device's lock, it may stay locked forever in a forked child. */
    if (qni_device_is_own(pool->device)) pthread_mutex_destroy(&pool->lock);
    qni_free(pool);
}

/* In reverse, so that blocks are reused in the same order. */
static void give_back(qni_block_pool *pool, const int32_t *blocks, int32_t n) {
    for (int32_t i = n; i-- > 0;) {
        if (--pool->refs[blocks[i]] == 0) pool->unused[pool->n_unused++] = blocks[i];
    }
}

qn_status qni_block_pool_exchange(qni_block_pool *pool, const int32_t *given, int32_t n_given, int32_t *taken,
                                  int32_t n_taken, qn_error *err) {
    pthread_mutex_lock(&pool->lock);
    int32_t n_unused = pool->n_unused;
    for (int32_t i = 0; i < n_given; i++) n_unused += pool->refs[given[i]] == 1;
    if (n_taken <= n_unused) {
        give_back(pool, given, n_given);
        for (int32_t i = 0; i < n_taken; i++) {
            taken[i] = pool->unused[--pool->n_unused];
            pool->refs[taken[i]] = 1;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    if (n_taken <= n_unused) return QN_OK;
    return qni_fail(err, QN_EFULL, "KV pool: %d of %d blocks are unused, %d are needed", n_unused, pool->n_block,
                    n_taken);
}

void qni_block_pool_retain(qni_block_pool *pool, const int32_t *blocks, int32_t n) {
    pthread_mutex_lock(&pool->lock);
    for (int32_t i = 0; i < n; i++) pool->refs[blocks[i]]++;
    pthread_mutex_unlock(&pool->lock);
}

void qni_block_pool_release(qni_block_pool *pool, const int32_t *blocks, int32_t n) {
    pthread_mutex_lock(&pool->lock);
    give_back(pool, blocks, n);
    pthread_mutex_unlock(&pool->lock);
}

bool qni_block_pool_is_shared(qni_block_pool *pool, int32_t block) {
    pthread_mutex_lock(&pool->lock);
    const bool is_shared = pool->refs[block] > 1;
    pthread_mutex_unlock(&pool->lock);
    return is_shared;
}

int32_t qni_block_pool_n_unused(qni_block_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    const int32_t n = pool->n_unused;
    pthread_mutex_unlock(&pool->lock);
    return n;
}

qni_kv qni_block_pool_kv(const qni_block_pool *pool) {
    const qni_kv_format *f = &pool->format;
    const int64_t row = qni_kv_row_elements(f->dtype, f->head_dim), head = pool->block_tokens * row;
    unsigned char *k = pool->data.address;
    const qni_kv_layer first = {.k = k,
                                .v = k + pool->plane_bytes,
                                .k_dtype = f->dtype,
                                .v_dtype = f->dtype,
                                .block_tokens = pool->block_tokens,
                                .n_kv_head = f->n_kv_head,
                                .head_dim = f->head_dim,
                                .k_block_stride = pool->block_step * head,
                                .k_head_stride = pool->head_step * head,
                                .k_token_stride = row,
                                .v_block_stride = pool->block_step * head,
                                .v_head_stride = pool->head_step * head,
                                .v_token_stride = row};
    return (qni_kv){first, 2 * (int64_t)pool->plane_bytes};
}

unsigned char *qni_block_pool_rows(const qni_block_pool *pool, int32_t layer, bool value, int32_t block, int32_t head) {
    const size_t head_bytes = (size_t)pool->block_tokens * qni_kv_row_bytes(&pool->format);
    return (unsigned char *)pool->data.address + (2 * (size_t)layer + value) * pool->plane_bytes +
           (size_t)(block * pool->block_step + head * pool->head_step) * head_bytes;
}

qn_status qni_block_pool_copy(const qni_block_pool *pool, int32_t to, int32_t from, qn_error *err) {
    const qn_device *device = pool->device;
    /* Without gaps between the heads of a block, all of them at once. */
    const int32_t n_run = pool->head_step == 1 ? 1 : pool->format.n_kv_head;
    const size_t bytes = pool->plane_bytes / (size_t)pool->n_block / (size_t)n_run;
    for (int32_t i = 0; i < 2 * pool->format.n_layer * n_run; i++) {
        const int32_t layer = i / n_run / 2, head = i % n_run;
        const bool value = i / n_run % 2;
        QN_TRY(device->backend->memory->copy(device->state, qni_block_pool_rows(pool, layer, value, to, head),
                                             qni_block_pool_rows(pool, layer, value, from, head), bytes, err));
    }
    return QN_OK;
}
