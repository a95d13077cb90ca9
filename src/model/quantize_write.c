/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the weights of a quantized directory. Each weight is read, quantized and written in chunks of rows on all
 * threads; every chunk goes to its final offset in the file. */
#include "../backend/linear.h"
#include "../base/json.h"
#include "chunks.h"
#include "quantize.h"
#include "tied.h"

#include <stdio.h>
#include <string.h>

qn_status qni_text_write(const char *dir, const char *name, const char *text, size_t bytes, qn_error *err) {
    char *path = qni_path_join(dir, name);
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    qni_writer writer;
    qn_status status = qni_writer_open(&writer, path, QNI_FOR_ALL, err);
    qni_free(path);
    if (status != QN_OK) return status;
    status = qni_writer_write(&writer, text, bytes, err);
    if (status == QN_OK) status = qni_writer_commit(&writer, err);
    if (status != QN_OK) qni_writer_abandon(&writer);
    return status;
}

/* A weight becomes one copied tensor, or three. */
enum { CODES, SCALES, BIASES, N_PART };

typedef struct out_part {
    size_t row_bytes; /* 0: absent */
    uint64_t offset;  /* in the shard's data, later in its file */
} out_part;

typedef struct out_weight {
    const qni_weight_ref *ref;
    out_part parts[N_PART];
    size_t shard;
    int64_t rows_per_chunk;
    int64_t first_chunk; /* number of chunks in all earlier weights */
} out_weight;

typedef struct out_shard {
    char name[64];
    qni_writer writer;
    json_t *header;
    uint64_t bytes; /* total size of its tensors */
} out_shard;

typedef struct out_job {
    const char *dir;
    out_weight *weights; /* {n_weight} */
    size_t n_weight;
    out_shard *shards; /* {n_shard} */
    size_t n_shard;
    int64_t n_chunk;
    unsigned char *buffer; /* {n_thread, buffer_bytes}: source rows, one row in f32, codes, scales, biases */
    size_t buffer_bytes;
} out_job;

/* Offsets of a chunk's parts in a buffer; `bytes` is the total. */
typedef struct chunk_layout {
    size_t row, parts[N_PART], bytes;
} chunk_layout;

static size_t in_row_bytes(const qni_weight_ref *ref) {
    return (size_t)(ref->data.tensor->bytes / (uint64_t)ref->rows);
}

static chunk_layout layout_of(const out_weight *w) {
    chunk_layout at = {.row = qni_round_up((size_t)w->rows_per_chunk * in_row_bytes(w->ref), QNI_ALIGN)};
    at.bytes = at.row + qni_round_up((size_t)w->ref->columns * sizeof(float), QNI_ALIGN);
    for (int i = 0; i < N_PART; i++) {
        at.parts[i] = at.bytes;
        at.bytes += qni_round_up((size_t)w->rows_per_chunk * w->parts[i].row_bytes, QNI_ALIGN);
    }
    return at;
}

/* Add the next weight, to the first shard with enough space left. */
static void add_weight(out_job *job, const qni_weight_ref *ref, uint64_t shard_bytes) {
    out_weight *w = &job->weights[job->n_weight++];
    *w = (out_weight){.ref = ref, .first_chunk = job->n_chunk};
    w->parts[CODES].row_bytes = in_row_bytes(ref);
    if (ref->to.kind != QNI_DENSE) {
        w->parts[CODES].row_bytes = (size_t)qni_quant_code_bytes(&ref->to, ref->columns);
        w->parts[SCALES].row_bytes = w->parts[BIASES].row_bytes = (size_t)qni_quant_scale_bytes(&ref->to, ref->columns);
    }
    uint64_t bytes = 0;
    for (int i = 0; i < N_PART; i++) bytes += (uint64_t)ref->rows * w->parts[i].row_bytes;
    if (job->n_shard == 0 || job->shards[job->n_shard - 1].bytes + bytes > shard_bytes) job->n_shard++;
    w->shard = job->n_shard - 1;
    out_shard *shard = &job->shards[w->shard];
    for (int i = 0; i < N_PART; i++) {
        w->parts[i].offset = shard->bytes;
        shard->bytes += (uint64_t)ref->rows * w->parts[i].row_bytes;
    }
    int64_t rows = qni_max_i64(1, QNI_CHUNK_BYTES / (int64_t)in_row_bytes(ref));
    w->rows_per_chunk = qni_min_i64(rows, ref->rows);
    if (layout_of(w).bytes > job->buffer_bytes) job->buffer_bytes = layout_of(w).bytes;
    job->n_chunk += qni_ceil_div(ref->rows, w->rows_per_chunk);
}

static void add_weights(out_job *job, const qni_checkpoint *c, uint64_t shard_bytes) {
    add_weight(job, &c->embedding, shard_bytes);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = 0; k < QNI_N_SLOT; k++) add_weight(job, &c->layers[i].slot[k], shard_bytes);
    }
    add_weight(job, &c->norm, shard_bytes);
    if (!c->config.tied) add_weight(job, &c->lm_head, shard_bytes);
}

/* --- headers and the index --- */

static bool add_entry(json_t *header, const out_weight *w, int part) {
    static const char *const parts[] = {"weight", "scales", "biases"};
    const qni_weight_ref *ref = w->ref;
    const bool dense = ref->to.kind == QNI_DENSE;
    const char *dtype = dense ? qni_st_dtype_name(ref->data.tensor->dtype) : part == CODES ? "U32" : "BF16";
    const int64_t columns = dense           ? ref->columns
                            : part == CODES ? (int64_t)w->parts[part].row_bytes / 4
                                            : (int64_t)w->parts[part].row_bytes / 2;
    const uint64_t begin = w->parts[part].offset, end = begin + (uint64_t)ref->rows * w->parts[part].row_bytes;
    json_t *shape = ref->data.tensor->rank == 1 ? json_pack("[I]", (json_int_t)ref->rows)
                                                : json_pack("[I, I]", (json_int_t)ref->rows, (json_int_t)columns);
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets", (json_int_t)begin,
                              (json_int_t)end);
    char name[128];
    snprintf(name, sizeof name, "%s.%s", qni_weight_usual_module(ref).text, parts[part]);
    return json_object_set_new(header, name, entry) == 0;
}

/* Write the eight-byte length, and the JSON padded with spaces to a multiple of eight. Offsets become file offsets. */
static qn_status write_header(out_job *job, size_t index, qn_error *err) {
    out_shard *shard = &job->shards[index];
    char *text = qni_json_print(shard->header, JSON_COMPACT);
    if (text == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", shard->name);
    static const char spaces[] = "       ";
    const size_t n = strlen(text), padding = (8 - n % 8) % 8;
    const uint64_t length = n + padding;
    unsigned char prefix[8];
    for (int b = 0; b < 8; b++) prefix[b] = (unsigned char)(length >> (8 * b));
    qn_status status = qni_writer_write(&shard->writer, prefix, sizeof prefix, err);
    if (status == QN_OK) status = qni_writer_write(&shard->writer, text, n, err);
    if (status == QN_OK) status = qni_writer_write(&shard->writer, spaces, padding, err);
    qni_free(text);
    for (size_t i = 0; i < job->n_weight; i++) {
        out_weight *w = &job->weights[i];
        for (int part = 0; w->shard == index && part < N_PART; part++) w->parts[part].offset += sizeof prefix + length;
    }
    return status;
}

static qn_status open_shard(out_job *job, size_t index, qn_error *err) {
    out_shard *shard = &job->shards[index];
    snprintf(shard->name, sizeof shard->name, "model.safetensors");
    if (job->n_shard > 1) {
        snprintf(shard->name, sizeof shard->name, "model-%05zu-of-%05zu.safetensors", index + 1, job->n_shard);
    }
    shard->header = json_pack("{s:{s:s, s:s}}", "__metadata__", "format", "mlx", "quern.symmetric", "8");
    bool good = shard->header != NULL;
    for (size_t i = 0; good && i < job->n_weight; i++) {
        const out_weight *w = &job->weights[i];
        for (int part = 0; good && w->shard == index && part < N_PART; part++) {
            if (w->parts[part].row_bytes > 0) good = add_entry(shard->header, w, part);
        }
    }
    char *path = good ? qni_path_join(job->dir, shard->name) : NULL;
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", shard->name);
    qn_status status = qni_writer_open(&shard->writer, path, QNI_FOR_ALL, err);
    qni_free(path);
    return status == QN_OK ? write_header(job, index, err) : status;
}

static qn_status write_index(const out_job *job, qn_error *err) {
    static const char name[] = "model.safetensors.index.json";
    json_t *map = json_object();
    uint64_t total = 0;
    bool good = map != NULL;
    for (size_t i = 0; i < job->n_shard; i++) {
        const char *key;
        json_t *value;
        total += job->shards[i].bytes;
        json_object_foreach(job->shards[i].header, key, value) {
            if (value == json_object_get(job->shards[i].header, "__metadata__")) continue;
            good = good && json_object_set_new(map, key, json_string(job->shards[i].name)) == 0;
        }
    }
    json_t *root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = good && root != NULL ? qni_json_print(root, JSON_INDENT(4)) : NULL;
    qn_status status = text != NULL ? qni_text_write(job->dir, name, text, strlen(text), err)
                                    : qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    qni_free(text);
    json_decref(root);
    json_decref(map);
    return status;
}

/* --- chunks --- */

static const out_weight *weight_of(const out_job *job, int64_t chunk) {
    size_t low = 0, high = job->n_weight; /* the last weight whose first chunk is not after it */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->weights[middle].first_chunk <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &job->weights[low];
}

static qn_status run_chunk(void *context, int64_t chunk, int32_t thread, qn_error *err) {
    const out_job *job = context;
    const out_weight *w = weight_of(job, chunk);
    const qni_weight_ref *ref = w->ref;
    const qni_st_tensor *t = ref->data.tensor;
    const int64_t first = (chunk - w->first_chunk) * w->rows_per_chunk;
    const int64_t n = qni_min_i64(w->rows_per_chunk, ref->rows - first);
    const chunk_layout at = layout_of(w);
    unsigned char *buffer = job->buffer + (size_t)thread * job->buffer_bytes, *from[N_PART] = {buffer};
    QN_TRY(qni_file_read(&ref->data.file->file, buffer, t->offset + (uint64_t)first * in_row_bytes(ref),
                         (size_t)n * in_row_bytes(ref), err));
    if (ref->to.kind != QNI_DENSE) {
        const qni_dense_rows rows = {buffer, qni_weight_dtype(t), 1, ref->columns};
        for (int i = 0; i < N_PART; i++) from[i] = buffer + at.parts[i];
        const qni_quantized_rows out = {from[CODES], (uint16_t *)(void *)from[SCALES], (uint16_t *)(void *)from[BIASES],
                                        (float *)(void *)(buffer + at.row)};
        qn_error detail = {0};
        const qn_status status = qni_quantize_rows(&out, &ref->to, &rows, first, n, ref->columns, &detail);
        if (status != QN_OK) return qni_tensor_fail(&ref->data, status, detail.message, err);
    }
    for (int i = 0; i < N_PART && w->parts[i].row_bytes > 0; i++) {
        QN_TRY(qni_writer_write_at(&job->shards[w->shard].writer, from[i],
                                   w->parts[i].offset + (uint64_t)first * w->parts[i].row_bytes,
                                   (size_t)n * w->parts[i].row_bytes, err));
    }
    return QN_OK;
}

static uint64_t bytes_before(const void *context, int64_t chunk) {
    const out_job *job = context;
    uint64_t bytes = 0;
    for (size_t i = 0; i < job->n_weight && job->weights[i].first_chunk < chunk; i++) {
        const out_weight *w = &job->weights[i];
        int64_t rows = qni_min_i64((chunk - w->first_chunk) * w->rows_per_chunk, w->ref->rows);
        bytes += (uint64_t)rows * in_row_bytes(w->ref);
    }
    return bytes;
}

static qn_status write_all(out_job *job, qn_device *device, const qn_progress *progress, qn_error *err) {
    size_t bytes;
    if (!qni_mul_size(&bytes, (size_t)device->n_thread, job->buffer_bytes) ||
        (job->buffer = qni_calloc(bytes, 1)) == NULL) {
        return qni_fail(err, QN_ENOMEM, "quantize: no memory for %d buffers of %zu bytes", (int)device->n_thread,
                        job->buffer_bytes);
    }
    for (size_t i = 0; i < job->n_shard; i++) QN_TRY(open_shard(job, i, err));
    const qni_chunks work = {job->n_chunk, job, run_chunk, bytes_before, "quantizing"};
    QN_TRY(qni_chunks_run(&work, device, progress, err));
    for (size_t i = 0; i < job->n_shard; i++) QN_TRY(qni_writer_commit(&job->shards[i].writer, err));
    return job->n_shard > 1 ? write_index(job, err) : QN_OK;
}

qn_status qni_quantized_write(const char *dir, const qni_checkpoint *c, qn_device *device, uint64_t shard_bytes,
                              const qn_progress *progress, qn_error *err) {
    QN_TRY(qni_checkpoint_check_tied(c, device, err));
    const size_t most = (size_t)c->config.n_layer * QNI_N_SLOT + 3;
    out_job job = {.dir = dir};
    job.weights = qni_calloc(most, sizeof job.weights[0]);
    job.shards = qni_calloc(most, sizeof job.shards[0]);
    qn_status status = QN_OK;
    if (job.weights == NULL || job.shards == NULL) {
        status = qni_fail(err, QN_ENOMEM, "quantize: out of memory");
    } else {
        add_weights(&job, c, shard_bytes);
        status = write_all(&job, device, progress, err);
    }
    for (size_t i = 0; i < job.n_shard; i++) {
        qni_writer_abandon(&job.shards[i].writer);
        json_decref(job.shards[i].header);
    }
    qni_free(job.buffer);
    qni_free(job.shards);
    qni_free(job.weights);
    return status;
}
