/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top_k and top_p without sorting the vocabulary: find the number at which the weights, added from the greatest number
 * down, reach a target. For top_k each number weighs 1, for top_p its weight is its value.
 *
 * A double is treated as an integer of the same order, its key. The key range that contains the number is divided into
 * buckets. The weights of the buckets are added from the top, and the bucket that reaches the target is the next range.
 * This takes at most 7 rounds, as each resolves 9 of 64 bits, and about two in practice. The remaining keys are sorted.
 *
 * top_p is defined by adding up probabilities, best first, and the rounding of these sums may decide where they end:
 * half of 14 equal candidates is 7 or 8 of them. Buckets add in another order. So their answer is used only if, by an
 * error bound, no summation order could change it. Otherwise, and among few candidates, all that may be above the cut
 * are sorted and added as defined.
 */
#include "../base/cut.h"
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Numbers few enough to sort directly. */
enum { FEW = QNI_CUT(1024, 8) };

typedef struct search {
    qn_sampler *s;
    bool by_count;      /* of logits, by count; otherwise of the candidates' e, by their sum */
    double least;       /* numbers below this are known to be below the result */
    uint64_t low, high; /* the current key range */
    int32_t shift;      /* from a key's distance to `low` to its bucket */
} search;

/* Maps doubles to integers of the same order. */
static uint64_t key_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static double number_of(uint64_t key) {
    const uint64_t bits = key >> 63 ? key & ~((uint64_t)1 << 63) : ~key;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double weight_of(const search *c, uint64_t key) {
    return c->by_count ? 1 : number_of(key);
}

/* Write the keys of the numbers >= `least` to `key`, which has space for n; returns their count. */
static int32_t take(uint64_t *key, const double *x, int32_t n, double least) {
    int32_t n_key = 0;
    for (int32_t i = 0; i < n; i++) {
        key[n_key] = key_of(x[i]);
        n_key += x[i] >= least;
    }
    return n_key;
}

static void set_keys(qni_block *block, const uint64_t *key, int32_t n) {
    uint64_t low = UINT64_MAX, high = 0;
    for (int32_t i = 0; i < n; i++) {
        low = key[i] < low ? key[i] : low;
        high = key[i] > high ? key[i] : high;
    }
    block->n_key = n;
    block->low = low;
    block->high = high;
}

static void take_block(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const search *c = context;
    const qn_sampler *s = c->s;
    const int32_t first = b * QNI_BLOCK_IDS;
    const double *value = s->value + first;
    uint64_t *key = s->key + first;
    int32_t n = 0;
    if (c->by_count) {
        const int32_t n_logit = (int32_t)qni_min_i64(QNI_BLOCK_IDS, s->n_valid - first);
        for (int32_t i = 0; i < n_logit; i += QNI_GROUP_IDS) {
            if (s->greatest[(first + i) / QNI_GROUP_IDS] < c->least) continue;
            n += take(key + n, value + i, (int32_t)qni_min_i64(QNI_GROUP_IDS, n_logit - i), c->least);
        }
    } else {
        n = take(key, value, s->blocks[b].n, c->least);
    }
    set_keys(&s->blocks[b], key, n);
}

static void weigh_block(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const search *c = context;
    qni_block *block = &c->s->blocks[b];
    const uint64_t *key = c->s->key + b * QNI_BLOCK_IDS;
    if (block->n_key == 0) return;
    memset(block->weight, 0, sizeof block->weight);
    for (int32_t i = 0; i < block->n_key; i++) block->weight[(key[i] - c->low) >> c->shift] += weight_of(c, key[i]);
}

/* Drop keys outside the range. */
static void narrow_block(void *context, int32_t b, int32_t thread) {
    (void)thread;
    const search *c = context;
    qni_block *block = &c->s->blocks[b];
    uint64_t *key = c->s->key + b * QNI_BLOCK_IDS;
    int32_t n = 0;
    for (int32_t i = 0; i < block->n_key; i++) {
        const uint64_t k = key[i];
        key[n] = k;
        n += k - c->low <= c->high - c->low;
    }
    set_keys(block, key, n);
}

/* Number of blocks that a search uses. */
static int32_t n_block_of(const search *c) {
    return c->by_count ? c->s->n_block : c->s->n_used;
}

/* Run a task that changes the keys of all blocks; n is the number of values or keys that it processes. Sets the
 * range to the span of the remaining keys and returns their count. */
static int64_t run(search *c, int64_t n, qni_task task) {
    qni_sampler_run(c->s, n_block_of(c), n, task, c);
    n = 0;
    c->low = UINT64_MAX;
    c->high = 0;
    for (int32_t b = 0; b < n_block_of(c); b++) {
        const qni_block *block = &c->s->blocks[b];
        n += block->n_key;
        c->low = block->low < c->low ? block->low : c->low;
        c->high = block->high > c->high ? block->high : c->high;
    }
    return n;
}

static int64_t take_all(search *c) {
    return run(c, c->by_count ? c->s->n_valid : c->s->n_candidate, take_block);
}

/* Narrow the range to the bucket whose weight, added to those `above` it, reaches the target; false if none does. */
static bool choose_bucket(search *c, double *above, double target) {
    double weight[QNI_BLOCK_BUCKETS] = {0};
    for (int32_t b = 0; b < n_block_of(c); b++) {
        const qni_block *block = &c->s->blocks[b];
        if (block->n_key == 0) continue;
        for (int32_t k = 0; k < QNI_BLOCK_BUCKETS; k++) weight[k] += block->weight[k];
    }
    for (int32_t k = (int32_t)((c->high - c->low) >> c->shift); k >= 0; k--) {
        if (*above + weight[k] >= target) {
            const uint64_t width = (uint64_t)1 << c->shift;
            c->low += (uint64_t)k << c->shift;
            if (c->high - c->low >= width) c->high = c->low + (width - 1);
            return true;
        }
        *above += weight[k];
    }
    return false;
}

/* Radix-sort n keys in ascending order; returns the array that holds the result. */
static const uint64_t *sort(uint64_t *key, uint64_t *spare, int32_t n) {
    uint32_t count[8][256] = {{0}};
    for (int32_t i = 0; i < n; i++) {
        for (int32_t d = 0; d < 8; d++) count[d][key[i] >> 8 * d & 255]++;
    }
    for (int32_t d = 0; d < 8 && n > 0; d++) {
        uint32_t *at = count[d];
        if (at[key[0] >> 8 * d & 255] == (uint32_t)n) continue; /* this digit is equal in all keys */
        for (uint32_t i = 0, before = 0; i < 256; i++) {
            const uint32_t here = at[i];
            at[i] = before;
            before += here;
        }
        for (int32_t i = 0; i < n; i++) spare[at[key[i] >> 8 * d & 255]++] = key[i];
        uint64_t *sorted = spare;
        spare = key;
        key = sorted;
    }
    return key;
}

/* All blocks' keys in ascending order, in one array. If all are equal, no sort is needed. */
static const uint64_t *gather(search *c, int32_t *n) {
    const qn_sampler *s = c->s;
    *n = 0;
    for (int32_t b = 0; b < n_block_of(c); b++) {
        memmove(s->key + *n, s->key + b * QNI_BLOCK_IDS, (size_t)s->blocks[b].n_key * sizeof *s->key);
        *n += s->blocks[b].n_key;
    }
    return c->low >= c->high ? s->key : sort(s->key, s->spare, *n);
}

static qni_cut cut_at(const uint64_t *key, int32_t n, int32_t at) {
    qni_cut cut = {number_of(key[at]), 0};
    for (int32_t i = at; i < n && key[i] == key[at]; i++) cut.n_equal++;
    return cut;
}

/* Find where the weights reach the target. False if they do not, or not with certainty: sums may be off by `margin`. */
static bool find(search *c, qni_cut *out, double target, double margin) {
    const double least = fmax(target - margin, DBL_MIN); /* above 0, which an empty bucket would reach */
    double above = 0;
    int64_t n_left = take_all(c);
    while (n_left > FEW && c->low < c->high) {
        const uint64_t range = c->high - c->low;
        for (c->shift = 0; range >> c->shift >= QNI_BLOCK_BUCKETS;) c->shift++;
        qni_sampler_run(c->s, n_block_of(c), n_left, weigh_block, c);
        if (!choose_bucket(c, &above, least)) return false;
        n_left = run(c, n_left, narrow_block);
    }
    int32_t n, at;
    const uint64_t *key = gather(c, &n);
    for (at = n - 1; at >= 0; at--) {
        above += weight_of(c, key[at]);
        if (above >= least) break;
    }
    if (at < 0 || above < target + margin) return false;
    *out = cut_at(key, n, at);
    return true;
}

/* k groups have a logit that is at least the k-th greatest of the group maxima, so no lower logit can be the k-th. */
static double bound_kth(const qn_sampler *s, int32_t k) {
    if (k > s->n_group) return -DBL_MAX;
    const int32_t n = take(s->key, s->greatest, s->n_group, -DBL_MAX);
    return k > n ? -DBL_MAX : number_of(sort(s->key, s->spare, n)[n - k]);
}

double qni_select_kth(qn_sampler *s, int32_t k) {
    search c = {.s = s, .by_count = true, .least = bound_kth(s, k)};
    qni_cut cut;
    return find(&c, &cut, k, 0) ? cut.e : -DBL_MAX;
}

/* As defined: sort all numbers and add probabilities from the greatest down. */
static qni_cut add_in_order(search *c) {
    const double sum = c->s->sum, top_p = c->s->params.top_p;
    take_all(c);
    int32_t n;
    const uint64_t *key = gather(c, &n);
    int32_t at = n;
    double total = 0;
    do {
        total += number_of(key[--at]) / sum;
    } while (at > 0 && total < top_p);
    return cut_at(key, n, at);
}

/*
 * A sum of n nonnegative numbers has a relative error below n 2^-53 in any order, and slightly more if each was divided
 * first: the margin is twice the largest difference between two such sums.
 *
 * Of n candidates, those below (1 - top_p) / 2n have less than (1 - top_p) / 2 in total, so the others reach top_p
 * first. If that exceeds what rounding can change, only the others are considered.
 */
qni_cut qni_select_top_p(qn_sampler *s) {
    const double n = s->n_candidate, rest = (1 - s->params.top_p) / 2, margin = n * 0x1p-51;
    search c = {.s = s, .least = rest > margin ? rest / n * s->sum : 0};
    qni_cut cut;
    if (s->n_candidate > FEW && find(&c, &cut, s->params.top_p * s->sum, margin * s->sum)) return cut;
    return add_in_order(&c);
}
