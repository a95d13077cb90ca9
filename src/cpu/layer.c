/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops around the products, small and fused. The fused ops keep intermediates in f32 scratch and match the
 * composition of the small ones bit for bit.
 *
 * Parallel loops of a layer: norm (only with more than one tile of rows) · q, k, v · cache write (only if a sequence
 * has more than one tile of queries) · attention · o_proj + residual · norm (as above) · gate, up, SwiGLU · down +
 * residual. Where rows need packing (more than one row, or not f32), each product is preceded by a packing loop, run on
 * the calling thread if there is only one tile.
 */
#include "cpu.h"

/* A contiguous f32 matrix from scratch. */
static qni_mat alloc_mat(const qni_run *run, int64_t n_row, int64_t n_col) {
    return qni_mat_of(qni_scratch_array(run->scratch, n_row, n_col, sizeof(float)), QN_DTYPE_F32, n_row, n_col);
}

qn_status qni_cpu_op_linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight) {
    size_t mark = run->scratch->used;
    qni_cpu_input input = qni_cpu_alloc_input(run, x.n_row, &weight, 1);
    float *scratch = qni_cpu_alloc_linear(run, x.n_row);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_pack_rows(run, &input, x, NULL, 0);
        qni_cpu_linear(run, &input, &(qni_cpu_product){.epilogue = QNI_CPU_STORE, .weight = weight, .out = out}, 1,
                       scratch);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cpu_op_linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight) {
    size_t mark = run->scratch->used;
    qni_cpu_input input = qni_cpu_alloc_input(run, x.n_row, &weight, 1);
    float *scratch = qni_cpu_alloc_linear(run, x.n_row);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_product product = {.epilogue = QNI_CPU_ADD, .weight = weight, .out = out, .hidden = hidden};
        qni_cpu_pack_rows(run, &input, x, NULL, 0);
        qni_cpu_linear(run, &input, &product, 1, scratch);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cpu_op_mlp(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *weights, double eps) {
    size_t mark = run->scratch->used;
    const qni_weight *gate = &weights->gate_proj, *up = &weights->up_proj, *down = &weights->down_proj;
    const float *norm = qni_cpu_widen_vec(run, weights->norm);
    qni_cpu_input x = qni_cpu_alloc_input(run, hidden.n_row, (const qni_weight *[]){gate, up}, 2);
    qni_mat active = alloc_mat(run, hidden.n_row, gate->n_out);
    qni_cpu_input y = qni_cpu_alloc_input(run, hidden.n_row, &down, 1);
    float *scratch = qni_cpu_alloc_linear(run, hidden.n_row);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_product gated = {.epilogue = QNI_CPU_SWIGLU, .weight = gate, .weight2 = up, .out = active};
        qni_cpu_product last = {.epilogue = QNI_CPU_ADD, .weight = down, .out = out, .hidden = hidden};
        qni_cpu_pack_rows(run, &x, hidden, norm, eps);
        qni_cpu_linear(run, &x, &gated, 1, scratch);
        qni_cpu_pack_rows(run, &y, active, NULL, 0);
        qni_cpu_linear(run, &y, &last, 1, scratch);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qni_heads heads_of(qni_mat rows, int64_t head_dim) {
    return (qni_heads){rows, rows.n_col / head_dim, head_dim, head_dim};
}

qn_status qni_cpu_op_attention_block(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *weights,
                                     const qni_kv_layer *kv, const qni_attention_call *call) {
    size_t mark = run->scratch->used;
    const int64_t n_row = hidden.n_row, head_dim = kv->head_dim;
    const int64_t q_width = weights->q_proj.n_out, kv_width = weights->k_proj.n_out;
    const float *norm = qni_cpu_widen_vec(run, weights->norm);
    const qni_weight *o_proj = &weights->o_proj;
    qni_cpu_input x = qni_cpu_alloc_input(
        run, n_row, (const qni_weight *[]){&weights->q_proj, &weights->k_proj, &weights->v_proj}, 3);
    qni_mat q = alloc_mat(run, n_row, q_width);
    qni_mat k = alloc_mat(run, n_row, kv_width);
    qni_mat v = alloc_mat(run, n_row, kv_width);
    qni_mat attn = alloc_mat(run, n_row, q_width);
    qni_cpu_input y = qni_cpu_alloc_input(run, n_row, &o_proj, 1);
    qni_cpu_attention a = {.out = attn, .kv = kv, .call = call};
    a.q = heads_of(q, head_dim);
    a.k = heads_of(k, head_dim);
    a.v = heads_of(v, head_dim);
    a.q_norm = qni_cpu_widen_vec(run, weights->q_norm);
    a.k_norm = qni_cpu_widen_vec(run, weights->k_norm);
    qni_cpu_attention_scratch attention = qni_cpu_alloc_attention(run, &a);
    float *scratch = qni_cpu_alloc_linear(run, n_row);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_product qkv[] = {{.weight = &weights->q_proj, .out = q},
                                 {.weight = &weights->k_proj, .out = k},
                                 {.weight = &weights->v_proj, .out = v}};
        qni_cpu_product last = {.epilogue = QNI_CPU_ADD, .weight = o_proj, .out = out, .hidden = hidden};
        qni_cpu_pack_rows(run, &x, hidden, norm, call->eps);
        qni_cpu_linear(run, &x, qkv, 3, scratch);
        qni_cpu_attend(run, &a, attention);
        qni_cpu_pack_rows(run, &y, attn, NULL, 0);
        qni_cpu_linear(run, &y, &last, 1, scratch);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cpu_op_layer(const qni_run *run, qni_mat out, qni_mat hidden, const qni_layer_view *weights,
                           const qni_kv_layer *kv, const qni_attention_call *call) {
    QN_TRY(qni_cpu_op_attention_block(run, out, hidden, &weights->attention, kv, call));
    return qni_cpu_op_mlp(run, out, out, &weights->mlp, call->eps);
}

qn_status qni_cpu_op_lm_head(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm,
                             const qni_weight *lm_head, double eps) {
    size_t mark = run->scratch->used;
    const float *w = qni_cpu_widen_vec(run, norm);
    qni_cpu_input x = qni_cpu_alloc_input(run, hidden.n_row, &lm_head, 1);
    float *scratch = qni_cpu_alloc_linear(run, hidden.n_row);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_pack_rows(run, &x, hidden, w, eps);
        qni_cpu_linear(run, &x, &(qni_cpu_product){.weight = lm_head, .out = logits}, 1, scratch);
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

/* The loops of a one-row step, as above. */
void qni_cpu_first_touch(void *state, const qni_layer_view *layer, const qni_weight *lm_head) {
    if (lm_head != NULL) qni_cpu_touch(state, &(qni_cpu_product){.weight = lm_head}, 1);
    if (layer == NULL) return;
    const qni_attention_view *a = &layer->attention;
    const qni_mlp_view *mlp = &layer->mlp;
    const qni_cpu_product qkv[] = {{.weight = &a->q_proj}, {.weight = &a->k_proj}, {.weight = &a->v_proj}};
    qni_cpu_touch(state, qkv, 3);
    qni_cpu_touch(state, &(qni_cpu_product){.weight = &a->o_proj}, 1);
    qni_cpu_touch(state, &(qni_cpu_product){.weight = &mlp->gate_proj, .weight2 = &mlp->up_proj}, 1);
    qni_cpu_touch(state, &(qni_cpu_product){.weight = &mlp->down_proj}, 1);
}
