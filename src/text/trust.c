/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of trusted text: built from runs, mapped through the normalizer, searched for added tokens. */
#include "trust.h"

#include "../base/memory.h"

void qni_trust_trim(qni_trust *trust, size_t keep_bytes) {
    if (trust->capacity * sizeof *trust->range <= keep_bytes) return;
    qni_free(trust->range);
    *trust = (qni_trust){0};
}

/* Append a range that begins at or after the end of the last one. */
static bool append(qni_trust *trust, size_t first, size_t end) {
    if (first >= end) return true;
    if (trust->n > 0 && trust->range[trust->n - 1].end == first) {
        trust->range[trust->n - 1].end = end;
        return true;
    }
    if (!qni_grow(&trust->range, &trust->capacity, trust->n + 1, sizeof *trust->range)) return false;
    trust->range[trust->n++] = (qni_range){first, end};
    return true;
}

qn_status qni_trust_from_runs(qni_trust *trust, const qn_text_run *runs, size_t n_run, size_t size, qn_error *err) {
    size_t at = 0;
    trust->n = 0;
    for (size_t i = 0; i < n_run; i++) {
        if (runs[i].size > size - at) {
            return qni_fail(err, QN_EINVAL, "runs: run %zu of %zu bytes at byte %zu is longer than the text of %zu", i,
                            runs[i].size, at, size);
        }
        if (runs[i].trusted && !append(trust, at, at + runs[i].size)) {
            return qni_fail(err, QN_ENOMEM, "runs: out of memory");
        }
        at += runs[i].size;
    }
    if (at < size) return qni_fail(err, QN_EINVAL, "runs: %zu bytes, but the text has %zu", at, size);
    return QN_OK;
}

/* Index of the first range that ends after `at`. */
static size_t range_after(const qni_trust *trust, size_t at) {
    size_t low = 0, high = trust->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trust->range[middle].end <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Map a boundary in the text to the normal form, walking along the edits. A boundary inside an edit has no counterpart:
 * it moves to the edit's end, or to its start if it closes a range. */
static size_t map_border(const qni_nfc_edits *edits, size_t *next, size_t at, bool closes) {
    while (*next < edits->n && edits->edit[*next].end <= at) ++*next;
    size_t i = *next;
    if (i < edits->n && edits->edit[i].first < at) return closes ? edits->edit[i].out_first : edits->edit[i].out_end;
    if (i == 0) return at;
    return edits->edit[i - 1].out_end + (at - edits->edit[i - 1].end);
}

bool qni_trust_map(qni_trust *out, const qni_trust *in, qni_range part, const qni_nfc_edits *edits) {
    out->n = 0;
    size_t next = 0;
    for (size_t i = range_after(in, part.first); i < in->n && in->range[i].first < part.end; i++) {
        qni_range range = in->range[i];
        if (range.first < part.first) range.first = part.first;
        if (range.end > part.end) range.end = part.end;
        size_t first = map_border(edits, &next, range.first - part.first, false);
        size_t end = map_border(edits, &next, range.end - part.first, true);
        if (!append(out, first, end)) return false;
    }
    return true;
}

size_t qni_trust_find(const qni_trust *trust, const qni_added *added, const char *text, size_t size, size_t from,
                      size_t *length, int32_t *id) {
    for (size_t i = range_after(trust, from); i < trust->n; i++) {
        qni_range range = trust->range[i];
        size_t at = qni_added_find(added, text, range.end, from > range.first ? from : range.first, length, id);
        if (at < range.end) return at;
    }
    return size;
}
