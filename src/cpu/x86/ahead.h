/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for what is read next: rows of keys and values, lines of a weight. For the kernels of this processor. */
#ifndef QNI_CPU_AHEAD_H
#define QNI_CPU_AHEAD_H

#include "../kernels.h"

#include <immintrin.h>
#include <stddef.h>

/* What is left to ask for of the bytes that are read next. One core keeps some 20 lines under way at most, and what is
 * read from the second cache needs a place among them: so a few at a time, evenly, and into the first cache. */
typedef struct ahead {
    const char *at, *end;
} ahead;

static inline ahead ahead_of(const qni_cpu_kv_rows *rows) {
    const char *next = rows->next;
    return (ahead){next, next == NULL ? next : next + rows->next_bytes};
}

/* As many lines as `bytes` fill, at least one. */
static inline void ask_for(ahead *a, size_t bytes) {
    for (size_t i = 0; i < bytes && a->at < a->end; i += 64, a->at += 64) _mm_prefetch(a->at, _MM_HINT_T0);
}

/* Ask for a line of a weight that m rows, m a constant, will meet. Fewer than a whole tile of them are all that is there
 * (or the last of many, for which the line is near already): it is read once a step, and pushes nothing out of the outer
 * caches, which a model does not fit. After a whole tile others may follow, for which it stays. */
static inline __attribute__((always_inline)) void ask_for_weight(const char *line, const int m, const int whole) {
    if (m < whole) {
        _mm_prefetch(line, _MM_HINT_NTA);
    } else {
        _mm_prefetch(line, _MM_HINT_T0);
    }
}

#endif
