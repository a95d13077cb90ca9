/* SPDX-License-Identifier: Apache-2.0 */
/* qsort comparison of ids in the sampler's order: greatest sort_key first, ties by lower id. */
#ifndef QNI_TEST_BEST_FIRST_H
#define QNI_TEST_BEST_FIRST_H

#include <stdint.h>
#include <string.h>

static const double *sort_key;
static int by_key(const void *a, const void *b) {
    int32_t i, j;
    memcpy(&i, a, sizeof i);
    memcpy(&j, b, sizeof j);
    if (sort_key[i] != sort_key[j]) return sort_key[i] > sort_key[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

#endif
