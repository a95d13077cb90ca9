/* SPDX-License-Identifier: Apache-2.0 */
/* The arena; creating, comparing and ordering values as Python does. */
#include "value.h"

#include "../base/json.h"
#include "../base/memory.h"
#include "ast.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 16 << 10 };

struct jchunk {
    jchunk *next;
    char *at;
};

void *qni_j_alloc(jarena *arena, size_t bytes) {
    if (bytes > arena->limit) {
        arena->full = true;
        return NULL;
    }
    bytes = qni_round_up(bytes > 0 ? bytes : 1, 8);
    if (arena->left < bytes) {
        size_t chunk_bytes = bytes > CHUNK / 4 ? bytes : CHUNK;
        if (arena->total + chunk_bytes > arena->limit) {
            arena->full = true;
            return NULL;
        }
        jchunk *chunk = qni_calloc(1, sizeof *chunk + chunk_bytes);
        if (chunk == NULL) return NULL;
        arena->total += chunk_bytes;
        chunk->at = (char *)(chunk + 1);
        /* A large block gets its own chunk; the open chunk stays open. */
        if (chunk_bytes != CHUNK && arena->chunks != NULL) {
            chunk->next = arena->chunks->next;
            arena->chunks->next = chunk;
            return chunk->at;
        }
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->left = chunk_bytes;
    }
    void *p = arena->chunks->at;
    arena->chunks->at += bytes;
    arena->left -= bytes;
    return p;
}

void qni_j_arena_free(jarena *arena) {
    while (arena->chunks != NULL) {
        jchunk *next = arena->chunks->next;
        qni_free(arena->chunks);
        arena->chunks = next;
    }
    arena->left = 0;
}

qn_status qni_j_fail(jrun *run, qn_status status, const char *format, ...) {
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    return qni_fail(run->err, status, "%s line %d: %s", run->jinja->name, run->line, detail);
}

qn_status qni_j_no_memory(jrun *run) {
    if (!run->arena.full) return qni_j_fail(run, QN_ENOMEM, "out of memory");
    return qni_j_fail(run, QN_EFULL, "the values need more than %d bytes", (int)QNI_JINJA_MEMORY);
}

qn_status qni_j_too_deep(jrun *run) {
    return qni_j_fail(run, QN_EFULL, "nests too deep");
}

qn_status qni_j_step(jrun *run, size_t work) {
    uint64_t cost = 1 + work / 64;
    if (run->steps < cost) return qni_j_fail(run, QN_EFULL, "more than %d steps", (int)QNI_JINJA_STEPS);
    run->steps -= cost;
    return QN_OK;
}

qn_status qni_j_seq(jrun *run, jseq_kind kind, size_t n, jval *out) {
    size_t bytes;
    QN_TRY(qni_j_step(run, n));
    jseq *seq = qni_j_alloc(&run->arena, sizeof *seq);
    if (seq == NULL || !qni_mul_size(&bytes, n, sizeof *seq->items)) return qni_j_no_memory(run);
    if ((seq->items = qni_j_alloc(&run->arena, bytes)) == NULL) return qni_j_no_memory(run); /* never NULL */
    seq->kind = (uint8_t)kind;
    seq->n = n;
    seq->height = 1;
    *out = (jval){.kind = J_SEQ, .seq = seq};
    return QN_OK;
}

static int height(jval v) {
    if (v.kind == J_SEQ) return v.seq->height;
    return v.kind == J_DICT ? v.dict->height : 0;
}

static qn_status raise_height(jrun *run, int16_t *to, jval v) {
    int h = height(v) + 1;
    if (h > QNI_JINJA_VALUE_DEPTH)
        return qni_j_fail(run, QN_EFULL, "values nest deeper than %d", QNI_JINJA_VALUE_DEPTH);
    if (h > *to) *to = (int16_t)h;
    return QN_OK;
}

qn_status qni_j_seq_done(jrun *run, jval seq) {
    bool trusted = true;
    for (size_t i = 0; i < seq.seq->n; i++) {
        QN_TRY(raise_height(run, &seq.seq->height, seq.seq->items[i]));
        trusted = trusted && qni_j_trusted(seq.seq->items[i]);
    }
    seq.seq->trusted = trusted;
    return QN_OK;
}

qn_status qni_j_dict(jrun *run, size_t capacity, jval *out) {
    jdict *dict = qni_j_alloc(&run->arena, sizeof *dict);
    if (dict == NULL) return qni_j_no_memory(run);
    dict->trusted = true;
    dict->height = 1;
    dict->capacity = capacity;
    if (capacity > 0) {
        size_t bytes;
        if (!qni_mul_size(&bytes, capacity, 2 * sizeof *dict->pairs)) return qni_j_no_memory(run);
        if ((dict->pairs = qni_j_alloc(&run->arena, bytes)) == NULL) return qni_j_no_memory(run);
    }
    if (capacity > 8) {
        size_t slots = 16;
        while (slots < 2 * capacity) slots *= 2;
        if ((dict->index = qni_j_alloc(&run->arena, slots * sizeof *dict->index)) == NULL) return qni_j_no_memory(run);
        dict->mask = slots - 1;
    }
    *out = (jval){.kind = J_DICT, .dict = dict};
    return QN_OK;
}

/* Equal keys have equal hashes, including 1, 1.0 and true. All tuples share one hash: they are rare as keys. */
static size_t hash(jval v) {
    uint64_t h = 1469598103934665603u;
    if (v.kind == J_STRING) {
        for (size_t i = 0; i < v.size; i++) h = (h ^ (unsigned char)v.s[i]) * 1099511628211u;
    } else if (qni_j_is_number(v) || v.kind == J_BIG) {
        double f = v.kind == J_BIG ? qni_j_big_real(v) : (double)qni_j_as_real(v) + 0.0; /* -0.0 becomes 0.0 */
        memcpy(&h, &f, sizeof h);
        h *= 1099511628211u;
        h ^= h >> 29;
    }
    return (size_t)(h ^ h >> 32);
}

/* Position of the key, or n. */
static qn_status find(jrun *run, const jdict *dict, jval key, size_t *at) {
    bool equal = false;
    QN_TRY(qni_j_step(run, key.kind == J_STRING ? key.size * 4 : 0));
    if (dict->index == NULL) {
        for (*at = 0; *at < dict->n; ++*at) {
            QN_TRY(qni_j_equal(run, dict->pairs[2 * *at], key, &equal));
            if (equal) return QN_OK;
        }
        return QN_OK;
    }
    for (size_t slot = hash(key) & dict->mask; dict->index[slot] != 0; slot = (slot + 1) & dict->mask) {
        *at = dict->index[slot] - 1;
        QN_TRY(qni_j_equal(run, dict->pairs[2 * *at], key, &equal));
        if (equal) return QN_OK;
    }
    *at = dict->n;
    return QN_OK;
}

/* Check that Python could hash the value, as a key requires. */
static qn_status check_key(jrun *run, jval v) {
    bool seq = v.kind == J_SEQ;
    QN_TRY(qni_j_deeper(run));
    if (v.kind == J_DICT || (seq && (v.seq->kind == SEQ_LIST || v.seq->kind == SEQ_KEYS || v.seq->kind == SEQ_ITEMS)))
        return qni_j_fail(run, QN_EINVAL, "a %s cannot be a key", qni_j_kind(v));
    for (size_t i = 0; seq && v.seq->kind == SEQ_TUPLE && i < v.seq->n; i++) {
        QN_TRY(qni_j_step(run, 0));
        QN_TRY(check_key(run, v.seq->items[i]));
    }
    return QN_OK;
}

qn_status qni_j_dict_put(jrun *run, jval to, jval key, jval value) {
    jdict *dict = to.dict;
    size_t at;
    QN_TRY(qni_j_step(run, 0));
    QN_TRY(check_key(run, key));
    QN_TRY(find(run, dict, key, &at));
    QN_TRY(raise_height(run, &dict->height, value));
    dict->trusted = dict->trusted && qni_j_trusted(key) && qni_j_trusted(value);
    if (at == dict->n) {
        QN_TRY(raise_height(run, &dict->height, key));
        dict->pairs[2 * at] = key;
        dict->n++;
        if (dict->index != NULL) {
            size_t slot = hash(key) & dict->mask;
            while (dict->index[slot] != 0) slot = (slot + 1) & dict->mask;
            dict->index[slot] = (uint32_t)(at + 1);
        }
    }
    dict->pairs[2 * at + 1] = value;
    return QN_OK;
}

qn_status qni_j_dict_get(jrun *run, const jdict *dict, jval key, const jval **out) {
    size_t at;
    *out = NULL;
    QN_TRY(find(run, dict, key, &at));
    if (at < dict->n) *out = &dict->pairs[2 * at + 1];
    return QN_OK;
}

static qn_status json_text(jrun *run, const char *s, size_t size, int how, jval *out) {
    if (how & J_JSON_COPY) {
        char *copy = qni_j_alloc(&run->arena, size);
        if (copy == NULL) return qni_j_no_memory(run);
        s = memcpy(copy, s, size);
    }
    *out = qni_j_trust(qni_j_text(s, size), how & J_JSON_TRUSTED);
    return QN_OK;
}

/* The JSON reader also bounds the depth. */
qn_status qni_j_from_json(jrun *run, const json_t *json, int how, jval *out) {
    QN_TRY(qni_j_deeper(run));
    bool trusted = how & J_JSON_TRUSTED;
    const char *big = qni_json_big(json), *infinite = qni_json_infinite(json);
    if (big != NULL) {
        QN_TRY(json_text(run, big, strlen(big), how, out));
        out->kind = J_BIG;
        return QN_OK;
    }
    if (infinite != NULL) {
        *out = qni_j_trust(qni_j_float(*infinite == '-' ? -(double)INFINITY : (double)INFINITY), trusted);
        return QN_OK;
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT: {
        const char *key;
        size_t key_size;
        json_t *item, *object = (json_t *)json; /* Jansson's iterator requires non-const; the object is not modified */
        QN_TRY(qni_j_dict(run, json_object_size(json), out));
        out->dict->trusted = trusted; /* even if it is empty */
        json_object_keylen_foreach(object, key, key_size, item) {
            jval name, value;
            QN_TRY(qni_j_from_json(run, item, how, &value));
            QN_TRY(json_text(run, key, key_size, how, &name));
            QN_TRY(qni_j_dict_put(run, *out, name, value));
        }
        return QN_OK;
    }
    case JSON_ARRAY:
        QN_TRY(qni_j_seq(run, SEQ_LIST, json_array_size(json), out));
        for (size_t i = 0; i < json_array_size(json); i++) {
            QN_TRY(qni_j_from_json(run, json_array_get(json, i), how, &out->seq->items[i]));
        }
        QN_TRY(qni_j_seq_done(run, *out));
        out->seq->trusted = trusted;
        return QN_OK;
    case JSON_STRING:
        QN_TRY(json_text(run, json_string_value(json), json_string_length(json), how, out));
        break;
    case JSON_INTEGER:
        *out = qni_j_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = qni_j_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = qni_j_bool(json_is_true(json));
        break;
    case JSON_NULL:
        *out = qni_j_none();
        break;
    }
    out->trusted = trusted;
    return QN_OK;
}

qn_status qni_j_parse_json(jrun *run, jval text, jval *out) {
    json_t *json = NULL;
    qn_error err = {0};
    if (text.kind != J_STRING)
        return qni_j_fail(run, QN_EINVAL, "from_json takes a string, got a %s", qni_j_kind(text));
    if (text.size > QNI_JINJA_JSON)
        return qni_j_fail(run, QN_EFULL, "from_json of more than %d bytes", (int)QNI_JINJA_JSON);
    QN_TRY(qni_j_step(run, text.size * 32));
    qn_status status = qni_json_parse(&json, "from_json", text.s, text.size, &err);
    if (status != QN_OK) return qni_j_fail(run, status == QN_EFORMAT ? QN_EINVAL : status, "%s", err.message);
    status = qni_j_from_json(run, json, qni_j_trusted(text) ? J_JSON_TRUSTED | J_JSON_COPY : J_JSON_COPY, out);
    json_decref(json);
    return status;
}

const char *qni_j_kind(jval v) {
    static const char *const names[] = {"nothing", "undefined value", "None",  "bool", "int",       "float",
                                        "int",     "string",          "",      "dict", "namespace", "loop",
                                        "macro",   "function",        "method"};
    static const char *const seqs[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
    return v.kind == J_SEQ ? seqs[v.seq->kind] : names[v.kind];
}

bool qni_j_truth(jval v) {
    switch ((jkind)v.kind) {
    case J_ABSENT:
    case J_UNDEFINED:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.b;
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0;
    case J_STRING:
        return v.size > 0;
    case J_SEQ:
        return v.seq->kind == SEQ_ITERATOR || v.seq->n > 0;
    case J_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

bool qni_j_is_number(jval v) {
    return v.kind == J_INT || v.kind == J_FLOAT || v.kind == J_BOOL;
}

bool qni_j_as_int(jval v, int64_t *out) {
    if (v.kind == J_BOOL) *out = v.b;
    if (v.kind == J_INT) *out = v.i;
    return v.kind == J_BOOL || v.kind == J_INT;
}

long double qni_j_as_real(jval v) {
    if (v.kind == J_FLOAT) return (long double)v.f;
    return v.kind == J_BOOL ? (long double)v.b : (long double)v.i; /* 64 bits of mantissa: exact */
}

bool qni_j_text_is(jval v, const char *literal) {
    return v.kind == J_STRING && v.size == strlen(literal) && memcmp(v.s, literal, v.size) == 0;
}

static qn_status equal_dicts(jrun *run, const jdict *a, const jdict *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        const jval *other;
        QN_TRY(qni_j_dict_get(run, b, a->pairs[2 * i], &other));
        *out = other != NULL;
        if (*out) QN_TRY(qni_j_equal(run, a->pairs[2 * i + 1], *other, out));
    }
    return QN_OK;
}

qn_status qni_j_fail_big(jrun *run) {
    return qni_j_fail(run, QN_EUNSUPPORTED, "an integer beyond 64 bits");
}

double qni_j_big_real(jval big) {
    char text[400]; /* more digits than any finite double has */
    if (big.size >= sizeof text) return *big.s == '-' ? -(double)INFINITY : (double)INFINITY;
    memcpy(text, big.s, big.size);
    text[big.size] = '\0';
    return strtod(text, NULL);
}

/* Compare the digits of two integers, without sign. */
static int order_digits(const char *a, size_t n_a, const char *b, size_t n_b) {
    if (n_a != n_b) return n_a < n_b ? -1 : 1;
    int c = memcmp(a, b, n_a);
    return (c > 0) - (c < 0);
}

/* Compare a big integer with any number; 2: unordered. A double of that magnitude is an integer, so comparing digits is
 * exact. */
static int order_big(jval a, jval b) {
    bool negative = *a.s == '-';
    int sign = negative ? -1 : 1;
    char text[400];
    jval digits = b;
    if (b.kind == J_FLOAT) {
        if (isnan(b.f)) return 2;
        if (isinf(b.f)) return b.f < 0 ? 1 : -1;
        digits = qni_j_text(text, (size_t)snprintf(text, sizeof text, "%.0f", b.f));
    }
    if (b.kind == J_INT || b.kind == J_BOOL || (*digits.s == '-') != negative) return sign;
    return sign * order_digits(a.s + negative, a.size - negative, digits.s + negative, digits.size - negative);
}

static bool are_numbers(jval a, jval b) {
    return (qni_j_is_number(a) || a.kind == J_BIG) && (qni_j_is_number(b) || b.kind == J_BIG);
}

static int order_numbers(jval a, jval b) {
    if (a.kind == J_BIG) return order_big(a, b);
    if (b.kind == J_BIG) {
        int order = order_big(b, a);
        return order == 2 ? 2 : -order;
    }
    long double x = qni_j_as_real(a), y = qni_j_as_real(b);
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

qn_status qni_j_equal(jrun *run, jval a, jval b, bool *out) {
    QN_TRY(qni_j_deeper(run));
    QN_TRY(qni_j_step(run, a.kind == J_STRING ? a.size : 0));
    *out = false;
    if (are_numbers(a, b)) {
        *out = order_numbers(a, b) == 0;
        return QN_OK;
    }
    if (a.kind != b.kind) return QN_OK;
    switch ((jkind)a.kind) {
    case J_STRING:
        *out = a.size == b.size && memcmp(a.s, b.s, a.size) == 0;
        return QN_OK;
    case J_SEQ:
        *out = a.seq == b.seq;
        if (*out || a.seq->kind != b.seq->kind || a.seq->kind == SEQ_ITERATOR || a.seq->kind == SEQ_VALUES)
            return QN_OK;
        if (a.seq->kind > SEQ_ITERATOR) return qni_j_fail(run, QN_EUNSUPPORTED, "comparing views of a dict");
        *out = a.seq->n == b.seq->n;
        for (size_t i = 0; *out && i < a.seq->n; i++) QN_TRY(qni_j_equal(run, a.seq->items[i], b.seq->items[i], out));
        return QN_OK;
    case J_DICT:
        *out = a.dict == b.dict;
        return *out ? QN_OK : equal_dicts(run, a.dict, b.dict, out);
    case J_NONE:
    case J_UNDEFINED:
        *out = true;
        return QN_OK;
    case J_NAMESPACE:
        *out = a.space == b.space;
        return QN_OK;
    case J_FUNCTION:
        *out = a.function == b.function;
        return QN_OK;
    case J_MACRO:
        *out = a.macro == b.macro;
        return QN_OK;
    default:
        return qni_j_fail(run, QN_EUNSUPPORTED, "comparing a %s", qni_j_kind(a));
    }
}

qn_status qni_j_order(jrun *run, jval a, jval b, int *out, const char *operator_text) {
    QN_TRY(qni_j_deeper(run));
    if (are_numbers(a, b)) {
        *out = order_numbers(a, b);
        return qni_j_step(run, a.kind == J_BIG ? a.size : 0);
    }
    if (a.kind == J_STRING && b.kind == J_STRING) { /* byte order equals code point order */
        QN_TRY(qni_j_step(run, a.size));
        size_t n = a.size < b.size ? a.size : b.size;
        int c = memcmp(a.s, b.s, n);
        *out = c != 0 ? (c > 0) - (c < 0) : (a.size > b.size) - (a.size < b.size);
        return QN_OK;
    }
    if (a.kind == J_SEQ && b.kind == J_SEQ && a.seq->kind == b.seq->kind && a.seq->kind <= SEQ_TUPLE) {
        QN_TRY(qni_j_step(run, 0));
        for (size_t i = 0; i < a.seq->n && i < b.seq->n; i++) {
            bool equal;
            QN_TRY(qni_j_equal(run, a.seq->items[i], b.seq->items[i], &equal));
            if (!equal) return qni_j_order(run, a.seq->items[i], b.seq->items[i], out, operator_text);
        }
        *out = (a.seq->n > b.seq->n) - (a.seq->n < b.seq->n);
        return QN_OK;
    }
    return qni_j_fail(run, QN_EINVAL, "'%s' between a %s and a %s", operator_text, qni_j_kind(a), qni_j_kind(b));
}
