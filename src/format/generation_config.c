/* SPDX-License-Identifier: Apache-2.0 */
/* generation_config.json: settings that become sampler defaults, and unsupported ones that are logged because they
 * would change the text in other programs. Source: GenerationConfig of transformers 4.51 and 5; presence and
 * frequency penalties as in OpenAI's API and vLLM. */
#include "config.h"

#include "../base/json_get.h"

#include <math.h>
#include <string.h>

static const char file_name[] = "generation_config.json";

/* No effect on the text: output formats, speed, beams (num_beams must be 1), ids that are read elsewhere. */
static const char *const harmless[] = {
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "early_stopping",
    "eos_token_id",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
};

/* Settings and their neutral values: null, a number, and if `empty` is true also false, 0 and empty values. */
static const struct {
    const char *key;
    bool read, empty;
    double number;
} settings[] = {
    {"do_sample", true, true, NAN},
    {"frequency_penalty", true, true, NAN},
    {"min_p", true, true, NAN},
    {"presence_penalty", true, true, NAN},
    {"repetition_penalty", true, false, 1},
    {"temperature", true, false, 1},
    {"top_k", true, true, 50},
    {"top_p", true, false, 1},
    {"assistant_ensemble_weight", false, false, NAN},
    {"bad_words_ids", false, true, NAN},
    {"begin_suppress_tokens", false, true, NAN},
    {"constraints", false, true, NAN},
    {"dola_layers", false, true, NAN},
    {"encoder_no_repeat_ngram_size", false, true, NAN},
    {"encoder_repetition_penalty", false, false, 1},
    {"epsilon_cutoff", false, true, NAN},
    {"eta_cutoff", false, true, NAN},
    {"exponential_decay_length_penalty", false, true, NAN},
    {"force_words_ids", false, true, NAN},
    {"forced_bos_token_id", false, false, NAN},
    {"forced_decoder_ids", false, true, NAN},
    {"forced_eos_token_id", false, false, NAN},
    {"guidance_scale", false, false, 1},
    {"max_length", false, false, 20},
    {"max_new_tokens", false, false, NAN},
    {"max_time", false, false, NAN},
    {"min_length", false, true, NAN},
    {"min_new_tokens", false, true, NAN},
    {"no_repeat_ngram_size", false, true, NAN},
    {"num_beam_groups", false, false, 1},
    {"num_beams", false, false, 1},
    {"num_return_sequences", false, false, 1},
    {"penalty_alpha", false, true, NAN},
    {"sequence_bias", false, true, NAN},
    {"stop_strings", false, true, NAN},
    {"suppress_tokens", false, true, NAN},
    {"token_healing", false, true, NAN},
    {"top_h", false, false, NAN},
    {"typical_p", false, false, 1},
    {"watermarking_config", false, true, NAN},
};

qni_setting qni_generation_setting(const char *key, const json_t *value) {
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (strcmp(harmless[i], key) == 0) return QNI_SETTING_HARMLESS;
    }
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (strcmp(settings[i].key, key) != 0) continue;
        bool off = json_is_null(value) || (settings[i].empty && qni_json_is_neutral(value)) ||
                   (json_is_number(value) && json_number_value(value) == settings[i].number);
        return off ? QNI_SETTING_HARMLESS : settings[i].read ? QNI_SETTING_READ : QNI_SETTING_IGNORED;
    }
    return QNI_SETTING_UNKNOWN;
}

static void name_ignored(const json_t *root, const qn_log *log) {
    const char *key;
    json_t *value;
    json_t *object = (json_t *)(uintptr_t)root; /* Jansson's iterators are not const-correct; nothing is modified */
    json_object_foreach(object, key, value) {
        switch (qni_generation_setting(key, value)) {
        case QNI_SETTING_IGNORED:
            qni_log(log, "%s: key \"%s\" (%s) is not offered and was ignored", file_name, key,
                    qni_json_text(value).text);
            break;
        case QNI_SETTING_UNKNOWN:
            if (qni_json_is_neutral(value)) break;
            qni_log(log, "%s: key \"%s\" (%s) is not known and was ignored", file_name, key, qni_json_text(value).text);
            break;
        default:
            break;
        }
    }
}

/* A number within a range, whose lower end is inclusive or exclusive. */
static qn_status read_setting(double *out, bool *has, const json_t *root, const char *key, double least, double most,
                              bool open, qn_error *err) {
    double x = 0;
    QN_TRY(qni_json_get_number(&x, has, root, file_name, key, err));
    if (*has && !((open ? x > least : x >= least) && x <= most)) {
        return qni_fail(err, QN_EFORMAT, "%s: %s must be %s %g%s, got %.17g", file_name, key,
                        open ? "more than" : "at least", least, most <= 1 ? " and at most 1" : "", x);
    }
    *out = x;
    return QN_OK;
}

qn_status qni_generation_read(qni_generation_config *out, qni_token_ids *ids, const json_t *root, const qn_log *log,
                              qn_error *err) {
    qni_generation_config g = {0};
    qni_token_ids found;
    if (!qni_json_is_object(root)) return qni_fail(err, QN_EFORMAT, "%s: must be a JSON object", file_name);
    QN_TRY(qni_json_get_bool(&g.do_sample, &g.has_do_sample, root, file_name, "do_sample", err));
    QN_TRY(read_setting(&g.temperature, &g.has_temperature, root, "temperature", 0, HUGE_VAL, false, err));
    QN_TRY(qni_json_get_int(&g.top_k, &g.has_top_k, root, file_name, "top_k", 0, INT32_MAX, err));
    QN_TRY(read_setting(&g.top_p, &g.has_top_p, root, "top_p", 0, 1, false, err));
    QN_TRY(read_setting(&g.min_p, &g.has_min_p, root, "min_p", 0, 1, false, err));
    QN_TRY(read_setting(&g.repetition_penalty, &g.has_repetition_penalty, root, "repetition_penalty", 0, HUGE_VAL, true,
                        err));
    QN_TRY(qni_json_get_number(&g.presence_penalty, &g.has_presence_penalty, root, file_name, "presence_penalty", err));
    QN_TRY(
        qni_json_get_number(&g.frequency_penalty, &g.has_frequency_penalty, root, file_name, "frequency_penalty", err));
    QN_TRY(qni_config_read_ids(&found, root, file_name, err));
    name_ignored(root, log);
    *out = g;
    *ids = found;
    return QN_OK;
}
