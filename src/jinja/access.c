/* SPDX-License-Identifier: Apache-2.0 */
/* Value access as in Python and Jinja's sandbox: attributes, indices, slices, iteration, membership. */
#include "ast.h"
#include "str.h"

static qn_status fail_undefined(jrun *run, jval v) {
    return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined", (int)v.size, v.s);
}

qn_status qni_j_length(jrun *run, jval v, size_t *out) {
    switch ((jkind)v.kind) {
    case J_UNDEFINED:
        *out = 0;
        return QN_OK;
    case J_STRING:
        *out = qni_j_count(v.s, v.size);
        return qni_j_step(run, v.size);
    case J_SEQ:
        if (v.seq->kind == SEQ_ITERATOR) break;
        *out = v.seq->n;
        return QN_OK;
    case J_DICT:
        *out = v.dict->n;
        return QN_OK;
    default:
        break;
    }
    return qni_j_fail(run, QN_EINVAL, "a %s has no length", qni_j_kind(v));
}

bool qni_j_iterable(jval v) {
    return v.kind == J_UNDEFINED || v.kind == J_STRING || v.kind == J_SEQ || v.kind == J_DICT || v.kind == J_LOOP;
}

static qn_status iterate_text(jrun *run, jval v, jval *out) {
    uint32_t c;
    size_t at = 0, n;
    QN_TRY(qni_j_step(run, v.size));
    QN_TRY(qni_j_seq(run, SEQ_LIST, qni_j_count(v.s, v.size), out));
    for (size_t i = 0; at < v.size; i++, at += n) {
        n = qni_j_char(v.s + at, v.size - at, &c);
        out->seq->items[i] = qni_j_part(v, at, n);
    }
    return qni_j_seq_done(run, *out);
}

qn_status qni_j_iterate(jrun *run, jval v, jseq **out) {
    jval list;
    switch ((jkind)v.kind) {
    case J_SEQ:
        *out = v.seq;
        if (v.seq->kind != SEQ_ITERATOR) return QN_OK;
        QN_TRY(qni_j_seq(run, SEQ_LIST, 0, &list)); /* the remaining items; the iterator is exhausted */
        list.seq->items = v.seq->items + v.seq->first;
        list.seq->n = v.seq->n - v.seq->first;
        v.seq->first = v.seq->n;
        break;
    case J_STRING:
        QN_TRY(iterate_text(run, v, &list));
        break;
    case J_DICT:
        QN_TRY(qni_j_seq(run, SEQ_LIST, v.dict->n, &list));
        for (size_t i = 0; i < v.dict->n; i++) list.seq->items[i] = v.dict->pairs[2 * i];
        break;
    case J_UNDEFINED:
        QN_TRY(qni_j_seq(run, SEQ_LIST, 0, &list));
        break;
    case J_LOOP:
        return qni_j_fail(run, QN_EUNSUPPORTED, "iterating over a loop");
    default:
        return qni_j_fail(run, QN_EINVAL, "a %s cannot be iterated over", qni_j_kind(v));
    }
    *out = list.seq;
    return QN_OK;
}

qn_status qni_j_contains(jrun *run, jval container, jval item, bool *out) {
    const jval *found;
    jseq *seq;
    *out = false;
    switch ((jkind)container.kind) {
    case J_STRING:
        if (item.kind != J_STRING) return qni_j_fail(run, QN_EINVAL, "a %s cannot be in a string", qni_j_kind(item));
        QN_TRY(qni_j_step(run, container.size + item.size));
        *out = qni_j_find(container, item, 0) >= 0;
        return QN_OK;
    case J_DICT:
        if (item.kind == J_DICT || (item.kind == J_SEQ && item.seq->kind == SEQ_LIST)) {
            return qni_j_fail(run, QN_EINVAL, "a %s cannot be a key", qni_j_kind(item));
        }
        QN_TRY(qni_j_dict_get(run, container.dict, item, &found));
        *out = found != NULL;
        return QN_OK;
    case J_SEQ:
        if (container.seq->kind == SEQ_ITERATOR) { /* searches until the item is found, and consumes the items seen */
            for (seq = container.seq; !*out && seq->first < seq->n; seq->first++) {
                QN_TRY(qni_j_equal(run, seq->items[seq->first], item, out));
            }
            return QN_OK;
        }
        for (size_t i = 0; !*out && i < container.seq->n; i++) {
            QN_TRY(qni_j_equal(run, container.seq->items[i], item, out));
        }
        return QN_OK;
    case J_UNDEFINED:
        return QN_OK;
    default:
        return qni_j_fail(run, QN_EINVAL, "nothing can be in a %s", qni_j_kind(container));
    }
}

/* Cost of a lookup in a table of names, in bytes of text. */
enum { LOOKUP = 256 };

/* The value's method of that name, or absent. */
static qn_status method(jrun *run, jval v, jval name, jval *out) {
    *out = (jval){.kind = J_ABSENT};
    QN_TRY(qni_j_step(run, LOOKUP));
    const jspec *spec = qni_j_methods(v) != NULL ? qni_j_find_method(qni_j_methods(v), name.s, name.size) : NULL;
    if (spec == NULL) return QN_OK;
    if (*spec->params == '!') {
        *out = qni_j_undefined(name.s, name.size);
        return QN_OK;
    }
    jbound *bound = qni_j_alloc(&run->arena, sizeof *bound);
    if (bound == NULL) return qni_j_no_memory(run);
    *bound = (jbound){v, spec};
    *out = (jval){.kind = J_METHOD, .method = bound};
    return QN_OK;
}

static bool own_attribute(jval v, jval name, jval *out) {
    if (v.kind == J_MACRO && qni_j_text_is(name, "name")) {
        *out = v.macro->def->name;
        return true;
    }
    if (v.kind != J_NAMESPACE) return false;
    for (size_t i = 0; i < v.space->n; i++) {
        jval known = v.space->pairs[2 * i];
        if (known.size != name.size || memcmp(known.s, name.s, name.size) != 0) continue;
        *out = v.space->pairs[2 * i + 1];
        return true;
    }
    return false;
}

/* Attributes of Python's types that are not implemented here; they must not silently become undefined. */
static bool unknown_attribute(jval v, jval name) {
    static const char *const numbers[] = {"real",       "imag",      "numerator",       "denominator", "conjugate",
                                          "bit_length", "bit_count", "to_bytes",        "from_bytes",  "is_integer",
                                          "hex",        "fromhex",   "as_integer_ratio"};
    static const char *const others[] = {"start",     "stop",         "step",          "mapping", "isdisjoint",
                                         "count",     "index",        "send",          "throw",   "close",
                                         "arguments", "catch_kwargs", "catch_varargs", "caller",  "fromkeys"};
    bool number = qni_j_is_number(v) || v.kind == J_BIG;
    if (!number && v.kind != J_SEQ && v.kind != J_MACRO && v.kind != J_FUNCTION && v.kind != J_METHOD) return false;
    size_t n = number ? sizeof numbers / sizeof *numbers : sizeof others / sizeof *others;
    for (size_t i = 0; i < n; i++) {
        if (qni_j_text_is(name, number ? numbers[i] : others[i])) return true;
    }
    return false;
}

static qn_status attribute_or_absent(jrun *run, jval v, jval name, jval *out) {
    if (v.kind == J_LOOP) return qni_j_loop_attribute(run, v.loop, name, out);
    if (v.kind == J_NAMESPACE) QN_TRY(qni_j_step(run, v.space->n * 4));
    if (own_attribute(v, name, out)) return QN_OK;
    QN_TRY(method(run, v, name, out));
    if (out->kind != J_ABSENT || !unknown_attribute(v, name)) return QN_OK;
    return qni_j_fail(run, QN_EUNSUPPORTED, "attribute \"%.*s\" of a %s", (int)name.size, name.s, qni_j_kind(v));
}

static qn_status index_seq(jrun *run, const jseq *seq, int64_t i, jval *out) {
    if (seq->kind > SEQ_RANGE) return QN_OK; /* views and iterators cannot be indexed */
    if (i < 0) i += (int64_t)seq->n;
    if (i >= 0 && i < (int64_t)seq->n) *out = seq->items[i];
    return qni_j_step(run, 0);
}

static qn_status index_text(jrun *run, jval v, int64_t i, jval *out) {
    int64_t n = (int64_t)qni_j_count(v.s, v.size);
    uint32_t c;
    QN_TRY(qni_j_step(run, v.size));
    if (i < 0) i += n;
    if (i < 0 || i >= n) return QN_OK;
    size_t at = qni_j_offset(v.s, v.size, (size_t)i);
    *out = qni_j_part(v, at, qni_j_char(v.s + at, v.size - at, &c));
    return QN_OK;
}

/* v[key] as in Python; absent if that fails. */
static qn_status subscript(jrun *run, jval v, jval key, jval *out) {
    int64_t i;
    const jval *found;
    *out = (jval){.kind = J_ABSENT};
    if (v.kind == J_DICT) {
        if (key.kind == J_DICT || (key.kind == J_SEQ && key.seq->kind == SEQ_LIST)) return QN_OK;
        QN_TRY(qni_j_dict_get(run, v.dict, key, &found));
        if (found != NULL) *out = *found;
        return QN_OK;
    }
    if (!qni_j_as_int(key, &i)) return QN_OK;
    if (v.kind == J_SEQ) return index_seq(run, v.seq, i, out);
    return v.kind == J_STRING ? index_text(run, v, i, out) : QN_OK;
}

qn_status qni_j_attribute(jrun *run, jval v, jval name, jval *out) {
    if (v.kind == J_UNDEFINED) return fail_undefined(run, v);
    QN_TRY(attribute_or_absent(run, v, name, out));
    if (out->kind == J_ABSENT) QN_TRY(subscript(run, v, name, out));
    if (out->kind == J_ABSENT) *out = qni_j_undefined(name.s, name.size);
    return QN_OK;
}

qn_status qni_j_item(jrun *run, jval v, jval key, jval *out) {
    if (v.kind == J_UNDEFINED) return fail_undefined(run, v);
    QN_TRY(subscript(run, v, key, out));
    if (out->kind == J_ABSENT && key.kind == J_STRING) QN_TRY(attribute_or_absent(run, v, key, out));
    if (out->kind == J_ABSENT) {
        *out =
            key.kind == J_STRING ? qni_j_undefined(key.s, key.size) : qni_j_undefined("an item that is not there", 25);
    }
    return QN_OK;
}

/* "a.b.0", as the attribute= argument of filters. */
qn_status qni_j_attribute_path(jrun *run, jval v, jval path, jval default_value, jval *out) {
    *out = v;
    if (path.kind == J_NONE || path.kind == J_ABSENT) return QN_OK;
    if (path.kind != J_STRING) return qni_j_item(run, v, path, out);
    for (size_t at = 0; at <= path.size;) {
        size_t end = at;
        bool number = true;
        int64_t index = 0;
        for (; end < path.size && path.s[end] != '.'; end++) {
            number = number && path.s[end] >= '0' && path.s[end] <= '9' && index < INT32_MAX;
            if (number) index = index * 10 + (path.s[end] - '0');
        }
        jval part = number && end > at ? qni_j_int(index) : qni_j_text(path.s + at, end - at);
        QN_TRY(qni_j_item(run, *out, part, out));
        bool has_default = default_value.kind != J_ABSENT && default_value.kind != J_NONE;
        if (has_default && out->kind == J_UNDEFINED) *out = default_value;
        at = end + 1;
    }
    return QN_OK;
}

/* Python's slice.indices(): start, count, step. */
static qn_status slice_range(jrun *run, const jval bounds[3], int64_t n, int64_t *start, int64_t *count,
                             int64_t *step) {
    int64_t stop;
    for (int i = 0; i < 3; i++) {
        int64_t unused;
        if (bounds[i].kind == J_BIG) return qni_j_fail_big(run);
        if (bounds[i].kind != J_NONE && !qni_j_as_int(bounds[i], &unused)) {
            return qni_j_fail(run, QN_EINVAL, "a slice from or to a %s", qni_j_kind(bounds[i]));
        }
    }
    if (!qni_j_as_int(bounds[2], step)) *step = 1;
    if (*step == 0) return qni_j_fail(run, QN_EINVAL, "a slice with a step of 0");
    if (*step < -INT32_MAX || *step > INT32_MAX) *step = *step < 0 ? -INT32_MAX : INT32_MAX;
    bool down = *step < 0;
    int64_t low = down ? -1 : 0, high = down ? n - 1 : n;
    if (!qni_j_as_int(bounds[0], start))
        *start = down ? high : low;
    else if (*start < 0)
        *start = *start + n < low ? low : *start + n;
    else if (*start > high)
        *start = high;
    if (!qni_j_as_int(bounds[1], &stop))
        stop = down ? low : high;
    else if (stop < 0)
        stop = stop + n < low ? low : stop + n;
    else if (stop > high)
        stop = high;
    int64_t span = down ? *start - stop : stop - *start, by = down ? -*step : *step;
    *count = span > 0 ? (span - 1) / by + 1 : 0;
    return QN_OK;
}

static qn_status slice_text(jrun *run, jval v, int64_t start, int64_t count, int64_t step, jval *out) {
    size_t at = qni_j_offset(v.s, v.size, (size_t)(start < 0 ? 0 : start));
    QN_TRY(qni_j_step(run, v.size));
    if (step == 1 || count == 0) {
        *out = qni_j_part(v, at, count > 0 ? qni_j_offset(v.s + at, v.size - at, (size_t)count) : 0);
        return QN_OK;
    }
    jbuf buf = {0};
    for (int64_t i = 0;; i++) {
        uint32_t c;
        size_t n = qni_j_char(v.s + at, v.size - at, &c);
        QN_TRY(qni_j_put_part(run, &buf, v, at, n));
        if (i == count - 1) break;
        for (int64_t k = 0; k < step; k++) at += qni_j_char(v.s + at, v.size - at, &c);
        for (int64_t k = 0; k < -step; k++) at -= qni_j_char_before(v.s, at, &c);
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

qn_status qni_j_slice(jrun *run, jval v, const jval bounds[3], jval *out) {
    int64_t start = 0, count = 0, step = 1;
    if (v.kind == J_UNDEFINED) return fail_undefined(run, v);
    bool text = v.kind == J_STRING;
    if (!text && (v.kind != J_SEQ || v.seq->kind > SEQ_RANGE)) {
        return qni_j_fail(run, QN_EINVAL, "a slice of a %s", qni_j_kind(v));
    }
    int64_t n = text ? (int64_t)qni_j_count(v.s, v.size) : (int64_t)v.seq->n;
    QN_TRY(slice_range(run, bounds, n, &start, &count, &step));
    if (text) return slice_text(run, v, start, count, step, out);
    QN_TRY(qni_j_seq(run, (jseq_kind)v.seq->kind, (size_t)count, out));
    for (int64_t i = 0; i < count; i++) out->seq->items[i] = v.seq->items[start + i * step];
    return qni_j_seq_done(run, *out);
}

static qn_status neighbor(bool exists, jval v, const char *why, jval *out) {
    *out = exists ? v : qni_j_undefined(why, strlen(why));
    return QN_OK;
}

/* Fetch the remaining items now, so that their number is known. */
static qn_status fetch_rest(jrun *run, jloop *loop) {
    if (loop->length >= 0) return QN_OK;
    if (loop->node != NULL) {
        jval rest, item;
        bool any;
        QN_TRY(qni_j_seq(run, SEQ_LIST, loop->n - loop->at, &rest));
        size_t n = 0;
        for (;;) {
            QN_TRY(qni_j_loop_fetch(run, loop, &any, &item));
            if (!any) break;
            rest.seq->items[n++] = item;
        }
        loop->items = rest.seq->items;
        loop->at = 0;
        loop->n = n;
        loop->node = NULL;
    }
    loop->length = loop->index0 + 1 + (loop->peeked ? 1 : 0) + (int64_t)(loop->n - loop->at);
    return QN_OK;
}

static qn_status peek(jrun *run, jloop *loop) {
    if (loop->peeked) return QN_OK;
    return qni_j_loop_fetch(run, loop, &loop->peeked, &loop->after);
}

qn_status qni_j_loop_attribute(jrun *run, jloop *loop, jval name, jval *out) {
    static const char *const numbers[] = {"index0", "index", "depth0", "depth"};
    int64_t values[] = {loop->index0, loop->index0 + 1, 0, 1};
    for (int i = 0; i < 4; i++) {
        if (!qni_j_text_is(name, numbers[i])) continue;
        *out = qni_j_int(values[i]);
        return QN_OK;
    }
    if (qni_j_text_is(name, "first")) {
        *out = qni_j_bool(loop->index0 == 0);
    } else if (qni_j_text_is(name, "last")) {
        QN_TRY(peek(run, loop));
        *out = qni_j_bool(!loop->peeked);
    } else if (qni_j_text_is(name, "nextitem")) {
        QN_TRY(peek(run, loop));
        return neighbor(loop->peeked, loop->after, "the next item", out);
    } else if (qni_j_text_is(name, "previtem")) {
        return neighbor(loop->has_before, loop->before, "the previous item", out);
    } else if (qni_j_text_is(name, "length")) {
        QN_TRY(fetch_rest(run, loop));
        *out = qni_j_int(loop->length);
    } else if (qni_j_text_is(name, "revindex") || qni_j_text_is(name, "revindex0")) {
        QN_TRY(fetch_rest(run, loop));
        *out = qni_j_int(loop->length - loop->index0 - (name.size == 9 ? 1 : 0));
    } else {
        return method(run, (jval){.kind = J_LOOP, .loop = loop}, name, out);
    }
    return QN_OK;
}
