/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend is a table of Qwen3 primitives, from small to large.
 *
 * A backend must offer the small ones; each larger one that it leaves NULL is filled in by compose.c from smaller ones
 * when a device is opened. So whoever calls an op through `device->ops` always finds one. Arguments were checked
 * before (validate.c): ops trust shapes, dtypes and positions, and read no memory beyond them.
 *
 * Batches. Matrices have a row for each token of a batch (qni_batch), which any mixture of sequences makes up: a prefill
 * chunk, a decode step of many users and a mixture are the same call.
 *
 * Scratch. An op takes its temporary memory from run->scratch, gives it back at the end, and returns right after
 * taking it when the scratch is measuring. One pass with a measuring scratch therefore tells the bytes that a call of
 * the same shape needs, composed or fused, with no second formula to keep in step. A call with fewer rows must not need
 * more.
 */
#ifndef QNI_BACKEND_H
#define QNI_BACKEND_H

#include "../base/error.h"
#include "quant.h"

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
typedef struct qni_memory_ops qni_memory_ops;

/* The context of a call. */
typedef struct qni_run {
    const qni_ops *ops; /* complete: backend's own and composed ones */
    const qni_memory_ops *memory;
    void *backend; /* the backend's own state */
    qni_scratch *scratch;
    qn_error *err; /* may be NULL */
} qni_run;

/* What memory is for. */
typedef enum qni_memory_kind {
    QNI_MEMORY_WEIGHTS, /* written once, read in each step */
    QNI_MEMORY_KV,
    QNI_MEMORY_WORKSPACE,
    QNI_MEMORY_TENSOR,
} qni_memory_kind;

/*
 * Memory of a device and copies to and from it, in the order of its queue of work: a write is seen by ops that are called
 * after it, a read sees what ops before it have written, and waits for them. Errors of earlier ops that surface only then
 * are reported here as EDEVICE, or as ELOST when the device is gone.
 */
struct qni_memory_ops {
    /* QNI_ALIGN-aligned, not cleared; ENOMEM without a message. The allocator is the caller's, for memory of the host. */
    qn_status (*alloc)(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind, const qn_allocator *allocator);
    void (*release)(void *state, const qni_buffer *buffer, const qn_allocator *allocator);
    qn_status (*write)(void *state, void *to, const void *from, size_t bytes, qn_error *err);
    qn_status (*read)(void *state, void *to, const void *from, size_t bytes, qn_error *err);
    qn_status (*copy)(void *state, void *to, const void *from, size_t bytes, qn_error *err); /* within the device */
    qn_status (*clear)(void *state, void *to, size_t bytes, qn_error *err);                  /* to zeros */
    /* Wait until everything queued is done. */
    qn_status (*wait)(void *state, qn_error *err);
    bool wraps; /* the host's memory can be used as the device's (qn_tensor_wrap) */
};

/* Memory of the host, for backends that compute on it. */
extern const qni_memory_ops qni_host_memory;

/* The same in a call: nothing while measuring. */
qn_status qni_write(const qni_run *run, void *to, const void *from, size_t bytes);
qn_status qni_read(const qni_run *run, void *to, const void *from, size_t bytes);
qn_status qni_copy(const qni_run *run, void *to, const void *from, size_t bytes);

/* The primitives. Every op reports only what cannot be checked beforehand (a device that fails, a NaN in greedy). */
struct qni_ops {
    /* small: every backend */

    /* out {n_row, d_model} = rows ids[r] of table, a weight whose outputs are the vocabulary (n_in = d_model); ids are on
     * the device, so that ids which argmax wrote need not come to the host */
    qn_status (*embed)(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids);
    /* out = rms(x, weight); out may be x */
    qn_status (*rms_norm)(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps);
    /* out {n_row, n_out} = x {n_row, n_in} · W */
    qn_status (*linear)(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight);
    /* cos_sin {n_tok, head_dim} f32: cos of the head_dim / 2 angles of each token's position, then their sin, both times
     * the attention factor. Computed once a step for all layers. */
    qn_status (*rope)(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);
    /* rotate q and k, write k and v into the cache, attend; out {n_row, n_head·head_dim} */
    qn_status (*kv_attention)(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                              const qni_kv_layer *kv, const qni_attention_call *call);
    /* out = hidden + x · W; out may be hidden */
    qn_status (*linear_add)(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight);
    /* out = silu(gate) ⊙ up, elementwise, all f32; out may be gate */
    qn_status (*swiglu)(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up);
    /* ids[r] = lowest id < n_valid of the greatest logits[r], on the device; ENUMERIC and ids untouched when a row holds a
     * NaN */
    qn_status (*argmax)(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid);

    /* larger: composed where NULL; out may be hidden */

    qn_status (*mlp)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *weights, double eps);
    qn_status (*attention_block)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *weights,
                                 const qni_kv_layer *kv, const qni_attention_call *call);
    qn_status (*layer)(const qni_run *run, qni_mat out, qni_mat hidden, const qni_layer_view *weights,
                       const qni_kv_layer *kv, const qni_attention_call *call);
    /* logits {n_row, n_vocab} f32 = rms(hidden, norm) · lm_head */
    qn_status (*lm_head)(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm, const qni_weight *lm_head,
                         double eps);
    /* ids {n_row} = argmax of lm_head */
    qn_status (*greedy)(const qni_run *run, uint32_t *ids, qni_mat hidden, qni_vec norm, const qni_weight *lm_head,
                        int64_t n_valid, double eps);

    /* whole steps: left NULL where the device has nothing better than what the session does without them */

    /* ids[r], on the device, = the id sampled from logits[r] by sampling[r]; -1 where a logit is a NaN or +Inf, or all are
     * -Inf. NULL: logits go to the host, and its sampler. */
    qn_status (*sample)(const qni_run *run, int32_t *ids, qni_mat logits, const qni_sampling *sampling);
    /* A step of all layers, and decode->n_token ids of each sequence, one after the other without the host. NULL: one id a
     * step. */
    qn_status (*step)(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_decode *decode);
};

typedef struct qni_backend {
    const char *name;
    int32_t kv_block_tokens; /* positions of a block of a KV pool */
    int32_t step_tokens;     /* ids of each sequence that a call of `step` should sample */
    /* State for a device; err names the reason. isa_out: static string. */
    qn_status (*open)(void **state, const char **isa_out, const qn_device_options *options, int32_t n_thread,
                      qn_error *err);
    void (*close)(void *state);
    const qni_memory_ops *memory;
    qni_ops ops;

    /* The form of a packed linear; EUNSUPPORTED where there is no kernel. arith AUTO is resolved
     * here. A quantized source may get a dense form. */
    qn_status (*packing)(const void *state, qni_packing *out, const qni_source *source, qn_error *err);
    /* Fill outputs [first, first + n) of a packed linear; first is a multiple of form.nr, and so is
     * n, or first + n is n_out. src holds W[i, first + o] at src[i · in_stride + o · out_stride],
     * in elements of the form's dtype. Padding of these panels is zeroed. Callable on any thread,
     * for disjoint ranges at once. */
    void (*pack)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride);
    /* The same from rows [first, first + n) of a quantized source; ENOMEM. */
    qn_status (*pack_quantized)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                const qni_quant *source, const qni_quant_rows *rows, qn_error *err);
    /* Run tasks on the device's threads (loading packs with it); NULL: the caller's thread does
     * all. The device is held. */
    void (*parallel)(void *state, int32_t n_task, void (*task)(void *context, int32_t task, int32_t thread),
                     void *context);
    /* Lay the memory of a layer's packed weights, and that of a head (either may be NULL), near the threads that will read
     * it; it is overwritten, and filled after that. NULL: nothing to do. The device is held. */
    void (*place)(void *state, const qni_layer_view *layer, const qni_weight *lm_head);
} qni_backend;

extern const qni_backend qni_backend_ref;
extern const qni_backend qni_backend_cpu;

/* The backends of this build, best first (registry.c); NULL from their number on. */
const qni_backend *qni_backend_at(int32_t index);

/* Fill the larger ops that `ops` leaves NULL; with `all`, replace those that it has (device option compose). */
void qni_compose(qni_ops *ops, bool all);

/* inv_freq {head_dim/2} in double and the factor on cos and sin, from a checked qn_rope. */
void qni_rope_resolve(double *inv_freq, double *attention_factor, const qn_rope *rope, int64_t head_dim);

/* The op `rope` for backends whose memory the host can address, and what it does; angles, cos and sin in double. */
qn_status qni_op_rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);
void qni_rope_fill(qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);

/* Element access for whoever is in no hurry. */
float qni_load_f32(const void *data, qn_dtype dtype, int64_t index);
void qni_store_f32(void *data, qn_dtype dtype, int64_t index, float value);

/* Rows of a KV cache (kv.c), n = head_dim: their size in elements, one in f32, and the parts of q8. */
int64_t qni_kv_row_elements(qn_dtype dtype, int64_t n);
void qni_kv_store(void *row, qn_dtype dtype, const float *x, int64_t n);
void qni_kv_load(float *x, const void *row, qn_dtype dtype, int64_t n);
void qni_q8_store(void *row, const float *x, int64_t n);
float qni_q8_scale(const void *row, int64_t n);

#endif
