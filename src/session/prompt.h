/* SPDX-License-Identifier: Apache-2.0 */
/* The prompt of a generation. */
#ifndef QNI_SESSION_PROMPT_H
#define QNI_SESSION_PROMPT_H

#include "../base/error.h"

#include <quern/session.h>

/* Append the ids of a prompt, at least one. The arguments have been checked. */
qn_status qni_prompt_encode(qn_ids *out, const qn_tokenizer *tokenizer, const qn_generate_args *args, qn_error *err);

/* Whether a prompt with these ids ends inside a reasoning block. */
qn_status qni_prompt_reasons(bool *out, const qn_tokenizer *tokenizer, const qn_generate_args *args, const qn_ids *ids,
                             qn_error *err);

#endif
