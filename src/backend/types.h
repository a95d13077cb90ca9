/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data types of the ops: matrices, weights, KV caches, batches. Plain data that backends in other languages can
 * include: valid as C11, as C++17 and in CUDA (tools/lint/headers).
 */
#ifndef QNI_TYPES_H
#define QNI_TYPES_H

#include <quern/ops.h>

/* Device memory. Views point to addresses within it; only the backend dereferences them. */
typedef struct qni_buffer {
    void *address;
    void *handle; /* backend-private, for libraries that expose no addresses; else NULL */
    size_t bytes;
} qni_buffer;

/* Rows of activations: row r starts at data + (r / n_inner * outer_stride + r % n_inner * row_stride) elements.
 * For a plain matrix n_inner is n_row. The elements of a row are contiguous. */
typedef struct qni_mat {
    void *data;
    qn_dtype dtype;
    int64_t n_row, n_col;
    int64_t n_inner;
    int64_t outer_stride, row_stride; /* in elements */
} qni_mat;

/* Rows of heads: head h of row r starts head_stride · h elements after the row. rows.n_col is n_head · head_dim. */
typedef struct qni_heads {
    qni_mat rows;
    int64_t n_head, head_dim;
    int64_t head_stride;
} qni_heads;

/* A norm weight, contiguous. */
typedef struct qni_vec {
    const void *data;
    qn_dtype dtype;
    int64_t n;
} qni_vec;

/*
 * Formats of quantized matrices {out, in}, as stored in checkpoints:
 *
 *   affine   W[o, i] = scale[o, i / group] · code[o, i] + bias[o, i / group]: unsigned codes of 2, 3, 4, 5, 6 or 8
 *            bits. A row is one little-endian bit stream without padding, a whole number of u32 words. This is MLX's
 *            format. Symmetric: bias = -2^(bits-1) · scale everywhere, so biases need not be stored.
 *   fp8      W[o, i] = scale[o / group_out, i / group] · e4m3(code[o, i]), as DeepSeek and Qwen publish it
 *            (weight_scale_inv, which multiplies). The last blocks may be partial.
 */
typedef enum qni_quant_kind { QNI_DENSE, QNI_AFFINE, QNI_FP8 } qni_quant_kind;

typedef struct qni_quant {
    qni_quant_kind kind;
    int32_t bits;      /* affine: bits per code; fp8: 8 */
    int64_t group;     /* inputs per scale */
    int64_t group_out; /* outputs per scale; affine: 1 */
    qn_dtype scale_dtype;
    bool symmetric; /* affine */
} qni_quant;

/* Rows of a quantized matrix in memory; row 0 starts a group of outputs (fp8). */
typedef struct qni_quant_rows {
    const unsigned char *codes;  /* rows of qni_quant_code_bytes() bytes */
    const unsigned char *scales; /* rows of n_group scale_dtype elements, one per group_out outputs */
    const unsigned char *biases; /* affine: laid out as scales; NULL: symmetric */
} qni_quant_rows;

/*
 * A weight matrix W {in, out} in panels of nr consecutive outputs, inputs in groups of ki:
 *
 *   W[i, o] = data[o / nr · panel_stride + i / ki · group_stride + (o % nr) · ki + i % ki]
 *
 *   plain {in, out}   nr = n_out, ki = 1, group_stride = row stride            (one panel)
 *   plain {out, in}   nr = 1,     ki = 1, group_stride = 1, panel_stride = row stride
 *   packed            nr and ki of the kernel table; outputs and inputs are padded with zeros to whole panels and groups
 *
 * so that one description serves all dense forms; `packed` says that the padding exists and that data is
 * QNI_ALIGN-aligned.
 *
 * A quantized weight (quant.kind not QNI_DENSE) is always packed. The content of its panels is private to the backend,
 * and panel_stride counts bytes.
 */
typedef struct qni_weight {
    const void *data;
    qn_dtype dtype;  /* of the elements; affine: U32, fp8: F8 */
    qn_arith arith;  /* F32 for plain ones */
    qni_quant quant; /* as it is packed */
    bool packed;
    bool far;         /* packed: holds weights far from 1, see QNI_NEAR_LEAST; whoever filled it says so */
    bool interleaved; /* packed: in the formula o % nr is replaced by o % nr % (nr/2) · 2 + o % nr / (nr/2) */
    int64_t n_in, n_out;
    int64_t nr, ki;
    int64_t panel_stride, group_stride; /* in elements */
} qni_weight;

/*
 * Magnitudes of weights (of scales, where they are quantized) that the faster arithmetics are made for; beyond them, zeros
 * apart, a weight is far from 1. An instruction for bf16 may take numbers below 2^-126 for zeros: with near weights that
 * loses less than 2^-105 of an output for each input, with far ones it may be all of it. int8 takes activations below
 * 2^-100 for zeros, and its products of scales may overflow: far ones are multiplied in f32 instead.
 */
#define QNI_NEAR_LEAST 0x1p-100f
#define QNI_NEAR_MOST  0x1p20f

/* What a linear is packed from. */
typedef struct qni_source {
    qn_dtype dtype;  /* of a dense one's elements */
    qni_quant quant; /* kind QNI_DENSE: it has none */
    qn_arith arith;  /* as asked for: AUTO is resolved by the backend */
    int64_t n_in, n_out;
} qni_source;

/* How a backend packs a linear. */
typedef struct qni_packing {
    qni_weight form; /* data NULL */
    size_t bytes;    /* padding included */
} qni_packing;

/* The weights of a layer as ops take them: views of a model, or of the operands qn_layer_weights of a primitive. */
typedef struct qni_attention_view {
    qni_vec norm;
    qni_weight q_proj, k_proj, v_proj, o_proj;
    qni_vec q_norm, k_norm;
} qni_attention_view;

typedef struct qni_mlp_view {
    qni_vec norm;
    qni_weight gate_proj, up_proj, down_proj;
} qni_mlp_view;

typedef struct qni_layer_view {
    qni_attention_view attention;
    qni_mlp_view mlp;
} qni_layer_view;

/*
 * The tokens of one step, grouped by sequence. Sequence s has tokens tok_begin[s] … tok_begin[s + 1] - 1, at least one,
 * at consecutive positions from pos_begin[s]. Covers a prefill chunk, a decode step for many users and any mixture. The
 * arrays are host memory that may change once the call returns.
 */
typedef struct qni_batch {
    int64_t n_tok;
    int32_t n_seq;
    int32_t max_block;
    const int32_t *tok_begin;   /* {n_seq + 1} */
    const int32_t *pos_begin;   /* {n_seq} */
    const int32_t *block_table; /* {n_seq, max_block}: position p is in block [p / block_tokens] */
} qni_batch;

/*
 * KV of one layer, in blocks of block_tokens positions. K of KV head h at position p of sequence s is at element
 *
 *   block · k_block_stride + h · k_head_stride + p % block_tokens · k_token_stride,   block = block_table[s, p / block_tokens]
 *
 * of k, and V likewise. A cache {B, N_kv, T_max, D} is the special case of one block of T_max tokens per batch row.
 */
typedef struct qni_kv_layer {
    void *k, *v;
    qn_dtype k_dtype, v_dtype;
    int64_t block_tokens;
    int64_t n_kv_head, head_dim;
    int64_t k_block_stride, k_head_stride, k_token_stride; /* in elements; q8: in bytes */
    int64_t v_block_stride, v_head_stride, v_token_stride;
} qni_kv_layer;

/* KV of all layers; layer i is at an offset of i · layer_stride bytes from the first. */
typedef struct qni_kv {
    qni_kv_layer first;
    int64_t layer_stride;
} qni_kv;

/* RoPE frequencies: dimension pair i at position p has the angle p · inv_freq[i]. */
typedef struct qni_frequencies {
    const double *inv_freq;  /* {head_dim / 2} */
    double attention_factor; /* scales cos and sin */
} qni_frequencies;

/* Arguments of kv_attention, attention_block and layer that all layers of a step share. */
typedef struct qni_attention_call {
    const qni_batch *batch;
    const float *cos_sin; /* {n_tok, head_dim}, written by the `rope` op */
    double scale;
    double eps;
} qni_attention_call;

/* The parts of a model that a step needs. */
typedef struct qni_transformer {
    const qni_weight *embedding, *lm_head; /* n_in = d_model, n_out = n_vocab */
    const qni_layer_view *layers;          /* {n_layer} */
    qni_vec norm;                          /* the final norm */
    int32_t n_layer, head_dim, d_model, n_vocab;
    double eps;
} qni_transformer;

/* Inputs of a step, and the KV cache that it reads and writes. */
typedef struct qni_step_input {
    const qni_batch *batch;
    const int32_t *ids; /* {n_tok}, on the host */
    const qni_kv *kv;
    qni_frequencies rope;
} qni_step_input;

struct qn_sampler_params; /* of <quern/sampler.h> */

/* How the next ids of a sequence are sampled; sampler.h has the formulas. Everything here is host memory. */
typedef struct qni_sampling {
    const struct qn_sampler_params *params;
    int32_t n_valid;     /* ids from n_valid on are never sampled */
    int32_t *ids;        /* the ids of the sequence, with capacity for those to be sampled */
    int32_t n_id;        /* ids so far: the position of the next one */
    int32_t prompt_len;  /* ids from this index on were generated */
    const int32_t *ends; /* {n_end}: ids that end the sequence */
    int32_t n_end;
} qni_sampling;

/* What `step` should generate for the sequences of a batch. */
typedef struct qni_decode {
    qni_sampling *sampling;        /* {n_seq} */
    int32_t n_token;               /* maximum ids to sample per sequence; the batch has blocks for all of them */
    const volatile bool *canceled; /* NULL, or polled before each token: set, it stops generation */
    /* {n_seq}: ids sampled so far; each count is written after its id, so the host may read ids while the step runs.
     * n_sampled[s] < n_token if the last id ended the sequence, `canceled` was set, or is_bad[s]. */
    volatile int32_t *n_sampled;
    bool *is_bad; /* {n_seq}: the logits after the last id cannot be sampled */
} qni_decode;

/* KV of layer i. */
static inline qni_kv_layer qni_kv_at(const qni_kv *kv, int32_t layer) {
    qni_kv_layer at = kv->first;
    at.k = (unsigned char *)at.k + layer * kv->layer_stride;
    at.v = (unsigned char *)at.v + layer * kv->layer_stride;
    return at;
}

/* The sequence of token t of a batch. */
static inline int32_t qni_batch_seq(const qni_batch *batch, int64_t t) {
    int32_t first = 0, n = batch->n_seq;
    while (n > 1) { /* invariant: it is one of the n from `first` on */
        const int32_t half = n / 2;
        if (batch->tok_begin[first + half] <= t) {
            first += half;
            n -= half;
        } else {
            n = half;
        }
    }
    return first;
}

static inline bool qni_dtype_is_float(qn_dtype dtype) {
    return dtype == QN_DTYPE_F32 || dtype == QN_DTYPE_BF16 || dtype == QN_DTYPE_F16;
}

/* Address of row r. */
static inline void *qni_mat_row(const qni_mat *m, int64_t r) {
    int64_t element = r / m->n_inner * m->outer_stride + r % m->n_inner * m->row_stride;
    return (unsigned char *)m->data + element * (int64_t)qn_dtype_bytes(m->dtype);
}

/* A contiguous matrix over memory. */
static inline qni_mat qni_mat_of(void *data, qn_dtype dtype, int64_t n_row, int64_t n_col) {
    const qni_mat m = {data, dtype, n_row, n_col, n_row, n_row * n_col, n_col};
    return m;
}

#endif
