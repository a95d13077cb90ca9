/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a prompt to text, step by step: prefill, then sample, emit, feed back.
 *
 * A sampled id is fed to the model only when another id is to be sampled after it. So the sequence always ends before
 * the last sampled id. A following sync with the whole conversation computes only that id and what is new.
 */
#include "../base/memory.h"
#include "prompt.h"
#include "sampler.h"
#include "session.h"

#include <math.h>
#include <string.h>
#include <time.h>

struct qn_generation {
    qn_session *session;
    const qn_tokenizer *tokenizer;
    qn_generate_args args; /* its pointers are no longer valid, except `user` */
    qn_ids prompt;
    qn_ids eos;      /* end-of-text ids of the files */
    qn_ids ends;     /* ids that end this generation: eos, unless ignored, and stop_ids */
    float *masked;   /* {n_vocab}, for min_tokens: logits with those ids excluded; or NULL */
    bool has_prompt; /* the sequence holds the whole prompt */
    bool is_over;
    int32_t pending_id; /* to be computed before the next sample; -1: none */
    qn_sampler *sampler;
    qn_decoder *decoder;   /* NULL: no text is wanted */
    qn_splitter *splitter; /* likewise */
    qn_text text;          /* of one token */
    bool refused;          /* on_text returned false */
    double start_s, prompt_end_s;
    qn_generate_result result;
};

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static qn_status check_args(const qn_session *session, const qn_tokenizer *tokenizer, const qn_generate_args *args,
                            qn_error *err) {
    if (session == NULL || args == NULL) {
        return qni_fail(err, QN_EINVAL, "generation: %s is NULL", session == NULL ? "session" : "args");
    }
    if ((args->prompt != NULL) == (args->ids != NULL)) {
        return qni_fail(err, QN_EINVAL, "prompt and ids: exactly one must be set, not %s",
                        args->prompt != NULL ? "both" : "neither");
    }
    if (args->ids != NULL && args->n_ids < 1) return qni_fail(err, QN_EINVAL, "n_ids: must be >= 1, got 0");
    if (args->runs != NULL && args->prompt == NULL) {
        return qni_fail(err, QN_EINVAL, "runs: n_run is %zu, but prompt is NULL", args->n_run);
    }
    if (args->n_predict < 0) return qni_fail(err, QN_EINVAL, "n_predict: must be >= 0, got %d", args->n_predict);
    if (args->min_tokens < 0 || (args->n_predict > 0 && args->min_tokens > args->n_predict)) {
        return qni_fail(err, QN_EINVAL, "min_tokens: must be within 0 … %d, got %d",
                        args->n_predict > 0 ? args->n_predict : INT32_MAX, args->min_tokens);
    }
    if (args->n_stop > 0 && args->stops == NULL) {
        return qni_fail(err, QN_EINVAL, "stops: is NULL, but n_stop is %zu", args->n_stop);
    }
    if (tokenizer == NULL && (args->prompt != NULL || args->on_text != NULL || args->n_stop > 0)) {
        return qni_fail(err, QN_EINVAL, "tokenizer: needed for %s",
                        args->prompt != NULL    ? "a prompt of text"
                        : args->on_text != NULL ? "on_text"
                                                : "stop strings");
    }
    return QN_OK;
}

static bool contains(const qn_ids *ids, int32_t id) {
    for (size_t i = 0; i < ids->size; i++) {
        if (ids->data[i] == id) return true;
    }
    return false;
}

static qn_status add_ends(qn_ids *out, const char *name, const int32_t *ids, size_t n, int32_t n_vocab, qn_error *err) {
    if (n > 0 && ids == NULL) return qni_fail(err, QN_EINVAL, "%s: is NULL, but its count is %zu", name, n);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0) return qni_fail(err, QN_EINVAL, "%s: id must be >= 0, got %d", name, ids[i]);
        /* a tokenizer may know more ids than the model, which never samples them */
        if (ids[i] >= n_vocab || contains(out, ids[i])) continue;
        if (!qni_grow(&out->data, &out->capacity, out->size + 1, sizeof *out->data)) {
            return qni_fail(err, QN_ENOMEM, "%s: no memory", name);
        }
        out->data[out->size++] = ids[i];
    }
    return QN_OK;
}

static qn_status prepare_ends(qn_generation *g, const qn_generate_args *args, qn_error *err) {
    const qn_model_config *config = &g->session->model->config;
    QN_TRY(add_ends(&g->eos, "eos", config->eos, (size_t)config->n_eos, config->n_vocab, err));
    QN_TRY(add_ends(&g->eos, "ends", args->ends, args->n_end, config->n_vocab, err));
    if (!args->ignore_eos) QN_TRY(add_ends(&g->ends, "eos", g->eos.data, g->eos.size, config->n_vocab, err));
    QN_TRY(add_ends(&g->ends, "stop_ids", args->stop_ids, args->n_stop_id, config->n_vocab, err));
    if (args->min_tokens == 0) return QN_OK;
    g->masked = qni_calloc((size_t)config->n_vocab, sizeof *g->masked);
    return g->masked != NULL ? QN_OK : qni_fail(err, QN_ENOMEM, "min_tokens: no memory for %d ids", config->n_vocab);
}

/* Whether the device samples, at the present length. */
static bool samples_on_device(const qn_generation *g) {
    return qni_session_max_sampled(g->session) > 0 && g->args.on_token == NULL &&
           g->result.n_generated >= g->args.min_tokens;
}

static qn_status prepare_sampler(qn_generation *g, const qn_sampler_params *wanted, qn_error *err) {
    int32_t n_vocab = g->session->model->config.n_vocab, n_valid = n_vocab;
    if (g->tokenizer != NULL && qn_tokenizer_n_vocab(g->tokenizer) < n_vocab) {
        n_valid = qn_tokenizer_n_vocab(g->tokenizer);
    }
    qn_sampler_params params;
    qn_sampler_defaults(g->session->model, QN_SAMPLER_MODEL, &params);
    QN_TRY(qni_sampler_create(&g->sampler, wanted != NULL ? wanted : &params, n_vocab, n_valid,
                              g->session->model->device, err));
    return samples_on_device(g) ? QN_OK : qni_sampler_alloc(g->sampler, err);
}

static qn_status prepare_text(qn_generation *g, const qn_generate_args *args, qn_error *err) {
    if (args->on_text == NULL && args->n_stop == 0) return QN_OK;
    qn_splitter_options options = {
        .split_reasoning = args->split_reasoning, .stops = args->stops, .n_stop = args->n_stop};
    if (args->split_reasoning) {
        QN_TRY(qni_prompt_reasons(&options.starts_reasoning, g->tokenizer, args, &g->prompt, err));
    }
    QN_TRY(qn_splitter_create(&g->splitter, &options, err));
    return qn_decoder_create(&g->decoder, g->tokenizer, true, err);
}

static bool emit_piece(void *user, qn_piece piece, const char *text, size_t size) {
    qn_generation *g = user;
    if (g->refused) return false;
    if (g->args.on_text == NULL) return true;
    g->refused = !g->args.on_text(g->args.user, piece, text, size);
    return !g->refused;
}

/* The logits to sample from; below min_tokens, ids that end the text are excluded. */
static const float *sampling_logits(qn_generation *g) {
    const float *logits = g->session->logits;
    if (g->result.n_generated >= g->args.min_tokens) return logits;
    memcpy(g->masked, logits, (size_t)g->session->model->config.n_vocab * sizeof *logits);
    for (size_t i = 0; i < g->ends.size; i++) g->masked[g->ends.data[i]] = -INFINITY;
    return g->masked;
}

/* Emit the text of one id; *stopped is set if generation must stop here. */
static qn_status emit_text(qn_generation *g, int32_t id, bool *stopped, qn_error *err) {
    if (g->decoder == NULL) return QN_OK;
    g->text.size = 0;
    QN_TRY(qn_decoder_push(g->decoder, &g->text, id, err));
    if (g->text.size == 0) return QN_OK;
    return qn_splitter_push(g->splitter, g->text.data, g->text.size, emit_piece, g, stopped, err);
}

/* Emit the text that was held back. */
static qn_status flush(qn_generation *g, qn_error *err) {
    if (g->decoder == NULL || g->refused) return QN_OK;
    bool stopped = false;
    g->text.size = 0;
    QN_TRY(qn_decoder_finish(g->decoder, &g->text, err));
    if (g->text.size > 0) {
        QN_TRY(qn_splitter_push(g->splitter, g->text.data, g->text.size, emit_piece, g, &stopped, err));
    }
    return stopped ? QN_OK : qn_splitter_finish(g->splitter, emit_piece, g, err);
}

/* Drop the decoder and the splitter: no more text follows. */
static void end_text(qn_generation *g) {
    qn_splitter_free(g->splitter);
    qn_decoder_free(g->decoder);
    g->splitter = NULL;
    g->decoder = NULL;
}

/* Emit the id of position n_tok. If another one is to follow, g->pending_id is the id; otherwise result.finish says why
 * not. */
static qn_status accept(qn_generation *g, int32_t id, int32_t n_tok, qn_error *err) {
    qn_session *s = g->session;
    const qn_generate_args *args = &g->args;
    qn_generate_result *result = &g->result;
    g->pending_id = -1;
    if (result->n_generated++ == 0) result->first_token_s = now_s() - g->start_s;

    result->finish = QN_FINISH_CANCELED;
    qn_token token = {id, n_tok, s->logits, s->model->config.n_vocab};
    if (args->on_token != NULL && !args->on_token(args->user, &token)) return QN_OK;

    result->finish = QN_FINISH_STOP;
    bool stopped = false;
    if (contains(&g->ends, id)) return QN_OK;
    if (!contains(&g->eos, id)) QN_TRY(emit_text(g, id, &stopped, err));
    if (stopped || g->refused) {
        if (g->refused) result->finish = QN_FINISH_CANCELED;
        end_text(g);
        return QN_OK;
    }
    result->finish = QN_FINISH_LENGTH;
    if (result->n_generated != args->n_predict && n_tok + 1 < s->n_ctx) g->pending_id = id;
    return QN_OK;
}

/* Sample one id from the session's logits. */
static qn_status sample_id(qn_generation *g, qn_error *err) {
    const qni_sequence *seq = &g->session->seq;
    int32_t id = -1;
    g->pending_id = -1;
    g->result.finish = QN_FINISH_LENGTH;
    if (seq->n_tok == g->session->n_ctx) return QN_OK;
    QN_TRY(qni_sampler_alloc(g->sampler, err));
    QN_TRY(qn_sampler_draw(g->sampler, &id, NULL, sampling_logits(g), seq->ids, (size_t)seq->n_tok, g->prompt.size,
                           (uint64_t)seq->n_tok, err));
    return accept(g, id, seq->n_tok, err);
}

/* Accept the ids that the device sampled; tokens computed beyond the last accepted id are dropped. */
static qn_status accept_sampled(qn_generation *g, const qni_feed *f, qn_error *err) {
    qni_sequence *seq = &g->session->seq;
    const int32_t first = seq->n_tok - (f->n_sampled - 1);
    for (int32_t n = first; n <= seq->n_tok; n++) {
        qn_status status = accept(g, seq->ids[n], n, err);
        if (status == QN_OK && g->pending_id >= 0) continue;
        qni_sequence_rewind(seq, n);
        return status;
    }
    return QN_OK;
}

/* Sample on the device if no one needs the logits. */
static void request_ids(const qn_generation *g, qni_feed *f) {
    const int32_t n_free = g->session->n_ctx - (int32_t)(f->n_kept + f->n_ids);
    int32_t n = qni_session_max_sampled(g->session);
    if (!samples_on_device(g)) return;
    n = n_free < n ? n_free : n;
    if (g->args.n_predict > 0) n = (int32_t)qni_min_i64(n, g->args.n_predict - g->result.n_generated);
    f->n_sample = n;
    f->sampling = (qni_sampling){.params = &g->sampler->params,
                                 .n_valid = g->sampler->n_valid,
                                 .prompt_len = (int32_t)g->prompt.size,
                                 .ends = g->ends.data,
                                 .n_end = (int32_t)g->ends.size};
}

/* Prepare the next step: the next part of the prompt, which may be empty, or the sampled id. */
static qn_status begin_step(qn_generation *g, qni_feed *out, qn_error *err) {
    qni_feed f = {.session = g->session, .err = err};
    if (g->has_prompt) {
        f.n_kept = (size_t)g->session->seq.n_tok;
        f.ids = &g->pending_id;
        f.n_ids = 1;
    } else {
        QN_TRY(qni_session_match(g->session, g->prompt.data, g->prompt.size, &f.n_kept, err));
        if (g->result.n_prompt == 0) g->result.n_reused = (int32_t)f.n_kept;
        g->result.n_prompt = (int32_t)g->prompt.size;
        f.ids = g->prompt.data + f.n_kept;
        f.n_ids = g->prompt.size - f.n_kept;
    }
    if (f.n_ids > 0) request_ids(g, &f);
    *out = f;
    return QN_OK;
}

/* After part of the prompt was computed. *done: on_prefill canceled; otherwise g->has_prompt says whether the prompt
 * is complete. */
static void end_prompt(qn_generation *g, const qni_feed *f, bool *done) {
    const int32_t n_prompt = (int32_t)g->prompt.size;
    *done = f->n_done > 0 && g->args.on_prefill != NULL &&
            !g->args.on_prefill(g->args.user, g->session->seq.n_tok, n_prompt);
    g->has_prompt = f->n_done == f->n_ids && !*done;
    g->prompt_end_s = now_s();
    g->result.prompt_s = g->prompt_end_s - g->start_s;
    if (*done) {
        g->result.finish = QN_FINISH_CANCELED;
        qni_session_trim(g->session);
    }
}

/* After the step: sample from its logits if the prompt is complete. */
static qn_status end_step(qn_generation *g, const qni_feed *f, bool *done, qn_error *err) {
    *done = false;
    if (f->status != QN_OK) return f->status;
    if (!g->has_prompt) {
        if (f->n_ids > 0 && f->n_done == 0) return QN_OK; /* other sequences filled the step */
        end_prompt(g, f, done);
        if (!g->has_prompt && !*done) return QN_OK;
    }
    if (!*done) {
        QN_TRY(f->n_sampled > 0 ? accept_sampled(g, f, err) : sample_id(g, err));
        *done = g->pending_id < 0;
    }
    if (*done) {
        QN_TRY(flush(g, err));
        if (g->refused) g->result.finish = QN_FINISH_CANCELED;
    }
    g->result.generate_s = now_s() - g->prompt_end_s;
    return QN_OK;
}

static qn_status next(qn_generation *g, bool *done, qn_error *err) {
    qni_feed feed;
    QN_TRY(begin_step(g, &feed, err));
    QN_TRY(qni_session_feed(&feed, 1, err));
    return end_step(g, &feed, done, err);
}

qn_status qn_generation_create(qn_generation **out, qn_session *session, const qn_tokenizer *tokenizer,
                               const qn_generate_args *args, qn_error *err) {
    if (out == NULL) return qni_fail(err, QN_EINVAL, "qn_generation_create: out is NULL");
    QN_TRY(check_args(session, tokenizer, args, err));
    qn_generation *g = qni_calloc(1, sizeof *g);
    if (g == NULL) return qni_fail(err, QN_ENOMEM, "generation: no memory");
    *g = (qn_generation){
        .session = session, .tokenizer = tokenizer, .args = *args, .pending_id = -1, .start_s = now_s()};
    qn_status status = qni_prompt_encode(&g->prompt, tokenizer, args, err);
    if (status == QN_OK) status = prepare_ends(g, args, err);
    if (status == QN_OK) status = prepare_sampler(g, args->sampler, err);
    if (status == QN_OK) status = prepare_text(g, args, err);
    if (status != QN_OK) {
        qn_generation_free(g);
        return status;
    }
    *out = g;
    return QN_OK;
}

qn_status qn_generation_next(qn_generation *g, bool *done, qn_error *err) {
    if (g == NULL || done == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_generation_next: %s is NULL", g == NULL ? "generation" : "done");
    }
    if (g->is_over) return qni_fail(err, QN_EINVAL, "generation: it is over");
    bool last = false;
    qn_status status = next(g, &last, err);
    g->is_over = status != QN_OK || last;
    if (status == QN_OK) *done = last;
    return status;
}

/* Sessions are marked while they are checked, to detect duplicates. */
static qn_status check_batch(qn_generation *const *generations, size_t n, qn_error *err) {
    qn_status status = QN_OK;
    size_t n_marked = 0;
    for (; n_marked < n && status == QN_OK; n_marked += status == QN_OK) {
        const qn_generation *g = generations[n_marked];
        if (g == NULL) {
            status = qni_fail(err, QN_EINVAL, "generations[%zu]: is NULL", n_marked);
        } else if (g->is_over) {
            status = qni_fail(err, QN_EINVAL, "generations[%zu]: it is over", n_marked);
        } else if (g->session->marked) {
            status = qni_fail(err, QN_EINVAL, "generations[%zu]: duplicate session", n_marked);
        } else {
            g->session->marked = true;
        }
    }
    for (size_t i = 0; i < n_marked; i++) generations[i]->session->marked = false;
    return status;
}

/* One step of a validated batch; feeds has space for n. */
static qn_status next_batch(qn_generation *const *generations, qni_feed *feeds, size_t n, bool *done, qn_error *errors,
                            qn_error *err) {
    for (size_t i = 0; i < n; i++) {
        errors[i] = (qn_error){0};
        const qn_status status = begin_step(generations[i], &feeds[i], &errors[i]);
        if (status != QN_OK) feeds[i] = (qni_feed){.session = generations[i]->session, .err = &errors[i]};
    }
    QN_TRY(qni_session_feed(feeds, (int32_t)n, err));
    for (size_t i = 0; i < n; i++) {
        qn_generation *g = generations[i];
        qn_status status = errors[i].status;
        if (status == QN_OK) status = end_step(g, &feeds[i], &done[i], &errors[i]);
        g->is_over = done[i] = status != QN_OK || done[i];
    }
    return QN_OK;
}

qn_status qn_generation_next_batch(qn_generation *const *generations, size_t n, bool *done, qn_error *errors,
                                   qn_error *err) {
    if (generations == NULL || n < 1 || n > INT32_MAX) {
        return qni_fail(err, QN_EINVAL, "generations: must be 1 … %d, got %zu", INT32_MAX, generations == NULL ? 0 : n);
    }
    if (done == NULL || errors == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_generation_next_batch: %s is NULL", done == NULL ? "done" : "errors");
    }
    QN_TRY(check_batch(generations, n, err));
    qni_feed *feeds = qni_calloc(n, sizeof *feeds);
    if (feeds == NULL) return qni_fail(err, QN_ENOMEM, "generations: no memory for %zu", n);
    qn_status status = next_batch(generations, feeds, n, done, errors, err);
    qni_free(feeds);
    return status;
}

void qn_generation_get_result(const qn_generation *g, qn_generate_result *result) {
    *result = g->result;
}

void qn_generation_free(qn_generation *g) {
    if (g == NULL) return;
    if (!g->has_prompt && !g->is_over && g->result.n_prompt > 0) qni_session_trim(g->session);
    qn_ids_release(&g->prompt);
    qn_ids_release(&g->eos);
    qn_ids_release(&g->ends);
    qni_free(g->masked);
    qn_text_release(&g->text);
    qn_sampler_free(g->sampler);
    end_text(g);
    qni_free(g);
}

qn_status qn_generate(qn_session *session, const qn_tokenizer *tokenizer, const qn_generate_args *args,
                      qn_generate_result *result, qn_error *err) {
    qn_generation *g = NULL;
    QN_TRY(qn_generation_create(&g, session, tokenizer, args, err));
    qn_status status = QN_OK;
    for (bool done = false; status == QN_OK && !done;) status = qn_generation_next(g, &done, err);
    if (status == QN_OK && result != NULL) qn_generation_get_result(g, result);
    qn_generation_free(g);
    return status;
}
