/* SPDX-License-Identifier: Apache-2.0 */
/* Open the chat template of a model directory. */
#include "chat.h"

#include "../base/dir.h"
#include "../base/file.h"
#include "../base/json.h"
#include "../base/memory.h"

#include <stdio.h>
#include <string.h>

static qn_status parse_file(qni_jinja **out, const char *path, qn_error *err) {
    char *source = NULL;
    size_t size = 0;
    QN_TRY(qni_file_slurp(&source, &size, path, QNI_JINJA_SOURCE, err));
    qn_status status = qni_jinja_parse(out, "chat template", source, size, err);
    qni_free(source);
    return status;
}

static qn_status parse_text(qni_jinja **out, const json_t *text, qn_error *err) {
    if (text == NULL) return QN_OK;
    if (!json_is_string(text))
        return qni_fail(err, QN_EFORMAT, "tokenizer_config.json: a chat_template is not a string");
    return qni_jinja_parse(out, "chat template", json_string_value(text), json_string_length(text), err);
}

/* Find a template in a list of {"name", "template"}. If a name is duplicated, the last entry wins. */
static qn_status parse_named(qni_jinja **out, const json_t *list, const char *name, qn_error *err) {
    const json_t *found = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *text = json_object_get(item, "template");
        const char *its_name = json_string_value(json_object_get(item, "name"));
        if (its_name == NULL || !json_is_string(text)) {
            return qni_fail(err, QN_EFORMAT,
                            "tokenizer_config.json: chat_template[%zu] must have a name and a template", i);
        }
        if (strcmp(its_name, name) == 0) found = text;
    }
    return parse_text(out, found, err);
}

static qn_status no_template(const char *dir, qn_error *err) {
    char *path = qni_path_join(dir, "chat_template.json");
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    bool there = qni_path_exists(path);
    qni_free(path);
    return qni_fail(err, QN_EUNSUPPORTED, "%s: %sno chat template", dir,
                    there ? "chat_template.json is read by processors of images only: " : "");
}

/* The quoted names of the available templates, as many as fit in a message. */
typedef struct name_list {
    char text[256];
    size_t size, n;
} name_list;

static void list_name(name_list *list, const char *name) {
    enum { MOST = 6 };
    if (list->n++ < MOST) {
        int size = snprintf(list->text + list->size, sizeof list->text - list->size, "%s\"%.32s\"",
                            list->size > 0 ? ", " : "", name);
        list->size += size > 0 ? (size_t)size : 0;
    } else if (list->n == MOST + 1) {
        snprintf(list->text + list->size, sizeof list->text - list->size, ", …");
    }
}

/* Check that at least one of the two templates that a render can use exists. */
static qn_status check_named(const qn_chat_template *t, const name_list *list, const char *dir, qn_error *err) {
    if (t->standard != NULL || t->tool_use != NULL) return QN_OK;
    if (list->n == 0) return no_template(dir, err);
    return qni_fail(err, QN_EUNSUPPORTED,
                    list->n == 1 ? "%s: its chat template is named %s, not \"default\" or \"tool_use\""
                                 : "%s: its chat templates are named %s; none is \"default\" or \"tool_use\"",
                    dir, list->text);
}

static qn_status parse_config(qn_chat_template *t, const char *dir, const json_t *config, qn_error *err) {
    const json_t *text = json_object_get(config, "chat_template");
    name_list list = {.n = 0};
    if (text == NULL || json_is_null(text)) return no_template(dir, err);
    if (json_is_string(text)) return parse_text(&t->standard, text, err);
    if (qni_json_is_object(text)) {
        QN_TRY(parse_text(&t->standard, json_object_get(text, "default"), err));
        QN_TRY(parse_text(&t->tool_use, json_object_get(text, "tool_use"), err));
        const char *name;
        json_t *value;
        /* Jansson's macro requires a non-const object; the object is not modified. */
        json_object_foreach((json_t *)text, name, value) list_name(&list, name);
    } else if (json_is_array(text)) {
        QN_TRY(parse_named(&t->standard, text, "default", err));
        QN_TRY(parse_named(&t->tool_use, text, "tool_use", err));
        for (size_t i = 0; i < json_array_size(text); i++) {
            list_name(&list, json_string_value(json_object_get(json_array_get(text, i), "name")));
        }
    } else {
        return qni_fail(err, QN_EFORMAT, "%s/tokenizer_config.json: chat_template must be a string or a list", dir);
    }
    return check_named(t, &list, dir, err);
}

/* List the templates in additional_chat_templates. A file or a dangling link of that name is an error. */
static qn_status list_additional(name_list *list, const char *dir, qn_error *err) {
    static const char suffix[] = ".jinja";
    qni_names names = {0};
    char *path = qni_path_join(dir, "additional_chat_templates");
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    qn_status status = qni_path_exists(path) ? qni_dir_list(&names, path, err) : QN_OK;
    for (size_t i = 0; i < names.n; i++) {
        const size_t n = strlen(names.name[i]), m = sizeof suffix - 1;
        if (n < m || strcmp(names.name[i] + n - m, suffix) != 0) continue;
        names.name[i][n - m] = '\0';
        list_name(list, names.name[i]);
    }
    qni_names_free(&names);
    qni_free(path);
    return status;
}

/* Parse a file of the directory if it exists. */
static qn_status parse_if_exists(qni_jinja **out, const char *dir, const char *name, qn_error *err) {
    char *path = qni_path_join(dir, name);
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    qn_status status = qni_path_exists(path) ? parse_file(out, path, err) : QN_OK;
    qni_free(path);
    return status;
}

/* Templates in separate files replace all those of tokenizer_config.json. */
static qn_status parse_dir(qn_chat_template *t, const char *dir, const json_t *config, qn_error *err) {
    name_list list = {.n = 0};
    QN_TRY(list_additional(&list, dir, err));
    QN_TRY(parse_if_exists(&t->standard, dir, "additional_chat_templates/default.jinja", err));
    if (t->standard == NULL) QN_TRY(parse_if_exists(&t->standard, dir, "chat_template.jinja", err));
    QN_TRY(parse_if_exists(&t->tool_use, dir, "additional_chat_templates/tool_use.jinja", err));
    if (t->standard == NULL && list.n == 0) return parse_config(t, dir, config, err);
    return check_named(t, &list, dir, err);
}

static qn_status open_template(qn_chat_template **out, const char *path, const char *dir, qn_error *err) {
    json_t *config = NULL;
    qn_chat_template *t = qni_calloc(1, sizeof *t);
    if (t == NULL) return qni_fail(err, QN_ENOMEM, "chat template: out of memory");
    qn_status status = dir != NULL ? qni_chat_json(&config, dir, "tokenizer_config.json", err) : QN_OK;
    if (status == QN_OK) status = qni_chat_tokens(&t->tokens, dir, config, err);
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
    json_decref(chat_template->tokens);
    qni_free(chat_template);
}

bool qn_chat_template_reads(const qn_chat_template *chat_template, const char *variable) {
    if (chat_template == NULL || variable == NULL) return false;
    const qni_jinja *standard = chat_template->standard, *tool_use = chat_template->tool_use;
    return (standard != NULL && qni_jinja_reads(standard, variable)) ||
           (tool_use != NULL && qni_jinja_reads(tool_use, variable));
}
