/* SPDX-License-Identifier: Apache-2.0 */
/* Which linear is quantized to what, and writing a quantized checkpoint. */
#ifndef QNI_QUANTIZE_H
#define QNI_QUANTIZE_H

#include "checkpoint.h"

/* Set what each dense linear of a checkpoint is quantized to; how many are left as they are, and why, goes to the log.
 * Returns the number of linears that are quantized by it. */
int64_t qni_checkpoint_quantize(qni_checkpoint *checkpoint, qn_quantize to, const qn_log *log);

/* Write model.safetensors, or shards of about shard_bytes with their index, of a checkpoint whose linears know what
 * they are quantized to; each file appears when it is whole (quantize_write.c). */
qn_status qni_quantized_write(const char *dir, const qni_checkpoint *checkpoint, qn_device *device,
                              uint64_t shard_bytes, const qn_progress *progress, qn_error *err);

/* Write a small file whole. */
qn_status qni_text_write(const char *dir, const char *name, const char *text, size_t bytes, qn_error *err);

#endif
