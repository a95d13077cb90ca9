/* SPDX-License-Identifier: Apache-2.0 */
/** @file model.h
 * A dense Qwen3 checkpoint in a Hugging Face directory: config.json, generation_config.json and model.safetensors (a
 * single file, or shards with model.safetensors.index.json). Weights are f32, bf16 or f16, or quantized in MLX's affine
 * format or in FP8 blocks (docs/quantization.md).
 *
 * Nothing that changes the math is guessed. An unknown value, a missing key without a safe default, and a missing or
 * unexpected tensor are errors that name it. Files are untrusted and fully validated before any weight is read.
 *
 * Threads: a model is immutable and may be used by any number of threads and sessions. Sessions and pools keep it alive.
 */
#ifndef QUERN_MODEL_H
#define QUERN_MODEL_H

#include "device.h"
#include "ops.h"

typedef struct qn_model qn_model;

/** Hyper-parameters, as in config.json. */
typedef struct qn_model_config {
    int32_t n_layer;   /**< num_hidden_layers, 1 … 512 */
    int32_t n_head;    /**< num_attention_heads */
    int32_t n_kv_head; /**< num_key_value_heads */
    int32_t head_dim;  /**< even, 2 … 512 */
    int32_t d_model;   /**< hidden_size */
    int32_t d_ff;      /**< intermediate_size */
    int32_t n_vocab;   /**< rows of the embedding, padding included */
    int32_t n_ctx_max; /**< max_position_embeddings */
    double rms_eps;    /**< rms_norm_eps */
    double rope_theta; /**< rope_theta */
    qn_yarn yarn;      /**< from rope_scaling; factor 0: no YaRN */
    bool tied;         /**< lm_head is the embedding */
    qn_dtype dtype;    /**< of the linears in the file (the first layer's q_proj); u32: MLX affine codes; f8: FP8 */
    int32_t bits;      /**< per code; 0: dense */
    int32_t group;     /**< inputs that share a scale; 0: dense */
    int32_t n_eos;     /**< end-of-text ids, those of generation_config.json first */
    int32_t eos[8];
    uint64_t n_parameter; /**< number of parameters used */
    uint64_t file_bytes;  /**< of all safetensors files */
} qn_model_config;

typedef struct qn_model_options {
    /** BF16 applies to linears with bf16 weights, INT8 to affine codes whose group size is a multiple of 32. All other
     * linears use AUTO. EUNSUPPORTED if no linear supports the requested type. */
    qn_arith arith;
    /** Quantize dense linears, including the embedding, during loading. Q8: all to 8 bits. Q4: q, k, v, gate and up to 4
     * bits, the rest to 8. A linear that is already quantized, or whose input size is not a multiple of 32, stays as it
     * is, with a warning in the log. */
    qn_quantize quantize;
    qn_progress progress; /**< bytes read of the weights */
    qn_log log;
} qn_model_options;

/** Options of qn_model_quantize. */
typedef struct qn_quantize_options {
    qn_quantize to;       /**< Q8 or Q4 */
    int32_t n_thread;     /**< as in qn_device_options */
    uint64_t shard_bytes; /**< largest shard; larger models are split, with an index; 0: 4 GB */
    qn_progress progress; /**< bytes read of the weights */
    qn_log log;
} qn_quantize_options;

/** When to apply the model's YaRN scaling. */
typedef enum qn_yarn_mode {
    QN_YARN_AUTO = 0, /**< when the session's n_ctx exceeds the trained length */
    QN_YARN_ON = 1,   /**< always, as configured */
    QN_YARN_OFF = 2,  /**< never; an n_ctx beyond the trained length is an error */
} qn_yarn_mode;

/** Parameters of a memory plan. YaRN is as with QN_YARN_AUTO. */
typedef struct qn_plan_options {
    const char *device;          /**< as for qn_device_open; NULL: "cpu" */
    const char *isa;             /**< as in qn_device_options */
    int32_t n_thread;            /**< as in qn_device_options */
    qn_arith arith;              /**< as in qn_model_options */
    qn_quantize quantize;        /**< as in qn_model_options */
    int32_t n_ctx;               /**< 0: the smaller of the model's and 4096 */
    int32_t n_batch;             /**< as in qn_session_options */
    qn_dtype kv_dtype;           /**< as in qn_session_options */
    uint64_t memory_limit_bytes; /**< for n_ctx_fits; 0: memory_available_bytes of qn_device_info */
} qn_plan_options;

/** Memory of a model and one session, in bytes: exactly what is requested from the device's allocator. */
typedef struct qn_plan {
    uint64_t weight_bytes;   /**< of the model after qn_model_open */
    uint64_t table_bytes;    /**< part of weight_bytes: an untied embedding, of which a step reads single rows */
    uint64_t kv_bytes;       /**< for n_ctx tokens, rounded up to whole KV blocks */
    uint64_t kv_token_bytes; /**< per token */
    uint64_t session_bytes;  /**< per session: kv_bytes, logits and ids */
    uint64_t scratch_bytes;  /**< workspace of the device, shared by all sessions */
    uint64_t total_bytes;    /**< weight_bytes + session_bytes + scratch_bytes */
    int32_t n_ctx;           /**< the context of the plan */
    int32_t n_ctx_fits;      /**< the longest context that fits the limit, at most the model's; 0: none */
} qn_plan;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Read the configuration only: config.json, generation_config.json and the headers of the weight files.
 *
 * Errors   EIO: a file cannot be read; EFORMAT: a file is malformed, or contradicts another; EUNSUPPORTED: a
 *          valid file of a model that this library does not support; EINVAL: NULL.
 */
QN_NODISCARD QN_API qn_status qn_model_read_config(qn_model_config *out, const char *dir, const qn_log *log,
                                                   qn_error *err);

/** Compute the memory needed, without allocating it. Reads the same files as qn_model_read_config. Errors: as there. */
QN_NODISCARD QN_API qn_status qn_model_plan(qn_plan *out, const char *dir, const qn_plan_options *options,
                                            qn_error *err);

/**
 * Open a model: validate its files, then read the weights in parallel, directly into the device's layout.
 *
 * dir      a Hugging Face directory. Symbolic links are followed; a dangling one is an error, even for an optional
 *          file.
 * Errors   as qn_model_read_config, and ENOMEM; ECANCELED: by the progress callback; EUNSUPPORTED: `arith`.
 */
QN_NODISCARD QN_API qn_status qn_model_open(qn_model **out, qn_device *device, const char *dir,
                                            const qn_model_options *options, qn_error *err);

/**
 * Quantize a checkpoint ahead of time. Writes config.json with MLX's "quantization", the weights as MLX affine tensors,
 * and the tokenizer files. The result opens like any other checkpoint (also in mlx-lm), and its results are bit-identical
 * to those of `dir` with qn_model_options.quantize.
 *
 * out_dir  must exist and should be empty. Each file appears once it is complete, config.json last. After an error some
 *          files may remain.
 * Errors   as qn_model_read_config; EUNSUPPORTED: `dir` is already quantized, or no linear can be quantized; EFORMAT: a
 *          weight that the format cannot represent, as in qn_linear_quantize(); EIO; ENOMEM; ECANCELED; EINVAL: NULL,
 *          or `to`.
 */
QN_NODISCARD QN_API qn_status qn_model_quantize(const char *out_dir, const char *dir,
                                                const qn_quantize_options *options, qn_error *err);

/** Drop the caller's reference. NULL is fine. */
QN_API void qn_model_close(qn_model *model);

QN_API const qn_model_config *qn_model_get_config(const qn_model *model); /**< borrowed */
QN_API qn_device *qn_model_device(const qn_model *model);                 /**< borrowed */
QN_API qn_arith qn_model_arith(const qn_model *model); /**< of the linears: F32, BF16 or INT8; AUTO if model is NULL */

#ifdef __cplusplus
}
#endif
#endif
