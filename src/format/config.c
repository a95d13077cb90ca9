/* SPDX-License-Identifier: Apache-2.0 */
/* config.json: sizes and constants. Sources: PreTrainedConfig and Qwen3Config of transformers 4.51 and 5. */
#include "config.h"

#include "../base/json_get.h"

#include <string.h>

static const char file_name[] = "config.json";

/* A required text with one supported value; any other is a different model. */
static qn_status expect_text(const json_t *root, const char *key, const char *wanted, qn_error *err) {
    const json_t *value = qni_json_get(root, key);
    if (value == NULL) return qni_fail(err, QN_EFORMAT, "%s: %s is missing", file_name, key);
    if (!json_is_string(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be a string, got %s", file_name, key, qni_json_text(value).text);
    }
    if (strcmp(json_string_value(value), wanted) != 0) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: %s must be \"%s\", got %s", file_name, key, wanted,
                        qni_json_text(value).text);
    }
    return QN_OK;
}

/* architectures, if present, must name the causal language model or the base model, whose LM head is its embedding.
 * Other architectures have another head on the same layers. */
static qn_status read_architectures(const json_t *root, qn_error *err) {
    static const char wanted[] = "Qwen3ForCausalLM", base[] = "Qwen3Model";
    const json_t *list = qni_json_get(root, "architectures");
    if (list == NULL) return QN_OK;
    if (!json_is_array(list)) {
        return qni_fail(err, QN_EFORMAT, "%s: architectures must be a list, got %s", file_name,
                        qni_json_text(list).text);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL) return qni_fail(err, QN_EFORMAT, "%s: architectures must hold texts", file_name);
        if (strcmp(name, wanted) == 0 || strcmp(name, base) == 0) return QN_OK;
    }
    if (json_array_size(list) == 0) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: architectures must hold \"%s\" or \"%s\", got %s", file_name, wanted,
                    base, qni_json_text(json_array_get(list, 0)).text);
}

/* layer_types, if present: "full_attention" for every layer. */
static qn_status read_layer_types(const json_t *root, int32_t n_layer, qn_error *err) {
    const json_t *list = qni_json_get(root, "layer_types");
    if (list == NULL) return QN_OK;
    if (!json_is_array(list)) {
        return qni_fail(err, QN_EFORMAT, "%s: layer_types must be a list, got %s", file_name, qni_json_text(list).text);
    }
    size_t n = json_array_size(list);
    if (n_layer > 0 && n != (size_t)n_layer) {
        return qni_fail(err, QN_EFORMAT, "%s: layer_types names %zu layers, num_hidden_layers is %d", file_name, n,
                        (int)n_layer);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item) || strcmp(json_string_value(item), "full_attention") != 0) {
            return qni_fail(err, QN_EUNSUPPORTED, "%s: layer_types of layer %zu must be \"full_attention\", got %s",
                            file_name, i, qni_json_text(item).text);
        }
    }
    return QN_OK;
}

/* The old and new names of the dtype must agree. Each tensor's dtype comes from its file. */
static qn_status read_dtype(const json_t *root, qn_error *err) {
    const json_t *classic = qni_json_get(root, "torch_dtype"), *modern = qni_json_get(root, "dtype");
    const json_t *both[] = {classic, modern};
    for (int i = 0; i < 2; i++) {
        if (both[i] != NULL && !json_is_string(both[i])) {
            return qni_fail(err, QN_EFORMAT, "%s: %s must be a string, got %s", file_name, i ? "dtype" : "torch_dtype",
                            qni_json_text(both[i]).text);
        }
    }
    if (classic != NULL && modern != NULL && strcmp(json_string_value(classic), json_string_value(modern)) != 0) {
        return qni_fail(err, QN_EFORMAT, "%s: torch_dtype is %s and dtype is %s", file_name,
                        qni_json_text(classic).text, qni_json_text(modern).text);
    }
    return QN_OK;
}

/* All sizes are optional except max_position_embeddings, which cannot be inferred from any tensor. */
static qn_status read_sizes(qni_config *c, const json_t *root, qn_error *err) {
    const struct {
        const char *key;
        int32_t *to;
        int64_t least, most;
    } sizes[] = {
        {"num_hidden_layers", &c->n_layer, 1, QNI_MAX_LAYER},
        {"num_attention_heads", &c->n_head, 1, QNI_MAX_HEAD},
        {"num_key_value_heads", &c->n_kv_head, 1, QNI_MAX_HEAD},
        {"head_dim", &c->head_dim, 2, QNI_MAX_HEAD_DIM},
        {"hidden_size", &c->d_model, 1, QNI_MAX_D_MODEL},
        {"intermediate_size", &c->d_ff, 1, QNI_MAX_D_FF},
        {"vocab_size", &c->n_vocab, 1, QNI_MAX_VOCAB},
        {"max_position_embeddings", &c->n_ctx_max, 1, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        QN_TRY(qni_json_get_int(sizes[i].to, NULL, root, file_name, sizes[i].key, sizes[i].least, sizes[i].most, err));
    }
    if (c->n_ctx_max == 0) return qni_fail(err, QN_EFORMAT, "%s: max_position_embeddings is missing", file_name);
    if (c->head_dim % 2 != 0) {
        return qni_fail(err, QN_EFORMAT, "%s: head_dim must be even, got %d", file_name, (int)c->head_dim);
    }
    if (c->n_head > 0 && c->n_kv_head > 0 && c->n_head % c->n_kv_head != 0) {
        return qni_fail(err, QN_EFORMAT,
                        "%s: num_attention_heads must be a multiple of num_key_value_heads, got %d and %d", file_name,
                        (int)c->n_head, (int)c->n_kv_head);
    }
    return QN_OK;
}

qn_status qni_config_read(qni_config *out, const json_t *root, const qn_log *log, qn_error *err) {
    qni_config c = {0};
    if (!qni_json_is_object(root)) return qni_fail(err, QN_EFORMAT, "%s: must be a JSON object", file_name);
    QN_TRY(expect_text(root, "model_type", "qwen3", err));
    QN_TRY(read_architectures(root, err));
    QN_TRY(qni_config_check_keys(root, log, err));
    QN_TRY(expect_text(root, "hidden_act", "silu", err));
    QN_TRY(read_dtype(root, err));
    QN_TRY(read_sizes(&c, root, err));
    QN_TRY(read_layer_types(root, c.n_layer, err));
    bool has = false;
    QN_TRY(qni_json_get_number(&c.rms_eps, &has, root, file_name, "rms_norm_eps", err));
    if (!has) return qni_fail(err, QN_EFORMAT, "%s: rms_norm_eps is missing", file_name);
    /* eps is added to a mean of f32 squares: below the least normal float it would be lost, from 1 on it would
     * dominate. */
    if (!(c.rms_eps >= 1e-37 && c.rms_eps < 1.0)) {
        return qni_fail(err, QN_EFORMAT, "%s: rms_norm_eps must be more than 0 and less than 1, got %.17g", file_name,
                        c.rms_eps);
    }
    QN_TRY(qni_config_read_rope(&c, root, log, err));
    QN_TRY(qni_json_get_bool(&c.tied, NULL, root, file_name, "tie_word_embeddings", err));
    QN_TRY(qni_config_read_ids(&c.ids, root, file_name, err));
    QN_TRY(qni_config_read_quant(&c.quant, root, log, err)); /* last: it holds a reference */
    *out = c;
    return QN_OK;
}
