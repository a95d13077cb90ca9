/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: the device allocator, host allocations, checked size arithmetic. The only place that calls malloc. */
#ifndef QNI_MEMORY_H
#define QNI_MEMORY_H

#include <quern/device.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QNI_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define QNI_ASAN 1
#endif

/* Alignment of everything that kernels read: one cache line, which is also the widest vector. */
enum { QNI_ALIGN = 64 };

/* In AddressSanitizer builds, blocks that are divided into pieces have poisoned bytes after each piece, because the
 * sanitizer detects no overrun within a block. Other builds have no such bytes, and poisoning does nothing. */
#if defined(QNI_ASAN)
#include <sanitizer/asan_interface.h>
enum { QNI_RED_ZONE = 2 * QNI_ALIGN };
static inline void qni_poison(const void *pointer, size_t bytes) {
    __asan_poison_memory_region(pointer, bytes);
}
static inline void qni_unpoison(const void *pointer, size_t bytes) {
    __asan_unpoison_memory_region(pointer, bytes);
}
#else
enum { QNI_RED_ZONE = 0 };
static inline void qni_poison(const void *pointer, size_t bytes) {
    (void)pointer;
    (void)bytes;
}
static inline void qni_unpoison(const void *pointer, size_t bytes) {
    (void)pointer;
    (void)bytes;
}
#endif

/* a * b and a + b; false on overflow, leaving *out unchanged. */
static inline bool qni_mul_size(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool qni_add_size(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* Smallest multiple of `unit` (a power of two) that is >= n. The caller ensures that it does not overflow. */
static inline size_t qni_round_up(size_t n, size_t unit) {
    return (n + unit - 1) & ~(unit - 1);
}
static inline int64_t qni_min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t qni_max_i64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t qni_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Allocate from the device allocator, QNI_ALIGN-aligned, uninitialized; NULL if out of memory. bytes > 0. */
void *qni_device_alloc(const qn_allocator *allocator, size_t bytes);
void qni_device_free(const qn_allocator *allocator, void *pointer, size_t bytes);

/* Request large pages for memory that is written once and read often. Best effort, never an error. */
void qni_advise_large_pages(void *pointer, size_t bytes);

/* Host allocation of count * size zeroed bytes (never NULL for 0 elements); NULL if out of memory or on overflow. */
void *qni_calloc(size_t count, size_t size);
void *qni_realloc(void *pointer, size_t count, size_t size);
void qni_free(void *pointer);
char *qni_strndup(const char *text, size_t size); /* NUL-terminated */

/* Grow an array to at least `need` elements by doubling; false if out of memory, leaving the array unchanged. */
bool qni_grow(void *array_pointer, size_t *capacity, size_t need, size_t element_size);

#endif
