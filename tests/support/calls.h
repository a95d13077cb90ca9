/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One valid call of each public primitive, all on the same tensors, with its operands as a list of named slots. Tests
 * start from it and break one thing. B 2, T 3, H 24, I 40, Nq 4, Nkv 2, D 8, C 16, V 50, offset 5; two layers
 * and 4 tokens in forward_greedy, which starts from `hidden`.
 */
#ifndef QNI_TEST_CALLS_H
#define QNI_TEST_CALLS_H

#include "problem.h"

typedef enum call_id {
    CALL_KV_ATTENTION,
    CALL_MLP,
    CALL_ATTENTION_RESIDUAL,
    CALL_ATTENTION_BLOCK,
    CALL_LAYER,
    CALL_GREEDY,
    CALL_FORWARD_GREEDY,
    N_CALL,
} call_id;

/* An operand of a call: a tensor or a linear. */
typedef struct slot {
    char name[32];
    const qn_tensor **tensor;
    qn_operand *linear;
    bool written;
} slot;

typedef struct call_args {
    qn_kv_attention_args kv_attention;
    qn_mlp_args mlp;
    qn_attention_residual_args attention_residual;
    qn_attention_block_args attention_block;
    qn_layer_args layer;
    qn_greedy_args greedy;
    qn_forward_greedy_args forward_greedy;
    qn_layer_weights layers[2];
    qn_tensor *k_caches[2], *v_caches[2];
} call_args;

enum { MAX_SLOT = 40, CALL_VOCAB = 50 };

typedef struct calls {
    problem p;
    bench s;
    qn_tensor *k_cache1, *v_cache1; /* caches of the second layer */
    qn_tensor *lm_head, *embedding, *ids, *tokens, *made;
    call_args args;
    slot slots[N_CALL][MAX_SLOT];
    int n_slot[N_CALL];
} calls;

void calls_make(calls *c, qn_device *device);
void calls_free(calls *c);
qn_status calls_run(const calls *c, call_id id, qn_error *err);
slot *calls_slot(calls *c, call_id id, const char *name); /* NULL: the call has no such operand */

/* The offset operand shared by the calls that use one; NULL: this call has none. */
qn_offset *calls_offset(calls *c, call_id id);
qn_rope *calls_rope(calls *c, call_id id);
double *calls_scale(calls *c, call_id id);
double *calls_eps(calls *c, call_id id);

/* The call must fail with this status and exactly this message, and leave every output and cache unchanged. */
void calls_refused(const calls *c, call_id id, qn_status status, const char *message);

#endif
