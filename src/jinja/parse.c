/* SPDX-License-Identifier: Apache-2.0 */
/* Parse statements; functions shared by the parser files; creating and freeing a template. */
#include "../base/memory.h"
#include "../base/utf8.h"
#include "ast.h"

#include <stdarg.h>
#include <stdio.h>

qn_status qni_j_parse_fail(jparser *p, qn_status status, int32_t line, const char *format, ...) {
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    return qni_fail(p->err, status, "%s line %d: %s", p->jinja->name, line, detail);
}

qn_status qni_j_parse_memory(jparser *p) {
    return qni_fail(p->err, QN_ENOMEM, "%s: out of memory", p->jinja->name);
}

qn_status qni_j_node(jparser *p, jnode_kind kind, int32_t line, jnode **out) {
    jnode *node = qni_j_alloc(&p->jinja->arena, sizeof *node);
    if (node == NULL) return qni_j_parse_memory(p);
    node->kind = (uint8_t)kind;
    node->line = line;
    node->height = 1;
    *out = node;
    return QN_OK;
}

void qni_j_raise(jnode *node, const jnode *child) {
    if (child->height >= node->height) node->height = (uint16_t)(child->height + (child->height < UINT16_MAX));
}

qn_status qni_j_check_height(jparser *p, const jnode *node) {
    if (node->height <= QNI_JINJA_HEIGHT) return QN_OK;
    return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "more than %d operators on one another", QNI_JINJA_HEIGHT);
}

qn_status qni_j_push(jparser *p, jblock *block, size_t *capacity, jnode *node) {
    if (block->n == *capacity) {
        size_t wanted = *capacity < 4 ? 4 : 2 * *capacity;
        jnode **grown = qni_j_alloc(&p->jinja->arena, wanted * sizeof *grown);
        if (grown == NULL) return qni_j_parse_memory(p);
        if (block->n > 0) memcpy(grown, block->items, block->n * sizeof *grown);
        block->items = grown;
        *capacity = wanted;
    }
    block->items[block->n++] = node;
    return QN_OK;
}

qn_status qni_j_intern(jparser *p, jval text, int32_t *id) {
    qni_jinja *jinja = p->jinja;
    for (size_t i = 0; i < jinja->n_id; i++) {
        if (jinja->ids[i].size == text.size && memcmp(jinja->ids[i].s, text.s, text.size) == 0) {
            *id = (int32_t)i;
            return QN_OK;
        }
    }
    if (jinja->n_id == QNI_JINJA_NAMES) {
        return qni_fail(p->err, QN_EUNSUPPORTED, "%s: more than %d names", jinja->name, QNI_JINJA_NAMES);
    }
    if (!qni_grow(&jinja->ids, &jinja->id_capacity, jinja->n_id + 1, sizeof *jinja->ids)) return qni_j_parse_memory(p);
    *id = (int32_t)jinja->n_id;
    jinja->ids[jinja->n_id++] = text;
    return QN_OK;
}

static const jtoken *now(const jparser *p) {
    return &p->tokens[p->at];
}

bool qni_j_is_name(const jparser *p, size_t ahead, const char *text) {
    if (p->at + ahead >= p->n) return false;
    const jtoken *t = &p->tokens[p->at + ahead];
    return t->kind == T_NAME && qni_j_text_is(t->value, text);
}

bool qni_j_skip_name(jparser *p, const char *text) {
    if (!qni_j_is_name(p, 0, text)) return false;
    p->at++;
    return true;
}

qn_status qni_j_expect(jparser *p, jtoken_kind kind) {
    const jtoken *t = now(p);
    if (t->kind == kind) {
        if (kind != T_EOF) p->at++;
        return QN_OK;
    }
    const char *wanted = kind == T_NAME ? "a name" : qni_j_token_text(kind);
    if (t->kind == T_NAME) {
        return qni_j_parse_fail(p, QN_EFORMAT, t->line, "expected %s, got \"%.*s\"", wanted, (int)t->value.size,
                                t->value.s);
    }
    return qni_j_parse_fail(p, QN_EFORMAT, t->line, "expected %s, got %s", wanted, qni_j_token_text(t->kind));
}

qn_status qni_j_enter(jparser *p) {
    if (++p->nesting <= QNI_JINJA_NESTING && qni_stack_within(p->stack, QNI_JINJA_STACK)) return QN_OK;
    return qni_j_parse_fail(p, QN_EUNSUPPORTED, now(p)->line, "statements or parentheses nest deeper than %d",
                            QNI_JINJA_NESTING);
}

static qn_status parse_body(jparser *p, const char *const *ends, jblock *out);
static qn_status parse_statement(jparser *p, jnode **out);

/* The body of a statement, from the end of its tag to the tag that starts with one of `ends` (NULL-terminated), whose
 * name is skipped; *which is its index. */
static qn_status parse_inner(jparser *p, const char *const *ends, jblock *out, int *which) {
    if (now(p)->kind == T_COLON) p->at++;
    int32_t line = now(p)->line;
    QN_TRY(qni_j_expect(p, T_BLOCK_END));
    QN_TRY(qni_j_enter(p));
    QN_TRY(parse_body(p, ends, out));
    p->nesting--;
    for (int i = 0; ends[i] != NULL; i++) {
        if (!qni_j_skip_name(p, ends[i])) continue;
        if (which != NULL) *which = i;
        return QN_OK;
    }
    return qni_j_parse_fail(p, QN_EFORMAT, line, "the template ends before \"%s\"", ends[0]);
}

static qn_status parse_target_item(jparser *p, bool spaces, jnode **out) {
    const jtoken *t = now(p);
    if (t->kind == T_LPAREN) {
        p->at++;
        QN_TRY(qni_j_enter(p));
        QN_TRY(qni_j_parse_target(p, spaces, out));
        p->nesting--;
        return qni_j_expect(p, T_RPAREN);
    }
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None", "loop", "caller"};
    QN_TRY(qni_j_expect(p, T_NAME));
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (qni_j_text_is(t->value, constants[i])) {
            return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "assigning to \"%s\" is not supported", constants[i]);
        }
    }
    QN_TRY(qni_j_node(p, N_NAME, t->line, out));
    (*out)->value = t->value;
    QN_TRY(qni_j_intern(p, t->value, &(*out)->id));
    if (!spaces || now(p)->kind != T_DOT) return QN_OK;
    p->at++;
    (*out)->kind = N_NS_REF;
    (*out)->value = now(p)->value;
    return qni_j_expect(p, T_NAME);
}

qn_status qni_j_parse_target(jparser *p, bool spaces, jnode **out) {
    jnode *item;
    size_t capacity = 0;
    QN_TRY(parse_target_item(p, spaces, &item));
    *out = item;
    if (now(p)->kind != T_COMMA) return QN_OK;
    QN_TRY(qni_j_node(p, N_TUPLE, item->line, out));
    QN_TRY(qni_j_push(p, &(*out)->list, &capacity, item));
    while (now(p)->kind == T_COMMA) {
        p->at++;
        if (now(p)->kind != T_NAME && now(p)->kind != T_LPAREN) break;
        if (qni_j_is_name(p, 0, "in")) break;
        QN_TRY(parse_target_item(p, spaces, &item));
        QN_TRY(qni_j_push(p, &(*out)->list, &capacity, item));
    }
    return QN_OK;
}

static qn_status parse_set(jparser *p, jnode *node) {
    static const char *const ends[] = {"endset", NULL};
    QN_TRY(qni_j_parse_target(p, true, &node->a));
    if (now(p)->kind == T_ASSIGN) {
        p->at++;
        QN_TRY(qni_j_parse_tuple(p, true, false, &node->b));
        if (p->nesting == 0 && node->a->kind == N_NAME) p->jinja->uses[node->a->id] |= USE_SET;
        return QN_OK;
    }
    node->kind = N_SET_BLOCK;
    QN_TRY(qni_j_node(p, N_HOLE, node->line, &node->b));
    QN_TRY(qni_j_parse_filter(p, node->b, false, &node->b));
    int loops = p->loops;
    p->loops = 0;
    QN_TRY(parse_inner(p, ends, &node->body, NULL));
    p->loops = loops;
    return QN_OK;
}

static qn_status parse_for(jparser *p, jnode *node) {
    static const char *const ends[] = {"endfor", "else", NULL};
    int which = 0;
    QN_TRY(qni_j_parse_target(p, false, &node->a));
    if (!qni_j_skip_name(p, "in")) return qni_j_parse_fail(p, QN_EFORMAT, node->line, "expected \"in\" in a for loop");
    QN_TRY(qni_j_parse_tuple(p, false, false, &node->b));
    if (qni_j_skip_name(p, "if")) QN_TRY(qni_j_parse_expression(p, true, &node->c));
    if (qni_j_is_name(p, 0, "recursive")) {
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "a recursive for loop is not supported");
    }
    p->loops++;
    QN_TRY(parse_inner(p, ends, &node->body, &which));
    p->loops--;
    return which == 1 ? parse_inner(p, (const char *const[]){"endfor", NULL}, &node->other, NULL) : QN_OK;
}

static qn_status parse_if(jparser *p, jnode *node) {
    static const char *const ends[] = {"endif", "else", "elif", NULL};
    for (;;) {
        int which = 0;
        QN_TRY(qni_j_parse_tuple(p, false, false, &node->a));
        QN_TRY(parse_inner(p, ends, &node->body, &which));
        if (which == 0) return QN_OK;
        QN_TRY(qni_j_node(p, N_IF, now(p)->line, &node->c));
        node = node->c;
        if (which == 1) return parse_inner(p, (const char *const[]){"endif", NULL}, &node->body, NULL);
    }
}

static qn_status parse_params(jparser *p, jmacro_def *def) {
    jblock defaults = {0};
    size_t capacity = 0, n_name = 0;
    QN_TRY(qni_j_expect(p, T_LPAREN));
    for (size_t i = p->at; p->tokens[i].kind != T_EOF && p->tokens[i].kind != T_BLOCK_END; i++)
        n_name += p->tokens[i].kind == T_NAME;
    def->params = qni_j_alloc(&p->jinja->arena, n_name * sizeof *def->params);
    def->names = qni_j_alloc(&p->jinja->arena, n_name * sizeof *def->names);
    if (def->params == NULL || def->names == NULL) return qni_j_parse_memory(p);
    while (now(p)->kind != T_RPAREN) {
        jnode *name, *value;
        if (def->n_param > 0) QN_TRY(qni_j_expect(p, T_COMMA));
        QN_TRY(parse_target_item(p, false, &name));
        if (name->kind != N_NAME) return qni_j_parse_fail(p, QN_EFORMAT, name->line, "a parameter must be a name");
        for (size_t i = 0; i < def->n_param; i++) {
            if (def->params[i] == name->id) return qni_j_parse_fail(p, QN_EFORMAT, name->line, "duplicate parameter");
        }
        if (now(p)->kind == T_ASSIGN) {
            p->at++;
            QN_TRY(qni_j_parse_expression(p, true, &value));
            QN_TRY(qni_j_push(p, &defaults, &capacity, value));
        } else if (defaults.n > 0) {
            return qni_j_parse_fail(p, QN_EFORMAT, name->line, "a parameter without a default after one with it");
        }
        def->names[def->n_param] = name->value;
        def->params[def->n_param++] = name->id;
    }
    def->defaults = defaults.items;
    def->n_default = defaults.n;
    return qni_j_expect(p, T_RPAREN);
}

/* The body of a function: break cannot leave it. */
static qn_status parse_macro_body(jparser *p, const char *end, jmacro_def *def) {
    int loops = p->loops;
    bool saw_caller = p->saw_caller;
    p->loops = 0;
    p->saw_caller = false;
    QN_TRY(parse_inner(p, (const char *const[]){end, NULL}, &def->body, NULL));
    def->wants_caller = p->saw_caller;
    p->saw_caller = saw_caller;
    p->loops = loops;
    return QN_OK;
}

static qn_status parse_macro(jparser *p, jnode *node) {
    if ((node->def = qni_j_alloc(&p->jinja->arena, sizeof *node->def)) == NULL) return qni_j_parse_memory(p);
    node->def->name = qni_j_literal("caller");
    if (node->kind == N_MACRO) {
        jnode *name;
        QN_TRY(parse_target_item(p, false, &name));
        if (name->kind != N_NAME) return qni_j_parse_fail(p, QN_EFORMAT, node->line, "a macro needs a name");
        node->id = name->id;
        node->def->name = name->value;
        QN_TRY(parse_params(p, node->def));
        return parse_macro_body(p, "endmacro", node->def);
    }
    if (node->kind == N_GENERATION) return parse_macro_body(p, "endgeneration", node->def);
    if (now(p)->kind == T_LPAREN) QN_TRY(parse_params(p, node->def));
    QN_TRY(qni_j_parse_expression(p, true, &node->a));
    if (node->a->kind != N_CALL) return qni_j_parse_fail(p, QN_EFORMAT, node->line, "expected a call after \"call\"");
    return parse_macro_body(p, "endcall", node->def);
}

static qn_status parse_with(jparser *p, jnode *node) {
    size_t capacity = 0;
    while (now(p)->kind != T_BLOCK_END && now(p)->kind != T_COLON) {
        jnode *part;
        if (node->list.n > 0) QN_TRY(qni_j_expect(p, T_COMMA));
        QN_TRY(parse_target_item(p, false, &part));
        QN_TRY(qni_j_push(p, &node->list, &capacity, part));
        QN_TRY(qni_j_expect(p, T_ASSIGN));
        QN_TRY(qni_j_parse_expression(p, true, &part));
        QN_TRY(qni_j_push(p, &node->list, &capacity, part));
    }
    return parse_inner(p, (const char *const[]){"endwith", NULL}, &node->body, NULL);
}

static qn_status parse_filter_block(jparser *p, jnode *node) {
    QN_TRY(qni_j_node(p, N_HOLE, node->line, &node->b));
    QN_TRY(qni_j_parse_filter(p, node->b, true, &node->b));
    int loops = p->loops;
    p->loops = 0;
    QN_TRY(parse_inner(p, (const char *const[]){"endfilter", NULL}, &node->body, NULL));
    p->loops = loops;
    return QN_OK;
}

static qn_status parse_jump(jparser *p, jnode *node) {
    if (p->loops > 0) return QN_OK;
    return qni_j_parse_fail(p, QN_EFORMAT, node->line, "%s outside a loop",
                            node->kind == N_BREAK ? "break" : "continue");
}

static qn_status parse_print(jparser *p, jnode *node) {
    QN_TRY(qni_j_parse_expression(p, true, &node->a));
    if (now(p)->kind != T_COMMA) return QN_OK;
    return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "print with several values is not supported");
}

static qn_status parse_statement(jparser *p, jnode **out) {
    static const struct {
        const char *name;
        jnode_kind kind;
        qn_status (*parse)(jparser *, jnode *);
    } statements[] = {
        {"if", N_IF, parse_if},
        {"for", N_FOR, parse_for},
        {"set", N_SET, parse_set},
        {"macro", N_MACRO, parse_macro},
        {"call", N_CALL_BLOCK, parse_macro},
        {"generation", N_GENERATION, parse_macro},
        {"with", N_WITH, parse_with},
        {"filter", N_FILTER_BLOCK, parse_filter_block},
        {"print", N_PRINT, parse_print},
        {"break", N_BREAK, parse_jump},
        {"continue", N_CONTINUE, parse_jump},
    };
    const jtoken *t = now(p);
    QN_TRY(qni_j_expect(p, T_NAME));
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!qni_j_text_is(t->value, statements[i].name)) continue;
        QN_TRY(qni_j_node(p, statements[i].kind, t->line, out));
        QN_TRY(statements[i].parse(p, *out));
        return qni_j_expect(p, T_BLOCK_END);
    }
    static const char *const known[] = {"block", "extends", "include", "import", "from", "autoescape"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (qni_j_text_is(t->value, known[i]))
            return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "statement \"%s\" is not supported", known[i]);
    }
    return qni_j_parse_fail(p, QN_EFORMAT, t->line, "unknown statement \"%.*s\"", (int)t->value.size, t->value.s);
}

static bool at_end(const jparser *p, const char *const *ends) {
    for (; ends != NULL && *ends != NULL; ends++) {
        if (qni_j_is_name(p, 0, *ends)) return true;
    }
    return false;
}

static qn_status parse_body(jparser *p, const char *const *ends, jblock *out) {
    size_t capacity = 0;
    for (;;) {
        const jtoken *t = now(p);
        jnode *node = NULL;
        if (t->kind == T_EOF) return QN_OK;
        p->at++;
        if (t->kind == T_DATA) {
            QN_TRY(qni_j_node(p, N_TEXT, t->line, &node));
            node->value = t->value;
        } else if (t->kind == T_PRINT_BEGIN) {
            QN_TRY(qni_j_node(p, N_PRINT, t->line, &node));
            QN_TRY(qni_j_parse_tuple(p, true, false, &node->a));
            QN_TRY(qni_j_expect(p, T_PRINT_END));
        } else {
            if (at_end(p, ends)) return QN_OK;
            QN_TRY(parse_statement(p, &node));
        }
        QN_TRY(qni_j_push(p, out, &capacity, node));
    }
}

/* Convert line ends to \n, and drop a final one. */
static void normalize(char *s, size_t *size) {
    size_t to = 0;
    for (size_t i = 0; i < *size; i++) {
        if (s[i] == '\r') {
            if (i + 1 < *size && s[i + 1] == '\n') continue;
            s[to++] = '\n';
        } else {
            s[to++] = s[i];
        }
    }
    if (to > 0 && s[to - 1] == '\n') to--;
    *size = to;
}

static qn_status parse(jparser *p, size_t size) {
    qni_jinja *jinja = p->jinja;
    int32_t id;
    QN_TRY(qni_j_intern(p, qni_j_literal("loop"), &id));
    QN_TRY(qni_j_intern(p, qni_j_literal("caller"), &id));
    QN_TRY(qni_j_lex(&p->tokens, &p->n, jinja->name, jinja->source, size, &jinja->arena, p->err));
    return parse_body(p, NULL, &jinja->body);
}

qn_status qni_jinja_parse(qni_jinja **out, const char *name, const char *source, size_t size, qn_error *err) {
    if (size > QNI_JINJA_SOURCE) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: %zu bytes, more than the %d that a template may have", name, size,
                        (int)QNI_JINJA_SOURCE);
    }
    size_t valid = qni_utf8_valid_prefix(source, size);
    if (valid < size) return qni_fail(err, QN_EFORMAT, "%s: no UTF-8 at byte %zu", name, valid);
    qni_jinja *jinja = qni_calloc(1, sizeof *jinja);
    qn_status status = QN_OK;
    if (jinja == NULL || (jinja->name = qni_strndup(name, strlen(name))) == NULL ||
        (jinja->source = qni_strndup(source, size)) == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    } else {
        jinja->arena.limit = SIZE_MAX / 2;
        jparser p = {.jinja = jinja, .stack = qni_stack_here(), .err = err};
        normalize(jinja->source, &size);
        jinja->source_size = size;
        status = parse(&p, size);
        qni_free(p.tokens);
    }
    if (status != QN_OK) {
        qni_jinja_free(jinja);
        return status;
    }
    *out = jinja;
    return QN_OK;
}

void qni_jinja_free(qni_jinja *jinja) {
    if (jinja == NULL) return;
    qni_j_arena_free(&jinja->arena);
    qni_free(jinja->ids);
    qni_free(jinja->source);
    qni_free(jinja->name);
    qni_free(jinja);
}
