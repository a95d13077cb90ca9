/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps tensor names to slots: the tensors of a dense Qwen3 checkpoint and their shapes; any other tensor is an error.
 * Source: Qwen3ForCausalLM in transformers.
 *
 * The names in a causal language model begin with "model.", except lm_head. Those in a base model (AutoModel,
 * Qwen3-Embedding) have no prefix; those in a model extracted from a larger one have a longer prefix. All tensors of a
 * checkpoint share one prefix: that of the embedding.
 */
#include "checkpoint.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Module paths without the prefix; those of a layer follow "layers.N.". */
static const char *const slot_names[QNI_N_SLOT] = {
    [QNI_Q_PROJ] = "self_attn.q_proj", [QNI_K_PROJ] = "self_attn.k_proj", [QNI_V_PROJ] = "self_attn.v_proj",
    [QNI_O_PROJ] = "self_attn.o_proj", [QNI_GATE_PROJ] = "mlp.gate_proj", [QNI_UP_PROJ] = "mlp.up_proj",
    [QNI_DOWN_PROJ] = "mlp.down_proj", [QNI_NORM1] = "input_layernorm",   [QNI_NORM2] = "post_attention_layernorm",
    [QNI_Q_NORM] = "self_attn.q_norm", [QNI_K_NORM] = "self_attn.k_norm",
};
static const char embedding_name[] = "embed_tokens";
static const char norm_name[] = "norm";
static const char head_name[] = "lm_head";
static const char usual_prefix[] = "model.";

/* Suffixes of a module's tensors, and their destinations. MLX has scales and biases, fp8 has weight_scale_inv. */
static const struct {
    const char *name;
    size_t offset;
} parts[] = {
    {"weight", offsetof(qni_weight_ref, data)},
    {"scales", offsetof(qni_weight_ref, scales)},
    {"weight_scale_inv", offsetof(qni_weight_ref, scales)},
    {"biases", offsetof(qni_weight_ref, biases)},
};

/* Split "layers.12.mlp.up_proj.weight" into 12 and the rest. Numbers are written as Python writes them. */
static bool split_layer(const char *name, int32_t *layer, const char **rest) {
    static const char prefix[] = "layers.";
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

static bool ends_in(const char *name, const char *suffix) {
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static bool begins_with(const char *name, const char *prefix, size_t n) {
    return strncmp(name, prefix, n) == 0;
}

/* The prefix of an embedding's name; false if the tensor is not an embedding. */
static bool find_embedding(const char *name, qni_tensor_prefix *out) {
    static const char suffix[] = "embed_tokens.weight";
    if (!ends_in(name, suffix)) return false;
    size_t n = strlen(name) - (sizeof suffix - 1);
    if (n >= sizeof out->text || (n > 0 && name[n - 1] != '.')) return false;
    memcpy(out->text, name, n);
    out->text[n] = '\0';
    out->n = n;
    return true;
}

/* The standard prefix if an embedding has it or no embedding is found; otherwise that of the first embedding. */
static qni_tensor_prefix find_prefix(const qni_weight_files *weights) {
    qni_tensor_prefix usual = {.n = sizeof usual_prefix - 1}, first = {.n = 0}, found;
    memcpy(usual.text, usual_prefix, sizeof usual_prefix);
    bool any = false;
    for (size_t i = 0; i < weights->n_file; i++) {
        for (size_t k = 0; k < weights->files[i].n_tensor; k++) {
            if (!find_embedding(weights->files[i].tensors[k].name, &found)) continue;
            if (strcmp(found.text, usual_prefix) == 0) return usual;
            if (!any) first = found;
            any = true;
        }
    }
    return any ? first : usual;
}

/* A tensor's name without the prefix, or NULL. lm_head is outside the base model, which is "model" in most
 * checkpoints. */
static const char *strip_prefix(const qni_tensor_prefix *prefix, const char *name) {
    const size_t n_usual = sizeof usual_prefix - 1, n_head = sizeof head_name - 1;
    size_t n_outer = prefix->n;
    if (n_outer >= n_usual && strcmp(prefix->text + n_outer - n_usual, usual_prefix) == 0) n_outer -= n_usual;
    if (begins_with(name, head_name, n_head)) return name;
    if (begins_with(name, prefix->text, n_outer) && begins_with(name + n_outer, head_name, n_head)) {
        return name + n_outer;
    }
    return begins_with(name, prefix->text, prefix->n) ? name + prefix->n : NULL;
}

/* Buffers of older exports, which are recomputed from rope_theta, and activation scales, which are unused because
 * activations stay f32. */
static bool is_ignored(const char *name) {
    return ends_in(name, "rotary_emb.inv_freq") || ends_in(name, "_proj.input_scale") ||
           ends_in(name, "_proj.activation_scale");
}

static qn_status unexpected(const qni_tensor_ref *ref, qn_error *err) {
    return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s is not part of a dense Qwen3 model",
                    qni_base_name(ref->file->file.path), ref->tensor->name);
}

static bool is_module(const char *name, size_t n, const char *module) {
    return strlen(module) == n && memcmp(name, module, n) == 0;
}

/* The weight for a module path of n bytes, or NULL. */
static qni_weight_ref *weight_of(qni_checkpoint *c, const char *name, size_t n, int32_t layer) {
    for (int i = 0; i < QNI_N_SLOT && layer >= 0; i++) {
        if (is_module(name, n, slot_names[i])) return &c->layers[layer].slot[i];
    }
    if (layer >= 0) return NULL;
    if (is_module(name, n, embedding_name)) return &c->embedding;
    if (is_module(name, n, norm_name)) return &c->norm;
    return is_module(name, n, head_name) ? &c->lm_head : NULL;
}

static qn_status bind_tensor(qni_checkpoint *c, const qni_tensor_ref *ref, qn_error *err) {
    const char *name = ref->tensor->name, *inner = strip_prefix(&c->prefix, name), *rest = inner;
    int32_t layer = -1;
    if (is_ignored(name)) return QN_OK;
    split_layer(inner, &layer, &rest);
    if (layer >= c->config.n_layer) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s, but num_hidden_layers is %d",
                        qni_base_name(ref->file->file.path), name, (int)c->config.n_layer);
    }
    const char *dot = strrchr(rest, '.');
    qni_weight_ref *weight = dot != NULL ? weight_of(c, rest, (size_t)(dot - rest), layer) : NULL;
    for (size_t i = 0; weight != NULL && i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(dot + 1, parts[i].name) != 0) continue;
        qni_tensor_ref *to = (qni_tensor_ref *)(void *)((unsigned char *)weight + parts[i].offset);
        if (to->tensor != NULL) return unexpected(ref, err); /* both kinds of scales */
        *to = *ref;
        if (to == &weight->data) weight->inner_name = inner;
        return QN_OK;
    }
    return unexpected(ref, err);
}

/* The highest layer number of any tensor, plus one. */
static int32_t count_layers(const qni_weight_files *weights, const qni_tensor_prefix *prefix) {
    int32_t most = 0;
    for (size_t i = 0; i < weights->n_file; i++) {
        for (size_t k = 0; k < weights->files[i].n_tensor; k++) {
            int32_t layer = 0;
            const char *rest = NULL, *inner = strip_prefix(prefix, weights->files[i].tensors[k].name);
            bool is_layer = inner != NULL && split_layer(inner, &layer, &rest);
            if (is_layer && layer + 1 > most) most = layer + 1;
        }
    }
    return most;
}

/* Call `visit` for each tensor. */
static qn_status for_each(qni_checkpoint *c, qn_status (*visit)(qni_checkpoint *, const qni_tensor_ref *, qn_error *),
                          qn_error *err) {
    for (size_t i = 0; i < c->weights.n_file; i++) {
        const qni_safetensors *file = &c->weights.files[i];
        for (size_t k = 0; k < file->n_tensor; k++) {
            qni_tensor_ref ref = {file, &file->tensors[k]};
            QN_TRY(visit(c, &ref, err));
        }
    }
    return QN_OK;
}

static qn_status check_prefix(qni_checkpoint *c, const qni_tensor_ref *ref, qn_error *err) {
    if (strip_prefix(&c->prefix, ref->tensor->name) != NULL || is_ignored(ref->tensor->name)) return QN_OK;
    return unexpected(ref, err);
}

static qn_status missing(const qni_checkpoint *c, const char *module, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "tensor %s%s.weight is missing", c->prefix.text, module);
}

static qn_status check_presence(const qni_checkpoint *c, qn_error *err) {
    if (c->embedding.data.tensor == NULL) return missing(c, embedding_name, err);
    for (int32_t layer = 0; layer < c->config.n_layer; layer++) {
        for (int i = 0; i < QNI_N_SLOT; i++) {
            if (c->layers[layer].slot[i].data.tensor != NULL) continue;
            return qni_fail(err, QN_EFORMAT, "tensor %slayers.%d.%s.weight is missing", c->prefix.text, (int)layer,
                            slot_names[i]);
        }
    }
    if (c->norm.data.tensor == NULL) return missing(c, norm_name, err);
    if (!c->config.tied && c->lm_head.data.tensor == NULL) {
        return qni_fail(err, QN_EFORMAT,
                        "tensor %s.weight is missing, and config.json does not say tie_word_embeddings true",
                        head_name);
    }
    return QN_OK;
}

/* Infer a size that config.json omits from an axis of a tensor, divided by another size (1 for most). Rows are
 * outputs regardless of a linear's storage. */
static qn_status derive(int32_t *size, const char *key, const qni_weight_ref *ref, int32_t unit, int32_t most,
                        qn_error *err) {
    if (*size > 0) return QN_OK;
    const qni_st_tensor *t = ref->data.tensor;
    int64_t rows = t->rank > 0 ? t->shape[0] : 0;
    if (rows < unit || rows % unit != 0 || rows / unit > most) {
        return qni_fail(err, QN_EFORMAT,
                        "config.json: %s is missing and cannot be inferred from tensor %s with shape %s", key, t->name,
                        qni_st_shape_text(t).text);
    }
    *size = (int32_t)(rows / unit);
    return QN_OK;
}

/* Order matters: head counts are inferred using head_dim. */
static qn_status derive_sizes(qni_checkpoint *c, qn_error *err) {
    qn_model_config *config = &c->config;
    const qni_weight_ref *slot = c->layers[0].slot;
    QN_TRY(derive(&config->d_model, "hidden_size", &c->norm, 1, QNI_MAX_D_MODEL, err));
    QN_TRY(derive(&config->n_vocab, "vocab_size", &c->embedding, 1, QNI_MAX_VOCAB, err));
    QN_TRY(derive(&config->d_ff, "intermediate_size", &slot[QNI_GATE_PROJ], 1, QNI_MAX_D_FF, err));
    QN_TRY(derive(&config->head_dim, "head_dim", &slot[QNI_Q_NORM], 1, QNI_MAX_HEAD_DIM, err));
    if (config->head_dim % 2 != 0) {
        return qni_fail(err, QN_EFORMAT, "tensor %s: head_dim must be even, got %d", slot[QNI_Q_NORM].data.tensor->name,
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

static qn_status check_linear(qni_checkpoint *c, qni_weight_ref *ref, int64_t rows, int64_t columns,
                              const qni_config *stated, qn_error *err) {
    ref->rows = rows;
    ref->columns = columns;
    c->config.n_parameter += (uint64_t)(rows * columns);
    return qni_weight_check(ref, &stated->quant, err);
}

static qn_status check_norm(qni_checkpoint *c, qni_weight_ref *ref, int64_t n, qn_error *err) {
    const qni_tensor_ref *data = &ref->data;
    ref->rows = n;
    ref->columns = 1;
    c->config.n_parameter += (uint64_t)n;
    if (ref->scales.tensor != NULL) return unexpected(&ref->scales, err);
    if (ref->biases.tensor != NULL) return unexpected(&ref->biases, err);
    QN_TRY(qni_tensor_check_shape(data, n, 0, err));
    if (qni_weight_dtype(data->tensor) != QN_DTYPE_DEFAULT) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype must be F32, BF16 or F16, got %s",
                    qni_base_name(data->file->file.path), data->tensor->name, qni_st_dtype_name(data->tensor->dtype));
}

static qn_status check_weights(qni_checkpoint *c, const qni_config *stated, qn_error *err) {
    const qn_model_config *config = &c->config;
    const int64_t h = config->d_model, f = config->d_ff, d = config->head_dim, v = config->n_vocab;
    const int64_t q = d * config->n_head, kv = d * config->n_kv_head;
    const struct {
        int64_t rows, columns;
    } linears[QNI_N_LINEAR] = {
        [QNI_Q_PROJ] = {q, h},    [QNI_K_PROJ] = {kv, h}, [QNI_V_PROJ] = {kv, h},   [QNI_O_PROJ] = {h, q},
        [QNI_GATE_PROJ] = {f, h}, [QNI_UP_PROJ] = {f, h}, [QNI_DOWN_PROJ] = {h, f},
    };
    QN_TRY(check_linear(c, &c->embedding, v, h, stated, err));
    for (int32_t layer = 0; layer < config->n_layer; layer++) {
        qni_weight_ref *slot = c->layers[layer].slot;
        for (int i = 0; i < QNI_N_LINEAR; i++) {
            QN_TRY(check_linear(c, &slot[i], linears[i].rows, linears[i].columns, stated, err));
        }
        QN_TRY(check_norm(c, &slot[QNI_NORM1], h, err));
        QN_TRY(check_norm(c, &slot[QNI_NORM2], h, err));
        QN_TRY(check_norm(c, &slot[QNI_Q_NORM], d, err));
        QN_TRY(check_norm(c, &slot[QNI_K_NORM], d, err));
    }
    QN_TRY(check_norm(c, &c->norm, h, err));
    return config->tied ? QN_OK : check_linear(c, &c->lm_head, v, h, stated, err);
}

/* Sets dtype, bits and group of the config: the first layer's q_proj represents all linears. */
static void set_storage_info(qn_model_config *config, const qni_weight_ref *ref) {
    const qni_quant *q = &ref->quant;
    config->dtype = qni_weight_dtype(ref->data.tensor);
    if (q->kind == QNI_DENSE) return;
    config->dtype = q->kind == QNI_FP8 ? QN_DTYPE_F8 : QN_DTYPE_U32;
    config->bits = q->bits;
    config->group = (int32_t)q->group;
}

qni_module_path qni_weight_usual_module(const qni_weight_ref *ref) {
    qni_module_path path;
    const char *name = ref->inner_name;
    const bool head = begins_with(name, head_name, sizeof head_name - 1);
    snprintf(path.text, sizeof path.text, "%s%.*s", head ? "" : usual_prefix, (int)(strlen(name) - strlen(".weight")),
             name);
    return path;
}

qn_status qni_checkpoint_match(qni_checkpoint *c, const qni_config *stated, const qn_log *log, qn_error *err) {
    c->prefix = find_prefix(&c->weights);
    QN_TRY(for_each(c, check_prefix, err));
    int32_t n_layer = stated->n_layer > 0 ? stated->n_layer : count_layers(&c->weights, &c->prefix);
    if (n_layer < 1) QN_TRY(for_each(c, bind_tensor, err)); /* report names with another prefix first */
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
    QN_TRY(for_each(c, bind_tensor, err));
    QN_TRY(check_presence(c, err));
    QN_TRY(derive_sizes(c, err));
    QN_TRY(check_weights(c, stated, err));
    if (c->config.tied) {
        c->head_copy = c->lm_head;
        c->lm_head = (qni_weight_ref){0};
    }
    set_storage_info(&c->config, &c->layers[0].slot[QNI_Q_PROJ]);
    if (c->prefix.n > 0 && strcmp(c->prefix.text, usual_prefix) != 0) {
        qni_log(log, "tensors named %s… are read as %s…", c->prefix.text, usual_prefix);
    }
    return QN_OK;
}
