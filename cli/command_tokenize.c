/* SPDX-License-Identifier: Apache-2.0 */
/* quern tokenize: converts text to ids and back, a whole text or line by line. */
#include <stdio.h>
#include <stdlib.h>

#include "fields.h"
#include "open.h"
#include "output.h"
#include "records.h"

typedef struct tokenize {
    qn_tokenizer *tokenizer;
    bool plain;
} tokenize;

static json_t *encode_record(void *user, json_t *record, record_error *error) {
    const tokenize *t = user;
    json_t *value = json_object_get(record, "text"), *list = NULL;
    qn_ids ids = {0};
    qn_error err;
    bool special = !t->plain;
    if (!fields_check(record, RECORD_TOKENIZE, error) || !field_bool(record, "parse_special", &special, error))
        return NULL;
    if (!json_is_string(value))
        record_fail(error, "text: must be a string, not %s", json_type_name(value));
    else if (qn_tokenizer_encode_document(t->tokenizer, &ids, json_string_value(value), json_string_length(value),
                                          special, &err))
        record_fail_error(error, &err);
    else
        list = json_ids(&ids);
    qn_ids_release(&ids);
    return list ? json_pack("{s:o}", "ids", list) : NULL;
}

static json_t *decode_record(void *user, json_t *record, record_error *error) {
    const tokenize *t = user;
    json_t *out = NULL;
    qn_ids ids = {0};
    qn_text text = {0};
    qn_error err;
    json_t *list = json_object_get(record, "ids");
    bool skip_special = false;
    if (!fields_check(record, RECORD_TOKENIZE, error) ||
        !field_bool(record, "skip_special_tokens", &skip_special, error))
        return NULL;
    if (!list || json_is_null(list))
        record_fail(error, "ids: must be a list, not %s", json_type_name(list));
    else if (!field_ids(record, "ids", &ids, error))
        out = NULL;
    else if (qn_tokenizer_decode(t->tokenizer, &text, ids.data, ids.size, skip_special, &err))
        record_fail_error(error, &err);
    else
        out = json_pack("{s:o}", "text", json_text(text.data, text.size));
    free(ids.data);
    qn_text_release(&text);
    return out;
}

static int encode_text(const tokenize *t, const char *what, const qn_text *text) {
    qn_ids ids = {0};
    qn_error err;
    if (qn_tokenizer_encode_document(t->tokenizer, &ids, text->data, text->size, !t->plain, &err))
        return fail_error(what, &err);
    for (size_t i = 0; i < ids.size; i++) printf(i ? " %d" : "%d", ids.data[i]);
    putchar('\n');
    qn_ids_release(&ids);
    return EXIT_DONE;
}

static int decode_text(const tokenize *t, const char *what, const qn_text *source) {
    qn_ids ids = {0};
    qn_text text = {0};
    qn_error err;
    int code = parse_ids(&ids, what, source->data, source->size);
    if (code == EXIT_DONE && qn_tokenizer_decode(t->tokenizer, &text, ids.data, ids.size, false, &err))
        code = fail_error(what, &err);
    if (code == EXIT_DONE) {
        fwrite(text.data, 1, text.size, stdout);
        if (is_terminal(stdout)) putchar('\n');
    }
    free(ids.data);
    qn_text_release(&text);
    return code;
}

int command_tokenize(const settings *s) {
    if (s->jsonl && (s->prompt || s->file)) return usage_error("tokenize", "--jsonl reads standard input alone");
    tokenize t = {.plain = s->plain};
    qn_error err;
    char *dir = model_dir(s);
    int code = EXIT_DONE;
    qn_text text = {0};
    if (qn_tokenizer_open(&t.tokenizer, dir, &err)) {
        code = fail_error(dir, &err);
    } else if (s->jsonl) {
        code = records_answer(s->decode ? decode_record : encode_record, &t);
    } else {
        const char *what;
        code = read_prompt(s, "tokenize", &text, &what);
        if (code == EXIT_DONE) code = s->decode ? decode_text(&t, what, &text) : encode_text(&t, what, &text);
    }
    free(text.data);
    qn_tokenizer_close(t.tokenizer);
    free(dir);
    return code;
}
