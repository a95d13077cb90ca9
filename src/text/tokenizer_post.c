/* SPDX-License-Identifier: Apache-2.0 */
/* post_processor of tokenizer.json: the ids that it adds before and after a text. */
#include "tokenizer_impl.h"

#include <string.h>

static const char what[] = "post_processor TemplateProcessing";

static qn_status add_id(qn_tokenizer *t, qn_ids *ids, const char *name, int64_t id, const json_t *token,
                        qn_error *err) {
    const char *text = json_string_value(token);
    if (text == NULL) return qni_fail(err, QN_EFORMAT, "%s: \"%.64s\" needs a token for each of its ids", what, name);
    const int32_t known = qni_vocab_id(&t->vocab, text, json_string_length(token));
    if (known < 0) return qni_fail(err, QN_EFORMAT, "%s: token \"%.64s\" is not known", what, text);
    if (known != id) {
        return qni_fail(err, QN_EFORMAT, "%s: token \"%.64s\" has id %d, not %lld", what, text, known, (long long)id);
    }
    return qni_ids_append(ids, &known, 1) ? QN_OK : qni_fail(err, QN_ENOMEM, "%s: out of memory", what);
}

/* {"SpecialToken": {"id": NAME}}, where special_tokens maps NAME to {"ids": [...], "tokens": [...]}. */
static qn_status read_special(qn_tokenizer *t, qn_ids *ids, const json_t *piece, const json_t *specials,
                              qn_error *err) {
    const char *name = json_string_value(json_object_get(piece, "id"));
    if (name == NULL) return qni_fail(err, QN_EFORMAT, "%s: a SpecialToken has no id", what);
    const json_t *special = json_object_get(specials, name), *tokens = json_object_get(special, "tokens");
    const json_t *list = json_object_get(special, "ids");
    if (!json_is_array(list)) return qni_fail(err, QN_EFORMAT, "%s: \"%.64s\" has no ids", what, name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t id;
        QN_TRY(qni_tokenizer_read_id(&id, json_array_get(list, i), name, err));
        QN_TRY(add_id(t, ids, name, id, json_array_get(tokens, i), err));
    }
    return QN_OK;
}

/* "single": the ids before the text, the text ("A"), the ids after it. "pair", for two texts, is never used here. */
static qn_status read_template(qn_tokenizer *t, const json_t *post, qn_error *err) {
    const json_t *single = json_object_get(post, "single"), *specials = json_object_get(post, "special_tokens");
    if (!json_is_array(single)) return qni_fail(err, QN_EFORMAT, "%s: single must be an array", what);
    int n_text = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        if (special != NULL) {
            QN_TRY(read_special(t, n_text == 0 ? &t->before : &t->after, special, specials, err));
            continue;
        }
        const char *name = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        if (name == NULL)
            return qni_fail(err, QN_EFORMAT, "%s: single[%zu] must be a Sequence or a SpecialToken", what, i);
        if (strcmp(name, "A") != 0) return qni_fail(err, QN_EFORMAT, "%s: single has Sequence %.16s", what, name);
        n_text++;
    }
    if (n_text == 1) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: %d times the text in single is not supported", what, n_text);
}

static qn_status read_processor(qn_tokenizer *t, const json_t *post, int *n_template, qn_error *err) {
    if (qni_is_type(post, "ByteLevel")) return QN_OK;
    if (qni_is_type(post, "TemplateProcessing")) {
        if (++*n_template > 1) return qni_fail(err, QN_EUNSUPPORTED, "a second %s is not supported", what);
        return read_template(t, post, err);
    }
    if (!qni_is_type(post, "Sequence")) return qni_unknown_type(post, "post_processor", err);
    const json_t *list = json_object_get(post, "processors");
    if (!json_is_array(list)) return qni_fail(err, QN_EFORMAT, "post_processor Sequence: processors must be an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        QN_TRY(read_processor(t, json_array_get(list, i), n_template, err));
    }
    return QN_OK;
}

qn_status qni_tokenizer_read_post(qn_tokenizer *t, const json_t *post, qn_error *err) {
    int n_template = 0;
    if (post == NULL || json_is_null(post)) return QN_OK;
    return read_processor(t, post, &n_template, err);
}
