/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend is a table of Qwen3 primitives, from small to large.
 *
 * The small ops are mandatory. compose.c builds each larger op that a backend leaves NULL from smaller ones when a
 * device is opened, so every op of `device->ops` except the optional whole steps (`sample`, `step`) can be called.
 * Arguments are validated beforehand (validate.c): ops trust shapes, dtypes and positions, and read nothing outside
 * them.
 *
 * Batches. Matrices have one row per token of a batch (qni_batch), which may mix sequences freely: a prefill chunk, a
 * decode step for many users and a mixture of both are the same call.
 *
 * Workspace. An op allocates temporary memory from run->scratch and releases it before it returns. If the scratch is
 * measuring, the op returns right after its allocations. So one dry run, composed or fused, yields the workspace size
 * of a call of that shape, with no second formula to keep in sync. A call with fewer rows must not need more.
 */
#ifndef QNI_BACKEND_H
#define QNI_BACKEND_H

#include "../base/error.h"
#include "../base/thread_pool.h"
#include "quant.h"

/* A bump allocator, used by one call at a time. base NULL: measuring. */
typedef struct qni_scratch {
    unsigned char *base;
    size_t size, used, peak;
} qni_scratch;

/* QNI_ALIGN-aligned bytes. While measuring, the pointer must not be dereferenced. Never fails: the size was
 * measured. */
void *qni_scratch_take(qni_scratch *scratch, size_t bytes);
/* What an allocation of `bytes` takes; SIZE_MAX on overflow. */
size_t qni_scratch_round(size_t bytes);
/* Release everything allocated since `used` was `mark`. */
void qni_scratch_reset(qni_scratch *scratch, size_t mark);
/* count · n elements of `size` bytes. On overflow it measures SIZE_MAX, which no reservation can satisfy. */
void *qni_scratch_array(qni_scratch *scratch, int64_t count, int64_t n, size_t size);
static inline bool qni_scratch_measures(const qni_scratch *scratch) {
    return scratch->base == NULL;
}

typedef struct qni_ops qni_ops;
typedef struct qni_memory_ops qni_memory_ops;

/* The context of a call. */
typedef struct qni_run {
    const qni_ops *ops; /* complete: the backend's own ops and composed ones */
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
 * Device memory, and copies to and from it, in queue order: ops called after a write see it; a read waits for the ops
 * before it and sees their results. Asynchronous errors of earlier ops are reported here as EDEVICE, or as ELOST if the
 * device is gone.
 */
struct qni_memory_ops {
    /* QNI_ALIGN-aligned, not cleared; ENOMEM without a message. Host memory comes from the caller's allocator. */
    qn_status (*alloc)(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind, const qn_allocator *allocator);
    void (*release)(void *state, const qni_buffer *buffer, const qn_allocator *allocator);
    qn_status (*write)(void *state, void *to, const void *from, size_t bytes, qn_error *err);
    qn_status (*read)(void *state, void *to, const void *from, size_t bytes, qn_error *err);
    qn_status (*copy)(void *state, void *to, const void *from, size_t bytes, qn_error *err); /* within the device */
    qn_status (*clear)(void *state, void *to, size_t bytes, qn_error *err);                  /* fill with zeros */
    /* Wait until the queue is empty. */
    qn_status (*wait)(void *state, qn_error *err);
    bool wraps; /* the device can use host memory directly (qn_tensor_wrap) */
};

/* Host memory, for backends that compute on it. */
extern const qni_memory_ops qni_host_memory;

/* The same within a call; no-ops while measuring. */
qn_status qni_write(const qni_run *run, void *to, const void *from, size_t bytes);
qn_status qni_read(const qni_run *run, void *to, const void *from, size_t bytes);
qn_status qni_copy(const qni_run *run, void *to, const void *from, size_t bytes);

/* The primitives. Ops report only errors that cannot be checked beforehand (a device failure, a NaN in greedy). */
struct qni_ops {
    /* small: mandatory */

    /* out {n_row, d_model} = rows ids[r] of table, a weight with n_in = d_model and the vocabulary as outputs. ids are
     * on the device, so that ids written by argmax need no round trip to the host. */
    qn_status (*embed)(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids);
    /* out = rms(x, weight); out may be x */
    qn_status (*rms_norm)(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps);
    /* out {n_row, n_out} = x {n_row, n_in} · W */
    qn_status (*linear)(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight);
    /* cos_sin {n_tok, head_dim} f32: for each token the cosines of its head_dim / 2 angles, then their sines, both
     * scaled by the attention factor. Computed once per step for all layers. */
    qn_status (*rope)(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);
    /* apply RoPE to q and k, write k and v to the cache, attend; out {n_row, n_head·head_dim} */
    qn_status (*kv_attention)(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                              const qni_kv_layer *kv, const qni_attention_call *call);
    /* out = hidden + x · W; out may be hidden */
    qn_status (*linear_add)(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight);
    /* out = silu(gate) ⊙ up, elementwise, all f32; out may be gate */
    qn_status (*swiglu)(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up);
    /* ids[r] = lowest id < n_valid with the greatest logits[r], on the device; ENUMERIC, with ids unchanged, if a row
     * contains a NaN */
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
    /* ids {n_row} = argmax over the LM head's logits */
    qn_status (*greedy)(const qni_run *run, uint32_t *ids, qni_mat hidden, qni_vec norm, const qni_weight *lm_head,
                        int64_t n_valid, double eps);

    /* whole steps: NULL where the device offers nothing better than what the session does without them */

    /* ids[r], on the device, = the id sampled from logits[r] by sampling[r]; -1 if a logit is NaN or +Inf, or all are
     * -Inf. NULL: logits are copied to the host and sampled there. */
    qn_status (*sample)(const qni_run *run, int32_t *ids, qni_mat logits, const qni_sampling *sampling);
    /* A step through all layers that samples up to decode->n_token ids per sequence, one after another, without the
     * host in between. NULL: one id per step. */
    qn_status (*step)(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_decode *decode);
};

/* What a backend in a library of its own uses of this one: it resolves no symbol from its host. */
typedef struct qni_host {
    qn_status (*fail)(qn_error *err, qn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
    void *(*calloc)(size_t count, size_t size);
    void (*free)(void *pointer);
    /* thread_pool.h */
    qn_status (*pool_create)(qni_pool **out, int32_t n_thread, bool pin, qn_error *err);
    void (*pool_run)(qni_pool *pool, int32_t n_task, qni_task task, void *context);
    void (*pool_free)(qni_pool *pool);
} qni_host;

/* How to open a device. */
typedef struct qni_opening {
    const qn_device_options *options;
    int32_t index; /* 1 in "cuda:1" */
    int32_t n_thread;
    const qni_host *host; /* static */
} qni_opening;

/* What a device says of itself. */
typedef struct qni_device_facts {
    char description[96];
    uint64_t memory_total_bytes, memory_available_bytes;
} qni_device_facts;

typedef struct qni_backend {
    const char *name;
    int32_t kv_block_tokens; /* positions per block of a KV pool */
    bool kv_by_head;         /* in a pool, the blocks of a KV head are adjacent, not the heads of a block */
    qn_dtype kv_dtype;       /* the default of a KV pool; DEFAULT: f16 */
    int32_t n_batch;         /* tokens per step, the default of a KV pool; 0: 512 */
    int32_t step_tokens;     /* ids per sequence that one call of `step` should sample */
    bool steps_single;       /* `step` accepts only batches with one token per sequence */
    /* Name of the index-th instruction set level, lowest first; NULL past the last. NULL: it has no levels. */
    const char *(*isa_level)(int32_t index);
    /* Create a device's state; err names the reason. isa_out: a string that lives as long as the state. */
    qn_status (*open)(void **state, const char **isa_out, const qni_opening *how, qn_error *err);
    void (*close)(void *state);
    /* NULL: the device is the machine's processor and memory. */
    void (*describe)(const void *state, qni_device_facts *out);
    /* NULL: the caller can measure them itself. The caller holds the device lock. */
    qn_status (*measure_peaks)(void *state, qn_device_peaks *out, qn_error *err);
    /* Draws of `sample` and `step` that may differ from the host's, see qn_device_count_close_draws(). NULL: 0. The
     * caller holds the device lock. */
    qn_status (*count_close_draws)(void *state, uint64_t *out, qn_error *err);
    const qni_memory_ops *memory;
    qni_ops ops;

    /* The layout of a packed linear; EUNSUPPORTED if no kernel supports it. Resolves arith AUTO. A quantized source may
     * get a dense layout. */
    qn_status (*packing)(const void *state, qni_packing *out, const qni_source *source, qn_error *err);
    /* Fill outputs [first, first + n) of a packed linear. first is a multiple of form.nr; so is n, unless first + n is
     * n_out. src holds W[i, first + o] at src[i · in_stride + o · out_stride], in elements of the layout's dtype.
     * Padding in these panels is zeroed. Callable on any thread, concurrently for disjoint ranges. */
    void (*pack)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride);
    /* The same from rows [first, first + n) of a quantized source. Errors: ENOMEM. */
    qn_status (*pack_quantized)(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                const qni_quant *source, const qni_quant_rows *rows, qn_error *err);
    /* Run tasks on the device's threads (used for packing while loading); NULL: all tasks run on the calling thread.
     * The caller holds the device lock. */
    void (*parallel)(void *state, int32_t n_task, qni_task task, void *context);
    /* First touch: place the pages of the packed weights of a layer and of an LM head (either may be NULL) on the NUMA
     * node of the threads that will read them. Contents are overwritten, so call it before filling. NULL: nothing to
     * do. The caller holds the device lock. */
    void (*first_touch)(void *state, const qni_layer_view *layer, const qni_weight *lm_head);
} qni_backend;

extern const qni_backend qni_backend_ref;
extern const qni_backend qni_backend_cpu;

/* The backends linked into this build, best first (registry.c); NULL past the last. plugin.c has the others. */
const qni_backend *qni_backend_at(int32_t index);

/* Compose the larger ops that `ops` leaves NULL; with `all`, replace the existing ones too (device option compose). */
void qni_compose(qni_ops *ops, bool all);

/* inv_freq {head_dim/2} in double, and the factor on cos and sin, from a validated qn_rope. */
void qni_rope_resolve(double *inv_freq, double *attention_factor, const qn_rope *rope, int64_t head_dim);

/* The `rope` op for backends whose memory the host can address, and its computation: angles, cos and sin in double. */
qn_status qni_op_rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);
void qni_rope_fill(qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);

/* Scalar element access (slow path). */
float qni_load_f32(const void *data, qn_dtype dtype, int64_t index);
void qni_store_f32(void *data, qn_dtype dtype, int64_t index, float value);

/* Rows of a KV cache (kv.c), n = head_dim: row size in elements, store from and load to f32, and the q8 parts. */
int64_t qni_kv_row_elements(qn_dtype dtype, int64_t n);
void qni_kv_store(void *row, qn_dtype dtype, const float *x, int64_t n);
void qni_kv_load(float *x, const void *row, qn_dtype dtype, int64_t n);
void qni_q8_store(void *row, const float *x, int64_t n);
float qni_q8_scale(const void *row, int64_t n);

#endif
