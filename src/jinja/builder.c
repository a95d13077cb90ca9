/* SPDX-License-Identifier: Apache-2.0 */
/* Build text from trusted and untrusted parts, and read the trust marks of mixed text. */
#include "value.h"

enum { WORD = 64 };

/* Header in front of a buffer's bytes, so that the marks can be found from any part of them. */
typedef struct jblock_head {
    uint64_t *marks;
} jblock_head;

static void set_head(char *data, uint64_t *marks) {
    jblock_head head = {marks};
    memcpy(data - sizeof head, &head, sizeof head);
}

static const uint64_t *marks_of(jval text) {
    jblock_head head;
    memcpy(&head, text.s - (text.mixed - 1) - sizeof head, sizeof head);
    return head.marks;
}

/* Marks are initialized to zero (untrusted), so only trusted bytes are written. */
static void mark(uint64_t *marks, size_t from, size_t to) {
    while (from < to) {
        size_t bit = from % WORD, n = WORD - bit;
        if (n > to - from) n = to - from;
        marks[from / WORD] |= (n == WORD ? UINT64_MAX : ((uint64_t)1 << n) - 1) << bit;
        from += n;
    }
}

static uint64_t *new_marks(jrun *run, size_t capacity) {
    return qni_j_alloc(&run->arena, (capacity + WORD - 1) / WORD * sizeof(uint64_t));
}

qn_status qni_j_reserve(jrun *run, jbuf *buf, size_t more) {
    if (more <= buf->capacity - buf->size) return QN_OK;
    if (more > run->arena.limit) {
        run->arena.full = true;
        return qni_j_no_memory(run);
    }
    /* Text sizes are below the arena limit: no overflow. The first request is allocated exactly. */
    size_t wanted = buf->size + more, twice = buf->capacity < 32 ? 64 : 2 * buf->capacity;
    if (buf->capacity > 0 || wanted < 64) wanted = wanted > twice ? wanted : twice;
    char *grown = qni_j_alloc(&run->arena, sizeof(jblock_head) + wanted);
    if (grown == NULL) return qni_j_no_memory(run);
    grown += sizeof(jblock_head);
    if (buf->size > 0) memcpy(grown, buf->data, buf->size);
    if (buf->marks != NULL) {
        uint64_t *marks = new_marks(run, wanted);
        if (marks == NULL) return qni_j_no_memory(run);
        memcpy(marks, buf->marks, (buf->size + WORD - 1) / WORD * sizeof *marks);
        buf->marks = marks;
        set_head(grown, marks);
    }
    buf->data = grown;
    buf->capacity = wanted;
    return QN_OK;
}

/* Switch to per-byte marks: the buffer holds text of one kind and now gets the other kind. */
static qn_status mix(jrun *run, jbuf *buf) {
    if ((buf->marks = new_marks(run, buf->capacity)) == NULL) return qni_j_no_memory(run);
    set_head(buf->data, buf->marks);
    if (buf->trusted) mark(buf->marks, 0, buf->size);
    return QN_OK;
}

qn_status qni_j_put(jrun *run, jbuf *buf, const char *s, size_t size, bool trusted) {
    QN_TRY(qni_j_step(run, size));
    if (size == 0) return QN_OK;
    QN_TRY(qni_j_reserve(run, buf, size));
    if (buf->size == 0) buf->trusted = trusted;
    if (buf->marks == NULL && buf->trusted != trusted) QN_TRY(mix(run, buf));
    if (buf->marks != NULL && trusted) mark(buf->marks, buf->size, buf->size + size);
    memcpy(buf->data + buf->size, s, size);
    buf->size += size;
    return QN_OK;
}

qn_status qni_j_put_part(jrun *run, jbuf *buf, jval text, size_t at, size_t size) {
    if (text.mixed == 0) return qni_j_put(run, buf, text.s + at, size, text.trusted);
    for (size_t end = at + size, n; at < end; at += n) {
        bool trusted = qni_j_run_at(text, at, &n);
        if (n > end - at) n = end - at;
        QN_TRY(qni_j_put(run, buf, text.s + at, n, trusted));
    }
    return QN_OK;
}

qn_status qni_j_put_text(jrun *run, jbuf *buf, jval text) {
    return qni_j_put_part(run, buf, text, 0, text.size);
}

jval qni_j_buf_text(const jbuf *buf) {
    if (buf->size == 0) return qni_j_literal("");
    jval text = qni_j_text(buf->data, buf->size);
    text.trusted = buf->marks == NULL && buf->trusted;
    text.mixed = buf->marks != NULL;
    return text;
}

jval qni_j_part(jval text, size_t at, size_t size) {
    text.s += at;
    text.size = size;
    if (text.mixed != 0) text.mixed += (uint32_t)at; /* an offset in a block, which is below the arena limit */
    text.markup = false;
    return text;
}

bool qni_j_trusted_at(jval text, size_t at) {
    if (text.mixed == 0) return text.trusted;
    size_t bit = text.mixed - 1 + at;
    return marks_of(text)[bit / WORD] >> bit % WORD & 1;
}

bool qni_j_run_at(jval text, size_t at, size_t *size) {
    *size = text.size - at;
    if (text.mixed == 0) return text.trusted;
    const uint64_t *marks = marks_of(text);
    size_t first = text.mixed - 1 + at, end = text.mixed - 1 + text.size;
    bool trusted = marks[first / WORD] >> first % WORD & 1;
    for (size_t bit = first; bit < end;) {
        uint64_t other = (trusted ? ~marks[bit / WORD] : marks[bit / WORD]) >> bit % WORD;
        if (other != 0) {
            bit += (size_t)__builtin_ctzll(other);
            if (bit < end) *size = bit - first;
            break;
        }
        bit += WORD - bit % WORD;
    }
    return trusted;
}

bool qni_j_trusted(jval v) {
    switch ((jkind)v.kind) {
    case J_STRING:
        return v.trusted || v.size == 0;
    case J_SEQ:
        return v.seq->trusted;
    case J_DICT:
        return v.dict->trusted;
    case J_UNDEFINED:
        return true;
    default:
        return v.trusted;
    }
}
