/* SPDX-License-Identifier: Apache-2.0 */
/* A translator for the part of Oniguruma's dialect that means the same in PCRE2, or can be made to. It knows only
 * constructs whose agreement is tested; everything else is refused rather than guessed. */
#include "pattern.h"

#include "utf8.h"

#include <string.h>

const char qni_pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Members of bracket classes. White space is written out because PCRE2 counts U+180E; letters and numbers are PCRE2's
 * and those that Unicode 15.0 to 16.0 added, which PCRE2 10.42 (Unicode 14.0) does not know. The ASCII part is
 * written out too: PCRE2 looks it up in a bitmap. */
static const char space_class[] =
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
static const char letter_class[] =
    "a-zA-Z\\p{L}"
    "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}\\x{10D4A}-\\x{10D65}"
    "\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}"
    "\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}"
    "\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}"
    "\\x{16100}-\\x{1611D}\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}"
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";
static const char number_class[] =
    "0-9\\p{N}"
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}"
    "\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}"
    "\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}";

typedef struct translator {
    const char *pattern;
    size_t size, at;
    qn_text *out;
    qn_error *err;
    int depth;     /* of groups */
    int fold;      /* the depth at which (?i: was opened; 0: none */
    char previous; /* the literal before this one inside (?i:, in lower case; 0: none */
} translator;

static qn_status refuse(const translator *t, const char *what) {
    return qni_fail(t->err, QN_EUNSUPPORTED, "regular expression: %s at byte %zu is not supported", what, t->at);
}

static qn_status put(const translator *t, const char *data, size_t size) {
    if (!qni_text_append(t->out, data, size)) return qni_fail(t->err, QN_ENOMEM, "regular expression: out of memory");
    return QN_OK;
}

static qn_status puts_text(const translator *t, const char *text) {
    return put(t, text, strlen(text));
}

static int look(const translator *t, size_t ahead) {
    return t->size - t->at > ahead ? (unsigned char)t->pattern[t->at + ahead] : -1;
}

static bool starts(const translator *t, const char *text) {
    size_t n = strlen(text);
    return t->size - t->at >= n && memcmp(t->pattern + t->at, text, n) == 0;
}

/* A literal character as PCRE2 takes it, inside and outside of classes. */
static qn_status put_literal(const translator *t, const char *character, size_t size) {
    if (size == 1 && strchr("\\^$.|?*+()[]{}-&#", character[0]) != NULL && character[0] != '\0') {
        QN_TRY(put(t, "\\", 1));
    }
    if (size == 1 && character[0] == '\0') return puts_text(t, "\\x{0}");
    return put(t, character, size);
}

/* \p{L}, \p{N}, \s and their negations; *found is false if none of them is here. */
static qn_status property(translator *t, bool in_class, bool *found) {
    static const struct {
        const char *name, *members;
        bool negated;
    } known[] = {
        {"\\p{L}", letter_class, false}, {"\\p{N}", number_class, false}, {"\\s", space_class, false},
        {"\\P{L}", letter_class, true},  {"\\P{N}", number_class, true},  {"\\S", space_class, true},
    };
    *found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!starts(t, known[i].name)) continue;
        if (known[i].negated && in_class) return refuse(t, "a negated class inside brackets");
        if (t->fold > 0) return refuse(t, "a class inside (?i:");
        if (!in_class) QN_TRY(puts_text(t, known[i].negated ? "[^" : "["));
        QN_TRY(puts_text(t, known[i].members));
        if (!in_class) QN_TRY(puts_text(t, "]"));
        t->at += strlen(known[i].name);
        *found = true;
        return QN_OK;
    }
    return QN_OK;
}

/* Reads one literal character, escaped or not. */
static qn_status literal(translator *t, char out[4], size_t *n) {
    static const char names[] = "rntfve", values[] = "\r\n\t\f\v\x1B";
    uint32_t point;
    if (look(t, 0) != '\\') {
        *n = qni_utf8_decode(t->pattern + t->at, t->size - t->at, &point);
        if (*n == 0) return refuse(t, "invalid UTF-8");
        memcpy(out, t->pattern + t->at, *n);
        t->at += *n;
        return QN_OK;
    }
    int c = look(t, 1);
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
    bool negated = look(t, 0) == '^';
    if (negated) t->at++;
    QN_TRY(puts_text(t, negated ? "[^" : "["));
    if (look(t, 0) == ']') return refuse(t, "an empty class");
    while (look(t, 0) != ']') {
        if (look(t, 0) < 0) return refuse(t, "an open class");
        if (look(t, 0) == '[') return refuse(t, "a class inside a class");
        if (starts(t, "&&")) return refuse(t, "an intersection of classes");
        bool found;
        QN_TRY(property(t, true, &found));
        if (found) {
            if (look(t, 0) == '-' && look(t, 1) != ']') return refuse(t, "a range from a class");
            continue;
        }
        char character[4];
        size_t n = 0;
        QN_TRY(literal(t, character, &n));
        QN_TRY(put_literal(t, character, n));
        if (look(t, 0) != '-' || look(t, 1) == ']') continue;
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
    if (look(t, 1) != '?') {
        t->at++;
        return puts_text(t, "(?:"); /* nothing refers to groups */
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!starts(t, kinds[i])) continue;
        if (kinds[i][2] == 'i') t->fold = t->depth;
        t->at += strlen(kinds[i]);
        return puts_text(t, kinds[i]);
    }
    return refuse(t, "this kind of group");
}

/* Of {n}: what a search may read without a step that is counted. */
enum { MOST_REPEATED = 1000 };

/* {n}, {n,} or {n,m}; the dialects differ in all other uses of braces. */
static qn_status interval(translator *t) {
    size_t first = t->at++;
    size_t digits = 0, least = 0;
    for (; look(t, 0) >= '0' && look(t, 0) <= '9'; digits++) {
        if (least <= MOST_REPEATED) least = 10 * least + (size_t)(look(t, 0) - '0');
        t->at++;
    }
    if (least > MOST_REPEATED) return refuse(t, "so long a repetition");
    bool comma = digits > 0 && look(t, 0) == ',';
    if (comma) t->at++;
    while (comma && look(t, 0) >= '0' && look(t, 0) <= '9') t->at++;
    int after = look(t, 1);
    if (digits == 0 || look(t, 0) != '}' || after == '+' || (after == '?' && !comma)) {
        return refuse(t, "this use of braces");
    }
    t->at++;
    return put(t, t->pattern + first, t->at - first);
}

/* A literal outside of classes. Oniguruma folds some pairs of letters to one character (ss to ß), PCRE2 none. */
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
    int c = look(t, 0);
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
    if (c == '.') return puts_text(t, "[^\\n]");
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
