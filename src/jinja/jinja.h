/* SPDX-License-Identifier: Apache-2.0 */
/* A sandboxed interpreter of the Jinja language of chat templates, with the settings of Hugging Face's transformers:
 * trim_blocks, lstrip_blocks, break and continue, generation blocks, Python's JSON text. A template can access nothing
 * but its variables. Unknown constructs are refused at parse time. */
#ifndef QNI_JINJA_H
#define QNI_JINJA_H

#include "../base/error.h"

#include <quern/chat.h>

#include <jansson.h>

typedef struct qni_jinja qni_jinja;

/* Limits. Exceeding one is EFULL (or EUNSUPPORTED if the template itself does). */
enum {
    QNI_JINJA_SOURCE = 1 << 20,   /* bytes of a template */
    QNI_JINJA_NAMES = 4096,       /* distinct names in a template */
    QNI_JINJA_NESTING = 40,       /* nesting of statements, and of parentheses */
    QNI_JINJA_HEIGHT = 160,       /* height of the operator tree: a + b + c is two high */
    QNI_JINJA_STACK = 48 << 10,   /* bytes of stack for parsing and rendering, without the innermost call */
    QNI_JINJA_VALUE_DEPTH = 200,  /* nesting of lists */
    QNI_JINJA_STEPS = 50000000,   /* nodes evaluated, items visited, and 64-byte units of text processed */
    QNI_JINJA_RANGE = 100000,     /* items of range(), as in Jinja's sandbox */
    QNI_JINJA_JSON = 8 << 20,     /* bytes of text passed to from_json */
    QNI_JINJA_OUTPUT = 64 << 20,  /* bytes of the rendered text */
    QNI_JINJA_MEMORY = 512 << 20, /* bytes of all values */
};

/* The time that strftime_now() formats. */
typedef struct qni_jinja_time {
    int year, month, day, hour, minute, second, microsecond;
} qni_jinja_time;
bool qni_jinja_time_parse(qni_jinja_time *out, const char *text); /* as in chat.h; false: malformed, or no such day */
bool qni_jinja_time_now(qni_jinja_time *out);                     /* local time; false: not available */

/* A variable visible to the template. */
typedef struct qni_jinja_var {
    const char *name;
    const json_t *value;
    bool trusted;            /* its text is trusted like the template's own */
    const char *trusted_key; /* trusted too: the strings under this key in a list's objects; NULL: none */
} qni_jinja_var;

/* Parse a template. `name` is copied and prefixes every message about it ("chat template line 3: …"). Errors: EFORMAT:
 * a syntax error or invalid UTF-8; EUNSUPPORTED: an unknown construct, with its line; ENOMEM. */
qn_status qni_jinja_parse(qni_jinja **out, const char *name, const char *source, size_t size, qn_error *err);
void qni_jinja_free(qni_jinja *jinja); /* NULL is allowed */

/* Whether the template reads a variable of that name without having set it before. */
bool qni_jinja_reads(const qni_jinja *jinja, const char *name);

/* Whether the source contains that text. */
bool qni_jinja_contains(const qni_jinja *jinja, const char *text);

/* Append the rendered template. now may be NULL if the template does not read strftime_now. Errors: EINVAL: an
 * operation that fails in Python too, or raise_exception; EUNSUPPORTED; EFULL; ENOMEM. On error `prompt` is unchanged.
 * Thread-safe. */
qn_status qni_jinja_render(const qni_jinja *jinja, qn_prompt *prompt, const qni_jinja_var *vars, size_t n_var,
                           const qni_jinja_time *now, qn_error *err);

#endif
