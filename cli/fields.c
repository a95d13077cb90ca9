/* SPDX-License-Identifier: Apache-2.0 */
/* The table of fields that are refused by name. A field that would change the answer is either supported or refused.
 * Fields that cannot change it (user, stream, metadata, cache hints, …) and unknown fields are ignored. */
#include "fields.h"

#include <stdlib.h>
#include <string.h>

/* Neutral values: those that have no effect. */
typedef enum neutral {
    NOTHING,   /* only null */
    OFF,       /* false, 0, "", [], {} */
    ON,        /* true */
    ONE,       /* 1 */
    MINUS_ONE, /* -1 */
    OFF_OR_MINUS_ONE,
    AUTO,      /* "auto", "none" */
    TEXT_TYPE, /* {"type": "text"} */
    TEXT_ONLY, /* ["text"] */
} neutral;

typedef struct refused_field {
    const char *name;
    unsigned kinds; /* record kinds whose answer it would change */
    neutral neutral;
} refused_field;

enum {
    RUN = RECORD_MESSAGES | RECORD_TEXT,
    PROMPT = RECORD_MESSAGES | RECORD_RENDER,
    REQUEST = RUN | RECORD_RENDER,
    DRAW = RUN | RECORD_SAMPLE,
};

static const refused_field refused[] = {
    /* multiple answers, or best-of-n */
    {"n", RUN, ONE},
    {"best_of", RUN, ONE},
    {"num_return_sequences", RUN, ONE},
    {"num_beams", RUN, ONE},
    {"use_beam_search", RUN, OFF},
    /* the prompt */
    {"chat_template", REQUEST, NOTHING},
    {"template", REQUEST, NOTHING},
    {"functions", PROMPT, OFF},
    {"function_call", PROMPT, AUTO},
    {"system", REQUEST, OFF},
    {"raw", RECORD_MESSAGES, OFF},
    {"raw", RECORD_TEXT, ON},
    {"parameters", RUN, OFF},
    {"sampling_params", RUN, OFF},
    {"extra_body", REQUEST, OFF},
    {"parse_special", RECORD_TEXT, ON},
    {"prompt", RECORD_RENDER, NOTHING},
    {"instructions", REQUEST, OFF},
    {"prefill", REQUEST, OFF},
    {"template_kwargs", REQUEST, OFF},
    {"prefix", REQUEST, OFF},
    {"suffix", RUN, OFF},
    {"input_prefix", RUN, OFF},
    {"input_suffix", RUN, OFF},
    {"input_extra", RUN, OFF},
    {"images", REQUEST, OFF},
    {"input_embeds", RUN, OFF},
    {"image_data", RUN, OFF},
    {"prompt_embeds", RUN, NOTHING},
    {"truncate_prompt_tokens", RUN | RECORD_TOKENIZE, NOTHING},
    {"previous_response_id", RUN, OFF},
    {"conversation", PROMPT, NOTHING},
    {"context", RUN, OFF},
    {"options", RUN, OFF},
    {"tokenize", RECORD_RENDER, OFF},
    /* no effect on a prompt that is not rendered */
    {"tools", RECORD_TEXT, OFF},
    {"tool_choice", RECORD_TEXT, AUTO},
    {"documents", RECORD_TEXT, OFF},
    {"chat_template_kwargs", RECORD_TEXT, OFF},
    {"continue_final_message", RECORD_TEXT, OFF},
    {"enable_thinking", RECORD_TEXT, NOTHING},
    {"think", RECORD_TEXT, NOTHING},
    {"thinking", RECORD_TEXT, NOTHING},
    {"reasoning_effort", RECORD_TEXT, NOTHING},
    {"date", RECORD_TEXT, NOTHING},
    {"tool_arguments", RECORD_TEXT, NOTHING},
    /* reasoning */
    {"reasoning", REQUEST, OFF},
    {"thinking_budget", RUN, MINUS_ONE},
    {"thinking_budget_tokens", RUN, MINUS_ONE},
    {"thinking_token_budget", RUN, MINUS_ONE},
    {"reasoning_budget", RUN, MINUS_ONE},
    {"reasoning_budget_tokens", RUN, MINUS_ONE},
    {"include_reasoning", RUN, ON},
    {"separate_reasoning", RUN, ON},
    /* constraints */
    {"response_format", RUN, TEXT_TYPE},
    {"text", RECORD_MESSAGES, OFF},
    {"structured_outputs", RUN, OFF},
    {"structural_tag", RUN, OFF},
    {"guided_json", RUN, NOTHING},
    {"guided_regex", RUN, OFF},
    {"guided_choice", RUN, OFF},
    {"guided_grammar", RUN, OFF},
    {"guided_json_object", RUN, OFF},
    {"json_schema", RUN, NOTHING},
    {"grammar", RUN, OFF},
    {"regex", RUN, OFF},
    {"ebnf", RUN, OFF},
    {"format", RUN, OFF},
    {"parallel_tool_calls", RECORD_MESSAGES, ON},
    {"bad_words", RUN, OFF},
    {"bad_words_ids", DRAW, OFF},
    {"allowed_token_ids", DRAW, NOTHING},
    {"stop_sequences", RUN, OFF},
    {"stop_words", RUN, OFF},
    {"stop_strings", RUN, OFF},
    {"eos_token_id", RUN, NOTHING},
    {"min_new_tokens", RUN, OFF},
    {"min_length", RUN, OFF},
    {"stop_regex", RUN, OFF},
    {"max_length", RUN, NOTHING},
    {"t_max_predict_ms", RUN, OFF},
    {"n_indent", RUN, OFF},
    /* other sampling methods */
    {"typical_p", DRAW, ONE},
    {"typical", DRAW, ONE},
    {"tfs_z", DRAW, ONE},
    {"top_a", DRAW, OFF},
    {"top_n_sigma", DRAW, OFF_OR_MINUS_ONE},
    {"mirostat", DRAW, OFF},
    {"mirostat_mode", DRAW, OFF},
    {"dynatemp_range", DRAW, OFF},
    {"dynamic_temperature", DRAW, OFF},
    {"smoothing_factor", DRAW, OFF},
    {"dry_multiplier", DRAW, OFF},
    {"xtc_probability", DRAW, OFF},
    {"epsilon_cutoff", DRAW, OFF},
    {"eta_cutoff", DRAW, OFF},
    {"penalty_alpha", DRAW, OFF},
    {"no_repeat_ngram_size", DRAW, OFF},
    {"repeat_last_n", DRAW, MINUS_ONE},
    {"penalty_last_n", DRAW, MINUS_ONE},
    {"random_seed", DRAW, NOTHING},
    {"sampling_seed", DRAW, NOTHING},
    {"penalty_range", DRAW, MINUS_ONE},
    {"guidance_scale", DRAW, ONE},
    {"samplers", DRAW, OFF},
    {"sampler_order", DRAW, OFF},
    {"sampler_priority", DRAW, OFF},
    {"temperature_last", DRAW, OFF},
    {"min_keep", DRAW, OFF},
    {"do_sample", DRAW, ON},
    {"logits_processors", DRAW, OFF},
    {"custom_logit_processor", DRAW, OFF},
    {"vllm_xargs", RUN, OFF},
    /* format of the answer */
    {"echo", RUN, OFF},
    {"prompt_logprobs", RUN, OFF},
    {"logprob_start_len", RUN, MINUS_ONE},
    {"top_logprobs_num", RUN, OFF},
    {"n_probs", RUN, OFF},
    {"post_sampling_probs", RUN, OFF},
    {"return_logprob", RUN, OFF},
    {"return_hidden_states", RUN, OFF},
    {"skip_special_tokens", RUN, ON},
    {"include_stop_str_in_output", RUN, OFF},
    {"no_stop_trim", RUN, OFF},
    {"detokenize", RUN, ON},
    {"with_pieces", RECORD_TOKENIZE, OFF},
    {"return_token_strs", RECORD_TOKENIZE, OFF},
    {"clean_up_tokenization_spaces", RECORD_TOKENIZE, OFF},
    {"modalities", RUN, TEXT_ONLY},
    {"audio", RUN, OFF},
    {"prediction", RUN, OFF},
    {"web_search_options", RUN, NOTHING},
    /* other weights */
    {"lora", RUN, OFF},
    {"lora_path", RUN, OFF},
    {"lora_request", RUN, OFF},
    {"adapters", RUN, OFF},
    {"control_vectors", RUN, OFF},
};

static bool is_default_off(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_FALSE:
        return true;
    case JSON_STRING:
        return !json_string_length(value);
    case JSON_ARRAY:
        return !json_array_size(value);
    case JSON_OBJECT:
        return !json_object_size(value);
    case JSON_INTEGER:
    case JSON_REAL:
        return !(json_number_value(value) < 0 || json_number_value(value) > 0);
    default:
        return false;
    }
}

static bool is_number(const json_t *value, double number) {
    return json_is_number(value) && !(json_number_value(value) < number || json_number_value(value) > number);
}

static bool is_text(const json_t *value, const char *text) {
    return json_is_string(value) && !strcmp(json_string_value(value), text);
}

static bool is_neutral(const json_t *value, neutral kind) {
    switch (kind) {
    case NOTHING:
        return false;
    case OFF:
        return is_default_off(value);
    case ON:
        return json_is_true(value);
    case ONE:
        return is_number(value, 1);
    case MINUS_ONE:
        return is_number(value, -1);
    case OFF_OR_MINUS_ONE:
        return is_default_off(value) || is_number(value, -1);
    case AUTO:
        return is_text(value, "auto") || is_text(value, "none");
    case TEXT_TYPE:
        return json_object_size(value) == 1 && is_text(json_object_get(value, "type"), "text");
    case TEXT_ONLY:
        return json_array_size(value) == 1 && is_text(json_array_get(value, 0), "text");
    }
    return false;
}

static bool refuse(const refused_field *field, const json_t *value, record_kind kind, record_error *error) {
    static const char *const wanted[] = {[ON] = "true",
                                         [ONE] = "1",
                                         [MINUS_ONE] = "-1",
                                         [TEXT_TYPE] = "{\"type\": \"text\"}",
                                         [TEXT_ONLY] = "[\"text\"]"};
    if (kind == RECORD_TEXT && field->kinds == RECORD_TEXT && field->neutral != ON)
        return record_fail(error, "%s: goes with messages only", field->name);
    const size_t n = sizeof(wanted) / sizeof(*wanted);
    const char *only = (size_t)field->neutral < n ? wanted[field->neutral] : NULL;
    if (!only) return record_fail(error, "%s: is not offered", field->name);
    char *text = json_source(value);
    record_fail(error, "%s: must be %s, not %.100s", field->name, only, text);
    free(text);
    return false;
}

bool fields_check(json_t *record, record_kind kind, record_error *error) {
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        const refused_field *field = &refused[i];
        const json_t *value = json_object_get(record, field->name);
        if (!value || json_is_null(value) || !(field->kinds & kind) || is_neutral(value, field->neutral)) continue;
        return refuse(field, value, kind, error);
    }
    return true;
}
