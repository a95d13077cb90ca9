/* SPDX-License-Identifier: Apache-2.0 */
/* Work over all weights, split into chunks. The device's threads process them in waves; progress is reported between
 * waves. */
#ifndef QNI_CHUNKS_H
#define QNI_CHUNKS_H

#include "../base/cut.h"
#include "model.h"

/* Bytes per chunk of a weight: large enough for an efficient read, small enough for the L2 cache. */
enum { QNI_CHUNK_BYTES = QNI_CUT(512 << 10, 4 << 10) };

typedef struct qni_chunks {
    int64_t n_chunk;
    void *context;
    /* Called on any thread; `thread` is 0 … n_thread-1 and unique among chunks that run concurrently. */
    qn_status (*run)(void *context, int64_t chunk, int32_t thread, qn_error *err);
    /* Bytes of all chunks before this one, for progress. */
    uint64_t (*bytes_before)(const void *context, int64_t chunk);
    const char *name; /* e.g. "loading", for the message on cancellation */
} qni_chunks;

/* Run all chunks, or up to the end of the wave in which one fails. Returns the error of the lowest failing chunk. */
qn_status qni_chunks_run(const qni_chunks *work, qn_device *device, const qn_progress *progress, qn_error *err);

#endif
