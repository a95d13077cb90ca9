/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference backend: the small primitives straight from their definitions, one element at a time, every sum in
 * double. It documents what they compute, and all other backends are tested against it. It is slow, single-threaded and
 * stateless, and implements none of the larger primitives: compose.c builds those.
 *
 * Results are rounded once, when stored in the dtype of their operand.
 */
#include "../backend/backend.h"
#include "../base/memory.h"

#include <math.h>
#include <string.h>

static double load(const void *data, qn_dtype dtype, int64_t index) {
    return (double)qni_load_f32(data, dtype, index);
}

static double weight_at(const qni_weight *w, int64_t i, int64_t o) {
    int64_t index = o / w->nr * w->panel_stride + i / w->ki * w->group_stride + o % w->nr * w->ki + i % w->ki;
    return load(w->data, w->dtype, index);
}

static qn_status embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    for (int64_t r = 0; r < out.n_row; r++) {
        void *to = qni_mat_row(&out, r);
        for (int64_t i = 0; i < out.n_col; i++) qni_store_f32(to, out.dtype, i, (float)weight_at(table, i, ids[r]));
    }
    return QN_OK;
}

static qn_status rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    for (int64_t r = 0; r < x.n_row; r++) {
        const void *from = qni_mat_row(&x, r);
        void *to = qni_mat_row(&out, r);
        double sum = 0;
        for (int64_t i = 0; i < x.n_col; i++) sum += load(from, x.dtype, i) * load(from, x.dtype, i);
        double factor = 1.0 / sqrt(sum / (double)x.n_col + eps);
        for (int64_t i = 0; i < x.n_col; i++) {
            double y = load(from, x.dtype, i) * factor * load(weight.data, weight.dtype, i);
            qni_store_f32(to, out.dtype, i, (float)y);
        }
    }
    return QN_OK;
}

/* sums {n_out} = x {n_in} · W. The outer loop is over inputs, so that a plain {in, out} matrix is read in memory order;
 * each sum is still over ascending inputs. */
static void product(double *sums, const double *x, const qni_weight *w) {
    for (int64_t o = 0; o < w->n_out; o++) sums[o] = 0;
    if (w->nr == 1) {
        for (int64_t o = 0; o < w->n_out; o++) {
            for (int64_t i = 0; i < w->n_in; i++) sums[o] += x[i] * weight_at(w, i, o);
        }
    } else {
        for (int64_t i = 0; i < w->n_in; i++) {
            for (int64_t o = 0; o < w->n_out; o++) sums[o] += x[i] * weight_at(w, i, o);
        }
    }
}

/* out = x · W, plus `add` if it is not NULL; add may be out. */
static qn_status linear_plus(const qni_run *run, qni_mat out, const qni_mat *add, qni_mat x, const qni_weight *w) {
    size_t mark = run->scratch->used;
    double *sums = qni_scratch_array(run->scratch, w->n_out, 1, sizeof *sums);
    double *in = qni_scratch_array(run->scratch, w->n_in, 1, sizeof *in);
    const bool measures = qni_scratch_measures(run->scratch);
    for (int64_t r = 0; r < x.n_row && !measures; r++) {
        const void *from = qni_mat_row(&x, r);
        for (int64_t i = 0; i < w->n_in; i++) in[i] = load(from, x.dtype, i);
        product(sums, in, w);
        for (int64_t o = 0; o < w->n_out; o++) {
            double y = sums[o] + (add != NULL ? load(qni_mat_row(add, r), add->dtype, o) : 0.0);
            qni_store_f32(qni_mat_row(&out, r), out.dtype, o, (float)y);
        }
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qn_status linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight) {
    return linear_plus(run, out, NULL, x, weight);
}

static qn_status linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight) {
    return linear_plus(run, out, &hidden, x, weight);
}

/* A cache row: KV head g at position p, given the blocks of one sequence. */
static void *k_row(const qni_kv_layer *kv, const int32_t *blocks, int64_t g, int64_t p) {
    int64_t element = blocks[p / kv->block_tokens] * kv->k_block_stride + g * kv->k_head_stride +
                      p % kv->block_tokens * kv->k_token_stride;
    return (unsigned char *)kv->k + element * (int64_t)qn_dtype_bytes(kv->k_dtype);
}
static void *v_row(const qni_kv_layer *kv, const int32_t *blocks, int64_t g, int64_t p) {
    int64_t element = blocks[p / kv->block_tokens] * kv->v_block_stride + g * kv->v_head_stride +
                      p % kv->block_tokens * kv->v_token_stride;
    return (unsigned char *)kv->v + element * (int64_t)qn_dtype_bytes(kv->v_dtype);
}

/* The elements of head h of row r, in double. */
static void load_head(double *to, const qni_heads *heads, int64_t r, int64_t h) {
    const void *row = qni_mat_row(&heads->rows, r);
    for (int64_t i = 0; i < heads->head_dim; i++) to[i] = load(row, heads->rows.dtype, h * heads->head_stride + i);
}

/* Rotate pairs (i, i + D/2) by the row's angles. */
static void rotate(double *x, const float *cos_sin, int64_t head_dim) {
    int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        double c = (double)cos_sin[i], s = (double)cos_sin[half + i], a = x[i], b = x[half + i];
        x[i] = a * c - b * s;
        x[half + i] = b * c + a * s;
    }
}

/* Position of a token of a batch. */
typedef struct kv_position {
    const int32_t *blocks; /* of its sequence */
    int64_t pos;
} kv_position;

static kv_position kv_position_of(const qni_batch *batch, int64_t t) {
    const int32_t s = qni_batch_seq(batch, t);
    return (kv_position){batch->block_table + (int64_t)s * batch->max_block,
                         batch->pos_begin[s] + (t - batch->tok_begin[s])};
}

/* sum {D} = softmax(scale · q · K) · V over positions 0 … at.pos; row {D} is a buffer. */
static void attend(double *sum, double *scores, float *row, const double *q, const qni_kv_layer *kv, kv_position at,
                   int64_t g, double scale) {
    double greatest = -INFINITY, total = 0;
    for (int64_t p = 0; p <= at.pos; p++) {
        qni_kv_load(row, k_row(kv, at.blocks, g, p), kv->k_dtype, kv->head_dim);
        scores[p] = 0;
        for (int64_t i = 0; i < kv->head_dim; i++) scores[p] += q[i] * (double)row[i];
        scores[p] *= scale;
        greatest = fmax(greatest, scores[p]);
    }
    for (int64_t i = 0; i < kv->head_dim; i++) sum[i] = 0;
    for (int64_t p = 0; p <= at.pos; p++) {
        qni_kv_load(row, v_row(kv, at.blocks, g, p), kv->v_dtype, kv->head_dim);
        double weight = exp(scores[p] - greatest);
        total += weight;
        for (int64_t i = 0; i < kv->head_dim; i++) sum[i] += weight * (double)row[i];
    }
    for (int64_t i = 0; i < kv->head_dim; i++) sum[i] /= total;
}

static qn_status kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                              const qni_kv_layer *kv, const qni_attention_call *call) {
    const qni_batch *batch = call->batch;
    int64_t d = kv->head_dim;
    size_t mark = run->scratch->used;
    double *x = qni_scratch_array(run->scratch, d, 1, sizeof *x);
    double *sum = qni_scratch_array(run->scratch, d, 1, sizeof *sum);
    float *row = qni_scratch_array(run->scratch, d, 1, sizeof *row);
    double *scores = qni_scratch_array(run->scratch, batch->max_block, kv->block_tokens, sizeof *scores);
    const bool measures = qni_scratch_measures(run->scratch);
    for (int64_t t = 0; t < batch->n_tok && !measures; t++) {
        const kv_position at = kv_position_of(batch, t);
        for (int64_t g = 0; g < kv->n_kv_head; g++) {
            load_head(x, &k, t, g);
            rotate(x, call->cos_sin + t * d, d);
            for (int64_t i = 0; i < d; i++) row[i] = (float)x[i];
            qni_kv_store(k_row(kv, at.blocks, g, at.pos), kv->k_dtype, row, d);
            load_head(x, &v, t, g);
            for (int64_t i = 0; i < d; i++) row[i] = (float)x[i];
            qni_kv_store(v_row(kv, at.blocks, g, at.pos), kv->v_dtype, row, d);
        }
    }
    for (int64_t t = 0; t < batch->n_tok && !measures; t++) {
        const kv_position at = kv_position_of(batch, t);
        for (int64_t h = 0; h < q.n_head; h++) {
            load_head(x, &q, t, h);
            rotate(x, call->cos_sin + t * d, d);
            attend(sum, scores, row, x, kv, at, h / (q.n_head / kv->n_kv_head), call->scale);
            for (int64_t i = 0; i < d; i++) qni_store_f32(qni_mat_row(&out, t), out.dtype, h * d + i, (float)sum[i]);
        }
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}

static qn_status swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    for (int64_t r = 0; r < out.n_row; r++) {
        for (int64_t i = 0; i < out.n_col; i++) {
            double g = load(qni_mat_row(&gate, r), gate.dtype, i);
            double y = g / (1.0 + exp(-g)) * load(qni_mat_row(&up, r), up.dtype, i);
            qni_store_f32(qni_mat_row(&out, r), out.dtype, i, (float)y);
        }
    }
    return QN_OK;
}

static qn_status argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    for (int64_t r = 0; r < logits.n_row; r++) {
        const void *row = qni_mat_row(&logits, r);
        for (int64_t i = 0; i < n_valid; i++) {
            if (isnan(load(row, logits.dtype, i))) {
                return qni_fail(run->err, QN_ENUMERIC, "logits: row %lld holds a NaN at id %lld", (long long)r,
                                (long long)i);
            }
        }
    }
    for (int64_t r = 0; r < logits.n_row; r++) {
        const void *row = qni_mat_row(&logits, r);
        int64_t best = 0;
        for (int64_t i = 1; i < n_valid; i++) {
            if (load(row, logits.dtype, i) > load(row, logits.dtype, best)) best = i;
        }
        ids[r] = (uint32_t)best;
    }
    return QN_OK;
}

static qn_status open(void **state, const char **isa_out, const qni_opening *how, qn_error *err) {
    (void)how, (void)err;
    *state = NULL;
    *isa_out = "portable";
    return QN_OK;
}

static void close(void *state) {
    (void)state;
}

/* The packed layout is {out, in}, one output per panel, as in checkpoints. Quantized weights are stored dequantized. */
static qn_status packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err) {
    (void)state;
    const int64_t n_in = source->n_in, n_out = source->n_out;
    const qn_dtype dtype = source->quant.kind == QNI_DENSE ? source->dtype : QN_DTYPE_F32;
    if (source->arith != QN_ARITH_AUTO && source->arith != QN_ARITH_F32) {
        return qni_fail(err, QN_EUNSUPPORTED, "arith: \"ref\" computes in f32 only, got %s",
                        source->arith == QN_ARITH_BF16 ? "bf16" : "int8");
    }
    size_t bytes;
    if (!qni_mul_size(&bytes, (size_t)n_in, (size_t)n_out) || !qni_mul_size(&bytes, bytes, qn_dtype_bytes(dtype))) {
        return qni_fail(err, QN_ENOMEM, "linear: %lld by %lld elements are too many", (long long)n_in,
                        (long long)n_out);
    }
    *out = (qni_packing){.form = {.dtype = dtype,
                                  .arith = QN_ARITH_F32,
                                  .packed = true,
                                  .n_in = n_in,
                                  .n_out = n_out,
                                  .nr = 1,
                                  .ki = 1,
                                  .panel_stride = n_in,
                                  .group_stride = 1},
                         .bytes = bytes};
    return QN_OK;
}

static void pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride) {
    (void)state;
    size_t element = qn_dtype_bytes(form->dtype);
    unsigned char *to = (unsigned char *)data + (size_t)(first * form->panel_stride) * element;
    for (int64_t o = 0; o < n; o++) {
        for (int64_t i = 0; i < form->n_in; i++, to += element) {
            memcpy(to, (const unsigned char *)src + (size_t)(i * in_stride + o * out_stride) * element, element);
        }
    }
}

static qn_status pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                const qni_quant *source, const qni_quant_rows *rows, qn_error *err) {
    (void)state;
    return qni_quant_dequantize((float *)data + first * form->n_in, 1, form->n_in, source, rows, n, form->n_in, err);
}

const qni_backend qni_backend_ref = {
    .name = "ref",
    .kv_block_tokens = 16,
    .open = open,
    .close = close,
    .memory = &qni_host_memory,
    .ops = {.embed = embed,
            .rms_norm = rms_norm,
            .linear = linear,
            .rope = qni_op_rope,
            .kv_attention = kv_attention,
            .linear_add = linear_add,
            .swiglu = swiglu,
            .argmax = argmax},
    .packing = packing,
    .pack = pack,
    .pack_quantized = pack_quantized,
};
