/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for cuBLASLt: D = A^T · B + beta · C, columns one after another, A and B bf16, sums in double. */
#include "kernels.h"

#include <cublasLt.h>

#include <stdlib.h>
#include <string.h>

struct cublasLtContext {
    int unused;
};
struct cublasLtMatmulDescOpaque_t {
    bool transposes;
};
struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType_t type;
    int64_t rows, columns, ld;
};
struct cublasLtMatmulPreferenceOpaque_t {
    size_t workspace;
    uint32_t alignment[4]; /* of A, B, C, D */
};

static void *make(size_t bytes) {
    void *made = calloc(1, bytes);
    if (made == NULL) fake_refuse("calloc");
    fake_count_blas(1);
    return made;
}

static cublasStatus_t destroy(void *made) {
    FAKE_CHECK(made != NULL);
    free(made);
    fake_count_blas(-1);
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_…";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    *out = make(sizeof **out);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return destroy(handle);
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale) {
    FAKE_CHECK(compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F);
    *out = make(sizeof **out);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    FAKE_CHECK(attribute == CUBLASLT_MATMUL_DESC_TRANSA && bytes == sizeof(cublasOperation_t));
    desc->transposes = *(const cublasOperation_t *)value == CUBLAS_OP_T;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    return destroy(desc);
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
    FAKE_CHECK((int64_t)rows <= ld && rows > 0 && columns > 0);
    *out = make(sizeof **out);
    **out = (struct cublasLtMatrixLayoutOpaque_t){type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return destroy(layout);
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    *out = make(sizeof **out);
    for (int i = 0; i < 4; i++) (*out)->alignment[i] = 256; /* unless it is set */
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
        FAKE_CHECK(bytes == sizeof(size_t));
        preference->workspace = *(const size_t *)value;
        return CUBLAS_STATUS_SUCCESS;
    }
    FAKE_CHECK(bytes == sizeof(uint32_t));
    preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = *(const uint32_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    return destroy(preference);
}

/* What an algorithm was found for, which it must be called with. */
typedef struct promise {
    struct cublasLtMatrixLayoutOpaque_t d;
    uint32_t alignment[4];
    size_t workspace;
} promise;
_Static_assert(sizeof(promise) <= sizeof(cublasLtMatmulAlgo_t), "a promise fits into an algorithm");

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *out, int *n_found) {
    FAKE_CHECK(handle != NULL && desc->transposes && n_wanted == 1 && a->type == CUDA_R_16BF && b->type == CUDA_R_16BF);
    FAKE_CHECK(a->rows == b->rows && d->rows == a->columns && d->columns == b->columns && c->type == d->type);
    promise p = {.d = *d, .workspace = preference->workspace};
    memcpy(p.alignment, preference->alignment, sizeof p.alignment);
    *out = (cublasLtMatmulHeuristicResult_t){.workspaceSize = p.workspace};
    memcpy(&out->algo, &p, sizeof p);
    *n_found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

typedef struct product {
    struct cublasLtMatrixLayoutOpaque_t a, b, d;
    const void *w, *x;
    void *out;
    float beta;
} product;

/* Beyond these many products a test would take too long: peaks are measured with such a one. */
static const int64_t most = 1LL << 34;

static void run_product(void *arguments) {
    const product *p = arguments;
    const qn_dtype out = p->d.type == CUDA_R_32F ? QN_DTYPE_F32 : QN_DTYPE_BF16;
    if (p->d.rows * p->d.columns * p->a.rows > most) return;
    const int64_t n_in = (int64_t)p->a.rows, n_out = (int64_t)p->d.rows, n_row = (int64_t)p->d.columns;
    double *x = fake_room((size_t)(n_in * n_row) * sizeof *x), *w = fake_room((size_t)n_in * sizeof *w);
    double *sums = fake_room((size_t)n_row * sizeof *sums);
    for (int64_t r = 0; r < n_row; r++) fake_widen(x + r, n_row, p->x, QN_DTYPE_BF16, r * p->b.ld, n_in);
    for (int64_t o = 0; o < n_out; o++) {
        fake_widen(w, 1, p->w, QN_DTYPE_BF16, o * p->a.ld, n_in);
        for (int64_t r = 0; r < n_row; r++) {
            sums[r] = p->beta != 0 ? (double)qni_load_f32(p->out, out, r * p->d.ld + o) : 0;
        }
        fake_add_products(sums, x, n_row, w, n_in);
        for (int64_t r = 0; r < n_row; r++) qni_store_f32(p->out, out, r * p->d.ld + o, (float)sums[r]);
    }
    free(x);
    free(w);
    free(sums);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    promise p;
    memcpy(&p, algorithm, sizeof p);
    FAKE_CHECK(handle != NULL && desc->transposes && c == d && c_layout == d_layout && workspace != NULL);
    FAKE_CHECK(*(const float *)alpha == 1 && workspace_bytes >= p.workspace);
    FAKE_CHECK(p.d.type == d_layout->type && p.d.rows == d_layout->rows && p.d.columns == d_layout->columns &&
               p.d.ld == d_layout->ld);
    const void *const at[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        if ((uintptr_t)at[i] % p.alignment[i] != 0) {
            fake_refuse("matrix %c of a product: %p is not aligned to %u bytes", "ABCD"[i], at[i],
                        (unsigned)p.alignment[i]);
        }
    }
    const product job = {*a_layout, *b_layout, *d_layout, a, b, d, *(const float *)beta};
    return fake_queue(stream, run_product, &job, sizeof job) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                            : CUBLAS_STATUS_EXECUTION_FAILED;
}
