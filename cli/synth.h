/* SPDX-License-Identifier: Apache-2.0 */
/* quern synth: a shape, and the checkpoint that is written for it. */
#ifndef CLI_SYNTH_H
#define CLI_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include <quern/quern.h>

typedef struct model_shape {
    int64_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab;
    bool tied;
} model_shape;

/* Write config.json, generation_config.json and the weights into a directory that is there. Returns an exit code. */
int synth_write(const model_shape *shape, qn_dtype dtype, uint64_t seed, const char *dir);

/* All bytes of the weights; 0 when they are beyond 2^62. */
uint64_t synth_bytes(const model_shape *shape, qn_dtype dtype);

#endif
