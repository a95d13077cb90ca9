/* SPDX-License-Identifier: Apache-2.0 */
/* qn_text, qn_prompt and qn_ids: growth by doubling, and release. */
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

bool qni_prompt_append(qn_prompt *prompt, const char *data, size_t size, bool trusted) {
    if (size == 0) return qni_text_append(&prompt->text, data, 0);
    bool joins = prompt->n_run > 0 && prompt->runs[prompt->n_run - 1].trusted == trusted;
    if (!joins && !qni_grow(&prompt->runs, &prompt->run_capacity, prompt->n_run + 1, sizeof *prompt->runs))
        return false;
    if (!qni_text_append(&prompt->text, data, size)) return false;
    if (joins) {
        prompt->runs[prompt->n_run - 1].size += size;
    } else {
        prompt->runs[prompt->n_run++] = (qn_text_run){size, trusted};
    }
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

void qni_prompt_cut(qn_prompt *prompt, size_t size) {
    while (prompt->text.size > size) {
        qn_text_run *last = &prompt->runs[prompt->n_run - 1];
        size_t more = prompt->text.size - size, less = more < last->size ? more : last->size;
        last->size -= less;
        prompt->text.size -= less;
        prompt->n_run -= last->size == 0;
    }
    if (prompt->text.data != NULL) prompt->text.data[size] = '\0';
}

void qn_prompt_release(qn_prompt *prompt) {
    if (prompt == NULL) return;
    qn_text_release(&prompt->text);
    qni_free(prompt->runs);
    *prompt = (qn_prompt){0};
}

void qn_ids_release(qn_ids *ids) {
    if (ids == NULL) return;
    qni_free(ids->data);
    *ids = (qn_ids){0};
}
