/* SPDX-License-Identifier: Apache-2.0 */
/* What attention.c (tasks, the cache's new rows, chunks put together) and attention_block.c (blocks of positions) share. */
#ifndef QNI_CPU_ATTENTION_H
#define QNI_CPU_ATTENTION_H

#include "cpu.h"

enum {
    BLOCK = QNI_CPU_KV_BLOCK,
    CHUNK = 4 * BLOCK,
    ROW_GAP = 16, /* elements between rows of a converted block, else a column of them shares few sets of the cache */
};

typedef struct job {
    const qni_cpu_kernels *k;
    const qni_cpu_attention *a;
    qni_cpu_attention_scratch scratch;
    int64_t group; /* query heads of a KV head */
    int64_t d_pad; /* head_dim, padded */
    int64_t n_tile;
    int64_t n_chunk;     /* of the longest tile, where chunks are tasks */
    int64_t rows_a_task; /* of the cache write */
    bool writes;         /* the tasks that attend do it */
} job;

/* What a chunk, or all chunks so far, yields for each query. */
typedef struct state {
    float *o;         /* {n_query, d_pad} */
    float *max, *sum; /* {n_query} */
} state;

/* State of a task. */
typedef struct tile {
    const qni_kv_layer *kv;
    int64_t first, n_row;  /* tokens of the batch */
    int64_t pos;           /* of the first one */
    const int32_t *blocks; /* of its sequence */
    int64_t kv_head;
    int64_t n_query; /* n_row · group, rows outer */
    state all, part; /* of all chunks, and of one */
    float *q;        /* {n_query, d_pad} */
    float *p;        /* {n_query, BLOCK} */
    float *factor;   /* {2, n_query}, of merging */
    float *scale;    /* {BLOCK}, of rows of q8 */
    float *block;    /* {BLOCK, d_pad + ROW_GAP} of K or V */
    float *panels;   /* {BLOCK, d_pad} of K, as attend_panels takes them */
    bool direct;     /* few queries: the cache is read as it lies where it can be */
} tile;

/* Address of a row of the cache; `blocks` are those of its sequence. */
unsigned char *qni_cpu_k_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);
unsigned char *qni_cpu_v_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);

/* What the positions of a chunk, from pos on, yield for the tile's queries. */
void qni_cpu_attend_chunk(const job *j, const tile *t, const state *to, int64_t pos);

#endif
