/* SPDX-License-Identifier: Apache-2.0 */
/* Filters on single values: text, numbers, JSON. */
#include "filter.h"

#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static qn_status fail_undefined(jrun *run, jval v) {
    return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined", (int)v.size, v.s);
}

static qn_status do_tojson(jrun *run, jval self, const jval *arg, jval *out) {
    jjson form = {.ascii = qni_j_truth(arg[0]), .sort = qni_j_truth(arg[3]), .indent = qni_j_none()};
    int64_t n;
    if (qni_j_given(arg[1])) {
        form.indent = arg[1];
        if (form.indent.kind != J_STRING && !qni_j_as_int(form.indent, &n)) {
            return qni_j_fail(run, QN_EINVAL, "tojson: an indent that is a %s", qni_j_kind(arg[1]));
        }
    }
    form.item_separator = qni_j_literal(form.indent.kind == J_NONE ? ", " : ",");
    form.key_separator = qni_j_literal(": ");
    if (qni_j_given(arg[2])) {
        const jseq *pair = arg[2].kind == J_SEQ && arg[2].seq->kind <= SEQ_TUPLE ? arg[2].seq : NULL;
        if (pair == NULL || pair->n != 2 || pair->items[0].kind != J_STRING || pair->items[1].kind != J_STRING) {
            return qni_j_fail(run, QN_EINVAL, "tojson: separators must be two strings");
        }
        form.item_separator = pair->items[0];
        form.key_separator = pair->items[1];
    }
    jbuf buf = {0};
    form.trusted = qni_j_trusted(self);
    QN_TRY(qni_j_put_json(run, &buf, self, &form));
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status do_trim(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    QN_TRY(qni_j_str(run, self, &text));
    bool given = qni_j_given(arg[0]);
    if (given && (arg[0].kind != J_STRING || arg[0].size > 1024)) {
        return qni_j_fail(run, QN_EINVAL, "trim of a %s", qni_j_kind(arg[0]));
    }
    *out = qni_j_strip(text, given ? &arg[0] : NULL, 3);
    return qni_j_step(run, (text.size - out->size) * (given ? 64 + 4 * arg[0].size : 4));
}

static qn_status do_length(jrun *run, jval self, const jval *arg, jval *out) {
    size_t n;
    (void)arg;
    QN_TRY(qni_j_length(run, self, &n));
    *out = qni_j_int((int64_t)n);
    return QN_OK;
}

static qn_status recase(jrun *run, jval self, jcase to, jval *out) {
    jval text;
    QN_TRY(qni_j_str(run, self, &text));
    return qni_j_recase(run, text, to, out);
}

static qn_status do_upper(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return recase(run, self, CASE_UPPER, out);
}

static qn_status do_lower(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return recase(run, self, CASE_LOWER, out);
}

static qn_status do_capitalize(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return recase(run, self, CASE_CAPITALIZE, out);
}

/* Words start after white space, '-' and opening brackets, unlike in str.title(). The first character of a word becomes
 * uppercase, not titlecase. */
static qn_status do_title(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    jbuf buf = {0};
    (void)arg;
    QN_TRY(qni_j_str(run, self, &text));
    for (size_t at = 0; at < text.size;) {
        size_t end = at, n = 0;
        uint32_t c = 0;
        jval piece;
        bool gap = false;
        for (bool first = true; end < text.size; first = false, end += n) {
            n = qni_j_char(text.s + end, text.size - end, &c);
            bool is_gap = qni_j_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
            if (first) gap = is_gap;
            if (is_gap != gap) break;
        }
        n = qni_j_char(text.s + at, text.size - at, &c);
        QN_TRY(qni_j_recase(run, qni_j_part(text, at, n), CASE_UPPER, &piece));
        QN_TRY(qni_j_put_text(run, &buf, piece));
        QN_TRY(qni_j_recase(run, qni_j_part(text, at + n, end - at - n), CASE_LOWER, &piece));
        QN_TRY(qni_j_put_text(run, &buf, piece));
        at = end;
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status do_replace(jrun *run, jval self, const jval *arg, jval *out) {
    jval text, from, to;
    int64_t most = -1;
    if (qni_j_given(arg[2]) && !qni_j_as_int(arg[2], &most))
        return qni_j_fail(run, QN_EINVAL, "replace: the count must be an integer");
    QN_TRY(qni_j_str(run, self, &text));
    QN_TRY(qni_j_str(run, arg[0], &from));
    QN_TRY(qni_j_str(run, arg[1], &to));
    return qni_j_replace(run, text, from, to, most, out);
}

static qn_status do_default(jrun *run, jval self, const jval *arg, jval *out) {
    (void)run;
    *out = self;
    if (self.kind == J_UNDEFINED || (qni_j_truth(arg[1]) && !qni_j_truth(self))) {
        *out = arg[0].kind == J_ABSENT ? qni_j_literal("") : arg[0];
    }
    return QN_OK;
}

enum { LONGEST_NUMBER = 80 };

/* Copy a decimal number without the white space and underscores that Python's int() and float() allow. */
static bool plain_number(jval text, char *to, size_t size, bool *negative) {
    jval s = qni_j_strip(text, NULL, 3);
    size_t n = 0;
    *negative = s.size > 0 && *s.s == '-';
    for (size_t i = s.size > 0 && (*s.s == '-' || *s.s == '+') ? 1 : 0; i < s.size; i++) {
        char c = s.s[i];
        bool digits =
            i > 0 && i + 1 < s.size && s.s[i - 1] >= '0' && s.s[i - 1] <= '9' && s.s[i + 1] >= '0' && s.s[i + 1] <= '9';
        if (c == '_' && digits) continue;
        if (n + 1 >= size) return false;
        to[n++] = c;
    }
    to[n] = '\0';
    return n > 0;
}

/* float(text). */
static bool text_float(jval text, double *out) {
    char plain[LONGEST_NUMBER];
    bool negative;
    if (!plain_number(text, plain, sizeof plain, &negative)) return false;
    size_t n = strlen(plain);
    static const char *const names[] = {"inf", "infinity", "nan"};
    for (int i = 0; i < 3; i++) {
        size_t k = 0;
        while (plain[k] != '\0' && (plain[k] | 0x20) == names[i][k]) k++;
        if (k == n && names[i][k] == '\0') {
            *out = i == 2 ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
            return true;
        }
    }
    char fixed[LONGEST_NUMBER + 4];
    size_t m = 0;
    for (size_t i = 0; i < n; i++) { /* "1." and ".5" are valid in Python */
        if (plain[i] == '.' && (i == 0 || plain[i - 1] < '0' || plain[i - 1] > '9')) {
            if (i + 1 == n || plain[i + 1] < '0' || plain[i + 1] > '9') return false;
            fixed[m++] = '0';
        }
        fixed[m++] = plain[i];
    }
    if (!qni_j_parse_float(fixed, m, out)) return false;
    if (negative) *out = -*out;
    return true;
}

static bool text_int(jval text, int base, int64_t *out, bool *over) {
    char plain[LONGEST_NUMBER];
    bool negative;
    *over = false;
    *out = 0;
    if (!plain_number(text, plain, sizeof plain, &negative)) return false;
    const char *p = plain;
    char mark = base == 16 ? 'x' : base == 8 ? 'o' : 'b';
    if (base != 10 && p[0] == '0' && (p[1] | 0x20) == mark) p += 2;
    if (*p == '\0') return false;
    for (; *p != '\0'; p++) {
        int d = *p >= '0' && *p <= '9'                     ? *p - '0'
                : (*p | 0x20) >= 'a' && (*p | 0x20) <= 'z' ? (*p | 0x20) - 'a' + 10
                                                           : 99;
        if (d >= base) return false;
        *over =
            *over || __builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, negative ? -d : d, out);
    }
    return true;
}

qn_status qni_j_float_to_int(jrun *run, double f, bool trusted, jval *out) {
    if (!(f > -9.2e18 && f < 9.2e18)) return qni_j_fail_big(run);
    *out = qni_j_trust(qni_j_int((int64_t)f), trusted);
    return QN_OK;
}

/* Python accepts digits and white space of all scripts, and numbers of any length; these are not supported here. */
static qn_status want_plain_number(jrun *run, jval text) {
    QN_TRY(qni_j_step(run, 64 * 8 + text.size * 8));
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        at += qni_j_char(text.s + at, text.size - at, &c);
        if (c < 0x80 || (!qni_j_is_space(c) && !qni_j_in_class(c, CLASS_DECIMAL))) continue;
        return qni_j_fail(run, QN_EUNSUPPORTED, "a number with digits or spaces that are not ASCII");
    }
    jval s = qni_j_strip(text, NULL, 3);
    size_t n = 0;
    while (n < s.size && s.s[n] != '\0' && strchr("0123456789+-_.eE", s.s[n]) != NULL) n++;
    if (s.size < LONGEST_NUMBER || n < s.size) return QN_OK;
    return qni_j_fail(run, QN_EUNSUPPORTED, "a number of %zu characters", s.size);
}

static qn_status do_int(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t base = 10, i;
    double f;
    bool over;
    *out = arg[0].kind == J_ABSENT ? qni_j_int(0) : arg[0];
    if (arg[1].kind != J_ABSENT &&
        (!qni_j_as_int(arg[1], &base) || (base != 10 && base != 16 && base != 8 && base != 2))) {
        return qni_j_fail(run, QN_EUNSUPPORTED, "int: a base that is not 10, 16, 8 or 2");
    }
    if (self.kind == J_UNDEFINED) return fail_undefined(run, self);
    if (self.kind == J_STRING) {
        QN_TRY(want_plain_number(run, self));
        if (text_int(self, (int)base, &i, &over)) {
            if (over) return qni_j_fail_big(run);
            *out = qni_j_trust(qni_j_int(i), self.trusted);
            return QN_OK;
        }
        return text_float(self, &f) && isfinite(f) ? qni_j_float_to_int(run, f, self.trusted, out) : QN_OK;
    }
    if (qni_j_as_int(self, &i)) {
        *out = qni_j_trust(qni_j_int(i), self.trusted);
        return QN_OK;
    }
    if (self.kind == J_BIG) *out = self;
    if (self.kind != J_FLOAT || isnan(self.f)) return QN_OK;
    if (isinf(self.f)) return qni_j_fail(run, QN_EINVAL, "infinity as an integer");
    return qni_j_float_to_int(run, self.f, self.trusted, out);
}

static qn_status do_float(jrun *run, jval self, const jval *arg, jval *out) {
    double f;
    *out = arg[0].kind == J_ABSENT ? qni_j_float(0) : arg[0];
    if (self.kind == J_UNDEFINED) return fail_undefined(run, self);
    if (qni_j_is_number(self)) *out = qni_j_trust(qni_j_float((double)qni_j_as_real(self)), self.trusted);
    if (self.kind == J_BIG) *out = qni_j_trust(qni_j_float(qni_j_big_real(self)), self.trusted);
    if (self.kind == J_BIG && isinf(out->f)) return qni_j_fail(run, QN_EINVAL, "an integer beyond a float");
    if (self.kind != J_STRING) return QN_OK;
    QN_TRY(want_plain_number(run, self));
    if (text_float(self, &f)) *out = qni_j_trust(qni_j_float(f), self.trusted);
    return QN_OK;
}

static qn_status do_abs(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t i;
    (void)arg;
    if (self.kind == J_FLOAT) {
        *out = qni_j_trust(qni_j_float(fabs(self.f)), self.trusted);
        return QN_OK;
    }
    if (self.kind == J_UNDEFINED) return fail_undefined(run, self);
    if (self.kind == J_BIG) {
        size_t sign = *self.s == '-';
        *out = (jval){.kind = J_BIG, .trusted = self.trusted, .s = self.s + sign, .size = self.size - sign};
        return QN_OK;
    }
    if (!qni_j_as_int(self, &i)) return qni_j_fail(run, QN_EINVAL, "abs of a %s", qni_j_kind(self));
    return qni_j_unary(run, i < 0 ? T_SUB : T_ADD, self, out);
}

/* Python's round(): the decimal nearest to the exact value, ties to even, as in printf. */
static qn_status do_round(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t digits = 0;
    char text[400];
    bool up = qni_j_text_is(arg[1], "ceil"), down = qni_j_text_is(arg[1], "floor");
    if (arg[1].kind != J_ABSENT && !up && !down && !qni_j_text_is(arg[1], "common")) {
        return qni_j_fail(run, QN_EINVAL, "round: the method must be common, ceil or floor");
    }
    if (arg[0].kind != J_ABSENT && !qni_j_as_int(arg[0], &digits))
        return qni_j_fail(run, QN_EINVAL, "round: the precision must be an integer");
    if (digits < 0 || digits > 15) return qni_j_fail(run, QN_EUNSUPPORTED, "round to %lld digits", (long long)digits);
    if (self.kind == J_UNDEFINED) return fail_undefined(run, self);
    if (self.kind == J_BIG && (up || down)) return qni_j_fail_big(run);
    if (!qni_j_is_number(self) && self.kind != J_BIG)
        return qni_j_fail(run, QN_EINVAL, "round of a %s", qni_j_kind(self));
    if (up || down) {
        double power = pow(10, (double)digits), x = (double)qni_j_as_real(self);
        if (self.kind != J_FLOAT && fabs(x) > 1e15)
            return qni_j_fail(run, QN_EUNSUPPORTED, "round of an integer beyond 15 digits");
        *out = qni_j_trust(qni_j_float((up ? ceil(x * power) : floor(x * power)) / power), self.trusted);
        return QN_OK;
    }
    *out = self.kind == J_BOOL ? qni_j_trust(qni_j_int(self.b), self.trusted) : self;
    if (self.kind != J_FLOAT || !isfinite(self.f)) return QN_OK;
    QN_TRY(qni_j_step(run, 64 * 32)); /* expensive */
    snprintf(text, sizeof text, "%.*f", (int)digits, self.f);
    *out = qni_j_trust(qni_j_float(strtod(text, NULL)), self.trusted);
    return QN_OK;
}

static qn_status do_string(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    *out = self; /* text marked safe stays safe */
    return self.kind == J_STRING ? QN_OK : qni_j_str(run, self, out);
}

static qn_status do_safe(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    QN_TRY(qni_j_str(run, self, out));
    out->markup = true;
    return QN_OK;
}

static qn_status do_escape(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_escape(run, self, out);
}

static qn_status do_forceescape(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    self.markup = false;
    return qni_j_escape(run, self, out);
}

/* One line of do_indent, with the indentation unless the line is empty and blank lines are not indented. */
static qn_status put_line(jrun *run, jbuf *buf, jval line, jval indent, bool indented) {
    if (indented) QN_TRY(qni_j_put_text(run, buf, indent));
    return qni_j_put_text(run, buf, line);
}

static qn_status do_indent(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t width = 4;
    jval indent = arg[0], space = qni_j_literal(" "), line;
    jbuf buf = {0};
    bool first = qni_j_truth(arg[1]), blank = qni_j_truth(arg[2]);
    if (self.kind == J_UNDEFINED) return fail_undefined(run, self);
    if (self.kind != J_STRING) return qni_j_fail(run, QN_EINVAL, "indent of a %s", qni_j_kind(self));
    if (self.markup) return qni_j_fail(run, QN_EUNSUPPORTED, "indent of text that is marked safe");
    if (indent.kind != J_STRING) {
        if (indent.kind != J_ABSENT && !qni_j_as_int(indent, &width))
            return qni_j_fail(run, QN_EINVAL, "indent by a %s", qni_j_kind(indent));
        QN_TRY(qni_j_binary(run, T_MUL, space, qni_j_int(width), &indent));
    }
    uint32_t c;
    size_t start = 0;
    QN_TRY(qni_j_step(run, self.size * 8));
    for (size_t at = 0, n = 0; at <= self.size;) { /* the lines of self + "\n" */
        size_t end = at < self.size ? qni_j_line_end(self.s + at, self.size - at) : 1;
        /* a final \r joins the appended \n */
        if (at < self.size && self.s[at] == '\r' && at + 1 == self.size) end = 2;
        if (end == 0) {
            at += qni_j_char(self.s + at, self.size - at, &c);
            continue;
        }
        line = qni_j_part(self, start, at - start);
        if (n > 0) QN_TRY(qni_j_put(run, &buf, "\n", 1, qni_j_trusted_at(self, start - 1)));
        QN_TRY(put_line(run, &buf, line, indent, n == 0 ? first : blank || line.size > 0));
        n++;
        start = at += end;
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status do_truncate(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t length = 255, leeway = 5;
    jval end = arg[2].kind == J_ABSENT ? qni_j_literal("...") : arg[2];
    bool fine = self.kind == J_STRING && end.kind == J_STRING &&
                (arg[0].kind == J_ABSENT || qni_j_as_int(arg[0], &length)) &&
                (!qni_j_given(arg[3]) || qni_j_as_int(arg[3], &leeway)) && !self.markup;
    if (!fine) return qni_j_fail(run, QN_EUNSUPPORTED, "truncate with these arguments");
    int64_t n_end = (int64_t)qni_j_count(end.s, end.size);
    if (length < n_end || leeway < 0) return qni_j_fail(run, QN_EINVAL, "truncate to less than its end");
    *out = self;
    QN_TRY(qni_j_step(run, self.size));
    int64_t longest = length <= INT64_MAX - leeway ? length + leeway : INT64_MAX;
    if ((int64_t)qni_j_count(self.s, self.size) <= longest) return QN_OK;
    jval kept = qni_j_part(self, 0, qni_j_offset(self.s, self.size, (size_t)(length - n_end)));
    if (!qni_j_truth(arg[1])) {
        int64_t space = qni_j_rfind(kept, qni_j_text(" ", 1));
        if (space >= 0) kept.size = (size_t)space;
    }
    return qni_j_binary(run, T_ADD, kept, end, out);
}

static qn_status do_wordcount(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    int64_t n = 0;
    bool inside = false;
    (void)arg;
    QN_TRY(qni_j_str(run, self, &text));
    QN_TRY(qni_j_step(run, text.size * 32));
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        at += qni_j_char(text.s + at, text.size - at, &c);
        bool word = c == '_' || qni_j_in_class(c, CLASS_ALNUM);
        n += word && !inside;
        inside = word;
    }
    *out = qni_j_int(n);
    return QN_OK;
}

static qn_status do_format(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    if (arg[1].dict->n > 0) return qni_j_fail(run, QN_EUNSUPPORTED, "format with names");
    if (self.kind == J_STRING && self.markup)
        return qni_j_fail(run, QN_EUNSUPPORTED, "format of text that is marked safe");
    QN_TRY(qni_j_str(run, self, &text));
    return qni_j_percent(run, text, arg[0], out);
}

static qn_status do_from_json(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_parse_json(run, self, out);
}

const jspec *qni_j_find_filter(const char *name, size_t size) {
    static const jspec filters[] = {
        {"tojson", "ensure_ascii indent separators sort_keys", 0, do_tojson},
        {"from_json", "", 0, do_from_json},
        {"fromjson", "", 0, do_from_json},
        {"trim", "chars", 0, do_trim},
        {"length", "", 0, do_length},
        {"count", "", 0, do_length},
        {"upper", "", 0, do_upper},
        {"lower", "", 0, do_lower},
        {"capitalize", "", 0, do_capitalize},
        {"title", "", 0, do_title},
        {"replace", "old new count", 2, do_replace},
        {"default", "default_value boolean", 0, do_default},
        {"d", "default_value boolean", 0, do_default},
        {"int", "default base", 0, do_int},
        {"float", "default", 0, do_float},
        {"abs", "", 0, do_abs},
        {"round", "precision method", 0, do_round},
        {"string", "", 0, do_string},
        {"safe", "", 0, do_safe},
        {"escape", "", 0, do_escape},
        {"e", "", 0, do_escape},
        {"forceescape", "", 0, do_forceescape},
        {"indent", "width first blank", 0, do_indent},
        {"truncate", "length killwords end leeway", 0, do_truncate},
        {"wordcount", "", 0, do_wordcount},
        {"format", "*", 0, do_format},
        {NULL, NULL, 0, NULL},
    };
    const jspec *spec = qni_j_find_method(filters, name, size);
    return spec != NULL ? spec : qni_j_find_method(qni_j_seq_filters(), name, size);
}
