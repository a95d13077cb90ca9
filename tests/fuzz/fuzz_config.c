/* SPDX-License-Identifier: Apache-2.0 */
/* config.json; with a first byte of 1, generation_config.json. */
#include "../../src/base/json.h"
#include "../../src/format/config.h"

#include <stdlib.h>

static void ignore(void *user, const char *text) {
    (void)user;
    (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    json_t *root = NULL;
    qn_error err;
    qn_log log = {ignore, NULL};
    if (qni_json_parse(&root, "fuzz", (const char *)data + 1, size - 1, &err) != QN_OK) return 0;
    if (data[0] == 1) {
        qni_generation_config generation;
        qni_token_ids ids;
        qn_status status = qni_generation_read(&generation, &ids, root, &log, &err);
        if (status == QN_OK && (ids.n_eos > QNI_MAX_EOS || !(generation.temperature >= 0))) abort();
    } else {
        qni_config config = {0};
        qn_status status = qni_config_read(&config, root, &log, &err);
        if (status == QN_OK && (config.n_layer > QNI_MAX_LAYER || config.head_dim % 2 != 0)) abort();
        qni_stated_module(&config.quant, "model.layers.0.mlp.up_proj");
        qni_config_release(&config);
        if (status != QN_OK && status != QN_EFORMAT && status != QN_EUNSUPPORTED) abort();
    }
    json_decref(root);
    return 0;
}
