/* SPDX-License-Identifier: Apache-2.0 */
/* Place callouts where a backtracking search may do work that its result does not show: after every part that allows a
 * choice, as far as what follows can fail. Patterns of published tokenizers need few, because they end in their
 * repetitions. */
#include "meter.h"

#include "../base/memory.h"

#include <string.h>

enum {
    UNMETERED_PARTS = 128,   /* consecutive parts */
    UNMETERED_OPTIONALS = 2, /* single optional characters per alternative */
};

/* An atom or the end of a group, each with its quantifier; the start of a group; or a bar. */
typedef struct part {
    size_t end;    /* offset in the pattern */
    size_t weight; /* characters that it always consumes */
    bool outer;    /* outside any group */
    bool close, bar;
    bool repeats;  /* a repeated group */
    bool choice;   /* can match in several ways */
    bool optional; /* matches one character or nothing */
    bool never_fails;
    bool metered;
} part;

typedef struct parts {
    part *part;
    size_t n, capacity;
} parts;

/* End of the atom at `at`. */
static size_t atom_end(const char *pattern, size_t size, size_t at) {
    if (pattern[at] == '\\') {
        const char *brace = size - at > 2 && pattern[at + 1] == 'x' ? memchr(pattern + at, '}', size - at) : NULL;
        if (brace != NULL) return (size_t)(brace - pattern) + 1;
        return size - at > 1 ? at + 2 : size;
    }
    if (pattern[at] != '[') {
        for (at++; at < size && ((unsigned char)pattern[at] & 0xC0) == 0x80;) at++;
        return at;
    }
    for (at++; at < size && pattern[at] != ']'; at++) at += pattern[at] == '\\';
    return at < size ? at + 1 : size;
}

/* End of a group's opening: "(?:", "(?<=", "(?i:" and the like. */
static size_t open_end(const char *pattern, size_t size, size_t at) {
    at += 2;
    while (at < size && (pattern[at] == '<' || pattern[at] == 'i')) at++;
    return at < size ? at + 1 : size;
}

/* Read the quantifier at p->end, if any. */
static void quantify(part *p, const char *pattern, size_t size, bool single) {
    size_t at = p->end;
    if (at >= size || strchr("*+?{", pattern[at]) == NULL) return;
    const char first = pattern[at];
    size_t min = first == '+', max = first == '?' ? 1 : SIZE_MAX;
    if (first == '{') {
        for (at++; at < size && pattern[at] >= '0' && pattern[at] <= '9'; at++)
            min = 10 * min + (size_t)(pattern[at] - '0');
        if (at < size && pattern[at] == '}') max = min;
        while (at < size && pattern[at] != '}') at++;
    }
    at++;
    while (at < size && (pattern[at] == '?' || pattern[at] == '+' || pattern[at] == '*')) at++;
    p->end = at;
    p->choice |= min != max;
    p->optional = single && min == 0 && max == 1;
    p->repeats = !single && max > 1;
    p->never_fails = min == 0;
    if (single) p->weight = min;
}

static bool list_parts(parts *list, const char *pattern, size_t size) {
    size_t depth = 0;
    for (size_t at = 0; at < size; at = list->part[list->n - 1].end) {
        if (!qni_grow(&list->part, &list->capacity, list->n + 1, sizeof *list->part)) return false;
        part *p = &list->part[list->n++];
        *p = (part){.end = at + 1, .weight = 1, .outer = depth == 0};
        if (pattern[at] == '(') {
            p->end = open_end(pattern, size, at);
            p->outer = false;
            depth++;
        } else if (pattern[at] == ')') {
            depth -= depth > 0;
            p->outer = depth == 0;
            p->close = p->choice = true;
            quantify(p, pattern, size, false);
        } else if (pattern[at] == '|') {
            p->bar = true;
        } else {
            p->end = atom_end(pattern, size, at);
            quantify(p, pattern, size, true);
        }
    }
    return true;
}

/* Works backward: in a top-level alternative, nothing is retried once everything that follows cannot fail. */
static void mark(parts *list) {
    bool certain = true;
    int optionals = 0;
    for (size_t i = list->n; i-- > 0;) {
        part *p = &list->part[i];
        if (!p->outer) {
            p->metered = p->choice;
            continue;
        }
        if (p->bar) {
            certain = true;
            optionals = 0;
            continue;
        }
        if (p->choice && !certain) p->metered = !p->optional || ++optionals > UNMETERED_OPTIONALS;
        certain = certain && p->never_fails;
    }
}

bool qni_pattern_meter(qn_text *out, const char *pattern, size_t size) {
    static const char callout[] = "(?C)";
    parts list = {0};
    bool good = list_parts(&list, pattern, size);
    if (good) mark(&list);
    size_t at = 0, unmetered = 0;
    for (size_t i = 0; i < list.n && good; i++) {
        const part *p = &list.part[i];
        unmetered += p->weight;
        const bool before = unmetered > UNMETERED_PARTS || (p->close && p->repeats);
        if (before) good = qni_text_append(out, callout, sizeof callout - 1);
        if (good) good = qni_text_append(out, pattern + at, p->end - at);
        if (good && p->metered) good = qni_text_append(out, callout, sizeof callout - 1);
        if (before) unmetered = p->weight;
        if (p->metered) unmetered = 0;
        at = p->end;
    }
    qni_free(list.part);
    return good;
}
