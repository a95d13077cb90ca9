/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: device allocator and host allocations. The only file that calls malloc and its relatives. */
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *qni_device_alloc(const qn_allocator *allocator, size_t bytes) {
    if (allocator->alloc != NULL) return allocator->alloc(allocator->user, bytes, QNI_ALIGN);
    if (bytes > SIZE_MAX - QNI_ALIGN) return NULL;
    return aligned_alloc(QNI_ALIGN, qni_round_up(bytes, QNI_ALIGN));
}

void qni_device_free(const qn_allocator *allocator, void *pointer, size_t bytes) {
    if (pointer == NULL) return;
    qni_unpoison(pointer, bytes);
    if (allocator->free != NULL) {
        allocator->free(allocator->user, pointer, bytes);
    } else {
        free(pointer);
    }
}

void qni_advise_large_pages(void *pointer, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = qni_round_up((uintptr_t)pointer, page), end = ((uintptr_t)pointer + bytes) & ~(page - 1);
    if (end > first) (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
}

void *qni_calloc(size_t count, size_t size) {
    return calloc(count > 0 ? count : 1, size > 0 ? size : 1);
}

void *qni_realloc(void *pointer, size_t count, size_t size) {
    size_t bytes;
    if (!qni_mul_size(&bytes, count, size)) return NULL;
    return realloc(pointer, bytes > 0 ? bytes : 1);
}

void qni_free(void *pointer) {
    free(pointer);
}

char *qni_strndup(const char *text, size_t size) {
    if (size == SIZE_MAX) return NULL;
    char *copy = malloc(size + 1);
    if (copy == NULL) return NULL;
    if (size > 0) memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

bool qni_grow(void *array_pointer, size_t *capacity, size_t need, size_t element_size) {
    if (need <= *capacity) return true;
    size_t wanted = *capacity < 16 ? 16 : *capacity;
    while (wanted < need) {
        if (!qni_mul_size(&wanted, wanted, 2)) return false;
    }
    void *old;
    memcpy(&old, array_pointer, sizeof old);
    void *grown = qni_realloc(old, wanted, element_size);
    if (grown == NULL) return false;
    memcpy(array_pointer, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}
