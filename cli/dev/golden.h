/* SPDX-License-Identifier: Apache-2.0 */
/* Reads reference tensors from a safetensors file into host memory. */
#ifndef CLI_GOLDEN_H
#define CLI_GOLDEN_H

#include "verify.h"

/* A tensor of floats on the host. */
typedef struct array {
    float *data;
    int32_t rank;
    int64_t shape[QN_MAX_RANK];
    size_t n;
} array;

typedef struct golden {
    qn_tensor_file *file;
    qn_device *device; /* borrowed; used to read the tensors */
    verdict *verdict;  /* receives errors */
} golden;

bool golden_open(golden *g, const char *path, qn_device *device, verdict *v);
void golden_close(golden *g);
bool golden_has(const golden *g, const char *name);

/* Read an f32 tensor. Unless rank is 0, it must have the given shape. The caller frees out->data. */
bool golden_floats(golden *g, const char *name, int32_t rank, const int64_t *shape, array *out);

/* Read integers of any width whose values fit in 32 bits. The caller frees *out. */
bool golden_ints(golden *g, const char *name, int32_t rank, int64_t *shape, int32_t **out);

/* Read a number from the metadata. */
bool golden_number(golden *g, const char *key, double *out);

#endif
