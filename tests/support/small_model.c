/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest tokenizer with every feature: 256 bytes, five merges, five added tokens, NFC and Qwen's pattern. */
#include "small_model.h"

#include "cmocka_all.h"
#include "files.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const merged[] = {"Ġt", "he", "in", "Ġthe", "an"};
static const char merges[] = "[[\"Ġ\",\"t\"],[\"h\",\"e\"],[\"i\",\"n\"],[\"Ġt\",\"he\"],[\"a\",\"n\"]]";
static const char *const added[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"};
enum { N_MERGED = 5, N_ADDED = 5, N_SPECIAL = 3 };

/* Byte-level BPE represents a byte by the character with the same number if it is printable, else by one from U+0100
 * on. */
static void write_symbol(FILE *f, int byte) {
    int code = byte, next = 256;
    for (int b = 0; b <= byte; b++) {
        bool visible = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (!visible && b == byte) code = next;
        if (!visible) next++;
    }
    if (code == '"' || code == '\\') fputc('\\', f);
    if (code < 0x80) {
        fputc(code, f);
    } else {
        fputc(0xC0 | code >> 6, f);
        fputc(0x80 | (code & 0x3F), f);
    }
}

static void write_tokenizer(FILE *f) {
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", f);
    for (int i = 0; i < N_ADDED; i++) {
        fprintf(f,
                "%s\n{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                "\"normalized\":false,\"special\":%s}",
                i > 0 ? "," : "", 256 + N_MERGED + i, added[i], i < N_SPECIAL ? "true" : "false");
    }
    fputs(
        "],\n\"normalizer\":{\"type\":\"NFC\"},\n\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
        "\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
        "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":false}]},\n\"post_processor\":null,\n\"decoder\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\n\"model\":{\"type\":\"BPE\","
        "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
        "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\n\"vocab\":{",
        f);
    for (int byte = 0; byte < 256; byte++) {
        fputc('"', f);
        write_symbol(f, byte);
        fprintf(f, "\":%d,", byte);
    }
    for (int i = 0; i < N_MERGED; i++) fprintf(f, "%s\"%s\":%d", i > 0 ? "," : "", merged[i], 256 + i);
    fprintf(f, "},\n\"merges\":%s}}\n", merges);
}

char *small_model_make(void) {
    static const char config[] =
        "{\"bos_token\":null,\"eos_token\":\"<|im_end|>\",\"pad_token\":\"<|endoftext|>\","
        "\"chat_template\":\"{% for message in messages %}<|im_start|>{{ message.role }}\\n{{ message.content }}"
        "<|im_end|>\\n{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}"
        "<|im_start|>assistant\\n{% endif %}\"}\n";
    char *dir = files_make_dir();
    files_copy_dir("tests/data/models/tied-f32", dir, "golden");
    files_write(dir, "tokenizer_config.json", config, sizeof config - 1);
    char *path = files_path(dir, "tokenizer.json");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    write_tokenizer(f);
    assert_int_equal(fclose(f), 0);
    free(path);
    return dir;
}
