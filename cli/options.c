/* SPDX-License-Identifier: Apache-2.0 */
/* The one option parser: any order, --name value and --name=value, -x value and -xvalue, "--" ends the options. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quern/quern.h>

#include "output.h"

int usage_error(const char *name, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fail(name, "%s", text);
    fprintf(stderr, "Try 'quern %s%s--help'.\n", name ? name : "", name ? " " : "");
    return EXIT_USAGE;
}

const command *command_find(const char *name) {
    for (const command *c = commands; c->name; c++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

/* Whether `spelling` (n bytes) is one of the names in a list such as "-m, --model". */
static bool names_hold(const char *names, const char *spelling, size_t n) {
    for (const char *p = names; *p;) {
        size_t length = strcspn(p, ",");
        if (length == n && !memcmp(p, spelling, n)) return true;
        p += length;
        p += strspn(p, ", ");
    }
    return false;
}

static const option *option_find(const command *cmd, const char *spelling, size_t n) {
    for (const option *const *group = cmd->groups; *group; group++)
        for (const option *o = *group; o->names; o++)
            if (names_hold(o->names, spelling, n)) return o;
    return NULL;
}

/* A sign and digits only: strtoll would also accept white space. */
bool number_whole(int64_t *out, const char *text, const char **end) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (*digits < '0' || *digits > '9') return false;
    errno = 0;
    *out = strtoll(text, (char **)(uintptr_t)end, 10);
    return !errno;
}

/* Digits with a point and an exponent only: strtod would also accept white space, hexadecimal numbers, "inf" and
 * "nan". */
bool number_real(double *out, const char *text, const char **end) {
    const char *p = text + (*text == '-' || *text == '+');
    size_t before = strspn(p, "0123456789"), after = 0;
    p += before;
    if (*p == '.') after = strspn(++p, "0123456789"), p += after;
    if (!before && !after) return false;
    if (*p == 'e' || *p == 'E') {
        const char *digits = p + 1 + (p[1] == '-' || p[1] == '+');
        size_t n = strspn(digits, "0123456789");
        if (n) p = digits + n;
    }
    *end = p;
    *out = strtod(text, NULL); /* LC_NUMERIC is always C */
    return isfinite(*out);
}

static bool parse_whole(whole *out, const char *text, double min, double max) {
    const char *end;
    int64_t value;
    /* 2^63-1 rounds up to 2^63 as a double, so the comparison holds for every int64 */
    if (!number_whole(&value, text, &end) || *end || (double)value < min || (double)value > max) return false;
    *out = (whole){value, true};
    return true;
}

static bool parse_real(real *out, const char *text, double min, double max) {
    const char *end;
    double value;
    if (!number_real(&value, text, &end) || *end || value < min || value > max) return false;
    *out = (real){value, true};
    return true;
}

/* Index of a word in "a|b|c", or -1. */
static int choice_index(const char *words, const char *word) {
    size_t n = strlen(word);
    int index = 0;
    for (const char *p = words; *p; index++) {
        size_t length = strcspn(p, "|");
        if (length == n && !memcmp(p, word, n)) return index;
        p += length;
        p += *p == '|';
    }
    return -1;
}

enum { MAX_WHOLES = 1000 };

static bool append_whole(wholes *list, int64_t value, double min, double max) {
    if (list->n == MAX_WHOLES || (double)value < min || (double)value > max) return false;
    list->data = must_realloc(list->data, list->n + 1, sizeof(int64_t));
    list->data[list->n++] = value;
    return true;
}

/* Read an unsigned decimal number and advance *at past it. */
static bool read_digits(int64_t *out, const char **at) {
    return **at >= '0' && **at <= '9' && number_whole(out, *at, at);
}

/* Append "4", or a range, optionally with a step or a factor: "4-8", "4-8+2", "4-64*2". Advances *at past it. */
static bool append_range(wholes *list, const char **at, double min, double max) {
    int64_t first, last, step = 1;
    if (!read_digits(&first, at)) return false;
    if (**at != '-') return append_whole(list, first, min, max);
    ++*at;
    if (!read_digits(&last, at) || last < first) return false;
    char sign = **at;
    if (sign == '+' || sign == '*') {
        ++*at;
        if (!read_digits(&step, at)) return false;
    }
    if (step < (sign == '*' ? 2 : 1) || (sign == '*' && first < 1) || step > INT32_MAX) return false;
    for (int64_t i = first; i <= last; i = sign == '*' ? i * step : i + step)
        if (!append_whole(list, i, min, max)) return false; /* max keeps i * step within 62 bits */
    return true;
}

static bool parse_wholes(wholes *list, const char *text, double min, double max) {
    for (;; text++) {
        if (!append_range(list, &text, min, max)) return false;
        if (*text != ',') return !*text;
    }
}

static bool append_text(texts *list, const char *text) {
    list->data = must_realloc(list->data, list->n + 1, sizeof(char *));
    list->data[list->n++] = text;
    return true;
}

static int store(settings *out, const command *cmd, const option *o, const char *spelling, const char *value) {
    void *field = (char *)out + o->offset;
    bool good = true;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return EXIT_DONE;
    case OPTION_TEXT:
        *(const char **)field = value;
        return EXIT_DONE;
    case OPTION_TEXTS:
        append_text(field, value);
        return EXIT_DONE;
    case OPTION_WHOLE:
        good = parse_whole(field, value, o->min, o->max);
        break;
    case OPTION_WHOLES:
        if (parse_wholes(field, value, o->min, o->max)) return EXIT_DONE;
        return usage_error(cmd->name, "%s: must be whole numbers from %.0f to %.0f, like 1,2,4 or 1-8*2, not '%s'",
                           spelling, o->min, o->max, value);
    case OPTION_REAL:
        good = parse_real(field, value, o->min, o->max);
        break;
    case OPTION_CHOICE: {
        int index = choice_index(o->argument, value);
        if (index < 0) return usage_error(cmd->name, "%s: must be %s, not '%s'", spelling, o->argument, value);
        *(int *)field = o->values[index];
        return EXIT_DONE;
    }
    }
    if (good) return EXIT_DONE;
    if (o->kind == OPTION_REAL)
        return usage_error(cmd->name, "%s: must be a number from %.12g to %.12g, not '%s'", spelling, o->min, o->max,
                           value);
    return usage_error(cmd->name, "%s: must be a whole number from %lld to %lld, not '%s'", spelling, (long long)o->min,
                       o->max < 0x1p63 ? (long long)o->max : (long long)INT64_MAX, value);
}

/* Parse one argument that begins with a dash; *i advances if the value is the next argument. */
static int parse_option(settings *out, const command *cmd, int argc, char **argv, int *i) {
    const char *argument = argv[*i], *value = NULL;
    size_t n = argument[1] == '-' ? strcspn(argument, "=") : strlen(argument);
    const option *o = option_find(cmd, argument, n);
    if (o && argument[n] == '=') value = argument + n + 1;
    if (!o && argument[1] != '-') { /* -n5 */
        o = option_find(cmd, argument, n = 2);
        value = argument + 2;
        if (o && o->kind == OPTION_FLAG) o = NULL;
    }
    char spelling[64];
    snprintf(spelling, sizeof(spelling), "%.*s", (int)(n < 60 ? n : 60), argument);
    if (!o) return usage_error(cmd->name, "%s: no such option", spelling);
    if (o->kind == OPTION_FLAG) {
        if (value) return usage_error(cmd->name, "%s: takes no value", spelling);
    } else if (!value) {
        if (*i + 1 >= argc) return usage_error(cmd->name, "%s: needs a value, %s", spelling, o->argument);
        value = argv[++*i];
    }
    return store(out, cmd, o, spelling, value);
}

int options_parse(settings *out, const command *cmd, int argc, char **argv) {
    *out = (settings){.arith = -1};
    bool ended = false;
    out->operands = must_realloc(NULL, (size_t)argc + 1, sizeof(char *));
    for (int i = 0; i < argc; i++) {
        if (!ended && !strcmp(argv[i], "--")) {
            ended = true;
        } else if (!ended && argv[i][0] == '-' && argv[i][1]) {
            int code = parse_option(out, cmd, argc, argv, &i);
            if (code) return code;
        } else {
            out->operands[out->n_operand++] = argv[i];
        }
    }
    if (out->help) return EXIT_DONE;
    if (out->n_operand < (size_t)cmd->min_operand) return usage_error(cmd->name, "%s is needed", cmd->operands);
    if (cmd->max_operand >= 0 && out->n_operand > (size_t)cmd->max_operand)
        return usage_error(cmd->name, "unexpected argument '%s'", out->operands[cmd->max_operand]);
    return EXIT_DONE;
}

void settings_release(settings *s) {
    free(s->operands);
    free(s->stops.data);
    free(s->logit_bias.data);
    free(s->n_prompt.data);
    free(s->n_gen.data);
    free(s->n_depth.data);
    free(s->n_parallel.data);
    *s = (settings){.arith = -1};
}
