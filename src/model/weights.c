/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a model's weights: what is taken from the device's allocator, and what lies where in it. */
#include "load.h"

/* Norms share one block. The order is the layers', four each, then the final one. */
static size_t norm_bytes(const qni_weight_ref *ref) {
    return qni_round_up((size_t)ref->data.tensor->bytes, QNI_ALIGN);
}
static size_t norms_bytes(const qni_checkpoint *c) {
    size_t bytes = norm_bytes(&c->norm);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = QNI_N_LINEAR; k < QNI_N_SLOT; k++) bytes += norm_bytes(&c->layers[i].slot[k]);
    }
    return bytes;
}

qni_source qni_weight_source(const qni_weight_ref *ref, qn_arith arith) {
    const qni_quant *quant = ref->to.kind != QNI_DENSE ? &ref->to : &ref->quant;
    return (qni_source){.dtype = quant->kind == QNI_DENSE ? qni_weight_dtype(ref->data.tensor) : QN_DTYPE_DEFAULT,
                        .quant = *quant,
                        .arith = arith,
                        .n_in = ref->columns,
                        .n_out = ref->rows};
}

/* Whether linears of this kind have the arithmetic at all. */
static bool has_arith(const qni_weight_ref *ref, qn_arith arith) {
    const qni_source source = qni_weight_source(ref, arith);
    if (arith == QN_ARITH_BF16) return source.quant.kind == QNI_DENSE && source.dtype == QN_DTYPE_BF16;
    return arith != QN_ARITH_INT8 || (source.quant.kind == QNI_AFFINE && source.quant.group % 32 == 0);
}

/* The arithmetic that was asked for is for the linears that have it, the others choose; where none has it, all are asked
 * for it, so that the backend says why not. */
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

/* The form of a packed linear, without its data. */
static qn_status describe_linear(qni_weight *weight, uint64_t *sum, const qn_device *device, const qni_weight_ref *ref,
                                 qn_arith arith, qn_error *err) {
    qni_packing packing = {0};
    const qni_source source = qni_weight_source(ref, arith);
    QN_TRY(device->backend->packing(device->state, &packing, &source, err));
    *weight = packing.form;
    *sum += packing.bytes;
    return QN_OK;
}

/* Kernels take a norm without data for none; this one is there, but has no address yet. */
static qni_vec describe_norm(const qni_weight_ref *ref) {
    static const float nowhere = 0;
    return (qni_vec){&nowhere, qni_weight_dtype(ref->data.tensor), ref->rows};
}

/* A layer's linears by their number. */
typedef struct layer_linears {
    qni_weight *weight[QNI_N_LINEAR];
} layer_linears;
static layer_linears linears_of(qni_layer_weights *layer) {
    return (layer_linears){{
        [QNI_Q_PROJ] = &layer->attention.q_proj,
        [QNI_K_PROJ] = &layer->attention.k_proj,
        [QNI_V_PROJ] = &layer->attention.v_proj,
        [QNI_O_PROJ] = &layer->attention.o_proj,
        [QNI_GATE_PROJ] = &layer->mlp.gate_proj,
        [QNI_UP_PROJ] = &layer->mlp.up_proj,
        [QNI_DOWN_PROJ] = &layer->mlp.down_proj,
    }};
}

static qn_status describe_layer(qni_layer_weights *layer, uint64_t *sum, const qn_device *device,
                                const qni_layer_refs *refs, arith_choice choice, qn_error *err) {
    layer_linears linears = linears_of(layer);
    for (int k = 0; k < QNI_N_LINEAR; k++) {
        const qni_weight_ref *ref = &refs->slot[k];
        QN_TRY(describe_linear(linears.weight[k], sum, device, ref, arith_of(ref, choice), err));
    }
    layer->attention.norm = describe_norm(&refs->slot[QNI_NORM1]);
    layer->mlp.norm = describe_norm(&refs->slot[QNI_NORM2]);
    layer->attention.q_norm = describe_norm(&refs->slot[QNI_Q_NORM]);
    layer->attention.k_norm = describe_norm(&refs->slot[QNI_K_NORM]);
    return QN_OK;
}

static bool is_packed(const qni_weight_ref *ref) {
    return ref->quant.kind != QNI_DENSE || ref->to.kind != QNI_DENSE;
}

/* A tied table is the packed head. An untied one stays {V, H}, because single rows of it are gathered; but a quantised
 * one is packed, to be read in the same way as a tied one. */
static qn_status describe_table(qn_model *model, uint64_t *sum, const qni_checkpoint *c, qn_error *err) {
    if (c->config.tied) {
        model->embedding = model->lm_head;
        return QN_OK;
    }
    if (is_packed(&c->embedding)) {
        uint64_t bytes = 0;
        QN_TRY(describe_linear(&model->embedding, &bytes, model->device, &c->embedding, QN_ARITH_F32, err));
        model->table_bytes = (size_t)bytes;
        *sum += bytes;
        return QN_OK;
    }
    model->table_bytes = (size_t)c->embedding.data.tensor->bytes;
    *sum += model->table_bytes;
    model->embedding = (qni_weight){.dtype = qni_weight_dtype(c->embedding.data.tensor),
                                    .arith = QN_ARITH_F32,
                                    .n_in = c->config.d_model,
                                    .n_out = c->config.n_vocab,
                                    .nr = 1,
                                    .ki = 1,
                                    .panel_stride = c->config.d_model,
                                    .group_stride = 1};
    return QN_OK;
}

qn_status qni_model_describe(qn_model *model, uint64_t *bytes, const qni_checkpoint *c, qn_arith arith, qn_error *err) {
    model->config = c->config;
    model->layers = qni_calloc((size_t)c->config.n_layer, sizeof model->layers[0]);
    if (model->layers == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    uint64_t sum = 0;
    const arith_choice choice = choose_arith(c, arith);
    const qni_weight_ref *head = qni_checkpoint_head(c);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        QN_TRY(describe_layer(&model->layers[i], &sum, model->device, &c->layers[i], choice, err));
    }
    model->norm = describe_norm(&c->norm);
    QN_TRY(describe_linear(&model->lm_head, &sum, model->device, head, arith_of(head, choice), err));
    QN_TRY(describe_table(model, &sum, c, err));
    model->norms_bytes = norms_bytes(c);
    *bytes = sum + model->norms_bytes;
    return QN_OK;
}

static qn_status take_linear(qn_linear **out, qni_weight *weight, qn_device *device, const qni_weight_ref *ref,
                             qn_arith arith, qn_error *err) {
    const qni_source source = qni_weight_source(ref, arith);
    QN_TRY(qni_linear_create(out, device, &source, err));
    *weight = (*out)->weight;
    return QN_OK;
}

/* The next norm of the block. */
static void take_norm(qni_vec *norm, unsigned char **at, const qni_weight_ref *ref) {
    norm->data = *at;
    *at += norm_bytes(ref);
}

static qn_status take_layers(qn_model *model, const qni_checkpoint *c, arith_choice choice, qn_error *err) {
    unsigned char *at = model->norms;
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        qni_layer_weights *layer = &model->layers[i];
        const qni_weight_ref *slot = c->layers[i].slot;
        layer_linears linears = linears_of(layer);
        qn_linear **owned = model->linears + (size_t)i * QNI_N_LINEAR;
        for (int k = 0; k < QNI_N_LINEAR; k++) {
            const qn_arith arith = arith_of(&slot[k], choice);
            QN_TRY(take_linear(&owned[k], linears.weight[k], model->device, &slot[k], arith, err));
        }
        take_norm(&layer->attention.norm, &at, &slot[QNI_NORM1]);
        take_norm(&layer->mlp.norm, &at, &slot[QNI_NORM2]);
        take_norm(&layer->attention.q_norm, &at, &slot[QNI_Q_NORM]);
        take_norm(&layer->attention.k_norm, &at, &slot[QNI_K_NORM]);
    }
    take_norm(&model->norm, &at, &c->norm);
    return QN_OK;
}

/* Before anything is written, since a page stays where it was touched first. */
static void place(qn_model *model) {
    qn_device *device = model->device;
    if (device->backend->place == NULL) return;
    pthread_mutex_lock(&device->lock);
    for (int32_t i = 0; i < model->config.n_layer; i++) {
        device->backend->place(device->state, &model->layers[i], i == 0 ? &model->lm_head : NULL);
    }
    pthread_mutex_unlock(&device->lock);
}

qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *c, qn_arith arith, qn_error *err) {
    const qn_allocator *allocator = &model->device->allocator;
    uint64_t bytes = 0;
    QN_TRY(qni_model_describe(model, &bytes, c, arith, err));
    model->linears = qni_calloc((size_t)c->config.n_layer * QNI_N_LINEAR, sizeof model->linears[0]);
    if (model->linears == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    model->norms = qni_device_alloc(allocator, model->norms_bytes);
    if (model->norms == NULL) return qni_fail(err, QN_ENOMEM, "norms: no memory for %zu bytes", model->norms_bytes);
    const arith_choice choice = choose_arith(c, arith);
    const qni_weight_ref *head = qni_checkpoint_head(c);
    QN_TRY(take_layers(model, c, choice, err));
    QN_TRY(take_linear(&model->head_linear, &model->lm_head, model->device, head, arith_of(head, choice), err));
    place(model);
    if (c->config.tied) {
        model->embedding = model->lm_head;
        return QN_OK;
    }
    if (is_packed(&c->embedding)) {
        return take_linear(&model->table_linear, &model->embedding, model->device, &c->embedding, QN_ARITH_F32, err);
    }
    model->table = qni_device_alloc(allocator, model->table_bytes);
    if (model->table == NULL) {
        return qni_fail(err, QN_ENOMEM, "embedding: no memory for %zu bytes", model->table_bytes);
    }
    model->embedding.data = model->table;
    return QN_OK;
}

void qni_model_free(qn_model *model) {
    const qn_allocator *allocator = &model->device->allocator;
    for (size_t i = 0; model->linears != NULL && i < (size_t)model->config.n_layer * QNI_N_LINEAR; i++) {
        qn_linear_free(model->linears[i]);
    }
    qn_linear_free(model->head_linear);
    qn_linear_free(model->table_linear);
    qni_device_free(allocator, model->norms, model->norms_bytes);
    qni_device_free(allocator, model->table, model->table_bytes);
    qni_free(model->linears);
    qni_free(model->layers);
    qni_device_release(model->device);
    qni_free(model);
}
