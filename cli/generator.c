/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a generator, sampling settings, statistics. */
#include "generator.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "output.h"

/* --logit-bias ID+X or ID-X */
static int parse_bias(generator *g, const settings *s) {
    g->bias = must_calloc(s->logit_bias.n, sizeof(*g->bias));
    for (size_t i = 0; i < s->logit_bias.n; i++) {
        const char *text = s->logit_bias.data[i];
        const char *sign, *end;
        int64_t id;
        double bias;
        if (*text == '+' || !number_whole(&id, text, &sign) || id < 0 || id > INT32_MAX ||
            (*sign != '+' && *sign != '-') || !number_real(&bias, sign, &end) || *end)
            return usage_error(NULL, "--logit-bias: must be like 15+2.5 or 15-100, not '%s'", text);
        g->bias[g->n_bias++] = (qn_logit_bias){(int32_t)id, (float)bias};
    }
    return EXIT_DONE;
}

static int open_tokenizer(generator *g, need tokenizer) {
    if (tokenizer == NEED_NOT || (tokenizer == NEED_IF_THERE && !has_tokenizer(g->dir))) return EXIT_DONE;
    qn_error err;
    return qn_tokenizer_open(&g->tokenizer, g->dir, &err) ? fail_error(g->dir, &err) : EXIT_DONE;
}

static int open_template(generator *g, need chat_template) {
    if (chat_template == NEED_NOT) return EXIT_DONE;
    qn_error missing = {.message = ""};
    int code =
        open_chat_template(&g->chat_template, g->settings, g->dir, chat_template == NEED_IF_THERE ? &missing : NULL);
    if (*missing.message) record_fail(&g->no_template, "%s", missing.message);
    return code ? code : conversation_use(&g->conversation, g->settings, g->chat_template);
}

static bool is_eos(const generator *g, int32_t id) {
    const qn_model_config *config = qn_model_get_config(g->model);
    for (int32_t i = 0; i < config->n_eos; i++)
        if (config->eos[i] == id) return true;
    return false;
}

bool generator_is_end(const generator *g, int32_t id) {
    for (size_t i = 0; i < g->ends.size; i++)
        if (g->ends.data[i] == id) return true;
    return is_eos(g, id);
}

/* The tokenizer or the template may end answers with a token that the configuration does not list. */
static int find_ends(generator *g) {
    qn_error err;
    if (!g->chat_template) return EXIT_DONE;
    if (qn_chat_ends(g->chat_template, g->tokenizer, &g->ends, &err)) return fail_error(g->dir, &err);
    qn_text names = {0};
    for (size_t i = 0; i < g->ends.size; i++) {
        if (is_eos(g, g->ends.data[i])) continue;
        char id[32];
        qn_text name = {0};
        if (qn_tokenizer_decode(g->tokenizer, &name, &g->ends.data[i], 1, false, &err)) name.size = 0;
        snprintf(id, sizeof(id), " (%d)", (int)g->ends.data[i]);
        if (names.size) append_bytes(&names, " and ", 5);
        append_bytes(&names, name.data ? name.data : "", name.size);
        append_bytes(&names, id, strlen(id));
        qn_text_release(&name);
    }
    qn_log log = warnings_log(g->settings->quiet, g->dir);
    if (names.size && log.line) {
        char *text =
            must_format("answers end with %s by the tokenizer or the chat template; eos_token_id does not name "
                        "it",
                        names.data);
        log.line(log.user, text);
        free(text);
    }
    free(names.data);
    return EXIT_DONE;
}

/* Without an end token every answer runs to the end of the context, or to -n. */
static void warn_endless(const generator *g) {
    const settings *s = g->settings;
    qn_log log = warnings_log(s->quiet, g->dir);
    if (s->ids || s->ignore_eos || g->ends.size || qn_model_get_config(g->model)->n_eos || !log.line) return;
    log.line(log.user, "no token ends a text: neither generation_config.json nor config.json names an eos_token_id");
}

int generator_open(generator *g, const settings *s, need tokenizer, need chat_template) {
    *g = (generator){.settings = s, .dir = model_dir(s)};
    int code = conversation_begin(&g->conversation, s, false);
    if (!code) code = parse_bias(g, s);
    if (!code) code = open_tokenizer(g, tokenizer);
    if (!code && g->tokenizer) code = open_template(g, chat_template);
    if (!code && !g->tokenizer) record_fail(&g->no_template, "%s has no tokenizer.json", g->dir);
    if (!code) code = open_device(&g->device, s, s->device, false);
    if (!code) code = open_model(&g->model, s, g->device, g->dir);
    if (!code) code = find_ends(g);
    if (!code) warn_endless(g);
    if (!code && !s->jsonl) code = open_session(&g->session, s, g->model, g->dir);
    return code;
}

void generator_close(generator *g) {
    qn_session_free(g->session);
    qn_model_close(g->model);
    qn_device_close(g->device);
    conversation_release(&g->conversation);
    qn_ids_release(&g->ends);
    qn_chat_template_close(g->chat_template);
    qn_tokenizer_close(g->tokenizer);
    free(g->bias);
    free(g->dir);
    *g = (generator){.settings = NULL};
}

void generator_set_prompt(const generator *g, qn_prompt *prompt, bool parse_special, qn_generate_args *args) {
    if (parse_special && prompt->n_run) {
        prompt->runs[0] = (qn_text_run){prompt->text.size, true};
        prompt->n_run = 1;
    }
    args->prompt = prompt->text.data;
    args->prompt_size = prompt->text.size;
    args->runs = prompt->runs;
    args->n_run = prompt->n_run;
    args->ends = g->ends.data;
    args->n_end = g->ends.size;
}

void generator_params(const generator *g, bool is_chat, qn_think think, qn_sampler_params *params) {
    qn_sampler_mode mode = !is_chat                ? QN_SAMPLER_MODEL
                           : think == QN_THINK_OFF ? QN_SAMPLER_NON_THINKING
                                                   : QN_SAMPLER_THINKING;
    qn_sampler_defaults(g->model, mode, params);
    apply_sampling(params, &g->settings->sampling);
    params->logit_bias = g->bias;
    params->n_logit_bias = g->n_bias;
}

uint64_t random_seed(void) {
    uint32_t seed = 0;
    /* nine digits distinguish runs and are easy to retype */
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) seed = (uint32_t)(now_s() * 1e6);
    return seed % 1000000000;
}

void append_bytes(qn_text *text, const char *data, size_t size) {
    if (text->capacity - text->size < size + 1) {
        text->capacity = 2 * text->capacity + size + 64;
        text->data = must_realloc(text->data, text->capacity, 1);
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = '\0';
}

static double rate(int32_t n, double seconds) {
    return seconds > 0 ? n / seconds : 0;
}

void print_figures(const qn_generate_result *r, const uint64_t *seed) {
    char memory[32], seed_text[40] = "";
    format_bytes(memory, sizeof(memory), peak_memory_bytes());
    if (seed) snprintf(seed_text, sizeof(seed_text), "; seed %llu", (unsigned long long)*seed);
    int32_t n_prompt = r->n_prompt - r->n_reused;
    output_interrupt_line();
    fprintf(stderr, "%sprompt %d tokens, %.1f tok/s; %d generated, %.1f tok/s; first token %.3f s; memory %s%s%s\n",
            dim_begin(stderr), n_prompt, rate(n_prompt, r->prompt_s), r->n_generated,
            rate(r->n_generated, r->generate_s), r->first_token_s, memory, seed_text, dim_end(stderr));
}

void printer_end(printer *p) {
    if (p->in_reasoning) fprintf(p->aside, "%s\n", dim_end(p->aside));
    fflush(p->aside);
    p->in_reasoning = false;
}

void printer_piece(printer *p, qn_piece piece, const char *text, size_t size) {
    output_interrupt_line();
    FILE *to = piece == QN_PIECE_REASONING ? p->aside : stdout;
    if (piece == QN_PIECE_REASONING && !p->in_reasoning) {
        fputs(dim_begin(to), to);
        p->in_reasoning = true;
    } else if (piece == QN_PIECE_CONTENT && p->in_reasoning) {
        printer_end(p);
    }
    fwrite(text, 1, size, to);
    fflush(to);
    p->wrote = true;
}
