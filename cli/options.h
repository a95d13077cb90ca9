/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as data: each command is a table row with its option tables. The parser, --help and completion are
 * all driven by it. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes of every command. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Values with a `given` flag, so that defaults can come from the model or a record. */
typedef struct whole {
    int64_t value;
    bool given;
} whole;

typedef struct real {
    double value;
    bool given;
} real;

typedef struct wholes {
    int64_t *data;
    size_t n;
} wholes;

typedef struct texts {
    const char **data;
    size_t n;
} texts;

/* Set by the sampling options and by the fields of a record. */
typedef struct sampling {
    real temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    whole top_k, seed;
} sampling;

/* All options of all commands; a command reads only those in its tables. */
typedef struct settings {
    bool help, quiet;
    /* model and compute */
    const char *model, *device, *isa;
    int arith;    /* qn_arith; -1: not given */
    int kv, yarn; /* qn_dtype, qn_yarn_mode */
    int quantize; /* qn_quantize */
    whole threads, n_ctx;
    /* input and output */
    const char *prompt, *file, *ids, *chat_template, *template_kwargs, *date;
    bool raw, chat, jsonl, json, plain, decode, ignore_eos, parse_special;
    int tool_arguments;   /* 1: JSON text is parsed into objects */
    int think;            /* qn_think */
    int reasoning_format; /* reasoning_format */
    whole n_predict, parallel;
    texts stops, logit_bias;
    sampling sampling;
    /* perplexity, verify */
    const char *compare;
    whole window, chunk, batch;
    /* synth, bench */
    int dtype; /* qn_dtype */
    const char *synthetic;
    wholes n_prompt, n_gen, n_depth, n_parallel;
    whole repetitions;
    int output; /* output_format */
    const char **operands;
    size_t n_operand;
} settings;

typedef enum reasoning_format {
    REASONING_AUTO = 0, /* split if the prompt came from a chat template */
    REASONING_NONE,
    REASONING_DEEPSEEK,
} reasoning_format;

typedef enum output_format { OUTPUT_MD = 0, OUTPUT_CSV, OUTPUT_JSON } output_format;

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_TEXTS,  /* texts: repeatable */
    OPTION_WHOLE,  /* whole, from min to max */
    OPTION_WHOLES, /* wholes: 1,2,4 or 1-8*2 or 1-8+1, each from min to max; repeatable */
    OPTION_REAL,   /* real, from min to max */
    OPTION_CHOICE, /* int: the entry of `values` at the index of the word in `argument` ("on|off|auto") */
} option_kind;

typedef struct option {
    const char *names; /* all spellings: "-m, --model"; NULL ends a table */
    option_kind kind;
    size_t offset;        /* of the field in settings */
    const char *argument; /* "N" or "on|off|auto"; NULL: none */
    const char *help;
    double min, max;
    const int *values;
} option;

typedef struct command {
    const char *name;
    const char *operands; /* as in the usage line; "" for none */
    int min_operand, max_operand;
    const char *summary;          /* the line in `quern --help` */
    const char *text;             /* the paragraph in `quern help NAME` */
    const option *const *groups;  /* tables, NULL-terminated */
    int (*run)(const settings *); /* returns an exit code */
} command;

extern const command commands[]; /* terminated by a NULL name */

const command *command_find(const char *name);

/* Fill `out` from argv, which excludes the program and command names. Usage errors are printed with a hint. Returns an
 * exit code. settings_release frees what parsing allocated. */
int options_parse(settings *out, const command *cmd, int argc, char **argv);
void settings_release(settings *settings);

/* Parse a decimal number at the start of a text; leading white space is not accepted. *end points past it. False if
 * there is no number or it is out of range. */
bool number_whole(int64_t *out, const char *text, const char **end);
bool number_real(double *out, const char *text, const char **end);

void help_print_all(void);
void help_print(const command *cmd);

/* Print "quern: COMMAND: what is wrong" and a line that points to the help; returns EXIT_USAGE. name: of a command, or
 * NULL. */
int usage_error(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

int command_run(const settings *settings);
int command_chat(const settings *settings);
int command_tokenize(const settings *settings);
int command_render(const settings *settings);
int command_sample(const settings *settings);
int command_perplexity(const settings *settings);
int command_verify(const settings *settings);
int command_info(const settings *settings);
int command_devices(const settings *settings);
int command_synth(const settings *settings);
int command_bench(const settings *settings);
int command_quantize(const settings *settings);

#endif
