/* SPDX-License-Identifier: Apache-2.0 */
/* One safetensors file, or shards with an index that is checked in both directions. */
#include "weight_files.h"

#include "../base/json.h"
#include "../base/memory.h"
#include "model_dir.h"

#include <stdlib.h>
#include <string.h>

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

static qn_status no_memory(const char *dir, qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
}

/* A shard must be in the directory itself; otherwise the index could name any file on the machine. */
static qn_status check_shard_name(const char *name, qn_error *err) {
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    if (strchr(name, '/') != NULL || strchr(name, '\\') != NULL || strstr(name, "..") != NULL || name[0] == '\0') {
        return qni_fail(err, QN_EFORMAT, "%s: shard \"%s\" must be a file name without a path", index_name, name);
    }
    if (n <= n_suffix || strcmp(name + n - n_suffix, suffix) != 0) {
        return qni_fail(err, QN_EFORMAT, "%s: shard \"%s\" must end in %s", index_name, name, suffix);
    }
    return QN_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shards of a weight_map, sorted; names borrowed from the map. */
static qn_status collect_shards(const char **names, size_t *n_name, json_t *map, qn_error *err) {
    const char *tensor;
    json_t *value;
    size_t n = 0;
    json_object_foreach(map, tensor, value) {
        const char *shard = json_string_value(value);
        if (shard == NULL) {
            return qni_fail(err, QN_EFORMAT, "%s: the shard of tensor %s must be a string", index_name, tensor);
        }
        bool seen = false;
        for (size_t i = n; i > 0 && !seen; i--) seen = strcmp(names[i - 1], shard) == 0;
        if (seen) continue;
        QN_TRY(check_shard_name(shard, err));
        if (n == QNI_MAX_SHARD) {
            return qni_fail(err, QN_EUNSUPPORTED, "%s: more than %d shards", index_name, QNI_MAX_SHARD);
        }
        names[n++] = shard;
    }
    if (n == 0) return qni_fail(err, QN_EFORMAT, "%s: weight_map is empty", index_name);
    qsort(names, n, sizeof names[0], by_text);
    *n_name = n;
    return QN_OK;
}

static qn_status add_file(qni_weight_files *weights, const char *dir, const char *name, qn_error *err) {
    char *path = qni_path_join(dir, name);
    if (path == NULL) return no_memory(dir, err);
    qn_status status = qni_safetensors_open(&weights->files[weights->n_file], path, err);
    qni_free(path);
    if (status != QN_OK) return status;
    weights->bytes += weights->files[weights->n_file++].file.size;
    return QN_OK;
}

static qn_status check_index(const qni_weight_files *weights, const char *const *names, json_t *map, qn_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *shard = json_string_value(value);
        const char *const *at = bsearch(&shard, names, weights->n_file, sizeof names[0], by_text);
        if (at == NULL || qni_safetensors_find(&weights->files[at - names], tensor) == NULL) {
            return qni_fail(err, QN_EFORMAT, "%s: tensor %s is not in its shard %s", index_name, tensor, shard);
        }
    }
    for (size_t i = 0; i < weights->n_file; i++) {
        const qni_safetensors *st = &weights->files[i];
        for (size_t k = 0; k < st->n_tensor; k++) {
            const char *name = st->tensors[k].name, *shard = json_string_value(json_object_get(map, name));
            if (shard == NULL) {
                return qni_fail(err, QN_EFORMAT, "%s: tensor %s of %s is not in the index", index_name, name, names[i]);
            }
            if (strcmp(shard, names[i]) != 0) {
                return qni_fail(err, QN_EFORMAT, "%s: tensor %s is in %s, and in %s by the index", index_name, name,
                                names[i], shard);
            }
        }
    }
    return QN_OK;
}

static qn_status open_shards(qni_weight_files *weights, const char *dir, json_t *index, qn_error *err) {
    json_t *map = json_object_get(index, "weight_map");
    if (!qni_json_is_object(map)) return qni_fail(err, QN_EFORMAT, "%s: weight_map must be an object", index_name);
    const char *names[QNI_MAX_SHARD];
    size_t n = 0;
    QN_TRY(collect_shards(names, &n, map, err));
    weights->files = qni_calloc(n, sizeof weights->files[0]);
    if (weights->files == NULL) return no_memory(dir, err);
    for (size_t i = 0; i < n; i++) QN_TRY(add_file(weights, dir, names[i], err));
    return check_index(weights, names, map, err);
}

static qn_status open_index(qni_weight_files *weights, const char *dir, const char *path, qn_error *err) {
    json_t *index = NULL;
    QN_TRY(qni_json_read(&index, path, QNI_INDEX_MAX_BYTES, err));
    qn_status status = open_shards(weights, dir, index, err);
    json_decref(index);
    return status;
}

qn_status qni_weight_files_open(qni_weight_files *out, const char *dir, const qn_log *log, qn_error *err) {
    qni_weight_files weights = {0};
    qn_status status = QN_OK;
    char *single = qni_path_join(dir, single_name), *index = qni_path_join(dir, index_name);
    if (single == NULL || index == NULL) {
        status = no_memory(dir, err);
    } else if (qni_path_exists(single)) {
        if (qni_path_exists(index)) qni_log(log, "%s is used; %s was ignored", single_name, index_name);
        weights.files = qni_calloc(1, sizeof weights.files[0]);
        status = weights.files != NULL ? add_file(&weights, dir, single_name, err) : no_memory(dir, err);
    } else if (qni_path_exists(index)) {
        status = open_index(&weights, dir, index, err);
    } else {
        status =
            qni_model_dir_no_weights(dir, "neither model.safetensors nor model.safetensors.index.json is there", err);
    }
    qni_free(single);
    qni_free(index);
    if (status == QN_OK) status = qni_model_dir_check(dir, &weights, log, err);
    if (status != QN_OK) {
        qni_weight_files_close(&weights);
        return status;
    }
    *out = weights;
    return QN_OK;
}

void qni_weight_files_close(qni_weight_files *weights) {
    for (size_t i = 0; i < weights->n_file; i++) qni_safetensors_close(&weights->files[i]);
    qni_free(weights->files);
    *weights = (qni_weight_files){0};
}
