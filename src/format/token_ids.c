/* SPDX-License-Identifier: Apache-2.0 */
/* bos_token_id and eos_token_id, which config.json and generation_config.json may both have. */
#include "config.h"

#include "../base/json_get.h"

static qn_status add_eos(qni_token_ids *ids, const json_t *value, const char *file, qn_error *err) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= QNI_MAX_VOCAB) {
        return qni_fail(err, QN_EFORMAT, "%s: eos_token_id must be an id or a list of ids, got %s%s", file,
                        qni_json_text(value).text, qni_json_large(value) != NULL ? ", which is too large" : "");
    }
    int32_t id = (int32_t)json_integer_value(value);
    for (int32_t i = 0; i < ids->n_eos; i++) {
        if (ids->eos[i] == id) return QN_OK;
    }
    if (ids->n_eos == QNI_MAX_EOS) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: eos_token_id has more than %d ids", file, QNI_MAX_EOS);
    }
    ids->eos[ids->n_eos++] = id;
    return QN_OK;
}

qn_status qni_config_read_ids(qni_token_ids *ids, const json_t *root, const char *file, qn_error *err) {
    *ids = (qni_token_ids){.bos = -1};
    QN_TRY(qni_json_get_int(&ids->bos, NULL, root, file, "bos_token_id", 0, QNI_MAX_VOCAB - 1, err));
    const json_t *eos = qni_json_get(root, "eos_token_id");
    if (eos == NULL) return QN_OK;
    if (!json_is_array(eos)) return add_eos(ids, eos, file, err);
    for (size_t i = 0; i < json_array_size(eos); i++) {
        QN_TRY(add_eos(ids, json_array_get(eos, i), file, err));
    }
    return QN_OK;
}
