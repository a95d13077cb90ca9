/* SPDX-License-Identifier: Apache-2.0 */
/* Unit tests of the regular expression translation, of pre-tokenization, of added tokens, and of NFC. */
#include "../src/base/memory.h"
#include "../src/base/utf8.h"
#include "../src/text/added.h"
#include "../src/text/hash.h"
#include "../src/text/normalize.h"
#include "../src/text/pattern.h"
#include "../src/text/pretokenize.h"
#include "support/cmocka_all.h"
#include "support/sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const char qwen[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Patterns of published tokenizers, one per Split. */
static const char qwen35[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char deepseek_numbers[] = "\\p{N}{1,3}", deepseek_cjk[] = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
static const char deepseek[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char o200k[] = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+("
                            "?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
                            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*("
                            "?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
                            "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static void test_refused_patterns(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *what;
    } cases[] = {
        {"\\w", "this escape at byte 0"},
        {"a\\d", "this escape at byte 1"},
        {"\\h", "this escape at byte 0"},
        {"\\1", "this escape at byte 0"},
        {"\\p{Lx}", "this escape at byte 0"},
        {"\\p{^L}", "this escape at byte 0"},
        {"\\p{Han}", "this escape at byte 0"},
        {"[\\P{M}]", "a negated class inside brackets at byte 1"},
        {"\\p{L", "this escape at byte 0"},
        {"\\p{C}", "this escape at byte 0"},
        {"a{1001}", "so long a repetition at byte 6"},
        {"\\", "this escape at byte 0"},
        {"^a", "an anchor at byte 0"},
        {"a$", "an anchor at byte 1"},
        {"[]", "an empty class at byte 1"},
        {"[a", "an open class at byte 2"},
        {"[[:alpha:]]", "a class inside a class at byte 1"},
        {"[a&&b]", "an intersection of classes at byte 2"},
        {"[^\\S]", "a negated class inside brackets at byte 2"},
        {"[\\s-z]", "a range from a class at byte 3"},
        {"[a-\\s]", "a range to a class at byte 3"},
        {"(?<n>a)", "this kind of group at byte 0"},
        {"(?i)a", "this kind of group at byte 0"},
        {"(a", "an open group at byte 2"},
        {"a)", "an unmatched parenthesis at byte 1"},
        {"a{,3}", "this use of braces at byte 2"},
        {"a{2}+", "this use of braces at byte 3"},
        {"a{2}?", "this use of braces at byte 3"},
        {"{", "this use of braces at byte 1"},
        {"(?i:ss)", "a ligature's letters inside (?i: at byte 6"},
        {"(?i:sT)", "a ligature's letters inside (?i: at byte 6"},
        {"(?i:[a])", "a class inside (?i: at byte 4"},
        {"(?i:\\s)", "a class inside (?i: at byte 4"},
        {"(?i:a+)", "a repetition inside (?i: at byte 5"},
        {"(?i:(a))", "a group inside (?i: at byte 4"},
        {"(?i:\xC3\xA9)", "a character beyond ASCII inside (?i: at byte 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_text out = {0};
        qn_error err = {0};
        qn_status status = qni_pattern_translate(&out, cases[i].pattern, strlen(cases[i].pattern), &err);
        char want[200];
        snprintf(want, sizeof want, "regular expression: %s is not supported", cases[i].what);
        if (status != QN_EUNSUPPORTED || strcmp(err.message, want) != 0) {
            fail_msg("%s: %s, %s", cases[i].pattern, qn_status_name(status), err.message);
        }
        qn_text_release(&out);
    }
}

typedef struct pretokens {
    char text[4096]; /* the pre-tokens, each in [] */
    size_t n;
} pretokens;

static qn_status append_pretoken(void *user, const char *pretoken, size_t size, qn_error *err) {
    (void)err;
    pretokens *p = user;
    assert_true(size > 0 && p->n + size + 3 < sizeof p->text);
    p->text[p->n++] = '[';
    memcpy(p->text + p->n, pretoken, size);
    p->n += size;
    p->text[p->n++] = ']';
    p->text[p->n] = '\0';
    return QN_OK;
}

static void split(const char *const *patterns, int n, qni_split_engine engine, const char *text, pretokens *out) {
    qni_splitting *splitting = NULL;
    assert_ok(qni_splitting_create(&splitting, engine, err));
    for (int i = 0; i < n; i++) assert_ok(qni_splitting_add(splitting, patterns[i], strlen(patterns[i]), err));
    qni_split_scratch *scratch = qni_split_scratch_create(splitting);
    assert_non_null(scratch);
    out->n = 0;
    out->text[0] = '\0';
    qni_split_begin(scratch, strlen(text));
    assert_ok(qni_splitting_run(splitting, scratch, text, strlen(text), append_pretoken, out, err));
    qni_split_scratch_free(scratch);
    qni_splitting_free(splitting);
}

static void test_pretokens(void **state) {
    (void)state;
    static const struct {
        const char *patterns[3], *text, *pretokens;
    } cases[] = {
        {{qwen}, "I'm don't  x12 \n\n a!?\r\n  ", "[I]['m][ don]['t][ ][ x][1][2][ \n\n][ a][!?\r\n][  ]"},
        {{qwen}, "x'\u017F 'RE\u3000\u3000y", "[x]['\u017F][ '][RE][\u3000][\u3000y]"},
        {{qni_pattern_gpt2}, "I'm 123 a  b", "[I]['m][ 123][ a][ ][ b]"},
        {{"b+"}, "abbcb", "[a][bb][c][b]"},
        {{"b*"}, "abbc", "[a][bb][c]"},
        {{"x"}, "abc", "[abc]"},
        {{""}, "abc", "[a][b][c]"},
        {{"\\p{N}", "b"}, "ab1bc", "[a][b][1][b][c]"},
        {{"a|b", "."}, "xyab", "[x][y][a][b]"},
        {{"\\p{N}{1,3}"}, "12345", "[123][45]"},
        {{"(?:ab|[c-e])++|\\.|[\\]\\-x]"}, "abdc.]-y", "[abdc][.][]][-][y]"},
        {{"\\s"}, "a\u180E\u1680b\x1C\xC2\x85", "[a\u180E][\u1680][b\x1C][\xC2\x85]"},
        {{"\\p{L}+"}, "1a\U00016100\U000323AF\uA7DC2", "[1][a\U00016100\U000323AF\uA7DC][2]"},
        {{"\\p{N}+"}, "a1\U00016130\U0001E5F1b", "[a][1\U00016130\U0001E5F1][b]"},
        {{NULL}, "any thing", "[any thing]"},
        /* Expected values of these: tokenizers 0.23.3. U+1171E moved from Mn to Mc in Unicode 16.0. */
        {{qwen35}, " e\u0301a\u0903 \u0301x-\u0301!1", "[ e\u0301a\u0903][ \u0301x][-\u0301][!][1]"},
        {{deepseek_numbers, deepseek_cjk, deepseek},
         "a12345\u4E2D\u6587.Net, x\u0301+= \u30A2\n",
         "[a][123][45][\u4E2D\u6587][.Net][,][ x\u0301][+=][ ][\u30A2][\n]"},
        {{o200k},
         "HelloWORLD's caf\u00E9\u01C5x \u0301\u02B0/ 1234\n",
         "[Hello][WORLD's][ caf\u00E9][\u01C5x][ \u0301\u02B0][/][ ][123][4][\n]"},
        {{"\\p{Mn}+"}, "a\u0301\U0001171E\U00010D69\U0001171F", "[a][\u0301][\U0001171E][\U00010D69\U0001171F]"},
        {{"\\p{Mc}"}, "a\U0001171E", "[a][\U0001171E]"},
        {{"\\P{P}+"}, "ab!?c\U00010D6E", "[ab][!?][c][\U00010D6E]"},
        {{"[\\p{Sc}\\p{Sm}]+"}, "a$+\U00011FDD\U00010D8E<b", "[a][$+\U00011FDD\U00010D8E<][b]"},
    };
    pretokens got;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = 0;
        while (n < 3 && cases[i].patterns[n] != NULL) n++;
        for (int engine = 0; engine < 2; engine++) {
            split(cases[i].patterns, n, (qni_split_engine)engine, cases[i].text, &got);
            assert_string_equal(got.text, cases[i].pretokens);
        }
    }
}

static void test_bad_patterns(void **state) {
    (void)state;
    qni_splitting *splitting = NULL;
    qn_error error = {0};
    assert_ok(qni_splitting_create(&splitting, QNI_SPLIT_FASTEST, err));
    assert_int_equal(qni_splitting_add(splitting, "*", 1, &error), QN_EFORMAT);
    assert_int_equal(qni_splitting_add(splitting, "[b-a]", 5, &error), QN_EFORMAT);
    assert_int_equal(qni_splitting_add(splitting, "\0", 1, &error), QN_EUNSUPPORTED);
    for (int i = 0; i < QNI_SPLIT_STAGES; i++) assert_ok(qni_splitting_add(splitting, "a", 1, err));
    assert_int_equal(qni_splitting_add(splitting, "a", 1, &error), QN_EUNSUPPORTED);
    qni_splitting_free(splitting);
}

/* An expression with exponential run time ends with a clean error. */
static void test_exponential_pattern(void **state) {
    (void)state;
    qni_splitting *splitting = NULL;
    qn_error error = {0};
    assert_ok(qni_splitting_create(&splitting, QNI_SPLIT_INTERPRETED, err));
    const char *pattern = "(?:a+a+)+[bd]";
    assert_ok(qni_splitting_add(splitting, pattern, strlen(pattern), err));
    qni_split_scratch *scratch = qni_split_scratch_create(splitting);
    pretokens got = {.n = 0};
    char text[61];
    memset(text, 'a', 60);
    text[60] = 'c';
    qni_split_begin(scratch, sizeof text);
    assert_int_equal(qni_splitting_run(splitting, scratch, text, sizeof text, append_pretoken, &got, &error), QN_EFULL);
    assert_string_equal(error.message, "pre_tokenizer: regular expression at byte 0: match limit exceeded");
    qni_split_scratch_free(scratch);
    qni_splitting_free(splitting);
}

static qn_status count_bytes(void *user, const char *pretoken, size_t size, qn_error *err) {
    (void)pretoken;
    (void)err;
    *(size_t *)user += size;
    return QN_OK;
}

/* Split `unit` repeated to `size` bytes, with the patterns applied in turn. */
static qn_status split_long(const char *const *patterns, int n, qni_split_engine engine, const char *unit, size_t size,
                            qn_error *error) {
    qni_splitting *splitting = NULL;
    assert_ok(qni_splitting_create(&splitting, engine, err));
    for (int i = 0; i < n; i++) assert_ok(qni_splitting_add(splitting, patterns[i], strlen(patterns[i]), err));
    qni_split_scratch *scratch = qni_split_scratch_create(splitting);
    const size_t n_unit = strlen(unit);
    size -= size % n_unit;
    char *text = malloc(size);
    assert_true(scratch != NULL && text != NULL);
    for (size_t i = 0; i < size; i += n_unit) memcpy(text + i, unit, n_unit);
    size_t covered = 0;
    qni_split_begin(scratch, size);
    qn_status status = qni_splitting_run(splitting, scratch, text, size, count_bytes, &covered, error);
    assert_true(covered == size || status != QN_OK);
    free(text);
    qni_split_scratch_free(scratch);
    qni_splitting_free(splitting);
    return status;
}

/* Work quadratic in the text or worse ends with a clean error: each search may be short, but all share one budget. */
static void test_step_budget(void **state) {
    (void)state;
    static const char *const patterns[][3] = {
        {"a*a*b|a"},        {"a*a*a*b|a"},       {"[^b]*[^b]*b|a"}, {"a(?=a*a*b)|a"},
        {"(?:a*?c)?a"},     {"a(?:a*?c)?"},      {"(?=a*c)a|a"},    {"a(?![^c]*c)"},
        {"a++b|a"},         {"(?>a*)b|a"},       {"a{1,}b|a"},      {"a{1,60000}b|a"},
        {"(?:a|a){1,}b|a"}, {"(?:a?){30}b|a"},   {"(?:aa|a)*?b|a"}, {"(?:a{900}){900}b|a"},
        {"a+?b|a"},         {"[a-z]+x|a"},       {"(?i:a)*b|a"},    {"(?:(?:a|b)*c|a)"},
        {"x", "a+b|a"},     {"x", "y", "a+b|a"}, {"a(?!a*b)"},      {"a?a?a?a?a?a?a?a?a?a?a*b|a"},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        for (int engine = 0; engine < 2; engine++) {
            qn_error error = {0};
            const int n = patterns[i][1] == NULL ? 1 : patterns[i][2] == NULL ? 2 : 3;
            qn_status status = split_long(patterns[i], n, (qni_split_engine)engine, "a", 10000, &error);
            if (status != QN_EFULL) fail_msg("%s: %s", patterns[i][0], qn_status_name(status));
            assert_non_null(strstr(error.message, ": match limit exceeded"));
        }
    }
}

/* Patterns of published tokenizers never reach the limit. */
static void test_published_patterns(void **state) {
    (void)state;
    static const struct {
        int n;
        const char *pattern[3];
    } all[] = {{1, {qwen}},
               {1, {qni_pattern_gpt2}},
               {1, {qwen35}},
               {3, {deepseek_numbers, deepseek_cjk, deepseek}},
               {1, {o200k}}};
    static const char *const units[] = {"a",       "A",        " ",        "\n",     "\t",     "1",
                                        "!",       "'",        "-A",       "\r\n ",  "\u3000", "\u0301",
                                        "\u4E2D",  "A\u0301",  "\n \n!",   " A",     "'s",     "\u02B0A",
                                        "aB1! \n", "\u01C5\n", "  \n \t ", "\u00AB", "A/",     "\u2028"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
            qn_error error = {0};
            if (split_long(all[i].pattern, all[i].n, QNI_SPLIT_FASTEST, units[k], 1 << 17, &error) != QN_OK) {
                fail_msg("pattern %zu, text %zu: %s", i, k, error.message);
            }
        }
    }
}

static void test_added_tokens(void **state) {
    (void)state;
    static const char *const tokens[] = {"<a>", "<ab>", "<a><b", "\u4E2D", "<"};
    qni_added added = {0};
    for (int32_t i = 0; i < 5; i++) assert_true(qni_added_add(&added, tokens[i], strlen(tokens[i]), i));
    static const struct {
        const char *text;
        size_t from, at, length;
        int32_t id;
    } cases[] = {
        {"x<a>", 0, 1, 3, 0}, {"<a><", 0, 0, 3, 0},    {"<a><b>", 0, 0, 5, 2},
        {"<ab>", 0, 0, 4, 1}, {"<ab", 0, 0, 1, 4},     {"a\u4E2D", 0, 1, 3, 3},
        {"abc", 0, 3, 0, -1}, {"<a>a<a>", 1, 4, 3, 0}, {"", 0, 0, 0, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length = 0;
        int32_t id = -1;
        size_t n = strlen(cases[i].text);
        assert_int_equal(qni_added_find(&added, cases[i].text, n, cases[i].from, &length, &id), cases[i].at);
        assert_int_equal(length, cases[i].length);
        assert_int_equal(id, cases[i].id);
    }
    qni_added_release(&added);
    size_t length;
    int32_t id;
    assert_int_equal(qni_added_find(&added, "<a>", 3, 0, &length, &id), 3);
}

/* Expected values: SipHash-1-3 of CPython 3.11, hash() of bytes with PYTHONHASHSEED=0. */
static void test_hash(void **state) {
    (void)state;
    char bytes[23];
    for (int i = 0; i < 23; i++) bytes[i] = (char)(i + 1);
    const qni_hash_key zero = {0, 0};
    assert_true(qni_hash_text(&zero, "a", 1) == 0x407448D2B89B1813u);
    assert_true(qni_hash_text(&zero, "abcdefg", 7) == 0x6DB12AAE9070F506u);
    assert_true(qni_hash_text(&zero, "abcdefgh", 8) == 0x3F7B849C0B8E35EAu);
    assert_true(qni_hash_text(&zero, "abcdefghi", 9) == 0xF89B34A3D11EB6E5u);
    assert_true(qni_hash_text(&zero, bytes, sizeof bytes) == 0xD0D53B83A76C9E04u);
    qni_hash_key one = zero, two = zero;
    qni_hash_key_make(&one);
    qni_hash_key_make(&two);
    assert_true(one.k0 != two.k0 && one.k1 != two.k1 && one.k0 != one.k1);
}

static void normal(qni_nfc *nfc, const char *text, size_t size, const char *want, size_t want_size) {
    const char *out;
    size_t n;
    assert_true(qni_nfc_run(nfc, text, size, &out, &n));
    if (n != want_size || memcmp(out, want, n) != 0) fail_msg("\"%s\": \"%.*s\", not \"%s\"", text, (int)n, out, want);
}

static void test_nfc_cases(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {"plain ASCII, longer than eight bytes", "plain ASCII, longer than eight bytes"},
        {"e\u0301", "\u00E9"},
        {"\u00E9\u0301e\u0301x", "\u00E9\u0301\u00E9x"},
        {"q\u0307\u0323", "q\u0323\u0307"},
        {"\u1E0B\u0323", "\u1E0D\u0307"},
        {"\u1100\u1161\u11A8\uAC00\u11A8", "\uAC01\uAC01"},
        {"\u212B\u2126", "\u00C5\u03A9"},
        {"\u0958", "\u0915\u093C"},
        {"\U0001D15E", "\U0001D157\U0001D165"},
        {"\u0F73x\u0F71", "\u0F71\u0F72x\u0F71"},
        {"\u09C7\u09BE\u09C7\u09D7", "\u09CB\u09CC"},
        {"\u0301a", "\u0301a"},
        /* A text may start with marks; nothing before its start is read. */
        {"\u0301\u0323", "\u0323\u0301"},
        {"\u0301\u0301\u0323\u0345\u0334", "\u0334\u0323\u0301\u0301\u0345"},
        /* Marks introduced after Unicode 9.0 stay in place and separate their neighbors. */
        {"a\u0345\u08D3\u0301", "a\u0345\u08D3\u0301"},
        {"a\U00011935\U00011930", "a\U00011935\U00011930"},
        {"\U00011938", "\U00011938"},
    };
    qni_nfc nfc = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        normal(&nfc, cases[i].text, strlen(cases[i].text), cases[i].want, strlen(cases[i].want));
    }
    qni_nfc_trim(&nfc, 0);
}

/* Characters of Unicode 9.0 that take part in normalization, and some that do not. */
static uint32_t random_point(test_rng *rng) {
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x20, 0x17F},    {0x300, 0x34E},   {0x3B1, 0x3CE},   {0x591, 0x5BD},   {0x64B, 0x65F},     {0x915, 0x94D},
        {0x9BE, 0x9CD},   {0xF71, 0xF84},   {0x1100, 0x11FF}, {0x1E00, 0x1EFF}, {0x1F00, 0x1FFF},   {0x20D0, 0x20F0},
        {0x212A, 0x212B}, {0xAC00, 0xAC40}, {0xF900, 0xFA6D}, {0xFB1D, 0xFB4E}, {0x110B9, 0x110BA}, {0x1D15E, 0x1D172},
    };
    size_t i = (size_t)rng_below(rng, sizeof ranges / sizeof *ranges);
    return ranges[i].first + (uint32_t)rng_below(rng, (int32_t)(ranges[i].last - ranges[i].first + 1));
}

/* Our segmentation and ordering against utf8proc's own normalization of the whole text. */
static void test_nfc_against_utf8proc(void **state) {
    (void)state;
    test_rng rng = {11};
    qni_nfc nfc = {0};
    for (int round = 0; round < 30000; round++) {
        char text[1024];
        size_t n = 0;
        int32_t count = rng_below(&rng, round % 50 == 0 ? 200 : 12);
        for (int32_t i = 0; i < count; i++) n += qni_utf8_encode(text + n, random_point(&rng));
        utf8proc_uint8_t *want = NULL;
        utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &want,
                                             UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_true(size >= 0);
        normal(&nfc, text, n, (const char *)want, (size_t)size);
        free(want);
    }
    qni_nfc_trim(&nfc, 0);
    assert_null(nfc.point);
}

/* Long runs of marks use the counting sort, which must be stable. */
static void test_nfc_long_runs(void **state) {
    (void)state;
    enum { N = 3000 };
    char text[2 * N + 1], want[2 * N + 1];
    text[0] = want[0] = 'q';
    for (size_t i = 0; i < N; i++) {
        /* Classes 230, 220 and 230; the two of class 230 keep their order. */
        static const uint32_t marks[] = {0x301, 0x323, 0x30E};
        qni_utf8_encode(text + 1 + 2 * i, marks[i % 3]);
        size_t rank = i < N / 3 ? 1 : 0;
        qni_utf8_encode(want + 1 + 2 * i, rank == 1 ? 0x323u : (i - N / 3) % 2 == 0 ? 0x301u : 0x30Eu);
    }
    qni_nfc nfc = {0};
    normal(&nfc, text, sizeof text, want, sizeof want);
    qni_nfc_trim(&nfc, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_patterns),
        cmocka_unit_test(test_pretokens),
        cmocka_unit_test(test_bad_patterns),
        cmocka_unit_test(test_exponential_pattern),
        cmocka_unit_test(test_step_budget),
        cmocka_unit_test(test_published_patterns),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_nfc_cases),
        cmocka_unit_test(test_nfc_against_utf8proc),
        cmocka_unit_test(test_nfc_long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
