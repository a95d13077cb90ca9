/* SPDX-License-Identifier: Apache-2.0 */
/* Read tokenizer.json, which is untrusted: every value is checked, and every setting that changes the result is either
 * supported or refused by name. */
#include "../base/memory.h"
#include "pattern.h"
#include "tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

static qn_status read_normalizer(qn_tokenizer *t, const json_t *normalizer, qn_error *err) {
    if (normalizer == NULL || json_is_null(normalizer)) return QN_OK;
    if (qni_is_type(normalizer, "NFC")) {
        t->nfc = true;
        return QN_OK;
    }
    if (!qni_is_type(normalizer, "Sequence")) return qni_unknown_type(normalizer, "normalizer", err);
    const json_t *list = json_object_get(normalizer, "normalizers");
    if (!json_is_array(list)) return qni_fail(err, QN_EFORMAT, "normalizer Sequence: normalizers must be an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (json_is_null(one)) return qni_unknown_type(one, "normalizer", err);
        QN_TRY(read_normalizer(t, one, err));
    }
    return QN_OK;
}

static qn_status read_split(qn_tokenizer *t, const json_t *split, qn_error *err) {
    const char *what = "pre_tokenizer Split";
    const json_t *pattern = json_object_get(split, "pattern"), *behavior = json_object_get(split, "behavior");
    if (!qni_json_is_object(pattern)) return qni_fail(err, QN_EFORMAT, "%s: pattern must be an object", what);
    const json_t *regex = json_object_get(pattern, "Regex");
    if (regex == NULL && json_object_get(pattern, "String") != NULL) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: a String pattern is not supported", what);
    }
    if (!json_is_string(regex)) return qni_fail(err, QN_EFORMAT, "%s: pattern has no Regex string", what);
    if (!json_is_string(behavior)) return qni_fail(err, QN_EFORMAT, "%s: behavior must be a string", what);
    if (strcmp(json_string_value(behavior), "Isolated") != 0) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: behavior %s is not supported", what, json_string_value(behavior));
    }
    QN_TRY(qni_tokenizer_expect_false(split, what, "invert", false, err));
    return qni_splitting_add(t->splitting, json_string_value(regex), json_string_length(regex), err);
}

static qn_status read_byte_level(qn_tokenizer *t, const json_t *level, qn_error *err) {
    const char *what = "pre_tokenizer ByteLevel";
    QN_TRY(qni_tokenizer_expect_false(level, what, "add_prefix_space", true, err));
    const json_t *use = json_object_get(level, "use_regex");
    if (use != NULL && !json_is_boolean(use)) return qni_fail(err, QN_EFORMAT, "%s: use_regex must be a boolean", what);
    if (json_is_false(use)) return QN_OK;
    return qni_splitting_add(t->splitting, qni_pattern_gpt2, strlen(qni_pattern_gpt2), err);
}

/* Splits followed by one ByteLevel; a Sequence may contain Sequences. */
static qn_status read_pre_tokenizer(qn_tokenizer *t, const json_t *one, bool *byte_level, qn_error *err) {
    if (qni_is_type(one, "Sequence")) {
        const json_t *list = json_object_get(one, "pretokenizers");
        if (!json_is_array(list))
            return qni_fail(err, QN_EFORMAT, "pre_tokenizer Sequence: pretokenizers must be an array");
        for (size_t i = 0; i < json_array_size(list); i++) {
            QN_TRY(read_pre_tokenizer(t, json_array_get(list, i), byte_level, err));
        }
        return QN_OK;
    }
    bool split = qni_is_type(one, "Split");
    if (!split && !qni_is_type(one, "ByteLevel")) return qni_unknown_type(one, "pre_tokenizer", err);
    if (*byte_level) {
        return qni_fail(err, QN_EUNSUPPORTED, "pre_tokenizer %s after ByteLevel is not supported", qni_type_of(one));
    }
    *byte_level = !split;
    return split ? read_split(t, one, err) : read_byte_level(t, one, err);
}

static qn_status read_pipeline(qn_tokenizer *t, const json_t *root, qn_error *err) {
    const json_t *pre = json_object_get(root, "pre_tokenizer"), *decoder = json_object_get(root, "decoder");
    bool byte_level = false;
    QN_TRY(read_normalizer(t, json_object_get(root, "normalizer"), err));
    QN_TRY(qni_splitting_create(&t->splitting, QNI_SPLIT_FASTEST, err));
    if (pre != NULL && !json_is_null(pre)) QN_TRY(read_pre_tokenizer(t, pre, &byte_level, err));
    if (!byte_level) return qni_fail(err, QN_EUNSUPPORTED, "a pre_tokenizer without ByteLevel is not supported");
    if (decoder == NULL || json_is_null(decoder)) {
        return qni_fail(err, QN_EUNSUPPORTED, "decoder is missing; only ByteLevel is supported");
    }
    if (!qni_is_type(decoder, "ByteLevel")) return qni_unknown_type(decoder, "decoder", err);
    return QN_OK;
}

static qn_status read_vocab(qn_tokenizer *t, const json_t *vocab, qn_error *err) {
    if (!qni_json_is_object(vocab)) return qni_fail(err, QN_EFORMAT, "model: vocab must be an object");
    QN_TRY(qni_vocab_reserve(&t->vocab, json_object_size(vocab), err));
    const char *text;
    json_t *id;
    /* Jansson's macro requires a non-const object; the object is not modified. */
    json_object_foreach((json_t *)vocab, text, id) {
        size_t size = strlen(text);
        int64_t value;
        QN_TRY(qni_tokenizer_read_id(&value, id, text, err));
        if (size > t->longest) t->longest = size;
        QN_TRY(qni_vocab_add(&t->vocab, text, size, value, QNI_TOKEN_ORDINARY, err));
    }
    t->n_model = (int64_t)json_object_size(vocab);
    return QN_OK;
}

typedef struct view {
    const char *data;
    size_t size;
} view;

/* The two texts of a merge: ["a", "b"] or "a b". */
static bool merge_texts(const json_t *merge, view *left, view *right) {
    if (json_is_array(merge)) {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b)) return false;
        *left = (view){json_string_value(a), json_string_length(a)};
        *right = (view){json_string_value(b), json_string_length(b)};
        return true;
    }
    const char *text = json_string_value(merge);
    if (text == NULL) return false;
    size_t size = json_string_length(merge);
    const char *space = memchr(text, ' ', size);
    if (space == NULL) return false;
    *left = (view){text, (size_t)(space - text)};
    *right = (view){space + 1, size - left->size - 1};
    return memchr(right->data, ' ', right->size) == NULL;
}

static qn_status unknown_token(size_t index, view text, qn_error *err) {
    int shown = text.size < 64 ? (int)text.size : 64;
    return qni_fail(err, QN_EFORMAT, "merge %zu: \"%.*s\" is not in the vocab", index, shown, text.data);
}

static qn_status read_merge(qn_tokenizer *t, const json_t *merge, size_t index, qn_text *joined, qn_error *err) {
    view left, right;
    if (!merge_texts(merge, &left, &right)) {
        return qni_fail(err, QN_EFORMAT, "merge %zu: must be a pair of tokens", index);
    }
    int32_t left_id = qni_vocab_id(&t->vocab, left.data, left.size);
    int32_t right_id = qni_vocab_id(&t->vocab, right.data, right.size);
    if (left_id < 0) return unknown_token(index, left, err);
    if (right_id < 0) return unknown_token(index, right, err);
    joined->size = 0;
    if (!qni_text_append(joined, left.data, left.size) || !qni_text_append(joined, right.data, right.size)) {
        return qni_fail(err, QN_ENOMEM, "merges: out of memory");
    }
    int32_t merged = qni_vocab_id(&t->vocab, joined->data, joined->size);
    if (merged < 0) return unknown_token(index, (view){joined->data, joined->size}, err);
    if (qni_bpe_add(&t->bpe, left_id, right_id, merged)) return QN_OK;
    return qni_fail(err, QN_EFORMAT, "merge %zu: duplicate pair \"%.64s\"", index, joined->data);
}

static qn_status expect_empty(const json_t *model, const char *key, qn_error *err) {
    const json_t *value = json_object_get(model, key);
    if (value == NULL || json_is_null(value)) return QN_OK;
    if (!json_is_string(value)) return qni_fail(err, QN_EFORMAT, "model: %s must be a string", key);
    if (json_string_length(value) == 0) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "model: %s \"%.64s\" is not supported", key, json_string_value(value));
}

static qn_status read_model(qn_tokenizer *t, const json_t *model, qn_error *err) {
    if (!qni_json_is_object(model)) return qni_fail(err, QN_EFORMAT, "model must be an object");
    /* Old files omit the type. */
    if (json_object_get(model, "type") != NULL && !qni_is_type(model, "BPE"))
        return qni_unknown_type(model, "model", err);
    const json_t *dropout = json_object_get(model, "dropout"), *ignore = json_object_get(model, "ignore_merges");
    const json_t *merges = json_object_get(model, "merges");
    if (dropout != NULL && !json_is_null(dropout)) {
        if (!json_is_number(dropout)) return qni_fail(err, QN_EFORMAT, "model: dropout must be a number");
        if (json_number_value(dropout) != 0.0) return qni_fail(err, QN_EUNSUPPORTED, "model: dropout is not supported");
    }
    QN_TRY(expect_empty(model, "continuing_subword_prefix", err));
    QN_TRY(expect_empty(model, "end_of_word_suffix", err));
    QN_TRY(qni_tokenizer_expect_false(model, "model", "byte_fallback", false, err));
    if (ignore != NULL && !json_is_boolean(ignore)) {
        return qni_fail(err, QN_EFORMAT, "model: ignore_merges must be a boolean");
    }
    t->ignore_merges = json_is_true(ignore);
    if (!json_is_array(merges)) return qni_fail(err, QN_EFORMAT, "model: merges must be an array");
    QN_TRY(read_vocab(t, json_object_get(model, "vocab"), err));
    QN_TRY(qni_bpe_init(&t->bpe, json_array_size(merges), err));
    QN_TRY(qni_bpe_find_bytes(&t->bpe, &t->vocab, err));
    qn_text joined = {0};
    qn_status status = QN_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == QN_OK; i++) {
        status = read_merge(t, json_array_get(merges, i), i, &joined, err);
    }
    qn_text_release(&joined);
    return status;
}

static qn_status read_added_tokens(qn_tokenizer *t, const json_t *list, qn_error *err) {
    if (list == NULL || json_is_null(list)) return QN_OK;
    if (!json_is_array(list)) return qni_fail(err, QN_EFORMAT, "added_tokens must be an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        char where[64];
        snprintf(where, sizeof where, "added_tokens[%zu]", i);
        qni_added_token token;
        QN_TRY(qni_added_token_read(&token, item, where, false, err));
        int64_t id;
        QN_TRY(qni_tokenizer_read_id(&id, json_object_get(item, "id"), token.text, err));
        if (id >= 0 && (uint64_t)id < t->vocab.n && (t->vocab.token[id].kind & QNI_TOKEN_ADDED)) {
            return qni_fail(err, QN_EFORMAT, "added_tokens: duplicate id %lld", (long long)id);
        }
        QN_TRY(qni_tokenizer_add(t, &token, id, err));
    }
    return QN_OK;
}

static qn_status read_tokenizer(qn_tokenizer *t, const json_t *root, qn_error *err) {
    if (!qni_json_is_object(root)) return qni_fail(err, QN_EFORMAT, "must be an object");
    const json_t *version = json_object_get(root, "version");
    if (version != NULL && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0)) {
        return qni_fail(err, QN_EUNSUPPORTED, "a version other than \"1.0\" is not supported");
    }
    QN_TRY(read_pipeline(t, root, err));
    QN_TRY(read_model(t, json_object_get(root, "model"), err));
    return read_added_tokens(t, json_object_get(root, "added_tokens"), err);
}

qn_status qni_tokenizer_fill(qn_tokenizer *tokenizer, const qni_tokenizer_files *files, qn_error *err) {
    tokenizer->top_added = -1;
    QN_TRY(qni_in_file("tokenizer.json", read_tokenizer(tokenizer, files->tokenizer, err), err));
    QN_TRY(qni_tokenizer_read_companions(tokenizer, files, err));
    const json_t *post = json_object_get(files->tokenizer, "post_processor");
    QN_TRY(qni_in_file("tokenizer.json", qni_tokenizer_read_post(tokenizer, post, err), err));
    return qni_tokenizer_index_added(tokenizer, err);
}
