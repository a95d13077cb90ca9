/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RoPE, cache write and causal grouped-query attention.
 *
 * First all new keys and values are written, then tasks of (tile of consecutive rows of a sequence, KV head) attend: all
 * query heads of the KV head share what is loaded. The cache is read in blocks of QNI_CPU_KV_BLOCK positions counted
 * from 0. For each query a block yields its maximum, its sum and its weighted values on its own, and blocks are merged
 * in order; so a result depends on the query and the cache alone, not on the tile. Rows of the cache beyond a query's
 * own position never enter its result, and those beyond the last query's are not read.
 */
#include "cpu.h"

#include <math.h>
#include <string.h>

enum {
    TILE_QUERIES = 32, /* of a task: their state and a block of K and V lie in the second cache */
    FEW_QUERIES = 4,   /* up to here a block is converted on the way; more queries share a converted one */
    ELEMENTS_A_TASK = 1 << 14,
    BLOCK = QNI_CPU_KV_BLOCK,
};

typedef struct job {
    const qni_cpu_kernels *k;
    const qni_cpu_attention *a;
    qni_cpu_attention_scratch scratch;
    int64_t group; /* query heads of a KV head */
    int64_t d_pad; /* head_dim, padded */
    int64_t n_tile;
    int64_t rows_a_task; /* of the cache write */
} job;

/* State of a task. */
typedef struct tile {
    const qni_kv *kv;
    int64_t first, n_row; /* rows of the call */
    int64_t seq, pos;     /* of the first row */
    int64_t kv_head;
    int64_t n_query;            /* n_row · group, rows outer */
    float *q, *o, *part;        /* {n_query, d_pad} */
    float *p;                   /* {n_query, BLOCK} */
    float *max, *sum;           /* {n_query}, of the blocks so far */
    float *part_max, *part_sum; /* {n_query}, of this block */
    float *factor;              /* {2, n_query}, of merging */
    float *k_block, *v_block;   /* {BLOCK, d_pad} */
} tile;

static int64_t tile_rows(int64_t group) {
    return qni_max_i64(1, TILE_QUERIES / group);
}

static int64_t padded(const qni_cpu_kernels *k, int64_t head_dim) {
    return (head_dim + k->d_align - 1) / k->d_align * k->d_align;
}

qni_cpu_attention_scratch qni_cpu_take_attention(const qni_run *run, const qni_cpu_attention *a) {
    qni_cpu *cpu = qni_cpu_of(run);
    int64_t group = a->q.n_head / a->k.n_head, d_pad = padded(&cpu->kernels, a->q.head_dim);
    int64_t n_query = tile_rows(group) * group;
    qni_cpu_attention_scratch s;
    s.floats = n_query * (3 * d_pad + BLOCK + 6) + 2 * BLOCK * d_pad;
    s.floats = (int64_t)qni_round_up((size_t)s.floats, QNI_ALIGN / sizeof(float));
    s.per_thread = qni_cpu_take_floats(run, cpu->n_thread * s.floats);
    s.first = qni_scratch_take(run->scratch, (size_t)(a->call->rows.n_row + 1) * sizeof *s.first);
    return s;
}

static unsigned char *kv_at(void *const *pages, size_t offset, const qni_kv *kv, qn_dtype dtype, int64_t head_stride,
                            int64_t token_stride, int64_t seq, int64_t head, int64_t pos) {
    unsigned char *page = pages[seq * kv->pages_per_seq + pos / kv->page_tokens];
    int64_t element = head * head_stride + pos % kv->page_tokens * token_stride;
    return page + offset + (size_t)element * qn_dtype_bytes(dtype);
}
static unsigned char *k_at(const qni_kv *kv, int64_t seq, int64_t head, int64_t pos) {
    return kv_at(kv->k_page, kv->k_offset_bytes, kv, kv->k_dtype, kv->k_head_stride, kv->k_token_stride, seq, head,
                 pos);
}
static unsigned char *v_at(const qni_kv *kv, int64_t seq, int64_t head, int64_t pos) {
    return kv_at(kv->v_page, kv->v_offset_bytes, kv, kv->v_dtype, kv->v_head_stride, kv->v_token_stride, seq, head,
                 pos);
}

static const void *head_at(const qni_heads *h, int64_t row, int64_t head) {
    const unsigned char *data = qni_mat_row(&h->rows, row);
    return data + (size_t)(head * h->head_stride) * qn_dtype_bytes(h->rows.dtype);
}

/* A head of a row as f32, normed and turned. */
static void load_head(const job *j, float *out, const qni_heads *h, int64_t row, int64_t head, const float *norm) {
    j->k->widen[qni_cpu_dtype(h->rows.dtype)](out, head_at(h, row, head), h->head_dim);
    if (norm != NULL) qni_cpu_norm_row(j->k, out, out, norm, h->head_dim, j->a->call->eps);
    j->k->rope(out, j->a->call->rope.cos_sin + row * h->head_dim, h->head_dim);
}

static void write_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const qni_cpu_attention *a = j->a;
    const qni_rows *rows = &a->call->rows;
    float *head = j->scratch.per_thread + thread * j->scratch.floats;
    int64_t first = task * j->rows_a_task, end = qni_min_i64(first + j->rows_a_task, rows->n_row);
    for (int64_t r = first; r < end; r++) {
        for (int64_t h = 0; h < a->k.n_head; h++) {
            load_head(j, head, &a->k, r, h, a->k_norm);
            j->k->narrow[qni_cpu_dtype(a->kv->k_dtype)](k_at(a->kv, rows->seq[r], h, rows->pos[r]), head,
                                                        a->k.head_dim);
            j->k->widen[qni_cpu_dtype(a->v.rows.dtype)](head, head_at(&a->v, r, h), a->v.head_dim);
            j->k->narrow[qni_cpu_dtype(a->kv->v_dtype)](v_at(a->kv, rows->seq[r], h, rows->pos[r]), head,
                                                        a->v.head_dim);
        }
    }
}

/* Consecutive positions from pos on that lie in one page, at most n. */
static int64_t run_in_page(const qni_kv *kv, int64_t pos, int64_t n) {
    return qni_min_i64(n, kv->page_tokens - pos % kv->page_tokens);
}

/* Row of K or V at a position; rows that follow in the same page are *stride bytes apart. */
static const unsigned char *row_at(const tile *t, bool is_k, int64_t pos, int64_t *stride) {
    const qni_kv *kv = t->kv;
    int64_t elements = is_k ? kv->k_token_stride : kv->v_token_stride;
    *stride = elements * (int64_t)qn_dtype_bytes(is_k ? kv->k_dtype : kv->v_dtype);
    return is_k ? k_at(kv, t->seq, t->kv_head, pos) : v_at(kv, t->seq, t->kv_head, pos);
}

/* Rows of K or V of [pos, pos + n) as f32 {n, d_pad}. */
static void convert_block(const job *j, const tile *t, bool is_k, float *out, int64_t pos, int64_t n) {
    const int64_t d = t->kv->head_dim;
    const int dtype = qni_cpu_dtype(is_k ? t->kv->k_dtype : t->kv->v_dtype);
    for (int64_t i = 0, step, stride; i < n; i += step) {
        step = run_in_page(t->kv, pos + i, n - i);
        const unsigned char *in = row_at(t, is_k, pos + i, &stride);
        for (int64_t r = 0; r < step; r++, in += stride, out += j->d_pad) {
            j->k->widen[dtype](out, in, d);
            for (int64_t c = d; c < j->d_pad; c++) out[c] = 0;
        }
    }
}

/* Ask for rows of K or V of [pos, pos + n) while others are computed with: the processor does not see by itself that a
 * walk through K goes on in V. Few queries wait for memory, not for arithmetic. */
static void prefetch_block(const tile *t, bool is_k, int64_t pos, int64_t n) {
    const int64_t line = 64;
    const int64_t bytes = t->kv->head_dim * (int64_t)qn_dtype_bytes(is_k ? t->kv->k_dtype : t->kv->v_dtype);
    for (int64_t i = 0, step, stride; i < n; i += step) {
        step = run_in_page(t->kv, pos + i, n - i);
        const unsigned char *in = row_at(t, is_k, pos + i, &stride);
        for (int64_t r = 0; r < step; r++, in += stride) {
            for (int64_t b = 0; b < bytes; b += line) __builtin_prefetch(in + b, 0, 2);
        }
    }
}

/* p = q · K of the block's positions [pos, pos + n). */
static void score_block(const job *j, const tile *t, bool direct, int64_t pos, int64_t n) {
    const qni_kv *kv = t->kv;
    if (!direct) {
        convert_block(j, t, true, t->k_block, pos, n);
        j->k->attend_scores[QNI_CPU_F32](t->p, t->q, t->n_query, t->k_block, j->d_pad, n, j->d_pad);
        return;
    }
    for (int64_t i = 0, step; i < n; i += step) {
        step = run_in_page(kv, pos + i, n - i);
        j->k->attend_scores[qni_cpu_dtype(kv->k_dtype)](
            t->p + i, t->q, t->n_query, k_at(kv, t->seq, t->kv_head, pos + i), kv->k_token_stride, step, j->d_pad);
    }
}

/* part (+)= p · V for queries [query, query + n_query) and positions i0 … i0+n-1 of the block at pos. */
static void value_block(const job *j, const tile *t, bool direct, int64_t pos, int64_t query, int64_t n_query,
                        int64_t i0, int64_t n) {
    const qni_kv *kv = t->kv;
    float *part = t->part + query * j->d_pad;
    const float *p = t->p + query * BLOCK;
    if (!direct) {
        j->k->attend_values[QNI_CPU_F32](part, p + i0, n_query, t->v_block + i0 * j->d_pad, j->d_pad, n, j->d_pad,
                                         i0 > 0);
        return;
    }
    for (int64_t i = i0, step; i < i0 + n; i += step) {
        step = run_in_page(kv, pos + i, i0 + n - i);
        j->k->attend_values[qni_cpu_dtype(kv->v_dtype)](part, p + i, n_query, v_at(kv, t->seq, t->kv_head, pos + i),
                                                        kv->v_token_stride, step, j->d_pad, i > 0);
    }
}

/* Add the block's part of the queries from `query` on to their results. */
static void merge_block(const job *j, const tile *t, int64_t query, bool is_first) {
    const int64_t n = t->n_query - query, d = j->d_pad;
    if (is_first) { /* all queries see it */
        memcpy(t->o, t->part, (size_t)(n * d) * sizeof(float));
        memcpy(t->max, t->part_max, (size_t)n * sizeof(float));
        memcpy(t->sum, t->part_sum, (size_t)n * sizeof(float));
        return;
    }
    float *old = t->factor, *new = t->factor + n;
    for (int64_t i = 0; i < n; i++) {
        float both = fmaxf(t->max[query + i], t->part_max[query + i]);
        old[i] = t->max[query + i] - both;
        new[i] = t->part_max[query + i] - both;
        t->max[query + i] = both;
    }
    j->k->exp(t->factor, t->factor, 2 * n);
    for (int64_t i = 0; i < n; i++) {
        j->k->attend_merge(t->o + (query + i) * d, old[i], t->part + (query + i) * d, new[i], d);
        t->sum[query + i] = t->sum[query + i] * old[i] + t->part_sum[query + i] * new[i];
    }
}

/* Positions pos … pos+n-1 for all queries that see some of them; n_next more follow. */
static void attend_block(const job *j, const tile *t, int64_t pos, int64_t n, int64_t n_next) {
    const bool direct = t->n_query <= FEW_QUERIES && j->d_pad == t->kv->head_dim;
    if (direct) prefetch_block(t, false, pos, n);
    score_block(j, t, direct, pos, n);
    if (direct) prefetch_block(t, true, pos + n, n_next);
    if (!direct) convert_block(j, t, false, t->v_block, pos, n);
    /* Row r sees the first t->pos + r + 1 - pos of them: `row` is the first that sees any, and sees `common`. */
    const int64_t row = qni_max_i64(0, pos - t->pos);
    const int64_t common = qni_min_i64(n, t->pos + row + 1 - pos);
    const int64_t query = row * j->group;
    for (int64_t i = query; i < t->n_query; i++) {
        int64_t n_visible = qni_min_i64(n, t->pos + i / j->group + 1 - pos);
        j->k->attend_softmax(t->p + i * BLOCK, n_visible, &t->part_max[i], &t->part_sum[i]);
    }
    value_block(j, t, direct, pos, query, t->n_query - query, 0, common);
    for (int64_t r = row; r < t->n_row; r++) {
        int64_t n_visible = qni_min_i64(n, t->pos + r + 1 - pos);
        if (n_visible > common) value_block(j, t, direct, pos, r * j->group, j->group, common, n_visible - common);
    }
    merge_block(j, t, query, pos == 0);
}

static tile make_tile(const job *j, int64_t index, int64_t kv_head, int32_t thread) {
    const qni_rows *rows = &j->a->call->rows;
    tile t = {.kv = j->a->kv, .first = j->scratch.first[index], .kv_head = kv_head};
    t.n_row = j->scratch.first[index + 1] - t.first;
    t.seq = rows->seq[t.first];
    t.pos = rows->pos[t.first];
    t.n_query = t.n_row * j->group;
    int64_t n_query = tile_rows(j->group) * j->group;
    float *at = j->scratch.per_thread + thread * j->scratch.floats;
    t.q = at;
    t.o = t.q + n_query * j->d_pad;
    t.part = t.o + n_query * j->d_pad;
    t.k_block = t.part + n_query * j->d_pad;
    t.v_block = t.k_block + BLOCK * j->d_pad;
    t.p = t.v_block + BLOCK * j->d_pad;
    t.max = t.p + n_query * BLOCK;
    t.sum = t.max + n_query;
    t.part_max = t.sum + n_query;
    t.part_sum = t.part_max + n_query;
    t.factor = t.part_sum + n_query;
    return t;
}

static void attend_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const qni_cpu_attention *a = j->a;
    const int64_t head_dim = a->q.head_dim;
    /* The last tiles of a sequence have most to do: they go first. */
    tile t = make_tile(j, j->n_tile - 1 - task / a->k.n_head, task % a->k.n_head, thread);
    for (int64_t i = 0; i < t.n_query; i++) {
        float *q = t.q + i * j->d_pad;
        load_head(j, q, &a->q, t.first + i / j->group, t.kv_head * j->group + i % j->group, a->q_norm);
        j->k->scale(q, (float)a->call->scale, head_dim);
        for (int64_t c = head_dim; c < j->d_pad; c++) q[c] = 0;
    }
    const int64_t end = t.pos + t.n_row;
    for (int64_t pos = 0, n; pos < end; pos += n) {
        n = qni_min_i64(BLOCK, end - pos);
        attend_block(j, &t, pos, n, qni_min_i64(BLOCK, end - pos - n));
    }
    for (int64_t i = 0; i < t.n_query; i++) {
        float *o = t.o + i * j->d_pad;
        j->k->scale(o, 1.0f / t.sum[i], head_dim);
        unsigned char *out = qni_mat_row(&a->out, t.first + i / j->group);
        out += (size_t)((t.kv_head * j->group + i % j->group) * head_dim) * qn_dtype_bytes(a->out.dtype);
        j->k->narrow[qni_cpu_dtype(a->out.dtype)](out, o, head_dim);
    }
}

/* Cut the rows into tiles of one sequence each. */
static int64_t cut_tiles(int32_t *first, const qni_rows *rows, int64_t most) {
    int64_t n = 0;
    for (int64_t r = 0; r < rows->n_row; r++) {
        if (r == 0 || rows->seq[r] != rows->seq[r - 1] || r - first[n - 1] == most) first[n++] = (int32_t)r;
    }
    first[n] = (int32_t)rows->n_row;
    return n;
}

void qni_cpu_attend(const qni_run *run, const qni_cpu_attention *a, qni_cpu_attention_scratch scratch) {
    qni_cpu *cpu = qni_cpu_of(run);
    const qni_rows *rows = &a->call->rows;
    job j = {.k = &cpu->kernels, .a = a, .scratch = scratch, .group = a->q.n_head / a->k.n_head};
    j.d_pad = padded(j.k, a->q.head_dim);
    j.n_tile = cut_tiles(scratch.first, rows, tile_rows(j.group));
    j.rows_a_task = qni_max_i64(1, ELEMENTS_A_TASK / (a->k.n_head * a->k.head_dim));
    qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(rows->n_row, j.rows_a_task), write_task, &j);
    qni_pool_run(cpu->pool, (int32_t)(j.n_tile * a->k.n_head), attend_task, &j);
}

qn_status qni_cpu_op_kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                                  const qni_kv *kv, const qni_attention_call *call) {
    size_t mark = run->scratch->used;
    qni_cpu_attention a = {.out = out, .q = q, .k = k, .v = v, .kv = kv, .call = call};
    qni_cpu_attention_scratch scratch = qni_cpu_take_attention(run, &a);
    if (!qni_scratch_measures(run->scratch)) qni_cpu_attend(run, &a, scratch);
    run->scratch->used = mark;
    return QN_OK;
}
