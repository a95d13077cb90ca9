/* SPDX-License-Identifier: Apache-2.0 */
/* Stack: no template, however deep, needs more than 64 KB of it, and the nesting of published templates fits easily.
 * Each render runs on a thread whose stack is filled with a pattern first, so that its use can be measured. */
#include <quern/chat.h>

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../src/base/stack.h"

/* What a render may use, and what the thread itself needs. */
enum { ALLOWED = (64 << 10) * QNI_STACK_SCALE, THREAD = 32 << 10, PAINT = 0xA5 };

typedef struct task {
    const char *path;
    const qn_chat_input *input;
    qn_status status;
    qn_error err;
    qn_prompt prompt;
    uintptr_t start;
} task;

static void *work(void *user) {
    task *t = user;
    qn_chat_template *chat_template = NULL;
    t->start = qni_stack_here();
    t->status = qn_chat_template_open_file(&chat_template, t->path, "tests/data/tokenizer", &t->err);
    if (t->status == QN_OK) t->status = qn_chat_render(chat_template, &t->prompt, t->input, &t->err);
    qn_chat_template_close(chat_template);
    return NULL;
}

/* Run the task; returns the bytes of stack used. */
static size_t run_painted(task *t) {
    size_t size = ALLOWED + THREAD;
    unsigned char *stack = NULL;
    pthread_attr_t attr;
    pthread_t thread;
    assert_int_equal(posix_memalign((void **)&stack, 4096, size), 0);
    memset(stack, PAINT, size);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, size), 0);
    assert_int_equal(pthread_create(&thread, &attr, work, t), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    size_t untouched = 0;
    while (untouched < size && stack[untouched] == PAINT) untouched++;
    size_t used = (size_t)(t->start - (uintptr_t)(stack + untouched));
    free(stack);
    return used;
}

static void expect_source(const char *what, const char *source, const qn_chat_input *input, bool fits) {
    char path[] = "/tmp/quern-stack-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, source, strlen(source)), (ssize_t)strlen(source));
    close(fd);
    task t = {.path = path, .input = input};
    size_t used = run_painted(&t);
    unlink(path);
    if (getenv("QUERN_STACK") != NULL)
        fprintf(stderr, "%8zu %-40s %s\n", used, what, t.status == QN_OK ? "" : t.err.message);
    if (used > ALLOWED) fail_msg("%s: %zu bytes of stack, more than %d", what, used, (int)ALLOWED);
    if (fits && t.status != QN_OK) fail_msg("%s: %s", what, t.err.message);
    if (t.status != QN_OK && t.status != QN_EFULL && t.status != QN_EUNSUPPORTED && t.status != QN_EINVAL)
        fail_msg("%s: %s", what, t.err.message);
    qn_prompt_release(&t.prompt);
}

/* `n` copies of an opening and of a closing piece around the middle, after a start. */
static char *nested(const char *start, const char *open, const char *middle, const char *close, size_t n,
                    const char *end) {
    char *text = malloc(strlen(start) + n * (strlen(open) + strlen(close)) + strlen(middle) + strlen(end) + 1);
    assert_non_null(text);
    char *to = stpcpy(text, start);
    for (size_t i = 0; i < n; i++) to = stpcpy(to, open);
    to = stpcpy(to, middle);
    for (size_t i = 0; i < n; i++) to = stpcpy(to, close);
    stpcpy(to, end);
    return text;
}

static const struct {
    const char *start, *open, *middle, *close, *end;
} shapes[] = {
    {"{{ ", "(", "1", ")", " }}"},
    {"{{ ", "[", "1", "]", " }}"},
    {"{{ ", "[", "1", "]", " | tojson }}"},
    {"{{ ", "{1: ", "2", "}", " | tojson }}"},
    {"{{ ", "{(1,): ", "2", "}", " }}"},
    {"{{ {", "(", "1", ",)", ": 1} }}"},
    {"{{ ", "(1 + ", "1.5", ")", " }}"},
    {"{{ ", "(1 < ", "1", ")", " }}"},
    {"{{ ", "(1 if ", "1", " else 0)", " }}"},
    {"{{ ", "x[1:", "1", "]", " }}"},
    {"{{ ", "(1 ~ ", "1", ")", " }}"},
    {"{{ ", "dict(a=", "1", ")", " }}"},
    {"{{ ", "'a'.join([", "'{:.20f}'.format(1e300)", "])", " }}"},
    {"{{ ", "(0 or ", "raise_exception('x')", ")", " }}"},
    {"{{ ", "('a' | replace('a', ", "'b'", "))", " }}"},
    {"{{ ", "([[1]] | map('join', ", "''", ") | first)", " }}"},
    {"{{ ", "- ", "1", "", " }}"},
    {"{{ ", "not ", "1", "", " }}"},
    {"{{ ", "", "x", ".a", " }}"},
    {"{{ ", "", "x", " | trim", " }}"},
    {"{{ ", "", "1", " + 1", " }}"},
    {"{{ ", "", "1", " and 1", " }}"},
    {"{{ ", "", "1", " if 1", " }}"},
    {"", "{% if 1 %}", "{{ (((((1.5))))) }}", "{% endif %}", ""},
    {"", "{% for a in [1] %}", "{{ a }}", "{% endfor %}", ""},
    {"", "{% for a, b in [[1, 2]] if a %}", "{{ a }}", "{% endfor %}", ""},
    {"", "{% with a = 1 %}", "{{ a }}", "{% endwith %}", ""},
    {"", "{% filter upper %}", "x", "{% endfilter %}", ""},
    {"", "{% set a %}", "x", "{% endset %}", "{{ a }}"},
    {"", "{% generation %}", "x", "{% endgeneration %}", ""},
    {"", "{% macro m() %}", "x", "{% endmacro %}{{ m() }}", ""},
    {"{% macro m() %}{{ caller() }}{% endmacro %}", "{% call m() %}", "x", "{% endcall %}", ""},
    {"{% for ", "(a, ", "b", ")", " in [] %}{% endfor %}"},
    {"{% set ", "(a, ", "b", ")", " = 1 %}"},
};

static void test_shapes(void **state) {
    (void)state;
    static const size_t sizes[] = {10, 20, 35, 39, 150, 20000};
    const qn_chat_input input = {.messages = "[]", .kwargs = "{\"x\": [1]}"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            char what[96];
            char *source =
                nested(shapes[i].start, shapes[i].open, shapes[i].middle, shapes[i].close, sizes[k], shapes[i].end);
            snprintf(what, sizeof what, "%zu %s%s", sizes[k], shapes[i].open, shapes[i].close);
            expect_source(what, source, &input, false);
            free(source);
        }
    }
}

/* Constructs that recurse at run time. */
static const char *const deep[] = {
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{% for a in [1] %}{% if 1 %}{{ 1 + (m() | length) }}{% endif %}{% endfor %}{% endmacro %}{{ m() }}",
    "{% macro m(f, a=f(f)) %}{{ f(f) }}{% endmacro %}{{ m(m) }}",
    "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
    "{% macro m() %}{% set a %}{{ m() }}{% endset %}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ '{:>9}'.format(m()) }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ [1] | map('string') | map('replace', '1', m()) | list }}{% endmacro %}{{ m() }}",
    "{% set n = namespace(x=[]) %}{% for i in range(199) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[]) %}{% for i in range(199) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
    "{% set n = namespace(x={}) %}{% for i in range(199) %}{% set n.x = {'a': n.x} %}{% endfor %}{{ n.x | "
    "tojson(indent=1) }}",
    "{% set n = namespace(x=[1.5], y=[1.5]) %}{% for i in range(198) %}{% set n.x = [n.x] %}{% set n.y = [n.y] %}{% "
    "endfor %}"
    "{{ n.x == n.y }}{{ n.x < n.y }}",
    "{% set n = namespace(x={}, y={}) %}{% for i in range(198) %}{% set n.x = {'a': n.x} %}{% set n.y = {'a': n.y} %}"
    "{% endfor %}{{ n.x == n.y }}",
    "{% set n = namespace(x=()) %}{% for i in range(198) %}{% set n.x = (n.x,) %}{% endfor %}{{ {n.x: 1} }}{{ n.x in "
    "[n.x] }}",
    "{% set n = namespace(x='1') %}{% for i in range(120) %}{% set n.x = '[' ~ n.x ~ ']' %}{% endfor %}{{ n.x | "
    "from_json }}",
    "{{ messages[0].x | tojson }}",
    "{{ messages[0].x }}",
    "{{ messages == messages[:] }}",
};

static void test_excessive_depth(void **state) {
    (void)state;
    char *list = nested("[{\"role\": \"user\", \"x\": ", "[", "1.5", "]", 120, "}]");
    char *object = nested("[{\"role\": \"user\", \"x\": ", "{\"a\": ", "1e22", "}", 120, "}]");
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        const qn_chat_input lists = {.messages = list}, objects = {.messages = object};
        expect_source(deep[i], deep[i], &lists, false);
        expect_source(deep[i], deep[i], &objects, false);
    }
    /* The deepest JSON that is accepted can also be written. */
    const qn_chat_input lists = {.messages = list}, objects = {.messages = object};
    expect_source("lists", "{{ messages | tojson }}", &lists, true);
    expect_source("objects", "{{ messages | tojson(indent=2) }}", &objects, true);
    expect_source("text", "{{ messages[0].x }}", &objects, true);
    free(list);
    free(object);
}

/* A macro that walks a schema, as in published templates. */
static void test_reasonable_depth(void **state) {
    (void)state;
    static const char schema[] =
        "{%- macro show(p) -%}{%- if p.type == 'object' -%}{ {%- for k, v in p.properties.items() -%}{%- if v -%}"
        "{{ k + ': ' + show(v) }}{%- endif -%}{%- endfor -%} }{%- elif p.type == 'array' -%}{{ show(p['items']) + '[]' "
        "}}"
        "{%- else -%}{{ p.type }}{%- endif -%}{%- endmacro -%}{{ show(messages[0].p) }}";
    char *messages = nested("[{\"role\": \"user\", \"p\": ",
                            "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"array\", \"items\": ",
                            "{\"type\": \"string\"}", "}}}", 10, "}]");
    const qn_chat_input input = {.messages = messages};
    expect_source("schema", schema, &input, true);
    free(messages);
    static const struct {
        const char *start, *open, *middle, *close, *end;
        size_t n;
    } fitting[] = {
        {"{{ ", "", "'a'", " + 'b'", " }}", 150},
        {"{{ ", "", "'a'", " | trim", " }}", 150},
        {"{{ ", "(", "1", ")", " }}", 35},
        {"", "{% if 1 %}", "x", "{% endif %}", "", 35},
        {"{{ ", "", "1", " and 1", " }}", 150},
        {"{{ ", "['a'", "", "]", " }}", 1},
        {"", "{% for a in [1] %}", "x", "{% endfor %}", "", 35},
    };
    for (size_t i = 0; i < sizeof fitting / sizeof *fitting; i++) {
        char *source = nested(fitting[i].start, fitting[i].open, fitting[i].middle, fitting[i].close, fitting[i].n,
                              fitting[i].end);
        const qn_chat_input none = {.messages = "[]"};
        expect_source(source, source, &none, true);
        free(source);
    }
}

static void test_published(void **state) {
    (void)state;
    static const char *const names[] = {"qwen3-hybrid", "qwen3-hybrid-later", "qwen3-thinking-2507", "qwen2.5",
                                        "qwq-32b",      "chatml-tools"};
    const qn_chat_input input = {
        .messages =
            "[{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"q\"}, {\"role\": "
            "\"assistant\", \"content\": \"<think>\\nr\\n</think>\\n\\na\", \"tool_calls\": [{\"type\": \"function\", "
            "\"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1.5, {\"y\": null}]}}}]}, {\"role\": \"tool\", "
            "\"content\": \"42\"}, {\"role\": \"assistant\", \"content\": \"b\"}]",
        .tools = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}]",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/data/text/templates/%s.jinja", names[i]);
        task t = {.path = path, .input = &input};
        size_t used = run_painted(&t);
        if (getenv("QUERN_STACK") != NULL) fprintf(stderr, "%8zu %s\n", used, names[i]);
        if (t.status != QN_OK) fail_msg("%s: %s", names[i], t.err.message);
        assert_true(used < ALLOWED / 2);
        qn_prompt_release(&t.prompt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_excessive_depth),
        cmocka_unit_test(test_reasonable_depth),
        cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
