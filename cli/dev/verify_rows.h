/* SPDX-License-Identifier: Apache-2.0 */
/* Runs rows of reference data through sessions: singly or batched, in chunks or at once. */
#ifndef CLI_VERIFY_ROWS_H
#define CLI_VERIFY_ROWS_H

#include "verify.h"

struct row_run;

/* One golden row, followed by its state. */
typedef struct row {
    const int32_t *ids; /* n_ids of them: the prompt */
    int32_t n_ids;
    const float *golden_logits;  /* {n_ids, n_vocab}, or NULL */
    const float *const *hidden;  /* n_layer + 1 of {n_ids, d_model}, or NULL; each may be NULL */
    const float *const *k_cache; /* n_layer of {n_kv_head, n_ids, head_dim}, or NULL; each may be NULL */
    const float *const *v_cache;
    const int32_t *greedy; /* n_greedy tokens, and the margin of each */
    const double *margins;
    int32_t n_greedy;

    struct row_run *run;
    qn_session *session;
    float *logits; /* {n_ids, n_vocab}: ours */
    int32_t n_fed, n_agreed;
    bool is_golden, stopped, wrong;
} row;

/* A run over rows of one model, and its measurements. */
typedef struct row_run {
    const verifier *verifier;
    qn_model *model;
    const qn_model_config *config;
    verdict *verdict;
    row *rows;
    int32_t n_row;
    int32_t chunk, batch;                        /* 0: whole rows; each row alone */
    measure logits, *hidden, *k_cache, *v_cache; /* n_layer + 1, n_layer, n_layer */
    bool narrow;                                 /* 16-bit arithmetic or KV: wider margins for greedy tokens */
} row_run;

/* Compute all rows. Fills the measures, each row's tokens and the verdict's digest. On failure returns false with the
 * verdict's error set. */
bool rows_run(row_run *run);
void rows_release(row_run *run);

/* Print the table rows for the measures and the greedy tokens. */
void rows_report(row_run *run, double bound, bool counts);

#endif
