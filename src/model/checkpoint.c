/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a checkpoint: reads config.json, generation_config.json and the headers of the weights, and checks that
 * they agree. */
#include "checkpoint.h"

#include "../base/json.h"
#include "../base/sha256.h"

#include <string.h>

/* A directory that holds only an adapter is not a model. */
static qn_status check_is_model(const char *dir, const char *config_path, qn_error *err) {
    static const char adapter_name[] = "adapter_config.json";
    if (qni_path_exists(config_path)) return QN_OK;
    char *path = qni_path_join(dir, adapter_name);
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    bool adapter = qni_path_exists(path);
    qni_free(path);
    if (!adapter) return QN_OK; /* opening config.json reports what is wrong */
    return qni_fail(err, QN_EUNSUPPORTED, "%s: is an adapter (%s) without a model (config.json)", dir, adapter_name);
}

/* Read config.json; its text is part of the fingerprint. */
static qn_status read_config(qni_config *config, const char *dir, qni_sha256 *hash, const qn_log *log, qn_error *err) {
    static const char name[] = "config.json";
    char *path = qni_path_join(dir, name), *text = NULL;
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    size_t size = 0;
    qn_status status = check_is_model(dir, path, err);
    if (status == QN_OK) status = qni_file_slurp(&text, &size, path, QNI_CONFIG_MAX_BYTES, err);
    if (status == QN_OK) status = qni_file_check_content(path, text, size, err);
    qni_free(path);
    json_t *root = NULL;
    if (status != QN_OK) {
        qni_free(text);
        return status;
    }
    qni_sha256_update(hash, text, size);
    status = qni_json_parse(&root, name, text, size, err);
    qni_free(text);
    if (status != QN_OK) return status;
    status = qni_config_read(config, root, log, err);
    json_decref(root);
    return status;
}

/* generation_config.json may be missing. */
static qn_status read_generation(qni_generation_config *generation, qni_token_ids *ids, const char *dir,
                                 const qn_log *log, qn_error *err) {
    *generation = (qni_generation_config){0};
    *ids = (qni_token_ids){.bos = -1};
    char *path = qni_path_join(dir, "generation_config.json");
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    qn_status status = QN_OK;
    json_t *root = NULL;
    if (qni_path_exists(path)) {
        status = qni_json_read(&root, path, QNI_CONFIG_MAX_BYTES, err);
        if (status == QN_OK) status = qni_generation_read(generation, ids, root, log, err);
        json_decref(root);
    }
    qni_free(path);
    return status;
}

static qn_status check_id(int32_t id, int32_t n_vocab, const char *key, qn_error *err) {
    if (id < n_vocab) return QN_OK;
    return qni_fail(err, QN_EFORMAT, "%s %d is not below vocab_size %d", key, (int)id, (int)n_vocab);
}

/* transformers stops at the ids of generation_config.json if it has any, otherwise at those of config.json. */
static void log_disagreement(const qni_token_ids *generation, const qni_token_ids *config, const qn_log *log) {
    for (int32_t i = 0; i < config->n_eos && generation->n_eos > 0; i++) {
        bool found = false;
        for (int32_t k = 0; k < generation->n_eos; k++) found |= generation->eos[k] == config->eos[i];
        if (found) continue;
        qni_log(log, "eos_token_id: %d is in config.json and not in generation_config.json; it ends a text too",
                (int)config->eos[i]);
    }
}

/* Merge the end-of-text ids of both files, generation_config.json's first. */
static qn_status merge_ids(qni_checkpoint *c, const qni_token_ids *first, const qni_token_ids *second, qn_error *err) {
    qn_model_config *config = &c->config;
    const qni_token_ids *both[] = {first, second};
    for (int i = 0; i < 2; i++) {
        QN_TRY(check_id(both[i]->bos, config->n_vocab, "bos_token_id", err));
        for (int32_t k = 0; k < both[i]->n_eos; k++) {
            int32_t id = both[i]->eos[k];
            bool seen = false;
            for (int32_t j = 0; j < config->n_eos; j++) seen |= config->eos[j] == id;
            if (seen) continue;
            QN_TRY(check_id(id, config->n_vocab, "eos_token_id", err));
            if (config->n_eos == QNI_MAX_EOS) {
                return qni_fail(err, QN_EUNSUPPORTED, "eos_token_id: more than %d ids in both files", QNI_MAX_EOS);
            }
            config->eos[config->n_eos++] = id;
        }
    }
    c->bos = first->bos >= 0 ? first->bos : second->bos;
    return QN_OK;
}

/* Hash headers with their lengths, so that different sets of files cannot concatenate to the same bytes. Then hash
 * the first bytes of every tensor, because fine-tunes of one model differ in nothing else. */
static qn_status hash_weights(qni_sha256 *hash, const qni_weight_files *weights, qn_error *err) {
    enum { SAMPLE = 4096 };
    uint8_t sample[SAMPLE];
    for (size_t i = 0; i < weights->n_file; i++) {
        const qni_safetensors *st = &weights->files[i];
        uint8_t length[8];
        for (int b = 0; b < 8; b++) length[b] = (uint8_t)((uint64_t)st->header_bytes >> (8 * b));
        qni_sha256_update(hash, length, sizeof length);
        qni_sha256_update(hash, st->header, st->header_bytes);
        for (size_t t = 0; t < st->n_tensor; t++) {
            size_t n = st->tensors[t].bytes < SAMPLE ? (size_t)st->tensors[t].bytes : SAMPLE;
            QN_TRY(qni_file_read(&st->file, sample, st->tensors[t].offset, n, err));
            qni_sha256_update(hash, sample, n);
        }
    }
    return QN_OK;
}

/* Open everything except config.json, which has been read. */
static qn_status open_rest(qni_checkpoint *c, const qni_config *stated, const char *dir, const qn_log *log,
                           qn_error *err) {
    qni_token_ids ids;
    QN_TRY(read_generation(&c->generation, &ids, dir, log, err));
    QN_TRY(qni_weight_files_open(&c->weights, dir, log, err));
    QN_TRY(qni_checkpoint_match(c, stated, log, err));
    c->config.n_ctx_max = stated->n_ctx_max;
    c->config.rms_eps = stated->rms_eps;
    c->config.rope_theta = stated->rope_theta;
    c->config.yarn = stated->yarn;
    c->config.file_bytes = c->weights.bytes;
    log_disagreement(&ids, &stated->ids, log);
    return merge_ids(c, &ids, &stated->ids, err);
}

static qn_status open_all(qni_checkpoint *c, const char *dir, const qn_log *log, qn_error *err) {
    qni_config stated;
    qni_sha256 hash;
    qni_sha256_init(&hash);
    QN_TRY(read_config(&stated, dir, &hash, log, err));
    qn_status status = open_rest(c, &stated, dir, log, err);
    qni_config_release(&stated);
    if (status != QN_OK) return status;
    QN_TRY(hash_weights(&hash, &c->weights, err));
    qni_sha256_final(&hash, c->fingerprint);
    return QN_OK;
}

qn_status qni_checkpoint_open(qni_checkpoint *out, const char *dir, const qn_log *log, qn_error *err) {
    qni_checkpoint c = {0};
    qn_status status = open_all(&c, dir, log, err);
    if (status != QN_OK) {
        qni_checkpoint_close(&c);
        return status;
    }
    *out = c;
    return QN_OK;
}

void qni_checkpoint_close(qni_checkpoint *checkpoint) {
    qni_weight_files_close(&checkpoint->weights);
    qni_free(checkpoint->layers);
    *checkpoint = (qni_checkpoint){0};
}
