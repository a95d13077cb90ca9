/* SPDX-License-Identifier: Apache-2.0 */
/* Incremental decoding: pieces are whole characters, and their concatenation equals decoding all ids at once. */
#include "../src/base/utf8.h"
#include "../src/text/lossy.h"
#include "support/cmocka_all.h"
#include "support/sessions.h"

#include <quern/tokenizer.h>
#include <string.h>

static qn_tokenizer *tokenizer;

static int open_tokenizer(void **state) {
    (void)state;
    return qn_tokenizer_open(&tokenizer, "tests/data/tokenizer", NULL) != QN_OK;
}

static int close_tokenizer(void **state) {
    (void)state;
    qn_tokenizer_close(tokenizer);
    return 0;
}

static void same_text(const qn_text *a, const qn_text *b) {
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size + 1);
}

/* Stream ids through one decoder, twice, and compare with decoding at once. */
static void check_stream(const int32_t *ids, size_t n, bool skip) {
    qn_text whole = {0}, streamed = {0};
    qn_decoder *decoder = NULL;
    assert_ok(qn_tokenizer_decode(tokenizer, &whole, ids, n, skip, err));
    assert_ok(qn_decoder_create(&decoder, tokenizer, skip, err));
    for (int round = 0; round < 2; round++) {
        streamed.size = 0;
        for (size_t i = 0; i < n; i++) {
            size_t before = streamed.size;
            assert_ok(qn_decoder_push(decoder, &streamed, ids[i], err));
            assert_true(qni_utf8_is_valid(streamed.data + before, streamed.size - before));
        }
        assert_ok(qn_decoder_finish(decoder, &streamed, err));
        same_text(&whole, &streamed);
    }
    assert_true(qni_utf8_is_valid(whole.data, whole.size));
    qn_decoder_free(decoder);
    qn_text_release(&whole);
    qn_text_release(&streamed);
}

static void test_random_ids(void **state) {
    (void)state;
    test_rng rng = {7};
    int32_t ids[24];
    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)rng_below(&rng, 24) + 1;
        for (size_t i = 0; i < n; i++) {
            /* Single bytes, any token, added tokens and padding. */
            int32_t kind = rng_below(&rng, 3);
            ids[i] = kind == 0   ? rng_below(&rng, 256)
                     : kind == 1 ? rng_below(&rng, 151700)
                                 : 151643 + rng_below(&rng, 40);
        }
        check_stream(ids, n, round % 2 == 0);
    }
}

/* A text one byte at a time: each character is emitted whole, at its last byte. */
static void test_characters_byte_by_byte(void **state) {
    (void)state;
    static const char text[] = "a\xC3\xA9\xE4\xB8\x81\xF0\x9F\x98\x80z";
    static const size_t at[] = {1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    qn_decoder *decoder = NULL;
    qn_text out = {0};
    assert_ok(qn_decoder_create(&decoder, tokenizer, false, err));
    for (size_t i = 0; i < sizeof text - 1; i++) {
        /* Single-byte ids are looked up by their symbols: 0x21 … 0x7E, 0xA1 …, and the rest from U+0100 on. */
        unsigned char byte = (unsigned char)text[i];
        bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        uint32_t symbol = prints ? byte : 0x100 + 0x21u + byte - 0x7F;
        char name[5] = {0};
        qni_utf8_encode(name, symbol);
        assert_ok(qn_decoder_push(decoder, &out, qn_tokenizer_id(tokenizer, name), err));
        assert_int_equal(out.size, at[i]);
    }
    assert_ok(qn_decoder_finish(decoder, &out, err));
    assert_string_equal(out.data, text);
    qn_decoder_free(decoder);
    qn_text_release(&out);
}

/* Expected values: Python's bytes.decode("utf-8", "replace"). */
static void test_replacement(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\x80", "\uFFFD"},
        {"\xC3", "\uFFFD"},
        {"\xC3\x41", "\uFFFDA"},
        {"\xE4\xB8", "\uFFFD"},
        {"\xE4\xB8\x41", "\uFFFDA"},
        {"\xE4\x41", "\uFFFDA"},
        {"\xF0\x9F\x98", "\uFFFD"},
        {"\xF0\x9F\x98\xF0\x9F\x98\x80", "\uFFFD\U0001F600"},
        {"\xF0\x80\x80\x41", "\uFFFD\uFFFD\uFFFDA"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
        {"\xFE\xFF", "\uFFFD\uFFFD"},
        {"a\xE2\x82\xAC\xE2\x82", "a\u20AC\uFFFD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].bytes);
        /* Every way to cut the bytes into pieces. */
        for (unsigned cuts = 0; cuts < 1u << (n - 1); cuts++) {
            qni_lossy state_of = {.n = 0};
            qn_text out = {0};
            for (size_t first = 0, at = 1; at <= n; at++) {
                if (at < n && !(cuts >> (at - 1) & 1u)) continue;
                assert_true(qni_lossy_push(&state_of, &out, cases[i].bytes + first, at - first));
                first = at;
            }
            assert_true(qni_lossy_finish(&state_of, &out));
            assert_string_equal(out.data, cases[i].text);
            qn_text_release(&out);
        }
    }
}

/* An incomplete character before an added token, before padding, and at the end. */
static void test_incomplete(void **state) {
    (void)state;
    int32_t start = qn_tokenizer_id(tokenizer, "\xC3\xB0"); /* the symbol of byte 0xF0 */
    assert_true(start >= 0);
    int32_t ids[] = {start, 151645, start, 151669, start};
    qn_text out = {0};
    assert_ok(qn_tokenizer_decode(tokenizer, &out, ids, 5, false, err));
    assert_string_equal(out.data, "\uFFFD<|im_end|>\uFFFD\uFFFD");
    check_stream(ids, 5, false);
    check_stream(ids, 5, true);
    qn_text_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_ids),
        cmocka_unit_test(test_characters_byte_by_byte),
        cmocka_unit_test(test_replacement),
        cmocka_unit_test(test_incomplete),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
