/* SPDX-License-Identifier: Apache-2.0 */
/* An open, validated checkpoint: its files agree and every tensor has been identified and its shape checked. No
 * weight has been read yet. */
#ifndef QNI_CHECKPOINT_H
#define QNI_CHECKPOINT_H

#include "../format/weight_files.h"
#include "model.h"

/* Tensor slots of a layer: its linears (model.h), then its norms. */
enum { QNI_NORM1 = QNI_N_LINEAR, QNI_NORM2, QNI_Q_NORM, QNI_K_NORM, QNI_N_SLOT };

/* A tensor in its file. */
typedef struct qni_tensor_ref {
    const qni_safetensors *file;
    const qni_st_tensor *tensor; /* NULL: absent */
} qni_tensor_ref;

/* A linear {rows = outputs, columns = inputs} or a norm (columns is 1). Dense, or quantized codes with scales. */
typedef struct qni_weight_ref {
    const char *inner_name; /* name of the data tensor without the checkpoint's prefix */
    qni_tensor_ref data;    /* elements, or codes */
    qni_tensor_ref scales;  /* absent if dense */
    qni_tensor_ref biases;  /* affine */
    int64_t rows, columns;
    qni_quant quant; /* as stored */
    qni_quant to;    /* what a dense weight is quantized to while loading; kind QNI_DENSE: not quantized */
} qni_weight_ref;

typedef struct qni_layer_refs {
    qni_weight_ref slot[QNI_N_SLOT];
} qni_layer_refs;

/* Prefix of all tensor names except lm_head: "model." in most checkpoints, empty in base models. */
typedef struct qni_tensor_prefix {
    char text[48];
    size_t n;
} qni_tensor_prefix;

typedef struct qni_checkpoint {
    qni_weight_files weights;
    qni_tensor_prefix prefix;
    qn_model_config config;
    qni_generation_config generation;
    int32_t bos;
    uint8_t fingerprint[32];
    qni_weight_ref embedding; /* {V, H} */
    qni_weight_ref norm;      /* {H} */
    qni_weight_ref lm_head;   /* {V, H}; absent when tied */
    qni_weight_ref head_copy; /* a redundant lm_head in a tied checkpoint (tied.c) */
    qni_layer_refs *layers;   /* {n_layer} */
} qni_checkpoint;

/* The matrix used as LM head. */
static inline const qni_weight_ref *qni_checkpoint_head(const qni_checkpoint *c) {
    return c->config.tied ? &c->embedding : &c->lm_head;
}

/* Open and check all files of a directory. Errors: as qn_model_read_config. */
qn_status qni_checkpoint_open(qni_checkpoint *out, const char *dir, const qn_log *log, qn_error *err);
void qni_checkpoint_close(qni_checkpoint *checkpoint); /* accepts a zeroed struct */

/* Assign every tensor to its slot and check its shape; sizes missing from `stated` are inferred from the shapes
 * (tensor_names.c). Fills embedding, norm, lm_head, layers and the sizes, dtype, tied and n_parameter of config. */
qn_status qni_checkpoint_match(qni_checkpoint *checkpoint, const qni_config *stated, const qn_log *log, qn_error *err);

/* Check a linear whose rows and columns are set, and determine its storage (linear_storage.c). Errors: EFORMAT,
 * EUNSUPPORTED. */
qn_status qni_weight_check(qni_weight_ref *ref, const qni_stated_quant *stated, qn_error *err);

/* Check one tensor's shape; columns 0: rank 1. Errors: EFORMAT, naming it and both shapes. */
qn_status qni_tensor_check_shape(const qni_tensor_ref *ref, int64_t rows, int64_t columns, qn_error *err);

/* Fail with "FILE: tensor NAME: what". */
qn_status qni_tensor_fail(const qni_tensor_ref *ref, qn_status status, const char *what, qn_error *err);

/* The path of a weight's module: its tensor name without ".weight". */
typedef struct qni_module_path {
    char text[96];
} qni_module_path;
qni_module_path qni_weight_module(const qni_weight_ref *ref);
/* The same with the standard prefix, for output files. */
qni_module_path qni_weight_usual_module(const qni_weight_ref *ref);

/* The dtype of a tensor of f32, bf16 or f16; QN_DTYPE_DEFAULT for any other. */
qn_dtype qni_weight_dtype(const qni_st_tensor *tensor);

#endif
