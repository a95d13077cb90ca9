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

/* A size or keys, as `quern synth` takes them; wrong usage is that of the command `asker`. Returns an exit code. */
int shape_parse(model_shape *out, const char *asker, const char *text);

/* Write a checkpoint into a new directory of $TMPDIR or /tmp. *out is set on success and freed by the caller, after
 * directory_remove() has removed the directory and all in it. Returns an exit code. */
int synth_temporary(char **out, const model_shape *shape, qn_dtype dtype);

/* Write config.json, generation_config.json and the weights into a directory that is there. Returns an exit code. */
int synth_write(const model_shape *shape, qn_dtype dtype, uint64_t seed, const char *dir);

/* All bytes of the weights; 0 when they are beyond 2^62. */
uint64_t synth_bytes(const model_shape *shape, qn_dtype dtype);

#endif
