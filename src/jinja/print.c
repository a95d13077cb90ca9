/* SPDX-License-Identifier: Apache-2.0 */
/* Values as text, byte for byte as Python's str(), repr() and json.dumps(). */
#include "ast.h"
#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static qn_status put_text(jrun *run, jbuf *buf, const char *s, bool trusted) {
    return qni_j_put(run, buf, s, strlen(s), trusted);
}

/* Shortest digits that read back as f, without a point: value = 0.DIGITS × 10^exponent. The decimal separator is
 * skipped, so the locale does not matter. */
static int shortest(double f, char digits[20], int *n) {
    char text[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (strtod(text, NULL) == f) break;
    }
    const char *p = text;
    *n = 0;
    for (; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') digits[(*n)++] = *p;
    }
    while (*n > 1 && digits[*n - 1] == '0') --*n;
    return (int)strtol(p + 1, NULL, 10) + 1;
}

size_t qni_j_float_text(char out[32], double f) {
    if (isnan(f)) return (size_t)snprintf(out, 32, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 32, f < 0 ? "-inf" : "inf");
    char digits[20], *to = out;
    int n;
    if (signbit(f)) *to++ = '-';
    int point = shortest(fabs(f), digits, &n);
    if (f == 0) point = 1;
    if (point > 16 || point < -3) { /* 1e+16, 1.5e-05 */
        *to++ = digits[0];
        if (n > 1) *to++ = '.';
        for (int i = 1; i < n; i++) *to++ = digits[i];
        return (size_t)(to - out) + (size_t)snprintf(to, 8, "e%c%02d", point > 0 ? '+' : '-', abs(point - 1));
    }
    if (point <= 0) {
        *to++ = '0';
        *to++ = '.';
        for (int i = point; i < 0; i++) *to++ = '0';
        for (int i = 0; i < n; i++) *to++ = digits[i];
        return (size_t)(to - out);
    }
    for (int i = 0; i < point || i < n; i++) {
        if (i == point) *to++ = '.';
        *to++ = i < n ? digits[i] : '0';
    }
    if (n <= point) {
        *to++ = '.';
        *to++ = '0';
    }
    return (size_t)(to - out);
}

/* Rewrite the number without its point, so the locale does not matter: 12.5e3 becomes 125e2. */
bool qni_j_parse_float(const char *text, size_t size, double *out) {
    char plain[96];
    size_t n = 0, i = 0;
    long exponent = 0, shift = 0;
    bool fraction = false;
    for (; i < size && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.' && !fraction) {
            fraction = true;
        } else if (text[i] >= '0' && text[i] <= '9' && n < 64) {
            plain[n++] = text[i];
            shift += fraction;
        } else {
            return false;
        }
    }
    if (n == 0) return false;
    if (i < size) {
        bool negative = ++i < size && text[i] == '-';
        if (i < size && (text[i] == '-' || text[i] == '+')) i++;
        if (i == size) return false;
        for (; i < size; i++) {
            if (text[i] < '0' || text[i] > '9') return false;
            if (exponent < 100000) exponent = exponent * 10 + (text[i] - '0');
        }
        if (negative) exponent = -exponent;
    }
    snprintf(plain + n, sizeof plain - n, "e%ld", exponent - shift);
    *out = strtod(plain, NULL);
    return true;
}

static qn_status put_repr_char(jrun *run, jbuf *buf, jval v, uint32_t c, char quote) {
    char text[12];
    if (c == (unsigned char)quote || c == '\\') {
        snprintf(text, sizeof text, "\\%c", (char)c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
        snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    } else if (qni_j_in_class(c, CLASS_PRINTABLE)) {
        return qni_j_put(run, buf, v.s, v.size, v.trusted);
    } else {
        snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
    }
    return put_text(run, buf, text, v.trusted);
}

static qn_status put_repr_text(jrun *run, jbuf *buf, jval v, bool trusted) {
    bool single = memchr(v.s, '\'', v.size) != NULL, two = memchr(v.s, '"', v.size) != NULL;
    char quote = single && !two ? '"' : '\'';
    QN_TRY(qni_j_put(run, buf, &quote, 1, trusted));
    for (size_t at = 0; at < v.size;) {
        uint32_t c;
        size_t n = qni_j_char(v.s + at, v.size - at, &c);
        QN_TRY(put_repr_char(run, buf, qni_j_trust(qni_j_text(v.s + at, n), trusted), c, quote));
        at += n;
    }
    return qni_j_put(run, buf, &quote, 1, trusted);
}

static qn_status put_repr(jrun *run, jbuf *buf, jval v, bool trusted);

static qn_status put_repr_seq(jrun *run, jbuf *buf, const jseq *seq, bool trusted) {
    static const char *const open[] = {"[", "(", "", "", "dict_keys([", "dict_values([", "dict_items(["};
    static const char *const close[] = {"]", ")", "", "", "])", "])", "])"};
    QN_TRY(put_text(run, buf, open[seq->kind], trusted));
    for (size_t i = 0; i < seq->n; i++) {
        if (i > 0) QN_TRY(put_text(run, buf, ", ", trusted));
        QN_TRY(put_repr(run, buf, seq->items[i], trusted));
    }
    if (seq->kind == SEQ_TUPLE && seq->n == 1) QN_TRY(put_text(run, buf, ",", trusted));
    return put_text(run, buf, close[seq->kind], trusted);
}

static qn_status put_repr_dict(jrun *run, jbuf *buf, const jdict *dict, bool trusted) {
    QN_TRY(put_text(run, buf, "{", trusted));
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0) QN_TRY(put_text(run, buf, ", ", trusted));
        QN_TRY(put_repr(run, buf, dict->pairs[2 * i], trusted));
        QN_TRY(put_text(run, buf, ": ", trusted));
        QN_TRY(put_repr(run, buf, dict->pairs[2 * i + 1], trusted));
    }
    return put_text(run, buf, "}", trusted);
}

/* Text of a number or a constant. */
static qn_status put_scalar(jrun *run, jbuf *buf, jval v, bool trusted) {
    char text[32];
    switch ((jkind)v.kind) {
    case J_NONE:
        return put_text(run, buf, "None", trusted);
    case J_BOOL:
        return put_text(run, buf, v.b ? "True" : "False", trusted);
    case J_INT:
        return qni_j_put(run, buf, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v.i), trusted);
    case J_BIG:
        return qni_j_put(run, buf, v.s, v.size, trusted);
    case J_FLOAT:
        QN_TRY(qni_j_step(run, 64 * 64)); /* the shortest digits are found by trial */
        return qni_j_put(run, buf, text, qni_j_float_text(text, v.f), trusted);
    default:
        return qni_j_fail(run, QN_EUNSUPPORTED, "the text of a %s", qni_j_kind(v));
    }
}

/* The whole text gets one mark: that of the whole value. */
static qn_status put_repr(jrun *run, jbuf *buf, jval v, bool trusted) {
    QN_TRY(qni_j_deeper(run));
    if (v.kind == J_UNDEFINED) return put_text(run, buf, "Undefined", trusted);
    if (v.kind == J_STRING && !v.markup) return put_repr_text(run, buf, v, trusted);
    if (v.kind == J_DICT) return put_repr_dict(run, buf, v.dict, trusted);
    bool shown = v.kind == J_SEQ && v.seq->kind != SEQ_RANGE && v.seq->kind != SEQ_ITERATOR;
    return shown ? put_repr_seq(run, buf, v.seq, trusted) : put_scalar(run, buf, v, trusted);
}

qn_status qni_j_put_str(jrun *run, jbuf *buf, jval v, bool repr) {
    if (v.kind == J_UNDEFINED && !repr) return QN_OK;
    if (v.kind == J_STRING && !repr) return qni_j_put_text(run, buf, v);
    return put_repr(run, buf, v, qni_j_trusted(v));
}

qn_status qni_j_str(jrun *run, jval v, jval *out) {
    jbuf buf = {0};
    *out = v;
    if (v.kind == J_STRING) {
        out->markup = false;
        return QN_OK;
    }
    QN_TRY(qni_j_put_str(run, &buf, v, false));
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status put_json_text(jrun *run, jbuf *buf, jval v, const jjson *form) {
    static const char plain[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    size_t done = 0;
    QN_TRY(qni_j_step(run, v.size * 4));
    QN_TRY(put_text(run, buf, "\"", form->trusted));
    for (size_t at = 0, n; at < v.size; at += n) {
        uint32_t c;
        char text[16] = "";
        n = qni_j_char(v.s + at, v.size - at, &c);
        for (size_t i = 0; i + 1 < sizeof plain; i += 2) {
            if (c == (unsigned char)plain[i]) snprintf(text, sizeof text, "\\%c", plain[i + 1]);
        }
        if (*text == '\0' && (c < 0x20 || (form->ascii && c > 0x7E))) {
            if (c < 0x10000) {
                snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
            } else {
                snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD7C0 + (unsigned)(c >> 10),
                         0xDC00 + (unsigned)(c & 0x3FF));
            }
        }
        if (*text == '\0') continue;
        QN_TRY(qni_j_put(run, buf, v.s + done, at - done, form->trusted));
        QN_TRY(put_text(run, buf, text, form->trusted));
        done = at + n;
    }
    QN_TRY(qni_j_put(run, buf, v.s + done, v.size - done, form->trusted));
    return put_text(run, buf, "\"", form->trusted);
}

static qn_status put_json_scalar(jrun *run, jbuf *buf, jval v, const jjson *form) {
    bool trusted = form->trusted;
    switch ((jkind)v.kind) {
    case J_NONE:
        return put_text(run, buf, "null", trusted);
    case J_BOOL:
        return put_text(run, buf, v.b ? "true" : "false", trusted);
    case J_FLOAT:
        if (isnan(v.f)) return put_text(run, buf, "NaN", trusted);
        if (isinf(v.f)) return put_text(run, buf, v.f < 0 ? "-Infinity" : "Infinity", trusted);
        return put_scalar(run, buf, v, trusted);
    case J_INT:
    case J_BIG:
        return put_scalar(run, buf, v, trusted);
    case J_STRING:
        return put_json_text(run, buf, v, form);
    default:
        if (v.kind == J_UNDEFINED)
            return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined, which JSON has no text for", (int)v.size, v.s);
        return qni_j_fail(run, QN_EINVAL, "JSON has no text for a %s", qni_j_kind(v));
    }
}

static qn_status put_break(jrun *run, jbuf *buf, const jjson *form, int level) {
    if (form->indent.kind == J_NONE) return QN_OK;
    QN_TRY(put_text(run, buf, "\n", form->trusted));
    int64_t spaces = 0;
    bool counted = qni_j_as_int(form->indent, &spaces);
    for (int i = 0; i < level; i++) {
        if (!counted) QN_TRY(qni_j_put(run, buf, form->indent.s, form->indent.size, form->trusted));
        for (int64_t k = 0; counted && k < spaces; k++) QN_TRY(put_text(run, buf, " ", form->trusted));
    }
    return QN_OK;
}

/* Positions of a dict's pairs in key order, by insertion sort: dicts in templates are small. */
static qn_status sorted(jrun *run, const jdict *dict, size_t **out) {
    size_t *order = qni_j_alloc(&run->arena, dict->n * sizeof *order);
    if (order == NULL) return qni_j_no_memory(run);
    for (size_t i = 0; i < dict->n; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            int c;
            QN_TRY(qni_j_order(run, dict->pairs[2 * i], dict->pairs[2 * order[at - 1]], &c, "<"));
            if (c >= 0) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    *out = order;
    return QN_OK;
}

static qn_status put_json(jrun *run, jbuf *buf, jval v, const jjson *form, int level);

static qn_status put_pairs(jrun *run, jbuf *buf, const jdict *dict, const jjson *form, int level) {
    size_t *order = NULL;
    if (form->sort) QN_TRY(sorted(run, dict, &order));
    for (size_t i = 0; i < dict->n; i++) {
        const jval *pair = &dict->pairs[2 * (order != NULL ? order[i] : i)];
        if (i > 0) QN_TRY(qni_j_put(run, buf, form->item_separator.s, form->item_separator.size, form->trusted));
        QN_TRY(put_break(run, buf, form, level));
        bool quoted = pair->kind != J_STRING; /* numbers, true and null become strings */
        if (quoted) QN_TRY(put_text(run, buf, "\"", form->trusted));
        QN_TRY(put_json_scalar(run, buf, *pair, form));
        if (quoted) QN_TRY(put_text(run, buf, "\"", form->trusted));
        QN_TRY(qni_j_put(run, buf, form->key_separator.s, form->key_separator.size, form->trusted));
        QN_TRY(put_json(run, buf, pair[1], form, level));
    }
    return QN_OK;
}

/* Recursion is bounded by QNI_JINJA_VALUE_DEPTH. */
static qn_status put_json(jrun *run, jbuf *buf, jval v, const jjson *form, int level) {
    QN_TRY(qni_j_deeper(run));
    if (v.kind == J_SEQ && v.seq->kind <= SEQ_TUPLE) {
        if (v.seq->n == 0) return put_text(run, buf, "[]", form->trusted);
        QN_TRY(put_text(run, buf, "[", form->trusted));
        for (size_t i = 0; i < v.seq->n; i++) {
            if (i > 0) QN_TRY(qni_j_put(run, buf, form->item_separator.s, form->item_separator.size, form->trusted));
            QN_TRY(put_break(run, buf, form, level + 1));
            QN_TRY(put_json(run, buf, v.seq->items[i], form, level + 1));
        }
        QN_TRY(put_break(run, buf, form, level));
        return put_text(run, buf, "]", form->trusted);
    }
    if (v.kind != J_DICT) return put_json_scalar(run, buf, v, form);
    if (v.dict->n == 0) return put_text(run, buf, "{}", form->trusted);
    QN_TRY(put_text(run, buf, "{", form->trusted));
    QN_TRY(put_pairs(run, buf, v.dict, form, level + 1));
    QN_TRY(put_break(run, buf, form, level));
    return put_text(run, buf, "}", form->trusted);
}

qn_status qni_j_put_json(jrun *run, jbuf *buf, jval v, const jjson *form) {
    return put_json(run, buf, v, form, 0);
}
