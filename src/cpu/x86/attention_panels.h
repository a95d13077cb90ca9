/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of many queries with panels of keys, for levels where a load yields one vector. Like attention_tiles.h it uses
 * the names that its includer defines, and additionally add(a, b), a + b.
 *
 * Layout    q {n_q, d}, k panels {d, 2 · WIDE} of keys, f32.
 * Tile      queries x vectors of keys WIDE/2 x 2, one partial sum after another.
 * Tails     d is padded to WIDE, n_k to whole panels; queries in steps of 2, 1.
 */
#ifndef QNI_CPU_ATTENTION_PANELS_H
#define QNI_CPU_ATTENTION_PANELS_H

#include "../attention_tiles.h"

enum { PANEL = 2 * WIDE, PANEL_QUERIES = WIDE / 2 };

/* Pending sums while WIDE of them are added pairwise. */
enum { WAITING = WIDE == 16 ? 4 : 3 };

/* The lane that comes t-th in add_up()'s tree, on all levels that include this: 0 2 1 3 4 6 5 7 … */
static inline int nth_partial(int t) {
    return (t & ~3) | (t & 1) << 1 | (t >> 1 & 1);
}

/*
 * n_q queries with one panel of keys. Lanes are keys, so no horizontal reduction is needed. The WIDE partial sums of a
 * score are formed one at a time, in the order in which add_up() adds them, so that few are pending.
 */
ALWAYS_INLINE void panel_tile(float *s, const float *q, const int n_q, const float *k, int64_t d) {
    vec sum[2 * PANEL_QUERIES], waiting[WAITING][2 * PANEL_QUERIES];
    int n_waiting = 0;
    for (int t = 0; t < WIDE; t++) {
        for (int i = 0; i < 2 * n_q; i++) sum[i] = zero();
        for (int64_t c = nth_partial(t); c < d; c += WIDE) {
            const vec y0 = load_sum(k + c * PANEL), y1 = load_sum(k + c * PANEL + WIDE);
            for (int i = 0; i < n_q; i++) {
                const spread x = spread_of(q + i * d + c);
                sum[2 * i] = add_weighted(sum[2 * i], x, y0);
                sum[2 * i + 1] = add_weighted(sum[2 * i + 1], x, y1);
            }
        }
        for (int pairs = t; pairs % 2 == 1; pairs /= 2) {
            n_waiting--;
            for (int i = 0; i < 2 * n_q; i++) sum[i] = add(waiting[n_waiting][i], sum[i]);
        }
        if (t == WIDE - 1) break;
        for (int i = 0; i < 2 * n_q; i++) waiting[n_waiting][i] = sum[i];
        n_waiting++;
    }
    for (int i = 0; i < n_q; i++) {
        store_sum(s + i * BLOCK, sum[2 * i]);
        store_sum(s + i * BLOCK + WIDE, sum[2 * i + 1]);
    }
}

/* qni_cpu_kernels.attend_panels */
static void panels(float *s, const float *q, int64_t n_q, const float *k, int64_t n_k, int64_t d) {
    for (int64_t j = 0; j < n_k; j += PANEL, k += PANEL * d) {
        int64_t i = 0;
        for (; i + PANEL_QUERIES <= n_q; i += PANEL_QUERIES)
            panel_tile(s + i * BLOCK + j, q + i * d, PANEL_QUERIES, k, d);
        for (; i + 2 <= n_q; i += 2) panel_tile(s + i * BLOCK + j, q + i * d, 2, k, d);
        if (i < n_q) panel_tile(s + i * BLOCK + j, q + i * d, 1, k, d);
    }
}

#endif
