/* SPDX-License-Identifier: Apache-2.0 */
/* Convert ids back to text, all at once or incrementally. */
#include "../base/memory.h"
#include "../base/utf8.h"
#include "lossy.h"
#include "tokenizer_impl.h"

struct qn_decoder {
    const qn_tokenizer *tokenizer;
    bool skip_special;
    qni_lossy tail;
};

/* Consume bytes that complete the pending character; returns the count. Capacity is already reserved. */
static size_t complete(qni_lossy *state, qn_text *text, const char *data, size_t size) {
    size_t taken = 0;
    while (state->n > 0 && taken < size) {
        state->bytes[state->n++] = data[taken++];
        size_t length;
        uint32_t point;
        qni_utf8_state found = qni_utf8_scan(state->bytes, state->n, &length, &point);
        if (found == QNI_UTF8_PARTIAL) continue;
        bool whole = found == QNI_UTF8_WHOLE;
        if (!whole) taken--; /* the byte that does not fit starts a new character */
        (void)!qni_text_append(text, whole ? state->bytes : QNI_UTF8_REPLACEMENT, whole ? state->n : 3);
        state->n = 0;
    }
    return taken;
}

bool qni_lossy_push(qni_lossy *state, qn_text *text, const char *data, size_t size) {
    /* Each byte yields at most one U+FFFD, and so does the pending character. With this reserved, no append below can
     * fail. */
    size_t need;
    if (!qni_mul_size(&need, size, 3) || !qni_add_size(&need, need, 6) || !qni_text_reserve(text, need)) return false;
    size_t at = complete(state, text, data, size);
    while (at < size) {
        size_t valid = qni_utf8_valid_prefix(data + at, size - at);
        (void)!qni_text_append(text, data + at, valid);
        at += valid;
        if (at == size) break;
        size_t length;
        uint32_t point;
        if (qni_utf8_scan(data + at, size - at, &length, &point) == QNI_UTF8_PARTIAL) {
            for (; at < size; at++) state->bytes[state->n++] = data[at];
            break;
        }
        (void)!qni_text_append(text, QNI_UTF8_REPLACEMENT, 3);
        at += length;
    }
    text->data[text->size] = '\0';
    return true;
}

bool qni_lossy_finish(qni_lossy *state, qn_text *text) {
    if (!qni_text_append(text, QNI_UTF8_REPLACEMENT, state->n > 0 ? 3 : 0)) return false;
    state->n = 0;
    return true;
}

/* Append the bytes of one id: nothing for padding or for a skipped special token. */
static bool push_id(const qn_tokenizer *tokenizer, qni_lossy *tail, qn_text *text, int32_t id, bool skip_special) {
    const qni_token *token = (size_t)id < tokenizer->vocab.n ? &tokenizer->vocab.token[id] : NULL;
    bool silent = token == NULL || token->kind == QNI_TOKEN_NONE;
    if (silent || (skip_special && (token->kind & QNI_TOKEN_SPECIAL))) return qni_text_append(text, NULL, 0);
    return qni_lossy_push(tail, text, qni_vocab_bytes(&tokenizer->vocab, id), token->bytes_size);
}

static qn_status no_memory(qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "decode: out of memory");
}

qn_status qn_tokenizer_decode(const qn_tokenizer *tokenizer, qn_text *text, const int32_t *ids, size_t n_ids,
                              bool skip_special, qn_error *err) {
    if (tokenizer == NULL || text == NULL || (ids == NULL && n_ids > 0)) {
        return qni_fail(err, QN_EINVAL, "decode: tokenizer, text and ids must not be NULL");
    }
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0) return qni_fail(err, QN_EINVAL, "decode: id %zu is %d, and no id is negative", i, ids[i]);
    }
    qni_lossy tail = {.n = 0};
    size_t before = text->size;
    bool enough = true;
    for (size_t i = 0; i < n_ids && enough; i++) enough = push_id(tokenizer, &tail, text, ids[i], skip_special);
    if (enough && qni_lossy_finish(&tail, text)) return QN_OK;
    text->size = before;
    if (text->data != NULL) text->data[before] = '\0';
    return no_memory(err);
}

qn_status qn_decoder_create(qn_decoder **out, const qn_tokenizer *tokenizer, bool skip_special, qn_error *err) {
    if (out == NULL || tokenizer == NULL) {
        return qni_fail(err, QN_EINVAL, "decoder: out and tokenizer must not be NULL");
    }
    qn_decoder *decoder = qni_calloc(1, sizeof *decoder);
    if (decoder == NULL) return qni_fail(err, QN_ENOMEM, "decoder: out of memory");
    *decoder = (qn_decoder){.tokenizer = tokenizer, .skip_special = skip_special};
    *out = decoder;
    return QN_OK;
}

void qn_decoder_free(qn_decoder *decoder) {
    qni_free(decoder);
}

qn_status qn_decoder_push(qn_decoder *decoder, qn_text *text, int32_t id, qn_error *err) {
    if (decoder == NULL || text == NULL) {
        return qni_fail(err, QN_EINVAL, "decoder: decoder and text must not be NULL");
    }
    if (id < 0) return qni_fail(err, QN_EINVAL, "decoder: id %d is negative", id);
    if (push_id(decoder->tokenizer, &decoder->tail, text, id, decoder->skip_special)) return QN_OK;
    return no_memory(err);
}

qn_status qn_decoder_finish(qn_decoder *decoder, qn_text *text, qn_error *err) {
    if (decoder == NULL || text == NULL) {
        return qni_fail(err, QN_EINVAL, "decoder: decoder and text must not be NULL");
    }
    return qni_lossy_finish(&decoder->tail, text) ? QN_OK : no_memory(err);
}
