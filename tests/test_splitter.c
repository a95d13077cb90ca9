/* SPDX-License-Identifier: Apache-2.0 */
/* The splitter: every case is run at once, byte by byte, and with every split into two. */
#include <quern/chat.h>

#include <stdio.h>
#include <string.h>

#include "../src/base/utf8.h"
#include "support/cmocka_all.h"

typedef struct collected {
    char text[2][512]; /* indexed by piece */
    size_t size[2];
    int n_left; /* pieces to accept before stopping; -1: all */
} collected;

static bool collect(void *user, qn_piece piece, const char *text, size_t size) {
    collected *c = user;
    assert_true(size > 0);
    assert_true(qni_utf8_is_valid(text, size));
    assert_true(c->size[piece] + size < sizeof c->text[0]);
    memcpy(c->text[piece] + c->size[piece], text, size);
    c->size[piece] += size;
    return c->n_left < 0 || --c->n_left > 0;
}

typedef struct example {
    const char *text;
    size_t size; /* 0: strlen */
    bool plain;  /* without reasoning splitting */
    bool starts_reasoning;
    const char *stops[3];
    const char *reasoning, *content;
    bool stopped;
} example;

static void push(qn_splitter *s, const char *text, size_t size, collected *c, bool *stopped) {
    qn_error err = {0};
    if (qn_splitter_push(s, text, size, collect, c, stopped, &err) != QN_OK) fail_msg("%s", err.message);
}

/* Feed the first `first` bytes, then `step` bytes at a time. */
static void run(const example *e, size_t first, size_t step) {
    qn_string stops[3];
    size_t n_stop = 0, size = e->size > 0 ? e->size : strlen(e->text);
    for (; n_stop < 3 && e->stops[n_stop] != NULL; n_stop++) {
        stops[n_stop] = (qn_string){e->stops[n_stop], strlen(e->stops[n_stop])};
    }
    qn_splitter_options options = {
        .split_reasoning = !e->plain, .starts_reasoning = e->starts_reasoning, .stops = stops, .n_stop = n_stop};
    qn_splitter *s = NULL;
    qn_error err = {0};
    collected c = {.n_left = -1};
    bool stopped = false;
    assert_int_equal(qn_splitter_create(&s, &options, &err), QN_OK);
    push(s, e->text, first, &c, &stopped);
    for (size_t at = first; at < size; at += step)
        push(s, e->text + at, size - at < step ? size - at : step, &c, &stopped);
    bool before = stopped;
    assert_int_equal(qn_splitter_finish(s, collect, &c, &err), QN_OK);
    qn_splitter_free(s);
    if (strcmp(c.text[QN_PIECE_REASONING], e->reasoning) != 0 ||
        c.size[QN_PIECE_CONTENT] != strlen(e->content) + (e->size > 0) ||
        memcmp(c.text[QN_PIECE_CONTENT], e->content, c.size[QN_PIECE_CONTENT]) != 0) {
        fail_msg("\"%s\" at %zu, %zu: got \"%s\" and \"%s\"", e->text, first, step, c.text[QN_PIECE_REASONING],
                 c.text[QN_PIECE_CONTENT]);
    }
    assert_true(before == e->stopped);
}

static const example examples[] = {
    {"", 0, false, false, {NULL}, "", "", false},
    {"Hello", 0, false, false, {NULL}, "", "Hello", false},
    {" \n Hello\n", 0, false, false, {NULL}, "", " \n Hello\n", false},
    {" \n", 0, false, false, {NULL}, "", " \n", false},
    {"<think>\nhm\n\nso\n</think>\n\nHello\n", 0, false, false, {NULL}, "hm\n\nso", "Hello\n", false},
    {" \n<think>hm</think>Hello", 0, false, false, {NULL}, "hm", "Hello", false},
    {"<think>\n\n</think>\n\nHello", 0, false, false, {NULL}, "", "Hello", false},
    {"<think> a </think> b", 0, false, false, {NULL}, " a ", " b", false},
    {"hm\n</think>\n\nHello", 0, false, true, {NULL}, "hm", "Hello", false},
    {"\nhm <thin </thin </think", 0, false, true, {NULL}, "hm <thin </thin </think", "", false},
    {"hm\n\n", 0, false, true, {NULL}, "hm\n\n", "", false},
    {"<<</think>x", 0, false, true, {NULL}, "<<", "x", false},
    {"a</think>b<think>c</think>d", 0, false, true, {NULL}, "a", "b<think>c</think>d", false},
    {"Use <think> and </think>.", 0, false, false, {NULL}, "", "Use <think> and </think>.", false},
    {"<thinker>", 0, false, false, {NULL}, "", "<thinker>", false},
    {"<think>\nhm\n</think>\n\nHello", 0, true, false, {NULL}, "", "<think>\nhm\n</think>\n\nHello", false},
    {"na\xC3\xAFve \xE6\x97\xA5\xF0\x9F\x99\x82!",
     0,
     false,
     false,
     {NULL},
     "",
     "na\xC3\xAFve \xE6\x97\xA5\xF0\x9F\x99\x82!",
     false},
    {"a\xFFz\xE6\x97", 0, false, false, {NULL}, "", "a\xEF\xBF\xBDz\xEF\xBF\xBD", false},
    {"a\0", 2, false, false, {NULL}, "", "a\0", false},
    {"Hello STOP more", 0, false, false, {"STOP"}, "", "Hello ", true},
    {"Hello STO", 0, false, false, {"STOP"}, "", "Hello STO", false},
    {"STSTOP", 0, false, false, {"STOP"}, "", "ST", true},
    {"aabaabaac!", 0, false, false, {"aabaac"}, "", "aab", true},
    {"one two", 0, false, false, {"two", "ne"}, "", "o", true},
    {"xabcd", 0, false, false, {"bc", "abcd"}, "", "x", true},
    {"xabce", 0, false, false, {"bc", "abcd"}, "", "xa", true},
    {"xabc", 0, false, false, {"bc", "abcd"}, "", "xa", false},
    {"<think>hm STOP</think>x", 0, false, false, {"STOP"}, "hm ", "", true},
    {"<think>hm\n</think>x", 0, false, false, {"</think>"}, "hm\n", "", true},
    {"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", 0, false, false, {"\xE6\x9C\xAC"}, "", "\xE6\x97\xA5", true},
    {"hm\n\nUser:", 0, false, true, {"\n\nUser:"}, "hm", "", true},
};

static void test_every_split(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        size_t size = examples[i].size > 0 ? examples[i].size : strlen(examples[i].text);
        for (size_t first = 0; first <= size; first++) {
            run(&examples[i], first, size + 1);
            for (size_t step = 1; step < 4; step++) run(&examples[i], first, step);
        }
    }
}

/* Pseudo-random texts over few letters: the text ends at the first position where any stop string begins. */
static void test_random_stops(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        char text[24], stops[3][6], want[24];
        size_t cut = sizeof text - 1;
        for (size_t i = 0; i + 1 < sizeof text; i++)
            text[i] = (char)('a' + ((seed = seed * 1664525u + 1013904223u) >> 24) % 3);
        text[sizeof text - 1] = '\0';
        for (int k = 0; k < 3; k++) {
            size_t n = 2 + ((seed = seed * 1664525u + 1013904223u) >> 24) % 4;
            for (size_t i = 0; i < n; i++)
                stops[k][i] = (char)('a' + ((seed = seed * 1664525u + 1013904223u) >> 24) % 3);
            stops[k][n] = '\0';
            const char *at = strstr(text, stops[k]);
            if (at != NULL && (size_t)(at - text) < cut) cut = (size_t)(at - text);
        }
        memcpy(want, text, cut);
        want[cut] = '\0';
        for (size_t step = 1; step <= sizeof text; step += 5) {
            qn_splitter *s = NULL;
            collected c = {.n_left = -1};
            bool stopped = false;
            qn_string list[3];
            for (int k = 0; k < 3; k++) list[k] = (qn_string){stops[k], strlen(stops[k])};
            assert_int_equal(qn_splitter_create(&s, &(qn_splitter_options){.stops = list, .n_stop = 3}, NULL), QN_OK);
            for (size_t at = 0; at + 1 < sizeof text; at += step) {
                push(s, text + at, sizeof text - 1 - at < step ? sizeof text - 1 - at : step, &c, &stopped);
            }
            assert_int_equal(qn_splitter_finish(s, collect, &c, NULL), QN_OK);
            qn_splitter_free(s);
            assert_string_equal(c.text[QN_PIECE_CONTENT], want);
        }
    }
}

static void test_stop_by_callback(void **state) {
    (void)state;
    qn_splitter *s = NULL;
    collected c = {.n_left = 1};
    bool stopped = false;
    assert_int_equal(qn_splitter_create(&s, NULL, NULL), QN_OK);
    push(s, "one", 3, &c, &stopped);
    assert_true(stopped);
    push(s, "two", 3, &c, &stopped);
    assert_int_equal(qn_splitter_finish(s, collect, &c, NULL), QN_OK);
    assert_string_equal(c.text[QN_PIECE_CONTENT], "one");
    qn_splitter_free(s);
}

static void test_invalid_options(void **state) {
    (void)state;
    qn_splitter *s = NULL;
    qn_error err = {0};
    bool stopped;
    qn_string stops[65];
    for (int i = 0; i < 65; i++) stops[i] = (qn_string){"x", 1};
    assert_int_equal(qn_splitter_create(&s, &(qn_splitter_options){.stops = stops, .n_stop = 65}, &err), QN_EINVAL);
    assert_string_equal(err.message, "n_stop: must be at most 64, got 65");
    stops[1].size = 0;
    assert_int_equal(qn_splitter_create(&s, &(qn_splitter_options){.stops = stops, .n_stop = 2}, &err), QN_EINVAL);
    assert_string_equal(err.message, "stop[1]: is empty");
    assert_int_equal(qn_splitter_create(NULL, NULL, &err), QN_EINVAL);
    assert_null(s);
    assert_int_equal(qn_splitter_push(NULL, "", 0, collect, NULL, &stopped, &err), QN_EINVAL);
    assert_int_equal(qn_splitter_finish(NULL, collect, NULL, &err), QN_EINVAL);
    qn_splitter_free(NULL);
}

static void test_starts_reasoning(void **state) {
    (void)state;
    static const struct {
        const char *prompt;
        bool yes;
    } cases[] = {
        {"", false},
        {"<think>", true},
        {"<|im_start|>assistant\n<think>\n", true},
        {"<think>\n\n</think>\n\n", false},
        {"</think> <think> \t\n", true},
        {"<think>\nSo", false},
        {"think>", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(qn_chat_starts_reasoning(cases[i].prompt, strlen(cases[i].prompt), NULL, 0), cases[i].yes);
    }
    assert_false(qn_chat_starts_reasoning(NULL, 0, NULL, 0));
    assert_false(qn_chat_starts_reasoning("<think>\0", 8, NULL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),      cmocka_unit_test(test_random_stops),
        cmocka_unit_test(test_stop_by_callback), cmocka_unit_test(test_invalid_options),
        cmocka_unit_test(test_starts_reasoning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
