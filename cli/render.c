/* SPDX-License-Identifier: Apache-2.0 */
/* quern render: conversations through the chat template, line by line. */
#include <stdlib.h>

#include "generate.h"
#include "load.h"
#include "output.h"
#include "records.h"

bool render_messages(const qn_chat_template *chat_template, qn_text *text, const json_t *messages, const json_t *tools,
                     bool add_generation_prompt, qn_think think, qn_error *err) {
    char *messages_text = json_source(messages), *tools_text = json_is_null(tools) ? NULL : json_source(tools);
    qn_prompt prompt = {0};
    qn_chat_input input = {
        .messages = messages_text, .tools = tools_text, .add_generation_prompt = add_generation_prompt};
    /* As a variable, which a template need not read. */
    if (think != QN_THINK_AUTO)
        input.kwargs = think == QN_THINK_ON ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}";
    qn_status status = qn_chat_render(chat_template, &prompt, &input, err);
    if (status == QN_OK) append_bytes(text, prompt.text.data, prompt.text.size);
    qn_prompt_release(&prompt);
    free(messages_text);
    free(tools_text);
    return status == QN_OK;
}

bool fields_conversation(json_t *record, json_t **messages, json_t **tools, record_error *error) {
    *messages = json_object_get(record, "messages");
    if (!json_is_array(*messages))
        return record_fail(error, "messages: must be a list, not %s", json_type_name(*messages));
    *tools = json_object_get(record, "tools");
    if (*tools && !json_is_null(*tools) && !json_is_array(*tools))
        return record_fail(error, "tools: must be a list or null, not %s", json_type_name(*tools));
    return true;
}

bool fields_think(json_t *record, qn_think *think, record_error *error) {
    bool enable = false;
    json_t *kwargs = json_object_get(record, "chat_template_kwargs");
    if (kwargs && !json_is_null(kwargs) && !json_is_object(kwargs))
        return record_fail(error, "chat_template_kwargs: must be an object, not %s", json_type_name(kwargs));
    json_t *const places[] = {kwargs, record};
    for (int i = 0; i < 2; i++) {
        if (!field_bool(places[i], "enable_thinking", &enable, error)) return false;
        if (json_is_boolean(json_object_get(places[i], "enable_thinking")))
            *think = enable ? QN_THINK_ON : QN_THINK_OFF;
    }
    return true;
}

static json_t *render_record(void *user, json_t *record, record_error *error) {
    json_t *messages = NULL, *tools = NULL, *out = NULL;
    bool add_generation_prompt = true;
    qn_think think = QN_THINK_AUTO;
    qn_text text = {0};
    qn_error err;
    if (!fields_conversation(record, &messages, &tools, error) || !fields_think(record, &think, error) ||
        !field_bool(record, "add_generation_prompt", &add_generation_prompt, error))
        return NULL;
    if (!render_messages(user, &text, messages, tools, add_generation_prompt, think, &err))
        record_fail_error(error, &err);
    else
        out = json_pack("{s:o}", "text", json_text(text.data, text.size));
    qn_text_release(&text);
    return out;
}

int command_render(const settings *s) {
    qn_chat_template *chat_template = NULL;
    char *dir = model_dir(s);
    int code = open_chat_template(&chat_template, s, dir, NULL);
    if (code == EXIT_DONE) code = records_answer(render_record, chat_template);
    qn_chat_template_close(chat_template);
    free(dir);
    return code;
}
