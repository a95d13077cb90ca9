/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of KV blocks: what the sessions on a pool share. */
#include "session.h"

#include <string.h>

enum { DEFAULT_N_CTX = 4096, DEFAULT_N_BATCH = 512 };

static qn_status check_options(const qn_kv_pool_options *o, qn_error *err) {
    if (o->yarn != QN_YARN_AUTO && o->yarn != QN_YARN_ON && o->yarn != QN_YARN_OFF) {
        return qni_fail(err, QN_EINVAL, "yarn: no such mode: %d", (int)o->yarn);
    }
    if (o->n_ctx < 0) return qni_fail(err, QN_EINVAL, "n_ctx: must be >= 0, got %d", o->n_ctx);
    if (o->n_tok < 0) return qni_fail(err, QN_EINVAL, "n_tok: must be >= 0, got %d", o->n_tok);
    if (o->n_batch < 0) return qni_fail(err, QN_EINVAL, "n_batch: must be >= 0, got %d", o->n_batch);
    if (o->kv_dtype != QN_DTYPE_DEFAULT && o->kv_dtype != QN_DTYPE_F16 && o->kv_dtype != QN_DTYPE_BF16 &&
        o->kv_dtype != QN_DTYPE_F32 && o->kv_dtype != QN_DTYPE_Q8) {
        return qni_fail(err, QN_EINVAL, "kv_dtype: must be f16, bf16, f32 or q8, got %s", qn_dtype_name(o->kv_dtype));
    }
    return QN_OK;
}

qn_status qni_kv_resolve_options(qni_kv_settings *out, const qn_kv_pool_options *options, const qn_model *model,
                                 qn_error *err) {
    const qn_model_config *config = &model->config;
    const qni_backend *backend = model->device->backend;
    QN_TRY(check_options(options, err));
    qni_kv_settings s = {.n_ctx = options->n_ctx, .n_batch = options->n_batch, .kv_dtype = options->kv_dtype};
    if (s.kv_dtype == QN_DTYPE_DEFAULT) s.kv_dtype = backend->kv_dtype;
    if (s.kv_dtype == QN_DTYPE_DEFAULT) s.kv_dtype = QN_DTYPE_F16;
    const bool scalable = config->yarn.factor > 0, off = options->yarn == QN_YARN_OFF;
    const int32_t trained = qni_config_n_ctx_trained(config);
    const int32_t limit = scalable && !off ? qni_config_n_ctx_limit(config) : trained;
    if (s.n_ctx == 0) {
        s.n_ctx = config->n_ctx_max < limit ? config->n_ctx_max : limit;
        if (s.n_ctx > DEFAULT_N_CTX) s.n_ctx = DEFAULT_N_CTX;
    }
    if (s.n_ctx > limit) {
        return qni_fail(err, QN_EUNSUPPORTED, "n_ctx: the model supports at most %d tokens%s, got %d", limit,
                        scalable && off ? " without YaRN" : "", s.n_ctx);
    }
    if (s.n_batch == 0) s.n_batch = backend->n_batch > 0 ? backend->n_batch : DEFAULT_N_BATCH;
    if (s.n_batch > s.n_ctx) s.n_batch = s.n_ctx;
    s.yarn = scalable && !off && (options->yarn == QN_YARN_ON || (int64_t)s.n_ctx > config->yarn.original_ctx);
    *out = s;
    return QN_OK;
}

qni_kv_format qni_kv_format_of(const qn_model_config *config, qn_dtype kv_dtype) {
    return (qni_kv_format){kv_dtype, config->n_layer, config->n_kv_head, config->head_dim};
}

static qn_status resolve_rope(qn_kv_pool *p, qn_error *err) {
    const qn_model_config *config = &p->model->config;
    p->inv_freq = qni_calloc((size_t)config->head_dim / 2, sizeof *p->inv_freq);
    if (p->inv_freq == NULL) return qni_fail(err, QN_ENOMEM, "KV pool: out of memory");
    const qn_rope rope = {.theta = config->rope_theta, .yarn = p->settings.yarn ? &config->yarn : NULL};
    qni_rope_resolve(p->inv_freq, &p->attention_factor, &rope, config->head_dim);
    return QN_OK;
}

static qn_status alloc_step(qni_step_arrays *a, size_t n_batch, bool samples, qn_error *err) {
    a->tok_begin = qni_calloc(n_batch + 1, sizeof *a->tok_begin);
    a->pos_begin = qni_calloc(n_batch, sizeof *a->pos_begin);
    a->ids = qni_calloc(n_batch, sizeof *a->ids);
    a->wanted = qni_calloc(n_batch, sizeof *a->wanted);
    if (samples) {
        a->sampling = qni_calloc(n_batch, sizeof *a->sampling);
        a->n_sampled = qni_calloc(n_batch, sizeof *a->n_sampled);
        a->is_bad = qni_calloc(n_batch, sizeof *a->is_bad);
    }
    const bool is_short = samples && (a->sampling == NULL || a->n_sampled == NULL || a->is_bad == NULL);
    if (is_short || a->tok_begin == NULL || a->pos_begin == NULL || a->ids == NULL || a->wanted == NULL) {
        return qni_fail(err, QN_ENOMEM, "KV pool: no memory for n_batch %zu", n_batch);
    }
    return QN_OK;
}

static qn_status alloc_blocks(qn_kv_pool *p, int32_t n_tok, qn_error *err) {
    const qni_kv_format format = qni_kv_format_of(&p->model->config, p->settings.kv_dtype);
    qn_device *device = p->model->device;
    return qni_block_pool_create(&p->blocks, device, &format, qni_kv_blocks_for(device, n_tok), err);
}

qn_status qn_kv_pool_create(qn_kv_pool **out, qn_model *model, const qn_kv_pool_options *options, qn_error *err) {
    if (out == NULL || model == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_kv_pool_create: %s is NULL", out == NULL ? "out" : "model");
    }
    const qn_kv_pool_options o = options != NULL ? *options : (qn_kv_pool_options){0};
    qni_kv_settings settings;
    QN_TRY(qni_kv_resolve_options(&settings, &o, model, err));
    qn_kv_pool *p = qni_calloc(1, sizeof *p);
    if (p == NULL) return qni_fail(err, QN_ENOMEM, "KV pool: out of memory");
    atomic_init(&p->refs, 1);
    qni_model_retain(model);
    p->model = model;
    p->settings = settings;
    qn_status status = resolve_rope(p, err);
    if (status == QN_OK) status = alloc_step(&p->step, (size_t)settings.n_batch, model->device->ops.step != NULL, err);
    if (status == QN_OK) status = alloc_blocks(p, o.n_tok > 0 ? o.n_tok : settings.n_ctx, err);
    if (status != QN_OK) {
        qn_kv_pool_free(p);
        return status;
    }
    *out = p;
    return QN_OK;
}

void qni_kv_pool_retain(qn_kv_pool *pool) {
    atomic_fetch_add_explicit(&pool->refs, 1, memory_order_relaxed);
}

void qn_kv_pool_free(qn_kv_pool *pool) {
    if (pool == NULL || atomic_fetch_sub_explicit(&pool->refs, 1, memory_order_acq_rel) != 1) return;
    qni_block_pool_free(pool->blocks);
    qni_free(pool->step.tok_begin);
    qni_free(pool->step.pos_begin);
    qni_free(pool->step.ids);
    qni_free(pool->step.wanted);
    qni_free(pool->step.sampling);
    qni_free(pool->step.n_sampled);
    qni_free(pool->step.is_bad);
    qni_free(pool->step.block_table);
    qni_free(pool->inv_freq);
    qn_model_close(pool->model);
    qni_free(pool);
}

/* A step has at most as many sequences as the pool has sessions, and at most as many as it has tokens. */
static qn_status grow_table(qn_kv_pool *pool, qn_error *err) {
    const size_t most = (size_t)qni_min_i64(atomic_load(&pool->n_session) + 1, pool->settings.n_batch);
    const size_t need = most * (size_t)qni_kv_blocks_for(pool->model->device, pool->settings.n_ctx);
    if (!qni_grow(&pool->step.block_table, &pool->step.table_size, need, sizeof *pool->step.block_table)) {
        return qni_fail(err, QN_ENOMEM, "session: no memory for %zu block numbers", need);
    }
    return QN_OK;
}

qn_status qni_kv_pool_join(qn_kv_pool *pool, bool traces, qn_error *err) {
    qn_device *device = pool->model->device;
    const qni_kv_settings *s = &pool->settings;
    size_t scratch = 0;
    QN_TRY(qni_step_measure(&scratch, pool->model, s->n_batch, s->n_ctx, s->kv_dtype, traces, err));
    QN_TRY(qni_device_lock(device, err));
    qn_status status = qni_device_reserve(device, scratch, err);
    if (status == QN_OK) status = grow_table(pool, err);
    if (status == QN_OK) {
        atomic_fetch_add_explicit(&pool->n_session, 1, memory_order_relaxed);
        if (scratch > pool->scratch_bytes) pool->scratch_bytes = scratch;
    }
    qni_device_unlock(device);
    return status;
}

void qni_kv_pool_leave(qn_kv_pool *pool) {
    atomic_fetch_sub_explicit(&pool->n_session, 1, memory_order_relaxed);
}

void qn_kv_pool_get_info(const qn_kv_pool *pool, qn_kv_pool_info *out) {
    if (pool == NULL || out == NULL) return;
    *out = (qn_kv_pool_info){.n_ctx = pool->settings.n_ctx,
                             .block_tokens = pool->blocks->block_tokens,
                             .n_block = pool->blocks->n_block,
                             .n_unused = qni_block_pool_n_unused(pool->blocks),
                             .bytes = pool->blocks->data.bytes};
}
