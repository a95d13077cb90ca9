/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluation of expressions. */
#include "jinja_ast.h"

static qn_status eval_name(jrun *run, const jscope *scope, const jnode *node, jval *out) {
    for (; scope != NULL; scope = scope->outer) {
        for (size_t i = scope->n; i-- > 0;) {
            if (scope->items[i].id == node->id) {
                *out = scope->items[i].value;
                return QN_OK;
            }
        }
    }
    const jspec *global = qni_j_find_global(node->value.s, node->value.size);
    *out = global != NULL ? (jval){.kind = J_FUNCTION, .function = global}
                          : qni_j_undefined(node->value.s, node->value.size);
    return qni_j_step(run, 0);
}

static qn_status eval_sequence(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_seq(run, node->kind == N_LIST ? SEQ_LIST : SEQ_TUPLE, node->list.n, out));
    for (size_t i = 0; i < node->list.n; i++) QN_TRY(qni_j_eval(run, scope, node->list.items[i], &out->seq->items[i]));
    return qni_j_seq_done(run, *out);
}

static qn_status eval_dict(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_dict(run, node->list.n / 2, out));
    for (size_t i = 0; i < node->list.n; i += 2) {
        jval key, value;
        QN_TRY(qni_j_eval(run, scope, node->list.items[i], &key));
        QN_TRY(qni_j_eval(run, scope, node->list.items[i + 1], &value));
        QN_TRY(qni_j_dict_put(run, *out, key, value));
    }
    return QN_OK;
}

static qn_status eval_binary(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval a, b;
    QN_TRY(qni_j_eval(run, scope, node->a, &a));
    QN_TRY(qni_j_eval(run, scope, node->b, &b));
    run->line = node->line;
    return qni_j_binary(run, node->op, a, b, out);
}

static qn_status eval_concat(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jbuf buf = {0};
    for (size_t i = 0; i < node->list.n; i++) {
        jval part;
        QN_TRY(qni_j_eval(run, scope, node->list.items[i], &part));
        QN_TRY(qni_j_put_str(run, &buf, part, false));
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status compare(jrun *run, int op, jval a, jval b, bool *out) {
    int order = 2;
    switch (op) {
    case T_EQ:
    case T_NE:
        QN_TRY(qni_j_equal(run, a, b, out));
        *out = *out == (op == T_EQ);
        return QN_OK;
    case T_IN:
    case T_NOT_IN:
        QN_TRY(qni_j_contains(run, b, a, out));
        *out = *out == (op == T_IN);
        return QN_OK;
    default:
        QN_TRY(qni_j_order(run, a, b, &order, qni_j_token_text(op)));
        if (order == 2) {
            *out = false;
        } else {
            *out = op == T_LT ? order < 0 : op == T_LE ? order <= 0 : op == T_GT ? order > 0 : order >= 0;
        }
        return QN_OK;
    }
}

static qn_status eval_compare(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval left, right;
    bool holds = true;
    QN_TRY(qni_j_eval(run, scope, node->a, &left));
    for (size_t i = 0; holds && i < node->list.n; i++) {
        QN_TRY(qni_j_eval(run, scope, node->list.items[i]->a, &right));
        run->line = node->line;
        QN_TRY(compare(run, node->list.items[i]->op, left, right, &holds));
        left = right;
    }
    *out = qni_j_bool(holds);
    return QN_OK;
}

static qn_status eval_condition(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval test;
    QN_TRY(qni_j_eval(run, scope, node->a, &test));
    const jnode *chosen = qni_j_truth(test) ? node->b : node->c;
    if (chosen != NULL) return qni_j_eval(run, scope, chosen, out);
    *out = qni_j_undefined("the inline if without else", 26);
    return QN_OK;
}

static qn_status eval_slice(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval of, bounds[3];
    QN_TRY(qni_j_eval(run, scope, node->a, &of));
    for (int i = 0; i < 3; i++) {
        bounds[i] = qni_j_none();
        if (node->list.items[i] != NULL) QN_TRY(qni_j_eval(run, scope, node->list.items[i], &bounds[i]));
    }
    run->line = node->line;
    return qni_j_slice(run, of, bounds, out);
}

static qn_status eval_args(jrun *run, jscope *scope, const jargs *args, jval *positional, jval *keywords) {
    QN_TRY(qni_j_seq(run, SEQ_TUPLE, args->n_positional, positional));
    QN_TRY(qni_j_dict(run, args->n - args->n_positional, keywords));
    for (size_t i = 0; i < args->n_positional; i++) {
        QN_TRY(qni_j_eval(run, scope, args->items[i], &positional->seq->items[i]));
    }
    for (size_t i = args->n_positional; i < args->n; i++) {
        jval value;
        QN_TRY(qni_j_eval(run, scope, args->items[i], &value));
        QN_TRY(qni_j_dict_put(run, *keywords, args->names[i - args->n_positional], value));
    }
    return qni_j_seq_done(run, *positional);
}

static qn_status eval_call(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval callee, positional, keywords;
    QN_TRY(qni_j_eval(run, scope, node->a, &callee));
    QN_TRY(eval_args(run, scope, &node->args, &positional, &keywords));
    run->line = node->line;
    return qni_j_call(run, callee, positional, keywords, out);
}

/* A filter or a test: its arguments go straight to their slots, which the parser checked. */
static qn_status eval_spec(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval self, slots[J_MAX_ARG] = {{.kind = J_ABSENT}};
    const jargs *args = &node->args;
    QN_TRY(qni_j_eval(run, scope, node->a, &self));
    if (qni_j_slots(node->spec) < 0) {
        QN_TRY(eval_args(run, scope, args, &slots[0], &slots[1]));
    } else {
        for (size_t i = 0; i < args->n; i++) {
            int slot = (int)i;
            if (i >= args->n_positional) {
                jval name = args->names[i - args->n_positional];
                if (!qni_j_slot(node->spec, name.s, name.size, &slot))
                    return qni_j_fail(run, QN_EUNSUPPORTED, "an argument");
            }
            QN_TRY(qni_j_eval(run, scope, args->items[i], &slots[slot]));
        }
    }
    run->line = node->line;
    return node->spec->call(run, self, slots, out);
}

static qn_status eval_node(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval v, key;
    switch ((jnode_kind)node->kind) {
    case N_CONST:
        *out = node->value;
        return QN_OK;
    case N_HOLE:
        *out = run->hole;
        return QN_OK;
    case N_NAME:
        return eval_name(run, scope, node, out);
    case N_LIST:
    case N_TUPLE:
        return eval_sequence(run, scope, node, out);
    case N_DICT:
        return eval_dict(run, scope, node, out);
    case N_UNARY:
        QN_TRY(qni_j_eval(run, scope, node->a, &v));
        run->line = node->line;
        return qni_j_unary(run, node->op, v, out);
    case N_BINARY:
        return eval_binary(run, scope, node, out);
    case N_CONCAT:
        return eval_concat(run, scope, node, out);
    case N_AND:
    case N_OR:
        QN_TRY(qni_j_eval(run, scope, node->a, out));
        return qni_j_truth(*out) == (node->kind == N_AND) ? qni_j_eval(run, scope, node->b, out) : QN_OK;
    case N_NOT:
        QN_TRY(qni_j_eval(run, scope, node->a, &v));
        *out = qni_j_bool(!qni_j_truth(v));
        return QN_OK;
    case N_COMPARE:
        return eval_compare(run, scope, node, out);
    case N_COND:
        return eval_condition(run, scope, node, out);
    case N_ATTRIBUTE:
        QN_TRY(qni_j_eval(run, scope, node->a, &v));
        run->line = node->line;
        return qni_j_attribute(run, v, node->value, out);
    case N_ITEM:
        QN_TRY(qni_j_eval(run, scope, node->a, &v));
        QN_TRY(qni_j_eval(run, scope, node->b, &key));
        run->line = node->line;
        return qni_j_item(run, v, key, out);
    case N_SLICE:
        return eval_slice(run, scope, node, out);
    case N_CALL:
        return eval_call(run, scope, node, out);
    case N_FILTER:
    case N_TEST:
        return eval_spec(run, scope, node, out);
    default: /* the parser puts no statement here */
        return qni_j_fail(run, QN_EUNSUPPORTED, "a statement in an expression");
    }
}

qn_status qni_j_eval(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_step(run, 0));
    if (++run->depth > QNI_JINJA_DEPTH) return qni_j_fail(run, QN_EFULL, "nests deeper than %d", QNI_JINJA_DEPTH);
    qn_status status = eval_node(run, scope, node, out);
    run->depth--;
    return status;
}
