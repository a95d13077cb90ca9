/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of a directory: model.safetensors, or the shards named by model.safetensors.index.json. If both exist,
 * the single file is used, as in transformers. */
#ifndef QNI_WEIGHT_FILES_H
#define QNI_WEIGHT_FILES_H

#include "../base/log.h"
#include "safetensors.h"

enum {
    QNI_MAX_SHARD = 256,
    QNI_INDEX_MAX_BYTES = 32 << 20,
};

typedef struct qni_weight_files {
    qni_safetensors *files; /* {n_file}, sorted by name */
    size_t n_file;
    uint64_t bytes; /* of all files */
} qni_weight_files;

/* Open all files. Index and shards must agree: each tensor of the index is in the shard that it names, and each
 * tensor of a shard is in the index, under that shard. */
qn_status qni_weight_files_open(qni_weight_files *out, const char *dir, const qn_log *log, qn_error *err);
void qni_weight_files_close(qni_weight_files *weights); /* accepts a zeroed struct */

#endif
