/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins for the kernels of products, norms and sampling: the ops of `ref` on device memory, when the stream gets
 * there; products by a loop that adds as `ref` does. kernels.h says what they compute; each also checks what its caller
 * promises. attention.c has the others. */
#include "kernels.h"

#include "../../src/base/half.h"
#include "../../src/session/philox.h"

#include <quern/sampler.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

void *fake_room(size_t bytes) {
    void *room = calloc(1, bytes > 0 ? bytes : 1);
    if (room == NULL) fake_refuse("calloc");
    return room;
}

void fake_compute(const char *what, fake_op *op, const void *context) {
    static const qni_ops none;
    qni_scratch scratch = {0};
    qn_error error = {0};
    qni_run run = {.ops = &none, .scratch = &scratch, .err = &error};
    (void)op(&run, context);
    scratch = (qni_scratch){.base = fake_room(scratch.peak + 1), .size = scratch.peak + 1};
    if (op(&run, context) != QN_OK) fake_refuse("%s: %s", what, error.message);
    qni_unpoison(scratch.base, scratch.size);
    free(scratch.base);
}

/* --- weights --- */

/* Weight W[i, o] of a quantized linear, by layout.h and the definition of the format. */
static float quantized_at(const qni_weight *w, int64_t i, int64_t o) {
    const qni_quant *q = &w->quant;
    const unsigned char *data = w->data;
    int32_t bit;
    const int64_t at = qni_cuda_code_at(q, i, &bit);
    const uint32_t byte = data[o * qni_cuda_row_bytes(q, w->n_in) + at];
    const uint32_t code = byte >> bit & ((1u << qni_cuda_width(q)) - 1);
    const int64_t scale_at = i / q->group * qni_cuda_n_scale_out(q, w->n_out) + o / q->group_out;
    const float scale = qni_load_f32(data + qni_cuda_scales_at(w), q->scale_dtype, scale_at);
    if (q->kind == QNI_FP8) return scale * qni_f32_of_e4m3((uint8_t)code);
    const float bias = q->symmetric ? -(float)(1 << (q->bits - 1)) * scale
                                    : qni_load_f32(data + qni_cuda_biases_at(w), q->scale_dtype, scale_at);
    const float value = scale * (float)code + bias;
    return isfinite(value) ? value : fmaf(scale, (float)code, bias);
}

/* The weight as a dense one; *made is to be freed. */
static qni_weight dense_of(const qni_weight *w, float **made) {
    *made = NULL;
    if (w->quant.kind == QNI_DENSE) return *w;
    FAKE_CHECK((uintptr_t)w->data % QNI_CUDA_ALIGN % 16 == 0);
    float *values = *made = fake_room((size_t)(w->n_in * w->n_out) * sizeof *values);
    for (int64_t o = 0; o < w->n_out; o++) {
        for (int64_t i = 0; i < w->n_in; i++) values[o * w->n_in + i] = quantized_at(w, i, o);
    }
    return (qni_weight){.data = values,
                        .dtype = QN_DTYPE_F32,
                        .n_in = w->n_in,
                        .n_out = w->n_out,
                        .nr = 1,
                        .ki = 1,
                        .panel_stride = w->n_in,
                        .group_stride = 1};
}

/* --- ops of `ref` --- */

typedef struct mats {
    qni_mat out, x, y;
    qni_weight w;
    qni_vec norm;
    double eps;
    void *ids;
    bool round_x;
} mats;

static qn_status embed_op(const qni_run *run, const void *context) {
    const mats *m = context;
    return qni_backend_ref.ops.embed(run, m->out, &m->w, m->ids);
}
static void run_embed(void *arguments) {
    mats m = *(mats *)arguments;
    float *made;
    m.w = dense_of(&m.w, &made);
    for (int64_t r = 0; r < m.out.n_row; r++)
        FAKE_CHECK(((int32_t *)m.ids)[r] >= 0 && ((int32_t *)m.ids)[r] < m.w.n_out);
    fake_compute("embed", embed_op, &m);
    free(made);
}
cudaError_t qni_cuda_embed(cudaStream_t stream, qni_mat out, const qni_weight *table, const int32_t *ids) {
    const mats m = {.out = out, .w = *table, .ids = (void *)(uintptr_t)ids};
    return fake_queue(stream, run_embed, &m, sizeof m);
}

static qn_status norm_op(const qni_run *run, const void *context) {
    const mats *m = context;
    return qni_backend_ref.ops.rms_norm(run, m->out, m->x, m->norm, m->eps);
}
static void run_norm(void *arguments) {
    fake_compute("rms_norm", norm_op, arguments);
}
cudaError_t qni_cuda_rms_norm(cudaStream_t stream, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    const mats m = {.out = out, .x = x, .norm = weight, .eps = eps};
    FAKE_CHECK(weight.n == x.n_col);
    return fake_queue(stream, run_norm, &m, sizeof m);
}

static qn_status swiglu_op(const qni_run *run, const void *context) {
    const mats *m = context;
    return qni_backend_ref.ops.swiglu(run, m->out, m->x, m->y);
}
static void run_swiglu(void *arguments) {
    fake_compute("swiglu", swiglu_op, arguments);
}
cudaError_t qni_cuda_swiglu(cudaStream_t stream, qni_mat out, qni_mat gate, qni_mat up) {
    const mats m = {.out = out, .x = gate, .y = up};
    return fake_queue(stream, run_swiglu, &m, sizeof m);
}

static void run_convert(void *arguments) {
    const mats *m = arguments;
    for (int64_t r = 0; r < m->x.n_row; r++) {
        for (int64_t i = 0; i < m->x.n_col; i++) {
            qni_store_f32(qni_mat_row(&m->out, r), m->out.dtype, i, qni_load_f32(qni_mat_row(&m->x, r), m->x.dtype, i));
        }
    }
}
cudaError_t qni_cuda_convert(cudaStream_t stream, qni_mat out, qni_mat x) {
    const mats m = {.out = out, .x = x};
    FAKE_CHECK(out.n_row == x.n_row && out.n_col == x.n_col);
    return fake_queue(stream, run_convert, &m, sizeof m);
}

typedef struct argmax_job {
    int32_t *ids;
    qni_mat logits;
    int64_t n_valid;
    void *work;
} argmax_job;

static void run_argmax(void *arguments) {
    const argmax_job *j = arguments;
    memset(j->work, 0xFF, (size_t)j->logits.n_row * QNI_CUDA_ARGMAX_WORK);
    for (int64_t r = 0; r < j->logits.n_row; r++) {
        int64_t best = 0;
        float greatest = -INFINITY;
        for (int64_t i = 0; i < j->n_valid && best >= 0; i++) {
            const float x = qni_load_f32(qni_mat_row(&j->logits, r), j->logits.dtype, i);
            if (isnan(x)) best = -1;
            if (x > greatest) greatest = x, best = i;
        }
        j->ids[r] = (int32_t)best;
    }
}
cudaError_t qni_cuda_argmax(cudaStream_t stream, int32_t *ids, qni_mat logits, int64_t n_valid, void *work) {
    const argmax_job j = {ids, logits, n_valid, work};
    return fake_queue(stream, run_argmax, &j, sizeof j);
}

/* --- products --- */

static qn_status linear_op(const qni_run *run, const void *context) {
    const mats *m = context;
    if (m->y.data != NULL) return qni_backend_ref.ops.linear_add(run, m->out, m->y, m->x, &m->w);
    return qni_backend_ref.ops.linear(run, m->out, m->x, &m->w);
}

void fake_widen(double *out, int64_t step, const void *data, qn_dtype dtype, int64_t first, int64_t n) {
    const uint16_t *bf16 = data;
    if (dtype == QN_DTYPE_BF16) {
        for (int64_t i = 0; i < n; i++) out[i * step] = (double)qni_f32_of_bf16(bf16[first + i]);
    } else {
        for (int64_t i = 0; i < n; i++) out[i * step] = (double)qni_load_f32(data, dtype, first + i);
    }
}

void fake_add_products(double *sums, const double *x, int64_t n_row, const double *w, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t r = 0; r < n_row; r++) sums[r] += x[i * n_row + r] * w[i];
    }
}

/* Products with a weight {n_out, n_in}: the same double sums as `ref`'s, which finds each element by divisions; the tests
 * spend most of their time here. */
static void multiply(const mats *m) {
    const int64_t n_in = m->w.n_in, n_row = m->x.n_row;
    if (m->w.nr != 1 || m->w.ki != 1 || m->w.group_stride != 1) {
        fake_compute("linear", linear_op, m);
        return;
    }
    double *x = fake_room((size_t)(n_in * n_row) * sizeof *x), *w = fake_room((size_t)n_in * sizeof *w);
    double *sums = fake_room((size_t)n_row * sizeof *sums);
    for (int64_t r = 0; r < n_row; r++) fake_widen(x + r, n_row, qni_mat_row(&m->x, r), m->x.dtype, 0, n_in);
    for (int64_t o = 0; o < m->w.n_out; o++) {
        fake_widen(w, 1, m->w.data, m->w.dtype, o * m->w.panel_stride, n_in);
        memset(sums, 0, (size_t)n_row * sizeof *sums);
        fake_add_products(sums, x, n_row, w, n_in);
        for (int64_t r = 0; r < n_row; r++) {
            const double before = m->y.data != NULL ? (double)qni_load_f32(qni_mat_row(&m->y, r), m->y.dtype, o) : 0;
            qni_store_f32(qni_mat_row(&m->out, r), m->out.dtype, o, (float)(sums[r] + before));
        }
    }
    free(x);
    free(w);
    free(sums);
}

/* x in bf16; *made is to be freed. */
static qni_mat rounded(qni_mat x, void **made) {
    *made = fake_room((size_t)(x.n_row * x.n_col) * 2);
    mats m = {.out = qni_mat_of(*made, QN_DTYPE_BF16, x.n_row, x.n_col), .x = x};
    run_convert(&m);
    return m.out;
}

static void run_linear(void *arguments) {
    mats m = *(mats *)arguments;
    float *values;
    void *made = NULL;
    m.w = dense_of(&m.w, &values);
    if (m.round_x) m.x = rounded(m.x, &made);
    multiply(&m);
    free(values);
    free(made);
}
cudaError_t qni_cuda_linear(cudaStream_t stream, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w,
                            bool round_x) {
    const mats m = {.out = out, .x = x, .y = add, .w = *w, .round_x = round_x};
    FAKE_CHECK(x.n_col == w->n_in && out.n_col == w->n_out && x.n_row == out.n_row);
    return fake_queue(stream, run_linear, &m, sizeof m);
}

static void run_dequantize(void *arguments) {
    const mats *m = arguments;
    uint16_t *out = m->out.data;
    for (int64_t o = 0; o < m->w.n_out; o++) {
        for (int64_t i = 0; i < m->w.n_in; i++) out[o * m->w.n_in + i] = qni_bf16_of_f32(quantized_at(&m->w, i, o));
    }
}
cudaError_t qni_cuda_dequantize(cudaStream_t stream, void *out, const qni_weight *w) {
    const mats m = {.out = {.data = out}, .w = *w};
    FAKE_CHECK(w->quant.kind != QNI_DENSE);
    return fake_queue(stream, run_dequantize, &m, sizeof m);
}

bool qni_cuda_skinny_takes(const qni_weight *w) {
    const qni_quant *q = &w->quant;
    if (!w->packed || w->arith != QN_ARITH_BF16 || w->n_in % 32 != 0 || w->n_out % 8 != 0) return false;
    if (q->kind == QNI_DENSE) return w->dtype == QN_DTYPE_BF16;
    return q->group % 32 == 0 && (q->group_out == 1 || q->group_out % 8 == 0);
}

/* The rows that are multiplied: normalized first if asked for, rounded to bf16. */
static qni_mat skinny_rows(const qni_cuda_skinny *job, void **made) {
    if (job->norm.data == NULL) return rounded(job->x, made);
    *made = fake_room((size_t)(job->x.n_row * job->x.n_col) * 2);
    mats m = {.out = qni_mat_of(*made, QN_DTYPE_BF16, job->x.n_row, job->x.n_col),
              .x = job->x,
              .norm = job->norm,
              .eps = job->eps};
    fake_compute("norm", norm_op, &m);
    return m.out;
}

static qni_mat columns(qni_mat m, int64_t first, int64_t n) {
    m.data = (unsigned char *)m.data + first * (int64_t)qn_dtype_bytes(m.dtype);
    m.n_col = n;
    return m;
}

static void run_skinny(void *arguments) {
    const qni_cuda_skinny *job = arguments;
    void *made;
    const qni_mat x = skinny_rows(job, &made);
    const int64_t n_out = job->w[0].n_out, n_row = x.n_row;
    float *pair = fake_room((size_t)(2 * n_row * n_out) * sizeof *pair);
    for (int64_t k = 0, first = 0; k < job->n_weight; first += job->w[k++].n_out) {
        float *values;
        mats m = {.x = x, .w = dense_of(&job->w[k], &values)};
        if (job->epilogue == QNI_CUDA_SWIGLU) {
            m.out = qni_mat_of(pair + k * n_row * n_out, QN_DTYPE_F32, n_row, n_out);
        } else {
            m.out = columns(job->out, first, m.w.n_out);
            if (job->epilogue == QNI_CUDA_ADD) m.y = columns(job->add, first, m.w.n_out);
        }
        multiply(&m);
        free(values);
    }
    if (job->epilogue == QNI_CUDA_SWIGLU) {
        const mats m = {.out = job->out,
                        .x = qni_mat_of(pair, QN_DTYPE_F32, n_row, n_out),
                        .y = qni_mat_of(pair + n_row * n_out, QN_DTYPE_F32, n_row, n_out)};
        fake_compute("swiglu", swiglu_op, &m);
    }
    free(pair);
    free(made);
}

/* Rows that begin at multiples of 16 bytes. */
static bool is_even(const qni_mat *m) {
    return (uintptr_t)m->data % 16 == 0 && m->row_stride * (int64_t)qn_dtype_bytes(m->dtype) % 16 == 0 &&
           m->n_inner == m->n_row && (m->dtype == QN_DTYPE_F32 || m->dtype == QN_DTYPE_BF16);
}

cudaError_t qni_cuda_skinny_run(cudaStream_t stream, const qni_cuda_skinny *job, int32_t n_sm, bool chained) {
    (void)chained;
    int64_t n_out = 0;
    FAKE_CHECK(n_sm > 0 && job->x.n_row > 0 && job->x.n_row <= QNI_CUDA_SKINNY_ROWS);
    FAKE_CHECK(is_even(&job->x) && is_even(&job->out) && job->out.n_row == job->x.n_row);
    for (int32_t k = 0; k < job->n_weight; k++) {
        FAKE_CHECK(qni_cuda_skinny_takes(&job->w[k]) && job->w[k].n_in == job->x.n_col);
        n_out += job->w[k].n_out;
    }
    if (job->epilogue == QNI_CUDA_ADD) FAKE_CHECK(is_even(&job->add) && job->add.n_row == job->x.n_row);
    if (job->epilogue == QNI_CUDA_SWIGLU) FAKE_CHECK(job->n_weight == 2 && n_out == 2 * job->w[0].n_out);
    FAKE_CHECK(job->out.n_col == (job->epilogue == QNI_CUDA_SWIGLU ? n_out / 2 : n_out));
    FAKE_CHECK(job->norm.data == NULL || job->norm.n == job->x.n_col);
    return fake_queue(stream, run_skinny, job, sizeof *job);
}

/* --- sampling --- */

enum { SAMPLE_WORK = 64 };

size_t qni_cuda_sample_work(int32_t n_row, int64_t n_vocab) {
    (void)n_vocab;
    return (size_t)n_row * SAMPLE_WORK;
}

typedef struct sample_job {
    int32_t *ids;
    qni_mat logits;
    const qni_cuda_sampler *samplers;
    unsigned long long *n_close;
    void *work;
} sample_job;

/* Whether the random number lies within 1e-12 of a boundary between two ids that can be sampled. */
static bool is_close(const double *probs, int64_t n_vocab, const qni_cuda_sampler *how) {
    const double u = qni_philox_uniform(how->seed, (uint64_t)*how->n_id);
    int64_t last = n_vocab - 1;
    double sum = 0;
    bool found = false;
    while (last > 0 && probs[last] == 0) last--;
    for (int64_t i = 0; i < last; i++) {
        sum += probs[i];
        found = found || (sum > 0 && fabs(sum - u) <= 1e-12);
    }
    return found;
}

/* *n_close is increased for a draw that is close. */
static void sample_row(int32_t *id, const float *logits, int64_t n_vocab, const qni_cuda_sampler *how,
                       unsigned long long *n_close) {
    qn_sampler *sampler = NULL;
    double *probs = fake_room((size_t)n_vocab * sizeof *probs);
    qn_sampler_params p;
    qn_logit_bias *biases = fake_room((size_t)how->n_bias * sizeof *biases);
    /* ids that are needed; a step goes on after logits that cannot be sampled, which left -1 */
    int32_t *history = fake_room((size_t)*how->n_id * sizeof *history);
    for (int32_t i = 0; how->ids != NULL && i < *how->n_id; i++) history[i] = how->ids[i] < 0 ? 0 : how->ids[i];
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    for (int32_t i = 0; i < how->n_bias; i++) biases[i] = (qn_logit_bias){how->bias_ids[i], how->biases[i]};
    p.temperature = how->temperature;
    p.top_k = how->top_k;
    p.top_p = how->top_p;
    p.min_p = how->min_p;
    p.repetition_penalty = how->repetition_penalty;
    p.presence_penalty = how->presence_penalty;
    p.frequency_penalty = how->frequency_penalty;
    p.seed = how->seed;
    p.logit_bias = how->n_bias > 0 ? biases : NULL;
    p.n_logit_bias = (size_t)how->n_bias;
    qn_status status = qn_sampler_create(&sampler, &p, (int32_t)n_vocab, how->n_valid, NULL);
    if (status == QN_OK) {
        status = qn_sampler_draw(sampler, id, probs, logits, history, (size_t)*how->n_id, (size_t)how->prompt_len,
                                 (uint64_t)*how->n_id, NULL);
    }
    if (status == QN_ENUMERIC) *id = -1;
    FAKE_CHECK(status == QN_OK || status == QN_ENUMERIC);
    *n_close += status == QN_OK && how->temperature > 0 && is_close(probs, n_vocab, how);
    free(probs);
    qn_sampler_free(sampler);
    free(biases);
    free(history);
}

static void run_sample(void *arguments) {
    const sample_job *j = arguments;
    memset(j->work, 0xFF, qni_cuda_sample_work((int32_t)j->logits.n_row, j->logits.n_col));
    FAKE_CHECK(j->n_close != NULL);
    for (int64_t r = 0; r < j->logits.n_row; r++) {
        sample_row(&j->ids[r], qni_mat_row(&j->logits, r), j->logits.n_col, &j->samplers[r], j->n_close);
    }
}
cudaError_t qni_cuda_sample(cudaStream_t stream, int32_t *ids, qni_mat logits, const qni_cuda_sampler *samplers,
                            unsigned long long *n_close, void *work) {
    const sample_job j = {ids, logits, samplers, n_close, work};
    FAKE_CHECK(logits.dtype == QN_DTYPE_F32);
    return fake_queue(stream, run_sample, &j, sizeof j);
}

/* --- steps --- */

typedef struct advance_job {
    qni_cuda_decode_state s;
    int32_t n_seq;
    const qni_cuda_sampler *samplers;
} advance_job;

static void run_advance(void *arguments) {
    const advance_job *j = arguments;
    const qni_cuda_decode_state *s = &j->s;
    for (int32_t i = 0; i < j->n_seq; i++) {
        const qni_cuda_sampler *sampler = &j->samplers[i];
        const int32_t id = s->ids[i], step = s->n_step[i]++;
        if (sampler->ids != NULL) sampler->ids[*sampler->n_id] = id;
        *sampler->n_id += 1;
        s->tok_pos[i] += 1;
        s->pos_begin[i] += 1;
        s->input[i] = id < 0 ? 0 : id;
        s->ring[(int64_t)step * j->n_seq + i] = id;
    }
}
cudaError_t qni_cuda_advance(cudaStream_t stream, const qni_cuda_decode_state *state, int32_t n_seq,
                             const qni_cuda_sampler *samplers) {
    const advance_job j = {*state, n_seq, samplers};
    return fake_queue(stream, run_advance, &j, sizeof j);
}

/* --- peaks: nothing is computed --- */

static void run_nothing(void *arguments) {
    (void)arguments;
}
cudaError_t qni_cuda_peak_fill(cudaStream_t stream, void *out, size_t bytes, int32_t n_sm) {
    (void)bytes, (void)n_sm;
    return fake_queue(stream, run_nothing, &out, sizeof out);
}
cudaError_t qni_cuda_peak_read(cudaStream_t stream, const void *data, size_t bytes, int32_t n_sm, void *out) {
    (void)bytes, (void)n_sm, (void)out;
    return fake_queue(stream, run_nothing, &data, sizeof data);
}
cudaError_t qni_cuda_peak_multiply(cudaStream_t stream, int32_t n_sm, void *out) {
    (void)n_sm;
    return fake_queue(stream, run_nothing, &out, sizeof out);
}
double qni_cuda_peak_multiply_ops(int32_t n_sm) {
    return 1e9 * n_sm;
}
