/* SPDX-License-Identifier: Apache-2.0 */
/* Translator for the part of Oniguruma's dialect that means the same in PCRE2, or can be made to. It accepts only
 * constructs whose equivalence is tested; everything else is refused. */
#include "pattern.h"

#include "../base/utf8.h"

#include <string.h>

const char qni_pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* White space as a member of bracket classes; spelled out because PCRE2 includes U+180E. */
static const qni_category space_class = {
    "space", "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}", NULL};

typedef struct translator {
    const char *pattern;
    size_t size, at;
    qn_text *out;
    qn_error *err;
    int depth;     /* group depth */
    int fold;      /* the depth at which (?i: was opened; 0: not open */
    char previous; /* the preceding literal inside (?i:, in lower case; 0: none */
} translator;

static qn_status refuse(const translator *t, const char *what) {
    return qni_fail(t->err, QN_EUNSUPPORTED, "regular expression: %s at byte %zu is not supported", what, t->at);
}

static qn_status put(const translator *t, const char *data, size_t size) {
    if (!qni_text_append(t->out, data, size)) return qni_fail(t->err, QN_ENOMEM, "regular expression: out of memory");
    return QN_OK;
}

static qn_status put_text(const translator *t, const char *text) {
    return put(t, text, strlen(text));
}

static int peek(const translator *t, size_t ahead) {
    return t->size - t->at > ahead ? (unsigned char)t->pattern[t->at + ahead] : -1;
}

static bool starts(const translator *t, const char *text) {
    size_t n = strlen(text);
    return t->size - t->at >= n && memcmp(t->pattern + t->at, text, n) == 0;
}

/* Write a literal character in PCRE2 syntax, valid inside and outside of classes. */
static qn_status put_literal(const translator *t, const char *character, size_t size) {
    if (size == 1 && strchr("\\^$.|?*+()[]{}-&#", character[0]) != NULL && character[0] != '\0') {
        QN_TRY(put(t, "\\", 1));
    }
    if (size == 1 && character[0] == '\0') return put_text(t, "\\x{0}");
    return put(t, character, size);
}

/* The class named here by \s, \S, \p{…} or \P{…}, and the length of the name; NULL: not a class. */
static const qni_category *class_here(const translator *t, size_t *length) {
    *length = 2;
    if (starts(t, "\\s") || starts(t, "\\S")) return &space_class;
    if (!starts(t, "\\p{") && !starts(t, "\\P{")) return NULL;
    const char *name = t->pattern + t->at + 3, *end = memchr(name, '}', t->size - t->at - 3);
    if (end == NULL) return NULL;
    *length = (size_t)(end - name) + 4;
    return qni_category_find(name, (size_t)(end - name));
}

static qn_status property(translator *t, bool in_class, bool *found) {
    size_t length;
    const qni_category *class = class_here(t, &length);
    *found = class != NULL;
    if (class == NULL) return QN_OK;
    const bool negated = peek(t, 1) == 'S' || peek(t, 1) == 'P';
    if (negated && in_class) return refuse(t, "a negated class inside brackets");
    if (t->fold > 0) return refuse(t, "a class inside (?i:");
    if (!in_class) QN_TRY(put_text(t, negated ? "[^" : "["));
    QN_TRY(put_text(t, class->members));
    if (class->more != NULL) QN_TRY(put_text(t, class->more));
    if (!in_class) QN_TRY(put_text(t, "]"));
    t->at += length;
    return QN_OK;
}

/* Read one literal character, escaped or not. */
static qn_status literal(translator *t, char out[4], size_t *n) {
    static const char names[] = "rntfve", values[] = "\r\n\t\f\v\x1B";
    uint32_t point;
    if (peek(t, 0) != '\\') {
        *n = qni_utf8_decode(t->pattern + t->at, t->size - t->at, &point);
        if (*n == 0) return refuse(t, "invalid UTF-8");
        memcpy(out, t->pattern + t->at, *n);
        t->at += *n;
        return QN_OK;
    }
    int c = peek(t, 1);
    const char *name = c > 0 ? strchr(names, c) : NULL;
    bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c <= 0 || c >= 0x80 || (alphanumeric && name == NULL)) return refuse(t, "this escape");
    out[0] = name != NULL ? values[name - names] : (char)c;
    *n = 1;
    t->at += 2;
    return QN_OK;
}

static qn_status bracket_class(translator *t) {
    if (t->fold > 0) return refuse(t, "a class inside (?i:");
    t->at++;
    bool negated = peek(t, 0) == '^';
    if (negated) t->at++;
    QN_TRY(put_text(t, negated ? "[^" : "["));
    if (peek(t, 0) == ']') return refuse(t, "an empty class");
    while (peek(t, 0) != ']') {
        if (peek(t, 0) < 0) return refuse(t, "an open class");
        if (peek(t, 0) == '[') return refuse(t, "a class inside a class");
        if (starts(t, "&&")) return refuse(t, "an intersection of classes");
        bool found;
        QN_TRY(property(t, true, &found));
        if (found) {
            if (peek(t, 0) == '-' && peek(t, 1) != ']') return refuse(t, "a range from a class");
            continue;
        }
        char character[4];
        size_t n = 0;
        QN_TRY(literal(t, character, &n));
        QN_TRY(put_literal(t, character, n));
        if (peek(t, 0) != '-' || peek(t, 1) == ']') continue;
        t->at++;
        if (starts(t, "\\s") || starts(t, "\\p")) return refuse(t, "a range to a class");
        QN_TRY(literal(t, character, &n));
        QN_TRY(put(t, "-", 1));
        QN_TRY(put_literal(t, character, n));
    }
    t->at++;
    return put(t, "]", 1);
}

static qn_status open_group(translator *t) {
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"};
    enum { DEPTH = 64 };
    if (t->fold > 0) return refuse(t, "a group inside (?i:");
    if (++t->depth > DEPTH) return refuse(t, "a group nested so deeply");
    if (peek(t, 1) != '?') {
        t->at++;
        return put_text(t, "(?:"); /* groups are never referenced */
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!starts(t, kinds[i])) continue;
        if (kinds[i][2] == 'i') t->fold = t->depth;
        t->at += strlen(kinds[i]);
        return put_text(t, kinds[i]);
    }
    return refuse(t, "this kind of group");
}

/* Upper bound of {n}: limits what a search may read without a counted step. */
enum { MOST_REPEATED = 1000 };

/* {n}, {n,} or {n,m}; the dialects differ in all other uses of braces. */
static qn_status interval(translator *t) {
    size_t first = t->at++;
    size_t digits = 0, least = 0;
    for (; peek(t, 0) >= '0' && peek(t, 0) <= '9'; digits++) {
        if (least <= MOST_REPEATED) least = 10 * least + (size_t)(peek(t, 0) - '0');
        t->at++;
    }
    if (least > MOST_REPEATED) return refuse(t, "so long a repetition");
    bool comma = digits > 0 && peek(t, 0) == ',';
    if (comma) t->at++;
    while (comma && peek(t, 0) >= '0' && peek(t, 0) <= '9') t->at++;
    int after = peek(t, 1);
    if (digits == 0 || peek(t, 0) != '}' || after == '+' || (after == '?' && !comma)) {
        return refuse(t, "this use of braces");
    }
    t->at++;
    return put(t, t->pattern + first, t->at - first);
}

/* A literal outside of classes. Oniguruma folds some letter pairs to one character (ss to ß); PCRE2 does not. */
static qn_status plain(translator *t) {
    char character[4];
    size_t n = 0;
    QN_TRY(literal(t, character, &n));
    if (t->fold > 0) {
        static const char *const pairs[] = {"ss", "st", "ff", "fi", "fl"};
        if (n > 1) return refuse(t, "a character beyond ASCII inside (?i:");
        char lower = character[0] >= 'A' && character[0] <= 'Z' ? (char)(character[0] + 32) : character[0];
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            if (t->previous == pairs[i][0] && lower == pairs[i][1])
                return refuse(t, "a ligature's letters inside (?i:");
        }
        t->previous = lower;
    }
    return put_literal(t, character, n);
}

static qn_status item(translator *t) {
    bool found = false;
    int c = peek(t, 0);
    if (c == '\\') {
        QN_TRY(property(t, false, &found));
        return found ? QN_OK : plain(t);
    }
    if (c != '(' && c != '|' && c != ')' && strchr("?*+{[.^$", c) == NULL) return plain(t);
    t->previous = 0;
    if (c == '[') return bracket_class(t);
    if (c == '(') return open_group(t);
    if (c == '{') return interval(t);
    if (c == '^' || c == '$') return refuse(t, "an anchor");
    if (t->fold > 0 && strchr("?*+", c) != NULL) return refuse(t, "a repetition inside (?i:");
    if (c == ')') {
        if (t->depth == 0) return refuse(t, "an unmatched parenthesis");
        if (t->fold == t->depth) t->fold = 0;
        t->depth--;
    }
    t->at++;
    if (c == '.') return put_text(t, "[^\\n]");
    return put(t, (char[]){(char)c}, 1);
}

qn_status qni_pattern_translate(qn_text *out, const char *pattern, size_t size, qn_error *err) {
    translator t = {.pattern = pattern, .size = size, .out = out, .err = err};
    while (t.at < t.size) {
        if (pattern[t.at] == '\0') return refuse(&t, "U+0000");
        QN_TRY(item(&t));
    }
    if (t.depth > 0) return refuse(&t, "an open group");
    return QN_OK;
}
