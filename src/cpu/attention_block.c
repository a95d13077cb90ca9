/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of positions for all queries of a tile: scores, softmax, values. Few queries read the cache in place; more
 * share an f32 copy; many also share a copy of K in panels. The order of summation is the same in all cases.
 */
#include "attention_block.h"

#include <math.h>

enum {
    BLOCK = QNI_CPU_KV_BLOCK,
    PANEL_QUERIES = 16, /* from here on, panels of keys pay for building them */
};

/* The block that holds a position. A division by a variable costs as much as a hundred products, so two common sizes
 * avoid it: a pool's block, and a cache that is a single block. */
static int64_t block_of(const qni_kv_layer *kv, int64_t pos) {
    if (kv->block_tokens == BLOCK) return pos / BLOCK;
    return pos < kv->block_tokens ? 0 : pos / kv->block_tokens;
}

unsigned char *qni_cpu_k_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos) {
    const int64_t i = block_of(kv, pos);
    const int64_t element =
        blocks[i] * kv->k_block_stride + head * kv->k_head_stride + (pos - i * kv->block_tokens) * kv->k_token_stride;
    return (unsigned char *)kv->k + (size_t)element * qn_dtype_bytes(kv->k_dtype);
}
unsigned char *qni_cpu_v_at(const qni_kv_layer *kv, const int32_t *blocks, int64_t head, int64_t pos) {
    const int64_t i = block_of(kv, pos);
    const int64_t element =
        blocks[i] * kv->v_block_stride + head * kv->v_head_stride + (pos - i * kv->block_tokens) * kv->v_token_stride;
    return (unsigned char *)kv->v + (size_t)element * qn_dtype_bytes(kv->v_dtype);
}

static qn_dtype dtype_of(const qni_cpu_tile *t, bool is_k) {
    return is_k ? t->kv->k_dtype : t->kv->v_dtype;
}

/* Rows of K or V from pos on within one block of the cache, at most n of them. */
static qni_cpu_kv_rows rows_at(const qni_cpu_tile *t, bool is_k, int64_t pos, int64_t n) {
    const qni_kv_layer *kv = t->kv;
    return (qni_cpu_kv_rows){.data = (is_k ? qni_cpu_k_at : qni_cpu_v_at)(kv, t->blocks, t->kv_head, pos),
                             .stride = is_k ? kv->k_token_stride : kv->v_token_stride,
                             .n = qni_min_i64(n, (block_of(kv, pos) + 1) * kv->block_tokens - pos)};
}

/* The same for a kernel that reads the cache in place: reading K prefetches V of the same positions, reading V
 * prefetches K one block further on. */
static qni_cpu_kv_rows rows_in_place(const qni_cpu_tile *t, bool is_k, int64_t pos, int64_t n) {
    qni_cpu_kv_rows rows = rows_at(t, is_k, pos, n);
    const int64_t next_pos = is_k ? pos : pos + BLOCK;
    if (next_pos < t->pos + t->n_row) {
        const qni_cpu_kv_rows next = rows_at(t, !is_k, next_pos, qni_min_i64(rows.n, t->pos + t->n_row - next_pos));
        rows.next = next.data;
        rows.next_bytes = next.n * next.stride * (int64_t)qn_dtype_bytes(dtype_of(t, !is_k));
    }
    return rows;
}

/* Rows of K or V of [pos, pos + n) as f32. */
static qni_cpu_kv_rows convert_block(const qni_cpu_tile *t, bool is_k, int64_t pos, int64_t n) {
    const int64_t d = t->kv->head_dim;
    const qn_dtype dtype = dtype_of(t, is_k);
    const qni_cpu_kv_rows out = {.data = t->block, .stride = t->d_pad + QNI_CPU_KV_GAP, .n = n};
    float *to = t->block;
    for (int64_t i = 0; i < n;) {
        qni_cpu_kv_rows rows = rows_at(t, is_k, pos + i, n - i);
        const unsigned char *from = rows.data;
        for (int64_t r = 0; r < rows.n; r++, to += out.stride) {
            t->k->widen[qni_cpu_dtype(dtype)](to, from + (size_t)(r * rows.stride) * qn_dtype_bytes(dtype), d);
            for (int64_t c = d; c < t->d_pad; c++) to[c] = 0;
        }
        i += rows.n;
    }
    return out;
}

/* q8 rows are read as codes. For each position, scale p of the queries from `query` on by the row's scale: for K after
 * the product, for V before it. */
static void scale_block(const qni_cpu_tile *t, bool is_k, int64_t pos, int64_t n, int64_t query) {
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
        t->k->scale_mul(p, p, 1, t->scale, n);
    }
}

/* p = q · keys in f32, from rows or, for many queries, from panels. */
static void score_converted(const qni_cpu_tile *t, float *p, const float *q, int64_t n_query,
                            const qni_cpu_kv_rows *keys) {
    const int64_t nr = t->k->nr, d = t->d_pad;
    if (t->k->attend_panels == NULL || n_query < PANEL_QUERIES) {
        t->k->attend_scores[QNI_CPU_F32](p, q, n_query, keys, d);
        return;
    }
    for (int64_t i = 0; i < keys->n; i += nr) {
        const float *from = (const float *)keys->data + i * keys->stride;
        t->k->transpose4((void *)(t->panels + i * d), (const void *)from, keys->stride, qni_min_i64(nr, keys->n - i),
                         d);
    }
    t->k->attend_panels(p, q, n_query, t->panels, qni_ceil_div(keys->n, nr) * nr, d);
}

/* p = q · K at positions [pos, pos + n) for the queries from `query` on. */
static void score_block(const qni_cpu_tile *t, int64_t pos, int64_t n, int64_t query) {
    float *p = t->p + query * BLOCK;
    const float *q = t->q + query * t->d_pad;
    const int64_t n_query = t->n_query - query;
    if (!t->in_place) {
        qni_cpu_kv_rows rows = convert_block(t, true, pos, n);
        score_converted(t, p, q, n_query, &rows);
        return;
    }
    for (int64_t i = 0; i < n;) {
        qni_cpu_kv_rows rows = rows_in_place(t, true, pos + i, n - i);
        t->k->attend_scores[qni_cpu_dtype(t->kv->k_dtype)](p + i, q, n_query, &rows, t->d_pad);
        i += rows.n;
    }
}

/* Positions first … end-1 of the block at pos for queries [query, query + n_query): o (+)= p · V. */
typedef struct span {
    int64_t pos, first, end;
    int64_t query, n_query;
    bool add;
} span;

/* converted: NULL if the cache is read in place. */
static void value_span(const qni_cpu_tile *t, const qni_cpu_partial *to, const qni_cpu_kv_rows *converted, span s) {
    float *o = to->o + s.query * t->d_pad;
    const float *p = t->p + s.query * BLOCK;
    if (converted != NULL) {
        const float *data = converted->data;
        qni_cpu_kv_rows rows = {data + s.first * converted->stride, converted->stride, s.end - s.first, NULL, 0};
        t->k->attend_values[QNI_CPU_F32](o, p + s.first, s.n_query, &rows, t->d_pad, s.add);
        return;
    }
    for (int64_t i = s.first; i < s.end;) {
        qni_cpu_kv_rows rows = rows_in_place(t, false, s.pos + i, s.end - i);
        t->k->attend_values[qni_cpu_dtype(t->kv->v_dtype)](o, p + i, s.n_query, &rows, t->d_pad, s.add || i > s.first);
        i += rows.n;
    }
}

/* Positions pos … pos+n-1, within one block, for all queries that see any of them. */
static void attend_block(const qni_cpu_tile *t, const qni_cpu_partial *to, int64_t pos, int64_t n) {
    /* Row r sees the first t->pos + r + 1 - pos of them. `row` is the first row that sees any; it sees `common`. */
    const int64_t row = qni_max_i64(0, pos - t->pos);
    const int64_t common = qni_min_i64(n, t->pos + row + 1 - pos);
    const int64_t query = row * t->group;
    const bool is_first = pos % QNI_CPU_KV_CHUNK == 0;
    score_block(t, pos, n, query);
    scale_block(t, true, pos, n, query);
    for (int64_t i = query; i < t->n_query; i++) {
        int64_t n_visible = qni_min_i64(n, t->pos + i / t->group + 1 - pos);
        if (is_first) {
            to->max[i] = -INFINITY;
            to->sum[i] = 0;
        }
        float factor = t->k->attend_softmax(t->p + i * BLOCK, n_visible, &to->max[i], &to->sum[i]);
        if (!is_first && factor != 1) t->k->scale(to->o + i * t->d_pad, factor, t->d_pad);
    }
    scale_block(t, false, pos, n, query);
    qni_cpu_kv_rows block, *converted = NULL;
    if (!t->in_place) {
        block = convert_block(t, false, pos, n);
        converted = &block;
    }
    value_span(t, to, converted, (span){pos, 0, common, query, t->n_query - query, !is_first});
    for (int64_t r = row; r < t->n_row; r++) {
        int64_t n_visible = qni_min_i64(n, t->pos + r + 1 - pos);
        if (n_visible > common) {
            value_span(t, to, converted, (span){pos, common, n_visible, r * t->group, t->group, true});
        }
    }
}

void qni_cpu_attend_chunk(const qni_cpu_tile *t, const qni_cpu_partial *to, int64_t pos) {
    const int64_t end = qni_min_i64(pos + QNI_CPU_KV_CHUNK, t->pos + t->n_row);
    for (int64_t n; pos < end; pos += n) {
        n = qni_min_i64(BLOCK, end - pos);
        attend_block(t, to, pos, n);
    }
}
