/* SPDX-License-Identifier: Apache-2.0 */
/* A session's settings, memory, timeline and KV; feed.c computes. */
#include "session.h"

#include <string.h>

enum { DEFAULT_N_CTX = 4096, DEFAULT_N_BATCH = 512 };

qn_status qni_session_settle(qn_session_options *options, bool *yarn, const qn_model_config *config, qn_error *err) {
    qn_session_options o = *options;
    if (o.yarn != QN_YARN_AUTO && o.yarn != QN_YARN_ON && o.yarn != QN_YARN_OFF) {
        return qni_fail(err, QN_EINVAL, "yarn: no such mode: %d", (int)o.yarn);
    }
    if (o.n_ctx < 0) return qni_fail(err, QN_EINVAL, "n_ctx: must be >= 0, got %d", o.n_ctx);
    if (o.n_batch < 0) return qni_fail(err, QN_EINVAL, "n_batch: must be >= 0, got %d", o.n_batch);
    if (o.kv_dtype == QN_DTYPE_DEFAULT) o.kv_dtype = QN_DTYPE_F16;
    if (o.kv_dtype != QN_DTYPE_F16 && o.kv_dtype != QN_DTYPE_BF16 && o.kv_dtype != QN_DTYPE_F32 &&
        o.kv_dtype != QN_DTYPE_Q8) {
        return qni_fail(err, QN_EINVAL, "kv_dtype: must be f16, bf16, f32 or q8, got %s", qn_dtype_name(o.kv_dtype));
    }
    bool scalable = config->yarn.factor > 0;
    int32_t trained = qni_config_n_ctx_trained(config);
    int32_t limit = scalable && o.yarn != QN_YARN_OFF ? qni_config_n_ctx_limit(config) : trained;
    if (o.n_ctx == 0) {
        o.n_ctx = config->n_ctx_max < limit ? config->n_ctx_max : limit;
        if (o.n_ctx > DEFAULT_N_CTX) o.n_ctx = DEFAULT_N_CTX;
    }
    if (o.n_ctx > limit) {
        return qni_fail(err, QN_EUNSUPPORTED, "n_ctx: the model can do at most %d tokens%s, got %d", limit,
                        scalable && o.yarn == QN_YARN_OFF ? " without YaRN" : "", o.n_ctx);
    }
    if (o.n_batch == 0) o.n_batch = DEFAULT_N_BATCH;
    if (o.n_batch > o.n_ctx) o.n_batch = o.n_ctx;
    *yarn =
        scalable && (o.yarn == QN_YARN_ON || (o.yarn == QN_YARN_AUTO && (int64_t)o.n_ctx > config->yarn.original_ctx));
    *options = o;
    return QN_OK;
}

size_t qni_session_row(const qn_model_config *config, qn_dtype kv_dtype) {
    return (size_t)qni_kv_row_elements(kv_dtype, config->head_dim) * qn_dtype_bytes(kv_dtype);
}

qn_status qni_session_layout(qni_arena *out, const qn_model_config *config, int32_t n_ctx, qn_dtype kv_dtype,
                             qn_error *err) {
    qni_arena a = {0};
    size_t row, plane, kv, logits, ids;
    bool fits = qni_mul_size(&row, (size_t)config->n_kv_head, qni_session_row(config, kv_dtype)) &&
                qni_mul_size(&plane, row, (size_t)n_ctx) && qni_mul_size(&kv, plane, 2 * (size_t)config->n_layer) &&
                qni_mul_size(&logits, (size_t)config->n_vocab, sizeof(float)) &&
                qni_mul_size(&ids, (size_t)n_ctx, sizeof(int32_t)) && kv <= SIZE_MAX / 4 && logits <= SIZE_MAX / 4 &&
                ids <= SIZE_MAX / 4;
    if (!fits) {
        return qni_fail(err, QN_ENOMEM, "n_ctx: %d tokens are more than the address space holds", n_ctx);
    }
    a.token_bytes = 2 * (size_t)config->n_layer * row;
    a.plane_bytes = plane;
    a.kv_bytes = kv;
    a.logits_offset = qni_round_up(kv, QNI_ALIGN) + QNI_RED_ZONE;
    a.ids_offset = a.logits_offset + qni_round_up(logits, QNI_ALIGN) + QNI_RED_ZONE;
    a.total_bytes = a.ids_offset + ids;
    *out = a;
    return QN_OK;
}

static qn_status resolve_rope(qn_session *s, qn_error *err) {
    const qn_model_config *config = &s->model->config;
    s->inv_freq = qni_calloc((size_t)config->head_dim / 2, sizeof *s->inv_freq);
    if (s->inv_freq == NULL) return qni_fail(err, QN_ENOMEM, "session: out of memory");
    qn_rope rope = {.theta = config->rope_theta, .yarn = s->yarn ? &config->yarn : NULL};
    qni_rope_resolve(s->inv_freq, &s->attention_factor, &rope, config->head_dim);
    return QN_OK;
}

static qn_status take_rows(qn_session *s, qn_error *err) {
    size_t n = (size_t)s->options.n_batch;
    s->row_seq = qni_calloc(n, sizeof *s->row_seq);
    s->row_pos = qni_calloc(n, sizeof *s->row_pos);
    s->row_id = qni_calloc(n, sizeof *s->row_id);
    s->logit_row = qni_calloc(n, sizeof *s->logit_row);
    s->pages = qni_calloc(n, sizeof *s->pages);
    if (!s->row_seq || !s->row_pos || !s->row_id || !s->logit_row || !s->pages) {
        return qni_fail(err, QN_ENOMEM, "session: no memory for n_batch %zu", n);
    }
    return QN_OK;
}

/* The arena, and scratch for n_batch rows on the device, so that nothing needs to be allocated later. */
static qn_status take_device_memory(qn_session *s, qn_error *err) {
    qn_device *device = s->model->device;
    const qn_session_options *o = &s->options;
    QN_TRY(qni_session_layout(&s->layout, &s->model->config, o->n_ctx, o->kv_dtype, err));
    size_t scratch = 0;
    QN_TRY(qni_forward_measure(&scratch, s->model, o->n_batch, o->n_ctx, o->kv_dtype, err));
    s->arena = qni_device_alloc(&device->allocator, s->layout.total_bytes);
    if (s->arena == NULL) {
        return qni_fail(err, QN_ENOMEM, "session: no memory for %zu bytes (n_ctx %d)", s->layout.total_bytes, o->n_ctx);
    }
    const size_t logits = (size_t)s->model->config.n_vocab * sizeof(float), ids = s->layout.ids_offset;
    qni_poison(s->arena + s->layout.kv_bytes, s->layout.logits_offset - s->layout.kv_bytes);
    qni_poison(s->arena + s->layout.logits_offset + logits, ids - s->layout.logits_offset - logits);
    s->logits = (float *)(void *)(s->arena + s->layout.logits_offset);
    s->ids = (int32_t *)(void *)(s->arena + s->layout.ids_offset);
    QN_TRY(qni_device_lock(device, err));
    qn_status status = qni_device_reserve(device, scratch, err);
    qni_device_unlock(device);
    return status;
}

qn_status qn_session_create(qn_session **out, qn_model *model, const qn_session_options *options, qn_error *err) {
    if (out == NULL || model == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_session_create: %s is NULL", out == NULL ? "out" : "model");
    }
    qn_session_options settled = options != NULL ? *options : (qn_session_options){0};
    bool yarn = false;
    QN_TRY(qni_session_settle(&settled, &yarn, &model->config, err));
    qn_session *s = qni_calloc(1, sizeof *s);
    if (s == NULL) return qni_fail(err, QN_ENOMEM, "session: out of memory");
    qni_model_retain(model);
    s->model = model;
    s->options = settled;
    s->yarn = yarn;
    qn_status status = resolve_rope(s, err);
    if (status == QN_OK) status = take_rows(s, err);
    if (status == QN_OK) status = take_device_memory(s, err);
    if (status != QN_OK) {
        qn_session_free(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

void qn_session_free(qn_session *session) {
    if (session == NULL) return;
    qni_device_free(&session->model->device->allocator, session->arena, session->layout.total_bytes);
    qni_free(session->inv_freq);
    qni_free(session->row_seq);
    qni_free(session->row_pos);
    qni_free(session->row_id);
    qni_free(session->logit_row);
    qni_free(session->pages);
    qn_model_close(session->model);
    qni_free(session);
}

int32_t qn_session_n_ctx(const qn_session *session) {
    return session != NULL ? session->options.n_ctx : 0;
}

int32_t qn_session_n_tok(const qn_session *session) {
    return session != NULL ? session->n_tok : 0;
}

const int32_t *qn_session_ids(const qn_session *session) {
    return session != NULL ? session->ids : NULL;
}

const qn_model *qn_session_model(const qn_session *session) {
    return session != NULL ? session->model : NULL;
}

const float *qn_session_logits(const qn_session *session) {
    return session != NULL && session->has_logits ? session->logits : NULL;
}

qn_status qn_session_rewind(qn_session *session, size_t n_tok, qn_error *err) {
    if (session == NULL) return qni_fail(err, QN_EINVAL, "qn_session_rewind: session is NULL");
    if (n_tok > (size_t)session->n_tok) {
        return qni_fail(err, QN_EINVAL, "n_tok: must be within 0 … %d, got %zu", session->n_tok, n_tok);
    }
    if (n_tok < (size_t)session->n_tok) session->has_logits = false;
    session->n_tok = (int32_t)n_tok;
    return QN_OK;
}

unsigned char *qni_session_plane(const qn_session *session, int32_t layer, bool value) {
    return session->arena + (2 * (size_t)layer + value) * session->layout.plane_bytes;
}

qn_status qn_session_read_kv(const qn_session *session, int32_t layer, int32_t first, int32_t n, float *k, float *v,
                             qn_error *err) {
    if (session == NULL) return qni_fail(err, QN_EINVAL, "qn_session_read_kv: session is NULL");
    const qn_model_config *config = &session->model->config;
    if (layer < 0 || layer >= config->n_layer) {
        return qni_fail(err, QN_EINVAL, "layer: must be within 0 … %d, got %d", config->n_layer - 1, layer);
    }
    if (first < 0 || n < 1 || first > session->n_tok - n) {
        return qni_fail(err, QN_EINVAL, "positions: %d from %d on are not within the timeline of %d", n, first,
                        session->n_tok);
    }
    const qn_dtype dtype = session->options.kv_dtype;
    const size_t row = qni_session_row(config, dtype);
    for (int value = 0; value < 2; value++) {
        float *to = value ? v : k;
        const unsigned char *plane = qni_session_plane(session, layer, value);
        for (size_t h = 0; h < (size_t)config->n_kv_head && to != NULL; h++) {
            for (int32_t i = 0; i < n; i++, to += config->head_dim) {
                size_t at = h * (size_t)session->options.n_ctx + (size_t)(first + i);
                qni_kv_load(to, plane + at * row, dtype, config->head_dim);
            }
        }
    }
    return QN_OK;
}
