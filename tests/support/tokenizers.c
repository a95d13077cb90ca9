/* SPDX-License-Identifier: Apache-2.0 */
/* The small tokenizer. */
#include "tokenizers.h"

#include "../../src/base/utf8.h"
#include "../../src/text/vocab.h"
#include "cmocka_all.h"

json_t *small_tokenizer(void) {
    static const char frame[] =
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": ["
        "{\"id\": 258, \"content\": \"<|a|>\", \"special\": true, \"normalized\": false},"
        "{\"id\": 259, \"content\": \"<b>\", \"special\": false, \"normalized\": false}],"
        "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
        "{\"type\": \"Split\", \"pattern\": {\"Regex\": \" ?\\\\p{L}+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
        "\"behavior\": \"Isolated\", \"invert\": false},"
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, \"use_regex\": false}]},"
        "\"post_processor\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"},"
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"ignore_merges\": false,"
        "\"vocab\": {}, \"merges\": [[\"a\", \"b\"], \"ab c\"]}}";
    json_t *root = json_loads(frame, 0, NULL);
    assert_non_null(root);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int byte = 0; byte < 256; byte++) {
        char text[5] = {0};
        qni_utf8_encode(text, qni_byte_symbol((unsigned char)byte));
        assert_int_equal(json_object_set_new(vocab, text, json_integer(byte)), 0);
    }
    json_object_set_new(vocab, "ab", json_integer(256));
    json_object_set_new(vocab, "abc", json_integer(257));
    return root;
}
