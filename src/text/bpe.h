/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair merging: a piece's bytes become tokens, and neighbors merge by rank, the leftmost first, until none can. */
#ifndef QNI_BPE_H
#define QNI_BPE_H

#include "vocab.h"

typedef struct qni_merge {
    int32_t left, right; /* left < 0: a free slot */
    uint32_t rank;
} qni_merge;

/* Immutable after loading. */
typedef struct qni_bpe {
    qni_merge *slot; /* hash table with open addressing; a power of two */
    size_t n_slot;
    qni_hash_key key;
    int32_t *merged; /* [n_merge], by rank: the token that a merge makes */
    size_t n_merge;
    int32_t byte_id[256];
} qni_bpe;

/* Scratch for pieces of any length: 32 bytes for each byte of the longest piece at most; and a cache of the short
 * pieces seen last. */
typedef struct qni_bpe_scratch qni_bpe_scratch;

/* Room for n merges. Errors: ENOMEM. */
qn_status qni_bpe_init(qni_bpe *bpe, size_t n, qn_error *err);
void qni_bpe_release(qni_bpe *bpe);

/* The next merge, in the order of rank; false: this pair has a rank already. */
bool qni_bpe_add(qni_bpe *bpe, int32_t left, int32_t right, int32_t merged);

/* Finds the tokens of single bytes. Errors: EFORMAT: one is missing. */
qn_status qni_bpe_find_bytes(qni_bpe *bpe, const qni_vocab *vocab, qn_error *err);

qni_bpe_scratch *qni_bpe_scratch_create(void); /* NULL: no memory */
void qni_bpe_scratch_free(qni_bpe_scratch *scratch);
void qni_bpe_scratch_trim(qni_bpe_scratch *scratch, size_t keep_bytes);

/* Appends the ids of a piece, size >= 1; false: no memory. O(n log n). */
bool qni_bpe_encode(const qni_bpe *bpe, qni_bpe_scratch *scratch, qn_ids *ids, const char *piece, size_t size);

#endif
