/* SPDX-License-Identifier: Apache-2.0 */
/* quern run: streams the answer to one prompt. run_jsonl.c answers many. */
#include <stdlib.h>
#include <string.h>

#include "generator.h"
#include "output.h"
#include "run.h"

/* Callback state. */
typedef struct stream {
    printer printer;
    progress_bar bar;
    bool prints_ids, any;
} stream;

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    stream *s = user;
    printer_piece(&s->printer, piece, text, size);
    s->any |= piece == QN_PIECE_CONTENT;
    return true;
}

static bool on_token(void *user, const qn_token *token) {
    stream *s = user;
    progress_end(&s->bar);
    if (s->prints_ids) {
        printf(s->any ? " %d" : "%d", token->id);
        fflush(stdout);
        s->any = true;
    }
    return !interrupted();
}

static bool on_prefill(void *user, int32_t done, int32_t total) {
    stream *s = user;
    return progress_report(&s->bar, (uint64_t)done, (uint64_t)total);
}

/* Build the prompt from the settings: ids, or text, rendered if there is a template. */
static int make_prompt(generator *g, qn_ids *ids, qn_text *text, qn_prompt *rendered) {
    const settings *s = g->settings;
    if (s->ids) {
        int code = parse_ids(ids, "--ids", s->ids, strlen(s->ids));
        return code || ids->size ? code : fail("--ids", "holds no ids");
    }
    const char *what;
    int code = read_prompt(s, "run", text, &what);
    if (code || !g->chat_template) return code;
    json_t *content = json_stringn(text->data, text->size);
    if (!content) return fail(what, "not UTF-8");
    json_t *messages = json_pack("[{s:s, s:o}]", "role", "user", "content", content);
    conversation c = g->conversation;
    c.messages = messages;
    qn_error err;
    if (!conversation_render(&c, rendered, &err)) code = fail_error(what, &err);
    json_decref(messages);
    return code;
}

static int generate(generator *g, const qn_ids *ids, const qn_text *text, qn_prompt *rendered) {
    const settings *s = g->settings;
    bool is_chat = g->chat_template != NULL;
    stream state = {.printer = {.aside = stderr}, .prints_ids = s->ids != NULL};
    qn_sampler_params params;
    generator_params(g, is_chat, g->conversation.think, &params);
    if (!s->sampling.seed.given) params.seed = random_seed();
    qn_string *stops = must_calloc(s->stops.n, sizeof(*stops));
    for (size_t i = 0; i < s->stops.n; i++) stops[i] = (qn_string){s->stops.data[i], strlen(s->stops.data[i])};
    qn_generate_args args = {
        .prompt = s->ids ? NULL : text->data,
        .prompt_size = text->size,
        .ids = ids->data,
        .n_ids = ids->size,
        .sampler = &params,
        .n_predict = (int32_t)s->n_predict.value,
        .ignore_eos = s->ignore_eos,
        .split_reasoning = s->reasoning_format ? s->reasoning_format == REASONING_DEEPSEEK : is_chat,
        .stops = stops,
        .n_stop = s->stops.n,
        .on_text = s->ids ? NULL : on_text,
        .on_token = on_token,
        .on_prefill = on_prefill,
        .user = &state,
    };
    if (is_chat) generator_set_prompt(g, rendered, s->parse_special, &args);
    qn_generate_result result = {.n_prompt = 0};
    qn_error err;
    progress_begin(&state.bar, "reading the prompt");
    qn_status status = qn_generate(g->session, g->tokenizer, &args, &result, &err);
    progress_end(&state.bar);
    printer_end(&state.printer);
    free(stops);
    if (state.any || !status) {
        putchar('\n');
        fflush(stdout);
    }
    if (status) return fail_error(status == QN_EINVAL || status == QN_EFULL ? NULL : g->dir, &err);
    print_figures(&result, params.temperature > 0 && !s->sampling.seed.given ? &params.seed : NULL);
    return result.finish == QN_FINISH_CANCELED ? EXIT_INTERRUPTED : EXIT_DONE;
}

/* The first given option that requires a template; NULL: none. */
static const char *template_option(const settings *s) {
    return s->chat              ? "--chat"
           : s->chat_template   ? "--chat-template"
           : s->template_kwargs ? "--chat-template-kwargs"
           : s->date            ? "--date"
           : s->tool_arguments  ? "--tool-arguments"
           : s->think           ? "--think"
                                : NULL;
}

static int check_usage(const settings *s) {
    if (s->jsonl && (s->prompt || s->file || s->ids))
        return usage_error("run", "--jsonl reads its prompts from standard input alone");
    if (s->parallel.given && !s->jsonl) return usage_error("run", "--parallel needs --jsonl");
    if (s->ids && (s->prompt || s->file)) return usage_error("run", "--ids and a text: only one of them");
    if (s->ids && s->stops.n) return usage_error("run", "--stop needs a text, not --ids");
    if (s->stops.n > MAX_STOP) return usage_error("run", "--stop: at most %d texts", MAX_STOP);
    if (s->chat && (s->raw || s->ids)) return usage_error("run", "--chat does not go with --raw or --ids");
    if ((s->raw || s->ids) && template_option(s))
        return usage_error("run", "%s is for messages, and does not go with %s", template_option(s),
                           s->raw ? "--raw" : "--ids");
    if (!s->jsonl && !s->ids && !s->prompt && !s->file && is_terminal(stdin))
        return usage_error("run", "a prompt is needed: -p TEXT, -f FILE, a pipe or --ids");
    return EXIT_DONE;
}

int command_run(const settings *s) {
    int code = check_usage(s);
    if (code) return code;
    interrupts_graceful(false);
    generator g;
    qn_ids ids = {0};
    qn_text text = {0};
    qn_prompt rendered = {0};
    /* ids need no tokenizer, but if present it tells which vocabulary rows are padding */
    need tokenizer = s->ids || s->jsonl ? NEED_IF_THERE : NEED_MUST;
    need chat_template = s->raw || s->ids ? NEED_NOT : template_option(s) ? NEED_MUST : NEED_IF_THERE;
    code = generator_open(&g, s, tokenizer, chat_template);
    if (!code && s->jsonl) {
        code = run_jsonl(&g);
    } else if (!code) {
        code = make_prompt(&g, &ids, &text, &rendered);
        if (!code) code = generate(&g, &ids, &text, &rendered);
    }
    free(ids.data);
    free(text.data);
    qn_prompt_release(&rendered);
    generator_close(&g);
    return code;
}
