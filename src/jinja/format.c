/* SPDX-License-Identifier: Apache-2.0 */
/* Formatted text: '%s' % x, and str.format() with Python's format specifications. */
#include "str.h"

#include <math.h>
#include <stdio.h>

qn_status qni_j_percent(jrun *run, jval format, jval values, jval *out) {
    jbuf buf = {0};
    bool tuple = values.kind == J_SEQ && values.seq->kind == SEQ_TUPLE;
    size_t used = 0, n = tuple ? values.seq->n : 1;
    if (format.markup) return qni_j_fail(run, QN_EUNSUPPORTED, "'%%' of text that is marked safe");
    for (size_t at = 0; at < format.size; at++) {
        if (format.s[at] != '%') {
            QN_TRY(qni_j_put_part(run, &buf, format, at, 1));
            continue;
        }
        char kind = ++at < format.size ? format.s[at] : '\0';
        if (kind == '%') {
            QN_TRY(qni_j_put_part(run, &buf, format, at, 1));
            continue;
        }
        int64_t i;
        if (kind != 's' && kind != 'r' && kind != 'd' && kind != 'i')
            return qni_j_fail(run, QN_EUNSUPPORTED, "the format %%%c", kind ? kind : ' ');
        if (used == n) return qni_j_fail(run, QN_EINVAL, "more formats than values");
        jval v = tuple ? values.seq->items[used] : values;
        used++;
        if (kind == 'd' || kind == 'i') {
            if (v.kind == J_FLOAT) QN_TRY(qni_j_float_to_int(run, v.f, v.trusted, &v));
            if (v.kind != J_BIG && !qni_j_as_int(v, &i))
                return qni_j_fail(run, QN_EINVAL, "%%d of a %s", qni_j_kind(v));
            if (v.kind != J_BIG) v = qni_j_trust(qni_j_int(i), v.trusted);
        }
        QN_TRY(qni_j_put_str(run, &buf, v, kind == 'r'));
    }
    /* In Python, a dict or list with unused items is not an error. */
    bool mapping = !tuple && values.kind != J_STRING &&
                   (values.kind == J_DICT || (values.kind == J_SEQ && values.seq->kind <= SEQ_RANGE));
    if (used < n && !mapping) return qni_j_fail(run, QN_EINVAL, "more values than formats");
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
typedef struct spec {
    jval fill; /* one character */
    char align;
    char sign;
    bool alternate;
    bool zeros; /* a 0 before the width, without an alignment */
    char grouping;
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* '\0': none */
} spec;

enum { WIDEST = 10000 };

static bool read_option(const jval *s, size_t *at, const char *among, char *out) {
    if (*at >= s->size || s->s[*at] == '\0' || strchr(among, s->s[*at]) == NULL) return false;
    *out = s->s[(*at)++];
    return true;
}

static void read_number(const jval *s, size_t *at, int64_t *out) {
    for (; *at < s->size && s->s[*at] >= '0' && s->s[*at] <= '9'; ++*at) {
        if (*out < 0) *out = 0;
        if (*out <= WIDEST) *out = *out * 10 + (s->s[*at] - '0');
    }
}

static qn_status bad_spec(jrun *run, jval text) {
    return qni_j_fail(run, QN_EUNSUPPORTED, "the format specification \"%.*s\"", (int)text.size, text.s);
}

static qn_status parse_spec(jrun *run, jval text, spec *out) {
    static const char aligns[] = "<>=^";
    size_t at = 0;
    uint32_t c;
    char mark;
    *out = (spec){.fill = qni_j_literal(" "), .precision = -1};
    size_t n = text.size > 0 ? qni_j_char(text.s, text.size, &c) : 0;
    const bool filled = n > 0 && n < text.size && text.s[n] != '\0' && strchr(aligns, text.s[n]) != NULL;
    if (filled) {
        out->fill = qni_j_part(text, 0, n);
        at = n;
    }
    if (read_option(&text, &at, aligns, &mark)) out->align = mark;
    if (read_option(&text, &at, "+- ", &mark)) out->sign = mark;
    out->alternate = read_option(&text, &at, "#", &mark);
    /* After a fill character, a 0 is part of the width. */
    if (!filled && read_option(&text, &at, "0", &mark)) {
        out->zeros = out->align == '\0';
        out->fill = qni_j_trust(qni_j_literal("0"), qni_j_trusted_at(text, at - 1));
    }
    read_number(&text, &at, &out->width);
    if (read_option(&text, &at, ",_", &mark)) out->grouping = mark;
    if (read_option(&text, &at, ".", &mark)) {
        read_number(&text, &at, &out->precision);
        if (out->precision < 0) return bad_spec(run, text);
    }
    if (at < text.size) out->type = text.s[at++];
    bool fine = at == text.size && out->width <= WIDEST && out->precision <= WIDEST;
    return fine ? QN_OK : bad_spec(run, text);
}

static qn_status put_fill(jrun *run, jbuf *buf, const spec *s, int64_t n) {
    for (int64_t i = 0; i < n; i++) QN_TRY(qni_j_put_text(run, buf, s->fill));
    return QN_OK;
}

/* Content to be padded to the width. */
typedef struct padded {
    jval head; /* a sign or prefix */
    jval body;
    size_t digits; /* digits of the integer part, at the start of the body */
    size_t per;    /* digits per group */
} padded;

static qn_status put_aligned(jrun *run, jbuf *buf, const spec *s, const padded *f, char standard) {
    char align = s->align != '\0' ? s->align : standard;
    int64_t n = (int64_t)(qni_j_count(f->head.s, f->head.size) + qni_j_count(f->body.s, f->body.size));
    int64_t room = s->width > n ? s->width - n : 0, before = align == '^' ? room / 2 : align == '>' ? room : 0;
    QN_TRY(put_fill(run, buf, s, before));
    QN_TRY(qni_j_put_text(run, buf, f->head));
    if (align == '=') QN_TRY(put_fill(run, buf, s, room));
    QN_TRY(qni_j_put_text(run, buf, f->body));
    return align == '=' ? QN_OK : put_fill(run, buf, s, room - before);
}

/* Zeros are grouped with the digits. No group is empty, so the text may exceed the width by one character: '{:04,}' of
 * 1 is 0,001. */
static qn_status put_grouped_zeros(jrun *run, jbuf *buf, const spec *s, const padded *f) {
    const jval separator = qni_j_trust(qni_j_text(&s->grouping, 1), f->body.trusted);
    size_t digits = f->digits, width = f->head.size + f->body.size;
    for (; width < (size_t)s->width; digits++) width += digits % f->per == 0 ? 2 : 1;
    QN_TRY(qni_j_put_text(run, buf, f->head));
    for (; digits > f->digits; digits--) {
        QN_TRY(put_fill(run, buf, s, 1));
        if ((digits - 1) % f->per == 0) QN_TRY(qni_j_put_text(run, buf, separator));
    }
    return qni_j_put_text(run, buf, f->body);
}

static qn_status put_number(jrun *run, jbuf *buf, const spec *s, const padded *f) {
    const bool zeros = s->fill.s[0] == '0' && (s->zeros || s->align == '=');
    if (zeros && s->grouping != '\0') return put_grouped_zeros(run, buf, s, f);
    return put_aligned(run, buf, s, f, s->zeros ? '=' : '>');
}

static qn_status put_formatted_text(jrun *run, jbuf *buf, const spec *s, jval v, jval spec_text) {
    if ((s->type != '\0' && s->type != 's') || s->align == '=' || s->sign != '\0' || s->alternate ||
        s->grouping != '\0')
        return bad_spec(run, spec_text);
    if (s->precision >= 0) v = qni_j_part(v, 0, qni_j_offset(v.s, v.size, (size_t)s->precision));
    return put_aligned(run, buf, s, &(padded){.head = qni_j_literal(""), .body = v}, '<');
}

/* Write a magnitude in a base, backward from `end`; returns the start of the digits. */
static char *write_digits(char *end, uint64_t value, unsigned base, bool capitals) {
    const char *names = capitals ? "0123456789ABCDEF" : "0123456789abcdef";
    do {
        *--end = names[value % base];
        value /= base;
    } while (value > 0);
    return end;
}

/* Count the digits before a real's decimal point. */
static size_t count_whole(const char *digits, size_t n) {
    size_t whole = 0;
    while (whole < n && digits[whole] >= '0' && digits[whole] <= '9') whole++;
    return whole;
}

/* Copy a number with a separator between groups of `per` digits of its integer part; returns the length. */
static size_t group(char *to, const char *digits, size_t n, size_t whole, char separator, size_t per) {
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (separator != '\0' && i > 0 && i < whole && (whole - i) % per == 0) to[size++] = separator;
        to[size++] = digits[i];
    }
    return size;
}

static jval sign_text(const spec *s, bool negative, bool trusted) {
    const char *sign = negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
    return qni_j_trust(qni_j_literal(sign), trusted);
}

static qn_status put_formatted_int(jrun *run, jbuf *buf, const spec *s, jval v, jval spec_text) {
    static const struct {
        char type;
        uint8_t base;
        const char *prefix;
    } types[] = {{'\0', 10, ""}, {'d', 10, ""}, {'b', 2, "0b"}, {'o', 8, "0o"}, {'x', 16, "0x"}, {'X', 16, "0X"}};
    int64_t i = 0;
    size_t k = 0;
    char plain[64], grouped[128];
    qni_j_as_int(v, &i);
    while (k < sizeof types / sizeof *types && types[k].type != s->type) k++;
    if (k == sizeof types / sizeof *types || s->precision >= 0 || (s->grouping == ',' && types[k].base != 10))
        return bad_spec(run, spec_text);
    uint64_t magnitude = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char *start = write_digits(plain + sizeof plain, magnitude, types[k].base, s->type == 'X');
    const size_t digits = (size_t)(plain + sizeof plain - start), per = types[k].base == 10 ? 3 : 4;
    size_t n = group(grouped, start, digits, digits, s->grouping, per);
    jval head = sign_text(s, i < 0, v.trusted);
    char prefixed[4];
    size_t m = (size_t)snprintf(prefixed, sizeof prefixed, "%.*s%s", (int)head.size, head.s,
                                s->alternate ? types[k].prefix : "");
    head = qni_j_trust(qni_j_text(prefixed, m), v.trusted);
    const jval body = qni_j_trust(qni_j_text(grouped, n), v.trusted);
    return put_number(run, buf, s, &(padded){head, body, digits, per});
}

/* Print a finite magnitude with printf, with a decimal point in any locale. */
static size_t print_real(char *to, size_t room, const char *format, int precision, double f) {
    size_t size = 0;
    int n = snprintf(to, room, format, precision, f);
    for (int i = 0; i < n; i++) {
        bool plain = (to[i] >= '0' && to[i] <= '9') || to[i] == 'e' || to[i] == 'E' || to[i] == '+' || to[i] == '-';
        if (plain) {
            to[size++] = to[i];
        } else if (size > 0 && to[size - 1] != '.') {
            to[size++] = '.';
        }
    }
    return size;
}

static qn_status put_formatted_real(jrun *run, jbuf *buf, const spec *s, jval v, jval spec_text) {
    enum { MOST = 100 }; /* digits after the point; the buffer also fits the 310 before it */
    static const char types[] = "fFeEgG%";
    static const char *const formats[] = {"%.*f", "%.*f", "%.*e", "%.*E", "%.*g", "%.*G", "%.*f"};
    char plain[512], grouped[768];
    double f = (double)qni_j_as_real(v), magnitude = fabs(f);
    size_t n;
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    const char *found = s->type != '\0' ? strchr(types, s->type) : NULL;
    if ((found == NULL && (s->type != '\0' || s->precision >= 0)) || precision > MOST || s->alternate || !isfinite(f))
        return bad_spec(run, spec_text);
    QN_TRY(qni_j_step(run, 64 * 128)); /* printf of a real is expensive */
    if (found == NULL) {
        n = qni_j_float_text(plain, magnitude);
    } else {
        n = print_real(plain, sizeof plain, formats[found - types], precision,
                       s->type == '%' ? magnitude * 100 : magnitude);
        if (s->type == '%') plain[n++] = '%';
    }
    const size_t whole = count_whole(plain, n), size = group(grouped, plain, n, whole, s->grouping, 3);
    const jval head = sign_text(s, signbit(f) != 0, v.trusted);
    const jval body = qni_j_trust(qni_j_text(grouped, size), v.trusted);
    return put_number(run, buf, s, &(padded){head, body, whole, 3});
}

/* format(value, specification) */
static qn_status put_formatted(jrun *run, jbuf *buf, jval v, jval spec_text) {
    spec s;
    if (spec_text.size == 0) return qni_j_put_str(run, buf, v, false);
    QN_TRY(parse_spec(run, spec_text, &s));
    if (v.kind == J_BIG) return qni_j_fail_big(run);
    bool real = v.kind == J_FLOAT || (s.type != '\0' && strchr("fFeEgG%", s.type) != NULL);
    if (v.kind == J_STRING) return put_formatted_text(run, buf, &s, v, spec_text);
    if (qni_j_is_number(v) && real) return put_formatted_real(run, buf, &s, v, spec_text);
    if (qni_j_is_number(v)) return put_formatted_int(run, buf, &s, v, spec_text);
    return qni_j_fail(run, QN_EINVAL, "a %s with the format specification \"%.*s\"", qni_j_kind(v), (int)spec_text.size,
                      spec_text.s);
}

/* The arguments of one str.format(), and the index of the next unnamed one. */
typedef struct formatting {
    const jseq *args;
    const jdict *kwargs;
    int64_t next; /* -1: fields are numbered */
} formatting;

static bool is_number(jval text, int64_t *out) {
    size_t at = 0;
    *out = -1;
    read_number(&text, &at, out);
    return at == text.size && *out >= 0 && *out <= WIDEST;
}

static qn_status find_argument(jrun *run, formatting *f, jval name, jval *out) {
    int64_t index;
    const jval *found = NULL;
    bool number = is_number(name, &index);
    if (name.size == 0 || number) {
        if (number != (f->next < 0) && f->next != 0)
            return qni_j_fail(run, QN_EINVAL, "format(): fields with and without numbers");
        if (number) f->next = -1;
        if (!number) index = f->next++;
        if (index < (int64_t)f->args->n) found = &f->args->items[index];
    } else {
        QN_TRY(qni_j_dict_get(run, f->kwargs, name, &found));
    }
    if (found == NULL) return qni_j_fail(run, QN_EINVAL, "format(): no argument \"%.*s\"", (int)name.size, name.s);
    *out = *found;
    return QN_OK;
}

/* name[key].attribute…, looked up as in a template. */
static qn_status find_value(jrun *run, formatting *f, jval field, jval *out) {
    size_t at = 0, end;
    while (at < field.size && field.s[at] != '[' && field.s[at] != '.') at++;
    QN_TRY(find_argument(run, f, qni_j_part(field, 0, at), out));
    for (; at < field.size; at = end) {
        int64_t number;
        bool item = field.s[at] == '[';
        for (end = at + 1;
             end < field.size && field.s[end] != ']' && (item || (field.s[end] != '[' && field.s[end] != '.'));)
            end++;
        jval key = qni_j_part(field, at + 1, end - at - 1);
        if (key.size == 0 || (item && end == field.size) || (!item && field.s[at] != '.'))
            return qni_j_fail(run, QN_EINVAL, "format(): a malformed field");
        if (item) {
            end++;
            QN_TRY(qni_j_item(run, *out, is_number(key, &number) ? qni_j_int(number) : key, out));
        } else {
            QN_TRY(qni_j_attribute(run, *out, key, out));
        }
    }
    return QN_OK;
}

/* {name!conversion:specification} without its braces. */
static qn_status put_field(jrun *run, jbuf *buf, formatting *f, jval field) {
    jval v, spec_text = qni_j_literal("");
    if (memchr(field.s, '{', field.size) != NULL)
        return qni_j_fail(run, QN_EUNSUPPORTED, "format(): a field in a field");
    const char *colon = memchr(field.s, ':', field.size);
    if (colon != NULL) {
        size_t at = (size_t)(colon - field.s);
        spec_text = qni_j_part(field, at + 1, field.size - at - 1);
        field = qni_j_part(field, 0, at);
    }
    char conversion = '\0';
    const char *mark = memchr(field.s, '!', field.size);
    if (mark != NULL) {
        if (mark + 2 != field.s + field.size || (mark[1] != 's' && mark[1] != 'r'))
            return qni_j_fail(run, QN_EUNSUPPORTED, "format(): such a conversion");
        conversion = mark[1];
        field = qni_j_part(field, 0, field.size - 2);
    }
    QN_TRY(find_value(run, f, field, &v));
    if (conversion != '\0') {
        jbuf text = {0};
        QN_TRY(qni_j_put_str(run, &text, v, conversion == 'r'));
        v = qni_j_buf_text(&text);
    }
    return put_formatted(run, buf, v, spec_text);
}

qn_status qni_j_str_format(jrun *run, jval self, const jval *arg, jval *out) {
    formatting f = {.args = arg[0].seq, .kwargs = arg[1].dict};
    jbuf buf = {0};
    QN_TRY(qni_j_step(run, self.size));
    for (size_t at = 0, n; at < self.size; at += n) {
        for (n = 0; at + n < self.size && self.s[at + n] != '{' && self.s[at + n] != '}'; n++) continue;
        QN_TRY(qni_j_put_part(run, &buf, self, at, n));
        if (n > 0) continue;
        char c = self.s[at];
        n = 2;
        if (at + 1 < self.size && self.s[at + 1] == c) {
            QN_TRY(qni_j_put_part(run, &buf, self, at, 1));
            continue;
        }
        const char *end = memchr(self.s + at, '}', self.size - at);
        if (c == '}' || end == NULL) return qni_j_fail(run, QN_EINVAL, "format(): a single %c", c);
        n = (size_t)(end - self.s) - at + 1;
        QN_TRY(put_field(run, &buf, &f, qni_j_part(self, at + 1, n - 2)));
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}
