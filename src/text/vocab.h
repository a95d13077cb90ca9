/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a tokenizer: id to text and bytes, text to id; and the map between bytes and the characters that
 * represent them in tokenizer.json. */
#ifndef QNI_VOCAB_H
#define QNI_VOCAB_H

#include "../base/error.h"
#include "buffer.h"
#include "hash.h"

/* Upper bound of ids: sixteen times the vocabulary of the largest published tokenizers. */
enum { QNI_ID_LIMIT = 1 << 22 };

typedef enum qni_token_kind {
    QNI_TOKEN_NONE = 0, /* no token has this id */
    QNI_TOKEN_ORDINARY = 1,
    QNI_TOKEN_ADDED = 2,
    QNI_TOKEN_SPECIAL = 4,   /* with ADDED */
    QNI_TOKEN_NORMAL = 8,    /* with ADDED: matched in the normal form */
    QNI_TOKEN_UNLISTED = 16, /* with ADDED, while files are read: missing from the tokens of tokenizer_config.json */
} qni_token_kind;

typedef struct qni_token {
    uint32_t text, text_size;   /* in qni_vocab.text: as written in tokenizer.json */
    uint32_t bytes, bytes_size; /* in qni_vocab.bytes: the bytes it stands for */
    uint32_t kind;              /* bit set of qni_token_kind */
} qni_token;

typedef struct qni_vocab {
    qn_text text, bytes;
    qni_token *token; /* [n], by id */
    size_t n, capacity;
    int32_t *slot; /* hash table of texts: id, or -1; the size is a power of two */
    size_t n_slot, n_used;
    qni_hash_key key;
} qni_vocab;

void qni_vocab_release(qni_vocab *vocab);

/* Reserve space for n tokens in total, so that adding them does not rehash. */
qn_status qni_vocab_reserve(qni_vocab *vocab, size_t n, qn_error *err);

/* Add a token, or mark an existing one with the same text and id as added. An added token's bytes are its text. Errors:
 * EFORMAT: the id is out of range or in use, or the text has another id; ENOMEM. */
qn_status qni_vocab_add(qni_vocab *vocab, const char *text, size_t size, int64_t id, unsigned kind, qn_error *err);

/* Make an added token special; verbatim: it is matched before normalization. */
void qni_vocab_set_special(qni_vocab *vocab, int32_t id, bool verbatim);

int32_t qni_vocab_id(const qni_vocab *vocab, const char *text, size_t size); /* -1: none */

static inline const char *qni_vocab_text(const qni_vocab *vocab, int32_t id) {
    return vocab->text.data + vocab->token[id].text;
}
static inline const char *qni_vocab_bytes(const qni_vocab *vocab, int32_t id) {
    return vocab->bytes.data + vocab->token[id].bytes;
}

/* The character that represents a byte: itself if it prints, else the next from U+0100 on, in order (GPT-2's map). */
uint32_t qni_byte_symbol(unsigned char byte);

#endif
