/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer of few kernels, and the LM head, for weights of bf16 arithmetic. The stream is f32, what goes into a product is
 * bf16. Anything else is composed of the small ops.
 *
 *   up to 16 rows   norm + q, k, v · q/k norm + RoPE + cache + attention · o + residual · norm + gate, up + SwiGLU ·
 *                   down + residual: five kernels
 *   more rows       products by cuBLASLt
 *
 * Attention is that of decode_attention.cu if each sequence has one token, else that of prefill_attention.cu.
 */
#include "cuda.h"

enum { FUSED_NORM_INPUTS = 2048 };

static qni_mat take(const qni_run *run, qn_dtype dtype, int64_t n_row, int64_t n_col) {
    void *data = qni_scratch_array(run->scratch, n_row, n_col, dtype == QN_DTYPE_F32 ? 4 : 2);
    return qni_mat_of(data, dtype, n_row, n_col);
}

/* Columns [first, first + n) of a contiguous matrix. */
static qni_mat columns(qni_mat m, int64_t first, int64_t n) {
    m.data = (unsigned char *)m.data + first * (m.dtype == QN_DTYPE_F32 ? 4 : 2);
    m.n_col = n;
    return m;
}

static bool is_plain(const qni_mat *m) {
    return m->dtype == QN_DTYPE_F32 && m->row_stride == m->n_col && qni_cuda_is_even(m);
}

/* The larger ops made of small ones. */
static qni_ops composed_ops(void) {
    qni_ops ops = {0};
    qni_compose(&ops, true);
    return ops;
}

/* Whether the rows of b lie behind those of a, as a model's do: then one product serves both. */
static bool follows(const qni_weight *a, const qni_weight *b) {
    return a->quant.kind == QNI_DENSE && b->quant.kind == QNI_DENSE && a->n_in == b->n_in && a->dtype == b->dtype &&
           (const unsigned char *)a->data + 2 * a->n_in * a->n_out == (const unsigned char *)b->data;
}

/* out = rms(x, norm) · the weights, their outputs one after another; of SwiGLU if asked for. */
static qn_status norm_and_product(const qni_run *run, qni_mat out, qni_mat x, qni_vec norm, double eps,
                                  const qni_weight *const *w, int32_t n_weight, bool swiglu) {
    const bool measures = qni_scratch_measures(run->scratch);
    const size_t mark = run->scratch->used;
    qni_cuda *c = measures ? NULL : qni_cuda_of(run);
    const bool few = !measures && x.n_row <= QNI_CUDA_SKINNY_ROWS;
    /* Each block of threads normalizes what it multiplies; of more inputs that takes longer than a kernel of its own. */
    const bool fuses = few && x.n_row * x.n_col <= FUSED_NORM_INPUTS && x.n_col % 128 == 0;
    const qni_mat normed = take(run, QN_DTYPE_BF16, x.n_row, x.n_col);
    const qni_mat whole = swiglu ? take(run, QN_DTYPE_BF16, x.n_row, 2 * out.n_col) : out;
    if (!fuses) QN_TRY(run->ops->rms_norm(run, normed, x, norm, eps));
    if (few) {
        qni_cuda_skinny job = {.n_weight = n_weight,
                               .x = fuses ? x : normed,
                               .norm = fuses ? norm : (qni_vec){0},
                               .eps = eps,
                               .epilogue = swiglu ? QNI_CUDA_SWIGLU : QNI_CUDA_STORE,
                               .out = out};
        for (int32_t i = 0; i < n_weight; i++) job.w[i] = *w[i];
        QNI_CUDA_TRY(c, qni_cuda_skinny_run(c->stream, &job, c->n_sm, true), "linear", run->err);
        qni_scratch_reset(run->scratch, mark);
        return QN_OK;
    }
    int64_t first = 0;
    for (int32_t i = 0, n; i < n_weight; i += n) {
        qni_weight together = *w[i];
        for (n = 1; i + n < n_weight && follows(&together, w[i + n]); n++) together.n_out += w[i + n]->n_out;
        QN_TRY(qni_cuda_many(run, columns(whole, first, together.n_out), (qni_mat){0}, normed, &together));
        first += together.n_out;
    }
    if (swiglu) {
        QN_TRY(run->ops->swiglu(run, out, columns(whole, 0, out.n_col), columns(whole, out.n_col, out.n_col)));
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

/* --- attention --- */

qn_status qni_cuda_reserve_work(qni_cuda *c, int64_t n_head, int64_t head_dim, qn_error *err) {
    const size_t bytes = qni_cuda_decode_work(c->batch.n_tok, n_head, head_dim, c->batch.max_pos);
    return qni_cuda_grow(c, &c->work, bytes, false, "attention", err);
}

/* The rows of the heads of part of a matrix, one row per head. */
static qni_mat head_rows(qni_mat qkv, int64_t first, int64_t n_head, int64_t head_dim) {
    qni_mat rows = columns(qkv, first, head_dim);
    rows.n_row = qkv.n_row * n_head;
    rows.n_inner = n_head;
    rows.outer_stride = qkv.row_stride;
    rows.row_stride = head_dim;
    return rows;
}

static qni_heads heads_of(qni_mat qkv, int64_t first, int64_t n_head, int64_t head_dim) {
    return (qni_heads){columns(qkv, first, n_head * head_dim), n_head, head_dim, head_dim};
}

/* By the small ops, for caches that the tensor cores' kernels do not take. */
static qn_status attend_any(const qni_run *run, qni_mat out, const qni_cuda_heads *job,
                            const qni_attention_call *call) {
    const int64_t d = job->kv.head_dim, n_head = job->n_head, n_kv = job->kv.n_kv_head;
    const qni_mat q = head_rows(job->qkv, 0, n_head, d), k = head_rows(job->qkv, n_head * d, n_kv, d);
    QN_TRY(run->ops->rms_norm(run, q, q, job->q_norm, job->eps));
    QN_TRY(run->ops->rms_norm(run, k, k, job->k_norm, job->eps));
    return run->ops->kv_attention(run, out, heads_of(job->qkv, 0, n_head, d), heads_of(job->qkv, n_head * d, n_kv, d),
                                  heads_of(job->qkv, (n_head + n_kv) * d, n_kv, d), &job->kv, call);
}

static bool decodes(const qni_batch *batch, const qni_kv_layer *kv, int64_t n_head) {
    return batch->n_tok == batch->n_seq && qni_cuda_decode_takes(kv, n_head);
}

/* prefill_attention.cu takes the greatest score for that of the greatest product, so the scale must be positive. */
static bool prefills(const qni_kv_layer *kv, int64_t n_head, double scale) {
    return scale > 0 && qni_cuda_prefill_takes(kv, n_head);
}

/* Dtype of the result: prefill_attention.cu computes in the cache's. */
static qn_dtype attention_dtype(const qni_attention_call *call, const qni_kv_layer *kv, int64_t n_head) {
    return !decodes(call->batch, kv, n_head) && prefills(kv, n_head, call->scale) ? kv->k_dtype : QN_DTYPE_BF16;
}

/* out = attention of the projections in job->qkv. */
static qn_status attend(const qni_run *run, qni_mat out, qni_cuda_heads *job, const qni_attention_call *call) {
    const qni_batch *batch = call->batch;
    const size_t mark = run->scratch->used;
    const qni_mat q = take(run, QN_DTYPE_BF16, out.n_row, out.n_col);
    if (qni_scratch_measures(run->scratch)) {
        qni_scratch_reset(run->scratch, mark);
        return QN_OK;
    }
    qni_cuda *c = qni_cuda_of(run);
    QN_TRY(qni_cuda_batch_check(c, call, run->err));
    job->batch = &c->batch;
    job->out = out;
    if (decodes(batch, &job->kv, job->n_head)) {
        QN_TRY(qni_cuda_reserve_work(c, job->n_head, job->kv.head_dim, run->err));
        job->work = c->work.device;
        QNI_CUDA_TRY(c, qni_cuda_decode_attention(c->stream, job, true), "attention", run->err);
    } else if (prefills(&job->kv, job->n_head, job->scale)) {
        const qni_cuda_queries queries = {.q = q.data,
                                          .out = out.data,
                                          .n_head = job->n_head,
                                          .kv = job->kv,
                                          .scale = job->scale,
                                          .batch = &c->batch};
        QNI_CUDA_TRY(c, qni_cuda_write_kv(c->stream, q.data, job), "attention", run->err);
        QNI_CUDA_TRY(c, qni_cuda_prefill_attention(c->stream, &queries), "attention", run->err);
    } else {
        QN_TRY(attend_any(run, out, job, call));
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

/* --- the ops --- */

static bool takes_block(const qni_mat *out, const qni_mat *hidden, const qni_attention_view *w) {
    return is_plain(out) && is_plain(hidden) && qni_cuda_is_fast(&w->q_proj) && qni_cuda_is_fast(&w->k_proj) &&
           qni_cuda_is_fast(&w->v_proj) && qni_cuda_is_fast(&w->o_proj);
}

static bool takes_mlp(const qni_mat *out, const qni_mat *hidden, const qni_mlp_view *w) {
    return is_plain(out) && is_plain(hidden) && qni_cuda_is_fast(&w->gate_proj) && qni_cuda_is_fast(&w->up_proj) &&
           qni_cuda_is_fast(&w->down_proj);
}

qn_status qni_cuda_op_mlp(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *w, double eps) {
    if (!takes_mlp(&out, &hidden, w)) return composed_ops().mlp(run, out, hidden, w, eps);
    const size_t mark = run->scratch->used;
    const qni_mat inner = take(run, QN_DTYPE_BF16, hidden.n_row, w->gate_proj.n_out);
    const qni_weight *const pair[] = {&w->gate_proj, &w->up_proj};
    QN_TRY(norm_and_product(run, inner, hidden, w->norm, eps, pair, 2, true));
    QN_TRY(qni_cuda_product(run, out, hidden, inner, &w->down_proj));
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cuda_op_attention_block(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *w,
                                      const qni_kv_layer *kv, const qni_attention_call *call) {
    if (!takes_block(&out, &hidden, w)) return composed_ops().attention_block(run, out, hidden, w, kv, call);
    const size_t mark = run->scratch->used;
    const int64_t width = w->q_proj.n_out, n_head = width / kv->head_dim;
    const qni_mat qkv = take(run, QN_DTYPE_F32, hidden.n_row, width + 2 * w->k_proj.n_out);
    const qni_mat attn = take(run, attention_dtype(call, kv, n_head), hidden.n_row, width);
    const qni_weight *const three[] = {&w->q_proj, &w->k_proj, &w->v_proj};
    qni_cuda_heads job = {.qkv = qkv,
                          .q_norm = w->q_norm,
                          .k_norm = w->k_norm,
                          .eps = call->eps,
                          .cos_sin = call->cos_sin,
                          .n_head = n_head,
                          .kv = *kv,
                          .scale = call->scale};
    QN_TRY(norm_and_product(run, qkv, hidden, w->norm, call->eps, three, 3, false));
    QN_TRY(attend(run, attn, &job, call));
    QN_TRY(qni_cuda_product(run, out, hidden, attn, &w->o_proj));
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

qn_status qni_cuda_op_lm_head(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm,
                              const qni_weight *lm_head, double eps) {
    const bool fast = is_plain(&logits) && is_plain(&hidden) && qni_cuda_is_fast(lm_head);
    if (!fast) return composed_ops().lm_head(run, logits, hidden, norm, lm_head, eps);
    return norm_and_product(run, logits, hidden, norm, eps, &lm_head, 1, false);
}
