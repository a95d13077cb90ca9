/* SPDX-License-Identifier: Apache-2.0 */
/* A trie whose edges are in one hash table. Added tokens are few, and most text leaves the trie at its first byte. */
#include "added.h"

#include "../base/memory.h"

void qni_added_release(qni_added *added) {
    qni_free(added->node);
    qni_free(added->slot);
    *added = (qni_added){0};
}

/* The slot of an edge, or the free slot where it would be inserted. */
static size_t find_slot(const qni_added *added, uint32_t parent, unsigned char byte) {
    size_t at = qni_hash_word(&added->key, (uint64_t)parent << 8 | byte) & (added->n_slot - 1);
    for (; added->slot[at] != 0; at = (at + 1) & (added->n_slot - 1)) {
        const qni_added_node *node = &added->node[added->slot[at]];
        if (node->parent == parent && node->byte == byte) break;
    }
    return at;
}

static uint32_t child_of(const qni_added *added, uint32_t node, unsigned char byte) {
    return added->slot[find_slot(added, node, byte)];
}

/* Grow the table for n nodes, at most half full. */
static bool reserve_slots(qni_added *added, size_t n) {
    size_t wanted = added->n_slot < 64 ? 64 : added->n_slot;
    while (wanted / 2 < n) {
        if (!qni_mul_size(&wanted, wanted, 2)) return false;
    }
    if (wanted == added->n_slot) return true;
    uint32_t *slot = qni_calloc(wanted, sizeof *slot);
    if (slot == NULL) return false;
    if (added->n_slot == 0) qni_hash_key_make(&added->key);
    qni_free(added->slot);
    added->slot = slot;
    added->n_slot = wanted;
    for (size_t i = 1; i < added->n; i++) {
        const qni_added_node *node = &added->node[i];
        if (node->parent != 0) slot[find_slot(added, node->parent, node->byte)] = (uint32_t)i;
    }
    return true;
}

/* A new node; without a parent, the root for its byte. 0: out of memory. */
static uint32_t new_node(qni_added *added, uint32_t parent, unsigned char byte) {
    size_t at = added->n > 0 ? added->n : 1;
    if (at >= UINT32_MAX || !qni_grow(&added->node, &added->capacity, at + 1, sizeof *added->node)) return 0;
    if (!reserve_slots(added, at + 1)) return 0;
    added->node[at] = (qni_added_node){.parent = parent, .id = -1, .byte = byte};
    added->n = at + 1;
    if (parent != 0) added->slot[find_slot(added, parent, byte)] = (uint32_t)at;
    return (uint32_t)at;
}

bool qni_added_add(qni_added *added, const char *text, size_t size, int32_t id) {
    unsigned char first = (unsigned char)text[0];
    if (added->root[first] == 0) added->root[first] = new_node(added, 0, first);
    uint32_t node = added->root[first];
    for (size_t i = 1; i < size && node != 0; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = child_of(added, node, byte);
        node = child != 0 ? child : new_node(added, node, byte);
    }
    if (node != 0) added->node[node].id = id;
    return node != 0;
}

size_t qni_added_find(const qni_added *added, const char *text, size_t size, size_t from, size_t *length, int32_t *id) {
    for (size_t at = from; at < size && added->n > 0; at++) {
        uint32_t node = added->root[(unsigned char)text[at]];
        bool found = false;
        for (size_t i = at; node != 0;) {
            i++;
            if (added->node[node].id >= 0) {
                *length = i - at;
                *id = added->node[node].id;
                found = true;
            }
            node = i < size ? child_of(added, node, (unsigned char)text[i]) : 0;
        }
        if (found) return at;
    }
    return size;
}
