/* SPDX-License-Identifier: Apache-2.0 */
/** @file model.h
 * A dense Qwen3 checkpoint in the form of a Hugging Face directory: config.json,
 * generation_config.json and model.safetensors (one file, or shards with
 * model.safetensors.index.json). Weights are f32, bf16 or f16, or quantized: MLX's affine form, or FP8 in blocks
 * (docs/quantization.md).
 *
 * Nothing that changes the maths is guessed: an unknown value, a missing key that has no safe
 * default, a tensor too many or too few is an error that names it. Files are untrusted: they are
 * checked whole before a weight is read.
 *
 * Threads: a model is immutable and may be used by any number of threads and sessions; it ends with
 * the last of them.
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
    qn_yarn yarn;      /**< rope_scaling; factor 0: none */
    bool tied;         /**< lm_head is the embedding */
    qn_dtype dtype;    /**< of the linears in the file (the first layer's q_proj); u32: MLX's affine codes; f8 */
    int32_t bits;      /**< of its codes; 0: it is dense */
    int32_t group;     /**< inputs that share a scale; 0: it is dense */
    int32_t n_eos;     /**< end-of-text ids, those of generation_config.json first */
    int32_t eos[8];
    uint64_t n_parameter; /**< elements that are used */
    uint64_t file_bytes;  /**< of all safetensors files */
} qn_model_config;

typedef struct qn_model_options {
    /** BF16 and INT8 are for the linears that have it (of bf16, of affine codes in groups of a multiple of 32 inputs), the
     * others are as with AUTO; EUNSUPPORTED where none has it. */
    qn_arith arith;
    /** Quantize linears that are dense in the files, the embedding included, while they are loaded: Q8 all to 8 bits, Q4
     * q, k, v, gate and up to 4 bits and the rest to 8. Those that are quantized already, and those whose inputs are no
     * multiple of 32, stay as they are; the log says so. */
    qn_quantize quantize;
    qn_progress progress; /**< bytes read of the weights */
    qn_log log;
} qn_model_options;

/** How qn_model_quantize works. */
typedef struct qn_quantize_options {
    qn_quantize to;       /**< Q8 or Q4 */
    int32_t n_thread;     /**< as in qn_device_options */
    uint64_t shard_bytes; /**< weights beyond it go to several files with an index; 0: 4 GB */
    qn_progress progress; /**< bytes read of the weights */
    qn_log log;
} qn_quantize_options;

/** When to apply the model's YaRN scaling. */
typedef enum qn_yarn_mode {
    QN_YARN_AUTO = 0, /**< when the session's n_ctx exceeds what the model was trained on */
    QN_YARN_ON = 1,   /**< always, as configured */
    QN_YARN_OFF = 2,  /**< never; n_ctx beyond the trained length is refused */
} qn_yarn_mode;

/** What a plan is for; YaRN as QN_YARN_AUTO. */
typedef struct qn_plan_options {
    const char *device;          /**< as for qn_device_open; NULL: "cpu" */
    const char *isa;             /**< as in qn_device_options */
    int32_t n_thread;            /**< as in qn_device_options */
    qn_arith arith;              /**< as in qn_model_options */
    qn_quantize quantize;        /**< as in qn_model_options */
    int32_t n_ctx;               /**< 0: the smaller of the model's and 4096 */
    int32_t n_batch;             /**< as in qn_session_options */
    qn_dtype kv_dtype;           /**< as in qn_session_options */
    uint64_t memory_limit_bytes; /**< for n_ctx_fits; 0: what is available now, as in qn_device_info */
} qn_plan_options;

/** Memory of a model and one session, in bytes, exactly as the device's allocator will hand it out. */
typedef struct qn_plan {
    uint64_t weight_bytes;   /**< after qn_model_open */
    uint64_t table_bytes;    /**< of them an untied embedding, of which a step reads single rows */
    uint64_t kv_bytes;       /**< of n_ctx tokens, rounded up to whole blocks of the device */
    uint64_t kv_token_bytes; /**< of one token */
    uint64_t session_bytes;  /**< of a session: kv_bytes and its logits and ids */
    uint64_t scratch_bytes;  /**< of the device, once, however many sessions */
    uint64_t total_bytes;    /**< weight_bytes + session_bytes + scratch_bytes */
    int32_t n_ctx;           /**< that the plan is for */
    int32_t n_ctx_fits;      /**< the longest context that fits into the limit, at most the model's; 0: none does */
} qn_plan;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Read the configuration alone: config.json, generation_config.json and the headers of the weights.
 *
 * Errors   EIO: a file cannot be read; EFORMAT: a file is malformed, or disagrees with another; EUNSUPPORTED: a
 *          valid file of a model that this library does not compute; EINVAL: NULL.
 */
QN_NODISCARD QN_API qn_status qn_model_read_config(qn_model_config *out, const char *dir, const qn_log *log,
                                                   qn_error *err);

/** Tell the memory before it is taken. Reads the same files as qn_model_read_config. Errors: as there. */
QN_NODISCARD QN_API qn_status qn_model_plan(qn_plan *out, const char *dir, const qn_plan_options *options,
                                            qn_error *err);

/**
 * Open a model: check its files, then read the weights straight into the device's own form, in parallel.
 *
 * dir      a Hugging Face directory (symbolic links are followed; one that leads nowhere is an error, also in place of
 *          a file that may be missing).
 * Errors   as qn_model_read_config, and ENOMEM; ECANCELED by the progress callback; EUNSUPPORTED: the arithmetic.
 */
QN_NODISCARD QN_API qn_status qn_model_open(qn_model **out, qn_device *device, const char *dir,
                                            const qn_model_options *options, qn_error *err);

/**
 * Quantize a checkpoint once and for all: write config.json with MLX's "quantization", the weights as MLX affine tensors
 * and the files of the tokenizer into a directory, which then opens like any other (in mlx-lm too) and computes, bit for
 * bit, what qn_model_options.quantize computes from `dir`.
 *
 * out_dir  is there, and should be empty. Each file appears in it when it is whole, config.json last; after an error
 *          some may be there.
 * Errors   as qn_model_read_config; EUNSUPPORTED: `dir` is quantized already, or no linear can be; EFORMAT: a weight
 *          that the form cannot hold, as in qn_linear_quantize(); EIO; ENOMEM; ECANCELED; EINVAL: NULL, or `to`.
 */
QN_NODISCARD QN_API qn_status qn_model_quantize(const char *out_dir, const char *dir,
                                                const qn_quantize_options *options, qn_error *err);

/** Give up the caller's reference. NULL is fine. */
QN_API void qn_model_close(qn_model *model);

QN_API const qn_model_config *qn_model_get_config(const qn_model *model); /**< borrowed */
QN_API qn_device *qn_model_device(const qn_model *model);                 /**< borrowed */
QN_API qn_arith qn_model_arith(const qn_model *model); /**< of the linears: F32, BF16 or INT8; AUTO if model is NULL */

#ifdef __cplusplus
}
#endif
#endif
