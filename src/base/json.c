/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in, checked for depth before Jansson's recursive parser sees it. */
#include "json.h"

#include "file.h"
#include "memory.h"

/* Deepest nesting of brackets outside strings. */
static int nesting(const char *text, size_t size) {
    int depth = 0, deepest = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                quoted = false;
            }
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest) deepest = depth;
            if (deepest > QNI_JSON_DEPTH) break;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

qn_status qni_json_parse(json_t **out, const char *what, const char *text, size_t size, qn_error *err) {
    if (nesting(text, size) > QNI_JSON_DEPTH) {
        return qni_fail(err, QN_EFORMAT, "%s: JSON nests deeper than %d", what, QNI_JSON_DEPTH);
    }
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root == NULL) {
        if (json_error_code(&error) == json_error_out_of_memory) {
            return qni_fail(err, QN_ENOMEM, "%s: out of memory", what);
        }
        return qni_fail(err, QN_EFORMAT, "%s: line %d: %s", what, error.line, error.text);
    }
    *out = root;
    return QN_OK;
}

qn_status qni_json_read(json_t **out, const char *path, size_t max_bytes, qn_error *err) {
    char *text = NULL;
    size_t size = 0;
    QN_TRY(qni_file_slurp(&text, &size, path, max_bytes, err));
    qn_status status = qni_json_parse(out, path, text, size, err);
    qni_free(text);
    return status;
}
