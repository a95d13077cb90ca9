/* SPDX-License-Identifier: Apache-2.0 */
/* A test case of the primitives, and how to run it. */
#ifndef CLI_VERIFY_CASE_H
#define CLI_VERIFY_CASE_H

#include "golden.h"

enum {
    IN_HIDDEN,
    IN_NORM1,
    IN_NORM2,
    IN_Q_NORM,
    IN_K_NORM,
    IN_Q_PROJ,
    IN_K_PROJ,
    IN_V_PROJ,
    IN_O_PROJ,
    IN_GATE_PROJ,
    IN_UP_PROJ,
    IN_DOWN_PROJ,
    IN_Q,
    IN_K,
    IN_V,
    IN_ATTN,
    IN_K_CACHE,
    IN_V_CACHE,
    CASE_INPUTS
};

enum { OUT_ATTENTION = 0, OUT_MLP = 3, OUT_RESIDUAL = 4, OUT_BLOCK = 5, OUT_LAYER = 8, CASE_RESULTS = 11 };

extern const char *const case_inputs[CASE_INPUTS];
extern const char *const case_results[CASE_RESULTS];

/* Inputs and results of a case; linears are {in, out}. */
typedef struct primitive_case {
    array in[CASE_INPUTS];
    array want[CASE_RESULTS];
    double scale, theta, eps;
    int64_t offset;
    int64_t attention_shape[3]; /* {B, T, Nq·D} */
} primitive_case;

/* The dtypes of a run's operands, and the arithmetic of its packed linears. */
typedef struct case_types {
    qn_dtype hidden, weight, cache;
    qn_arith arith;
} case_types;

/* Run all five primitives. `got` are float arrays whose data the caller frees, also after a failure. */
bool case_run(const primitive_case *c, qn_device *device, const case_types *types, bool packed, array got[CASE_RESULTS],
              verdict *v);

#endif
