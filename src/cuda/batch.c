/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch of a step on the device. The `rope` op, which comes before a step's layers, copies it there; the layers find
 * it by the angles that were computed from it.
 */
#include "cuda.h"

#include <string.h>

qn_status qni_cuda_batch_put(qni_cuda *c, const qni_batch *batch, qn_error *err) {
    const size_t n_tok = (size_t)batch->n_tok, n_seq = (size_t)batch->n_seq;
    const size_t n_table = n_seq * (size_t)batch->max_block, n = 2 * n_tok + 2 * n_seq + 1 + n_table;
    QN_TRY(qni_cuda_grow(c, &c->batch_ints, n * sizeof(int32_t), true, "batch", err));
    int32_t *tok_seq = c->batch_ints.host, *tok_pos = tok_seq + n_tok, *tok_begin = tok_pos + n_tok;
    int32_t *pos_begin = tok_begin + n_seq + 1, *table = pos_begin + n_seq, max_pos = 0;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        for (int32_t t = batch->tok_begin[s]; t < batch->tok_begin[s + 1]; t++) {
            tok_seq[t] = s;
            tok_pos[t] = batch->pos_begin[s] + t - batch->tok_begin[s];
            max_pos = tok_pos[t] > max_pos ? tok_pos[t] : max_pos;
        }
    }
    memcpy(tok_begin, batch->tok_begin, (n_seq + 1) * sizeof *tok_begin);
    memcpy(pos_begin, batch->pos_begin, n_seq * sizeof *pos_begin);
    memcpy(table, batch->block_table, n_table * sizeof *table);
    const int32_t *device = c->batch_ints.device;
    c->batch = (qni_cuda_batch){.n_tok = (int32_t)n_tok,
                                .n_seq = batch->n_seq,
                                .max_block = batch->max_block,
                                .max_pos = max_pos,
                                .tok_seq = device,
                                .tok_pos = device + (tok_pos - tok_seq),
                                .tok_begin = device + (tok_begin - tok_seq),
                                .pos_begin = device + (pos_begin - tok_seq),
                                .block_table = device + (table - tok_seq)};
    QNI_CUDA_TRY(c,
                 cudaMemcpyAsync(c->batch_ints.device, tok_seq, n * sizeof *tok_seq, cudaMemcpyHostToDevice, c->stream),
                 "batch", err);
    return QN_OK;
}

qn_status qni_cuda_batch_check(qni_cuda *c, const qni_attention_call *call, qn_error *err) {
    if (c->batch_cos_sin == call->cos_sin && c->batch.n_tok == call->batch->n_tok) return QN_OK;
    return c->host->fail(err, QN_EDEVICE, "kv_attention: the angles are not those of the last `rope` op");
}

qn_status qni_cuda_op_rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    qni_cuda *c = qni_cuda_of(run);
    QN_TRY(qni_cuda_batch_put(c, batch, run->err));
    QNI_CUDA_TRY(c,
                 cudaMemcpyAsync(c->inv_freq, rope->inv_freq, (size_t)cos_sin.n_col / 2 * sizeof *c->inv_freq,
                                 cudaMemcpyHostToDevice, c->stream),
                 "rope", run->err);
    c->batch_cos_sin = cos_sin.data;
    QNI_CUDA_TRY(c, qni_cuda_rope(c->stream, cos_sin, c->batch.tok_pos, c->inv_freq, rope->attention_factor), "rope",
                 run->err);
    return QN_OK;
}
