/* SPDX-License-Identifier: Apache-2.0 */
/* The companions of tokenizer.json: which tokens they add, with which ids, and what is refused in them. */
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/tokenizers.h"

#include <quern/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *json; /* the small tokenizer with "<|endoftext|>" 260 */

static int set_up(void **state) {
    (void)state;
    json_t *root = small_tokenizer();
    json_t *token =
        json_pack("{s:i, s:s, s:b, s:b}", "id", 260, "content", "<|endoftext|>", "special", 1, "normalized", 0);
    if (json_array_append_new(json_object_get(root, "added_tokens"), token) == 0) json = json_dumps(root, 0);
    json_decref(root);
    return json == NULL;
}

static int tear_down(void **state) {
    (void)state;
    free(json);
    return 0;
}

/* The files beside tokenizer.json; NULL: absent. */
typedef struct companions {
    const char *config, *map, *added;
} companions;

static qn_status open_with(qn_tokenizer **out, const companions *files, qn_error *err) {
    char *dir = files_make_dir();
    files_write(dir, "tokenizer.json", json, strlen(json));
    if (files->config != NULL) files_write(dir, "tokenizer_config.json", files->config, strlen(files->config));
    if (files->map != NULL) files_write(dir, "special_tokens_map.json", files->map, strlen(files->map));
    if (files->added != NULL) files_write(dir, "added_tokens.json", files->added, strlen(files->added));
    qn_status status = qn_tokenizer_open(out, dir, err);
    files_remove_dir(dir);
    return status;
}

#define DECODER_OPEN                                                                                                   \
    "\"added_tokens_decoder\": {\"258\": {\"content\": \"<|a|>\", \"special\": true}, "                                \
    "\"259\": {\"content\": \"<b>\", \"special\": false, \"normalized\": false}, "                                     \
    "\"260\": {\"content\": \"<|endoftext|>\", \"special\": true}"
#define DECODER_TWO                                                                                                    \
    "\"added_tokens_decoder\": {\"258\": {\"content\": \"<|a|>\", \"special\": true}, "                                \
    "\"259\": {\"content\": \"<b>\", \"special\": false, \"normalized\": false}}"
#define DECODER DECODER_OPEN "}"
#define PLAIN   "\"tokenizer_class\": \"PreTrainedTokenizerFast\""

/* Expected values: len(), eos_token_id, the ids of "<x><y><z>abc<b>" and their text without special tokens, all from
 * AutoTokenizer (transformers 5.24) for such a directory with "model_type": "qwen3". */
static void test_added_tokens(void **state) {
    (void)state;
    static const struct {
        companions files;
        int32_t n_vocab, eos;
        const char *ids, *text;
    } cases[] = {
        {{NULL, NULL, NULL}, 261, 260, "60 120 62 60 121 62 60 122 62 257 259", "<x><y><z>abc<b>"},
        {{"{}", NULL, NULL}, 261, 260, "60 120 62 60 121 62 60 122 62 257 259", "<x><y><z>abc<b>"},
        {{"{" DECODER "}", NULL, NULL}, 261, 260, "60 120 62 60 121 62 60 122 62 257 259", "<x><y><z>abc<b>"},
        /* the list lacks a default token of Qwen2Tokenizer; other classes need no list, and make no token special that
         * it lacks */
        {{"{" DECODER_TWO "}", NULL, NULL}, 261, 260, "60 120 62 60 121 62 60 122 62 257 259", "<x><y><z>abc<b>"},
        {{"{" PLAIN ", \"added_tokens_decoder\": {}}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{"{" PLAIN ", \"added_tokens_decoder\": {}, \"pad_token\": \"<b>\"}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{"{" PLAIN ", " DECODER ", \"pad_token\": \"<b>\"}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc"},
        {{"{" DECODER ", \"additional_special_tokens\": [\"<x>\"]}", NULL, NULL},
         262,
         260,
         "261 60 121 62 60 122 62 257 259",
         "<y><z>abc<b>"},
        {{"{" DECODER ", \"extra_special_tokens\": [\"<y>\", \"<x>\"]}", NULL, NULL},
         263,
         260,
         "262 261 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{" DECODER ", \"extra_special_tokens\": [\"<y>\"], \"additional_special_tokens\": [\"<x>\"]}", NULL, NULL},
         262,
         260,
         "60 120 62 261 60 122 62 257 259",
         "<x><z>abc<b>"},
        {{"{" DECODER ", \"extra_special_tokens\": {\"q\": \"<x>\"}, \"additional_special_tokens\": [\"<y>\"]}", NULL,
          NULL},
         263,
         260,
         "261 262 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{" DECODER ", " PLAIN
          ", \"extra_special_tokens\": {\"q\": \"<x>\"}, \"additional_special_tokens\": [\"<y>\"]}",
          NULL, NULL},
         263,
         -1,
         "261 262 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{\"extra_special_tokens\": {\"q\": \"<x>\"}, \"additional_special_tokens\": [\"<y>\"]}",
          "{\"additional_special_tokens\": [\"<z>\"]}", NULL},
         263,
         260,
         "261 60 121 62 262 257 259",
         "<y>abc<b>"},
        {{"{\"extra_special_tokens\": {\"q\": \"<x>\"}, \"additional_special_tokens\": [\"<y>\"]}",
          "{\"extra_special_tokens\": [\"<z>\"]}", NULL},
         263,
         260,
         "261 60 121 62 262 257 259",
         "<y>abc<b>"},
        {{"{\"extra_special_tokens\": {\"q\": \"<x>\"}, \"additional_special_tokens\": [\"<y>\"]}",
          "{\"extra_special_tokens\": {\"r\": \"<z>\"}}", NULL},
         264,
         260,
         "261 263 262 257 259",
         "abc<b>"},
        {{"{\"extra_special_tokens\": [\"<x>\"], \"additional_special_tokens\": [\"<y>\"]}",
          "{\"extra_special_tokens\": {\"r\": \"<z>\"}}", NULL},
         263,
         260,
         "60 120 62 262 261 257 259",
         "<x>abc<b>"},
        {{"{\"additional_special_tokens\": [\"<y>\"]}", "{\"extra_special_tokens\": {\"r\": \"<z>\"}}", NULL},
         262,
         260,
         "60 120 62 60 121 62 261 257 259",
         "<x><y>abc<b>"},
        {{"{" DECODER ", \"extra_special_tokens\": [], \"additional_special_tokens\": [\"<x>\"]}", NULL, NULL},
         262,
         260,
         "261 60 121 62 60 122 62 257 259",
         "<y><z>abc<b>"},
        {{"{" DECODER ", \"extra_special_tokens\": {\"image_token\": \"<y>\", \"q\": \"<x>\"}}", NULL, NULL},
         263,
         260,
         "262 261 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{" DECODER ", \"model_specific_special_tokens\": {\"q\": \"<x>\"}}", NULL, NULL},
         262,
         260,
         "261 60 121 62 60 122 62 257 259",
         "<y><z>abc<b>"},
        {{"{" DECODER ", \"model_specific_special_tokens\": {\"q\": \"<x>\"}, \"image_token\": \"<y>\"}", NULL, NULL},
         262,
         260,
         "60 120 62 261 60 122 62 257 259",
         "<x><z>abc<b>"},
        {{"{" DECODER ", \"image_token\": \"<z>\", \"mask_token\": \"<y>\", \"audio_token\": {\"__type\": "
          "\"AddedToken\", \"content\": \"<x>\", \"normalized\": false}}",
          NULL, NULL},
         264,
         260,
         "262 261 263 257 259",
         "abc<b>"},
        {{"{" DECODER ", \"additional_special_tokens\": [\"<z>\"], \"pad_token\": \"<y>\", \"eos_token\": \"<x>\"}",
          NULL, NULL},
         264,
         261,
         "261 262 263 257 259",
         "abc<b>"},
        {{"{" DECODER ", " PLAIN ", \"additional_special_tokens\": [\"<z>\"], \"pad_token\": {\"__type\": "
          "\"AddedToken\", \"content\": \"<y>\", \"normalized\": false}, \"eos_token\": "
          "{\"__type\": \"AddedToken\", \"content\": \"<x>\", \"normalized\": false}}",
          NULL, NULL},
         264,
         261,
         "261 262 263 257 259",
         "abc<b>"},
        {{"{" DECODER ", \"eos_token\": \"abc\"}", NULL, NULL},
         261,
         257,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z><b>"},
        {{"{" DECODER ", " PLAIN ", \"bos_token\": \"abc\"}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z><b>"},
        {{"{" DECODER ", \"eos_token\": \"<b>\"}", NULL, NULL},
         261,
         259,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc"},
        {{"{" DECODER ", " PLAIN ", \"eos_token\": \"<b>\"}", NULL, NULL},
         261,
         259,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc"},
        {{"{" DECODER ", \"eos_token\": null}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{"{" DECODER ", " PLAIN "}", NULL, NULL}, 261, -1, "60 120 62 60 121 62 60 122 62 257 259", "<x><y><z>abc<b>"},
        {{"{" DECODER_OPEN ", \"262\": {\"special\": true, \"normalized\": false, \"content\": \"<x>\"}, \"261\": "
          "{\"special\": true, \"normalized\": false, \"content\": \"<y>\"}}, \"pad_token\": \"<z>\"}",
          NULL, NULL},
         264,
         260,
         "262 261 263 257 259",
         "abc<b>"},
        {{"{" DECODER_OPEN ", \"261\": {\"special\": false, \"normalized\": false, \"content\": \"<x>\"}}}", NULL,
          NULL},
         262,
         260,
         "261 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{NULL,
          "{\"eos_token\": \"<x>\", \"additional_special_tokens\": [\"<y>\"], \"pad_token\": {\"content\": \"<z>\", "
          "\"normalized\": false}}",
          NULL},
         264,
         261,
         "261 263 262 257 259",
         "abc<b>"},
        {{"{\"additional_special_tokens\": [\"<z>\"], \"eos_token\": \"<b>\"}",
          "{\"eos_token\": \"<x>\", \"additional_special_tokens\": [\"<y>\"]}", NULL},
         263,
         261,
         "261 60 121 62 262 257 259",
         "<y>abc<b>"},
        {{"{\"additional_special_tokens\": [\"<z>\"]}", "{\"extra_special_tokens\": [\"<y>\"]}", NULL},
         263,
         260,
         "60 120 62 262 261 257 259",
         "<x>abc<b>"},
        {{"{\"additional_special_tokens\": [\"<z>\"]}",
          "{\"extra_special_tokens\": {\"q\": \"<y>\"}, \"additional_special_tokens\": [\"<x>\"]}", NULL},
         263,
         260,
         "262 261 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{\"image_token\": \"<z>\"}", "{\"audio_token\": \"<y>\"}", NULL},
         263,
         260,
         "60 120 62 261 262 257 259",
         "<x>abc<b>"},
        {{"{" DECODER "}", "{\"eos_token\": \"<|a|>\", \"additional_special_tokens\": [\"<b>\"]}", NULL},
         261,
         260,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{NULL, NULL, "{\"<x>\": 262, \"<y>\": 261}"}, 263, 260, "262 261 60 122 62 257 259", "<x><y><z>abc<b>"},
        {{"{\"additional_special_tokens\": [\"<x>\"]}", NULL, "{\"<x>\": 261, \"<b>\": 259}"},
         262,
         260,
         "261 60 121 62 60 122 62 257 259",
         "<y><z>abc<b>"},
        {{NULL, "{\"eos_token\": \"<y>\", \"pad_token\": \"<x>\"}", "{\"<x>\": 261, \"abc\": 257}"},
         263,
         262,
         "261 262 60 122 62 257 259",
         "<z>abc<b>"},
        {{"{" DECODER "}", NULL, "{\"<b>\": 259, \"<|endoftext|>\": 260}"},
         261,
         260,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
        {{"{" DECODER ", \"add_bos_token\": true, \"add_eos_token\": true, \"bos_token\": \"<b>\", "
          "\"split_special_tokens\": false, \"do_lower_case\": true, \"clean_up_tokenization_spaces\": "
          "true, \"fast_tokenizer_files\": [\"tokenizer.json\"]}",
          NULL, NULL},
         261,
         260,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc"},
        {{"{" DECODER ", " PLAIN ", \"add_prefix_space\": true}", NULL, NULL},
         261,
         -1,
         "60 120 62 60 121 62 60 122 62 257 259",
         "<x><y><z>abc<b>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        if (open_with(&tokenizer, &cases[i].files, &err) != QN_OK) fail_msg("case %zu: %s", i, err.message);
        if (qn_tokenizer_n_vocab(tokenizer) != cases[i].n_vocab || qn_tokenizer_eos(tokenizer) != cases[i].eos) {
            fail_msg("case %zu: %d tokens, eos %d", i, qn_tokenizer_n_vocab(tokenizer), qn_tokenizer_eos(tokenizer));
        }
        const char text[] = "<x><y><z>abc<b>";
        qn_ids ids = {0};
        qn_text back = {0};
        assert_int_equal(qn_tokenizer_encode(tokenizer, &ids, text, sizeof text - 1, true, &err), QN_OK);
        char shown[128] = "";
        for (size_t k = 0, n = 0; k < ids.size; k++) {
            n += (size_t)snprintf(shown + n, sizeof shown - n, k > 0 ? " %d" : "%d", ids.data[k]);
        }
        if (strcmp(shown, cases[i].ids) != 0) fail_msg("case %zu: %s", i, shown);
        assert_int_equal(qn_tokenizer_decode(tokenizer, &back, ids.data, ids.size, true, &err), QN_OK);
        if (strcmp(back.data, cases[i].text) != 0) fail_msg("case %zu: \"%s\"", i, back.data);
        qn_ids_release(&ids);
        qn_text_release(&back);
        qn_tokenizer_close(tokenizer);
    }
    assert_int_equal(qn_tokenizer_eos(NULL), -1);
}

static void test_refused_files(void **state) {
    (void)state;
    static const struct {
        companions files;
        qn_status status;
        const char *message;
    } cases[] = {
        {{"[]", NULL, NULL}, QN_EFORMAT, "tokenizer_config.json: must be an object"},
        {{NULL, "[]", NULL}, QN_EFORMAT, "special_tokens_map.json: must be an object"},
        {{NULL, NULL, "[]"}, QN_EFORMAT, "added_tokens.json: must be an object"},
        {{"{\"added_tokens_decoder\": []}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder must be an object"},
        {{"{\"added_tokens_decoder\": {}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder: lacks \"<|a|>\", which tokenizer.json adds with id 258"},
        {{"{\"added_tokens_decoder\": {\"258\": {\"content\": \"<|a|>\", \"special\": true}}, \"pad_token\": \"<b>\"}",
          NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder: lacks \"<b>\", which tokenizer.json adds with id 259"},
        {{"{\"added_tokens_decoder\": {\"258\": {\"content\": \"<|x|>\", \"special\": true}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added token 258: is \"<|x|>\", but \"<|a|>\" in tokenizer.json"},
        {{"{\"added_tokens_decoder\": {\"258\": {\"content\": \"<|a|>\", \"special\": false}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added token 258: \"special\" differs from tokenizer.json"},
        {{"{\"added_tokens_decoder\": {\"259\": {\"content\": \"<b>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added token 259: \"normalized\" differs from tokenizer.json"},
        {{"{\"added_tokens_decoder\": {\"259\": {\"content\": \"<b>\", \"lstrip\": true}}}", NULL, NULL},
         QN_EUNSUPPORTED,
         "tokenizer_config.json: added token \"<b>\": lstrip true is not supported"},
        {{"{\"added_tokens_decoder\": {\"258\": {}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added token 258: no content"},
        {{"{\"added_tokens_decoder\": {\"261\": {\"content\": \"<b>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: token \"<b>\": has id 259 and id 261"},
        {{"{\"added_tokens_decoder\": {\"262\": {\"content\": \"<q>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added token \"<q>\": has id 262, but tokenizers would assign 261"},
        {{"{\"added_tokens_decoder\": {\"97\": {\"content\": \"<q>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: id 97: is both \"a\" and \"<q>\""},
        {{"{\"added_tokens_decoder\": {\"-1\": {\"content\": \"<q>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder: \"-1\" is not within 0 … 4194303"},
        {{"{\"added_tokens_decoder\": {\"99999999999999999999\": {\"content\": \"<q>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder: \"99999999999999999999\" is not within 0 … 4194303"},
        {{"{\"added_tokens_decoder\": {\"\": {\"content\": \"<q>\"}}}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: added_tokens_decoder: \"\" is not within 0 … 4194303"},
        {{"{\"eos_token\": 5}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: eos_token: must be a string or an object with \"content\""},
        {{"{\"additional_special_tokens\": \"<x>\"}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: extra_special_tokens must be a list of tokens"},
        {{"{\"pad_token\": {\"content\": \"<x>\", \"rstrip\": true}}", NULL, NULL},
         QN_EUNSUPPORTED,
         "tokenizer_config.json: added token \"<x>\": rstrip true is not supported"},
        {{"{\"split_special_tokens\": true}", NULL, NULL},
         QN_EUNSUPPORTED,
         "tokenizer_config.json: split_special_tokens true is not supported"},
        {{"{\"split_special_tokens\": 1}", NULL, NULL},
         QN_EFORMAT,
         "tokenizer_config.json: split_special_tokens must be a boolean"},
        {{"{\"add_prefix_space\": true}", NULL, NULL},
         QN_EUNSUPPORTED,
         "tokenizer_config.json: add_prefix_space true is not supported"},
        {{"{\"fast_tokenizer_files\": [\"tokenizer.4.0.json\", \"tokenizer.json\"]}", NULL, NULL},
         QN_EUNSUPPORTED,
         "tokenizer_config.json: fast_tokenizer_files: \"tokenizer.4.0.json\" instead of tokenizer.json is not "
         "supported"},
        {{"{" DECODER "}", "{\"eos_token\": \"<x>\"}", NULL},
         QN_EFORMAT,
         "special_tokens_map.json: eos_token: \"<x>\" is in neither tokenizer.json nor tokenizer_config.json"},
        {{"{" DECODER "}", "{\"pad_token\": {\"content\": \"<x>\"}}", NULL},
         QN_EFORMAT,
         "special_tokens_map.json: pad_token: \"<x>\" is in neither tokenizer.json nor tokenizer_config.json"},
        {{"{" DECODER "}", "{\"extra_special_tokens\": {\"image\": \"<x>\"}}", NULL},
         QN_EFORMAT,
         "special_tokens_map.json: image: \"<x>\" is in neither tokenizer.json nor tokenizer_config.json"},
        {{"{" DECODER "}", "{\"additional_special_tokens\": [\"<b>\", \"<x>\"]}", NULL},
         QN_EFORMAT,
         "special_tokens_map.json: additional_special_tokens: \"<x>\" is in neither tokenizer.json nor "
         "tokenizer_config.json"},
        {{NULL, "{\"eos_token\": []}", NULL},
         QN_EFORMAT,
         "special_tokens_map.json: eos_token: must be a string or an object with \"content\""},
        {{"{" DECODER "}", NULL, "{\"<x>\": 261}"},
         QN_EFORMAT,
         "added_tokens.json: token \"<x>\": is in neither tokenizer.json nor added_tokens_decoder"},
        {{"{" DECODER "}", NULL, "{\"<b>\": 261}"},
         QN_EFORMAT,
         "added_tokens.json: token \"<b>\": has id 261, but 259 in the other files"},
        {{NULL, NULL, "{\"<b>\": 258}"},
         QN_EFORMAT,
         "added_tokens.json: token \"<b>\": has id 258, but 259 in the other files"},
        {{NULL, NULL, "{\"<x>\": 262}"},
         QN_EFORMAT,
         "added_tokens.json: added token \"<x>\": has id 262, but tokenizers would assign 261"},
        {{NULL, NULL, "{\"<x>\": 97}"}, QN_EFORMAT, "added_tokens.json: id 97: is both \"a\" and \"<x>\""},
        {{NULL, NULL, "{\"<x>\": \"261\"}"},
         QN_EFORMAT,
         "added_tokens.json: token \"<x>\": id must be an integer within 0 … 4194303, got \"261\""},
        {{NULL, NULL, "{\"<x>\": 9223372036854775807}"},
         QN_EFORMAT,
         "added_tokens.json: token \"<x>\": id 9223372036854775807 is not within 0 … 4194303"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        qn_status status = open_with(&tokenizer, &cases[i].files, &err);
        if (status != cases[i].status || strcmp(err.message, cases[i].message) != 0) {
            fail_msg("case %zu: %s, %s", i, qn_status_name(status), err.message);
        }
        assert_null(tokenizer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_refused_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
