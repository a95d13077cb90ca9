/* SPDX-License-Identifier: Apache-2.0 */
/* NFC over utf8proc's tables. The text is cut before every character that nothing before it can affect, and only
 * segments that may change are decomposed, ordered and composed. The ordering is our own: utf8proc's is quadratic in
 * the length of a run of marks. */
#include "normalize.h"

#include "../base/memory.h"
#include "../base/utf8.h"

#include <string.h>
#include <utf8proc.h>

typedef struct range {
    uint32_t first, last;
} range;

/* Characters that take part in normalization since a Unicode version after 9.0. Hugging Face's tables are older and
 * treat them as inert: they neither reorder, compose nor decompose. */
static const range newer[] = {
    {0x5C8, 0x5C9},     {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x10D24, 0x10D27},
    {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11383, 0x11383},
    {0x11385, 0x11385}, {0x1138E, 0x1138E}, {0x11391, 0x11391}, {0x113B8, 0x113B8}, {0x113BB, 0x113BB},
    {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113C9}, {0x113CE, 0x113D0}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x1611E, 0x16129}, {0x1612F, 0x1612F},
    {0x16D67, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C},
    {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6},
    {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};

/* Characters of combining class 0 that compose with the preceding character or whose decomposition starts with a mark.
 * This is the set of Unicode 9.0; the stability policy fixes it. */
static const range joining[] = {{0x9BE, 0x9BE},     {0x9D7, 0x9D7},     {0xB3E, 0xB3E},     {0xB56, 0xB57},
                                {0xBBE, 0xBBE},     {0xBD7, 0xBD7},     {0xCC2, 0xCC2},     {0xCD5, 0xCD6},
                                {0xD3E, 0xD3E},     {0xD57, 0xD57},     {0xDCF, 0xDCF},     {0xDDF, 0xDDF},
                                {0xF73, 0xF73},     {0xF75, 0xF75},     {0xF81, 0xF81},     {0x102E, 0x102E},
                                {0x1161, 0x1175},   {0x11A8, 0x11C2},   {0x1B35, 0x1B35},   {0x11127, 0x11127},
                                {0x1133E, 0x1133E}, {0x11357, 0x11357}, {0x114B0, 0x114B0}, {0x114BA, 0x114BA},
                                {0x114BD, 0x114BD}, {0x115AF, 0x115AF}};

static bool in_ranges(const range *ranges, size_t n, uint32_t point) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > ranges[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && point >= ranges[low].first;
}

enum kind {
    KIND_ALONE,      /* starts a segment, and is normal unless a joining character follows */
    KIND_DECOMPOSES, /* starts a segment that must be normalized */
    KIND_JOINS,      /* belongs to the preceding segment */
    KIND_NEWER,      /* a segment by itself */
};

static enum kind kind_of(uint32_t point) {
    if (point < 0xC0) return KIND_ALONE;
    const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)point);
    bool decomposes = property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0;
    if (property->combining_class == 0 && !decomposes) {
        if (point < joining[0].first) return KIND_ALONE;
        if (in_ranges(joining, sizeof joining / sizeof *joining, point)) return KIND_JOINS;
        /* A character that composes with a following one is inert until a joining character follows; newer characters
         * never join. */
        return KIND_ALONE;
    }
    if (in_ranges(newer, sizeof newer / sizeof *newer, point)) return KIND_NEWER;
    if (property->combining_class != 0) return KIND_JOINS;
    return in_ranges(joining, sizeof joining / sizeof *joining, point) ? KIND_JOINS : KIND_DECOMPOSES;
}

/* A code point with its combining class above bit 24, so that ordering compares single words. */
static uint32_t with_class(int32_t point) {
    return (uint32_t)point | (uint32_t)utf8proc_get_property(point)->combining_class << 24;
}

/* Stable sort of a run of marks by class: insertion sort for the short runs of real text, counting sort for long
 * ones. */
static void sort_run(uint32_t *run, size_t n, uint32_t *scratch) {
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            uint32_t mark = run[i];
            size_t j = i;
            for (; j > 0 && run[j - 1] >> 24 > mark >> 24; j--) run[j] = run[j - 1];
            run[j] = mark;
        }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) start[(run[i] >> 24) + 1]++;
    for (size_t c = 1; c < 257; c++) start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++) scratch[start[run[i] >> 24]++] = run[i];
    memcpy(run, scratch, n * sizeof *run);
}

static bool sort_marks(qni_nfc *nfc, size_t n) {
    uint32_t *point = (uint32_t *)nfc->point;
    for (size_t i = 0; i < n; i++) point[i] = with_class(nfc->point[i]);
    for (size_t i = 0; i < n;) {
        size_t first = i;
        while (i < n && point[i] >> 24 != 0) i++;
        size_t run = i - first;
        if (run > 16 && !qni_grow(&nfc->sorted, &nfc->sorted_capacity, run, sizeof *nfc->sorted)) return false;
        if (run > 1) sort_run(point + first, run, (uint32_t *)nfc->sorted);
        if (i < n) i++;
    }
    for (size_t i = 0; i < n; i++) point[i] &= 0xFFFFFF;
    return true;
}

/* Normalize one segment into nfc->point[0 … *n-1]. */
static bool normalize_segment(qni_nfc *nfc, const char *text, size_t size, size_t *n) {
    enum { EXPANSION = 4 }; /* code points of the longest canonical decomposition */
    size_t count = 0;
    for (size_t i = 0; i < size;) {
        uint32_t point;
        i += qni_utf8_decode(text + i, size - i, &point);
        if (!qni_grow(&nfc->point, &nfc->capacity, count + EXPANSION, sizeof *nfc->point)) return false;
        int boundary = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)point, nfc->point + count, EXPANSION,
                                                     UTF8PROC_DECOMPOSE, &boundary);
        if (k < 1 || k > EXPANSION) { /* not a character: keep it */
            nfc->point[count] = (int32_t)point;
            k = 1;
        }
        count += (size_t)k;
    }
    if (!sort_marks(nfc, count)) return false;
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(nfc->point, (utf8proc_ssize_t)count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    *n = composed < 0 ? count : (size_t)composed;
    return true;
}

/* Whether the segment's normal form equals the text. */
static bool same(const qni_nfc *nfc, size_t n, const char *text, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        size_t k = qni_utf8_encode(bytes, (uint32_t)nfc->point[i]);
        if (k > size - at || memcmp(text + at, bytes, k) != 0) return false;
        at += k;
    }
    return at == size;
}

static bool append_points(qni_nfc *nfc, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        size_t k = qni_utf8_encode(bytes, (uint32_t)nfc->point[i]);
        if (!qni_text_append(&nfc->out, bytes, k)) return false;
    }
    return true;
}

/* Record an edit: text first … end-1 became the end of nfc->out, from out_first on. */
static bool keep_edit(qni_nfc *nfc, size_t first, size_t end, size_t out_first) {
    qni_nfc_edits *edits = &nfc->edits;
    if (!nfc->keeps_edits) return true;
    if (!qni_grow(&edits->edit, &edits->capacity, edits->n + 1, sizeof *edits->edit)) return false;
    edits->edit[edits->n++] = (qni_nfc_edit){first, end, out_first, nfc->out.size};
    return true;
}

/* End of the segment, all characters before `at` being known: after every joining character. */
static size_t segment_end(const char *text, size_t size, size_t at) {
    while (at < size && (unsigned char)text[at] >= 0x80) {
        uint32_t point;
        size_t k = qni_utf8_decode(text + at, size - at, &point);
        if (kind_of(point) != KIND_JOINS) break;
        at += k;
    }
    return at;
}

/* Length of the ASCII prefix of a text. */
static size_t ascii_run(const char *text, size_t size) {
    size_t i = 0;
    uint64_t eight;
    while (size - i >= sizeof eight && (memcpy(&eight, text + i, sizeof eight), !(eight & 0x8080808080808080u))) i += 8;
    while (i < size && (unsigned char)text[i] < 0x80) i++;
    return i;
}

bool qni_nfc_run(qni_nfc *nfc, const char *text, size_t size, const char **out, size_t *out_size) {
    nfc->out.size = 0;
    nfc->edits.n = 0;
    size_t copied = 0; /* text before this offset is in nfc->out, or unchanged so far */
    bool changed = false;
    size_t previous = 0; /* start of the segment that the next character may join */
    for (size_t i = 0; i < size;) {
        if ((unsigned char)text[i] < 0x80) {
            i += ascii_run(text + i, size - i);
            previous = i - 1;
            continue;
        }
        uint32_t point;
        size_t k = qni_utf8_decode(text + i, size - i, &point);
        enum kind kind = kind_of(point);
        if (kind == KIND_ALONE || kind == KIND_NEWER) {
            previous = kind == KIND_ALONE ? i : i + k;
            i += k;
            continue;
        }
        size_t first = kind == KIND_JOINS ? previous : i, end = segment_end(text, size, i + k), n;
        if (!normalize_segment(nfc, text + first, end - first, &n)) return false;
        if (!same(nfc, n, text + first, end - first)) {
            if (!qni_text_append(&nfc->out, text + copied, first - copied)) return false;
            size_t out_first = nfc->out.size;
            if (!append_points(nfc, n) || !keep_edit(nfc, first, end, out_first)) return false;
            copied = end;
            changed = true;
        }
        i = previous = end;
    }
    if (changed && !qni_text_append(&nfc->out, text + copied, size - copied)) return false;
    *out = changed ? nfc->out.data : text;
    *out_size = changed ? nfc->out.size : size;
    return true;
}

void qni_nfc_trim(qni_nfc *nfc, size_t keep_bytes) {
    if (nfc->out.capacity > keep_bytes) qn_text_release(&nfc->out);
    if (nfc->capacity * sizeof *nfc->point > keep_bytes) {
        qni_free(nfc->point);
        nfc->point = NULL;
        nfc->capacity = 0;
    }
    if (nfc->sorted_capacity * sizeof *nfc->sorted > keep_bytes) {
        qni_free(nfc->sorted);
        nfc->sorted = NULL;
        nfc->sorted_capacity = 0;
    }
    if (nfc->edits.capacity * sizeof *nfc->edits.edit > keep_bytes) {
        qni_free(nfc->edits.edit);
        nfc->edits = (qni_nfc_edits){0};
    }
}
