/* SPDX-License-Identifier: Apache-2.0 */
/* The companions of tokenizer.json: tokenizer_config.json and added_tokens.json. Their tokens are added with their ids;
 * settings that require a different encoding are refused. Special tokens are in tokenizer_special.c. */
#include "../base/memory.h"
#include "tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A token and its id as listed in a file. */
typedef struct listed {
    int64_t id;
    const char *text;    /* the key in added_tokens.json, else NULL */
    const json_t *token; /* the value in added_tokens_decoder, else NULL */
} listed;

static int by_id(const void *a, const void *b) {
    const listed *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* A token listed in both files must be identical in both. */
static qn_status compare_added(const qn_tokenizer *t, const listed *one, qn_error *err) {
    const qni_token *known = &t->vocab.token[one->id];
    const char *text = qni_vocab_text(&t->vocab, (int32_t)one->id);
    const int id = (int)one->id, shown = known->text_size < 64 ? (int)known->text_size : 64;
    char where[64];
    snprintf(where, sizeof where, "added token %d", id);
    qni_added_token token;
    QN_TRY(qni_added_token_read(&token, one->token, where, true, err));
    if (token.size != known->text_size || memcmp(text, token.text, token.size) != 0) {
        return qni_fail(err, QN_EFORMAT, "added token %d: is \"%.64s\", but \"%.*s\" in tokenizer.json", id, token.text,
                        shown, text);
    }
    const bool special = known->kind & QNI_TOKEN_SPECIAL, normal = known->kind & QNI_TOKEN_NORMAL;
    if (special == token.special && normal == token.normalized) return QN_OK;
    return qni_fail(err, QN_EFORMAT, "added token %d: \"%s\" differs from tokenizer.json", id,
                    special != token.special ? "special" : "normalized");
}

static qn_status add_decoder_token(qn_tokenizer *t, const listed *one, qn_error *err) {
    if ((uint64_t)one->id < t->vocab.n && (t->vocab.token[one->id].kind & QNI_TOKEN_ADDED)) {
        return compare_added(t, one, err);
    }
    char where[64];
    snprintf(where, sizeof where, "added token %lld", (long long)one->id);
    qni_added_token token;
    QN_TRY(qni_added_token_read(&token, one->token, where, true, err));
    return qni_tokenizer_add(t, &token, one->id, err);
}

/* Mark the added tokens of tokenizer.json that the list lacks. */
static void mark_unlisted(qn_tokenizer *t, const listed *list, size_t n) {
    for (size_t id = 0, i = 0; id < t->vocab.n; id++) {
        while (i < n && (size_t)list[i].id < id) i++;
        if (i < n && (size_t)list[i].id == id) continue;
        if (t->vocab.token[id].kind & QNI_TOKEN_ADDED) t->vocab.token[id].kind |= QNI_TOKEN_UNLISTED;
    }
}

/* Qwen2Tokenizer reads its added tokens only from the list: without one, its ids differ. */
static qn_status check_unlisted(qn_tokenizer *t, bool qwen2, qn_error *err) {
    for (size_t id = 0; id < t->vocab.n; id++) {
        qni_token *token = &t->vocab.token[id];
        if (qwen2 && (token->kind & QNI_TOKEN_UNLISTED)) {
            return qni_fail(
                err, QN_EFORMAT, "added_tokens_decoder: lacks \"%.*s\", which tokenizer.json adds with id %zu",
                token->text_size < 64 ? (int)token->text_size : 64, qni_vocab_text(&t->vocab, (int32_t)id), id);
        }
        token->kind &= ~(uint32_t)QNI_TOKEN_UNLISTED;
    }
    return QN_OK;
}

static qn_status read_decoder(qn_tokenizer *t, const json_t *config, qn_error *err) {
    const json_t *added = json_object_get(config, "added_tokens_decoder");
    if (added == NULL || json_is_null(added)) return QN_OK;
    if (!qni_json_is_object(added)) return qni_fail(err, QN_EFORMAT, "added_tokens_decoder must be an object");
    listed *list = qni_calloc(json_object_size(added), sizeof *list);
    if (list == NULL) return qni_fail(err, QN_ENOMEM, "added_tokens_decoder: out of memory");
    size_t n = 0;
    qn_status status = QN_OK;
    const char *key;
    json_t *token;
    /* Jansson's macro requires a non-const object; the object is not modified. */
    json_object_foreach((json_t *)added, key, token) {
        int64_t id = 0;
        size_t digits = strspn(key, "0123456789");
        for (size_t i = 0; i < digits && id < QNI_ID_LIMIT; i++) id = id * 10 + (key[i] - '0');
        if (digits == 0 || key[digits] != '\0' || id >= QNI_ID_LIMIT) {
            status = qni_fail(err, QN_EFORMAT, "added_tokens_decoder: \"%.64s\" is not within 0 … %d", key,
                              QNI_ID_LIMIT - 1);
            break;
        }
        list[n++] = (listed){.id = id, .token = token};
    }
    qsort(list, n, sizeof *list, by_id);
    for (size_t i = 0; i < n && status == QN_OK; i++) status = add_decoder_token(t, &list[i], err);
    if (status == QN_OK) mark_unlisted(t, list, n);
    qni_free(list);
    return status;
}

/* Read added_tokens.json. If tokenizer_config.json has added_tokens_decoder, transformers ignores this file, so it must
 * add nothing new. */
static qn_status add_listed(qn_tokenizer *t, const listed *one, const qni_tokenizer_files *files, qn_error *err) {
    const bool adds = !qni_tokenizer_has_decoder(files);
    const size_t size = strlen(one->text);
    const int32_t known = qni_vocab_id(&t->vocab, one->text, size);
    if (known >= 0 && known != one->id) {
        return qni_fail(err, QN_EFORMAT, "token \"%.64s\": has id %lld, but %d in the other files", one->text,
                        (long long)one->id, known);
    }
    if (known < 0 && !adds) {
        return qni_fail(err, QN_EFORMAT, "token \"%.64s\": is in neither tokenizer.json nor added_tokens_decoder",
                        one->text);
    }
    if (!adds || (known >= 0 && (t->vocab.token[known].kind & QNI_TOKEN_ADDED))) return QN_OK;
    const bool special = qni_tokenizer_names(files, one->text);
    return qni_tokenizer_add(t, &(qni_added_token){one->text, size, special, !special}, one->id, err);
}

static qn_status read_list(qn_tokenizer *t, const qni_tokenizer_files *files, qn_error *err) {
    if (!qni_json_is_object(files->added)) return qni_fail(err, QN_EFORMAT, "must be an object");
    listed *list = qni_calloc(json_object_size(files->added), sizeof *list);
    if (list == NULL) return qni_fail(err, QN_ENOMEM, "out of memory");
    size_t n = 0;
    qn_status status = QN_OK;
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)files->added, text, id) {
        list[n] = (listed){.text = text};
        status = qni_tokenizer_read_id(&list[n++].id, id, text, err);
        if (status != QN_OK) break;
    }
    qsort(list, n, sizeof *list, by_id);
    for (size_t i = 0; i < n && status == QN_OK; i++) status = add_listed(t, &list[i], files, err);
    qni_free(list);
    return status;
}

/* Refuse settings that would change ids or text. */
static qn_status check_settings(const json_t *config, bool qwen2, qn_error *err) {
    static const char *const off[] = {"split_special_tokens",
                                      "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
                                      "add_prefix_space"};
    /* The last setting affects only Qwen2Tokenizer, which builds its pre-tokenizer from it. */
    for (size_t i = 0; i < sizeof off / sizeof *off - (qwen2 ? 0 : 1); i++) {
        const json_t *value = json_object_get(config, off[i]);
        if (value == NULL || json_is_null(value) || json_is_false(value)) continue;
        if (!json_is_true(value)) return qni_fail(err, QN_EFORMAT, "%s must be a boolean", off[i]);
        return qni_fail(err, QN_EUNSUPPORTED, "%s true is not supported", off[i]);
    }
    const json_t *others = json_object_get(config, "fast_tokenizer_files");
    for (size_t i = 0; i < json_array_size(others); i++) {
        const char *name = json_string_value(json_array_get(others, i));
        if (name != NULL && strcmp(name, "tokenizer.json") == 0) continue;
        return qni_fail(err, QN_EUNSUPPORTED,
                        "fast_tokenizer_files: \"%.64s\" instead of tokenizer.json is not supported",
                        name != NULL ? name : "");
    }
    return QN_OK;
}

static qn_status read_config(qn_tokenizer *t, const json_t *config, bool qwen2, qn_error *err) {
    if (config == NULL) return QN_OK;
    if (!qni_json_is_object(config)) return qni_fail(err, QN_EFORMAT, "must be an object");
    QN_TRY(check_settings(config, qwen2, err));
    return read_decoder(t, config, err);
}

qn_status qni_tokenizer_read_companions(qn_tokenizer *t, const qni_tokenizer_files *files, qn_error *err) {
    const bool qwen2 = qni_tokenizer_is_qwen2(files->config);
    QN_TRY(qni_in_file("tokenizer_config.json", read_config(t, files->config, qwen2, err), err));
    if (files->added != NULL) QN_TRY(qni_in_file("added_tokens.json", read_list(t, files, err), err));
    QN_TRY(qni_tokenizer_read_special(t, files, err));
    return qni_in_file("tokenizer_config.json", check_unlisted(t, qwen2, err), err);
}
