/* SPDX-License-Identifier: Apache-2.0 */
/* Software prefetch of weights. For the kernels of this processor. */
#ifndef QNI_CPU_PREFETCH_H
#define QNI_CPU_PREFETCH_H

#include <immintrin.h>

/* Prefetch a line of a weight for m rows, m a constant. With less than a full tile of rows, the line is read once per
 * step, so NTA keeps it from polluting the outer caches, which a model does not fit into. (The last tile of many also
 * lands here; for it the line is already cached.) After a full tile others may follow, for which the line is kept. */
static inline __attribute__((always_inline)) void prefetch_weight(const char *line, const int m, const int whole) {
    if (m < whole) {
        _mm_prefetch(line, _MM_HINT_NTA);
    } else {
        _mm_prefetch(line, _MM_HINT_T0);
    }
}

#endif
