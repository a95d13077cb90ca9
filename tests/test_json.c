/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader: what it accepts, what it rejects, and the messages. */
#include "../src/base/json.h"
#include "support/cmocka_all.h"

#include <math.h>
#include <stdio.h>
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

/* Tokens around the sizes at which buffers grow, plain and with escapes. */
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
    refuse("[99999999999999999999,]", "line 1");
    refuse("[\n012345678901234567890]", "line 2");
    refuse("[1.e999]", "line 1");
    refuse("[1e999e9]", "line 1");
    refuse("[1e]", "line 1");
    refuse("[-]", "line 1");
    refuse("99999999999999999999 1e999", "line 1");
    refuse("99999999999999999999,99999999999999999999", "more than one JSON value");
    refuse("[NaN]", "line 1");
    refuse("{\"\\u0000int\": \"7\"}", "line 1");
}

/* JSON has no NUL byte, and Jansson does not see one that follows a number. */
static void nul_bytes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *message;
    } cases[] = {
        {"[1\0, 2]", 7, "t.json: line 1: a NUL byte"},
        {"{\n\"a\": 1.5\0}", 12, "t.json: line 2: a NUL byte"},
        {"[\"a\0b\"]", 7, "t.json: line 1: a NUL byte"},
        {"[1]\0", 4, "t.json: line 1: a NUL byte"},
        {"[1\0,{\"a\":(\"7\"}]", 15, "t.json: line 1: a NUL byte"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_error err = {0};
        json_t *root = NULL;
        assert_int_equal(qni_json_parse(&root, "t.json", cases[i].text, cases[i].size, &err), QN_EFORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_null(root);
    }
}

/* Numbers on both sides of the limits of a 64-bit integer and a double. The largest double is 2^1024 - 2^971; what
 * rounds to it is below 2^1024 - 2^970. */
static const char below[] =
    "1797693134862315807937289714053034150799341327100378269361737789804449682927647509466490179775872070"
    "9633028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447"
    "5730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904"
    "174497791";
static const char above[] =
    "1797693134862315807937289714053034150799341327100378269361737789804449682927647509466490179775872070"
    "9633028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447"
    "5730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904"
    "174497792";

static void large_numbers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum { SMALL, BIG, INFINITE } kind;
        double number;
    } cases[] = {
        {"9223372036854775807", SMALL, 9223372036854775807.0},
        {"9223372036854775808", BIG, 9223372036854775808.0},
        {"-9223372036854775808", SMALL, -9223372036854775808.0},
        {"-9223372036854775809", BIG, -9223372036854775808.0},
        {"999999999999999999", SMALL, 1e18},
        {"1000000000000000019884624838656", BIG, 1e30},
        {"1.7976931348623157e308", SMALL, 0x1.fffffffffffffp1023},
        {"1.7976931348623159e308", INFINITE, INFINITY},
        {"-17.976931348623159e+307", INFINITE, -INFINITY},
        {"0.00000000001e319", SMALL, 1e308},
        {"0.00000000001e320", INFINITE, INFINITY},
        {"1e999", INFINITE, INFINITY},
        {"-1E99999999999999999999999", INFINITE, -INFINITY},
        {"1e-99999999999999999999999", SMALL, 0},
        {"0e99999999999999999999999", SMALL, 0},
        {"0.0", SMALL, 0},
        {"-0", SMALL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *value = parse(cases[i].text, strlen(cases[i].text));
        const char *big = qni_json_big(value), *infinite = qni_json_infinite(value);
        double number = 0.5;
        if (!qni_json_number(&number, value) || number != cases[i].number) fail_msg("%s: %g", cases[i].text, number);
        if ((big != NULL) != (cases[i].kind == BIG)) fail_msg("%s: big %s", cases[i].text, big);
        if ((infinite != NULL) != (cases[i].kind == INFINITE)) fail_msg("%s: infinite %s", cases[i].text, infinite);
        if (cases[i].kind == SMALL) {
            assert_true(json_is_number(value));
            assert_null(qni_json_large(value));
        } else {
            assert_string_equal(qni_json_large(value), cases[i].text);
        }
        json_decref(value);
    }
}

/* Also with digits beyond the 320 that are examined. */
static void largest_double(void **state) {
    (void)state;
    static const char *const tails[] = {"", ".0", ".999", ".5e0"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char text[400];
        snprintf(text, sizeof text, "%s%s%s", below, i > 0 ? "" : ".0", tails[i]);
        json_t *value = parse(text, strlen(text));
        assert_true(json_real_value(value) == 0x1.fffffffffffffp1023);
        json_decref(value);
        snprintf(text, sizeof text, "%s%s%s", above, i > 0 ? "" : ".0", tails[i]);
        value = parse(text, strlen(text));
        assert_string_equal(qni_json_infinite(value), text);
        json_decref(value);
    }
}

/* Each large number is found in its place, and no string is mistaken for one. */
static void large_numbers_in_place(void **state) {
    (void)state;
    static const char text[] =
        "{\"z\": [1, -36893488147419103232, {\"deep\": 1e400}, 2.5], \"a\": 3, \"text\": \"99999999999999999999\","
        " \"\\\"1e999\": {\"int\": \"7\"}, \"last\": 18446744073709551616}";
    json_t *parsed = parse(text, sizeof text - 1), *root = json_deep_copy(parsed), *list = json_object_get(root, "z");
    assert_true(json_equal(parsed, root));
    json_decref(parsed);
    assert_true(json_integer_value(json_array_get(list, 0)) == 1);
    assert_string_equal(qni_json_big(json_array_get(list, 1)), "-36893488147419103232");
    assert_string_equal(qni_json_infinite(json_object_get(json_array_get(list, 2), "deep")), "1e400");
    assert_true(json_real_value(json_array_get(list, 3)) == 2.5);
    assert_true(json_integer_value(json_object_get(root, "a")) == 3);
    assert_string_equal(json_string_value(json_object_get(root, "text")), "99999999999999999999");
    assert_null(qni_json_large(json_object_get(root, "text")));
    assert_null(qni_json_large(json_object_get(root, "\"1e999")));
    assert_string_equal(qni_json_big(json_object_get(root, "last")), "18446744073709551616");
    static const size_t flags[] = {0, JSON_COMPACT, JSON_INDENT(2), JSON_COMPACT | JSON_ENSURE_ASCII};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        char *printed = qni_json_print(root, flags[i]);
        assert_non_null(printed);
        assert_null(strstr(printed, "u0000"));
        json_t *again = parse(printed, strlen(printed));
        if (!json_equal(again, root)) fail_msg("%s", printed);
        if (i == 0) assert_string_equal(printed, text);
        json_decref(again);
        free(printed);
    }
    json_decref(root);
    root = parse("[0,1]", 5);
    assert_false(qni_json_number(NULL, root));
    assert_null(qni_json_large(root));
    assert_null(qni_json_large(NULL));
    json_decref(root);
    root = parse("-99999999999999999999", 21);
    char *printed = qni_json_print(root, JSON_ENCODE_ANY);
    assert_string_equal(printed, "-99999999999999999999");
    free(printed);
    json_decref(root);
}

static void files(void **state) {
    (void)state;
    qn_error err = {0};
    json_t *root = NULL;
    assert_int_equal(qni_json_read(&root, "/tmp", 100, &err), QN_EIO);
    assert_string_equal(err.message, "/tmp: Is a directory");
    assert_int_equal(qni_json_read(&root, "/none/x.json", 100, &err), QN_EIO);
    assert_string_equal(err.message, "/none/x.json: No such file or directory");
    assert_null(root);
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
        cmocka_unit_test(values),        cmocka_unit_test(long_tokens),    cmocka_unit_test(refusals),
        cmocka_unit_test(large_numbers), cmocka_unit_test(largest_double), cmocka_unit_test(large_numbers_in_place),
        cmocka_unit_test(files),         cmocka_unit_test(depth),          cmocka_unit_test(nul_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
