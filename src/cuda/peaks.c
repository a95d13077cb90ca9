/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU's peak rates, measured: what the results of quern bench are compared with. */
#include "cuda.h"

enum { SIZE = 8192, N_ROUND = 5 };
static const size_t READ_BYTES = (size_t)2 << 30, COPY_BYTES = (size_t)64 << 20;

typedef struct measurement {
    qni_cuda *c;
    cudaEvent_t begin, end;
    unsigned char *data; /* READ_BYTES */
    void *host;          /* COPY_BYTES, pinned */
} measurement;

typedef qn_status (*loop)(measurement *m, qn_error *err);

static qn_status read_loop(measurement *m, qn_error *err) {
    QNI_CUDA_TRY(m->c, qni_cuda_peak_read(m->c->stream, m->data, READ_BYTES, m->c->n_sm, m->data), "peaks", err);
    return QN_OK;
}

static qn_status f32_loop(measurement *m, qn_error *err) {
    QNI_CUDA_TRY(m->c, qni_cuda_peak_multiply(m->c->stream, m->c->n_sm, m->data), "peaks", err);
    return QN_OK;
}

static qn_status copy_loop(measurement *m, qn_error *err) {
    QNI_CUDA_TRY(m->c, cudaMemcpyAsync(m->data, m->host, COPY_BYTES, cudaMemcpyHostToDevice, m->c->stream), "peaks",
                 err);
    return QN_OK;
}

/* A product of square matrices in bf16. */
static qn_status bf16_loop(measurement *m, qn_error *err) {
    const size_t matrix = (size_t)SIZE * SIZE * 2;
    const qni_mat x = qni_mat_of(m->data, QN_DTYPE_BF16, SIZE, SIZE);
    const qni_mat out = qni_mat_of(m->data + 2 * matrix, QN_DTYPE_BF16, SIZE, SIZE);
    return qni_cuda_gemm(m->c, out, (qni_mat){0}, x, m->data + matrix, SIZE, err);
}

/* The best of several runs, in seconds; the first warms up. */
static qn_status best_of(measurement *m, loop run, double *seconds, qn_error *err) {
    qni_cuda *c = m->c;
    *seconds = 0;
    for (int i = 0; i <= N_ROUND; i++) {
        float ms = 0;
        QNI_CUDA_TRY(c, cudaEventRecord(m->begin, c->stream), "peaks", err);
        QN_TRY(run(m, err));
        QNI_CUDA_TRY(c, cudaEventRecord(m->end, c->stream), "peaks", err);
        QNI_CUDA_TRY(c, cudaEventSynchronize(m->end), "peaks", err);
        QNI_CUDA_TRY(c, cudaEventElapsedTime(&ms, m->begin, m->end), "peaks", err);
        if (i > 0 && (*seconds == 0 || ms * 1e-3 < *seconds)) *seconds = (double)ms * 1e-3;
    }
    return QN_OK;
}

static qn_status measure(measurement *m, qn_device_peaks *out, qn_error *err) {
    qni_cuda *c = m->c;
    double seconds = 0;
    void *memory = NULL;
    QNI_CUDA_TRY(c, cudaEventCreate(&m->begin), "peaks", err);
    QNI_CUDA_TRY(c, cudaEventCreate(&m->end), "peaks", err);
    QNI_CUDA_TRY(c, cudaMallocHost(&m->host, COPY_BYTES), "peaks", err);
    QNI_CUDA_TRY(c, cudaMalloc(&memory, READ_BYTES), "peaks", err);
    m->data = memory;
    QNI_CUDA_TRY(c, qni_cuda_peak_fill(c->stream, m->data, READ_BYTES, c->n_sm), "peaks", err);
    QN_TRY(best_of(m, read_loop, &seconds, err));
    out->read_bytes = (double)READ_BYTES / seconds;
    QN_TRY(best_of(m, bf16_loop, &seconds, err));
    out->bf16_ops = 2.0 * SIZE * SIZE * SIZE / seconds;
    QN_TRY(best_of(m, f32_loop, &seconds, err));
    out->f32_ops = qni_cuda_peak_multiply_ops(c->n_sm) / seconds;
    QN_TRY(best_of(m, copy_loop, &seconds, err));
    out->upload_bytes = (double)COPY_BYTES / seconds;
    return QN_OK;
}

qn_status qni_cuda_measure_peaks(void *state, qn_device_peaks *out, qn_error *err) {
    measurement m = {.c = state};
    qn_device_peaks peaks = {0};
    (void)cudaSetDevice(m.c->device);
    const qn_status status = measure(&m, &peaks, err);
    if (m.begin != NULL) (void)cudaEventDestroy(m.begin);
    if (m.end != NULL) (void)cudaEventDestroy(m.end);
    (void)cudaFreeHost(m.host);
    (void)cudaFree(m.data);
    if (status == QN_OK) *out = peaks;
    return status;
}
