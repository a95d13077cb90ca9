/* SPDX-License-Identifier: Apache-2.0 */
/* Python's view of UTF-8 text: code points, white space, line ends, letter case. All texts are valid UTF-8. */
#ifndef QNI_STR_H
#define QNI_STR_H

#include "value.h"

/* The character at s: its bytes (>= 1) and code point. */
size_t qni_j_char(const char *s, size_t size, uint32_t *code_point);
/* The character that ends at size (>= 1): its bytes. */
size_t qni_j_char_before(const char *s, size_t size, uint32_t *code_point);

size_t qni_j_count(const char *s, size_t size);                 /* code points */
size_t qni_j_offset(const char *s, size_t size, size_t points); /* bytes of the first `points`, at most size */
bool qni_j_is_space(uint32_t code_point);                       /* str.isspace() */
size_t qni_j_line_end(const char *s, size_t size);              /* bytes of the line end at s, as splitlines(); or 0 */

/* s without the characters at its ends that are in `chars` (NULL: white space); sides: 1 left, 2 right. */
jval qni_j_strip(jval s, const jval *chars, int sides);

/* Offset of needle in s from `from` on; -1. An empty needle is found at once. */
int64_t qni_j_find(jval s, jval needle, size_t from);
int64_t qni_j_rfind(jval s, jval needle);

typedef enum jcase {
    CASE_UPPER,
    CASE_LOWER,
    CASE_TITLE,      /* str.title() */
    CASE_CAPITALIZE, /* str.capitalize() */
} jcase;
qn_status qni_j_recase(jrun *run, jval s, jcase to, jval *out);

/* str.isalpha() and its kin on one character. */
typedef enum jclass {
    CLASS_ALPHA,
    CLASS_DECIMAL,
    CLASS_DIGIT,
    CLASS_NUMERIC,
    CLASS_ALNUM,
    CLASS_SPACE,
    CLASS_PRINTABLE,
    CLASS_ASCII,
    CLASS_NAME_START, /* of an identifier */
    CLASS_NAME,
} jclass;
bool qni_j_in_class(uint32_t code_point, jclass c);
int qni_j_case_of(uint32_t code_point); /* 1: upper case, 2: lower case, 3: title case, 0: no case */

#endif
