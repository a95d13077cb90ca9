/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of other servers' requests that are not offered here, and would change the answer. */
#ifndef CLI_FIELDS_H
#define CLI_FIELDS_H

#include "records.h"

/* What a record is. */
typedef enum record_kind {
    RECORD_RENDER = 1,
    RECORD_MESSAGES = 2, /* run --jsonl with messages */
    RECORD_TEXT = 4,     /* with a prompt or ids */
    RECORD_SAMPLE = 8,
    RECORD_TOKENIZE = 16,
} record_kind;

/* False with `error` where such a field asks for something; a value that asks for nothing is fine, as is null. Fields that
 * nobody knows are ignored. */
bool fields_check(json_t *record, record_kind kind, record_error *error);

#endif
