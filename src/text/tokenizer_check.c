/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that the readers of a tokenizer's files share. */
#include "tokenizer_impl.h"

#include <string.h>

qn_status qni_in_file(const char *name, qn_status status, qn_error *err) {
    if (status == QN_OK || err == NULL) return status;
    char message[sizeof err->message];
    memcpy(message, err->message, sizeof message);
    return qni_fail(err, status, "%s: %s", name, message);
}

const char *qni_type_of(const json_t *object) {
    return json_string_value(json_object_get(object, "type"));
}

qn_status qni_unknown_type(const json_t *object, const char *what, qn_error *err) {
    const char *type = qni_type_of(object);
    if (type == NULL) return qni_fail(err, QN_EFORMAT, "%s has no type", what);
    return qni_fail(err, QN_EUNSUPPORTED, "%s %s is not supported", what, type);
}

bool qni_is_type(const json_t *object, const char *type) {
    return qni_type_of(object) != NULL && strcmp(qni_type_of(object), type) == 0;
}

qn_status qni_tokenizer_expect_false(const json_t *object, const char *what, const char *key, bool otherwise,
                                     qn_error *err) {
    const json_t *value = json_object_get(object, key);
    if (value != NULL && !json_is_boolean(value))
        return qni_fail(err, QN_EFORMAT, "%s: %s must be a boolean", what, key);
    if (value == NULL ? !otherwise : json_is_false(value)) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: %s true is not supported", what, key);
}
