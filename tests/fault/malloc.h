/* SPDX-License-Identifier: Apache-2.0 */
/* A malloc that fails on demand and counts what lives. Linked into the program it takes the place of the C library's for
 * everything in the process, other libraries included. Absent (weak) where a sanitizer has taken that place. */
#ifndef FAULT_MALLOC_H
#define FAULT_MALLOC_H

#include <stdbool.h>

/* Which allocations fail from now on, counted over all threads, the next one being the first. */
typedef enum fault_mode {
    FAULT_ONE,  /* the n-th alone */
    FAULT_FROM, /* the n-th and all that follow */
} fault_mode;

void fault_arm(long n, fault_mode mode) __attribute__((weak));

/* All allocations succeed again. Tells whether one was refused. */
bool fault_disarm(void) __attribute__((weak));

/* Blocks that were allocated and not freed. */
long fault_live(void) __attribute__((weak));

#endif
