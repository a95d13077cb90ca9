/* SPDX-License-Identifier: Apache-2.0 */
/* Packed linears: a weight matrix in the backend's own layout, filled in ranges of outputs by the device's threads. */
#include "linear.h"

#include "../base/cut.h"
#include "../base/half.h"

#include <math.h>

/* Minimum elements per packing task, so that small matrices are not split too finely. */
enum { TASK_ELEMENTS = QNI_CUT(1 << 18, 1 << 10) };

qn_status qni_linear_create(qn_linear **out, qn_device *device, const qni_source *source, qn_error *err) {
    qni_packing packing = {0};
    QN_TRY(device->backend->packing(device->state, &packing, source, err));
    qn_linear *linear = qni_calloc(1, sizeof *linear);
    if (linear == NULL) return qni_fail(err, QN_ENOMEM, "linear: no memory");
    qn_status status = qni_buffer_create(device, &linear->data, packing.bytes, QNI_MEMORY_WEIGHTS, "linear", err);
    if (status != QN_OK) {
        qni_free(linear);
        return status;
    }
    linear->device = device;
    linear->weight = packing.form;
    linear->weight.data = linear->data.address;
    qni_device_retain(device);
    *out = linear;
    return QN_OK;
}

void qn_linear_free(qn_linear *linear) {
    if (linear == NULL) return;
    qni_buffer_free(linear->device, &linear->data);
    qni_device_release(linear->device);
    qni_free(linear);
}

/* Whether all nonzero values of n bf16 are near 1. */
static bool are_near_bf16(const uint16_t *x, int64_t n) {
    const int16_t least = (int16_t)qni_bf16_of_f32(QNI_NEAR_LEAST), most = (int16_t)qni_bf16_of_f32(QNI_NEAR_MOST);
    int16_t far = 0;
    for (int64_t i = 0; i < n; i++) { /* 16-bit operations only: the most lanes per vector */
        const int16_t magnitude = (int16_t)(x[i] & 0x7FFF);
        far |= (int16_t)((magnitude > 0) & (magnitude < least)) | (int16_t)(magnitude > most);
    }
    return far == 0;
}

static bool are_near_rows(const qni_dense_rows *rows, int64_t n, int64_t n_in) {
    bool near = true;
    for (int64_t o = 0; o < n && near; o++) {
        const uint16_t *row = (const uint16_t *)rows->data + o * rows->out_stride;
        if (rows->in_stride == 1) {
            near = are_near_bf16(row, n_in);
        } else {
            for (int64_t i = 0; i < n_in; i++) near = near && are_near_bf16(row + i * rows->in_stride, 1);
        }
    }
    return near;
}

/* Whether all nonzero scales or biases of n are near 1, with `least` as the lower bound; false if any is NaN. */
static bool are_near_scales(const void *values, qn_dtype dtype, int64_t n, float least) {
    bool near = true;
    for (int64_t i = 0; i < n; i++) {
        const float x = fabsf(qni_load_f32(values, dtype, i));
        near = near && (x == 0 || (x >= least && x <= QNI_NEAR_MOST));
    }
    return near;
}

void qni_linear_finish(qni_filling *filling) {
    qni_weight *w = filling->weight;
    w->far = atomic_load(&filling->far);
    if (w->far && w->arith == QN_ARITH_INT8) w->arith = QN_ARITH_F32;
}

/* Weights are const to all who use them. */
static void *data_of(const qni_weight *weight) {
    return (void *)(uintptr_t)weight->data;
}

void qni_linear_fill(qni_filling *filling, int64_t first, int64_t n, const qni_dense_rows *rows) {
    const qn_device *device = filling->device;
    const qni_weight *w = filling->weight;
    if (w->arith == QN_ARITH_BF16 && !are_near_rows(rows, n, w->n_in)) atomic_store(&filling->far, true);
    device->backend->pack(device->state, w, data_of(w), first, n, rows->data, rows->in_stride, rows->out_stride);
}

qn_status qni_linear_fill_quantized(qni_filling *filling, int64_t first, int64_t n, const qni_quant *source,
                                    const qni_quant_rows *rows, qn_error *err) {
    const qn_device *device = filling->device;
    const qni_weight *w = filling->weight;
    const int64_t n_scale = n * qni_quant_n_group(source, w->n_in);
    if (w->arith == QN_ARITH_INT8 &&
        (!are_near_scales(rows->scales, source->scale_dtype, n_scale, QNI_NEAR_LEAST) ||
         (rows->biases != NULL &&
          /* as small as they like */ !are_near_scales(rows->biases, source->scale_dtype, n_scale, 0)))) {
        atomic_store(&filling->far, true);
    }
    return device->backend->pack_quantized(device->state, w, data_of(w), first, n, source, rows, err);
}

/* Convert a row to f32. */
static void widen_row(float *row, const qni_dense_rows *rows, int64_t o, int64_t n_in) {
    const int64_t first = o * rows->out_stride, stride = rows->in_stride;
    if (rows->dtype == QN_DTYPE_BF16 && stride == 1) { /* the common case, as a loop that the compiler vectorizes */
        const uint16_t *from = (const uint16_t *)rows->data + first;
        for (int64_t i = 0; i < n_in; i++) row[i] = qni_f32_of_bf16(from[i]);
        return;
    }
    for (int64_t i = 0; i < n_in; i++) row[i] = qni_load_f32(rows->data, rows->dtype, first + i * stride);
}

qn_status qni_quantize_rows(const qni_quantized_rows *out, const qni_quant *to, const qni_dense_rows *rows,
                            int64_t first, int64_t n, int64_t n_in, qn_error *err) {
    const int64_t n_scale = n_in / to->group, code_bytes = qni_quant_code_bytes(to, n_in);
    for (int64_t o = 0; o < n; o++) {
        widen_row(out->row, rows, o, n_in);
        const int64_t bad = qni_quantize_row(out->codes + o * code_bytes, out->scales + o * n_scale,
                                             out->biases + o * n_scale, to, out->row, n_in);
        if (bad < 0) continue;
        return qni_fail(err, QN_EFORMAT, "output %lld, input %lld: %g cannot be quantized to %d bits",
                        (long long)(first + o), (long long)bad, (double)out->row[bad], (int)to->bits);
    }
    return QN_OK;
}

qn_status qni_linear_quantize(qni_filling *filling, int64_t first, int64_t n, const qni_quant *to,
                              const qni_dense_rows *rows, qn_error *err) {
    const int64_t n_in = filling->weight->n_in, n_scale = n_in / to->group;
    const int64_t code_bytes = qni_quant_code_bytes(to, n_in);
    float *row = qni_calloc((size_t)n_in, sizeof *row);
    uint16_t *scales = qni_calloc((size_t)(2 * n * n_scale), sizeof *scales);
    unsigned char *codes = qni_calloc((size_t)n, (size_t)code_bytes);
    qn_status status = QN_OK;
    if (row == NULL || scales == NULL || codes == NULL) {
        status = qni_fail(err, QN_ENOMEM, "linear: no memory to quantize %lld rows", (long long)n);
    } else {
        const qni_quantized_rows out = {codes, scales, scales + n * n_scale, row};
        status = qni_quantize_rows(&out, to, rows, first, n, n_in, err);
        qni_quant_rows made = {codes, (const unsigned char *)scales, (const unsigned char *)out.biases};
        if (status == QN_OK) status = qni_linear_fill_quantized(filling, first, n, to, &made, err);
    }
    qni_free(codes);
    qni_free(scales);
    qni_free(row);
    return status;
}

/* Outputs [first, first + n) from the caller's tensors, which are copied to the host first. */
typedef struct pack_job {
    qni_filling filling;
    const qn_tensor *weight; /* dense and quantize */
    int in;                  /* index of the input axis */
    qni_quant quant;         /* quantize: target format; quantized: source format */
    const qn_quantized *of;  /* quantized */
    int64_t n_per_task;      /* outputs, whole panels */
    qn_status (*fill)(struct pack_job *job, int64_t first, int64_t n, qn_error *err);

    pthread_mutex_t lock; /* guards the fields below: the error of the first task that failed */
    qn_status status;
    qn_error error;
    int32_t failed;
} pack_job;

static qn_status read_device(const pack_job *job, void *to, const unsigned char *from, int64_t bytes, qn_error *err) {
    const qn_device *device = job->filling.device;
    return device->backend->memory->read(device->state, to, from, (size_t)bytes, err);
}

/* Outputs [first, first + n) of the tensor, copied to host memory that the caller frees. */
static qn_status fetch_rows(const pack_job *job, qni_dense_rows *rows, int64_t first, int64_t n, qn_error *err) {
    const qn_tensor *t = job->weight;
    const bool by_rows = job->in == 1; /* {out, in} */
    const int64_t n_line = by_rows ? n : t->shape[0], line = by_rows ? t->shape[1] : n;
    const int64_t element = (int64_t)qn_dtype_bytes(t->dtype), at = first * t->stride[1 - job->in];
    unsigned char *host = qni_calloc((size_t)n_line, (size_t)(line * element));
    if (host == NULL) return qni_fail(err, QN_ENOMEM, "linear: no memory to pack %lld rows", (long long)n);
    *rows = (qni_dense_rows){host, t->dtype, by_rows ? 1 : line, by_rows ? line : 1};
    for (int64_t i = 0; i < n_line; i++) {
        qn_status status = read_device(job, host + i * line * element, t->data + (at + i * t->stride[0]) * element,
                                       line * element, err);
        if (status == QN_OK) continue;
        qni_free(host);
        return status;
    }
    return QN_OK;
}

static qn_status fill_dense(pack_job *job, int64_t first, int64_t n, qn_error *err) {
    qni_dense_rows rows;
    QN_TRY(fetch_rows(job, &rows, first, n, err));
    qni_linear_fill(&job->filling, first, n, &rows);
    qni_free((void *)(uintptr_t)rows.data);
    return QN_OK;
}

static qn_status fill_quantize(pack_job *job, int64_t first, int64_t n, qn_error *err) {
    qni_dense_rows rows;
    QN_TRY(fetch_rows(job, &rows, first, n, err));
    qn_error detail = {0};
    const qn_status status = qni_linear_quantize(&job->filling, first, n, &job->quant, &rows, &detail);
    qni_free((void *)(uintptr_t)rows.data);
    if (status == QN_EFORMAT) return qni_fail(err, QN_EINVAL, "weight: %s", detail.message);
    return status == QN_OK ? QN_OK : qni_fail(err, status, "%s", detail.message);
}

/* Symmetric codes are centered on their zero: -zero · scale is a bias that some kernels form. */
static qn_status check_symmetric(const qni_quant *q, const void *scales, int64_t n, qn_error *err) {
    const float factor = -(float)(1 << (q->bits - 1));
    for (int64_t i = 0; i < n; i++) {
        const float scale = qni_load_f32(scales, q->scale_dtype, i);
        if (!isfinite(scale) || isfinite(factor * scale)) continue;
        return qni_fail(err, QN_EINVAL, "scales: %g times %g, the bias of a symmetric code, is not finite",
                        (double)factor, (double)scale);
    }
    return QN_OK;
}

static qn_status fill_quantized(pack_job *job, int64_t first, int64_t n, qn_error *err) {
    const qni_quant *q = &job->quant;
    const qn_quantized *of = job->of;
    const int64_t n_in = job->filling.weight->n_in, row = qni_quant_code_bytes(q, n_in);
    const int64_t scale_row = qni_quant_scale_bytes(q, n_in), scale_at = first / q->group_out * scale_row;
    const int64_t scale_bytes = qni_ceil_div(n, q->group_out) * scale_row;
    unsigned char *host = qni_calloc((size_t)(n * row + 2 * scale_bytes), 1);
    if (host == NULL) return qni_fail(err, QN_ENOMEM, "linear: no memory to pack %lld rows", (long long)n);
    /* Scales first, for alignment: they have up to four bytes, codes are bytes. */
    qni_quant_rows rows = {.codes = host + 2 * scale_bytes, .scales = host};
    if (of->biases != NULL) rows.biases = host + scale_bytes;
    qn_status status = read_device(job, host + 2 * scale_bytes, of->codes->data + first * row, n * row, err);
    if (status == QN_OK) status = read_device(job, host, of->scales->data + scale_at, scale_bytes, err);
    if (status == QN_OK && of->biases != NULL) {
        status = read_device(job, host + scale_bytes, of->biases->data + scale_at, scale_bytes, err);
    }
    if (status == QN_OK && q->symmetric) status = check_symmetric(q, rows.scales, n * qni_quant_n_group(q, n_in), err);
    if (status == QN_OK) status = qni_linear_fill_quantized(&job->filling, first, n, q, &rows, err);
    qni_free(host);
    return status;
}

static void pack_task(void *context, int32_t task, int32_t thread) {
    (void)thread;
    pack_job *job = context;
    int64_t first = task * job->n_per_task;
    int64_t n = qni_min_i64(job->n_per_task, job->filling.weight->n_out - first);
    qn_error error = {0};
    qn_status status = job->fill(job, first, n, &error);
    if (status == QN_OK) return;
    pthread_mutex_lock(&job->lock);
    if (job->status == QN_OK || task < job->failed) {
        job->status = status;
        job->error = error;
        job->failed = task;
    }
    pthread_mutex_unlock(&job->lock);
}

/* Create the linear and fill all outputs on the device's threads. Tasks are whole panels and, for fp8, whole groups of
 * outputs. */
static qn_status pack(qn_linear **out, pack_job *job, qn_device *device, const qni_source *source, qn_error *err) {
    qn_linear *linear;
    QN_TRY(qni_linear_create(&linear, device, source, err));
    const qni_weight *form = &linear->weight;
    job->filling = (qni_filling){.device = device, .weight = &linear->weight};
    int64_t unit = qni_linear_unit(form, source);
    int64_t n_unit = qni_ceil_div(form->n_out, unit);
    int64_t units_per_task = qni_ceil_div(TASK_ELEMENTS, qni_max_i64(1, unit * form->n_in));
    units_per_task = qni_max_i64(units_per_task, qni_ceil_div(n_unit, INT32_MAX));
    job->n_per_task = units_per_task * unit;
    int32_t n_task = (int32_t)qni_ceil_div(n_unit, units_per_task);
    const qn_status locked = qni_device_lock(device, err);
    if (locked != QN_OK) {
        qn_linear_free(linear);
        return locked;
    }
    pthread_mutex_init(&job->lock, NULL);
    if (device->backend->parallel != NULL) {
        device->backend->parallel(device->state, n_task, pack_task, job);
    } else {
        for (int32_t task = 0; task < n_task; task++) pack_task(job, task, 0);
    }
    qni_device_unlock(device);
    pthread_mutex_destroy(&job->lock);
    if (job->status != QN_OK) {
        qn_linear_free(linear);
        return qni_fail(err, job->status, "%s", job->error.message);
    }
    qni_linear_finish(&job->filling);
    *out = linear;
    return QN_OK;
}

static qn_status check_weight(const qn_linear *const *out, const qn_tensor *weight, qn_linear_layout layout,
                              qn_arith arith, qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    if (weight == NULL) return qni_fail(err, QN_EINVAL, "weight: is NULL");
    if (layout != QN_LAYOUT_IN_OUT && layout != QN_LAYOUT_OUT_IN) {
        return qni_fail(err, QN_EINVAL, "layout: %d is none", (int)layout);
    }
    if (arith < QN_ARITH_AUTO || arith > QN_ARITH_INT8)
        return qni_fail(err, QN_EINVAL, "arith: %d is none", (int)arith);
    if (weight->rank != 2) return qni_fail(err, QN_EINVAL, "weight: rank must be 2, got %d", (int)weight->rank);
    if (weight->dtype != QN_DTYPE_F32 && weight->dtype != QN_DTYPE_BF16 && weight->dtype != QN_DTYPE_F16) {
        return qni_fail(err, QN_EINVAL, "weight: dtype must be f32, bf16 or f16, got %s", qn_dtype_name(weight->dtype));
    }
    return QN_OK;
}

qn_status qn_linear_pack(qn_linear **out, const qn_tensor *weight, qn_linear_layout layout, qn_arith arith,
                         qn_error *err) {
    QN_TRY(check_weight((const qn_linear *const *)out, weight, layout, arith, err));
    int in = layout == QN_LAYOUT_IN_OUT ? 0 : 1;
    qni_source source = {
        .dtype = weight->dtype, .arith = arith, .n_in = weight->shape[in], .n_out = weight->shape[1 - in]};
    pack_job job = {.weight = weight, .in = in, .fill = fill_dense};
    return pack(out, &job, weight->storage->device, &source, err);
}

qn_status qn_linear_quantize(qn_linear **out, const qn_tensor *weight, qn_linear_layout layout, qn_quantize to,
                             qn_arith arith, qn_error *err) {
    if (to == QN_QUANTIZE_NONE) return qn_linear_pack(out, weight, layout, arith, err);
    QN_TRY(check_weight((const qn_linear *const *)out, weight, layout, arith, err));
    if (to != QN_QUANTIZE_Q8 && to != QN_QUANTIZE_Q4) return qni_fail(err, QN_EINVAL, "quantize: %d is none", (int)to);
    int in = layout == QN_LAYOUT_IN_OUT ? 0 : 1;
    qni_source source = {
        .quant = qni_quant_of(to), .arith = arith, .n_in = weight->shape[in], .n_out = weight->shape[1 - in]};
    if (source.n_in % source.quant.group != 0) {
        return qni_fail(err, QN_EINVAL, "weight: inputs must be a multiple of the group, %lld, got %lld",
                        (long long)source.quant.group, (long long)source.n_in);
    }
    pack_job job = {.weight = weight, .in = in, .quant = source.quant, .fill = fill_quantize};
    return pack(out, &job, weight->storage->device, &source, err);
}

qn_status qn_linear_pack_quantized(qn_linear **out, const qn_quantized *weight, qn_arith arith, qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "out: is NULL");
    if (weight == NULL) return qni_fail(err, QN_EINVAL, "weight: is NULL");
    if (arith < QN_ARITH_AUTO || arith > QN_ARITH_INT8)
        return qni_fail(err, QN_EINVAL, "arith: %d is none", (int)arith);
    qni_source source = {.arith = arith};
    QN_TRY(qni_quantized_check(&source, weight, err));
    pack_job job = {.quant = source.quant, .of = weight, .fill = fill_quantized};
    return pack(out, &job, weight->codes->storage->device, &source, err);
}

int64_t qn_linear_n_in(const qn_linear *linear) {
    return linear != NULL ? linear->weight.n_in : 0;
}
int64_t qn_linear_n_out(const qn_linear *linear) {
    return linear != NULL ? linear->weight.n_out : 0;
}
size_t qn_linear_bytes(const qn_linear *linear) {
    return linear != NULL ? linear->data.bytes : 0;
}
qn_dtype qn_linear_dtype(const qn_linear *linear) {
    return linear != NULL ? linear->weight.dtype : QN_DTYPE_DEFAULT;
}
qn_arith qn_linear_arith(const qn_linear *linear) {
    return linear != NULL ? linear->weight.arith : QN_ARITH_AUTO;
}
