/* SPDX-License-Identifier: Apache-2.0 */
/* Search for added tokens in text: the leftmost match, and the longest of those that start there. */
#ifndef QNI_ADDED_H
#define QNI_ADDED_H

#include "hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Maximum length of an added token in bytes. Bounds the work of a search per byte of text. */
enum { QNI_ADDED_BYTES = 1024 };

typedef struct qni_added_node {
    uint32_t parent; /* 0: none */
    int32_t id;      /* id of the token that ends at this node, or -1 */
    unsigned char byte;
} qni_added_node;

/* A trie; zero-initialized, it is empty. A search reads at most the longest token's length per byte of text. */
typedef struct qni_added {
    qni_added_node *node; /* node 0 is reserved */
    size_t n, capacity;
    uint32_t root[256]; /* by first byte; 0: no node */
    uint32_t *slot;     /* hash table of edges: child node or 0; the size is a power of two */
    size_t n_slot;
    qni_hash_key key;
} qni_added;

void qni_added_release(qni_added *added);

/* size >= 1. Returns false when out of memory. */
bool qni_added_add(qni_added *added, const char *text, size_t size, int32_t id);

/* Offset of the first match at or after `from`, with its length and id. Returns size if there is no match. */
size_t qni_added_find(const qni_added *added, const char *text, size_t size, size_t from, size_t *length, int32_t *id);

#endif
