/* SPDX-License-Identifier: Apache-2.0 */
/* A safetensors file: eight bytes of header length, a JSON header, then data that the header must cover without gaps
 * or overlaps. Nothing in a header is trusted before it is checked. */
#include "safetensors.h"

#include "../base/json.h"
#include "../base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct dtype_row {
    const char *name;
    uint32_t bits;
} dtype_row;

static const dtype_row dtypes[] = {
#define DTYPE_ROW(name, bits) {#name, bits},
    QNI_ST_DTYPE_MAP(DTYPE_ROW)
#undef DTYPE_ROW
};
enum { N_DTYPE = sizeof dtypes / sizeof dtypes[0] };

static const char metadata_key[] = "__metadata__";

const char *qni_st_dtype_name(qni_st_dtype dtype) {
    return dtypes[dtype].name;
}

qni_shape_text qni_st_shape_text(const qni_st_tensor *tensor) {
    qni_shape_text out = {{'{'}};
    size_t used = 1;
    /* At most 8 numbers of 19 digits plus separators: 168; truncated rather than overrun. */
    for (int32_t i = 0; i < tensor->rank && used + 24 < sizeof out.text; i++) {
        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%" PRId64, i > 0 ? ", " : "",
                                 tensor->shape[i]);
    }
    snprintf(out.text + used, sizeof out.text - used, "}");
    return out;
}

/* The file in messages: its path, or its base name if the path would leave no space for the error. */
static const char *label(const qni_safetensors *st) {
    const char *slash = strrchr(st->file.path, '/');
    return slash != NULL && strlen(st->file.path) > 100 ? slash + 1 : st->file.path;
}

/* Every message about a tensor has the form "FILE: tensor NAME: …". */
static qn_status bad(const qni_safetensors *st, const char *name, const char *why, qn_error *err) {
    return qni_fail(err, QN_EFORMAT, "%s: tensor %s: %s", label(st), name, why);
}

static qn_status read_dtype(const qni_safetensors *st, qni_st_tensor *t, const json_t *value, qn_error *err) {
    if (!json_is_string(value)) return bad(st, t->name, "dtype must be a string", err);
    for (int i = 0; i < N_DTYPE; i++) {
        if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
            t->dtype = (qni_st_dtype)i;
            return QN_OK;
        }
    }
    return qni_fail(err, QN_EFORMAT, "%s: tensor %s: unknown dtype \"%s\"", label(st), t->name,
                    json_string_value(value));
}

/* The shape and the number of bytes it needs. */
static qn_status read_shape(const qni_safetensors *st, qni_st_tensor *t, const json_t *value, uint64_t *need,
                            qn_error *err) {
    if (!json_is_array(value)) return bad(st, t->name, "shape must be a list", err);
    size_t rank = json_array_size(value);
    if (rank > QNI_ST_MAX_RANK) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s: rank %zu, at most %d", label(st), t->name, rank,
                        QNI_ST_MAX_RANK);
    }
    uint64_t product = 1;
    bool empty = false, overflow = false;
    for (size_t i = 0; i < rank; i++) {
        const json_t *item = json_array_get(value, i);
        if (qni_json_large(item) != NULL) return bad(st, t->name, "a size in shape is too large a number", err);
        if (!json_is_integer(item) || json_integer_value(item) < 0) {
            return bad(st, t->name, "sizes in shape must be integers >= 0", err);
        }
        int64_t n = json_integer_value(item);
        t->shape[i] = n;
        empty |= n == 0;
        overflow |= n > 0 && __builtin_mul_overflow(product, (uint64_t)n, &product);
    }
    t->rank = (int32_t)rank;
    uint64_t bits = empty ? 0 : product;
    overflow |= __builtin_mul_overflow(bits, (uint64_t)dtypes[t->dtype].bits, &bits);
    if (overflow && !empty) return bad(st, t->name, "the product of shape overflows", err);
    if (bits % 8 != 0) return bad(st, t->name, "does not end at a whole byte", err);
    *need = bits / 8;
    return QN_OK;
}

static qn_status read_offsets(const qni_safetensors *st, qni_st_tensor *t, const json_t *value, uint64_t need,
                              qn_error *err) {
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (qni_json_large(first) != NULL || qni_json_large(last) != NULL) {
        return bad(st, t->name, "data_offsets holds too large a number", err);
    }
    if (!json_is_array(value) || json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        return bad(st, t->name, "data_offsets must be two integers", err);
    }
    uint64_t data_bytes = st->file.size - 8 - st->header_bytes;
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes) {
        return qni_fail(err, QN_EFORMAT,
                        "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64 "] outside the %" PRIu64 " bytes of data",
                        label(st), t->name, begin, end, data_bytes);
    }
    if ((uint64_t)(end - begin) != need) {
        return qni_fail(err, QN_EFORMAT, "%s: tensor %s: %s %s takes %" PRIu64 " bytes, data_offsets give %" PRIu64,
                        label(st), t->name, dtypes[t->dtype].name, qni_st_shape_text(t).text, need,
                        (uint64_t)(end - begin));
    }
    t->offset = 8 + st->header_bytes + (uint64_t)begin;
    t->bytes = need;
    return QN_OK;
}

static qn_status read_tensor(const qni_safetensors *st, qni_st_tensor *t, const json_t *entry, qn_error *err) {
    if (!qni_json_is_object(entry)) return bad(st, t->name, "must be an object", err);
    if (json_object_size(entry) != 3) return bad(st, t->name, "must have dtype, shape and data_offsets alone", err);
    uint64_t need = 0;
    QN_TRY(read_dtype(st, t, json_object_get(entry, "dtype"), err));
    QN_TRY(read_shape(st, t, json_object_get(entry, "shape"), &need, err));
    return read_offsets(st, t, json_object_get(entry, "data_offsets"), need, err);
}

static qn_status check_metadata(const qni_safetensors *st, json_t *metadata, qn_error *err) {
    if (!qni_json_is_object(metadata)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be an object", label(st), metadata_key);
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value)) {
            return qni_fail(err, QN_EFORMAT, "%s: %s: \"%s\" must be a string", label(st), metadata_key, key);
        }
    }
    return QN_OK;
}

static int by_offset(const void *a, const void *b) {
    const qni_st_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1
                               : x->bytes > y->bytes; /* empty tensors before the one that starts at the same offset */
}
static int by_name(const void *a, const void *b) {
    return strcmp(((const qni_st_tensor *)a)->name, ((const qni_st_tensor *)b)->name);
}

/* Sorted by offset, each tensor must start where the previous one ends, and the last must end with the file. */
static qn_status check_cover(qni_safetensors *st, qn_error *err) {
    if (st->n_tensor > 0) qsort(st->tensors, st->n_tensor, sizeof st->tensors[0], by_offset);
    uint64_t at = 8 + st->header_bytes;
    for (size_t i = 0; i < st->n_tensor; i++) {
        const qni_st_tensor *t = &st->tensors[i];
        if (t->offset < at) {
            return qni_fail(err, QN_EFORMAT, "%s: tensor %s overlaps tensor %s", label(st), t->name,
                            st->tensors[i - 1].name);
        }
        if (t->offset > at) {
            return qni_fail(err, QN_EFORMAT, "%s: %" PRIu64 " bytes before tensor %s belong to no tensor", label(st),
                            t->offset - at, t->name);
        }
        at += t->bytes;
    }
    if (at != st->file.size) {
        return qni_fail(err, QN_EFORMAT, "%s: %" PRIu64 " bytes at the end belong to no tensor", label(st),
                        st->file.size - at);
    }
    return QN_OK;
}

/* Diagnose a file that cannot be safetensors by its first bytes. */
static qn_status check_content(const qni_safetensors *st, qn_error *err) {
    char head[64] = "";
    size_t n = st->file.size < sizeof head ? (size_t)st->file.size : sizeof head - 1, n_text = 0;
    QN_TRY(qni_file_read(&st->file, head, 0, n, err));
    QN_TRY(qni_file_check_content(label(st), head, n, err));
    while (n_text < n && head[n_text] >= ' ' && head[n_text] <= '~') n_text++;
    head[n_text] = '\0';
    if (n_text < 8) return QN_OK;
    return qni_fail(err, QN_EFORMAT, "%s: is not a safetensors file; it begins with the text \"%s\"", label(st), head);
}

static qn_status read_header(qni_safetensors *st, qn_error *err) {
    QN_TRY(check_content(st, err));
    if (st->file.size < 8) {
        return qni_fail(err, QN_EFORMAT, "%s: %" PRIu64 " bytes are too few for a safetensors file", label(st),
                        st->file.size);
    }
    uint8_t prefix[8];
    QN_TRY(qni_file_read(&st->file, prefix, 0, sizeof prefix, err));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | prefix[i];
    if (n > QNI_ST_MAX_HEADER) {
        return qni_fail(err, QN_EFORMAT, "%s: a header of %" PRIu64 " bytes, at most %d", label(st), n,
                        QNI_ST_MAX_HEADER);
    }
    if (n > st->file.size - 8) {
        return qni_fail(err, QN_EFORMAT, "%s: a header of %" PRIu64 " bytes in a file of %" PRIu64, label(st), n,
                        st->file.size);
    }
    st->header_bytes = (size_t)n;
    st->header = qni_calloc(st->header_bytes, 1);
    if (st->header == NULL) {
        return qni_fail(err, QN_ENOMEM, "%s: no memory for a header of %zu bytes", label(st), st->header_bytes);
    }
    return qni_file_read(&st->file, st->header, 8, st->header_bytes, err);
}

static qn_status parse_header(qni_safetensors *st, qn_error *err) {
    if (st->header_bytes == 0 || st->header[0] != '{') {
        return qni_fail(err, QN_EFORMAT, "%s: the header must be a JSON object", label(st));
    }
    QN_TRY(qni_json_parse(&st->root, label(st), st->header, st->header_bytes, err));
    st->tensors = qni_calloc(json_object_size(st->root), sizeof st->tensors[0]);
    if (st->tensors == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", label(st));
    const char *key;
    json_t *value;
    json_object_foreach(st->root, key, value) {
        if (strcmp(key, metadata_key) == 0) {
            QN_TRY(check_metadata(st, value, err));
            continue;
        }
        qni_st_tensor *t = &st->tensors[st->n_tensor++];
        t->name = key;
        QN_TRY(read_tensor(st, t, value, err));
    }
    QN_TRY(check_cover(st, err));
    if (st->n_tensor > 0) qsort(st->tensors, st->n_tensor, sizeof st->tensors[0], by_name);
    return QN_OK;
}

qn_status qni_safetensors_open(qni_safetensors *out, const char *path, qn_error *err) {
    qni_safetensors st = {0};
    QN_TRY(qni_file_open(&st.file, path, err));
    qn_status status = read_header(&st, err);
    if (status == QN_OK) status = parse_header(&st, err);
    if (status != QN_OK) {
        qni_safetensors_close(&st);
        return status;
    }
    *out = st;
    return QN_OK;
}

void qni_safetensors_close(qni_safetensors *st) {
    qni_file_close(&st->file);
    json_decref(st->root);
    qni_free(st->header);
    qni_free(st->tensors);
    *st = (qni_safetensors){.file.fd = -1};
}

const qni_st_tensor *qni_safetensors_find(const qni_safetensors *st, const char *name) {
    qni_st_tensor key = {.name = name};
    if (st->n_tensor == 0) return NULL;
    return bsearch(&key, st->tensors, st->n_tensor, sizeof st->tensors[0], by_name);
}

const char *qni_safetensors_metadata(const qni_safetensors *st, const char *key) {
    return json_string_value(json_object_get(json_object_get(st->root, metadata_key), key));
}
