/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks in waves, on the device's threads. */
#include "chunks.h"

/* Chunks per thread between two progress reports. */
enum { CHUNKS_PER_WAVE = QNI_CUT(32, 2) };

typedef struct wave {
    const qni_chunks *work;
    int64_t first; /* chunk of task 0 */

    /* The error of the lowest chunk, so that it does not depend on thread order. */
    pthread_mutex_t lock;
    qn_status status;
    qn_error error;
    int64_t failed;
} wave;

static void run_task(void *context, int32_t task, int32_t thread) {
    wave *w = context;
    const int64_t chunk = w->first + task;
    qn_error error = {0};
    qn_status status = w->work->run(w->work->context, chunk, thread, &error);
    if (status == QN_OK) return;
    pthread_mutex_lock(&w->lock);
    if (w->status == QN_OK || chunk < w->failed) {
        w->status = status;
        w->error = error;
        w->failed = chunk;
    }
    pthread_mutex_unlock(&w->lock);
}

/* Run the next n chunks. */
static qn_status run_wave(wave *w, qn_device *device, int32_t n, qn_error *err) {
    QN_TRY(qni_device_lock(device, err));
    if (device->backend->parallel != NULL) {
        device->backend->parallel(device->state, n, run_task, w);
    } else {
        for (int32_t task = 0; task < n; task++) run_task(w, task, 0);
    }
    qni_device_unlock(device);
    return QN_OK;
}

static qn_status report(const qni_chunks *work, const qn_progress *progress, int64_t chunk, qn_error *err) {
    if (progress->report == NULL) return QN_OK;
    uint64_t done = work->bytes_before(work->context, chunk), all = work->bytes_before(work->context, work->n_chunk);
    if (progress->report(progress->user, done, all)) return QN_OK;
    return qni_fail(err, QN_ECANCELED, "%s was canceled by the progress callback", work->name);
}

static qn_status run_all(wave *w, qn_device *device, const qn_progress *progress, qn_error *err) {
    const qni_chunks *work = w->work;
    const int64_t per_wave = (int64_t)device->n_thread * CHUNKS_PER_WAVE;
    QN_TRY(report(work, progress, 0, err));
    while (w->first < work->n_chunk) {
        int64_t n = qni_min_i64(per_wave, work->n_chunk - w->first);
        QN_TRY(run_wave(w, device, (int32_t)n, err));
        if (w->status != QN_OK) return qni_fail(err, w->status, "%s", w->error.message);
        w->first += n;
        QN_TRY(report(work, progress, w->first, err));
    }
    return QN_OK;
}

qn_status qni_chunks_run(const qni_chunks *work, qn_device *device, const qn_progress *progress, qn_error *err) {
    wave w = {.work = work};
    if (pthread_mutex_init(&w.lock, NULL) != 0) return qni_fail(err, QN_ENOMEM, "%s: no memory for a lock", work->name);
    qn_status status = run_all(&w, device, progress, err);
    pthread_mutex_destroy(&w.lock);
    return status;
}
