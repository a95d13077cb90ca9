/* SPDX-License-Identifier: Apache-2.0 */
/* Translate the regular expressions of tokenizer.json (Oniguruma's dialect) to PCRE2's dialect. */
#ifndef QNI_PATTERN_H
#define QNI_PATTERN_H

#include "../base/error.h"
#include "buffer.h"

/* GPT-2's pattern, used by the ByteLevel pre-tokenizer with use_regex. */
extern const char qni_pattern_gpt2[];

/* A general category ("L", "Mn") and its replacement inside a bracket class. */
typedef struct qni_category {
    const char *name, *members;
    const char *more; /* or NULL */
} qni_category;

const qni_category *qni_category_find(const char *name, size_t size); /* NULL: unknown */

/* Append the translation. PCRE2 interprets it as Oniguruma with Unicode 16.0 tables interprets the original; a pattern
 * without such a translation is refused. Errors: EUNSUPPORTED naming the construct and its offset, ENOMEM. */
qn_status qni_pattern_translate(qn_text *out, const char *pattern, size_t size, qn_error *err);

#endif
