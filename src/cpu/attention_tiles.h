/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over one block of KV positions, shared by all vector levels. A level's file includes this once, after
 * defining its vectors:
 *
 *     wide, WIDE               a vector or two holding WIDE f32 elements: the result of a load
 *     load(dtype, row, i)      elements i … i + WIDE - 1 of a cache row; dtype is a constant
 *     load_query(q)            WIDE elements of a query, for scores
 *     vec, SUMS                partial sums of a score; number of scores formed at once
 *     zero(), add_products(sum, x, y)    sum + x · y, two at a time where `wide` has twice the lanes of `vec`
 *     add_up(out, sum, n)      out[i] = sum of the lanes of sum[i], reduced by one fixed tree
 *     KEYS                     keys whose rows stay in L1 for all queries
 *     QUERIES                  maximum queries per tile of scores; f32: at most 4, having no conversion to share
 *     VALUE_SUMS               output vectors of type `wide` formed at once
 *     zeros(), load_sum(o), store_sum(o, sum)      WIDE outputs that values are accumulated into
 *     spread, spread_of(p)     *p broadcast to all lanes
 *     add_weighted(sum, p, y)  sum + p · y
 *
 * Tile      scores: queries x keys, at most SUMS of them, over d; values: queries x vectors of d, VALUE_SUMS of them,
 *           one chain over the positions each.
 * Tails     d is padded to WIDE; past the last key that key is repeated and its scores are not stored; queries in steps
 *           of 8, 4, 2, 1; remaining vectors of d one by one.
 */
#ifndef QNI_CPU_ATTENTION_TILES_H
#define QNI_CPU_ATTENTION_TILES_H

#include "kernels.h"

#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { BLOCK = QNI_CPU_KV_BLOCK };

/* Prefetch cursor over the next rows. A core sustains about 20 outstanding misses, and reads from L2 need some of them:
 * so issue a few per iteration, evenly spaced, into L1. */
typedef struct prefetch_cursor {
    const char *at, *end;
} prefetch_cursor;

static inline prefetch_cursor prefetch_begin(const qni_cpu_kv_rows *rows) {
    const char *next = rows->next;
    return (prefetch_cursor){next, next == NULL ? next : next + rows->next_bytes};
}

/* Prefetch the lines that `bytes` bytes fill, at least one. */
static inline void prefetch_next(prefetch_cursor *c, int64_t bytes) {
    for (int64_t i = 0; i < bytes && c->at < c->end; i += 64, c->at += 64) __builtin_prefetch(c->at, 0, 3);
}

static inline int64_t bytes_of(const int dtype) {
    return dtype == QNI_CPU_F32 ? 4 : dtype == QNI_CPU_Q8 ? 1 : 2;
}

/* Scores of n_q queries with one tile of keys, of which n_valid exist. */
ALWAYS_INLINE void score_tile(float *s, const float *q, const int n_q, const int dtype, const char *k, int64_t stride,
                              int64_t n_valid, int64_t d, prefetch_cursor *next) {
    const int n = SUMS / n_q < KEYS ? SUMS / n_q : KEYS;
    const char *key[KEYS];
    vec sum[SUMS];
    for (int j = 0; j < n; j++) key[j] = k + (j < n_valid ? j : n_valid - 1) * stride;
    for (int i = 0; i < n_q * n; i++) sum[i] = zero();
    for (int64_t c = 0; c < d; c += WIDE) {
        wide x[QUERIES];
        prefetch_next(next, n * WIDE * bytes_of(dtype));
        for (int i = 0; i < n_q; i++) x[i] = load_query(q + i * d + c);
        for (int j = 0; j < n; j++) {
            const wide y = load(dtype, key[j], c);
            for (int i = 0; i < n_q; i++) sum[i * n + j] = add_products(sum[i * n + j], x[i], y);
        }
    }
    float all[SUMS];
    add_up(all, sum, n_q * n);
    for (int i = 0; i < n_q; i++) {
        if (n_valid >= n) {
            memcpy(s + i * BLOCK, all + i * n, (size_t)n * sizeof *s);
        } else {
            for (int j = 0; j < n_valid; j++) s[i * BLOCK + j] = all[i * n + j];
        }
    }
}

/* n_q queries with n_k keys, at most KEYS. */
ALWAYS_INLINE void score_keys(float *s, const float *q, const int n_q, const int dtype, const char *k, int64_t stride,
                              int64_t n_k, int64_t d, prefetch_cursor *next) {
    const int n = SUMS / n_q < KEYS ? SUMS / n_q : KEYS;
    for (int64_t j = 0; j < n_k; j += n) score_tile(s + j, q, n_q, dtype, k + j * stride, stride, n_k - j, d, next);
}

/* qni_cpu_kernels.attend_scores[dtype] */
ALWAYS_INLINE void score_rows(float *s, const float *q, int64_t n_q, const int dtype, const qni_cpu_kv_rows *rows,
                              int64_t d) {
    const int64_t stride = rows->stride * bytes_of(dtype);
    const char *k = rows->data;
    prefetch_cursor next = prefetch_begin(rows);
    for (int64_t j = 0; j < rows->n; j += KEYS, s += KEYS, k += KEYS * stride) {
        const int64_t n = rows->n - j < KEYS ? rows->n - j : KEYS;
        int64_t i = 0;
        for (; QUERIES == 8 && dtype != QNI_CPU_F32 && i + 8 <= n_q; i += 8)
            score_keys(s + i * BLOCK, q + i * d, 8, dtype, k, stride, n, d, &next);
        for (; i + 4 <= n_q; i += 4) score_keys(s + i * BLOCK, q + i * d, 4, dtype, k, stride, n, d, &next);
        for (; i + 2 <= n_q; i += 2) score_keys(s + i * BLOCK, q + i * d, 2, dtype, k, stride, n, d, &next);
        if (i < n_q) score_keys(s + i * BLOCK, q + i * d, 1, dtype, k, stride, n, d, &next);
    }
}

/* n_q queries and n vectors of d from column c0 on. */
ALWAYS_INLINE void value_tile(float *o, const float *p, const int n_q, const int n, const int dtype,
                              const qni_cpu_kv_rows *rows, int64_t c0, int64_t d, bool add, prefetch_cursor *next) {
    const int64_t stride = rows->stride * bytes_of(dtype);
    const char *v = (const char *)rows->data + c0 * bytes_of(dtype);
    wide sum[VALUE_SUMS];
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n; c++) sum[i * n + c] = add ? load_sum(o + i * d + c0 + c * WIDE) : zeros();
    for (int64_t j = 0; j < rows->n; j++, v += stride) {
        spread x[4];
        prefetch_next(next, n * WIDE * bytes_of(dtype));
        for (int i = 0; i < n_q; i++) x[i] = spread_of(p + i * BLOCK + j);
        for (int c = 0; c < n; c++) {
            const wide y = load(dtype, v, c * WIDE);
            for (int i = 0; i < n_q; i++) sum[i * n + c] = add_weighted(sum[i * n + c], x[i], y);
        }
    }
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n; c++) store_sum(o + i * d + c0 + c * WIDE, sum[i * n + c]);
}

/* Columns of n vectors from c0 on, which stay in L1 for all queries. */
ALWAYS_INLINE void value_columns(float *o, const float *p, int64_t n_q, const int n, const int dtype,
                                 const qni_cpu_kv_rows *rows, int64_t c0, int64_t d, bool add, prefetch_cursor *next) {
    int64_t i = 0;
    for (; 4 * n <= VALUE_SUMS && i + 4 <= n_q; i += 4)
        value_tile(o + i * d, p + i * BLOCK, 4, n, dtype, rows, c0, d, add, next);
    for (; 2 * n <= VALUE_SUMS && i + 2 <= n_q; i += 2)
        value_tile(o + i * d, p + i * BLOCK, 2, n, dtype, rows, c0, d, add, next);
    for (; i < n_q; i++) value_tile(o + i * d, p + i * BLOCK, 1, n, dtype, rows, c0, d, add, next);
}

/* qni_cpu_kernels.attend_values[dtype] */
ALWAYS_INLINE void value_rows(float *o, const float *p, int64_t n_q, const int dtype, const qni_cpu_kv_rows *v,
                              int64_t d, bool add) {
    enum { FOR_1 = VALUE_SUMS, FOR_2 = VALUE_SUMS / 2, FOR_4 = VALUE_SUMS / 4 };
    int64_t c = 0;
    prefetch_cursor next = prefetch_begin(v);
    for (; n_q == 1 && c + FOR_1 * WIDE <= d; c += FOR_1 * WIDE)
        value_columns(o, p, n_q, FOR_1, dtype, v, c, d, add, &next);
    for (; n_q < 4 && c + FOR_2 * WIDE <= d; c += FOR_2 * WIDE)
        value_columns(o, p, n_q, FOR_2, dtype, v, c, d, add, &next);
    for (; c + FOR_4 * WIDE <= d; c += FOR_4 * WIDE) value_columns(o, p, n_q, FOR_4, dtype, v, c, d, add, &next);
    for (; c < d; c += WIDE) value_columns(o, p, n_q, 1, dtype, v, c, d, add, &next);
}

/* scores_NAME() and values_NAME() with the table's signatures. */
#define DEFINE_ATTEND(name, dtype)                                                                                     \
    static void scores_##name(float *s, const float *q, int64_t n_q, const qni_cpu_kv_rows *k, int64_t d) {            \
        score_rows(s, q, n_q, dtype, k, d);                                                                            \
    }                                                                                                                  \
    static void values_##name(float *o, const float *p, int64_t n_q, const qni_cpu_kv_rows *v, int64_t d, bool add) {  \
        value_rows(o, p, n_q, dtype, v, d, add);                                                                       \
    }

#endif
