/* SPDX-License-Identifier: Apache-2.0 */
/* Python's view of UTF-8 text: code points, white space, line ends, letter case. All texts are valid UTF-8. */
#ifndef QNI_STR_H
#define QNI_STR_H

#include "value.h"

/* Decode the character at s: its length in bytes (>= 1) and code point. */
size_t qni_j_char(const char *s, size_t size, uint32_t *code_point);
/* Decode the character that ends at size (>= 1): its length in bytes. */
size_t qni_j_char_before(const char *s, size_t size, uint32_t *code_point);

size_t qni_j_count(const char *s, size_t size);                 /* number of code points */
size_t qni_j_offset(const char *s, size_t size, size_t points); /* bytes of the first `points`, at most size */
bool qni_j_is_space(uint32_t code_point);                       /* str.isspace() */
size_t qni_j_line_end(const char *s, size_t size); /* bytes of the line end at s, as in splitlines(); or 0 */

/* Strip the characters in `chars` (NULL: white space) from the ends of s; sides: bit 1 left, bit 2 right. */
jval qni_j_strip(jval s, const jval *chars, int sides);

/* Offset of needle in s, searching from `from`; -1: not found. An empty needle matches at `from`. */
int64_t qni_j_find(jval s, jval needle, size_t from);
int64_t qni_j_rfind(jval s, jval needle);

typedef enum jcase {
    CASE_UPPER,
    CASE_LOWER,
    CASE_TITLE,      /* str.title() */
    CASE_CAPITALIZE, /* str.capitalize() */
} jcase;
qn_status qni_j_recase(jrun *run, jval s, jcase to, jval *out);

/* str.isalpha() and similar tests of one character. */
typedef enum jclass {
    CLASS_ALPHA,
    CLASS_DECIMAL,
    CLASS_DIGIT,
    CLASS_NUMERIC,
    CLASS_ALNUM,
    CLASS_SPACE,
    CLASS_PRINTABLE,
    CLASS_ASCII,
    CLASS_NAME_START, /* start of an identifier */
    CLASS_NAME,
} jclass;
bool qni_j_in_class(uint32_t code_point, jclass c);
int qni_j_case_of(uint32_t code_point); /* 1: uppercase, 2: lowercase, 3: titlecase, 0: uncased */

#endif
