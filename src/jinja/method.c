/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of Python's str, dict and list, and of Jinja's loop. Methods that change a list or dict are missing, as in
 * the immutable sandbox. Entries without a function exist in Python and are refused when called. */
#include "../base/memory.h"
#include "ast.h"
#include "str.h"

static qn_status want_text(jrun *run, jval v, const char *where) {
    if (v.kind == J_STRING) return QN_OK;
    if (v.kind == J_UNDEFINED) return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined", (int)v.size, v.s);
    return qni_j_fail(run, QN_EINVAL, "%s() takes a string, got a %s", where, qni_j_kind(v));
}

static qn_status want_int(jrun *run, jval v, int64_t standard, int64_t *out, const char *where) {
    *out = standard;
    if (v.kind == J_ABSENT || qni_j_as_int(v, out)) return QN_OK;
    return qni_j_fail(run, QN_EINVAL, "%s() takes an integer, got a %s", where, qni_j_kind(v));
}

/* s[start:end], and its offset; *there is false if start is beyond the end. */
static qn_status part(jrun *run, jval s, const jval *bounds, jval *out, size_t *offset, bool *there) {
    jval slice[3] = {bounds[0], bounds[1], qni_j_none()};
    int64_t start = 0;
    for (int i = 0; i < 2; i++) {
        if (slice[i].kind == J_ABSENT) slice[i] = qni_j_none();
    }
    *there = !qni_j_as_int(slice[0], &start) || start <= (int64_t)qni_j_count(s.s, s.size);
    QN_TRY(qni_j_slice(run, s, slice, out));
    *offset = (size_t)(out->s - s.s);
    return QN_OK;
}

static qn_status affix(jrun *run, jval self, const jval *arg, jval *out, bool end) {
    jval one = arg[0], text;
    jval *items = &one;
    size_t n = 1, offset;
    bool there;
    if (one.kind == J_SEQ && one.seq->kind == SEQ_TUPLE) {
        items = one.seq->items;
        n = one.seq->n;
    }
    QN_TRY(part(run, self, arg + 1, &text, &offset, &there));
    *out = qni_j_bool(false);
    for (size_t i = 0; i < n; i++) {
        QN_TRY(want_text(run, items[i], end ? "endswith" : "startswith"));
        QN_TRY(qni_j_step(run, items[i].size));
        bool fits = there && items[i].size <= text.size;
        if (fits && memcmp(text.s + (end ? text.size - items[i].size : 0), items[i].s, items[i].size) == 0)
            *out = qni_j_bool(true);
    }
    return QN_OK;
}

static qn_status str_startswith(jrun *run, jval self, const jval *arg, jval *out) {
    return affix(run, self, arg, out, false);
}

static qn_status str_endswith(jrun *run, jval self, const jval *arg, jval *out) {
    return affix(run, self, arg, out, true);
}

static qn_status strip(jrun *run, jval self, jval chars, jval *out, int sides) {
    bool given = chars.kind != J_ABSENT && chars.kind != J_NONE;
    if (given) QN_TRY(want_text(run, chars, "strip"));
    if (given && chars.size > 1024) return qni_j_fail(run, QN_EUNSUPPORTED, "strip() of more than 1024 characters");
    *out = qni_j_strip(self, given ? &chars : NULL, sides);
    return qni_j_step(run, (self.size - out->size) * (given ? 64 + 4 * chars.size : 4));
}

static qn_status str_strip(jrun *run, jval self, const jval *arg, jval *out) {
    return strip(run, self, arg[0], out, 3);
}

static qn_status str_lstrip(jrun *run, jval self, const jval *arg, jval *out) {
    return strip(run, self, arg[0], out, 1);
}

static qn_status str_rstrip(jrun *run, jval self, const jval *arg, jval *out) {
    return strip(run, self, arg[0], out, 2);
}

/* Append to a list; doubling bounds the memory wasted in the arena. */
static qn_status append(jrun *run, jval *list, size_t *capacity, jval item) {
    jseq *seq = list->seq;
    if (seq->n == *capacity) {
        jval grown;
        size_t n = seq->n;
        QN_TRY(qni_j_seq(run, SEQ_LIST, n < 8 ? 8 : 2 * n, &grown));
        if (n > 0) memcpy(grown.seq->items, seq->items, n * sizeof item);
        *capacity = grown.seq->n;
        seq->items = grown.seq->items;
    }
    seq->items[seq->n++] = item;
    return qni_j_step(run, 0);
}

/* Python's split() without a separator: at runs of white space. */
static qn_status split_words(jrun *run, jval s, int64_t most, bool right, jval *out) {
    size_t capacity = 0;
    uint32_t c;
    int side = right ? 2 : 1;
    for (s = qni_j_strip(s, NULL, side); s.size > 0; s = qni_j_strip(s, NULL, side)) {
        jval word;
        size_t at = right ? s.size : 0;
        if (most-- == 0) {
            QN_TRY(append(run, out, &capacity, qni_j_strip(s, NULL, 3 - side)));
            break;
        }
        while (right ? at > 0 : at < s.size) {
            size_t n = right ? qni_j_char_before(s.s, at, &c) : qni_j_char(s.s + at, s.size - at, &c);
            if (qni_j_is_space(c)) break;
            at = right ? at - n : at + n;
        }
        jval before = qni_j_part(s, 0, at), behind = qni_j_part(s, at, s.size - at);
        word = right ? behind : before;
        s = right ? before : behind;
        QN_TRY(append(run, out, &capacity, word));
    }
    return QN_OK;
}

static qn_status split_at(jrun *run, jval s, jval separator, int64_t most, bool right, jval *out) {
    size_t capacity = 0;
    for (;;) {
        int64_t at = most-- == 0 ? -1 : right ? qni_j_rfind(s, separator) : qni_j_find(s, separator, 0);
        if (at < 0) return append(run, out, &capacity, s);
        jval before = qni_j_part(s, 0, (size_t)at);
        size_t after = (size_t)at + separator.size;
        jval behind = qni_j_part(s, after, s.size - after);
        QN_TRY(append(run, out, &capacity, right ? behind : before));
        s = right ? before : behind;
    }
}

/* A search from the right compares at every position. */
static qn_status charge_search(jrun *run, jval s, jval needle, bool right) {
    size_t work = s.size;
    if (right && needle.kind == J_STRING && !qni_mul_size(&work, s.size, needle.size / 16 + 1)) work = SIZE_MAX / 2;
    return qni_j_step(run, work);
}

static qn_status split(jrun *run, jval self, const jval *arg, jval *out, bool right) {
    int64_t most;
    QN_TRY(want_int(run, arg[1], -1, &most, "split"));
    QN_TRY(charge_search(run, self, arg[0], right));
    QN_TRY(qni_j_seq(run, SEQ_LIST, 0, out));
    if (arg[0].kind == J_ABSENT || arg[0].kind == J_NONE) {
        QN_TRY(split_words(run, self, most, right, out));
    } else {
        QN_TRY(want_text(run, arg[0], "split"));
        if (arg[0].size == 0) return qni_j_fail(run, QN_EINVAL, "split() with an empty separator");
        QN_TRY(split_at(run, self, arg[0], most, right, out));
    }
    for (size_t i = 0, n = out->seq->n; right && i < n / 2; i++) { /* reverse: found from the right */
        jval v = out->seq->items[i];
        out->seq->items[i] = out->seq->items[n - 1 - i];
        out->seq->items[n - 1 - i] = v;
    }
    return QN_OK;
}

static qn_status str_split(jrun *run, jval self, const jval *arg, jval *out) {
    return split(run, self, arg, out, false);
}

static qn_status str_rsplit(jrun *run, jval self, const jval *arg, jval *out) {
    return split(run, self, arg, out, true);
}

static qn_status str_splitlines(jrun *run, jval self, const jval *arg, jval *out) {
    size_t capacity = 0, start = 0;
    uint32_t c;
    bool keep = qni_j_truth(arg[0]);
    QN_TRY(qni_j_step(run, self.size * 8));
    QN_TRY(qni_j_seq(run, SEQ_LIST, 0, out));
    for (size_t at = 0; at < self.size;) {
        size_t end = qni_j_line_end(self.s + at, self.size - at);
        if (end == 0) {
            at += qni_j_char(self.s + at, self.size - at, &c);
            continue;
        }
        QN_TRY(append(run, out, &capacity, qni_j_part(self, start, at - start + (keep ? end : 0))));
        start = at += end;
    }
    return start < self.size ? append(run, out, &capacity, qni_j_part(self, start, self.size - start)) : QN_OK;
}

qn_status qni_j_replace(jrun *run, jval s, jval from, jval to, int64_t most, jval *out) {
    jbuf buf = {0};
    size_t at = 0;
    QN_TRY(qni_j_step(run, s.size));
    while (most != 0) {
        if (from.size == 0) { /* before each character, and at the end */
            uint32_t c;
            QN_TRY(qni_j_put_text(run, &buf, to));
            if (at == s.size) break;
            size_t n = qni_j_char(s.s + at, s.size - at, &c);
            QN_TRY(qni_j_put_part(run, &buf, s, at, n));
            at += n;
        } else {
            int64_t found = qni_j_find(s, from, at);
            if (found < 0) break;
            QN_TRY(qni_j_put_part(run, &buf, s, at, (size_t)found - at));
            QN_TRY(qni_j_put_text(run, &buf, to));
            at = (size_t)found + from.size;
        }
        if (most > 0) most--;
    }
    QN_TRY(qni_j_put_part(run, &buf, s, at, s.size - at));
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status str_replace(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t most;
    QN_TRY(want_text(run, arg[0], "replace"));
    QN_TRY(want_text(run, arg[1], "replace"));
    QN_TRY(want_int(run, arg[2], -1, &most, "replace"));
    return qni_j_replace(run, self, arg[0], arg[1], most, out);
}

static qn_status str_upper(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_recase(run, self, CASE_UPPER, out);
}

static qn_status str_lower(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_recase(run, self, CASE_LOWER, out);
}

static qn_status str_title(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_recase(run, self, CASE_TITLE, out);
}

static qn_status str_capitalize(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_recase(run, self, CASE_CAPITALIZE, out);
}

static qn_status search(jrun *run, jval self, const jval *arg, jval *out, bool right, bool must) {
    jval text;
    size_t offset;
    bool there;
    QN_TRY(want_text(run, arg[0], "find"));
    QN_TRY(part(run, self, arg + 1, &text, &offset, &there));
    QN_TRY(charge_search(run, self, arg[0], right));
    int64_t at = !there ? -1 : right ? qni_j_rfind(text, arg[0]) : qni_j_find(text, arg[0], 0);
    if (at < 0 && must) return qni_j_fail(run, QN_EINVAL, "index(): the text is not there");
    *out = qni_j_int(at < 0 ? -1 : (int64_t)qni_j_count(self.s, offset + (size_t)at));
    return QN_OK;
}

static qn_status str_find(jrun *run, jval self, const jval *arg, jval *out) {
    return search(run, self, arg, out, false, false);
}

static qn_status str_rfind(jrun *run, jval self, const jval *arg, jval *out) {
    return search(run, self, arg, out, true, false);
}

static qn_status str_index(jrun *run, jval self, const jval *arg, jval *out) {
    return search(run, self, arg, out, false, true);
}

static qn_status str_rindex(jrun *run, jval self, const jval *arg, jval *out) {
    return search(run, self, arg, out, true, true);
}

static qn_status str_count(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    size_t offset, n = 0;
    bool there;
    QN_TRY(want_text(run, arg[0], "count"));
    QN_TRY(part(run, self, arg + 1, &text, &offset, &there));
    QN_TRY(qni_j_step(run, self.size));
    if (arg[0].size == 0) {
        n = there ? qni_j_count(text.s, text.size) + 1 : 0;
    } else {
        for (int64_t at = 0; there && (at = qni_j_find(text, arg[0], (size_t)at)) >= 0; at += (int64_t)arg[0].size) {
            QN_TRY(qni_j_step(run, 0));
            n++;
        }
    }
    *out = qni_j_int((int64_t)n);
    return QN_OK;
}

static qn_status str_join(jrun *run, jval self, const jval *arg, jval *out) {
    jseq *seq;
    jbuf buf = {0};
    QN_TRY(qni_j_iterate(run, arg[0], &seq));
    for (size_t i = seq->first; i < seq->n; i++) {
        QN_TRY(want_text(run, seq->items[i], "join"));
        if (i > seq->first) QN_TRY(qni_j_put_text(run, &buf, self));
        QN_TRY(qni_j_put_text(run, &buf, seq->items[i]));
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status all_in(jrun *run, jval self, jclass c, bool empty, jval *out) {
    bool all = self.size > 0 || empty;
    QN_TRY(qni_j_step(run, self.size * 32));
    for (size_t at = 0; all && at < self.size;) {
        uint32_t point;
        at += qni_j_char(self.s + at, self.size - at, &point);
        all = qni_j_in_class(point, c);
    }
    *out = qni_j_bool(all);
    return QN_OK;
}

#define CLASS_METHOD(name, class, empty)                                                                               \
    static qn_status name(jrun *run, jval self, const jval *arg, jval *out) {                                          \
        (void)arg;                                                                                                     \
        return all_in(run, self, class, empty, out);                                                                   \
    }
CLASS_METHOD(str_isalpha, CLASS_ALPHA, false)
CLASS_METHOD(str_isdecimal, CLASS_DECIMAL, false)
CLASS_METHOD(str_isdigit, CLASS_DIGIT, false)
CLASS_METHOD(str_isnumeric, CLASS_NUMERIC, false)
CLASS_METHOD(str_isalnum, CLASS_ALNUM, false)
CLASS_METHOD(str_isspace, CLASS_SPACE, false)
CLASS_METHOD(str_isprintable, CLASS_PRINTABLE, true)
CLASS_METHOD(str_isascii, CLASS_ASCII, true)
#undef CLASS_METHOD

/* At least one cased character, and all cased characters of this case. */
qn_status qni_j_is_case(jrun *run, jval s, int which, jval *out) {
    bool any = false, all = true;
    QN_TRY(qni_j_step(run, s.size * 32));
    for (size_t at = 0; all && at < s.size;) {
        uint32_t c;
        at += qni_j_char(s.s + at, s.size - at, &c);
        int found = qni_j_case_of(c);
        any = any || found == which;
        all = found == 0 || found == which;
    }
    *out = qni_j_bool(any && all);
    return QN_OK;
}

static qn_status str_isupper(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_is_case(run, self, 1, out);
}

static qn_status str_islower(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_is_case(run, self, 2, out);
}

static qn_status str_isidentifier(jrun *run, jval self, const jval *arg, jval *out) {
    uint32_t first;
    (void)arg;
    QN_TRY(all_in(run, self, CLASS_NAME, false, out));
    if (!out->b) return QN_OK;
    qni_j_char(self.s, self.size, &first);
    *out = qni_j_bool(qni_j_in_class(first, CLASS_NAME_START));
    return QN_OK;
}

/* Uppercase only at the start of a word, lowercase only within one. */
static qn_status str_istitle(jrun *run, jval self, const jval *arg, jval *out) {
    bool any = false, fits = true, inside = false;
    (void)arg;
    QN_TRY(qni_j_step(run, self.size * 32));
    for (size_t at = 0; fits && at < self.size;) {
        uint32_t c;
        at += qni_j_char(self.s + at, self.size - at, &c);
        int found = qni_j_case_of(c);
        if (found != 0) fits = (found == 2) == inside;
        inside = found != 0;
        any = any || inside;
    }
    *out = qni_j_bool(any && fits);
    return QN_OK;
}

static qn_status str_removeprefix(jrun *run, jval self, const jval *arg, jval *out) {
    QN_TRY(want_text(run, arg[0], "removeprefix"));
    QN_TRY(qni_j_step(run, arg[0].size));
    *out = self;
    if (arg[0].size > self.size || memcmp(self.s, arg[0].s, arg[0].size) != 0) return QN_OK;
    *out = qni_j_part(self, arg[0].size, self.size - arg[0].size);
    return QN_OK;
}

static qn_status str_removesuffix(jrun *run, jval self, const jval *arg, jval *out) {
    QN_TRY(want_text(run, arg[0], "removesuffix"));
    QN_TRY(qni_j_step(run, arg[0].size));
    *out = self;
    if (arg[0].size > self.size || memcmp(self.s + self.size - arg[0].size, arg[0].s, arg[0].size) != 0) return QN_OK;
    *out = qni_j_part(self, 0, self.size - arg[0].size);
    return QN_OK;
}

static qn_status partition(jrun *run, jval self, jval separator, jval *out, bool right) {
    QN_TRY(want_text(run, separator, "partition"));
    if (separator.size == 0) return qni_j_fail(run, QN_EINVAL, "partition() with an empty separator");
    QN_TRY(charge_search(run, self, separator, right));
    QN_TRY(qni_j_seq(run, SEQ_TUPLE, 3, out));
    jval *items = out->seq->items;
    int64_t at = right ? qni_j_rfind(self, separator) : qni_j_find(self, separator, 0);
    items[0] = items[1] = items[2] = qni_j_literal("");
    if (at < 0) {
        items[right ? 2 : 0] = self;
        return QN_OK;
    }
    size_t after = (size_t)at + separator.size;
    items[0] = qni_j_part(self, 0, (size_t)at);
    items[1] = qni_j_part(self, (size_t)at, separator.size); /* a part of the text, so that it keeps its mark */
    items[2] = qni_j_part(self, after, self.size - after);
    return QN_OK;
}

static qn_status str_partition(jrun *run, jval self, const jval *arg, jval *out) {
    return partition(run, self, arg[0], out, false);
}

static qn_status str_rpartition(jrun *run, jval self, const jval *arg, jval *out) {
    return partition(run, self, arg[0], out, true);
}

static const jspec str_methods[] = {
    {"startswith", "0 1 2", 1, str_startswith},
    {"endswith", "0 1 2", 1, str_endswith},
    {"strip", "0", 0, str_strip},
    {"lstrip", "0", 0, str_lstrip},
    {"rstrip", "0", 0, str_rstrip},
    {"split", "sep maxsplit", 0, str_split},
    {"rsplit", "sep maxsplit", 0, str_rsplit},
    {"splitlines", "keepends", 0, str_splitlines},
    {"replace", "0 1 2", 2, str_replace},
    {"upper", "", 0, str_upper},
    {"lower", "", 0, str_lower},
    {"title", "", 0, str_title},
    {"capitalize", "", 0, str_capitalize},
    {"find", "0 1 2", 1, str_find},
    {"rfind", "0 1 2", 1, str_rfind},
    {"index", "0 1 2", 1, str_index},
    {"rindex", "0 1 2", 1, str_rindex},
    {"count", "0 1 2", 1, str_count},
    {"join", "0", 1, str_join},
    {"isalpha", "", 0, str_isalpha},
    {"isdecimal", "", 0, str_isdecimal},
    {"isdigit", "", 0, str_isdigit},
    {"isnumeric", "", 0, str_isnumeric},
    {"isalnum", "", 0, str_isalnum},
    {"isspace", "", 0, str_isspace},
    {"isprintable", "", 0, str_isprintable},
    {"isupper", "", 0, str_isupper},
    {"islower", "", 0, str_islower},
    {"istitle", "", 0, str_istitle},
    {"isascii", "", 0, str_isascii},
    {"isidentifier", "", 0, str_isidentifier},
    {"removeprefix", "0", 1, str_removeprefix},
    {"removesuffix", "0", 1, str_removesuffix},
    {"partition", "0", 1, str_partition},
    {"rpartition", "0", 1, str_rpartition},
    {"casefold", "*", 0, NULL},
    {"center", "*", 0, NULL},
    {"encode", "*", 0, NULL},
    {"expandtabs", "*", 0, NULL},
    {"format", "*", 0, qni_j_str_format},
    {"format_map", "*", 0, NULL},
    {"ljust", "*", 0, NULL},
    {"maketrans", "*", 0, NULL},
    {"rjust", "*", 0, NULL},
    {"swapcase", "*", 0, NULL},
    {"translate", "*", 0, NULL},
    {"zfill", "*", 0, NULL},
    {NULL, NULL, 0, NULL},
};

static qn_status dict_get(jrun *run, jval self, const jval *arg, jval *out) {
    const jval *found;
    if (arg[0].kind == J_DICT || (arg[0].kind == J_SEQ && arg[0].seq->kind == SEQ_LIST)) {
        return qni_j_fail(run, QN_EINVAL, "a %s cannot be a key", qni_j_kind(arg[0]));
    }
    QN_TRY(qni_j_dict_get(run, self.dict, arg[0], &found));
    *out = found != NULL ? *found : arg[1].kind != J_ABSENT ? arg[1] : qni_j_none();
    return QN_OK;
}

qn_status qni_j_dict_view(jrun *run, jval dict, jseq_kind kind, jval *out) {
    QN_TRY(qni_j_seq(run, kind, dict.dict->n, out));
    for (size_t i = 0; i < dict.dict->n; i++) {
        const jval *pair = &dict.dict->pairs[2 * i];
        jval *item = &out->seq->items[i];
        *item = pair[kind == SEQ_VALUES ? 1 : 0];
        if (kind == SEQ_KEYS || kind == SEQ_VALUES) continue;
        QN_TRY(qni_j_seq(run, SEQ_TUPLE, 2, item));
        memcpy(item->seq->items, pair, 2 * sizeof *pair);
        QN_TRY(qni_j_seq_done(run, *item));
    }
    return qni_j_seq_done(run, *out);
}

static qn_status dict_items(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_dict_view(run, self, SEQ_ITEMS, out);
}

static qn_status dict_keys(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_dict_view(run, self, SEQ_KEYS, out);
}

static qn_status dict_values(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    return qni_j_dict_view(run, self, SEQ_VALUES, out);
}

static qn_status copy(jrun *run, jval self, const jval *arg, jval *out) {
    (void)run;
    (void)arg;
    *out = self; /* it is immutable */
    return QN_OK;
}

/* "!": the sandbox shows these as undefined, even if the dict has a key of that name. */
static const jspec dict_methods[] = {
    {"get", "0 1", 1, dict_get},    {"items", "", 0, dict_items}, {"keys", "", 0, dict_keys},
    {"values", "", 0, dict_values}, {"copy", "", 0, copy},        {"fromkeys", "*", 0, NULL},
    {"clear", "!", 0, NULL},        {"pop", "!", 0, NULL},        {"popitem", "!", 0, NULL},
    {"setdefault", "!", 0, NULL},   {"update", "!", 0, NULL},     {NULL, NULL, 0, NULL},
};

static qn_status list_count(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t n = 0;
    for (size_t i = 0; i < self.seq->n; i++) {
        bool equal;
        QN_TRY(qni_j_equal(run, self.seq->items[i], arg[0], &equal));
        n += equal;
    }
    *out = qni_j_int(n);
    return QN_OK;
}

static qn_status list_index(jrun *run, jval self, const jval *arg, jval *out) {
    for (size_t i = 0; i < self.seq->n; i++) {
        bool equal;
        QN_TRY(qni_j_equal(run, self.seq->items[i], arg[0], &equal));
        *out = qni_j_int((int64_t)i);
        if (equal) return QN_OK;
    }
    return qni_j_fail(run, QN_EINVAL, "index(): the item is not in the list");
}

static const jspec list_methods[] = {
    {"count", "0", 1, list_count},
    {"index", "0", 1, list_index},
    {"copy", "", 0, copy},
    {NULL, NULL, 0, NULL},
};

static qn_status loop_cycle(jrun *run, jval self, const jval *arg, jval *out) {
    const jseq *items = arg[0].seq;
    if (items->n == 0) return qni_j_fail(run, QN_EINVAL, "loop.cycle() of nothing");
    *out = items->items[(size_t)self.loop->index0 % items->n];
    return QN_OK;
}

static qn_status loop_changed(jrun *run, jval self, const jval *arg, jval *out) {
    bool same = self.loop->has_changed;
    if (same) QN_TRY(qni_j_equal(run, self.loop->changed, arg[0], &same));
    self.loop->has_changed = true;
    self.loop->changed = arg[0];
    *out = qni_j_bool(!same);
    return QN_OK;
}

static const jspec loop_methods[] = {
    {"cycle", "*", 0, loop_cycle},
    {"changed", "*", 0, loop_changed},
    {NULL, NULL, 0, NULL},
};

bool qni_j_is_refused_method(const char *name, size_t size) {
    static const jspec *const all[] = {str_methods, dict_methods, list_methods, loop_methods};
    bool refused = false;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const jspec *spec = qni_j_find_method(all[i], name, size);
        if (spec == NULL) continue;
        if (spec->call != NULL || *spec->params == '!') return false;
        refused = true;
    }
    return refused;
}

const jspec *qni_j_methods(jval v) {
    if (v.kind == J_STRING) return str_methods;
    if (v.kind == J_DICT) return dict_methods;
    if (v.kind == J_LOOP) return loop_methods;
    return v.kind == J_SEQ && v.seq->kind <= SEQ_TUPLE ? list_methods : NULL;
}
