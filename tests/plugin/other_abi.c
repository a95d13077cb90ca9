/* SPDX-License-Identifier: Apache-2.0 */
/* A library of the CUDA backend for another ABI. */
#include "../../src/backend/plugin.h"

QN_API qni_plugin_backend_fn qni_plugin_backend;

const qni_backend *qni_plugin_backend(int32_t abi, const qni_host *host, int32_t *n_device, qn_error *reason) {
    (void)abi, (void)host, (void)n_device, (void)reason;
    return NULL;
}
