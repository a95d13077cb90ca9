/* SPDX-License-Identifier: Apache-2.0 */
/* A trie with lists of siblings: added tokens are few, and most texts leave it at the first byte. */
#include "added.h"

#include "../base/memory.h"

void qni_added_release(qni_added *added) {
    qni_free(added->node);
    *added = (qni_added){0};
}

/* A new node; 0: no memory. */
static uint32_t new_node(qni_added *added, unsigned char byte, uint32_t sibling) {
    size_t at = added->n > 0 ? added->n : 1;
    if (at >= UINT32_MAX || !qni_grow(&added->node, &added->capacity, at + 1, sizeof *added->node)) return 0;
    added->node[at] = (qni_added_node){.sibling = sibling, .id = -1, .byte = byte};
    added->n = at + 1;
    return (uint32_t)at;
}

static uint32_t child_of(const qni_added *added, uint32_t node, unsigned char byte) {
    uint32_t child = added->node[node].child;
    while (child != 0 && added->node[child].byte != byte) child = added->node[child].sibling;
    return child;
}

bool qni_added_add(qni_added *added, const char *text, size_t size, int32_t id) {
    unsigned char first = (unsigned char)text[0];
    if (added->root[first] == 0) added->root[first] = new_node(added, first, 0);
    uint32_t node = added->root[first];
    for (size_t i = 1; i < size && node != 0; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = child_of(added, node, byte);
        if (child == 0) {
            child = new_node(added, byte, added->node[node].child);
            if (child != 0) added->node[node].child = child;
        }
        node = child;
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
