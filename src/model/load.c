/* SPDX-License-Identifier: Apache-2.0 */
/* Reading weights: each is cut into pieces of whole panels; the device's threads read a piece with pread into a small
 * buffer of their own and pack it from there. There is no second copy of a weight. */
#include "load.h"

/* Bytes of a piece, if a panel is not larger: long enough for a read, short enough for the second-level cache. */
enum { PIECE_BYTES = 512 << 10 };
/* Pieces between two looks at the progress callback, for each thread. */
enum { PIECES_PER_WAVE = 32 };

/* One weight and how it is cut. Rows are those of the checkpoint: outputs of a linear, ids of the table. */
typedef struct load_item {
    qni_weight_ref ref;
    const qni_weight *form; /* NULL: rows are copied as they are */
    unsigned char *to;
    int64_t n_row, rows_per_piece;
    size_t row_bytes;
    int64_t first_piece; /* pieces of all items before */
} load_item;

typedef struct load_job {
    qn_device *device;
    load_item *items; /* {n_item} */
    size_t n_item;
    int64_t n_piece;       /* of all items */
    int64_t wave_first;    /* piece that task 0 of the running wave is */
    unsigned char *buffer; /* {n_thread, buffer_bytes} */
    size_t buffer_bytes;

    /* The error of the lowest piece, so that it is the same whatever thread came first. */
    pthread_mutex_t lock;
    qn_status status;
    qn_error error;
    int64_t failed_piece;
} load_job;

static void add_item(load_job *job, const qni_weight_ref *ref, const qni_weight *form, const void *to) {
    load_item *item = &job->items[job->n_item++];
    const qni_st_tensor *t = ref->tensor;
    *item = (load_item){.ref = *ref, .form = form, .first_piece = job->n_piece};
    item->to = (unsigned char *)(uintptr_t)to; /* views of what the model owns are const; here it is filled */
    item->n_row = t->rank == 2 ? t->shape[0] : 1;
    item->row_bytes = (size_t)(t->bytes / (uint64_t)item->n_row);
    int64_t unit = form != NULL ? form->nr : 1;
    int64_t units = qni_max_i64(1, PIECE_BYTES / (int64_t)item->row_bytes / unit);
    item->rows_per_piece = qni_min_i64(units * unit, item->n_row);
    if (form != NULL) {
        size_t bytes = (size_t)item->rows_per_piece * item->row_bytes;
        if (bytes > job->buffer_bytes) job->buffer_bytes = bytes;
    }
    job->n_piece += qni_ceil_div(item->n_row, item->rows_per_piece);
}

static void add_linear(load_job *job, const qni_weight_ref *ref, const qn_linear *linear) {
    add_item(job, ref, &linear->weight, linear->data);
}

/* Items in the order in which published files hold them, so that a disk reads forward. */
static void add_items(load_job *job, const qn_model *model, const qni_checkpoint *c) {
    add_linear(job, c->config.tied ? &c->embedding : &c->lm_head, model->head_linear);
    if (!c->config.tied) add_item(job, &c->embedding, NULL, model->table);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        const qni_weight_ref *slot = c->layers[i].slot;
        const qni_layer_weights *layer = &model->layers[i];
        for (int k = 0; k < QNI_N_LINEAR; k++) {
            add_linear(job, &slot[k], model->linears[(size_t)i * QNI_N_LINEAR + (size_t)k]);
        }
        add_item(job, &slot[QNI_NORM1], NULL, layer->attention.norm.data);
        add_item(job, &slot[QNI_NORM2], NULL, layer->mlp.norm.data);
        add_item(job, &slot[QNI_Q_NORM], NULL, layer->attention.q_norm.data);
        add_item(job, &slot[QNI_K_NORM], NULL, layer->attention.k_norm.data);
    }
    add_item(job, &c->norm, NULL, model->norm.data);
}

/* The item that a piece belongs to: the last whose first piece is not beyond it. */
static const load_item *item_of(const load_job *job, int64_t piece) {
    size_t low = 0, high = job->n_item;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->items[middle].first_piece <= piece) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &job->items[low];
}

static void load_piece(void *context, int32_t task, int32_t thread) {
    load_job *job = context;
    int64_t piece = job->wave_first + task;
    const load_item *item = item_of(job, piece);
    int64_t first = (piece - item->first_piece) * item->rows_per_piece;
    int64_t n = qni_min_i64(item->rows_per_piece, item->n_row - first);
    size_t bytes = (size_t)n * item->row_bytes, skipped = (size_t)first * item->row_bytes;
    unsigned char *to = item->form != NULL ? job->buffer + (size_t)thread * job->buffer_bytes : item->to + skipped;
    qn_error error = {0};
    qn_status status = qni_file_read(&item->ref.file->file, to, item->ref.tensor->offset + skipped, bytes, &error);
    if (status != QN_OK) {
        pthread_mutex_lock(&job->lock);
        if (job->status == QN_OK || piece < job->failed_piece) {
            job->status = status;
            job->error = error;
            job->failed_piece = piece;
        }
        pthread_mutex_unlock(&job->lock);
        return;
    }
    if (item->form != NULL) {
        const qn_device *device = job->device;
        device->backend->pack(device->state, item->form, item->to, first, n, to, 1, item->form->n_in);
    }
}

/* The next n pieces, on the device's threads. */
static void load_wave(load_job *job, int32_t n) {
    qn_device *device = job->device;
    pthread_mutex_lock(&device->lock);
    if (device->backend->parallel != NULL) {
        device->backend->parallel(device->state, n, load_piece, job);
    } else {
        for (int32_t task = 0; task < n; task++) load_piece(job, task, 0);
    }
    pthread_mutex_unlock(&device->lock);
}

static uint64_t bytes_before(const load_job *job, int64_t piece) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < job->n_item && job->items[i].first_piece < piece; i++) {
        const load_item *item = &job->items[i];
        int64_t rows = qni_min_i64((piece - item->first_piece) * item->rows_per_piece, item->n_row);
        bytes += (uint64_t)rows * item->row_bytes;
    }
    return bytes;
}

static qn_status report(const qn_progress *progress, uint64_t done, uint64_t total, qn_error *err) {
    if (progress->report == NULL || progress->report(progress->user, done, total)) return QN_OK;
    return qni_fail(err, QN_ECANCELED, "loading was canceled by the progress callback");
}

static qn_status load_all(load_job *job, const qn_progress *progress, qn_error *err) {
    uint64_t total = bytes_before(job, job->n_piece);
    int64_t per_wave = (int64_t)job->device->n_thread * PIECES_PER_WAVE;
    QN_TRY(report(progress, 0, total, err));
    while (job->wave_first < job->n_piece) {
        int64_t n = qni_min_i64(per_wave, job->n_piece - job->wave_first);
        load_wave(job, (int32_t)n);
        if (job->status != QN_OK) return qni_fail(err, job->status, "%s", job->error.message);
        job->wave_first += n;
        QN_TRY(report(progress, bytes_before(job, job->wave_first), total, err));
    }
    return QN_OK;
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
    } else if (pthread_mutex_init(&job.lock, NULL) != 0) {
        status = qni_fail(err, QN_ENOMEM, "model: no memory for a lock");
    } else {
        status = load_all(&job, progress, err);
        pthread_mutex_destroy(&job.lock);
    }
    qni_free(job.buffer);
    qni_free(job.items);
    return status;
}
