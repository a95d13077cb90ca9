/* SPDX-License-Identifier: Apache-2.0 */
/* Determines how a linear is stored, from its tensors and config.json: dense, MLX affine, or FP8 in blocks. The
 * tensors show whether it is quantized, config.json gives the parameters, and disagreement is an error that names
 * both. */
#include "../backend/dtype.h"
#include "checkpoint.h"

#include <stdio.h>
#include <string.h>

/* Metadata key of a file whose affine tensors of this bit width have biases -2^(bits-1) · scale, so that the biases
 * need not be kept. Written by `quern quantize`. */
static const char symmetric_key[] = "quern.symmetric";
enum { SYMMETRIC_BITS = 8 };

static const char *file_of(const qni_tensor_ref *ref) {
    return qni_base_name(ref->file->file.path);
}

qn_status qni_tensor_fail(const qni_tensor_ref *ref, qn_status status, const char *what, qn_error *err) {
    return qni_fail(err, status, "%s: tensor %s: %s", file_of(ref), ref->tensor->name, what);
}

qn_status qni_tensor_check_shape(const qni_tensor_ref *ref, int64_t rows, int64_t columns, qn_error *err) {
    const qni_st_tensor *t = ref->tensor;
    const int32_t rank = columns > 0 ? 2 : 1;
    if (t->rank == rank && t->shape[0] == rows && (rank == 1 || t->shape[1] == columns)) return QN_OK;
    qni_st_tensor wanted = {.rank = rank, .shape = {rows, columns}};
    return qni_fail(err, QN_EFORMAT, "%s: tensor %s: shape must be %s, got %s", file_of(ref), t->name,
                    qni_st_shape_text(&wanted).text, qni_st_shape_text(t).text);
}

qn_dtype qni_weight_dtype(const qni_st_tensor *tensor) {
    const qn_dtype dtype = qni_dtype_of_stored(tensor->dtype);
    return qni_dtype_is_float(dtype) ? dtype : QN_DTYPE_DEFAULT;
}

qni_module_path qni_weight_module(const qni_weight_ref *ref) {
    qni_module_path path;
    const char *name = ref->data.tensor->name;
    snprintf(path.text, sizeof path.text, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    return path;
}

static bool is_called(const qni_tensor_ref *ref, const char *part) {
    return strcmp(strrchr(ref->tensor->name, '.') + 1, part) == 0;
}

static qn_status missing(const qni_weight_ref *ref, const char *part, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "%s: tensor %s is %s, but %s.%s is missing", file_of(&ref->data),
                    ref->data.tensor->name, qni_st_dtype_name(ref->data.tensor->dtype), qni_weight_module(ref).text,
                    part);
}

static qn_status check_scale_dtype(const qni_tensor_ref *ref, qn_error *err) {
    if (qni_weight_dtype(ref->tensor) != QN_DTYPE_DEFAULT) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype must be F32, BF16 or F16, got %s", file_of(ref),
                    ref->tensor->name, qni_st_dtype_name(ref->tensor->dtype));
}

static qn_status check_dense(const qni_weight_ref *ref, const qni_stated_quant *stated, qn_error *err) {
    const qni_tensor_ref *beside = ref->scales.tensor != NULL ? &ref->scales : &ref->biases;
    if (beside->tensor != NULL) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s exists, but %s is not quantized: its dtype is %s",
                        file_of(beside), beside->tensor->name, ref->data.tensor->name,
                        qni_st_dtype_name(ref->data.tensor->dtype));
    }
    const qni_module_path module = qni_weight_module(ref);
    if (qni_stated_module(stated, module.text).named == QNI_MODULE_QUANTIZED) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s is %s, but config.json says that it is quantized",
                        file_of(&ref->data), ref->data.tensor->name, qni_st_dtype_name(ref->data.tensor->dtype));
    }
    return qni_tensor_check_shape(&ref->data, ref->rows, ref->columns, err);
}

static bool is_symmetric(const qni_weight_ref *ref, int32_t bits) {
    const char *value = qni_safetensors_metadata(ref->biases.file, symmetric_key);
    return bits == SYMMETRIC_BITS && value != NULL && strcmp(value, "8") == 0;
}

static qn_status check_affine(qni_weight_ref *ref, const qni_stated_quant *stated, qn_error *err) {
    const qni_module_path module = qni_weight_module(ref);
    if (ref->scales.tensor == NULL || !is_called(&ref->scales, "scales")) return missing(ref, "scales", err);
    if (ref->biases.tensor == NULL) return missing(ref, "biases", err);
    if (stated->kind != QNI_STATED_AFFINE) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s is U32, but config.json has no affine quantization",
                        file_of(&ref->data), ref->data.tensor->name);
    }
    const qni_module_quant wanted = qni_stated_module(stated, module.text);
    if (wanted.named == QNI_MODULE_DENSE) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s is U32, but config.json says that it is not quantized",
                        file_of(&ref->data), ref->data.tensor->name);
    }
    if (ref->columns % wanted.group != 0 || ref->columns * wanted.bits % 32 != 0) {
        return qni_fail(err, QN_EFORMAT, "config.json: quantization: %s has %lld inputs, %s %d", module.text,
                        (long long)ref->columns,
                        ref->columns % wanted.group != 0 ? "not a multiple of group_size"
                                                         : "which do not fill 32-bit words at bits",
                        (int)(ref->columns % wanted.group != 0 ? wanted.group : wanted.bits));
    }
    QN_TRY(qni_tensor_check_shape(&ref->data, ref->rows, ref->columns * wanted.bits / 32, err));
    QN_TRY(qni_tensor_check_shape(&ref->scales, ref->rows, ref->columns / wanted.group, err));
    QN_TRY(qni_tensor_check_shape(&ref->biases, ref->rows, ref->columns / wanted.group, err));
    QN_TRY(check_scale_dtype(&ref->scales, err));
    if (ref->biases.tensor->dtype != ref->scales.tensor->dtype) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype must be that of the scales, %s, got %s",
                        file_of(&ref->biases), ref->biases.tensor->name, qni_st_dtype_name(ref->scales.tensor->dtype),
                        qni_st_dtype_name(ref->biases.tensor->dtype));
    }
    ref->quant = (qni_quant){.kind = QNI_AFFINE,
                             .bits = wanted.bits,
                             .group = wanted.group,
                             .group_out = 1,
                             .scale_dtype = qni_weight_dtype(ref->scales.tensor),
                             .symmetric = is_symmetric(ref, wanted.bits)};
    return QN_OK;
}

static qn_status check_fp8(qni_weight_ref *ref, const qni_stated_quant *stated, qn_error *err) {
    static const char part[] = "weight_scale_inv";
    if (ref->scales.tensor == NULL || !is_called(&ref->scales, part)) return missing(ref, part, err);
    if (ref->biases.tensor != NULL) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s exists, but %s is F8_E4M3, which has no biases",
                        file_of(&ref->biases), ref->biases.tensor->name, ref->data.tensor->name);
    }
    if (stated->kind != QNI_STATED_FP8) {
        return qni_fail(err, QN_EFORMAT,
                        "%s: tensor %s is F8_E4M3, but config.json has no quantization_config with quant_method fp8",
                        file_of(&ref->data), ref->data.tensor->name);
    }
    /* Clip a block larger than the matrix to its size, so that work need not be divided in units of such blocks. */
    const int64_t group_out = qni_min_i64(stated->block_out, ref->rows);
    const int64_t group = qni_min_i64(stated->block_in, ref->columns);
    QN_TRY(qni_tensor_check_shape(&ref->data, ref->rows, ref->columns, err));
    QN_TRY(qni_tensor_check_shape(&ref->scales, qni_ceil_div(ref->rows, group_out), qni_ceil_div(ref->columns, group),
                                  err));
    QN_TRY(check_scale_dtype(&ref->scales, err));
    ref->quant = (qni_quant){.kind = QNI_FP8,
                             .bits = 8,
                             .group = group,
                             .group_out = group_out,
                             .scale_dtype = qni_weight_dtype(ref->scales.tensor)};
    return QN_OK;
}

qn_status qni_weight_check(qni_weight_ref *ref, const qni_stated_quant *stated, qn_error *err) {
    const qni_st_tensor *t = ref->data.tensor;
    if (t->dtype == QNI_ST_U32) return check_affine(ref, stated, err);
    if (t->dtype == QNI_ST_F8_E4M3) return check_fp8(ref, stated, err);
    if (qni_weight_dtype(t) == QN_DTYPE_DEFAULT) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: tensor %s: dtype must be F32, BF16, F16, U32 or F8_E4M3, got %s",
                        file_of(&ref->data), t->name, qni_st_dtype_name(t->dtype));
    }
    return check_dense(ref, stated, err);
}
