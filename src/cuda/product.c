/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kernels multiply. A weight of bf16 arithmetic: up to 16 rows by the skinny kernels, which stream the weight; more
 * by cuBLASLt, a quantized weight dequantized to bf16 before. Any other weight, and shapes that those do not take: the
 * kernels of linear.cu.
 */
#include "cuda.h"

/* What the tensor cores' kernels read and write. */
static bool suits(const qni_mat *m) {
    return (m->dtype == QN_DTYPE_F32 || m->dtype == QN_DTYPE_BF16) && qni_cuda_is_even(m);
}

/* x in bf16, in workspace unless it is already. */
static qn_status round_rows(const qni_run *run, qni_mat *out, qni_mat x) {
    *out = x;
    if (x.dtype == QN_DTYPE_BF16 && suits(&x) && !qni_scratch_measures(run->scratch)) return QN_OK;
    *out = qni_mat_of(qni_scratch_array(run->scratch, x.n_row, x.n_col, 2), QN_DTYPE_BF16, x.n_row, x.n_col);
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    qni_cuda *c = qni_cuda_of(run);
    QNI_CUDA_TRY(c, qni_cuda_convert(c->stream, *out, x), "linear", run->err);
    return QN_OK;
}

/* The weight in bf16, in workspace unless it is dense. */
static qn_status dense_weight(const qni_run *run, const void **out, const qni_weight *w) {
    *out = w->data;
    if (w->quant.kind == QNI_DENSE) return QN_OK;
    void *dense = qni_scratch_array(run->scratch, w->n_out, w->n_in, 2);
    *out = dense;
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    qni_cuda *c = qni_cuda_of(run);
    QNI_CUDA_TRY(c, qni_cuda_dequantize(c->stream, dense, w), "linear", run->err);
    return QN_OK;
}

bool qni_cuda_is_fast(const qni_weight *w) {
    return w->packed && w->arith == QN_ARITH_BF16 && qni_cuda_skinny_takes(w);
}

qn_status qni_cuda_many(const qni_run *run, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w) {
    const size_t mark = run->scratch->used;
    qni_mat rounded;
    const void *dense;
    QN_TRY(round_rows(run, &rounded, x));
    QN_TRY(dense_weight(run, &dense, w));
    if (!qni_scratch_measures(run->scratch)) {
        QN_TRY(qni_cuda_gemm(qni_cuda_of(run), out, add, rounded, dense, w->n_out, run->err));
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

/* Few rows: the kernels stream the weight. */
static qn_status multiply_few(const qni_run *run, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w) {
    const size_t mark = run->scratch->used;
    qni_mat rows = x;
    if (!suits(&x)) QN_TRY(round_rows(run, &rows, x));
    qni_cuda *c = qni_cuda_of(run);
    const qni_cuda_skinny job = {.w = {*w},
                                 .n_weight = 1,
                                 .x = rows,
                                 .epilogue = add.data != NULL ? QNI_CUDA_ADD : QNI_CUDA_STORE,
                                 .out = out,
                                 .add = add};
    QNI_CUDA_TRY(c, qni_cuda_skinny_run(c->stream, &job, c->n_sm, true), "linear", run->err);
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cuda_product(const qni_run *run, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w) {
    const bool fast = qni_cuda_is_fast(w) && suits(&out) && (add.data == NULL || suits(&add));
    const bool measures = qni_scratch_measures(run->scratch);
    /* measured for any number of rows: a call with fewer must not need more */
    if (fast && (measures || x.n_row > QNI_CUDA_SKINNY_ROWS)) return qni_cuda_many(run, out, add, x, w);
    if (measures) return QN_OK;
    if (fast) return multiply_few(run, out, add, x, w);
    qni_cuda *c = qni_cuda_of(run);
    QNI_CUDA_TRY(c, qni_cuda_linear(c->stream, out, add, x, w, w->arith == QN_ARITH_BF16), "linear", run->err);
    return QN_OK;
}
