/* SPDX-License-Identifier: Apache-2.0 */
/* Request fields of other servers that are not supported here and would change the answer. */
#ifndef CLI_FIELDS_H
#define CLI_FIELDS_H

#include "records.h"

/* Kinds of records. */
typedef enum record_kind {
    RECORD_RENDER = 1,
    RECORD_MESSAGES = 2, /* run --jsonl with messages */
    RECORD_TEXT = 4,     /* with a prompt or ids */
    RECORD_SAMPLE = 8,
    RECORD_TOKENIZE = 16,
} record_kind;

/* Returns false with `error` if such a field has an effective value. Neutral values and null are accepted. Unknown
 * fields are ignored. */
bool fields_check(json_t *record, record_kind kind, record_error *error);

#endif
