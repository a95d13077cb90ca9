/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader: what it takes it prints, and reads again as the same value, large numbers included. */
#include "../../src/base/json.h"
#include "../../src/base/memory.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *root = NULL, *again = NULL;
    qn_error err;
    qn_status status = qni_json_parse(&root, "fuzz", (const char *)data, size, &err);
    if (status != QN_OK) {
        if (status != QN_EFORMAT || root != NULL) abort();
        return 0;
    }
    char *text = qni_json_print(root, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (text == NULL || qni_json_parse(&again, "printed", text, strlen(text), &err) != QN_OK) abort();
    if (!json_equal(root, again)) abort();
    json_decref(root);
    json_decref(again);
    qni_free(text);
    return 0;
}
