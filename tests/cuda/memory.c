/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the stand-in: blocks of an arena that is protected while no work runs; in sanitizer builds plain blocks. */
#include "memory.h"

#include "../../src/base/memory.h"
#include "runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PROTECTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PROTECTS 0
#endif
#endif
#ifndef PROTECTS
#define PROTECTS 1
#endif

enum { PAGE = 4096, MAX_BLOCK = 8192, FILL = 1 << 20 };
static const size_t arena_bytes = (size_t)16 << 30; /* reserved, not touched */

typedef struct block {
    unsigned char *at;
    size_t bytes, room;
    bool lives, pinned;
} block;

static block blocks[MAX_BLOCK];
static int n_block, n_open;
static unsigned char *arena;
static size_t used;

static void protect(int protection) {
    if (PROTECTS && used > 0 && mprotect(arena, used, protection) != 0) fake_refuse("mprotect");
}

void fake_unlock_memory(void) {
    if (n_open++ > 0) return;
    protect(PROT_READ | PROT_WRITE);
    /* The library poisons workspace when it is released, before queued work has run. */
    for (int i = 0; i < n_block; i++) {
        if (blocks[i].lives) qni_unpoison(blocks[i].at, blocks[i].bytes);
    }
}

void fake_lock_memory(void) {
    if (--n_open == 0) protect(PROT_NONE);
}

/* Room for a block of device memory, from a free block or at the end. */
static block *find_room(size_t bytes, bool pinned) {
    const size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    block *found = NULL;
    for (int i = 0; i < n_block && found == NULL; i++) {
        const bool fits = PROTECTS && !pinned ? !blocks[i].pinned && blocks[i].room >= room : blocks[i].room == 0;
        if (!blocks[i].lives && fits) found = &blocks[i];
    }
    if (found != NULL) return found;
    if (n_block == MAX_BLOCK || (PROTECTS && !pinned && used + room > arena_bytes)) fake_refuse("too many blocks");
    found = &blocks[n_block++];
    if (!PROTECTS || pinned) return found;
    if (arena == NULL) {
        arena = mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) fake_refuse("mmap");
    }
    *found = (block){.at = arena + used, .room = room};
    used += room;
    return found;
}

/* Fresh memory holds NaNs and, as integers, -1. */
void *fake_take(size_t bytes, bool pinned) {
    block *b = find_room(bytes, pinned);
    if (!PROTECTS || pinned) *b = (block){.at = malloc(bytes)};
    if (b->at == NULL) fake_refuse("malloc");
    b->bytes = bytes;
    b->pinned = pinned;
    b->lives = true;
    const bool opens = PROTECTS && !pinned;
    if (opens && mprotect(b->at, b->room, PROT_READ | PROT_WRITE) != 0) fake_refuse("mprotect");
    memset(b->at, 0xFF, bytes < FILL ? bytes : FILL);
    if (opens && n_open == 0 && mprotect(b->at, b->room, PROT_NONE) != 0) fake_refuse("mprotect");
    return b->at;
}

bool fake_give(void *address, bool pinned) {
    for (int i = 0; i < n_block; i++) {
        block *b = &blocks[i];
        if (!b->lives || b->at != address || b->pinned != pinned) continue;
        if (!PROTECTS || pinned) {
            free(b->at);
            b->at = NULL;
        } else {
            (void)madvise(b->at, b->room, MADV_DONTNEED); /* protecting takes time for each page that is there */
        }
        b->lives = false;
        return true;
    }
    return false;
}

bool fake_holds(const void *address, size_t bytes, bool pinned) {
    const unsigned char *at = address;
    for (int i = 0; i < n_block; i++) {
        const block *b = &blocks[i];
        if (b->lives && b->pinned == pinned && at >= b->at && at + bytes <= b->at + b->bytes) return true;
    }
    return false;
}

int64_t fake_n_block(bool pinned) {
    int64_t n = 0;
    for (int i = 0; i < n_block; i++) n += blocks[i].lives && blocks[i].pinned == pinned;
    return n;
}
