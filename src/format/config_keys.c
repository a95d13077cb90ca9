/* SPDX-License-Identifier: Apache-2.0 */
/* The config.json keys that change nothing, those that must have their neutral value, and the handling of unknown
 * ones. */
#include "config.h"

#include "../base/json_get.h"

#include <string.h>

static const char file_name[] = "config.json";

/* Read by config.c, config_quant.c, config_rope.c and token_ids.c. */
static const char *const read_elsewhere[] = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "quantization",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
};

/* No effect on the logits: training, output formats of transformers, notes. Keys of generation_config.json, which
 * used to be stored in config.json, are in generation_config.c. sliding_window and max_window_layers apply only with
 * use_sliding_window, which must be false. */
static const char *const harmless[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_diffusers_version",
    "_transformers_version",
    "attention_dropout",
    "attn_implementation",
    "author",
    "base_model",
    "base_model_name_or_path",
    "bos_token",
    "chunk_size_feed_forward",
    "datasets",
    "description",
    "eos_token",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "language",
    "library_name",
    "license",
    "max_window_layers",
    "mlx_lm_version",
    "model_max_length",
    "model_name",
    "name_or_path",
    "num_labels",
    "output_router_logits",
    "pad_token",
    "padding_side",
    "pipeline_tag",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "sep_token_id",
    "sliding_window",
    "tags",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "torch_version",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "truncation_side",
    "unk_token",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_model_name",
    "unsloth_version",
    "use_bfloat16",
    "use_return_dict",
    "vllm_version",
    "vocab_file",
};

/* The value with which a math-changing key has no effect. */
typedef enum neutral {
    NEUTRAL_EMPTY, /* null, false, 0 or empty */
    NEUTRAL_TRUE,
    NEUTRAL_ONE,
} neutral;

static const struct {
    const char *key;
    neutral value;
} maths[] = {
    {"add_cross_attention", NEUTRAL_EMPTY},
    {"attention_bias", NEUTRAL_EMPTY},
    {"attention_multiplier", NEUTRAL_EMPTY},
    {"attention_sink", NEUTRAL_EMPTY},
    {"attn_logit_softcapping", NEUTRAL_EMPTY},
    {"attn_output_gate", NEUTRAL_EMPTY},
    {"auto_map", NEUTRAL_EMPTY},
    {"compression_config", NEUTRAL_EMPTY},
    {"cross_attention_hidden_size", NEUTRAL_EMPTY},
    {"embedding_multiplier", NEUTRAL_ONE},
    {"final_logit_softcapping", NEUTRAL_EMPTY},
    {"is_causal", NEUTRAL_TRUE},
    {"is_encoder_decoder", NEUTRAL_EMPTY},
    {"logit_scale", NEUTRAL_ONE},
    {"logits_scaling", NEUTRAL_ONE},
    {"mlp_bias", NEUTRAL_EMPTY},
    {"mlp_only_layers", NEUTRAL_EMPTY},
    {"moe_intermediate_size", NEUTRAL_EMPTY},
    {"mrope_section", NEUTRAL_EMPTY},
    {"norm_topk_prob", NEUTRAL_EMPTY},
    {"num_experts", NEUTRAL_EMPTY},
    {"num_experts_per_tok", NEUTRAL_EMPTY},
    {"num_local_experts", NEUTRAL_EMPTY},
    {"num_nextn_predict_layers", NEUTRAL_EMPTY},
    {"partial_rotary_factor", NEUTRAL_ONE},
    {"position_embedding_type", NEUTRAL_EMPTY},
    {"pruned_heads", NEUTRAL_EMPTY},
    {"qk_norm", NEUTRAL_TRUE},
    {"qkv_bias", NEUTRAL_EMPTY},
    {"query_pre_attn_scalar", NEUTRAL_EMPTY},
    {"residual_multiplier", NEUTRAL_ONE},
    {"rope_interleaved", NEUTRAL_EMPTY},
    {"rope_type", NEUTRAL_EMPTY},
    {"rotary_pct", NEUTRAL_ONE},
    {"text_config", NEUTRAL_EMPTY},
    {"use_mrope", NEUTRAL_EMPTY},
    {"use_qk_norm", NEUTRAL_TRUE},
    {"use_sliding_window", NEUTRAL_EMPTY},
    {"vision_config", NEUTRAL_EMPTY},
};

static bool contains(const char *const *list, size_t n, const char *key) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], key) == 0) return true;
    }
    return false;
}

static bool is_off(const json_t *value, neutral wanted) {
    if (json_is_null(value)) return true;
    switch (wanted) {
    case NEUTRAL_TRUE:
        return json_is_true(value);
    case NEUTRAL_ONE:
        return json_is_number(value) && json_number_value(value) == 1;
    default:
        return qni_json_is_neutral(value);
    }
}

static qn_status check_key(const char *key, const json_t *value, const qn_log *log, qn_error *err) {
    if (contains(read_elsewhere, sizeof read_elsewhere / sizeof read_elsewhere[0], key)) return QN_OK;
    if (contains(harmless, sizeof harmless / sizeof harmless[0], key)) return QN_OK;
    for (size_t i = 0; i < sizeof maths / sizeof maths[0]; i++) {
        if (strcmp(maths[i].key, key) != 0) continue;
        if (is_off(value, maths[i].value)) return QN_OK;
        return qni_fail(err, QN_EUNSUPPORTED, "%s: %s %s is not supported", file_name, key, qni_json_text(value).text);
    }
    const qni_setting setting = qni_generation_setting(key, value);
    if (setting == QNI_SETTING_HARMLESS) return QN_OK;
    if (setting != QNI_SETTING_UNKNOWN) {
        qni_log(log, "%s: key \"%s\" (%s) is read in generation_config.json only and was ignored", file_name, key,
                qni_json_text(value).text);
        return QN_OK;
    }
    if (qni_json_is_neutral(value)) {
        qni_log(log, "%s: key \"%s\" (%s) is not known and was ignored", file_name, key, qni_json_text(value).text);
        return QN_OK;
    }
    return qni_fail(err, QN_EUNSUPPORTED,
                    "%s: key \"%s\" (%s) is not known and may change the results; take it out if it does not",
                    file_name, key, qni_json_text(value).text);
}

qn_status qni_config_check_keys(const json_t *root, const qn_log *log, qn_error *err) {
    const char *key;
    json_t *value;
    json_t *object = (json_t *)(uintptr_t)root; /* Jansson's iterators are not const-correct; nothing is modified */
    json_object_foreach(object, key, value) {
        QN_TRY(check_key(key, value, log, err));
    }
    return QN_OK;
}
