/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence: token ids, and the blocks of a pool that hold their KV. Blocks may be shared with other sequences. The
 * last block, if it is partial and shared, is copied before it is written.
 *
 * Threads: a sequence belongs to one thread at a time; sequences of one pool may belong to different ones.
 */
#ifndef QNI_SEQUENCE_H
#define QNI_SEQUENCE_H

#include "block_pool.h"

typedef struct qni_sequence {
    qni_block_pool *pool; /* outlives the sequence */
    int32_t *ids;         /* {n_ctx}, the caller's memory */
    int32_t *blocks;      /* {blocks for n_ctx} */
    int32_t *taken;       /* {blocks for n_ctx + 1}: those that a reservation takes */
    int32_t n_ctx, n_tok, n_block;
} qni_sequence;

/* An empty sequence of at most n_ctx tokens. Errors: ENOMEM. */
qn_status qni_sequence_create(qni_sequence *out, qni_block_pool *pool, int32_t *ids, int32_t n_ctx, qn_error *err);
/* Give up its blocks. A sequence of zeros is fine. */
void qni_sequence_release(qni_sequence *sequence);

/* Forget all tokens from `keep` on, and get blocks so that the positions keep … keep + n - 1 can be written: the block
 * that holds position keep - 1 is copied if it is partial and shared. keep <= n_tok, keep + n <= n_ctx. Takes the
 * device's lock for a copy. Errors: EFULL, and EDEVICE in a forked child: unchanged; those of the copy: the tokens to
 * keep are left. */
qn_status qni_sequence_reserve(qni_sequence *sequence, int32_t keep, int32_t n, qn_error *err);

/* Append ids whose KV was written, after qni_sequence_reserve(). */
void qni_sequence_append(qni_sequence *sequence, const int32_t *ids, int32_t n);

/* Forget all tokens from n_tok on, and give up the blocks behind them. */
void qni_sequence_rewind(qni_sequence *sequence, int32_t n_tok);

/* Make `to`, which is empty and of the same pool, equal to `from`: it shares all blocks, nothing is copied. from->n_tok
 * is at most to->n_ctx. */
void qni_sequence_fork(qni_sequence *to, const qni_sequence *from);

#endif
