/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the chat template share. */
#ifndef QNI_CHAT_H
#define QNI_CHAT_H

#include "jinja.h"

/* Bytes of the JSON of messages or tools, and of tokenizer_config.json. */
#define QNI_CHAT_JSON ((size_t)64 << 20)

struct qn_chat_template {
    qni_jinja *standard;
    qni_jinja *tool_use; /* of a list of named templates, for renders with tools; or NULL */
    json_t *specials;    /* name of the variable → text, or list of texts */
};

/* Parse messages (at least a list of objects with known roles) and normalize them, as docs/templates.md tells. */
qn_status qni_chat_messages(json_t **out, const char *text, size_t size, qn_error *err);

/* Parse a list of objects, which `what` names; *out stays NULL for the JSON text null. */
qn_status qni_chat_objects(json_t **out, const char *what, const char *text, size_t size, qn_error *err);

/* Parse an object of variables; *out stays NULL for the JSON text null. */
qn_status qni_chat_kwargs(json_t **out, const char *text, size_t size, qn_error *err);

#endif
