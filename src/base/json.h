/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only JSON reader: Jansson, with duplicate keys rejected, U+0000 allowed in strings, bounded depth, and numbers of
 * any size.
 *
 * A number that fits no C type ("large": an integer beyond 64 bits, a real beyond a double) does not make a text
 * unreadable; it is rejected only where its value is needed. Jansson has no type for it, so it becomes an object that
 * no JSON text can express. So test with qni_json_is_object() and print with qni_json_print(): Jansson's own functions
 * fail.
 */
#ifndef QNI_JSON_H
#define QNI_JSON_H

#include "error.h"

#include <jansson.h>

/* Maximum nesting of any file or request. */
enum { QNI_JSON_DEPTH = 128 };

/* Parse a text; `what` names it in messages. Errors: EFORMAT with the line, ENOMEM. */
qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err);

/* Read and parse a file of at most max_bytes. Errors: EIO with the system's reason, and those of qni_json_parse(). */
qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err);

/* The text of a value, NUL-terminated; free it with qni_free() or C's own. NULL if out of memory. Flags as in
 * json_dumps. Large numbers are printed as originally written. */
char *qni_json_print(const json_t *value, size_t flags);

/* A large number as originally written, or NULL for any other value. The functions differ in what they accept: an
 * integer beyond 64 bits; a number with a fraction or an exponent that is beyond a double; either. Borrowed from the
 * value. */
const char *qni_json_big(const json_t *value);
const char *qni_json_infinite(const json_t *value);
const char *qni_json_large(const json_t *value);

/* Whether the value is an object in the text (not a large number). */
bool qni_json_is_object(const json_t *value);

/* Whether the value is a number; *out is the nearest double, infinite if out of range. `out` may be NULL. */
bool qni_json_number(double *out, const json_t *value);

#endif
