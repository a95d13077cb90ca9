/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding: rope_theta with rope_scaling (classic), or rope_parameters (transformers 5). If a file has both,
 * they must agree. Source: modeling_rope_utils.py of transformers 5. */
#include "config.h"

#include "../base/json_get.h"

#include <math.h>
#include <string.h>

static const char file_name[] = "config.json";

/* The contents of one of the two. */
typedef struct rope_block {
    bool present;
    bool has_theta;
    double theta;
    qn_yarn yarn; /* factor 0: rope_type "default" */
} rope_block;

/* "rope_type", or its older name "type"; *out is NULL if both are missing. */
static qn_status read_type(const char **out, const json_t *block, const char *block_name, qn_error *err) {
    const json_t *modern = qni_json_get(block, "rope_type"), *classic = qni_json_get(block, "type");
    const json_t *value = modern != NULL ? modern : classic;
    *out = NULL;
    if (value == NULL) return QN_OK;
    if (!json_is_string(value)) {
        return qni_fail(err, QN_EFORMAT, "%s: rope_type of %s must be a string, got %s", file_name, block_name,
                        qni_json_text(value).text);
    }
    if (modern != NULL && classic != NULL && !json_equal(modern, classic)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s has rope_type %s and type %s", file_name, block_name,
                        qni_json_text(modern).text, qni_json_text(classic).text);
    }
    *out = json_string_value(value);
    return QN_OK;
}

/* A positive finite number. 0 if missing, null or (as with `or default` in transformers) zero. */
static qn_status read_positive(double *out, const json_t *block, const char *key, bool zero_is_missing, qn_error *err) {
    bool has = false;
    *out = 0;
    QN_TRY(qni_json_get_number(out, &has, block, file_name, key, err));
    if (!has || (zero_is_missing && *out == 0)) return QN_OK;
    if (!(*out > 0) || !isfinite(*out)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be more than 0, got %.17g", file_name, key, *out);
    }
    return QN_OK;
}

static qn_status read_yarn(qn_yarn *yarn, const json_t *block, const char *block_name, int32_t n_ctx_max,
                           qn_error *err) {
    bool has = false;
    int32_t original = n_ctx_max; /* transformers: the default of original_max_position_embeddings */
    QN_TRY(qni_json_get_number(&yarn->factor, &has, block, file_name, "factor", err));
    if (!has) return qni_fail(err, QN_EFORMAT, "%s: factor of %s is missing", file_name, block_name);
    if (!(yarn->factor > 1 && yarn->factor <= 1024)) {
        return qni_fail(err, QN_EFORMAT, "%s: factor of %s must be more than 1 and at most 1024, got %.17g", file_name,
                        block_name, yarn->factor);
    }
    QN_TRY(qni_json_get_int(&original, NULL, block, file_name, "original_max_position_embeddings", 1, INT32_MAX, err));
    yarn->original_ctx = original;
    QN_TRY(read_positive(&yarn->beta_fast, block, "beta_fast", true, err));
    QN_TRY(read_positive(&yarn->beta_slow, block, "beta_slow", true, err));
    QN_TRY(read_positive(&yarn->attention_factor, block, "attention_factor", false, err));
    double fast = yarn->beta_fast > 0 ? yarn->beta_fast : 32, slow = yarn->beta_slow > 0 ? yarn->beta_slow : 1;
    if (fast < slow) {
        return qni_fail(err, QN_EFORMAT, "%s: beta_fast of %s must be at least beta_slow, got %g and %g", file_name,
                        block_name, fast, slow);
    }
    return QN_OK;
}

/* attn_factor is not a YaRN key in transformers, which warns and ignores it; vLLM applies it as an extra factor. */
static bool is_attn_factor(const char *key, const json_t *value, const char *block_name, const qn_log *log) {
    if (strcmp(key, "attn_factor") != 0 || !json_is_number(value)) return false;
    if (json_number_value(value) != 1) {
        qni_log(log,
                "%s: attn_factor of %s (%s) is ignored, as in transformers; vLLM multiplies the attention factor "
                "by it",
                file_name, block_name, qni_json_text(value).text);
    }
    return true;
}

/* Every key of the block must belong to its type; mscale and mscale_all_dim are accepted only if they have no
 * effect. */
static qn_status check_block_keys(const json_t *block, const char *block_name, bool yarn, const qn_log *log,
                                  qn_error *err) {
    static const char *const plain_keys[] = {"rope_type", "type", "rope_theta"};
    static const char *const yarn_keys[] = {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow",
                                            "attention_factor"};
    const char *key;
    json_t *value;
    json_t *object = (json_t *)(uintptr_t)block; /* Jansson's iterators are not const-correct; nothing is modified */
    json_object_foreach(object, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof plain_keys / sizeof plain_keys[0]; i++) {
            known |= strcmp(key, plain_keys[i]) == 0;
        }
        for (size_t i = 0; yarn && i < sizeof yarn_keys / sizeof yarn_keys[0]; i++) {
            known |= strcmp(key, yarn_keys[i]) == 0;
        }
        known |= yarn && strcmp(key, "truncate") == 0 && json_is_true(value);
        known |= strcmp(key, "partial_rotary_factor") == 0 && json_is_number(value) && json_number_value(value) == 1;
        known = known || (yarn && is_attn_factor(key, value, block_name, log));
        if (known || (json_is_null(value) && strcmp(key, "truncate") != 0)) continue;
        return qni_fail(err, QN_EUNSUPPORTED, "%s: %s of %s (%s) is not supported", file_name, key, block_name,
                        qni_json_text(value).text);
    }
    return QN_OK;
}

static qn_status read_block(rope_block *out, const json_t *root, const char *block_name, int32_t n_ctx_max,
                            const qn_log *log, qn_error *err) {
    *out = (rope_block){0};
    const json_t *block = qni_json_get(root, block_name);
    if (block == NULL || (json_is_object(block) && json_object_size(block) == 0)) return QN_OK;
    if (!qni_json_is_object(block)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be an object, got %s", file_name, block_name,
                        qni_json_text(block).text);
    }
    const char *type = NULL;
    QN_TRY(read_type(&type, block, block_name, err));
    bool yarn = type != NULL && strcmp(type, "yarn") == 0;
    if (type != NULL && !yarn && strcmp(type, "default") != 0) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: rope_type \"%s\" of %s is not supported (default and yarn are)",
                        file_name, type, block_name);
    }
    QN_TRY(check_block_keys(block, block_name, yarn, log, err));
    QN_TRY(qni_json_get_number(&out->theta, &out->has_theta, block, file_name, "rope_theta", err));
    if (yarn) QN_TRY(read_yarn(&out->yarn, block, block_name, n_ctx_max, err));
    out->present = true;
    return QN_OK;
}

static bool same_yarn(const qn_yarn *a, const qn_yarn *b) {
    return a->factor == b->factor && a->original_ctx == b->original_ctx && a->beta_fast == b->beta_fast &&
           a->beta_slow == b->beta_slow && a->attention_factor == b->attention_factor;
}

static qn_status read_theta(qni_config *config, const json_t *root, const rope_block *blocks, qn_error *err) {
    static const char *const block_names[] = {"rope_scaling", "rope_parameters"};
    bool has = false;
    QN_TRY(qni_json_get_number(&config->rope_theta, &has, root, file_name, "rope_theta", err));
    for (int i = 0; i < 2; i++) {
        if (!blocks[i].has_theta) continue;
        if (has && blocks[i].theta != config->rope_theta) {
            return qni_fail(err, QN_EFORMAT, "%s: rope_theta is %.17g, and %.17g in %s", file_name, config->rope_theta,
                            blocks[i].theta, block_names[i]);
        }
        config->rope_theta = blocks[i].theta;
        has = true;
    }
    if (!has) return qni_fail(err, QN_EFORMAT, "%s: rope_theta is missing", file_name);
    if (!(config->rope_theta > 1) || config->rope_theta > 1e12) {
        return qni_fail(err, QN_EFORMAT, "%s: rope_theta must be more than 1 and at most 1e12, got %.17g", file_name,
                        config->rope_theta);
    }
    return QN_OK;
}

/* original_max_position_embeddings outside the blocks: in transformers it takes precedence; here it must agree. */
static qn_status read_outer_original(qni_config *config, const json_t *root, const rope_block *blocks, qn_error *err) {
    static const char key[] = "original_max_position_embeddings";
    static const char *const block_names[] = {"rope_scaling", "rope_parameters"};
    int32_t outer = 0;
    bool has = false;
    QN_TRY(qni_json_get_int(&outer, &has, root, file_name, key, 1, INT32_MAX, err));
    if (!has || config->yarn.factor == 0) return QN_OK;
    for (int i = 0; i < 2; i++) {
        const json_t *inner = blocks[i].present ? qni_json_get(json_object_get(root, block_names[i]), key) : NULL;
        if (inner != NULL && json_integer_value(inner) != outer) {
            return qni_fail(err, QN_EFORMAT, "%s: %s is %d, and %s in %s", file_name, key, (int)outer,
                            qni_json_text(inner).text, block_names[i]);
        }
    }
    config->yarn.original_ctx = outer;
    return QN_OK;
}

qn_status qni_config_read_rope(qni_config *config, const json_t *root, const qn_log *log, qn_error *err) {
    rope_block blocks[2];
    QN_TRY(read_block(&blocks[0], root, "rope_scaling", config->n_ctx_max, log, err));
    QN_TRY(read_block(&blocks[1], root, "rope_parameters", config->n_ctx_max, log, err));
    if (blocks[0].present && blocks[1].present && !same_yarn(&blocks[0].yarn, &blocks[1].yarn)) {
        return qni_fail(err, QN_EFORMAT, "%s: rope_scaling and rope_parameters disagree", file_name);
    }
    QN_TRY(read_theta(config, root, blocks, err));
    config->yarn = blocks[0].present ? blocks[0].yarn : blocks[1].yarn;
    return read_outer_original(config, root, blocks, err);
}
