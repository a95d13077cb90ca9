/* SPDX-License-Identifier: Apache-2.0 */
/* A request of quern run --jsonl: its fields, named as in the OpenAI API, its generation and its answer. */
#include "request.h"

#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "output.h"
#include "run.h"

enum { MAX_LOGPROBS = 1000, MAX_STOP_IDS = 64 };

struct request {
    generator *generator;
    json_t *record;
    qn_prompt rendered; /* from messages */
    json_t *prompt;     /* raw text, owned by the record; or NULL */
    qn_ids ids, stop_ids;
    bool has_ids, conversation;
    qn_think think;
    int reasoning_format;
    qn_sampler_params params;
    qn_logit_bias *bias;
    qn_string stops[MAX_STOP];
    size_t n_stop;
    whole n_predict, min_tokens, logprobs;
    bool ignore_eos, parse_special, tells_seed;

    qn_sampler *scorer; /* for logprobs */
    qn_logprob *best;
    json_t *out_ids, *out_logprobs;
    qn_text content, reasoning;
    qn_error token_error;
};

void request_free(request *r) {
    if (!r) return;
    json_decref(r->record);
    qn_prompt_release(&r->rendered);
    free(r->ids.data);
    free(r->stop_ids.data);
    free(r->bias);
    free(r->best);
    free(r->content.data);
    free(r->reasoning.data);
    qn_sampler_free(r->scorer);
    json_decref(r->out_ids);
    json_decref(r->out_logprobs);
    free(r);
}

static bool read_messages(request *r, json_t *record, record_error *error) {
    const generator *g = r->generator;
    conversation c = {.kwargs = NULL};
    qn_error err;
    if (!fields_check(record, RECORD_MESSAGES, error)) return false;
    if (!g->chat_template)
        return record_fail(error, "messages: %s", *g->no_template.text ? g->no_template.text : "not with --raw");
    bool good = field_bool(record, "parse_special", &r->parse_special, error) &&
                conversation_read(&c, &g->conversation, record, error);
    if (good && !conversation_render(&c, &r->rendered, &err)) good = record_fail_error(error, &err);
    r->think = c.think;
    r->conversation = true;
    conversation_release(&c);
    return good;
}

static bool read_input(request *r, json_t *record, record_error *error) {
    json_t *prompt = json_object_get(record, "prompt"), *ids = json_object_get(record, "ids"),
           *messages = json_object_get(record, "messages");
    if (json_is_null(prompt)) prompt = NULL;
    if (json_is_null(messages)) messages = NULL;
    if (json_is_null(ids)) ids = NULL;
    if (!!prompt + !!ids + !!messages != 1)
        return record_fail(error, "exactly one of prompt, messages and ids is needed");
    if (messages) return read_messages(r, record, error);
    if (!fields_check(record, RECORD_TEXT, error)) return false;
    if (ids) {
        r->has_ids = true;
        return field_ids(record, "ids", &r->ids, error);
    }
    if (!json_is_string(prompt)) return record_fail(error, "prompt: must be a string, not %s", json_type_name(prompt));
    if (!r->generator->tokenizer) return record_fail(error, "prompt: %s", r->generator->no_template.text);
    if (!json_string_length(prompt)) return record_fail(error, "prompt: must not be empty");
    r->prompt = prompt;
    return true;
}

static bool read_stops(request *r, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "stop");
    if (!value || json_is_null(value)) return true;
    bool single = json_is_string(value);
    if (!single && !json_is_array(value))
        return record_fail(error, "stop: must be a string or a list of strings, not %s", json_type_name(value));
    size_t n = single ? 1 : json_array_size(value);
    if (n > MAX_STOP) return record_fail(error, "stop: must be at most %d texts, not %zu", MAX_STOP, n);
    for (r->n_stop = 0; r->n_stop < n; r->n_stop++) {
        json_t *text = single ? value : json_array_get(value, r->n_stop);
        if (!json_is_string(text) || !json_string_length(text))
            return record_fail(error, "stop: must be strings that are not empty, not %s",
                               json_is_string(text) ? "\"\"" : json_type_name(text));
        r->stops[r->n_stop] = (qn_string){json_string_value(text), json_string_length(text)};
    }
    if (n && !r->generator->tokenizer) return record_fail(error, "stop: %s", r->generator->no_template.text);
    return true;
}

/* "logprobs": k or, as for conversations, "logprobs": true with "top_logprobs": k. Without top_logprobs no alternatives
 * are listed. */
static bool read_logprobs(request *r, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "logprobs");
    whole top = {0, false};
    if (!field_whole(record, "top_logprobs", 0, MAX_LOGPROBS, &top, error)) return false;
    if (json_is_true(value)) {
        r->logprobs = (whole){top.value, true};
        return true;
    }
    if (!json_is_false(value) && !field_whole(record, "logprobs", 0, MAX_LOGPROBS, &r->logprobs, error)) return false;
    if (top.given && top.value != r->logprobs.value)
        return record_fail(error, "top_logprobs: goes with \"logprobs\": true");
    return true;
}

/* max_tokens and its aliases, which must agree. n_predict -1 means no limit, as in llama.cpp. */
static bool read_lengths(request *r, json_t *record, record_error *error) {
    static const char *const names[] = {"n_predict", "max_new_tokens", "max_tokens", "max_completion_tokens"};
    const char *first = NULL;
    for (int i = 0; i < 4; i++) {
        whole n = {0, false};
        if (i == 0 && json_integer_value(json_object_get(record, names[i])) == -1)
            n = (whole){0, true};
        else if (!field_whole(record, names[i], 1, INT32_MAX, &n, error))
            return false;
        if (!n.given) continue;
        if (first && n.value != r->n_predict.value) return record_fail(error, "%s: contradicts %s", names[i], first);
        first = names[i];
        r->n_predict = n;
    }
    return field_whole(record, "min_tokens", 0, INT32_MAX, &r->min_tokens, error);
}

static bool read_stop_ids(request *r, json_t *record, record_error *error) {
    if (!field_ids(record, "stop_token_ids", &r->stop_ids, error)) return false;
    const int32_t n_vocab = qn_model_get_config(r->generator->model)->n_vocab;
    if (r->stop_ids.size > MAX_STOP_IDS)
        return record_fail(error, "stop_token_ids: must be at most %d ids, not %zu", MAX_STOP_IDS, r->stop_ids.size);
    for (size_t i = 0; i < r->stop_ids.size; i++)
        if (r->stop_ids.data[i] >= n_vocab)
            return record_fail(error, "stop_token_ids[%zu]: must be below %d, not %d", i, (int)n_vocab,
                               (int)r->stop_ids.data[i]);
    return true;
}

static bool read_reasoning_format(request *r, json_t *record, record_error *error) {
    static const char *const names[] = {"auto", "none", "deepseek"}; /* in the order of the enum */
    json_t *value = json_object_get(record, "reasoning_format");
    if (!value || json_is_null(value)) return true;
    for (int i = 0; json_is_string(value) && i < 3; i++) {
        if (strcmp(json_string_value(value), names[i]) != 0) continue;
        r->reasoning_format = i;
        return true;
    }
    return record_fail(error, "reasoning_format: must be \"auto\", \"none\" or \"deepseek\"");
}

/* Sampling settings. Seed -1 picks a random one, which the answer reports. */
static bool read_sampling(request *r, json_t *record, record_error *error) {
    sampling wanted = {.top_k = {0, false}};
    if (!fields_sampling(record, &wanted, true, error)) return false;
    if (wanted.seed.given && wanted.seed.value < 0) {
        wanted.seed.value = (int64_t)random_seed();
        r->tells_seed = true;
    }
    generator_params(r->generator, r->conversation, r->think, &r->params);
    apply_sampling(&r->params, &wanted);
    if (!field_logit_bias(record, &r->bias, &r->params.n_logit_bias, error)) return false;
    if (r->bias) r->params.logit_bias = r->bias;
    return true;
}

static bool read_fields(request *r, json_t *record, record_error *error) {
    const settings *s = r->generator->settings;
    r->think = (qn_think)s->think;
    r->n_predict = s->n_predict;
    r->ignore_eos = s->ignore_eos;
    r->parse_special = s->parse_special;
    r->reasoning_format = s->reasoning_format;
    r->n_stop = s->stops.n;
    for (size_t i = 0; i < r->n_stop; i++) r->stops[i] = (qn_string){s->stops.data[i], strlen(s->stops.data[i])};
    return read_input(r, record, error) && read_stops(r, record, error) && read_stop_ids(r, record, error) &&
           read_logprobs(r, record, error) && read_lengths(r, record, error) &&
           read_reasoning_format(r, record, error) && field_bool(record, "ignore_eos", &r->ignore_eos, error) &&
           read_sampling(r, record, error);
}

request *request_read(generator *g, json_t *record, record_error *error) {
    request *r = must_calloc(1, sizeof(*r));
    r->generator = g;
    r->record = json_incref(record);
    if (read_fields(r, record, error)) return r;
    request_free(r);
    return NULL;
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    request *r = user;
    append_bytes(piece == QN_PIECE_REASONING ? &r->reasoning : &r->content, text, size);
    return true;
}

static bool add_logprobs(request *r, const qn_token *token) {
    float logprob;
    int32_t n_best = 0;
    if (qn_sampler_logprobs(r->scorer, &logprob, r->best, &n_best, token->logits, token->id, (int32_t)r->logprobs.value,
                            &r->token_error))
        return false;
    json_t *best = json_array();
    for (int32_t i = 0; i < n_best; i++)
        json_array_append_new(
            best, json_pack("{s:i, s:o}", "id", (int)r->best[i].id, "logprob", json_number(r->best[i].logprob)));
    json_array_append_new(r->out_logprobs, json_pack("{s:i, s:o, s:o}", "id", (int)token->id, "logprob",
                                                     json_number(logprob), "top_logprobs", best));
    return true;
}

static bool on_token(void *user, const qn_token *token) {
    request *r = user;
    json_note_refusals();
    json_array_append_new(r->out_ids, json_integer(token->id));
    const bool good = !r->scorer || add_logprobs(r, token);
    const bool lost = json_was_refused();
    if (lost) r->token_error = (qn_error){QN_ENOMEM, "out of memory"};
    return good && !lost && !interrupted();
}

static bool on_prefill(void *user, int32_t done, int32_t total) {
    (void)user, (void)done, (void)total;
    return !interrupted();
}

static json_t *timings(const qn_generate_result *result) {
    int32_t n_prompt = result->n_prompt - result->n_reused;
    double prompt_s = result->prompt_s, generate_s = result->generate_s;
    return json_pack("{s:i, s:f, s:f, s:i, s:f, s:f, s:i}", "prompt_n", (int)n_prompt, "prompt_ms", 1e3 * prompt_s,
                     "prompt_per_second", prompt_s > 0 ? n_prompt / prompt_s : 0.0, "predicted_n",
                     (int)result->n_generated, "predicted_ms", 1e3 * generate_s, "predicted_per_second",
                     generate_s > 0 ? result->n_generated / generate_s : 0.0, "cache_n", (int)result->n_reused);
}

static json_t *make_answer(const request *r, const qn_generate_result *result) {
    static const char *const reasons[] = {"stop", "length", "canceled"};
    bool has_text = r->generator->tokenizer != NULL;
    json_t *out = json_pack("{s:O, s:o, s:o, s:s, s:o}", "ids", r->out_ids, "text",
                            has_text ? json_text(r->content.data, r->content.size) : json_null(), "reasoning",
                            has_text ? json_text(r->reasoning.data, r->reasoning.size) : json_null(), "finish_reason",
                            reasons[result->finish], "timings", timings(result));
    if (r->out_logprobs) json_object_set(out, "logprobs", r->out_logprobs);
    if (r->tells_seed) json_object_set_new(out, "seed", json_integer((json_int_t)r->params.seed));
    return out;
}

static bool open_scorer(request *r, record_error *error) {
    const qn_model_config *config = qn_model_get_config(r->generator->model);
    int32_t n_valid = r->generator->tokenizer ? qn_tokenizer_n_vocab(r->generator->tokenizer) : 0;
    qn_sampler_params params;
    qn_error err;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &params);
    if (n_valid > config->n_vocab) n_valid = config->n_vocab;
    if (qn_sampler_create(&r->scorer, &params, config->n_vocab, n_valid, &err)) return record_fail_error(error, &err);
    r->best = must_calloc((size_t)r->logprobs.value, sizeof(*r->best));
    r->out_logprobs = json_array();
    return true;
}

qn_generation *request_begin(request *r, qn_session *session, record_error *error) {
    generator *g = r->generator;
    json_note_refusals();
    r->out_ids = json_array();
    bool good = !r->logprobs.given || open_scorer(r, error);
    if (json_was_refused()) good = record_fail(error, "out of memory");
    if (!good) return NULL;
    qn_generate_args args = {
        .prompt = r->prompt ? json_string_value(r->prompt) : NULL,
        .prompt_size = json_string_length(r->prompt),
        .ids = r->has_ids ? r->ids.data : NULL,
        .n_ids = r->ids.size,
        .sampler = &r->params,
        .n_predict = (int32_t)r->n_predict.value,
        .min_tokens = (int32_t)r->min_tokens.value,
        .ignore_eos = r->ignore_eos,
        .stop_ids = r->stop_ids.data,
        .n_stop_id = r->stop_ids.size,
        .split_reasoning = r->reasoning_format ? r->reasoning_format == REASONING_DEEPSEEK : r->conversation,
        .stops = r->stops,
        .n_stop = r->n_stop,
        .on_text = g->tokenizer ? on_text : NULL,
        .on_token = on_token,
        .on_prefill = on_prefill,
        .user = r,
    };
    if (r->conversation) generator_set_prompt(g, &r->rendered, r->parse_special, &args);
    qn_generation *generation = NULL;
    qn_error err;
    if (qn_generation_create(&generation, session, g->tokenizer, &args, &err)) record_fail_error(error, &err);
    return generation;
}

bool request_encode(const request *r, qn_ids *out) {
    const qn_tokenizer *t = r->generator->tokenizer;
    const qn_text *text = &r->rendered.text;
    if (r->has_ids) {
        out->data = must_realloc(out->data, r->ids.size, sizeof(int32_t));
        memcpy(out->data, r->ids.data, r->ids.size * sizeof(int32_t));
        out->size = out->capacity = r->ids.size;
        return true;
    }
    const qn_text_run all = {text->size, true};
    const bool trusts = r->parse_special;
    return !(r->conversation
                 ? qn_tokenizer_encode_runs(t, out, text->data, text->size, trusts ? &all : r->rendered.runs,
                                            trusts ? 1 : r->rendered.n_run, NULL)
                 : qn_tokenizer_encode_document(t, out, json_string_value(r->prompt), json_string_length(r->prompt),
                                                true, NULL));
}

json_t *request_answer(const request *r, const qn_generate_result *result, record_error *error) {
    if (r->token_error.status) {
        record_fail_error(error, &r->token_error);
        return NULL;
    }
    json_note_refusals();
    json_t *out = make_answer(r, result);
    if (!json_was_refused()) return out;
    json_decref(out);
    record_fail(error, "out of memory");
    return NULL;
}
