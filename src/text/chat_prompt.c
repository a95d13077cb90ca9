/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of a rendered prompt: whether the answer starts inside a reasoning block, and which token ends the
 * answer. */
#include "../base/memory.h"
#include "buffer.h"
#include "chat.h"
#include "tokenizer_impl.h"

#include <string.h>

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Whether bytes first … end-1 lie in trusted runs. */
static bool is_trusted(const qn_text_run *runs, size_t n_run, size_t first, size_t end) {
    size_t at = 0;
    for (size_t i = 0; i < n_run && at < end; i++) {
        if (at + runs[i].size > first && runs[i].size > 0 && !runs[i].trusted) return false;
        at += runs[i].size;
    }
    return at >= end;
}

bool qn_chat_starts_reasoning(const char *prompt, size_t size, const qn_text_run *runs, size_t n_run) {
    static const char open[] = "<think>";
    size_t n = sizeof open - 1;
    if (prompt == NULL) return false;
    while (size > 0 && is_space(prompt[size - 1])) size--;
    /* Only white space follows the tag, so it cannot be closed. */
    if (size < n || memcmp(prompt + size - n, open, n) != 0) return false;
    return runs == NULL || is_trusted(runs, n_run, size - n, size);
}

/* An answer that no template produces by itself, and a conversation that ends with it. */
#define SENTINEL "quern 8f2c answer"
#define EXCHANGE "{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"" SENTINEL "\"}"

/* The added token that a template writes right after the sentinel; -1: none. */
static int32_t token_after(const qn_prompt *prompt, const qn_tokenizer *tokenizer) {
    const char *text = prompt->text.data, *found = NULL;
    const size_t size = prompt->text.size, n = sizeof SENTINEL - 1;
    for (size_t i = 0; i + n <= size && found == NULL; i++) {
        if (memcmp(text + i, SENTINEL, n) == 0) found = text + i;
    }
    if (found == NULL) return -1;
    size_t at = (size_t)(found - text) + n, length = 0;
    while (at < size && is_space(text[at])) at++;
    int32_t id = -1;
    const qni_added *const tries[] = {&tokenizer->added, &tokenizer->normalized};
    for (int i = 0; i < 2 && at < size; i++) {
        if (qni_added_find(tries[i], text, size, at, &length, &id) == at) break;
        id = -1;
    }
    return id >= 0 && is_trusted(prompt->runs, prompt->n_run, at, at + length) ? id : -1;
}

/* Render the messages and search the result. A refused render is ignored. */
static qn_status try_messages(const qn_chat_template *chat_template, const qn_tokenizer *tokenizer,
                              const qn_chat_input *input, int32_t *id, qn_error *err) {
    qn_prompt prompt = {0};
    qn_error refusal = {0};
    qn_status status = qn_chat_render(chat_template, &prompt, input, &refusal);
    if (status == QN_OK) *id = token_after(&prompt, tokenizer);
    qn_prompt_release(&prompt);
    return status == QN_ENOMEM ? qni_fail(err, status, "%s", refusal.message) : QN_OK;
}

static qn_status add(qn_ids *ids, int32_t id, qn_error *err) {
    for (size_t i = 0; i < ids->size; i++) {
        if (ids->data[i] == id) return QN_OK;
    }
    return qni_ids_append(ids, &id, 1) ? QN_OK : qni_fail(err, QN_ENOMEM, "chat ends: out of memory");
}

/* The token that ends an answer in a conversation with these tools. */
static qn_status find_end(const qn_chat_template *chat_template, const qn_tokenizer *tokenizer, const char *tools,
                          qn_ids *ids, qn_error *err) {
    /* Look after the last answer; if the template leaves that open, after an answer that is followed by a question. */
    static const char *const messages[] = {"[" EXCHANGE "]",
                                           "[" EXCHANGE ", {\"role\": \"user\", \"content\": \"x\"}]"};
    int32_t id = -1;
    for (size_t i = 0; i < 2 && id < 0; i++) {
        const qn_chat_input input = {.messages = messages[i], .tools = tools};
        QN_TRY(try_messages(chat_template, tokenizer, &input, &id, err));
    }
    return id >= 0 ? add(ids, id, err) : QN_OK;
}

qn_status qn_chat_ends(const qn_chat_template *chat_template, const qn_tokenizer *tokenizer, qn_ids *ids,
                       qn_error *err) {
    static const char tool[] = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"x\", "
                               "\"parameters\": {\"type\": \"object\", \"properties\": {}}}}]";
    if (chat_template == NULL || tokenizer == NULL || ids == NULL) {
        return qni_fail(err, QN_EINVAL, "chat ends: the template, the tokenizer or ids are NULL");
    }
    const size_t before = ids->size;
    const int32_t eos = qn_tokenizer_eos(tokenizer);
    qn_status status = eos >= 0 ? add(ids, eos, err) : QN_OK;
    if (status == QN_OK && chat_template->standard != NULL) {
        status = find_end(chat_template, tokenizer, NULL, ids, err);
    }
    if (status == QN_OK && chat_template->tool_use != NULL) {
        status = find_end(chat_template, tokenizer, tool, ids, err);
    }
    if (status != QN_OK) ids->size = before;
    return status;
}
