/* SPDX-License-Identifier: Apache-2.0 */
/* Filters on sequences: select, map, sort, join. */
#include "filter.h"
#include "str.h"

static qn_status items_of(jrun *run, jval v, jval **items, size_t *n) {
    jseq *seq;
    QN_TRY(qni_j_iterate(run, v, &seq));
    *items = seq->items + seq->first;
    *n = seq->n - seq->first;
    return QN_OK;
}

static qn_status do_join(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items, separator = qni_j_literal(""), item;
    size_t n;
    jbuf buf = {0};
    if (arg[0].kind != J_ABSENT) QN_TRY(qni_j_str(run, arg[0], &separator));
    QN_TRY(items_of(run, self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        QN_TRY(qni_j_attribute_path(run, items[i], arg[1], qni_j_none(), &item));
        if (i > 0) QN_TRY(qni_j_put_text(run, &buf, separator));
        QN_TRY(qni_j_put_str(run, &buf, item, false));
    }
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static qn_status do_first(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items;
    size_t n;
    (void)arg;
    if (self.kind == J_SEQ && self.seq->kind == SEQ_ITERATOR) { /* consumes one item and leaves the others */
        bool any = self.seq->first < self.seq->n;
        *out = any ? self.seq->items[self.seq->first++] : qni_j_undefined("the first item", 14);
        return QN_OK;
    }
    QN_TRY(items_of(run, self, &items, &n));
    *out = n > 0 ? items[0] : qni_j_undefined("the first item", 14);
    return QN_OK;
}

static qn_status do_last(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items;
    size_t n;
    (void)arg;
    bool one_way = self.kind == J_SEQ && self.seq->kind == SEQ_ITERATOR;
    if (one_way) return qni_j_fail(run, QN_EINVAL, "a %s has no last item", qni_j_kind(self));
    QN_TRY(items_of(run, self, &items, &n));
    *out = n > 0 ? items[n - 1] : qni_j_undefined("the last item", 13);
    return QN_OK;
}

static qn_status new_list(jrun *run, jseq_kind kind, const jval *items, size_t n, jval *out) {
    QN_TRY(qni_j_seq(run, kind, n, out));
    if (n > 0) memcpy(out->seq->items, items, n * sizeof *items);
    return qni_j_seq_done(run, *out);
}

static qn_status do_list(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items;
    size_t n;
    (void)arg;
    QN_TRY(items_of(run, self, &items, &n));
    return new_list(run, SEQ_LIST, items, n, out);
}

static qn_status do_items(jrun *run, jval self, const jval *arg, jval *out) {
    (void)arg;
    if (self.kind == J_UNDEFINED) return qni_j_seq(run, SEQ_ITERATOR, 0, out);
    if (self.kind != J_DICT) return qni_j_fail(run, QN_EINVAL, "a %s has no pairs", qni_j_kind(self));
    QN_TRY(qni_j_dict_view(run, self, SEQ_ITEMS, out));
    out->seq->kind = SEQ_ITERATOR;
    return QN_OK;
}

static qn_status do_reverse(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items, bounds[3] = {qni_j_none(), qni_j_none(), qni_j_int(-1)};
    size_t n;
    (void)arg;
    if (self.kind == J_STRING) return qni_j_slice(run, self, bounds, out);
    /* reversed() of an ordered value; for an iterator, a reversed list */
    jseq_kind kind = self.kind == J_SEQ && self.seq->kind == SEQ_ITERATOR ? SEQ_LIST : SEQ_ITERATOR;
    QN_TRY(items_of(run, self, &items, &n));
    QN_TRY(qni_j_seq(run, kind, n, out));
    for (size_t i = 0; i < n; i++) out->seq->items[i] = items[n - 1 - i];
    return qni_j_seq_done(run, *out);
}

/* map('filter', …) or map(attribute=…, default=…) */
static qn_status do_map(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items;
    size_t n;
    const jval *path = NULL, *standard = NULL;
    if (!qni_j_truth(self)) return qni_j_seq(run, SEQ_ITERATOR, 0, out);
    QN_TRY(items_of(run, self, &items, &n));
    QN_TRY(qni_j_seq(run, SEQ_ITERATOR, n, out));
    if (arg[0].seq->n == 0) {
        QN_TRY(qni_j_dict_get(run, arg[1].dict, qni_j_literal("attribute"), &path));
        QN_TRY(qni_j_dict_get(run, arg[1].dict, qni_j_literal("default"), &standard));
        if (path == NULL || arg[1].dict->n != 1 + (standard != NULL))
            return qni_j_fail(run, QN_EINVAL, "map needs a filter or an attribute");
    }
    for (size_t i = 0; i < n; i++) {
        jval *to = &out->seq->items[i];
        if (path != NULL) {
            QN_TRY(qni_j_attribute_path(run, items[i], *path, standard != NULL ? *standard : qni_j_none(), to));
        } else {
            QN_TRY(qni_j_run_named(run, false, arg[0].seq->items[0], items[i], arg[0], 1, arg[1], to));
        }
    }
    return qni_j_seq_done(run, *out);
}

static qn_status choose(jrun *run, jval self, const jval *arg, bool by_attribute, bool want, jval *out) {
    jval *items, v;
    size_t n, offset = by_attribute ? 1 : 0, kept = 0;
    if (!qni_j_truth(self)) return qni_j_seq(run, SEQ_ITERATOR, 0, out);
    QN_TRY(items_of(run, self, &items, &n));
    if (arg[0].seq->n < offset) return qni_j_fail(run, QN_EINVAL, "the name of the attribute is missing");
    QN_TRY(qni_j_seq(run, SEQ_ITERATOR, n, out));
    for (size_t i = 0; i < n; i++) {
        v = items[i];
        QN_TRY(qni_j_step(run, 0));
        if (by_attribute) QN_TRY(qni_j_attribute_path(run, v, arg[0].seq->items[0], qni_j_none(), &v));
        if (arg[0].seq->n > offset) {
            QN_TRY(qni_j_run_named(run, true, arg[0].seq->items[offset], v, arg[0], offset + 1, arg[1], &v));
        }
        if (qni_j_truth(v) == want) out->seq->items[kept++] = items[i];
    }
    out->seq->n = kept;
    return qni_j_seq_done(run, *out);
}

static qn_status do_select(jrun *run, jval self, const jval *arg, jval *out) {
    return choose(run, self, arg, false, true, out);
}

static qn_status do_reject(jrun *run, jval self, const jval *arg, jval *out) {
    return choose(run, self, arg, false, false, out);
}

static qn_status do_selectattr(jrun *run, jval self, const jval *arg, jval *out) {
    return choose(run, self, arg, true, true, out);
}

static qn_status do_rejectattr(jrun *run, jval self, const jval *arg, jval *out) {
    return choose(run, self, arg, true, false, out);
}

/* The sort key of an item: an attribute or the item itself, in lowercase unless case-sensitive. */
static qn_status key_of(jrun *run, jval item, jval path, bool case_sensitive, jval *out) {
    QN_TRY(qni_j_attribute_path(run, item, path, qni_j_none(), out));
    if (case_sensitive || out->kind != J_STRING) return QN_OK;
    return qni_j_recase(run, *out, CASE_LOWER, out);
}

/* Stable merge sort of positions by key; `spare` has the same length. */
static qn_status sort_positions(jrun *run, const jval *keys, size_t *at, size_t *spare, size_t n, bool reverse) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t middle = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            size_t a = low, b = middle;
            for (size_t to = low; to < high; to++) {
                bool right = a == middle;
                if (a < middle && b < high) {
                    int c;
                    QN_TRY(qni_j_order(run, keys[at[b]], keys[at[a]], &c, "<"));
                    right = reverse ? c == 1 : c == -1;
                }
                spare[to] = right ? at[b++] : at[a++];
            }
        }
        memcpy(at, spare, n * sizeof *at);
    }
    return QN_OK;
}

static qn_status sorted(jrun *run, const jval *items, const jval *keys, size_t n, bool reverse, jval *out) {
    size_t *at = qni_j_alloc(&run->arena, 2 * n * sizeof *at); /* n items were allocated: no overflow */
    if (at == NULL) return qni_j_no_memory(run);
    for (size_t i = 0; i < n; i++) at[i] = i;
    QN_TRY(sort_positions(run, keys, at, at + n, n, reverse));
    QN_TRY(qni_j_seq(run, SEQ_LIST, n, out));
    for (size_t i = 0; i < n; i++) out->seq->items[i] = items[at[i]];
    return qni_j_seq_done(run, *out);
}

static qn_status keys_of(jrun *run, const jval *items, size_t n, jval path, bool case_sensitive, jval *keys) {
    QN_TRY(qni_j_seq(run, SEQ_LIST, n, keys));
    for (size_t i = 0; i < n; i++) QN_TRY(key_of(run, items[i], path, case_sensitive, &keys->seq->items[i]));
    return QN_OK;
}

static qn_status do_sort(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items, keys;
    size_t n;
    if (arg[2].kind == J_STRING && memchr(arg[2].s, ',', arg[2].size) != NULL) {
        return qni_j_fail(run, QN_EUNSUPPORTED, "sort by several attributes");
    }
    QN_TRY(items_of(run, self, &items, &n));
    QN_TRY(keys_of(run, items, n, arg[2], qni_j_truth(arg[1]), &keys));
    return sorted(run, items, keys.seq->items, n, qni_j_truth(arg[0]), out);
}

static qn_status do_dictsort(jrun *run, jval self, const jval *arg, jval *out) {
    jval pairs, keys;
    bool by_value = qni_j_text_is(arg[1], "value");
    if (arg[1].kind != J_ABSENT && !by_value && !qni_j_text_is(arg[1], "key"))
        return qni_j_fail(run, QN_EINVAL, "dictsort by neither key nor value");
    if (self.kind != J_DICT) return qni_j_fail(run, QN_EINVAL, "dictsort of a %s", qni_j_kind(self));
    QN_TRY(qni_j_dict_view(run, self, SEQ_ITEMS, &pairs));
    QN_TRY(keys_of(run, pairs.seq->items, pairs.seq->n, qni_j_int(by_value), qni_j_truth(arg[0]), &keys));
    return sorted(run, pairs.seq->items, keys.seq->items, pairs.seq->n, qni_j_truth(arg[2]), out);
}

static qn_status do_unique(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items, seen, key;
    size_t n, kept = 0;
    QN_TRY(items_of(run, self, &items, &n));
    QN_TRY(qni_j_dict(run, n, &seen));
    QN_TRY(qni_j_seq(run, SEQ_ITERATOR, n, out));
    for (size_t i = 0; i < n; i++) {
        QN_TRY(key_of(run, items[i], arg[1], qni_j_truth(arg[0]), &key));
        QN_TRY(qni_j_dict_put(run, seen, key, qni_j_none()));
        if (seen.dict->n > kept) out->seq->items[kept++] = items[i];
    }
    out->seq->n = kept;
    return qni_j_seq_done(run, *out);
}

static qn_status extreme(jrun *run, jval self, const jval *arg, int sign, jval *out) {
    jval *items, best_key, key;
    size_t n;
    QN_TRY(items_of(run, self, &items, &n));
    *out = qni_j_undefined("an item of an empty sequence", 28);
    for (size_t i = 0; i < n; i++) {
        int c = sign;
        QN_TRY(key_of(run, items[i], arg[1], qni_j_truth(arg[0]), &key));
        if (i > 0) QN_TRY(qni_j_order(run, key, best_key, &c, sign < 0 ? "<" : ">"));
        if (c != sign) continue;
        best_key = key;
        *out = items[i];
    }
    return QN_OK;
}

static qn_status do_min(jrun *run, jval self, const jval *arg, jval *out) {
    return extreme(run, self, arg, -1, out);
}

static qn_status do_max(jrun *run, jval self, const jval *arg, jval *out) {
    return extreme(run, self, arg, 1, out);
}

static qn_status do_sum(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items, item;
    size_t n;
    *out = arg[1].kind == J_ABSENT ? qni_j_int(0) : arg[1];
    if (out->kind == J_STRING) return qni_j_fail(run, QN_EINVAL, "sum of texts: use join");
    QN_TRY(items_of(run, self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        QN_TRY(qni_j_step(run, 0));
        QN_TRY(qni_j_attribute_path(run, items[i], arg[0], qni_j_none(), &item));
        QN_TRY(qni_j_binary(run, T_ADD, *out, item, out));
    }
    return QN_OK;
}

static qn_status do_batch(jrun *run, jval self, const jval *arg, jval *out) {
    jval *items;
    size_t n;
    int64_t size;
    if (!qni_j_as_int(arg[0], &size) || size < 1 || size > QNI_JINJA_RANGE)
        return qni_j_fail(run, QN_EUNSUPPORTED, "batch of such a size");
    QN_TRY(items_of(run, self, &items, &n));
    size_t per = (size_t)size, rows = (n + per - 1) / per;
    QN_TRY(qni_j_seq(run, SEQ_ITERATOR, rows, out));
    for (size_t row = 0; row < rows; row++) {
        size_t left = n - row * per, here = left < per ? left : per;
        size_t width = qni_j_given(arg[1]) ? per : here;
        jval *to = &out->seq->items[row];
        QN_TRY(qni_j_seq(run, SEQ_LIST, width, to));
        for (size_t i = 0; i < width; i++) to->seq->items[i] = i < here ? items[row * per + i] : arg[1];
        QN_TRY(qni_j_seq_done(run, *to));
    }
    return qni_j_seq_done(run, *out);
}

const jspec *qni_j_seq_filters(void) {
    static const jspec filters[] = {
        {"join", "d attribute", 0, do_join},
        {"first", "", 0, do_first},
        {"last", "", 0, do_last},
        {"list", "", 0, do_list},
        {"items", "", 0, do_items},
        {"reverse", "", 0, do_reverse},
        {"map", "*", 0, do_map},
        {"select", "*", 0, do_select},
        {"reject", "*", 0, do_reject},
        {"selectattr", "*", 0, do_selectattr},
        {"rejectattr", "*", 0, do_rejectattr},
        {"sort", "reverse case_sensitive attribute", 0, do_sort},
        {"dictsort", "case_sensitive by reverse", 0, do_dictsort},
        {"unique", "case_sensitive attribute", 0, do_unique},
        {"min", "case_sensitive attribute", 0, do_min},
        {"max", "case_sensitive attribute", 0, do_max},
        {"sum", "attribute start", 0, do_sum},
        {"batch", "linecount fill_with", 1, do_batch},
        {NULL, NULL, 0, NULL},
    };
    return filters;
}
