/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines: a record in, an answer out, in order, flushed at once; and typed fields of a record. */
#ifndef CLI_RECORDS_H
#define CLI_RECORDS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>
#include <quern/quern.h>

#include "options.h"

/* Why a record was refused; the text becomes {"error": text}. */
typedef struct record_error {
    char text[512];
} record_error;

/* Answers one record: an object that the caller frees, or NULL with `error` filled. */
typedef json_t *(*record_fn)(void *user, json_t *record, record_error *error);

/* Answer every line of standard input. Lines of white space alone are no records. Returns an exit code: EXIT_FAILED
 * when a record was refused. */
int records_answer(record_fn answer, void *user);

/* What records_answer is made of, for a command that answers several at once. record_trim: a line without white space at its
 * end; false: nothing is left. record_read: the object that the caller frees, or NULL with `error`. record_print: an answer,
 * which is freed, or the error where it is NULL; returns an exit code. */
bool record_trim(qn_string *line);
json_t *record_read(const qn_string *line, record_error *error);
int record_print(json_t *answer, const record_error *error);

bool record_fail(record_error *error, const char *format, ...) __attribute__((format(printf, 2, 3))); /* false */
bool record_fail_error(record_error *error, const qn_error *err);                                     /* false */

/* Fields: false with `error` for a wrong type or range; a missing field or null leaves the value alone. */
bool field_real(json_t *record, const char *name, real *out, record_error *error);
bool field_whole(json_t *record, const char *name, int64_t min, int64_t max, whole *out, record_error *error);
bool field_bool(json_t *record, const char *name, bool *out, record_error *error);
bool field_ids(json_t *record, const char *name, qn_ids *out, record_error *error);

/* A list of {"id": bias}; the caller frees *out. */
bool field_logit_bias(json_t *record, qn_logit_bias **out, size_t *n, record_error *error);

/* The sampling fields: temperature, top_p, min_p, top_k, seed and the penalties. `minus_one`: top_k -1 is 0 (all), and
 * seed may be -1 (any). */
bool fields_sampling(json_t *record, sampling *out, bool minus_one, record_error *error);

/* From now on, Jansson ends the program with a line when it has no memory; but between json_note_refusals() and
 * json_was_refused(), which tells so, it goes on. */
void json_watch_memory(void);
void json_note_refusals(void);
bool json_was_refused(void);

const char *json_type_name(const json_t *value);

/* Whether a value is an object, and no number that is too large for JSON's types. */
bool is_object(const json_t *value);

/* A JSON string of text that may hold U+0000; bytes that are no UTF-8 become "?". */
json_t *json_text(const char *text, size_t size);

/* A number, or null when it is not finite: JSON has no word for that. */
json_t *json_number(double value);

/* The text of a value, for the library; the caller frees it. NULL only for NULL. */
char *json_source(const json_t *value);

/* Write a value as one line to stdout and flush it. Takes over the reference. */
void json_print_line(json_t *value);

#endif
