/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt's ids, from text or given directly, and whether it ends inside a reasoning block. */
#include "prompt.h"

#include "../base/memory.h"

#include <string.h>

/* Enough of a prompt's end to detect an opened reasoning block: a tag and white space. */
enum { TAIL_IDS = 256 };

static size_t prompt_size(const qn_generate_args *args) {
    return args->prompt_size > 0 ? args->prompt_size : strlen(args->prompt);
}

qn_status qni_prompt_encode(qn_ids *out, const qn_tokenizer *tokenizer, const qn_generate_args *args, qn_error *err) {
    if (args->prompt == NULL) {
        if (!qni_grow(&out->data, &out->capacity, args->n_ids, sizeof *out->data)) {
            return qni_fail(err, QN_ENOMEM, "prompt: no memory for %zu ids", args->n_ids);
        }
        memcpy(out->data, args->ids, args->n_ids * sizeof *args->ids);
        out->size = args->n_ids;
        return QN_OK;
    }
    const size_t size = prompt_size(args);
    if (args->runs != NULL) {
        QN_TRY(qn_tokenizer_encode_runs(tokenizer, out, args->prompt, size, args->runs, args->n_run, err));
    } else {
        QN_TRY(qn_tokenizer_encode_document(tokenizer, out, args->prompt, size, true, err));
    }
    return out->size > 0 ? QN_OK : qni_fail(err, QN_EINVAL, "prompt: is empty");
}

/* A tag spelled in several tokens came from a user: if the vocabulary has a token for it, only that token counts. */
static qn_status ids_reason(bool *out, const qn_tokenizer *tokenizer, const qn_ids *ids, qn_error *err) {
    qn_text text = {0};
    qn_status status = QN_OK;
    const bool has_token = qn_tokenizer_id(tokenizer, "<think>") >= 0;
    size_t n = ids->size < TAIL_IDS ? ids->size : TAIL_IDS;
    const int32_t *tail = ids->data + ids->size - n;
    *out = false;
    if (!has_token) {
        status = qn_tokenizer_decode(tokenizer, &text, tail, n, false, err);
        *out = status == QN_OK && qn_chat_starts_reasoning(text.data, text.size, NULL, 0);
    }
    for (bool is_white = has_token; status == QN_OK && is_white && n > 0; n--) {
        text.size = 0;
        status = qn_tokenizer_decode(tokenizer, &text, &tail[n - 1], 1, false, err);
        *out = status == QN_OK && qn_chat_starts_reasoning(text.data, text.size, NULL, 0);
        is_white = text.size == 0 || strspn(text.data, " \t\r\n\v\f") == text.size;
    }
    qn_text_release(&text);
    return status;
}

qn_status qni_prompt_reasons(bool *out, const qn_tokenizer *tokenizer, const qn_generate_args *args, const qn_ids *ids,
                             qn_error *err) {
    if (args->prompt == NULL) return ids_reason(out, tokenizer, ids, err);
    *out = qn_chat_starts_reasoning(args->prompt, prompt_size(args), args->runs, args->n_run);
    return QN_OK;
}
