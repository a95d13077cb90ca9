/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by run and chat: the objects that generation needs, sampling settings, and the statistics line. */
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
    qn_session *session;             /* NULL with --jsonl, which opens its own */
    qn_tokenizer *tokenizer;         /* may be NULL */
    qn_chat_template *chat_template; /* may be NULL */
    record_error no_template;        /* why chat_template is NULL */
    conversation conversation;       /* defaults from the settings */
    qn_ids ends;                     /* ids that end a chat answer */
    qn_logit_bias *bias;             /* from --logit-bias */
    size_t n_bias;
} generator;

/* Open everything needed, cheapest first. Returns an exit code; close in any case. */
int generator_open(generator *g, const settings *s, need tokenizer, need chat_template);
void generator_close(generator *g);

/* Whether an id ends a chat answer. */
bool generator_is_end(const generator *g, int32_t id);

/* Point the arguments at a rendered prompt, which must outlive them, and at the ids that end a chat answer. With
 * `parse_special` the whole prompt is marked as trusted. */
void generator_set_prompt(const generator *g, qn_prompt *prompt, bool parse_special, qn_generate_args *args);

/* Fill with the model's defaults, overridden by the command line. */
void generator_params(const generator *g, bool is_chat, qn_think think, qn_sampler_params *params);

/* A random seed, for a run without --seed. */
uint64_t random_seed(void);

/* Append bytes to a text allocated by must_realloc (release it with free). */
void append_bytes(qn_text *text, const char *data, size_t size);

/* "prompt 12 tokens, 800 tok/s; ..." on stderr. seed may be NULL. */
void print_figures(const qn_generate_result *result, const uint64_t *seed);

/* Prints pieces as they arrive: content to stdout, dimmed reasoning to `aside`. */
typedef struct printer {
    FILE *aside;
    bool in_reasoning, wrote;
} printer;
void printer_piece(printer *p, qn_piece piece, const char *text, size_t size);
void printer_end(printer *p); /* ends dimmed output */

#endif
