/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints whose tensors have no prefix, as base models (AutoModel) are saved, or another prefix: the same
 * logits, bit for bit, as with the standard names; mixtures are rejected. */
#include "support/checkpoints.h"
#include "support/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LOGIT = 8 * TINY_VOCAB };
static const tiny_model untied = {.all = {.bits = 0}}, tied = {.all = {.bits = 0}, .tied = true};
static const qn_model_options f32 = {.arith = QN_ARITH_F32};
static char log_text[1024];

static void add_line(void *user, const char *text) {
    (void)user;
    size_t n = strlen(log_text);
    snprintf(log_text + n, sizeof log_text - n, "%s\n", text);
}

/* Rename the tensors of dir/model.safetensors whose names begin with one of the prefixes; order and data are
 * unchanged. Names that contain `except` are unchanged too. */
typedef struct renaming {
    const char *from, *to;
} renaming;
static void rename_tensors(const char *dir, const renaming *renamings, size_t n, const char *except) {
    char *path = files_path(dir, "model.safetensors");
    size_t bytes = 0, n_header = 0;
    char *file = files_read(path, &bytes);
    for (int i = 7; i >= 0; i--) n_header = n_header << 8 | (unsigned char)file[i];
    json_t *header = json_loadb(file + 8, n_header, 0, NULL), *out = json_object(), *value;
    assert_non_null(header);
    const char *key;
    json_object_foreach(header, key, value) {
        char name[256];
        snprintf(name, sizeof name, "%s", key);
        for (size_t i = 0; i < n; i++) {
            if (strncmp(key, renamings[i].from, strlen(renamings[i].from)) != 0) continue;
            if (except != NULL && strstr(key, except) != NULL) continue;
            snprintf(name, sizeof name, "%s%s", renamings[i].to, key + strlen(renamings[i].from));
        }
        assert_int_equal(json_object_set(out, name, value), 0);
    }
    char *text = json_dumps(out, JSON_COMPACT);
    size_t n_text = strlen(text), rest = bytes - 8 - n_header;
    char *written = malloc(8 + n_text + rest);
    assert_non_null(written);
    for (int i = 0; i < 8; i++) written[i] = (char)((uint64_t)n_text >> (8 * i));
    memcpy(written + 8, text, n_text);
    memcpy(written + 8 + n_text, file + 8 + n_header, rest);
    files_write(dir, "model.safetensors", written, 8 + n_text + rest);
    free(written);
    free(text);
    free(file);
    free(path);
    json_decref(header);
    json_decref(out);
}

static void expect_same(const tiny_model *model, const char *config, const renaming *renamings, size_t n,
                        const char *log_line) {
    const qn_log log = {.line = add_line};
    char *dir = files_make_dir();
    tiny_write(model, dir, NULL, config, 7);
    float *wanted = tiny_logits("ref", 1, dir, &f32);
    qn_model_config before, after;
    assert_ok(qn_model_read_config(&before, dir, NULL, err));
    rename_tensors(dir, renamings, n, NULL);
    log_text[0] = '\0';
    assert_ok(qn_model_read_config(&after, dir, &log, err));
    assert_string_equal(log_text, log_line);
    assert_int_equal(after.n_parameter, before.n_parameter);
    assert_int_equal(after.n_layer, 1);
    float *got = tiny_logits("ref", 1, dir, &f32);
    for (int i = 0; i < N_LOGIT; i++) {
        if (got[i] == wanted[i]) continue;
        fail_msg("prefix \"%s\": logit %d is %.9g, not %.9g", renamings[0].to, i, (double)got[i], (double)wanted[i]);
    }
    free(got);
    free(wanted);
    files_remove_dir(dir);
}

static void refuse(const tiny_model *model, const renaming *renamings, size_t n, const char *except, qn_status status,
                   const char *why) {
    char *dir = files_make_dir();
    tiny_write(model, dir, NULL, "", 7);
    rename_tensors(dir, renamings, n, except);
    qn_error err = {0};
    qn_model_config config;
    qn_status got = qn_model_read_config(&config, dir, NULL, &err);
    if (got != status || strstr(err.message, why) == NULL) {
        fail_msg("%s \"%s\", not %s \"%s\"", qn_status_name(got), err.message, qn_status_name(status), why);
    }
    files_remove_dir(dir);
}

static void accepts_names_without_prefix(void **state) {
    (void)state;
    static const renaming none[] = {{"model.", ""}};
    static const char base[] = ",\"architectures\":[\"Qwen3Model\"]";
    expect_same(&tied, base, none, 1, "");
    expect_same(&untied, "", none, 1, "");
}

static void accepts_longer_prefixes(void **state) {
    (void)state;
    static const renaming outer[] = {{"model.", "language_model.model."}, {"lm_head.", "language_model.lm_head."}};
    static const renaming inner[] = {{"model.", "model.language_model."}};
    static const renaming compiled[] = {{"model.", "_orig_mod.model."}, {"lm_head.", "_orig_mod.lm_head."}};
    expect_same(&untied, "", outer, 2, "tensors named language_model.model.… are read as model.…\n");
    expect_same(&tied, "", outer, 2, "tensors named language_model.model.… are read as model.…\n");
    expect_same(&untied, "", outer, 1, "tensors named language_model.model.… are read as model.…\n");
    expect_same(&untied, "", inner, 1, "tensors named model.language_model.… are read as model.…\n");
    expect_same(&untied, "", compiled, 2, "tensors named _orig_mod.model.… are read as model.…\n");
}

static void accepts_quantized_tensors(void **state) {
    (void)state;
    static const renaming none[] = {{"model.", ""}};
    const tiny_model affine = {.all = {4, 32, 0, "BF16", false}, .tied = true};
    expect_same(&affine, ",\"quantization\":{\"bits\":4,\"group_size\":32}", none, 1, "");
}

static void refuses_mixtures(void **state) {
    (void)state;
    static const renaming none[] = {{"model.", ""}}, apart[] = {{"model.embed_tokens.", "embed_tokens."}};
    static const renaming half[] = {{"model.layers.", "layers."}}, twice[] = {{"model.norm.", "model.model.norm."}};
    static const renaming no_dot[] = {{"model.", "my_"}};
    refuse(&tied, none, 1, "q_proj", QN_EUNSUPPORTED, "tensor model.layers.0.self_attn.q_proj.weight is not part");
    refuse(&tied, none, 1, "norm.", QN_EUNSUPPORTED, "is not part of a dense Qwen3 model");
    refuse(&tied, apart, 1, NULL, QN_EUNSUPPORTED, "is not part of a dense Qwen3 model");
    refuse(&tied, half, 1, NULL, QN_EUNSUPPORTED, "tensor layers.0.");
    refuse(&tied, twice, 1, NULL, QN_EUNSUPPORTED, "tensor model.model.norm.weight is not part");
    refuse(&tied, no_dot, 1, NULL, QN_EUNSUPPORTED, "is not part of a dense Qwen3 model");
    static const renaming lora[] = {{"model.", "base_model.model.model."}};
    refuse(&untied, lora, 1, "lm_head", QN_OK, "");
}

/* The base model of a model with an untied head has no logits. */
static void refuses_a_missing_head(void **state) {
    (void)state;
    char *dir = files_make_dir(), *path = files_path(dir, "config.json");
    static const renaming none[] = {{"model.", ""}};
    tiny_write(&tied, dir, NULL, "", 7);
    rename_tensors(dir, none, 1, NULL);
    char *text = files_read(path, NULL), *at = strstr(text, "\"tie_word_embeddings\":true");
    assert_non_null(at);
    memcpy(strstr(at, "true"), "null", 4);
    files_write(dir, "config.json", text, strlen(text));
    qn_error error = {0};
    qn_model_config config;
    assert_int_equal(qn_model_read_config(&config, dir, NULL, &error), QN_EFORMAT);
    if (strstr(error.message, "tensor lm_head.weight is missing") == NULL) fail_msg("%s", error.message);
    free(text);
    free(path);
    files_remove_dir(dir);
}

static void tie(const char *dir) {
    char *path = files_path(dir, "config.json"), *text = files_read(path, NULL);
    char *at = strstr(text, "\"tie_word_embeddings\":false");
    assert_non_null(at);
    memcpy(strstr(at, "false"), "true ", 5);
    files_write(dir, "config.json", text, strlen(text));
    free(text);
    free(path);
}

static int64_t begin_of(json_t *header, const char *name, int64_t *n) {
    json_t *offsets = json_object_get(json_object_get(header, name), "data_offsets");
    assert_non_null(offsets);
    const int64_t begin = json_integer_value(json_array_get(offsets, 0));
    *n = json_integer_value(json_array_get(offsets, 1)) - begin;
    return begin;
}

/* Make lm_head.weight a copy of the embedding. */
static void copy_embedding(const char *dir) {
    char *path = files_path(dir, "model.safetensors");
    size_t bytes = 0, n_header = 0;
    char *file = files_read(path, &bytes);
    for (int i = 7; i >= 0; i--) n_header = n_header << 8 | (unsigned char)file[i];
    json_t *header = json_loadb(file + 8, n_header, 0, NULL);
    assert_non_null(header);
    int64_t n = 0, n_head = 0;
    const int64_t from = begin_of(header, "model.embed_tokens.weight", &n);
    const int64_t to = begin_of(header, "lm_head.weight", &n_head);
    assert_int_equal(n, n_head);
    memcpy(file + 8 + n_header + to, file + 8 + n_header + from, (size_t)n);
    files_write(dir, "model.safetensors", file, bytes);
    json_decref(header);
    free(file);
    free(path);
}

/* An untied head in a tied checkpoint would be ignored: rejected by name, by every reader of the weights. A copy of
 * the embedding is equivalent to a tied head. */
static void compares_a_tied_head(void **state) {
    (void)state;
    static const char why[] = "model.safetensors: tensor lm_head.weight is not model.embed_tokens.weight";
    const qn_quantize_options to = {.to = QN_QUANTIZE_Q8};
    char *dir = files_make_dir(), *quantized = files_make_dir();
    tiny_write(&untied, dir, NULL, "", 7);
    tie(dir);
    qn_device *device;
    qn_model *model = NULL;
    assert_ok(qn_device_open(&device, "ref", &(qn_device_options){.n_thread = 1}, err));
    qn_error error = {0};
    assert_int_equal(qn_model_open(&model, device, dir, &f32, &error), QN_EFORMAT);
    if (strstr(error.message, why) == NULL) fail_msg("%s", error.message);
    error = (qn_error){0};
    assert_int_equal(qn_model_quantize(quantized, dir, &to, &error), QN_EFORMAT);
    if (strstr(error.message, why) == NULL) fail_msg("%s", error.message);
    copy_embedding(dir);
    assert_ok(qn_model_open(&model, device, dir, &f32, err));
    assert_ok(qn_model_quantize(quantized, dir, &to, err));
    qn_model_close(model);
    qn_device_close(device);
    files_remove_dir(dir);
    files_remove_dir(quantized);
}

/* Output files have standard names, whatever those of the source. */
static void quantizes_to_usual_names(void **state) {
    (void)state;
    static const renaming none[] = {{"model.", ""}};
    const qn_quantize_options to = {.to = QN_QUANTIZE_Q8};
    char *dir = files_make_dir(), *usual = files_make_dir(), *other = files_make_dir();
    tiny_write(&tied, dir, NULL, "", 7);
    assert_ok(qn_model_quantize(usual, dir, &to, err));
    rename_tensors(dir, none, 1, NULL);
    assert_ok(qn_model_quantize(other, dir, &to, err));
    static const char *const names[] = {"model.safetensors", "config.json"};
    for (int i = 0; i < 2; i++) {
        char *path = files_path(usual, names[i]), *other_path = files_path(other, names[i]);
        size_t n = 0, n_other = 0;
        char *a = files_read(path, &n), *b = files_read(other_path, &n_other);
        assert_int_equal(n, n_other);
        assert_memory_equal(a, b, n);
        free(path);
        free(other_path);
        free(a);
        free(b);
    }
    files_remove_dir(dir);
    files_remove_dir(usual);
    files_remove_dir(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_names_without_prefix), cmocka_unit_test(accepts_longer_prefixes),
        cmocka_unit_test(accepts_quantized_tensors),    cmocka_unit_test(refuses_mixtures),
        cmocka_unit_test(refuses_a_missing_head),       cmocka_unit_test(compares_a_tied_head),
        cmocka_unit_test(quantizes_to_usual_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
