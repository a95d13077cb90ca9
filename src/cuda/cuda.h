/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a CUDA device, and what the files of this backend share. kernels.h has the kernels. */
#ifndef QNI_CUDA_H
#define QNI_CUDA_H

#include "../backend/plugin.h"
#include "kernels.h"

#include <pthread.h>
#include <sys/types.h>

enum {
    QNI_CUDA_KV_BLOCK = 64, /* positions per block of a KV pool */
    QNI_CUDA_STEP_TOKENS = 16,
    QNI_CUDA_N_BATCH = 4096,
    QNI_CUDA_MAX_HEAD_DIM = 512,
};

typedef struct qni_cuda_graphs qni_cuda_graphs;
typedef struct qni_cuda_gemms qni_cuda_gemms;

/* Pinned host memory through which weights travel while they are packed. */
typedef struct qni_cuda_staging {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t n_slot;
    struct qni_cuda_slot *slots;
} qni_cuda_staging;

/* Device memory that grows with what the steps need, and its twin on the host, if it is filled from there. */
typedef struct qni_cuda_buffer {
    void *device, *host;
    size_t bytes;
} qni_cuda_buffer;

typedef struct qni_cuda {
    const qni_host *host;
    int device; /* of the CUDA runtime */
    pid_t owner;
    cudaStream_t stream;
    int32_t n_sm;
    char isa[8], name[64];
    qni_pool *pool; /* threads that load weights */
    qni_cuda_staging staging;
    pthread_mutex_t lock; /* guards `failed` */
    cudaError_t failed;   /* the first error that no call has reported yet, or the one that lost the device */
    bool is_lost;

    /* The batch of the last `rope` op, on the device; kv_attention finds it by the angles that were computed from it. */
    qni_cuda_batch batch;
    const float *batch_cos_sin;
    qni_cuda_buffer batch_ints; /* what batch points to */
    double *inv_freq;           /* {QNI_CUDA_MAX_HEAD_DIM / 2} */

    qni_cuda_buffer work;     /* of decode attention: see kernels.h */
    qni_cuda_buffer samplers; /* of a step: {n_row} qni_cuda_sampler, then what they point to */
    qni_cuda_buffer n_close;  /* unsigned long long: draws that rounding may have decided; none before the first */

    qni_cuda_gemms *gemms;
    qni_cuda_graphs *graphs;
    /* Held while a step captures, launches or looks for graphs, while they are dropped, and while somebody waits for the
     * stream: memory is released on any thread, without the device's lock. */
    pthread_mutex_t graph_lock;
} qni_cuda;

/* The state of the device that computes a call, made current on this thread. */
qni_cuda *qni_cuda_of(const qni_run *run);

/* Turn an error of CUDA's into a status and a message. An error that CUDA cannot recover from makes the device lost. */
qn_status qni_cuda_fail(qni_cuda *c, cudaError_t error, const char *what, qn_error *err);
/* Keep an error for the next call that can report one. */
void qni_cuda_keep(qni_cuda *c, cudaError_t error);
/* Make room for `bytes`. A buffer that grows is zeroed, and the graphs, which refer to the old memory, are dropped. */
qn_status qni_cuda_grow(qni_cuda *c, qni_cuda_buffer *buffer, size_t bytes, bool has_twin, const char *what,
                        qn_error *err);

/* Within functions that return qn_status: report an error of CUDA's. */
#define QNI_CUDA_TRY(c, call, what, err)                                                                               \
    do {                                                                                                               \
        const cudaError_t cuda_try_error = (call);                                                                     \
        if (cuda_try_error != cudaSuccess) return qni_cuda_fail(c, cuda_try_error, what, err);                         \
    } while (0)

extern const qni_memory_ops qni_cuda_memory;
extern const qni_backend qni_cuda_backend;

/* pack.c */
qn_status qni_cuda_staging_create(qni_cuda *c, qn_error *err);
void qni_cuda_staging_free(qni_cuda *c);
qn_status qni_cuda_packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err);
void qni_cuda_pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                   int64_t in_stride, int64_t out_stride);
qn_status qni_cuda_pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                  const qni_quant *source, const qni_quant_rows *rows, qn_error *err);

/* ops.c: the ops of backend.h */
qn_status qni_cuda_op_embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids);
qn_status qni_cuda_op_rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps);
qn_status qni_cuda_op_linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight);
qn_status qni_cuda_op_rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope);
qn_status qni_cuda_op_kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                                   const qni_kv_layer *kv, const qni_attention_call *call);
qn_status qni_cuda_op_linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight);
qn_status qni_cuda_op_swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up);
qn_status qni_cuda_op_argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid);

/* batch.c: copy a batch to the device, as c->batch; and check that it is the one of a call */
qn_status qni_cuda_batch_put(qni_cuda *c, const qni_batch *batch, qn_error *err);
qn_status qni_cuda_batch_check(qni_cuda *c, const qni_attention_call *call, qn_error *err);

/* product.c: out = (add +) x · W by the kernels that fit; add.data NULL: none */
qn_status qni_cuda_product(const qni_run *run, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w);
/* The same by cuBLASLt; qni_cuda_is_fast(w), out and add f32 or bf16 with rows of 16-byte units. */
qn_status qni_cuda_many(const qni_run *run, qni_mat out, qni_mat add, qni_mat x, const qni_weight *w);
/* Whether the tensor cores' kernels take a weight. */
bool qni_cuda_is_fast(const qni_weight *w);

/* gemm.c: out = (add +) x · W by cuBLASLt: x bf16, w {n_out, n_in} bf16, out f32 or bf16 */
qn_status qni_cuda_gemm(qni_cuda *c, qni_mat out, qni_mat add, qni_mat x, const void *w, int64_t n_out, qn_error *err);
qn_status qni_cuda_gemms_create(qni_cuda *c, qn_error *err);
void qni_cuda_gemms_free(qni_cuda *c);

qn_status qni_cuda_op_mlp(const qni_run *run, qni_mat out, qni_mat hidden, const qni_mlp_view *w, double eps);
qn_status qni_cuda_op_attention_block(const qni_run *run, qni_mat out, qni_mat hidden, const qni_attention_view *w,
                                      const qni_kv_layer *kv, const qni_attention_call *call);
qn_status qni_cuda_op_lm_head(const qni_run *run, qni_mat logits, qni_mat hidden, qni_vec norm,
                              const qni_weight *lm_head, double eps);
/* layer.c: enough c->work for the batch that is on the device */
qn_status qni_cuda_reserve_work(qni_cuda *c, int64_t n_head, int64_t head_dim, qn_error *err);

/* peaks.c */
qn_status qni_cuda_measure_peaks(void *state, qn_device_peaks *out, qn_error *err);

/* sampling.c */
qn_status qni_cuda_op_sample(const qni_run *run, int32_t *ids, qni_mat logits, const qni_sampling *sampling);
/* Copy the samplers of n rows to c->samplers; the histories have capacity for n_more ids. Allocates c->n_close too. */
qn_status qni_cuda_samplers_put(qni_cuda *c, const qni_sampling *sampling, int32_t n, int32_t n_more, qn_error *err);
qn_status qni_cuda_count_close_draws(void *state, uint64_t *out, qn_error *err);

/* step.c: graphs of decode steps */
qn_status qni_cuda_op_step(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                           const qni_decode *decode);
qn_status qni_cuda_graphs_create(qni_cuda *c, qn_error *err);
void qni_cuda_graphs_free(qni_cuda *c);
/* Drop all graphs: memory that they refer to is about to go. */
void qni_cuda_graphs_forget(qni_cuda *c);

#endif
