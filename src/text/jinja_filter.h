/* SPDX-License-Identifier: Apache-2.0 */
/* The filters, in the files that hold them: jinja_filter.c on single values, jinja_filter_seq.c on sequences. */
#ifndef QNI_JINJA_FILTER_H
#define QNI_JINJA_FILTER_H

#include "jinja_ast.h"

/* Filters that take a sequence: a table that ends with a NULL name. */
const jspec *qni_j_seq_filters(void);

/* An argument that may be missing or none. */
static inline bool qni_j_given(jval v) {
    return v.kind != J_ABSENT && v.kind != J_NONE;
}

#endif
