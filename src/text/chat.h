/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the chat template share: putting messages in order. */
#ifndef QNI_CHAT_H
#define QNI_CHAT_H

#include "../base/error.h"

#include <jansson.h>

/* Bytes of the JSON of messages or tools, and of tokenizer_config.json. */
#define QNI_CHAT_JSON ((size_t)64 << 20)

/* Parse messages (at least a list of objects with known roles) and put them in order, as chat.h tells. */
qn_status qni_chat_messages(json_t **out, const char *text, size_t size, qn_error *err);

/* Parse tools: a list of objects; *out stays NULL for the JSON text null. */
qn_status qni_chat_tools(json_t **out, const char *text, size_t size, qn_error *err);

#endif
