/* SPDX-License-Identifier: Apache-2.0 */
/* Internals of a tokenizer. */
#ifndef QNI_TOKENIZER_IMPL_H
#define QNI_TOKENIZER_IMPL_H

#include "../base/json.h"
#include "added.h"
#include "bpe.h"
#include "normalize.h"
#include "pretokenize.h"
#include "trust.h"

#include <pthread.h>

/* Workspace of one encode call, with the pre-token cache. A tokenizer keeps a few for later calls. */
typedef struct qni_encoder {
    qni_nfc nfc;
    qni_split_scratch *split;
    qni_bpe_scratch *bpe;
    qn_text symbols;  /* a pre-token in the byte symbols of tokenizer.json */
    qni_trust trust;  /* trusted ranges of the text */
    qni_trust normal; /* trusted ranges of the normal form of a part of it */
} qni_encoder;

enum {
    QNI_SPARE_ENCODERS = 4,
    QNI_ENCODER_KEEP_BYTES = 1 << 20, /* buffers of a spare encoder larger than this are freed */
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
    qni_added added;      /* searched in the text before normalization */
    qni_added normalized; /* searched in the normal form */
    qni_splitting *splitting;
    qni_spares *spares;
    qn_ids before, after; /* ids that the post_processor adds around a text */
    int64_t n_model;      /* number of entries in the model's vocab */
    int64_t top_added;    /* the highest id of an added token, or -1 */
    int32_t eos;          /* -1: none */
    size_t longest;       /* length in bytes of the longest ordinary token's text */
    bool nfc;
    bool ignore_merges; /* a pre-token that is itself a token is not merged */
};

/* The files of a tokenizer; all but the first may be NULL. */
typedef struct qni_tokenizer_files {
    const json_t *tokenizer;   /* tokenizer.json */
    const json_t *config;      /* tokenizer_config.json */
    const json_t *special_map; /* special_tokens_map.json */
    const json_t *added;       /* added_tokens.json */
} qni_tokenizer_files;

/* An added token as read from a file. */
typedef struct qni_added_token {
    const char *text;
    size_t size;
    bool special, normalized;
} qni_added_token;

/* Make a tokenizer from the texts of tokenizer.json and tokenizer_config.json (NULL: none). Errors: as
 * qn_tokenizer_open. */
qn_status qni_tokenizer_open_text(qn_tokenizer **out, const char *json, size_t size, const char *config,
                                  size_t config_size, qn_error *err);

/* Fill a tokenizer. Errors: as qn_tokenizer_open. */
qn_status qni_tokenizer_fill(qn_tokenizer *tokenizer, const qni_tokenizer_files *files, qn_error *err);

/* tokenizer_check.c: prefix the message of a failure with the file name. */
qn_status qni_in_file(const char *name, qn_status status, qn_error *err);
/* The type of a component of tokenizer.json, or NULL; whether it is a given one; the error for an unknown one. */
const char *qni_type_of(const json_t *object);
bool qni_is_type(const json_t *object, const char *type);
qn_status qni_unknown_type(const json_t *object, const char *what, qn_error *err);
/* Check a setting that must be false; `otherwise` is its default. Errors: EFORMAT, EUNSUPPORTED. */
qn_status qni_tokenizer_expect_false(const json_t *object, const char *what, const char *key, bool otherwise,
                                     qn_error *err);

/* tokenizer_post.c: read post_processor, once all tokens are known. Errors: EFORMAT, EUNSUPPORTED, ENOMEM. */
qn_status qni_tokenizer_read_post(qn_tokenizer *tokenizer, const json_t *post, qn_error *err);

/* tokenizer_config.c and tokenizer_special.c: read the companions of tokenizer.json. Errors: EFORMAT, EUNSUPPORTED,
 * ENOMEM. */
qn_status qni_tokenizer_read_companions(qn_tokenizer *tokenizer, const qni_tokenizer_files *files, qn_error *err);
qn_status qni_tokenizer_read_special(qn_tokenizer *tokenizer, const qni_tokenizer_files *files, qn_error *err);
bool qni_tokenizer_is_qwen2(const json_t *config);                /* transformers' class is Qwen2Tokenizer */
bool qni_tokenizer_has_decoder(const qni_tokenizer_files *files); /* tokenizer_config.json lists added tokens */
bool qni_tokenizer_names(const qni_tokenizer_files *files, const char *text); /* named as a special token */

/* tokenizer_tokens.c: read the id of a token. Errors: EFORMAT with the value. */
qn_status qni_tokenizer_read_id(int64_t *out, const json_t *value, const char *text, qn_error *err);
/* Read {"content": …}; `where` names it in messages. "normalized" defaults to `normalized` for a token that is not
 * special, else to false. Errors: EFORMAT, EUNSUPPORTED. */
qn_status qni_added_token_read(qni_added_token *out, const json_t *token, const char *where, bool normalized,
                               qn_error *err);
/* The id that a new added token would get. */
int64_t qni_tokenizer_next_id(const qn_tokenizer *tokenizer);
/* Add a token with the id given by a file, or mark an existing token with that id as added. Errors: EFORMAT: the token
 * has, or would get, another id; ENOMEM. */
qn_status qni_tokenizer_add(qn_tokenizer *tokenizer, const qni_added_token *token, int64_t id, qn_error *err);
/* Build the tries once all tokens are known. Errors: ENOMEM. */
qn_status qni_tokenizer_index_added(qn_tokenizer *tokenizer, qn_error *err);

#endif
