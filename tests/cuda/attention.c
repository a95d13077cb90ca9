/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins for RoPE and for the kernels of attention. */
#include "kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- RoPE --- */

typedef struct rope_job {
    qni_mat cos_sin;
    const int32_t *tok_pos;
    const double *inv_freq;
    double factor;
} rope_job;

static void run_rope(void *arguments) {
    const rope_job *j = arguments;
    const int64_t half = j->cos_sin.n_col / 2;
    for (int64_t t = 0; t < j->cos_sin.n_row; t++) {
        float *row = qni_mat_row(&j->cos_sin, t);
        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)j->tok_pos[t] * j->inv_freq[i];
            row[i] = (float)(cos(angle) * j->factor);
            row[half + i] = (float)(sin(angle) * j->factor);
        }
    }
}
cudaError_t qni_cuda_rope(cudaStream_t stream, qni_mat cos_sin, const int32_t *tok_pos, const double *inv_freq,
                          double attention_factor) {
    const rope_job j = {cos_sin, tok_pos, inv_freq, attention_factor};
    return fake_queue(stream, run_rope, &j, sizeof j);
}

/* --- the batch --- */

/* As the ops take it; the parts on the device must agree with each other. */
static qni_batch batch_of(const qni_cuda_batch *b) {
    for (int32_t s = 0; s < b->n_seq; s++) {
        for (int32_t t = b->tok_begin[s]; t < b->tok_begin[s + 1]; t++) {
            FAKE_CHECK(b->tok_seq[t] == s && b->tok_pos[t] == b->pos_begin[s] + t - b->tok_begin[s]);
            FAKE_CHECK(b->tok_pos[t] <= b->max_pos);
        }
    }
    FAKE_CHECK(b->tok_begin[0] == 0 && b->tok_begin[b->n_seq] == b->n_tok);
    return (qni_batch){b->n_tok, b->n_seq, b->max_block, b->tok_begin, b->pos_begin, b->block_table};
}

/* Row of KV head g at the position of token t, or at position p. */
static void *row_at(const qni_kv_layer *kv, const qni_cuda_batch *b, int64_t t, int64_t g, int64_t p, bool value) {
    const int32_t *blocks = b->block_table + (int64_t)b->tok_seq[t] * b->max_block;
    const int64_t block = blocks[p / kv->block_tokens], at = p % kv->block_tokens;
    if (value) {
        return (unsigned char *)kv->v + (block * kv->v_block_stride + g * kv->v_head_stride + at * kv->v_token_stride) *
                                            (int64_t)qn_dtype_bytes(kv->v_dtype);
    }
    return (unsigned char *)kv->k + (block * kv->k_block_stride + g * kv->k_head_stride + at * kv->k_token_stride) *
                                        (int64_t)qn_dtype_bytes(kv->k_dtype);
}

/* --- attention.cu --- */

typedef struct any_job {
    qni_mat out;
    qni_heads q, k, v;
    qni_kv_layer kv;
    const float *cos_sin;
    double scale;
    qni_cuda_batch batch;
} any_job;

static qn_status any_op(const qni_run *run, const void *context) {
    const any_job *j = context;
    const qni_batch batch = batch_of(&j->batch);
    const qni_attention_call call = {.batch = &batch, .cos_sin = j->cos_sin, .scale = j->scale};
    return qni_backend_ref.ops.kv_attention(run, j->out, j->q, j->k, j->v, &j->kv, &call);
}
static void run_any(void *arguments) {
    fake_compute("attention", any_op, arguments);
}
cudaError_t qni_cuda_attention(cudaStream_t stream, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                               const qni_kv_layer *kv, const float *cos_sin, double scale,
                               const qni_cuda_batch *batch) {
    const any_job j = {out, q, k, v, *kv, cos_sin, scale, *batch};
    FAKE_CHECK(out.n_row == batch->n_tok);
    return fake_queue(stream, run_any, &j, sizeof j);
}

/* --- the parts of the fused kernels --- */

typedef struct heads_job {
    qni_cuda_heads h;
    qni_cuda_batch batch;
    void *q; /* write_kv */
} heads_job;

/* Head `at` of a token's projections, normalized if there is a norm, and rotated if asked for. */
static void load_head(float *to, const heads_job *j, int64_t t, int64_t at, const qni_vec *norm, bool rotates) {
    const int64_t d = j->h.kv.head_dim, half = d / 2;
    const void *row = qni_mat_row(&j->h.qkv, t);
    const float *angles = j->h.cos_sin + t * d;
    double sum = 0;
    for (int64_t i = 0; i < d; i++) {
        to[i] = qni_load_f32(row, j->h.qkv.dtype, at * d + i);
        sum += (double)to[i] * (double)to[i];
    }
    const double factor = 1 / sqrt(sum / (double)d + j->h.eps);
    for (int64_t i = 0; i < d && norm->data != NULL; i++) {
        to[i] = (float)((double)to[i] * factor * (double)qni_load_f32(norm->data, norm->dtype, i));
    }
    for (int64_t i = 0; i < half && rotates; i++) {
        const double a = (double)to[i], b = (double)to[half + i], c = (double)angles[i], s = (double)angles[half + i];
        to[i] = (float)(a * c - b * s);
        to[half + i] = (float)(b * c + a * s);
    }
}

/* Keys and values of all tokens to the cache, queries to q {n_tok, n_head, head_dim}. */
static void write_heads(const heads_job *j, void *q, qn_dtype q_dtype) {
    const qni_vec none = {0};
    const int64_t d = j->h.kv.head_dim, n_head = j->h.n_head, n_kv = j->h.kv.n_kv_head;
    float *row = fake_room((size_t)d * sizeof *row);
    (void)batch_of(&j->batch);
    for (int64_t t = 0; t < j->batch.n_tok; t++) {
        for (int64_t g = 0; g < n_kv; g++) {
            load_head(row, j, t, n_head + g, &j->h.k_norm, true);
            qni_kv_store(row_at(&j->h.kv, &j->batch, t, g, j->batch.tok_pos[t], false), j->h.kv.k_dtype, row, d);
            load_head(row, j, t, n_head + n_kv + g, &none, false);
            qni_kv_store(row_at(&j->h.kv, &j->batch, t, g, j->batch.tok_pos[t], true), j->h.kv.v_dtype, row, d);
        }
        for (int64_t h = 0; h < n_head; h++) {
            load_head(row, j, t, h, &j->h.q_norm, true);
            for (int64_t i = 0; i < d; i++) qni_store_f32(q, q_dtype, (t * n_head + h) * d + i, row[i]);
        }
    }
    free(row);
}

/* sum {D} = attention of a query of token t. */
static void attend(double *sum, float *row, const float *q, const qni_kv_layer *kv, const qni_cuda_batch *b, int64_t t,
                   int64_t g, double scale) {
    const int64_t d = kv->head_dim;
    double greatest = -INFINITY, total = 0;
    for (int64_t i = 0; i < d; i++) sum[i] = 0;
    for (int64_t p = 0; p <= b->tok_pos[t]; p++) {
        double score = 0;
        qni_kv_load(row, row_at(kv, b, t, g, p, false), kv->k_dtype, d);
        for (int64_t i = 0; i < d; i++) score += (double)q[i] * (double)row[i];
        score *= scale;
        const double next = fmax(greatest, score), old = exp(greatest - next), weight = exp(score - next);
        qni_kv_load(row, row_at(kv, b, t, g, p, true), kv->v_dtype, d);
        for (int64_t i = 0; i < d; i++) sum[i] = sum[i] * old + weight * (double)row[i];
        total = total * old + weight;
        greatest = next;
    }
    for (int64_t i = 0; i < d; i++) sum[i] /= total;
}

static void attend_all(qni_mat out, const void *q, qn_dtype q_dtype, int64_t n_head, const qni_kv_layer *kv,
                       const qni_cuda_batch *b, double scale) {
    const int64_t d = kv->head_dim;
    double *sum = fake_room((size_t)d * sizeof *sum);
    float *query = fake_room((size_t)d * sizeof *query), *row = fake_room((size_t)d * sizeof *row);
    for (int64_t t = 0; t < b->n_tok; t++) {
        for (int64_t h = 0; h < n_head; h++) {
            for (int64_t i = 0; i < d; i++) query[i] = qni_load_f32(q, q_dtype, (t * n_head + h) * d + i);
            attend(sum, row, query, kv, b, t, h / (n_head / kv->n_kv_head), scale);
            for (int64_t i = 0; i < d; i++) qni_store_f32(qni_mat_row(&out, t), out.dtype, h * d + i, (float)sum[i]);
        }
    }
    free(sum);
    free(query);
    free(row);
}

static void check_heads(const qni_cuda_heads *job) {
    const qni_kv_layer *kv = &job->kv;
    FAKE_CHECK(job->qkv.n_row == job->batch->n_tok && job->n_head % kv->n_kv_head == 0);
    FAKE_CHECK(job->qkv.n_col == (job->n_head + 2 * kv->n_kv_head) * kv->head_dim);
}

/* --- decode_attention.cu --- */

enum { SPLIT = 64 };

/* Counters, then partial results {n_tok, n_head, splits, head_dim + 2}. */
static size_t counter_bytes(int32_t n_tok, int64_t n_head) {
    (void)n_tok, (void)n_head;
    return 4096;
}
size_t qni_cuda_decode_work(int32_t n_tok, int64_t n_head, int64_t head_dim, int32_t max_pos) {
    const int64_t n_split = max_pos / SPLIT + 1;
    return counter_bytes(n_tok, n_head) + (size_t)(n_tok * n_head * n_split * (head_dim + 2)) * sizeof(float);
}
bool qni_cuda_decode_takes(const qni_kv_layer *kv, int64_t n_head) {
    return kv->head_dim % 8 == 0 && n_head % kv->n_kv_head == 0;
}

static void run_decode(void *arguments) {
    const heads_job *j = arguments;
    const int64_t d = j->h.kv.head_dim, n_head = j->h.n_head;
    const unsigned char *counters = j->h.work;
    const size_t n_counter = counter_bytes(j->batch.n_tok, n_head);
    for (size_t i = 0; i < n_counter; i++) {
        if (counters[i] != 0) fake_refuse("the counters of decode attention are not zero");
    }
    memset((unsigned char *)j->h.work + n_counter, 0xFF,
           qni_cuda_decode_work(j->batch.n_tok, n_head, d, j->batch.max_pos) - n_counter);
    float *q = fake_room((size_t)(j->batch.n_tok * n_head * d) * sizeof *q);
    write_heads(j, q, QN_DTYPE_F32);
    attend_all(j->h.out, q, QN_DTYPE_F32, n_head, &j->h.kv, &j->batch, j->h.scale);
    free(q);
}
cudaError_t qni_cuda_decode_attention(cudaStream_t stream, const qni_cuda_heads *job, bool chained) {
    (void)chained;
    const heads_job j = {.h = *job, .batch = *job->batch};
    check_heads(job);
    FAKE_CHECK(job->batch->n_tok == job->batch->n_seq && job->work != NULL && job->out.n_row == job->batch->n_tok);
    FAKE_CHECK(job->out.dtype == QN_DTYPE_F32 || job->out.dtype == QN_DTYPE_BF16);
    return fake_queue(stream, run_decode, &j, sizeof j);
}

static void run_write(void *arguments) {
    const heads_job *j = arguments;
    write_heads(j, j->q, j->h.kv.k_dtype);
}
cudaError_t qni_cuda_write_kv(cudaStream_t stream, void *q, const qni_cuda_heads *job) {
    const heads_job j = {.h = *job, .batch = *job->batch, .q = q};
    check_heads(job);
    return fake_queue(stream, run_write, &j, sizeof j);
}

/* --- prefill_attention.cu --- */

bool qni_cuda_prefill_takes(const qni_kv_layer *kv, int64_t n_head) {
    return kv->k_dtype == kv->v_dtype && (kv->k_dtype == QN_DTYPE_BF16 || kv->k_dtype == QN_DTYPE_F16) &&
           kv->head_dim % 8 == 0 && n_head % kv->n_kv_head == 0;
}

typedef struct prefill_job {
    qni_cuda_queries q;
    qni_cuda_batch batch;
} prefill_job;

static void run_prefill(void *arguments) {
    const prefill_job *j = arguments;
    const qn_dtype dtype = j->q.kv.k_dtype;
    const qni_mat out = qni_mat_of(j->q.out, dtype, j->batch.n_tok, j->q.n_head * j->q.kv.head_dim);
    attend_all(out, j->q.q, dtype, j->q.n_head, &j->q.kv, &j->batch, j->q.scale);
}
cudaError_t qni_cuda_prefill_attention(cudaStream_t stream, const qni_cuda_queries *job) {
    const prefill_job j = {*job, *job->batch};
    FAKE_CHECK(qni_cuda_prefill_takes(&job->kv, job->n_head));
    return fake_queue(stream, run_prefill, &j, sizeof j);
}
