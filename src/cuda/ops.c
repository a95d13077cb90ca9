/* SPDX-License-Identifier: Apache-2.0 */
/* The small ops: each queues its kernels. */
#include "cuda.h"

/* Queue kernels unless the call only measures its workspace. */
#define QUEUE(run, call, what)                                                                                         \
    do {                                                                                                               \
        if (qni_scratch_measures((run)->scratch)) return QN_OK;                                                        \
        qni_cuda *c = qni_cuda_of(run);                                                                                \
        QNI_CUDA_TRY(c, call, what, (run)->err);                                                                       \
        return QN_OK;                                                                                                  \
    } while (0)

qn_status qni_cuda_op_embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids) {
    QUEUE(run, qni_cuda_embed(c->stream, out, table, ids), "embed");
}

qn_status qni_cuda_op_rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    QUEUE(run, qni_cuda_rms_norm(c->stream, out, x, weight, eps), "rms_norm");
}

qn_status qni_cuda_op_swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up) {
    QUEUE(run, qni_cuda_swiglu(c->stream, out, gate, up), "swiglu");
}

qn_status qni_cuda_op_linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight) {
    return qni_cuda_product(run, out, (qni_mat){0}, x, weight);
}

qn_status qni_cuda_op_linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight) {
    return qni_cuda_product(run, out, hidden, x, weight);
}

qn_status qni_cuda_op_kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                                   const qni_kv_layer *kv, const qni_attention_call *call) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    qni_cuda *c = qni_cuda_of(run);
    QN_TRY(qni_cuda_batch_check(c, call, run->err));
    QNI_CUDA_TRY(c, qni_cuda_attention(c->stream, out, q, k, v, kv, call->cos_sin, call->scale, &c->batch),
                 "kv_attention", run->err);
    return QN_OK;
}

/* NaN must leave the ids as they are, so they go to workspace first. */
qn_status qni_cuda_op_argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid) {
    const size_t mark = run->scratch->used;
    void *work = qni_scratch_array(run->scratch, logits.n_row, QNI_CUDA_ARGMAX_WORK, 1);
    int32_t *found = qni_scratch_array(run->scratch, logits.n_row, 1, sizeof *found);
    const size_t bytes = (size_t)logits.n_row * sizeof *found;
    qn_status status = QN_OK;
    if (!qni_scratch_measures(run->scratch)) {
        qni_cuda *c = qni_cuda_of(run);
        QNI_CUDA_TRY(c, qni_cuda_argmax(c->stream, found, logits, n_valid, work), "argmax", run->err);
        int32_t *host = c->host->calloc((size_t)logits.n_row, sizeof *host);
        if (host == NULL) return c->host->fail(run->err, QN_ENOMEM, "argmax: no memory for the ids");
        status = qni_read(run, host, found, bytes);
        for (int64_t r = 0; r < logits.n_row && status == QN_OK; r++) {
            if (host[r] >= 0) continue;
            status = c->host->fail(run->err, QN_ENUMERIC, "logits: row %lld holds a NaN", (long long)r);
        }
        c->host->free(host);
        if (status == QN_OK) status = qni_copy(run, ids, found, bytes);
    }
    qni_scratch_reset(run->scratch, mark);
    return status;
}
