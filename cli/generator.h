/* SPDX-License-Identifier: Apache-2.0 */
/* What run and chat share: everything open that generation needs, sampling settings, and the line of figures. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include "conversation.h"
#include "open.h"

typedef enum need {
    NEED_NOT,
    NEED_IF_THERE,
    NEED_MUST,
} need;

typedef struct generator {
    const settings *settings;
    char *dir;
    qn_device *device;
    qn_model *model;
    qn_session *session;             /* NULL with --jsonl, which has its own */
    qn_tokenizer *tokenizer;         /* may be NULL */
    qn_chat_template *chat_template; /* may be NULL */
    record_error no_template;        /* then why */
    conversation conversation;       /* what the settings say about all of them */
    qn_ids ends;                     /* ids that end an answer of a chat */
    qn_logit_bias *bias;             /* of --logit-bias */
    size_t n_bias;
} generator;

/* Open what there is to open, the cheap first. Returns an exit code; close in any case. */
int generator_open(generator *g, const settings *s, need tokenizer, need chat_template);
void generator_close(generator *g);

/* Whether an id ends an answer of a chat. */
bool generator_is_end(const generator *g, int32_t id);

/* Let the arguments take a rendered prompt, which lives on, and what ends a chat. With `parse_special` all of it becomes
 * trusted. */
void generator_take_prompt(const generator *g, qn_prompt *prompt, bool parse_special, qn_generate_args *args);

/* Fill with the model's defaults and the command line's settings. */
void generator_params(const generator *g, bool is_chat, qn_think think, qn_sampler_params *params);

/* A seed for a run that was given none. */
uint64_t random_seed(void);

/* Append bytes to a text that must_realloc holds (release it with free). */
void append_bytes(qn_text *text, const char *data, size_t size);

/* "prompt 12 tokens, 800 tok/s; ..." on stderr. seed may be NULL. */
void print_figures(const qn_generate_result *result, const uint64_t *seed);

/* Prints pieces as they come: content to stdout, reasoning dimmed to `aside`. */
typedef struct printer {
    FILE *aside;
    bool in_reasoning, wrote;
} printer;
void printer_piece(printer *p, qn_piece piece, const char *text, size_t size);
void printer_end(printer *p); /* closes the dim text */

#endif
