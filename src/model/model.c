/* SPDX-License-Identifier: Apache-2.0 */
/* Public model API: reading the configuration; opening, describing and closing a model. */
#include "../base/sha256.h"
#include "load.h"
#include "quantize.h"
#include "tied.h"

#include <string.h>

qn_status qn_model_read_config(qn_model_config *out, const char *dir, const qn_log *log, qn_error *err) {
    if (out == NULL || dir == NULL) return qni_fail(err, QN_EINVAL, "read_config: out or dir is NULL");
    qni_checkpoint checkpoint;
    QN_TRY(qni_checkpoint_open(&checkpoint, dir, log, err));
    *out = checkpoint.config;
    qni_checkpoint_close(&checkpoint);
    return QN_OK;
}

/* A checkpoint quantized while loading counts as a different model, because its caches differ. */
static void fingerprint(uint8_t *out, const qni_checkpoint *checkpoint, qn_quantize quantize) {
    const uint8_t form = (uint8_t)quantize;
    memcpy(out, checkpoint->fingerprint, sizeof checkpoint->fingerprint);
    if (quantize == QN_QUANTIZE_NONE) return;
    qni_sha256 hash;
    qni_sha256_init(&hash);
    qni_sha256_update(&hash, checkpoint->fingerprint, sizeof checkpoint->fingerprint);
    qni_sha256_update(&hash, &form, sizeof form);
    qni_sha256_final(&hash, out);
}

static qn_status make(qn_model **out, qn_device *device, const qni_checkpoint *checkpoint,
                      const qn_model_options *options, qn_error *err) {
    qn_model *model = qni_calloc(1, sizeof *model);
    if (model == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    atomic_init(&model->refs, 1);
    model->device = device;
    qni_device_retain(device);
    model->config = checkpoint->config;
    model->generation = checkpoint->generation;
    model->bos = checkpoint->bos;
    fingerprint(model->fingerprint, checkpoint, options->quantize);
    qn_status status = qni_checkpoint_check_tied(checkpoint, device, err);
    if (status == QN_OK) status = qni_model_allocate(model, checkpoint, options->arith, err);
    if (status == QN_OK) status = qni_model_load(model, checkpoint, &options->progress, err);
    if (status != QN_OK) {
        qni_model_free(model);
        return status;
    }
    *out = model;
    return QN_OK;
}

qn_status qn_model_open(qn_model **out, qn_device *device, const char *dir, const qn_model_options *options,
                        qn_error *err) {
    if (out == NULL || device == NULL || dir == NULL) {
        return qni_fail(err, QN_EINVAL, "model_open: out, device or dir is NULL");
    }
    qn_model_options o = options != NULL ? *options : (qn_model_options){0};
    if (o.arith < QN_ARITH_AUTO || o.arith > QN_ARITH_INT8) {
        return qni_fail(err, QN_EINVAL, "model_open: arith: unknown value %d", (int)o.arith);
    }
    if (o.quantize < QN_QUANTIZE_NONE || o.quantize > QN_QUANTIZE_Q4) {
        return qni_fail(err, QN_EINVAL, "model_open: quantize: unknown value %d", (int)o.quantize);
    }
    qni_checkpoint checkpoint;
    QN_TRY(qni_checkpoint_open(&checkpoint, dir, &o.log, err));
    qni_checkpoint_quantize(&checkpoint, o.quantize, &o.log);
    qn_status status = make(out, device, &checkpoint, &o, err);
    qni_checkpoint_close(&checkpoint);
    return status;
}

void qni_model_retain(qn_model *model) {
    atomic_fetch_add_explicit(&model->refs, 1, memory_order_relaxed);
}

void qn_model_close(qn_model *model) {
    if (model == NULL || atomic_fetch_sub_explicit(&model->refs, 1, memory_order_acq_rel) != 1) return;
    qni_model_free(model);
}

const qn_model_config *qn_model_get_config(const qn_model *model) {
    return model != NULL ? &model->config : NULL;
}

qn_device *qn_model_device(const qn_model *model) {
    return model != NULL ? model->device : NULL;
}

qn_arith qn_model_arith(const qn_model *model) {
    return model != NULL ? model->layers[0].attention.q_proj.arith : QN_ARITH_AUTO;
}

int32_t qni_config_n_ctx_trained(const qn_model_config *config) {
    return config->yarn.factor > 0 ? (int32_t)config->yarn.original_ctx : config->n_ctx_max;
}

int32_t qni_config_n_ctx_limit(const qn_model_config *config) {
    if (config->yarn.factor == 0) return config->n_ctx_max;
    double scaled = (double)config->yarn.original_ctx * config->yarn.factor;
    if (scaled >= INT32_MAX) return INT32_MAX;
    return scaled > config->n_ctx_max ? (int32_t)scaled : config->n_ctx_max;
}
