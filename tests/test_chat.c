/* SPDX-License-Identifier: Apache-2.0 */
/* Chat templates: golden renders, opening from a directory, putting messages in order, refusals. */
#include <quern/chat.h>

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* One line of a file of JSON records, or NULL at the end. */
static json_t *next_record(FILE *file) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n = getline(&line, &room, file);
    json_t *record = n > 0 ? json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL) : NULL;
    if (n > 0) assert_non_null(record);
    free(line);
    return record;
}

static qn_status render_record(const qn_chat_template *t, qn_text *text, const json_t *record, qn_error *err) {
    char *messages = json_dumps(json_object_get(record, "messages"), JSON_ENCODE_ANY);
    char *tools = json_dumps(json_object_get(record, "tools"), JSON_ENCODE_ANY);
    const json_t *think = json_object_get(record, "enable_thinking");
    qn_chat_input input = {
        .messages = messages,
        .tools = tools,
        .add_generation_prompt = json_is_true(json_object_get(record, "add_generation_prompt")),
        .think = json_is_true(think)    ? QN_THINK_ON
                 : json_is_false(think) ? QN_THINK_OFF
                                        : QN_THINK_AUTO,
    };
    qn_status status = qn_chat_render(t, text, &input, err);
    free(messages);
    free(tools);
    return status;
}

static void expect_record(const qn_chat_template *t, const json_t *record, int line) {
    qn_error err = {0};
    qn_text text = {0};
    const json_t *want = json_object_get(record, "text");
    qn_status status = render_record(t, &text, record, &err);
    if (want == NULL) { /* transformers refused it too */
        assert_int_not_equal(status, QN_OK);
    } else {
        if (status != QN_OK) fail_msg("record %d: %s", line, err.message);
        if (text.size != json_string_length(want) || memcmp(text.data, json_string_value(want), text.size) != 0) {
            fail_msg("record %d: got\n%s\nwanted\n%s", line, text.data, json_string_value(want));
        }
    }
    qn_text_release(&text);
}

static void test_own_golden(void **state) {
    (void)state;
    qn_chat_template *t = NULL;
    qn_error err = {0};
    assert_int_equal(qn_chat_template_open(&t, "tests/data/tokenizer", &err), QN_OK);
    FILE *file = fopen("tests/data/text/chat_template.jsonl", "r");
    assert_non_null(file);
    int n = 0;
    for (json_t *record; (record = next_record(file)) != NULL; json_decref(record)) expect_record(t, record, ++n);
    assert_int_equal(n, 168);
    fclose(file);
    qn_chat_template_close(t);
}

static void test_published_golden(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/text/templates.jsonl", "r");
    assert_non_null(file);
    qn_chat_template *t = NULL;
    char open_name[64] = "";
    int n = 0;
    for (json_t *record; (record = next_record(file)) != NULL; json_decref(record)) {
        const char *name = json_string_value(json_object_get(record, "template"));
        qn_error err = {0};
        if (strcmp(name, open_name) != 0) {
            char path[256];
            qn_chat_template_close(t);
            t = NULL;
            snprintf(open_name, sizeof open_name, "%s", name);
            snprintf(path, sizeof path, "tests/data/text/templates/%s.jinja", name);
            qn_status status = qn_chat_template_open_file(&t, path, "tests/data/tokenizer", &err);
            if (status != QN_OK) fail_msg("%s: %s", path, err.message);
        }
        expect_record(t, record, ++n);
    }
    assert_int_equal(n, 360);
    fclose(file);
    qn_chat_template_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_golden),
        cmocka_unit_test(test_published_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
