/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what the settings name: model directory, device, model, session, template, prompt text. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include <jansson.h>
#include <quern/quern.h>

#include "options.h"
#include "records.h"

/* The directory given by -m, else that of the demo model. The caller frees it. */
char *model_dir(const settings *s);

/* Each returns an exit code and reports errors on stderr. */
int open_device(qn_device **out, const settings *s, const char *name, bool compose);
int open_model(qn_model **out, const settings *s, qn_device *device, const char *dir);
int open_session(qn_session **out, const settings *s, qn_model *model, const char *dir);

/* The type of the KV cache: as set, or the default of the device. */
qn_dtype kv_dtype(const settings *s);

/* Memory-plan options from the settings. */
qn_plan_options plan_options(const settings *s);

/* With `missing` NULL, a missing template is an error. Otherwise the code is EXIT_DONE and *missing gives the reason.
 * With --jsonl, a template that the interpreter does not support is treated likewise. */
int open_chat_template(qn_chat_template **out, const settings *s, const char *dir, qn_error *missing);

/* Whether a directory contains a tokenizer.json. */
bool has_tokenizer(const char *dir);

/* The text of -p, -f or standard input, byte for byte; *what names the source. */
int read_prompt(const settings *s, const char *name, qn_text *out, const char **what);

/* A file, or standard input for "-", byte for byte. The caller frees out->data. */
int read_file(qn_text *out, const char *path);

/* Lines of standard input. Zero-initialize; the caller frees text.data. */
typedef struct line_input {
    qn_text text;    /* bytes read so far */
    size_t begin;    /* start of the next line */
    size_t searched; /* bytes from there on known to hold no newline */
    bool at_end;     /* end of input reached */
} line_input;

typedef enum line_state { LINE_READ, LINE_END, LINE_NOT_YET } line_state;

/* Read the next line, including its newline; it is valid until the next call. LINE_END: end of input. LINE_NOT_YET
 * (only if not `waits`): the line is not complete yet. */
int read_line(line_input *in, bool waits, qn_string *line, line_state *state);

/* Parse ids separated by white space or commas. The caller frees out->data. */
int parse_ids(qn_ids *out, const char *what, const char *text, size_t size);

json_t *json_ids(const qn_ids *ids);

/* Set the given parameters; the others keep their defaults. */
void apply_sampling(qn_sampler_params *params, const sampling *wanted);

#endif
