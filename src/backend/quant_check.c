/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of a public description of a quantized matrix. */
#include "linear.h"

/* A required matrix {rows, columns}, contiguous and on the codes' device. */
static qn_status check_matrix(const char *name, const qn_tensor *t, const qn_tensor *codes, int64_t rows,
                              int64_t columns, qn_error *err) {
    if (t->rank != 2) return qni_fail(err, QN_EINVAL, "%s: rank must be 2, got %d", name, (int)t->rank);
    if (t->shape[0] != rows || t->shape[1] != columns) {
        return qni_fail(err, QN_EINVAL, "%s: shape must be {%lld, %lld}, got {%lld, %lld}", name, (long long)rows,
                        (long long)columns, (long long)t->shape[0], (long long)t->shape[1]);
    }
    if (t->extent != t->n_element) return qni_fail(err, QN_EINVAL, "%s: must be contiguous", name);
    if (t->storage->device != codes->storage->device) {
        return qni_fail(err, QN_EINVAL, "%s: is on another device than codes", name);
    }
    return QN_OK;
}

static qn_status check_scales(const char *name, const qn_tensor *t, const qn_tensor *codes, int64_t rows,
                              int64_t columns, qn_error *err) {
    QN_TRY(check_matrix(name, t, codes, rows, columns, err));
    if (qni_dtype_is_float(t->dtype)) return QN_OK;
    return qni_fail(err, QN_EINVAL, "%s: dtype must be f32, bf16 or f16, got %s", name, qn_dtype_name(t->dtype));
}

static qn_status check_fp8(qni_source *source, const qn_quantized *w, qn_error *err) {
    if (w->biases != NULL) return qni_fail(err, QN_EINVAL, "biases: f8 codes have none");
    if (w->bits != 0) return qni_fail(err, QN_EINVAL, "bits: must be 0 with f8 codes, got %d", (int)w->bits);
    if (w->group_out < 1) return qni_fail(err, QN_EINVAL, "group_out: must be at least 1, got %d", (int)w->group_out);
    source->quant = (qni_quant){QNI_FP8, 8, w->group, w->group_out, w->scales->dtype, .symmetric = false};
    source->n_out = w->codes->shape[0];
    source->n_in = w->codes->shape[1];
    return check_scales("scales", w->scales, w->codes, qni_ceil_div(source->n_out, w->group_out),
                        qni_ceil_div(source->n_in, w->group), err);
}

static qn_status check_affine(qni_source *source, const qn_quantized *w, qn_error *err) {
    const int32_t bits = w->bits;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 5 && bits != 6 && bits != 8) {
        return qni_fail(err, QN_EINVAL, "bits: must be 2, 3, 4, 5, 6 or 8, got %d", (int)bits);
    }
    if (w->group_out != 0) {
        return qni_fail(err, QN_EINVAL, "group_out: must be 0 with u32 codes, got %d", (int)w->group_out);
    }
    int64_t row_bits;
    if (__builtin_mul_overflow(w->codes->shape[1], 32, &row_bits) || row_bits % bits != 0) {
        return qni_fail(err, QN_EINVAL, "codes: %lld words are no whole number of %d-bit codes",
                        (long long)w->codes->shape[1], (int)bits);
    }
    source->n_out = w->codes->shape[0];
    source->n_in = row_bits / bits;
    if (source->n_in % w->group != 0) {
        return qni_fail(err, QN_EINVAL, "group: must divide the inputs, %lld, got %d", (long long)source->n_in,
                        (int)w->group);
    }
    source->quant = (qni_quant){QNI_AFFINE, bits, w->group, 1, w->scales->dtype, .symmetric = w->biases == NULL};
    const int64_t n_group = source->n_in / w->group;
    QN_TRY(check_scales("scales", w->scales, w->codes, source->n_out, n_group, err));
    if (w->biases == NULL) return QN_OK;
    QN_TRY(check_scales("biases", w->biases, w->codes, source->n_out, n_group, err));
    if (w->biases->dtype == w->scales->dtype) return QN_OK;
    return qni_fail(err, QN_EINVAL, "biases: dtype must be that of scales, %s, got %s", qn_dtype_name(w->scales->dtype),
                    qn_dtype_name(w->biases->dtype));
}

qn_status qni_quantized_check(qni_source *source, const qn_quantized *w, qn_error *err) {
    const qn_tensor *codes = w->codes;
    if (codes == NULL) return qni_fail(err, QN_EINVAL, "codes: is NULL");
    if (w->scales == NULL) return qni_fail(err, QN_EINVAL, "scales: is NULL");
    if (codes->rank != 2) return qni_fail(err, QN_EINVAL, "codes: rank must be 2, got %d", (int)codes->rank);
    if (w->group < 1) return qni_fail(err, QN_EINVAL, "group: must be at least 1, got %d", (int)w->group);
    if (codes->dtype != QN_DTYPE_U32 && codes->dtype != QN_DTYPE_F8) {
        return qni_fail(err, QN_EINVAL, "codes: dtype must be u32 or f8, got %s", qn_dtype_name(codes->dtype));
    }
    if (codes->extent != codes->n_element) return qni_fail(err, QN_EINVAL, "codes: must be contiguous");
    return codes->dtype == QN_DTYPE_F8 ? check_fp8(source, w, err) : check_affine(source, w, err);
}
