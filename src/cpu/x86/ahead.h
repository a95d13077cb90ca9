/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for lines of a weight before they are read. For the kernels of this processor. */
#ifndef QNI_CPU_AHEAD_H
#define QNI_CPU_AHEAD_H

#include <immintrin.h>

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
