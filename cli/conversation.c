/* SPDX-License-Identifier: Apache-2.0 */
/* Builds conversations from settings and record fields, and renders them. */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

#include "../src/base/json.h"
#include "output.h"

const char think_unread[] = "the chat template does not read enable_thinking";

bool conversation_can_think(const conversation *c) {
    return c->think_is_variable || qn_chat_template_reads(c->chat_template, "enable_thinking");
}

/* --chat-template-kwargs; enable_thinking in it is equivalent to --think. */
static int read_option(conversation *c, const char *text) {
    static const char name[] = "--chat-template-kwargs";
    qn_error err;
    if (qni_json_parse(&c->kwargs, name, text, strlen(text), &err)) return usage_error(NULL, "%s", err.message);
    if (!is_object(c->kwargs))
        return usage_error(NULL, "%s: must be an object, not %s", name, json_type_name(c->kwargs));
    json_t *enable = json_object_get(c->kwargs, "enable_thinking");
    if (!enable) return EXIT_DONE;
    if (!json_is_boolean(enable))
        return usage_error(NULL, "%s: enable_thinking must be true or false, not %s", name, json_type_name(enable));
    qn_think think = json_is_true(enable) ? QN_THINK_ON : QN_THINK_OFF;
    if (c->think != QN_THINK_AUTO && c->think != think)
        return usage_error(NULL, "%s: enable_thinking contradicts --think", name);
    c->think = think;
    json_object_del(c->kwargs, "enable_thinking");
    return EXIT_DONE;
}

int conversation_begin(conversation *out, const settings *s, bool think_is_variable) {
    *out = (conversation){.date = s->date,
                          .add_generation_prompt = true,
                          .tool_arguments_object = s->tool_arguments,
                          .think_is_variable = think_is_variable,
                          .think = (qn_think)s->think};
    return s->template_kwargs ? read_option(out, s->template_kwargs) : EXIT_DONE;
}

int conversation_use(conversation *c, const settings *s, const qn_chat_template *chat_template) {
    c->chat_template = chat_template;
    if (c->think == QN_THINK_AUTO || conversation_can_think(c)) return EXIT_DONE;
    return fail(s->think ? "--think" : "--chat-template-kwargs", "%s", think_unread);
}

void conversation_release(conversation *c) {
    json_decref(c->kwargs);
    c->kwargs = NULL;
}

/* Read a list or null. */
static bool read_list(json_t *record, const char *name, const json_t **out, record_error *error) {
    const json_t *value = json_object_get(record, name);
    if (value && !json_is_null(value) && !json_is_array(value))
        return record_fail(error, "%s: must be a list or null, not %s", name, json_type_name(value));
    *out = value;
    return true;
}

/* Merge the record's kwargs over those of the command line. */
static bool read_kwargs(conversation *c, json_t *record, record_error *error) {
    json_t *own = json_object_get(record, "chat_template_kwargs");
    if (own && !json_is_null(own) && !is_object(own))
        return record_fail(error, "chat_template_kwargs: must be an object, not %s", json_type_name(own));
    c->kwargs = c->kwargs ? json_copy(c->kwargs) : json_object();
    if (is_object(own)) json_object_update(c->kwargs, own);
    return true;
}

/* Apply one of the fields that set the thinking mode; all those of a record must agree. `first` is the previous one, or
 * NULL. */
static bool ask_think(conversation *c, const char *name, bool enable, const char **first, record_error *error) {
    qn_think think = enable ? QN_THINK_ON : QN_THINK_OFF;
    if (*first && c->think != think) return record_fail(error, "%s: contradicts %s", name, *first);
    c->think = think;
    *first = name;
    return true;
}

static bool read_switch(conversation *c, json_t *object, const char *name, const char *shown, const char **first,
                        record_error *error) {
    json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value)) return true;
    if (!json_is_boolean(value))
        return record_fail(error, "%s: must be true or false, not %s", shown, json_type_name(value));
    return ask_think(c, shown, json_is_true(value), first, error);
}

/* The field of Anthropic, DeepSeek and vLLM: a boolean, or {"type": "enabled"}. */
static bool read_thinking(conversation *c, json_t *record, const char **first, record_error *error) {
    json_t *value = json_object_get(record, "thinking"), *item;
    if (!is_object(value)) return read_switch(c, record, "thinking", "thinking", first, error);
    const json_t *kind = json_object_get(value, "type");
    const char *key, *type = json_string_value(kind);
    json_object_foreach(value, key, item) {
        if (item != kind && !json_is_null(item)) return record_fail(error, "thinking.%.40s: is not offered", key);
    }
    if (!kind || json_is_null(kind)) return true;
    if (!type || (strcmp(type, "enabled") != 0 && strcmp(type, "disabled") != 0))
        return record_fail(error, "thinking.type: must be \"enabled\" or \"disabled\"");
    return ask_think(c, "thinking", !strcmp(type, "enabled"), first, error);
}

/* The OpenAI API's field. A template that reads it receives it; otherwise its extremes switch enable_thinking. */
static bool read_effort(conversation *c, json_t *record, const char **first, record_error *error) {
    static const char *const known[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    json_t *value = json_object_get(record, "reasoning_effort");
    if (!value || json_is_null(value)) return true;
    if (!json_is_string(value))
        return record_fail(error, "reasoning_effort: must be a string, not %s", json_type_name(value));
    const char *effort = json_string_value(value);
    int index = 0;
    while (index < 7 && strcmp(effort, known[index]) != 0) index++;
    if (index == 7) return record_fail(error, "reasoning_effort: \"%.40s\" is not known", effort);
    if (qn_chat_template_reads(c->chat_template, "reasoning_effort")) {
        json_t *own = json_object_get(c->kwargs, "reasoning_effort");
        if (own && !json_equal(own, value))
            return record_fail(error, "reasoning_effort: contradicts chat_template_kwargs.reasoning_effort");
        json_object_set(c->kwargs, "reasoning_effort", value);
        return true;
    }
    /* the levels in between make no difference to the prompt */
    if (index > 0 && index < 5 && !c->think_is_variable)
        return record_fail(error, "reasoning_effort: \"%s\" is a budget for thoughts, which is not offered", effort);
    return ask_think(c, "reasoning_effort", index > 0, first, error);
}

static bool read_think(conversation *c, json_t *record, record_error *error) {
    const char *variable = NULL, *wish;
    json_t *own = json_object_get(record, "chat_template_kwargs");
    if (!read_switch(c, own, "enable_thinking", "chat_template_kwargs.enable_thinking", &variable, error) ||
        !read_switch(c, record, "enable_thinking", "enable_thinking", &variable, error))
        return false;
    wish = variable;
    if (!read_switch(c, record, "think", "think", &wish, error) || !read_thinking(c, record, &wish, error) ||
        !read_effort(c, record, &wish, error))
        return false;
    /* an unread variable is harmless, an explicit request must not be ignored */
    if (wish != variable && !qn_chat_template_reads(c->chat_template, "enable_thinking"))
        return record_fail(error, "%s: %s", wish, think_unread);
    /* moved to c->think; null counts as absent */
    json_object_del(c->kwargs, "enable_thinking");
    return true;
}

static bool read_tool_choice(conversation *c, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "tool_choice");
    const char *choice = json_string_value(value);
    if (!value || json_is_null(value) || (choice && !strcmp(choice, "auto"))) return true;
    if (!choice || strcmp(choice, "none") != 0)
        return record_fail(error, "tool_choice: must be \"auto\" or \"none\"; other choices are not offered");
    c->tools = NULL;
    return true;
}

static bool read_date(conversation *c, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "date");
    if (!value || json_is_null(value)) return true;
    if (!json_is_string(value)) return record_fail(error, "date: must be a string, not %s", json_type_name(value));
    c->date = json_string_value(value);
    /* a C string ends at U+0000 */
    return strlen(c->date) == json_string_length(value) || record_fail(error, "date: must not hold U+0000");
}

static bool read_tool_arguments(conversation *c, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "tool_arguments");
    const char *form = json_string_value(value);
    if (!value || json_is_null(value)) return true;
    if (!form || (strcmp(form, "text") != 0 && strcmp(form, "object") != 0))
        return record_fail(error, "tool_arguments: must be \"text\" or \"object\"");
    c->tool_arguments_object = !strcmp(form, "object");
    return true;
}

bool conversation_read(conversation *out, const conversation *defaults, json_t *record, record_error *error) {
    *out = *defaults;
    if (!read_kwargs(out, record, error)) {
        out->kwargs = NULL;
        return false;
    }
    out->messages = json_object_get(record, "messages");
    if (!json_is_array(out->messages))
        return record_fail(error, "messages: must be a list, not %s", json_type_name(out->messages));
    if (!read_list(record, "tools", &out->tools, error) || !read_list(record, "documents", &out->documents, error) ||
        !read_tool_choice(out, record, error) || !read_think(out, record, error) || !read_date(out, record, error) ||
        !read_tool_arguments(out, record, error) ||
        !field_bool(record, "continue_final_message", &out->continue_final_message, error))
        return false;
    out->add_generation_prompt = !out->continue_final_message;
    return field_bool(record, "add_generation_prompt", &out->add_generation_prompt, error);
}

static char *list_source(const json_t *list) {
    return json_is_array(list) ? json_source(list) : NULL;
}

bool conversation_render(const conversation *c, qn_prompt *out, qn_error *err) {
    json_t *kwargs = c->kwargs ? json_copy(c->kwargs) : json_object();
    if (c->think_is_variable && c->think != QN_THINK_AUTO)
        json_object_set_new(kwargs, "enable_thinking", json_boolean(c->think == QN_THINK_ON));
    char *messages = json_source(c->messages), *tools = list_source(c->tools), *documents = list_source(c->documents);
    char *variables = json_source(kwargs);
    const qn_chat_input input = {
        .messages = messages,
        .tools = tools,
        .documents = documents,
        .kwargs = variables,
        .think = c->think_is_variable ? QN_THINK_AUTO : c->think,
        .add_generation_prompt = c->add_generation_prompt,
        .continue_final_message = c->continue_final_message,
        .tool_arguments_object = c->tool_arguments_object,
        .date = c->date,
    };
    qn_status status = qn_chat_render(c->chat_template, out, &input, err);
    free(messages);
    free(tools);
    free(documents);
    free(variables);
    json_decref(kwargs);
    return status == QN_OK;
}
