/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights: choosing a layout, and filling panels from checkpoint rows. kernels.h has the layouts. */
#include "pack.h"

#include <string.h>

/* Whether the integer kernels support the group size. */
static bool is_regular(const qni_quant *q) {
    return q->kind == QNI_AFFINE && q->group % 32 == 0;
}

/* Choose the arithmetic of a linear; resolves AUTO. */
static qn_status choose_arith(qn_arith *out, const qni_cpu_kernels *k, const qni_source *source, qn_error *err) {
    const qni_quant *q = &source->quant;
    const bool pairs = q->kind == QNI_DENSE && source->dtype == QN_DTYPE_BF16;
    *out = source->arith;
    if (source->arith == QN_ARITH_AUTO) {
        *out = is_regular(q) ? QN_ARITH_INT8 : pairs && k->native_bf16 ? QN_ARITH_BF16 : QN_ARITH_F32;
    }
    if (*out == QN_ARITH_BF16 && !pairs) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith bf16: for bf16 weights, these are %s",
                        q->kind == QNI_DENSE ? qn_dtype_name(source->dtype) : "quantized");
    }
    if (*out == QN_ARITH_INT8 && q->kind != QNI_AFFINE) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith int8: for affine quantized weights, these are %s",
                        q->kind == QNI_FP8 ? "fp8" : qn_dtype_name(source->dtype));
    }
    if (*out == QN_ARITH_INT8 && !is_regular(q)) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith int8: for groups of a multiple of 32 inputs, these have %lld",
                        (long long)q->group);
    }
    return QN_OK;
}

/* The sum over a group of codes, at most 2^bits - 1, times int8 activations, at most 127, must fit into 32 bits. A
 * larger group is split into equal parts with the same scale and bias, whose sizes are also multiples of 32. */
static int64_t int8_group(const qni_quant *q) {
    const int64_t most = INT32_MAX / (127 * ((1 << q->bits) - 1)), unit = q->group / 32;
    int64_t n_part = qni_ceil_div(q->group, most);
    while (unit % n_part != 0) n_part++;
    return q->group / n_part;
}

/* Codes are stored in 4 or 8 bits; scales stay bf16 if they are bf16, otherwise f32. */
static qni_quant packed_quant(const qni_quant *q, qn_arith arith) {
    qni_quant form = *q;
    if (arith == QN_ARITH_INT8) form.group = int8_group(q);
    if (q->kind == QNI_AFFINE) form.bits = q->bits <= 4 ? 4 : 8;
    /* A symmetric zero is half of the code range, and the range grows with the width. */
    if (form.bits != q->bits) form.symmetric = false;
    if (q->scale_dtype != QN_DTYPE_BF16) form.scale_dtype = QN_DTYPE_F32;
    if (q->kind == QNI_FP8) form.group_out = 1;
    return form;
}

static int64_t ki_of(const qni_cpu_kernels *k, const qni_quant *form) {
    if (form->kind == QNI_FP8) return 1;
    return qni_cpu_int8_of(k, form->bits)->ki;
}

qni_cpu_quant qni_cpu_quant_of(const qni_weight *w) {
    qni_cpu_quant q = {.fp8 = w->quant.kind == QNI_FP8,
                       .symmetric = w->quant.symmetric,
                       .bits = w->quant.bits,
                       .scale_dtype = w->quant.scale_dtype == QN_DTYPE_BF16 ? QNI_CPU_BF16 : QNI_CPU_F32,
                       .n_in = w->n_in,
                       .group = w->quant.group,
                       .n_group = qni_quant_n_group(&w->quant, w->n_in),
                       .nr = w->nr,
                       .ki = w->ki};
    q.scales_bytes = q.nr * (q.scale_dtype == QNI_CPU_BF16 ? 2 : 4);
    q.codes_at = q.fp8 || q.symmetric ? q.scales_bytes : 2 * q.scales_bytes;
    q.group_bytes = q.codes_at + q.group * q.nr * q.bits / 8;
    q.panel_bytes = q.n_group * q.group_bytes;
    return q;
}

static qn_status too_large(const qni_source *source, qn_error *err) {
    return qni_fail(err, QN_ENOMEM, "a linear of %lld x %lld is too large", (long long)source->n_in,
                    (long long)source->n_out);
}

/* Outputs are padded to whole panels, inputs to whole pairs; rows of a panel are contiguous. */
static qn_status dense_packing(const qni_cpu_kernels *k, qni_packing *out, const qni_source *source, qn_arith arith,
                               qn_error *err) {
    const bool dense = source->quant.kind == QNI_DENSE;
    qni_weight form = {.dtype = dense ? source->dtype : QN_DTYPE_F32,
                       .arith = arith,
                       .packed = true,
                       .n_in = source->n_in,
                       .n_out = source->n_out,
                       .nr = k->nr,
                       .ki = arith == QN_ARITH_BF16 ? 2 : 1};
    if (!qni_dtype_is_float(form.dtype)) {
        return qni_fail(err, QN_EUNSUPPORTED, "weights must be f32, bf16 or f16, these are %s",
                        qn_dtype_name(form.dtype));
    }
    form.interleaved = k->interleaves_bf16 && form.dtype == QN_DTYPE_BF16 && form.ki == 1;
    form.group_stride = form.nr * form.ki;
    size_t n_panel = (size_t)qni_ceil_div(form.n_out, form.nr), panel, elements, bytes;
    if (!qni_mul_size(&panel, (size_t)qni_ceil_div(form.n_in, form.ki), (size_t)form.group_stride) ||
        !qni_mul_size(&elements, panel, n_panel) || !qni_mul_size(&bytes, elements, qn_dtype_bytes(form.dtype)) ||
        bytes > INT64_MAX) {
        return too_large(source, err);
    }
    form.panel_stride = (int64_t)panel;
    *out = (qni_packing){form, bytes};
    return QN_OK;
}

static qn_status quantized_packing(const qni_cpu_kernels *k, qni_packing *out, const qni_source *source, qn_arith arith,
                                   qn_error *err) {
    size_t bytes; /* upper bound of everything computed below: 16 bytes per element, whole groups and panels */
    if (!qni_mul_size(&bytes, (size_t)source->n_in + (size_t)source->quant.group, (size_t)(source->n_out + k->nr)) ||
        !qni_mul_size(&bytes, bytes, 16) || bytes > INT64_MAX) {
        return too_large(source, err);
    }
    qni_weight form = {.dtype = source->quant.kind == QNI_FP8 ? QN_DTYPE_F8 : QN_DTYPE_U32,
                       .arith = arith,
                       .quant = packed_quant(&source->quant, arith),
                       .packed = true,
                       .n_in = source->n_in,
                       .n_out = source->n_out,
                       .nr = k->nr};
    form.ki = ki_of(k, &form.quant);
    form.panel_stride = qni_cpu_quant_of(&form).panel_bytes;
    *out = (qni_packing){form, (size_t)(form.panel_stride * qni_ceil_div(form.n_out, form.nr))};
    return QN_OK;
}

qn_status qni_cpu_packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err) {
    const qni_cpu_kernels *k = &((const qni_cpu *)state)->kernels;
    qn_arith arith;
    QN_TRY(choose_arith(&arith, k, source, err));
    if (source->quant.kind == QNI_FP8 || is_regular(&source->quant)) {
        return quantized_packing(k, out, source, arith, err);
    }
    return dense_packing(k, out, source, arith, err);
}

/* --- dense panels --- */

/* Offset in elements of W[i, o] in a packed or plain dense weight. */
static int64_t element_index(const qni_weight *w, int64_t i, int64_t o) {
    int64_t j = o % w->nr;
    if (w->interleaved) j = j % (w->nr / 2) * 2 + j / (w->nr / 2);
    return o / w->nr * w->panel_stride + i / w->ki * w->group_stride + j * w->ki + i % w->ki;
}

/* Element by element: for strided sources, and for pairs whose rows are not aligned for them. */
static void pack_elements(const qni_weight *form, unsigned char *panel, int64_t n_valid, const unsigned char *src,
                          int64_t in_stride, int64_t out_stride) {
    const size_t bytes = qn_dtype_bytes(form->dtype);
    for (int64_t i = 0; i < form->n_in; i++) {
        for (int64_t o = 0; o < n_valid; o++) {
            memcpy(panel + (size_t)element_index(form, i, o) * bytes,
                   src + (size_t)(i * in_stride + o * out_stride) * bytes, bytes);
        }
    }
}

static bool is_aligned(const void *pointer, size_t bytes) {
    return (uintptr_t)pointer % bytes == 0;
}

/* One panel, its n_valid outputs from src on. Padding that the fast paths do not write is zeroed. */
static void pack_panel(const qni_cpu_kernels *k, const qni_weight *form, unsigned char *panel, int64_t n_valid,
                       const unsigned char *src, int64_t in_stride, int64_t out_stride) {
    const size_t bytes = qn_dtype_bytes(form->dtype);
    if (in_stride == 1 && form->ki == 2 && form->n_in % 2 == 0 && out_stride % 2 == 0 && is_aligned(src, 4)) {
        k->transpose4((uint32_t *)(void *)panel, (const uint32_t *)(const void *)src, out_stride / 2, n_valid,
                      form->n_in / 2);
    } else if (in_stride == 1 && form->ki == 1 && bytes == 2) {
        (form->dtype == QN_DTYPE_BF16 ? k->transpose_bf16 : k->transpose2)(
            (uint16_t *)(void *)panel, (const uint16_t *)(const void *)src, out_stride, n_valid, form->n_in);
    } else if (in_stride == 1 && form->ki == 1) {
        k->transpose4((uint32_t *)(void *)panel, (const uint32_t *)(const void *)src, out_stride, n_valid, form->n_in);
    } else {
        memset(panel, 0, (size_t)form->panel_stride * bytes);
        pack_elements(form, panel, n_valid, src, in_stride, out_stride);
    }
}

void qni_cpu_pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                  int64_t in_stride, int64_t out_stride) {
    const qni_cpu *cpu = state;
    const size_t bytes = qn_dtype_bytes(form->dtype);
    for (int64_t o = 0; o < n; o += form->nr) {
        unsigned char *panel = (unsigned char *)data + (size_t)((first + o) / form->nr * form->panel_stride) * bytes;
        const unsigned char *from = (const unsigned char *)src + (size_t)(o * out_stride) * bytes;
        pack_panel(&cpu->kernels, form, panel, qni_min_i64(form->nr, n - o), from, in_stride, out_stride);
    }
}

/* --- quantized panels --- */

/* Codes of one group and output; zero from the n-th on. Only the last fp8 group can be partial, and there code 0 is
 * 0. */
static void pack_codes(const qni_cpu_kernels *k, unsigned char *codes, const qni_cpu_quant *q, const uint8_t *from,
                       int64_t n, int64_t j) {
    const int64_t ki = q->ki;
    unsigned char *to = codes + j * ki;
    if (q->bits == 8) {
        const unsigned char flip = !q->fp8 && k->int8[QNI_CPU_8_BITS].widen != NULL ? 0x80 : 0;
        for (int64_t i = 0; i < q->group; i += ki, to += q->nr * ki) {
            for (int64_t b = 0; b < ki; b++) to[b] = (i + b < n ? from[i + b] : 0) ^ (b % 2 != 0 ? flip : 0);
        }
        return;
    }
    for (int64_t i = 0; i < q->group; i += 2 * ki, to += q->nr * ki) { /* affine groups are whole */
        for (int64_t b = 0; b < ki; b++) to[b] = (unsigned char)(from[i + b] | from[i + ki + b] << 4);
    }
}

static void pack_scale(unsigned char *scales, const qni_cpu_quant *q, int64_t j, float scale) {
    qni_store_f32(scales, q->scale_dtype == QNI_CPU_BF16 ? QN_DTYPE_BF16 : QN_DTYPE_F32, j, scale);
}

/* Output j of a panel from an unpacked row, whose groups may be larger. */
static void pack_output(const qni_cpu_kernels *k, unsigned char *panel, const qni_cpu_quant *q,
                        const qni_quant_buffer *row, int64_t row_group, int64_t j) {
    for (int64_t g = 0; g < q->n_group; g++, panel += q->group_bytes) {
        const int64_t first = g * q->group, from = first / row_group;
        pack_scale(panel, q, j, row->scales[from]);
        if (!q->symmetric && !q->fp8) pack_scale(panel + q->scales_bytes, q, j, row->biases[from]);
        pack_codes(k, panel + q->codes_at, q, row->codes + first, qni_min_i64(q->group, q->n_in - first), j);
    }
}

qn_status qni_cpu_pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                 const qni_quant *source, const qni_quant_rows *rows, qn_error *err) {
    const qni_cpu_kernels *k = &((const qni_cpu *)state)->kernels;
    qni_quant_buffer row;
    QN_TRY(qni_quant_buffer_create(&row, source, 1, form->n_in, err));
    const bool dense = form->quant.kind == QNI_DENSE; /* group sizes that no kernel supports: stored as values */
    const qni_cpu_quant q = dense ? (qni_cpu_quant){0} : qni_cpu_quant_of(form);
    float *values = dense ? qni_calloc((size_t)form->n_in, sizeof *values) : NULL;
    qn_status status = QN_OK;
    if (dense && values == NULL) {
        status = qni_fail(err, QN_ENOMEM, "linear: no memory for a row of %lld", (long long)form->n_in);
    }
    const int64_t end = first + n == form->n_out ? qni_ceil_div(n, form->nr) * form->nr : n; /* includes padding */
    for (int64_t o = 0; o < end && status == QN_OK; o++) {
        const int64_t at = first + o, j = at % form->nr;
        if (o < n) {
            qni_quant_read_row(row.codes, row.scales, row.biases, source, rows, o, form->n_in);
        } else {
            memset(row.codes, 0, (size_t)form->n_in);
            memset(row.scales, 0, 2 * (size_t)qni_quant_n_group(source, form->n_in) * sizeof *row.scales);
        }
        if (values != NULL) {
            qni_quant_values(values, source, row.codes, row.scales, row.biases, form->n_in);
            float *to = (float *)data + at / form->nr * form->panel_stride + j;
            for (int64_t i = 0; i < form->n_in; i++) to[i * form->nr] = values[i];
        } else {
            unsigned char *panel = (unsigned char *)data + at / form->nr * form->panel_stride;
            pack_output(k, panel, &q, &row, source->group, j);
        }
    }
    qni_free(values);
    qni_quant_buffer_free(&row);
    return status;
}

/* --- read back one output, for the embedding --- */

void qni_cpu_read_output(const qni_cpu_kernels *k, float *out, const qni_weight *w, int64_t o, float *scratch) {
    const int dtype = qni_cpu_dtype(w->dtype);
    if (w->quant.kind != QNI_DENSE) {
        const qni_cpu_quant q = qni_cpu_quant_of(w);
        const unsigned char *panel = (const unsigned char *)w->data + o / w->nr * w->panel_stride;
        for (int64_t i = 0; i < w->n_in; i += k->kc) {
            int64_t n = qni_min_i64(k->kc, w->n_in - i);
            k->unpack(scratch, panel, &q, i, n);
            for (int64_t c = 0; c < n; c++) out[i + c] = scratch[c * w->nr + o % w->nr];
        }
        return;
    }
    const size_t bytes = qn_dtype_bytes(w->dtype);
    const unsigned char *data = w->data;
    if (w->ki == 1 && w->group_stride == 1) {
        k->widen[dtype](out, data + (size_t)element_index(w, 0, o) * bytes, w->n_in);
        return;
    }
    unsigned char *row = (unsigned char *)(w->dtype == QN_DTYPE_F32 ? out : scratch);
    for (int64_t i = 0; i < w->n_in; i++) {
        memcpy(row + (size_t)i * bytes, data + (size_t)element_index(w, i, o) * bytes, bytes);
    }
    if (w->dtype != QN_DTYPE_F32) k->widen[dtype](out, row, w->n_in);
}
