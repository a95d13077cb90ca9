/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor names to places: which tensors a dense Qwen3 checkpoint has, what shapes they have, and that there are no
 * others. Source: Qwen3ForCausalLM in transformers. */
#include "checkpoint.h"

#include <string.h>

static const char *const slot_names[QNI_N_SLOT] = {
    [QNI_Q_PROJ] = "self_attn.q_proj.weight",        [QNI_K_PROJ] = "self_attn.k_proj.weight",
    [QNI_V_PROJ] = "self_attn.v_proj.weight",        [QNI_O_PROJ] = "self_attn.o_proj.weight",
    [QNI_GATE_PROJ] = "mlp.gate_proj.weight",        [QNI_UP_PROJ] = "mlp.up_proj.weight",
    [QNI_DOWN_PROJ] = "mlp.down_proj.weight",        [QNI_NORM1] = "input_layernorm.weight",
    [QNI_NORM2] = "post_attention_layernorm.weight", [QNI_Q_NORM] = "self_attn.q_norm.weight",
    [QNI_K_NORM] = "self_attn.k_norm.weight",
};
static const char embedding_name[] = "model.embed_tokens.weight";
static const char norm_name[] = "model.norm.weight";
static const char head_name[] = "lm_head.weight";

qn_dtype qni_weight_dtype(const qni_st_tensor *tensor) {
    switch (tensor->dtype) {
    case QNI_ST_F32:
        return QN_DTYPE_F32;
    case QNI_ST_BF16:
        return QN_DTYPE_BF16;
    case QNI_ST_F16:
        return QN_DTYPE_F16;
    default:
        return QN_DTYPE_DEFAULT;
    }
}

/* Splits "model.layers.12.mlp.up_proj.weight" into 12 and the rest. Numbers are written as Python does. */
static bool split_layer(const char *name, int32_t *layer, const char **rest) {
    static const char prefix[] = "model.layers.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    const char *digit = name + sizeof prefix - 1;
    if (digit[0] == '0' && digit[1] != '.') return false;
    int32_t n = 0, n_digit = 0;
    for (; *digit >= '0' && *digit <= '9' && n_digit < 6; digit++, n_digit++) n = n * 10 + (*digit - '0');
    if (n_digit == 0 || *digit != '.') return false;
    *layer = n;
    *rest = digit + 1;
    return true;
}

/* Buffers of older exports; they are computed from rope_theta. */
static bool is_ignored(const char *name) {
    static const char suffix[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    return n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static qn_status unexpected(const qni_weight_ref *ref, qn_error *err) {
    return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s is not part of a dense Qwen3 model",
                    qni_base_name(ref->file->file.path), ref->tensor->name);
}

static qn_status place_in_layer(qni_checkpoint *c, const qni_weight_ref *ref, int32_t layer, const char *rest,
                                qn_error *err) {
    if (layer >= c->config.n_layer) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s, but num_hidden_layers is %d",
                        qni_base_name(ref->file->file.path), ref->tensor->name, (int)c->config.n_layer);
    }
    for (int i = 0; i < QNI_N_SLOT; i++) {
        if (strcmp(rest, slot_names[i]) == 0) {
            c->layers[layer].slot[i] = *ref;
            return QN_OK;
        }
    }
    return unexpected(ref, err);
}

static qn_status place(qni_checkpoint *c, const qni_weight_ref *ref, qn_error *err) {
    const char *name = ref->tensor->name, *rest = NULL;
    int32_t layer = 0;
    if (is_ignored(name)) return QN_OK;
    if (split_layer(name, &layer, &rest)) return place_in_layer(c, ref, layer, rest, err);
    if (strcmp(name, embedding_name) == 0) {
        c->embedding = *ref;
    } else if (strcmp(name, norm_name) == 0) {
        c->norm = *ref;
    } else if (strcmp(name, head_name) == 0) {
        c->lm_head = *ref;
    } else {
        return unexpected(ref, err);
    }
    return QN_OK;
}

/* One more than the highest layer that any tensor belongs to. */
static int32_t count_layers(const qni_weight_files *weights) {
    int32_t most = 0;
    for (size_t i = 0; i < weights->n_file; i++) {
        for (size_t k = 0; k < weights->files[i].n_tensor; k++) {
            int32_t layer = 0;
            const char *rest = NULL;
            bool is_layer = split_layer(weights->files[i].tensors[k].name, &layer, &rest);
            if (is_layer && layer + 1 > most) most = layer + 1;
        }
    }
    return most;
}

static qn_status place_all(qni_checkpoint *c, qn_error *err) {
    for (size_t i = 0; i < c->weights.n_file; i++) {
        const qni_safetensors *file = &c->weights.files[i];
        for (size_t k = 0; k < file->n_tensor; k++) {
            qni_weight_ref ref = {file, &file->tensors[k]};
            QN_TRY(place(c, &ref, err));
        }
    }
    return QN_OK;
}

static qn_status missing(const char *name, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "tensor %s is missing", name);
}

static qn_status check_presence(const qni_checkpoint *c, qn_error *err) {
    if (c->embedding.tensor == NULL) return missing(embedding_name, err);
    for (int32_t layer = 0; layer < c->config.n_layer; layer++) {
        for (int i = 0; i < QNI_N_SLOT; i++) {
            if (c->layers[layer].slot[i].tensor != NULL) continue;
            return qni_fail(err, QN_EFORMAT, "tensor model.layers.%d.%s is missing", (int)layer, slot_names[i]);
        }
    }
    if (c->norm.tensor == NULL) return missing(norm_name, err);
    if (!c->config.tied && c->lm_head.tensor == NULL) {
        return qni_fail(err, QN_EFORMAT, "tensor %s is missing, and config.json does not say tie_word_embeddings true",
                        head_name);
    }
    return QN_OK;
}

/* A size that config.json leaves out is an axis of a tensor, divided by another size (1 for most). */
static qn_status derive(int32_t *size, const char *key, const qni_weight_ref *ref, int32_t unit, int32_t most,
                        qn_error *err) {
    if (*size > 0) return QN_OK;
    int64_t rows = ref->tensor->rank > 0 ? ref->tensor->shape[0] : 0;
    if (rows < unit || rows % unit != 0 || rows / unit > most) {
        return qni_fail(err, QN_EFORMAT, "config.json: %s is missing, and tensor %s with shape %s does not tell it",
                        key, ref->tensor->name, qni_st_shape_text(ref->tensor).text);
    }
    *size = (int32_t)(rows / unit);
    return QN_OK;
}

/* Order matters: the numbers of heads are found with head_dim. */
static qn_status derive_sizes(qni_checkpoint *c, qn_error *err) {
    qn_model_config *config = &c->config;
    const qni_weight_ref *slot = c->layers[0].slot;
    QN_TRY(derive(&config->d_model, "hidden_size", &c->norm, 1, QNI_MAX_D_MODEL, err));
    QN_TRY(derive(&config->n_vocab, "vocab_size", &c->embedding, 1, QNI_MAX_VOCAB, err));
    QN_TRY(derive(&config->d_ff, "intermediate_size", &slot[QNI_GATE_PROJ], 1, QNI_MAX_D_FF, err));
    QN_TRY(derive(&config->head_dim, "head_dim", &slot[QNI_Q_NORM], 1, QNI_MAX_HEAD_DIM, err));
    if (config->head_dim % 2 != 0) {
        return qni_fail(err, QN_EFORMAT, "tensor %s: head_dim must be even, got %d", slot[QNI_Q_NORM].tensor->name,
                        (int)config->head_dim);
    }
    int32_t d = config->head_dim;
    QN_TRY(derive(&config->n_head, "num_attention_heads", &slot[QNI_Q_PROJ], d, QNI_MAX_HEAD, err));
    QN_TRY(derive(&config->n_kv_head, "num_key_value_heads", &slot[QNI_K_PROJ], d, QNI_MAX_HEAD, err));
    if (config->n_head % config->n_kv_head != 0) {
        return qni_fail(err, QN_EFORMAT, "num_attention_heads must be a multiple of num_key_value_heads, got %d and %d",
                        (int)config->n_head, (int)config->n_kv_head);
    }
    return QN_OK;
}

static qn_status check_tensor(qni_checkpoint *c, const qni_weight_ref *ref, int32_t rank, int64_t rows, int64_t columns,
                              qn_error *err) {
    const qni_st_tensor *t = ref->tensor;
    const char *file = qni_base_name(ref->file->file.path);
    if (t->rank != rank || t->shape[0] != rows || (rank == 2 && t->shape[1] != columns)) {
        qni_st_tensor wanted = {.rank = rank, .shape = {rows, columns}};
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s: shape must be %s, got %s", file, t->name,
                        qni_st_shape_text(&wanted).text, qni_st_shape_text(t).text);
    }
    if (qni_weight_dtype(t) == QN_DTYPE_DEFAULT) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype must be F32, BF16 or F16, got %s", file, t->name,
                        qni_st_dtype_name(t->dtype));
    }
    c->config.n_parameter += (uint64_t)(rows * (rank == 2 ? columns : 1));
    return QN_OK;
}

static qn_status check_shapes(qni_checkpoint *c, qn_error *err) {
    const qn_model_config *config = &c->config;
    int64_t h = config->d_model, f = config->d_ff, d = config->head_dim, v = config->n_vocab;
    int64_t q = d * config->n_head, kv = d * config->n_kv_head;
    const struct {
        int32_t rank;
        int64_t rows, columns;
    } shapes[QNI_N_SLOT] = {
        [QNI_Q_PROJ] = {2, q, h},    [QNI_K_PROJ] = {2, kv, h}, [QNI_V_PROJ] = {2, kv, h},   [QNI_O_PROJ] = {2, h, q},
        [QNI_GATE_PROJ] = {2, f, h}, [QNI_UP_PROJ] = {2, f, h}, [QNI_DOWN_PROJ] = {2, h, f}, [QNI_NORM1] = {1, h, 0},
        [QNI_NORM2] = {1, h, 0},     [QNI_Q_NORM] = {1, d, 0},  [QNI_K_NORM] = {1, d, 0},
    };
    QN_TRY(check_tensor(c, &c->embedding, 2, v, h, err));
    for (int32_t layer = 0; layer < config->n_layer; layer++) {
        for (int i = 0; i < QNI_N_SLOT; i++) {
            QN_TRY(check_tensor(c, &c->layers[layer].slot[i], shapes[i].rank, shapes[i].rows, shapes[i].columns, err));
        }
    }
    QN_TRY(check_tensor(c, &c->norm, 1, h, 0, err));
    return config->tied ? QN_OK : check_tensor(c, &c->lm_head, 2, v, h, err);
}

qn_status qni_checkpoint_match(qni_checkpoint *c, const qni_config *stated, qn_error *err) {
    int32_t n_layer = stated->n_layer > 0 ? stated->n_layer : count_layers(&c->weights);
    if (n_layer < 1 || n_layer > QNI_MAX_LAYER) {
        return qni_fail(err, QN_EFORMAT, "config.json: num_hidden_layers is missing, and the tensors name %d layers",
                        (int)n_layer);
    }
    c->config.n_layer = n_layer;
    c->config.n_head = stated->n_head;
    c->config.n_kv_head = stated->n_kv_head;
    c->config.head_dim = stated->head_dim;
    c->config.d_model = stated->d_model;
    c->config.d_ff = stated->d_ff;
    c->config.n_vocab = stated->n_vocab;
    c->config.tied = stated->tied;
    c->layers = qni_calloc((size_t)n_layer, sizeof c->layers[0]);
    if (c->layers == NULL) return qni_fail(err, QN_ENOMEM, "checkpoint: out of memory");
    QN_TRY(place_all(c, err));
    QN_TRY(check_presence(c, err));
    QN_TRY(derive_sizes(c, err));
    QN_TRY(check_shapes(c, err));
    if (c->config.tied) c->lm_head = (qni_weight_ref){0};
    c->config.dtype = qni_weight_dtype(c->layers[0].slot[QNI_Q_PROJ].tensor);
    return QN_OK;
}
