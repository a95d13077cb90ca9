/* SPDX-License-Identifier: Apache-2.0 */
/* The list of backends linked into this build, best first. */
#include "backend.h"

static const qni_backend *const backends[] = {
    &qni_backend_cpu,
    &qni_backend_ref,
};

const qni_backend *qni_backend_at(int32_t index) {
    int32_t n = (int32_t)(sizeof backends / sizeof backends[0]);
    return index >= 0 && index < n ? backends[index] : NULL;
}
