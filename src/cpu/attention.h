/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by attention.c (tasks, cache write, reduction of chunks) and attention_block.c (blocks of positions). */
#ifndef QNI_CPU_ATTENTION_H
#define QNI_CPU_ATTENTION_H

#include "cpu.h"

enum {
    BLOCK = QNI_CPU_KV_BLOCK,
    CHUNK = 4 * BLOCK,
    ROW_GAP = 16, /* elements between rows of a converted block: without it a column maps to few cache sets */
};

typedef struct job {
    const qni_cpu_kernels *k;
    const qni_cpu_attention *a;
    qni_cpu_attention_scratch scratch;
    int64_t group; /* query heads per KV head */
    int64_t d_pad; /* head_dim, padded */
    int64_t n_tile;
    int64_t n_chunk;       /* of the longest tile, if chunks are tasks */
    int64_t rows_per_task; /* for the cache write */
    bool writes;           /* the attention tasks write the cache themselves */
} job;

/* Partial softmax for each query, of one chunk or of all chunks so far. */
typedef struct partial {
    float *o;         /* {n_query, d_pad} */
    float *max, *sum; /* {n_query} */
} partial;

/* Working set of a task. */
typedef struct tile {
    const qni_kv_layer *kv;
    int64_t first, n_row;  /* tokens of the batch */
    int64_t pos;           /* position of the first token */
    const int32_t *blocks; /* block table of its sequence */
    int64_t kv_head;
    int64_t n_query;   /* n_row · group, rows outer */
    partial all, part; /* partial softmax: of all chunks so far, and of one */
    float *q;          /* {n_query, d_pad} */
    float *p;          /* {n_query, BLOCK} */
    float *factor;     /* {2, n_query}, for the reduction */
    float *scale;      /* {BLOCK}, of q8 rows */
    float *block;      /* {BLOCK, d_pad + ROW_GAP} of K or V */
    float *panels;     /* {BLOCK, d_pad} of K, in the layout of attend_panels */
    bool in_place;     /* few queries: read the cache in place where possible */
} tile;

/* Address of a cache row; `blocks` is the block table of its sequence. */
unsigned char *qni_cpu_k_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);
unsigned char *qni_cpu_v_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);

/* Partial softmax of a chunk, from position pos on, for the tile's queries. */
void qni_cpu_attend_chunk(const job *j, const tile *t, const partial *to, int64_t pos);

#endif
