/* SPDX-License-Identifier: Apache-2.0 */
/* Normalize messages and tools as callers send them to the single form that templates expect. */
#include "../base/json.h"
#include "../base/memory.h"
#include "chat.h"

#include <stdio.h>

static qn_status parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err) {
    if (size > QNI_CHAT_JSON)
        return qni_fail(err, QN_EINVAL, "%s: %zu bytes, more than %zu", what, size, QNI_CHAT_JSON);
    qn_status status = qni_json_parse(out, what, text, size, err);
    if (status != QN_EFORMAT) return status;
    if (err != NULL) err->status = QN_EINVAL; /* this is an argument, not a file */
    return QN_EINVAL;
}

static qn_status no_memory(qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "messages: out of memory");
}

/* The text of one content part. NULL: it has none, and the error names what the part is. */
static const json_t *part_text(const json_t *part, size_t i, size_t k, qn_error *err) {
    if (json_is_string(part)) return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    if (type == NULL && json_is_string(text)) return text;
    if (type == NULL) {
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu]: a part must be a string, or have a type and a text", i,
                 k);
    } else if (strcmp(type, "text") == 0) {
        if (json_is_string(text)) return text;
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu].text must be a string", i, k);
    } else if (strstr(type, "image") != NULL) {
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu]: an image cannot be read by this model", i, k);
    } else if (strstr(type, "video") != NULL) {
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu]: a video cannot be read by this model", i, k);
    } else if (strstr(type, "audio") != NULL) {
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu]: audio cannot be read by this model", i, k);
    } else {
        qni_fail(err, QN_EINVAL, "messages[%zu].content[%zu]: a part of type \"%s\" cannot be read by this model", i, k,
                 type);
    }
    return NULL;
}

static qn_status join_parts(const json_t *parts, size_t i, json_t **out, qn_error *err) {
    size_t total = 0;
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *text = part_text(json_array_get(parts, k), i, k, err);
        if (text == NULL) return QN_EINVAL;
        total += json_string_length(text); /* each part lies within the input: no overflow */
    }
    char *joined = qni_calloc(total + 1, 1);
    if (joined == NULL) return no_memory(err);
    size_t at = 0;
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *part = json_array_get(parts, k);
        const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
        memcpy(joined + at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    *out = json_stringn_nocheck(joined, total);
    qni_free(joined);
    return *out != NULL ? QN_OK : no_memory(err);
}

static qn_status normalize_content(json_t *message, size_t i, qn_error *err) {
    json_t *content = json_object_get(message, "content"), *text = NULL;
    if (json_is_string(content)) return QN_OK;
    if (json_is_array(content)) {
        QN_TRY(join_parts(content, i, &text, err));
    } else if (content == NULL || json_is_null(content)) {
        text = json_string("");
    } else {
        return qni_fail(err, QN_EINVAL, "messages[%zu].content must be a string, a list of parts or null", i);
    }
    return json_object_set_new(message, "content", text) == 0 ? QN_OK : no_memory(err);
}

static qn_status normalize_role(json_t *message, size_t i, qn_error *err) {
    static const char *const known[] = {"system", "user", "assistant", "tool"};
    const char *role = json_string_value(json_object_get(message, "role"));
    if (role == NULL) return qni_fail(err, QN_EINVAL, "messages[%zu].role must be a string", i);
    if (strcmp(role, "developer") == 0) {
        return json_object_set_new(message, "role", json_string("system")) == 0 ? QN_OK : no_memory(err);
    }
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        if (strcmp(role, known[k]) == 0) return QN_OK;
    }
    return qni_fail(err, QN_EINVAL, "messages[%zu].role: \"%s\" is none of system, developer, user, assistant, tool", i,
                    role);
}

/* The keys that may hold reasoning, the standard one first. Templates read "reasoning_content" or "thinking", so
 * "thinking" goes first in the message. */
static qn_status normalize_reasoning(json_t *messages, size_t i, qn_error *err) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *message = json_array_get(messages, i), *reasoning = NULL;
    for (size_t k = 0; reasoning == NULL && k < sizeof names / sizeof *names; k++) {
        reasoning = json_object_get(message, names[k]);
    }
    if (reasoning == NULL) return QN_OK;
    json_t *ordered = json_object();
    bool fine = json_object_set(ordered, "thinking", reasoning) == 0 && json_object_update(ordered, message) == 0 &&
                json_object_set(ordered, "reasoning_content", reasoning) == 0 &&
                json_array_set(messages, i, ordered) == 0;
    json_decref(ordered);
    return fine ? QN_OK : no_memory(err);
}

/* Keys that hold null count as absent. */
static void drop_nulls(json_t *message) {
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(message, next, key, value) {
        if (json_is_null(value)) json_object_del(message, key);
    }
}

/* Parse a call's arguments from JSON text into an object. Empty text means no arguments. */
static qn_status parse_arguments(json_t *function, const char *where, qn_error *err) {
    const json_t *text = json_object_get(function, "arguments");
    json_t *arguments = NULL;
    if (!json_is_string(text)) return QN_OK;
    if (json_string_length(text) == 0) {
        arguments = json_object();
    } else {
        QN_TRY(parse(&arguments, where, json_string_value(text), json_string_length(text), err));
        if (!qni_json_is_object(arguments)) {
            json_decref(arguments);
            return qni_fail(err, QN_EINVAL, "%s: must be the text of a JSON object", where);
        }
    }
    return json_object_set_new(function, "arguments", arguments) == 0 ? QN_OK : no_memory(err);
}

static qn_status normalize_calls(const json_t *message, size_t i, qn_error *err) {
    const json_t *calls = json_object_get(message, "tool_calls");
    for (size_t k = 0; k < json_array_size(calls); k++) {
        json_t *call = json_array_get(calls, k), *function = json_object_get(call, "function");
        bool nested = qni_json_is_object(function);
        char where[96];
        snprintf(where, sizeof where, "messages[%zu].tool_calls[%zu]%s.arguments", i, k, nested ? ".function" : "");
        QN_TRY(parse_arguments(nested ? function : call, where, err));
    }
    return QN_OK;
}

static qn_status normalize_message(json_t *messages, size_t i, const qn_chat_input *input, qn_error *err) {
    json_t *message = json_array_get(messages, i);
    if (!qni_json_is_object(message)) return qni_fail(err, QN_EINVAL, "messages[%zu] must be an object", i);
    QN_TRY(normalize_role(message, i, err));
    bool last = i + 1 == json_array_size(messages);
    const json_t *content = json_object_get(message, "content");
    if (last && input->continue_final_message && (content == NULL || json_is_null(content))) {
        return qni_fail(err, QN_EINVAL, "continue_final_message: messages[%zu] has no content to continue", i);
    }
    QN_TRY(normalize_content(message, i, err));
    drop_nulls(message);
    if (input->tool_arguments_object) QN_TRY(normalize_calls(message, i, err));
    return normalize_reasoning(messages, i, err);
}

qn_status qni_chat_messages(json_t **out, const qn_chat_input *input, qn_error *err) {
    json_t *messages;
    QN_TRY(parse(&messages, "messages", input->messages, qni_chat_size(input->messages, input->messages_size), err));
    qn_status status = QN_OK;
    if (!json_is_array(messages)) status = qni_fail(err, QN_EINVAL, "messages must be a list");
    for (size_t i = 0; status == QN_OK && i < json_array_size(messages); i++) {
        status = normalize_message(messages, i, input, err);
    }
    if (status == QN_OK && input->continue_final_message && json_array_size(messages) == 0) {
        status = qni_fail(err, QN_EINVAL, "continue_final_message: there is no message");
    }
    if (status != QN_OK) {
        json_decref(messages);
        return status;
    }
    *out = messages;
    return QN_OK;
}

qn_status qni_chat_objects(json_t **out, const char *what, const char *text, size_t size, qn_error *err) {
    json_t *list;
    QN_TRY(parse(&list, what, text, size, err));
    qn_status status = QN_OK;
    if (!json_is_null(list) && !json_is_array(list)) {
        status = qni_fail(err, QN_EINVAL, "%s must be a list or null", what);
    }
    for (size_t i = 0; status == QN_OK && i < json_array_size(list); i++) {
        if (qni_json_is_object(json_array_get(list, i))) continue;
        status = qni_fail(err, QN_EINVAL, "%s[%zu] must be an object", what, i);
    }
    if (status != QN_OK || json_is_null(list)) {
        json_decref(list);
        return status;
    }
    *out = list;
    return QN_OK;
}

qn_status qni_chat_kwargs(json_t **out, const char *text, size_t size, qn_error *err) {
    json_t *object;
    QN_TRY(parse(&object, "chat_template_kwargs", text, size, err));
    if (qni_json_is_object(object)) {
        *out = object;
        return QN_OK;
    }
    bool none = json_is_null(object);
    json_decref(object);
    return none ? QN_OK : qni_fail(err, QN_EINVAL, "chat_template_kwargs must be an object or null");
}
