/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed hashes for tables whose keys come from files. Each table has a random key, so that an attacker cannot construct
 * collisions. */
#ifndef QNI_HASH_H
#define QNI_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct qni_hash_key {
    uint64_t k0, k1;
} qni_hash_key;

/* Make a random key. Never fails. */
void qni_hash_key_make(qni_hash_key *key);

/* SipHash-1-3 (Aumasson and Bernstein, https://131002.net/siphash). */
uint64_t qni_hash_text(const qni_hash_key *key, const char *text, size_t size);

/* Hash of one word: two multiplications by secret odd factors derived from the key. Use the low bits. */
static inline uint64_t qni_hash_word(const qni_hash_key *key, uint64_t word) {
    word = (word ^ key->k1) * (key->k0 | 1);
    word ^= word >> 32;
    word *= key->k1 | 1;
    return word ^ word >> 32;
}

#endif
