/* SPDX-License-Identifier: Apache-2.0 */
/* A request of quern run --jsonl: from record to answer. */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include "generator.h"

typedef struct request request;

/* Create a request from a record, which it keeps. NULL with `error` on failure. request_free accepts NULL. */
request *request_read(generator *g, json_t *record, record_error *error);
void request_free(request *r);

/* The ids of the prompt, to find prefixes shared with other requests; false: they are not available. The caller frees
 * out->data. */
bool request_encode(const request *r, qn_ids *out);

/* Start the generation, once. Its output is collected in the request. NULL with `error` on failure. */
qn_generation *request_begin(request *r, qn_session *session, record_error *error);

/* The answer as an object that the caller frees, or NULL with `error`. */
json_t *request_answer(const request *r, const qn_generate_result *result, record_error *error);

#endif
