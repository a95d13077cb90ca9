/* SPDX-License-Identifier: Apache-2.0 */
/* Chat templates: golden renders, opening from a directory, normalizing messages, refusals. */
#include "support/cmocka_all.h"

#include <quern/chat.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The next line of a file of JSON records, or NULL at the end. */
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
    /* Passed as a variable, which a template need not read. */
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
    if (want == NULL) { /* transformers also refused it */
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

static void test_small_template_golden(void **state) {
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

/* Files of a temporary directory made for one template. */
typedef struct dir_file {
    const char *name, *text;
} dir_file;

static qn_status open_files(const dir_file *files, size_t n, qn_chat_template **t, qn_error *err) {
    char dir[] = "/tmp/quern-chat-XXXXXX", path[96], sub[96];
    assert_non_null(mkdtemp(dir));
    snprintf(sub, sizeof sub, "%s/additional_chat_templates", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    for (size_t i = 0; i < n; i++) {
        if (files[i].text == NULL) continue;
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(files[i].text, file);
        fclose(file);
    }
    qn_status status = qn_chat_template_open(t, dir, err);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        unlink(path);
    }
    rmdir(sub);
    rmdir(dir);
    return status;
}

static qn_status open_with(const char *jinja, const char *config, qn_chat_template **t, qn_error *err) {
    const dir_file files[] = {{"chat_template.jinja", jinja}, {"tokenizer_config.json", config}};
    return open_files(files, 2, t, err);
}

/* Open a directory with these files, and compare a render with these tools. */
static void expect_files(const dir_file *files, size_t n, const char *tools, const char *want) {
    qn_chat_template *t = NULL;
    qn_error err = {0};
    qn_prompt prompt = {0};
    qn_chat_input input = {.messages = "[{\"role\": \"user\", \"content\": \"q\"}]", .tools = tools};
    if (open_files(files, n, &t, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_chat_render(t, &prompt, &input, &err) != QN_OK) fail_msg("%s", err.message);
    assert_string_equal(prompt.text.data, want);
    qn_prompt_release(&prompt);
    qn_chat_template_close(t);
}

static void expect_open(const char *jinja, const char *config, const char *tools, const char *want) {
    const dir_file files[] = {{"chat_template.jinja", jinja}, {"tokenizer_config.json", config}};
    expect_files(files, 2, tools, want);
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
    expect_open(NULL,
                "{\"chat_template\": [{\"name\": \"default\", \"template\": \"1\"}, {\"name\": \"default\", "
                "\"template\": \"2\"}]}",
                NULL, "2");
    expect_open(NULL, "{\"chat_template\": {\"default\": \"D\", \"tool_use\": \"T\"}}", "[]", "T");
    expect_open("{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}", NULL, NULL,
                "TrueTrueFalse");
}

/* With only a template for tools, a render without tools is refused and the message names the available templates. */
static void expect_no_default(const dir_file *files, size_t n) {
    qn_chat_template *t = NULL;
    qn_error err = {0};
    qn_prompt prompt = {0};
    const qn_chat_input input = {.messages = "[{\"role\": \"user\", \"content\": \"q\"}]"};
    assert_int_equal(open_files(files, n, &t, &err), QN_OK);
    assert_false(qn_chat_template_reads(t, "enable_thinking"));
    assert_int_equal(qn_chat_render(t, &prompt, &input, &err), QN_EUNSUPPORTED);
    assert_string_equal(err.message,
                        "chat template: there is \"tool_use\", for calls with tools, and none named \"default\"");
    qn_prompt_release(&prompt);
    qn_chat_template_close(t);
}

/* A file or a dangling link in place of the directory. */
static void test_additional_not_a_directory(void **state) {
    (void)state;
    for (int is_link = 0; is_link < 2; is_link++) {
        char dir[] = "/tmp/quern-chat-XXXXXX", path[96], want[160];
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
        FILE *file = is_link ? NULL : fopen(path, "w");
        if (is_link) assert_int_equal(symlink("nowhere", path), 0);
        if (file != NULL) fclose(file);
        snprintf(want, sizeof want, "%s: %s", path, is_link ? "No such file or directory" : "Not a directory");
        qn_chat_template *t = NULL;
        qn_error err = {0};
        assert_int_equal(qn_chat_template_open(&t, dir, &err), QN_EIO);
        assert_string_equal(err.message, want);
        unlink(path);
        rmdir(dir);
    }
}

/* Named templates as saved by transformers 5; they replace those of tokenizer_config.json. */
static void test_additional_templates(void **state) {
    (void)state;
    static const char config[] = "{\"chat_template\": [{\"name\": \"default\", \"template\": \"C\"}, {\"name\": "
                                 "\"tool_use\", \"template\": \"CT\"}]}";
    const dir_file both[] = {{"chat_template.jinja", "D"},
                             {"additional_chat_templates/tool_use.jinja", "T"},
                             {"additional_chat_templates/rag.jinja", "{{ x | unknown }}"},
                             {"tokenizer_config.json", config}};
    expect_files(both, 4, NULL, "D");
    expect_files(both, 4, "[]", "T");
    const dir_file own[] = {{"chat_template.jinja", "D"}, {"additional_chat_templates/default.jinja", "A"}};
    expect_files(own, 2, "[]", "A");
    const dir_file replaced[] = {{"chat_template.jinja", "D"}, {"tokenizer_config.json", config}};
    expect_files(replaced, 2, "[]", "D");
    const dir_file alone[] = {{"additional_chat_templates/tool_use.jinja", "T"}, {"tokenizer_config.json", config}};
    qn_chat_template *t = NULL;
    qn_error err = {0};
    expect_files(alone, 2, "[]", "T");
    expect_no_default(alone, 2);
    const dir_file listed[] = {
        {"tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}]}"}};
    expect_files(listed, 1, "[]", "T");
    expect_no_default(listed, 1);
    const dir_file other[] = {{"additional_chat_templates/rag.jinja", "R"}, {"tokenizer_config.json", config}};
    assert_int_equal(open_files(other, 2, &t, &err), QN_EUNSUPPORTED);
    assert_non_null(strstr(err.message, ": its chat template is named \"rag\", not \"default\" or \"tool_use\""));
    const dir_file processor[] = {{"chat_template.json", "{\"chat_template\": \"x\"}"}};
    assert_int_equal(open_files(processor, 1, &t, &err), QN_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "chat_template.json is read by processors of images only: no chat template"));
}

/* Expected values: special_tokens_map of AutoTokenizer, transformers 5.24, for the same files. */
static void test_token_variables(void **state) {
    (void)state;
    static const char show[] =
        "{% set d = '-' %}{{ bos_token|d(d) }} {{ eos_token|d(d) }} {{ unk_token|d(d) }} "
        "{{ pad_token|d(d) }} {{ image_token|d(d) }} {{ x|d(d) }} {{ additional_special_tokens|d(d) }}";
    static const struct {
        const char *config, *map, *model, *want;
    } cases[] = {
        {NULL, NULL, NULL, "- - - - - - -"},
        {NULL, NULL, "{\"model_type\": \"qwen3\"}", "- <|endoftext|> <|endoftext|> <|endoftext|> - - -"},
        {NULL, NULL, "{\"model_type\": \"llama\"}", "- - - - - - -"},
        {"{}", NULL, "{\"model_type\": \"qwen3\", \"tokenizer_class\": \"PreTrainedTokenizerFast\"}", "- - - - - - -"},
        {"{\"tokenizer_class\": \"Qwen2Tokenizer\"}", NULL, NULL, "- <|endoftext|> <|endoftext|> <|endoftext|> - - -"},
        {"{\"tokenizer_class\": \"Qwen2TokenizerFast\", \"unk_token\": null, \"eos_token\": \"<e>\"}", NULL, NULL,
         "- <e> - <|endoftext|> - - -"},
        {"{\"tokenizer_class\": \"GPT2Tokenizer\"}", NULL, NULL, "<|endoftext|> <|endoftext|> <|endoftext|> - - - -"},
        {"{\"tokenizer_class\": \"LlamaTokenizer\"}", NULL, "{\"model_type\": \"qwen3\"}", "- - - - - - -"},
        {"{\"extra_special_tokens\": {\"image_token\": \"<i>\", \"x\": \"<x>\"}}", NULL, NULL, "- - - - <i> <x> -"},
        {"{\"extra_special_tokens\": [\"<i>\"], \"additional_special_tokens\": [\"<a>\"]}", NULL, NULL,
         "- - - - - - -"},
        {"{\"image_token\": \"<i>\", \"x\": \"<x>\"}", NULL, NULL, "- - - - <i> - -"},
        {"{\"image_token\": {\"content\": \"<i>\"}}", NULL, NULL, "- - - - - - -"},
        {"{\"image_token\": {\"content\": \"<i>\", \"__type\": \"AddedToken\"}}", NULL, NULL, "- - - - <i> - -"},
        {"{\"eos_token\": {\"content\": \"<e>\", \"__type\": \"AddedToken\"}, \"bos_token\": \"\"}", NULL, NULL,
         " <e> - - - - -"},
        {"{\"eos_token\": \"<e>\"}", "{\"eos_token\": {\"content\": \"<m>\"}, \"image_token\": \"<i>\"}", NULL,
         "- <m> - - <i> - -"},
        {"{\"eos_token\": \"<e>\", \"added_tokens_decoder\": {}}", "{\"eos_token\": \"<m>\"}", NULL, "- <e> - - - - -"},
        {"{\"eos_token\": \"<e>\"}", "{\"eos_token\": null, \"extra_special_tokens\": {\"x\": \"<x>\"}}", NULL,
         "- - - - - <x> -"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const dir_file files[] = {{"chat_template.jinja", show},
                                  {"tokenizer_config.json", cases[i].config},
                                  {"special_tokens_map.json", cases[i].map},
                                  {"config.json", cases[i].model}};
        expect_files(files, 4, NULL, cases[i].want);
    }
    qn_chat_template *t = NULL;
    qn_error err = {0};
    assert_int_equal(open_with("x", "{\"eos_token\": 5}", &t, &err), QN_EFORMAT);
    assert_string_equal(err.message, "tokenizer_config.json: eos_token must be a string or null");
}

static void test_no_template(void **state) {
    (void)state;
    static const struct {
        const char *jinja, *config;
        qn_status status;
        const char *message; /* end of the message */
    } cases[] = {
        {NULL, NULL, QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{}", QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{\"chat_template\": []}", QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{\"chat_template\": {}}", QN_EUNSUPPORTED, ": no chat template"},
        {NULL, "{\"chat_template\": {\"rag\": \"R\", \"a\\u001b\\nb\": \"x\"}}", QN_EUNSUPPORTED,
         ": its chat templates are named \"rag\", \"a??b\"; none is \"default\" or \"tool_use\""},
        {NULL, "{\"chat_template\": [{\"name\": \"no chat template\", \"template\": \"x\"}]}", QN_EUNSUPPORTED,
         ": its chat template is named \"no chat template\", not \"default\" or \"tool_use\""},
        {NULL,
         "{\"chat_template\": {\"1\": \"\", \"2\": \"\", \"3\": \"\", \"4\": \"\", \"5\": \"\", "
         "\"abcdefghijabcdefghijabcdefghijabcd\": \"\", \"7\": \"\", \"8\": \"\"}}",
         QN_EUNSUPPORTED,
         ": its chat templates are named \"1\", \"2\", \"3\", \"4\", \"5\", "
         "\"abcdefghijabcdefghijabcdefghijab\", …; none is \"default\" or \"tool_use\""},
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
        {"[{\"role\": \"user\", \"prefix\": false, \"partial\": null, \"images\": [], \"audio\": {}, "
         "\"function_call\": 0.0}]",
         "user:\"\":;"},
        {"[{\"role\": \"assistant\", \"content\": null}, {\"role\": \"assistant\"}]",
         "assistant:\"\":;assistant:\"\":;"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, \"b\", {\"text\": \"\\u0000\"}]}]",
         "user:\"ab\\u0000\":;"},
        {"[{\"role\": \"developer\", \"content\": \"x\"}]", "system:\"x\":;"},
        {"[{\"role\": \"tool\", \"content\": \"x\", \"reasoning\": \"r\", \"name\": null}]", "tool:\"x\":r;"},
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
        {"[{\"role\": \"user\"}, {\"role\": \"assistant\", \"prefix\": true}]", NULL,
         "messages[1].prefix: is not offered; continue_final_message continues the last message"},
        {"[{\"role\": \"user\", \"images\": [\"x\"]}]", NULL,
         "messages[0].images: an image cannot be read by this model"},
        {"[{\"role\": \"user\", \"partial\": 99999999999999999999}]", NULL,
         "messages[0].partial: is not offered; continue_final_message continues the last message"},
        {"[]", "{}", "tools must be a list or null"},
        {"[]", "[1]", "tools[0] must be an object"},
        {"[", NULL, NULL},
        {"[]", "[99999999999999999999]", "tools[0] must be an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_prompt prompt = {0};
        qn_error err = {0};
        assert_int_equal(render_with("x", cases[i].messages, cases[i].tools, &prompt, &err), QN_EINVAL);
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
        cmocka_unit_test(test_small_template_golden),
        cmocka_unit_test(test_published_golden),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_additional_templates),
        cmocka_unit_test(test_additional_not_a_directory),
        cmocka_unit_test(test_token_variables),
        cmocka_unit_test(test_no_template),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
