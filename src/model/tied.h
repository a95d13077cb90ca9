/* SPDX-License-Identifier: Apache-2.0 */
/* A redundant lm_head in a checkpoint that ties lm_head to the embedding. */
#ifndef QNI_TIED_H
#define QNI_TIED_H

#include "checkpoint.h"

/* Compare it with the embedding, on the device's threads. Errors: EFORMAT: the matrices differ; EIO; ENOMEM. */
qn_status qni_checkpoint_check_tied(const qni_checkpoint *checkpoint, qn_device *device, qn_error *err);

#endif
