/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader: what it takes, what it refuses and with which words. */
#include "../src/base/json.h"
#include "support/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text, size_t size) {
    qn_error err = {0};
    json_t *root = NULL;
    if (qni_json_parse(&root, "t.json", text, size, &err) != QN_OK) fail_msg("%s: %s", text, err.message);
    return root;
}

static void refuse(const char *text, const char *words) {
    qn_error err = {0};
    json_t *root = NULL;
    assert_int_equal(qni_json_parse(&root, "t.json", text, strlen(text), &err), QN_EFORMAT);
    if (strstr(err.message, words) == NULL) fail_msg("%s: %s", text, err.message);
    assert_null(root);
}

static void values(void **state) {
    (void)state;
    static const char all[] = "{\"a\": [1, 2.5, -3e2, true, null], \"b\": {\"c\": \"x\\\"y\\u0000z\"}}";
    json_t *root = parse(all, sizeof all - 1);
    json_t *list = json_object_get(root, "a");
    assert_int_equal(json_array_size(list), 5);
    assert_true(json_integer_value(json_array_get(list, 0)) == 1);
    assert_true(json_real_value(json_array_get(list, 2)) == -300);
    json_t *text = json_object_get(json_object_get(root, "b"), "c");
    assert_int_equal(json_string_length(text), 5);
    assert_memory_equal(json_string_value(text), "x\"y\0z", 5);
    json_decref(root);
    root = parse(" 17 ", 4);
    assert_true(json_integer_value(root) == 17);
    json_decref(root);
    root = parse("\"\"", 2);
    assert_int_equal(json_string_length(root), 0);
    json_decref(root);
}

/* Tokens around the sizes at which buffers grow, plain and in escapes. */
static void long_tokens(void **state) {
    (void)state;
    for (size_t n = 1; n < 5000; n += n < 70 ? 1 : n / 3) {
        char *text = malloc(6 * n + 16);
        assert_non_null(text);
        size_t size = 0;
        text[size++] = '[';
        text[size++] = '"';
        for (size_t i = 0; i < n; i++) text[size++] = (char)('a' + i % 26);
        memcpy(text + size, "\",\"", 3);
        size += 3;
        for (size_t i = 0; i < n; i++, size += 2) memcpy(text + size, "\\\\", 2);
        memcpy(text + size, "\"]", 2);
        size += 2;
        json_t *root = parse(text, size);
        assert_int_equal(json_string_length(json_array_get(root, 0)), n);
        assert_memory_equal(json_string_value(json_array_get(root, 0)), text + 2, n);
        assert_int_equal(json_string_length(json_array_get(root, 1)), n);
        json_decref(root);
        free(text);
    }
}

static void refusals(void **state) {
    (void)state;
    refuse("", "t.json: line 1: the text ends too early");
    refuse("{\"a\": 1", "line 1: the text ends too early");
    refuse("{\n\n\"a\" 1}", "line 3");
    refuse("1,2", "more than one JSON value");
    refuse("{},{}", "more than one JSON value");
    refuse("1],[2", "line 1");
    refuse("{}]", "line 1");
    refuse("{\"a\":1,\"a\":2}", "duplicate object key");
    refuse("\"\xFF\"", "line 1");
    refuse("{\"a\\u0000b\":1}", "line 1");
    refuse("[1e999]", "line 1");
}

static void depth(void **state) {
    (void)state;
    char text[4 * QNI_JSON_DEPTH];
    for (int n = QNI_JSON_DEPTH; n <= QNI_JSON_DEPTH + 1; n++) {
        memset(text, '[', (size_t)n);
        memset(text + n, ']', (size_t)n);
        text[2 * n] = '\0';
        if (n == QNI_JSON_DEPTH) {
            json_decref(parse(text, 2 * (size_t)n));
        } else {
            refuse(text, "JSON nests deeper than 128");
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(long_tokens),
        cmocka_unit_test(refusals),
        cmocka_unit_test(depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
