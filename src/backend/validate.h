/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validation of the public primitives. Each primitive describes its operands in tables (operands.c): a name, a form,
 * and the sizes as named dimensions. validate.c checks the tables in the order that ops.h promises.
 */
#ifndef QNI_VALIDATE_H
#define QNI_VALIDATE_H

#include "tensor.h"

/* The letters of ops.h; KV = Nkv·D, COUNT = tokens that a call generates. */
typedef enum qni_dim {
    QNI_B,
    QNI_T,
    QNI_H,
    QNI_D,
    QNI_V,
    QNI_COUNT,
    QNI_I, /* from here on, sizes may differ between layers */
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

/* Allowed dtypes, and how the operand is used. */
typedef enum qni_use {
    QNI_READ_FLOAT,
    QNI_READ_STREAM,   /* a float; the result may overwrite it */
    QNI_READ_ID,       /* s32, s64, u32 */
    QNI_READ_POSITION, /* s32, s64 */
    QNI_WRITE_STREAM,  /* the dtype of the call's stream */
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
    bool late;                /* its sizes depend on head counts */
} qni_arg;

enum { QNI_MAX_ARGS = 20 };

/* A primitive's call, as the checks see it. */
typedef struct qni_call {
    const void *args;
    /* Fill in at most QNI_MAX_ARGS operands and return their number; layer -1: those of the call itself. */
    int (*table)(const void *args, int32_t layer, qni_arg *out);
    int32_t n_layer;         /* number of tables besides the call's own */
    const qn_tensor *out;    /* the first output; its device is the call's device */
    const qn_tensor *stream; /* sets the dtype of the result; NULL: no such result */
    const qn_offset *offset; /* this and the following may be NULL if the primitive lacks them */
    const qn_rope *rope;
    const double *scale, *eps;
    const int64_t *n_valid;
    int64_t n_more; /* tokens generated after the call's T */
} qni_call;

/* Sizes by letter; 0: not used by this call. Sizes that differ between layers are those of the last layer. */
typedef struct qni_dims {
    int64_t of[QNI_N_DIM];
} qni_dims;

/* Run all checks. On entry dims holds any sizes that the call fixes; on return, all of them. */
qn_status qni_validate(const qni_call *call, qni_dims *dims, qn_error *err);

/* One per public primitive (operands.c). */
qn_status qni_check_kv_attention(const qn_kv_attention_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_mlp(const qn_mlp_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_attention_residual(const qn_attention_residual_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_attention_block(const qn_attention_block_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_layer(const qn_layer_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_greedy(const qn_greedy_args *args, qni_dims *dims, qn_error *err);
qn_status qni_check_forward_greedy(const qn_forward_greedy_args *args, qni_dims *dims, qn_error *err);

#endif
