/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend is a table of Qwen3 primitives, from small to large.
 *
 * A backend must offer the small ones; each larger one that it leaves NULL is filled in by compose.c from smaller ones
 * when a device is opened. So whoever calls an op through `device->ops` always finds one. Arguments were checked
 * before (validate.c): ops trust shapes, dtypes and positions, and read no memory beyond them.
 *
 * Rows. Every call is a list of rows: row r belongs to sequence seq[r] and sits at position pos[r]. The rows of one
 * sequence are consecutive and ascend by one position. A prefill chunk, a decode step of many users and a mixture are
 * the same call.
 *
 * Scratch. An op takes its temporary memory from run->scratch, gives it back at the end, and returns right after
 * taking it when the scratch is measuring. One pass with a measuring scratch therefore tells the bytes that a call of
 * the same shape needs, composed or fused, with no second formula to keep in step. A call with fewer rows must not need
 * more.
 */
#ifndef QNI_BACKEND_H
#define QNI_BACKEND_H

#include "../base/error.h"
#include "../base/memory.h"
#include "quant.h"

#include <quern/ops.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* Rows of activations: row r starts at data + (r / n_inner * outer_stride + r % n_inner * row_stride) elements.
 * For a plain matrix n_inner is n_row. The elements of a row are contiguous. */
typedef struct qni_mat {
    void *data;
    qn_dtype dtype;
    int64_t n_row, n_col;
    int64_t n_inner;
    int64_t outer_stride, row_stride; /* in elements */
} qni_mat;

/* Rows of heads: head h of row r starts head_stride · h elements after the row. rows.n_col is n_head · head_dim. */
typedef struct qni_heads {
    qni_mat rows;
    int64_t n_head, head_dim;
    int64_t head_stride;
} qni_heads;

/* A norm's weight, contiguous. */
typedef struct qni_vec {
    const void *data;
    qn_dtype dtype;
    int64_t n;
} qni_vec;

/*
 * A weight matrix W {in, out} in panels of nr consecutive outputs, inputs in groups of ki:
 *
 *   W[i, o] = data[o / nr · panel_stride + i / ki · group_stride + (o % nr) · ki + i % ki]
 *
 *   plain {in, out}   nr = n_out, ki = 1, group_stride = row stride            (one panel)
 *   plain {out, in}   nr = 1,     ki = 1, group_stride = 1, panel_stride = row stride
 *   packed            nr and ki of the kernel table; outputs and inputs padded with zeros to whole
 * panels and groups
 *
 * so that one description serves all dense forms; `packed` says that padding is there and data is QNI_ALIGN-aligned.
 *
 * A quantised weight (quant.kind not QNI_DENSE) is always packed; what its panels hold is the backend's affair, and
 * panel_stride counts bytes.
 */
typedef struct qni_weight {
    const void *data;
    qn_dtype dtype;  /* of the elements; affine: U32, fp8: F8 */
    qn_arith arith;  /* F32 for plain ones */
    qni_quant quant; /* as it is packed */
    bool packed;
    bool far;    /* packed: holds weights far from 1, see QNI_NEAR_LEAST; whoever filled it says so */
    bool zipped; /* packed: in the formula o % nr is replaced by o % nr % (nr/2) · 2 + o % nr / (nr/2) */
    int64_t n_in, n_out;
    int64_t nr, ki;
    int64_t panel_stride, group_stride; /* in elements */
} qni_weight;

/*
 * Magnitudes of weights (of scales, where they are quantised) that the faster arithmetics are made for; beyond them, zeros
 * apart, a weight is far from 1. An instruction for bf16 may take numbers below 2^-126 for zeros: with near weights that
 * loses less than 2^-105 of an output for each input, with far ones it may be all of it. int8 takes activations below
 * 2^-100 for zeros, and its products of scales may overflow: far ones are multiplied in f32 instead.
 */
#define QNI_NEAR_LEAST 0x1p-100f
#define QNI_NEAR_MOST  0x1p20f

/* What a linear is packed from. */
typedef struct qni_source {
    qn_dtype dtype;  /* of a dense one's elements */
    qni_quant quant; /* kind QNI_DENSE: it has none */
    qn_arith arith;  /* as asked for: AUTO is resolved by the backend */
    int64_t n_in, n_out;
} qni_source;

/* Rows of a call. */
typedef struct qni_rows {
    int64_t n_row;
    int32_t n_seq;
    const int32_t *seq; /* {n_row} */
    const int32_t *pos; /* {n_row} */
} qni_rows;

/* KV of one layer. Page j of sequence s holds positions j·page_tokens …; its k is {n_kv_head, page_tokens,
 * head_dim} with the strides below, at k_page[s · pages_per_seq + j] + offset_bytes. */
typedef struct qni_kv {
    void *const *k_page; /* {n_seq, pages_per_seq} */
    void *const *v_page;
    size_t k_offset_bytes, v_offset_bytes;
    int32_t pages_per_seq;
    int64_t page_tokens;
    int64_t n_kv_head, head_dim;
    qn_dtype k_dtype, v_dtype;
    int64_t k_head_stride, k_token_stride; /* in elements, those of q8 being bytes */
    int64_t v_head_stride, v_token_stride;
} qni_kv;

/* RoPE of a call: cos_sin {n_row, head_dim}: cos of the D/2 angles, then sin, attention factor included. Filled
 * once a call by qni_rope_fill(), used by all layers. */
typedef struct qni_rope {
    const float *cos_sin;
} qni_rope;

typedef struct qni_attention_weights {
    qni_vec norm;
    qni_weight q_proj, k_proj, v_proj, o_proj;
    qni_vec q_norm, k_norm;
} qni_attention_weights;

typedef struct qni_mlp_weights {
    qni_vec norm;
    qni_weight gate_proj, up_proj, down_proj;
} qni_mlp_weights;

typedef struct qni_layer_weights {
    qni_attention_weights attention;
    qni_mlp_weights mlp;
} qni_layer_weights;

/* What kv_attention, attention_block and layer share for all layers of a call. */
typedef struct qni_attention_call {
    qni_rows rows;
    qni_rope rope;
    double scale;
    double eps;
} qni_attention_call;

/* A bump allocator for one call at a time. base NULL: it measures. */
typedef struct qni_scratch {
    unsigned char *base;
    size_t size, used, peak;
} qni_scratch;

/* QNI_ALIGN-aligned bytes; while measuring a pointer that must not be used. Never fails: the size was measured. */
void *qni_scratch_take(qni_scratch *scratch, size_t bytes);
/* Give back what was taken since `used` was `mark`. */
void qni_scratch_reset(qni_scratch *scratch, size_t mark);
/* count · n elements of `size` bytes; a product that overflows is measured as SIZE_MAX, which no reservation can meet. */
void *qni_scratch_array(qni_scratch *scratch, int64_t count, int64_t n, size_t size);
static inline bool qni_scratch_measures(const qni_scratch *scratch) {
    return scratch->base == NULL;
}

typedef struct qni_ops qni_ops;

/* The context of a call. */
typedef struct qni_run {
    const qni_ops *ops; /* complete: backend's own and composed ones */
    void *backend;      /* the backend's own state */
    qni_scratch *scratch;
    qn_error *err; /* may be NULL */
} qni_run;

/* The primitives. Every op reports only what cannot be checked beforehand (a device that fails, a NaN in greedy). */
struct qni_ops {
    /* small: every backend */

    /* out {n_row, d_model} = rows ids[r] of table, a weight whose outputs are the vocabulary (n_in
     * = d_model) */
    qn_status (*embed)(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids);
    /* out = rms(x, weight); out may be x */
    qn_status (*rms_norm)(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps);
    /* out {n_row, n_out} = x {n_row, n_in} · W */
    qn_status (*linear)(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight);
    /* rotate q and k, write k and v into the cache, attend; out {n_row, n_head·head_dim} */
    qn_status (*kv_attention)(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v, const qni_kv *kv,
                              const qni_attention_call *call);
    /* out = hidden + attn · W; out may be hidden */
    qn_status (*attention_residual)(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat attn,
                                    const qni_weight *weight);
    /* out = silu(gate) ⊙ up, elementwise, all f32; out may be gate */
    qn_status (*swiglu)(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up);
    /* ids[r] = lowest id < n_valid of the greatest logits[r]; ENUMERIC and ids untouched when a row
     * holds a NaN */
    qn_status (*argmax)(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid);

    /* larger: composed where NULL; out may be hidden */

    qn_status (*mlp)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_weights *weights, double eps);
    qn_status (*attention_block)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_weights *weights,
                                 const qni_kv *kv, const qni_attention_call *call);
    qn_status (*layer)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_layer_weights *weights,
                       const qni_kv *kv, const qni_attention_call *call);
    /* logits {n_row, n_vocab} f32 = rms(hidden, norm) · lm_head */
    qn_status (*head)(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm, const qni_weight *lm_head,
                      double eps);
    /* ids {n_row} = argmax of the head */
    qn_status (*greedy)(const qni_run *run, uint32_t *ids, qni_mat hidden, qni_vec norm, const qni_weight *lm_head,
                        int64_t n_valid, double eps);
};

/* How a backend packs a linear. */
typedef struct qni_packing {
    qni_weight form; /* data NULL */
    size_t bytes;    /* padding included */
} qni_packing;

typedef struct qni_backend {
    const char *name;
    /* State for a device; err names the reason. isa_out: static string. */
    qn_status (*open)(void **state, const char **isa_out, const qn_device_options *options, int32_t n_thread,
                      qn_error *err);
    void (*close)(void *state);
    qni_ops ops;

    /* The form of a packed linear; EUNSUPPORTED where there is no kernel. arith AUTO is resolved
     * here. A quantised source may get a dense form. */
    qn_status (*packing)(const void *state, qni_packing *out, const qni_source *source, qn_error *err);
    /* Fill outputs [first, first + n) of a packed linear; first is a multiple of form.nr, and so is
     * n, or first + n is n_out. src holds W[i, first + o] at src[i · in_stride + o · out_stride],
     * in elements of the form's dtype. Padding of these panels is zeroed. Callable on any thread,
     * for disjoint ranges at once. */
    void (*pack)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride);
    /* The same from rows [first, first + n) of a quantised source; ENOMEM. */
    qn_status (*pack_quantized)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                const qni_quant *source, const qni_quant_rows *rows, qn_error *err);
    /* Run tasks on the device's threads (loading packs with it); NULL: the caller's thread does
     * all. The device is held. */
    void (*parallel)(void *state, int32_t n_task, void (*task)(void *context, int32_t task, int32_t thread),
                     void *context);
    /* Lay the memory of a layer's packed weights, and that of a head (either may be NULL), near the threads that will read
     * it; it is overwritten, and filled after that. NULL: nothing to do. The device is held. */
    void (*place)(void *state, const qni_layer_weights *layer, const qni_weight *lm_head);
} qni_backend;

extern const qni_backend qni_backend_ref;
extern const qni_backend qni_backend_cpu;

/* The backends of this build, best first (registry.c); NULL from their number on. */
const qni_backend *qni_backend_at(int32_t index);

/* Fill the larger ops that `ops` leaves NULL; with `all`, replace those that it has (device option compose). */
void qni_compose(qni_ops *ops, bool all);

struct qn_device {
    atomic_int refs;
    const qni_backend *backend;
    void *state;
    qni_ops ops; /* complete */
    const char *isa;
    char description[96];
    int32_t n_thread;
    qn_allocator allocator;
    pid_t owner;            /* the process that opened it */
    pthread_mutex_t lock;   /* held by whatever computes or copies; see qni_device_lock() */
    unsigned char *scratch; /* guarded by lock */
    size_t scratch_bytes;
};

void qni_device_retain(qn_device *device);
void qni_device_release(qn_device *device);

/* Wait for the device's turn. EDEVICE in a forked child of the process that opened the device: the child has none of the
 * device's workers, and no thread of its own would ever release a lock that was held at the fork. */
qn_status qni_device_lock(qn_device *device, qn_error *err);
/* Take the turn if it can be had at once; never in a forked child. */
bool qni_device_trylock(qn_device *device);
void qni_device_unlock(qn_device *device);

/* Make the device's scratch at least `bytes` large. The caller holds the lock. */
qn_status qni_device_reserve(qn_device *device, size_t bytes, qn_error *err);

/* A run context over the device's whole scratch (or a measuring one). The caller holds the lock for the former. */
qni_run qni_device_run(qn_device *device, qni_scratch *scratch, bool measure, qn_error *err);

struct qn_linear {
    qn_device *device;
    qni_weight weight;
    atomic_bool far; /* set by whoever fills a part; then `weight` by qni_linear_finish() */
    void *data;
    size_t bytes;
};

/* inv_freq {head_dim/2} in double and the factor on cos and sin, from a checked qn_rope. */
void qni_rope_resolve(double *inv_freq, double *attention_factor, const qn_rope *rope, int64_t head_dim);

/* cos_sin {n_row, head_dim} for the rows' positions; angles, cos and sin in double. */
void qni_rope_fill(float *cos_sin, const int32_t *pos, int64_t n_row, const double *inv_freq, double attention_factor,
                   int64_t head_dim);

/* Element access for whoever is in no hurry. */
float qni_load_f32(const void *data, qn_dtype dtype, int64_t index);
void qni_store_f32(void *data, qn_dtype dtype, int64_t index, float value);

/* Rows of a KV cache (kv.c), n = head_dim: their size in elements, one in f32, and the parts of q8. */
int64_t qni_kv_row_elements(qn_dtype dtype, int64_t n);
void qni_kv_store(void *row, qn_dtype dtype, const float *x, int64_t n);
void qni_kv_load(float *x, const void *row, qn_dtype dtype, int64_t n);
void qni_q8_store(void *row, const float *x, int64_t n);
float qni_q8_scale(const void *row, int64_t n);

/* Address of row r. */
static inline void *qni_mat_row(const qni_mat *m, int64_t r) {
    int64_t element = r / m->n_inner * m->outer_stride + r % m->n_inner * m->row_stride;
    return (unsigned char *)m->data + element * (int64_t)qn_dtype_bytes(m->dtype);
}

/* A contiguous matrix over memory. */
static inline qni_mat qni_mat_of(void *data, qn_dtype dtype, int64_t n_row, int64_t n_col) {
    return (qni_mat){data, dtype, n_row, n_col, n_row, n_row * n_col, n_col};
}

#endif
