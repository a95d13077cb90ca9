/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a generator, sampling settings, figures. */
#include "generate.h"

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
    bool missing = false;
    int code =
        open_chat_template(&g->chat_template, g->settings, g->dir, chat_template == NEED_IF_THERE ? &missing : NULL);
    if (missing) record_fail(&g->no_template, "messages: %s has no chat template", g->dir);
    return code;
}

int generator_open(generator *g, const settings *s, need tokenizer, need chat_template) {
    *g = (generator){.settings = s, .dir = model_dir(s)};
    int code = parse_bias(g, s);
    if (!code) code = open_tokenizer(g, tokenizer);
    if (!code && g->tokenizer) code = open_template(g, chat_template);
    if (!code && !g->tokenizer) record_fail(&g->no_template, "text: %s has no tokenizer.json", g->dir);
    if (!code) code = open_device(&g->device, s, s->device, false);
    if (!code) code = open_model(&g->model, s, g->device, g->dir);
    if (!code) code = open_session(&g->session, s, g->model, g->dir);
    return code;
}

void generator_close(generator *g) {
    qn_session_free(g->session);
    qn_model_close(g->model);
    qn_device_close(g->device);
    qn_chat_template_close(g->chat_template);
    qn_tokenizer_close(g->tokenizer);
    free(g->bias);
    free(g->dir);
    *g = (generator){.settings = NULL};
}

void generator_params(const generator *g, bool conversation, qn_think think, qn_sampler_params *params) {
    qn_sampler_mode mode = !conversation           ? QN_SAMPLER_MODEL
                           : think == QN_THINK_OFF ? QN_SAMPLER_NON_THINKING
                                                   : QN_SAMPLER_THINKING;
    qn_sampler_defaults(g->model, mode, params);
    apply_sampling(params, &g->settings->sampling);
    params->logit_bias = g->bias;
    params->n_logit_bias = g->n_bias;
}

uint64_t random_seed(void) {
    uint32_t seed = 0;
    /* nine digits are enough to tell runs apart, and can be typed again */
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
