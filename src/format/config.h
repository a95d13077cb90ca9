/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json and generation_config.json, in the classic and the transformers-5 form, checked key by key. Tensors are
 * not consulted here: a size that the file omits is 0 and is inferred from the weights later.
 *
 * Keys. Each key is either read, or known to change nothing, or known to change the math (then only its neutral value
 * is accepted), or unknown. An unknown key with a neutral value (null, false, 0, an empty list, object or string) is
 * logged and ignored. Any other unknown key is rejected by name, because it may change the math.
 */
#ifndef QNI_CONFIG_H
#define QNI_CONFIG_H

#include "../base/error.h"
#include "../base/log.h"

#include <quern/ops.h>

#include <jansson.h>

/* Limits on file values. Larger than any published dense model, small enough that products fit in 64 bits. */
enum {
    QNI_MAX_LAYER = 512,
    QNI_MAX_HEAD = 1 << 14,
    QNI_MAX_HEAD_DIM = 512,
    QNI_MAX_D_MODEL = 1 << 18,
    QNI_MAX_D_FF = 1 << 20,
    QNI_MAX_VOCAB = 1 << 24,
    QNI_MAX_EOS = 8, /* as in qn_model_config */
    QNI_CONFIG_MAX_BYTES = 4 << 20,
};

/* What generation_config.json says about sampling; a value counts only where its has_ flag is set. */
typedef struct qni_generation_config {
    bool has_do_sample, do_sample;
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repetition_penalty;
    bool has_presence_penalty, has_frequency_penalty;
    double temperature;        /* >= 0 */
    int32_t top_k;             /* >= 0; 0: all */
    double top_p;              /* 0 … 1 */
    double min_p;              /* 0 … 1 */
    double repetition_penalty; /* > 0 */
    double presence_penalty;
    double frequency_penalty;
} qni_generation_config;

/* Token ids of one file, in file order. */
typedef struct qni_token_ids {
    int32_t bos; /* -1: none */
    int32_t n_eos;
    int32_t eos[QNI_MAX_EOS];
} qni_token_ids;

/* How config.json says the weights are quantized. The tensors show which ones are. */
typedef enum qni_stated_kind { QNI_STATED_NONE, QNI_STATED_AFFINE, QNI_STATED_FP8 } qni_stated_kind;
typedef struct qni_stated_quant {
    qni_stated_kind kind;
    int32_t bits, group;         /* affine, for modules without their own key */
    int32_t block_out, block_in; /* fp8: block of weights that share a scale */
    json_t *modules;             /* affine: the validated object, own reference; its keys are module paths */
} qni_stated_quant;

/* What an affine checkpoint states for one module. */
typedef struct qni_module_quant {
    enum { QNI_MODULE_UNNAMED, QNI_MODULE_DENSE, QNI_MODULE_QUANTIZED } named; /* by its own key */
    int32_t bits, group;
} qni_module_quant;
qni_module_quant qni_stated_module(const qni_stated_quant *stated, const char *module);

/* config.json. Sizes are 0 if the file omits them. */
typedef struct qni_config {
    int32_t n_layer, n_head, n_kv_head, head_dim, d_model, d_ff, n_vocab;
    int32_t n_ctx_max;
    double rms_eps;
    double rope_theta;
    qn_yarn yarn; /* factor 0: none */
    bool tied;    /* tie_word_embeddings; false if missing, as in transformers */
    qni_token_ids ids;
    qni_stated_quant quant;
} qni_config;

/* Read a parsed config.json. Errors: EFORMAT, EUNSUPPORTED. */
qn_status qni_config_read(qni_config *out, const json_t *root, const qn_log *log, qn_error *err);
void qni_config_release(qni_config *config); /* accepts a zeroed struct */

/* Read a parsed generation_config.json (generation_config.c). What it sets and the sampler does not offer is named in the log.
 * Errors: EFORMAT, EUNSUPPORTED. */
qn_status qni_generation_read(qni_generation_config *out, qni_token_ids *ids, const json_t *root, const qn_log *log,
                              qn_error *err);

/* Effect of a generation_config.json key, which may also appear in config.json, on the generated text. */
typedef enum qni_setting {
    QNI_SETTING_UNKNOWN,
    QNI_SETTING_HARMLESS, /* none, with any value or with this one */
    QNI_SETTING_READ,     /* honored in generation_config.json; non-default value */
    QNI_SETTING_IGNORED,  /* not supported; non-default value */
} qni_setting;
qni_setting qni_generation_setting(const char *key, const json_t *value);

/* bos_token_id and eos_token_id of either file (token_ids.c). */
qn_status qni_config_read_ids(qni_token_ids *ids, const json_t *root, const char *file, qn_error *err);

/* rope_theta, rope_scaling and rope_parameters of a config.json (config_rope.c). n_ctx_max is already set. */
qn_status qni_config_read_rope(qni_config *config, const json_t *root, const qn_log *log, qn_error *err);

/* quantization and quantization_config of a config.json (config_quant.c). */
qn_status qni_config_read_quant(qni_stated_quant *out, const json_t *root, const qn_log *log, qn_error *err);

/* Check every key of a config.json that no other function reads (config_keys.c). */
qn_status qni_config_check_keys(const json_t *root, const qn_log *log, qn_error *err);

#endif
