/* SPDX-License-Identifier: Apache-2.0 */
/* Loads weights from files into the device's memory. */
#ifndef QNI_LOAD_H
#define QNI_LOAD_H

#include "../backend/linear.h"
#include "checkpoint.h"

/* The source that a weight is packed from. */
qni_source qni_weight_source(const qni_weight_ref *ref, qn_arith arith);

/* Describe the weights of a model without their data: config, layers, norm, lm_head, embedding, and the number of
 * bytes that qni_model_allocate() will request from the device's allocator. model->device is set. The caller frees
 * model->layers and linears, even after an error. */
qn_status qni_model_describe(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err);

/* Describe the weights and allocate their memory; nothing is read yet. After an error, qni_model_free() releases
 * what was allocated. */
qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *from, qn_arith arith, qn_error *err);

/* After all weights are packed: finalize how each linear is multiplied, and update its copies in the layers. */
void qni_model_finish(qn_model *model, bool tied);

/* Read and pack all weights in parallel, and finish the model. */
qn_status qni_model_load(qn_model *model, const qni_checkpoint *checkpoint, const qn_progress *progress, qn_error *err);

/* Free a model without references, or a partly built one. */
void qni_model_free(qn_model *model);

#endif
