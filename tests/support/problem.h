/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer to compute. A `problem` holds the sizes and host values of all operands of the primitives, from a golden file
 * or from random numbers; a `bench` holds the same as tensors on a device, and runs each primitive. Also the list of all
 * devices of this build. Every failure ends the test.
 */
#ifndef QNI_TEST_PROBLEM_H
#define QNI_TEST_PROBLEM_H

#include "close.h"

#include <quern/ops.h>

/* A variant in which this build can compute a primitive on this machine. */
typedef struct device_case {
    const char *backend, *isa;
    bool compose; /* compose larger primitives from small ones */
    bool packed;  /* linears packed for f32 compute, else plain */
    bool is_ref;
    char name[64]; /* "cpu avx2 composed packed" */
} device_case;

/* The instruction set levels of this machine, lowest first; NULL past the last. */
const char *level_name(int index);

enum { MAX_DEVICE_CASE = 64 };
int device_cases(device_case *out);
/* n_thread 0: one per processor. */
qn_device *device_open(const device_case *dc, int32_t n_thread);

typedef enum operand_id {
    HIDDEN,
    NORM1,
    NORM2,
    Q_NORM,
    K_NORM,
    Q_PROJ,
    K_PROJ,
    V_PROJ,
    O_PROJ,
    GATE_PROJ,
    UP_PROJ,
    DOWN_PROJ,
    K_CACHE,
    V_CACHE,
    Q,
    K,
    V,
    ATTN,
    N_OPERAND,
} operand_id;
const char *operand_name(operand_id id);

typedef struct problem {
    int64_t b, t, h, i, nq, nkv, d, c, offset;
    double theta, scale, eps;
    float *values[N_OPERAND];
} problem;

/* Shape of an operand; returns its rank. */
int32_t operand_shape(const problem *p, operand_id id, int64_t shape[QN_MAX_RANK]);
int64_t operand_count(const problem *p, operand_id id);

/* Random values of realistic magnitude from a seed; the caller has set the sizes in *p. */
void problem_random(problem *p, uint64_t seed);
void problem_golden(problem *p, const char *path);
void problem_free(problem *p);

/* Element types of a bench. */
typedef struct dtypes {
    qn_dtype stream; /* hidden, q, k, v, attn, out */
    qn_dtype k_cache, v_cache;
    qn_dtype linear, norm;
} dtypes;
static const dtypes all_f32 = {QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F32};

typedef struct bench {
    const problem *p;
    qn_device *device; /* borrowed */
    qn_tensor *t[N_OPERAND];
    qn_linear *packed[N_OPERAND];
    qn_tensor *out;      /* {B, T, H} */
    qn_tensor *attn_out; /* {B, T, Nq·D} */
    qn_offset position;
    qn_rope rope;
} bench;

void bench_make(bench *s, const problem *p, qn_device *device, dtypes types, bool packed);
void bench_free(bench *s);
/* Restore the caches to the problem's values. */
void bench_reset(bench *s);

qn_operand bench_linear(const bench *s, operand_id id);
qn_layer_weights bench_weights(const bench *s);

typedef enum primitive_id { KV_ATTENTION, MLP, ATTENTION_RESIDUAL, ATTENTION_BLOCK, LAYER, N_PRIMITIVE } primitive_id;
const char *primitive_name(primitive_id id);
bool primitive_has_cache(primitive_id id);
qn_status primitive_run(primitive_id id, const bench *s, qn_error *err);
/* Run a primitive, which must succeed; returns the tensor that holds the result. */
qn_tensor *primitive_compute(primitive_id id, const bench *s);

/* Tensors and values. */
qn_tensor *tensor_make(qn_device *device, qn_dtype dtype, int32_t rank, const int64_t *shape, const float *values);
float *tensor_floats(const qn_tensor *t); /* allocated */
void *tensor_bits(const qn_tensor *t);    /* allocated; qn_tensor_bytes() */
int64_t tensor_count(const qn_tensor *t);

/* Random numbers. The state is never 0. */
double random_uniform(uint64_t *state); /* [0, 1) */
double random_normal(uint64_t *state);

#endif
