/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in's memory. The caller holds the runtime's lock. */
#ifndef QNI_TEST_CUDA_MEMORY_H
#define QNI_TEST_CUDA_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *fake_take(size_t bytes, bool pinned);
/* false: no such block */
bool fake_give(void *address, bool pinned);
/* Whether [address, address + bytes) lies within one block. */
bool fake_holds(const void *address, size_t bytes, bool pinned);
int64_t fake_n_block(bool pinned);

/* Make device memory accessible, or not. */
void fake_unlock_memory(void);
void fake_lock_memory(void);

#endif
