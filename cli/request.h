/* SPDX-License-Identifier: Apache-2.0 */
/* A request of quern run --jsonl, from its record to its answer. */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include "generator.h"

typedef struct request request;

/* Read a record, which the request keeps. NULL with `error`; request_free takes NULL too. */
request *request_read(generator *g, json_t *record, record_error *error);
void request_free(request *r);

/* The ids of the prompt, to find what it has in common with others; false: they cannot be told. The caller frees out->data. */
bool request_encode(const request *r, qn_ids *out);

/* Begin its generation, once. What it hands out is kept in the request. NULL with `error`. */
qn_generation *request_begin(request *r, qn_session *session, record_error *error);

/* What the generation gave: an object that the caller frees, or NULL with `error`. */
json_t *request_answer(const request *r, const qn_generate_result *result, record_error *error);

#endif
