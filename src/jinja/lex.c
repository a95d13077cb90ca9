/* SPDX-License-Identifier: Apache-2.0 */
/* Template text to tokens, with trim_blocks, lstrip_blocks and the + and - signs of tags. */
#include "../base/memory.h"
#include "../base/utf8.h"
#include "ast.h"
#include "str.h"

#include <stdlib.h>

typedef struct lexer {
    const char *name;
    const char *s;
    size_t size;
    size_t at;
    int32_t line;
    jtoken *tokens;
    size_t n, capacity;
    jarena *arena;
    char brackets[2 * QNI_JINJA_NESTING];
    size_t depth;
    qn_error *err;
} lexer;

static qn_status memory(lexer *x) {
    return qni_fail(x->err, QN_ENOMEM, "%s: out of memory", x->name);
}

static qn_status syntax(lexer *x, const char *what) {
    return qni_fail(x->err, QN_EFORMAT, "%s line %d: %s", x->name, x->line, what);
}

static qn_status push(lexer *x, jtoken_kind kind, jval value) {
    if (!qni_grow(&x->tokens, &x->capacity, x->n + 1, sizeof *x->tokens)) return memory(x);
    x->tokens[x->n++] = (jtoken){.kind = (uint8_t)kind, .line = x->line, .value = qni_j_trust(value, true)};
    return QN_OK;
}

static bool looking_at(const lexer *x, size_t at, const char *text) {
    size_t n = strlen(text);
    return n <= x->size - at && memcmp(x->s + at, text, n) == 0;
}

static size_t skip_space(const lexer *x, size_t at) {
    uint32_t c;
    while (at < x->size) {
        size_t n = qni_j_char(x->s + at, x->size - at, &c);
        if (!qni_j_is_space(c)) break;
        at += n;
    }
    return at;
}

static void advance(lexer *x, size_t to) {
    for (; x->at < to; x->at++) x->line += x->s[x->at] == '\n';
}

/* End of the tag end at `at`: "-%}" and white space, "+%}", or "%}" and one newline; 0: no match. */
static size_t tag_end(const lexer *x, size_t at, const char *end, bool plus) {
    if (looking_at(x, at, "-") && looking_at(x, at + 1, end)) return skip_space(x, at + 1 + strlen(end));
    if (plus && looking_at(x, at, "+") && looking_at(x, at + 1, end)) return at + 1 + strlen(end);
    if (!looking_at(x, at, end)) return 0;
    at += strlen(end);
    return plus && at < x->size && x->s[at] == '\n' ? at + 1 : at;
}

/* The text up to a tag, less what the tag's sign or lstrip_blocks strips from its end. */
static qn_status push_data(lexer *x, size_t end, char sign, bool variable) {
    size_t n = end - x->at;
    const char *s = x->s + x->at;
    if (sign == '-') {
        n = qni_j_strip(qni_j_text(s, n), NULL, 2).size;
    } else if (sign != '+' && !variable) {
        size_t line = n;
        while (line > 0 && s[line - 1] != '\n') line--;
        bool starts = line > 0 || x->at == 0 || s[-1] == '\n';
        if (starts && qni_j_strip(qni_j_text(s + line, n - line), NULL, 3).size == 0) n = line;
    }
    if (n > 0) QN_TRY(push(x, T_DATA, qni_j_text(s, n)));
    advance(x, end);
    return QN_OK;
}

static char sign_at(const lexer *x, size_t at) {
    return at < x->size && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : '\0';
}

/* End of the "{% word %}" that starts at `at`, or 0. The newline after an opening raw is kept. */
static size_t word_tag(const lexer *x, size_t at, const char *word, bool closing) {
    size_t p = at + 2;
    if (sign_at(x, p)) p++;
    p = skip_space(x, p);
    if (!looking_at(x, p, word)) return 0;
    p = skip_space(x, p + strlen(word));
    if (closing) return tag_end(x, p, "%}", true);
    if (looking_at(x, p, "-%}")) return skip_space(x, p + 3);
    return looking_at(x, p, "%}") ? p + 2 : 0;
}

static qn_status lex_raw(lexer *x, size_t end) {
    advance(x, end);
    for (size_t p = x->at; p + 1 < x->size; p++) {
        if (!looking_at(x, p, "{%") || (end = word_tag(x, p, "endraw", true)) == 0) continue;
        QN_TRY(push_data(x, p, sign_at(x, p + 2), false));
        advance(x, end);
        return QN_OK;
    }
    return syntax(x, "a raw block has no end");
}

static qn_status lex_comment(lexer *x) {
    for (size_t p = x->at + 2 + (sign_at(x, x->at + 2) != '\0'); p < x->size; p++) {
        size_t end = tag_end(x, p, "#}", true);
        if (end == 0) continue;
        advance(x, end);
        return QN_OK;
    }
    return syntax(x, "a comment has no end");
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; returns the end. */
static size_t digits(const lexer *x, size_t p) {
    while (p < x->size && (is_digit(x->s[p]) || (x->s[p] == '_' && p + 1 < x->size && is_digit(x->s[p + 1])))) p++;
    return p;
}

static int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

static qn_status lex_integer(lexer *x) {
    size_t p = x->at;
    int base = 10;
    char kind = p + 1 < x->size ? (char)(x->s[p + 1] | 0x20) : ' ';
    if (x->s[p] == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
        p += 2;
    }
    int64_t value = 0;
    size_t start = p;
    bool zero = base == 10 && x->s[p] == '0';
    for (; p < x->size; p++) {
        if (x->s[p] == '_' && p + 1 < x->size && digit_value(x->s[p + 1]) < base) continue;
        int d = digit_value(x->s[p]);
        if (d >= base || (zero && d > 0)) break;
        if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, d, &value)) {
            return qni_fail(x->err, QN_EUNSUPPORTED, "%s line %d: an integer beyond 64 bits", x->name, x->line);
        }
    }
    if (p == start) return syntax(x, "a number without digits");
    QN_TRY(push(x, T_INT, qni_j_int(value)));
    x->at = p;
    return QN_OK;
}

/* The end of a float at x->at, or 0. */
static size_t float_end(const lexer *x) {
    if (x->at > 0 && x->s[x->at - 1] == '.') return 0;
    size_t p = digits(x, x->at), end = 0;
    if (p < x->size && x->s[p] == '.' && p + 1 < x->size && is_digit(x->s[p + 1])) end = p = digits(x, p + 1);
    if (p < x->size && (x->s[p] | 0x20) == 'e') {
        size_t q = p + 1;
        if (q < x->size && (x->s[q] == '+' || x->s[q] == '-')) q++;
        if (q < x->size && is_digit(x->s[q])) end = digits(x, q);
    }
    return end;
}

static qn_status lex_number(lexer *x) {
    size_t end = float_end(x);
    if (end == 0) return lex_integer(x);
    char text[64];
    size_t n = 0;
    for (size_t p = x->at; p < end; p++) {
        if (x->s[p] == '_') continue;
        if (n == sizeof text - 1) {
            return qni_fail(x->err, QN_EUNSUPPORTED, "%s line %d: a number of more than %d digits", x->name, x->line,
                            (int)sizeof text - 1);
        }
        text[n++] = x->s[p];
    }
    double value;
    if (!qni_j_parse_float(text, n, &value)) return syntax(x, "a malformed number");
    x->at = end;
    return push(x, T_FLOAT, qni_j_float(value));
}

/* Decode one escape sequence after a backslash at s[*p - 1] into `to`. */
static qn_status unescape(lexer *x, const char *s, size_t size, size_t *p, char *to, size_t *n) {
    static const char plain[] = "n\nt\tr\ra\ab\bf\fv\v\\\\''\"\"";
    char c = s[(*p)++];
    if (c == '\n') return QN_OK;
    for (size_t i = 0; i + 1 < sizeof plain; i += 2) {
        if (plain[i] == c) {
            to[(*n)++] = plain[i + 1];
            return QN_OK;
        }
    }
    if (c == 'N') return qni_fail(x->err, QN_EUNSUPPORTED, "%s line %d: the escape \\N", x->name, x->line);
    int want = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t code = 0;
    if (want > 0) {
        for (int i = 0; i < want; i++) {
            int d = *p < size ? digit_value(s[*p]) : 99;
            if (d > 15) return syntax(x, "a malformed escape in a string");
            code = code << 4 | (uint32_t)d;
            ++*p;
        }
    } else if (c >= '0' && c <= '7') {
        --*p;
        for (int i = 0; i < 3 && *p < size && s[*p] >= '0' && s[*p] <= '7'; i++)
            code = code * 8 + (uint32_t)(s[(*p)++] - '0');
    } else { /* an unknown escape is kept unchanged */
        to[(*n)++] = '\\';
        to[(*n)++] = c;
        return QN_OK;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return syntax(x, "an escape that is not a character");
    *n += qni_utf8_encode(to + *n, code);
    return QN_OK;
}

static qn_status lex_string(lexer *x) {
    char quote = x->s[x->at];
    size_t start = x->at + 1, end = start;
    while (end < x->size && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->size) return syntax(x, "a string has no end");
    char *to = qni_j_alloc(x->arena, end - start + 1); /* an escape is never shorter than its value */
    if (to == NULL) return memory(x);
    size_t n = 0;
    for (size_t p = start; p < end;) {
        char c = x->s[p++];
        if (c != '\\') {
            to[n++] = c;
        } else {
            QN_TRY(unescape(x, x->s, end, &p, to, &n));
        }
    }
    QN_TRY(push(x, T_STRING, qni_j_text(to, n)));
    advance(x, end + 1);
    return QN_OK;
}

static const struct {
    char text[3];
    uint8_t kind;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},      {"==", T_EQ},    {"!=", T_NE},    {">=", T_GE},    {"<=", T_LE},
    {"+", T_ADD},       {"-", T_SUB},       {"/", T_DIV},    {"*", T_MUL},    {"%", T_MOD},    {"~", T_TILDE},
    {"[", T_LBRACKET},  {"]", T_RBRACKET},  {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE}, {"}", T_RBRACE},
    {">", T_GT},        {"<", T_LT},        {"=", T_ASSIGN}, {".", T_DOT},    {":", T_COLON},  {"|", T_PIPE},
    {",", T_COMMA},     {";", T_SEMICOLON},
};

const char *qni_j_token_text(int kind) {
    if (kind == T_IN) return "in";
    if (kind == T_NOT_IN) return "not in";
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (operators[i].kind == kind) return operators[i].text;
    }
    return kind == T_EOF ? "the end of the template" : kind == T_BLOCK_END ? "%}" : kind == T_PRINT_END ? "}}" : "text";
}

static qn_status lex_operator(lexer *x) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        const char *text = operators[i].text;
        if (!looking_at(x, x->at, text)) continue;
        if (strchr("([{", *text) != NULL) {
            if (x->depth == sizeof x->brackets) {
                return qni_fail(x->err, QN_EUNSUPPORTED, "%s line %d: brackets nest deeper than %d", x->name, x->line,
                                (int)sizeof x->brackets);
            }
            x->brackets[x->depth++] = *text == '(' ? ')' : *text == '[' ? ']' : '}';
        } else if (strchr(")]}", *text) != NULL && (x->depth == 0 || x->brackets[--x->depth] != *text)) {
            return syntax(x, "a closing bracket that does not fit");
        }
        x->at += strlen(text);
        return push(x, (jtoken_kind)operators[i].kind, qni_j_literal(text));
    }
    return syntax(x, "an unexpected character in a tag");
}

static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The content between "{{" or "{%" and its end. */
static qn_status lex_tag(lexer *x, bool print) {
    x->depth = 0;
    QN_TRY(push(x, print ? T_PRINT_BEGIN : T_BLOCK_BEGIN, qni_j_none()));
    x->at += 2;
    if (sign_at(x, x->at)) x->at++;
    while (x->at < x->size) {
        size_t end = x->depth > 0 ? 0 : tag_end(x, x->at, print ? "}}" : "%}", !print);
        if (end > 0) {
            QN_TRY(push(x, print ? T_PRINT_END : T_BLOCK_END, qni_j_none()));
            advance(x, end);
            return QN_OK;
        }
        char c = x->s[x->at];
        size_t after = skip_space(x, x->at);
        if (after > x->at) {
            advance(x, after);
        } else if (is_digit(c)) {
            QN_TRY(lex_number(x));
        } else if (is_word(c)) {
            size_t start = x->at;
            while (x->at < x->size && is_word(x->s[x->at])) x->at++;
            QN_TRY(push(x, T_NAME, qni_j_text(x->s + start, x->at - start)));
        } else if (c == '"' || c == '\'') {
            QN_TRY(lex_string(x));
        } else {
            QN_TRY(lex_operator(x));
        }
    }
    return syntax(x, "a tag has no end");
}

static qn_status lex_all(lexer *x) {
    while (x->at < x->size) {
        size_t p = x->at;
        while (p < x->size && !(x->s[p] == '{' && p + 1 < x->size && strchr("{%#", x->s[p + 1]) != NULL && x->s[p + 1]))
            p++;
        if (p == x->size) {
            QN_TRY(push(x, T_DATA, qni_j_text(x->s + x->at, p - x->at)));
            break;
        }
        size_t raw = x->s[p + 1] == '%' ? word_tag(x, p, "raw", false) : 0;
        QN_TRY(push_data(x, p, sign_at(x, p + 2), x->s[p + 1] == '{'));
        if (raw > 0) {
            QN_TRY(lex_raw(x, raw));
        } else if (x->s[p + 1] == '#') {
            QN_TRY(lex_comment(x));
        } else {
            QN_TRY(lex_tag(x, x->s[p + 1] == '{'));
        }
    }
    return push(x, T_EOF, qni_j_none());
}

qn_status qni_j_lex(jtoken **tokens, size_t *n, const char *name, const char *source, size_t size, jarena *arena,
                    qn_error *err) {
    lexer x = {.name = name, .s = source, .size = size, .line = 1, .arena = arena, .err = err};
    qn_status status = lex_all(&x);
    if (status != QN_OK) {
        qni_free(x.tokens);
        return status;
    }
    *tokens = x.tokens;
    *n = x.n;
    return QN_OK;
}
