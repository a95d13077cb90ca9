/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top_k and top_p without sorting the vocabulary. Quickselect cuts the numbers down to a head that is certain to hold
 * the answer. Only the head is sorted, best first, and searched as top_k and top_p are defined. The weight of a number
 * is 1 for top_k, and the number itself for top_p.
 *
 * The answer is that of a whole sort, bit for bit: the rounding of top_p's sums may decide where they end, so they are
 * added in the defined order, and the head is long enough whatever the order of the sums that cut it.
 */
#include "../base/cut.h"
#include "sampler.h"

#include <float.h>
#include <string.h>

enum {
    FEW = QNI_CUT(256, 8),      /* numbers that are not worth cutting further */
    MAX_ROUNDS = QNI_CUT(32, 4) /* of quickselect; bad pivots leave a longer head to sort */
};

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

/* Append the keys of numbers that are not below `least`; `key` has room for n. Returns how many they are. */
static int32_t append_keys(uint64_t *key, const double *x, int32_t n, double least) {
    int32_t n_key = 0;
    for (int32_t i = 0; i < n; i++) {
        key[n_key] = key_of(x[i]);
        n_key += x[i] >= least;
    }
    return n_key;
}

/* Move keys above `pivot` to the front; returns how many they are. Without branches, which could not be predicted. */
static int32_t partition(uint64_t *key, int32_t n, uint64_t pivot) {
    int32_t n_above = 0;
    for (int32_t i = 0; i < n; i++) {
        const uint64_t k = key[i];
        key[i] = key[n_above];
        key[n_above] = k;
        n_above += k > pivot;
    }
    return n_above;
}

static uint64_t median(uint64_t a, uint64_t b, uint64_t c) {
    const uint64_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

static double total_weight(const uint64_t *key, int32_t n, bool by_count) {
    if (by_count) return n;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += number_of(key[i]);
    return sum;
}

/* Move a head of greatest keys to the front that weighs `target` or more; returns its length, n if all weigh less. */
static int32_t cut_head(uint64_t *key, int32_t n, bool by_count, double target) {
    int32_t first = 0, end = n; /* the head ends between them; keys before `first` weigh `above` */
    double above = 0;
    for (int32_t round = 0; round < MAX_ROUNDS && end - first > FEW; round++) {
        const uint64_t pivot = median(key[first], key[first + (end - first) / 2], key[end - 1]);
        const int32_t middle = first + partition(key + first, end - first, pivot);
        const double weight = total_weight(key + first, middle - first, by_count);
        if (above + weight >= target) {
            end = middle;
            continue;
        }
        const int32_t n_equal = partition(key + middle, end - middle, pivot - 1);
        above += weight + (by_count ? 1 : number_of(pivot)) * n_equal;
        first = middle + n_equal;
        if (above >= target) return first;
    }
    return end;
}

/* Sort keys in descending order, by radix; returns which of the two arrays has them. */
static const uint64_t *sort_keys(uint64_t *key, uint64_t *spare, int32_t n) {
    uint32_t count[8][256] = {{0}};
    for (int32_t i = 0; i < n; i++) {
        for (int32_t d = 0; d < 8; d++) count[d][key[i] >> 8 * d & 255]++;
    }
    for (int32_t d = 0; d < 8 && n > 0; d++) {
        uint32_t *at = count[d];
        if (at[key[0] >> 8 * d & 255] == (uint32_t)n) continue; /* this digit is the same in all */
        uint32_t before = 0;
        for (int32_t i = 255; i >= 0; i--) {
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

/* The k-th greatest of n keys in s->key; -DBL_MAX if there are fewer. */
static double kth_of(const qn_sampler *s, int32_t n, int32_t k) {
    if (k > n) return -DBL_MAX;
    return number_of(sort_keys(s->key, s->spare, cut_head(s->key, n, true, k))[k - 1]);
}

/* k groups have a logit that reaches the k-th greatest of their greatest ones, so no lower one can be the k-th. */
double qni_select_kth(const qn_sampler *s, int32_t k) {
    const double least = kth_of(s, append_keys(s->key, s->greatest, s->n_group, -DBL_MAX), k);
    int32_t n = 0;
    for (int32_t g = 0; g < s->n_group; g++) {
        const int32_t first = g * QNI_GROUP_IDS;
        if (s->greatest[g] < least) continue;
        n += append_keys(s->key + n, s->value + first, (int32_t)qni_min_i64(QNI_GROUP_IDS, s->n_valid - first), least);
    }
    return kth_of(s, n, k);
}

/*
 * A sum of n nonnegative numbers has a relative error below n 2^-53 in any order, and slightly more if each was divided
 * first: the margin is twice the largest difference between two such sums.
 *
 * Of n candidates, those below (1 - top_p) / 2n have less than (1 - top_p) / 2 in total, so the others reach top_p
 * first. If that exceeds what rounding can change, only the others are considered.
 */
qni_cut qni_select_top_p(const qn_sampler *s) {
    const double top_p = s->params.top_p, n = s->n_candidate, rest = (1 - top_p) / 2, margin = n * 0x1p-51;
    const double least = rest > margin ? rest / n * s->sum : 0;
    int32_t n_key = 0;
    for (int32_t b = 0; b < s->n_used; b++) {
        n_key += append_keys(s->key + n_key, s->value + b * QNI_BLOCK_IDS, s->blocks[b].n, least);
    }
    n_key = cut_head(s->key, n_key, false, (top_p + margin) * s->sum);
    const uint64_t *key = sort_keys(s->key, s->spare, n_key);
    int32_t at = 0;
    double total = number_of(key[0]) / s->sum;
    while (total < top_p && at + 1 < n_key) total += number_of(key[++at]) / s->sum;
    qni_cut cut = {number_of(key[at]), 1};
    while (cut.n_equal <= at && key[at - cut.n_equal] == key[at]) cut.n_equal++;
    return cut;
}
