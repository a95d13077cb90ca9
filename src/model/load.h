/* SPDX-License-Identifier: Apache-2.0 */
/* Weights from their files into the device's memory. */
#ifndef QNI_LOAD_H
#define QNI_LOAD_H

#include "checkpoint.h"

/* Take the memory of a model and describe its weights; nothing is read yet. On an error qni_model_free() gives back
 * what was taken. model->device is set. */
qn_status qni_model_allocate(qn_model *model, const qni_checkpoint *checkpoint, qn_arith arith, qn_error *err);

/* Bytes that qni_model_allocate() will ask of the device's allocator. */
qn_status qni_model_weight_bytes(uint64_t *bytes, const qn_device *device, const qni_checkpoint *checkpoint,
                                 qn_arith arith, qn_error *err);

/* Read and pack all weights, in parallel. */
qn_status qni_model_load(qn_model *model, const qni_checkpoint *checkpoint, const qn_progress *progress, qn_error *err);

/* Free a model that nobody refers to, or a part of one. */
void qni_model_free(qn_model *model);

#endif
