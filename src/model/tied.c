/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints whose config.json ties lm_head to the embedding but which contain a lm_head anyway. An identical copy
 * is fine; a different matrix is an error, because it would be silently ignored. */
#include "tied.h"
#include "chunks.h"

#include "../base/file.h"
#include "../base/memory.h"

#include <string.h>

/* One comparison. Each thread has two buffers of QNI_CHUNK_BYTES. */
typedef struct tied_job {
    const qni_tensor_ref *a, *b;
    unsigned char *buffer;
} tied_job;

static qn_status compare_chunk(void *context, int64_t chunk, int32_t thread, qn_error *err) {
    const tied_job *job = context;
    const uint64_t at = (uint64_t)chunk * QNI_CHUNK_BYTES, left = job->a->tensor->bytes - at;
    const size_t n = left < QNI_CHUNK_BYTES ? (size_t)left : QNI_CHUNK_BYTES;
    unsigned char *x = job->buffer + 2 * (size_t)thread * QNI_CHUNK_BYTES, *y = x + QNI_CHUNK_BYTES;
    QN_TRY(qni_file_read(&job->a->file->file, x, job->a->tensor->offset + at, n, err));
    QN_TRY(qni_file_read(&job->b->file->file, y, job->b->tensor->offset + at, n, err));
    return memcmp(x, y, n) == 0 ? QN_OK : QN_EFORMAT;
}

static uint64_t bytes_before(const void *context, int64_t chunk) {
    (void)context;
    return (uint64_t)chunk * QNI_CHUNK_BYTES;
}

/* EFORMAT without a message: they differ. */
static qn_status compare(const qni_tensor_ref *a, const qni_tensor_ref *b, qn_device *device, qn_error *err) {
    if ((a->tensor == NULL) != (b->tensor == NULL)) return QN_EFORMAT;
    if (a->tensor == NULL) return QN_OK;
    if (a->tensor->dtype != b->tensor->dtype || a->tensor->rank != b->tensor->rank ||
        memcmp(a->tensor->shape, b->tensor->shape, (size_t)a->tensor->rank * sizeof a->tensor->shape[0]) != 0) {
        return QN_EFORMAT;
    }
    tied_job job = {a, b, qni_calloc((size_t)device->n_thread, 2 * (size_t)QNI_CHUNK_BYTES)};
    if (job.buffer == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    const int64_t n_chunk = (int64_t)((a->tensor->bytes + QNI_CHUNK_BYTES - 1) / QNI_CHUNK_BYTES);
    const qni_chunks work = {n_chunk, &job, compare_chunk, bytes_before, "loading"};
    qn_status status = qni_chunks_run(&work, device, &(qn_progress){0}, err);
    qni_free(job.buffer);
    return status;
}

qn_status qni_checkpoint_check_tied(const qni_checkpoint *c, qn_device *device, qn_error *err) {
    const qni_weight_ref *a = &c->embedding, *b = &c->head_copy;
    if (b->data.tensor == NULL) return QN_OK;
    qn_status status = compare(&a->data, &b->data, device, err);
    if (status == QN_OK) status = compare(&a->scales, &b->scales, device, err);
    if (status == QN_OK) status = compare(&a->biases, &b->biases, device, err);
    if (status != QN_EFORMAT) return status;
    return qni_fail(err, QN_EFORMAT,
                    "%s: tensor %s is not %s, although config.json says tie_word_embeddings true; which is meant?",
                    qni_base_name(b->data.file->file.path), b->data.tensor->name, a->data.tensor->name);
}
