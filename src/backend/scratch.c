/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch: a bump allocator that, without memory, measures what a call needs. Under the address sanitizer only allocated
 * bytes may be touched: red zones are included in the measurement. */
#include "../base/memory.h"
#include "backend.h"

size_t qni_scratch_round(size_t bytes) {
    return bytes > SIZE_MAX - QNI_ALIGN - QNI_RED_ZONE ? SIZE_MAX : qni_round_up(bytes, QNI_ALIGN);
}

void *qni_scratch_take(qni_scratch *scratch, size_t bytes) {
    size_t at = scratch->used, end;
    if (!qni_add_size(&end, at, qni_scratch_round(bytes)) || !qni_add_size(&end, end, QNI_RED_ZONE)) end = SIZE_MAX;
    scratch->used = end;
    if (end > scratch->peak) scratch->peak = end;
    /* While measuring, an aligned non-NULL address, so that arithmetic on it stays defined. */
    if (qni_scratch_measures(scratch)) return (void *)(uintptr_t)QNI_ALIGN; // NOLINT(performance-no-int-to-ptr)
    qni_unpoison(scratch->base + at, bytes);
    qni_poison(scratch->base + at + bytes, end - at - bytes);
    return scratch->base + at;
}

void qni_scratch_reset(qni_scratch *scratch, size_t mark) {
    if (!qni_scratch_measures(scratch)) qni_poison(scratch->base + mark, scratch->used - mark);
    scratch->used = mark;
}

void *qni_scratch_array(qni_scratch *scratch, int64_t count, int64_t n, size_t size) {
    size_t bytes;
    if (!qni_mul_size(&bytes, (size_t)count, (size_t)n) || !qni_mul_size(&bytes, bytes, size)) bytes = SIZE_MAX;
    return qni_scratch_take(scratch, bytes);
}
