/* SPDX-License-Identifier: Apache-2.0 */
/* Chat templates: convert conversations to prompts and to prompt ids. Templates are opened on the loader and run on the
 * text worker. */
#include "quern_nif.h"

enum { N_JSON = 4, N_CONVERSATION = 9 };

/* The JSON parts of a conversation, in the order of its tuple. */
static const char *const json_names[N_JSON] = {"messages", "tools", "documents", "chat_template_kwargs"};

typedef struct chat_job {
    char *path, *file, *date;
    object *chat_template, *tokenizer;
    ErlNifBinary json[N_JSON];
    bool has_json[N_JSON];
    bool parse_special;
    qn_chat_input input; /* all but the texts */
} chat_job;

static void finish_chat(job *j) {
    const chat_job *s = j->state;
    char *const texts[] = {s->path, s->file, s->date};
    for (int i = 0; i < 3; i++) {
        if (texts[i] != NULL) enif_free(texts[i]);
    }
}

static bool is_nil(ErlNifEnv *env, ERL_NIF_TERM term) {
    return enif_is_identical(term, enif_make_atom(env, "nil"));
}

static bool open_template(job *j) {
    const chat_job *s = j->state;
    qn_error error;
    qn_chat_template *template = NULL;
    qn_status status = s->file == NULL ? qn_chat_template_open(&template, s->path, &error)
                                       : qn_chat_template_open_file(&template, s->file, s->path, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    object *o = object_new(j->nif, KIND_TEMPLATE, template, j->nif->text, NULL, NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "chat template: no memory"});
    return job_value(j, object_term(j->env, o));
}

/* Reference, Directory, File | nil. */
NIF_FUNCTION(nif_chat_open) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(chat_job));
    chat_job s = {.path = call_string(&c, argv[1], "path")};
    if (!is_nil(env, argv[2])) s.file = call_string(&c, argv[2], "file");
    if (c.job != NULL && c.job->state != NULL) *(chat_job *)c.job->state = s;
    return call_submit(&c, c.nif->loader, open_template, finish_chat);
}

/* {Messages, Tools | nil, Documents | nil, Kwargs | nil, Date | nil, AddGenerationPrompt, ContinueFinalMessage,
 * ToolArgumentsObject, Think}. The first four are JSON. */
static void decode_conversation(call *c, chat_job *s, ERL_NIF_TERM term) {
    static const char *const think_names[] = {"auto", "on", "off", NULL};
    const ERL_NIF_TERM *t = NULL;
    int n = 0;
    if (c->has_failed) return;
    if (!enif_get_tuple(c->env, term, &n, &t) || n != N_CONVERSATION) {
        call_fail(c, "conversation: must be a tuple of %d", N_CONVERSATION);
        return;
    }
    for (int i = 0; i < N_JSON; i++) {
        s->has_json[i] = i == 0 || !is_nil(c->env, t[i]);
        if (s->has_json[i]) call_binary(c, t[i], json_names[i], &s->json[i]);
    }
    if (!is_nil(c->env, t[4])) s->date = call_string(c, t[4], "date");
    s->input.add_generation_prompt = call_bool(c, t[5], "add_generation_prompt");
    s->input.continue_final_message = call_bool(c, t[6], "continue_final_message");
    s->input.tool_arguments_object = call_bool(c, t[7], "tool_arguments");
    s->input.think = (qn_think)call_choice(c, t[8], "think", think_names);
}

/* The binaries have been inspected by now. Returns false if the job is done, with an error. */
static bool render(job *j, qn_prompt *prompt) {
    const chat_job *s = j->state;
    qn_chat_input input = s->input;
    const char **const texts[N_JSON] = {&input.messages, &input.tools, &input.documents, &input.kwargs};
    size_t *const sizes[N_JSON] = {&input.messages_size, &input.tools_size, &input.documents_size, &input.kwargs_size};
    qn_error error;
    for (int i = 0; i < N_JSON; i++) {
        if (!s->has_json[i]) continue;
        /* To the library, size 0 means NUL-terminated. */
        if (s->json[i].size == 0) {
            enif_snprintf(error.message, sizeof error.message, "%s: is empty", json_names[i]);
            return !job_error(j, QN_EINVAL, &error);
        }
        *texts[i] = (const char *)s->json[i].data;
        *sizes[i] = s->json[i].size;
    }
    input.date = s->date;
    qn_status status = qn_chat_render(s->chat_template->value, prompt, &input, &error);
    return status == QN_OK || !job_error(j, status, &error);
}

static bool render_text(job *j) {
    qn_prompt prompt = {0};
    if (render(j, &prompt)) job_value(j, binary_term(j->env, prompt.text.data, prompt.text.size));
    qn_prompt_release(&prompt);
    return true;
}

/* Reference, Template, Conversation: returns the text. */
NIF_FUNCTION(nif_chat_render) {
    (void)argc;
    chat_job nothing = {0};
    call c = call_begin(env, argv[0], sizeof(chat_job));
    chat_job *s = c.job == NULL || c.job->state == NULL ? &nothing : c.job->state;
    s->chat_template = call_object(&c, argv[1], "template", KIND_TEMPLATE);
    decode_conversation(&c, s, argv[2]);
    return call_submit(&c, c.nif->text, render_text, finish_chat);
}

static bool render_ids(job *j) {
    const chat_job *s = j->state;
    qn_prompt prompt = {0};
    qn_ids ids = {0};
    qn_error error;
    if (render(j, &prompt)) {
        const qn_text_run whole = {prompt.text.size, true};
        qn_status status = qn_tokenizer_encode_runs(s->tokenizer->value, &ids, prompt.text.data, prompt.text.size,
                                                    s->parse_special ? &whole : prompt.runs,
                                                    s->parse_special ? 1 : prompt.n_run, &error);
        (void)job_ids(j, status, &ids, &error);
    }
    qn_ids_release(&ids);
    qn_prompt_release(&prompt);
    return true;
}

/* Reference, Template, Tokenizer, Conversation, ParseSpecial: returns the ids. Special tokens are recognized only in
 * trusted text, or everywhere with ParseSpecial. */
NIF_FUNCTION(nif_chat_encode) {
    (void)argc;
    chat_job nothing = {0};
    call c = call_begin(env, argv[0], sizeof(chat_job));
    chat_job *s = c.job == NULL || c.job->state == NULL ? &nothing : c.job->state;
    s->chat_template = call_object(&c, argv[1], "template", KIND_TEMPLATE);
    s->tokenizer = call_object(&c, argv[2], "tokenizer", KIND_TOKENIZER);
    decode_conversation(&c, s, argv[3]);
    s->parse_special = call_bool(&c, argv[4], "parse_special");
    return call_submit(&c, c.nif->text, render_ids, finish_chat);
}

static bool find_ends(job *j) {
    const chat_job *s = j->state;
    qn_ids ids = {0};
    qn_error error;
    qn_status status = qn_chat_ends(s->chat_template->value, s->tokenizer->value, &ids, &error);
    (void)job_ids(j, status, &ids, &error);
    qn_ids_release(&ids);
    return true;
}

/* Reference, Template, Tokenizer: returns the ids that end an answer. */
NIF_FUNCTION(nif_chat_ends) {
    (void)argc;
    chat_job nothing = {0};
    call c = call_begin(env, argv[0], sizeof(chat_job));
    chat_job *s = c.job == NULL || c.job->state == NULL ? &nothing : c.job->state;
    s->chat_template = call_object(&c, argv[1], "template", KIND_TEMPLATE);
    s->tokenizer = call_object(&c, argv[2], "tokenizer", KIND_TOKENIZER);
    return call_submit(&c, c.nif->text, find_ends, finish_chat);
}
