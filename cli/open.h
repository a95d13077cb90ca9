/* SPDX-License-Identifier: Apache-2.0 */
/* From settings to open things: where the model is, device, model, session, template, prompt text. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include <jansson.h>
#include <quern/quern.h>

#include "options.h"
#include "records.h"

/* The directory of -m, else of the demo model. The caller frees it. */
char *model_dir(const settings *s);

/* Each returns an exit code and says what is wrong. */
int open_device(qn_device **out, const settings *s, const char *name, bool compose);
int open_model(qn_model **out, const settings *s, qn_device *device, const char *dir);
int open_session(qn_session **out, const settings *s, qn_model *model, const char *dir);

/* What the settings ask of a plan. */
qn_plan_options plan_options(const settings *s);

/* `missing` NULL: that there is no template is an error; else the code is EXIT_DONE then, and *missing says why. So it
 * is with one that the interpreter does not know, if records are read. */
int open_chat_template(qn_chat_template **out, const settings *s, const char *dir, qn_error *missing);

/* Whether a directory has a tokenizer.json. */
bool has_tokenizer(const char *dir);

/* The text of -p, -f or standard input, exactly; *what names it. */
int read_prompt(const settings *s, const char *name, qn_text *out, const char **what);

/* A file, or standard input for "-", exactly. The caller frees out->data. */
int read_file(qn_text *out, const char *path);

/* Lines of standard input. Zeros begin it; the caller frees text.data. */
typedef struct line_input {
    qn_text text;    /* what was read */
    size_t begin;    /* of the next line in it */
    size_t searched; /* bytes from there on that hold no newline */
    bool at_end;     /* nothing more is to be read */
} line_input;

typedef enum line_state { LINE_READ, LINE_END, LINE_NOT_YET } line_state;

/* Read the next line, with its newline; it is valid until the next call. LINE_END: the input has ended. LINE_NOT_YET, unless
 * `waits`: not all of it has come yet. */
int read_line(line_input *in, bool waits, qn_string *line, line_state *state);

/* Ids separated by white space or commas. The caller frees out->data. */
int parse_ids(qn_ids *out, const char *what, const char *text, size_t size);

json_t *json_ids(const qn_ids *ids);

/* Set what is given; the rest keeps its default. */
void apply_sampling(qn_sampler_params *params, const sampling *wanted);

#endif
