/* SPDX-License-Identifier: Apache-2.0 */
/* Rendering a conversation: the variables that a template sees, and what becomes of its text. */
#include "../base/json.h"
#include "../base/memory.h"
#include "chat.h"

#include <string.h>

/* Everything that one rendering reads, parsed. */
typedef struct conversation {
    json_t *messages;
    json_t *tools;     /* NULL: none */
    json_t *documents; /* NULL: none */
    json_t *kwargs;    /* NULL: none */
} conversation;

static size_t text_size(const char *text, size_t size) {
    return size > 0 ? size : strlen(text);
}

/* Arguments of apply_chat_template that are fields of their own here, or that a template must not see replaced. */
static qn_status check_kwargs(const conversation *c, const qn_chat_input *input, qn_error *err) {
    static const char *const fields[] = {
        "messages",      "conversation", "tools", "documents", "add_generation_prompt", "continue_final_message",
        "chat_template", "tokenize"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (json_object_get(c->kwargs, fields[i]) == NULL) continue;
        return qni_fail(err, QN_EINVAL, "chat_template_kwargs.%s: is no variable of the caller's", fields[i]);
    }
    const json_t *think = json_object_get(c->kwargs, "enable_thinking");
    if (think == NULL || input->think == QN_THINK_AUTO) return QN_OK;
    if (input->think == QN_THINK_ON ? json_is_true(think) : json_is_false(think)) return QN_OK;
    return qni_fail(err, QN_EINVAL, "chat_template_kwargs.enable_thinking: contradicts think, which is %s",
                    input->think == QN_THINK_ON ? "on" : "off");
}

static qn_status parse_input(conversation *c, const qn_chat_input *input, qn_error *err) {
    QN_TRY(qni_chat_messages(&c->messages, input->messages, text_size(input->messages, input->messages_size), err));
    if (input->tools != NULL) {
        QN_TRY(qni_chat_objects(&c->tools, "tools", input->tools, text_size(input->tools, input->tools_size), err));
    }
    if (input->documents != NULL) {
        QN_TRY(qni_chat_objects(&c->documents, "documents", input->documents,
                                text_size(input->documents, input->documents_size), err));
    }
    if (input->kwargs != NULL) {
        QN_TRY(qni_chat_kwargs(&c->kwargs, input->kwargs, text_size(input->kwargs, input->kwargs_size), err));
    }
    return check_kwargs(c, input, err);
}

static void free_input(conversation *c) {
    json_decref(c->messages);
    json_decref(c->tools);
    json_decref(c->documents);
    json_decref(c->kwargs);
}

/* A later variable replaces an earlier one of its name, as in transformers: kwargs come after the special tokens. */
static size_t set_variables(qni_jinja_var *vars, const qn_chat_template *t, const conversation *c,
                            const qn_chat_input *input) {
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach(t->specials, name, value) vars[n++] = (qni_jinja_var){name, value, .trusted = true};
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

static qn_status render(const qn_chat_template *t, qn_prompt *prompt, const conversation *c, const qn_chat_input *input,
                        qn_error *err) {
    const qni_jinja *jinja = c->tools != NULL && t->tool_use != NULL ? t->tool_use : t->standard;
    if (input->think != QN_THINK_AUTO && !qni_jinja_reads(jinja, "enable_thinking")) {
        return qni_fail(err, QN_EINVAL, "think: the chat template does not read enable_thinking");
    }
    qni_jinja_var *vars = qni_calloc(json_object_size(t->specials) + json_object_size(c->kwargs) + 5, sizeof *vars);
    if (vars == NULL) return qni_fail(err, QN_ENOMEM, "chat template: out of memory");
    size_t n = set_variables(vars, t, c, input);
    qn_status status = qni_jinja_render(jinja, prompt, vars, n, err);
    qni_free(vars);
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
    conversation c = {0};
    qn_status status = parse_input(&c, input, err);
    if (status == QN_OK) status = render(chat_template, prompt, &c, input, err);
    free_input(&c);
    return status;
}
