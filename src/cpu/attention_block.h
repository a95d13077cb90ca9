/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of a tile of queries to a chunk of cached positions. The rest of the op is in attention.c. */
#ifndef QNI_CPU_ATTENTION_BLOCK_H
#define QNI_CPU_ATTENTION_BLOCK_H

#include "cpu.h"

enum {
    QNI_CPU_KV_CHUNK = 4 * QNI_CPU_KV_BLOCK,
    QNI_CPU_KV_GAP = 16, /* elements between rows of a converted block: without it a column maps to few cache sets */
};

/* Partial softmax for each query, of one chunk or of all chunks so far. */
typedef struct qni_cpu_partial {
    float *o;         /* {n_query, d_pad} */
    float *max, *sum; /* {n_query} */
} qni_cpu_partial;

/* Consecutive tokens of one sequence x the query heads of one KV head, and the memory to compute with. */
typedef struct qni_cpu_tile {
    const qni_cpu_kernels *k;
    const qni_kv_layer *kv;
    const int32_t *blocks; /* block table of the sequence */
    int64_t kv_head;
    int64_t group;      /* query heads per KV head */
    int64_t d_pad;      /* head_dim, padded */
    int64_t pos, n_row; /* position of the first token, and number of tokens */
    int64_t n_query;    /* n_row · group, rows outer */
    float *q;           /* {n_query, d_pad} */
    float *p;           /* {n_query, QNI_CPU_KV_BLOCK} */
    float *scale;       /* {QNI_CPU_KV_BLOCK}, of q8 rows */
    float *block;       /* {QNI_CPU_KV_BLOCK, d_pad + QNI_CPU_KV_GAP} of K or V */
    float *panels;      /* {QNI_CPU_KV_BLOCK, d_pad} of K, in the layout of attend_panels */
    bool in_place;      /* few queries: read the cache in place where possible */
} qni_cpu_tile;

/* Address of a cache row; `blocks` is the block table of its sequence. */
unsigned char *qni_cpu_k_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);
unsigned char *qni_cpu_v_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos);

/* Partial softmax of a chunk, from position pos on, for the tile's queries. */
void qni_cpu_attend_chunk(const qni_cpu_tile *t, const qni_cpu_partial *to, int64_t pos);

#endif
