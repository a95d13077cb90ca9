/* SPDX-License-Identifier: Apache-2.0 */
/* The syntax tree of a template, and the scopes and macros of a rendering. */
#ifndef QNI_AST_H
#define QNI_AST_H

#include "value.h"

typedef enum jtoken_kind {
    T_EOF,
    T_DATA,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_IN, /* these two are formed by the parser from names */
    T_NOT_IN,
} jtoken_kind;

typedef struct jtoken {
    uint8_t kind;
    int32_t line;
    jval value; /* the text of a name or of data; the value of a literal */
} jtoken;

/* All tokens of a source (with \n line ends); the last is T_EOF. Free *tokens with qni_free(); texts are in the arena
 * or in the source. */
qn_status qni_j_lex(jtoken **tokens, size_t *n, const char *name, const char *source, size_t size, jarena *arena,
                    qn_error *err);
const char *qni_j_token_text(int kind); /* text of an operator */

typedef enum jnode_kind {
    N_CONST, /* value */
    N_HOLE,  /* the block text that the filters are applied to */
    N_NAME,  /* id; value: its text */
    N_LIST,
    N_TUPLE,
    N_DICT,   /* list: key, value, … */
    N_UNARY,  /* op a */
    N_BINARY, /* a op b */
    N_CONCAT, /* list */
    N_AND,
    N_OR,
    N_NOT,
    N_COMPARE, /* a, then list of N_OPERAND (op, a) */
    N_OPERAND,
    N_COND,       /* b if a else c (may be NULL) */
    N_ATTRIBUTE,  /* a.value */
    N_ITEM,       /* a[b] */
    N_SLICE,      /* a[list: 3, each may be NULL] */
    N_CALL,       /* a(args) */
    N_FILTER,     /* a | spec(args) */
    N_TEST,       /* a is spec(args) */
    N_TEXT,       /* statements from here on: value */
    N_PRINT,      /* a */
    N_IF,         /* a: body; next clause in c; else has no a */
    N_FOR,        /* for a in b if c: body, other */
    N_SET,        /* a = b */
    N_SET_BLOCK,  /* a = filters b over body */
    N_MACRO,      /* id, def */
    N_CALL_BLOCK, /* a: the call; def: the caller */
    N_FILTER_BLOCK,
    N_WITH, /* list: target, value, …; body */
    N_GENERATION,
    N_BREAK,
    N_CONTINUE,
    N_NS_REF, /* a target: id . value */
} jnode_kind;

typedef struct jnode jnode;
typedef struct jblock {
    jnode **items;
    size_t n;
} jblock;

/* Arguments of a call: positional ones first, then keywords with their names. */
typedef struct jargs {
    jnode **items;
    size_t n_positional;
    size_t n;
    jval *names; /* names of the n - n_positional keywords */
} jargs;

/* Parameters and body of a macro, or of the caller of a call block. */
typedef struct jmacro_def {
    jval name;
    size_t n_param;
    int32_t *params;
    jval *names;
    size_t n_default; /* defaults of the last parameters */
    jnode **defaults;
    jblock body;
    bool wants_caller; /* the body mentions `caller` */
} jmacro_def;

struct jnode {
    uint8_t kind;
    uint8_t op;
    uint16_t height;
    int32_t line;
    int32_t id;
    jnode *a, *b, *c;
    jblock list;
    jval value;
    union {
        struct {
            jblock body, other;
        };
        jargs args;
    };
    const jspec *spec;
    jmacro_def *def;
};

struct qni_jinja {
    char *name;
    char *source;
    size_t source_size;
    jarena arena;
    jval *ids; /* texts of the names, by id */
    size_t n_id;
    size_t id_capacity;
    uint8_t uses[QNI_JINJA_NAMES]; /* USE_ bits of a name, by id */
    jblock body;
};

/* How a template uses a name. READ: it reads a value that it may not have set itself; SET: it sets a value that holds
 * for all later statements. */
enum { USE_READ = 1, USE_SET = 2 };

/* Names that the interpreter itself binds, with fixed ids. */
enum { ID_LOOP, ID_CALLER, N_FIXED_ID };

/* Variables of one block of the template; lookup proceeds outward. */
typedef struct jbinding {
    int32_t id;
    jval value;
} jbinding;
typedef struct jscope jscope;
struct jscope {
    jscope *outer;
    jbinding *items;
    size_t n;
    size_t capacity;
    bool captured; /* a macro refers to it: do not reuse */
};

struct jmacro {
    const jmacro_def *def;
    jscope *scope; /* where it was defined */
};

/* A running loop. Items are fetched one at a time, as in Python, because the filter may depend on the body. */
struct jloop {
    const jnode *node; /* loop node whose filter applies; NULL: no filter */
    jscope *scope;     /* scope around the loop */
    jval *items;
    size_t n;
    size_t at; /* next item to fetch */
    int64_t index0;
    int64_t length; /* -1: unknown so far */
    bool peeked;
    bool has_before;
    jval after, before, current;
    bool has_changed;
    jval changed;
};

/* Parser state and functions shared by two files. */
typedef struct jparser {
    qni_jinja *jinja;
    jtoken *tokens;
    size_t n;
    size_t at;
    int nesting;
    int loops;       /* loops around the current statement within the current macro */
    bool saw_caller; /* `caller` was seen in the macro being parsed */
    uintptr_t stack; /* stack address where parsing began */
    qn_error *err;
} jparser;
qn_status qni_j_parse_fail(jparser *p, qn_status status, int32_t line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
qn_status qni_j_parse_memory(jparser *p);
qn_status qni_j_node(jparser *p, jnode_kind kind, int32_t line, jnode **out);
qn_status qni_j_push(jparser *p, jblock *block, size_t *capacity, jnode *node);
qn_status qni_j_intern(jparser *p, jval text, int32_t *id);
qn_status qni_j_expect(jparser *p, jtoken_kind kind);
bool qni_j_is_name(const jparser *p, size_t ahead, const char *text);
bool qni_j_skip_name(jparser *p, const char *text);
qn_status qni_j_enter(jparser *p); /* enter one level of nesting; undone by p->nesting-- */
qn_status qni_j_parse_expression(jparser *p, bool conditional, jnode **out);
qn_status qni_j_parse_tuple(jparser *p, bool conditional, bool parenthesised, jnode **out);
qn_status qni_j_parse_target(jparser *p, bool spaces, jnode **out);
qn_status qni_j_parse_filter(jparser *p, jnode *of, bool inline_start, jnode **out);
void qni_j_raise(jnode *node, const jnode *child); /* make node's height exceed child's */
qn_status qni_j_check_height(jparser *p, const jnode *node);

/* Running. */
qn_status qni_j_eval(jrun *run, jscope *scope, const jnode *node, jval *out);
qn_status qni_j_bind(jrun *run, jscope *scope, int32_t id, jval value);
qn_status qni_j_assign(jrun *run, jscope *scope, const jnode *target, jval value);
qn_status qni_j_loop_fetch(jrun *run, jloop *loop, bool *any, jval *out);
qn_status qni_j_loop_attribute(jrun *run, jloop *loop, jval name, jval *out);
qn_status qni_j_call_macro(jrun *run, const jmacro *macro, jval args, jval kwargs, jval *out);
qn_status qni_j_call(jrun *run, jval callee, jval args, jval kwargs, jval *out);
qn_status qni_j_call_spec(jrun *run, const jspec *spec, jval self, jval args, size_t skip, jval kwargs, jval *out);

#endif
