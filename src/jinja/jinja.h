/* SPDX-License-Identifier: Apache-2.0 */
/* A sandboxed interpreter of the Jinja language of chat templates, with the settings that Hugging Face's transformers
 * give it: trim_blocks, lstrip_blocks, break and continue, generation blocks, Python's json text. It reaches nothing
 * but its variables. What it does not know is refused when the template is parsed. */
#ifndef QNI_JINJA_H
#define QNI_JINJA_H

#include "../base/error.h"

#include <quern/chat.h>

#include <jansson.h>

typedef struct qni_jinja qni_jinja;

/* Bounds. Everything beyond is EFULL (or EUNSUPPORTED when it is the template itself). */
enum {
    QNI_JINJA_SOURCE = 1 << 20,   /* bytes of a template */
    QNI_JINJA_NAMES = 4096,       /* different names in a template */
    QNI_JINJA_NESTING = 40,       /* statements in statements, and parentheses in parentheses */
    QNI_JINJA_HEIGHT = 160,       /* operators on operators: a + b + c is two high */
    QNI_JINJA_STACK = 48 << 10,   /* bytes of stack that parsing and rendering use, but for what the last call needs */
    QNI_JINJA_VALUE_DEPTH = 200,  /* lists in lists */
    QNI_JINJA_STEPS = 50000000,   /* nodes evaluated, items visited, and each 64 bytes of text looked at */
    QNI_JINJA_RANGE = 100000,     /* items of range(), as in Jinja's sandbox */
    QNI_JINJA_JSON = 8 << 20,     /* bytes of a text for from_json */
    QNI_JINJA_OUTPUT = 64 << 20,  /* bytes of the rendered text */
    QNI_JINJA_MEMORY = 512 << 20, /* bytes of all values */
};

/* The time that strftime_now() formats. */
typedef struct qni_jinja_time {
    int year, month, day, hour, minute, second, microsecond;
} qni_jinja_time;
bool qni_jinja_time_parse(qni_jinja_time *out, const char *text); /* as in chat.h; false: malformed, or no such day */
bool qni_jinja_time_now(qni_jinja_time *out);                     /* local time; false: the system has none */

/* A variable that the template sees. */
typedef struct qni_jinja_var {
    const char *name;
    const json_t *value;
    bool trusted;            /* its text counts as the template's own */
    const char *trusted_key; /* so do the strings under this key of a list's objects; NULL: none */
} qni_jinja_var;

/* Parse a template; `name` begins every message about it ("chat template line 3: …"), and is copied.
 * Errors: EFORMAT: a syntax error or no UTF-8; EUNSUPPORTED: a construct that is not known, with its line; ENOMEM. */
qn_status qni_jinja_parse(qni_jinja **out, const char *name, const char *source, size_t size, qn_error *err);
void qni_jinja_free(qni_jinja *jinja); /* NULL is fine */

/* Whether the template reads a variable of that name that it has not set itself before. */
bool qni_jinja_reads(const qni_jinja *jinja, const char *name);

/* Whether its source contains that text. */
bool qni_jinja_contains(const qni_jinja *jinja, const char *text);

/* Append what the template makes of the variables. now: NULL where it does not read strftime_now. Errors: EINVAL: an operation that fails in Python too, or
 * raise_exception; EUNSUPPORTED; EFULL; ENOMEM. `prompt` is as before then. Any number of threads at a time. */
qn_status qni_jinja_render(const qni_jinja *jinja, qn_prompt *prompt, const qni_jinja_var *vars, size_t n_var,
                           const qni_jinja_time *now, qn_error *err);

#endif
