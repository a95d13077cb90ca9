/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_config.json: tokens that tokenizer.json lacks, and the names of special tokens. */
#include "tokenizer_impl.h"

#include <string.h>

/* A token that both files have must be the same in both; "special" too. */
static qn_status compare_added(const qn_tokenizer *t, const json_t *token, int32_t id, qn_error *err) {
    const json_t *content = json_object_get(token, "content");
    const qni_token *known = &t->vocab.token[id];
    const char *text = json_string_value(content);
    if (text == NULL) return qni_fail(err, QN_EFORMAT, "added token %d: no content", id);
    int shown = known->text_size < 64 ? (int)known->text_size : 64;
    if (json_string_length(content) != known->text_size ||
        memcmp(text, qni_vocab_text(&t->vocab, id), known->text_size) != 0) {
        return qni_fail(err, QN_EFORMAT, "added token %d: is \"%.64s\", but \"%.*s\" in tokenizer.json", id, text,
                        shown, qni_vocab_text(&t->vocab, id));
    }
    if (json_is_true(json_object_get(token, "special")) != ((known->kind & QNI_TOKEN_SPECIAL) != 0)) {
        return qni_fail(err, QN_EFORMAT, "added token %d: \"special\" differs from tokenizer.json", id);
    }
    return QN_OK;
}

/* What transformers' Qwen2Tokenizer names where the file does not. It is also the class of files that name none. */
static const char class_eos[] = "<|endoftext|>";

static bool is_default_class(const json_t *config) {
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    return class == NULL || strcmp(class, "Qwen2Tokenizer") == 0 || strcmp(class, "Qwen2TokenizerFast") == 0;
}

static int32_t read_eos(const qn_tokenizer *t, const json_t *config) {
    const json_t *eos = json_object_get(config, "eos_token");
    if (eos == NULL) return is_default_class(config) ? qni_vocab_id(&t->vocab, class_eos, strlen(class_eos)) : -1;
    if (json_is_object(eos)) eos = json_object_get(eos, "content");
    return json_is_string(eos) ? qni_vocab_id(&t->vocab, json_string_value(eos), json_string_length(eos)) : -1;
}

static qn_status read_added_tokens(qn_tokenizer *t, const json_t *config, qn_error *err) {
    const json_t *added = json_object_get(config, "added_tokens_decoder");
    if (added == NULL || json_is_null(added)) return QN_OK;
    if (!json_is_object(added)) return qni_fail(err, QN_EFORMAT, "added_tokens_decoder is no object");
    const char *key;
    json_t *token;
    json_object_foreach((json_t *)added, key, token) {
        int64_t id = 0;
        size_t digits = strspn(key, "0123456789");
        for (size_t i = 0; i < digits && id < QNI_ID_LIMIT; i++) id = id * 10 + (key[i] - '0');
        if (digits == 0 || key[digits] != '\0' || id >= QNI_ID_LIMIT) {
            return qni_fail(err, QN_EFORMAT, "added_tokens_decoder: \"%.64s\" is not within 0 … %d", key,
                            QNI_ID_LIMIT - 1);
        }
        bool known = (uint64_t)id < t->vocab.n && (t->vocab.token[id].kind & QNI_TOKEN_ADDED);
        QN_TRY(known ? compare_added(t, token, (int32_t)id, err) : qni_tokenizer_add(t, token, id, err));
    }
    return QN_OK;
}

qn_status qni_tokenizer_read_config(qn_tokenizer *t, const json_t *config, qn_error *err) {
    if (config == NULL) {
        t->eos = read_eos(t, NULL);
        return QN_OK;
    }
    if (!json_is_object(config)) return qni_fail(err, QN_EFORMAT, "is no object");
    QN_TRY(read_added_tokens(t, config, err));
    t->eos = read_eos(t, config);
    return QN_OK;
}
