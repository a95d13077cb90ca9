/* SPDX-License-Identifier: Apache-2.0 */
/* BPE merging: small arrays for words, a heap and a linked list for long pre-tokens, and a cache in front of both. */
#include "bpe.h"

#include "../base/memory.h"
#include "../base/utf8.h"

#include <string.h>

enum {
    SHORT_PRETOKEN = 40,     /* up to this many bytes, a linear scan for the best pair beats a heap */
    CACHE_ENTRIES = 1 << 14, /* a power of two; 1 MiB */
    CACHE_KEY = 22,
    CACHE_IDS = 9,
};
#define NO_RANK UINT32_MAX
#define NO_LINK UINT32_MAX

/* One cache line. */
typedef struct entry {
    uint32_t hash;
    uint8_t size, n; /* size 0: empty entry */
    char key[CACHE_KEY];
    int32_t id[CACHE_IDS];
} entry;

/* A pre-token as a linked list of symbols in text order. A dead symbol has rank NO_RANK and is unlinked. */
typedef struct symbol {
    int32_t id;
    uint32_t previous, next;
    uint32_t rank; /* rank of the pair formed with the next symbol */
} symbol;

struct qni_bpe_scratch {
    entry *cache;
    symbol *symbol;  /* [capacity] */
    uint64_t *heap;  /* [2 * capacity] rank above position; an item is stale if its rank differs from the symbol's */
    size_t capacity; /* bytes of the longest pre-token so far */
    size_t n_heap;
};

qn_status qni_bpe_init(qni_bpe *bpe, size_t n, qn_error *err) {
    size_t n_slot = 256;
    while (n_slot / 2 < n) {
        if (!qni_mul_size(&n_slot, n_slot, 2)) return qni_fail(err, QN_ENOMEM, "merges: out of memory");
    }
    bpe->slot = qni_calloc(n_slot, sizeof *bpe->slot);
    bpe->merged = qni_calloc(n, sizeof *bpe->merged);
    if (bpe->slot == NULL || bpe->merged == NULL) {
        qni_bpe_release(bpe);
        return qni_fail(err, QN_ENOMEM, "merges: no memory for %zu", n);
    }
    bpe->n_slot = n_slot;
    qni_hash_key_make(&bpe->key);
    for (size_t i = 0; i < n_slot; i++) bpe->slot[i].left = -1;
    return QN_OK;
}

void qni_bpe_release(qni_bpe *bpe) {
    qni_free(bpe->slot);
    qni_free(bpe->merged);
    *bpe = (qni_bpe){0};
}

static qni_merge *find(const qni_bpe *bpe, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = qni_hash_word(&bpe->key, pair) & (bpe->n_slot - 1);
    while (bpe->slot[at].left >= 0 && (bpe->slot[at].left != left || bpe->slot[at].right != right)) {
        at = (at + 1) & (bpe->n_slot - 1);
    }
    return &bpe->slot[at];
}

static uint32_t rank_of(const qni_bpe *bpe, int32_t left, int32_t right) {
    const qni_merge *merge = find(bpe, left, right);
    return merge->left < 0 ? NO_RANK : merge->rank;
}

bool qni_bpe_add(qni_bpe *bpe, int32_t left, int32_t right, int32_t merged) {
    qni_merge *merge = find(bpe, left, right);
    if (merge->left >= 0) return false;
    *merge = (qni_merge){left, right, (uint32_t)bpe->n_merge};
    bpe->merged[bpe->n_merge++] = merged;
    return true;
}

qn_status qni_bpe_find_bytes(qni_bpe *bpe, const qni_vocab *vocab, qn_error *err) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4];
        size_t n = qni_utf8_encode(text, qni_byte_symbol((unsigned char)byte));
        bpe->byte_id[byte] = qni_vocab_id(vocab, text, n);
        if (bpe->byte_id[byte] < 0) {
            return qni_fail(err, QN_EFORMAT, "vocab: no token \"%.*s\" for byte 0x%02X", (int)n, text, byte);
        }
    }
    return QN_OK;
}

qni_bpe_scratch *qni_bpe_scratch_create(void) {
    qni_bpe_scratch *scratch = qni_calloc(1, sizeof *scratch);
    if (scratch == NULL) return NULL;
    scratch->cache = qni_calloc(CACHE_ENTRIES, sizeof *scratch->cache);
    if (scratch->cache != NULL) return scratch;
    qni_free(scratch);
    return NULL;
}

void qni_bpe_scratch_free(qni_bpe_scratch *scratch) {
    if (scratch == NULL) return;
    qni_bpe_scratch_trim(scratch, 0);
    qni_free(scratch->cache);
    qni_free(scratch);
}

void qni_bpe_scratch_trim(qni_bpe_scratch *scratch, size_t keep_bytes) {
    if (scratch->capacity * (sizeof *scratch->symbol + 2 * sizeof *scratch->heap) <= keep_bytes) return;
    qni_free(scratch->symbol);
    qni_free(scratch->heap);
    scratch->symbol = NULL;
    scratch->heap = NULL;
    scratch->capacity = 0;
}

/* Merge a short pre-token in place; returns the number of ids. */
static size_t merge_short(const qni_bpe *bpe, int32_t *id, const char *pretoken, size_t n) {
    uint32_t rank[SHORT_PRETOKEN]; /* rank of the pair id[i], id[i+1] */
    for (size_t i = 0; i < n; i++) id[i] = bpe->byte_id[(unsigned char)pretoken[i]];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(bpe, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (rank[i] < rank[best]) best = i;
        }
        if (rank[best] == NO_RANK) break;
        id[best] = bpe->merged[rank[best]];
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        if (best + 1 < n) {
            memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
            rank[best] = rank_of(bpe, id[best], id[best + 1]);
        }
        if (best > 0) rank[best - 1] = rank_of(bpe, id[best - 1], id[best]);
    }
    return n;
}

/* A 4-ary heap: half the levels of a binary heap, and four siblings share one or two cache lines. */
static void heap_push(qni_bpe_scratch *scratch, uint64_t item) {
    size_t at = scratch->n_heap++;
    while (at > 0 && scratch->heap[(at - 1) / 4] > item) {
        scratch->heap[at] = scratch->heap[(at - 1) / 4];
        at = (at - 1) / 4;
    }
    scratch->heap[at] = item;
}

static uint64_t heap_pop(qni_bpe_scratch *scratch) {
    uint64_t *heap = scratch->heap, top = heap[0], item = heap[--scratch->n_heap];
    size_t n = scratch->n_heap, at = 0;
    for (;;) {
        size_t child = 4 * at + 1, last = child + 4 < n ? child + 4 : n;
        if (child >= n) break;
        for (size_t i = child + 1; i < last; i++) {
            if (heap[i] < heap[child]) child = i;
        }
        if (heap[child] >= item) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
    return top;
}

/* Look up the pair that starts at a symbol, and queue it. */
static void queue_pair(const qni_bpe *bpe, qni_bpe_scratch *scratch, uint32_t at) {
    symbol *s = scratch->symbol;
    s[at].rank = s[at].next == NO_LINK ? NO_RANK : rank_of(bpe, s[at].id, s[s[at].next].id);
    if (s[at].rank != NO_RANK) heap_push(scratch, (uint64_t)s[at].rank << 32 | at);
}

/* Reserve exactly enough for a pre-token. The heap starts with at most n items; each of at most n merges pops one and
 * pushes two. */
static bool reserve(qni_bpe_scratch *scratch, size_t n) {
    if (n <= scratch->capacity) return true;
    qni_bpe_scratch_trim(scratch, 0);
    scratch->symbol = qni_realloc(NULL, n, sizeof *scratch->symbol);
    scratch->heap = qni_realloc(NULL, n, 2 * sizeof *scratch->heap);
    scratch->capacity = n;
    if (scratch->symbol != NULL && scratch->heap != NULL) return true;
    qni_bpe_scratch_trim(scratch, 0);
    return false;
}

static bool merge_long(const qni_bpe *bpe, qni_bpe_scratch *scratch, qn_ids *ids, const char *pretoken, size_t n) {
    if (n >= NO_LINK || !reserve(scratch, n)) return false;
    symbol *s = scratch->symbol;
    scratch->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        s[i] =
            (symbol){bpe->byte_id[(unsigned char)pretoken[i]], i > 0 ? i - 1 : NO_LINK, i + 1 < n ? i + 1 : NO_LINK, 0};
    }
    for (uint32_t i = 0; i < n; i++) queue_pair(bpe, scratch, i);
    while (scratch->n_heap > 0) {
        uint64_t item = heap_pop(scratch);
        uint32_t at = (uint32_t)item, rank = (uint32_t)(item >> 32);
        if (s[at].rank != rank) continue;
        uint32_t gone = s[at].next;
        s[at].id = bpe->merged[rank];
        s[at].next = s[gone].next;
        s[gone].rank = NO_RANK;
        if (s[at].next != NO_LINK) s[s[at].next].previous = at;
        queue_pair(bpe, scratch, at);
        if (s[at].previous != NO_LINK) queue_pair(bpe, scratch, s[at].previous);
    }
    for (uint32_t i = 0; i != NO_LINK; i = s[i].next) {
        if (!qni_ids_append(ids, &s[i].id, 1)) return false;
    }
    return true;
}

/* Unkeyed: texts that collide evict each other and are merged each time, as without a cache. */
static uint64_t hash_pretoken(const char *data, size_t size) {
    const uint64_t factor = 0x9E3779B97F4A7C15u;
    uint64_t hash = size * factor;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = (hash ^ word) * factor;
        hash ^= hash >> 29;
    }
    uint64_t word = 0;
    if (size > 0) memcpy(&word, data, size);
    hash = (hash ^ word) * factor;
    hash ^= hash >> 32;
    hash *= factor;
    return hash ^ hash >> 29;
}

bool qni_bpe_encode(const qni_bpe *bpe, qni_bpe_scratch *scratch, qn_ids *ids, const char *pretoken, size_t size) {
    if (size == 1) return qni_ids_append(ids, &bpe->byte_id[(unsigned char)pretoken[0]], 1);
    if (size > SHORT_PRETOKEN) return merge_long(bpe, scratch, ids, pretoken, size);
    int32_t id[SHORT_PRETOKEN];
    if (size > CACHE_KEY) return qni_ids_append(ids, id, merge_short(bpe, id, pretoken, size));
    uint64_t hash = hash_pretoken(pretoken, size);
    entry *e = &scratch->cache[hash & (CACHE_ENTRIES - 1)];
    uint32_t check = (uint32_t)(hash >> 32);
    if (e->size != size || e->hash != check || memcmp(e->key, pretoken, size) != 0) {
        size_t n = merge_short(bpe, id, pretoken, size);
        if (n > CACHE_IDS) return qni_ids_append(ids, id, n);
        *e = (entry){.hash = check, .size = (uint8_t)size, .n = (uint8_t)n};
        memcpy(e->key, pretoken, size);
        memcpy(e->id, id, n * sizeof *id);
    }
    return qni_ids_append(ids, e->id, e->n);
}
