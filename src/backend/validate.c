/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All checks of the public primitives, in the order of ops.h: nulls and counts, rank, sizes independent of head counts,
 * divisibility, sizes that depend on head counts, dtype, device, alias, capacity. Each check covers all operands of all
 * layers before the next begins, so the first message is of the earliest kind. Sizes are positive: tensors and linears
 * guarantee it. Nothing is allocated: each check rebuilds the tables.
 */
#include "validate.h"

#include <math.h>
#include <stdio.h>

static const struct form {
    int32_t rank;
    const char *labels[QN_MAX_RANK];
} forms[] = {
    [QNI_VECTOR] = {1, {"length"}},
    [QNI_HIDDEN] = {3, {"batch", "tokens", "width"}},
    [QNI_HEADS] = {4, {"batch", "tokens", "heads", "head_dim"}},
    [QNI_CACHE] = {4, {"batch", "heads", "capacity", "head_dim"}},
    [QNI_LINEAR] = {2, {"input width", "output width"}},
    [QNI_VOCABULARY] = {2, {"vocabulary", "width"}},
    [QNI_IDS] = {2, {"batch", "tokens"}},
    [QNI_TOKENS] = {1, {"batch"}},
    [QNI_OFFSET] = {1, {"length"}},
};

/* A check in progress: the operands of one layer at a time (layer -1: those of the call itself). */
typedef struct check {
    const qni_call *call;
    qni_dims *dims;
    qn_error *err;
    int32_t layer;
    int n;
    qni_arg args[QNI_MAX_ARGS];
} check;

typedef qn_status (*phase)(check *c);

static void load_table(check *c, int32_t layer) {
    c->layer = layer;
    c->n = c->call->table(c->call->args, layer, c->args);
    for (int i = 0; i < c->n; i++) {
        if (c->args[i].linear != NULL) c->args[i].tensor = c->args[i].linear->plain;
    }
}

/* "k_proj", or "layer 3 k_proj". */
typedef struct label {
    char text[48];
} label;

static label label_of(int32_t layer, const char *name) {
    label l;
    if (layer < 0) {
        snprintf(l.text, sizeof l.text, "%s", name);
    } else {
        snprintf(l.text, sizeof l.text, "layer %d %s", (int)layer, name);
    }
    return l;
}

#define FAIL(c, name, format, ...)                                                                                     \
    qni_fail((c)->err, QN_EINVAL, "%s: " format, label_of((c)->layer, (name)).text, __VA_ARGS__)

static const qn_linear *packed_of(const qni_arg *a) {
    return a->linear != NULL ? a->linear->packed : NULL;
}

static bool is_written(const qni_arg *a) {
    return a->use == QNI_WRITE_STREAM || a->use == QNI_WRITE_CACHE || a->use == QNI_WRITE_ID;
}

static qn_status check_null(check *c) {
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        if (a->tensor != NULL && packed_of(a) != NULL) return FAIL(c, a->name, "%s", "is both plain and packed");
        if (a->tensor == NULL && packed_of(a) == NULL) return FAIL(c, a->name, "%s", "is NULL");
    }
    return QN_OK;
}

static qn_status check_offset(const qn_offset *o, qn_error *err) {
    int n_form = (o->value != 0) + (o->rows != NULL) + (o->tensor != NULL);
    if (n_form > 1) return qni_fail(err, QN_EINVAL, "offset: must have one form, got %d", n_form);
    if (o->value < 0) return qni_fail(err, QN_EINVAL, "offset: must be at least 0, got %lld", (long long)o->value);
    if ((o->rows == NULL && o->n_rows != 0) || o->n_rows < 0) {
        return qni_fail(err, QN_EINVAL, "offset: must have no rows, got %lld", (long long)o->n_rows);
    }
    for (int64_t i = 0; i < o->n_rows; i++) {
        if (o->rows[i] < 0) {
            return qni_fail(err, QN_EINVAL, "offset: row %lld must be at least 0, got %lld", (long long)i,
                            (long long)o->rows[i]);
        }
    }
    return QN_OK;
}

static qn_status check_yarn(const qn_yarn *y, double theta, qn_error *err) {
    if (!(isfinite(y->factor) && y->factor > 1)) {
        return qni_fail(err, QN_EINVAL, "rope: yarn factor must be finite and above 1, got %g", y->factor);
    }
    if (y->original_ctx < 1) {
        return qni_fail(err, QN_EINVAL, "rope: yarn original_ctx must be at least 1, got %lld",
                        (long long)y->original_ctx);
    }
    if (!(isfinite(y->beta_fast) && y->beta_fast >= 0)) {
        return qni_fail(err, QN_EINVAL, "rope: yarn beta_fast must be finite and not negative, got %g", y->beta_fast);
    }
    if (!(isfinite(y->beta_slow) && y->beta_slow >= 0)) {
        return qni_fail(err, QN_EINVAL, "rope: yarn beta_slow must be finite and not negative, got %g", y->beta_slow);
    }
    if (!isfinite(y->attention_factor)) {
        return qni_fail(err, QN_EINVAL, "rope: yarn attention_factor must be finite, got %g", y->attention_factor);
    }
    if (!(theta > 1)) return qni_fail(err, QN_EINVAL, "rope: theta must be above 1 with yarn, got %g", theta);
    return QN_OK;
}

static qn_status check_rope(const qn_rope *r, qn_error *err) {
    if (r->inv_freq == NULL) {
        if (!(isfinite(r->theta) && r->theta > 0)) {
            return qni_fail(err, QN_EINVAL, "rope: theta must be positive and finite, got %g", r->theta);
        }
        if (r->n_inv_freq != 0) {
            return qni_fail(err, QN_EINVAL, "rope: n_inv_freq must be 0 without a table, got %d", (int)r->n_inv_freq);
        }
        return r->yarn != NULL ? check_yarn(r->yarn, r->theta, err) : QN_OK;
    }
    if (r->theta != 0) return qni_fail(err, QN_EINVAL, "rope: theta must be 0 with a table, got %g", r->theta);
    if (r->yarn != NULL) return qni_fail(err, QN_EINVAL, "rope: yarn must be NULL with a table");
    if (r->n_inv_freq < 1) {
        return qni_fail(err, QN_EINVAL, "rope: n_inv_freq must be at least 1 with a table, got %d", (int)r->n_inv_freq);
    }
    for (int32_t i = 0; i < r->n_inv_freq; i++) {
        if (!isfinite(r->inv_freq[i])) {
            return qni_fail(err, QN_EINVAL, "rope: inv_freq[%d] must be finite, got %g", (int)i,
                            (double)r->inv_freq[i]);
        }
    }
    if (!isfinite(r->attention_factor)) {
        return qni_fail(err, QN_EINVAL, "rope: attention_factor must be finite, got %g", r->attention_factor);
    }
    return QN_OK;
}

static qn_status check_scalars(const qni_call *call, qn_error *err) {
    if (call->offset != NULL) QN_TRY(check_offset(call->offset, err));
    if (call->scale != NULL && !isfinite(*call->scale)) {
        return qni_fail(err, QN_EINVAL, "scale: must be finite, got %g", *call->scale);
    }
    if (call->rope != NULL) QN_TRY(check_rope(call->rope, err));
    if (call->eps != NULL && !(isfinite(*call->eps) && *call->eps > 0)) {
        return qni_fail(err, QN_EINVAL, "eps: must be positive and finite, got %g", *call->eps);
    }
    return QN_OK;
}

static qn_status check_rank(check *c) {
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        int32_t rank = forms[a->form].rank;
        if (a->tensor != NULL && a->tensor->rank != rank) {
            return FAIL(c, a->name, "rank must be %d, got %d", (int)rank, (int)a->tensor->rank);
        }
    }
    return QN_OK;
}

/* Size of an operand's axis; packed linears have the same axes as plain ones. */
static int64_t size_of(const qni_arg *a, int32_t axis) {
    const qn_linear *packed = packed_of(a);
    if (packed == NULL) return a->tensor->shape[axis];
    return (axis == 0) == (a->form == QNI_LINEAR) ? packed->weight.n_in : packed->weight.n_out;
}

/* The first operand with a given size fixes it for the others. */
static qn_status check_axes(check *c, bool late) {
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        if (a->late != late) continue;
        for (int32_t axis = 0; axis < forms[a->form].rank; axis++) {
            int64_t *wanted = &c->dims->of[a->dims[axis]], got = size_of(a, axis);
            if (*wanted == 0) *wanted = got;
            if (a->form == QNI_OFFSET && got == 1) continue;
            if (got == *wanted) continue;
            return FAIL(c, a->name, "%s must be %s%lld, got %lld", forms[a->form].labels[axis],
                        a->form == QNI_OFFSET ? "1 or " : "", (long long)*wanted, (long long)got);
        }
    }
    return QN_OK;
}

/* Rows, positions and ids are 32-bit internally. */
static qn_status check_limits(check *c) {
    int64_t n_row;
    const int64_t *of = c->dims->of;
    if (__builtin_mul_overflow(of[QNI_B], of[QNI_T], &n_row) || n_row > INT32_MAX) {
        return FAIL(c, c->args[0].name, "batch %lld by %lld tokens is more than %d", (long long)of[QNI_B],
                    (long long)of[QNI_T], INT32_MAX);
    }
    if (of[QNI_V] > INT32_MAX) {
        return FAIL(c, "lm_head", "vocabulary must be at most %d, got %lld", INT32_MAX, (long long)of[QNI_V]);
    }
    if (c->call->n_valid != NULL && (*c->call->n_valid < 0 || *c->call->n_valid > of[QNI_V])) {
        return qni_fail(c->err, QN_EINVAL, "n_valid: must be 0 to %lld, got %lld", (long long)of[QNI_V],
                        (long long)*c->call->n_valid);
    }
    if (c->call->offset != NULL && c->call->offset->rows != NULL && c->call->offset->n_rows != of[QNI_B]) {
        return qni_fail(c->err, QN_EINVAL, "offset: rows must be %lld, got %lld", (long long)of[QNI_B],
                        (long long)c->call->offset->n_rows);
    }
    return QN_OK;
}

static qn_status check_sizes(check *c) {
    for (int i = QNI_I; i < QNI_N_DIM; i++) c->dims->of[i] = 0;
    QN_TRY(check_axes(c, false));
    return c->layer < 0 ? check_limits(c) : QN_OK;
}

static qn_status check_divisibility(check *c) {
    QN_TRY(check_sizes(c));
    int64_t *of = c->dims->of, d = of[QNI_D];
    if (d == 0 || (of[QNI_A] == 0 && of[QNI_NQ] == 0)) return QN_OK; /* no attention in this table */
    if (d % 2 != 0 || d > 512) {
        return FAIL(c, "head_dim", "must be even and 2 to 512, got %lld", (long long)d);
    }
    const qn_rope *rope = c->call->rope;
    if (rope->inv_freq != NULL && rope->n_inv_freq != d / 2) {
        return FAIL(c, "rope", "n_inv_freq must be %lld, got %d", (long long)(d / 2), (int)rope->n_inv_freq);
    }
    if (of[QNI_A] != 0) {
        if (of[QNI_A] % d != 0) {
            return FAIL(c, "q_proj", "output width must be a multiple of head_dim %lld, got %lld", (long long)d,
                        (long long)of[QNI_A]);
        }
        if (of[QNI_KV] % d != 0) {
            return FAIL(c, "k_proj", "output width must be a multiple of head_dim %lld, got %lld", (long long)d,
                        (long long)of[QNI_KV]);
        }
        of[QNI_NQ] = of[QNI_A] / d;
        of[QNI_NKV] = of[QNI_KV] / d;
    }
    if (of[QNI_NQ] % of[QNI_NKV] != 0) {
        return FAIL(c, "query heads", "must be a multiple of the %lld key/value heads, got %lld",
                    (long long)of[QNI_NKV], (long long)of[QNI_NQ]);
    }
    of[QNI_A] = of[QNI_NQ] * d;
    /* Backends number the heads of all rows consecutively. */
    int64_t n_row = of[QNI_B] * of[QNI_T], n;
    if (__builtin_mul_overflow(n_row, of[QNI_NQ], &n) || n > INT32_MAX) {
        return FAIL(c, "query heads", "%lld of %lld rows are more than %d", (long long)of[QNI_NQ], (long long)n_row,
                    INT32_MAX);
    }
    return QN_OK;
}

static qn_status check_late_sizes(check *c) {
    QN_TRY(check_divisibility(c));
    QN_TRY(check_axes(c, true));
    if (c->dims->of[QNI_C] > INT32_MAX) {
        return FAIL(c, "k_cache", "capacity must be at most %d, got %lld", INT32_MAX, (long long)c->dims->of[QNI_C]);
    }
    return QN_OK;
}

static qn_status check_dtype(check *c) {
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        if (a->tensor == NULL) continue;
        qn_dtype dtype = a->tensor->dtype;
        const char *wanted = NULL;
        switch (a->use) {
        case QNI_READ_FLOAT:
        case QNI_READ_STREAM:
        case QNI_WRITE_CACHE:
            if (!qni_dtype_is_float(dtype)) wanted = "f32, bf16 or f16";
            break;
        case QNI_READ_ID:
            if (dtype != QN_DTYPE_S32 && dtype != QN_DTYPE_S64 && dtype != QN_DTYPE_U32) wanted = "s32, s64 or u32";
            break;
        case QNI_READ_POSITION:
            if (dtype != QN_DTYPE_S32 && dtype != QN_DTYPE_S64) wanted = "s32 or s64";
            break;
        case QNI_WRITE_STREAM:
            if (dtype != c->call->stream->dtype) wanted = qn_dtype_name(c->call->stream->dtype);
            break;
        case QNI_WRITE_ID:
            if (dtype != QN_DTYPE_U32) wanted = "u32";
            break;
        }
        if (wanted != NULL) return FAIL(c, a->name, "dtype must be %s, got %s", wanted, qn_dtype_name(dtype));
    }
    return QN_OK;
}

static qn_status check_device(check *c) {
    const qn_device *device = c->call->out->storage->device;
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        const qn_device *own = a->tensor != NULL ? a->tensor->storage->device : packed_of(a)->device;
        if (own != device) return FAIL(c, a->name, "%s", "is on another device than out");
    }
    return QN_OK;
}

static bool same_memory(const qn_tensor *a, const qn_tensor *b) {
    if (a->data != b->data || a->dtype != b->dtype) return false;
    for (int32_t i = 0; i < a->rank; i++) {
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    }
    return true;
}

/* Compares the byte ranges from first to last element. Interleaved blocks with the same outer stride, such as K and V
 * of one {B, 2, …} buffer, are recognized as disjoint. */
static bool overlap(const qn_tensor *a, const qn_tensor *b) {
    size_t a_element = qn_dtype_bytes(a->dtype), b_element = qn_dtype_bytes(b->dtype);
    uintptr_t a_first = (uintptr_t)a->data, b_first = (uintptr_t)b->data;
    size_t a_bytes = (size_t)a->extent * a_element, b_bytes = (size_t)b->extent * b_element;
    if (a_first >= b_first + b_bytes || b_first >= a_first + a_bytes) return false;
    size_t period = (size_t)a->stride[0] * a_element;
    if (period != (size_t)b->stride[0] * b_element) return true;
    size_t a_block = a_bytes - (size_t)(a->shape[0] - 1) * period;
    size_t b_block = b_bytes - (size_t)(b->shape[0] - 1) * period;
    size_t distance = b_first >= a_first ? (b_first - a_first) % period : period - (a_first - b_first) % period;
    return distance < a_block || distance + b_block > period;
}

static qn_status check_alias(check *c) {
    check other = {.call = c->call};
    for (int i = 0; i < c->n; i++) {
        const qni_arg *a = &c->args[i];
        if (is_written(a) && a->tensor->storage->read_only) return FAIL(c, a->name, "%s", "is read-only");
    }
    for (int32_t layer = -1; layer < c->call->n_layer; layer++) {
        load_table(&other, layer);
        for (int i = 0; i < c->n; i++) {
            const qni_arg *a = &c->args[i];
            if (!is_written(a)) continue;
            for (int j = 0; j < other.n; j++) {
                const qni_arg *b = &other.args[j];
                if (b->tensor == NULL || (layer == c->layer && i == j) || !overlap(a->tensor, b->tensor)) continue;
                bool allowed =
                    a->use == QNI_WRITE_STREAM && b->use == QNI_READ_STREAM && same_memory(a->tensor, b->tensor);
                if (!allowed) return FAIL(c, a->name, "overlaps %s", label_of(layer, b->name).text);
            }
        }
    }
    return QN_OK;
}

static qn_status check_capacity(check *c) {
    for (int i = 0; i < c->n; i++) {
        if (c->args[i].form != QNI_CACHE) continue;
        uint64_t capacity = (uint64_t)c->args[i].tensor->shape[2];
        uint64_t n_new = (uint64_t)(c->dims->of[QNI_T] + c->call->n_more);
        uint64_t greatest = (uint64_t)c->call->offset->value;
        for (int64_t r = 0; r < c->call->offset->n_rows; r++) {
            if ((uint64_t)c->call->offset->rows[r] > greatest) greatest = (uint64_t)c->call->offset->rows[r];
        }
        if (greatest + n_new <= capacity) continue; /* no overflow: below 2^63 + 2^32 */
        return qni_fail(c->err, QN_EFULL, "%s: %llu tokens are fewer than the %llu that offset %llu + %llu tokens need",
                        label_of(c->layer, "capacity").text, (unsigned long long)capacity,
                        (unsigned long long)(greatest + n_new), (unsigned long long)greatest,
                        (unsigned long long)n_new);
    }
    return QN_OK;
}

static qn_status each(check *c, phase p) {
    for (int32_t layer = -1; layer < c->call->n_layer; layer++) {
        load_table(c, layer);
        QN_TRY(p(c));
    }
    return QN_OK;
}

qn_status qni_validate(const qni_call *call, qni_dims *dims, qn_error *err) {
    check c = {.call = call, .dims = dims, .err = err};
    QN_TRY(each(&c, check_null));
    QN_TRY(check_scalars(call, err));
    static const phase phases[] = {check_rank,  check_sizes,  check_divisibility, check_late_sizes,
                                   check_dtype, check_device, check_alias,        check_capacity};
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) QN_TRY(each(&c, phases[i]));
    return QN_OK;
}
