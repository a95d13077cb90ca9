/* SPDX-License-Identifier: Apache-2.0 */
/* The special tokens that a template sees as variables, named as in transformers 5: those of tokenizer_config.json
 * (model-specific names included), those of special_tokens_map.json if tokenizer_config.json has no
 * added_tokens_decoder, and the defaults of the tokenizer's class. */
#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"
#include "chat.h"

#include <string.h>

static const char *const standard_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                             "pad_token", "cls_token", "mask_token"};
enum { N_STANDARD = sizeof standard_names / sizeof *standard_names };

/* Classes of byte-level BPE tokenizers whose constructor has default tokens. These are "<|endoftext|>" unless the files
 * set another value, null included. */
static const struct {
    const char *class_name;
    const char *tokens;
} classes[] = {
    {"Qwen2Tokenizer", "eos_token unk_token pad_token"},
    {"Qwen2TokenizerFast", "eos_token unk_token pad_token"},
    {"GPT2Tokenizer", "bos_token eos_token unk_token"},
    {"GPT2TokenizerFast", "bos_token eos_token unk_token"},
};

typedef struct sources {
    const json_t *config; /* tokenizer_config.json, or NULL */
    json_t *map;          /* special_tokens_map.json, or NULL */
    json_t *model;        /* config.json, or NULL */
    const char *defaults; /* names of the class's default tokens, or NULL */
} sources;

qn_status qni_chat_json(json_t **out, const char *dir, const char *name, qn_error *err) {
    char *path = qni_path_join(dir, name);
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    qn_status status = QN_OK;
    if (qni_path_exists(path)) status = qni_json_read(out, path, QNI_CHAT_JSON, err);
    if (status == QN_OK && *out != NULL && !qni_json_is_object(*out)) {
        status = qni_fail(err, QN_EFORMAT, "%s: must be an object", path);
    }
    qni_free(path);
    return status;
}

/* The class named by tokenizer_config.json, else by config.json, else the default of the model type. */
static const char *class_name(const sources *s) {
    const char *name = json_string_value(json_object_get(s->config, "tokenizer_class"));
    if (name == NULL) name = json_string_value(json_object_get(s->model, "tokenizer_class"));
    if (name != NULL) return name;
    const char *model_type = json_string_value(json_object_get(s->model, "model_type"));
    bool qwen = model_type != NULL && (strcmp(model_type, "qwen2") == 0 || strcmp(model_type, "qwen3") == 0);
    return qwen ? "Qwen2Tokenizer" : NULL;
}

static qn_status read_sources(sources *s, const char *dir, qn_error *err) {
    if (json_object_get(s->config, "added_tokens_decoder") == NULL) {
        QN_TRY(qni_chat_json(&s->map, dir, "special_tokens_map.json", err));
    }
    if (json_string_value(json_object_get(s->config, "tokenizer_class")) == NULL) {
        QN_TRY(qni_chat_json(&s->model, dir, "config.json", err));
    }
    const char *name = class_name(s);
    for (size_t i = 0; name != NULL && i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(classes[i].class_name, name) == 0) s->defaults = classes[i].tokens;
    }
    return QN_OK;
}

static qn_status set_token(json_t *tokens, const char *file, const char *name, const json_t *value, qn_error *err) {
    if (json_is_null(value)) return QN_OK;
    const json_t *text = qni_json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(text)) return qni_fail(err, QN_EFORMAT, "%s: %s must be a string or null", file, name);
    if (json_object_set_new(tokens, name, json_copy((json_t *)text)) == 0) return QN_OK;
    return qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
}

static qn_status set_standard(json_t *tokens, const sources *s, qn_error *err) {
    for (size_t i = 0; i < N_STANDARD; i++) {
        const char *name = standard_names[i];
        const json_t *mapped = json_object_get(s->map, name), *value = json_object_get(s->config, name);
        if (mapped != NULL) {
            QN_TRY(set_token(tokens, "special_tokens_map.json", name, mapped, err));
        } else if (value != NULL) {
            QN_TRY(set_token(tokens, "tokenizer_config.json", name, value, err));
        } else if (s->defaults != NULL && strstr(s->defaults, name) != NULL) {
            if (json_object_set_new(tokens, name, json_string("<|endoftext|>")) != 0)
                return qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
        }
    }
    return QN_OK;
}

static bool is_standard(const char *name) {
    for (size_t i = 0; i < N_STANDARD; i++) {
        if (strcmp(name, standard_names[i]) == 0) return true;
    }
    return false;
}

/* Other keys of a file whose names end in "_token" and whose values are a string or, with `objects`, a token object. */
static qn_status set_others(json_t *tokens, const char *file, const json_t *from, bool objects, qn_error *err) {
    const char *name;
    json_t *value, *object = (json_t *)from; /* the iterator requires non-const; the object is not modified */
    json_object_foreach(object, name, value) {
        size_t n = strlen(name);
        if (n < 6 || strcmp(name + n - 6, "_token") != 0 || is_standard(name)) continue;
        /* In tokenizer_config.json such an object counts only if it is marked as a token. */
        bool marked =
            from == NULL || strcmp(file, "special_tokens_map.json") == 0 || json_object_get(value, "__type") != NULL;
        if (objects ? qni_json_is_object(value) && marked : json_is_string(value))
            QN_TRY(set_token(tokens, file, name, value, err));
    }
    return QN_OK;
}

/* "extra_special_tokens", which may be an object of named tokens, and its older name. */
static qn_status set_named(json_t *tokens, const char *file, const json_t *from, const char *key, qn_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(from, key), name, value) QN_TRY(set_token(tokens, file, name, value, err));
    return QN_OK;
}

static qn_status set_all(json_t *tokens, const sources *s, qn_error *err) {
    static const char config[] = "tokenizer_config.json", map[] = "special_tokens_map.json";
    QN_TRY(set_standard(tokens, s, err));
    QN_TRY(set_others(tokens, config, s->config, true, err));
    QN_TRY(set_others(tokens, map, s->map, true, err));
    QN_TRY(set_others(tokens, map, s->map, false, err));
    QN_TRY(set_others(tokens, config, s->config, false, err));
    bool named = json_object_get(s->config, "extra_special_tokens") != NULL;
    QN_TRY(set_named(tokens, config, s->config, "model_specific_special_tokens", err));
    QN_TRY(set_named(tokens, config, s->config, named ? "extra_special_tokens" : "additional_special_tokens", err));
    return set_named(tokens, map, s->map, "extra_special_tokens", err);
}

qn_status qni_chat_tokens(json_t **out, const char *dir, const json_t *config, qn_error *err) {
    sources s = {.config = config};
    if ((*out = json_object()) == NULL) return qni_fail(err, QN_ENOMEM, "special tokens: out of memory");
    if (dir == NULL) return QN_OK;
    qn_status status = read_sources(&s, dir, err);
    if (status == QN_OK) status = set_all(*out, &s, err);
    json_decref(s.map);
    json_decref(s.model);
    return status;
}
