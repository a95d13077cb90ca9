/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations for a chat template: command-line settings for all of them, and the fields of a record. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "records.h"

/* A conversation to render. All values but kwargs are borrowed. */
typedef struct conversation {
    const qn_chat_template *chat_template;
    const json_t *messages, *tools, *documents; /* the last two: NULL or null for none */
    json_t *kwargs;                             /* NULL: none */
    const char *date;
    bool add_generation_prompt, continue_final_message, tool_arguments_object;
    bool think_is_variable; /* a template that ignores enable_thinking is accepted, as in transformers */
    qn_think think;
} conversation;

/* Read the settings, then bind the template. Each returns an exit code; release in any case. */
int conversation_begin(conversation *out, const settings *s, bool think_is_variable);
int conversation_use(conversation *c, const settings *s, const qn_chat_template *chat_template);
void conversation_release(conversation *c);

/* Whether the thinking mode has any effect on the template; the message for templates where it has none. */
bool conversation_can_think(const conversation *c);
extern const char think_unread[];

/* Fill `out` with the fields of a record on top of `defaults`. Returns false with `error` set. Release in any case. */
bool conversation_read(conversation *out, const conversation *defaults, json_t *record, record_error *error);

/* Append the prompt. Returns false with `err` set. */
bool conversation_render(const conversation *c, qn_prompt *out, qn_error *err);

#endif
