/* SPDX-License-Identifier: Apache-2.0 */
/* Jinja's tests: the names after "is". */
#include "ast.h"

static qn_status answer(jval *out, bool yes) {
    *out = qni_j_bool(yes);
    return QN_OK;
}

#define SIMPLE_TEST(name, condition)                                                                                   \
    static qn_status name(jrun *run, jval self, const jval *arg, jval *out) {                                          \
        (void)run;                                                                                                     \
        (void)arg;                                                                                                     \
        return answer(out, condition);                                                                                 \
    }
SIMPLE_TEST(is_defined, self.kind != J_UNDEFINED)
SIMPLE_TEST(is_undefined, self.kind == J_UNDEFINED)
SIMPLE_TEST(is_none, self.kind == J_NONE)
SIMPLE_TEST(is_boolean, self.kind == J_BOOL)
SIMPLE_TEST(is_true, self.kind == J_BOOL && self.b)
SIMPLE_TEST(is_false, self.kind == J_BOOL && !self.b)
SIMPLE_TEST(is_integer, self.kind == J_INT || self.kind == J_BIG)
SIMPLE_TEST(is_float, self.kind == J_FLOAT)
SIMPLE_TEST(is_number, qni_j_is_number(self) || self.kind == J_BIG)
SIMPLE_TEST(is_string, self.kind == J_STRING)
SIMPLE_TEST(is_mapping, self.kind == J_DICT)
SIMPLE_TEST(is_iterable, qni_j_iterable(self))
SIMPLE_TEST(is_sequence, self.kind == J_STRING || self.kind == J_DICT || self.kind == J_UNDEFINED ||
                             (self.kind == J_SEQ && self.seq->kind <= SEQ_RANGE))
SIMPLE_TEST(is_callable, self.kind == J_UNDEFINED || self.kind == J_FUNCTION || self.kind == J_METHOD ||
                             self.kind == J_MACRO || self.kind == J_LOOP)
SIMPLE_TEST(is_escaped, self.kind == J_STRING && self.markup)
#undef SIMPLE_TEST

static qn_status is_lower(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    (void)arg;
    QN_TRY(qni_j_str(run, self, &text));
    return qni_j_is_case(run, text, 2, out);
}

static qn_status is_upper(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    (void)arg;
    QN_TRY(qni_j_str(run, self, &text));
    return qni_j_is_case(run, text, 1, out);
}

static qn_status divides(jrun *run, jval self, jval by, int64_t rest, jval *out) {
    jval mod;
    bool equal;
    if (self.kind == J_STRING) return qni_j_fail(run, QN_EINVAL, "dividing a string");
    QN_TRY(qni_j_binary(run, T_MOD, self, by, &mod));
    QN_TRY(qni_j_equal(run, mod, qni_j_int(rest), &equal));
    return answer(out, equal);
}

static qn_status is_odd(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return divides(run, self, qni_j_int(2), 1, out);
}

static qn_status is_even(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return divides(run, self, qni_j_int(2), 0, out);
}

static qn_status is_divisible(jrun *run, jval self, const jval *arg, jval *out) {
    return divides(run, self, arg[0], 0, out);
}

static qn_status is_equal(jrun *run, jval self, const jval *arg, jval *out) {
    bool equal;
    QN_TRY(qni_j_equal(run, self, arg[0], &equal));
    return answer(out, equal);
}

static qn_status is_unequal(jrun *run, jval self, const jval *arg, jval *out) {
    bool equal;
    QN_TRY(qni_j_equal(run, self, arg[0], &equal));
    return answer(out, !equal);
}

static qn_status order(jrun *run, jval a, jval b, const char *op, int low, int high, jval *out) {
    int c;
    QN_TRY(qni_j_order(run, a, b, &c, op));
    return answer(out, c >= low && c <= high);
}

static qn_status is_less(jrun *run, jval self, const jval *arg, jval *out) {
    return order(run, self, arg[0], "<", -1, -1, out);
}

static qn_status is_at_most(jrun *run, jval self, const jval *arg, jval *out) {
    return order(run, self, arg[0], "<=", -1, 0, out);
}

static qn_status is_greater(jrun *run, jval self, const jval *arg, jval *out) {
    return order(run, self, arg[0], ">", 1, 1, out);
}

static qn_status is_at_least(jrun *run, jval self, const jval *arg, jval *out) {
    return order(run, self, arg[0], ">=", 0, 1, out);
}

static qn_status is_in(jrun *run, jval self, const jval *arg, jval *out) {
    bool in;
    QN_TRY(qni_j_contains(run, arg[0], self, &in));
    return answer(out, in);
}

/* Identity is defined for Python's three constants. For other values only "no" is certain, if their types differ. */
static qn_status is_same(jrun *run, jval self, const jval *arg, jval *out) {
    jval other = arg[0];
    if (self.kind != other.kind) return answer(out, false);
    if (self.kind == J_NONE) return answer(out, true);
    if (self.kind == J_BOOL) return answer(out, self.b == other.b);
    return qni_j_fail(run, QN_EUNSUPPORTED, "\"sameas\" of a %s", qni_j_kind(self));
}

const jspec *qni_j_find_test(const char *name, size_t size) {
    static const jspec tests[] = {
        {"defined", "", 0, is_defined},
        {"undefined", "", 0, is_undefined},
        {"none", "", 0, is_none},
        {"boolean", "", 0, is_boolean},
        {"true", "", 0, is_true},
        {"false", "", 0, is_false},
        {"integer", "", 0, is_integer},
        {"float", "", 0, is_float},
        {"number", "", 0, is_number},
        {"string", "", 0, is_string},
        {"mapping", "", 0, is_mapping},
        {"iterable", "", 0, is_iterable},
        {"sequence", "", 0, is_sequence},
        {"callable", "", 0, is_callable},
        {"escaped", "", 0, is_escaped},
        {"lower", "", 0, is_lower},
        {"upper", "", 0, is_upper},
        {"odd", "", 0, is_odd},
        {"even", "", 0, is_even},
        {"divisibleby", "num", 1, is_divisible},
        {"sameas", "other", 1, is_same},
        {"in", "seq", 1, is_in},
        {"==", "0", 1, is_equal},
        {"eq", "0", 1, is_equal},
        {"equalto", "0", 1, is_equal},
        {"!=", "0", 1, is_unequal},
        {"ne", "0", 1, is_unequal},
        {"<", "0", 1, is_less},
        {"lt", "0", 1, is_less},
        {"lessthan", "0", 1, is_less},
        {"<=", "0", 1, is_at_most},
        {"le", "0", 1, is_at_most},
        {">", "0", 1, is_greater},
        {"gt", "0", 1, is_greater},
        {"greaterthan", "0", 1, is_greater},
        {">=", "0", 1, is_at_least},
        {"ge", "0", 1, is_at_least},
        {NULL, NULL, 0, NULL},
    };
    return qni_j_find_method(tests, name, size);
}
