/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session files. All numbers are little-endian, as on every machine that this library supports:
 *
 *   header   64 bytes: struct header
 *   model    32 bytes: its fingerprint
 *   ids      {n_tok} s32
 *   KV       for each layer k, then v: {n_kv_head, n_tok} rows of kv_dtype
 *   logits   {n_vocab} f32, if the flags say so
 *   check    32 bytes: SHA-256 of everything before
 *
 * Files are untrusted. restore validates everything before the session changes: the checksum, then the header, the
 * ids and the logits. KV may hold any numbers; at worst they produce non-finite logits.
 */
#include "../base/cut.h"
#include "../base/file.h"
#include "../base/sha256.h"
#include "session.h"

#include <math.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "session files are written in the machine's byte order, which must be little-endian"
#endif

enum { VERSION = 1, FLAG_YARN = 1, FLAG_LOGITS = 2, FINGERPRINT = 32, DIGEST = 32, BUFFER = QNI_CUT(1 << 18, 1 << 8) };

typedef struct header {
    char magic[8];
    uint32_t version, flags;
    int32_t kv_dtype, n_layer, n_kv_head, head_dim, n_vocab, n_tok;
    uint64_t bytes; /* of the whole file */
    uint8_t zero[16];
} header;
_Static_assert(sizeof(header) == 64, "the header has no gaps");

static const char magic[8] = {'Q', 'N', 'S', 'E', 'S', 'S', 'N', '\n'};

/* The header of a file for n_tok tokens of this session. */
static header header_for(const qn_session *s, int32_t n_tok, bool logits) {
    const qn_model_config *config = &s->model->config;
    header h = {
        .version = VERSION,
        .flags = (s->pool->settings.yarn ? FLAG_YARN : 0u) | (logits ? FLAG_LOGITS : 0u),
        .kv_dtype = (int32_t)s->pool->settings.kv_dtype,
        .n_layer = config->n_layer,
        .n_kv_head = config->n_kv_head,
        .head_dim = config->head_dim,
        .n_vocab = config->n_vocab,
        .n_tok = n_tok,
    };
    memcpy(h.magic, magic, sizeof magic);
    h.bytes = sizeof h + sizeof s->model->fingerprint +
              (uint64_t)n_tok * (sizeof(int32_t) + qni_kv_token_bytes(&s->seq.pool->format)) +
              (logits ? (uint64_t)config->n_vocab * sizeof(float) : 0) + DIGEST;
    return h;
}

/* Rows of k or v of one layer and head within one block; bytes 0: none. */
typedef struct kv_run {
    unsigned char *rows;
    size_t bytes;
    int32_t plane, pos, n_tok; /* plane: (layer · 2 + value) · n_kv_head + head; n_tok: of the sequence */
} kv_run;

static kv_run run_at(const qni_sequence *seq, int32_t plane, int64_t pos, int32_t n_tok) {
    const qni_block_pool *pool = seq->pool;
    const int32_t n_head = pool->format.n_kv_head, layer = plane / n_head / 2;
    kv_run r = {.plane = plane, .n_tok = n_tok};
    if (pos >= n_tok) return r;
    r.pos = (int32_t)pos;
    r.rows =
        qni_block_pool_rows(pool, layer, plane / n_head % 2, seq->blocks[pos / pool->block_tokens], plane % n_head);
    r.bytes = (size_t)qni_min_i64(pool->block_tokens, n_tok - pos) * qni_kv_row_bytes(&pool->format);
    return r;
}
static kv_run first_run(const qni_sequence *seq, int32_t plane, int32_t n_tok) {
    return run_at(seq, plane, 0, n_tok);
}
static kv_run next_run(const qni_sequence *seq, kv_run r) {
    return run_at(seq, r.plane, (int64_t)r.pos + seq->pool->block_tokens, r.n_tok);
}

/* Bytes of the longest run. */
static size_t run_bytes(const qn_session *s) {
    return (size_t)s->seq.pool->block_tokens * qni_kv_row_bytes(&s->seq.pool->format);
}

/* Read a run to the host, or write it; exactly one of `to` and `from` is not NULL. */
static qn_status transfer(qn_device *device, kv_run r, void *to, const void *from, qn_error *err) {
    const qni_memory_ops *memory = device->backend->memory;
    QN_TRY(qni_device_lock(device, err));
    qn_status status = to != NULL ? memory->read(device->state, to, r.rows, r.bytes, err)
                                  : memory->write(device->state, r.rows, from, r.bytes, err);
    qni_device_unlock(device);
    return status;
}

/* ---- save ---- */

typedef struct sink {
    qni_writer writer;
    qni_sha256 hash;
    unsigned char *rows; /* {run_bytes()} */
} sink;

static qn_status write_hashed(sink *out, const void *data, size_t bytes, qn_error *err) {
    qni_sha256_update(&out->hash, data, bytes);
    return qni_writer_write(&out->writer, data, bytes, err);
}

static qn_status write_session(sink *out, const qn_session *s, qn_error *err) {
    header h = header_for(s, s->seq.n_tok, s->has_logits);
    const qn_model_config *config = &s->model->config;
    QN_TRY(write_hashed(out, &h, sizeof h, err));
    QN_TRY(write_hashed(out, s->model->fingerprint, sizeof s->model->fingerprint, err));
    QN_TRY(write_hashed(out, s->seq.ids, (size_t)s->seq.n_tok * sizeof *s->seq.ids, err));
    for (int32_t i = 0; i < 2 * config->n_layer * config->n_kv_head; i++) {
        for (kv_run r = first_run(&s->seq, i, s->seq.n_tok); r.bytes > 0; r = next_run(&s->seq, r)) {
            QN_TRY(transfer(s->model->device, r, out->rows, NULL, err));
            QN_TRY(write_hashed(out, out->rows, r.bytes, err));
        }
    }
    if (s->has_logits) QN_TRY(write_hashed(out, s->logits, (size_t)config->n_vocab * sizeof *s->logits, err));
    uint8_t digest[DIGEST];
    qni_sha256_final(&out->hash, digest);
    return qni_writer_write(&out->writer, digest, sizeof digest, err);
}

qn_status qn_session_save(const qn_session *session, const char *path, qn_error *err) {
    if (session == NULL || path == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_session_save: %s is NULL", path == NULL ? "path" : "session");
    }
    sink out = {.rows = qni_calloc(run_bytes(session), 1)};
    if (out.rows == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", path);
    qni_sha256_init(&out.hash);
    qn_status status = qni_writer_open(&out.writer, path, QNI_FOR_OWNER, err);
    if (status != QN_OK) {
        qni_free(out.rows);
        return status;
    }
    status = write_session(&out, session, err);
    qni_free(out.rows);
    if (status == QN_OK) return qni_writer_commit(&out.writer, err);
    qni_writer_abandon(&out.writer);
    return status;
}

/* ---- restore ---- */

typedef struct source {
    qni_file file;
    unsigned char *buffer; /* {BUFFER}, at least run_bytes() */
    header header;
    uint8_t fingerprint[FINGERPRINT];
} source;

static qn_status fail_format(const source *in, const char *what, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "%s: %s", in->file.path, what);
}

/* Read the header and check the whole file against its checksum. */
static qn_status check_checksum(source *in, qn_error *err) {
    uint64_t least = sizeof in->header + sizeof in->fingerprint + DIGEST;
    if (in->file.size < least) return fail_format(in, "not a session file: too short", err);
    QN_TRY(qni_file_read(&in->file, &in->header, 0, sizeof in->header, err));
    QN_TRY(qni_file_read(&in->file, in->fingerprint, sizeof in->header, sizeof in->fingerprint, err));
    if (memcmp(in->header.magic, magic, sizeof magic) != 0) return fail_format(in, "not a session file", err);
    if (in->header.version != VERSION) {
        return qni_fail(err, QN_EFORMAT, "%s: session file of version %u, not %d", in->file.path, in->header.version,
                        VERSION);
    }
    if (in->header.bytes != in->file.size) {
        return qni_fail(err, QN_EFORMAT, "%s: damaged: must be %llu bytes, has %llu", in->file.path,
                        (unsigned long long)in->header.bytes, (unsigned long long)in->file.size);
    }
    qni_sha256 hash;
    qni_sha256_init(&hash);
    uint64_t end = in->file.size - DIGEST;
    for (uint64_t at = 0; at < end;) {
        size_t n = end - at < BUFFER ? (size_t)(end - at) : BUFFER;
        QN_TRY(qni_file_read(&in->file, in->buffer, at, n, err));
        qni_sha256_update(&hash, in->buffer, n);
        at += n;
    }
    uint8_t digest[DIGEST], stored[DIGEST];
    qni_sha256_final(&hash, digest);
    QN_TRY(qni_file_read(&in->file, stored, end, sizeof stored, err));
    if (memcmp(digest, stored, sizeof digest) != 0) return fail_format(in, "damaged: its checksum is wrong", err);
    return QN_OK;
}

/* Whether the file matches this session's model, KV and rope, and fits. */
static qn_status check_identity(const source *in, const qn_session *s, qn_error *err) {
    const char *path = in->file.path;
    const header *h = &in->header;
    if (memcmp(in->fingerprint, s->model->fingerprint, sizeof in->fingerprint) != 0) {
        return qni_fail(err, QN_EINVAL, "%s: belongs to another model", path);
    }
    if (h->kv_dtype != (int32_t)s->pool->settings.kv_dtype) {
        return qni_fail(err, QN_EINVAL, "%s: its kv_dtype is %s, the session's is %s", path,
                        qn_dtype_name((qn_dtype)h->kv_dtype), qn_dtype_name(s->pool->settings.kv_dtype));
    }
    if (((h->flags & FLAG_YARN) != 0) != s->pool->settings.yarn) {
        return qni_fail(err, QN_EINVAL, "%s: was made with%s YaRN, the session is with%s", path,
                        s->pool->settings.yarn ? "out" : "", s->pool->settings.yarn ? "" : "out");
    }
    if (h->n_tok < 0) return fail_format(in, "damaged: negative length", err);
    header expected = header_for(s, h->n_tok, (h->flags & FLAG_LOGITS) != 0);
    if (memcmp(&expected, h, sizeof expected) != 0) return fail_format(in, "damaged: its sizes do not agree", err);
    if (h->n_tok == 0 && (h->flags & FLAG_LOGITS) != 0) return fail_format(in, "damaged: logits of no token", err);
    if (h->n_tok > s->n_ctx) {
        return qni_fail(err, QN_EFULL, "%s: its %d tokens do not fit into the context of %d", path, h->n_tok, s->n_ctx);
    }
    return QN_OK;
}

static uint64_t ids_at(void) {
    return sizeof(header) + FINGERPRINT;
}

static uint64_t logits_at(const source *in) {
    return in->file.size - DIGEST - (uint64_t)in->header.n_vocab * sizeof(float);
}

/* Ids within the vocabulary, logits finite. */
static qn_status check_content(const source *in, qn_error *err) {
    const header *h = &in->header;
    enum { PER_BUFFER = BUFFER / 4 };
    for (int32_t first = 0; first < h->n_tok; first += PER_BUFFER) {
        int32_t n = h->n_tok - first < PER_BUFFER ? h->n_tok - first : PER_BUFFER;
        QN_TRY(qni_file_read(&in->file, in->buffer, ids_at() + (uint64_t)first * 4, (size_t)n * 4, err));
        const int32_t *ids = (const int32_t *)(const void *)in->buffer;
        for (int32_t i = 0; i < n; i++) {
            if (ids[i] < 0 || ids[i] >= h->n_vocab) return fail_format(in, "damaged: an id is out of range", err);
        }
    }
    if ((h->flags & FLAG_LOGITS) == 0) return QN_OK;
    for (int32_t first = 0; first < h->n_vocab; first += PER_BUFFER) {
        int32_t n = h->n_vocab - first < PER_BUFFER ? h->n_vocab - first : PER_BUFFER;
        QN_TRY(qni_file_read(&in->file, in->buffer, logits_at(in) + (uint64_t)first * 4, (size_t)n * 4, err));
        const float *logits = (const float *)(const void *)in->buffer;
        for (int32_t i = 0; i < n; i++) {
            if (!isfinite(logits[i])) return fail_format(in, "damaged: a logit is not finite", err);
        }
    }
    return QN_OK;
}

/* Load a validated file. If a read fails here, the session is left empty. */
static qn_status load(const source *in, qn_session *s, qn_error *err) {
    const qn_model_config *config = &s->model->config;
    qni_sequence *seq = &s->seq;
    const int32_t n_tok = in->header.n_tok;
    const size_t ids_bytes = (size_t)n_tok * sizeof *seq->ids;
    QN_TRY(qni_sequence_reserve(seq, 0, n_tok, err));
    s->has_logits = false;
    uint64_t at = ids_at();
    QN_TRY(qni_file_read(&in->file, seq->ids, at, ids_bytes, err));
    at += ids_bytes;
    for (int32_t i = 0; i < 2 * config->n_layer * config->n_kv_head; i++) {
        for (kv_run r = first_run(seq, i, n_tok); r.bytes > 0; r = next_run(seq, r)) {
            QN_TRY(qni_file_read(&in->file, in->buffer, at, r.bytes, err));
            QN_TRY(transfer(s->model->device, r, NULL, in->buffer, err));
            at += r.bytes;
        }
    }
    bool logits = (in->header.flags & FLAG_LOGITS) != 0;
    if (logits) {
        QN_TRY(qni_file_read(&in->file, s->logits, at, (size_t)config->n_vocab * sizeof *s->logits, err));
    }
    for (int32_t i = 0; i < n_tok; i++) { /* re-validate: the file may have changed since the checksum */
        if (seq->ids[i] < 0 || seq->ids[i] >= config->n_vocab) return fail_format(in, "changed while it was read", err);
    }
    seq->n_tok = n_tok;
    s->has_logits = logits;
    return QN_OK;
}

qn_status qn_session_restore(qn_session *session, const char *path, qn_error *err) {
    if (session == NULL || path == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_session_restore: %s is NULL", path == NULL ? "path" : "session");
    }
    source in = {.file = {.fd = -1}};
    QN_TRY(qni_file_open(&in.file, path, err));
    in.buffer = qni_calloc(run_bytes(session) > BUFFER ? run_bytes(session) : BUFFER, 1);
    qn_status status = in.buffer == NULL ? qni_fail(err, QN_ENOMEM, "%s: out of memory", path) : QN_OK;
    if (status == QN_OK) status = check_checksum(&in, err);
    if (status == QN_OK) status = check_identity(&in, session, err);
    if (status == QN_OK) status = check_content(&in, err);
    if (status == QN_OK) status = load(&in, session, err);
    if (status != QN_OK) qni_session_trim(session);
    qni_free(in.buffer);
    qni_file_close(&in.file);
    return status;
}
