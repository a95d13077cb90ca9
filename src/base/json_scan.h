/* SPDX-License-Identifier: Apache-2.0 */
/* Scans a JSON text before parsing: its depth, its longest token, and numbers that fit no C type. */
#ifndef QNI_JSON_SCAN_H
#define QNI_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* A number that fits neither a 64-bit integer nor, written with a fraction or an exponent, a double. */
typedef struct qni_json_span {
    size_t at, size; /* bytes in the text */
    size_t ordinal;  /* index among the numbers of the text */
} qni_json_span;

typedef struct qni_json_survey {
    int depth;      /* bracket nesting outside strings; the scan stops above QNI_JSON_DEPTH */
    size_t longest; /* bytes of the longest token */
    size_t n_large;
} qni_json_survey;

/* `large` is NULL or an array for the n_large of an earlier scan of the same text. The text may be invalid; only
 * numbers that follow JSON's grammar are listed. */
qni_json_survey qni_json_scan(const char *text, size_t size, qni_json_span *large);

#endif
