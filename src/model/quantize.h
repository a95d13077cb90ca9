/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses each linear's quantization, and writes a quantized checkpoint. */
#ifndef QNI_QUANTIZE_H
#define QNI_QUANTIZE_H

#include "checkpoint.h"

/* Set what each dense linear of a checkpoint is quantized to. The number left unchanged, and the reason, is logged.
 * Returns the number of linears to quantize. */
int64_t qni_checkpoint_quantize(qni_checkpoint *checkpoint, qn_quantize to, const qn_log *log);

/* Write model.safetensors, or shards of about shard_bytes with an index, from a checkpoint whose linears have their
 * target quantization set. Each file appears only once complete (quantize_write.c). */
qn_status qni_quantized_write(const char *dir, const qni_checkpoint *checkpoint, qn_device *device,
                              uint64_t shard_bytes, const qn_progress *progress, qn_error *err);

/* Write a small file atomically. */
qn_status qni_text_write(const char *dir, const char *name, const char *text, size_t bytes, qn_error *err);

#endif
