/* SPDX-License-Identifier: Apache-2.0 */
/* Generated text passes three stages: stop strings, tags, whole characters. Each holds back what is still undecided. */
#include "../base/error.h"
#include "../base/memory.h"
#include "../base/utf8.h"

#include <quern/chat.h>

#include <string.h>

enum { MAX_STOP = 64 };

static const char open_tag[] = "<think>", close_tag[] = "</think>";

/* A stop string with its Knuth-Morris-Pratt table, so that any text takes linear time. */
typedef struct stop {
    char *text;
    size_t size;
    size_t *fall;  /* longest border of the first i + 1 bytes */
    size_t length; /* length of its longest prefix that ends the text so far */
} stop;

typedef enum mode {
    MODE_START,     /* only white space so far: an opening tag may follow */
    MODE_REASONING, /* until the closing tag */
    MODE_CONTENT,
} mode;

typedef struct bytes {
    char *data;
    size_t size;
    size_t capacity;
} bytes;

struct qn_splitter {
    stop *stops;
    size_t n_stop;
    uint64_t seen; /* bytes of text so far */
    bool matched;
    uint64_t match; /* start of the earliest stop string */
    bytes held;     /* the last bytes of text, which may become a stop string */
    mode mode;
    bool starts_reasoning;
    bool skip_newlines; /* newlines directly after a tag */
    uint64_t n_newline; /* pending newlines at the end of the reasoning: dropped if the closing tag follows */
    bytes tag;          /* possible prefix of a tag, with the white space before it (start) */
    char character[4];  /* an incomplete character */
    size_t n_character;
    qn_piece character_piece;
    bool stopped;
    /* callback of the current call */
    qn_piece_fn piece;
    void *user;
};

static bool append(bytes *b, const char *data, size_t size) {
    size_t need;
    if (!qni_add_size(&need, b->size, size) || !qni_grow(&b->data, &b->capacity, need, 1)) return false;
    if (size > 0) memcpy(b->data + b->size, data, size);
    b->size = need;
    return true;
}

static void drop_front(bytes *b, size_t n) {
    b->size -= n;
    if (b->size > 0) memmove(b->data, b->data + n, b->size);
}

static void deliver(qn_splitter *s, qn_piece piece, const char *data, size_t size) {
    if (size > 0 && !s->stopped && !s->piece(s->user, piece, data, size)) s->stopped = true;
}

/* Emit U+FFFD for a character that was never completed. */
static void flush_character(qn_splitter *s) {
    if (s->n_character == 0) return;
    s->n_character = 0;
    deliver(s, s->character_piece, QNI_UTF8_REPLACEMENT, sizeof QNI_UTF8_REPLACEMENT - 1);
}

/* The last stage: emit whole characters; invalid UTF-8 becomes U+FFFD. */
static void emit(qn_splitter *s, qn_piece piece, const char *data, size_t size) {
    if (s->n_character > 0 && s->character_piece != piece) flush_character(s);
    uint32_t code_point;
    size_t length, used = 0;
    while (s->n_character > 0 && used < size) { /* complete it byte by byte */
        s->character[s->n_character++] = data[used++];
        qni_utf8_state state = qni_utf8_scan(s->character, s->n_character, &length, &code_point);
        if (state == QNI_UTF8_PARTIAL) continue;
        if (state == QNI_UTF8_WHOLE) {
            size_t n = s->n_character;
            s->n_character = 0;
            deliver(s, piece, s->character, n);
        } else { /* the new byte does not continue the character */
            used--;
            flush_character(s);
        }
    }
    size_t from = used;
    while (used < size) {
        qni_utf8_state state = qni_utf8_scan(data + used, size - used, &length, &code_point);
        if (state == QNI_UTF8_WHOLE) {
            used += length;
            continue;
        }
        deliver(s, piece, data + from, used - from);
        if (state == QNI_UTF8_PARTIAL) {
            s->n_character = size - used;
            s->character_piece = piece;
            memcpy(s->character, data + used, s->n_character);
            return;
        }
        deliver(s, piece, QNI_UTF8_REPLACEMENT, sizeof QNI_UTF8_REPLACEMENT - 1);
        from = used += length;
    }
    deliver(s, piece, data + from, used - from);
}

static void emit_newlines(qn_splitter *s) {
    static const char newlines[] = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
    while (s->n_newline > 0) {
        size_t n = s->n_newline < sizeof newlines - 1 ? (size_t)s->n_newline : sizeof newlines - 1;
        s->n_newline -= n;
        emit(s, QN_PIECE_REASONING, newlines, n);
    }
}

/* Consume text outside tags: newlines after a tag are skipped, those at the end of the reasoning are held back. */
static void consume(qn_splitter *s, const char *data, size_t size) {
    while (s->skip_newlines && size > 0 && *data == '\n') {
        data++;
        size--;
    }
    if (size == 0) return;
    s->skip_newlines = false;
    if (s->mode == MODE_CONTENT) {
        emit(s, QN_PIECE_CONTENT, data, size);
        return;
    }
    size_t kept = size;
    while (kept > 0 && data[kept - 1] == '\n') kept--;
    if (kept > 0) {
        emit_newlines(s);
        emit(s, QN_PIECE_REASONING, data, kept);
    }
    s->n_newline += size - kept;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Whether [data, size) is a tag (1), a proper prefix of one (0), or neither (-1). */
static int match_tag(const char *data, size_t size, const char *tag, size_t tag_size) {
    if (memcmp(data, tag, size < tag_size ? size : tag_size) != 0) return -1;
    return size >= tag_size ? 1 : 0;
}

/* White space and an optional opening tag at the very start. Returns the bytes used; *more: process the rest in the new
 * mode. */
static size_t parse_start(qn_splitter *s, bool last) {
    const bytes *b = &s->tag;
    size_t at = 0;
    while (at < b->size && is_space(b->data[at])) at++;
    int tag = at < b->size ? match_tag(b->data + at, b->size - at, open_tag, sizeof open_tag - 1) : 0;
    if (tag == 0 && !last) return 0;
    s->mode = tag == 1 || s->starts_reasoning ? MODE_REASONING : MODE_CONTENT;
    s->skip_newlines = s->mode == MODE_REASONING;
    return tag == 1 ? at + sizeof open_tag - 1 : 0;
}

/* Reasoning up to its closing tag. Returns the bytes used. */
static size_t parse_reasoning(qn_splitter *s, bool last) {
    const bytes *b = &s->tag;
    size_t at = 0;
    while (at < b->size) {
        const char *p = memchr(b->data + at, '<', b->size - at);
        size_t found = p != NULL ? (size_t)(p - b->data) : b->size;
        consume(s, b->data + at, found - at);
        at = found;
        if (at == b->size) break;
        int tag = match_tag(b->data + at, b->size - at, close_tag, sizeof close_tag - 1);
        if (tag == 0 && !last) return at;
        if (tag == 1) {
            s->n_newline = 0;
            s->mode = MODE_CONTENT;
            s->skip_newlines = true;
            return at + sizeof close_tag - 1;
        }
        consume(s, b->data + at, 1);
        at++;
    }
    return at;
}

/* The tag stage. */
static bool split(qn_splitter *s, const char *data, size_t size, bool last) {
    if (s->mode != MODE_CONTENT) {
        if (!append(&s->tag, data, size)) return false;
        if (s->mode == MODE_START) drop_front(&s->tag, parse_start(s, last));
        if (s->mode == MODE_REASONING) drop_front(&s->tag, parse_reasoning(s, last));
        if (s->mode != MODE_CONTENT) return true;
        consume(s, s->tag.data, s->tag.size);
        s->tag.size = 0;
        return true;
    }
    consume(s, data, size);
    return true;
}

/* Feed one more byte to all stop strings; returns the earliest offset where one may still begin. */
static uint64_t match_stops(qn_splitter *s, char c) {
    uint64_t earliest = ++s->seen;
    for (size_t i = 0; i < s->n_stop; i++) {
        stop *t = &s->stops[i];
        while (t->length > 0 && (t->length == t->size || t->text[t->length] != c)) t->length = t->fall[t->length - 1];
        if (t->text[t->length] == c) t->length++;
        if (t->length == t->size && (!s->matched || s->seen - t->size < s->match)) {
            s->matched = true;
            s->match = s->seen - t->size;
        }
        if (t->length < t->size && s->seen - t->length < earliest) earliest = s->seen - t->length;
    }
    return earliest;
}

static void end(qn_splitter *s) {
    s->stopped = true;
    s->held.size = s->tag.size = 0;
}

/* Pass all text before `certain` to the next stage. */
static bool release(qn_splitter *s, uint64_t certain, bool last) {
    uint64_t first = s->seen - s->held.size;
    size_t n = certain > first ? (size_t)(certain - first) : 0;
    if (!split(s, s->held.data, n, last)) return false;
    drop_front(&s->held, n);
    if (!last) return true;
    emit_newlines(s);
    flush_character(s);
    return true;
}

static void build_fallback(stop *t) {
    for (size_t i = 1, k = 0; i < t->size; i++) {
        while (k > 0 && t->text[k] != t->text[i]) k = t->fall[k - 1];
        if (t->text[k] == t->text[i]) k++;
        t->fall[i] = k;
    }
}

static qn_status copy_stops(qn_splitter *s, const qn_splitter_options *o, qn_error *err) {
    s->stops = qni_calloc(o->n_stop, sizeof *s->stops);
    if (s->stops == NULL) return qni_fail(err, QN_ENOMEM, "splitter: out of memory");
    for (; s->n_stop < o->n_stop; s->n_stop++) {
        stop *t = &s->stops[s->n_stop];
        const qn_string *from = &o->stops[s->n_stop];
        if (from->size == 0 || from->data == NULL) return qni_fail(err, QN_EINVAL, "stop[%zu]: is empty", s->n_stop);
        t->size = from->size;
        t->text = qni_strndup(from->data, from->size);
        t->fall = qni_calloc(from->size, sizeof *t->fall);
        if (t->text == NULL || t->fall == NULL) {
            s->n_stop++;
            return qni_fail(err, QN_ENOMEM, "splitter: out of memory");
        }
        build_fallback(t);
    }
    return QN_OK;
}

qn_status qn_splitter_create(qn_splitter **out, const qn_splitter_options *options, qn_error *err) {
    qn_splitter_options none = {0};
    const qn_splitter_options *o = options != NULL ? options : &none;
    if (out == NULL) return qni_fail(err, QN_EINVAL, "splitter: out is NULL");
    if (o->n_stop > MAX_STOP)
        return qni_fail(err, QN_EINVAL, "n_stop: must be at most %d, got %zu", MAX_STOP, o->n_stop);
    if (o->n_stop > 0 && o->stops == NULL) return qni_fail(err, QN_EINVAL, "stops: is NULL");
    qn_splitter *s = qni_calloc(1, sizeof *s);
    if (s == NULL) return qni_fail(err, QN_ENOMEM, "splitter: out of memory");
    s->starts_reasoning = o->starts_reasoning;
    s->mode = o->split_reasoning ? MODE_START : MODE_CONTENT;
    qn_status status = copy_stops(s, o, err);
    if (status != QN_OK) {
        qn_splitter_free(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

void qn_splitter_free(qn_splitter *splitter) {
    if (splitter == NULL) return;
    for (size_t i = 0; i < splitter->n_stop; i++) {
        qni_free(splitter->stops[i].text);
        qni_free(splitter->stops[i].fall);
    }
    qni_free(splitter->stops);
    qni_free(splitter->held.data);
    qni_free(splitter->tag.data);
    qni_free(splitter);
}

qn_status qn_splitter_push(qn_splitter *splitter, const char *text, size_t size, qn_piece_fn piece, void *user,
                           bool *stopped, qn_error *err) {
    qn_splitter *s = splitter;
    if (s == NULL || piece == NULL || stopped == NULL || (text == NULL && size > 0)) {
        return qni_fail(err, QN_EINVAL, "splitter: the splitter, the text, piece or stopped is NULL");
    }
    *stopped = s->stopped;
    if (s->stopped) return QN_OK;
    s->piece = piece;
    s->user = user;
    /* Capacity for everything that may be held back, so that finish never allocates. */
    size_t total;
    if (!append(&s->held, text, size) || !qni_add_size(&total, s->tag.size, s->held.size) ||
        !qni_grow(&s->tag.data, &s->tag.capacity, total, 1)) {
        return qni_fail(err, QN_ENOMEM, "splitter: out of memory");
    }
    uint64_t earliest = s->seen + size;
    if (s->n_stop == 0) {
        s->seen += size;
    } else if (size == 0) {
        return QN_OK;
    }
    for (size_t i = 0; s->n_stop > 0 && i < size; i++) {
        earliest = match_stops(s, text[i]);
        if (!s->matched || s->match > earliest) continue;
        s->held.size -= size - 1 - i; /* no later match can begin before this one */
        bool fine = release(s, s->match, true);
        end(s);
        *stopped = true;
        return fine ? QN_OK : qni_fail(err, QN_ENOMEM, "splitter: out of memory");
    }
    if (s->matched && s->match < earliest) earliest = s->match;
    bool fine = release(s, earliest, false);
    *stopped = s->stopped;
    return fine ? QN_OK : qni_fail(err, QN_ENOMEM, "splitter: out of memory");
}

qn_status qn_splitter_finish(qn_splitter *splitter, qn_piece_fn piece, void *user, qn_error *err) {
    if (splitter == NULL || piece == NULL) return qni_fail(err, QN_EINVAL, "splitter: the splitter or piece is NULL");
    if (splitter->stopped) return QN_OK;
    splitter->piece = piece;
    splitter->user = user;
    bool fine = release(splitter, splitter->matched ? splitter->match : splitter->seen, true);
    end(splitter);
    return fine ? QN_OK : qni_fail(err, QN_ENOMEM, "splitter: out of memory");
}
