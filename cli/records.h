/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines: one answer per record, in order, each flushed immediately; and typed access to the fields of a record. */
#ifndef CLI_RECORDS_H
#define CLI_RECORDS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>
#include <quern/quern.h>

#include "options.h"

/* Why a record was rejected; printed as {"error": text}. */
typedef struct record_error {
    char text[512];
} record_error;

/* Answers one record. Returns an object that the caller frees, or NULL with `error` set. */
typedef json_t *(*record_fn)(void *user, json_t *record, record_error *error);

/* Answer every line of standard input. Blank lines are skipped. Returns an exit code: EXIT_FAILED if any record was
 * rejected. */
int records_answer(record_fn answer, void *user);

/* The steps of records_answer, for a command that answers several records at once. record_trim: strip trailing white
 * space; false if nothing is left. record_read: the record as an object that the caller frees, or NULL with `error`.
 * record_print: print and free the answer, or the error if it is NULL; returns an exit code. */
bool record_trim(qn_string *line);
json_t *record_read(const qn_string *line, record_error *error);
int record_print(json_t *answer, const record_error *error);

bool record_fail(record_error *error, const char *format, ...) __attribute__((format(printf, 2, 3))); /* false */
bool record_fail_error(record_error *error, const qn_error *err);                                     /* false */

/* Fields: false with `error` for a wrong type or range. A missing or null field leaves the value unchanged. */
bool field_real(json_t *record, const char *name, real *out, record_error *error);
bool field_whole(json_t *record, const char *name, int64_t min, int64_t max, whole *out, record_error *error);
bool field_bool(json_t *record, const char *name, bool *out, record_error *error);
bool field_ids(json_t *record, const char *name, qn_ids *out, record_error *error);

/* A list of {"id": bias}; the caller frees *out. */
bool field_logit_bias(json_t *record, qn_logit_bias **out, size_t *n, record_error *error);

/* The sampling fields: temperature, top_p, min_p, top_k, seed and the penalties. With `minus_one`, top_k -1 means 0
 * (all) and seed -1 means random. */
bool fields_sampling(json_t *record, sampling *out, bool minus_one, record_error *error);

/* From now on an allocation failure in Jansson ends the program with an error message, except between
 * json_note_refusals() and json_was_refused(): there it is only recorded, and the latter reports it. */
void json_watch_memory(void);
void json_note_refusals(void);
bool json_was_refused(void);

const char *json_type_name(const json_t *value);

/* Whether a value is an object and all its numbers are in range. */
bool is_object(const json_t *value);

/* A JSON string from text that may contain U+0000; invalid UTF-8 bytes become "?". */
json_t *json_text(const char *text, size_t size);

/* A number, or null if it is not finite, which JSON cannot represent. */
json_t *json_number(double value);

/* A value serialized for the library; the caller frees it. NULL only if the value is NULL. */
char *json_source(const json_t *value);

/* Write a value as one line to stdout and flush. Takes ownership of the reference. */
void json_print_line(json_t *value);

#endif
