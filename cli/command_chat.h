/* SPDX-License-Identifier: Apache-2.0 */
/* quern chat: the conversation, its commands, and line input. */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include "generator.h"

/* A conversation. `ids` is the token sequence as computed, with the sampled ids themselves. The next turn appends to
 * it, so nothing is recomputed, and reasoning is kept even if the template would drop it. If `ids` is empty and there
 * are messages, the next turn renders all of them. */
typedef struct chat {
    generator generator;
    json_t *messages; /* [{"role", "content"}…]: the first may be the system message */
    qn_ids ids;
    qn_think think; /* initially as in generator.conversation */
    uint64_t seed;
    bool cut_in_reasoning; /* the last answer was cut off inside its reasoning */
    bool quits;
    int32_t n_turn;
    qn_generate_result last;
} chat;

void chat_clear(chat *c); /* forget all but the system message */
const char *chat_system(const chat *c, size_t *size);
void chat_set_system(chat *c, const char *text, size_t size); /* and forget the rest; empty: no system message */
int32_t chat_n_tok(const chat *c);

/* If the line is a command, execute it, set the exit code and return true. A command without operands is recognized
 * only if it stands alone on the line. */
bool chat_command(chat *c, const char *line, size_t size, int *code);

/* Line input: from a terminal with editing and history, or from a pipe. */
typedef struct chat_input chat_input;
chat_input *chat_input_open(void);
void chat_input_close(chat_input *input);

typedef enum chat_line { CHAT_LINE, CHAT_LINE_CANCELED, CHAT_LINE_END, CHAT_LINE_FAILED } chat_line;

/* Read the next message, without its line ending (LF or CR LF). Lines that end with a backslash are joined. SIGINT
 * gives CANCELED; the other signals end the input. A failure has already been reported. */
chat_line chat_input_read(chat_input *input, qn_text *out);

#endif
