/* SPDX-License-Identifier: Apache-2.0 */
/* Stack used by a recursion, for code whose depth a file or a request determines. */
#ifndef QNI_STACK_H
#define QNI_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frames of unoptimized or sanitized code are several times larger. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define QNI_STACK_LARGE_FRAMES 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define QNI_STACK_LARGE_FRAMES 1
#endif
#ifdef QNI_STACK_LARGE_FRAMES
enum { QNI_STACK_SCALE = 6 };
#else
enum { QNI_STACK_SCALE = 1 };
#endif

/* Stack position of the calling function. */
static inline __attribute__((always_inline)) uintptr_t qni_stack_here(void) {
    return (uintptr_t)__builtin_frame_address(0);
}

/* Whether the calling function's frame is less than `bytes` away from `base`; stacks grow downward. */
static inline __attribute__((always_inline)) bool qni_stack_within(uintptr_t base, size_t bytes) {
    return base - qni_stack_here() < bytes * QNI_STACK_SCALE;
}

#endif
