/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations shared by the chat template files. */
#ifndef QNI_CHAT_H
#define QNI_CHAT_H

#include "../jinja/jinja.h"

#include <string.h>

/* Maximum size in bytes of the JSON of messages or tools, and of tokenizer_config.json. */
#define QNI_CHAT_JSON ((size_t)64 << 20)

/* Size of a public text argument: 0 means strlen(). */
static inline size_t qni_chat_size(const char *text, size_t size) {
    return size > 0 ? size : strlen(text);
}

struct qn_chat_template {
    qni_jinja *standard; /* NULL: only tool_use exists */
    qni_jinja *tool_use; /* from a list of named templates, for renders with tools; or NULL */
    json_t *tokens;      /* variable name → text of the special token */
};

/* Read a file of the directory, which must hold an object. *out stays NULL if the file does not exist. */
qn_status qni_chat_json(json_t **out, const char *dir, const char *name, qn_error *err);

/* The special tokens of a directory (NULL: none) with this tokenizer_config.json (or NULL): name → text. */
qn_status qni_chat_tokens(json_t **out, const char *dir, const json_t *config, qn_error *err);

/* Parse the messages of an input (a non-empty list of objects with known roles) and normalize them as described in
 * docs/templates.md. */
qn_status qni_chat_messages(json_t **out, const qn_chat_input *input, qn_error *err);

/* Parse a list of objects; `what` names it in messages. *out stays NULL for JSON null. */
qn_status qni_chat_objects(json_t **out, const char *what, const char *text, size_t size, qn_error *err);

/* Parse an object of variables. *out stays NULL for JSON null. */
qn_status qni_chat_kwargs(json_t **out, const char *text, size_t size, qn_error *err);

#endif
