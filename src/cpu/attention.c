/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RoPE, cache write and causal grouped-query attention.
 *
 * An attention task is one tile of consecutive rows of a sequence x one KV head: all query heads of that KV head share
 * the loads. If no other task reads the new keys and values of its rows, the task writes them first; if a sequence has
 * several tiles, a separate loop writes all rows beforehand. The cache is read in blocks of QNI_CPU_KV_BLOCK positions
 * and chunks of CHUNK, both counted from 0. Each chunk yields a partial softmax per query (maximum, sum, weighted
 * values), accumulated block by block, and chunks are reduced in order. So a result depends only on the query and the
 * cache, not on the tile, and chunks can be separate tasks when there are too few tasks for the threads (split KV).
 * Cache rows beyond a query's own position never affect its result, and rows beyond the last query's position are not
 * read.
 */
#include "../base/cut.h"
#include "attention_block.h"

#include <math.h>

enum {
    BLOCK = QNI_CPU_KV_BLOCK,
    CHUNK = QNI_CPU_KV_CHUNK,
    TILE_QUERIES = QNI_CUT(128, 16), /* queries per task: their partials and a block of K and V fit in L2 */
    TILE_ROWS = QNI_CUT(64, 8),      /* the causal mask wastes half of a diagonal tile */
    FEW_QUERIES = 8, /* up to here a block is converted on the fly; more queries share a converted copy */
    TASKS_PER_THREAD = 4,
    ELEMENTS_PER_TASK = QNI_CUT(1 << 14, 1 << 7),
};

typedef qni_cpu_partial partial;

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

/* A tile with what only this file needs. */
typedef struct work {
    qni_cpu_tile t;
    int64_t first;     /* its first token in the batch */
    partial all, part; /* of all chunks so far, and of one */
    float *factor;     /* {2, n_query}, for the reduction */
} work;

static int64_t tile_rows(int64_t group) {
    return qni_max_i64(1, qni_min_i64(TILE_ROWS, TILE_QUERIES / group));
}

static int64_t padded(const qni_cpu_kernels *k, int64_t head_dim) {
    return (head_dim + k->d_align - 1) / k->d_align * k->d_align;
}

/* Proportional to the number of queries: partial_of() relies on it. One cache line is reserved for a query's maximum
 * and sum, so that vectors of values do not straddle lines. */
static int64_t partial_floats(int64_t n_query, int64_t d_pad) {
    return n_query * (d_pad + QNI_ALIGN / (int64_t)sizeof(float));
}

static partial partial_at(float *at, int64_t n_query, int64_t d_pad) {
    return (partial){at, at + n_query * d_pad, at + n_query * (d_pad + 1)};
}

/* Maximum rows of a call whose chunks become tasks. */
static int64_t rows_to_split(const qni_cpu *cpu, const qni_cpu_attention *a) {
    return (TASKS_PER_THREAD * (int64_t)cpu->n_thread - 1) / a->k.n_head;
}

qni_cpu_attention_scratch qni_cpu_alloc_attention(const qni_run *run, const qni_cpu_attention *a) {
    qni_cpu *cpu = qni_cpu_of(run);
    const qni_batch *batch = a->call->batch;
    int64_t group = a->q.n_head / a->k.n_head, d_pad = padded(&cpu->kernels, a->q.head_dim);
    int64_t n_query = tile_rows(group) * group;
    qni_cpu_attention_scratch s;
    s.floats =
        2 * partial_floats(n_query, d_pad) + n_query * (d_pad + BLOCK + 2) + BLOCK * (2 * d_pad + QNI_CPU_KV_GAP + 1);
    s.floats = (int64_t)qni_round_up((size_t)s.floats, QNI_ALIGN / sizeof(float));
    s.per_thread = qni_cpu_alloc_floats(run, cpu->n_thread * s.floats);
    s.first = qni_scratch_take(run->scratch, (size_t)(batch->n_tok + 1) * sizeof *s.first);
    /* At least as much as any smaller call needs: a reservation for many tokens also covers few. */
    int64_t n_tok = qni_min_i64(batch->n_tok, rows_to_split(cpu, a));
    int64_t n_chunk = qni_ceil_div(batch->max_block * a->kv->block_tokens, CHUNK);
    s.partials =
        qni_scratch_array(run->scratch, n_tok * a->k.n_head * n_chunk, partial_floats(group, d_pad), sizeof(float));
    return s;
}

static const void *head_at(const qni_heads *h, int64_t row, int64_t head) {
    const unsigned char *data = qni_mat_row(&h->rows, row);
    return data + (size_t)(head * h->head_stride) * qn_dtype_bytes(h->rows.dtype);
}

/* One head of a row as f32, normed and rotated. */
static void load_head(const job *j, float *out, const qni_heads *h, int64_t row, int64_t head, const float *norm) {
    const void *from = head_at(h, row, head);
    const bool is_direct = h->rows.dtype == QN_DTYPE_F32 && norm != NULL; /* no copy is needed */
    if (!is_direct) j->k->widen[qni_cpu_dtype(h->rows.dtype)](out, from, h->head_dim);
    if (norm != NULL) qni_cpu_norm_row(j->k, out, is_direct ? from : out, norm, h->head_dim, j->a->call->eps);
    j->k->rope(out, j->a->call->cos_sin + row * h->head_dim, h->head_dim);
}

static void store_row(const job *j, void *row, qn_dtype dtype, const float *x, int64_t n) {
    if (dtype == QN_DTYPE_Q8) {
        qni_q8_store(row, x, n);
    } else {
        j->k->narrow[qni_cpu_dtype(dtype)](row, x, n);
    }
}

/* Write the new keys and values of a KV head for tokens [first, end) of the batch; `head` is scratch. */
static void write_rows(const job *j, int64_t kv_head, int64_t first, int64_t end, float *head) {
    const qni_cpu_attention *a = j->a;
    const qni_batch *batch = a->call->batch;
    for (int64_t t = first, s = qni_batch_seq(batch, first); t < end; t++) {
        if (t == batch->tok_begin[s + 1]) s++;
        const int32_t *blocks = batch->block_table + s * batch->max_block;
        const int64_t pos = batch->pos_begin[s] + (t - batch->tok_begin[s]);
        load_head(j, head, &a->k, t, kv_head, a->k_norm);
        store_row(j, qni_cpu_k_at(a->kv, blocks, kv_head, pos), a->kv->k_dtype, head, a->k.head_dim);
        j->k->widen[qni_cpu_dtype(a->v.rows.dtype)](head, head_at(&a->v, t, kv_head), a->v.head_dim);
        store_row(j, qni_cpu_v_at(a->kv, blocks, kv_head, pos), a->kv->v_dtype, head, a->v.head_dim);
    }
}

static void write_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const int64_t first = task * j->rows_per_task;
    const int64_t end = qni_min_i64(first + j->rows_per_task, j->a->call->batch->n_tok);
    float *head = j->scratch.per_thread + thread * j->scratch.floats;
    for (int64_t h = 0; h < j->a->k.n_head; h++) write_rows(j, h, first, end, head);
}

/* Reduce the partial softmax of the chunk at pos into that of the chunks before it. */
static void reduce_chunk(const job *j, const work *w, const partial *part, int64_t pos) {
    const int64_t query = qni_max_i64(0, pos - w->t.pos) * j->group; /* the first query that sees any of the chunk */
    const int64_t n = w->t.n_query - query, d = j->d_pad;
    const partial *all = &w->all;
    float *old = w->factor, *new = w->factor + n;
    for (int64_t i = 0; i < n; i++) {
        float both = fmaxf(all->max[query + i], part->max[query + i]);
        old[i] = all->max[query + i] - both;
        new[i] = part->max[query + i] - both;
        all->max[query + i] = both;
    }
    j->k->exp(w->factor, w->factor, 2 * n);
    for (int64_t i = 0; i < n; i++) {
        j->k->attend_reduce(all->o + (query + i) * d, old[i], part->o + (query + i) * d, new[i], d);
        all->sum[query + i] = all->sum[query + i] * old[i] + part->sum[query + i] * new[i];
    }
}

/* The index-th tile from the end: the last tiles of a sequence have the most work, so they go first. */
static work make_work(const job *j, int64_t index, int64_t kv_head, int32_t thread) {
    const qni_batch *batch = j->a->call->batch;
    const int32_t *first = j->scratch.first + (j->n_tile - 1 - index);
    const int64_t s = qni_batch_seq(batch, first[0]);
    work w = {.first = first[0]};
    qni_cpu_tile *t = &w.t;
    *t = (qni_cpu_tile){.k = j->k, .kv = j->a->kv, .kv_head = kv_head, .group = j->group, .d_pad = j->d_pad};
    t->blocks = batch->block_table + s * batch->max_block;
    t->pos = batch->pos_begin[s] + (w.first - batch->tok_begin[s]);
    t->n_row = first[1] - first[0];
    t->n_query = t->n_row * j->group;
    t->in_place = t->n_query <= FEW_QUERIES && j->d_pad == t->kv->head_dim;
    const int64_t n_query = tile_rows(j->group) * j->group;
    float *at = j->scratch.per_thread + thread * j->scratch.floats;
    w.all = partial_at(at, n_query, j->d_pad);
    at += partial_floats(n_query, j->d_pad);
    w.part = partial_at(at, n_query, j->d_pad);
    t->q = at + partial_floats(n_query, j->d_pad);
    t->panels = t->q + n_query * j->d_pad;
    t->block = t->panels + BLOCK * j->d_pad;
    t->p = t->block + BLOCK * (j->d_pad + QNI_CPU_KV_GAP);
    w.factor = t->p + n_query * BLOCK;
    t->scale = w.factor + 2 * n_query;
    return w;
}

static void load_queries(const job *j, work *w) {
    const qni_cpu_attention *a = j->a;
    for (int64_t i = 0; i < w->t.n_query; i++) {
        float *q = w->t.q + i * j->d_pad;
        load_head(j, q, &a->q, w->first + i / j->group, w->t.kv_head * j->group + i % j->group, a->q_norm);
        j->k->scale(q, (float)a->call->scale, a->q.head_dim);
        for (int64_t c = a->q.head_dim; c < j->d_pad; c++) q[c] = 0;
    }
}

/* If tasks write the cache: write the tile's rows with positions in [pos, end) before any of them is read. */
static void write_tile(const job *j, const work *w, int64_t pos, int64_t end) {
    if (!j->writes) return;
    const int64_t before = qni_max_i64(0, pos - w->t.pos), n = qni_min_i64(w->t.n_row, end - w->t.pos);
    write_rows(j, w->t.kv_head, w->first + before, w->first + n, w->t.block);
}

static void store_out(const job *j, const work *w) {
    const qni_cpu_attention *a = j->a;
    for (int64_t i = 0; i < w->t.n_query; i++) {
        float *o = w->all.o + i * j->d_pad;
        j->k->scale(o, 1.0f / w->all.sum[i], a->q.head_dim);
        unsigned char *out = qni_mat_row(&a->out, w->first + i / j->group);
        int64_t element = (w->t.kv_head * j->group + i % j->group) * a->q.head_dim;
        j->k->narrow[qni_cpu_dtype(a->out.dtype)](out + (size_t)element * qn_dtype_bytes(a->out.dtype), o,
                                                  a->q.head_dim);
    }
}

static void attend_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    work w = make_work(j, task / j->a->k.n_head, task % j->a->k.n_head, thread);
    write_tile(j, &w, w.t.pos, w.t.pos + w.t.n_row);
    load_queries(j, &w);
    qni_cpu_attend_chunk(&w.t, &w.all, 0);
    for (int64_t pos = CHUNK; pos < w.t.pos + w.t.n_row; pos += CHUNK) {
        qni_cpu_attend_chunk(&w.t, &w.part, pos);
        reduce_chunk(j, &w, &w.part, pos);
    }
    store_out(j, &w);
}

/* The partial softmax of a chunk, if chunks are tasks: {tile, KV head, chunk}. */
static partial partial_of(const job *j, const work *w, int64_t chunk) {
    int64_t before = w->first * j->group * j->a->k.n_head * j->n_chunk; /* queries x chunks of other tiles */
    int64_t at =
        partial_floats(before, j->d_pad) + (w->t.kv_head * j->n_chunk + chunk) * partial_floats(w->t.n_query, j->d_pad);
    return partial_at(j->scratch.partials + at, w->t.n_query, j->d_pad);
}

static void chunk_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const int64_t chunk = task % j->n_chunk, tile_head = task / j->n_chunk;
    work w = make_work(j, tile_head / j->a->k.n_head, tile_head % j->a->k.n_head, thread);
    if (chunk * CHUNK >= w.t.pos + w.t.n_row) return;
    write_tile(j, &w, chunk * CHUNK, (chunk + 1) * CHUNK);
    load_queries(j, &w);
    partial part = partial_of(j, &w, chunk);
    qni_cpu_attend_chunk(&w.t, &part, chunk * CHUNK);
}

static void reduce_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    work w = make_work(j, task / j->a->k.n_head, task % j->a->k.n_head, thread);
    w.all = partial_of(j, &w, 0);
    for (int64_t pos = CHUNK; pos < w.t.pos + w.t.n_row; pos += CHUNK) {
        partial part = partial_of(j, &w, pos / CHUNK);
        reduce_chunk(j, &w, &part, pos);
    }
    store_out(j, &w);
}

/* Split the tokens into tiles of one sequence each; *whole: each sequence is a single tile. */
static int64_t split_tiles(int32_t *first, bool *whole, const qni_batch *batch, int64_t most) {
    int64_t n = 0;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        for (int64_t t = batch->tok_begin[s]; t < batch->tok_begin[s + 1]; t += most) first[n++] = (int32_t)t;
    }
    first[n] = (int32_t)batch->n_tok;
    *whole = n == batch->n_seq;
    return n;
}

/* Number of chunks covered by the longest sequence. */
static int64_t count_chunks(const qni_batch *batch) {
    int64_t most = 0;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        most = qni_max_i64(most, batch->pos_begin[s] + (batch->tok_begin[s + 1] - batch->tok_begin[s]));
    }
    return qni_ceil_div(most, CHUNK);
}

void qni_cpu_attend(const qni_run *run, const qni_cpu_attention *a, qni_cpu_attention_scratch scratch) {
    qni_cpu *cpu = qni_cpu_of(run);
    const qni_batch *batch = a->call->batch;
    job j = {.k = &cpu->kernels, .a = a, .scratch = scratch, .group = a->q.n_head / a->k.n_head};
    j.d_pad = padded(j.k, a->q.head_dim);
    j.n_tile = split_tiles(scratch.first, &j.writes, batch, tile_rows(j.group));
    j.rows_per_task = qni_max_i64(1, ELEMENTS_PER_TASK / (a->k.n_head * a->k.head_dim));
    if (!j.writes) qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(batch->n_tok, j.rows_per_task), write_task, &j);
    const int32_t n_task = (int32_t)(j.n_tile * a->k.n_head);
    j.n_chunk = count_chunks(batch);
    if (batch->n_tok > rows_to_split(cpu, a) || j.n_chunk == 1) {
        qni_pool_run(cpu->pool, n_task, attend_task, &j);
        return;
    }
    qni_pool_run(cpu->pool, (int32_t)(n_task * j.n_chunk), chunk_task, &j);
    qni_pool_run(cpu->pool, n_task, reduce_task, &j);
}

qn_status qni_cpu_op_kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                                  const qni_kv_layer *kv, const qni_attention_call *call) {
    size_t mark = run->scratch->used;
    qni_cpu_attention a = {.out = out, .q = q, .k = k, .v = v, .kv = kv, .call = call};
    qni_cpu_attention_scratch scratch = qni_cpu_alloc_attention(run, &a);
    if (!qni_scratch_measures(run->scratch)) qni_cpu_attend(run, &a, scratch);
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}
