/* SPDX-License-Identifier: Apache-2.0 */
/* Quantization settings of config.json: MLX affine ("quantization", and its duplicate "quantization_config") or FP8
 * in blocks ("quantization_config"). Sources: mlx_lm.utils.load_model, FineGrainedFP8Config in transformers. */
#include "config.h"

#include "../base/json_get.h"

#include <stdio.h>
#include <string.h>

static const char twin[] = "config.json: quantization_config";

/* Unknown key: logged if its value is neutral, otherwise rejected. */
static qn_status unknown(const char *where, const char *key, const json_t *value, const qn_log *log, qn_error *err) {
    if (qni_json_is_neutral(value)) {
        qni_log(log, "%s: key \"%s\" (%s) is not known and was ignored", where, key, qni_json_text(value).text);
        return QN_OK;
    }
    return qni_fail(err, QN_EUNSUPPORTED, "%s: key \"%s\" (%s) is not known and may change the results", where, key,
                    qni_json_text(value).text);
}

/* An optional string with one supported value. */
static qn_status expect(const json_t *object, const char *where, const char *key, const char *wanted, qn_error *err) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) return QN_OK;
    if (!json_is_string(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be a string, got %s", where, key, qni_json_text(value).text);
    }
    if (strcmp(json_string_value(value), wanted) == 0) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: %s must be \"%s\", got %s", where, key, wanted,
                    qni_json_text(value).text);
}

/* bits, group_size and mode of the whole model or of one module. */
static qn_status read_affine(qni_module_quant *out, const json_t *object, const char *where, qn_error *err) {
    bool has_bits = false, has_group = false;
    QN_TRY(expect(object, where, "mode", "affine", err));
    QN_TRY(qni_json_get_int(&out->bits, &has_bits, object, where, "bits", 2, 8, err));
    QN_TRY(qni_json_get_int(&out->group, &has_group, object, where, "group_size", 1, QNI_MAX_D_FF, err));
    if (!has_bits || !has_group) {
        return qni_fail(err, QN_EFORMAT, "%s: %s is missing", where, has_bits ? "group_size" : "bits");
    }
    if (out->bits == 7) return qni_fail(err, QN_EUNSUPPORTED, "%s: bits must be 2, 3, 4, 5, 6 or 8, got 7", where);
    return QN_OK;
}

static bool is_affine_key(const char *key) {
    return strcmp(key, "bits") == 0 || strcmp(key, "group_size") == 0 || strcmp(key, "mode") == 0;
}

/* An object at a module's path gives its quantization parameters; true and false say whether it is quantized. */
static qn_status check_module(const char *module, const json_t *value, const char *where, const qn_log *log,
                              qn_error *err) {
    if (json_is_boolean(value)) return QN_OK;
    if (!qni_json_is_object(value)) return unknown(where, module, value, log, err);
    char path[160];
    snprintf(path, sizeof path, "%s: %.96s", where, module);
    qni_module_quant read;
    QN_TRY(read_affine(&read, value, path, err));
    const char *key;
    json_t *item, *object = (json_t *)(uintptr_t)value; /* iterators are not const-correct; nothing is modified */
    json_object_foreach(object, key, item) {
        if (!is_affine_key(key)) QN_TRY(unknown(path, key, item, log, err));
    }
    return QN_OK;
}

static qn_status read_mlx(qni_stated_quant *out, json_t *object, const char *where, const qn_log *log, qn_error *err) {
    qni_module_quant all;
    QN_TRY(read_affine(&all, object, where, err));
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (!is_affine_key(key)) QN_TRY(check_module(key, value, where, log, err));
    }
    *out = (qni_stated_quant){.kind = QNI_STATED_AFFINE, .bits = all.bits, .group = all.group};
    out->modules = json_incref(object);
    return QN_OK;
}

/* Which linears are fp8 is not read here: the tensors show it. Nor is activation rounding: activations stay f32. */
static qn_status read_fp8(qni_stated_quant *out, json_t *object, const qn_log *log, qn_error *err) {
    static const char *const known[] = {"quant_method",   "fmt",        "weight_block_size", "activation_scheme",
                                        "ignored_layers", "dequantize", "scale_fmt",         "modules_to_not_convert"};
    QN_TRY(expect(object, twin, "fmt", "e4m3", err));
    const json_t *block = json_object_get(object, "weight_block_size");
    const json_t *sizes[] = {json_array_get(block, 0), json_array_get(block, 1)};
    for (int i = 0; i < 2; i++) {
        json_int_t n = json_integer_value(sizes[i]); /* 0 if not an integer */
        if (json_array_size(block) == 2 && n >= 1 && n <= INT32_MAX) continue;
        return qni_fail(err, block == NULL || json_is_null(block) ? QN_EUNSUPPORTED : QN_EFORMAT,
                        "%s: weight_block_size must be two sizes of 1 to 2147483647", twin);
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) found |= strcmp(key, known[i]) == 0;
        if (!found) QN_TRY(unknown(twin, key, value, log, err));
    }
    *out = (qni_stated_quant){.kind = QNI_STATED_FP8,
                              .block_out = (int32_t)json_integer_value(sizes[0]),
                              .block_in = (int32_t)json_integer_value(sizes[1])};
    return QN_OK;
}

/* The value of a key, or NULL if it is neutral. */
static json_t *stated(const json_t *root, const char *key) {
    json_t *value = json_object_get(root, key);
    return value == NULL || qni_json_is_neutral(value) ? NULL : value;
}

qn_status qni_config_read_quant(qni_stated_quant *out, const json_t *root, const qn_log *log, qn_error *err) {
    json_t *mlx = stated(root, "quantization"), *other = stated(root, "quantization_config");
    if (mlx != NULL && other != NULL && !json_equal(mlx, other)) {
        return qni_fail(err, QN_EFORMAT, "config.json: quantization and quantization_config are not the same");
    }
    json_t *object = mlx != NULL ? mlx : other;
    const char *where = mlx != NULL ? "config.json: quantization" : twin;
    *out = (qni_stated_quant){.kind = QNI_STATED_NONE};
    if (object == NULL) return QN_OK;
    if (!qni_json_is_object(object)) {
        return qni_fail(err, QN_EFORMAT, "%s must be an object, got %s", where, qni_json_text(object).text);
    }
    const json_t *method = json_object_get(object, "quant_method");
    if (method == NULL) return read_mlx(out, object, where, log, err);
    if (json_is_string(method) && strcmp(json_string_value(method), "fp8") == 0 && mlx == NULL) {
        return read_fp8(out, object, log, err);
    }
    return qni_fail(err, QN_EUNSUPPORTED, "%s: quant_method %s is not supported; MLX's affine form and fp8 are", where,
                    qni_json_text(method).text);
}

qni_module_quant qni_stated_module(const qni_stated_quant *stated_quant, const char *module) {
    qni_module_quant out = {QNI_MODULE_UNNAMED, stated_quant->bits, stated_quant->group};
    const json_t *value = is_affine_key(module) ? NULL : json_object_get(stated_quant->modules, module);
    if (json_is_boolean(value)) out.named = json_is_true(value) ? QNI_MODULE_QUANTIZED : QNI_MODULE_DENSE;
    if (!qni_json_is_object(value)) return out;
    return (qni_module_quant){QNI_MODULE_QUANTIZED, (int32_t)json_integer_value(json_object_get(value, "bits")),
                              (int32_t)json_integer_value(json_object_get(value, "group_size"))};
}

void qni_config_release(qni_config *config) {
    json_decref(config->quant.modules);
    config->quant.modules = NULL;
}
