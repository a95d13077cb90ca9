/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cpu backend: threaded, with the kernels of kernels.h.
 *
 *   cpu.c         open, close, the table of ops
 *   pack.c        weights in panels
 *   input.c       rows of activations as products take them
 *   linear.c      products of rows with weights, with an epilogue
 *   attention.c   RoPE, cache write, attention; attention_block.c: a block of its positions
 *   rows.c        embed, norms, conversions, SwiGLU, argmax
 *   layer.c       the fused ops
 *   dispatch.c    which kernels this machine has
 */
#ifndef QNI_CPU_BACKEND_H
#define QNI_CPU_BACKEND_H

#include "../backend/backend.h"
#include "../base/memory.h"
#include "../base/thread_pool.h"
#include "kernels.h"

typedef struct qni_cpu {
    qni_pool *pool;
    int32_t n_thread;
    qni_cpu_kernels kernels;
} qni_cpu;

/* The kernels of the best level that the machine supports and `isa` (NULL: no cap) allows. EINVAL: unknown name. */
qn_status qni_cpu_select(qni_cpu_kernels *out, const char *isa, qn_error *err);

/* Name of the index-th level, lowest first; NULL past the last. */
const char *qni_cpu_isa_level(int32_t index);

static inline qni_cpu *qni_cpu_of(const qni_run *run) {
    return run->backend;
}

/* Index in the kernel arrays. */
static inline int qni_cpu_dtype(qn_dtype dtype) {
    return dtype == QN_DTYPE_Q8 ? QNI_CPU_Q8 : (int)dtype - QN_DTYPE_F32;
}

/* The integer kernels for weights with 8- or 4-bit codes. */
static inline const qni_cpu_int8 *qni_cpu_int8_of(const qni_cpu_kernels *k, int32_t bits) {
    return &k->int8[bits == 8 ? QNI_CPU_8_BITS : QNI_CPU_4_BITS];
}

/* The layout in which a product reads its rows of activations. */
typedef struct qni_cpu_row_layout {
    qn_arith arith; /* F32: tiles {n_col, m} f32; BF16: {n_col / 2, m, 2} bf16; INT8: codes, scales, sums */
    int64_t group;  /* INT8: inputs per scale */
    bool words;     /* INT8: words instead of bytes */
    unsigned char *data;
    int64_t tile_bytes; /* distance between tiles */
} qni_cpu_row_layout;

/* Rows of activations in tiles of mr rows (the last may have fewer), once per layout needed. */
typedef struct qni_cpu_input {
    int64_t n_row, n_col, mr;
    int32_t n_layout;
    qni_cpu_row_layout layouts[3];
    float *rows; /* {n_thread, mr, n_col}: the tile being packed */
} qni_cpu_input;

static inline int64_t qni_cpu_tile_rows(const qni_cpu_input *input, int64_t tile) {
    return qni_min_i64(input->mr, input->n_row - tile * input->mr);
}

/* Allocate n floats of scratch; convert a norm weight to f32 in scratch, NULL if it is absent (data NULL). */
float *qni_cpu_alloc_floats(const qni_run *run, int64_t n);
const float *qni_cpu_widen_vec(const qni_run *run, qni_vec vec);

/* out = rms(x, w), n elements; out may be x. */
void qni_cpu_norm_row(const qni_cpu_kernels *k, float *out, const float *x, const float *w, int64_t n, double eps);

/* Allocate the layouts that the weights (at most three) need for rows {n_row, n_in}; then fill them with x, or with
 * rms(x, norm) if norm is not NULL (input.c). */
qni_cpu_input qni_cpu_alloc_input(const qni_run *run, int64_t n_row, const qni_weight *const *weights, int32_t n);
void qni_cpu_pack_rows(const qni_run *run, qni_cpu_input *input, qni_mat x, const float *norm, double eps);

/* The layout that a weight reads. */
const qni_cpu_row_layout *qni_cpu_row_layout_of(const qni_cpu_kernels *k, const qni_cpu_input *input,
                                                const qni_weight *weight);
/* A tile of an INT8 layout. */
qni_cpu_codes qni_cpu_codes_of(const qni_cpu_input *input, const qni_cpu_row_layout *layout, int64_t tile);

/* What is done with a product. */
typedef enum qni_cpu_epilogue {
    QNI_CPU_STORE,  /* out = x · W */
    QNI_CPU_ADD,    /* out = hidden + x · W; out may be hidden */
    QNI_CPU_SWIGLU, /* out = silu(x · W) ⊙ (x · W2) */
} qni_cpu_epilogue;

typedef struct qni_cpu_product {
    qni_cpu_epilogue epilogue;
    const qni_weight *weight;
    const qni_weight *weight2; /* SWIGLU */
    qni_mat out;
    qni_mat hidden; /* ADD */
} qni_cpu_product;

/* Up to three products of the same rows in one parallel loop. `scratch` is from qni_cpu_alloc_linear(). */
float *qni_cpu_alloc_linear(const qni_run *run, int64_t n_row);
void qni_cpu_linear(const qni_run *run, const qni_cpu_input *x, const qni_cpu_product *products, int32_t n_product,
                    float *scratch);

/* First touch: write to the not yet filled memory of packed weights from the threads that read it in a one-row product,
 * so that each page is placed on their NUMA node. */
void qni_cpu_touch(qni_cpu *cpu, const qni_cpu_product *products, int32_t n_product);

/* RoPE, cache write and attention; q_norm and k_norm (f32, {head_dim}), unless NULL, are applied before RoPE. */
typedef struct qni_cpu_attention {
    qni_mat out;
    qni_heads q, k, v;
    const float *q_norm, *k_norm;
    const qni_kv_layer *kv;
    const qni_attention_call *call;
} qni_cpu_attention;

/* Workspace of an attention call, allocated before anything is computed. */
typedef struct qni_cpu_attention_scratch {
    float *per_thread;
    int64_t floats;  /* per thread */
    int32_t *first;  /* {n_tok + 1} first token of each query tile */
    float *partials; /* for few tokens: the partial softmax of each chunk of positions */
} qni_cpu_attention_scratch;

qni_cpu_attention_scratch qni_cpu_alloc_attention(const qni_run *run, const qni_cpu_attention *attention);
void qni_cpu_attend(const qni_run *run, const qni_cpu_attention *attention, qni_cpu_attention_scratch scratch);

/* The ops; backend.h documents them. */
qn_status qni_cpu_op_embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids);
qn_status qni_cpu_op_rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps);
qn_status qni_cpu_op_linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight);
qn_status qni_cpu_op_kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                                  const qni_kv_layer *kv, const qni_attention_call *call);
qn_status qni_cpu_op_linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight);
qn_status qni_cpu_op_swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up);
qn_status qni_cpu_op_argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid);
qn_status qni_cpu_op_mlp(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *weights, double eps);
qn_status qni_cpu_op_attention_block(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *weights,
                                     const qni_kv_layer *kv, const qni_attention_call *call);
qn_status qni_cpu_op_layer(const qni_run *run, qni_mat out, qni_mat hidden, const qni_layer_view *weights,
                           const qni_kv_layer *kv, const qni_attention_call *call);
void qni_cpu_first_touch(void *state, const qni_layer_view *layer, const qni_weight *lm_head);
qn_status qni_cpu_op_lm_head(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm,
                             const qni_weight *lm_head, double eps);

#endif
