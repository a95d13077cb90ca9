/* SPDX-License-Identifier: Apache-2.0 */
/* What tests that run on all devices must know of them. */
#ifndef QNI_TEST_DEVICES_H
#define QNI_TEST_DEVICES_H

#include <stdbool.h>
#include <string.h>

/* A GPU's memory is its own: the caller's allocator gives and counts none of it, and no memory of the host can be wrapped. */
static inline bool is_gpu(const char *device) {
    return strncmp(device, "cuda", 4) == 0;
}

#endif
