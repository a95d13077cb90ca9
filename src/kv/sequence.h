/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence: token ids, and the pool blocks that hold their KV. Blocks may be shared with other sequences. A partial
 * last block that is shared is copied before it is written.
 *
 * Threads: a sequence belongs to one thread at a time; sequences of one pool may belong to different threads.
 */
#ifndef QNI_SEQUENCE_H
#define QNI_SEQUENCE_H

#include "block_pool.h"

typedef struct qni_sequence {
    qni_block_pool *pool; /* outlives the sequence */
    int32_t *ids;         /* {n_ctx}, the caller's memory */
    int32_t *blocks;      /* {blocks for n_ctx} */
    int32_t *taken;       /* {blocks for n_ctx + 1}: blocks allocated by a reservation */
    int32_t n_ctx, n_tok, n_block;
} qni_sequence;

/* Create an empty sequence of at most n_ctx tokens. Errors: ENOMEM. */
qn_status qni_sequence_create(qni_sequence *out, qni_block_pool *pool, int32_t *ids, int32_t n_ctx, qn_error *err);
/* Release its blocks. A zeroed sequence is fine. */
void qni_sequence_release(qni_sequence *sequence);

/* Drop all tokens from `keep` on, and allocate blocks so that positions keep … keep + n - 1 can be written. The
 * block with position keep - 1 is copied if it is partial and shared. keep <= n_tok, keep + n <= n_ctx. Locks the
 * device for a copy. Errors: EFULL, and EDEVICE in a forked child: unchanged; those of the copy: the first `keep`
 * tokens remain. */
qn_status qni_sequence_reserve(qni_sequence *sequence, int32_t keep, int32_t n, qn_error *err);

/* Append ids whose KV has been written, after qni_sequence_reserve(). */
void qni_sequence_append(qni_sequence *sequence, const int32_t *ids, int32_t n);

/* Drop all tokens from n_tok on, and release the blocks after them. */
void qni_sequence_rewind(qni_sequence *sequence, int32_t n_tok);

/* Make `to`, an empty sequence on the same pool, equal to `from`: it shares all blocks without copying. from->n_tok
 * is at most to->n_ctx. */
void qni_sequence_fork(qni_sequence *to, const qni_sequence *from);

#endif
