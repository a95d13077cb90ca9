/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a prompt to text: sync, then draw, hand out, feed back.
 *
 * A drawn id is fed to the model only when another one is to be drawn after it. So the timeline ends before the last
 * drawn id, always; a following sync with the whole conversation computes that one and what is new, and nothing else.
 */
#include "../base/memory.h"
#include "sampler.h"
#include "session.h"

#include <string.h>
#include <time.h>

/* Enough of a prompt's end to see whether it opens a reasoning block: a tag and white space. */
enum { TAIL_IDS = 256 };

typedef struct generation {
    qn_session *session;
    const qn_tokenizer *tokenizer;
    const qn_generate_args *args;
    qn_ids encoded;     /* of args->prompt */
    const int32_t *ids; /* the prompt */
    size_t n_ids;
    qn_sampler *sampler;
    qn_decoder *decoder;   /* NULL: no text is wanted */
    qn_splitter *splitter; /* likewise */
    qn_text text;          /* of one token */
    bool refused;          /* on_text returned false */
    double start_s;
    qn_generate_result result;
} generation;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static qn_status check_args(const qn_session *session, const qn_tokenizer *tokenizer, const qn_generate_args *args,
                            qn_error *err) {
    if (session == NULL || args == NULL) {
        return qni_fail(err, QN_EINVAL, "qn_generate: %s is NULL", session == NULL ? "session" : "args");
    }
    if ((args->prompt != NULL) == (args->ids != NULL)) {
        return qni_fail(err, QN_EINVAL, "prompt and ids: exactly one must be set, not %s",
                        args->prompt != NULL ? "both" : "neither");
    }
    if (args->ids != NULL && args->n_ids < 1) return qni_fail(err, QN_EINVAL, "n_ids: must be >= 1, got 0");
    if (args->n_predict < 0) return qni_fail(err, QN_EINVAL, "n_predict: must be >= 0, got %d", args->n_predict);
    if (args->n_stop > 0 && args->stops == NULL) {
        return qni_fail(err, QN_EINVAL, "stops: NULL, but %zu of them", args->n_stop);
    }
    if (tokenizer == NULL && (args->prompt != NULL || args->on_text != NULL || args->n_stop > 0)) {
        return qni_fail(err, QN_EINVAL, "tokenizer: needed for %s",
                        args->prompt != NULL    ? "a prompt of text"
                        : args->on_text != NULL ? "on_text"
                                                : "stop strings");
    }
    return QN_OK;
}

static qn_status prepare_prompt(generation *g, qn_error *err) {
    const qn_generate_args *args = g->args;
    g->ids = args->ids;
    g->n_ids = args->n_ids;
    if (args->prompt == NULL) return QN_OK;
    size_t size = args->prompt_size > 0 ? args->prompt_size : strlen(args->prompt);
    QN_TRY(qn_tokenizer_encode(g->tokenizer, &g->encoded, args->prompt, size, true, err));
    if (g->encoded.size == 0) return qni_fail(err, QN_EINVAL, "prompt: is empty");
    g->ids = g->encoded.data;
    g->n_ids = g->encoded.size;
    return QN_OK;
}

static qn_status prepare_sampler(generation *g, qn_error *err) {
    int32_t n_vocab = g->session->model->config.n_vocab, n_valid = n_vocab;
    if (g->tokenizer != NULL && qn_tokenizer_n_vocab(g->tokenizer) < n_vocab) {
        n_valid = qn_tokenizer_n_vocab(g->tokenizer);
    }
    qn_sampler_params params;
    qn_sampler_defaults(g->session->model, QN_SAMPLER_MODEL, &params);
    return qni_sampler_create(&g->sampler, g->args->sampler != NULL ? g->args->sampler : &params, n_vocab, n_valid,
                              g->session->model->device, err);
}

/* Whether the prompt ends inside a reasoning block. */
static qn_status starts_reasoning(generation *g, bool *out, qn_error *err) {
    const qn_generate_args *args = g->args;
    if (args->prompt != NULL) {
        *out = qn_chat_starts_reasoning(args->prompt, args->prompt_size > 0 ? args->prompt_size : strlen(args->prompt));
        return QN_OK;
    }
    size_t n = g->n_ids < TAIL_IDS ? g->n_ids : TAIL_IDS;
    g->text.size = 0;
    QN_TRY(qn_tokenizer_decode(g->tokenizer, &g->text, g->ids + g->n_ids - n, n, false, err));
    *out = g->text.size > 0 && qn_chat_starts_reasoning(g->text.data, g->text.size);
    return QN_OK;
}

static qn_status prepare_text(generation *g, qn_error *err) {
    const qn_generate_args *args = g->args;
    if (args->on_text == NULL && args->n_stop == 0) return QN_OK;
    qn_splitter_options options = {
        .split_reasoning = args->split_reasoning, .stops = args->stops, .n_stop = args->n_stop};
    if (args->split_reasoning) QN_TRY(starts_reasoning(g, &options.starts_reasoning, err));
    QN_TRY(qn_splitter_create(&g->splitter, &options, err));
    return qn_decoder_create(&g->decoder, g->tokenizer, true, err);
}

static bool report_prefill(void *user, int32_t n_tok) {
    const generation *g = user;
    return g->args->on_prefill == NULL || g->args->on_prefill(g->args->user, n_tok, (int32_t)g->n_ids);
}

static bool take_piece(void *user, qn_piece piece, const char *text, size_t size) {
    generation *g = user;
    if (g->refused) return false;
    if (g->args->on_text == NULL) return true;
    g->refused = !g->args->on_text(g->args->user, piece, text, size);
    return !g->refused;
}

static bool is_eos(const qn_model_config *config, int32_t id) {
    for (int32_t i = 0; i < config->n_eos; i++) {
        if (config->eos[i] == id) return true;
    }
    return false;
}

/* Hand out the text of one id; *stopped when that was the last that is wanted. */
static qn_status hand_out(generation *g, int32_t id, bool *stopped, qn_error *err) {
    if (g->decoder == NULL) return QN_OK;
    g->text.size = 0;
    QN_TRY(qn_decoder_push(g->decoder, &g->text, id, err));
    if (g->text.size == 0) return QN_OK;
    return qn_splitter_push(g->splitter, g->text.data, g->text.size, take_piece, g, stopped, err);
}

/* Hand out what was held back. */
static qn_status flush(generation *g, qn_error *err) {
    if (g->decoder == NULL || g->refused) return QN_OK;
    bool stopped = false;
    g->text.size = 0;
    QN_TRY(qn_decoder_finish(g->decoder, &g->text, err));
    if (g->text.size > 0) {
        QN_TRY(qn_splitter_push(g->splitter, g->text.data, g->text.size, take_piece, g, &stopped, err));
    }
    return stopped ? QN_OK : qn_splitter_finish(g->splitter, take_piece, g, err);
}

/* Draw one id and hand it out; *ended with result.finish set when it was the last. */
static qn_status draw(generation *g, int32_t *id, bool *ended, qn_error *err) {
    qn_session *s = g->session;
    const qn_generate_args *args = g->args;
    qn_generate_result *result = &g->result;
    *ended = true;
    result->finish = QN_FINISH_LENGTH;
    if (s->n_tok == s->options.n_ctx) return QN_OK;
    QN_TRY(
        qn_sampler_draw(g->sampler, id, NULL, s->logits, s->ids, (size_t)s->n_tok, g->n_ids, (uint64_t)s->n_tok, err));
    if (result->n_generated++ == 0) result->first_token_s = now_s() - g->start_s;

    result->finish = QN_FINISH_CANCELED;
    qn_token token = {*id, s->n_tok, s->logits, s->model->config.n_vocab};
    if (args->on_token != NULL && !args->on_token(args->user, &token)) return QN_OK;

    result->finish = QN_FINISH_STOP;
    bool eos = is_eos(&s->model->config, *id), stopped = false;
    if (eos && !args->ignore_eos) return QN_OK;
    if (!eos) QN_TRY(hand_out(g, *id, &stopped, err));
    if (g->refused) result->finish = QN_FINISH_CANCELED;
    if (stopped || g->refused) {
        qn_splitter_free(g->splitter); /* nothing more is to come from it */
        qn_decoder_free(g->decoder);
        g->splitter = NULL;
        g->decoder = NULL;
        return QN_OK;
    }
    result->finish = QN_FINISH_LENGTH;
    *ended = result->n_generated == args->n_predict;
    return QN_OK;
}

static qn_status run(generation *g, qn_error *err) {
    qn_generate_result *result = &g->result;
    const qni_feed_progress progress = {report_prefill, g};
    size_t n_reused = 0;
    qn_status status = qni_session_sync(g->session, g->ids, g->n_ids, &n_reused, &progress, err);
    double prompt_end_s = now_s();
    bool ended = status == QN_ECANCELED;
    if (ended) {
        result->finish = QN_FINISH_CANCELED;
    } else if (status != QN_OK) {
        return status;
    }
    result->n_prompt = (int32_t)g->n_ids;
    result->n_reused = (int32_t)n_reused;
    result->prompt_s = prompt_end_s - g->start_s;
    while (!ended) {
        int32_t id = -1;
        QN_TRY(draw(g, &id, &ended, err));
        if (!ended && g->session->n_tok + 1 == g->session->options.n_ctx) ended = true;
        if (!ended) QN_TRY(qn_session_step(g->session, id, err));
    }
    QN_TRY(flush(g, err));
    if (g->refused) result->finish = QN_FINISH_CANCELED;
    result->generate_s = now_s() - prompt_end_s;
    return QN_OK;
}

qn_status qn_generate(qn_session *session, const qn_tokenizer *tokenizer, const qn_generate_args *args,
                      qn_generate_result *result, qn_error *err) {
    QN_TRY(check_args(session, tokenizer, args, err));
    generation g = {.session = session, .tokenizer = tokenizer, .args = args, .start_s = now_s()};
    qn_status status = prepare_prompt(&g, err);
    if (status == QN_OK) status = prepare_sampler(&g, err);
    if (status == QN_OK) status = prepare_text(&g, err);
    if (status == QN_OK) status = run(&g, err);
    if (status == QN_OK && result != NULL) *result = g.result;
    qn_ids_release(&g.encoded);
    qn_text_release(&g.text);
    qn_sampler_free(g.sampler);
    qn_decoder_free(g.decoder);
    qn_splitter_free(g.splitter);
    return status;
}
