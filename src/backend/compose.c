/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The larger primitives, composed of smaller ones: for backends that omit them, and as a reference for those that do
 * not. Read in order, this is the Qwen3 layer (mlp, attention_block, layer), then what follows the last layer.
 *
 * Intermediates are f32 in scratch. The residual stream between the two halves of a layer has the dtype of `hidden`,
 * because it passes through `out`; fused implementations round at the same point.
 */
#include "backend.h"

/* A contiguous f32 matrix from scratch. */
static qni_mat take_mat(const qni_run *run, int64_t n_row, int64_t n_col) {
    return qni_mat_of(qni_scratch_array(run->scratch, n_row, n_col, sizeof(float)), QN_DTYPE_F32, n_row, n_col);
}

/* The heads of a contiguous projection: per token, and with one row per head. */
static qni_heads heads_of(qni_mat projection, int64_t head_dim) {
    return (qni_heads){projection, projection.n_col / head_dim, head_dim, head_dim};
}
static qni_mat head_rows(qni_heads heads) {
    return qni_mat_of(heads.rows.data, heads.rows.dtype, heads.rows.n_row * heads.n_head, heads.head_dim);
}

static qn_status mlp(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *w, double eps) {
    const qni_ops *ops = run->ops;
    size_t mark = run->scratch->used;
    qni_mat x = take_mat(run, hidden.n_row, hidden.n_col);
    qni_mat gate = take_mat(run, hidden.n_row, w->gate_proj.n_out);
    qni_mat up = take_mat(run, hidden.n_row, w->up_proj.n_out);
    QN_TRY(ops->rms_norm(run, x, hidden, w->norm, eps));
    QN_TRY(ops->linear(run, gate, x, &w->gate_proj));
    QN_TRY(ops->linear(run, up, x, &w->up_proj));
    QN_TRY(ops->swiglu(run, gate, gate, up));
    QN_TRY(ops->linear_add(run, out, hidden, gate, &w->down_proj));
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qn_status attention_block(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *w,
                                 const qni_kv_layer *kv, const qni_attention_call *call) {
    const qni_ops *ops = run->ops;
    size_t mark = run->scratch->used;
    qni_mat x = take_mat(run, hidden.n_row, hidden.n_col);
    qni_heads q = heads_of(take_mat(run, hidden.n_row, w->q_proj.n_out), kv->head_dim);
    qni_heads k = heads_of(take_mat(run, hidden.n_row, w->k_proj.n_out), kv->head_dim);
    qni_heads v = heads_of(take_mat(run, hidden.n_row, w->v_proj.n_out), kv->head_dim);
    qni_mat attn = take_mat(run, hidden.n_row, w->q_proj.n_out);
    QN_TRY(ops->rms_norm(run, x, hidden, w->norm, call->eps));
    QN_TRY(ops->linear(run, q.rows, x, &w->q_proj));
    QN_TRY(ops->linear(run, k.rows, x, &w->k_proj));
    QN_TRY(ops->linear(run, v.rows, x, &w->v_proj));
    QN_TRY(ops->rms_norm(run, head_rows(q), head_rows(q), w->q_norm, call->eps));
    QN_TRY(ops->rms_norm(run, head_rows(k), head_rows(k), w->k_norm, call->eps));
    QN_TRY(ops->kv_attention(run, attn, q, k, v, kv, call));
    QN_TRY(ops->linear_add(run, out, hidden, attn, &w->o_proj));
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qn_status layer(const qni_run *run, qni_mat out, qni_mat hidden, const qni_layer_view *w, const qni_kv_layer *kv,
                       const qni_attention_call *call) {
    QN_TRY(run->ops->attention_block(run, out, hidden, &w->attention, kv, call));
    return run->ops->mlp(run, out, out, &w->mlp, call->eps);
}

static qn_status lm_head(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm, const qni_weight *weight,
                         double eps) {
    size_t mark = run->scratch->used;
    qni_mat x = take_mat(run, hidden.n_row, hidden.n_col);
    QN_TRY(run->ops->rms_norm(run, x, hidden, norm, eps));
    QN_TRY(run->ops->linear(run, logits, x, weight));
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qn_status greedy(const qni_run *run, uint32_t *ids, qni_mat hidden, qni_vec norm, const qni_weight *weight,
                        int64_t n_valid, double eps) {
    size_t mark = run->scratch->used;
    qni_mat logits = take_mat(run, hidden.n_row, weight->n_out);
    QN_TRY(run->ops->lm_head(run, logits, hidden, norm, weight, eps));
    qn_status status = run->ops->argmax(run, ids, logits, n_valid);
    qni_scratch_reset(run->scratch, mark);
    return status;
}

void qni_compose(qni_ops *ops, bool all) {
    if (all || ops->mlp == NULL) ops->mlp = mlp;
    if (all || ops->attention_block == NULL) ops->attention_block = attention_block;
    if (all || ops->layer == NULL) ops->layer = layer;
    if (all || ops->lm_head == NULL) ops->lm_head = lm_head;
    if (all || ops->greedy == NULL) ops->greedy = greedy;
    if (all) ops->step = NULL;
}
