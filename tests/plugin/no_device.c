/* SPDX-License-Identifier: Apache-2.0 */
/* A library of the CUDA backend on a machine without a GPU. */
#include "../../src/backend/plugin.h"

QN_API qni_plugin_backend_fn qni_plugin_backend;

static const qni_backend none = {.name = "cuda"};

const qni_backend *qni_plugin_backend(int32_t abi, const qni_host *host, int32_t *n_device, qn_error *reason) {
    *n_device = 0;
    (void)host->fail(reason, QN_EUNSUPPORTED, "cuda: no device, says library %d", abi == QNI_PLUGIN_ABI);
    return &none;
}
