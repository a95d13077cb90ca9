/* SPDX-License-Identifier: Apache-2.0 */
/* Reads reference tensors to the host and checks them. */
#include "golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../output.h"

bool golden_open(golden *g, const char *path, qn_device *device, verdict *v) {
    *g = (golden){.device = device, .verdict = v};
    qn_error err;
    return qn_tensor_file_open(&g->file, path, &err) ? verdict_fail_error(v, &err) : true;
}

void golden_close(golden *g) {
    qn_tensor_file_close(g->file);
    g->file = NULL;
}

bool golden_has(const golden *g, const char *name) {
    const char *other;
    for (size_t i = 0; (other = qn_tensor_file_name(g->file, i)); i++)
        if (!strcmp(other, name)) return true;
    return false;
}

/* Read the bytes of a tensor, of one of two types, to the host. */
static bool read_bytes(golden *g, const char *name, qn_dtype one, qn_dtype other, qn_tensor **tensor, void **data) {
    qn_error err;
    *data = NULL;
    if (qn_tensor_file_read(tensor, g->file, g->device, name, &err)) return verdict_fail_error(g->verdict, &err);
    qn_dtype dtype = qn_tensor_dtype(*tensor);
    if (dtype != one && dtype != other)
        return verdict_fail(g->verdict, "%s: must be %s, not %s", name, qn_dtype_name(one), qn_dtype_name(dtype));
    *data = must_calloc(qn_tensor_bytes(*tensor), 1);
    if (qn_tensor_read(*tensor, *data, qn_tensor_bytes(*tensor), &err)) return verdict_fail_error(g->verdict, &err);
    return true;
}

static bool check_shape(golden *g, const char *name, const qn_tensor *tensor, int32_t rank, const int64_t *shape) {
    if (qn_tensor_rank(tensor) != rank)
        return verdict_fail(g->verdict, "%s: rank must be %d, not %d", name, rank, qn_tensor_rank(tensor));
    for (int32_t i = 0; i < rank; i++)
        if (qn_tensor_shape(tensor)[i] != shape[i])
            return verdict_fail(g->verdict, "%s: size of axis %d must be %lld, not %lld", name, i, (long long)shape[i],
                                (long long)qn_tensor_shape(tensor)[i]);
    return true;
}

bool golden_floats(golden *g, const char *name, int32_t rank, const int64_t *shape, array *out) {
    qn_tensor *tensor = NULL;
    void *data;
    bool good = read_bytes(g, name, QN_DTYPE_F32, QN_DTYPE_F32, &tensor, &data) &&
                (!rank || check_shape(g, name, tensor, rank, shape));
    if (good) {
        *out = (array){.data = data, .rank = qn_tensor_rank(tensor), .n = qn_tensor_bytes(tensor) / sizeof(float)};
        for (int32_t i = 0; i < out->rank; i++) out->shape[i] = qn_tensor_shape(tensor)[i];
    } else {
        free(data);
    }
    qn_tensor_free(tensor);
    return good;
}

bool golden_ints(golden *g, const char *name, int32_t rank, int64_t *shape, int32_t **out) {
    qn_tensor *tensor = NULL;
    void *data;
    bool good = read_bytes(g, name, QN_DTYPE_S64, QN_DTYPE_S32, &tensor, &data);
    if (good && qn_tensor_rank(tensor) != rank)
        good = verdict_fail(g->verdict, "%s: rank must be %d, not %d", name, rank, qn_tensor_rank(tensor));
    if (good) {
        bool wide = qn_tensor_dtype(tensor) == QN_DTYPE_S64;
        size_t n = qn_tensor_bytes(tensor) / (wide ? 8 : 4);
        *out = must_calloc(n, sizeof(int32_t));
        for (size_t i = 0; i < n; i++) {
            int64_t value = wide ? ((const int64_t *)data)[i] : ((const int32_t *)data)[i];
            /* -1 is invalid too and is refused where ids are used */
            (*out)[i] = value < 0 || value > INT32_MAX ? -1 : (int32_t)value;
        }
        for (int32_t i = 0; i < rank; i++) shape[i] = qn_tensor_shape(tensor)[i];
    }
    free(data);
    qn_tensor_free(tensor);
    return good;
}

bool golden_number(golden *g, const char *key, double *out) {
    const char *text = qn_tensor_file_metadata(g->file, key);
    if (!text) return verdict_fail(g->verdict, "metadata: %s is missing", key);
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || !isfinite(*out))
        return verdict_fail(g->verdict, "metadata: %s is not a finite number", key);
    return true;
}
