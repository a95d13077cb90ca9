/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a tokenizer: id to text and bytes, text to id; and the map of bytes to the characters that stand for
 * them in tokenizer.json. */
#ifndef QNI_VOCAB_H
#define QNI_VOCAB_H

#include "../base/error.h"
#include "buffer.h"
#include "hash.h"

/* Ids are below this: sixteen times what the largest published tokenizers have. */
enum { QNI_ID_LIMIT = 1 << 22 };

typedef enum qni_token_kind {
    QNI_TOKEN_NONE = 0, /* no token has this id */
    QNI_TOKEN_ORDINARY = 1,
    QNI_TOKEN_ADDED = 2,
    QNI_TOKEN_SPECIAL = 4,   /* beside ADDED */
    QNI_TOKEN_NORMAL = 8,    /* beside ADDED: looked for in the normal form */
    QNI_TOKEN_UNLISTED = 16, /* beside ADDED, while files are read: tokenizer_config.json lists tokens, but not this */
} qni_token_kind;

typedef struct qni_token {
    uint32_t text, text_size;   /* in qni_vocab.text: as tokenizer.json writes it */
    uint32_t bytes, bytes_size; /* in qni_vocab.bytes: what it stands for */
    uint32_t kind;              /* qni_token_kind, several bits */
} qni_token;

typedef struct qni_vocab {
    qn_text text, bytes;
    qni_token *token; /* [n], by id */
    size_t n, capacity;
    int32_t *slot; /* hash table of texts: id, or -1; a power of two */
    size_t n_slot, n_used;
    qni_hash_key key;
} qni_vocab;

void qni_vocab_release(qni_vocab *vocab);

/* Makes room for n tokens in all, so that adding them does not rehash. */
qn_status qni_vocab_reserve(qni_vocab *vocab, size_t n, qn_error *err);

/* Adds a token, or marks one that is there with the same text and id as added. An added token's bytes are its text.
 * Errors: EFORMAT: the id is out of range or another token's, the text has another id; ENOMEM. */
qn_status qni_vocab_add(qni_vocab *vocab, const char *text, size_t size, int64_t id, unsigned kind, qn_error *err);

/* Makes an added token special; verbatim: it is looked for in the text as it is. */
void qni_vocab_set_special(qni_vocab *vocab, int32_t id, bool verbatim);

int32_t qni_vocab_id(const qni_vocab *vocab, const char *text, size_t size); /* -1: none */

static inline const char *qni_vocab_text(const qni_vocab *vocab, int32_t id) {
    return vocab->text.data + vocab->token[id].text;
}
static inline const char *qni_vocab_bytes(const qni_vocab *vocab, int32_t id) {
    return vocab->bytes.data + vocab->token[id].bytes;
}

/* The character that stands for a byte: itself where it prints, else U+0100 and on in order (GPT-2's map). */
uint32_t qni_byte_symbol(unsigned char byte);

#endif
