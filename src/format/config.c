/* SPDX-License-Identifier: Apache-2.0 */
/* config.json: sizes, constants and token ids. Sources: PreTrainedConfig and Qwen3Config of transformers 4.51 and 5. */
#include "config.h"

#include "../base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char file_name[] = "config.json";

qni_value_text qni_json_text(const json_t *value) {
    qni_value_text out = {""};
    const char *large = qni_json_large(value);
    if (large != NULL) {
        bool fits = strlen(large) <= 40;
        snprintf(out.text, sizeof out.text, "%.*s%s", fits ? 40 : 20, large, fits ? "" : "…");
        return out;
    }
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        snprintf(out.text, sizeof out.text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL: /* the fewest digits that round-trip */
        for (int n = 15; n <= 17; n++) {
            snprintf(out.text, sizeof out.text, "%.*g", n, json_real_value(value));
            if (strtod(out.text, NULL) == json_real_value(value)) break;
        }
        break;
    case JSON_STRING: {
        const char *text = json_string_value(value);
        bool fits = strlen(text) < 40;
        snprintf(out.text, sizeof out.text, fits ? "\"%s\"" : "a long text", text);
        break;
    }
    default: {
        static const char *const words[] = {[JSON_OBJECT] = "an object",
                                            [JSON_ARRAY] = "a list",
                                            [JSON_TRUE] = "true",
                                            [JSON_FALSE] = "false",
                                            [JSON_NULL] = "null"};
        snprintf(out.text, sizeof out.text, "%s", words[json_typeof(value)]);
    }
    }
    return out;
}

/* The value of a key, or NULL if missing or null. */
static const json_t *value_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

qn_status qni_json_get_int(int32_t *out, bool *has, const json_t *object, const char *file, const char *key,
                           int64_t least, int64_t most, qn_error *err) {
    const json_t *value = value_of(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    if (qni_json_big(value) != NULL) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be %" PRId64 " to %" PRId64 ", got %s, which is too large", file,
                        key, least, most, qni_json_text(value).text);
    }
    if (!json_is_integer(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be an integer, got %s", file, key, qni_json_text(value).text);
    }
    json_int_t n = json_integer_value(value);
    if (n < least || n > most) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be %" PRId64 " to %" PRId64 ", got %" PRId64, file, key, least,
                        most, (int64_t)n);
    }
    *out = (int32_t)n;
    return QN_OK;
}

qn_status qni_json_get_number(double *out, bool *has, const json_t *object, const char *file, const char *key,
                              qn_error *err) {
    const json_t *value = value_of(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    double x = 0;
    if (!qni_json_number(&x, value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be a number, got %s", file, key, qni_json_text(value).text);
    }
    if (!isfinite(x)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s is %s, which is too large", file, key, qni_json_text(value).text);
    }
    *out = x;
    return QN_OK;
}

qn_status qni_json_get_bool(bool *out, bool *has, const json_t *object, const char *file, const char *key,
                            qn_error *err) {
    const json_t *value = value_of(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    if (!json_is_boolean(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be true or false, got %s", file, key, qni_json_text(value).text);
    }
    *out = json_is_true(value);
    return QN_OK;
}

/* A required text with one supported value; any other is a different model. */
static qn_status expect_text(const json_t *root, const char *key, const char *wanted, qn_error *err) {
    const json_t *value = value_of(root, key);
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
    const json_t *list = value_of(root, "architectures");
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
    const json_t *list = value_of(root, "layer_types");
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
    const json_t *classic = value_of(root, "torch_dtype"), *modern = value_of(root, "dtype");
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

static qn_status add_eos(qni_token_ids *ids, const json_t *value, const char *file, qn_error *err) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= QNI_MAX_VOCAB) {
        return qni_fail(err, QN_EFORMAT, "%s: eos_token_id must be an id or a list of ids, got %s%s", file,
                        qni_json_text(value).text, qni_json_large(value) != NULL ? ", which is too large" : "");
    }
    int32_t id = (int32_t)json_integer_value(value);
    for (int32_t i = 0; i < ids->n_eos; i++) {
        if (ids->eos[i] == id) return QN_OK;
    }
    if (ids->n_eos == QNI_MAX_EOS) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: eos_token_id has more than %d ids", file, QNI_MAX_EOS);
    }
    ids->eos[ids->n_eos++] = id;
    return QN_OK;
}

qn_status qni_config_read_ids(qni_token_ids *ids, const json_t *root, const char *file, qn_error *err) {
    *ids = (qni_token_ids){.bos = -1};
    QN_TRY(qni_json_get_int(&ids->bos, NULL, root, file, "bos_token_id", 0, QNI_MAX_VOCAB - 1, err));
    const json_t *eos = value_of(root, "eos_token_id");
    if (eos == NULL) return QN_OK;
    if (!json_is_array(eos)) return add_eos(ids, eos, file, err);
    for (size_t i = 0; i < json_array_size(eos); i++) {
        QN_TRY(add_eos(ids, json_array_get(eos, i), file, err));
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
