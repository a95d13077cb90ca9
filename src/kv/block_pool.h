/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of KV blocks. A block holds a fixed number of positions for all layers of one model. Blocks are
 * reference-counted, so that sequences can share a common prefix. Blocks are numbered from 0; a sequence is a list of
 * such numbers (sequence.h).
 *
 * Layout: {n_layer, k|v, n_block, n_kv_head, block_tokens} rows of the KV dtype, or {n_layer, k|v, n_kv_head,
 * n_block, block_tokens} if the backend asks for it (kv_by_head). Within a layer, consecutive blocks of a sequence are
 * close together.
 *
 * Threads: allocating, retaining and releasing blocks is safe from any thread of the process that opened the device.
 * The writer of a block must hold its only reference.
 */
#ifndef QNI_KV_POOL_H
#define QNI_KV_POOL_H

#include "../backend/device.h"

typedef struct qni_kv_format {
    qn_dtype dtype; /* of K and V: F16, BF16, F32 or Q8 */
    int32_t n_layer, n_kv_head, head_dim;
} qni_kv_format;

typedef struct qni_block_pool {
    qn_device *device; /* outlives the pool */
    qni_kv_format format;
    int32_t block_tokens, n_block;
    size_t plane_bytes;            /* bytes of k, or of v, of one layer: all blocks */
    int64_t block_step, head_step; /* from one block, or KV head, to the next, in units of {block_tokens} rows */
    qni_buffer data;
    pthread_mutex_t lock;
    int32_t *refs;   /* {n_block} */
    int32_t *unused; /* {n_block}, the stack of the n_unused free blocks */
    int32_t n_unused;
} qni_block_pool;

/* Bytes of a key or value of one KV head, and of all KV of one token. */
size_t qni_kv_row_bytes(const qni_kv_format *format);
size_t qni_kv_token_bytes(const qni_kv_format *format);

/* Number of blocks for n_tok tokens. */
int32_t qni_kv_blocks_for(const qn_device *device, int32_t n_tok);

/* Bytes of a pool of n_block blocks on a device. Errors: ENOMEM if larger than the address space. */
qn_status qni_block_pool_measure(size_t *bytes, const qn_device *device, const qni_kv_format *format, int32_t n_block,
                                 qn_error *err);

/* Create a pool with all blocks free. Errors: ENOMEM. */
qn_status qni_block_pool_create(qni_block_pool **out, qn_device *device, const qni_kv_format *format, int32_t n_block,
                                qn_error *err);
void qni_block_pool_free(qni_block_pool *pool); /* NULL is fine */

/* Release n_given blocks and allocate n_taken free ones, each with one reference; the released ones may be reused.
 * Errors: EFULL: too few are free; nothing has changed. */
qn_status qni_block_pool_exchange(qni_block_pool *pool, const int32_t *given, int32_t n_given, int32_t *taken,
                                  int32_t n_taken, qn_error *err);
void qni_block_pool_retain(qni_block_pool *pool, const int32_t *blocks, int32_t n);
void qni_block_pool_release(qni_block_pool *pool, const int32_t *blocks, int32_t n);
bool qni_block_pool_is_shared(qni_block_pool *pool, int32_t block);
int32_t qni_block_pool_n_unused(qni_block_pool *pool);

/* The KV as ops accept it. */
qni_kv qni_block_pool_kv(const qni_block_pool *pool);

/* Copy block `from` to block `to`, in all layers. The caller holds the device. Errors: those of the device. */
qn_status qni_block_pool_copy(const qni_block_pool *pool, int32_t to, int32_t from, qn_error *err);

/* Address of a block's rows on the device: {block_tokens} rows of k (or v) of one layer and KV head. */
unsigned char *qni_block_pool_rows(const qni_block_pool *pool, int32_t layer, bool value, int32_t block, int32_t head);

#endif
