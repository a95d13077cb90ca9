/* SPDX-License-Identifier: Apache-2.0 */
/* The one JSON reader: Jansson with duplicate keys refused, U+0000 allowed in strings and the depth bounded. */
#ifndef QNI_JSON_H
#define QNI_JSON_H

#include "error.h"

#include <jansson.h>

/* Nesting that any file or request may have. */
enum { QNI_JSON_DEPTH = 128 };

/* Parse a text; `what` names it in the message. Errors: EFORMAT with the line, ENOMEM. */
qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err);

/* Read and parse a file of at most max_bytes. */
qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err);

/* The text of a value, followed by a zero byte, to be freed with qni_free(); NULL: no memory. Flags as in json_dumps. */
char *qni_json_print(const json_t *value, size_t flags);

#endif
