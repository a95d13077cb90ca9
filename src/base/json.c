/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON parsing. Depth is checked before Jansson's recursive parser sees the text.
 *
 * Jansson's lexer silently drops a byte when the buffer of its current token cannot grow. So the text is passed as the
 * second element of an array whose first element is a string as long as the longest token. If that string comes back
 * whole, the buffer never had to grow again.
 *
 * Jansson rejects a text with a number that fits no C type. So 0 is passed in its place. Afterwards the k-th number of
 * the tree, whose objects keep the order of the text, is replaced by an object that no JSON text can express.
 */
#include "json.h"

#include "file.h"
#include "json_scan.h"
#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Jansson's input: ["xxx…",TEXT], with 0 for each large number of the text. */
typedef struct feed {
    const char *text;
    size_t size;
    size_t padding;             /* length of the first string */
    const qni_json_span *large; /* {n_large}, in text order */
    size_t n_large;
    size_t n_piece;   /* pieces started so far */
    const char *data; /* the rest of the current piece; NULL: padding */
    size_t left;
    bool refused; /* out of memory for the padding */
} feed;

/* The pieces: the opening, the padding and its end; then a stretch of text and a 0 for each large number, the rest
 * of the text, and the closing bracket. */
static bool next_piece(feed *f) {
    static const char head[] = "[\"", middle[] = "\",", zero[] = "0", tail[] = "]";
    const size_t p = f->n_piece++, k = (p - 3) / 2;
    if (p == 0 || p == 2) {
        f->data = p == 0 ? head : middle;
        f->left = 2;
    } else if (p == 1) {
        f->data = NULL;
        f->left = f->padding;
    } else if (k > f->n_large) {
        return false;
    } else if (p % 2 == 0) {
        f->data = k < f->n_large ? zero : tail;
        f->left = 1;
    } else {
        size_t begin = k > 0 ? f->large[k - 1].at + f->large[k - 1].size : 0;
        f->data = f->text + begin;
        f->left = (k < f->n_large ? f->large[k].at : f->size) - begin;
    }
    return true;
}

static size_t read_feed(void *buffer, size_t capacity, void *user) {
    feed *f = user;
    while (f->left == 0) {
        if (!next_piece(f)) return 0;
    }
    size_t n = f->left < capacity ? f->left : capacity;
    if (f->data != NULL) {
        memcpy(buffer, f->data, n);
        f->data += n;
    } else {
        memset(buffer, 'x', n);
    }
    f->left -= n;
    return n;
}

/* Jansson's token buffer: 16 bytes, doubled when full. */
static size_t buffer_for(size_t size) {
    size_t growth = 16;
    while (growth < size) growth *= 2;
    return growth;
}

/* A padding length whose closing quote is never the byte at which Jansson's buffer grows. If that byte were lost,
 * Jansson would read past the end of the buffer in search of it. */
static size_t padding_for(size_t longest) {
    size_t growth = buffer_for(longest);
    return growth - longest <= 2 ? growth + 1 : longest;
}

static bool has_memory(size_t bytes) {
    void *block = qni_realloc(NULL, bytes, 1);
    qni_free(block);
    return block != NULL;
}

/* Jansson's callback. A buffer that cannot grow loses its closing quote too, and Jansson then reads past its end. So
 * the padding pauses before each byte at which the buffer grows, and before its closing quote. It continues only if
 * memory for the grown buffer is available; otherwise the input ends there. */
static size_t read_guarded(void *buffer, size_t capacity, void *user) {
    feed *f = user;
    if (f->n_piece == 2 || (f->n_piece == 1 && f->left == 0)) {
        bool ends = f->n_piece == 2 && f->left == 0;
        size_t next = f->n_piece == 2 ? f->padding - f->left + 2 : 2; /* ordinal of the token's next byte */
        size_t growth = buffer_for(next), grown = next == growth ? 2 * growth : growth;
        if ((ends || next == growth) && !has_memory(grown)) {
            f->refused = true;
            return 0;
        }
        if (capacity > grown - next) capacity = grown - next;
    }
    return read_feed(buffer, capacity, f);
}

/* Parse the text between its padding. Returns NULL on failure; error->text is empty on allocation failure. */
static json_t *parse(feed f, json_error_t *error) {
    *error = (json_error_t){0};
    json_t *all = json_load_callback(read_guarded, &f, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, error);
    if (f.refused) error->text[0] = '\0';
    if (all != NULL && json_string_length(json_array_get(all, 0)) != f.padding) {
        json_decref(all);
        all = NULL;
    }
    return all;
}

/* A large number is an object with one of these keys. No parser produces them: they begin with a byte that is
 * invalid in UTF-8. */
static const char integer_key[] = "integer", real_key[] = "real";
enum { MARK = 0xFF };

static json_t *large_value(const char *number, size_t size) {
    bool real = memchr(number, '.', size) != NULL || memchr(number, 'e', size) != NULL;
    real |= memchr(number, 'E', size) != NULL;
    json_t *value = json_object();
    char *text = qni_calloc(size + 1, 1);
    if (text != NULL) {
        text[0] = (char)MARK;
        memcpy(text + 1, number, size);
    }
    json_t *marked = text != NULL ? json_stringn_nocheck(text, size + 1) : NULL;
    qni_free(text);
    if (json_object_set_new_nocheck(value, real ? real_key : integer_key, marked) == 0) return value;
    json_decref(value);
    return NULL;
}

static const char *large_text(const json_t *value, const char *key) {
    const char *text = json_string_value(json_object_get(value, key));
    return text != NULL && (unsigned char)text[0] == MARK ? text + 1 : NULL;
}

/* Replace values in a tree, in text order; false if out of memory. `swap` decides whether and by what a value is
 * replaced; it sets NULL if out of memory. Recursion depth is bounded as in the parser. */
typedef bool swap_fn(void *user, const json_t *value, json_t **out);
static bool replace(json_t *tree, swap_fn *swap, void *user) {
    json_t *value, *other = NULL;
    for (size_t i = 0; i < json_array_size(tree); i++) {
        value = json_array_get(tree, i);
        bool done = swap(user, value, &other) ? json_array_set_new(tree, i, other) == 0 : replace(value, swap, user);
        if (!done) return false;
    }
    for (void *at = json_object_iter(tree); at != NULL; at = json_object_iter_next(tree, at)) {
        value = json_object_iter_value(at);
        bool done =
            swap(user, value, &other) ? json_object_iter_set_new(tree, at, other) == 0 : replace(value, swap, user);
        if (!done) return false;
    }
    return true;
}

/* The numbers still to be restored, and the count of numbers visited so far in the tree. */
typedef struct restoration {
    const char *text;
    const qni_json_span *large;
    size_t n_large, n_number;
} restoration;

static bool restore(void *user, const json_t *value, json_t **out) {
    restoration *r = user;
    if (!json_is_number(value) || r->n_large == 0 || r->n_number++ != r->large->ordinal) return false;
    *out = large_value(r->text + r->large->at, r->large->size);
    r->large++;
    r->n_large--;
    return true;
}

/* The byte before a position of the input, or 0. */
static char byte_before(feed f, int position) {
    char buffer[1024];
    size_t left = position > 0 ? (size_t)position : 0, n;
    while ((n = read_feed(buffer, left < sizeof buffer ? left : sizeof buffer, &f)) > 0) {
        left -= n;
        if (left == 0) return buffer[n - 1];
    }
    return '\0';
}

/* Whether Jansson failed for lack of memory. It usually reports nothing then. But if it cannot allocate a string, it
 * reports an invalid token, or a missing string where one was expected. Errors in a string's text have other
 * messages. */
static bool is_memory_error(const feed *f, const json_error_t *error) {
    static const char token[] = "invalid token", key[] = "string or '}' expected";
    if (error->text[0] == '\0' || json_error_code(error) == json_error_out_of_memory) return true;
    if (strncmp(error->text, token, sizeof token - 1) != 0 && strncmp(error->text, key, sizeof key - 1) != 0) {
        return false;
    }
    return byte_before(*f, error->position) == '"';
}

/* Parse a text that has been scanned. */
static qn_status parse_feed(json_t **out, const char *what, const feed *f, qn_error *err) {
    json_error_t error;
    json_t *all = parse(*f, &error);
    restoration r = {f->text, f->large, f->n_large, 0};
    qn_status status = QN_OK;
    if (all == NULL && !is_memory_error(f, &error)) {
        size_t fed = f->padding + 4 + f->size + f->n_large;
        for (size_t i = 0; i < f->n_large; i++) fed -= f->large[i].size;
        /* The closing bracket after the text is not in the file. */
        bool at_end = error.position < 0 || (size_t)error.position > fed;
        status = qni_fail(err, QN_EFORMAT, "%s: line %d: %s", what, error.line,
                          at_end ? "the text ends too early" : error.text);
    } else if (all == NULL || (f->n_large > 0 && !replace(all, restore, &r))) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", what);
    } else if (json_array_size(all) != 2) {
        status = qni_fail(err, QN_EFORMAT, "%s: more than one JSON value", what);
    } else {
        *out = json_incref(json_array_get(all, 1));
    }
    json_decref(all);
    return status;
}

/* Jansson drops a NUL byte that follows a number, and counts its positions wrongly from there. */
static qn_status check_nul(const char *what, const char *text, size_t size, qn_error *err) {
    const char *nul = size > 0 ? memchr(text, '\0', size) : NULL;
    if (nul == NULL) return QN_OK;
    int line = 1;
    for (const char *at = text; at < nul; at++) line += *at == '\n';
    return qni_fail(err, QN_EFORMAT, "%s: line %d: a NUL byte", what, line);
}

qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err) {
    QN_TRY(check_nul(what, text, size, err));
    qni_json_survey s = qni_json_scan(text, size, NULL);
    if (s.depth > QNI_JSON_DEPTH) {
        return qni_fail(err, QN_EFORMAT, "%s: JSON nests deeper than %d", what, QNI_JSON_DEPTH);
    }
    qni_json_span *large = NULL;
    if (s.n_large > 0) {
        large = qni_calloc(s.n_large, sizeof *large);
        if (large == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", what);
        qni_json_scan(text, size, large);
    }
    feed f = {.text = text, .size = size, .padding = padding_for(s.longest), .large = large, .n_large = s.n_large};
    qn_status status = parse_feed(out, what, &f, err);
    qni_free(large);
    return status;
}

qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err) {
    char *text = NULL;
    size_t size = 0;
    QN_TRY(qni_file_slurp(&text, &size, path, max_bytes, err));
    qn_status status = qni_file_check_content(path, text, size, err);
    if (status == QN_OK) status = qni_json_parse(out, path, text, size, err);
    qni_free(text);
    return status;
}

const char *qni_json_big(const json_t *value) {
    return large_text(value, integer_key);
}

const char *qni_json_infinite(const json_t *value) {
    return large_text(value, real_key);
}

const char *qni_json_large(const json_t *value) {
    const char *text = qni_json_big(value);
    return text != NULL ? text : qni_json_infinite(value);
}

bool qni_json_is_object(const json_t *value) {
    return json_is_object(value) && qni_json_large(value) == NULL;
}

bool qni_json_number(double *out, const json_t *value) {
    const char *integer = qni_json_big(value), *real = qni_json_infinite(value);
    double x = json_number_value(value);
    if (integer != NULL) x = strtod(integer, NULL);
    if (real != NULL) x = real[0] == '-' ? -INFINITY : INFINITY;
    if (out != NULL) *out = x;
    return json_is_number(value) || integer != NULL || real != NULL;
}

/* Jansson refuses to print text that is not UTF-8. It does print a key that contains U+0000, and no other key
 * contains one. */
static const char printed_key[] = "\"\\u0000\"";

static bool make_printable(void *user, const json_t *value, json_t **out) {
    (void)user;
    const char *text = qni_json_large(value);
    if (text == NULL) return false;
    *out = json_object();
    if (json_object_setn_new_nocheck(*out, "\0", 1, json_stringn_nocheck(text, strlen(text))) != 0) {
        json_decref(*out);
        *out = NULL;
    }
    return true;
}

/* The end of the object at `text` if it represents a large number, else NULL; *digits points to its digits. White
 * space around the parts depends on the flags. */
static const char *large_object(const char *text, const char **digits, size_t *n_digit) {
    static const char space[] = " \n";
    const char *at = text + 1 + strspn(text + 1, space);
    if (strncmp(at, printed_key, sizeof printed_key - 1) != 0) return NULL;
    at += sizeof printed_key - 1;
    *digits = at + strspn(at, " :") + 1;
    *n_digit = strcspn(*digits, "\"");
    at = *digits + *n_digit + 1;
    return at + strspn(at, space) + 1;
}

/* Replace the objects that represent large numbers by the numbers; the text only shrinks. */
static void unwrap_large(char *text) {
    char *to = text;
    bool quoted = false;
    for (const char *from = text; *from != '\0';) {
        const char *digits = NULL, *end = NULL;
        size_t n = 0;
        if (!quoted && *from == '{') end = large_object(from, &digits, &n);
        if (end != NULL) {
            memmove(to, digits, n);
            to += n;
            from = end;
            continue;
        }
        if (*from == '"') quoted = !quoted;
        if (*from == '\\') *to++ = *from++; /* never the last character */
        *to++ = *from++;
    }
    *to = '\0';
}

static char *dump(const json_t *value, size_t flags) {
    const size_t n = json_dumpb(value, NULL, 0, flags);
    char *text = n > 0 ? qni_calloc(n + 1, 1) : NULL;
    if (text != NULL && json_dumpb(value, text, n, flags) == n) return text;
    qni_free(text);
    return NULL;
}

char *qni_json_print(const json_t *value, size_t flags) {
    char *text = dump(value, flags);
    if (text != NULL) return text;
    /* Either out of memory, or there are large numbers. */
    json_t *list = json_array();
    bool done = json_array_append_new(list, json_deep_copy(value)) == 0 && replace(list, make_printable, NULL);
    if (done) text = dump(json_array_get(list, 0), flags | JSON_ENCODE_ANY);
    if (text != NULL) unwrap_large(text);
    json_decref(list);
    return text;
}
