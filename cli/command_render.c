/* SPDX-License-Identifier: Apache-2.0 */
/* quern render: renders conversations with the chat template, one per line. */
#include <stdlib.h>

#include "conversation.h"
#include "fields.h"
#include "open.h"
#include "output.h"

static json_t *render_record(void *user, json_t *record, record_error *error) {
    conversation c = {.kwargs = NULL};
    qn_prompt prompt = {0};
    qn_error err;
    json_t *out = NULL;
    if (fields_check(record, RECORD_RENDER, error) && conversation_read(&c, user, record, error)) {
        if (conversation_render(&c, &prompt, &err))
            out = json_pack("{s:o}", "text", json_text(prompt.text.data, prompt.text.size));
        else
            record_fail_error(error, &err);
    }
    qn_prompt_release(&prompt);
    conversation_release(&c);
    return out;
}

int command_render(const settings *s) {
    qn_chat_template *chat_template = NULL;
    conversation defaults = {.kwargs = NULL};
    char *dir = model_dir(s);
    int code = conversation_begin(&defaults, s, true);
    if (code == EXIT_DONE) code = open_chat_template(&chat_template, s, dir, NULL);
    if (code == EXIT_DONE) code = conversation_use(&defaults, s, chat_template);
    if (code == EXIT_DONE) code = records_answer(render_record, &defaults);
    conversation_release(&defaults);
    qn_chat_template_close(chat_template);
    free(dir);
    return code;
}
