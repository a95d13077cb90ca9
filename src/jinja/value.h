/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a running template, their arena, and the state shared by all files of the interpreter. */
#ifndef QNI_VALUE_H
#define QNI_VALUE_H

#include "../base/stack.h"
#include "jinja.h"

#include <string.h>

/* Memory that is freed all at once. */
typedef struct jchunk jchunk;
typedef struct jarena {
    jchunk *chunks;
    size_t left;  /* bytes free in the newest chunk */
    size_t total; /* bytes of all chunks */
    size_t limit;
    bool full; /* NULL was returned because of the limit */
} jarena;
void *qni_j_alloc(jarena *arena, size_t bytes); /* zeroed, aligned to 8; NULL: out of memory or over the limit */
void qni_j_arena_free(jarena *arena);

typedef enum jkind {
    J_ABSENT = 0, /* an argument that was not given */
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_BIG, /* an integer beyond 64 bits, as its digits: s and size */
    J_STRING,
    J_SEQ,
    J_DICT,
    J_NAMESPACE,
    J_LOOP,
    J_MACRO,
    J_FUNCTION, /* a global function */
    J_METHOD,   /* a method of a value */
} jkind;

typedef struct jseq jseq;
typedef struct jdict jdict;
typedef struct jnamespace jnamespace;
typedef struct jloop jloop;
typedef struct jmacro jmacro;
typedef struct jspec jspec;
typedef struct jbound jbound;

/* A value, small enough to pass by value. Text is borrowed from the template, the JSON input or the arena.
 *
 * Trust: text, numbers and constants are marked by origin, so that only text written by the template itself can
 * become an added token of the prompt. Zero is untrusted: a value that sets nothing is plain text. Text built from
 * both kinds is "mixed"; it lies in a block of a jbuf, whose marks hold one bit per byte. */
typedef struct jval {
    uint8_t kind;
    bool markup;    /* a string that passed through |safe or |escape: adding to it escapes the other operand */
    bool trusted;   /* the whole value; false for mixed text */
    uint32_t mixed; /* 1 + the offset of s in its block; 0: uniform trust */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* text of a string or digits of a big integer; the name of an undefined value */
        jseq *seq;
        jdict *dict;
        jnamespace *space;
        jloop *loop;
        const jmacro *macro;
        const jspec *function;
        const jbound *method;
    };
    size_t size; /* bytes of s */
} jval;

/* Python's types with items. They differ in their text, in indexing, and in JSON. */
typedef enum jseq_kind {
    SEQ_LIST,
    SEQ_TUPLE,
    SEQ_RANGE,
    SEQ_ITERATOR, /* consumed by iteration: `first` is its next item */
    SEQ_KEYS,     /* views of a dict */
    SEQ_VALUES,
    SEQ_ITEMS,
} jseq_kind;

struct jseq {
    uint8_t kind;
    bool trusted;   /* nothing in it came from outside */
    int16_t height; /* nesting depth of its contents */
    size_t first;   /* items before it are consumed (iterators) */
    size_t n;
    jval *items;
};

/* In insertion order; immutable once complete. */
struct jdict {
    bool trusted; /* as in jseq */
    int16_t height;
    size_t n;
    size_t capacity;
    jval *pairs;     /* key, value, key, value, … */
    uint32_t *index; /* open addressing over mask + 1 slots, position + 1; NULL while small */
    size_t mask;
};

struct jnamespace {
    jval *pairs;
    size_t n;
    size_t capacity;
};

/* A bound method, waiting for its call. */
struct jbound {
    jval self;
    const jspec *spec;
};

/* Growing text in the arena, with the trust of each byte. A jblock_head precedes data. */
typedef struct jbuf {
    char *data;
    size_t size;
    size_t capacity;
    uint64_t *marks; /* one bit per byte, set: trusted; NULL: all bytes are as `trusted` */
    bool trusted;
} jbuf;

/* One rendering. */
typedef struct jrun {
    const qni_jinja *jinja;
    jarena arena;
    qn_prompt *out;
    size_t out_start; /* bytes of *out before this rendering */
    qn_error *err;
    int32_t line;    /* line being evaluated */
    uintptr_t stack; /* stack address where the rendering began */
    uint64_t steps;
    qni_jinja_time now;
    jval hole; /* the text that a block's filters are applied to */
} jrun;

/* A native function. Positional and keyword arguments are bound to the slots named in `params` ("a b"; a digit is an
 * unnamed slot; "*": slot 0 gets a tuple of the positional arguments, slot 1 a dict of the keywords). */
enum { J_MAX_ARG = 6 };
typedef qn_status (*jfunction)(jrun *run, jval self, const jval *arg, jval *out);
struct jspec {
    const char *name;
    const char *params;
    int required;
    jfunction call; /* NULL: exists in Python, but a call is refused here */
};

/* Errors: "NAME line N: …", and the two kinds of exhaustion. */
qn_status qni_j_fail(jrun *run, qn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
qn_status qni_j_no_memory(jrun *run);
qn_status qni_j_step(jrun *run, size_t work); /* charge work; EFULL when the budget is exhausted */

/* Recursion is bounded by its stack use. Functions on the recursive path are not inlined, so that the frames of all
 * alternatives do not add up. */
#define QNI_J_APART __attribute__((noinline))
qn_status qni_j_too_deep(jrun *run);
static inline qn_status qni_j_deeper(jrun *run) {
    return qni_stack_within(run->stack, QNI_JINJA_STACK) ? QN_OK : qni_j_too_deep(run);
}

/* Constructors. Those that return a status allocate. */
static inline jval qni_j_none(void) {
    return (jval){.kind = J_NONE, .trusted = true};
}
static inline jval qni_j_bool(bool b) {
    return (jval){.kind = J_BOOL, .trusted = true, .b = b};
}
static inline jval qni_j_int(int64_t i) {
    return (jval){.kind = J_INT, .trusted = true, .i = i};
}
static inline jval qni_j_float(double f) {
    return (jval){.kind = J_FLOAT, .trusted = true, .f = f};
}
static inline jval qni_j_text(const char *s, size_t size) {
    return (jval){.kind = J_STRING, .s = s, .size = size};
}
static inline jval qni_j_literal(const char *s) {
    return (jval){.kind = J_STRING, .trusted = true, .s = s, .size = strlen(s)};
}
static inline jval qni_j_trust(jval v, bool trusted) {
    v.trusted = trusted;
    return v;
}
static inline jval qni_j_undefined(const char *name, size_t size) {
    return (jval){.kind = J_UNDEFINED, .s = name, .size = size};
}
qn_status qni_j_seq(jrun *run, jseq_kind kind, size_t n, jval *out); /* n absent items, to be filled in */
qn_status qni_j_seq_done(jrun *run, jval seq);                       /* call when filled: measures the nesting */
qn_status qni_j_dict(jrun *run, size_t capacity, jval *out);
qn_status qni_j_dict_put(jrun *run, jval to, jval key, jval value); /* only while the dict is being built */
/* Flags: trust the texts; copy the texts, which are otherwise borrowed from the JSON. */
enum { J_JSON_TRUSTED = 1, J_JSON_COPY = 2 };
qn_status qni_j_from_json(jrun *run, const json_t *json, int how, jval *out);

/* Inspect values. */
const char *qni_j_kind(jval v); /* name of its Python type */
bool qni_j_truth(jval v);
bool qni_j_is_number(jval v);                    /* int, float or bool, but not a big integer */
bool qni_j_as_int(jval v, int64_t *out);         /* int or bool */
long double qni_j_as_real(jval v);               /* exact value of a number */
double qni_j_big_real(jval big);                 /* the nearest double */
qn_status qni_j_fail_big(jrun *run);             /* its value is needed: refused */
bool qni_j_text_is(jval v, const char *literal); /* a string equal to the literal */
qn_status qni_j_equal(jrun *run, jval a, jval b, bool *out);
qn_status qni_j_order(jrun *run, jval a, jval b, int *out,
                      const char *operator_text); /* -1, 0, 1; 2: unordered (NaN) */
qn_status qni_j_contains(jrun *run, jval container, jval item, bool *out);
qn_status qni_j_dict_get(jrun *run, const jdict *dict, jval key, const jval **out); /* NULL: not found */
qn_status qni_j_length(jrun *run, jval v, size_t *out);                             /* as len() */
bool qni_j_iterable(jval v);
qn_status qni_j_iterate(jrun *run, jval v, jseq **out); /* items first … n-1; an iterator is consumed */
qn_status qni_j_attribute(jrun *run, jval v, jval name, jval *out);
qn_status qni_j_item(jrun *run, jval v, jval key, jval *out);
qn_status qni_j_slice(jrun *run, jval v, const jval bounds[3], jval *out);

/* Build text. */
qn_status qni_j_reserve(jrun *run, jbuf *buf, size_t more);
qn_status qni_j_put(jrun *run, jbuf *buf, const char *s, size_t size, bool trusted);
qn_status qni_j_put_text(jrun *run, jbuf *buf, jval text); /* a string, with its marks */
qn_status qni_j_put_part(jrun *run, jbuf *buf, jval text, size_t at, size_t size);
jval qni_j_buf_text(const jbuf *buf);

/* Parts of text, and their marks. */
jval qni_j_part(jval text, size_t at, size_t size);
bool qni_j_run_at(jval text, size_t at, size_t *size); /* trust of the byte at `at`; size: bytes with the same trust */
bool qni_j_trusted_at(jval text, size_t at);
bool qni_j_trusted(jval v); /* trust of the whole value; false for mixed text */

/* Values to text. */
qn_status qni_j_put_str(jrun *run, jbuf *buf, jval v, bool repr); /* str(v), or repr(v) */
qn_status qni_j_str(jrun *run, jval v, jval *out);                /* str(v) as a string */
typedef struct jjson {
    bool ascii;
    bool sort;
    bool trusted; /* mark of the whole text */
    jval indent;  /* none, an int or a string */
    jval item_separator, key_separator;
} jjson;
qn_status qni_j_put_json(jrun *run, jbuf *buf, jval v, const jjson *form);
size_t qni_j_float_text(char out[32], double f);                    /* repr(f) */
bool qni_j_parse_float(const char *text, size_t size, double *out); /* digits with an optional point and exponent */

qn_status qni_j_float_to_int(jrun *run, double f, bool trusted, jval *out); /* truncates toward zero */

/* Operators. */
qn_status qni_j_binary(jrun *run, int op, jval a, jval b, jval *out);
qn_status qni_j_unary(jrun *run, int op, jval v, jval *out);
qn_status qni_j_escape(jrun *run, jval v, jval *out);                         /* escapes for HTML */
qn_status qni_j_percent(jrun *run, jval format, jval values, jval *out);      /* format % values: s, r, d, i and %% */
qn_status qni_j_str_format(jrun *run, jval self, const jval *arg, jval *out); /* str.format */
qn_status qni_j_parse_json(jrun *run, jval text, jval *out);                  /* json.loads */

/* Functions. */
const jspec *qni_j_find_filter(const char *name, size_t size);
const jspec *qni_j_find_test(const char *name, size_t size);
const jspec *qni_j_find_method(const jspec *specs, const char *name, size_t size);
/* Whether Python has such a method that is not implemented here: a call of it is refused at parse time. */
bool qni_j_is_refused_method(const char *name, size_t size);
const jspec *qni_j_methods(jval v); /* methods of this kind of value, or NULL; ends with a NULL name */
const jspec *qni_j_find_global(const char *name, size_t size);
bool qni_j_slot(const jspec *spec, const char *name, size_t size, int *slot);
int qni_j_slots(const jspec *spec); /* number of slots; -1: any number */
qn_status qni_j_replace(jrun *run, jval s, jval from, jval to, int64_t most, jval *out); /* most < 0: all */
qn_status qni_j_is_case(jrun *run, jval s, int which, jval *out);                        /* 1 upper, 2 lower */
qn_status qni_j_strftime(jrun *run, jval format, jval *out);
qn_status qni_j_dict_view(jrun *run, jval dict, jseq_kind kind, jval *out);
qn_status qni_j_attribute_path(jrun *run, jval v, jval path, jval default_value, jval *out);
qn_status qni_j_run_named(jrun *run, bool test, jval name, jval self, jval args, size_t skip, jval kwargs, jval *out);

#endif
