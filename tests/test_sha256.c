/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 against the examples of FIPS 180-4 (NIST CSRC), with the input divided arbitrarily. */
#include "../src/base/sha256.h"
#include "support/cmocka_all.h"

#include <stdio.h>
#include <string.h>

static void hex(char out[65], qni_sha256 *hash) {
    uint8_t digest[32];
    qni_sha256_final(hash, digest);
    for (int i = 0; i < 32; i++) snprintf(out + (size_t)2 * i, 3, "%02x", digest[i]);
}

static void digest_of(char out[65], const void *data, size_t size, size_t piece) {
    qni_sha256 hash;
    qni_sha256_init(&hash);
    for (size_t at = 0; at < size; at += piece) {
        qni_sha256_update(&hash, (const char *)data + at, size - at < piece ? size - at : piece);
    }
    hex(out, &hash);
}

static void test_vectors(void **state) {
    (void)state;
    static const struct {
        const char *text, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqr"
         "st"
         "u",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 1; piece <= 130; piece++) {
            char got[65];
            digest_of(got, cases[i].text, strlen(cases[i].text), piece);
            assert_string_equal(got, cases[i].digest);
        }
    }
}

static void test_million(void **state) {
    (void)state;
    static char data[1000000];
    memset(data, 'a', sizeof data);
    static const size_t pieces[] = {1, 63, 64, 65, 1000, sizeof data};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        char got[65];
        digest_of(got, data, sizeof data, pieces[i]);
        assert_string_equal(got, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

/* Every length around the padding's corner cases: split in two at any point and whole must agree. */
static void test_lengths(void **state) {
    (void)state;
    unsigned char data[200];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7 + 1);
    for (size_t n = 0; n <= sizeof data; n++) {
        char whole[65], cut[65];
        digest_of(whole, data, n, n > 0 ? n : 1);
        digest_of(cut, data, n, n / 3 + 1);
        assert_string_equal(whole, cut);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
