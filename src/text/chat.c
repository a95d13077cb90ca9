/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the chat template of a model directory. */
#include "chat.h"

#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"

#include <string.h>

/* The special tokens that transformers hands to templates: a text, or an object with "content". */
static const char *const special_names[] = {"bos_token", "eos_token", "unk_token",  "sep_token",
                                            "pad_token", "cls_token", "mask_token", "additional_special_tokens"};

static json_t *special_text(json_t *value) {
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value) ? value : NULL;
}

static qn_status add_special(json_t *specials, const char *name, json_t *value, qn_error *err) {
    json_t *text = special_text(value);
    if (text != NULL) {
        return json_object_set(specials, name, text) == 0 ? QN_OK : qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    }
    if (!json_is_array(value)) return QN_OK;
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(value); i++) {
        text = special_text(json_array_get(value, i));
        if (text != NULL && json_array_append(list, text) != 0) break;
    }
    return json_object_set_new(specials, name, list) == 0 ? QN_OK : qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
}

static qn_status read_specials(qn_chat_template *t, const json_t *config, qn_error *err) {
    t->specials = json_object();
    if (t->specials == NULL) return qni_fail(err, QN_ENOMEM, "special tokens: out of memory");
    for (size_t i = 0; i < sizeof special_names / sizeof *special_names; i++) {
        json_t *value = json_object_get(config, special_names[i]);
        if (value != NULL) QN_TRY(add_special(t->specials, special_names[i], value, err));
    }
    return QN_OK;
}

/* tokenizer_config.json; *out stays NULL when there is none. */
static qn_status read_config(json_t **out, const char *dir, qn_error *err) {
    if (dir == NULL) return QN_OK;
    char *path = qni_path_join(dir, "tokenizer_config.json");
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    qn_status status = QN_OK;
    if (qni_path_exists(path)) status = qni_json_read(out, path, QNI_CHAT_JSON, err);
    if (status == QN_OK && *out != NULL && !json_is_object(*out)) {
        status = qni_fail(err, QN_EFORMAT, "%s: must be an object", path);
    }
    qni_free(path);
    return status;
}

static qn_status parse_file(qni_jinja **out, const char *path, qn_error *err) {
    char *source = NULL;
    size_t size = 0;
    QN_TRY(qni_file_slurp(&source, &size, path, QNI_JINJA_SOURCE, err));
    qn_status status = qni_jinja_parse(out, "chat template", source, size, err);
    qni_free(source);
    return status;
}

static qn_status parse_named(qni_jinja **out, const json_t *list, const char *name, qn_error *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *its_name = json_string_value(json_object_get(item, "name"));
        const json_t *text = json_object_get(item, "template");
        if (its_name == NULL || !json_is_string(text)) {
            return qni_fail(err, QN_EFORMAT,
                            "tokenizer_config.json: chat_template[%zu] must have a name and a template", i);
        }
        if (strcmp(its_name, name) != 0 || *out != NULL) continue;
        QN_TRY(qni_jinja_parse(out, "chat template", json_string_value(text), json_string_length(text), err));
    }
    return QN_OK;
}

static qn_status parse_config(qn_chat_template *t, const char *dir, const json_t *config, qn_error *err) {
    const json_t *text = json_object_get(config, "chat_template");
    if (text == NULL || json_is_null(text)) return qni_fail(err, QN_EUNSUPPORTED, "%s: no chat template", dir);
    if (json_is_string(text)) {
        return qni_jinja_parse(&t->standard, "chat template", json_string_value(text), json_string_length(text), err);
    }
    if (!json_is_array(text)) {
        return qni_fail(err, QN_EFORMAT, "%s/tokenizer_config.json: chat_template must be a string or a list", dir);
    }
    QN_TRY(parse_named(&t->standard, text, "default", err));
    QN_TRY(parse_named(&t->tool_use, text, "tool_use", err));
    if (t->standard != NULL) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: no chat template is named \"default\"", dir);
}

static qn_status parse_dir(qn_chat_template *t, const char *dir, const json_t *config, qn_error *err) {
    char *path = qni_path_join(dir, "chat_template.jinja");
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    bool there = qni_path_exists(path);
    qn_status status = there ? parse_file(&t->standard, path, err) : parse_config(t, dir, config, err);
    qni_free(path);
    return status;
}

static qn_status open_template(qn_chat_template **out, const char *path, const char *dir, qn_error *err) {
    json_t *config = NULL;
    qn_chat_template *t = qni_calloc(1, sizeof *t);
    if (t == NULL) return qni_fail(err, QN_ENOMEM, "chat template: out of memory");
    qn_status status = read_config(&config, dir, err);
    if (status == QN_OK) status = read_specials(t, config, err);
    if (status == QN_OK) status = path != NULL ? parse_file(&t->standard, path, err) : parse_dir(t, dir, config, err);
    json_decref(config);
    if (status != QN_OK) {
        qn_chat_template_close(t);
        return status;
    }
    *out = t;
    return QN_OK;
}

qn_status qn_chat_template_open(qn_chat_template **out, const char *dir, qn_error *err) {
    if (out == NULL || dir == NULL)
        return qni_fail(err, QN_EINVAL, "chat template: %s is NULL", out == NULL ? "out" : "dir");
    return open_template(out, NULL, dir, err);
}

qn_status qn_chat_template_open_file(qn_chat_template **out, const char *path, const char *dir, qn_error *err) {
    if (out == NULL || path == NULL)
        return qni_fail(err, QN_EINVAL, "chat template: %s is NULL", out == NULL ? "out" : "path");
    return open_template(out, path, dir, err);
}

void qn_chat_template_close(qn_chat_template *chat_template) {
    if (chat_template == NULL) return;
    qni_jinja_free(chat_template->standard);
    qni_jinja_free(chat_template->tool_use);
    json_decref(chat_template->specials);
    qni_free(chat_template);
}

bool qn_chat_template_reads(const qn_chat_template *chat_template, const char *variable) {
    if (chat_template == NULL || variable == NULL) return false;
    const qni_jinja *tool_use = chat_template->tool_use;
    return qni_jinja_reads(chat_template->standard, variable) ||
           (tool_use != NULL && qni_jinja_reads(tool_use, variable));
}

bool qn_chat_starts_reasoning(const char *prompt, size_t size) {
    static const char open[] = "<think>";
    size_t n = sizeof open - 1;
    if (prompt == NULL) return false;
    while (size > 0 && strchr(" \t\r\n\v\f", prompt[size - 1]) != NULL && prompt[size - 1] != '\0') size--;
    /* Only white space follows, so that no closing tag can. */
    return size >= n && memcmp(prompt + size - n, open, n) == 0;
}
