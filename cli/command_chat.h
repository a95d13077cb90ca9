/* SPDX-License-Identifier: Apache-2.0 */
/* quern chat: the conversation, its commands, and the lines that are typed. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include "generator.h"

/* A conversation. `ids` is the timeline as it was computed, with the very tokens that were drawn: the next turn appends
 * to it, so nothing is computed twice, and thoughts stay although the template would drop them. Empty `ids` with
 * messages: the next turn renders all of them. */
typedef struct chat {
    generator generator;
    json_t *messages; /* [{"role", "content"}…]: the first may be the system's */
    qn_ids ids;
    qn_think think; /* as in generator.conversation at first */
    uint64_t seed;
    bool cut_in_reasoning; /* the last answer was cut off inside its reasoning */
    bool quits;
    int32_t n_turn;
    qn_generate_result last;
} chat;

void chat_clear(chat *c); /* forget all but the system message */
const char *chat_system(const chat *c, size_t *size);
void chat_set_system(chat *c, const char *text, size_t size); /* and forget the rest; empty: none */
int32_t chat_n_tok(const chat *c);

/* A line that is a command: do it and return true, with the exit code of what it did. A command that takes no operand is
 * one only when it stands alone. */
bool chat_command(chat *c, const char *line, size_t size, int *code);

/* Lines from a terminal with editing and history, or from a pipe. */
typedef struct chat_input chat_input;
chat_input *chat_input_open(void);
void chat_input_close(chat_input *input);

typedef enum chat_line { CHAT_LINE, CHAT_LINE_CANCELED, CHAT_LINE_END, CHAT_LINE_FAILED } chat_line;

/* The next message without the end of its line, LF or CR LF; lines that end with a backslash are joined. Canceled by
 * SIGINT; the other signals end the input; a failure was told. */
chat_line chat_input_read(chat_input *input, qn_text *out);

#endif
