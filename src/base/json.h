/* SPDX-License-Identifier: Apache-2.0 */
/* The one JSON reader: Jansson with duplicate keys refused, U+0000 allowed in strings, the depth bounded, and numbers
 * of any size.
 *
 * A number that fits no C type ("large": an integer beyond 64 bits, a real beyond a double) does not make a text
 * unreadable; it is refused where its value is needed. Jansson has no type for it, so it is an object that no text can
 * spell. So ask qni_json_is_object(), and print with qni_json_print(): Jansson's own functions fail. */
#ifndef QNI_JSON_H
#define QNI_JSON_H

#include "error.h"

#include <jansson.h>

/* Nesting that any file or request may have. */
enum { QNI_JSON_DEPTH = 128 };

/* Parse a text; `what` names it in the message. Errors: EFORMAT with the line, ENOMEM. */
qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err);

/* Read and parse a file of at most max_bytes. Errors: EIO with the system's reason, and those of qni_json_parse(). */
qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err);

/* The text of a value, followed by a zero byte, to be freed with qni_free() or C's own; NULL: no memory. Flags as in
 * json_dumps. Large numbers are printed as they were written. */
char *qni_json_print(const json_t *value, size_t flags);

/* A large number as it was written, or NULL where the value is something else: an integer beyond 64 bits; a number with
 * a fraction or an exponent that is beyond a double; either of them. Borrowed from the value. */
const char *qni_json_big(const json_t *value);
const char *qni_json_infinite(const json_t *value);
const char *qni_json_large(const json_t *value);

/* Whether the value is an object of the text. */
bool qni_json_is_object(const json_t *value);

/* Whether the value is a number; *out is the nearest double, infinite where there is none. `out` may be NULL. */
bool qni_json_number(double *out, const json_t *value);

#endif
