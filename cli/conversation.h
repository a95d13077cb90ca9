/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations for a chat template: what the command line says about all of them, and the fields of a record. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "records.h"

/* A conversation to render. Values are borrowed, but for kwargs. */
typedef struct conversation {
    const qn_chat_template *chat_template;
    const json_t *messages, *tools, *documents; /* the last two: NULL or null for none */
    json_t *kwargs;                             /* NULL: none */
    const char *date;
    bool add_generation_prompt, continue_final_message, tool_arguments_object;
    bool think_is_variable; /* a template that does not read enable_thinking is fine, as in transformers */
    qn_think think;
} conversation;

/* What the settings say, and then with which template. Each returns an exit code; release it in any case. */
int conversation_begin(conversation *out, const settings *s, bool think_is_variable);
int conversation_use(conversation *c, const settings *s, const qn_chat_template *chat_template);
void conversation_release(conversation *c);

/* Whether asking to think, or not to, makes a difference; the words for where it does not. */
bool conversation_can_think(const conversation *c);
extern const char think_unread[];

/* Fill `out` with the fields of a record, over `defaults`; false with `error`. Release it in any case. */
bool conversation_read(conversation *out, const conversation *defaults, json_t *record, record_error *error);

/* Append the prompt; false with `err`. */
bool conversation_render(const conversation *c, qn_prompt *out, qn_error *err);

#endif
