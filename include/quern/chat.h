/* SPDX-License-Identifier: Apache-2.0 */
/** @file chat.h
 * From messages to a prompt (the model's own chat template) and from generated text to reasoning
 * and content.
 *
 * The template is a Jinja program of the model's files. It is run by a small interpreter that knows
 * the language of the published Qwen templates and their common variants, with bounds on steps,
 * stack (64 KB) and output; it reaches nothing but its input.
 *
 * Threads: a template is immutable and may be used by any number of threads; a splitter belongs to
 * one at a time.
 */
#ifndef QUERN_CHAT_H
#define QUERN_CHAT_H

#include "tokenizer.h"

typedef struct qn_chat_template qn_chat_template;

/** Thinking mode. AUTO leaves `enable_thinking` undefined, so the template's default applies. */
typedef enum qn_think {
    QN_THINK_AUTO = 0,
    QN_THINK_ON = 1,
    QN_THINK_OFF = 2,
} qn_think;

/** A conversation to render. Texts are JSON, as in the OpenAI API; a size of 0 means strlen(). */
typedef struct qn_chat_input {
    const char *messages; /**< an array of {"role", "content", …} */
    size_t messages_size;
    const char *tools; /**< an array, or NULL for none */
    size_t tools_size;
    const char *documents; /**< an array of objects, or NULL for none */
    size_t documents_size;
    /** An object with more variables for the template, of any JSON type ("chat_template_kwargs"); NULL: none. A variable
     * that the template does not read changes nothing. `enable_thinking` in it means the same as `think`. */
    const char *kwargs;
    size_t kwargs_size;
    qn_think think; /**< ON and OFF are errors when the template does not read `enable_thinking` */
    bool add_generation_prompt;
    /** End the prompt within the last message, so that the model continues it. Not with add_generation_prompt. */
    bool continue_final_message;
    bool tool_arguments_object; /**< tool-call arguments that are JSON text reach the template as objects */
    /** What strftime_now() formats: "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"; NULL: the local time of the call. */
    const char *date;
} qn_chat_input;

/** A rendered prompt: start with zeros, release at the end. */
typedef struct qn_prompt {
    qn_text text;
    /** Which parts of the text the template wrote (trusted), and which came from messages, tools, documents and kwargs.
     * Neighbors differ. */
    qn_text_run *runs;
    size_t n_run;
    size_t run_capacity;
} qn_prompt;

/** What a piece of generated text is. */
typedef enum qn_piece {
    QN_PIECE_CONTENT = 0,
    QN_PIECE_REASONING = 1,
} qn_piece;

/** Receives pieces of text in order, never empty, never a part of a character; return false to stop. */
typedef bool (*qn_piece_fn)(void *user, qn_piece piece, const char *text, size_t size);

/** Splits generated text into reasoning and content, and ends it at stop strings. */
typedef struct qn_splitter qn_splitter;

/** A text with its length. */
typedef struct qn_string {
    const char *data;
    size_t size;
} qn_string;

typedef struct qn_splitter_options {
    bool split_reasoning;  /**< false: all text is content */
    bool starts_reasoning; /**< the prompt ended inside <think>: see qn_chat_starts_reasoning */
    /** n_stop texts, none empty; copied. They end the output before their first byte, content and reasoning alike,
     * also when they spread over several tokens. */
    const qn_string *stops;
    size_t n_stop; /**< at most 64 */
} qn_splitter_options;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Open the chat template of a model directory: chat_template.jinja if there, with the named templates in
 * additional_chat_templates/, else chat_template of tokenizer_config.json. Of named templates "default" is used, and
 * "tool_use" when tools are given; either may be the only one. The whole template is parsed and checked here.
 *
 * Errors   EIO; EFORMAT: a file is malformed; EUNSUPPORTED: a construct that the interpreter does not know, with
 *          line and construct; or the directory has no template (the message ends with "no chat template"), or none of
 *          these names (it tells those that are there); ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_chat_template_open(qn_chat_template **out, const char *dir, qn_error *err);

/**
 * The same from a file with the template's text, for the tokens of the model directory `dir` (may be NULL: then
 * bos_token and the other special tokens are undefined). Errors: as qn_chat_template_open.
 */
QN_NODISCARD QN_API qn_status qn_chat_template_open_file(qn_chat_template **out, const char *path, const char *dir,
                                                         qn_error *err);
QN_API void qn_chat_template_close(qn_chat_template *chat_template); /**< NULL is fine */

/** Whether the template (or the one that it has for tools) reads a variable of that name before it sets it itself. */
QN_API bool qn_chat_template_reads(const qn_chat_template *chat_template, const char *variable);

QN_API void qn_prompt_release(qn_prompt *prompt); /**< frees the memory and leaves zeros */

/**
 * Append the rendered prompt, text and runs. What `prompt` held before must be covered by its runs.
 *
 * Messages are normalized before the template sees them: null content becomes "", a list of text parts is joined, the
 * role "developer" becomes "system"; see docs/templates.md. JSON is written as Python writes it.
 *
 * Trust   The template's own text, the special tokens of the tokenizer and the roles are trusted, all other text of the
 *         input is not. The mark follows each byte through joining, splitting, slicing and formats; what writes new
 *         text of a value (JSON) makes untrusted text if anything in the value is untrusted.
 * Errors  EINVAL: messages, tools, documents, kwargs or date are malformed; a role that is none of system, developer,
 *         user, assistant and tool; an image or another part that is not text; a key of a
 *         message that changes the answer elsewhere (prefix, partial, images, audio, function_call) with a value other
 *         than false or an empty one, unless the template reads it; kwargs that would replace another field
 *         or contradict `think`; `think` with a template that does not read `enable_thinking`; a final message that
 *         cannot be continued; or the template itself refused (raise_exception). EUNSUPPORTED: an operation that the
 *         interpreter does not know, with its line, or no tools where "tool_use" is the only template; EFULL: a bound
 *         on steps, depth or output; ENOMEM. `prompt` is as before then.
 */
QN_NODISCARD QN_API qn_status qn_chat_render(const qn_chat_template *chat_template, qn_prompt *prompt,
                                             const qn_chat_input *input, qn_error *err);

/** Whether a prompt ends inside a reasoning block: only white space follows its last "<think>", and all bytes of that tag
 * are trusted. runs: n_run of them, as in qn_prompt; NULL: all of the text is trusted. */
QN_API bool qn_chat_starts_reasoning(const char *prompt, size_t size, const qn_text_run *runs, size_t n_run);

/**
 * Append the ids that end an answer in a chat: the tokenizer's eos_token, and the added token that the template writes
 * right after an answer, if there are such; of a template for tools too. They belong to qn_generate_args.ends: the
 * model's own files may name others, or none. No id is appended twice.
 *
 * Errors   EINVAL: an argument is NULL; ENOMEM. A template that refuses the conversation of the trial tells no token.
 */
QN_NODISCARD QN_API qn_status qn_chat_ends(const qn_chat_template *chat_template, const qn_tokenizer *tokenizer,
                                           qn_ids *ids, qn_error *err);

/** A splitter. Errors: EINVAL: an empty stop string or too many; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_splitter_create(qn_splitter **out, const qn_splitter_options *options, qn_error *err);
QN_API void qn_splitter_free(qn_splitter *splitter); /**< NULL is fine */

/**
 * Take more text; hand out what is certain. Text that may turn out to be a tag or a stop string is held back. The tags
 * themselves, the newlines beside them and the stop string are not handed out.
 *
 * stopped  becomes true when a stop string was met or `piece` returned false; further text is then ignored.
 * Errors   ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_splitter_push(qn_splitter *splitter, const char *text, size_t size, qn_piece_fn piece,
                                               void *user, bool *stopped, qn_error *err);

/** Hand out what was held back. Errors: none but NULL (EINVAL). */
QN_NODISCARD QN_API qn_status qn_splitter_finish(qn_splitter *splitter, qn_piece_fn piece, void *user, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
