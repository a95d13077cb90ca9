/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluation of expressions. */
#include "ast.h"

static qn_status eval_name(jrun *run, const jscope *scope, const jnode *node, jval *out) {
    size_t looked_at = 0;
    for (; scope != NULL; scope = scope->outer) {
        looked_at += scope->n;
        for (size_t i = scope->n; i-- > 0;) {
            if (scope->items[i].id == node->id) {
                *out = scope->items[i].value;
                return qni_j_step(run, looked_at * 4);
            }
        }
    }
    const jspec *global = qni_j_find_global(node->value.s, node->value.size);
    *out = global != NULL ? (jval){.kind = J_FUNCTION, .function = global}
                          : qni_j_undefined(node->value.s, node->value.size);
    return qni_j_step(run, looked_at * 4);
}

static QNI_J_APART qn_status eval_sequence(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_seq(run, node->kind == N_LIST ? SEQ_LIST : SEQ_TUPLE, node->list.n, out));
    for (size_t i = 0; i < node->list.n; i++) QN_TRY(qni_j_eval(run, scope, node->list.items[i], &out->seq->items[i]));
    return qni_j_seq_done(run, *out);
}

static QNI_J_APART qn_status eval_dict(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_dict(run, node->list.n / 2, out));
    for (size_t i = 0; i < node->list.n; i += 2) {
        jval key, value;
        QN_TRY(qni_j_eval(run, scope, node->list.items[i], &key));
        QN_TRY(qni_j_eval(run, scope, node->list.items[i + 1], &value));
        QN_TRY(qni_j_dict_put(run, *out, key, value));
    }
    return QN_OK;
}

static QNI_J_APART qn_status eval_concat(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jbuf buf = {0};
    for (size_t i = 0; i < node->list.n; i++) {
        QN_TRY(qni_j_eval(run, scope, node->list.items[i], out));
        QN_TRY(qni_j_put_str(run, &buf, *out, false));
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

/* The functions from here on receive the value of the node's first operand, already evaluated. This way a chain of any
 * length does not pile up their stack frames. */
static QNI_J_APART qn_status with_second(jrun *run, jscope *scope, const jnode *node, jval first, jval *out) {
    QN_TRY(qni_j_eval(run, scope, node->b, out));
    run->line = node->line;
    if (node->kind == N_ITEM) return qni_j_item(run, first, *out, out);
    return qni_j_binary(run, node->op, first, *out, out);
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

static QNI_J_APART qn_status with_operands(jrun *run, jscope *scope, const jnode *node, jval left, jval *out) {
    bool holds = true;
    for (size_t i = 0; holds && i < node->list.n; i++) {
        QN_TRY(qni_j_eval(run, scope, node->list.items[i]->a, out));
        run->line = node->line;
        QN_TRY(compare(run, node->list.items[i]->op, left, *out, &holds));
        left = *out;
    }
    *out = qni_j_bool(holds);
    return QN_OK;
}

static QNI_J_APART qn_status with_bounds(jrun *run, jscope *scope, const jnode *node, jval of, jval *out) {
    jval bounds[3];
    for (int i = 0; i < 3; i++) {
        bounds[i] = qni_j_none();
        if (node->list.items[i] != NULL) QN_TRY(qni_j_eval(run, scope, node->list.items[i], &bounds[i]));
    }
    run->line = node->line;
    return qni_j_slice(run, of, bounds, out);
}

static QNI_J_APART qn_status eval_args(jrun *run, jscope *scope, const jargs *args, jval *positional, jval *keywords) {
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

static QNI_J_APART qn_status with_call(jrun *run, jscope *scope, const jnode *node, jval callee, jval *out) {
    jval positional, keywords;
    QN_TRY(eval_args(run, scope, &node->args, &positional, &keywords));
    run->line = node->line;
    return qni_j_call(run, callee, positional, keywords, out);
}

/* A filter or a test: its arguments, checked by the parser, are evaluated directly into their slots. */
static QNI_J_APART qn_status with_spec(jrun *run, jscope *scope, const jnode *node, jval self, jval *out) {
    jval slots[J_MAX_ARG] = {{.kind = J_ABSENT}};
    const jargs *args = &node->args;
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

/* Apply the node to the value of its first operand, which *out holds. */
static qn_status go_on(jrun *run, jscope *scope, const jnode *node, jval *out) {
    switch ((jnode_kind)node->kind) {
    case N_UNARY:
        run->line = node->line;
        return qni_j_unary(run, node->op, *out, out);
    case N_BINARY:
    case N_ITEM:
        return with_second(run, scope, node, *out, out);
    case N_AND:
    case N_OR:
        return qni_j_truth(*out) == (node->kind == N_AND) ? qni_j_eval(run, scope, node->b, out) : QN_OK;
    case N_NOT:
        *out = qni_j_bool(!qni_j_truth(*out));
        return QN_OK;
    case N_COMPARE:
        return with_operands(run, scope, node, *out, out);
    case N_COND:
        if (qni_j_truth(*out)) return qni_j_eval(run, scope, node->b, out);
        if (node->c != NULL) return qni_j_eval(run, scope, node->c, out);
        *out = qni_j_undefined("the inline if without else", 26);
        return QN_OK;
    case N_ATTRIBUTE:
        run->line = node->line;
        return qni_j_attribute(run, *out, node->value, out);
    case N_SLICE:
        return with_bounds(run, scope, node, *out, out);
    case N_CALL:
        return with_call(run, scope, node, *out, out);
    case N_FILTER:
    case N_TEST:
        return with_spec(run, scope, node, *out, out);
    default: /* the parser creates no statement here */
        return qni_j_fail(run, QN_EUNSUPPORTED, "a statement in an expression");
    }
}

qn_status qni_j_eval(jrun *run, jscope *scope, const jnode *node, jval *out) {
    QN_TRY(qni_j_step(run, 0));
    QN_TRY(qni_j_deeper(run));
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
    case N_CONCAT:
        return eval_concat(run, scope, node, out);
    default:
        QN_TRY(qni_j_eval(run, scope, node->a, out));
        return go_on(run, scope, node, out);
    }
}
