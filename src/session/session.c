/* SPDX-License-Identifier: Apache-2.0 */
/* A session's settings, memory, sequence and KV; feed.c does the computing. */
#include "session.h"

#include <string.h>

qn_status qni_session_measure(qni_session_layout *out, const qn_model_config *config, int32_t n_ctx, qn_error *err) {
    size_t logits, ids;
    bool fits = qni_mul_size(&logits, (size_t)config->n_vocab, sizeof(float)) &&
                qni_mul_size(&ids, (size_t)n_ctx, sizeof(int32_t)) && logits <= SIZE_MAX / 4 && ids <= SIZE_MAX / 4;
    if (!fits) {
        return qni_fail(err, QN_ENOMEM, "n_ctx: %d tokens are more than the address space holds", n_ctx);
    }
    out->ids_offset = qni_round_up(logits, QNI_ALIGN) + QNI_RED_ZONE;
    out->bytes = out->ids_offset + ids;
    return QN_OK;
}

/* Check a session's options against those of its shared pool. */
static qn_status check_pool(const qn_kv_pool *pool, const qn_model *model, const qn_session_options *o, qn_error *err) {
    const qni_kv_settings *s = &pool->settings;
    if (pool->model != model) return qni_fail(err, QN_EINVAL, "pool: belongs to another model than the session");
    if (o->n_ctx < 0 || o->n_ctx > s->n_ctx) {
        return qni_fail(err, QN_EINVAL, "n_ctx: must be within 0 … %d, that of the pool, got %d", s->n_ctx, o->n_ctx);
    }
    if (o->n_batch < 0 || o->n_batch > s->n_batch) {
        return qni_fail(err, QN_EINVAL, "n_batch: must be within 0 … %d, that of the pool, got %d", s->n_batch,
                        o->n_batch);
    }
    if (o->kv_dtype != QN_DTYPE_DEFAULT && o->kv_dtype != s->kv_dtype) {
        return qni_fail(err, QN_EINVAL, "kv_dtype: the pool's is %s, got %s", qn_dtype_name(s->kv_dtype),
                        qn_dtype_name(o->kv_dtype));
    }
    if (o->yarn != QN_YARN_AUTO && o->yarn != QN_YARN_ON && o->yarn != QN_YARN_OFF) {
        return qni_fail(err, QN_EINVAL, "yarn: no such mode: %d", (int)o->yarn);
    }
    if (o->yarn != QN_YARN_AUTO && (o->yarn == QN_YARN_ON) != s->yarn) {
        return qni_fail(err, QN_EINVAL, "yarn: the pool is with%s it", s->yarn ? "" : "out");
    }
    return QN_OK;
}

/* Set the session's reference to the given pool, or to a new one of its own. */
static qn_status join_pool(qn_session *s, qn_model *model, const qn_session_options *o, qn_error *err) {
    qn_kv_pool *pool = o->pool;
    if (pool != NULL) {
        QN_TRY(check_pool(pool, model, o, err));
        qni_kv_pool_retain(pool);
    } else {
        const qn_kv_pool_options own = {
            .n_ctx = o->n_ctx, .n_batch = o->n_batch, .kv_dtype = o->kv_dtype, .yarn = o->yarn};
        QN_TRY(qn_kv_pool_create(&pool, model, &own, err));
    }
    qn_status status = qni_kv_pool_join(pool, o->tap.hidden != NULL, err);
    if (status != QN_OK) {
        qn_kv_pool_free(pool);
        return status;
    }
    s->pool = pool;
    s->model = model;
    s->tap = o->tap;
    s->n_ctx = o->n_ctx > 0 ? o->n_ctx : pool->settings.n_ctx;
    s->n_batch = o->n_batch > 0 ? o->n_batch : pool->settings.n_batch;
    if (s->n_batch > s->n_ctx) s->n_batch = s->n_ctx;
    return QN_OK;
}

/* Everything is allocated here, so that nothing needs to be allocated later. */
static qn_status alloc_memory(qn_session *s, qn_error *err) {
    QN_TRY(qni_session_measure(&s->layout, &s->model->config, s->n_ctx, err));
    s->memory = qni_device_alloc(&s->model->device->allocator, s->layout.bytes);
    if (s->memory == NULL) {
        return qni_fail(err, QN_ENOMEM, "session: no memory for %zu bytes (n_ctx %d)", s->layout.bytes, s->n_ctx);
    }
    const size_t logits = (size_t)s->model->config.n_vocab * sizeof(float);
    qni_poison(s->memory + logits, s->layout.ids_offset - logits);
    s->logits = (float *)(void *)s->memory;
    int32_t *ids = (int32_t *)(void *)(s->memory + s->layout.ids_offset);
    return qni_sequence_create(&s->seq, s->pool->blocks, ids, s->n_ctx, err);
}

qn_status qn_session_create(qn_session **out, qn_model *model, const qn_session_options *options, qn_error *err) {
    if (out == NULL || model == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_session_create: %s is NULL", out == NULL ? "out" : "model");
    }
    const qn_session_options o = options != NULL ? *options : (qn_session_options){0};
    qn_session *s = qni_calloc(1, sizeof *s);
    if (s == NULL) return qni_fail(err, QN_ENOMEM, "session: out of memory");
    qn_status status = join_pool(s, model, &o, err);
    if (status == QN_OK) status = alloc_memory(s, err);
    if (status != QN_OK) {
        qn_session_free(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

qn_status qn_session_fork(qn_session **out, const qn_session *session, qn_error *err) {
    if (out == NULL || session == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_session_fork: %s is NULL", out == NULL ? "out" : "session");
    }
    const qn_session_options options = {
        .n_ctx = session->n_ctx, .n_batch = session->n_batch, .tap = session->tap, .pool = session->pool};
    qn_session *s = NULL;
    QN_TRY(qn_session_create(&s, session->model, &options, err));
    qni_sequence_fork(&s->seq, &session->seq);
    s->has_logits = session->has_logits;
    if (s->has_logits) memcpy(s->logits, session->logits, (size_t)s->model->config.n_vocab * sizeof *s->logits);
    *out = s;
    return QN_OK;
}

void qn_session_free(qn_session *session) {
    if (session == NULL) return;
    if (session->pool != NULL) {
        qni_sequence_release(&session->seq);
        qni_device_free(&session->model->device->allocator, session->memory, session->layout.bytes);
        qni_kv_pool_leave(session->pool);
        qn_kv_pool_free(session->pool); /* the last reference to the model may be released with it */
    }
    qni_free(session);
}

int32_t qn_session_n_ctx(const qn_session *session) {
    return session != NULL ? session->n_ctx : 0;
}

int32_t qn_session_n_tok(const qn_session *session) {
    return session != NULL ? session->seq.n_tok : 0;
}

const int32_t *qn_session_ids(const qn_session *session) {
    return session != NULL ? session->seq.ids : NULL;
}

const qn_model *qn_session_model(const qn_session *session) {
    return session != NULL ? session->model : NULL;
}

const float *qn_session_logits(const qn_session *session) {
    return session != NULL && session->has_logits ? session->logits : NULL;
}

qn_status qn_session_rewind(qn_session *session, size_t n_tok, qn_error *err) {
    if (session == NULL) return qni_fail(err, QN_EINVAL, "qn_session_rewind: session is NULL");
    if (n_tok > (size_t)session->seq.n_tok) {
        return qni_fail(err, QN_EINVAL, "n_tok: must be within 0 … %d, got %zu", session->seq.n_tok, n_tok);
    }
    if (n_tok < (size_t)session->seq.n_tok) session->has_logits = false;
    qni_sequence_rewind(&session->seq, (int32_t)n_tok);
    return QN_OK;
}

/* Read n positions of one plane and head as f32. The caller holds the device. */
static qn_status read_plane(const qni_sequence *seq, float *to, int32_t layer, bool value, int32_t head, int32_t first,
                            int32_t n, qn_error *err) {
    const qni_block_pool *pool = seq->pool;
    const qn_device *device = pool->device;
    const size_t row = qni_kv_row_bytes(&pool->format);
    void *host = qni_device_host(pool->device, row);
    if (host == NULL) return qni_fail(err, QN_ENOMEM, "read_kv: no memory for a row");
    for (int32_t p = first; p < first + n; p++, to += pool->format.head_dim) {
        const unsigned char *rows = qni_block_pool_rows(pool, layer, value, seq->blocks[p / pool->block_tokens], head);
        QN_TRY(device->backend->memory->read(device->state, host, rows + (size_t)(p % pool->block_tokens) * row, row,
                                             err));
        qni_kv_load(to, host, pool->format.dtype, pool->format.head_dim);
    }
    return QN_OK;
}

qn_status qn_session_read_kv(const qn_session *session, int32_t layer, int32_t first, int32_t n, float *k, float *v,
                             qn_error *err) {
    if (session == NULL) return qni_fail(err, QN_EINVAL, "qn_session_read_kv: session is NULL");
    const qn_model_config *config = &session->model->config;
    const qni_sequence *seq = &session->seq;
    qn_device *device = session->model->device;
    if (layer < 0 || layer >= config->n_layer) {
        return qni_fail(err, QN_EINVAL, "layer: must be within 0 … %d, got %d", config->n_layer - 1, layer);
    }
    if (first < 0 || n < 1 || first > seq->n_tok - n) {
        return qni_fail(err, QN_EINVAL, "positions: %d from %d on are not within the sequence of %d", n, first,
                        seq->n_tok);
    }
    QN_TRY(qni_device_lock(device, err));
    qn_status status = QN_OK;
    for (int value = 0; value < 2 && status == QN_OK; value++) {
        float *to = value ? v : k;
        for (int32_t h = 0; h < config->n_kv_head && to != NULL && status == QN_OK; h++) {
            status = read_plane(seq, to, layer, value, h, first, n, err);
            to += (int64_t)n * config->head_dim;
        }
    }
    qni_device_unlock(device);
    return status;
}
