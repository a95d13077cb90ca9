/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RoPE, cache write and causal grouped-query attention.
 *
 * Tasks of (tile of consecutive rows of a sequence, KV head) attend: all query heads of the KV head share what is loaded.
 * A task that alone reads the new keys and values of its rows writes them first; where a sequence has several tiles, all
 * are written in a loop before. The cache is read in blocks of QNI_CPU_KV_BLOCK positions and chunks of CHUNK, both counted
 * from 0. For each query a chunk yields its maximum, its sum and its weighted values on its own, block by block, and
 * chunks are merged in order; so a result depends on the query and the cache alone, not on the tile, and chunks can be
 * tasks of their own where there are too few for the threads. Rows of the cache beyond a query's own position never enter
 * its result, and those beyond the last query's are not read.
 */
#include "cpu.h"

#include <math.h>
#include <string.h>

enum {
    TILE_QUERIES = 64, /* of a task: their state and a block of K or V lie in the second cache */
    TILE_ROWS = 32,    /* each sees half of them in vain */
    FEW_QUERIES = 8,   /* up to here a block is converted on the way; more queries share a converted one */
    TASKS_A_THREAD = 4,
    ELEMENTS_A_TASK = 1 << 14,
    BLOCK = QNI_CPU_KV_BLOCK,
    CHUNK = 8 * BLOCK,
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
    const qni_kv *kv;
    int64_t first, n_row; /* rows of the call */
    int64_t seq, pos;     /* of the first row */
    int64_t kv_head;
    int64_t n_query; /* n_row · group, rows outer */
    state all, part; /* of all chunks, and of one */
    float *q;        /* {n_query, d_pad} */
    float *p;        /* {n_query, BLOCK} */
    float *factor;   /* {2, n_query}, of merging */
    float *scale;    /* {BLOCK}, of rows of q8 */
    float *block;    /* {BLOCK, d_pad + ROW_GAP} of K or V */
    bool direct;     /* read the cache as it lies */
    float q_factor;  /* of queries whose keys are read in pairs, or would be if they were smaller */
} tile;

static int64_t tile_rows(int64_t group) {
    return qni_max_i64(1, qni_min_i64(TILE_ROWS, TILE_QUERIES / group));
}

static int64_t padded(const qni_cpu_kernels *k, int64_t head_dim) {
    return (head_dim + k->d_align - 1) / k->d_align * k->d_align;
}

/* Maximum and sum take as much as a line of the cache: what lies behind begins with one, and vectors of values do. */
static int64_t state_floats(int64_t n_query, int64_t d_pad) {
    return n_query * (d_pad + QNI_ALIGN / (int64_t)sizeof(float));
}

static state state_at(float *at, int64_t n_query, int64_t d_pad) {
    return (state){at, at + n_query * d_pad, at + n_query * (d_pad + 1)};
}

/* Rows of a call, at most, where chunks are tasks. */
static int64_t rows_to_split(const qni_cpu *cpu, const qni_cpu_attention *a) {
    return (TASKS_A_THREAD * (int64_t)cpu->n_thread - 1) / a->k.n_head;
}

qni_cpu_attention_scratch qni_cpu_take_attention(const qni_run *run, const qni_cpu_attention *a) {
    qni_cpu *cpu = qni_cpu_of(run);
    int64_t group = a->q.n_head / a->k.n_head, d_pad = padded(&cpu->kernels, a->q.head_dim);
    int64_t n_query = tile_rows(group) * group;
    qni_cpu_attention_scratch s;
    s.floats = 2 * state_floats(n_query, d_pad) + n_query * (d_pad + BLOCK + 2) + BLOCK * (d_pad + ROW_GAP + 1);
    s.floats = (int64_t)qni_round_up((size_t)s.floats, QNI_ALIGN / sizeof(float));
    s.per_thread = qni_cpu_take_floats(run, cpu->n_thread * s.floats);
    s.first = qni_scratch_take(run->scratch, (size_t)(a->call->rows.n_row + 1) * sizeof *s.first);
    /* As much as any smaller call needs: what was reserved for many rows is enough for few. */
    int64_t n_row = qni_min_i64(a->call->rows.n_row, rows_to_split(cpu, a));
    int64_t n_chunk = qni_ceil_div(a->kv->pages_per_seq * a->kv->page_tokens, CHUNK);
    s.parts = qni_scratch_array(run->scratch, n_row * a->k.n_head * n_chunk, state_floats(group, d_pad), sizeof(float));
    return s;
}

/* Of a position. A division takes as long as some hundred products, and a session has one page a sequence. */
static int64_t page_of(const qni_kv *kv, int64_t pos) {
    return kv->pages_per_seq == 1 ? 0 : pos / kv->page_tokens;
}

static unsigned char *kv_at(void *const *pages, size_t offset, const qni_kv *kv, qn_dtype dtype, int64_t head_stride,
                            int64_t token_stride, int64_t seq, int64_t head, int64_t pos) {
    const int64_t page = page_of(kv, pos);
    int64_t element = head * head_stride + (pos - page * kv->page_tokens) * token_stride;
    return (unsigned char *)pages[seq * kv->pages_per_seq + page] + offset + (size_t)element * qn_dtype_bytes(dtype);
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

/* Whether keys or values of this dtype are read in pairs (kernels.h): if somebody knows that there are only numbers, else
 * looking for them costs what it saves. Where K is, a converted copy is in the same order. */
static bool in_pairs(const job *j, qn_dtype dtype) {
    return dtype == QN_DTYPE_F16 && j->k->pairs.scores != NULL && j->a->kv->wild != NULL &&
           j->a->kv->head_dim % QNI_CPU_PAIRS_ALIGN == 0;
}

/* What is about to be written: tell it if it must not be read in pairs, because an f16 cannot hold it. */
static void inspect_row(const job *j, qn_dtype dtype, const float *x, int64_t n) {
    if (!in_pairs(j, dtype)) return;
    bool fits = true;
    for (int64_t i = 0; i < n; i++) fits &= fabsf(x[i]) < 65520.0f; /* from there on, the nearest is infinity */
    if (!fits) atomic_store(j->a->kv->wild, true);
}

static void store_row(const job *j, void *row, qn_dtype dtype, const float *x, int64_t n) {
    if (dtype == QN_DTYPE_Q8) {
        qni_q8_store(row, x, n);
    } else {
        j->k->narrow[qni_cpu_dtype(dtype)](row, x, n);
    }
    inspect_row(j, dtype, x, n);
}

/* The new keys and values of a KV head, of rows [first, end) of the call; `head` is scratch. */
static void write_rows(const job *j, int64_t kv_head, int64_t first, int64_t end, float *head) {
    const qni_cpu_attention *a = j->a;
    const qni_rows *rows = &a->call->rows;
    for (int64_t r = first; r < end; r++) {
        load_head(j, head, &a->k, r, kv_head, a->k_norm);
        store_row(j, k_at(a->kv, rows->seq[r], kv_head, rows->pos[r]), a->kv->k_dtype, head, a->k.head_dim);
        j->k->widen[qni_cpu_dtype(a->v.rows.dtype)](head, head_at(&a->v, r, kv_head), a->v.head_dim);
        store_row(j, v_at(a->kv, rows->seq[r], kv_head, rows->pos[r]), a->kv->v_dtype, head, a->v.head_dim);
    }
}

static void write_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const int64_t first = task * j->rows_a_task;
    const int64_t end = qni_min_i64(first + j->rows_a_task, j->a->call->rows.n_row);
    float *head = j->scratch.per_thread + thread * j->scratch.floats;
    for (int64_t h = 0; h < j->a->k.n_head; h++) write_rows(j, h, first, end, head);
}

/* Consecutive positions from pos on that lie in one page, at most n. */
static int64_t run_in_page(const qni_kv *kv, int64_t pos, int64_t n) {
    return qni_min_i64(n, (page_of(kv, pos) + 1) * kv->page_tokens - pos);
}

static qn_dtype dtype_of(const tile *t, bool is_k) {
    return is_k ? t->kv->k_dtype : t->kv->v_dtype;
}

/* The rows of K or V from pos on that lie in one page, at most n of them. */
static qni_cpu_kv_rows rows_at(const tile *t, bool is_k, int64_t pos, int64_t n) {
    const qni_kv *kv = t->kv;
    return (qni_cpu_kv_rows){.data = (is_k ? k_at : v_at)(kv, t->seq, t->kv_head, pos),
                             .stride = is_k ? kv->k_token_stride : kv->v_token_stride,
                             .n = run_in_page(kv, pos, n)};
}

/* The same, for a kernel that reads the cache itself: V of the same positions is asked for while K is read, K of a block
 * further on while V is. */
static qni_cpu_kv_rows direct_rows(const tile *t, bool is_k, int64_t pos, int64_t n) {
    qni_cpu_kv_rows rows = rows_at(t, is_k, pos, n);
    const int64_t ahead = is_k ? pos : pos + BLOCK;
    if (ahead < t->pos + t->n_row) {
        const qni_cpu_kv_rows next = rows_at(t, !is_k, ahead, qni_min_i64(rows.n, t->pos + t->n_row - ahead));
        rows.next = next.data;
        rows.next_bytes = next.n * next.stride * (int64_t)qn_dtype_bytes(dtype_of(t, !is_k));
    }
    return rows;
}

/* Rows of K or V of [pos, pos + n) as f32. */
static qni_cpu_kv_rows convert_block(const job *j, const tile *t, bool is_k, int64_t pos, int64_t n) {
    const int64_t d = t->kv->head_dim;
    const qn_dtype dtype = dtype_of(t, is_k);
    const qni_cpu_kv_rows out = {.data = t->block, .stride = j->d_pad + ROW_GAP, .n = n};
    float *to = t->block;
    for (int64_t i = 0; i < n;) {
        qni_cpu_kv_rows rows = rows_at(t, is_k, pos + i, n - i);
        const unsigned char *from = rows.data;
        for (int64_t r = 0; r < rows.n; r++, to += out.stride) {
            j->k->widen[qni_cpu_dtype(dtype)](to, from + (size_t)(r * rows.stride) * qn_dtype_bytes(dtype), d);
            for (int64_t c = d; c < j->d_pad; c++) to[c] = 0;
            if (is_k && in_pairs(j, dtype)) j->k->pairs.order(to, 1 / t->q_factor, j->d_pad);
        }
        i += rows.n;
    }
    return out;
}

/* Rows of q8 are read as codes: each position's p of the queries from `query` on takes the scale of its row, that of K
 * after the product, that of V before it. */
static void scale_block(const job *j, const tile *t, bool is_k, int64_t pos, int64_t n, int64_t query) {
    if (dtype_of(t, is_k) != QN_DTYPE_Q8) return;
    for (int64_t i = 0; i < n;) {
        qni_cpu_kv_rows rows = rows_at(t, is_k, pos + i, n - i);
        const unsigned char *row = rows.data;
        for (const int64_t end = i + rows.n; i < end; i++, row += rows.stride) {
            t->scale[i] = qni_q8_scale(row, t->kv->head_dim);
        }
    }
    for (; query < t->n_query; query++) {
        float *p = t->p + query * BLOCK;
        j->k->scale_mul(p, p, 1, t->scale, n);
    }
}

/* Whether rows of K or V of [pos, pos + n) are read as they lie. */
static bool reads_cache(const job *j, const tile *t, bool is_k, int64_t pos, int64_t n) {
    const qni_kv *kv = t->kv;
    if (!t->direct || !in_pairs(j, dtype_of(t, is_k))) return t->direct;
    if (is_k && t->q_factor == 1) return false;
    if (kv->finite && !atomic_load(kv->wild)) return true;
    for (int64_t i = 0; i < n;) {
        const qni_cpu_kv_rows rows = rows_at(t, is_k, pos + i, n - i);
        if (!j->k->pairs.finite(&rows, kv->head_dim)) return false;
        i += rows.n;
    }
    return true;
}

/* p = q · K of the positions [pos, pos + n) for the queries from `query` on. */
static void score_block(const job *j, const tile *t, int64_t pos, int64_t n, int64_t query) {
    float *p = t->p + query * BLOCK;
    const float *q = t->q + query * j->d_pad;
    const int64_t n_query = t->n_query - query;
    if (!reads_cache(j, t, true, pos, n)) {
        qni_cpu_kv_rows rows = convert_block(j, t, true, pos, n);
        j->k->attend_scores[QNI_CPU_F32](p, q, n_query, &rows, j->d_pad);
        return;
    }
    for (int64_t i = 0; i < n;) {
        qni_cpu_kv_rows rows = direct_rows(t, true, pos + i, n - i);
        (in_pairs(j, t->kv->k_dtype) ? j->k->pairs.scores : j->k->attend_scores[qni_cpu_dtype(t->kv->k_dtype)])(
            p + i, q, n_query, &rows, j->d_pad);
        i += rows.n;
    }
}

/* Positions first … end-1 of the block at pos for queries [query, query + n_query): o (+)= p · V. */
typedef struct span {
    int64_t pos, first, end;
    int64_t query, n_query;
    bool add;
} span;

/* converted: NULL where the cache is read as it lies. */
static void value_span(const job *j, const tile *t, const state *to, const qni_cpu_kv_rows *converted, span s) {
    float *o = to->o + s.query * j->d_pad;
    const float *p = t->p + s.query * BLOCK;
    if (converted != NULL) {
        const float *data = converted->data;
        qni_cpu_kv_rows rows = {data + s.first * converted->stride, converted->stride, s.end - s.first, NULL, 0};
        j->k->attend_values[QNI_CPU_F32](o, p + s.first, s.n_query, &rows, j->d_pad, s.add);
        return;
    }
    for (int64_t i = s.first; i < s.end;) {
        qni_cpu_kv_rows rows = direct_rows(t, false, s.pos + i, s.end - i);
        (in_pairs(j, t->kv->v_dtype) ? j->k->pairs.values : j->k->attend_values[qni_cpu_dtype(t->kv->v_dtype)])(
            o, p + i, s.n_query, &rows, j->d_pad, s.add || i > s.first);
        i += rows.n;
    }
}

/* Positions pos … pos+n-1, of one block, for all queries that see some of them. */
static void attend_block(const job *j, const tile *t, const state *to, int64_t pos, int64_t n) {
    /* Row r sees the first t->pos + r + 1 - pos of them: `row` is the first that sees any, and sees `common`. */
    const int64_t row = qni_max_i64(0, pos - t->pos);
    const int64_t common = qni_min_i64(n, t->pos + row + 1 - pos);
    const int64_t query = row * j->group;
    const bool is_first = pos % CHUNK == 0;
    score_block(j, t, pos, n, query);
    scale_block(j, t, true, pos, n, query);
    for (int64_t i = query; i < t->n_query; i++) {
        int64_t n_visible = qni_min_i64(n, t->pos + i / j->group + 1 - pos);
        if (is_first) {
            to->max[i] = -INFINITY;
            to->sum[i] = 0;
        }
        float factor = j->k->attend_softmax(t->p + i * BLOCK, n_visible, &to->max[i], &to->sum[i]);
        if (!is_first && factor != 1) j->k->scale(to->o + i * j->d_pad, factor, j->d_pad);
    }
    scale_block(j, t, false, pos, n, query);
    qni_cpu_kv_rows block, *converted = NULL;
    if (!reads_cache(j, t, false, pos, n)) {
        block = convert_block(j, t, false, pos, n);
        converted = &block;
    } else if (in_pairs(j, t->kv->v_dtype)) {
        for (int64_t i = query; i < t->n_query; i++) j->k->scale(t->p + i * BLOCK, QNI_CPU_PAIRS_FACTOR, n);
    }
    value_span(j, t, to, converted, (span){pos, 0, common, query, t->n_query - query, !is_first});
    for (int64_t r = row; r < t->n_row; r++) {
        int64_t n_visible = qni_min_i64(n, t->pos + r + 1 - pos);
        if (n_visible > common) {
            value_span(j, t, to, converted, (span){pos, common, n_visible, r * j->group, j->group, true});
        }
    }
}

static void attend_chunk(const job *j, const tile *t, const state *to, int64_t pos) {
    const int64_t end = qni_min_i64(pos + CHUNK, t->pos + t->n_row);
    for (int64_t n; pos < end; pos += n) {
        n = qni_min_i64(BLOCK, end - pos);
        attend_block(j, t, to, pos, n);
    }
}

/* Add what the chunk at pos yields to what the chunks before it do. */
static void merge_chunk(const job *j, const tile *t, const state *part, int64_t pos) {
    const int64_t query = qni_max_i64(0, pos - t->pos) * j->group; /* the first that sees any of it */
    const int64_t n = t->n_query - query, d = j->d_pad;
    const state *all = &t->all;
    float *old = t->factor, *new = t->factor + n;
    for (int64_t i = 0; i < n; i++) {
        float both = fmaxf(all->max[query + i], part->max[query + i]);
        old[i] = all->max[query + i] - both;
        new[i] = part->max[query + i] - both;
        all->max[query + i] = both;
    }
    j->k->exp(t->factor, t->factor, 2 * n);
    for (int64_t i = 0; i < n; i++) {
        j->k->attend_merge(all->o + (query + i) * d, old[i], part->o + (query + i) * d, new[i], d);
        all->sum[query + i] = all->sum[query + i] * old[i] + part->sum[query + i] * new[i];
    }
}

/* The index-th tile from the end: the last tiles of a sequence have most to do, they go first. */
static tile make_tile(const job *j, int64_t index, int64_t kv_head, int32_t thread) {
    const qni_rows *rows = &j->a->call->rows;
    const int32_t *first = j->scratch.first + (j->n_tile - 1 - index);
    tile t = {.kv = j->a->kv, .first = first[0], .n_row = first[1] - first[0], .kv_head = kv_head};
    t.seq = rows->seq[t.first];
    t.pos = rows->pos[t.first];
    t.n_query = t.n_row * j->group;
    t.direct = t.n_query <= FEW_QUERIES && j->d_pad == t.kv->head_dim;
    const int64_t n_query = tile_rows(j->group) * j->group;
    float *at = j->scratch.per_thread + thread * j->scratch.floats;
    t.all = state_at(at, n_query, j->d_pad);
    at += state_floats(n_query, j->d_pad);
    t.part = state_at(at, n_query, j->d_pad);
    t.q = at + state_floats(n_query, j->d_pad);
    t.block = t.q + n_query * j->d_pad;
    t.p = t.block + BLOCK * (j->d_pad + ROW_GAP);
    t.factor = t.p + n_query * BLOCK;
    t.scale = t.factor + 2 * n_query;
    return t;
}

/* Queries in the order of their keys; with the factor of pairs where they can bear it. */
static void order_queries(const job *j, tile *t) {
    bool small = true;
    for (int64_t i = 0; i < t->n_query * j->d_pad; i++) small &= fabsf(t->q[i]) < QNI_CPU_PAIRS_LIMIT;
    t->q_factor = small && t->direct ? QNI_CPU_PAIRS_FACTOR : 1;
    for (int64_t i = 0; i < t->n_query; i++) j->k->pairs.order(t->q + i * j->d_pad, t->q_factor, j->d_pad);
}

static void load_queries(const job *j, tile *t) {
    const qni_cpu_attention *a = j->a;
    for (int64_t i = 0; i < t->n_query; i++) {
        float *q = t->q + i * j->d_pad;
        load_head(j, q, &a->q, t->first + i / j->group, t->kv_head * j->group + i % j->group, a->q_norm);
        j->k->scale(q, (float)a->call->scale, a->q.head_dim);
        for (int64_t c = a->q.head_dim; c < j->d_pad; c++) q[c] = 0;
    }
    if (in_pairs(j, a->kv->k_dtype)) order_queries(j, t);
}

/* The rows of a tile whose positions lie in [pos, end), where tasks write: before they read any of them. */
static void write_tile(const job *j, const tile *t, int64_t pos, int64_t end) {
    if (!j->writes) return;
    const int64_t before = qni_max_i64(0, pos - t->pos), n = qni_min_i64(t->n_row, end - t->pos);
    write_rows(j, t->kv_head, t->first + before, t->first + n, t->block);
}

static void store_out(const job *j, const tile *t) {
    const qni_cpu_attention *a = j->a;
    for (int64_t i = 0; i < t->n_query; i++) {
        float *o = t->all.o + i * j->d_pad;
        j->k->scale(o, 1.0f / t->all.sum[i], a->q.head_dim);
        unsigned char *out = qni_mat_row(&a->out, t->first + i / j->group);
        int64_t element = (t->kv_head * j->group + i % j->group) * a->q.head_dim;
        j->k->narrow[qni_cpu_dtype(a->out.dtype)](out + (size_t)element * qn_dtype_bytes(a->out.dtype), o,
                                                  a->q.head_dim);
    }
}

static void attend_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    tile t = make_tile(j, task / j->a->k.n_head, task % j->a->k.n_head, thread);
    write_tile(j, &t, t.pos, t.pos + t.n_row);
    load_queries(j, &t);
    attend_chunk(j, &t, &t.all, 0);
    for (int64_t pos = CHUNK; pos < t.pos + t.n_row; pos += CHUNK) {
        attend_chunk(j, &t, &t.part, pos);
        merge_chunk(j, &t, &t.part, pos);
    }
    store_out(j, &t);
}

/* What a chunk yields, where chunks are tasks: {tile, KV head, chunk}. */
static state part_of(const job *j, const tile *t, int64_t chunk) {
    int64_t before = t->first * j->group * j->a->k.n_head * j->n_chunk; /* queries and chunks of other tiles */
    int64_t at =
        state_floats(before, j->d_pad) + (t->kv_head * j->n_chunk + chunk) * state_floats(t->n_query, j->d_pad);
    return state_at(j->scratch.parts + at, t->n_query, j->d_pad);
}

static void chunk_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const int64_t chunk = task % j->n_chunk, tile_head = task / j->n_chunk;
    tile t = make_tile(j, tile_head / j->a->k.n_head, tile_head % j->a->k.n_head, thread);
    if (chunk * CHUNK >= t.pos + t.n_row) return;
    write_tile(j, &t, chunk * CHUNK, (chunk + 1) * CHUNK);
    load_queries(j, &t);
    state part = part_of(j, &t, chunk);
    attend_chunk(j, &t, &part, chunk * CHUNK);
}

static void merge_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    tile t = make_tile(j, task / j->a->k.n_head, task % j->a->k.n_head, thread);
    t.all = part_of(j, &t, 0);
    for (int64_t pos = CHUNK; pos < t.pos + t.n_row; pos += CHUNK) {
        state part = part_of(j, &t, pos / CHUNK);
        merge_chunk(j, &t, &part, pos);
    }
    store_out(j, &t);
}

/* Cut the rows into tiles of one sequence each; *whole: each sequence is one tile. */
static int64_t cut_tiles(int32_t *first, bool *whole, const qni_rows *rows, int64_t most) {
    int64_t n = 0;
    *whole = true;
    for (int64_t r = 0; r < rows->n_row; r++) {
        const bool begins = r == 0 || rows->seq[r] != rows->seq[r - 1];
        if (!begins && r - first[n - 1] < most) continue;
        *whole = *whole && begins;
        first[n++] = (int32_t)r;
    }
    first[n] = (int32_t)rows->n_row;
    return n;
}

void qni_cpu_attend(const qni_run *run, const qni_cpu_attention *a, qni_cpu_attention_scratch scratch) {
    qni_cpu *cpu = qni_cpu_of(run);
    const qni_rows *rows = &a->call->rows;
    job j = {.k = &cpu->kernels, .a = a, .scratch = scratch, .group = a->q.n_head / a->k.n_head};
    j.d_pad = padded(j.k, a->q.head_dim);
    j.n_tile = cut_tiles(scratch.first, &j.writes, rows, tile_rows(j.group));
    j.rows_a_task = qni_max_i64(1, ELEMENTS_A_TASK / (a->k.n_head * a->k.head_dim));
    if (!j.writes) qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(rows->n_row, j.rows_a_task), write_task, &j);
    const int32_t n_task = (int32_t)(j.n_tile * a->k.n_head);
    for (int64_t r = 0; r < rows->n_row; r++) j.n_chunk = qni_max_i64(j.n_chunk, rows->pos[r] / CHUNK + 1);
    if (rows->n_row > rows_to_split(cpu, a) || j.n_chunk == 1) {
        qni_pool_run(cpu->pool, n_task, attend_task, &j);
        return;
    }
    qni_pool_run(cpu->pool, (int32_t)(n_task * j.n_chunk), chunk_task, &j);
    qni_pool_run(cpu->pool, n_task, merge_task, &j);
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
