/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding against the goldens, token lookup, and caller errors. */
#include "../src/base/json.h"
#include "../src/base/utf8.h"
#include "support/cmocka_all.h"
#include "support/files.h"

#include <quern/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QWEN "tests/data/tokenizer"
#define DEMO "models/demo"

static qn_tokenizer *qwen, *demo;

static int open_both(void **state) {
    (void)state;
    qn_error err;
    return qn_tokenizer_open(&qwen, QWEN, &err) != QN_OK || qn_tokenizer_open(&demo, DEMO, &err) != QN_OK;
}

static int close_both(void **state) {
    (void)state;
    qn_tokenizer_close(qwen);
    qn_tokenizer_close(demo);
    return 0;
}

static void same_ids(const qn_ids *ids, const json_t *want, const char *what) {
    if (ids->size != json_array_size(want)) fail_msg("%s: %zu ids, not %zu", what, ids->size, json_array_size(want));
    for (size_t i = 0; i < ids->size; i++) {
        json_int_t id = json_integer_value(json_array_get(want, i));
        if (ids->data[i] != id) fail_msg("%s: id %zu is %d, not %lld", what, i, ids->data[i], (long long)id);
    }
}

static void encode(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text, size_t size, bool special) {
    qn_error err;
    if (qn_tokenizer_encode(tokenizer, ids, text, size, special, &err) != QN_OK) fail_msg("%s", err.message);
}

static void test_goldens(void **state) {
    (void)state;
    size_t size;
    char *lines = files_read("tests/data/text/tokenizer.jsonl", &size);
    qn_ids ids = {0};
    qn_text text = {0};
    int n = 0;
    for (char *line = lines, *end; line < lines + size; line = end + 1, n++) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *golden = NULL;
        qn_error err;
        assert_int_equal(qni_json_parse(&golden, "golden", line, (size_t)(end - line), &err), QN_OK);
        const json_t *input = json_object_get(golden, "text"), *want = json_object_get(golden, "decoded");
        ids.size = text.size = 0;
        encode(qwen, &ids, json_string_value(input), json_string_length(input), true);
        char what[32];
        snprintf(what, sizeof what, "line %d", n + 1);
        same_ids(&ids, json_object_get(golden, "ids"), what);
        assert_int_equal(qn_tokenizer_decode(qwen, &text, ids.data, ids.size, false, &err), QN_OK);
        assert_int_equal(text.size, json_string_length(want));
        assert_memory_equal(text.data, json_string_value(want), text.size + 1);
        json_decref(golden);
    }
    assert_int_equal(n, 448);
    qn_ids_release(&ids);
    qn_text_release(&text);
    free(lines);
}

static void test_demo_prompts(void **state) {
    (void)state;
    json_t *golden = NULL, *one;
    qn_error err;
    assert_int_equal(qni_json_read(&golden, DEMO "/golden.json", 1 << 24, &err), QN_OK);
    size_t i;
    qn_ids ids = {0};
    json_array_foreach(json_object_get(golden, "greedy"), i, one) {
        const json_t *prompt = json_object_get(one, "prompt");
        ids.size = 0;
        encode(demo, &ids, json_string_value(prompt), json_string_length(prompt), true);
        same_ids(&ids, json_object_get(one, "prompt_ids"), json_string_value(prompt));
    }
    assert_true(i > 0);
    qn_ids_release(&ids);
    json_decref(golden);
}

static void test_lookup(void **state) {
    (void)state;
    assert_int_equal(qn_tokenizer_n_vocab(qwen), 151669);
    assert_int_equal(qn_tokenizer_n_vocab(demo), 4096);
    assert_int_equal(qn_tokenizer_id(qwen, "<|im_end|>"), 151645);
    assert_int_equal(qn_tokenizer_id(qwen, "</think>"), 151668);
    assert_int_equal(qn_tokenizer_id(qwen, "no"), 2152);
    assert_int_equal(qn_tokenizer_id(qwen, "\xC4\xA0"), 220); /* a space, as written in the file */
    assert_int_equal(qn_tokenizer_id(qwen, " "), -1);
    assert_int_equal(qn_tokenizer_id(qwen, ""), -1);
    assert_int_equal(qn_tokenizer_id(qwen, "<|im_en"), -1);
    assert_int_equal(qn_tokenizer_id(qwen, NULL), -1);
    assert_true(qn_tokenizer_is_special(qwen, 151645));
    assert_false(qn_tokenizer_is_special(qwen, 151668));
    assert_false(qn_tokenizer_is_special(qwen, 0));
    assert_false(qn_tokenizer_is_special(qwen, -1));
    assert_false(qn_tokenizer_is_special(qwen, INT32_MAX));
}

static void test_plain_text(void **state) {
    (void)state;
    const char text[] = "<|im_start|>user\n<think>x</think><|im_end|>";
    qn_ids special = {0}, plain = {0};
    qn_text back = {0};
    qn_error err;
    encode(qwen, &special, text, sizeof text - 1, true);
    encode(qwen, &plain, text, sizeof text - 1, false);
    assert_int_equal(special.data[0], 151644);
    assert_int_equal(special.data[special.size - 1], 151645);
    for (size_t i = 0; i < plain.size; i++) assert_true(plain.data[i] < 151643);
    assert_int_equal(qn_tokenizer_decode(qwen, &back, plain.data, plain.size, true, &err), QN_OK);
    assert_string_equal(back.data, text);
    back.size = 0;
    assert_int_equal(qn_tokenizer_decode(qwen, &back, special.data, special.size, true, &err), QN_OK);
    assert_string_equal(back.data, "user\n<think>x</think>");
    qn_ids_release(&special);
    qn_ids_release(&plain);
    qn_text_release(&back);
}

static void test_ids_are_appended(void **state) {
    (void)state;
    qn_ids ids = {0};
    qn_text text = {0};
    qn_error err;
    encode(qwen, &ids, "no", 2, true);
    encode(qwen, &ids, NULL, 0, true);
    encode(qwen, &ids, "yes", 3, true);
    assert_int_equal(ids.size, 2);
    assert_int_equal(ids.data[0], 2152);
    assert_int_equal(ids.data[1], 9693);
    assert_int_equal(qn_tokenizer_decode(qwen, &text, NULL, 0, false, &err), QN_OK);
    assert_string_equal(text.data, "");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(qn_tokenizer_decode(qwen, &text, ids.data, ids.size, false, &err), QN_OK);
    }
    assert_string_equal(text.data, "noyesnoyes");
    qn_ids_release(&ids);
    qn_text_release(&text);
    assert_null(ids.data);
    assert_int_equal(text.capacity, 0);
    qn_ids_release(NULL);
    qn_text_release(NULL);
}

static void test_zero_byte(void **state) {
    (void)state;
    const char text[] = "a\0b\0";
    qn_ids ids = {0};
    qn_text back = {0};
    qn_error err;
    encode(qwen, &ids, text, 4, true);
    assert_int_equal(qn_tokenizer_decode(qwen, &back, ids.data, ids.size, false, &err), QN_OK);
    assert_int_equal(back.size, 4);
    assert_memory_equal(back.data, text, 4);
    qn_ids_release(&ids);
    qn_text_release(&back);
}

static void test_invalid_text(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size, at;
    } cases[] = {
        {"\xFF", 1, 0},
        {"abc\xC3", 4, 3},
        {"abcdefgh\xC0\x80", 10, 8},
        {"\xE2\x82\xAC\xED\xA0\x80", 6, 3},
        {"abcdefghijklmnop\xF4\x90\x80\x80", 20, 16},
        {"caf\xC3\xA9 \x80", 7, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_ids ids = {0};
        qn_error err;
        encode(qwen, &ids, "no", 2, true);
        assert_int_equal(qn_tokenizer_encode(qwen, &ids, cases[i].text, cases[i].size, true, &err), QN_EINVAL);
        char want[64];
        snprintf(want, sizeof want, "text: not UTF-8 at byte %zu", cases[i].at);
        assert_string_equal(err.message, want);
        assert_int_equal(ids.size, 1);
        assert_int_equal(ids.data[0], 2152);
        qn_ids_release(&ids);
    }
}

static void test_wrong_calls(void **state) {
    (void)state;
    qn_error err;
    qn_ids ids = {0};
    qn_text text = {0};
    qn_tokenizer *none = NULL;
    qn_decoder *decoder = NULL;
    assert_int_equal(qn_tokenizer_open(NULL, QWEN, &err), QN_EINVAL);
    assert_int_equal(qn_tokenizer_open(&none, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_tokenizer_open(&none, "tests/data/no-such-place", &err), QN_EIO);
    assert_null(none);
    assert_int_equal(qn_tokenizer_encode(NULL, &ids, "a", 1, true, &err), QN_EINVAL);
    assert_int_equal(qn_tokenizer_encode(qwen, NULL, "a", 1, true, &err), QN_EINVAL);
    assert_int_equal(qn_tokenizer_encode(qwen, &ids, NULL, 1, true, NULL), QN_EINVAL);
    assert_int_equal(qn_tokenizer_decode(qwen, &text, NULL, 1, true, &err), QN_EINVAL);
    int32_t wrong[] = {2152, -1};
    assert_int_equal(qn_tokenizer_decode(qwen, &text, wrong, 2, true, &err), QN_EINVAL);
    assert_string_equal(err.message, "decode: id 1 is -1, and no id is negative");
    assert_int_equal(text.size, 0);
    assert_int_equal(qn_decoder_create(NULL, qwen, true, &err), QN_EINVAL);
    assert_int_equal(qn_decoder_create(&decoder, NULL, true, &err), QN_EINVAL);
    assert_int_equal(qn_decoder_create(&decoder, qwen, true, &err), QN_OK);
    assert_int_equal(qn_decoder_push(decoder, &text, -5, &err), QN_EINVAL);
    assert_int_equal(qn_decoder_push(NULL, &text, 5, &err), QN_EINVAL);
    assert_int_equal(qn_decoder_finish(NULL, &text, &err), QN_EINVAL);
    qn_decoder_free(decoder);
    qn_decoder_free(NULL);
    qn_tokenizer_close(NULL);
    qn_text_release(&text);
}

static void test_padding_ids(void **state) {
    (void)state;
    int32_t ids[] = {2152, 151669, 151935, INT32_MAX, 9693};
    qn_text text = {0};
    qn_error err;
    assert_int_equal(qn_tokenizer_decode(qwen, &text, ids, 5, false, &err), QN_OK);
    assert_string_equal(text.data, "noyes");
    qn_text_release(&text);
}

static void test_utf8_round_trip(void **state) {
    (void)state;
    for (uint32_t point = 0; point < 0x110000; point++) {
        if (point >= 0xD800 && point < 0xE000) continue;
        char bytes[4];
        uint32_t back;
        size_t n = qni_utf8_encode(bytes, point);
        assert_int_equal(qni_utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, point);
        if (n > 1) assert_int_equal(qni_utf8_decode(bytes, n - 1, &back), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),          cmocka_unit_test(test_demo_prompts),
        cmocka_unit_test(test_lookup),           cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_ids_are_appended), cmocka_unit_test(test_zero_byte),
        cmocka_unit_test(test_invalid_text),     cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_padding_ids),      cmocka_unit_test(test_utf8_round_trip),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
