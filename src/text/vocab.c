/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens in two arenas and an open-addressing hash table. */
#include "vocab.h"

#include "../base/memory.h"
#include "../base/utf8.h"

#include <string.h>

static bool prints(unsigned byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* Number of non-printing bytes below this one. */
static unsigned hidden_below(unsigned byte) {
    if (byte <= 0x21) return byte;
    if (byte <= 0x7F) return 0x21;
    if (byte <= 0xA1) return 0x21 + byte - 0x7F;
    return 0x21 + 0xA1 - 0x7F + (byte > 0xAD);
}

uint32_t qni_byte_symbol(unsigned char byte) {
    return prints(byte) ? byte : 0x100 + hidden_below(byte);
}

/* The byte that a character stands for, or -1. */
static int byte_of_symbol(uint32_t symbol) {
    if (symbol < 0x100) return prints(symbol) ? (int)symbol : -1;
    uint32_t hidden = symbol - 0x100;
    if (hidden < 0x21) return (int)hidden;
    if (hidden < 0x21 + 0x22) return (int)(0x7F + hidden - 0x21);
    return hidden == 0x21 + 0x22 ? 0xAD : -1;
}

void qni_vocab_release(qni_vocab *vocab) {
    qn_text_release(&vocab->text);
    qn_text_release(&vocab->bytes);
    qni_free(vocab->token);
    qni_free(vocab->slot);
    *vocab = (qni_vocab){0};
}

/* The slot of a text, or the free slot where it would be inserted. */
static size_t find_slot(const qni_vocab *vocab, const char *text, size_t size) {
    size_t at = qni_hash_text(&vocab->key, text, size) & (vocab->n_slot - 1);
    for (; vocab->slot[at] >= 0; at = (at + 1) & (vocab->n_slot - 1)) {
        const qni_token *token = &vocab->token[vocab->slot[at]];
        if (token->text_size == size && memcmp(vocab->text.data + token->text, text, size) == 0) break;
    }
    return at;
}

qn_status qni_vocab_reserve(qni_vocab *vocab, size_t n, qn_error *err) {
    size_t wanted = vocab->n_slot < 256 ? 256 : vocab->n_slot;
    while (wanted / 2 < n) {
        if (!qni_mul_size(&wanted, wanted, 2)) return qni_fail(err, QN_ENOMEM, "vocab: out of memory");
    }
    if (wanted == vocab->n_slot) return QN_OK;
    int32_t *slot = qni_calloc(wanted, sizeof *slot);
    if (slot == NULL) return qni_fail(err, QN_ENOMEM, "vocab: out of memory");
    for (size_t i = 0; i < wanted; i++) slot[i] = -1;
    if (vocab->n_slot == 0) qni_hash_key_make(&vocab->key);
    qni_free(vocab->slot);
    vocab->slot = slot;
    vocab->n_slot = wanted;
    for (size_t i = 0; i < vocab->n; i++) {
        if (vocab->token[i].kind == QNI_TOKEN_NONE) continue;
        slot[find_slot(vocab, vocab->text.data + vocab->token[i].text, vocab->token[i].text_size)] = (int32_t)i;
    }
    return QN_OK;
}

int32_t qni_vocab_id(const qni_vocab *vocab, const char *text, size_t size) {
    if (vocab->n_slot == 0) return -1;
    return vocab->slot[find_slot(vocab, text, size)];
}

void qni_vocab_set_special(qni_vocab *vocab, int32_t id, bool verbatim) {
    qni_token *token = &vocab->token[id];
    token->kind |= QNI_TOKEN_SPECIAL;
    if (verbatim) token->kind &= ~(uint32_t)QNI_TOKEN_NORMAL;
}

static qn_status no_memory(qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "vocab: out of memory");
}

/* Append the bytes that a text's symbols stand for, or the text itself if one of them is not a byte symbol. */
static bool append_bytes(qn_text *bytes, const char *text, size_t size) {
    size_t before = bytes->size;
    if (!qni_text_reserve(bytes, size)) return false;
    for (size_t i = 0; i < size;) {
        uint32_t symbol;
        size_t k = qni_utf8_decode(text + i, size - i, &symbol);
        int byte = k > 0 ? byte_of_symbol(symbol) : -1;
        if (byte < 0) {
            bytes->size = before;
            return qni_text_append(bytes, text, size);
        }
        bytes->data[bytes->size++] = (char)byte;
        i += k;
    }
    bytes->data[bytes->size] = '\0';
    return true;
}

qn_status qni_vocab_add(qni_vocab *vocab, const char *text, size_t size, int64_t id, unsigned kind, qn_error *err) {
    int shown = size < 64 ? (int)size : 64;
    if (id < 0 || id >= QNI_ID_LIMIT) {
        return qni_fail(err, QN_EFORMAT, "token \"%.*s\": id %lld is not within 0 … %d", shown, text, (long long)id,
                        QNI_ID_LIMIT - 1);
    }
    QN_TRY(qni_vocab_reserve(vocab, vocab->n_used + 1, err));
    size_t slot = find_slot(vocab, text, size);
    qni_token *token = (size_t)id < vocab->n ? &vocab->token[id] : NULL;
    if (vocab->slot[slot] >= 0 && vocab->slot[slot] != id) {
        return qni_fail(err, QN_EFORMAT, "token \"%.*s\": has id %d and id %lld", shown, text, vocab->slot[slot],
                        (long long)id);
    }
    bool known = vocab->slot[slot] == id;
    if (!known && token != NULL && token->kind != QNI_TOKEN_NONE) {
        int other = token->text_size < 64 ? (int)token->text_size : 64;
        return qni_fail(err, QN_EFORMAT, "id %lld: is both \"%.*s\" and \"%.*s\"", (long long)id, other,
                        vocab->text.data + token->text, shown, text);
    }
    size_t need = (size_t)id + 1;
    if (need > vocab->n) {
        if (!qni_grow(&vocab->token, &vocab->capacity, need, sizeof *vocab->token)) return no_memory(err);
        memset(vocab->token + vocab->n, 0, (need - vocab->n) * sizeof *vocab->token);
        vocab->n = need;
    }
    token = &vocab->token[id];
    if (vocab->text.size + size > UINT32_MAX || vocab->bytes.size + size > UINT32_MAX) return no_memory(err);
    uint32_t text_at = known ? token->text : (uint32_t)vocab->text.size, bytes_at = (uint32_t)vocab->bytes.size;
    if (!known && !qni_text_append(&vocab->text, text, size)) return no_memory(err);
    bool verbatim = (kind & QNI_TOKEN_ADDED) != 0;
    if (!(verbatim ? qni_text_append(&vocab->bytes, text, size) : append_bytes(&vocab->bytes, text, size))) {
        return no_memory(err);
    }
    *token = (qni_token){text_at, (uint32_t)size, bytes_at, (uint32_t)vocab->bytes.size - bytes_at, kind | token->kind};
    vocab->slot[slot] = (int32_t)id;
    vocab->n_used += !known;
    return QN_OK;
}
