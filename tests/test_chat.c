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

static qn_status render_record(const qn_chat_template *t, qn_prompt *prompt, const json_t *record, qn_error *err) {
    char *messages = json_dumps(json_object_get(record, "messages"), JSON_ENCODE_ANY);
    char *tools = json_dumps(json_object_get(record, "tools"), JSON_ENCODE_ANY);
    const json_t *think = json_object_get(record, "enable_thinking");
    qn_chat_input input = {
        .messages = messages,
        .tools = tools,
        .add_generation_prompt = json_is_true(json_object_get(record, "add_generation_prompt")),
    };
    /* As a variable, which a template need not read. */
    if (json_is_boolean(think))
        input.kwargs = json_is_true(think) ? "{\"enable_thinking\": true}" : "{\"enable_thinking\": false}";
    qn_status status = qn_chat_render(t, prompt, &input, err);
    free(messages);
    free(tools);
    return status;
}

static void expect_record(const qn_chat_template *t, const json_t *record, int line) {
    qn_error err = {0};
    qn_prompt prompt = {0};
    const json_t *want = json_object_get(record, "text");
    qn_status status = render_record(t, &prompt, record, &err);
    if (want == NULL) { /* transformers refused it too */
        assert_int_not_equal(status, QN_OK);
    } else {
        if (status != QN_OK) fail_msg("record %d: %s", line, err.message);
        if (prompt.text.size != json_string_length(want) ||
            memcmp(prompt.text.data, json_string_value(want), prompt.text.size) != 0) {
            fail_msg("record %d: got\n%s\nwanted\n%s", line, prompt.text.data, json_string_value(want));
        }
    }
    qn_prompt_release(&prompt);
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

/* A directory with the given files, and a template over it; removed again. */
static qn_status open_with(const char *jinja, const char *config, qn_chat_template **t, qn_error *err) {
    char dir[] = "/tmp/quern-chat-XXXXXX", path[64];
    const char *names[] = {"chat_template.jinja", "tokenizer_config.json"}, *texts[] = {jinja, config};
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        if (texts[i] == NULL) continue;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(texts[i], file);
        fclose(file);
    }
    qn_status status = qn_chat_template_open(t, dir, err);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return status;
}

static void expect_open(const char *jinja, const char *config, const char *tools, const char *want) {
    qn_chat_template *t = NULL;
    qn_error err = {0};
    qn_prompt prompt = {0};
    qn_chat_input input = {.messages = "[{\"role\": \"user\", \"content\": \"q\"}]", .tools = tools};
    if (open_with(jinja, config, &t, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_chat_render(t, &prompt, &input, &err) != QN_OK) fail_msg("%s", err.message);
    assert_string_equal(prompt.text.data, want);
    qn_prompt_release(&prompt);
    qn_chat_template_close(t);
}

static void test_sources(void **state) {
    (void)state;
    static const char named[] =
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"default\", "
        "\"template\": \"D\"}]}";
    expect_open("J", "{\"chat_template\": \"C\"}", NULL, "J");
    expect_open(NULL, "{\"chat_template\": \"C\"}", NULL, "C");
    expect_open(NULL, named, NULL, "D");
    expect_open(NULL, named, "null", "D");
    expect_open(NULL, named, "[]", "T");
    expect_open(
        "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}|{{ additional_special_tokens }}",
        "{\"bos_token\": null, \"eos_token\": {\"content\": \"<e>\"}, \"additional_special_tokens\": [\"<a>\"]}", NULL,
        "|<e>|False|['<a>']");
    expect_open("{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}", NULL, NULL,
                "TrueTrueFalse");
}

static void test_no_template(void **state) {
    (void)state;
    static const struct {
        const char *jinja, *config;
        qn_status status;
        const char *message; /* its end */
    } cases[] = {
        {NULL, NULL, QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{}", QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{\"chat_template\": []}", QN_EUNSUPPORTED, ": no chat template is named \"default\""},
        {NULL, "{\"chat_template\": 1}", QN_EFORMAT, ": chat_template must be a string or a list"},
        {NULL, "{\"chat_template\": [1]}", QN_EFORMAT, ": chat_template[0] must have a name and a template"},
        {NULL, "[]", QN_EFORMAT, ": must be an object"},
        {NULL, "{\"chat_template\": \"\\n{{ x|nope }}\"}", QN_EUNSUPPORTED, "line 2: filter \"nope\" is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_template *t = NULL;
        qn_error err = {0};
        assert_int_equal(open_with(cases[i].jinja, cases[i].config, &t, &err), cases[i].status);
        assert_null(t);
        size_t n = strlen(err.message), m = strlen(cases[i].message);
        if (n < m || strcmp(err.message + n - m, cases[i].message) != 0) fail_msg("case %zu: %s", i, err.message);
    }
    qn_chat_template *t = NULL;
    assert_int_equal(qn_chat_template_open_file(&t, "/tmp/no/such/file", NULL, NULL), QN_EIO);
    assert_int_equal(qn_chat_template_open(NULL, "x", NULL), QN_EINVAL);
}

static qn_status render_with(const char *source, const char *messages, const char *tools, qn_prompt *prompt,
                             qn_error *err) {
    qn_chat_template *t = NULL;
    if (open_with(source, NULL, &t, err) != QN_OK) fail_msg("%s", err->message);
    qn_status status = qn_chat_render(t, prompt, &(qn_chat_input){.messages = messages, .tools = tools}, err);
    qn_chat_template_close(t);
    return status;
}

static void test_order(void **state) {
    (void)state;
    static const char show[] =
        "{% for m in messages %}{{ m.role }}:{{ m.content|tojson }}:{{ m.reasoning_content }};{% endfor %}";
    static const struct {
        const char *messages, *want;
    } cases[] = {
        {"[]", ""},
        {"[{\"role\": \"assistant\", \"content\": null}, {\"role\": \"assistant\"}]",
         "assistant:\"\":;assistant:\"\":;"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, \"b\", {\"text\": \"\\u0000\"}]}]",
         "user:\"ab\\u0000\":;"},
        {"[{\"role\": \"developer\", \"content\": \"x\"}]", "system:\"x\":;"},
        {"[{\"role\": \"tool\", \"content\": \"x\", \"reasoning\": \"r\"}]", "tool:\"x\":r;"},
        {"[{\"role\": \"tool\", \"content\": \"x\", \"reasoning\": \"r\", \"reasoning_content\": \"s\"}]",
         "tool:\"x\":s;"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_prompt prompt = {0};
        qn_error err = {0};
        if (render_with(show, cases[i].messages, NULL, &prompt, &err) != QN_OK) fail_msg("%s", err.message);
        assert_string_equal(prompt.text.data, cases[i].want);
        qn_prompt_release(&prompt);
    }
}

static void test_bad_input(void **state) {
    (void)state;
    static const struct {
        const char *messages, *tools, *message;
    } cases[] = {
        {"{}", NULL, "messages must be a list"},
        {"[1]", NULL, "messages[0] must be an object"},
        {"[{}]", NULL, "messages[0].role must be a string"},
        {"[{\"role\": \"bot\"}]", NULL,
         "messages[0].role: \"bot\" is none of system, developer, user, assistant, tool"},
        {"[{\"role\": \"user\", \"content\": 1}]", NULL,
         "messages[0].content must be a string, a list of parts or null"},
        {"[{\"role\": \"user\"}, {\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", NULL,
         "messages[1].content[0]: an image cannot be read by this model"},
        {"[{\"role\": \"user\", \"content\": [\"a\", {\"type\": \"input_audio\"}]}]", NULL,
         "messages[0].content[1]: audio cannot be read by this model"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", NULL,
         "messages[0].content[0].text must be a string"},
        {"[]", "{}", "tools must be a list or null"},
        {"[]", "[1]", "tools[0] must be an object"},
        {"[", NULL, NULL},
        {"[]", "[99999999999999999999]", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_prompt prompt = {0};
        qn_error err = {0};
        assert_int_equal(render_with("", cases[i].messages, cases[i].tools, &prompt, &err), QN_EINVAL);
        assert_int_equal(err.status, QN_EINVAL);
        if (cases[i].message != NULL) assert_string_equal(err.message, cases[i].message);
        assert_int_equal(prompt.text.size, 0);
        qn_prompt_release(&prompt);
    }
    qn_error err = {0};
    assert_int_equal(qn_chat_render(NULL, NULL, NULL, &err), QN_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_golden), cmocka_unit_test(test_published_golden),
        cmocka_unit_test(test_sources),    cmocka_unit_test(test_no_template),
        cmocka_unit_test(test_order),      cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
