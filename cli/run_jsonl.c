/* SPDX-License-Identifier: Apache-2.0 */
/* quern run --jsonl: a request on each line, with fields named as in the OpenAI API. All requests share a session, so
 * that a common prefix is computed once; the answers do not depend on it. */
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "run.h"

enum { MAX_LOGPROBS = 1000 };

/* A request, read, and its answer as it grows. */
typedef struct request {
    generator *generator;
    qn_text prompt;
    qn_ids ids;
    bool has_ids, conversation;
    qn_think think;
    qn_sampler_params params;
    qn_logit_bias *bias;
    qn_string stops[MAX_STOP];
    size_t n_stop;
    whole n_predict, logprobs;
    bool ignore_eos;

    qn_sampler *scorer; /* for logprobs */
    qn_logprob *best;
    json_t *out_ids, *out_logprobs;
    qn_text content, reasoning;
    qn_error token_error;
} request;

static void request_release(request *r) {
    free(r->prompt.data);
    free(r->ids.data);
    free(r->bias);
    free(r->best);
    free(r->content.data);
    free(r->reasoning.data);
    qn_sampler_free(r->scorer);
    json_decref(r->out_ids);
    json_decref(r->out_logprobs);
}

static bool read_messages(request *r, json_t *record, record_error *error) {
    generator *g = r->generator;
    json_t *messages, *tools;
    if (!fields_conversation(record, &messages, &tools, error)) return false;
    if (!g->chat_template)
        return record_fail(error, "%s", *g->no_template.text ? g->no_template.text : "messages: not with --raw");
    qn_text rendered = {0};
    qn_error err;
    bool good = render_messages(g->chat_template, &rendered, messages, tools, true, r->think, &err);
    if (good)
        append_bytes(&r->prompt, rendered.data, rendered.size);
    else
        record_fail_error(error, &err);
    qn_text_release(&rendered);
    r->conversation = true;
    return good;
}

static bool read_input(request *r, json_t *record, record_error *error) {
    json_t *prompt = json_object_get(record, "prompt"), *ids = json_object_get(record, "ids"),
           *messages = json_object_get(record, "messages");
    if (!!prompt + !!ids + !!messages != 1) return record_fail(error, "one of prompt, messages and ids is needed");
    if (messages) return read_messages(r, record, error);
    if (ids) {
        r->has_ids = true;
        if (json_is_null(ids)) return record_fail(error, "ids: must be a list, not null");
        return field_ids(record, "ids", &r->ids, error);
    }
    if (!json_is_string(prompt)) return record_fail(error, "prompt: must be a string, not %s", json_type_name(prompt));
    if (!r->generator->tokenizer) return record_fail(error, "%s", r->generator->no_template.text);
    if (!json_string_length(prompt)) return record_fail(error, "prompt: must not be empty");
    append_bytes(&r->prompt, json_string_value(prompt), json_string_length(prompt));
    return true;
}

static bool read_stops(request *r, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "stop");
    if (!value || json_is_null(value)) return true;
    bool single = json_is_string(value);
    if (!single && !json_is_array(value))
        return record_fail(error, "stop: must be a string or a list of strings, not %s", json_type_name(value));
    size_t n = single ? 1 : json_array_size(value);
    if (n > MAX_STOP) return record_fail(error, "stop: must be %d texts at most, not %zu", MAX_STOP, n);
    for (r->n_stop = 0; r->n_stop < n; r->n_stop++) {
        json_t *text = single ? value : json_array_get(value, r->n_stop);
        if (!json_is_string(text) || !json_string_length(text))
            return record_fail(error, "stop: must be texts that are not empty, not %s",
                               json_is_string(text) ? "\"\"" : json_type_name(text));
        r->stops[r->n_stop] = (qn_string){json_string_value(text), json_string_length(text)};
    }
    if (n && !r->generator->tokenizer) return record_fail(error, "stop: %s", r->generator->no_template.text);
    return true;
}

/* "logprobs": k, or as for conversations "logprobs": true with "top_logprobs": k */
static bool read_logprobs(request *r, json_t *record, record_error *error) {
    json_t *value = json_object_get(record, "logprobs");
    if (!json_is_boolean(value)) return field_whole(record, "logprobs", 0, MAX_LOGPROBS, &r->logprobs, error);
    if (json_is_false(value)) return true;
    r->logprobs = (whole){0, true};
    return field_whole(record, "top_logprobs", 0, MAX_LOGPROBS, &r->logprobs, error);
}

static bool read_request(request *r, json_t *record, record_error *error) {
    const generator *g = r->generator;
    const settings *s = g->settings;
    sampling wanted = {.top_k = {0, false}};
    whole n_answers = {0}; /* "n" of the OpenAI API: a record has one answer */
    r->think = (qn_think)s->think;
    r->n_predict = s->n_predict;
    r->ignore_eos = s->ignore_eos;
    r->n_stop = s->stops.n;
    for (size_t i = 0; i < r->n_stop; i++) r->stops[i] = (qn_string){s->stops.data[i], strlen(s->stops.data[i])};
    if (!fields_think(record, &r->think, error) || !read_input(r, record, error) || !read_stops(r, record, error) ||
        !read_logprobs(r, record, error))
        return false;
    generator_params(g, r->conversation, r->think, &r->params);
    if (!fields_sampling(record, &wanted, error) ||
        !field_whole(record, "max_tokens", 1, INT32_MAX, &r->n_predict, error) ||
        !field_whole(record, "max_completion_tokens", 1, INT32_MAX, &r->n_predict, error) ||
        !field_whole(record, "n", 1, 1, &n_answers, error) ||
        !field_bool(record, "ignore_eos", &r->ignore_eos, error) ||
        !field_logit_bias(record, &r->bias, &r->params.n_logit_bias, error))
        return false;
    apply_sampling(&r->params, &wanted);
    if (r->bias) r->params.logit_bias = r->bias;
    return true;
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
    json_array_append_new(r->out_ids, json_integer(token->id));
    return (!r->scorer || add_logprobs(r, token)) && !interrupted();
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

static json_t *answer(const request *r, const qn_generate_result *result) {
    static const char *const reasons[] = {"stop", "length", "canceled"};
    bool has_text = r->generator->tokenizer != NULL;
    json_t *out = json_pack("{s:O, s:o, s:o, s:s, s:o}", "ids", r->out_ids, "text",
                            has_text ? json_text(r->content.data, r->content.size) : json_null(), "reasoning",
                            has_text ? json_text(r->reasoning.data, r->reasoning.size) : json_null(), "finish_reason",
                            reasons[result->finish], "timings", timings(result));
    if (r->out_logprobs) json_object_set(out, "logprobs", r->out_logprobs);
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

static json_t *generate(request *r, record_error *error) {
    generator *g = r->generator;
    int format = g->settings->reasoning_format;
    r->out_ids = json_array();
    if (r->logprobs.given && !open_scorer(r, error)) return NULL;
    qn_generate_args args = {
        .prompt = r->has_ids ? NULL : r->prompt.data,
        .prompt_size = r->prompt.size,
        .ids = r->ids.data,
        .n_ids = r->ids.size,
        .sampler = &r->params,
        .n_predict = (int32_t)r->n_predict.value,
        .ignore_eos = r->ignore_eos,
        .split_reasoning = format ? format == REASONING_DEEPSEEK : r->conversation,
        .stops = r->stops,
        .n_stop = r->n_stop,
        .on_text = g->tokenizer ? on_text : NULL,
        .on_token = on_token,
        .on_prefill = on_prefill,
        .user = r,
    };
    qn_generate_result result = {.n_prompt = 0};
    qn_error err;
    if (qn_generate(g->session, g->tokenizer, &args, &result, &err)) {
        record_fail_error(error, &err);
        return NULL;
    }
    if (r->token_error.status) {
        record_fail_error(error, &r->token_error);
        return NULL;
    }
    return answer(r, &result);
}

static json_t *answer_request(void *user, json_t *record, record_error *error) {
    request r = {.generator = user};
    json_t *out = read_request(&r, record, error) ? generate(&r, error) : NULL;
    request_release(&r);
    return out;
}

int run_jsonl(generator *g) {
    return records_answer(answer_request, g);
}
