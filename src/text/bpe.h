/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair merging: the bytes of a pre-token become tokens, and adjacent tokens merge by rank, leftmost first on ties,
 * until no merge applies. */
#ifndef QNI_BPE_H
#define QNI_BPE_H

#include "vocab.h"

typedef struct qni_merge {
    int32_t left, right; /* left < 0: empty slot */
    uint32_t rank;
} qni_merge;

/* Immutable after loading. */
typedef struct qni_bpe {
    qni_merge *slot; /* open-addressing hash table; the size is a power of two */
    size_t n_slot;
    qni_hash_key key;
    int32_t *merged; /* [n_merge], by rank: the token produced by the merge */
    size_t n_merge;
    int32_t byte_id[256];
} qni_bpe;

/* Workspace for pre-tokens of any length (at most 32 bytes per byte of the longest one), and a cache of recent short
 * ones. */
typedef struct qni_bpe_scratch qni_bpe_scratch;

/* Reserve n merges. Errors: ENOMEM. */
qn_status qni_bpe_init(qni_bpe *bpe, size_t n, qn_error *err);
void qni_bpe_release(qni_bpe *bpe);

/* Add the next merge in rank order. Returns false if this pair already has a rank. */
bool qni_bpe_add(qni_bpe *bpe, int32_t left, int32_t right, int32_t merged);

/* Find the single-byte tokens. Errors: EFORMAT: one is missing. */
qn_status qni_bpe_find_bytes(qni_bpe *bpe, const qni_vocab *vocab, qn_error *err);

qni_bpe_scratch *qni_bpe_scratch_create(void); /* NULL: out of memory */
void qni_bpe_scratch_free(qni_bpe_scratch *scratch);
void qni_bpe_scratch_trim(qni_bpe_scratch *scratch, size_t keep_bytes);

/* Append the ids of a pre-token, size >= 1. Returns false when out of memory. O(n log n). */
bool qni_bpe_encode(const qni_bpe *bpe, qni_bpe_scratch *scratch, qn_ids *ids, const char *pretoken, size_t size);

#endif
