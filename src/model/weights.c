/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a model's weights: what is taken from the device's allocator, and what lies where in it. */
#include "load.h"

/* Shapes of a layer's linears as {in, out}; checkpoints have {out, in}. */
static int64_t n_in_of(const qni_weight_ref *ref) {
    return ref->tensor->shape[1];
}
static int64_t n_out_of(const qni_weight_ref *ref) {
    return ref->tensor->shape[0];
}

/* Norms share one block. The order is the layers', four each, then the final one. */
static size_t norm_bytes(const qni_weight_ref *ref) {
    return qni_round_up((size_t)ref->tensor->bytes, QNI_ALIGN);
}
static size_t norms_bytes(const qni_checkpoint *c) {
    size_t bytes = norm_bytes(&c->norm);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = QNI_N_LINEAR; k < QNI_N_SLOT; k++) bytes += norm_bytes(&c->layers[i].slot[k]);
    }
    return bytes;
}

static const qni_weight_ref *head_of(const qni_checkpoint *c) {
    return c->config.tied ? &c->embedding : &c->lm_head;
}

static qn_status packed_bytes(uint64_t *sum, const qn_device *device, const qni_weight_ref *ref, qn_arith arith,
                              qn_error *err) {
    qni_packing packing = {0};
    QN_TRY(device->backend->packing(device->state, &packing, qni_weight_dtype(ref->tensor), arith, n_in_of(ref),
                                    n_out_of(ref), err));
    *sum += packing.bytes;
    return QN_OK;
}

qn_status qni_model_weight_bytes(uint64_t *bytes, const qn_device *device, const qni_checkpoint *c, qn_arith arith,
                                 qn_error *err) {
    uint64_t sum = norms_bytes(c) + (c->config.tied ? 0 : c->embedding.tensor->bytes);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = 0; k < QNI_N_LINEAR; k++) {
            QN_TRY(packed_bytes(&sum, device, &c->layers[i].slot[k], arith, err));
        }
    }
    QN_TRY(packed_bytes(&sum, device, head_of(c), arith, err));
    *bytes = sum;
    return QN_OK;
}

static qn_status make_linear(qn_linear **out, qni_weight *weight, qn_device *device, const qni_weight_ref *ref,
                             qn_arith arith, qn_error *err) {
    QN_TRY(qni_linear_create(out, device, qni_weight_dtype(ref->tensor), arith, n_in_of(ref), n_out_of(ref), err));
    *weight = (*out)->weight;
    return QN_OK;
}

/* The next norm of the block. */
static qni_vec take_norm(unsigned char **at, const qni_weight_ref *ref) {
    qni_vec vec = {*at, qni_weight_dtype(ref->tensor), ref->tensor->shape[0]};
    *at += norm_bytes(ref);
    return vec;
}

static qn_status allocate_layer(qn_model *model, int32_t i, const qni_layer_refs *refs, qn_arith arith,
                                unsigned char **norms, qn_error *err) {
    qni_layer_weights *layer = &model->layers[i];
    qni_weight *const weights[QNI_N_LINEAR] = {
        [QNI_Q_PROJ] = &layer->attention.q_proj, [QNI_K_PROJ] = &layer->attention.k_proj,
        [QNI_V_PROJ] = &layer->attention.v_proj, [QNI_O_PROJ] = &layer->attention.o_proj,
        [QNI_GATE_PROJ] = &layer->mlp.gate_proj, [QNI_UP_PROJ] = &layer->mlp.up_proj,
        [QNI_DOWN_PROJ] = &layer->mlp.down_proj,
    };
    qn_linear **linears = model->linears + (size_t)i * QNI_N_LINEAR;
    for (int k = 0; k < QNI_N_LINEAR; k++) {
        QN_TRY(make_linear(&linears[k], weights[k], model->device, &refs->slot[k], arith, err));
    }
    layer->attention.norm = take_norm(norms, &refs->slot[QNI_NORM1]);
    layer->mlp.norm = take_norm(norms, &refs->slot[QNI_NORM2]);
    layer->attention.q_norm = take_norm(norms, &refs->slot[QNI_Q_NORM]);
    layer->attention.k_norm = take_norm(norms, &refs->slot[QNI_K_NORM]);
    return QN_OK;
}

/* A tied table is the packed head; an untied one stays {V, H}, because single rows of it are gathered. */
static qn_status allocate_table(qn_model *model, const qni_checkpoint *c, qn_error *err) {
    if (c->config.tied) {
        model->embedding = model->lm_head;
        return QN_OK;
    }
    model->table_bytes = (size_t)c->embedding.tensor->bytes;
    model->table = qni_device_alloc(&model->device->allocator, model->table_bytes);
    if (model->table == NULL) {
        return qni_fail(err, QN_ENOMEM, "embedding: no memory for %zu bytes", model->table_bytes);
    }
    model->embedding = (qni_weight){.data = model->table,
                                    .dtype = qni_weight_dtype(c->embedding.tensor),
                                    .arith = QN_ARITH_F32,
                                    .n_in = c->config.d_model,
                                    .n_out = c->config.n_vocab,
                                    .nr = 1,
                                    .ki = 1,
                                    .panel_stride = c->config.d_model,
                                    .group_stride = 1};
    return QN_OK;
}

qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *c, qn_arith arith, qn_error *err) {
    size_t n_layer = (size_t)c->config.n_layer;
    model->layers = qni_calloc(n_layer, sizeof model->layers[0]);
    model->linears = qni_calloc(n_layer * QNI_N_LINEAR, sizeof model->linears[0]);
    if (model->layers == NULL || model->linears == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    model->norms_bytes = norms_bytes(c);
    model->norms = qni_device_alloc(&model->device->allocator, model->norms_bytes);
    if (model->norms == NULL) return qni_fail(err, QN_ENOMEM, "norms: no memory for %zu bytes", model->norms_bytes);
    unsigned char *at = model->norms;
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        QN_TRY(allocate_layer(model, i, &c->layers[i], arith, &at, err));
    }
    model->norm = take_norm(&at, &c->norm);
    QN_TRY(make_linear(&model->head_linear, &model->lm_head, model->device, head_of(c), arith, err));
    return allocate_table(model, c, err);
}

void qni_model_free(qn_model *model) {
    const qn_allocator *allocator = &model->device->allocator;
    for (size_t i = 0; model->linears != NULL && i < (size_t)model->config.n_layer * QNI_N_LINEAR; i++) {
        qn_linear_free(model->linears[i]);
    }
    qn_linear_free(model->head_linear);
    qni_device_free(allocator, model->norms, model->norms_bytes);
    qni_device_free(allocator, model->table, model->table_bytes);
    qni_free(model->linears);
    qni_free(model->layers);
    qni_device_release(model->device);
    qni_free(model);
}
