/* SPDX-License-Identifier: Apache-2.0 */
/* Invalid or hostile tokenizer files: each is refused with a message that names the cause. */
#include "../src/text/tokenizer_impl.h"
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/tokenizers.h"

#include <stdlib.h>
#include <string.h>

/* Set the value at a path of keys and indices ("model/merges/0") to a JSON text; NULL removes it. */
static void set_at(json_t *root, const char *path, const char *value) {
    char *copy = strdup(path), *rest = copy;
    json_t *at = root;
    for (char *slash; (slash = strchr(rest, '/')) != NULL; rest = slash + 1) {
        *slash = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(rest, NULL, 10)) : json_object_get(at, rest);
        assert_non_null(at);
    }
    json_t *item = value != NULL ? json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    if (value != NULL) assert_non_null(item);
    if (value == NULL) {
        assert_int_equal(json_object_del(at, rest), 0);
    } else if (json_is_array(at)) {
        size_t index = strtoul(rest, NULL, 10);
        assert_int_equal(
            index < json_array_size(at) ? json_array_set_new(at, index, item) : json_array_append_new(at, item), 0);
    } else {
        assert_int_equal(json_object_set_new(at, rest, item), 0);
    }
    free(copy);
}

static qn_status open_json(qn_tokenizer **out, const json_t *root, const char *config, qn_error *err) {
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    size_t n = config != NULL ? strlen(config) : 0;
    qn_status status = qni_tokenizer_open_text(out, text, strlen(text), config, n, err);
    free(text);
    return status;
}

typedef struct edit {
    const char *path, *value;
    qn_status status;
    const char *message; /* after "tokenizer.json: " */
} edit;

static void check_edits(const edit *edits, size_t n) {
    for (size_t i = 0; i < n; i++) {
        json_t *root = small_tokenizer();
        set_at(root, edits[i].path, edits[i].value);
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        qn_status status = open_json(&tokenizer, root, NULL, &err);
        if (status != edits[i].status) {
            fail_msg("%s = %s: %s, %s", edits[i].path, edits[i].value, qn_status_name(status), err.message);
        }
        if (status == QN_OK) {
            assert_non_null(tokenizer);
            qn_tokenizer_close(tokenizer);
        } else {
            const char *prefix = "tokenizer.json: ";
            assert_null(tokenizer);
            assert_memory_equal(err.message, prefix, strlen(prefix));
            assert_string_equal(err.message + strlen(prefix), edits[i].message);
        }
        json_decref(root);
    }
}
#define CHECK_EDITS(list) check_edits(list, sizeof(list) / sizeof *(list))

static void test_unsupported_components(void **state) {
    (void)state;
    static const edit edits[] = {
        {"normalizer", "{\"type\": \"Lowercase\"}", QN_EUNSUPPORTED, "normalizer Lowercase is not supported"},
        {"normalizer", "{}", QN_EFORMAT, "normalizer has no type"},
        {"normalizer", "7", QN_EFORMAT, "normalizer has no type"},
        {"normalizer", "null", QN_OK, NULL},
        {"normalizer", NULL, QN_OK, NULL},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}", QN_OK, NULL},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}]}", QN_EUNSUPPORTED,
         "normalizer NFKC is not supported"},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [null]}", QN_EFORMAT, "normalizer has no type"},
        {"normalizer", "{\"type\": \"Sequence\"}", QN_EFORMAT, "normalizer Sequence: normalizers must be an array"},
        {"pre_tokenizer", "null", QN_EUNSUPPORTED, "a pre_tokenizer without ByteLevel is not supported"},
        {"pre_tokenizer", "{\"type\": \"Whitespace\"}", QN_EUNSUPPORTED, "pre_tokenizer Whitespace is not supported"},
        {"pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", QN_OK, NULL},
        {"pre_tokenizer", "{\"type\": \"ByteLevel\"}", QN_EUNSUPPORTED,
         "pre_tokenizer ByteLevel: add_prefix_space true is not supported"},
        {"pre_tokenizer", "{\"type\": \"Sequence\"}", QN_EFORMAT,
         "pre_tokenizer Sequence: pretokenizers must be an array"},
        {"pre_tokenizer/pretokenizers/2", "{\"type\": \"Digits\"}", QN_EUNSUPPORTED,
         "pre_tokenizer Digits is not supported"},
        {"pre_tokenizer/pretokenizers/2", "{\"type\": \"ByteLevel\"}", QN_EUNSUPPORTED,
         "pre_tokenizer ByteLevel after ByteLevel is not supported"},
        {"pre_tokenizer/pretokenizers/1/add_prefix_space", "true", QN_EUNSUPPORTED,
         "pre_tokenizer ByteLevel: add_prefix_space true is not supported"},
        {"pre_tokenizer/pretokenizers/1/use_regex", "1", QN_EFORMAT,
         "pre_tokenizer ByteLevel: use_regex must be a boolean"},
        {"pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", QN_EUNSUPPORTED,
         "pre_tokenizer Split: behavior Removed is not supported"},
        {"pre_tokenizer/pretokenizers/0/behavior", NULL, QN_EFORMAT, "pre_tokenizer Split: behavior must be a string"},
        {"pre_tokenizer/pretokenizers/0/invert", "true", QN_EUNSUPPORTED,
         "pre_tokenizer Split: invert true is not supported"},
        {"pre_tokenizer/pretokenizers/0/pattern", "{\"String\": \" \"}", QN_EUNSUPPORTED,
         "pre_tokenizer Split: a String pattern is not supported"},
        {"pre_tokenizer/pretokenizers/0/pattern", "[]", QN_EFORMAT, "pre_tokenizer Split: pattern must be an object"},
        {"pre_tokenizer/pretokenizers/0/pattern/Regex", "5", QN_EFORMAT,
         "pre_tokenizer Split: pattern has no Regex string"},
        {"pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\w+\"", QN_EUNSUPPORTED,
         "regular expression: this escape at byte 0 is not supported"},
        {"decoder", "null", QN_EUNSUPPORTED, "decoder is missing; only ByteLevel is supported"},
        {"decoder", "{\"type\": \"Metaspace\"}", QN_EUNSUPPORTED, "decoder Metaspace is not supported"},
        {"post_processor", "null", QN_OK, NULL},
        {"post_processor", "{\"type\": \"BertProcessing\"}", QN_EUNSUPPORTED,
         "post_processor BertProcessing is not supported"},
        {"version", "\"2.0\"", QN_EUNSUPPORTED, "a version other than \"1.0\" is not supported"},
    };
    CHECK_EDITS(edits);
}

static void test_model(void **state) {
    (void)state;
    static const edit edits[] = {
        {"model", "[]", QN_EFORMAT, "model must be an object"},
        {"model/type", "\"WordPiece\"", QN_EUNSUPPORTED, "model WordPiece is not supported"},
        {"model/type", "3", QN_EFORMAT, "model has no type"},
        {"model/type", NULL, QN_OK, NULL},
        {"model/dropout", "0.1", QN_EUNSUPPORTED, "model: dropout is not supported"},
        {"model/dropout", "0.0", QN_OK, NULL},
        {"model/dropout", "\"x\"", QN_EFORMAT, "model: dropout must be a number"},
        {"model/byte_fallback", "true", QN_EUNSUPPORTED, "model: byte_fallback true is not supported"},
        {"model/continuing_subword_prefix", "\"\"", QN_OK, NULL},
        {"model/continuing_subword_prefix", "\"##\"", QN_EUNSUPPORTED,
         "model: continuing_subword_prefix \"##\" is not supported"},
        {"model/end_of_word_suffix", "{}", QN_EFORMAT, "model: end_of_word_suffix must be a string"},
        {"model/ignore_merges", "\"no\"", QN_EFORMAT, "model: ignore_merges must be a boolean"},
        {"model/vocab", "[]", QN_EFORMAT, "model: vocab must be an object"},
        {"model/vocab", "{}", QN_EFORMAT, "vocab: no token \"\u0100\" for byte 0x00"},
        {"model/vocab/b", NULL, QN_EFORMAT, "vocab: no token \"b\" for byte 0x62"},
        {"model/vocab/x", "-1", QN_EFORMAT, "token \"x\": id -1 is not within 0 … 4194303"},
        {"model/vocab/x", "4194304", QN_EFORMAT, "token \"x\": id 4194304 is not within 0 … 4194303"},
        {"model/vocab/x", "9223372036854775807", QN_EFORMAT,
         "token \"x\": id 9223372036854775807 is not within 0 … 4194303"},
        {"model/vocab/x", "\"120\"", QN_EFORMAT, "token \"x\": id must be an integer within 0 … 4194303, got \"120\""},
        {"model/vocab/x", "1.5", QN_EFORMAT, "token \"x\": id must be an integer within 0 … 4194303, got 1.5"},
        {"model/vocab/new", "257", QN_EFORMAT, "id 257: is both \"abc\" and \"new\""},
        {"model/merges", "null", QN_EFORMAT, "model: merges must be an array"},
        {"model/merges", "[]", QN_OK, NULL},
        {"model/merges/0", "[\"a\", \"zz\"]", QN_EFORMAT, "merge 0: \"zz\" is not in the vocab"},
        {"model/merges/0", "[\"zz\", \"a\"]", QN_EFORMAT, "merge 0: \"zz\" is not in the vocab"},
        {"model/merges/0", "[\"a\", \"c\"]", QN_EFORMAT, "merge 0: \"ac\" is not in the vocab"},
        {"model/merges/2", "\"a b\"", QN_EFORMAT, "merge 2: duplicate pair \"ab\""},
        {"model/merges/0", "[\"a\"]", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "[\"a\", 1]", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "\"ab\"", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "\"a b c\"", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "{}", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "\"\"", QN_EFORMAT, "merge 0: must be a pair of tokens"},
        {"model/merges/0", "\" \"", QN_EFORMAT, "merge 0: \"\" is not in the vocab"},
    };
    CHECK_EDITS(edits);
}

static void test_added_tokens(void **state) {
    (void)state;
    static const edit edits[] = {
        {"added_tokens", "null", QN_OK, NULL},
        {"added_tokens", "{}", QN_EFORMAT, "added_tokens must be an array"},
        {"added_tokens/2", "7", QN_EFORMAT, "added_tokens[2]: no content"},
        {"added_tokens/2", "{\"id\": 300}", QN_EFORMAT, "added_tokens[2]: no content"},
        {"added_tokens/2", "{\"id\": 300, \"content\": \"\"}", QN_EFORMAT, "added_tokens[2]: empty content"},
        {"added_tokens/2", "{\"id\": 258, \"content\": \"<|a|>\"}", QN_EFORMAT, "added_tokens: duplicate id 258"},
        {"added_tokens/2", "{\"id\": 300, \"content\": \"<b>\"}", QN_EFORMAT, "token \"<b>\": has id 259 and id 300"},
        {"added_tokens/2", "{\"id\": 97, \"content\": \"<c>\"}", QN_EFORMAT, "id 97: is both \"a\" and \"<c>\""},
        {"added_tokens/2", "{\"id\": -3, \"content\": \"<c>\"}", QN_EFORMAT,
         "token \"<c>\": id -3 is not within 0 … 4194303"},
        {"added_tokens/2", "{\"content\": \"<c>\"}", QN_EFORMAT,
         "token \"<c>\": id must be an integer within 0 … 4194303, got none"},
        {"added_tokens/2", "{\"id\": 4194304, \"content\": \"<c>\"}", QN_EFORMAT,
         "token \"<c>\": id 4194304 is not within 0 … 4194303"},
        {"added_tokens/2", "{\"id\": 4194303, \"content\": \"<c>\"}", QN_EFORMAT,
         "added token \"<c>\": has id 4194303, but tokenizers would assign 260"},
        {"added_tokens/2", "{\"id\": 260, \"content\": \"<c>\"}", QN_OK, NULL},
        {"added_tokens/2", "{\"id\": 257, \"content\": \"abc\"}", QN_OK, NULL},
        {"added_tokens/0/special", "\"yes\"", QN_EFORMAT, "added_tokens[0]: special and normalized must be booleans"},
        {"added_tokens/0/lstrip", "true", QN_EUNSUPPORTED, "added token \"<|a|>\": lstrip true is not supported"},
        {"added_tokens/0/rstrip", "true", QN_EUNSUPPORTED, "added token \"<|a|>\": rstrip true is not supported"},
        {"added_tokens/0/single_word", "true", QN_EUNSUPPORTED,
         "added token \"<|a|>\": single_word true is not supported"},
        {"added_tokens/0/lstrip", "0", QN_EFORMAT, "added token \"<|a|>\": lstrip must be a boolean"},
    };
    CHECK_EDITS(edits);
}

/* Each byte of a text may be compared with a whole added token, so the length of added tokens is limited. */
static void test_long_added_token(void **state) {
    (void)state;
    enum { MOST = 1024, TEXT = 1 << 16 };
    for (int extra = 0; extra < 2; extra++) {
        char content[MOST + 2] = "";
        memset(content, 'q', (size_t)(MOST + extra));
        json_t *root = small_tokenizer(), *token = json_pack("{s:i, s:s}", "id", 260, "content", content);
        assert_int_equal(json_array_append_new(json_object_get(root, "added_tokens"), token), 0);
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        qn_status status = open_json(&tokenizer, root, NULL, &err);
        assert_int_equal(status, extra == 0 ? QN_OK : QN_EUNSUPPORTED);
        if (extra == 1) assert_non_null(strstr(err.message, "1025 bytes are not supported, only 1024"));
        if (extra == 0) {
            static char text[TEXT];
            qn_ids ids = {0};
            memset(text, 'q', sizeof text);
            assert_int_equal(qn_tokenizer_encode(tokenizer, &ids, text, TEXT - 1, true, &err), QN_OK);
            assert_int_equal(ids.size, TEXT / MOST - 1 + MOST - 1);
            assert_int_equal(ids.data[0], 260);
            assert_int_equal(ids.data[ids.size - 1], 'q');
            qn_ids_release(&ids);
        }
        qn_tokenizer_close(tokenizer);
        json_decref(root);
    }
}

#define TEMPLATE(single, specials)                                                                                     \
    "{\"type\": \"TemplateProcessing\", \"single\": [" single "], \"pair\": [], \"special_tokens\": {" specials "}}"
#define TEXT(id)               "{\"Sequence\": {\"id\": \"" id "\", \"type_id\": 0}}"
#define SPECIAL(id)            "{\"SpecialToken\": {\"id\": \"" id "\", \"type_id\": 0}}"
#define IDS(name, ids, tokens) "\"" name "\": {\"id\": \"" name "\", \"ids\": [" ids "], \"tokens\": [" tokens "]}"

static void test_bad_post_processors(void **state) {
    (void)state;
    static const edit edits[] = {
        {"post_processor", "7", QN_EFORMAT, "post_processor has no type"},
        {"post_processor", "{\"type\": \"Sequence\"}", QN_EFORMAT,
         "post_processor Sequence: processors must be an array"},
        {"post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"RobertaProcessing\"}]}",
         QN_EUNSUPPORTED, "post_processor RobertaProcessing is not supported"},
        {"post_processor", "{\"type\": \"TemplateProcessing\"}", QN_EFORMAT,
         "post_processor TemplateProcessing: single must be an array"},
        {"post_processor", TEMPLATE("", ""), QN_EUNSUPPORTED,
         "post_processor TemplateProcessing: 0 times the text in single is not supported"},
        {"post_processor", TEMPLATE(TEXT("A") ", " TEXT("A"), ""), QN_EUNSUPPORTED,
         "post_processor TemplateProcessing: 2 times the text in single is not supported"},
        {"post_processor", TEMPLATE(TEXT("B"), ""), QN_EFORMAT,
         "post_processor TemplateProcessing: single has Sequence B"},
        {"post_processor", TEMPLATE("5", ""), QN_EFORMAT,
         "post_processor TemplateProcessing: single[0] must be a Sequence or a SpecialToken"},
        {"post_processor", TEMPLATE("{\"SpecialToken\": {}}", ""), QN_EFORMAT,
         "post_processor TemplateProcessing: a SpecialToken has no id"},
        {"post_processor", TEMPLATE(SPECIAL("<b>"), ""), QN_EFORMAT,
         "post_processor TemplateProcessing: \"<b>\" has no ids"},
        {"post_processor", TEMPLATE(SPECIAL("<b>"), IDS("<b>", "259", "")), QN_EFORMAT,
         "post_processor TemplateProcessing: \"<b>\" needs a token for each of its ids"},
        {"post_processor", TEMPLATE(SPECIAL("<b>"), IDS("<b>", "258", "\"<b>\"")), QN_EFORMAT,
         "post_processor TemplateProcessing: token \"<b>\" has id 259, not 258"},
        {"post_processor", TEMPLATE(SPECIAL("<b>"), IDS("<b>", "259", "\"<x>\"")), QN_EFORMAT,
         "post_processor TemplateProcessing: token \"<x>\" is not known"},
        {"post_processor", TEMPLATE(SPECIAL("<b>"), IDS("<b>", "2.5", "\"<b>\"")), QN_EFORMAT,
         "token \"<b>\": id must be an integer within 0 … 4194303, got 2.5"},
        {"post_processor",
         "{\"type\": \"Sequence\", \"processors\": [" TEMPLATE(TEXT("A"), "") ", " TEMPLATE(TEXT("A"), "") "]}",
         QN_EUNSUPPORTED, "a second post_processor TemplateProcessing is not supported"},
    };
    CHECK_EDITS(edits);
}

/* Expected values: tokenizers 0.23.3, with and without add_special_tokens. */
static void test_post_processors(void **state) {
    (void)state;
    static const struct {
        const char *post, *text;
        int32_t want[5];
        size_t n, first, n_plain; /* the ids without those of the post-processor are want[first … first+n_plain-1] */
    } cases[] = {
        {"{\"type\": \"Sequence\", \"processors\": []}", "abc", {257}, 1, 0, 1},
        {TEMPLATE(TEXT("A"), IDS("<b>", "1", "\"<b>\"")), "abc", {257}, 1, 0, 1},
        {TEMPLATE(SPECIAL("<b>") ", " TEXT("A") ", " SPECIAL("<|a|>"),
                  IDS("<b>", "259", "\"<b>\"") ", " IDS("<|a|>", "258", "\"<|a|>\"")),
         "abc<b>",
         {259, 257, 259, 258},
         4,
         1,
         2},
        {TEMPLATE(TEXT("A") ", " SPECIAL("end"), IDS("end", "258, 257", "\"<|a|>\", \"abc\"")),
         "",
         {258, 257},
         2,
         0,
         0},
        {"{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(
             TEXT("A") ", " SPECIAL("<|a|>"), IDS("<|a|>", "258", "\"<|a|>\"")) "]}",
         "xab",
         {'x', 256, 258},
         3,
         0,
         2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = small_tokenizer();
        set_at(root, "post_processor", cases[i].post);
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        if (open_json(&tokenizer, root, NULL, &err) != QN_OK) fail_msg("case %zu: %s", i, err.message);
        qn_ids ids = {0};
        const size_t n = strlen(cases[i].text);
        assert_int_equal(qn_tokenizer_encode_document(tokenizer, &ids, cases[i].text, n, true, &err), QN_OK);
        if (ids.size != cases[i].n || memcmp(ids.data, cases[i].want, ids.size * sizeof *ids.data) != 0) {
            fail_msg("case %zu: %zu ids", i, ids.size);
        }
        ids.size = 0;
        assert_int_equal(qn_tokenizer_encode(tokenizer, &ids, cases[i].text, n, true, &err), QN_OK);
        assert_int_equal(ids.size, cases[i].n_plain);
        assert_memory_equal(ids.data, cases[i].want + cases[i].first, ids.size * sizeof *ids.data);
        ids.size = 0;
        assert_int_equal(qn_tokenizer_encode_document(tokenizer, &ids, "\xFF", 1, true, &err), QN_EINVAL);
        assert_int_equal(ids.size, 0);
        qn_ids_release(&ids);
        qn_tokenizer_close(tokenizer);
        json_decref(root);
    }
    assert_int_equal(qn_tokenizer_encode_document(NULL, NULL, "a", 1, true, NULL), QN_EINVAL);
}

static void test_invalid_json(void **state) {
    (void)state;
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    char deep[600];
    memset(deep, '[', sizeof deep);
    static const char *const texts[] = {"", "nul", "[1, 2", "{\"a\": 1, \"a\": 2}", "\"\xFF\"", "null"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(qni_tokenizer_open_text(&tokenizer, texts[i], strlen(texts[i]), NULL, 0, &err), QN_EFORMAT);
    }
    assert_int_equal(qni_tokenizer_open_text(&tokenizer, deep, sizeof deep, NULL, 0, &err), QN_EFORMAT);
    assert_string_equal(err.message, "tokenizer.json: JSON nests deeper than 128");
    assert_null(tokenizer);
}

static void test_directories(void **state) {
    (void)state;
    char *dir = files_make_dir();
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    json_t *root = small_tokenizer();
    char *text = json_dumps(root, 0);
    assert_int_equal(qn_tokenizer_open(&tokenizer, dir, &err), QN_EIO);
    files_write(dir, "tokenizer.json", text, strlen(text));
    assert_int_equal(qn_tokenizer_open(&tokenizer, dir, &err), QN_OK);
    qn_tokenizer_close(tokenizer);
    files_write(dir, "tokenizer_config.json", "{", 1);
    tokenizer = NULL;
    assert_int_equal(qn_tokenizer_open(&tokenizer, dir, &err), QN_EFORMAT);
    assert_non_null(strstr(err.message, "tokenizer_config.json"));
    assert_null(tokenizer);
    free(text);
    json_decref(root);
    files_remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported_components), cmocka_unit_test(test_model),
        cmocka_unit_test(test_added_tokens),           cmocka_unit_test(test_long_added_token),
        cmocka_unit_test(test_bad_post_processors),    cmocka_unit_test(test_post_processors),
        cmocka_unit_test(test_invalid_json),           cmocka_unit_test(test_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
