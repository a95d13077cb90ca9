/* SPDX-License-Identifier: Apache-2.0 */
/* The public tokenizer functions: opening, lookup, encoding. Decoding is in decoder.c. */
#include "../base/file.h"
#include "../base/memory.h"
#include "../base/utf8.h"
#include "tokenizer_impl.h"

#include <string.h>

/* Larger than any published tokenizer.json (Qwen3's is 11 MB), small enough to parse in memory. */
enum { FILE_BYTES = 64 << 20 };

static void encoder_free(qni_encoder *encoder) {
    if (encoder == NULL) return;
    qni_nfc_trim(&encoder->nfc, 0);
    qni_split_scratch_free(encoder->split);
    qni_bpe_scratch_free(encoder->bpe);
    qn_text_release(&encoder->symbols);
    qni_trust_trim(&encoder->trust, 0);
    qni_trust_trim(&encoder->normal, 0);
    qni_free(encoder);
}

static qni_encoder *encoder_create(const qn_tokenizer *tokenizer) {
    qni_encoder *encoder = qni_calloc(1, sizeof *encoder);
    if (encoder == NULL) return NULL;
    encoder->split = qni_split_scratch_create(tokenizer->splitting);
    encoder->bpe = qni_bpe_scratch_create();
    if (encoder->split != NULL && encoder->bpe != NULL) return encoder;
    encoder_free(encoder);
    return NULL;
}

/* A spare encoder, or a new one; NULL: out of memory. If the lock is taken, do not wait: in a forked child its holder
 * may be a thread that exists only in the parent. */
static qni_encoder *acquire_encoder(const qn_tokenizer *tokenizer) {
    qni_spares *spares = tokenizer->spares;
    if (pthread_mutex_trylock(&spares->lock) != 0) return encoder_create(tokenizer);
    qni_encoder *encoder = spares->n > 0 ? spares->encoder[--spares->n] : NULL;
    pthread_mutex_unlock(&spares->lock);
    return encoder != NULL ? encoder : encoder_create(tokenizer);
}

static void release_encoder(const qn_tokenizer *tokenizer, qni_encoder *encoder) {
    qni_nfc_trim(&encoder->nfc, QNI_ENCODER_KEEP_BYTES);
    qni_bpe_scratch_trim(encoder->bpe, QNI_ENCODER_KEEP_BYTES);
    qni_trust_trim(&encoder->trust, QNI_ENCODER_KEEP_BYTES);
    qni_trust_trim(&encoder->normal, QNI_ENCODER_KEEP_BYTES);
    qni_spares *spares = tokenizer->spares;
    bool kept = false;
    if (pthread_mutex_trylock(&spares->lock) == 0) {
        kept = spares->n < QNI_SPARE_ENCODERS;
        if (kept) spares->encoder[spares->n++] = encoder;
        pthread_mutex_unlock(&spares->lock);
    }
    if (!kept) encoder_free(encoder);
}

void qn_tokenizer_close(qn_tokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    if (tokenizer->spares != NULL) {
        for (int i = 0; i < tokenizer->spares->n; i++) encoder_free(tokenizer->spares->encoder[i]);
        pthread_mutex_destroy(&tokenizer->spares->lock);
        qni_free(tokenizer->spares);
    }
    qni_vocab_release(&tokenizer->vocab);
    qni_bpe_release(&tokenizer->bpe);
    qni_added_release(&tokenizer->added);
    qni_added_release(&tokenizer->normalized);
    qni_splitting_free(tokenizer->splitting);
    qn_ids_release(&tokenizer->before);
    qn_ids_release(&tokenizer->after);
    qni_free(tokenizer);
}

static qn_status open_parsed(qn_tokenizer **out, const qni_tokenizer_files *files, qn_error *err) {
    qn_tokenizer *tokenizer = qni_calloc(1, sizeof *tokenizer);
    qni_spares *spares = qni_calloc(1, sizeof *spares);
    if (tokenizer == NULL || spares == NULL || pthread_mutex_init(&spares->lock, NULL) != 0) {
        qni_free(tokenizer);
        qni_free(spares);
        return qni_fail(err, QN_ENOMEM, "tokenizer: out of memory");
    }
    tokenizer->spares = spares;
    qn_status status = qni_tokenizer_fill(tokenizer, files, err);
    if (status == QN_OK) {
        *out = tokenizer;
    } else {
        qn_tokenizer_close(tokenizer);
    }
    return status;
}

qn_status qni_tokenizer_open_text(qn_tokenizer **out, const char *json, size_t size, const char *config,
                                  size_t config_size, qn_error *err) {
    json_t *root = NULL, *settings = NULL;
    qn_status status = qni_json_parse(&root, "tokenizer.json", json, size, err);
    if (status == QN_OK && config != NULL) {
        status = qni_json_parse(&settings, "tokenizer_config.json", config, config_size, err);
    }
    if (status == QN_OK) status = open_parsed(out, &(qni_tokenizer_files){root, settings, NULL, NULL}, err);
    json_decref(root);
    json_decref(settings);
    return status;
}

qn_status qn_tokenizer_open(qn_tokenizer **out, const char *dir, qn_error *err) {
    if (out == NULL || dir == NULL) return qni_fail(err, QN_EINVAL, "tokenizer: out and dir must not be NULL");
    static const char *const name[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                       "added_tokens.json"};
    enum { N = sizeof name / sizeof *name };
    json_t *file[N] = {NULL};
    qn_status status = QN_OK;
    for (int i = 0; i < N && status == QN_OK; i++) {
        char *path = qni_path_join(dir, name[i]);
        if (path == NULL) status = qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
        if (status == QN_OK && (i == 0 || qni_path_exists(path))) {
            status = qni_json_read(&file[i], path, FILE_BYTES, err);
        }
        qni_free(path);
    }
    if (status == QN_OK) status = open_parsed(out, &(qni_tokenizer_files){file[0], file[1], file[2], file[3]}, err);
    for (int i = 0; i < N; i++) json_decref(file[i]);
    return status;
}

int32_t qn_tokenizer_n_vocab(const qn_tokenizer *tokenizer) {
    return tokenizer != NULL ? (int32_t)tokenizer->vocab.n : 0;
}

int32_t qn_tokenizer_id(const qn_tokenizer *tokenizer, const char *text) {
    return tokenizer != NULL && text != NULL ? qni_vocab_id(&tokenizer->vocab, text, strlen(text)) : -1;
}

bool qn_tokenizer_is_special(const qn_tokenizer *tokenizer, int32_t id) {
    if (tokenizer == NULL || id < 0 || (size_t)id >= tokenizer->vocab.n) return false;
    return (tokenizer->vocab.token[id].kind & QNI_TOKEN_SPECIAL) != 0;
}

int32_t qn_tokenizer_eos(const qn_tokenizer *tokenizer) {
    return tokenizer != NULL ? tokenizer->eos : -1;
}

/* State of one encode call. */
typedef struct encoding {
    const qn_tokenizer *tokenizer;
    qni_encoder *encoder;
    qn_ids *ids;
    const char *text; /* the whole text; e.encoder->trust refers to its bytes */
    qn_error *err;
} encoding;

static qn_status no_memory(qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "encode: out of memory");
}

/* The id of a pre-token that is itself an ordinary token, or -1. Returns false when out of memory. */
static bool whole_token(const encoding *e, const char *pretoken, size_t size, int32_t *id) {
    *id = -1;
    if (size > e->tokenizer->longest) return true;
    qn_text *symbols = &e->encoder->symbols;
    symbols->size = 0;
    for (size_t i = 0; i < size; i++) {
        char bytes[4];
        size_t n = qni_utf8_encode(bytes, qni_byte_symbol((unsigned char)pretoken[i]));
        if (!qni_text_append(symbols, bytes, n)) return false;
    }
    int32_t found = qni_vocab_id(&e->tokenizer->vocab, symbols->data, symbols->size);
    if (found >= 0 && (e->tokenizer->vocab.token[found].kind & QNI_TOKEN_ORDINARY)) *id = found;
    return true;
}

static qn_status encode_pretoken(void *user, const char *pretoken, size_t size, qn_error *err) {
    const encoding *e = user;
    if (e->tokenizer->ignore_merges) {
        int32_t id;
        if (!whole_token(e, pretoken, size, &id)) return no_memory(err);
        if (id >= 0) return qni_ids_append(e->ids, &id, 1) ? QN_OK : no_memory(err);
    }
    bool done = qni_bpe_encode(&e->tokenizer->bpe, e->encoder->bpe, e->ids, pretoken, size);
    return done ? QN_OK : no_memory(err);
}

typedef qn_status (*encode_stage)(const encoding *e, const char *text, size_t size);

/* Cut a text at the added tokens of a trie; the text between them goes to the next stage. */
static qn_status cut(const encoding *e, const qni_added *added, const qni_trust *trust, encode_stage next,
                     const char *text, size_t size) {
    size_t taken = 0;
    while (taken < size) {
        size_t length = 0;
        int32_t id = -1;
        size_t at = qni_trust_find(trust, added, text, size, taken, &length, &id);
        if (at == size) break;
        if (at > taken) QN_TRY(next(e, text + taken, at - taken));
        if (!qni_ids_append(e->ids, &id, 1)) return no_memory(e->err);
        taken = at + length;
    }
    return taken < size ? next(e, text + taken, size - taken) : QN_OK;
}

static qn_status encode_normal(const encoding *e, const char *text, size_t size) {
    return qni_splitting_run(e->tokenizer->splitting, e->encoder->split, text, size, encode_pretoken, (void *)e,
                             e->err);
}

/* Encode a part of the text between added tokens. */
static qn_status encode_part(const encoding *e, const char *text, size_t size) {
    const qn_tokenizer *t = e->tokenizer;
    qni_encoder *encoder = e->encoder;
    const qni_range part = {(size_t)(text - e->text), (size_t)(text - e->text) + size};
    const bool searches = t->normalized.n > 0 && encoder->trust.n > 0;
    encoder->nfc.keeps_edits = searches;
    encoder->nfc.edits.n = 0;
    if (t->nfc && !qni_nfc_run(&encoder->nfc, text, size, &text, &size)) return no_memory(e->err);
    if (!searches) return encode_normal(e, text, size);
    if (!qni_trust_map(&encoder->normal, &encoder->trust, part, &encoder->nfc.edits)) return no_memory(e->err);
    return cut(e, &t->normalized, &encoder->normal, encode_normal, text, size);
}

qn_status qn_tokenizer_encode_runs(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text, size_t size,
                                   const qn_text_run *runs, size_t n_run, qn_error *err) {
    if (tokenizer == NULL || ids == NULL) return qni_fail(err, QN_EINVAL, "encode: tokenizer and ids must not be NULL");
    if (n_run > 0 && runs == NULL) return qni_fail(err, QN_EINVAL, "encode: runs is NULL, but n_run is %zu", n_run);
    if (size > 0 && text == NULL) return qni_fail(err, QN_EINVAL, "encode: text is NULL, but its size is %zu", size);
    size_t valid = size > 0 ? qni_utf8_valid_prefix(text, size) : 0;
    if (valid < size) return qni_fail(err, QN_EINVAL, "text: not UTF-8 at byte %zu", valid);
    encoding e = {tokenizer, acquire_encoder(tokenizer), ids, text, err};
    if (e.encoder == NULL) return no_memory(err);
    size_t before = ids->size;
    qni_split_begin(e.encoder->split, size);
    qn_status status = qni_trust_from_runs(&e.encoder->trust, runs, n_run, size, err);
    if (status == QN_OK) status = cut(&e, &tokenizer->added, &e.encoder->trust, encode_part, text, size);
    if (status != QN_OK) ids->size = before;
    release_encoder(tokenizer, e.encoder);
    return status;
}

qn_status qn_tokenizer_encode(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text, size_t size, bool special,
                              qn_error *err) {
    const qn_text_run run = {size, special};
    return qn_tokenizer_encode_runs(tokenizer, ids, text, size, &run, 1, err);
}

qn_status qn_tokenizer_encode_document(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text, size_t size,
                                       bool special, qn_error *err) {
    if (tokenizer == NULL || ids == NULL) return qni_fail(err, QN_EINVAL, "encode: tokenizer and ids must not be NULL");
    const size_t first = ids->size;
    const qn_ids *before = &tokenizer->before, *after = &tokenizer->after;
    qn_status status = qni_ids_append(ids, before->data, before->size) ? QN_OK : no_memory(err);
    if (status == QN_OK) status = qn_tokenizer_encode(tokenizer, ids, text, size, special, err);
    if (status == QN_OK && !qni_ids_append(ids, after->data, after->size)) status = no_memory(err);
    if (status != QN_OK) ids->size = first;
    return status;
}
