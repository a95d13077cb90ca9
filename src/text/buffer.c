/* SPDX-License-Identifier: Apache-2.0 */
/* qn_text and qn_ids: growth by doubling, and release. */
#include "buffer.h"

#include "../base/memory.h"

#include <string.h>

bool qni_text_reserve(qn_text *text, size_t more) {
    size_t need;
    if (!qni_add_size(&need, text->size, more) || !qni_add_size(&need, need, 1)) return false;
    return qni_grow(&text->data, &text->capacity, need, 1);
}

bool qni_text_append(qn_text *text, const char *data, size_t size) {
    if (!qni_text_reserve(text, size)) return false;
    if (size > 0) memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = '\0';
    return true;
}

bool qni_ids_append(qn_ids *ids, const int32_t *data, size_t n) {
    size_t need;
    if (!qni_add_size(&need, ids->size, n)) return false;
    if (need > ids->capacity && !qni_grow(&ids->data, &ids->capacity, need, sizeof *ids->data)) return false;
    for (size_t i = 0; i < n; i++) ids->data[ids->size + i] = data[i];
    ids->size = need;
    return true;
}

void qn_text_release(qn_text *text) {
    if (text == NULL) return;
    qni_free(text->data);
    *text = (qn_text){0};
}

void qn_ids_release(qn_ids *ids) {
    if (ids == NULL) return;
    qni_free(ids->data);
    *ids = (qn_ids){0};
}
