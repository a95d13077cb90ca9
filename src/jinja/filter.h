/* SPDX-License-Identifier: Apache-2.0 */
/* The filters: filter.c works on single values, filter_seq.c on sequences. */
#ifndef QNI_FILTER_H
#define QNI_FILTER_H

#include "ast.h"

/* Filters on sequences: a table that ends with a NULL name. */
const jspec *qni_j_seq_filters(void);

/* Whether an optional argument was given and is not none. */
static inline bool qni_j_given(jval v) {
    return v.kind != J_ABSENT && v.kind != J_NONE;
}

#endif
