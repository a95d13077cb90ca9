/* SPDX-License-Identifier: Apache-2.0 */
/* A template, a line with only "%%%", and the JSON of messages. Without that line: a template over two fixed messages. */
#include "../../src/base/utf8.h"
#include "../../src/jinja/jinja.h"
#include "../../src/text/chat.h"

#include <stdlib.h>
#include <string.h>

static const char fixed[] =
    "[{\"role\": \"user\", \"content\": \"a <b>\\n\\u00e9\"}, {\"role\": \"assistant\", \"content\": "
    "null, \"reasoning\": \"r\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": "
    "[1, 2.5, null, true, \"s\"]}}}]}]";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char line[] = "\n%%%\n";
    const char *source = (const char *)data, *messages = fixed;
    size_t n_source = size, n_messages = sizeof fixed - 1;
    const char *at = memmem(data, size, line, sizeof line - 1);
    if (at != NULL) {
        n_source = (size_t)(at - source);
        messages = at + sizeof line - 1;
        n_messages = size - n_source - (sizeof line - 1);
    }
    qn_error err;
    qni_jinja *jinja = NULL;
    json_t *input = NULL;
    qn_prompt prompt = {0};
    const qn_chat_input given = {.messages = messages, .messages_size = n_messages, .tool_arguments_object = true};
    if (n_messages > 0 && qni_chat_messages(&input, &given, &err) == QN_OK &&
        qni_jinja_parse(&jinja, "template", source, n_source, &err) == QN_OK) {
        const qni_jinja_var vars[] = {
            {.name = "messages", .value = input, .trusted_key = "role"},
            {.name = "tools", .value = json_null()},
            {.name = "add_generation_prompt", .value = json_true()},
        };
        qn_status status =
            qni_jinja_render(jinja, &prompt, vars, 3, &(const qni_jinja_time){2024, 7, 6, 13, 5, 9, 42}, &err);
        const qn_text *text = &prompt.text;
        if (status == QN_OK ? !qni_utf8_is_valid(text->data, text->size) : text->size != 0) abort();
        size_t covered = 0;
        for (size_t i = 0; i < prompt.n_run; i++) covered += prompt.runs[i].size;
        if (covered != text->size) abort();
        if (status != QN_OK && status != QN_EINVAL && status != QN_EUNSUPPORTED && status != QN_EFULL) abort();
    }
    qn_prompt_release(&prompt);
    qni_jinja_free(jinja);
    json_decref(input);
    return 0;
}
