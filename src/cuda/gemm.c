/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of many rows in bf16 with f32 sums, by cuBLASLt. Which of its kernels computes a shape is asked for once and
 * kept: asking takes longer than a small product.
 */
#include "cuda.h"

#include <cublasLt.h>

enum { WORKSPACE_BYTES = 64 << 20, MAX_CHOICE = 256, ALIGNMENT = 16 /* of every matrix, see qni_cuda_is_even() */ };

typedef struct choice {
    int64_t n_out, n_in, n_row; /* n_row: as computed */
    int64_t out_stride, x_stride;
    qn_dtype out;
    bool adds;
    cublasLtMatmulAlgo_t algorithm;
} choice;

struct qni_cuda_gemms {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    void *workspace;
    choice choices[MAX_CHOICE];
    int n_choice;
};

static qn_status fail_blas(qni_cuda *c, cublasStatus_t status, const char *what, qn_error *err) {
    if (status == CUBLAS_STATUS_EXECUTION_FAILED) return qni_cuda_fail(c, cudaErrorLaunchFailure, "linear", err);
    return c->host->fail(err, status == CUBLAS_STATUS_ALLOC_FAILED ? QN_ENOMEM : QN_EDEVICE, "cuBLASLt: %s: %s", what,
                         cublasLtGetStatusString(status));
}

#define BLAS_TRY(call, what)                                                                                           \
    do {                                                                                                               \
        const cublasStatus_t blas_status = (call);                                                                     \
        if (blas_status != CUBLAS_STATUS_SUCCESS) return fail_blas(c, blas_status, what, err);                         \
    } while (0)

qn_status qni_cuda_gemms_create(qni_cuda *c, qn_error *err) {
    c->gemms = c->host->calloc(1, sizeof *c->gemms);
    if (c->gemms == NULL) return c->host->fail(err, QN_ENOMEM, "cuda: no memory for the device");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    BLAS_TRY(cublasLtCreate(&c->gemms->handle), "create");
    BLAS_TRY(cublasLtMatmulDescCreate(&c->gemms->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "create");
    BLAS_TRY(
        cublasLtMatmulDescSetAttribute(c->gemms->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
        "create");
    QNI_CUDA_TRY(c, cudaMalloc(&c->gemms->workspace, WORKSPACE_BYTES), "cuda", err);
    return QN_OK;
}

void qni_cuda_gemms_free(qni_cuda *c) {
    qni_cuda_gemms *g = c->gemms;
    if (g == NULL) return;
    if (g->product != NULL) (void)cublasLtMatmulDescDestroy(g->product);
    if (g->handle != NULL) (void)cublasLtDestroy(g->handle);
    (void)cudaFree(g->workspace);
    c->host->free(g);
    c->gemms = NULL;
}

/* To cuBLASLt, matrices are stored by columns: ours are transposed, out^T {n_out, n_row} = W {n_out, n_in} · x^T. */
typedef struct layouts {
    cublasLtMatrixLayout_t w, x, out;
} layouts;

static void free_layouts(layouts *l) {
    if (l->w != NULL) (void)cublasLtMatrixLayoutDestroy(l->w);
    if (l->x != NULL) (void)cublasLtMatrixLayoutDestroy(l->x);
    if (l->out != NULL) (void)cublasLtMatrixLayoutDestroy(l->out);
}

static qn_status make_layouts(qni_cuda *c, layouts *l, const choice *k, qn_error *err) {
    const cudaDataType_t out = k->out == QN_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    const uint64_t n_out = (uint64_t)k->n_out, n_in = (uint64_t)k->n_in, n_row = (uint64_t)k->n_row;
    BLAS_TRY(cublasLtMatrixLayoutCreate(&l->w, CUDA_R_16BF, n_in, n_out, k->n_in), "layout");
    BLAS_TRY(cublasLtMatrixLayoutCreate(&l->x, CUDA_R_16BF, n_in, n_row, k->x_stride), "layout");
    BLAS_TRY(cublasLtMatrixLayoutCreate(&l->out, out, n_out, n_row, k->out_stride), "layout");
    return QN_OK;
}

static qn_status choose(qni_cuda *c, choice *k, const layouts *l, qn_error *err) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t alignment = ALIGNMENT;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    const size_t workspace = WORKSPACE_BYTES;
    int n = 0;
    BLAS_TRY(cublasLtMatmulPreferenceCreate(&preference), "choose");
    (void)cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                               sizeof workspace);
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        (void)cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &alignment, sizeof alignment);
    }
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(c->gemms->handle, c->gemms->product, l->w, l->x,
                                                                 l->out, l->out, preference, 1, &found, &n);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_SUCCESS && n == 0) return fail_blas(c, CUBLAS_STATUS_NOT_SUPPORTED, "choose", err);
    BLAS_TRY(status, "choose");
    k->algorithm = found.algo;
    return QN_OK;
}

/* The choice for a shape, from the table or made now. */
static qn_status find_choice(qni_cuda *c, choice *k, const layouts *l, qn_error *err) {
    qni_cuda_gemms *g = c->gemms;
    for (int i = 0; i < g->n_choice; i++) {
        const choice *have = &g->choices[i];
        if (have->n_out == k->n_out && have->n_in == k->n_in && have->n_row == k->n_row && have->out == k->out &&
            have->out_stride == k->out_stride && have->x_stride == k->x_stride && have->adds == k->adds) {
            k->algorithm = have->algorithm;
            return QN_OK;
        }
    }
    QN_TRY(choose(c, k, l, err));
    if (g->n_choice < MAX_CHOICE) g->choices[g->n_choice++] = *k;
    return QN_OK;
}

static qn_status multiply(qni_cuda *c, choice *k, const layouts *l, qni_mat out, qni_mat x, const void *w,
                          qn_error *err) {
    const float one = 1, before = k->adds ? 1 : 0;
    QN_TRY(find_choice(c, k, l, err));
    BLAS_TRY(cublasLtMatmul(c->gemms->handle, c->gemms->product, &one, w, l->w, x.data, l->x, &before, out.data, l->out,
                            out.data, l->out, &k->algorithm, c->gemms->workspace, WORKSPACE_BYTES, c->stream),
             "multiply");
    return QN_OK;
}

qn_status qni_cuda_gemm(qni_cuda *c, qni_mat out, qni_mat add, qni_mat x, const void *w, int64_t n_out, qn_error *err) {
    layouts l = {0};
    choice k = {.n_out = n_out,
                .n_in = x.n_col,
                .n_row = x.n_row,
                .out_stride = out.row_stride,
                .x_stride = x.row_stride,
                .out = out.dtype,
                .adds = add.data != NULL};
    if (k.adds && add.data != out.data) {
        QNI_CUDA_TRY(c, qni_cuda_convert(c->stream, out, add), "linear", err);
    }
    qn_status status = make_layouts(c, &l, &k, err);
    if (status == QN_OK) status = multiply(c, &k, &l, out, x, w, err);
    free_layouts(&l);
    return status;
}
