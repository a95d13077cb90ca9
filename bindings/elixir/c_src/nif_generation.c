/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations: one step per job. The output of a step (ids, pieces of text) is collected in the callbacks and sent with
 * the answer. A session has at most one generation at a time.
 */
#include "quern_nif.h"

typedef struct generation_value {
    qn_generation *generation;
    job *job;                 /* the current step's job */
    ERL_NIF_TERM ids, pieces; /* reversed lists in its environment */
    bool is_over;
} generation_value;

void generation_value_free(void *value) {
    generation_value *v = value;
    qn_generation_free(v->generation);
    enif_free(v);
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    generation_value *v = user;
    ErlNifEnv *env = v->job->env;
    const ERL_NIF_TERM kind = enif_make_atom(env, piece == QN_PIECE_REASONING ? "reasoning" : "content");
    const ERL_NIF_TERM pair = enif_make_tuple2(env, kind, binary_term(env, text, size));
    v->pieces = enif_make_list_cell(env, pair, v->pieces);
    return !atomic_load(&v->job->is_canceled);
}

static bool on_token(void *user, const qn_token *token) {
    generation_value *v = user;
    v->ids = enif_make_list_cell(v->job->env, enif_make_int(v->job->env, token->id), v->ids);
    return true;
}

typedef struct generation_job {
    object *session, *tokenizer, *generation;
    ErlNifBinary text;
    packed_ids ids, ends, stop_ids;
    bool has_text;
    qn_sampler_params sampler;
    qn_logit_bias *bias;
    ErlNifBinary *stop_binaries;
    qn_string *stops;
    qn_generate_args args;
} generation_job;

static void finish_generation(job *j) {
    const generation_job *s = j->state;
    if (s->ids.data != NULL) enif_free(s->ids.data);
    if (s->ends.data != NULL) enif_free(s->ends.data);
    if (s->stop_ids.data != NULL) enif_free(s->stop_ids.data);
    if (s->bias != NULL) enif_free(s->bias);
    if (s->stops != NULL) enif_free(s->stops);
    if (s->stop_binaries != NULL) enif_free(s->stop_binaries);
}

/* The binaries have been inspected by now. Returns false if the job is done, with an error. */
static bool set_inputs(job *j) {
    generation_job *s = j->state;
    for (size_t i = 0; i < s->args.n_stop; i++) {
        s->stops[i] = (qn_string){(const char *)s->stop_binaries[i].data, s->stop_binaries[i].size};
    }
    if (!job_unpack(j, &s->ends) || !job_unpack(j, &s->stop_ids)) return false;
    s->args.ends = s->ends.data;
    s->args.n_end = s->ends.n;
    s->args.stop_ids = s->stop_ids.data;
    s->args.n_stop_id = s->stop_ids.n;
    if (!s->has_text) {
        if (!job_unpack(j, &s->ids)) return false;
        s->args.ids = s->ids.data;
        s->args.n_ids = s->ids.n;
    } else {
        s->args.prompt = (const char *)s->text.data;
        s->args.prompt_size = s->text.size;
        if (s->text.size == 0) return !job_error(j, QN_EINVAL, &(qn_error){.message = "prompt: is empty"});
    }
    return true;
}

static bool new_generation(job *j) {
    generation_job *s = j->state;
    qn_error error;
    if (!set_inputs(j)) return true;
    generation_value *v = enif_alloc(sizeof *v);
    if (v == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "generation: no memory"});
    *v = (generation_value){0};
    s->args.user = v;
    s->args.on_text = s->tokenizer == NULL ? NULL : on_text;
    s->args.on_token = on_token;
    if (!session_occupy(s->session, v)) {
        enif_free(v);
        return job_busy(j);
    }
    const qn_tokenizer *tokenizer = s->tokenizer == NULL ? NULL : s->tokenizer->value;
    qn_status status = qn_generation_create(&v->generation, s->session->value, tokenizer, &s->args, &error);
    if (status != QN_OK) {
        session_vacate(s->session, v);
        enif_free(v);
        return job_error(j, status, &error);
    }
    object *o = object_new(j->nif, KIND_GENERATION, v, s->session->worker, s->session, s->tokenizer);
    if (o == NULL) {
        session_vacate(s->session, v);
        return job_error(j, QN_ENOMEM, &(qn_error){.message = "generation: no memory"});
    }
    return job_value(j, object_term(j->env, o));
}

/* Set a numeric sampler parameter by name. */
static void decode_setting(call *c, generation_job *s, ERL_NIF_TERM name, ERL_NIF_TERM value) {
    static const char *const names[] = {
        "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
        "top_k",       "seed",  NULL};
    const int index = call_choice(c, name, "sampler", names);
    if (c->has_failed) return;
    qn_sampler_params *p = &s->sampler;
    double *const numbers[] = {&p->temperature,      &p->top_p, &p->min_p, &p->repetition_penalty, &p->presence_penalty,
                               &p->frequency_penalty};
    if (index < 6) {
        *numbers[index] = call_number(c, value, names[index]);
    } else if (index == 6) {
        p->top_k = (int32_t)call_int(c, value, "top_k", INT32_MIN, INT32_MAX);
    } else {
        p->seed = (uint64_t)call_int(c, value, "seed", 0, INT64_MAX);
    }
}

/* [{Id, Bias}] */
static void decode_bias(call *c, generation_job *s, ERL_NIF_TERM list) {
    const unsigned n = call_length(c, list, "logit_bias", 4096);
    s->bias = call_alloc(c, n, sizeof *s->bias);
    ERL_NIF_TERM head;
    for (unsigned i = 0; s->bias != NULL && enif_get_list_cell(c->env, list, &head, &list); i++) {
        const ERL_NIF_TERM *pair = NULL;
        int size = 0;
        if (!enif_get_tuple(c->env, head, &size, &pair) || size != 2) {
            call_fail(c, "logit_bias: must be pairs of id and bias, got %s in it", text_of(c->env, head).text);
            return;
        }
        s->bias[i].id = (int32_t)call_int(c, pair[0], "logit_bias", INT32_MIN, INT32_MAX);
        s->bias[i].bias = (float)call_number(c, pair[1], "logit_bias");
    }
    s->sampler.logit_bias = s->bias;
    s->sampler.n_logit_bias = n;
}

/* {Mode, [{Name, Value}], [{Id, Bias}]}: the values override those of the mode. */
static void decode_sampler(call *c, generation_job *s, ERL_NIF_TERM term) {
    static const char *const mode_names[] = {"neutral", "model", "thinking", "non_thinking", NULL};
    const ERL_NIF_TERM *t = NULL;
    int n = 0;
    if (c->has_failed) return;
    if (!enif_get_tuple(c->env, term, &n, &t) || n != 3 || !enif_is_list(c->env, t[1])) {
        call_fail(c, "sampler: must be a mode, settings and a bias, got %s", text_of(c->env, term).text);
        return;
    }
    const qn_sampler_mode mode = (qn_sampler_mode)call_choice(c, t[0], "mode", mode_names);
    if (c->has_failed) return;
    qn_sampler_defaults(qn_session_model(s->session->value), mode, &s->sampler);
    ERL_NIF_TERM head, list = t[1];
    call_length(c, list, "sampler", 32);
    while (!c->has_failed && enif_get_list_cell(c->env, list, &head, &list)) {
        const ERL_NIF_TERM *pair = NULL;
        int size = 0;
        if (!enif_get_tuple(c->env, head, &size, &pair) || size != 2) {
            call_fail(c, "sampler: must have pairs of name and value, got %s", text_of(c->env, head).text);
            return;
        }
        decode_setting(c, s, pair[0], pair[1]);
    }
    decode_bias(c, s, t[2]);
    s->args.sampler = &s->sampler;
}

static void decode_stops(call *c, generation_job *s, ERL_NIF_TERM list) {
    const unsigned n = call_length(c, list, "stop", 64);
    s->stops = call_alloc(c, n, sizeof *s->stops);
    s->stop_binaries = call_alloc(c, n, sizeof *s->stop_binaries);
    ERL_NIF_TERM head;
    for (unsigned i = 0; s->stop_binaries != NULL && enif_get_list_cell(c->env, list, &head, &list); i++) {
        call_binary(c, head, "stop", &s->stop_binaries[i]);
    }
    s->args.stops = s->stops;
    s->args.n_stop = n;
}

static void decode_prompt(call *c, generation_job *s, ERL_NIF_TERM term) {
    const ERL_NIF_TERM *t = NULL;
    int n = 0;
    if (c->has_failed) return;
    s->has_text = enif_is_binary(c->env, term);
    if (s->has_text) {
        call_binary(c, term, "prompt", &s->text);
    } else if (enif_get_tuple(c->env, term, &n, &t) && n == 2) {
        call_binary(c, t[1], "ids", &s->ids.binary);
    } else {
        call_fail(c, "prompt: must be a text or ids, got %s", text_of(c->env, term).text);
    }
}

/* Reference, Session, Tokenizer | nil, Text | {ids, PackedIds}, Sampler, {NPredict, IgnoreEos, SplitReasoning, Stops,
 * MinTokens, PackedEnds, PackedStopIds}. */
NIF_FUNCTION(nif_generation_new) {
    (void)argc;
    generation_job nothing = {0};
    call c = call_begin(env, argv[0], sizeof(generation_job));
    const ERL_NIF_TERM *options = NULL;
    int n = 0;
    if (!enif_get_tuple(env, argv[5], &n, &options) || n != 7) call_fail(&c, "options: must be a tuple of 7");
    generation_job *s = c.job == NULL || c.job->state == NULL ? &nothing : c.job->state;
    s->session = call_object(&c, argv[1], "session", KIND_SESSION);
    if (!enif_is_identical(argv[2], enif_make_atom(env, "nil"))) {
        s->tokenizer = call_object(&c, argv[2], "tokenizer", KIND_TOKENIZER);
    }
    decode_prompt(&c, s, argv[3]);
    decode_sampler(&c, s, argv[4]);
    if (!c.has_failed) {
        s->args.n_predict = (int32_t)call_int(&c, options[0], "n_predict", INT32_MIN, INT32_MAX);
        s->args.ignore_eos = call_bool(&c, options[1], "ignore_eos");
        s->args.split_reasoning = call_bool(&c, options[2], "split_reasoning");
        decode_stops(&c, s, options[3]);
        s->args.min_tokens = (int32_t)call_int(&c, options[4], "min_tokens", INT32_MIN, INT32_MAX);
        call_binary(&c, options[5], "ends", &s->ends.binary);
        call_binary(&c, options[6], "stop_token_ids", &s->stop_ids.binary);
    }
    return call_submit(&c, s->session == NULL ? NULL : s->session->worker, new_generation, finish_generation);
}

static ERL_NIF_TERM result_term(ErlNifEnv *env, const qn_generation *generation) {
    static const char *const finish_names[] = {"stop", "length", "canceled"};
    qn_generate_result r;
    qn_generation_get_result(generation, &r);
    ERL_NIF_TERM map = enif_make_new_map(env);
    map = map_put(env, map, "finish_reason", enif_make_atom(env, finish_names[r.finish]));
    map = map_put(env, map, "n_prompt", enif_make_int(env, r.n_prompt));
    map = map_put(env, map, "n_reused", enif_make_int(env, r.n_reused));
    map = map_put(env, map, "n_generated", enif_make_int(env, r.n_generated));
    map = map_put(env, map, "prompt_s", enif_make_double(env, r.prompt_s));
    map = map_put(env, map, "generate_s", enif_make_double(env, r.generate_s));
    return map_put(env, map, "first_token_s", enif_make_double(env, r.first_token_s));
}

static ERL_NIF_TERM in_order(ErlNifEnv *env, ERL_NIF_TERM list) {
    ERL_NIF_TERM out = list;
    enif_make_reverse_list(env, list, &out);
    return out;
}

static bool next_pass(job *j) {
    const generation_job *s = j->state;
    generation_value *v = s->generation->value;
    if (v->is_over) return job_value(j, enif_make_atom(j->env, "over"));
    qn_error error;
    bool done = false;
    v->job = j;
    v->ids = v->pieces = enif_make_list(j->env, 0);
    qn_status status = qn_generation_next(v->generation, &done, &error);
    v->job = NULL;
    v->is_over = status != QN_OK || done;
    if (v->is_over) session_vacate(s->generation->parents[0], v);
    if (status != QN_OK) return job_error(j, status, &error);
    const ERL_NIF_TERM end = done ? result_term(j->env, v->generation) : enif_make_atom(j->env, "nil");
    return job_value(j, enif_make_tuple3(j->env, in_order(j->env, v->ids), in_order(j->env, v->pieces), end));
}

static ERL_NIF_TERM submit_on_generation(ErlNifEnv *env, const ERL_NIF_TERM argv[], bool (*step)(job *)) {
    call c = call_begin(env, argv[0], sizeof(generation_job));
    object *o = call_object(&c, argv[1], "generation", KIND_GENERATION);
    if (o != NULL) ((generation_job *)c.job->state)->generation = o;
    return call_submit(&c, o == NULL ? NULL : o->worker, step, NULL);
}

/* Reference, Generation: returns {Ids, [{content | reasoning, Text}], Result | nil}, or `over` if it had already
 * ended. */
NIF_FUNCTION(nif_generation_next) {
    (void)argc;
    return submit_on_generation(env, argv, next_pass);
}

static bool stop(job *j) {
    const generation_job *s = j->state;
    generation_value *v = s->generation->value;
    v->is_over = true;
    session_vacate(s->generation->parents[0], v);
    return job_ok(j);
}

/* Reference, Generation: ends the generation and releases its session. */
NIF_FUNCTION(nif_generation_stop) {
    (void)argc;
    return submit_on_generation(env, argv, stop);
}
