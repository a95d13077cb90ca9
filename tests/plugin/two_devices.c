/* SPDX-License-Identifier: Apache-2.0 */
/* A library of the CUDA backend on a machine with two GPUs. */
#include "../../src/backend/plugin.h"

QN_API qni_plugin_backend_fn qni_plugin_backend;

static const qni_backend two = {.name = "cuda"};

const qni_backend *qni_plugin_backend(int32_t abi, const qni_host *host, int32_t *n_device, qn_error *reason) {
    (void)host, (void)reason;
    *n_device = 2;
    return abi == QNI_PLUGIN_ABI ? &two : NULL;
}
