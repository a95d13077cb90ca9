/* SPDX-License-Identifier: Apache-2.0 */
/* The special tokens named by tokenizer_config.json and special_tokens_map.json. New ones are added in the same order
 * as by transformers' AutoTokenizer (5.24). */
#include "tokenizer_impl.h"

#include <string.h>

static const char config_file[] = "tokenizer_config.json", map_file[] = "special_tokens_map.json";

/* The names that every tokenizer has, in transformers' order. */
static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
enum { N_NAMES = sizeof names / sizeof *names };

/* Qwen2Tokenizer's default for eos_token, unk_token and pad_token if a file lacks the key. */
static const char class_token[] = "<|endoftext|>";

typedef struct reader {
    qn_tokenizer *t;
    const json_t *config;
    const json_t *map; /* special_tokens_map.json if transformers reads it, else NULL */
    bool qwen2;        /* the class is Qwen2Tokenizer */
    qn_error *err;
} reader;

/* Also the class for files that name none. */
bool qni_tokenizer_is_qwen2(const json_t *config) {
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    return class == NULL || strcmp(class, "Qwen2Tokenizer") == 0 || strcmp(class, "Qwen2TokenizerFast") == 0;
}

bool qni_tokenizer_has_decoder(const qni_tokenizer_files *files) {
    const json_t *decoder = json_object_get(files->config, "added_tokens_decoder");
    return decoder != NULL && !json_is_null(decoder);
}

static reader make_reader(qn_tokenizer *t, const qni_tokenizer_files *files, qn_error *err) {
    const json_t *map = qni_tokenizer_has_decoder(files) ? NULL : files->special_map;
    return (reader){t, files->config, map, qni_tokenizer_is_qwen2(files->config), err};
}

static const json_t *value_of(const reader *r, const char *key) {
    const json_t *mapped = json_object_get(r->map, key);
    return mapped != NULL ? mapped : json_object_get(r->config, key);
}

static const char *file_of(const reader *r, const char *key) {
    return json_object_get(r->map, key) != NULL ? map_file : config_file;
}

/* A token is a string, or an object with "content". */
static const json_t *content_of(const json_t *token) {
    return qni_json_is_object(token) ? json_object_get(token, "content") : token;
}

static bool is_empty(const json_t *value) {
    return value == NULL || json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (qni_json_is_object(value) && json_object_size(value) == 0);
}

/* extra_special_tokens of tokenizer_config.json; if it is absent or empty, the key's former name. */
static const json_t *extra_of(const reader *r) {
    const json_t *extra = json_object_get(r->config, "extra_special_tokens");
    const json_t *former = json_object_get(r->config, "additional_special_tokens");
    return is_empty(extra) && former != NULL ? former : extra;
}

static bool holds(const json_t *value, const char *text) {
    const char *content = json_string_value(content_of(value));
    if (content != NULL) return strcmp(content, text) == 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (holds(json_array_get(value, i), text)) return true;
    }
    return false;
}

bool qni_tokenizer_names(const qni_tokenizer_files *files, const char *text) {
    const reader r = make_reader(NULL, files, NULL);
    for (size_t i = 0; i < N_NAMES; i++) {
        if (holds(value_of(&r, names[i]), text)) return true;
    }
    return holds(extra_of(&r), text) || holds(json_object_get(r.map, "extra_special_tokens"), text);
}

/* Add one special token. A new one gets the next id; one of the vocabulary becomes an added token. Named tokens are
 * always special. Qwen2Tokenizer makes the others special too, and matches all of them before normalization. */
static qn_status add_token(const reader *r, const qni_added_token *token, bool is_named) {
    qni_added_token one = *token;
    const int32_t known = qni_vocab_id(&r->t->vocab, one.text, one.size);
    if (known >= 0 && (r->t->vocab.token[known].kind & QNI_TOKEN_ADDED)) {
        uint32_t *kind = &r->t->vocab.token[known].kind;
        /* A token that added_tokens_decoder lacks: Qwen2Tokenizer adds a named one after all others; other classes
         * leave it unchanged. */
        if (!r->qwen2 && (*kind & QNI_TOKEN_UNLISTED)) return QN_OK;
        if (known < r->t->n_model || known == r->t->top_added) *kind &= ~(uint32_t)QNI_TOKEN_UNLISTED;
        if (r->qwen2 || is_named) qni_vocab_set_special(&r->t->vocab, known, r->qwen2);
        return QN_OK;
    }
    if (r->qwen2) {
        one.special = true;
        one.normalized = false;
    }
    return qni_tokenizer_add(r->t, &one, known >= 0 ? known : qni_tokenizer_next_id(r->t), r->err);
}

static qn_status read_special(const reader *r, const char *key, const json_t *token, bool is_named) {
    const json_t *content = content_of(token);
    if (!json_is_string(content)) {
        return qni_fail(r->err, QN_EFORMAT, "%.64s: must be a string or an object with \"content\"", key);
    }
    if (json_string_length(content) == 0) return QN_OK;
    qni_added_token one = {json_string_value(content), json_string_length(content), true, false};
    const int32_t known = qni_vocab_id(&r->t->vocab, one.text, one.size);
    const bool is_new = known < 0 || (r->t->vocab.token[known].kind & QNI_TOKEN_ADDED) == 0;
    if (is_new && qni_json_is_object(token)) {
        QN_TRY(qni_added_token_read(&one, token, key, true, r->err));
        if (is_named) one.special = true;
    }
    return add_token(r, &one, is_named);
}

static qn_status add_special(const reader *r, const char *file, const char *key, const json_t *token, bool is_named) {
    if (token == NULL || json_is_null(token)) return QN_OK;
    return qni_in_file(file, read_special(r, key, token, is_named), r->err);
}

static qn_status add_standard_names(const reader *r) {
    static const bool has_default[N_NAMES] = {false, true, true, false, true, false, false};
    for (size_t i = 0; i < N_NAMES; i++) {
        const json_t *token = value_of(r, names[i]);
        QN_TRY(add_special(r, file_of(r, names[i]), names[i], token, true));
        /* Skip a default that exists in no file: nothing names it. */
        const bool known = qni_vocab_id(&r->t->vocab, class_token, sizeof class_token - 1) >= 0;
        if (token != NULL || !has_default[i] || !r->qwen2 || !known) continue;
        QN_TRY(add_token(r, &(qni_added_token){class_token, sizeof class_token - 1, true, false}, true));
    }
    return QN_OK;
}

static bool is_model_name(const char *key) {
    const size_t size = strlen(key);
    if (size <= 6 || strcmp(key + size - 6, "_token") != 0) return false;
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strcmp(key, names[i]) == 0) return false;
    }
    return true;
}

/* Model-specific keys ("image_token"): first the objects of tokenizer_config.json, then those that only the map has,
 * then the strings of tokenizer_config.json. */
static qn_status add_model_names(const reader *r) {
    const char *key;
    json_t *token;
    /* Jansson's macro requires a non-const object; the object is not modified. */
    json_object_foreach((json_t *)r->config, key, token) {
        if (!is_model_name(key) || !qni_json_is_object(token)) continue;
        QN_TRY(add_special(r, file_of(r, key), key, value_of(r, key), true));
    }
    json_object_foreach((json_t *)r->map, key, token) {
        if (!is_model_name(key) || json_object_get(r->config, key) != NULL) continue;
        QN_TRY(add_special(r, map_file, key, token, true));
    }
    json_object_foreach((json_t *)r->config, key, token) {
        if (is_model_name(key) && json_is_string(token)) QN_TRY(add_special(r, config_file, key, token, true));
    }
    return QN_OK;
}

static qn_status add_object(const reader *r, const char *file, const json_t *object) {
    const char *key;
    json_t *token;
    json_object_foreach((json_t *)object, key, token) QN_TRY(add_special(r, file, key, token, true));
    return QN_OK;
}

static qn_status add_list(const reader *r, const char *file, const char *key, const json_t *list) {
    if (list == NULL || json_is_null(list)) return QN_OK;
    if (!json_is_array(list)) return qni_fail(r->err, QN_EFORMAT, "%s: %s must be a list of tokens", file, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        QN_TRY(add_special(r, file, key, json_array_get(list, i), false));
    }
    return QN_OK;
}

static bool has_model_text(const json_t *config) {
    const char *key;
    json_t *token;
    json_object_foreach((json_t *)config, key, token) {
        if (is_model_name(key) && json_is_string(token)) return true;
    }
    return false;
}

/* More model-specific names, as objects, then the lists of unnamed tokens. An object in the map replaces the list of
 * tokenizer_config.json; a list extends it. A list under the former name counts if no other list remains, unless it was
 * used as extra_special_tokens and replaced. */
static qn_status add_extra(const reader *r) {
    static const char key[] = "extra_special_tokens", former[] = "additional_special_tokens";
    const json_t *extra = extra_of(r), *mapped = json_object_get(r->map, key);
    const json_t *own = json_object_get(r->config, "model_specific_special_tokens");
    if (qni_json_is_object(extra)) {
        QN_TRY(add_object(r, config_file, extra));
        extra = NULL;
    } else if (qni_json_is_object(own) && !has_model_text(r->config)) {
        QN_TRY(add_object(r, config_file, own));
    }
    if (qni_json_is_object(mapped)) {
        QN_TRY(add_object(r, map_file, mapped));
        extra = mapped = NULL;
    }
    QN_TRY(add_list(r, config_file, key, extra));
    QN_TRY(add_list(r, map_file, key, mapped));
    if (extra != NULL || mapped != NULL) return QN_OK;
    const json_t *list = value_of(r, former);
    if (list == extra_of(r)) return QN_OK;
    return add_list(r, file_of(r, former), former, list);
}

/* Check a map that transformers does not read: it must name no other tokens. */
static qn_status check_known(const qn_tokenizer *t, const char *key, const json_t *value, qn_error *err) {
    const json_t *content = content_of(value);
    if (json_is_string(content)) {
        const char *text = json_string_value(content);
        const size_t size = json_string_length(content);
        if (size == 0 || qni_vocab_id(&t->vocab, text, size) >= 0) return QN_OK;
        return qni_fail(err, QN_EFORMAT, "%.64s: \"%.64s\" is in neither tokenizer.json nor tokenizer_config.json", key,
                        text);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        QN_TRY(check_known(t, key, json_array_get(value, i), err));
    }
    const char *inner;
    json_t *token;
    json_object_foreach((json_t *)value, inner, token) QN_TRY(check_known(t, inner, token, err));
    return QN_OK;
}

static int32_t eos_id(const reader *r) {
    const json_t *eos = value_of(r, "eos_token"), *content = content_of(eos);
    if (eos == NULL && r->qwen2) return qni_vocab_id(&r->t->vocab, class_token, sizeof class_token - 1);
    if (!json_is_string(content) || json_string_length(content) == 0) return -1;
    return qni_vocab_id(&r->t->vocab, json_string_value(content), json_string_length(content));
}

qn_status qni_tokenizer_read_special(qn_tokenizer *t, const qni_tokenizer_files *files, qn_error *err) {
    const reader r = make_reader(t, files, err);
    if (files->special_map != NULL && !qni_json_is_object(files->special_map)) {
        return qni_fail(err, QN_EFORMAT, "%s: must be an object", map_file);
    }
    QN_TRY(add_standard_names(&r));
    QN_TRY(add_model_names(&r));
    QN_TRY(add_extra(&r));
    if (r.map == NULL && files->special_map != NULL) {
        QN_TRY(qni_in_file(map_file, check_known(t, map_file, files->special_map, err), err));
    }
    t->eos = eos_id(&r);
    return QN_OK;
}
