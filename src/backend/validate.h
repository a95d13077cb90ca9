/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks of the public primitives. A primitive describes its operands in tables (operands.c): a name, a form, and
 * the sizes in named dimensions; validate.c goes through the tables in the order that ops.h promises.
 */
#ifndef QNI_VALIDATE_H
#define QNI_VALIDATE_H

#include "tensor.h"

/* The letters of ops.h; KV = Nkv·D, COUNT = tokens that a call makes. */
typedef enum qni_dim {
    QNI_B,
    QNI_T,
    QNI_H,
    QNI_D,
    QNI_V,
    QNI_COUNT,
    QNI_I, /* this and the following ones may differ between layers */
    QNI_A,
    QNI_KV,
    QNI_NQ,
    QNI_NKV,
    QNI_C,
    QNI_N_DIM,
} qni_dim;

typedef enum qni_form {
    QNI_VECTOR,     /* {length} */
    QNI_HIDDEN,     /* {batch, tokens, width} */
    QNI_HEADS,      /* {batch, tokens, heads, head_dim} */
    QNI_CACHE,      /* {batch, heads, capacity, head_dim} */
    QNI_LINEAR,     /* {input width, output width}, plain or packed */
    QNI_VOCABULARY, /* {vocabulary, width}, plain or packed */
    QNI_IDS,        /* {batch, tokens} */
    QNI_TOKENS,     /* {batch} */
    QNI_OFFSET,     /* {1} or {batch} */
} qni_form;

/* What a dtype may be, and what is done to the operand. */
typedef enum qni_use {
    QNI_READ_FLOAT,
    QNI_READ_STREAM,   /* a float; the result may be written over it */
    QNI_READ_ID,       /* s32, s64, u32 */
    QNI_READ_POSITION, /* s32, s64 */
    QNI_WRITE_STREAM,  /* dtype of the call's stream */
    QNI_WRITE_CACHE,   /* any float */
    QNI_WRITE_ID,      /* u32 */
} qni_use;

typedef struct qni_arg {
    const char *name;
    qni_form form;
    qni_use use;
    qni_dim dims[QN_MAX_RANK];
    const qn_tensor *tensor;
    const qn_operand *linear; /* instead of tensor */
    bool late;                /* its sizes need head counts */
} qni_arg;

enum { QNI_MAX_ARGS = 20 };

/* A call of a primitive as the checks see it. */
typedef struct qni_call {
    const void *args;
    /* Fills at most QNI_MAX_ARGS operands and returns their number; layer -1: those of the call itself. */
    int (*table)(const void *args, int32_t layer, qni_arg *out);
    int32_t n_layer;         /* tables besides the call's own */
    const qn_tensor *out;    /* the first output: its device is the call's */
    const qn_tensor *stream; /* whose dtype the result has; NULL: no such result */
    const qn_offset *offset; /* these may be NULL where the primitive has none */
    const qn_rope *rope;
    const double *scale, *eps;
    const int64_t *n_valid;
    int64_t n_more; /* tokens that follow the T of the call */
} qni_call;

/* Sizes by letter; 0 = the call has no such size. Those that differ between layers are the last one's. */
typedef struct qni_dims {
    int64_t of[QNI_N_DIM];
} qni_dims;

/* All checks. dims may hold sizes that the call fixes beforehand, and receives all. */
qn_status qni_validate(const qni_call *call, qni_dims *dims, qn_error *err);

/* One for each public primitive (operands.c). */
qn_status qni_check_kv_attention(const qn_kv_attention_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_mlp(const qn_mlp_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_attention_residual(const qn_attention_residual_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_attention_block(const qn_attention_block_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_layer(const qn_layer_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_greedy(const qn_greedy_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_forward_greedy(const qn_forward_greedy_args *args, qni_dims *dims, qn_error *err);

#endif
