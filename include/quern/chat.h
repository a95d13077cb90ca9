/* SPDX-License-Identifier: Apache-2.0 */
/** @file chat.h
 * Renders messages to a prompt with the model's own chat template, and splits generated text into reasoning and content.
 *
 * The template is a Jinja program in the model's files. A small sandboxed interpreter runs it. It supports the language
 * of the published Qwen templates and their common variants, with limits on steps, stack (64 KB) and output.
 *
 * Threads: a template is immutable and may be used by any number of threads. A splitter may be used by one thread at a
 * time.
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
    /** An object of extra template variables, of any JSON type ("chat_template_kwargs"); NULL: none. A variable that the
     * template does not read has no effect. An `enable_thinking` key means the same as `think`. */
    const char *kwargs;
    size_t kwargs_size;
    qn_think think; /**< ON and OFF are errors when the template does not read `enable_thinking` */
    bool add_generation_prompt;
    /** End the prompt inside the last message, so that the model continues it. Excludes add_generation_prompt. */
    bool continue_final_message;
    bool tool_arguments_object; /**< parse tool-call arguments that are JSON text into objects for the template */
    /** The time for strftime_now(): "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"; NULL: the current local time. */
    const char *date;
} qn_chat_input;

/** A rendered prompt. Zero-initialize it, and release it when done. */
typedef struct qn_prompt {
    qn_text text;
    /** Spans of the text: trusted if written by the template, untrusted if taken from messages, tools, documents or kwargs.
     * Adjacent runs differ in trust. */
    qn_text_run *runs;
    size_t n_run;
    size_t run_capacity;
} qn_prompt;

/** The kind of a piece of generated text. */
typedef enum qn_piece {
    QN_PIECE_CONTENT = 0,
    QN_PIECE_REASONING = 1,
} qn_piece;

/** Receives pieces of text in order. Pieces are never empty and never split a character. Return false to stop. */
typedef bool (*qn_piece_fn)(void *user, qn_piece piece, const char *text, size_t size);

/** Splits generated text into reasoning and content, and stops at stop strings. */
typedef struct qn_splitter qn_splitter;

/** A string with an explicit length. */
typedef struct qn_string {
    const char *data;
    size_t size;
} qn_string;

typedef struct qn_splitter_options {
    bool split_reasoning;  /**< false: all text is content */
    bool starts_reasoning; /**< the prompt ended inside <think>: see qn_chat_starts_reasoning */
    /** n_stop non-empty strings; copied. Output, content or reasoning, ends before the first byte of a match. A match may
     * span several tokens. */
    const qn_string *stops;
    size_t n_stop; /**< at most 64 */
} qn_splitter_options;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Open the chat template of a model directory: chat_template.jinja if present, with the named templates in
 * additional_chat_templates/; otherwise chat_template in tokenizer_config.json. Of named templates, "tool_use" is used
 * if present and tools are given, otherwise "default". Either may be the only one. The whole template is parsed and
 * checked here.
 *
 * Errors   EIO; EFORMAT: a file is malformed; EUNSUPPORTED: a construct that the interpreter does not support (the
 *          message gives the line and the construct), or no template in the directory (the message ends with "no chat
 *          template"), or no template of either name (the message lists the names found); ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_chat_template_open(qn_chat_template **out, const char *dir, qn_error *err);

/**
 * As qn_chat_template_open, with the template read from the file `path`. The special tokens (bos_token and so on) come
 * from the model directory `dir`; if it is NULL, they are undefined. Errors: as qn_chat_template_open.
 */
QN_NODISCARD QN_API qn_status qn_chat_template_open_file(qn_chat_template **out, const char *path, const char *dir,
                                                         qn_error *err);
QN_API void qn_chat_template_close(qn_chat_template *chat_template); /**< NULL is fine */

/** Whether the template, or its tool_use variant, reads the variable before setting it. */
QN_API bool qn_chat_template_reads(const qn_chat_template *chat_template, const char *variable);

QN_API void qn_prompt_release(qn_prompt *prompt); /**< frees the memory and leaves zeros */

/**
 * Append the rendered prompt: its text and its runs. Any text already in `prompt` must be covered by its runs.
 *
 * Messages are normalized before the template sees them: null content becomes "", a list of text parts is joined, and
 * the role "developer" becomes "system"; see docs/templates.md. JSON is serialized as in Python.
 *
 * Trust   The template's own text, the tokenizer's special tokens and the roles are trusted. All other input text is
 *         not. Trust is tracked per byte through joining, splitting, slicing and formatting. Serializing a value (to
 *         JSON) gives untrusted text if any part of the value is untrusted.
 * Errors  EINVAL: messages, tools, documents, kwargs or date are malformed; a role other than system, developer, user,
 *         assistant and tool; a content part that is not text, such as an image; a message key that changes the answer
 *         in other APIs (prefix, partial, images, audio, function_call), unless its value is false or empty or the
 *         template reads it; kwargs that would replace another field or contradict `think`; `think` with a template
 *         that does not read `enable_thinking`; a final message that cannot be continued; or the template raised an
 *         error (raise_exception). EUNSUPPORTED: an operation that the interpreter does not support (the message gives
 *         the line), or no tools given while "tool_use" is the only template. EFULL: a limit on steps, depth or output
 *         was reached. ENOMEM. On error `prompt` is unchanged.
 */
QN_NODISCARD QN_API qn_status qn_chat_render(const qn_chat_template *chat_template, qn_prompt *prompt,
                                             const qn_chat_input *input, qn_error *err);

/** Whether a prompt ends inside a reasoning block: only white space follows its last "<think>", and every byte of that
 * tag is trusted. runs: n_run of them, as in qn_prompt; NULL: all of the text is trusted. */
QN_API bool qn_chat_starts_reasoning(const char *prompt, size_t size, const qn_text_run *runs, size_t n_run);

/**
 * Append the ids that end an answer in a chat: the tokenizer's eos_token, if any, and the added token that the template
 * (or its tool_use variant) writes right after an answer, if any. Pass them as qn_generate_args.ends, because the
 * model's eos_token_id may name other ids or none. No id is appended twice.
 *
 * The template's token is found by rendering a trial conversation. A template that rejects it contributes no token.
 *
 * Errors   EINVAL: an argument is NULL; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_chat_ends(const qn_chat_template *chat_template, const qn_tokenizer *tokenizer,
                                           qn_ids *ids, qn_error *err);

/** Create a splitter. Errors: EINVAL: an empty stop string or too many; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_splitter_create(qn_splitter **out, const qn_splitter_options *options, qn_error *err);
QN_API void qn_splitter_free(qn_splitter *splitter); /**< NULL is fine */

/**
 * Feed more text and emit what is final. Text that may turn out to be a tag or a stop string is held back. Tags, the
 * newlines next to them and the stop string are not emitted.
 *
 * stopped  set to true when a stop string matches or `piece` returns false; further text is then ignored.
 * Errors   ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_splitter_push(qn_splitter *splitter, const char *text, size_t size, qn_piece_fn piece,
                                               void *user, bool *stopped, qn_error *err);

/** Emit the text that was held back. Errors: EINVAL: NULL. */
QN_NODISCARD QN_API qn_status qn_splitter_finish(qn_splitter *splitter, qn_piece_fn piece, void *user, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
