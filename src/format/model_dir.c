/* SPDX-License-Identifier: Apache-2.0 */
/* Names in a model directory that denote weights, adapters and settings of other programs. */
#include "model_dir.h"

#include "../base/dir.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool ends_in(const char *name, const char *suffix) {
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n >= n_suffix && strcasecmp(name + n - n_suffix, suffix) == 0;
}

static bool is_weights(const char *name) {
    static const char *const suffixes[] = {".safetensors", ".gguf", ".bin", ".pth", ".pt", ".npz", ".h5", ".msgpack"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (ends_in(name, suffixes[i])) return true;
    }
    return false;
}

/* transformers applies an adapter that it finds beside the weights; other programs only on request. */
static bool is_adapter(const char *name) {
    if (strcmp(name, "adapter_config.json") == 0) return true;
    return is_weights(name) && (strcasestr(name, "adapter") != NULL || strcasestr(name, "lora") != NULL);
}

/* PyTorch and similar weights do not count: all programs prefer safetensors. golden.safetensors holds the reference
 * for `quern verify`. */
static bool is_other_weights(const char *name) {
    if (strcmp(name, "golden.safetensors") == 0 || is_adapter(name)) return false;
    return ends_in(name, ".safetensors") || ends_in(name, ".gguf");
}

static bool is_other_config(const char *name) {
    static const char *const list[] = {"hf_quant_config.json", "params.json", "quant_config.json",
                                       "quantization_config.json", "quantize_config.json"};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (strcmp(name, list[i]) == 0) return true;
    }
    return false;
}

static bool is_used(const char *name, const qni_weight_files *weights) {
    for (size_t i = 0; i < weights->n_file; i++) {
        if (strcmp(name, qni_base_name(weights->files[i].file.path)) == 0) return true;
    }
    return false;
}

/* Comma-separated names for a message; above a limit, their count. */
typedef struct name_list {
    char text[160];
    size_t n;
} name_list;

static name_list list_names(const qni_names *names, bool (*wanted)(const char *name), const qni_weight_files *weights) {
    name_list out = {.n = 0};
    size_t used = 0, n_more = 0;
    for (size_t i = 0; i < names->n; i++) {
        const char *name = names->name[i];
        if (!wanted(name) || is_used(name, weights)) continue;
        out.n++;
        if (n_more > 0 || (used > 0 && used + strlen(name) + 32 > sizeof out.text)) {
            n_more++;
        } else {
            used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%.120s", used > 0 ? ", " : "", name);
        }
    }
    if (n_more > 0) snprintf(out.text + used, sizeof out.text - used, "%s%zu more", used > 0 ? " and " : "", n_more);
    return out;
}

qn_status qni_model_dir_check(const char *dir, const qni_weight_files *weights, const qn_log *log, qn_error *err) {
    static const struct {
        bool (*wanted)(const char *name);
        const char *what;
    } sorts[] = {
        {is_adapter, "an adapter beside the weights is not applied"},
        {is_other_weights, "other weights beside those of the model are not used"},
        {is_other_config, "settings beside config.json are not read"},
    };
    qni_names names = {0};
    qn_error reason;
    qn_status status = qni_dir_list(&names, dir, &reason);
    if (status == QN_ENOMEM) return qni_fail(err, status, "%s", reason.message);
    if (status != QN_OK) qni_log(log, "%s; files that are not used cannot be told", reason.message);
    for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++) {
        name_list list = list_names(&names, sorts[i].wanted, weights);
        if (list.n > 0) qni_log(log, "%s: %s", list.text, sorts[i].what);
    }
    qni_names_free(&names);
    return QN_OK;
}

qn_status qni_model_dir_no_weights(const char *dir, const char *missing, qn_error *err) {
    qni_names names = {0};
    qn_error reason;
    if (qni_dir_list(&names, dir, &reason) == QN_ENOMEM) return qni_fail(err, QN_ENOMEM, "%s", reason.message);
    name_list list = list_names(&names, is_weights, &(qni_weight_files){0});
    qni_names_free(&names);
    if (list.n == 0) return qni_fail(err, QN_EIO, "%s: %s", dir, missing);
    return qni_fail(err, QN_EIO, "%s: %s; these files cannot be read as weights: %s", dir, missing, list.text);
}
