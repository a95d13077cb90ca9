/* SPDX-License-Identifier: Apache-2.0 */
/* Work over all weights that is cut into pieces: the device's threads take them in waves, and between two waves
 * progress is reported. */
#ifndef QNI_PIECES_H
#define QNI_PIECES_H

#include "../base/cut.h"
#include "model.h"

/* Bytes of a piece of a weight: long enough for a read, short enough for the second-level cache. */
enum { QNI_PIECE_BYTES = QNI_CUT(512 << 10, 4 << 10) };

typedef struct qni_pieces {
    int64_t n_piece;
    void *context;
    /* Any thread; `thread` is 0 … n_thread-1 and unique among pieces that run at the same time. */
    qn_status (*run)(void *context, int64_t piece, int32_t thread, qn_error *err);
    /* Of all pieces before this one, for progress. */
    uint64_t (*bytes_before)(const void *context, int64_t piece);
    const char *name; /* "loading", for the message when it is canceled */
} qni_pieces;

/* Run all pieces, or those up to the wave in which one fails. The error is that of the lowest piece. */
qn_status qni_pieces_run(const qni_pieces *work, qn_device *device, const qn_progress *progress, qn_error *err);

#endif
