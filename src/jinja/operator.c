/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic with Python's rules: floor division, exact 64-bit integers, addition and multiplication of texts and
 * lists. */
#include "../base/memory.h"
#include "ast.h"
#include "str.h"

#include <math.h>

static qn_status mismatch(jrun *run, int op, jval a, jval b) {
    const jval *v = a.kind == J_UNDEFINED ? &a : &b;
    if (a.kind == J_BIG || b.kind == J_BIG) return qni_j_fail_big(run);
    if (v->kind == J_UNDEFINED) return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined", (int)v->size, v->s);
    return qni_j_fail(run, QN_EINVAL, "'%s' between a %s and a %s", qni_j_token_text(op), qni_j_kind(a), qni_j_kind(b));
}

static qn_status int_power(jrun *run, int64_t base, int64_t exponent, jval *out) {
    int64_t result = 1;
    if (exponent < 0) {
        if (base == 0) return qni_j_fail(run, QN_EINVAL, "0 to a negative power");
        *out = qni_j_float(pow((double)base, (double)exponent));
        return QN_OK;
    }
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return qni_j_fail_big(run);
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return qni_j_fail_big(run);
    }
    *out = qni_j_int(result);
    return QN_OK;
}

static qn_status int_operation(jrun *run, int op, int64_t a, int64_t b, jval *out) {
    int64_t r = 0;
    bool over = false;
    if ((op == T_DIV || op == T_FLOORDIV || op == T_MOD) && b == 0)
        return qni_j_fail(run, QN_EINVAL, "division by zero");
    switch (op) {
    case T_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case T_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case T_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case T_DIV: {
        /* Python rounds the exact quotient; dividing doubles does the same if both operands are exact. */
        if (a > 1LL << 53 || a < -(1LL << 53) || b > 1LL << 53 || b < -(1LL << 53)) {
            return qni_j_fail(run, QN_EUNSUPPORTED, "'/' of integers beyond 53 bits");
        }
        *out = qni_j_float((double)a / (double)b);
        return QN_OK;
    }
    case T_POW:
        return int_power(run, a, b, out);
    default:
        if (b == -1) {
            over = op == T_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &r);
        } else {
            bool adjust = a % b != 0 && (a < 0) != (b < 0);
            r = op == T_MOD ? a % b + (adjust ? b : 0) : a / b - (adjust ? 1 : 0);
        }
    }
    if (over) return qni_j_fail_big(run);
    *out = qni_j_int(r);
    return QN_OK;
}

/* Python's float // and %: the remainder has the sign of the divisor. */
static double float_mod(double a, double b, double *floor_quotient) {
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (div != 0) {
        double f = floor(div);
        *floor_quotient = div - f > 0.5 ? f + 1 : f;
    } else {
        *floor_quotient = copysign(0.0, a / b);
    }
    return mod;
}

static qn_status float_operation(jrun *run, int op, double a, double b, jval *out) {
    double r = 0, quotient;
    if ((op == T_DIV || op == T_FLOORDIV || op == T_MOD) && b == 0)
        return qni_j_fail(run, QN_EINVAL, "division by zero");
    switch (op) {
    case T_ADD:
        r = a + b;
        break;
    case T_SUB:
        r = a - b;
        break;
    case T_MUL:
        r = a * b;
        break;
    case T_DIV:
        r = a / b;
        break;
    case T_POW:
        r = pow(a, b);
        if ((isnan(r) && !isnan(a) && !isnan(b)) || (isinf(r) && !isinf(a) && !isinf(b))) {
            return qni_j_fail(run, QN_EINVAL, "a power that is not a number");
        }
        break;
    default:
        r = float_mod(a, b, &quotient);
        if (op == T_FLOORDIV) r = quotient;
    }
    *out = qni_j_float(r);
    return QN_OK;
}

/* "&lt;" for "<" and so on, as in markupsafe. */
qn_status qni_j_escape(jrun *run, jval v, jval *out) {
    jbuf buf = {0};
    jval text;
    if (v.kind == J_STRING && v.markup) {
        *out = v;
        return QN_OK;
    }
    QN_TRY(qni_j_str(run, v, &text));
    for (size_t i = 0; i < text.size; i++) {
        static const char special[] = "&<>'\"";
        static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        const char *p = memchr(special, text.s[i], sizeof special - 1);
        const char *name = p != NULL ? names[p - special] : NULL;
        bool trusted = qni_j_trusted_at(text, i);
        QN_TRY(name != NULL ? qni_j_put(run, &buf, name, strlen(name), trusted)
                            : qni_j_put(run, &buf, text.s + i, 1, trusted));
    }
    *out = qni_j_buf_text(&buf);
    out->markup = true;
    return QN_OK;
}

static qn_status add_texts(jrun *run, jval a, jval b, jval *out) {
    jbuf buf = {0};
    bool markup = a.markup || b.markup;
    if (markup) QN_TRY(qni_j_escape(run, a, &a));
    if (markup) QN_TRY(qni_j_escape(run, b, &b));
    size_t n;
    if (!qni_add_size(&n, a.size, b.size)) return qni_j_no_memory(run);
    QN_TRY(qni_j_reserve(run, &buf, n));
    QN_TRY(qni_j_put_text(run, &buf, a));
    QN_TRY(qni_j_put_text(run, &buf, b));
    *out = qni_j_buf_text(&buf);
    out->markup = markup;
    return QN_OK;
}

static qn_status add_seqs(jrun *run, const jseq *a, const jseq *b, jval *out) {
    QN_TRY(qni_j_seq(run, (jseq_kind)a->kind, a->n + b->n, out));
    if (a->n > 0) memcpy(out->seq->items, a->items, a->n * sizeof *a->items);
    if (b->n > 0) memcpy(out->seq->items + a->n, b->items, b->n * sizeof *b->items);
    return qni_j_seq_done(run, *out);
}

static qn_status repeat(jrun *run, jval v, int64_t times, jval *out) {
    size_t n = v.kind == J_STRING ? v.size : v.seq->n;
    if (times < 0 || n == 0) times = 0;
    if (n > 0 && times > (int64_t)(QNI_JINJA_MEMORY / n + 1))
        return qni_j_fail(run, QN_EFULL, "%lld times %zu is too long", (long long)times, n);
    if (v.kind == J_STRING) {
        size_t total = n * (size_t)times;
        jbuf buf = {.trusted = v.trusted};
        QN_TRY(qni_j_reserve(run, &buf, total));
        if (v.mixed != 0) {
            for (int64_t i = 0; i < times; i++) QN_TRY(qni_j_put_text(run, &buf, v));
        } else {
            QN_TRY(qni_j_step(run, total));
            for (; buf.size < total; buf.size += n) memcpy(buf.data + buf.size, v.s, n);
        }
        *out = qni_j_buf_text(&buf);
        out->markup = v.markup;
        return QN_OK;
    }
    QN_TRY(qni_j_seq(run, (jseq_kind)v.seq->kind, n * (size_t)times, out));
    for (int64_t i = 0; i < times; i++) memcpy(out->seq->items + (size_t)i * n, v.seq->items, n * sizeof *v.seq->items);
    return qni_j_seq_done(run, *out);
}

static bool repeats(jval v) {
    return v.kind == J_STRING || (v.kind == J_SEQ && v.seq->kind <= SEQ_TUPLE);
}

static qn_status number_operation(jrun *run, int op, jval a, jval b, jval *out) {
    int64_t x, y;
    if (qni_j_as_int(a, &x) && qni_j_as_int(b, &y)) {
        QN_TRY(int_operation(run, op, x, y, out));
    } else {
        QN_TRY(float_operation(run, op, (double)qni_j_as_real(a), (double)qni_j_as_real(b), out));
    }
    out->trusted = a.trusted && b.trusted;
    return QN_OK;
}

qn_status qni_j_binary(jrun *run, int op, jval a, jval b, jval *out) {
    int64_t x, y;
    if (qni_j_is_number(a) && qni_j_is_number(b)) return number_operation(run, op, a, b, out);
    if (op == T_ADD && a.kind == J_STRING && b.kind == J_STRING) return add_texts(run, a, b, out);
    if (op == T_ADD && a.kind == J_SEQ && b.kind == J_SEQ && a.seq->kind == b.seq->kind && a.seq->kind <= SEQ_TUPLE) {
        return add_seqs(run, a.seq, b.seq, out);
    }
    if (op == T_MUL && repeats(a) && qni_j_as_int(b, &y)) return repeat(run, a, y, out);
    if (op == T_MUL && repeats(b) && qni_j_as_int(a, &x)) return repeat(run, b, x, out);
    if (op == T_MOD && a.kind == J_STRING) return qni_j_percent(run, a, b, out);
    return mismatch(run, op, a, b);
}

qn_status qni_j_unary(jrun *run, int op, jval v, jval *out) {
    int64_t i;
    if (qni_j_as_int(v, &i)) {
        if (op == T_SUB && __builtin_sub_overflow((int64_t)0, i, &i)) return qni_j_fail_big(run);
        *out = qni_j_trust(qni_j_int(i), v.trusted);
        return QN_OK;
    }
    if (v.kind == J_FLOAT) {
        *out = qni_j_trust(qni_j_float(op == T_SUB ? -v.f : v.f), v.trusted);
        return QN_OK;
    }
    return mismatch(run, op, v, v);
}
