/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences of a pool. */
#include "sequence.h"

#include <string.h>

static int32_t blocks_for(const qni_sequence *s, int32_t n_tok) {
    return (int32_t)qni_ceil_div(n_tok, s->pool->block_tokens);
}

qn_status qni_sequence_create(qni_sequence *out, qni_block_pool *pool, int32_t *ids, int32_t n_ctx, qn_error *err) {
    qni_sequence s = {.pool = pool, .ids = ids, .n_ctx = n_ctx};
    const size_t most = (size_t)blocks_for(&s, n_ctx);
    s.blocks = qni_calloc(2 * most + 1, sizeof *s.blocks);
    if (s.blocks == NULL) return qni_fail(err, QN_ENOMEM, "sequence: out of memory");
    s.taken = s.blocks + most;
    *out = s;
    return QN_OK;
}

void qni_sequence_release(qni_sequence *s) {
    /* A forked child frees the whole pool; a thread of its parent may have held the pool's lock. */
    if (s->pool != NULL && qni_device_is_own(s->pool->device)) {
        qni_block_pool_release(s->pool, s->blocks, s->n_block);
    }
    qni_free(s->blocks);
    *s = (qni_sequence){0};
}

/* Replace the shared last block by `own`, a copy of it. */
static qn_status copy_last(qni_sequence *s, int32_t own, qn_error *err) {
    qni_block_pool *pool = s->pool;
    int32_t *last = &s->blocks[s->n_block - 1];
    qn_status status = qni_device_lock(pool->device, err);
    if (status == QN_OK) {
        status = qni_block_pool_copy(pool, own, *last, err);
        qni_device_unlock(pool->device);
    }
    qni_block_pool_release(pool, status == QN_OK ? last : &own, 1);
    if (status == QN_OK) *last = own;
    return status;
}

qn_status qni_sequence_reserve(qni_sequence *s, int32_t keep, int32_t n, qn_error *err) {
    qni_block_pool *pool = s->pool;
    QN_TRY(qni_device_check_own(pool->device, err));
    const int32_t n_kept = blocks_for(s, keep), n_new = blocks_for(s, keep + n) - n_kept;
    const bool copies = keep % pool->block_tokens != 0 && qni_block_pool_is_shared(pool, s->blocks[n_kept - 1]);
    QN_TRY(qni_block_pool_exchange(pool, s->blocks + n_kept, s->n_block - n_kept, s->taken, n_new + copies, err));
    s->n_tok = keep;
    s->n_block = n_kept;
    if (copies) {
        qn_status status = copy_last(s, s->taken[n_new], err);
        if (status != QN_OK) {
            qni_block_pool_release(pool, s->taken, n_new);
            return status;
        }
    }
    memcpy(s->blocks + n_kept, s->taken, (size_t)n_new * sizeof *s->blocks);
    s->n_block += n_new;
    return QN_OK;
}

void qni_sequence_append(qni_sequence *s, const int32_t *ids, int32_t n) {
    memmove(s->ids + s->n_tok, ids, (size_t)n * sizeof *ids);
    s->n_tok += n;
}

void qni_sequence_rewind(qni_sequence *s, int32_t n_tok) {
    s->n_tok = n_tok;
    const int32_t n_block = blocks_for(s, n_tok);
    if (n_block >= s->n_block || !qni_device_is_own(s->pool->device)) return;
    qni_block_pool_release(s->pool, s->blocks + n_block, s->n_block - n_block);
    s->n_block = n_block;
}

void qni_sequence_fork(qni_sequence *to, const qni_sequence *from) {
    to->n_tok = from->n_tok;
    to->n_block = blocks_for(from, from->n_tok);
    memcpy(to->ids, from->ids, (size_t)from->n_tok * sizeof *to->ids);
    memcpy(to->blocks, from->blocks, (size_t)to->n_block * sizeof *to->blocks);
    qni_block_pool_retain(to->pool, to->blocks, to->n_block);
}
