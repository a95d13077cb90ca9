/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON in, checked for depth before Jansson's recursive parser sees it.
 *
 * Jansson's lexer drops a byte without a word when the buffer of its current token cannot grow. So the text is fed to
 * it as the second element of an array, whose first is a string as long as the longest token: if that string comes back
 * whole, the buffer never had to grow again.
 */
#include "json.h"

#include "file.h"
#include "memory.h"

#include <string.h>

/* Deepest nesting of brackets outside strings, and the bytes of the longest token. */
typedef struct survey {
    int depth;
    size_t longest;
} survey;

static survey look_over(const char *text, size_t size) {
    survey s = {0};
    int depth = 0;
    bool quoted = false;
    size_t token = 0;
    for (size_t i = 0; i < size && s.depth <= QNI_JSON_DEPTH; i++) {
        char c = text[i];
        token++;
        if (quoted) {
            if (c == '\\') {
                i++;
                token++;
            } else if (c == '"') {
                quoted = false;
            }
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > s.depth) s.depth = depth;
            token = 0;
        } else if (c == '}' || c == ']') {
            depth--;
            token = 0;
        } else if (c == ',' || c == ':' || c == ' ' || c == '\n' || c == '\t' || c == '\r') {
            token = 0;
        }
        if (token > s.longest) s.longest = token;
    }
    return s;
}

/* The text as Jansson gets it: ["xxx…",TEXT] */
typedef struct feed {
    const char *text;
    size_t size, longest, at;
} feed;

static size_t take_feed(void *buffer, size_t room, void *user) {
    static const char head[] = "[\"", middle[] = "\",", tail[] = "]";
    feed *f = user;
    const struct {
        const char *data; /* NULL: padding */
        size_t size;
    } part[] = {{head, 2}, {NULL, f->longest}, {middle, 2}, {f->text, f->size}, {tail, 1}};
    size_t begin = 0;
    for (int i = 0; i < 5; begin += part[i++].size) {
        if (f->at >= begin + part[i].size) continue;
        size_t skip = f->at - begin, n = part[i].size - skip < room ? part[i].size - skip : room;
        if (part[i].data != NULL) {
            memcpy(buffer, part[i].data + skip, n);
        } else {
            memset(buffer, 'x', n);
        }
        f->at += n;
        return n;
    }
    return 0;
}

/* A length of padding whose closing quote is never the byte at which Jansson's buffer (16 bytes, doubled when it is
 * full) has to grow: if that byte were lost, Jansson would read on beyond the buffer in search of it. */
static size_t padding_for(size_t longest) {
    size_t growth = 16;
    while (growth < longest) growth *= 2;
    return growth - longest <= 2 ? growth + 1 : longest;
}

/* The text between its padding: NULL with *error, or with no words in it where memory was short. */
static json_t *parse(const char *text, size_t size, size_t padding, json_error_t *error) {
    feed f = {text, size, padding, 0};
    *error = (json_error_t){0};
    json_t *all = json_load_callback(take_feed, &f, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, error);
    if (all != NULL && json_string_length(json_array_get(all, 0)) != padding) {
        json_decref(all);
        all = NULL;
    }
    return all;
}

qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err) {
    survey s = look_over(text, size);
    if (s.depth > QNI_JSON_DEPTH) {
        return qni_fail(err, QN_EFORMAT, "%s: JSON nests deeper than %d", what, QNI_JSON_DEPTH);
    }
    size_t padding = padding_for(s.longest);
    json_error_t error;
    json_t *all = parse(text, size, padding, &error);
    qn_status status = QN_OK;
    if (all == NULL) {
        /* Jansson calls a token that it has no memory for invalid; so what it refuses it must refuse twice. */
        json_t *again = parse(text, size, padding, &error);
        bool no_memory = again != NULL || error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory;
        json_decref(again);
        if (no_memory) return qni_fail(err, QN_ENOMEM, "%s: out of memory", what);
        /* The bracket after the text is not in the file. */
        bool at_end = error.position < 0 || (size_t)error.position > padding + 4 + size;
        status = qni_fail(err, QN_EFORMAT, "%s: line %d: %s", what, error.line,
                          at_end ? "the text ends too early" : error.text);
    } else if (json_array_size(all) != 2) {
        status = qni_fail(err, QN_EFORMAT, "%s: more than one JSON value", what);
    } else {
        *out = json_incref(json_array_get(all, 1));
    }
    json_decref(all);
    return status;
}

qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err) {
    char *text = NULL;
    size_t size = 0;
    QN_TRY(qni_file_slurp(&text, &size, path, max_bytes, err));
    qn_status status = qni_json_parse(out, path, text, size, err);
    qni_free(text);
    return status;
}

char *qni_json_print(const json_t *value, size_t flags) {
    const size_t n = json_dumpb(value, NULL, 0, flags);
    char *text = n > 0 ? qni_calloc(n + 1, 1) : NULL;
    if (text != NULL && json_dumpb(value, text, n, flags) == n) return text;
    qni_free(text);
    return NULL;
}
