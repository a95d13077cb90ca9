/* SPDX-License-Identifier: Apache-2.0 */
/* config.json: what is read, what is rejected, and the messages. */
#include "../src/format/config.h"
#include "support/cmocka_all.h"
#include "support/config_dir.h"
#include "support/files.h"

#include <quern/model.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reads_the_transformers_4_form(void **state) {
    (void)state;
    qn_model_config c = config_read("{}", "", NULL);
    assert_int_equal(c.n_layer, 2);
    assert_int_equal(c.n_head, 4);
    assert_int_equal(c.n_kv_head, 2);
    assert_int_equal(c.head_dim, 32);
    assert_int_equal(c.d_model, 64);
    assert_int_equal(c.d_ff, 160);
    assert_int_equal(c.n_vocab, 512);
    assert_int_equal(c.n_ctx_max, 4096);
    assert_true(c.rms_eps == 1e-6);
    assert_true(c.rope_theta == 1e6);
    assert_true(c.yarn.factor == 0);
    assert_true(c.tied);
    assert_int_equal(c.dtype, QN_DTYPE_F32);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[0], 510);
    assert_int_equal(c.eos[1], 508);
    /* 512·64 + 64 + 2·(64·128·2 + 64·64·2 + 3·64·160 + 2·64 + 2·32) */
    assert_int_equal(c.n_parameter, 32768 + 64 + 2 * (16384 + 8192 + 30720 + 128 + 64));
    char *path = files_path(config_dir, "model.safetensors");
    size_t bytes = 0;
    free(files_read(path, &bytes));
    free(path);
    assert_int_equal(c.file_bytes, bytes);
}

static void reads_the_transformers_5_form(void **state) {
    (void)state;
    qn_model_config c =
        config_read("{\"rope_parameters\":{\"rope_theta\":5e6,\"rope_type\":\"default\"},\"dtype\":\"float32\"}",
                    "rope_theta rope_scaling torch_dtype", NULL);
    assert_true(c.rope_theta == 5e6 && c.yarn.factor == 0);
    c = config_read(
        "{\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"yarn\",\"factor\":4.0,\"attention_factor\":1.5,"
        "\"original_max_position_embeddings\":1024,\"beta_fast\":16,\"beta_slow\":2.0,\"truncate\":true,"
        "\"mscale\":null,\"partial_rotary_factor\":1.0}}",
        "rope_theta rope_scaling", NULL);
    assert_true(c.yarn.factor == 4 && c.yarn.original_ctx == 1024 && c.yarn.attention_factor == 1.5);
    assert_true(c.yarn.beta_fast == 16 && c.yarn.beta_slow == 2);
    /* Both forms at once, in agreement; theta in one of them is enough. */
    c = config_read("{\"rope_parameters\":{\"rope_theta\":1000000,\"rope_type\":\"yarn\",\"factor\":2},"
                    "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2.0},\"dtype\":\"float32\"}",
                    "", NULL);
    assert_true(c.yarn.factor == 2 && c.yarn.original_ctx == 4096 && c.yarn.beta_fast == 0);
    c = config_read("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0,\"rope_theta\":7.0}}", "rope_theta",
                    NULL);
    assert_true(c.rope_theta == 7);
    c = config_read("{\"rope_scaling\":{},\"rope_parameters\":null}", "", NULL);
    assert_true(c.yarn.factor == 0);
    c = config_read(
        "{\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"factor\":8,\"beta_fast\":0,\"beta_slow\":null},"
        "\"original_max_position_embeddings\":512}",
        "", NULL);
    assert_true(c.yarn.factor == 8 && c.yarn.original_ctx == 512 && c.yarn.beta_fast == 0);
}

/* Each size alone, and all of them, can be inferred from the tensors. */
static void finds_sizes_from_tensors(void **state) {
    (void)state;
    static const char *const removed[] = {
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "num_hidden_layers num_attention_heads num_key_value_heads head_dim hidden_size intermediate_size vocab_size"};
    qn_model_config whole = config_read("{}", "", NULL);
    for (size_t i = 0; i < sizeof removed / sizeof removed[0]; i++) {
        qn_model_config c = config_read("{}", removed[i], NULL);
        assert_int_equal(c.n_layer, whole.n_layer);
        assert_int_equal(c.n_head, whole.n_head);
        assert_int_equal(c.n_kv_head, whole.n_kv_head);
        assert_int_equal(c.head_dim, whole.head_dim);
        assert_int_equal(c.d_model, whole.d_model);
        assert_int_equal(c.d_ff, whole.d_ff);
        assert_int_equal(c.n_vocab, whole.n_vocab);
    }
    assert_int_equal(config_read("{\"num_key_value_heads\":null}", "", NULL).n_kv_head, 2);
}

static void refuses_missing_keys(void **state) {
    (void)state;
    static const char *const needed[] = {"model_type", "hidden_act", "rms_norm_eps", "rope_theta",
                                         "max_position_embeddings"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        char why[64], null[64];
        snprintf(why, sizeof why, "config.json: %s is missing", needed[i]);
        snprintf(null, sizeof null, "{\"%s\":null}", needed[i]);
        config_refuse("{}", needed[i], QN_EFORMAT, why);
        config_refuse(null, "", QN_EFORMAT, why);
    }
    /* As in transformers, a missing tie_word_embeddings is false, and this file has no lm_head. */
    config_refuse("{}", "tie_word_embeddings", QN_EFORMAT, "lm_head.weight is missing");
    config_refuse("{\"tie_word_embeddings\":false}", "", QN_EFORMAT, "lm_head.weight is missing");
    static const char *const optional[] = {
        "attention_bias", "attention_dropout",    "initializer_range", "max_window_layers",  "rope_scaling",
        "sliding_window", "transformers_version", "use_cache",         "use_sliding_window", "bos_token_id",
        "eos_token_id",   "torch_dtype",          "architectures"};
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) config_read("{}", optional[i], NULL);
}

static void refuses_bad_values(void **state) {
    (void)state;
    static const struct {
        const char *patch;
        qn_status status;
        const char *why;
    } cases[] = {
        {"{\"model_type\":\"llama4\"}", QN_EUNSUPPORTED, "model_type must be \"qwen3\", got \"llama4\""},
        {"{\"model_type\":\"qwen3_moe\"}", QN_EUNSUPPORTED, "model_type must be \"qwen3\", got \"qwen3_moe\""},
        {"{\"model_type\":3}", QN_EFORMAT, "model_type must be a string, got 3"},
        {"{\"architectures\":[\"Qwen3ForSequenceClassification\"]}", QN_EUNSUPPORTED, "architectures must hold"},
        {"{\"architectures\":\"Qwen3ForCausalLM\"}", QN_EFORMAT, "architectures must be a list"},
        {"{\"architectures\":[1]}", QN_EFORMAT, "architectures must hold texts"},
        {"{\"hidden_act\":\"relu\"}", QN_EUNSUPPORTED, "hidden_act must be \"silu\", got \"relu\""},
        {"{\"hidden_size\":0}", QN_EFORMAT, "hidden_size must be 1 to 262144, got 0"},
        {"{\"hidden_size\":-1}", QN_EFORMAT, "hidden_size must be 1 to 262144, got -1"},
        {"{\"hidden_size\":7}", QN_EFORMAT, "shape must be {512, 7}, got {512, 64}"},
        {"{\"hidden_size\":2147483648}", QN_EFORMAT, "hidden_size must be 1 to 262144, got 2147483648"},
        {"{\"hidden_size\":\"x\"}", QN_EFORMAT, "hidden_size must be an integer, got \"x\""},
        {"{\"hidden_size\":64.0}", QN_EFORMAT, "hidden_size must be an integer, got 64"},
        {"{\"hidden_size\":true}", QN_EFORMAT, "hidden_size must be an integer, got true"},
        {"{\"num_attention_heads\":0}", QN_EFORMAT, "num_attention_heads must be 1 to 16384, got 0"},
        {"{\"num_attention_heads\":3}", QN_EFORMAT, "multiple of num_key_value_heads, got 3 and 2"},
        {"{\"num_attention_heads\":6}", QN_EFORMAT, "q_proj.weight: shape must be {192, 64}, got {128, 64}"},
        {"{\"num_attention_heads\":1000000000}", QN_EFORMAT, "must be 1 to 16384"},
        {"{\"num_key_value_heads\":0}", QN_EFORMAT, "num_key_value_heads must be 1 to 16384, got 0"},
        {"{\"num_key_value_heads\":3}", QN_EFORMAT, "multiple of num_key_value_heads, got 4 and 3"},
        {"{\"num_key_value_heads\":4}", QN_EFORMAT, "k_proj.weight: shape must be {128, 64}, got {64, 64}"},
        {"{\"head_dim\":0}", QN_EFORMAT, "head_dim must be 2 to 512, got 0"},
        {"{\"head_dim\":3}", QN_EFORMAT, "head_dim must be even, got 3"},
        {"{\"head_dim\":64}", QN_EFORMAT, "q_proj.weight: shape must be {256, 64}, got {128, 64}"},
        {"{\"head_dim\":1000000}", QN_EFORMAT, "head_dim must be 2 to 512, got 1000000"},
        {"{\"num_hidden_layers\":0}", QN_EFORMAT, "num_hidden_layers must be 1 to 512, got 0"},
        {"{\"num_hidden_layers\":-1}", QN_EFORMAT, "num_hidden_layers must be 1 to 512, got -1"},
        {"{\"num_hidden_layers\":1}", QN_EFORMAT, "tensor model.layers.1."},
        {"{\"num_hidden_layers\":99}", QN_EFORMAT, "tensor model.layers.2.self_attn.q_proj.weight is missing"},
        {"{\"num_hidden_layers\":1000000000}", QN_EFORMAT, "num_hidden_layers must be 1 to 512"},
        {"{\"vocab_size\":0}", QN_EFORMAT, "vocab_size must be 1 to 16777216, got 0"},
        {"{\"vocab_size\":1}", QN_EFORMAT, "embed_tokens.weight: shape must be {1, 64}, got {512, 64}"},
        {"{\"vocab_size\":1099511627776}", QN_EFORMAT, "vocab_size must be 1 to 16777216"},
        {"{\"intermediate_size\":0}", QN_EFORMAT, "intermediate_size must be 1 to 1048576, got 0"},
        {"{\"intermediate_size\":9}", QN_EFORMAT, "gate_proj.weight: shape must be {9, 64}, got {160, 64}"},
        {"{\"max_position_embeddings\":0}", QN_EFORMAT, "max_position_embeddings must be 1 to 2147483647, got 0"},
        {"{\"rms_norm_eps\":0}", QN_EFORMAT, "rms_norm_eps must be more than 0 and less than 1, got 0"},
        {"{\"rms_norm_eps\":-1}", QN_EFORMAT, "rms_norm_eps must be more than 0 and less than 1, got -1"},
        {"{\"rms_norm_eps\":\"x\"}", QN_EFORMAT, "rms_norm_eps must be a number, got \"x\""},
        {"{\"rope_theta\":0}", QN_EFORMAT, "rope_theta must be more than 1 and at most 1e12, got 0"},
        {"{\"rope_theta\":-5}", QN_EFORMAT, "rope_theta must be more than 1 and at most 1e12, got -5"},
        {"{\"rope_theta\":\"x\"}", QN_EFORMAT, "rope_theta must be a number, got \"x\""},
        {"{\"rope_theta\":[1e6]}", QN_EFORMAT, "rope_theta must be a number, got a list"},
        {"{\"tie_word_embeddings\":1}", QN_EFORMAT, "tie_word_embeddings must be true or false, got 1"},
        {"{\"torch_dtype\":7}", QN_EFORMAT, "torch_dtype must be a string, got 7"},
        {"{\"dtype\":\"bfloat16\"}", QN_EFORMAT, "torch_dtype is \"float32\" and dtype is \"bfloat16\""},
        {"{\"layer_types\":[\"full_attention\"]}", QN_EFORMAT, "layer_types names 1 layers, num_hidden_layers is 2"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", QN_EUNSUPPORTED,
         "layer_types of layer 1 must be \"full_attention\", got \"sliding_attention\""},
        {"{\"layer_types\":\"full_attention\"}", QN_EFORMAT, "layer_types must be a list"},
        {"{\"eos_token_id\":512}", QN_EFORMAT, "eos_token_id 512 is not below vocab_size 512"},
        {"{\"eos_token_id\":-1}", QN_EFORMAT, "eos_token_id must be an id or a list of ids, got -1"},
        {"{\"eos_token_id\":\"x\"}", QN_EFORMAT, "eos_token_id must be an id or a list of ids, got \"x\""},
        {"{\"eos_token_id\":[1,[2]]}", QN_EFORMAT, "eos_token_id must be an id or a list of ids, got a list"},
        {"{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", QN_EUNSUPPORTED, "eos_token_id has more than 8 ids"},
        {"{\"eos_token_id\":[1,2,3,4,5,6,7]}", QN_EUNSUPPORTED, "more than 8 ids in both files"},
        {"{\"bos_token_id\":512}", QN_EFORMAT, "bos_token_id 512 is not below vocab_size 512"},
        {"{\"bos_token_id\":-1}", QN_EFORMAT, "bos_token_id must be 0 to"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_refuse(cases[i].patch, "", cases[i].status, cases[i].why);
    }
}

static void refuses_unsupported_rope(void **state) {
    (void)state;
#define SCALING(inner) "{\"rope_scaling\":{" inner "}}"
    config_refuse("{\"rope_scaling\":7}", "", QN_EFORMAT, "rope_scaling must be an object, got 7");
    config_refuse(SCALING("\"rope_type\":\"unheard-of\",\"factor\":2"), "", QN_EUNSUPPORTED,
                  "rope_type \"unheard-of\" of rope_scaling is not supported");
    config_refuse(SCALING("\"type\":\"linear\",\"factor\":2"), "", QN_EUNSUPPORTED,
                  "rope_type \"linear\" of rope_scaling");
    config_refuse(SCALING("\"rope_type\":7"), "", QN_EFORMAT, "rope_type of rope_scaling must be a string, got 7");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"type\":\"default\",\"factor\":2"), "", QN_EFORMAT,
                  "rope_scaling has rope_type \"yarn\" and type \"default\"");
    config_refuse(SCALING("\"factor\":2"), "", QN_EUNSUPPORTED, "factor of rope_scaling (2) is not supported");
    config_refuse(SCALING("\"rope_type\":\"yarn\""), "", QN_EFORMAT, "factor of rope_scaling is missing");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":1"), "", QN_EFORMAT,
                  "factor of rope_scaling must be more than 1");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":[4]"), "", QN_EFORMAT,
                  "factor must be a number, got a list");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":1e9"), "", QN_EFORMAT, "at most 1024, got 1000000000");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":0"), "", QN_EFORMAT,
                  "original_max_position_embeddings must be 1 to");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"beta_fast\":-1"), "", QN_EFORMAT,
                  "beta_fast must be more than 0, got -1");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"beta_fast\":1,\"beta_slow\":2"), "", QN_EFORMAT,
                  "beta_fast of rope_scaling must be at least beta_slow, got 1 and 2");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":0"), "", QN_EFORMAT,
                  "attention_factor must be more than 0, got 0");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"mscale\":0.7"), "", QN_EUNSUPPORTED,
                  "mscale of rope_scaling (0.7) is not supported");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"mscale_all_dim\":1"), "", QN_EUNSUPPORTED,
                  "mscale_all_dim of rope_scaling (1) is not supported");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false"), "", QN_EUNSUPPORTED,
                  "truncate of rope_scaling (false) is not supported");
    config_refuse(SCALING("\"rope_type\":\"yarn\",\"factor\":2,\"partial_rotary_factor\":0.5"), "", QN_EUNSUPPORTED,
                  "partial_rotary_factor of rope_scaling (0.5) is not supported");
    config_refuse("{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6}}}", "", QN_EUNSUPPORTED,
                  "full_attention of rope_parameters (an object) is not supported");
    config_refuse("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000}}", "", QN_EFORMAT,
                  "rope_theta is 1000000, and 10000 in rope_parameters");
    config_refuse("{\"rope_parameters\":{\"rope_type\":\"default\"}}", "rope_theta", QN_EFORMAT,
                  "rope_theta is missing");
    config_refuse("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6},"
                  "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}}",
                  "", QN_EFORMAT, "rope_scaling and rope_parameters disagree");
    config_refuse("{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":256},"
                  "\"original_max_position_embeddings\":512}",
                  "", QN_EFORMAT, "original_max_position_embeddings is 512, and 256 in rope_scaling");
}

static void refuses_keys_that_change_results(void **state) {
    (void)state;
    static const struct {
        const char *patch, *why;
    } cases[] = {
        {"{\"attention_bias\":true}", "attention_bias true is not supported"},
        {"{\"mlp_bias\":true}", "mlp_bias true is not supported"},
        {"{\"use_sliding_window\":true}", "use_sliding_window true is not supported"},
        {"{\"partial_rotary_factor\":0.5}", "partial_rotary_factor 0.5 is not supported"},
        {"{\"logit_scale\":0.25}", "logit_scale 0.25 is not supported"},
        {"{\"final_logit_softcapping\":30.0}", "final_logit_softcapping 30 is not supported"},
        {"{\"num_experts\":8}", "num_experts 8 is not supported"},
        {"{\"is_causal\":false}", "is_causal false is not supported"},
        {"{\"use_qk_norm\":false}", "use_qk_norm false is not supported"},
        {"{\"position_embedding_type\":\"alibi\"}", "position_embedding_type \"alibi\" is not supported"},
        {"{\"auto_map\":{\"AutoModel\":\"x.py\"}}", "auto_map an object is not supported"},
        {"{\"unheard_of\":1}", "key \"unheard_of\" (1) is not known and may change the results"},
        {"{\"unheard_of\":\"differential\"}", "key \"unheard_of\" (\"differential\") is not known and may change"},
        {"{\"unheard_of\":true}", "key \"unheard_of\" (true) is not known"},
        {"{\"unheard_of\":[0]}", "key \"unheard_of\" (a list) is not known"},
        {"{\"unheard_of\":{\"a\":0}}", "key \"unheard_of\" (an object) is not known"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_refuse(cases[i].patch, "", QN_EUNSUPPORTED, cases[i].why);
    }
}

/* Quantization settings of config.json are checked even if no tensor is quantized. */
static void checks_quantization(void **state) {
    (void)state;
    static const struct {
        const char *patch;
        qn_status status;
        const char *why;
    } cases[] = {
#define MLX(rest)   "{\"quantization\":{\"group_size\":64,\"bits\":4" rest "}}"
#define OTHER(rest) "{\"quantization_config\":{" rest "}}"
#define FP8(rest)   OTHER("\"quant_method\":\"fp8\"" rest)
        {OTHER("\"quant_method\":\"awq\",\"bits\":4"), QN_EUNSUPPORTED, "quant_method \"awq\" is not supported; MLX's"},
        {OTHER("\"quant_method\":\"bitsandbytes\""), QN_EUNSUPPORTED, "quant_method \"bitsandbytes\" is not supported"},
        {OTHER("\"quant_method\":7"), QN_EUNSUPPORTED, "quant_method 7 is not supported"},
        {"{\"quantization_config\":7}", QN_EFORMAT, "quantization_config must be an object, got 7"},
        {MLX(",\"mode\":\"mxfp4\""), QN_EUNSUPPORTED, "quantization: mode must be \"affine\", got \"mxfp4\""},
        {MLX(",\"mode\":4"), QN_EFORMAT, "quantization: mode must be a string, got 4"},
        {MLX(",\"quant_method\":\"fp8\""), QN_EUNSUPPORTED, "quantization: quant_method \"fp8\" is not supported"},
        {"{\"quantization\":{\"group_size\":64}}", QN_EFORMAT, "quantization: bits is missing"},
        {"{\"quantization\":{\"bits\":4}}", QN_EFORMAT, "quantization: group_size is missing"},
        {"{\"quantization\":{\"bits\":7,\"group_size\":64}}", QN_EUNSUPPORTED,
         "bits must be 2, 3, 4, 5, 6 or 8, got 7"},
        {"{\"quantization\":{\"bits\":9,\"group_size\":64}}", QN_EFORMAT, "quantization: bits must be 2 to 8, got 9"},
        {"{\"quantization\":{\"bits\":4,\"group_size\":0}}", QN_EFORMAT, "quantization: group_size must be 1 to"},
        {MLX(",\"kind\":\"new\""), QN_EUNSUPPORTED, "quantization: key \"kind\" (\"new\") is not known and may change"},
        {MLX(",\"lm_head\":{\"bits\":4}"), QN_EFORMAT, "quantization: lm_head: group_size is missing"},
        {MLX(",\"lm_head\":{\"bits\":4,\"group_size\":64,\"x\":1}"), QN_EUNSUPPORTED,
         "lm_head: key \"x\" (1) is not known"},
        {MLX(",\"lm_head\":{\"bits\":4,\"group_size\":32,\"mode\":\"nvfp4\"}"), QN_EUNSUPPORTED,
         "quantization: lm_head: mode must be \"affine\", got \"nvfp4\""},
        {MLX(",\"model.layers.0.mlp.up_proj\":true"), QN_EFORMAT,
         "up_proj.weight is F32, but config.json says that it is"},
        {"{\"quantization\":{\"group_size\":64,\"bits\":4},\"quantization_config\":{\"group_size\":32,\"bits\":4}}",
         QN_EFORMAT, "quantization and quantization_config are not the same"},
        {FP8(""), QN_EUNSUPPORTED, "quantization_config: weight_block_size must be two sizes of 1 to 2147483647"},
        {FP8(",\"weight_block_size\":[128]"), QN_EFORMAT, "weight_block_size must be two sizes"},
        {FP8(",\"weight_block_size\":[128,0]"), QN_EFORMAT, "weight_block_size must be two sizes"},
        {FP8(",\"weight_block_size\":[128.0,128]"), QN_EFORMAT, "weight_block_size must be two sizes"},
        {FP8(",\"weight_block_size\":[128,128,1]"), QN_EFORMAT, "weight_block_size must be two sizes"},
        {FP8(",\"weight_block_size\":\"128\""), QN_EFORMAT, "weight_block_size must be two sizes"},
        {FP8(",\"weight_block_size\":[1,1],\"fmt\":\"e5m2\""), QN_EUNSUPPORTED, "fmt must be \"e4m3\", got \"e5m2\""},
        {FP8(",\"weight_block_size\":[1,1],\"more\":[1]"), QN_EUNSUPPORTED, "key \"more\" (a list) is not known"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_refuse(cases[i].patch, "", cases[i].status, cases[i].why);
    }
    config_read(MLX(",\"mode\":\"affine\",\"lm_head\":false,\"note\":null"), "", NULL);
    config_read(
        FP8(",\"weight_block_size\":[128,64],\"fmt\":null,\"activation_scheme\":\"dynamic\",\"ignored_layers\":["
            "\"x\"]"),
        "", NULL);
    qn_model_config c = config_read("{\"quantization\":{},\"quantization_config\":null}", "", NULL);
    assert_int_equal(c.bits, 0);
    assert_int_equal(c.group, 0);
#undef MLX
#undef OTHER
#undef FP8
}

static void reports_ignored_keys(void **state) {
    (void)state;
    config_lines l = {0};
    qn_log log = {config_count_line, &l};
    static const char *const neutral[] = {"null", "false", "0", "0.0", "[]", "{}", "\"\""};
    for (size_t i = 0; i < sizeof neutral / sizeof neutral[0]; i++) {
        char patch[64];
        snprintf(patch, sizeof patch, "{\"unheard_of\":%s}", neutral[i]);
        l.n = 0;
        config_read(patch, "", &log);
        assert_int_equal(l.n, 1);
        assert_non_null(strstr(l.last, "config.json: key \"unheard_of\""));
        assert_non_null(strstr(l.last, "is not known and was ignored"));
    }
    l.n = 0;
    config_read(
        "{\"quantization_config\":null,\"mlp_bias\":false,\"partial_rotary_factor\":1,\"logit_scale\":1.0,"
        "\"is_causal\":true,\"sliding_window\":4096,\"pad_token_id\":null,\"_name_or_path\":\"x\",\"license\":\"mit\","
        "\"layer_types\":[\"full_attention\",\"full_attention\"]}",
        "", &log);
    assert_int_equal(l.n, 0);
    /* A log without a callback is fine. */
    config_read("{\"unheard_of\":0}", "", &(qn_log){0});
}

/* Numbers that fit no C type are accepted where they are not needed, and too large where they are. */
static void accepts_unused_large_numbers(void **state) {
    (void)state;
    static const struct {
        const char *file, *key, *value, *why;
    } cases[] = {
        {"config.json", "hidden_size", "1000000000000000019884624838656",
         "hidden_size must be 1 to 262144, got 1000000000000000019884624838656, which is too large"},
        {"config.json", "max_position_embeddings", "-99999999999999999999",
         "must be 1 to 2147483647, got -99999999999999999999, which is too large"},
        {"config.json", "rms_norm_eps", "1e999", "rms_norm_eps is 1e999, which is too large"},
        {"config.json", "rope_theta", "99999999999999999999", "rope_theta must be more than 1 and at most 1e12"},
        {"config.json", "eos_token_id", "[99999999999999999999]", "got 99999999999999999999, which is too large"},
        {"config.json", "tie_word_embeddings", "99999999999999999999", "must be true or false, got 9999"},
        {"config.json", "rope_scaling", "99999999999999999999", "rope_scaling must be an object, got 9999"},
        {"config.json", "quantization", "99999999999999999999", "quantization must be an object, got 9999"},
        {"config.json", "quantization", "{\"bits\":99999999999999999999}", "bits must be 2 to 8, got 9999"},
        {"config.json", "layer_types", "[99999999999999999999,1]", "layer_types"},
        {"generation_config.json", "top_k", "99999999999999999999", "top_k must be 0 to 2147483647, got 9999"},
        {"generation_config.json", "temperature", "-1e999", "temperature is -1e999, which is too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512], patch[128];
        snprintf(patch, sizeof patch, "{\"%s\":12345678}", cases[i].key);
        config_write(cases[i].file, patch, "");
        char *path = files_path(config_dir, cases[i].file), *whole = files_read(path, NULL),
             *at = strstr(whole, "12345678");
        assert_non_null(at);
        char *grown = malloc(strlen(whole) + sizeof text);
        assert_non_null(grown);
        snprintf(grown, strlen(whole) + sizeof text, "%.*s%s%s", (int)(at - whole), whole, cases[i].value, at + 8);
        files_write(config_dir, cases[i].file, grown, strlen(grown));
        qn_model_config config;
        qn_error err = {0};
        qn_status status = qn_model_read_config(&config, config_dir, NULL, &err);
        if (status == QN_OK || strstr(err.message, cases[i].why) == NULL) {
            fail_msg("%s %s: \"%s\", not \"%s\"", cases[i].key, cases[i].value, err.message, cases[i].why);
        }
        free(grown);
        free(whole);
        free(path);
        config_write("config.json", "{}", "");
        config_write("generation_config.json", "{}", "");
    }
    static const char unused[] = "{\"max_time\":1e999,\"pad_token_id\":99999999999999999999}";
    files_write(config_dir, "generation_config.json", unused, sizeof unused - 1);
    config_lines l = {0};
    assert_int_equal(config_read("{}", "", &(qn_log){config_count_line, &l}).n_vocab, 512);
    assert_string_equal(l.last, "generation_config.json: key \"max_time\" (1e999) is not offered and was ignored");
    assert_int_equal(l.n, 1);
    config_write("generation_config.json", "{}", "");
}

/* deepseek-ai/DeepSeek-R1-0528-Qwen3-8B: transformers 5 warns about an unrecognized key and ignores it. */
static void ignores_attn_factor(void **state) {
    (void)state;
    static const char yarn[] = "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                               "\"original_max_position_embeddings\":128,\"attn_factor\":%s}}";
    char patch[256];
    config_lines l = {0};
    snprintf(patch, sizeof patch, yarn, "0.8782488562869419");
    qn_model_config c = config_read(patch, "", &(qn_log){config_count_line, &l});
    assert_true(c.yarn.factor == 4 && c.yarn.attention_factor == 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.last, "config.json: attn_factor of rope_scaling (0.8782488562869419) is ignored, as in "
                                "transformers; vLLM multiplies the attention factor by it");
    snprintf(patch, sizeof patch, yarn, "1");
    config_read(patch, "", &(qn_log){config_count_line, &l});
    assert_int_equal(l.n, 1);
    snprintf(patch, sizeof patch, yarn, "\"x\"");
    config_refuse(patch, "", QN_EUNSUPPORTED, "attn_factor of rope_scaling (\"x\") is not supported");
    config_refuse("{\"rope_scaling\":{\"rope_type\":\"default\",\"attn_factor\":0.5}}", "", QN_EUNSUPPORTED,
                  "is not supported");
    config_write("config.json", "{}", "");
}

static void accepts_base_models(void **state) {
    (void)state;
    config_read("{\"architectures\":[\"Qwen3Model\"]}", "", NULL);
    config_refuse("{\"architectures\":[\"Qwen3ForSequenceClassification\"]}", "", QN_EUNSUPPORTED,
                  "must hold \"Qwen3ForCausalLM\" or \"Qwen3Model\", got \"Qwen3ForSequenceClassification\"");
    config_write("config.json", "{}", "");
}

static void refuses_non_configs(void **state) {
    (void)state;
    static const struct {
        const char *text;
        qn_status status;
        const char *why;
    } cases[] = {
        {"", QN_EFORMAT, "config.json: is empty"},
        {"{", QN_EFORMAT, "config.json: line"},
        {"[]", QN_EFORMAT, "config.json: must be a JSON object"},
        {"null", QN_EFORMAT, "config.json: must be a JSON object"},
        {"{\"a\":1}", QN_EFORMAT, "config.json: model_type is missing"},
        {"{\"a\":1,\"a\":2}", QN_EFORMAT, "duplicate"},
        {"{\"rms_norm_eps\":1e999}", QN_EFORMAT, "config.json: model_type is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        files_write(config_dir, "config.json", cases[i].text, strlen(cases[i].text));
        config_expect(cases[i].status, cases[i].why, cases[i].text);
    }
    files_write(config_dir, "config.json", "\0\0", 2);
    config_expect(QN_EFORMAT, "config.json: line", "zeros");
    char *deep = malloc(100000);
    memset(deep, '{', 100000);
    files_write(config_dir, "config.json", deep, 100000);
    config_expect(QN_EFORMAT, "nests deeper than 128", "deep");
    free(deep);
    size_t large = QNI_CONFIG_MAX_BYTES + 1;
    char *blanks = malloc(large);
    memset(blanks, ' ', large);
    files_write(config_dir, "config.json", blanks, large);
    config_expect(QN_EFORMAT, "more than the", "large");
    free(blanks);
    char *path = files_path(config_dir, "config.json");
    assert_int_equal(remove(path), 0);
    free(path);
    config_expect(QN_EIO, "No such file", "no file");
    qn_error err = {0};
    qn_model_config config;
    assert_int_equal(qn_model_read_config(&config, NULL, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_model_read_config(NULL, config_dir, NULL, &err), QN_EINVAL);
}

/* A config.json truncated or modified anywhere is an error or still valid, never a crash. */
static void survives_damage(void **state) {
    (void)state;
    config_write("config.json", "{}", "");
    char *path = files_path(config_dir, "config.json");
    size_t n = 0;
    char *text = files_read(path, &n);
    free(path);
    for (size_t cut = 0; cut + 1 < n; cut++) { /* the last byte is the brace */
        files_write(config_dir, "config.json", text, cut);
        qn_model_config config;
        assert_int_equal(qn_model_read_config(&config, config_dir, NULL, NULL), QN_EFORMAT);
    }
    uint32_t random = 7;
    for (int i = 0; i < 2000; i++) {
        random = random * 1664525u + 1013904223u;
        size_t at = (random >> 8) % n;
        char before = text[at];
        text[at] = (char)(before ^ (1 << (random & 7)));
        files_write(config_dir, "config.json", text, n);
        qn_model_config config;
        qn_status status = qn_model_read_config(&config, config_dir, NULL, NULL);
        assert_true(status == QN_OK || status == QN_EFORMAT || status == QN_EUNSUPPORTED);
        text[at] = before;
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_transformers_4_form),
        cmocka_unit_test(reads_the_transformers_5_form),
        cmocka_unit_test(finds_sizes_from_tensors),
        cmocka_unit_test(refuses_missing_keys),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_unsupported_rope),
        cmocka_unit_test(refuses_keys_that_change_results),
        cmocka_unit_test(checks_quantization),
        cmocka_unit_test(reports_ignored_keys),
        cmocka_unit_test(accepts_unused_large_numbers),
        cmocka_unit_test(ignores_attn_factor),
        cmocka_unit_test(accepts_base_models),
        cmocka_unit_test(refuses_non_configs),
        cmocka_unit_test(survives_damage),
    };
    return cmocka_run_group_tests(tests, config_setup, config_teardown);
}
