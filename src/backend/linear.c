/* SPDX-License-Identifier: Apache-2.0 */
/* Packed linears: a backend's own form of a weight matrix, filled in ranges of outputs by the device's threads. */
#include "tensor.h"

/* Elements that one task of a packing loop moves at least, so that small matrices are not cut to crumbs. */
enum { TASK_ELEMENTS = 1 << 18 };

qn_status qni_linear_create(qn_linear **out, qn_device *device, qn_dtype dtype, qn_arith arith, int64_t n_in,
                            int64_t n_out, qn_error *err) {
    qni_packing packing = {0};
    QN_TRY(device->backend->packing(device->state, &packing, dtype, arith, n_in, n_out, err));
    qn_linear *linear = qni_calloc(1, sizeof *linear);
    if (linear == NULL) return qni_fail(err, QN_ENOMEM, "linear: no memory");
    linear->data = qni_device_alloc(&device->allocator, packing.bytes);
    if (linear->data == NULL) {
        qni_free(linear);
        return qni_fail(err, QN_ENOMEM, "linear: no memory for %zu bytes", packing.bytes);
    }
    qni_advise_large_pages(linear->data, packing.bytes);
    linear->device = device;
    linear->bytes = packing.bytes;
    linear->weight = packing.form;
    linear->weight.data = linear->data;
    qni_device_retain(device);
    *out = linear;
    return QN_OK;
}

void qn_linear_free(qn_linear *linear) {
    if (linear == NULL) return;
    qni_device_free(&linear->device->allocator, linear->data, linear->bytes);
    qni_device_release(linear->device);
    qni_free(linear);
}

typedef struct pack_job {
    const qn_linear *linear;
    const qn_tensor *source;
    int64_t in_stride, out_stride;
    int64_t n_per_task; /* outputs, whole panels */
} pack_job;

static void pack_task(void *context, int32_t task, int32_t thread) {
    (void)thread;
    const pack_job *job = context;
    const qni_weight *form = &job->linear->weight;
    int64_t first = task * job->n_per_task;
    int64_t n = qni_min_i64(job->n_per_task, form->n_out - first);
    const unsigned char *src = job->source->data + (size_t)(first * job->out_stride) * qn_dtype_bytes(form->dtype);
    job->linear->device->backend->pack(job->linear->device->state, form, job->linear->data, first, n, src,
                                       job->in_stride, job->out_stride);
}

qn_status qn_linear_pack(qn_linear **out, const qn_tensor *weight, qn_linear_layout layout, qn_arith arith,
                         qn_error *err) {
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
    int in = layout == QN_LAYOUT_IN_OUT ? 0 : 1;
    qn_linear *linear;
    qn_device *device = weight->storage->device;
    QN_TRY(qni_linear_create(&linear, device, weight->dtype, arith, weight->shape[in], weight->shape[1 - in], err));

    const qni_weight *form = &linear->weight;
    int64_t n_panel = qni_ceil_div(form->n_out, form->nr);
    int64_t panels_per_task = qni_ceil_div(TASK_ELEMENTS, qni_max_i64(1, form->nr * form->n_in));
    panels_per_task = qni_max_i64(panels_per_task, qni_ceil_div(n_panel, INT32_MAX));
    pack_job job = {.linear = linear,
                    .source = weight,
                    .in_stride = weight->stride[in],
                    .out_stride = weight->stride[1 - in],
                    .n_per_task = panels_per_task * form->nr};
    int32_t n_task = (int32_t)qni_ceil_div(n_panel, panels_per_task);
    pthread_mutex_lock(&device->lock);
    if (device->backend->parallel != NULL) {
        device->backend->parallel(device->state, n_task, pack_task, &job);
    } else {
        for (int32_t task = 0; task < n_task; task++) pack_task(&job, task, 0);
    }
    pthread_mutex_unlock(&device->lock);
    *out = linear;
    return QN_OK;
}

int64_t qn_linear_n_in(const qn_linear *linear) {
    return linear != NULL ? linear->weight.n_in : 0;
}
int64_t qn_linear_n_out(const qn_linear *linear) {
    return linear != NULL ? linear->weight.n_out : 0;
}
size_t qn_linear_bytes(const qn_linear *linear) {
    return linear != NULL ? linear->bytes : 0;
}
qn_dtype qn_linear_dtype(const qn_linear *linear) {
    return linear != NULL ? linear->weight.dtype : QN_DTYPE_DEFAULT;
}
qn_arith qn_linear_arith(const qn_linear *linear) {
    return linear != NULL ? linear->weight.arith : QN_ARITH_AUTO;
}
