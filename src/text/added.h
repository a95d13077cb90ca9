/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the texts of added tokens: the leftmost match, and of those that begin there the longest. */
#ifndef QNI_ADDED_H
#define QNI_ADDED_H

#include "hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of an added token: what a search may look at for each byte of a text. */
enum { QNI_ADDED_BYTES = 1024 };

typedef struct qni_added_node {
    uint32_t parent; /* 0: none */
    int32_t id;      /* of the token that ends here, or -1 */
    unsigned char byte;
} qni_added_node;

/* A trie; zeros are an empty one. Looking costs at most the longest token's bytes for each byte of the text. */
typedef struct qni_added {
    qni_added_node *node; /* node 0 is no node */
    size_t n, capacity;
    uint32_t root[256]; /* by first byte; 0: none */
    uint32_t *slot;     /* hash table of edges: the child, or 0; a power of two */
    size_t n_slot;
    qni_hash_key key;
} qni_added;

void qni_added_release(qni_added *added);

/* size >= 1; false: no memory. */
bool qni_added_add(qni_added *added, const char *text, size_t size, int32_t id);

/* Offset of the first match at or after `from`, with its length and id; size, if there is none. */
size_t qni_added_find(const qni_added *added, const char *text, size_t size, size_t from, size_t *length, int32_t *id);

#endif
