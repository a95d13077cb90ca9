/* SPDX-License-Identifier: Apache-2.0 */
/* Values of JSON objects, checked for type and range, with messages that name the file and the key. */
#ifndef QNI_JSON_GET_H
#define QNI_JSON_GET_H

#include "json.h"

/* A value formatted for a message: 12, "text", a list, … */
typedef struct qni_value_text {
    char text[64];
} qni_value_text;
qni_value_text qni_json_text(const json_t *value);

/* The value of a key; NULL if missing or null. Borrowed from the object. */
const json_t *qni_json_get(const json_t *object, const char *key);

/* Read one value. A missing or null key leaves *out unchanged and sets *has (may be NULL) to false. `file` and `key`
 * name it in messages. */
qn_status qni_json_get_int(int32_t *out, bool *has, const json_t *object, const char *file, const char *key,
                           int64_t least, int64_t most, qn_error *err);
qn_status qni_json_get_number(double *out, bool *has, const json_t *object, const char *file, const char *key,
                              qn_error *err);
qn_status qni_json_get_bool(bool *out, bool *has, const json_t *object, const char *file, const char *key,
                            qn_error *err);

/* Whether a value is neutral: null, false, 0, an empty list, object or string. */
bool qni_json_is_neutral(const json_t *value);

#endif
