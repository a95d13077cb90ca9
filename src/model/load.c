/* SPDX-License-Identifier: Apache-2.0 */
/* Reads weights. Each weight is split into chunks of whole panels. The device's threads pread a chunk into a small
 * per-thread buffer and pack it from there. No second copy of a weight is made. */
#include "load.h"
#include "chunks.h"

/* One weight and its chunks. Rows are those of the checkpoint: outputs of a linear, ids of the table. */
typedef struct load_item {
    const qni_weight_ref *ref;
    qni_filling filling; /* weight NULL: rows are copied as they are */
    unsigned char *to;   /* where to on the device, without a weight */
    int64_t rows_per_chunk;
    size_t row_bytes, scale_row_bytes; /* row_bytes: elements or codes; scale_row_bytes: scales, 0 if dense */
    int64_t first_chunk;               /* number of chunks in all earlier items */
} load_item;

typedef struct load_job {
    qn_device *device;
    load_item *items; /* {n_item} */
    size_t n_item;
    int64_t n_chunk;       /* of all items */
    unsigned char *buffer; /* {n_thread, buffer_bytes} */
    size_t buffer_bytes;
} load_job;

/* Offsets of a chunk's parts in a buffer. */
typedef struct chunk_layout {
    size_t scales, biases, bytes;
} chunk_layout;

static int64_t scale_rows(const load_item *item, int64_t n) {
    return item->ref->scales.tensor != NULL ? qni_ceil_div(n, item->ref->quant.group_out) : 0;
}

static chunk_layout layout_of(const load_item *item) {
    const size_t scales = (size_t)scale_rows(item, item->rows_per_chunk) * item->scale_row_bytes;
    chunk_layout at = {.scales = qni_round_up((size_t)item->rows_per_chunk * item->row_bytes, QNI_ALIGN)};
    at.biases = at.scales + qni_round_up(scales, QNI_ALIGN);
    at.bytes = at.biases + (item->ref->biases.tensor != NULL ? qni_round_up(scales, QNI_ALIGN) : 0);
    return at;
}

/* Into a packed weight, or as it is to memory. */
static void add_item(load_job *job, const qni_weight_ref *ref, qni_weight *weight, const void *to) {
    load_item *item = &job->items[job->n_item++];
    *item = (load_item){.ref = ref, .filling = {job->device, weight, false}, .first_chunk = job->n_chunk};
    item->to = (unsigned char *)(uintptr_t)to; /* views of what the model owns are const; here it is filled */
    item->row_bytes = (size_t)(ref->data.tensor->bytes / (uint64_t)ref->rows);
    if (ref->scales.tensor != NULL) item->scale_row_bytes = (size_t)qni_quant_scale_bytes(&ref->quant, ref->columns);
    const qni_source source = qni_weight_source(ref, QN_ARITH_AUTO);
    int64_t unit = weight != NULL ? qni_linear_unit(weight, &source) : 1;
    int64_t units = qni_max_i64(1, QNI_CHUNK_BYTES / (int64_t)item->row_bytes / unit);
    item->rows_per_chunk = qni_min_i64(units * unit, ref->rows);
    if (layout_of(item).bytes > job->buffer_bytes) job->buffer_bytes = layout_of(item).bytes;
    job->n_chunk += qni_ceil_div(ref->rows, item->rows_per_chunk);
}

static void add_linear(load_job *job, const qni_weight_ref *ref, qni_weight *weight) {
    add_item(job, ref, weight, NULL);
}

/* Items in the order of published files, so that the disk is read sequentially. */
static void add_items(load_job *job, qn_model *model, const qni_checkpoint *c) {
    add_linear(job, qni_checkpoint_head(c), &model->lm_head);
    if (!c->config.tied) {
        add_item(job, &c->embedding, model->table.packed ? &model->table : NULL, model->table.data);
    }
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        const qni_weight_ref *slot = c->layers[i].slot;
        qni_layer_view *layer = &model->layers[i];
        for (int k = 0; k < QNI_N_LINEAR; k++) add_linear(job, &slot[k], qni_layer_linear(layer, k));
        add_item(job, &slot[QNI_NORM1], NULL, layer->attention.norm.data);
        add_item(job, &slot[QNI_NORM2], NULL, layer->mlp.norm.data);
        add_item(job, &slot[QNI_Q_NORM], NULL, layer->attention.q_norm.data);
        add_item(job, &slot[QNI_K_NORM], NULL, layer->attention.k_norm.data);
    }
    add_item(job, &c->norm, NULL, model->norm.data);
}

/* The item that a piece belongs to: the last whose first piece is not beyond it. */
static load_item *item_of(const load_job *job, int64_t chunk) {
    size_t low = 0, high = job->n_item;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->items[middle].first_chunk <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &job->items[low];
}

/* Read rows [first, first + n) of a tensor. */
static qn_status read_rows(const qni_tensor_ref *ref, void *to, int64_t first, int64_t n, size_t row_bytes,
                           qn_error *err) {
    uint64_t at = ref->tensor->offset + (uint64_t)first * row_bytes;
    return qni_file_read(&ref->file->file, to, at, (size_t)n * row_bytes, err);
}

static qn_status load_dense(load_item *item, int64_t first, int64_t n, unsigned char *buffer, qn_error *err) {
    const qni_weight_ref *ref = item->ref;
    QN_TRY(read_rows(&ref->data, buffer, first, n, item->row_bytes, err));
    const qni_dense_rows rows = {buffer, qni_weight_dtype(ref->data.tensor), 1, ref->columns};
    if (ref->to.kind != QNI_DENSE) {
        qn_error detail = {0};
        const qn_status status = qni_linear_quantize(&item->filling, first, n, &ref->to, &rows, &detail);
        return status == QN_OK ? QN_OK : qni_tensor_fail(&ref->data, status, detail.message, err);
    }
    qni_linear_fill(&item->filling, first, n, &rows);
    return QN_OK;
}

static qn_status bad_tensor(const qni_tensor_ref *ref, const char *what, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "%s: tensor %s %s", qni_base_name(ref->file->file.path), ref->tensor->name, what);
}

static qn_status load_quantized(load_item *item, int64_t first, int64_t n, unsigned char *buffer, qn_error *err) {
    static const char not_finite[] = "holds a NaN or an infinity";
    const qni_weight_ref *ref = item->ref;
    const qni_quant *q = &ref->quant;
    const chunk_layout at = layout_of(item);
    const int64_t first_scale = first / q->group_out, n_scale = scale_rows(item, n);
    unsigned char *scales = buffer + at.scales, *biases = buffer + at.biases;
    QN_TRY(read_rows(&ref->data, buffer, first, n, item->row_bytes, err));
    QN_TRY(read_rows(&ref->scales, scales, first_scale, n_scale, item->scale_row_bytes, err));
    const int64_t n_value = n_scale * qni_quant_n_group(q, ref->columns);
    if (!qni_quant_are_finite(scales, q->scale_dtype, n_value)) return bad_tensor(&ref->scales, not_finite, err);
    qni_quant_rows rows = {buffer, scales, NULL};
    if (q->kind == QNI_FP8) {
        if (!qni_quant_are_finite(buffer, QN_DTYPE_F8, n * ref->columns))
            return bad_tensor(&ref->data, not_finite, err);
        return qni_linear_fill_quantized(&item->filling, first, n, q, &rows, err);
    }
    QN_TRY(read_rows(&ref->biases, biases, first_scale, n_scale, item->scale_row_bytes, err));
    if (!qni_quant_are_finite(biases, q->scale_dtype, n_value)) return bad_tensor(&ref->biases, not_finite, err);
    if (!q->symmetric) {
        rows.biases = biases;
    } else if (!qni_quant_are_symmetric(q, scales, biases, n_value)) {
        return bad_tensor(&ref->biases, "is not -128 times the scales, as metadata quern.symmetric says", err);
    }
    return qni_linear_fill_quantized(&item->filling, first, n, q, &rows, err);
}

static qn_status load_rows(const load_job *job, load_item *item, int64_t first, int64_t n, unsigned char *buffer,
                           qn_error *err) {
    if (item->filling.weight == NULL) {
        const qn_device *device = job->device;
        QN_TRY(read_rows(&item->ref->data, buffer, first, n, item->row_bytes, err));
        return device->backend->memory->write(device->state, item->to + (size_t)first * item->row_bytes, buffer,
                                              (size_t)n * item->row_bytes, err);
    }
    if (item->ref->quant.kind == QNI_DENSE) return load_dense(item, first, n, buffer, err);
    return load_quantized(item, first, n, buffer, err);
}

static qn_status load_chunk(void *context, int64_t chunk, int32_t thread, qn_error *err) {
    const load_job *job = context;
    load_item *item = item_of(job, chunk);
    int64_t first = (chunk - item->first_chunk) * item->rows_per_chunk;
    int64_t n = qni_min_i64(item->rows_per_chunk, item->ref->rows - first);
    return load_rows(job, item, first, n, job->buffer + (size_t)thread * job->buffer_bytes, err);
}

static uint64_t bytes_before(const void *context, int64_t chunk) {
    const load_job *job = context;
    uint64_t bytes = 0;
    for (size_t i = 0; i < job->n_item && job->items[i].first_chunk < chunk; i++) {
        const load_item *item = &job->items[i];
        int64_t rows = qni_min_i64((chunk - item->first_chunk) * item->rows_per_chunk, item->ref->rows);
        uint64_t scale_bytes = (uint64_t)scale_rows(item, rows) * item->scale_row_bytes;
        bytes += (uint64_t)rows * item->row_bytes + scale_bytes;
        if (item->ref->biases.tensor != NULL) bytes += scale_bytes;
    }
    return bytes;
}

qn_status qni_model_load(qn_model *model, const qni_checkpoint *c, const qn_progress *progress, qn_error *err) {
    load_job job = {.device = model->device};
    size_t n_item = (size_t)c->config.n_layer * QNI_N_SLOT + 3;
    job.items = qni_calloc(n_item, sizeof job.items[0]);
    if (job.items == NULL) return qni_fail(err, QN_ENOMEM, "model: out of memory");
    add_items(&job, model, c);
    size_t buffers = (size_t)model->device->n_thread;
    qn_status status = QN_OK;
    if (!qni_mul_size(&buffers, buffers, job.buffer_bytes) || (job.buffer = qni_calloc(buffers, 1)) == NULL) {
        status = qni_fail(err, QN_ENOMEM, "model: no memory for %d buffers of %zu bytes", (int)model->device->n_thread,
                          job.buffer_bytes);
    } else {
        const qni_chunks work = {job.n_chunk, &job, load_chunk, bytes_before, "loading"};
        status = qni_chunks_run(&work, model->device, progress, err);
    }
    for (size_t i = 0; i < job.n_item && status == QN_OK; i++) {
        if (job.items[i].filling.weight != NULL) qni_linear_finish(&job.items[i].filling);
    }
    qni_free(job.buffer);
    qni_free(job.items);
    return status;
}
