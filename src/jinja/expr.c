/* SPDX-License-Identifier: Apache-2.0 */
/* Parse expressions, with Jinja's operator precedence (unlike in Python, ~ binds tighter than +). */
#include "ast.h"

static const jtoken *now(const jparser *p) {
    return &p->tokens[p->at];
}

static bool skip(jparser *p, jtoken_kind kind) {
    if (now(p)->kind != kind) return false;
    p->at++;
    return true;
}

static qn_status unexpected(jparser *p) {
    const jtoken *t = now(p);
    if (t->kind == T_NAME) {
        return qni_j_parse_fail(p, QN_EFORMAT, t->line, "unexpected \"%.*s\"", (int)t->value.size, t->value.s);
    }
    return qni_j_parse_fail(p, QN_EFORMAT, t->line, "unexpected %s", qni_j_token_text(t->kind));
}

static qn_status binary(jparser *p, jnode_kind kind, int op, jnode *a, jnode *b, jnode **out) {
    QN_TRY(qni_j_node(p, kind, a->line, out));
    (*out)->op = (uint8_t)op;
    (*out)->a = a;
    (*out)->b = b;
    qni_j_raise(*out, a);
    qni_j_raise(*out, b);
    return QN_OK;
}

/* A list of expressions up to a closing bracket; a trailing comma is allowed. In a dict, each key is followed by a
 * colon. */
static qn_status parse_items(jparser *p, jtoken_kind end, bool pairs, jnode *to) {
    size_t capacity = 0;
    while (now(p)->kind != end) {
        jnode *item;
        if (to->list.n > 0) {
            QN_TRY(qni_j_expect(p, T_COMMA));
            if (now(p)->kind == end) break;
        }
        QN_TRY(qni_j_parse_expression(p, true, &item));
        QN_TRY(qni_j_push(p, &to->list, &capacity, item));
        qni_j_raise(to, item);
        if (!pairs) continue;
        QN_TRY(qni_j_expect(p, T_COLON));
        QN_TRY(qni_j_parse_expression(p, true, &item));
        QN_TRY(qni_j_push(p, &to->list, &capacity, item));
        qni_j_raise(to, item);
    }
    return qni_j_expect(p, end);
}

qn_status qni_j_parse_tuple(jparser *p, bool conditional, bool parenthesised, jnode **out) {
    jnode *tuple = NULL, *item;
    size_t capacity = 0;
    QN_TRY(qni_j_node(p, N_TUPLE, now(p)->line, &tuple));
    bool comma = false;
    for (;;) {
        int k = now(p)->kind;
        if (k == T_RPAREN || k == T_PRINT_END || k == T_BLOCK_END) break;
        QN_TRY(qni_j_parse_expression(p, conditional, &item));
        QN_TRY(qni_j_push(p, &tuple->list, &capacity, item));
        qni_j_raise(tuple, item);
        if (!skip(p, T_COMMA)) break;
        comma = true;
    }
    if (!comma && tuple->list.n == 0 && !parenthesised) return unexpected(p);
    *out = comma || tuple->list.n == 0 ? tuple : tuple->list.items[0];
    return QN_OK;
}

static qn_status parse_name(jparser *p, jnode **out) {
    const jtoken *t = now(p);
    jval text = t->value, constant = qni_j_none();
    p->at++;
    QN_TRY(qni_j_node(p, N_CONST, t->line, out));
    if (qni_j_text_is(text, "true") || qni_j_text_is(text, "True")) {
        constant = qni_j_bool(true);
    } else if (qni_j_text_is(text, "false") || qni_j_text_is(text, "False")) {
        constant = qni_j_bool(false);
    } else if (!qni_j_text_is(text, "none") && !qni_j_text_is(text, "None")) {
        static const char *const refused[] = {"lipsum", "cycler", "joiner", "self", "super", "varargs", "kwargs"};
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
            if (qni_j_text_is(text, refused[i])) {
                return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "\"%s\" is not supported", refused[i]);
            }
        }
        (*out)->kind = N_NAME;
        constant = text;
        QN_TRY(qni_j_intern(p, text, &(*out)->id));
        uint8_t *uses = &p->jinja->uses[(*out)->id];
        if (!(*uses & USE_SET)) *uses |= USE_READ;
        if ((*out)->id == ID_CALLER) p->saw_caller = true;
    }
    (*out)->value = constant;
    return QN_OK;
}

static qn_status parse_strings(jparser *p, jnode **out) {
    size_t n = 0, first = p->at;
    QN_TRY(qni_j_node(p, N_CONST, now(p)->line, out));
    (*out)->value = now(p)->value;
    for (; now(p)->kind == T_STRING; p->at++) n += now(p)->value.size;
    if (p->at == first + 1) return QN_OK;
    char *joined = qni_j_alloc(&p->jinja->arena, n);
    if (joined == NULL) return qni_j_parse_memory(p);
    (*out)->value = qni_j_trust(qni_j_text(joined, n), true);
    for (size_t i = first; i < p->at; i++) {
        memcpy(joined, p->tokens[i].value.s, p->tokens[i].value.size);
        joined += p->tokens[i].value.size;
    }
    return QN_OK;
}

static qn_status parse_primary(jparser *p, jnode **out) {
    const jtoken *t = now(p);
    switch (t->kind) {
    case T_NAME:
        return parse_name(p, out);
    case T_STRING:
        return parse_strings(p, out);
    case T_INT:
    case T_FLOAT:
        p->at++;
        QN_TRY(qni_j_node(p, N_CONST, t->line, out));
        (*out)->value = t->value;
        return QN_OK;
    case T_LPAREN:
        p->at++;
        QN_TRY(qni_j_parse_tuple(p, true, true, out));
        return qni_j_expect(p, T_RPAREN);
    case T_LBRACKET:
    case T_LBRACE:
        p->at++;
        QN_TRY(qni_j_node(p, t->kind == T_LBRACKET ? N_LIST : N_DICT, t->line, out));
        return parse_items(p, t->kind == T_LBRACKET ? T_RBRACKET : T_RBRACE, t->kind == T_LBRACE, *out);
    default:
        return unexpected(p);
    }
}

/* Append the n-th keyword; the capacity is the next power of two. */
static qn_status push_name(jparser *p, jargs *args, size_t n, jval name) {
    if ((n & (n - 1)) == 0) {
        jval *grown = qni_j_alloc(&p->jinja->arena, (n > 0 ? 2 * n : 1) * sizeof *grown);
        if (grown == NULL) return qni_j_parse_memory(p);
        if (n > 0) memcpy(grown, args->names, n * sizeof *grown);
        args->names = grown;
    }
    args->names[n] = name;
    return QN_OK;
}

static qn_status parse_args(jparser *p, jnode *call) {
    jargs *args = &call->args;
    jblock items = {0};
    size_t capacity = 0, n_names = 0;
    QN_TRY(qni_j_expect(p, T_LPAREN));
    while (now(p)->kind != T_RPAREN) {
        jnode *item;
        if (items.n > 0) {
            QN_TRY(qni_j_expect(p, T_COMMA));
            if (now(p)->kind == T_RPAREN) break;
        }
        if (now(p)->kind == T_MUL || now(p)->kind == T_POW) {
            return qni_j_parse_fail(p, QN_EUNSUPPORTED, now(p)->line, "%s in a call is not supported",
                                    qni_j_token_text(now(p)->kind));
        }
        if (now(p)->kind == T_NAME && p->tokens[p->at + 1].kind == T_ASSIGN) {
            QN_TRY(push_name(p, args, n_names++, now(p)->value));
            p->at += 2;
        } else if (n_names > 0) {
            return qni_j_parse_fail(p, QN_EFORMAT, now(p)->line, "a positional argument after a keyword");
        }
        QN_TRY(qni_j_parse_expression(p, true, &item));
        QN_TRY(qni_j_push(p, &items, &capacity, item));
        qni_j_raise(call, item);
    }
    args->items = items.items;
    args->n = items.n;
    args->n_positional = items.n - n_names;
    return qni_j_expect(p, T_RPAREN);
}

/* Check the arguments against a function that is known at parse time: too many, unknown names, missing ones. */
static qn_status check_args(jparser *p, const jnode *node, const char *what) {
    const jspec *spec = node->spec;
    int slots = qni_j_slots(spec), slot;
    bool given[J_MAX_ARG] = {false};
    if (slots < 0) return QN_OK;
    if (node->args.n_positional > (size_t)slots) {
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "%s \"%s\" takes at most %d arguments, got %zu", what,
                                spec->name, slots, node->args.n_positional);
    }
    for (size_t i = 0; i < node->args.n_positional; i++) given[i] = true;
    for (size_t i = 0; i < node->args.n - node->args.n_positional; i++) {
        jval name = node->args.names[i];
        if (!qni_j_slot(spec, name.s, name.size, &slot) || given[slot]) {
            return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "%s \"%s\": argument \"%.*s\" is not supported",
                                    what, spec->name, (int)name.size, name.s);
        }
        given[slot] = true;
    }
    for (int i = 0; i < spec->required; i++) {
        if (!given[i]) {
            return qni_j_parse_fail(p, QN_EFORMAT, node->line, "%s \"%s\" needs %d arguments", what, spec->name,
                                    spec->required);
        }
    }
    return QN_OK;
}

/* map, select and similar filters name another filter or test, which must exist too. */
static qn_status check_inner(jparser *p, const jnode *node) {
    const char *name = node->spec->name;
    bool map = strcmp(name, "map") == 0, attr = strcmp(name, "selectattr") == 0 || strcmp(name, "rejectattr") == 0;
    if (!map && !attr && strcmp(name, "select") != 0 && strcmp(name, "reject") != 0) return QN_OK;
    size_t at = attr ? 1 : 0;
    if (node->args.n_positional <= at) {
        bool fine = map ? node->args.n > 0 && qni_j_text_is(node->args.names[0], "attribute") : node->args.n == at;
        if (fine || (map && node->args.n == 2 && qni_j_text_is(node->args.names[1], "attribute"))) return QN_OK;
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "filter \"%s\" with these arguments is not supported",
                                name);
    }
    const jnode *inner = node->args.items[at];
    if (inner->kind != N_CONST || inner->value.kind != J_STRING) return QN_OK;
    jval v = inner->value;
    if ((map ? qni_j_find_filter(v.s, v.size) : qni_j_find_test(v.s, v.size)) != NULL) return QN_OK;
    return qni_j_parse_fail(p, QN_EUNSUPPORTED, node->line, "%s \"%.*s\" is not supported", map ? "filter" : "test",
                            (int)v.size, v.s);
}

qn_status qni_j_parse_filter(jparser *p, jnode *of, bool inline_start, jnode **out) {
    *out = of;
    while (inline_start || now(p)->kind == T_PIPE) {
        jnode *filter;
        if (!inline_start) p->at++;
        inline_start = false;
        const jtoken *t = now(p);
        QN_TRY(qni_j_expect(p, T_NAME));
        QN_TRY(qni_j_node(p, N_FILTER, t->line, &filter));
        filter->a = *out;
        qni_j_raise(filter, *out);
        filter->spec = qni_j_find_filter(t->value.s, t->value.size);
        if (filter->spec == NULL) {
            return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "filter \"%.*s\" is not supported", (int)t->value.size,
                                    t->value.s);
        }
        if (now(p)->kind == T_LPAREN) QN_TRY(parse_args(p, filter));
        QN_TRY(check_args(p, filter, "filter"));
        QN_TRY(check_inner(p, filter));
        *out = filter;
    }
    return qni_j_check_height(p, *out);
}

static qn_status parse_subscript(jparser *p, jnode *of, jnode **out);
static qn_status parse_call(jparser *p, jnode *of, jnode **out);

static qn_status parse_postfix(jparser *p, jnode *of, jnode **out) {
    *out = of;
    for (;;) {
        int k = now(p)->kind;
        if (k == T_DOT || k == T_LBRACKET) {
            QN_TRY(parse_subscript(p, *out, out));
        } else if (k == T_LPAREN) {
            QN_TRY(parse_call(p, *out, out));
        } else {
            return QN_OK;
        }
    }
}

static qn_status parse_test(jparser *p, jnode *of, jnode **out) {
    jnode *test;
    p->at++; /* skip "is" */
    bool negated = qni_j_skip_name(p, "not");
    const jtoken *t = now(p);
    QN_TRY(qni_j_expect(p, T_NAME));
    QN_TRY(qni_j_node(p, N_TEST, t->line, &test));
    test->a = of;
    qni_j_raise(test, of);
    test->spec = qni_j_find_test(t->value.s, t->value.size);
    if (test->spec == NULL) {
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "test \"%.*s\" is not supported", (int)t->value.size,
                                t->value.s);
    }
    int k = now(p)->kind;
    bool word = qni_j_is_name(p, 0, "else") || qni_j_is_name(p, 0, "or") || qni_j_is_name(p, 0, "and");
    if (k == T_LPAREN) {
        QN_TRY(parse_args(p, test));
    } else if ((k == T_NAME || k == T_STRING || k == T_INT || k == T_FLOAT || k == T_LBRACKET || k == T_LBRACE) &&
               !word) {
        jblock one = {0};
        size_t capacity = 0;
        jnode *arg;
        if (qni_j_is_name(p, 0, "is")) return unexpected(p);
        QN_TRY(parse_primary(p, &arg));
        QN_TRY(parse_postfix(p, arg, &arg));
        QN_TRY(qni_j_push(p, &one, &capacity, arg));
        qni_j_raise(test, arg);
        test->args = (jargs){.items = one.items, .n = 1, .n_positional = 1};
    }
    QN_TRY(check_args(p, test, "test"));
    *out = test;
    if (!negated) return QN_OK;
    QN_TRY(qni_j_node(p, N_NOT, t->line, out));
    (*out)->a = test;
    qni_j_raise(*out, test);
    return QN_OK;
}

static qn_status parse_call(jparser *p, jnode *of, jnode **out) {
    if (of->kind == N_ATTRIBUTE && qni_j_is_refused_method(of->value.s, of->value.size)) {
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, of->line, "method \"%.*s\" is not supported", (int)of->value.size,
                                of->value.s);
    }
    QN_TRY(qni_j_node(p, N_CALL, now(p)->line, out));
    (*out)->a = of;
    qni_j_raise(*out, of);
    return parse_args(p, *out);
}

static qn_status parse_slice(jparser *p, jnode *first, jnode *of, jnode **out) {
    jnode **bounds = qni_j_alloc(&p->jinja->arena, 3 * sizeof *bounds);
    if (bounds == NULL) return qni_j_parse_memory(p);
    QN_TRY(qni_j_node(p, N_SLICE, of->line, out));
    (*out)->a = of;
    (*out)->list = (jblock){bounds, 3};
    qni_j_raise(*out, of);
    bounds[0] = first;
    for (int i = 1; i < 3 && skip(p, T_COLON); i++) {
        int k = now(p)->kind;
        if (k != T_COLON && k != T_RBRACKET) QN_TRY(qni_j_parse_expression(p, true, &bounds[i]));
    }
    for (int i = 0; i < 3; i++) {
        if (bounds[i] != NULL) qni_j_raise(*out, bounds[i]);
    }
    return qni_j_expect(p, T_RBRACKET);
}

static qn_status parse_subscript(jparser *p, jnode *of, jnode **out) {
    const jtoken *t = now(p);
    jnode *key = NULL;
    p->at++;
    if (t->kind == T_DOT) {
        const jtoken *name = now(p);
        p->at++;
        if (name->kind == T_NAME) {
            if (name->value.size > 1 && memcmp(name->value.s, "__", 2) == 0) {
                return qni_j_parse_fail(p, QN_EUNSUPPORTED, name->line, "attribute \"%.*s\" is not supported",
                                        (int)name->value.size, name->value.s);
            }
            QN_TRY(qni_j_node(p, N_ATTRIBUTE, t->line, out));
            (*out)->a = of;
            (*out)->value = name->value;
            qni_j_raise(*out, of);
            return QN_OK;
        }
        if (name->kind != T_INT)
            return qni_j_parse_fail(p, QN_EFORMAT, name->line, "expected a name or a number after \".\"");
        QN_TRY(qni_j_node(p, N_CONST, t->line, &key));
        key->value = name->value;
        return binary(p, N_ITEM, 0, of, key, out);
    }
    if (now(p)->kind != T_COLON) QN_TRY(qni_j_parse_expression(p, true, &key));
    if (now(p)->kind == T_COLON) return parse_slice(p, key, of, out);
    if (now(p)->kind == T_COMMA)
        return qni_j_parse_fail(p, QN_EUNSUPPORTED, t->line, "a tuple as an index is not supported");
    QN_TRY(binary(p, N_ITEM, 0, of, key, out));
    return qni_j_expect(p, T_RBRACKET);
}

static qn_status parse_unary(jparser *p, bool with_filter, jnode **out) {
    const jtoken *t = now(p);
    if (t->kind == T_SUB || t->kind == T_ADD) {
        jnode *of;
        p->at++;
        QN_TRY(qni_j_enter(p));
        QN_TRY(parse_unary(p, false, &of));
        p->nesting--;
        QN_TRY(qni_j_node(p, N_UNARY, t->line, out));
        (*out)->op = t->kind;
        (*out)->a = of;
        qni_j_raise(*out, of);
    } else {
        QN_TRY(parse_primary(p, out));
    }
    QN_TRY(parse_postfix(p, *out, out));
    while (with_filter) {
        if (now(p)->kind == T_PIPE) {
            QN_TRY(qni_j_parse_filter(p, *out, false, out));
        } else if (qni_j_is_name(p, 0, "is")) {
            QN_TRY(parse_test(p, *out, out));
        } else if (now(p)->kind == T_LPAREN) {
            QN_TRY(parse_call(p, *out, out));
        } else {
            break;
        }
    }
    return QN_OK;
}

static bool is_one_of(int kind, const uint8_t *kinds) {
    for (; *kinds != 0; kinds++) {
        if (*kinds == kind) return true;
    }
    return false;
}

static qn_status parse_pow(jparser *p, jnode **out) {
    QN_TRY(parse_unary(p, true, out));
    while (skip(p, T_POW)) {
        jnode *right;
        QN_TRY(parse_unary(p, true, &right));
        QN_TRY(binary(p, N_BINARY, T_POW, *out, right, out));
    }
    return QN_OK;
}

static qn_status parse_math2(jparser *p, jnode **out) {
    static const uint8_t kinds[] = {T_MUL, T_DIV, T_FLOORDIV, T_MOD, 0};
    QN_TRY(parse_pow(p, out));
    while (is_one_of(now(p)->kind, kinds)) {
        jnode *right;
        int op = now(p)->kind;
        p->at++;
        QN_TRY(parse_pow(p, &right));
        QN_TRY(binary(p, N_BINARY, op, *out, right, out));
    }
    return QN_OK;
}

static qn_status parse_concat(jparser *p, jnode **out) {
    jnode *part, *all;
    size_t capacity = 0;
    QN_TRY(parse_math2(p, &part));
    *out = part;
    if (now(p)->kind != T_TILDE) return QN_OK;
    QN_TRY(qni_j_node(p, N_CONCAT, part->line, &all));
    QN_TRY(qni_j_push(p, &all->list, &capacity, part));
    qni_j_raise(all, part);
    while (skip(p, T_TILDE)) {
        QN_TRY(parse_math2(p, &part));
        QN_TRY(qni_j_push(p, &all->list, &capacity, part));
        qni_j_raise(all, part);
    }
    *out = all;
    return QN_OK;
}

static qn_status parse_math1(jparser *p, jnode **out) {
    QN_TRY(parse_concat(p, out));
    while (now(p)->kind == T_ADD || now(p)->kind == T_SUB) {
        jnode *right;
        int op = now(p)->kind;
        p->at++;
        QN_TRY(parse_concat(p, &right));
        QN_TRY(binary(p, N_BINARY, op, *out, right, out));
    }
    return QN_OK;
}

/* Skip and return the comparison operator that starts here, or T_EOF. */
static int comparison(jparser *p) {
    static const uint8_t kinds[] = {T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE, 0};
    int k = now(p)->kind;
    if (is_one_of(k, kinds)) {
        p->at++;
        return k;
    }
    if (qni_j_skip_name(p, "in")) return T_IN;
    if (!qni_j_is_name(p, 0, "not") || !qni_j_is_name(p, 1, "in")) return T_EOF;
    p->at += 2;
    return T_NOT_IN;
}

static qn_status parse_compare(jparser *p, jnode **out) {
    jnode *first, *chain = NULL;
    size_t capacity = 0;
    QN_TRY(parse_math1(p, &first));
    *out = first;
    for (int op; (op = comparison(p)) != T_EOF;) {
        jnode *operand, *right;
        if (chain == NULL) {
            QN_TRY(qni_j_node(p, N_COMPARE, first->line, &chain));
            chain->a = first;
            qni_j_raise(chain, first);
        }
        QN_TRY(parse_math1(p, &right));
        QN_TRY(qni_j_node(p, N_OPERAND, right->line, &operand));
        operand->op = (uint8_t)op;
        operand->a = right;
        qni_j_raise(operand, right);
        QN_TRY(qni_j_push(p, &chain->list, &capacity, operand));
        qni_j_raise(chain, operand);
        *out = chain;
    }
    return QN_OK;
}

static qn_status parse_not(jparser *p, jnode **out) {
    const jtoken *t = now(p);
    if (!qni_j_skip_name(p, "not")) return parse_compare(p, out);
    jnode *of;
    QN_TRY(qni_j_enter(p));
    QN_TRY(parse_not(p, &of));
    p->nesting--;
    QN_TRY(qni_j_node(p, N_NOT, t->line, out));
    (*out)->a = of;
    qni_j_raise(*out, of);
    return QN_OK;
}

static qn_status parse_logic(jparser *p, bool either, jnode **out) {
    QN_TRY(either ? parse_logic(p, false, out) : parse_not(p, out));
    while (qni_j_skip_name(p, either ? "or" : "and")) {
        jnode *right;
        QN_TRY(either ? parse_logic(p, false, &right) : parse_not(p, &right));
        QN_TRY(binary(p, either ? N_OR : N_AND, 0, *out, right, out));
    }
    return QN_OK;
}

qn_status qni_j_parse_expression(jparser *p, bool conditional, jnode **out) {
    QN_TRY(qni_j_enter(p));
    QN_TRY(parse_logic(p, true, out));
    while (conditional && qni_j_skip_name(p, "if")) {
        jnode *test, *other = NULL, *value = *out;
        QN_TRY(parse_logic(p, true, &test));
        if (qni_j_skip_name(p, "else")) QN_TRY(qni_j_parse_expression(p, true, &other));
        QN_TRY(binary(p, N_COND, 0, test, value, out));
        (*out)->c = other;
        if (other != NULL) qni_j_raise(*out, other);
    }
    p->nesting--;
    return qni_j_check_height(p, *out);
}
