/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines and record fields. */
#include "records.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/base/json.h"
#include "open.h"
#include "output.h"

bool record_fail(record_error *error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return false;
}

bool record_fail_error(record_error *error, const qn_error *err) {
    return record_fail(error, "%s", err->message[0] ? err->message : qn_status_text(err->status));
}

json_t *json_text(const char *text, size_t size) {
    json_t *value = json_stringn(size ? text : "", size);
    if (value) return value;
    char *copy = must_realloc(NULL, size, 1);
    for (size_t i = 0; i < size; i++) copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
    value = json_stringn_nocheck(copy, size);
    free(copy);
    return value;
}

json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

char *json_source(const json_t *value) {
    if (!value) return NULL;
    char *text = qni_json_print(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) out_of_memory();
    return text;
}

void json_print_line(json_t *value) {
    char *text = value ? json_dumps(value, JSON_REAL_PRECISION(17)) : NULL;
    if (!text) out_of_memory();
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(value);
}

/* On allocation failure Jansson silently drops list elements and object values. So failures are recorded in the
 * allocator. */
static bool notes_refusals, was_refused;

static void *json_memory(size_t size) {
    void *pointer = malloc(size);
    if (!pointer && !notes_refusals) out_of_memory();
    if (!pointer) was_refused = true;
    return pointer;
}

void json_watch_memory(void) {
    json_set_alloc_funcs(json_memory, free);
}

void json_note_refusals(void) {
    notes_refusals = true;
    was_refused = false;
}

bool json_was_refused(void) {
    notes_refusals = false;
    return was_refused;
}

bool record_trim(qn_string *line) {
    while (line->size && line->data[line->size - 1] && strchr(" \t\r\n", line->data[line->size - 1])) line->size--;
    return line->size > 0;
}

json_t *record_read(const qn_string *line, record_error *error) {
    json_t *record = NULL;
    qn_error err;
    if (qni_json_parse(&record, "record", line->data, line->size, &err)) {
        record_fail_error(error, &err);
    } else if (!json_is_object(record)) {
        record_fail(error, "a record must be an object, not %s", json_type_name(record));
        json_decref(record);
        record = NULL;
    }
    return record;
}

int record_print(json_t *answer, const record_error *error) {
    json_print_line(answer ? answer : json_pack("{s:o}", "error", json_text(error->text, strlen(error->text))));
    return answer ? EXIT_DONE : EXIT_FAILED;
}

static json_t *answer_line(record_fn answer, void *user, const qn_string *line, record_error *error) {
    json_note_refusals();
    json_t *record = record_read(line, error);
    json_t *out = record ? answer(user, record, error) : NULL;
    json_decref(record);
    if (json_was_refused() && out) {
        json_decref(out);
        out = NULL;
        record_fail(error, "out of memory");
    }
    return out;
}

int records_answer(record_fn answer, void *user) {
    line_input input = {.begin = 0};
    qn_string line;
    line_state state = LINE_READ;
    int code = EXIT_DONE, read_code = EXIT_DONE;
    while (!ferror(stdout) && !(read_code = read_line(&input, true, &line, &state)) && state == LINE_READ) {
        record_error error = {""};
        if (!record_trim(&line)) continue;
        if (record_print(answer_line(answer, user, &line, &error), &error)) code = EXIT_FAILED;
    }
    free(input.text.data);
    return read_code ? read_code : code;
}

const char *json_type_name(const json_t *value) {
    static const char *const names[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    if (value && qni_json_large(value)) return "a number that is too large";
    return value ? names[json_typeof(value)] : "nothing";
}

bool is_object(const json_t *value) {
    return json_is_object(value) && !qni_json_large(value);
}

/* The value of a field, or NULL if it is missing or null. */
static json_t *present(json_t *record, const char *name) {
    json_t *value = json_object_get(record, name);
    return json_is_null(value) ? NULL : value;
}

bool field_real(json_t *record, const char *name, real *out, record_error *error) {
    json_t *value = present(record, name);
    if (!value) return true;
    if (!json_is_number(value)) return record_fail(error, "%s: must be a number, not %s", name, json_type_name(value));
    *out = (real){json_number_value(value), true};
    return true;
}

bool field_whole(json_t *record, const char *name, int64_t min, int64_t max, whole *out, record_error *error) {
    json_t *value = present(record, name);
    if (!value) return true;
    double x = json_number_value(value);
    bool is_whole = json_is_real(value) && fabs(x) < 0x1p53 && floor(x) >= x; /* 5.0 */
    if (!json_is_integer(value) && !is_whole)
        return record_fail(error, "%s: must be a whole number, not %s", name,
                           json_is_real(value) ? "a fraction" : json_type_name(value));
    int64_t number = is_whole ? (int64_t)x : json_integer_value(value);
    if (min == max && number != min)
        return record_fail(error, "%s: must be %lld, not %lld", name, (long long)min, (long long)number);
    if (number < min || number > max)
        return record_fail(error, "%s: must be from %lld to %lld, not %lld", name, (long long)min, (long long)max,
                           (long long)number);
    *out = (whole){number, true};
    return true;
}

bool field_bool(json_t *record, const char *name, bool *out, record_error *error) {
    json_t *value = present(record, name);
    if (!value) return true;
    if (!json_is_boolean(value))
        return record_fail(error, "%s: must be true or false, not %s", name, json_type_name(value));
    *out = json_is_true(value);
    return true;
}

bool field_ids(json_t *record, const char *name, qn_ids *out, record_error *error) {
    json_t *list = present(record, name), *item;
    if (!list) return true;
    if (!json_is_array(list)) return record_fail(error, "%s: must be a list, not %s", name, json_type_name(list));
    size_t index, n = json_array_size(list);
    free(out->data);
    *out = (qn_ids){must_calloc(n, sizeof(int32_t)), n, n};
    json_array_foreach(list, index, item) {
        if (!json_is_integer(item))
            return record_fail(error, "%s[%zu]: must be a whole number, not %s", name, index, json_type_name(item));
        int64_t id = json_integer_value(item);
        if (id < 0 || id > INT32_MAX) return record_fail(error, "%s[%zu]: %lld is no id", name, index, (long long)id);
        out->data[index] = (int32_t)id;
    }
    return true;
}

/* Parse a key as an id: a canonical decimal number; -1 if it is not one. */
static int64_t key_id(const char *key) {
    int64_t id = 0;
    size_t n = strspn(key, "0123456789");
    if (!n || key[n] || (key[0] == '0' && n > 1) || n > 10) return -1;
    for (size_t i = 0; i < n; i++) id = 10 * id + (key[i] - '0');
    return id <= INT32_MAX ? id : -1;
}

bool field_logit_bias(json_t *record, qn_logit_bias **out, size_t *n, record_error *error) {
    json_t *object = present(record, "logit_bias"), *item;
    if (!object) return true;
    if (!is_object(object)) return record_fail(error, "logit_bias: must be an object, not %s", json_type_name(object));
    free(*out);
    *out = must_calloc(json_object_size(object), sizeof(qn_logit_bias));
    *n = 0;
    const char *key;
    json_object_foreach(object, key, item) {
        int64_t id = key_id(key);
        if (id < 0) return record_fail(error, "logit_bias: \"%.40s\" is no id", key);
        if (!json_is_number(item))
            return record_fail(error, "logit_bias: the bias of %lld must be a number, not %s", (long long)id,
                               json_type_name(item));
        (*out)[(*n)++] = (qn_logit_bias){(int32_t)id, (float)json_number_value(item)};
    }
    return true;
}

/* repeat_penalty is llama.cpp's name for repetition_penalty; if both are given they must agree. */
static bool field_repetition(json_t *record, real *out, record_error *error) {
    real other = {0, false};
    if (!field_real(record, "repetition_penalty", out, error) || !field_real(record, "repeat_penalty", &other, error))
        return false;
    if (out->given && other.given && (out->value < other.value || out->value > other.value))
        return record_fail(error, "repeat_penalty: contradicts repetition_penalty");
    if (other.given) *out = other;
    return true;
}

bool fields_sampling(json_t *record, sampling *out, bool minus_one, record_error *error) {
    const int64_t least = minus_one ? -1 : 0;
    if (!field_real(record, "temperature", &out->temperature, error) ||
        !field_real(record, "top_p", &out->top_p, error) || !field_real(record, "min_p", &out->min_p, error) ||
        !field_repetition(record, &out->repetition_penalty, error) ||
        !field_real(record, "presence_penalty", &out->presence_penalty, error) ||
        !field_real(record, "frequency_penalty", &out->frequency_penalty, error) ||
        !field_whole(record, "top_k", least, INT32_MAX, &out->top_k, error) ||
        !field_whole(record, "seed", least, INT64_MAX, &out->seed, error))
        return false;
    if (out->top_k.value < 0) out->top_k.value = 0;
    return true;
}
