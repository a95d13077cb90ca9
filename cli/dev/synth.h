/* SPDX-License-Identifier: Apache-2.0 */
/* quern synth: a model shape and the synthetic checkpoint written for it. */
#ifndef CLI_SYNTH_H
#define CLI_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include <quern/quern.h>

typedef struct model_shape {
    int64_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab;
    bool tied;
} model_shape;

/* Parse a size or keys, as accepted by `quern synth`. Usage errors name the command `asker`. Returns an exit code. */
int shape_parse(model_shape *out, const char *asker, const char *text);

/* Write a checkpoint into a new directory in $TMPDIR or /tmp. On success *out is its path: the caller removes it with
 * directory_remove() and then frees the string. Returns an exit code. */
int synth_temporary(char **out, const model_shape *shape, qn_dtype dtype);

/* Write config.json, generation_config.json and the weights into an existing directory. Returns an exit code. */
int synth_write(const model_shape *shape, qn_dtype dtype, uint64_t seed, const char *dir);

/* Total bytes of the weights; 0 if beyond 2^62. */
uint64_t synth_bytes(const model_shape *shape, qn_dtype dtype);

#endif
