/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of quern chat. A saved conversation is a JSON file of messages and of the exact ids. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../src/base/file.h"
#include "../src/base/json.h"
#include "command_chat.h"
#include "output.h"

enum { MAX_SAVED_BYTES = 1 << 30 };

static const char *const think_names[] = {"auto", "on", "off"};

static void print_system(const chat *c) {
    size_t size;
    const char *text = chat_system(c, &size);
    if (text) {
        fputs("system: ", stderr);
        print_escaped(stderr, text);
        putc('\n', stderr);
    } else {
        fputs("no system message\n", stderr);
    }
}

static int do_clear(chat *c, const char *operand) {
    (void)operand;
    chat_clear(c);
    fputs("a new conversation\n", stderr);
    return EXIT_DONE;
}

static int do_system(chat *c, const char *operand) {
    if (*operand) chat_set_system(c, operand, strlen(operand));
    print_system(c);
    return EXIT_DONE;
}

static int ask_think(chat *c, const char *name, qn_think think, const char *told) {
    if (!conversation_can_think(&c->generator.conversation)) return fail(name, "%s", think_unread);
    c->think = think;
    fprintf(stderr, "the model is asked %s\n", told);
    return EXIT_DONE;
}

static int do_think(chat *c, const char *operand) {
    (void)operand;
    return ask_think(c, "/think", QN_THINK_ON, "to think");
}

static int do_no_think(chat *c, const char *operand) {
    (void)operand;
    return ask_think(c, "/no_think", QN_THINK_OFF, "not to think");
}

static int do_quit(chat *c, const char *operand) {
    (void)operand;
    c->quits = true;
    return EXIT_DONE;
}

static int do_stats(chat *c, const char *operand) {
    (void)operand;
    char memory[32];
    format_bytes(memory, sizeof(memory), peak_memory_bytes());
    const qn_generate_result *r = &c->last;
    fprintf(stderr, "%d turns, context %d of %d, thinking %s, seed %llu, memory %s\n", c->n_turn, chat_n_tok(c),
            qn_session_n_ctx(c->generator.session), think_names[c->think], (unsigned long long)c->seed, memory);
    if (c->n_turn)
        fprintf(stderr,
                "last turn: prompt %d tokens, %d of them reused, %.3f s; %d generated in %.3f s; first token %.3f s\n",
                r->n_prompt, r->n_reused, r->prompt_s, r->n_generated, r->generate_s, r->first_token_s);
    return EXIT_DONE;
}

/* As for weights and sessions: write a new file beside it, readable only by its owner, and rename it once it is
 * complete. */
static qn_status write_file(const char *path, const char *text, qn_error *err) {
    qni_writer writer;
    QN_TRY(qni_writer_open(&writer, path, QNI_FOR_OWNER, err));
    qn_status status = qni_writer_write(&writer, text, strlen(text), err);
    if (!status) status = qni_writer_write(&writer, "\n", 1, err);
    if (!status) return qni_writer_commit(&writer, err);
    qni_writer_abandon(&writer);
    return status;
}

static int do_save(chat *c, const char *operand) {
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:b, s:O, s:o}", "quern", "chat", "vocab",
                  (int)qn_model_get_config(c->generator.model)->n_vocab, "think", think_names[c->think],
                  "cut_in_reasoning", (int)c->cut_in_reasoning, "messages", c->messages, "ids", json_ids(&c->ids));
    char *text = json_dumps(root, JSON_INDENT(1));
    if (!text) out_of_memory();
    qn_error err;
    int code = write_file(operand, text, &err) ? fail_error(operand, &err) : EXIT_DONE;
    if (!code) {
        fprintf(stderr, "saved %d turns to ", c->n_turn);
        print_escaped(stderr, operand);
        putc('\n', stderr);
    }
    free(text);
    json_decref(root);
    return code;
}

static bool are_messages(const json_t *list) {
    if (!json_is_array(list)) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(json_object_get(item, "role")) || !json_is_string(json_object_get(item, "content")))
            return false;
    }
    return true;
}

/* Saved ids are used only for a model with the same vocabulary; otherwise the next turn renders the messages. */
static bool restore_saved(chat *c, json_t *root, record_error *error) {
    int32_t n_vocab = qn_model_get_config(c->generator.model)->n_vocab;
    json_t *messages = json_object_get(root, "messages"), *kind = json_object_get(root, "quern");
    const char *think = json_string_value(json_object_get(root, "think"));
    qn_ids ids = {0};
    if (!json_is_string(kind) || strcmp(json_string_value(kind), "chat") != 0 || !are_messages(messages))
        return record_fail(error, "is not a saved conversation");
    if (!field_ids(root, "ids", &ids, error)) {
        free(ids.data);
        return false;
    }
    bool fits = json_integer_value(json_object_get(root, "vocab")) == n_vocab;
    for (size_t i = 0; i < ids.size; i++) fits = fits && ids.data[i] < n_vocab;
    if (!fits) ids.size = 0;
    free(c->ids.data);
    c->ids = ids;
    json_decref(c->messages);
    c->messages = json_incref(messages);
    c->cut_in_reasoning = json_is_true(json_object_get(root, "cut_in_reasoning"));
    c->n_turn = 0;
    for (size_t i = 0; i < json_array_size(messages); i++)
        c->n_turn += !strcmp(json_string_value(json_object_get(json_array_get(messages, i), "role")), "assistant");
    bool can_think = conversation_can_think(&c->generator.conversation);
    for (int i = 0; think && can_think && i < 3; i++)
        if (!strcmp(think, think_names[i])) c->think = (qn_think)i;
    return true;
}

static int do_load(chat *c, const char *operand) {
    record_error error;
    qn_error err;
    json_t *root = NULL;
    int code = EXIT_DONE;
    json_note_refusals(); /* a failed allocation for the file must not lose the conversation */
    qn_status status = qni_json_read(&root, operand, MAX_SAVED_BYTES, &err);
    (void)json_was_refused();
    if (status)
        code = fail_error(operand, &err);
    else if (!restore_saved(c, root, &error))
        code = fail(operand, "%s", error.text);
    else
        fprintf(stderr, "%d turns, context %d of %d\n", c->n_turn, chat_n_tok(c),
                qn_session_n_ctx(c->generator.session));
    json_decref(root);
    return code;
}

static int do_help(chat *c, const char *operand);

static const struct {
    const char *name, *operand, *help;
    int (*run)(chat *c, const char *operand);
} chat_commands[] = {
    {"/help", "", "this list", do_help},
    {"/clear", "", "begin a new conversation; the system message stays", do_clear},
    {"/system", " [TEXT]", "set the system message and begin anew; without TEXT show it", do_system},
    {"/think", "", "ask the model to think before it answers", do_think},
    {"/no_think", "", "ask it to answer at once", do_no_think},
    {"/save", " FILE", "write the conversation to a file", do_save},
    {"/load", " FILE", "go on with a conversation from a file", do_load},
    {"/stats", "", "figures of the conversation and of the last answer", do_stats},
    {"/quit", "", "end (also Ctrl-D)", do_quit},
};
enum { N_COMMAND = sizeof(chat_commands) / sizeof(*chat_commands) };

static int do_help(chat *c, const char *operand) {
    (void)c, (void)operand;
    for (size_t i = 0; i < N_COMMAND; i++)
        fprintf(stderr, "  %s%-*s%s\n", chat_commands[i].name, (int)(18 - strlen(chat_commands[i].name)),
                chat_commands[i].operand, chat_commands[i].help);
    fputs("Ctrl-C stops an answer; a backslash at the end of a line continues it.\n", stderr);
    return EXIT_DONE;
}

bool chat_command(chat *c, const char *line, size_t size, int *code) {
    size_t n = 1;
    while (n < size && (islower((unsigned char)line[n]) || line[n] == '_')) n++;
    /* "/usr/bin is where?" is a message, and so is text with a zero byte, which an operand cannot hold */
    if (line[0] != '/' || n == 1 || (n < size && line[n] != ' ') || memchr(line, '\0', size)) return false;
    char *name = must_format("%.*s", (int)n, line);
    const char *operand = line + n + strspn(line + n, " ");
    bool is_command = true;
    size_t i = 0;
    while (i < N_COMMAND && strcmp(chat_commands[i].name, name) != 0) i++;
    const char *takes = i < N_COMMAND ? chat_commands[i].operand : "";
    if (i == N_COMMAND)
        *code = fail(name, "no such command; /help lists them");
    else if (!*takes && *operand)
        is_command = false; /* "/no_think Tell me a story." is a message that contains Qwen3's switch */
    else if (*takes && !strchr(takes, '[') && !*operand)
        *code = fail(name, "needs a%s", takes);
    else
        *code = chat_commands[i].run(c, operand);
    free(name);
    return is_command;
}
