/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a model's weights: one block from the device's allocator, in the order in which a step reads it: layer by
 * layer, then the LM head. One block allows large pages for nearly all of it; separate weights of a few MB each would
 * use mostly small pages. The code that divides the block also measures it, by running without memory.
 */
#include "load.h"

qni_source qni_weight_source(const qni_weight_ref *ref, qn_arith arith) {
    const qni_quant *quant = ref->to.kind != QNI_DENSE ? &ref->to : &ref->quant;
    return (qni_source){.dtype = quant->kind == QNI_DENSE ? qni_weight_dtype(ref->data.tensor) : QN_DTYPE_DEFAULT,
                        .quant = *quant,
                        .arith = arith,
                        .n_in = ref->columns,
                        .n_out = ref->rows};
}

/* Whether linears of this kind support the compute type. */
static bool has_arith(const qni_weight_ref *ref, qn_arith arith) {
    const qni_source source = qni_weight_source(ref, arith);
    if (arith == QN_ARITH_BF16) return source.quant.kind == QNI_DENSE && source.dtype == QN_DTYPE_BF16;
    return arith != QN_ARITH_INT8 || (source.quant.kind == QNI_AFFINE && source.quant.group % 32 == 0);
}

/* The requested compute type applies where supported, AUTO elsewhere. If no linear supports it, request it anyway so
 * that the backend reports why. */
typedef struct arith_choice {
    qn_arith arith;
    bool any;
} arith_choice;
static arith_choice choose_arith(const qni_checkpoint *c, qn_arith arith) {
    arith_choice choice = {arith, has_arith(qni_checkpoint_head(c), arith)};
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = 0; k < QNI_N_LINEAR; k++) choice.any |= has_arith(&c->layers[i].slot[k], arith);
    }
    return choice;
}
static qn_arith arith_of(const qni_weight_ref *ref, arith_choice choice) {
    return !choice.any || has_arith(ref, choice.arith) ? choice.arith : QN_ARITH_AUTO;
}

/* A block while it is divided or measured. */
typedef struct cutter {
    qn_model *model;
    qni_scratch block;
    arith_choice arith;
} cutter;

/* *bytes: that it takes, where not NULL. */
static qn_status alloc_linear(cutter *c, qni_weight *weight, size_t *bytes, const qni_weight_ref *ref, qn_arith arith,
                              qn_error *err) {
    const qn_device *device = c->model->device;
    qni_packing packing = {0};
    const qni_source source = qni_weight_source(ref, arith);
    QN_TRY(device->backend->packing(device->state, &packing, &source, err));
    *weight = packing.form;
    weight->data = qni_scratch_take(&c->block, packing.bytes);
    if (bytes != NULL) *bytes = packing.bytes;
    return QN_OK;
}

static qni_vec alloc_norm(cutter *c, const qni_weight_ref *ref) {
    const qni_st_tensor *tensor = ref->data.tensor;
    return (qni_vec){qni_scratch_take(&c->block, (size_t)tensor->bytes), qni_weight_dtype(tensor), ref->rows};
}

qni_weight *qni_layer_linear(qni_layer_view *layer, int k) {
    qni_weight *const linears[QNI_N_LINEAR] = {
        [QNI_Q_PROJ] = &layer->attention.q_proj, [QNI_K_PROJ] = &layer->attention.k_proj,
        [QNI_V_PROJ] = &layer->attention.v_proj, [QNI_O_PROJ] = &layer->attention.o_proj,
        [QNI_GATE_PROJ] = &layer->mlp.gate_proj, [QNI_UP_PROJ] = &layer->mlp.up_proj,
        [QNI_DOWN_PROJ] = &layer->mlp.down_proj,
    };
    return linears[k];
}

static qn_status alloc_layer(cutter *c, qni_layer_view *layer, const qni_layer_refs *refs, qn_error *err) {
    const qni_weight_ref *slot = refs->slot;
    layer->attention.norm = alloc_norm(c, &slot[QNI_NORM1]);
    layer->attention.q_norm = alloc_norm(c, &slot[QNI_Q_NORM]);
    layer->attention.k_norm = alloc_norm(c, &slot[QNI_K_NORM]);
    layer->mlp.norm = alloc_norm(c, &slot[QNI_NORM2]);
    for (int k = 0; k < QNI_N_LINEAR; k++) {
        QN_TRY(alloc_linear(c, qni_layer_linear(layer, k), NULL, &slot[k], arith_of(&slot[k], c->arith), err));
    }
    return QN_OK;
}

static bool is_packed(const qni_weight_ref *ref) {
    return ref->quant.kind != QNI_DENSE || ref->to.kind != QNI_DENSE;
}

/* A tied embedding is the packed LM head. An untied one stays {V, H}, because single rows are gathered; if quantized
 * it is packed and read like a tied one. */
static qn_status alloc_table(cutter *c, const qni_checkpoint *from, qn_error *err) {
    qn_model *model = c->model;
    const qni_weight_ref *ref = &from->embedding;
    if (from->config.tied) {
        model->embedding = &model->lm_head;
        return QN_OK;
    }
    model->embedding = &model->table;
    size_t bytes = (size_t)ref->data.tensor->bytes;
    if (is_packed(ref)) {
        QN_TRY(alloc_linear(c, &model->table, &bytes, ref, QN_ARITH_F32, err));
    } else {
        model->table = (qni_weight){.data = qni_scratch_take(&c->block, bytes),
                                    .dtype = qni_weight_dtype(ref->data.tensor),
                                    .arith = QN_ARITH_F32,
                                    .n_in = from->config.d_model,
                                    .n_out = from->config.n_vocab,
                                    .nr = 1,
                                    .ki = 1,
                                    .panel_stride = from->config.d_model,
                                    .group_stride = 1};
    }
    model->table_bytes = qni_round_up(bytes, QNI_ALIGN);
    return QN_OK;
}

/* Describe all weights and allocate them in the block. */
static qn_status alloc_all(cutter *c, const qni_checkpoint *from, qn_error *err) {
    qn_model *model = c->model;
    const qni_weight_ref *head = qni_checkpoint_head(from);
    for (int32_t i = 0; i < from->config.n_layer; i++) {
        QN_TRY(alloc_layer(c, &model->layers[i], &from->layers[i], err));
    }
    model->norm = alloc_norm(c, &from->norm);
    QN_TRY(alloc_linear(c, &model->lm_head, NULL, head, arith_of(head, c->arith), err));
    return alloc_table(c, from, err);
}

qn_status qni_model_describe(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err) {
    model->config = from->config;
    model->layers = qni_calloc((size_t)from->config.n_layer, sizeof model->layers[0]);
    if (model->layers == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    cutter c = {.model = model, .arith = choose_arith(from, arith)};
    QN_TRY(alloc_all(&c, from, err));
    model->block_bytes = c.block.used;
    return QN_OK;
}

/* First touch: place the pages before anything is written; a page stays on the NUMA node that first touched it. */
static qn_status first_touch(qn_model *model, qn_error *err) {
    qn_device *device = model->device;
    if (device->backend->first_touch == NULL) return QN_OK;
    QN_TRY(qni_device_lock(device, err));
    for (int32_t i = 0; i < model->config.n_layer; i++) {
        device->backend->first_touch(device->state, &model->layers[i], i == 0 ? &model->lm_head : NULL);
    }
    qni_device_unlock(device);
    return QN_OK;
}

qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err) {
    QN_TRY(qni_model_describe(model, from, arith, err));
    QN_TRY(qni_buffer_create(model->device, &model->block, model->block_bytes, QNI_MEMORY_WEIGHTS, "weights", err));
    cutter c = {.model = model, .arith = choose_arith(from, arith)};
    c.block = (qni_scratch){.base = model->block.address, .size = model->block_bytes};
    QN_TRY(alloc_all(&c, from, err));
    return first_touch(model, err);
}

void qni_model_free(qn_model *model) {
    qni_buffer_free(model->device, &model->block);
    qni_free(model->layers);
    qni_device_release(model->device);
    qni_free(model);
}
