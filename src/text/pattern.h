/* SPDX-License-Identifier: Apache-2.0 */
/* The regular expressions of tokenizer.json (Oniguruma's dialect) in PCRE2's dialect. */
#ifndef QNI_PATTERN_H
#define QNI_PATTERN_H

#include "../base/error.h"
#include "buffer.h"

/* GPT-2's pattern, which the ByteLevel pre-tokenizer stands for with use_regex. */
extern const char qni_pattern_gpt2[];

/* A general category ("L", "Mn"), and what stands for it between a class's brackets. */
typedef struct qni_category {
    const char *name, *members;
    const char *more; /* or NULL */
} qni_category;

const qni_category *qni_category_find(const char *name, size_t size); /* NULL: not known */

/* Appends the translation. It means to PCRE2 what the original means to Oniguruma with Unicode 16.0 tables; what has
 * no such translation is refused. Errors: EUNSUPPORTED naming the construct and its offset, ENOMEM. */
qn_status qni_pattern_translate(qn_text *out, const char *pattern, size_t size, qn_error *err);

#endif
