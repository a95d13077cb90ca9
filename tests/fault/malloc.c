/* SPDX-License-Identifier: Apache-2.0 */
/* The failing, counting malloc, over the functions that glibc keeps under second names. */
#include "malloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *pointer, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *pointer);
void *memalign(size_t alignment, size_t bytes);

static atomic_long live;
static atomic_long countdown; /* allocations until the one that fails; not positive: off, or passed */
static atomic_bool armed, from, refused;

void fault_arm(long n, fault_mode mode) {
    atomic_store(&refused, false);
    atomic_store(&countdown, n);
    atomic_store(&from, mode == FAULT_FROM);
    atomic_store(&armed, true);
}

bool fault_disarm(void) {
    atomic_store(&armed, false);
    return atomic_load(&refused);
}

long fault_live(void) {
    return atomic_load(&live);
}

static bool refuse(void) {
    if (!atomic_load(&armed)) return false;
    long left = atomic_fetch_sub(&countdown, 1);
    if (left > 1 || (left < 1 && !atomic_load(&from))) return false;
    atomic_store(&refused, true);
    errno = ENOMEM;
    return true;
}

static void *count(void *pointer) {
    if (pointer != NULL) atomic_fetch_add(&live, 1);
    return pointer;
}

/* Seen by the shared libraries too. */
#pragma GCC visibility push(default)

void *malloc(size_t bytes) {
    return refuse() ? NULL : count(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes) {
    return refuse() ? NULL : count(__libc_calloc(n, bytes));
}

void *realloc(void *pointer, size_t bytes) {
    if (pointer == NULL) return malloc(bytes);
    if (bytes == 0) { /* glibc frees */
        free(pointer);
        return NULL;
    }
    return refuse() ? NULL : __libc_realloc(pointer, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
    return refuse() ? NULL : count(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    return memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    void *pointer = memalign(alignment, bytes);
    if (pointer == NULL) return ENOMEM;
    *out = pointer;
    return 0;
}

void free(void *pointer) {
    if (pointer != NULL) atomic_fetch_sub(&live, 1);
    __libc_free(pointer);
}

#pragma GCC visibility pop
