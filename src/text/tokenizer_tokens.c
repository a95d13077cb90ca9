/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens of a tokenizer's files: reading, numbering, and the tries that find them. */
#include "../base/memory.h"
#include "tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

qn_status qni_tokenizer_read_id(int64_t *out, const json_t *value, const char *text, qn_error *err) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return QN_OK;
    }
    char *shown = value != NULL ? qni_json_print(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    qn_status status = qni_fail(err, QN_EFORMAT, "token \"%.64s\": id must be an integer within 0 … %d, got %.48s",
                                text, QNI_ID_LIMIT - 1, shown != NULL ? shown : "none");
    qni_free(shown);
    return status;
}

qn_status qni_added_token_read(qni_added_token *out, const json_t *token, const char *where, bool normalized,
                               qn_error *err) {
    const json_t *content = json_object_get(token, "content"), *special = json_object_get(token, "special");
    const json_t *normal = json_object_get(token, "normalized");
    if (!json_is_string(content)) return qni_fail(err, QN_EFORMAT, "%s: no content", where);
    out->text = json_string_value(content);
    out->size = json_string_length(content);
    if (out->size == 0) return qni_fail(err, QN_EFORMAT, "%s: empty content", where);
    if ((special != NULL && !json_is_boolean(special)) || (normal != NULL && !json_is_boolean(normal))) {
        return qni_fail(err, QN_EFORMAT, "%s: special and normalized must be booleans", where);
    }
    char what[96];
    snprintf(what, sizeof what, "added token \"%.64s\"", out->text);
    QN_TRY(qni_tokenizer_expect_false(token, what, "single_word", false, err));
    QN_TRY(qni_tokenizer_expect_false(token, what, "lstrip", false, err));
    QN_TRY(qni_tokenizer_expect_false(token, what, "rstrip", false, err));
    out->special = json_is_true(special);
    out->normalized = normal != NULL ? json_is_true(normal) : normalized && !out->special;
    return QN_OK;
}

/* Hugging Face's tokenizers renumber added tokens: a token of the vocabulary keeps its id; any other gets the next id
 * above all, counting the vocabulary by its size. */
int64_t qni_tokenizer_next_id(const qn_tokenizer *t) {
    return t->top_added >= t->n_model ? t->top_added + 1 : t->n_model;
}

qn_status qni_tokenizer_add(qn_tokenizer *t, const qni_added_token *token, int64_t id, qn_error *err) {
    const int64_t next = qni_tokenizer_next_id(t);
    const bool is_free = id >= 0 && ((uint64_t)id >= t->vocab.n || t->vocab.token[id].kind == QNI_TOKEN_NONE);
    const int shown = token->size < 64 ? (int)token->size : 64;
    if (is_free && id != next && id < QNI_ID_LIMIT && qni_vocab_id(&t->vocab, token->text, token->size) < 0) {
        return qni_fail(err, QN_EFORMAT, "added token \"%.*s\": has id %lld, but tokenizers would assign %lld", shown,
                        token->text, (long long)id, (long long)next);
    }
    if (token->size > QNI_ADDED_BYTES) {
        return qni_fail(err, QN_EUNSUPPORTED, "added token \"%.*s\": %zu bytes are not supported, only %d", shown,
                        token->text, token->size, QNI_ADDED_BYTES);
    }
    const unsigned special = token->special ? QNI_TOKEN_SPECIAL : 0, normal = token->normalized ? QNI_TOKEN_NORMAL : 0;
    QN_TRY(qni_vocab_add(&t->vocab, token->text, token->size, id, QNI_TOKEN_ADDED | special | normal, err));
    if (id > t->top_added) t->top_added = id;
    return QN_OK;
}

static qn_status no_memory(qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "added_tokens: out of memory");
}

static qn_status add_normal(qn_tokenizer *t, const char *text, size_t size, int32_t id, qn_error *err) {
    qni_nfc nfc = {0};
    bool enough = !t->nfc || qni_nfc_run(&nfc, text, size, &text, &size);
    if (enough) enough = qni_added_add(&t->normalized, text, size, id);
    qni_nfc_trim(&nfc, 0);
    return enough ? QN_OK : no_memory(err);
}

qn_status qni_tokenizer_index_added(qn_tokenizer *t, qn_error *err) {
    for (size_t i = 0; i < t->vocab.n; i++) {
        const qni_token *token = &t->vocab.token[i];
        if ((token->kind & QNI_TOKEN_ADDED) == 0) continue;
        const char *text = qni_vocab_text(&t->vocab, (int32_t)i);
        if (token->kind & QNI_TOKEN_NORMAL) {
            QN_TRY(add_normal(t, text, token->text_size, (int32_t)i, err));
        } else if (!qni_added_add(&t->added, text, token->text_size, (int32_t)i)) {
            return no_memory(err);
        }
    }
    return QN_OK;
}
