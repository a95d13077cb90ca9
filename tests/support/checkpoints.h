/* SPDX-License-Identifier: Apache-2.0 */
/* Tiny checkpoints in any storage format, each with a dense f32 twin that holds the dequantized weights. Every format
 * is implemented here a second time, independently of the library. */
#ifndef QNI_TEST_CHECKPOINTS_H
#define QNI_TEST_CHECKPOINTS_H

#include "sessions.h"

#include <jansson.h>

/* Tensors to be written as a safetensors file. */
typedef struct tensors {
    json_t *header;
    unsigned char *data;
    size_t bytes;
} tensors;
void tensors_add(tensors *t, const char *name, const char *dtype, int64_t rows, int64_t columns, const void *data);
void tensors_metadata(tensors *t, const char *key, const char *value);
void tensors_write(tensors *t, const char *dir, const char *file); /* write, then empty the list */

/* Storage of a linear. bits 0: dense, or fp8 if block_out is not 0. */
typedef struct storage {
    int bits, group;
    int block_out;
    const char *scale_dtype; /* "F32", "BF16", "F16" */
    bool symmetric;          /* biases are -2^(bits-1) · scale */
} storage;

/* One layer with d_model 64, d_ff 192, 2 heads and 1 KV head of dimension 32, vocabulary of 96. */
enum { TINY_VOCAB = 96, TINY_D_FF = 192, TINY_N_LINEAR = 9 };
extern const char *const tiny_linears[TINY_N_LINEAR]; /* module paths; the last is lm_head */

typedef struct tiny_model {
    storage all;
    const storage *own[TINY_N_LINEAR]; /* overrides of `all`; NULL: none */
    bool tied;
    bool claims_symmetric; /* metadata quern.symmetric */
    bool scales_apart;     /* store scales and biases in a second shard */
    int d_ff;              /* 0: TINY_D_FF */
} tiny_model;

/* Write the model to `dir` and its twin to `twin` (NULL: none). `config` is inserted into config.json: "" or
 * ",\"key\":…". */
void tiny_write(const tiny_model *model, const char *dir, const char *twin, const char *config, uint64_t seed);

/* Logits of eight ids, fed one at a time {8, TINY_VOCAB}, allocated. */
float *tiny_logits(const char *device, int32_t n_thread, const char *dir, const qn_model_options *options);

#endif
