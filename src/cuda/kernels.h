/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels' launchers, callable from C. They queue work on a stream and return the launch's error; nothing here
 * waits. All pointers are to device memory unless a comment says otherwise. Everything can be captured in a graph.
 *
 * chained: the kernel is launched with programmatic stream serialization: it may start before the previous kernel of the
 * stream has ended, loads its weights, and waits (griddepcontrol.wait) before it touches anything that earlier
 * kernels write. Each chained kernel also lets its successor start early (griddepcontrol.launch_dependents), but not
 * before its own wait: when a kernel starts, all but the one before it have ended. Decode attention relies on that.
 */
#ifndef QNI_CUDA_KERNELS_H
#define QNI_CUDA_KERNELS_H

#include "layout.h"

#include <cuda_runtime_api.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* The tokens of a step. */
typedef struct qni_cuda_batch {
    int32_t n_tok, n_seq, max_block;
    int32_t max_pos;            /* no position is greater; known to the host */
    const int32_t *tok_seq;     /* {n_tok}: the sequence of each token */
    const int32_t *tok_pos;     /* {n_tok}: its position */
    const int32_t *tok_begin;   /* {n_seq + 1} */
    const int32_t *pos_begin;   /* {n_seq} */
    const int32_t *block_table; /* {n_seq, max_block} */
} qni_cuda_batch;

/* Whether rows hold a multiple of eight elements and begin at multiples of 16 bytes, as the faster kernels need; any float
 * dtype. */
static inline bool qni_cuda_is_even(const qni_mat *m) {
    const int64_t unit = m->dtype == QN_DTYPE_F32 ? 4 : 8; /* elements */
    return m->n_inner == m->n_row && m->n_col % 8 == 0 && m->row_stride % unit == 0 && (uintptr_t)m->data % 16 == 0;
}

/* --- small.cu: any dtype, any strides --- */

cudaError_t qni_cuda_embed(cudaStream_t stream, qni_mat out, const qni_weight *table, const int32_t *ids);
cudaError_t qni_cuda_rms_norm(cudaStream_t stream, qni_mat out, qni_mat x, qni_vec weight, double eps);
cudaError_t qni_cuda_rope(cudaStream_t stream, qni_mat cos_sin, const int32_t *tok_pos, const double *inv_freq,
                          double attention_factor);
cudaError_t qni_cuda_swiglu(cudaStream_t stream, qni_mat out, qni_mat gate, qni_mat up);
/* out = x, in out's dtype */
cudaError_t qni_cuda_convert(cudaStream_t stream, qni_mat out, qni_mat x);

enum { QNI_CUDA_ARGMAX_WORK = 64 * 8 }; /* bytes per row */
/* ids[r] = the lowest id < n_valid with the greatest logit; -1 if the row holds a NaN. */
cudaError_t qni_cuda_argmax(cudaStream_t stream, int32_t *ids, qni_mat logits, int64_t n_valid, void *work);

/* --- linear.cu: out = (add +) x · W in f32, any dtype, layout and strides; add.data NULL: none --- */

/* Each output is summed in an order that depends on n_in only. round_x: round x to bf16 first. */
cudaError_t qni_cuda_linear(cudaStream_t stream, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w,
                            bool round_x);

/* out {n_out, n_in} bf16 = the weights of a quantized linear, rounded. */
cudaError_t qni_cuda_dequantize(cudaStream_t stream, void *out, const qni_weight *w);

/* --- attention.cu: any dtype, head_dim and strides, in f32 --- */

/* Apply RoPE to q and k, write k and v to the cache, attend. */
cudaError_t qni_cuda_attention(cudaStream_t stream, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                               const qni_kv_layer *kv, const float *cos_sin, double scale, const qni_cuda_batch *batch);

/* --- skinny.cu: few rows times a weight on tensor cores, bf16 operands, f32 sums --- */

enum { QNI_CUDA_SKINNY_ROWS = 16 };

typedef enum qni_cuda_epilogue {
    QNI_CUDA_STORE,  /* out {n_row, sum of n_out} = x · W */
    QNI_CUDA_ADD,    /* out = add + x · W; out may be add */
    QNI_CUDA_SWIGLU, /* out {n_row, n_out} = silu(x · w[0]) ⊙ (x · w[1]) */
} qni_cuda_epilogue;

typedef struct qni_cuda_skinny {
    qni_weight w[3]; /* packed, of one n_in; their outputs one after another */
    int32_t n_weight;
    qni_mat x;    /* {n_row <= 16, n_in}, f32 or bf16, rows 16-byte aligned; rounded to bf16 */
    qni_vec norm; /* data NULL: none; else x is normalized with it first (before rounding) */
    double eps;
    qni_cuda_epilogue epilogue;
    qni_mat out, add; /* f32 or bf16 */
} qni_cuda_skinny;

/* Whether the kernels take this weight: packed, bf16 arithmetic, n_in a multiple of 32 (64 …), n_out of 8. */
bool qni_cuda_skinny_takes(const qni_weight *w);
cudaError_t qni_cuda_skinny_run(cudaStream_t stream, const qni_cuda_skinny *job, int32_t n_sm, bool chained);

/* --- prefill_attention.cu: many queries of a sequence, tensor cores --- */

typedef struct qni_cuda_queries {
    const void *q; /* {n_tok, n_head, head_dim}, contiguous, normalized and rotated; bf16 or f16, like the cache */
    void *out;     /* {n_tok, n_head · head_dim}, contiguous, of the same dtype */
    int64_t n_head;
    qni_kv_layer kv; /* k_dtype = v_dtype = bf16 or f16; the keys and values of the batch's tokens are already there */
    double scale;
    const qni_cuda_batch *batch; /* on the host */
} qni_cuda_queries;

bool qni_cuda_prefill_takes(const qni_kv_layer *kv, int64_t n_head); /* head_dim 64 or 128, rows 16-byte aligned, … */
cudaError_t qni_cuda_prefill_attention(cudaStream_t stream, const qni_cuda_queries *job);

/* --- decode_attention.cu: one query per sequence, the cache split over blocks of threads --- */

typedef struct qni_cuda_heads {
    qni_mat qkv; /* {n_tok, (n_head + 2 n_kv_head) · head_dim} f32: q, k and v of a token one after another */
    qni_vec q_norm, k_norm; /* data NULL: already normalized */
    double eps;
    const float *cos_sin; /* {n_tok, head_dim}, as the `rope` op writes it */
    int64_t n_head;
    qni_kv_layer kv; /* any dtype of a KV cache, q8 too */
    double scale;
    qni_mat out;                 /* {n_tok, n_head · head_dim}, f32 or bf16 */
    const qni_cuda_batch *batch; /* on the host; every sequence has one token */
    void *work;                  /* qni_cuda_decode_work() bytes */
} qni_cuda_heads;

/* Bytes of workspace. The counters at its start are zero before the first call and after each call. */
size_t qni_cuda_decode_work(int32_t n_tok, int64_t n_head, int64_t head_dim, int32_t max_pos);
bool qni_cuda_decode_takes(const qni_kv_layer *kv, int64_t n_head); /* head_dim 64, 96, 128, 256, … */
/* Normalize and rotate q and k, write k and v to the cache, attend. */
cudaError_t qni_cuda_decode_attention(cudaStream_t stream, const qni_cuda_heads *job, bool chained);

/* Normalize and rotate q and k of many tokens; q to {n_tok, n_head, head_dim} in the cache's dtype, k and v to the
 * cache. qkv: f32 or bf16. */
cudaError_t qni_cuda_write_kv(cudaStream_t stream, void *q, const qni_cuda_heads *job);

/* --- sample.cu --- */

/* How one sequence is sampled; sampler.h has the formulas. */
typedef struct qni_cuda_sampler {
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    int32_t top_k, n_valid;
    int32_t prompt_len;
    int32_t n_bias;
    const int32_t *bias_ids; /* {n_bias} */
    const float *biases;
    int32_t *ids;  /* the ids of the sequence so far; where penalties need none it may be NULL */
    int32_t *n_id; /* their number: the position of the next one */
} qni_cuda_sampler;

size_t qni_cuda_sample_work(int32_t n_row, int64_t n_vocab);
/*
 * ids[r] = the id sampled from logits[r] by samplers[r]; -1 as the `sample` op says. The same ids as qn_sampler_draw from
 * the same logits, unless the random number lies within 1e-12 of a boundary between two ids: *n_close counts those.
 */
cudaError_t qni_cuda_sample(cudaStream_t stream, int32_t *ids, qni_mat logits, const qni_cuda_sampler *samplers,
                            unsigned long long *n_close, void *work);

/* --- peaks.cu --- */

cudaError_t qni_cuda_peak_fill(cudaStream_t stream, void *out, size_t bytes, int32_t n_sm);
/* Read all of `data` once; `out` is hardly ever written. */
cudaError_t qni_cuda_peak_read(cudaStream_t stream, const void *data, size_t bytes, int32_t n_sm, void *out);
/* f32 multiply-adds, so many operations. */
cudaError_t qni_cuda_peak_multiply(cudaStream_t stream, int32_t n_sm, void *out);
double qni_cuda_peak_multiply_ops(int32_t n_sm);

/* --- step.cu --- */

/* The state of a decode of several tokens. */
typedef struct qni_cuda_decode_state {
    const int32_t *ids;           /* {n_seq}: sampled by this step */
    int32_t *input;               /* {n_seq}: the ids that the next step computes */
    int32_t *tok_pos, *pos_begin; /* {n_seq}: of the batch */
    int32_t *n_step;              /* {n_seq}: steps so far */
    int32_t *ring;                /* {steps, n_seq}: in the host's memory, where the host waits for them */
} qni_cuda_decode_state;

/* After a step: append its ids, move to the next positions. */
cudaError_t qni_cuda_advance(cudaStream_t stream, const qni_cuda_decode_state *state, int32_t n_seq,
                             const qni_cuda_sampler *samplers);

#if defined(__cplusplus)
}
#endif
#endif
