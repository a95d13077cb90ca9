/* SPDX-License-Identifier: Apache-2.0 */
/* An open model: hyper-parameters, and weights in the layout that the device's ops use. */
#ifndef QNI_MODEL_H
#define QNI_MODEL_H

#include "../backend/device.h"
#include "../format/config.h"

#include <quern/model.h>

/* The seven linears of a layer. */
enum { QNI_Q_PROJ, QNI_K_PROJ, QNI_V_PROJ, QNI_O_PROJ, QNI_GATE_PROJ, QNI_UP_PROJ, QNI_DOWN_PROJ, QNI_N_LINEAR };

struct qn_model {
    atomic_int refs;
    qn_device *device; /* retained */
    qn_model_config config;
    qni_generation_config generation;
    int32_t bos;             /* bos_token_id, or -1 */
    uint8_t fingerprint[32]; /* SHA-256 over config.json, all headers, and 4 KiB of each tensor */

    /* Views into the block; linears are packed. */
    const qni_weight *embedding; /* &table, or &lm_head where they are tied */
    qni_weight table;            /* n_in = d_model, n_out = n_vocab; plain {V, H}, or packed where it is quantized */
    qni_layer_view *layers;      /* {n_layer} */
    qni_vec norm;                /* {d_model}, the final one */
    qni_weight lm_head;          /* n_in = d_model, n_out = n_vocab */

    qni_buffer block;                /* all weights */
    size_t block_bytes, table_bytes; /* block_bytes: that it takes; table_bytes: of an untied embedding */
};

/* A layer's linear by its number. */
qni_weight *qni_layer_linear(qni_layer_view *layer, int k);

/* Another reference (a session's); qn_model_close() gives one up. */
void qni_model_retain(qn_model *model);

/* Longest context without YaRN: the trained length. */
int32_t qni_config_n_ctx_trained(const qn_model_config *config);

/* Maximum context length: with YaRN original_ctx · factor, or max_position_embeddings if larger. */
int32_t qni_config_n_ctx_limit(const qn_model_config *config);

#endif
