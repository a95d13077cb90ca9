/* SPDX-License-Identifier: Apache-2.0 */
/* Loads weights from files into the device's memory. */
#ifndef QNI_LOAD_H
#define QNI_LOAD_H

#include "../backend/linear.h"
#include "checkpoint.h"

/* The source that a weight is packed from. */
qni_source qni_weight_source(const qni_weight_ref *ref, qn_arith arith);

/* Describe the weights of a model without their data: config, layers, norm, lm_head, embedding and the bytes that
 * qni_model_allocate() will ask of the device's allocator. model->device is set; model->layers becomes the caller's to
 * free, also after an error. */
qn_status qni_model_describe(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err);

/* Describe the weights and allocate their memory; nothing is read yet. After an error, qni_model_free() releases
 * what was allocated. */
qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err);

/* Read and pack all weights, in parallel. */
qn_status qni_model_load(qn_model *model, const qni_checkpoint *checkpoint, const qn_progress *progress, qn_error *err);

/* Free a model without references, or a partly built one. */
void qni_model_free(qn_model *model);

#endif
