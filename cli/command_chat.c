/* SPDX-License-Identifier: Apache-2.0 */
/* quern chat: turns of a conversation over one session. */
#include "command_chat.h"

#include <stdlib.h>
#include <string.h>

#include "output.h"

/* Placeholder for an earlier answer, used to extract from the template the text between two turns. */
static const char sentinel[] = "\x02quern answer\x03";

const char *chat_system(const chat *c, size_t *size) {
    json_t *first = json_array_get(c->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    if (!role || strcmp(role, "system") != 0) return NULL;
    json_t *content = json_object_get(first, "content");
    *size = json_string_length(content);
    return json_string_value(content);
}

void chat_clear(chat *c) {
    size_t size;
    bool keep = chat_system(c, &size) != NULL;
    while (json_array_size(c->messages) > keep) json_array_remove(c->messages, json_array_size(c->messages) - 1);
    c->ids.size = 0;
    c->n_turn = 0;
    c->cut_in_reasoning = false;
}

static json_t *message(const char *role, const char *text, size_t size) {
    return json_pack("{s:s, s:o}", "role", role, "content", json_text(text, size));
}

void chat_set_system(chat *c, const char *text, size_t size) {
    json_array_clear(c->messages);
    chat_clear(c);
    if (size) json_array_append_new(c->messages, message("system", text, size));
}

int32_t chat_n_tok(const chat *c) {
    return (int32_t)c->ids.size;
}

static void append_ids(qn_ids *out, const int32_t *ids, size_t n) {
    if (out->capacity - out->size < n) {
        out->capacity = 2 * out->capacity + n + 256;
        out->data = must_realloc(out->data, out->capacity, sizeof(int32_t));
    }
    if (n) memcpy(out->data + out->size, ids, n * sizeof(int32_t));
    out->size += n;
}

/* Encode a prompt from byte `begin` on; the part before it is dropped. */
static bool encode(const chat *c, qn_ids *out, qn_prompt *prompt, size_t begin, qn_error *err) {
    qn_text_run *runs = prompt->runs, *end = runs + prompt->n_run;
    size_t skipped = 0;
    while (runs < end && skipped + runs->size <= begin) skipped += runs++->size;
    if (runs < end) runs->size -= begin - skipped;
    const qn_tokenizer *tokenizer = c->generator.tokenizer;
    const char *text = prompt->text.data + begin;
    const size_t size = prompt->text.size - begin;
    qn_ids ids = {0};
    bool good = c->generator.settings->parse_special
                    ? !qn_tokenizer_encode(tokenizer, &ids, text, size, true, err)
                    : !qn_tokenizer_encode_runs(tokenizer, &ids, text, size, runs, (size_t)(end - runs), err);
    if (good) append_ids(out, ids.data, ids.size);
    qn_ids_release(&ids);
    return good;
}

static bool encode_own(const chat *c, qn_ids *out, const char *text, qn_error *err) {
    qn_ids ids = {0};
    bool good = !qn_tokenizer_encode(c->generator.tokenizer, &ids, text, strlen(text), true, err);
    if (good) append_ids(out, ids.data, ids.size);
    qn_ids_release(&ids);
    return good;
}

static bool render(const chat *c, qn_prompt *out, const json_t *messages, qn_error *err) {
    conversation all = c->generator.conversation;
    all.messages = messages;
    all.think = c->think;
    return conversation_render(&all, out, err);
}

/* What the template puts after an answer: its end, the new message, the next generation prompt. Returns false if that
 * cannot be determined. */
static bool render_next(const chat *c, qn_prompt *out, json_t *user, size_t *begin) {
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}, O]", "role", "user", "content", "x", "role", "assistant",
                                 "content", sentinel, user);
    qn_error err;
    bool good = render(c, out, messages, &err);
    json_decref(messages);
    const char *found = good ? memmem(out->text.data, out->text.size, sentinel, sizeof(sentinel) - 1) : NULL;
    if (found) *begin = (size_t)(found - out->text.data) + sizeof(sentinel) - 1;
    return found != NULL;
}

/* The token sequence up to the answer to the last message. */
static bool make_prompt(chat *c, qn_ids *out, qn_error *err) {
    qn_prompt prompt = {0};
    size_t begin = 0;
    json_t *user = json_array_get(c->messages, json_array_size(c->messages) - 1);
    bool good;
    if (c->ids.size && render_next(c, &prompt, user, &begin)) {
        size_t n = c->ids.size;
        while (n && generator_is_end(&c->generator, c->ids.data[n - 1])) n--;
        append_ids(out, c->ids.data, n);
        good = !c->cut_in_reasoning || encode_own(c, out, "\n</think>\n\n", err);
        good = good && encode(c, out, &prompt, begin, err);
    } else {
        qn_prompt_release(&prompt);
        good = render(c, &prompt, c->messages, err) && encode(c, out, &prompt, 0, err);
    }
    qn_prompt_release(&prompt);
    return good;
}

/* Callback state of a turn. */
typedef struct turn {
    printer printer;
    progress_bar bar;
    qn_ids drawn;
    qn_text content, reasoning;
    bool in_reasoning;
} turn;

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    turn *t = user;
    t->in_reasoning = piece == QN_PIECE_REASONING;
    append_bytes(t->in_reasoning ? &t->reasoning : &t->content, text, size);
    printer_piece(&t->printer, piece, text, size);
    return true;
}

static bool on_token(void *user, const qn_token *token) {
    turn *t = user;
    progress_end(&t->bar);
    if (interrupted()) return false;
    append_ids(&t->drawn, &token->id, 1);
    return true;
}

static bool on_prefill(void *user, int32_t done, int32_t total) {
    turn *t = user;
    return progress_report(&t->bar, (uint64_t)done, (uint64_t)total);
}

static bool generate(chat *c, turn *t, const qn_ids *prompt, qn_error *err) {
    const settings *s = c->generator.settings;
    qn_sampler_params params;
    generator_params(&c->generator, true, c->think, &params);
    params.seed = c->seed;
    qn_generate_args args = {
        .ids = prompt->data,
        .n_ids = prompt->size,
        .sampler = &params,
        .n_predict = (int32_t)s->n_predict.value,
        .ignore_eos = s->ignore_eos,
        .ends = c->generator.ends.data,
        .n_end = c->generator.ends.size,
        .split_reasoning = true,
        .on_text = on_text,
        .on_token = on_token,
        .on_prefill = on_prefill,
        .user = t,
    };
    progress_begin(&t->bar, "reading");
    qn_status status = qn_generate(c->generator.session, c->generator.tokenizer, &args, &c->last, err);
    progress_end(&t->bar);
    printer_end(&t->printer);
    /* an empty answer still prints a line, as in quern run */
    if (t->printer.wrote || !status) putchar('\n');
    fflush(stdout);
    return status == QN_OK;
}

/* Add the answer to the conversation. */
static void keep_answer(chat *c, turn *t, qn_ids *prompt) {
    json_t *answer = message("assistant", t->content.data, t->content.size);
    if (t->reasoning.size)
        json_object_set_new(answer, "reasoning_content", json_text(t->reasoning.data, t->reasoning.size));
    json_array_append_new(c->messages, answer);
    append_ids(prompt, t->drawn.data, t->drawn.size);
    free(c->ids.data);
    c->ids = *prompt;
    *prompt = (qn_ids){0};
    c->cut_in_reasoning = t->in_reasoning;
    c->n_turn++;
}

static void print_turn(const chat *c) {
    const qn_generate_result *r = &c->last;
    fprintf(stderr, "%s%.1f tok/s, first token %.2f s, context %d of %d%s\n", dim_begin(stderr),
            r->generate_s > 0 ? r->n_generated / r->generate_s : 0, r->first_token_s, chat_n_tok(c),
            qn_session_n_ctx(c->generator.session), dim_end(stderr));
}

static int take_turn(chat *c, const qn_text *text) {
    json_t *content = json_stringn(text->data, text->size);
    if (!content) return fail("message", "not UTF-8");
    json_array_append_new(c->messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    turn t = {.printer = {.aside = stdout}};
    qn_ids prompt = {0};
    qn_error err;
    interrupted_clear();
    bool good = make_prompt(c, &prompt, &err) && generate(c, &t, &prompt, &err);
    if (good) {
        keep_answer(c, &t, &prompt);
        print_turn(c);
    } else {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
        fail_error(NULL, &err);
        if (err.status == QN_EFULL)
            fputs("The conversation is too long for its context: /clear begins a new one.\n", stderr);
    }
    interrupted_clear();
    free(prompt.data);
    free(t.drawn.data);
    free(t.content.data);
    free(t.reasoning.data);
    return good ? EXIT_DONE : EXIT_FAILED;
}

static int converse(chat *c) {
    chat_input *input = chat_input_open();
    qn_text text = {0};
    int code = EXIT_DONE;
    chat_line line;
    bool terminal = is_terminal(stdin);
    if (terminal) {
        print_escaped(stderr, c->generator.dir);
        fprintf(stderr, ", context %d; /help lists the commands\n", qn_session_n_ctx(c->generator.session));
    }
    while (!c->quits && !interrupted() && !ferror(stdout) && (line = chat_input_read(input, &text)) != CHAT_LINE_END) {
        if (line == CHAT_LINE_CANCELED) {
            if (terminal) continue;
            code = EXIT_INTERRUPTED;
            break;
        }
        if (line == CHAT_LINE_FAILED) {
            code = EXIT_FAILED;
            break;
        }
        int line_code = EXIT_DONE;
        if (text.size && !chat_command(c, text.data, text.size, &line_code)) line_code = take_turn(c, &text);
        /* on a terminal the user saw the failure and went on */
        if (line_code && !terminal) code = line_code;
    }
    if (interrupted()) code = EXIT_INTERRUPTED;
    free(text.data);
    chat_input_close(input);
    return code;
}

int command_chat(const settings *s) {
    interrupts_graceful(false);
    chat c = {.messages = json_array()};
    c.seed = s->sampling.seed.given ? (uint64_t)s->sampling.seed.value : random_seed();
    int code = generator_open(&c.generator, s, NEED_MUST, NEED_MUST);
    c.think = c.generator.conversation.think;
    interrupts_graceful(true);
    if (!code && !interrupted()) code = converse(&c);
    generator_close(&c.generator);
    json_decref(c.messages);
    free(c.ids.data);
    return code;
}
