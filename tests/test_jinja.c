/* SPDX-License-Identifier: Apache-2.0 */
/* The template interpreter: vectors rendered by transformers' Jinja, refusals by line and construct, limits. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/base/json.h"
#include "../src/jinja/jinja.h"
#include "support/cmocka_all.h"

static qn_status render(const char *source, size_t size, const json_t *variables, qn_prompt *prompt, qn_error *err) {
    qni_jinja *jinja = NULL;
    qni_jinja_var vars[64];
    size_t n = 0;
    const char *name;
    json_t *value, *object = (json_t *)variables;
    qn_status status = qni_jinja_parse(&jinja, "chat template", source, size, err);
    if (status != QN_OK) return status;
    json_object_foreach(object, name, value) {
        assert_true(n < 64);
        vars[n++] = (qni_jinja_var){.name = name, .value = value};
    }
    const qni_jinja_time now = {2024, 7, 6, 13, 5, 9, 42}; /* the time used for the vectors */
    status = qni_jinja_render(jinja, prompt, vars, n, &now, err);
    qni_jinja_free(jinja);
    return status;
}

/* Line 1 of the file has the variables of all records without their own. A record without a text must be an error here
 * too. */
static void test_vectors(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/text/jinja.jsonl", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t room = 0;
    json_t *common = NULL;
    int n = 0;
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
        json_t *record = NULL;
        assert_int_equal(qni_json_parse(&record, "record", line, (size_t)size, NULL), QN_OK);
        const json_t *template = json_object_get(record, "template"), *want = json_object_get(record, "text");
        const json_t *variables = json_object_get(record, "variables");
        if (template == NULL) {
            common = json_incref(json_object_get(record, "variables"));
        } else {
            qn_prompt prompt = {0};
            qn_error err = {0};
            const char *source = json_string_value(template);
            qn_status status =
                render(source, json_string_length(template), variables != NULL ? variables : common, &prompt, &err);
            if (want == NULL) {
                if (status == QN_OK) fail_msg("%s: got \"%s\", wanted an error", source, prompt.text.data);
            } else if (status != QN_OK) {
                fail_msg("%s: %s", source, err.message);
            } else if (prompt.text.size != json_string_length(want) ||
                       memcmp(prompt.text.data, json_string_value(want), prompt.text.size) != 0) {
                fail_msg("%s: got \"%s\", wanted \"%s\"", source, prompt.text.data, json_string_value(want));
            }
            qn_prompt_release(&prompt);
            n++;
        }
        json_decref(record);
    }
    assert_true(n > 900);
    json_decref(common);
    free(line);
    fclose(file);
}

static const struct {
    const char *source;
    qn_status status;
    const char *message;
} refused[] = {
    {"a\n{{ x | xmlattr }}", QN_EUNSUPPORTED, "chat template line 2: filter \"xmlattr\" is not supported"},
    {"{{ x is foo }}", QN_EUNSUPPORTED, "chat template line 1: test \"foo\" is not supported"},
    {"\n\n{% block a %}{% endblock %}", QN_EUNSUPPORTED, "chat template line 3: statement \"block\" is not supported"},
    {"{% include 'x' %}", QN_EUNSUPPORTED, "chat template line 1: statement \"include\" is not supported"},
    {"{% foo %}", QN_EFORMAT, "chat template line 1: unknown statement \"foo\""},
    {"{{ lipsum(1) }}", QN_EUNSUPPORTED, "chat template line 1: \"lipsum\" is not supported"},
    {"{{ strftime_now('%5d') }}", QN_EUNSUPPORTED, "chat template line 1: strftime_now: the directive %5"},
    {"{{ '{:{}}'.format(1, 2) }}", QN_EUNSUPPORTED, "chat template line 1: format(): a field in a field"},
    {"{{ '{:.2}'.format(1.5) }}", QN_EUNSUPPORTED, "chat template line 1: the format specification \".2\""},
    {"{{ '{:08,x}'.format(1234) }}", QN_EUNSUPPORTED, "chat template line 1: the format specification \"08,x\""},
    {"{{ '[1' | from_json }}", QN_EINVAL, NULL},
    {"{% for x in y recursive %}{% endfor %}", QN_EUNSUPPORTED,
     "chat template line 1: a recursive for loop is not supported"},
    {"{{ x.__class__ }}", QN_EUNSUPPORTED, "chat template line 1: attribute \"__class__\" is not supported"},
    {"{{ f(*a) }}", QN_EUNSUPPORTED, "chat template line 1: * in a call is not supported"},
    {"{{ a|map('nope') }}", QN_EUNSUPPORTED, "chat template line 1: filter \"nope\" is not supported"},
    {"{{ a|tojson(foo=1) }}", QN_EUNSUPPORTED,
     "chat template line 1: filter \"tojson\": argument \"foo\" is not supported"},
    {"{{ 99999999999999999999 }}", QN_EUNSUPPORTED, "chat template line 1: an integer beyond 64 bits"},
    {"{% if x %}", QN_EFORMAT, "chat template line 1: the template ends before \"endif\""},
    {"{{ x", QN_EFORMAT, "chat template line 1: a tag has no end"},
    {"{{ (x] }}", QN_EFORMAT, "chat template line 1: a closing bracket that does not fit"},
    {"{% break %}", QN_EFORMAT, "chat template line 1: break outside a loop"},
    {"a\n{{ x.center(1) }}", QN_EUNSUPPORTED, "chat template line 2: method \"center\" is not supported"},
    {"{{ 'x }}", QN_EFORMAT, "chat template line 1: a string has no end"},
    {"{# x", QN_EFORMAT, "chat template line 1: a comment has no end"},
    {"{% raw %}", QN_EFORMAT, "chat template line 1: a raw block has no end"},
    {"{{ }}", QN_EFORMAT, "chat template line 1: unexpected }}"},
    {"\xFF", QN_EFORMAT, "chat template: no UTF-8 at byte 0"},
    /* at run time */
    {"\n{{ x.y }}", QN_EINVAL, "chat template line 2: 'x' is undefined"},
    {"{{ none + 'a' }}", QN_EINVAL, "chat template line 1: '+' between a None and a string"},
    {"{{ raise_exception('no\nway') }}", QN_EINVAL, "chat template line 1: the template refuses: no?way"},
    {"{{ [].append(1) }}", QN_EINVAL, "chat template line 1: 'append' is undefined"},
    {"{{ 9223372036854775807 + 1 }}", QN_EUNSUPPORTED, "chat template line 1: an integer beyond 64 bits"},
    {"{{ ('9' * 80) | int }}", QN_EUNSUPPORTED, "chat template line 1: a number of 80 characters"},
    {"{{ range(100001) }}", QN_EFULL, "chat template line 1: range() of more than 100000 items"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", QN_EFULL, "chat template line 1: nests too deep"},
    {"{% set r = range(10000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}", QN_EFULL,
     "chat template line 1: more than 50000000 steps"},
    {"{{ 'x' * 100000000 }}", QN_EFULL, "chat template line 1: the text grows beyond 67108864 bytes"},
    {"{% set n = namespace(x=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}", QN_EFULL,
     "chat template line 1: values nest deeper than 200"},
    {"{% set n = namespace(x='y' * 1000) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor %}", QN_EFULL,
     "chat template line 1: the values need more than 536870912 bytes"},
};

static void test_unsupported_templates(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        qn_prompt prompt = {0};
        qn_error err = {0};
        qn_status status = render(refused[i].source, strlen(refused[i].source), NULL, &prompt, &err);
        if (status != refused[i].status ||
            (refused[i].message != NULL && strcmp(err.message, refused[i].message) != 0)) {
            fail_msg("%s: got %s, \"%s\"", refused[i].source, qn_status_name(status), err.message);
        }
        assert_int_equal(err.status, status);
        assert_int_equal(prompt.text.size, 0);
        qn_prompt_release(&prompt);
    }
}

/* `n` copies of a piece, between a start and an end. */
static char *repeated(const char *start, const char *piece, size_t n, const char *end) {
    size_t size = strlen(piece), total = strlen(start) + n * size + strlen(end) + 1;
    char *text = malloc(total);
    assert_non_null(text);
    char *to = stpcpy(text, start);
    for (size_t i = 0; i < n; i++) to = stpcpy(to, piece);
    stpcpy(to, end);
    return text;
}

static void test_depth(void **state) {
    (void)state;
    static const struct {
        const char *start, *piece, *end;
    } cases[] = {
        {"{{ ", "(", "1 }}"},         {"{{ ", "[", "1 }}"},
        {"{{ ", "not ", "1 }}"},      {"{{ ", "-", "1 }}"},
        {"{{ 1", "+1", " }}"},        {"{{ x", ".a", " }}"},
        {"{{ x", "|trim", " }}"},     {"", "{% if 1 %}", ""},
        {"", "{% for x in y %}", ""}, {"{{ ", "1 if 1 else ", "1 }}"},
        {"{{ 1 ", "if 1 ", "}}"},     {"{{ x", "()", " }}"},
        {"{{ 1", " and 1", " }}"},    {"{{ 1", "**1", " }}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *source = repeated(cases[i].start, cases[i].piece, 20000, cases[i].end);
        qn_prompt prompt = {0};
        qn_error err = {0};
        assert_int_equal(render(source, strlen(source), NULL, &prompt, &err), QN_EUNSUPPORTED);
        qn_prompt_release(&prompt);
        free(source);
    }
    char *source = repeated("", "xy", 600000, "");
    qn_error err = {0};
    qni_jinja *jinja = NULL;
    assert_int_equal(qni_jinja_parse(&jinja, "chat template", source, strlen(source), &err), QN_EUNSUPPORTED);
    assert_string_equal(err.message, "chat template: 1200000 bytes, more than the 1048576 that a template may have");
    free(source);
}

/* Text already in the prompt stays; on an error nothing is added. */
static void test_append(void **state) {
    (void)state;
    qn_prompt prompt = {0};
    qn_error err = {0};
    assert_int_equal(render("a{{ 1 }}", 8, NULL, &prompt, &err), QN_OK);
    assert_int_equal(render("b{{ x.y }}", 10, NULL, &prompt, &err), QN_EINVAL);
    assert_string_equal(prompt.text.data, "a1");
    assert_int_equal(render("c\0d", 3, NULL, &prompt, &err), QN_OK);
    assert_int_equal(prompt.text.size, 5);
    assert_memory_equal(prompt.text.data, "a1c\0d", 6);
    qn_prompt_release(&prompt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_unsupported_templates),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
