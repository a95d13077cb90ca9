/* SPDX-License-Identifier: Apache-2.0 */
/* Render a conversation: the variables that a template sees, and the post-processing of its output. */
#include "../base/json.h"
#include "../base/memory.h"
#include "../jinja/str.h"
#include "buffer.h"
#include "chat.h"

#include <stdio.h>

/* All parsed inputs of one render. */
typedef struct conversation {
    json_t *messages;
    json_t *tools;     /* NULL: none */
    json_t *documents; /* NULL: none */
    json_t *kwargs;    /* NULL: none */
} conversation;

/* Refuse kwargs that are separate fields of the API, or that must not be overridden. */
static qn_status check_kwargs(const conversation *c, const qn_chat_input *input, qn_error *err) {
    static const char *const fields[] = {
        "messages",      "conversation", "tools", "documents", "add_generation_prompt", "continue_final_message",
        "chat_template", "tokenize"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (json_object_get(c->kwargs, fields[i]) == NULL) continue;
        return qni_fail(err, QN_EINVAL, "chat_template_kwargs.%s: is a field of its own", fields[i]);
    }
    const json_t *think = json_object_get(c->kwargs, "enable_thinking");
    if (think == NULL || json_is_null(think) || input->think == QN_THINK_AUTO) return QN_OK;
    if (input->think == QN_THINK_ON ? json_is_true(think) : json_is_false(think)) return QN_OK;
    return qni_fail(err, QN_EINVAL, "chat_template_kwargs.enable_thinking: contradicts think, which is %s",
                    input->think == QN_THINK_ON ? "on" : "off");
}

static qn_status parse_input(conversation *c, const qn_chat_input *input, qn_error *err) {
    QN_TRY(qni_chat_messages(&c->messages, input, err));
    if (input->tools != NULL) {
        QN_TRY(qni_chat_objects(&c->tools, "tools", input->tools, qni_chat_size(input->tools, input->tools_size), err));
    }
    if (input->documents != NULL) {
        QN_TRY(qni_chat_objects(&c->documents, "documents", input->documents,
                                qni_chat_size(input->documents, input->documents_size), err));
    }
    if (input->kwargs != NULL) {
        QN_TRY(qni_chat_kwargs(&c->kwargs, input->kwargs, qni_chat_size(input->kwargs, input->kwargs_size), err));
    }
    return check_kwargs(c, input, err);
}

static void free_input(conversation *c) {
    json_decref(c->messages);
    json_decref(c->tools);
    json_decref(c->documents);
    json_decref(c->kwargs);
}

/* A later variable replaces an earlier one of the same name, as in transformers: kwargs come after the special
 * tokens. */
static size_t set_variables(qni_jinja_var *vars, const qn_chat_template *t, const conversation *c,
                            const qn_chat_input *input) {
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach(t->tokens, name, value) vars[n++] = (qni_jinja_var){name, value, .trusted = true};
    json_object_foreach(c->kwargs, name, value) vars[n++] = (qni_jinja_var){.name = name, .value = value};
    vars[n++] = (qni_jinja_var){"messages", c->messages, .trusted_key = "role"};
    vars[n++] = (qni_jinja_var){.name = "tools", .value = c->tools != NULL ? c->tools : json_null()};
    vars[n++] = (qni_jinja_var){.name = "documents", .value = c->documents != NULL ? c->documents : json_null()};
    vars[n++] = (qni_jinja_var){"add_generation_prompt", input->add_generation_prompt ? json_true() : json_false(),
                                .trusted = true};
    if (input->think != QN_THINK_AUTO) {
        vars[n++] = (qni_jinja_var){"enable_thinking", input->think == QN_THINK_ON ? json_true() : json_false(),
                                    .trusted = true};
    }
    return n;
}

/* Appended to the last message and searched for in the output. If the template trims the message, the tag appears
 * without its trailing space. */
static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";
enum { TAG = sizeof tag - 1 };

static qn_status tag_last(const json_t *messages, const qni_jinja *jinja, qn_error *err) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *content = json_object_get(last, "content");
    size_t n = json_string_length(content);
    if (!qni_jinja_contains(jinja, "content")) {
        return qni_fail(err, QN_EINVAL, "continue_final_message: the chat template does not read content");
    }
    char *tagged = qni_calloc(n + TAG, 1);
    if (tagged == NULL) return qni_fail(err, QN_ENOMEM, "messages: out of memory");
    memcpy(tagged, json_string_value(content), n);
    memcpy(tagged + n, tag, TAG);
    json_t *text = json_stringn_nocheck(tagged, n + TAG);
    qni_free(tagged);
    if (json_object_set_new(last, "content", text) == 0) return QN_OK;
    return qni_fail(err, QN_ENOMEM, "messages: out of memory");
}

/* End the prompt where the text of the last message ends. */
static qn_status cut_at_tag(qn_prompt *prompt, size_t start, const json_t *messages, qn_error *err) {
    const json_t *content = json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content");
    jval text = qni_j_text(prompt->text.data + start, prompt->text.size - start);
    jval message = qni_j_strip(qni_j_text(json_string_value(content), json_string_length(content) - TAG), NULL, 3);
    int64_t at = qni_j_rfind(text, qni_j_text(tag, TAG - 1));
    if (at < 0 || qni_j_find(text, message, 0) < 0) {
        qni_prompt_cut(prompt, start);
        return qni_fail(err, QN_EINVAL,
                        "continue_final_message: the chat template does not render the last message verbatim");
    }
    bool spaced = (size_t)at + TAG <= text.size && text.s[at + TAG - 1] == ' ';
    text.size = (size_t)at;
    if (!spaced) text = qni_j_strip(text, NULL, 2); /* the template trims, so the prompt is trimmed too */
    qni_prompt_cut(prompt, start + text.size);
    return QN_OK;
}

/* Whether a value is null, false, 0 or empty. */
static bool has_no_effect(const json_t *value) {
    double number;
    if (qni_json_number(&number, value)) return !(number < 0 || number > 0);
    if (json_is_string(value)) return json_string_length(value) == 0;
    return !json_is_true(value) && json_object_size(value) + json_array_size(value) == 0;
}

/* Whether the template uses this key, as an attribute or as a string. */
static bool has_key(const qni_jinja *jinja, const char *key) {
    static const char *const forms[] = {".%s", "'%s'", "\"%s\""};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char text[32];
        snprintf(text, sizeof text, forms[i], key);
        if (qni_jinja_contains(jinja, text)) return true;
    }
    return false;
}

/* Refuse message keys that other servers honor and that would change the answer. A template that reads such a key
 * itself still gets it. */
static qn_status check_messages(const json_t *messages, const qni_jinja *jinja, bool continues, qn_error *err) {
    static const struct {
        const char *key, *why;
        bool continues; /* same meaning as continue_final_message */
    } known[] = {
        {"prefix", "is not offered; continue_final_message continues the last message", true},  /* DeepSeek, Mistral */
        {"partial", "is not offered; continue_final_message continues the last message", true}, /* Kimi, DashScope */
        {"images", "an image cannot be read by this model", false},                             /* Ollama */
        {"audio", "audio cannot be read by this model", false},
        {"function_call", "is not offered; tool_calls is", false},
    };
    const size_t n = json_array_size(messages);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        if (has_key(jinja, known[k].key)) continue;
        for (size_t i = 0; i < n; i++) {
            const json_t *value = json_object_get(json_array_get(messages, i), known[k].key);
            if (value == NULL || has_no_effect(value) || (known[k].continues && continues && i + 1 == n)) continue;
            return qni_fail(err, QN_EINVAL, "messages[%zu].%s: %s", i, known[k].key, known[k].why);
        }
    }
    return QN_OK;
}

static qn_status read_time(qni_jinja_time *now, const qni_jinja *jinja, const char *date, qn_error *err) {
    if (date != NULL) {
        if (qni_jinja_time_parse(now, date)) return QN_OK;
        return qni_fail(err, QN_EINVAL, "date: must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, got \"%s\"", date);
    }
    if (!qni_jinja_reads(jinja, "strftime_now") || qni_jinja_time_now(now)) return QN_OK;
    return qni_fail(err, QN_EINVAL, "date: the local time is unavailable");
}

static qn_status render(const qn_chat_template *t, qn_prompt *prompt, const conversation *c, const qn_chat_input *input,
                        qn_error *err) {
    const qni_jinja *jinja = c->tools != NULL && t->tool_use != NULL ? t->tool_use : t->standard;
    if (jinja == NULL) {
        return qni_fail(err, QN_EUNSUPPORTED,
                        "chat template: there is \"tool_use\", for calls with tools, and none named \"default\"");
    }
    if (input->think != QN_THINK_AUTO && !qni_jinja_reads(jinja, "enable_thinking")) {
        return qni_fail(err, QN_EINVAL, "think: the chat template does not read enable_thinking");
    }
    QN_TRY(check_messages(c->messages, jinja, input->continue_final_message, err));
    size_t start = prompt->text.size;
    if (input->continue_final_message) QN_TRY(tag_last(c->messages, jinja, err));
    qni_jinja_time now = {0};
    QN_TRY(read_time(&now, jinja, input->date, err));
    qni_jinja_var *vars = qni_calloc(json_object_size(t->tokens) + json_object_size(c->kwargs) + 5, sizeof *vars);
    if (vars == NULL) return qni_fail(err, QN_ENOMEM, "chat template: out of memory");
    size_t n = set_variables(vars, t, c, input);
    qn_status status = qni_jinja_render(jinja, prompt, vars, n, &now, err);
    qni_free(vars);
    if (status == QN_OK && input->continue_final_message) status = cut_at_tag(prompt, start, c->messages, err);
    return status;
}

qn_status qn_chat_render(const qn_chat_template *chat_template, qn_prompt *prompt, const qn_chat_input *input,
                         qn_error *err) {
    if (chat_template == NULL || prompt == NULL || input == NULL || input->messages == NULL) {
        return qni_fail(err, QN_EINVAL, "chat render: the template, the prompt, the input or its messages are NULL");
    }
    if (input->think < QN_THINK_AUTO || input->think > QN_THINK_OFF) {
        return qni_fail(err, QN_EINVAL, "chat render: think must be 0, 1 or 2, got %d", (int)input->think);
    }
    if (input->continue_final_message && input->add_generation_prompt) {
        return qni_fail(err, QN_EINVAL, "continue_final_message: not together with add_generation_prompt");
    }
    conversation c = {0};
    qn_status status = parse_input(&c, input, err);
    if (status == QN_OK) status = render(chat_template, prompt, &c, input, err);
    free_input(&c);
    return status;
}
