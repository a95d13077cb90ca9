/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer is made of. */
#ifndef QNI_TOKENIZER_IMPL_H
#define QNI_TOKENIZER_IMPL_H

#include "../base/json.h"
#include "added.h"
#include "bpe.h"
#include "normalize.h"
#include "pretokenize.h"

#include <pthread.h>

/* Scratch of one call of encode, with the cache of pieces. A tokenizer keeps a few for the next calls. */
typedef struct qni_encoder {
    qni_nfc nfc;
    qni_split_scratch *split;
    qni_bpe_scratch *bpe;
    qn_text symbols; /* a piece as tokenizer.json would write it */
} qni_encoder;

enum {
    QNI_SPARE_ENCODERS = 4,
    QNI_ENCODER_KEEP_BYTES = 1 << 20, /* a spare encoder keeps no buffer larger than this */
};

/* The only part of a tokenizer that changes after opening. */
typedef struct qni_spares {
    pthread_mutex_t lock;
    qni_encoder *encoder[QNI_SPARE_ENCODERS];
    int n;
} qni_spares;

struct qn_tokenizer {
    qni_vocab vocab;
    qni_bpe bpe;
    qni_added added;      /* looked for in the text as it is */
    qni_added normalized; /* looked for in the normal form */
    qni_splitting *splitting;
    qni_spares *spares;
    int32_t eos;    /* -1: none */
    size_t longest; /* bytes of the longest ordinary token's text */
    bool nfc;
    bool ignore_merges; /* a piece that is a token is that token */
};

/* A tokenizer from the texts of tokenizer.json and tokenizer_config.json (NULL: none). Errors: as qn_tokenizer_open. */
qn_status qni_tokenizer_open_text(qn_tokenizer **out, const char *json, size_t size, const char *config,
                                  size_t config_size, qn_error *err);

/* Adds an added token of either file. Errors: EFORMAT, EUNSUPPORTED, ENOMEM. */
qn_status qni_tokenizer_add(qn_tokenizer *tokenizer, const json_t *token, int64_t id, qn_error *err);

/* Takes what tokenizer_config.json says beyond tokenizer.json; config may be NULL. Errors: EFORMAT, EUNSUPPORTED,
 * ENOMEM. */
qn_status qni_tokenizer_read_config(qn_tokenizer *tokenizer, const json_t *config, qn_error *err);

/* Fills a tokenizer from the parsed files; config may be NULL. */
qn_status qni_tokenizer_fill(qn_tokenizer *tokenizer, const json_t *root, const json_t *config, qn_error *err);

#endif
