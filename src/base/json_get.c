/* SPDX-License-Identifier: Apache-2.0 */
/* Values of JSON objects, checked for type and range. */
#include "json_get.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

qni_value_text qni_json_text(const json_t *value) {
    qni_value_text out = {""};
    const char *large = qni_json_large(value);
    if (large != NULL) {
        bool fits = strlen(large) <= 40;
        snprintf(out.text, sizeof out.text, "%.*s%s", fits ? 40 : 20, large, fits ? "" : "…");
        return out;
    }
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        snprintf(out.text, sizeof out.text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL: /* the fewest digits that round-trip */
        for (int n = 15; n <= 17; n++) {
            snprintf(out.text, sizeof out.text, "%.*g", n, json_real_value(value));
            if (strtod(out.text, NULL) == json_real_value(value)) break;
        }
        break;
    case JSON_STRING: {
        const char *text = json_string_value(value);
        bool fits = strlen(text) < 40;
        snprintf(out.text, sizeof out.text, fits ? "\"%s\"" : "a long text", text);
        break;
    }
    default: {
        static const char *const words[] = {[JSON_OBJECT] = "an object",
                                            [JSON_ARRAY] = "a list",
                                            [JSON_TRUE] = "true",
                                            [JSON_FALSE] = "false",
                                            [JSON_NULL] = "null"};
        snprintf(out.text, sizeof out.text, "%s", words[json_typeof(value)]);
    }
    }
    return out;
}

const json_t *qni_json_get(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

qn_status qni_json_get_int(int32_t *out, bool *has, const json_t *object, const char *file, const char *key,
                           int64_t least, int64_t most, qn_error *err) {
    const json_t *value = qni_json_get(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    if (qni_json_big(value) != NULL) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be %" PRId64 " to %" PRId64 ", got %s, which is too large", file,
                        key, least, most, qni_json_text(value).text);
    }
    if (!json_is_integer(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be an integer, got %s", file, key, qni_json_text(value).text);
    }
    json_int_t n = json_integer_value(value);
    if (n < least || n > most) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be %" PRId64 " to %" PRId64 ", got %" PRId64, file, key, least,
                        most, (int64_t)n);
    }
    *out = (int32_t)n;
    return QN_OK;
}

qn_status qni_json_get_number(double *out, bool *has, const json_t *object, const char *file, const char *key,
                              qn_error *err) {
    const json_t *value = qni_json_get(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    double x = 0;
    if (!qni_json_number(&x, value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be a number, got %s", file, key, qni_json_text(value).text);
    }
    if (!isfinite(x)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s is %s, which is too large", file, key, qni_json_text(value).text);
    }
    *out = x;
    return QN_OK;
}

qn_status qni_json_get_bool(bool *out, bool *has, const json_t *object, const char *file, const char *key,
                            qn_error *err) {
    const json_t *value = qni_json_get(object, key);
    if (has != NULL) *has = value != NULL;
    if (value == NULL) return QN_OK;
    if (!json_is_boolean(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be true or false, got %s", file, key, qni_json_text(value).text);
    }
    *out = json_is_true(value);
    return QN_OK;
}

bool qni_json_is_neutral(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) == 0;
    case JSON_STRING:
        return json_string_length(value) == 0;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    default:
        return false;
    }
}
