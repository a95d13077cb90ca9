/* SPDX-License-Identifier: Apache-2.0 */
/* An open model: hyper-parameters, and weights in the layout that the device's ops use. */
#ifndef QNI_MODEL_H
#define QNI_MODEL_H

#include "../backend/device.h"
#include "../format/config.h"

#include <quern/model.h>

/* The seven linears of a layer, in the order of struct qn_model's `linears`. */
enum { QNI_Q_PROJ, QNI_K_PROJ, QNI_V_PROJ, QNI_O_PROJ, QNI_GATE_PROJ, QNI_UP_PROJ, QNI_DOWN_PROJ, QNI_N_LINEAR };

struct qn_model {
    atomic_int refs;
    qn_device *device; /* retained */
    qn_model_config config;
    qni_generation generation;
    int32_t bos;             /* bos_token_id, or -1 */
    uint8_t fingerprint[32]; /* SHA-256 over config.json, all headers, and 4 KiB of each tensor */

    /* n_in = d_model, n_out = n_vocab. Tied: the packed lm_head; untied: plain {V, H}, or packed if quantized. */
    qni_weight embedding;
    qni_layer_weights *layers; /* {n_layer}; views into the block */
    qni_vec norm;              /* {d_model}, the final one */
    qni_weight lm_head;        /* packed; n_in = d_model, n_out = n_vocab */

    qni_buffer block;                /* memory of all weights */
    size_t block_bytes, table_bytes; /* block_bytes: size of the block; table_bytes: size of an untied embedding */

    /* The packed linears while they are filled; views into the block. */
    qn_linear *linears;     /* {n_layer, QNI_N_LINEAR} */
    qn_linear head_linear;  /* lm_head, or the tied table */
    qn_linear table_linear; /* an untied packed embedding; without data if it is not packed */
};

/* Add a reference (for a session); qn_model_close() drops one. */
void qni_model_retain(qn_model *model);

/* Longest context without YaRN: the trained length. */
int32_t qni_config_n_ctx_trained(const qn_model_config *config);

/* Maximum context length: with YaRN original_ctx · factor, or max_position_embeddings if larger. */
int32_t qni_config_n_ctx_limit(const qn_model_config *config);

#endif
