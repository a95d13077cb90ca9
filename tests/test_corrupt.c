/* SPDX-License-Identifier: Apache-2.0 */
/* Truncated, damaged and rearranged files. Opening one returns success, or a status and one line, and never crashes;
 * files with a checksum are always rejected. The damage is random with a fixed seed. */
#include "support/close.h"
#include "support/files.h"
#include "support/small_model.h"

#include <quern/quern.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CUT = 60, N_DAMAGE = 500 };

static qn_device *device;
static uint64_t random_state;

static size_t draw(size_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)((random_state >> 11) % below);
}

/* The directory in which one file at a time is damaged. */
typedef struct target {
    char *dir;
    qn_status (*probe)(const char *dir, qn_error *err); /* opens and uses the object that the file belongs to */
} target;

static void check(const char *what, const char *damage, size_t at, qn_status status, const qn_error *err) {
    if (status == QN_OK) return;
    if (err->status != status || err->message[0] == '\0' || strchr(err->message, '\n') != NULL ||
        strcmp(qn_status_name(status), "?") == 0) {
        fail_msg("%s, %s at %zu: status %d without a proper message: \"%s\"", what, damage, at, (int)status,
                 err->message);
    }
}

/* One edit of a kind that breaks parsers. Returns the new size; the buffer has 64 spare bytes. */
static size_t damage(char *data, size_t size, size_t at) {
    static const char *const splice[] = {"[[[[[[",   "{\"\":", "-", "9999999999999999999", "1e999", "null", "\\ud800",
                                         "\xFF\xFE", "{%",     "}}"};
    size_t n, span;
    switch (draw(6)) {
    case 0: /* a bit */
        data[at] = (char)(data[at] ^ (1 << draw(8)));
        return size;
    case 1: /* any byte value */
        data[at] = (char)draw(256);
        return size;
    case 2: /* a digit or another syntax character */
        data[at] = "0123456789-e.,:[]{}\"\\ "[draw(22)];
        return size;
    case 3: /* remove a piece */
        span = draw(size - at < 40 ? size - at : 40);
        memmove(data + at, data + at + span, size - at - span);
        return size - span;
    case 4: /* duplicate a piece */
        span = draw(size - at < 40 ? size - at : 40);
        memmove(data + at + span, data + at, size - at);
        return size + span;
    default: /* insert something */
        n = draw(sizeof splice / sizeof splice[0]);
        span = strlen(splice[n]);
        memmove(data + at + span, data + at, size - at);
        memcpy(data + at, splice[n], span);
        return size + span;
    }
}

/* Truncate and damage one file at many places; most damage is in its first `head` bytes. `must_fail`: truncation is
 * always detected (JSON can stay valid without its last bytes, which are not cut). */
static void corrupt_file(const target *p, const char *name, size_t head, bool must_fail) {
    char *path = files_path(p->dir, name);
    size_t size;
    char *good = files_read(path, &size);
    char *bad = malloc(size + 64);
    assert_non_null(bad);
    qn_error err = {0};
    qn_status status = p->probe(p->dir, &err);
    if (status != QN_OK) fail_msg("%s undamaged: %s", name, err.message);
    if (head == 0 || head > size) head = size;

    for (size_t i = 0; i < N_CUT; i++) {
        size_t at = i < 4 ? i * 3 : i % 2 != 0 ? draw(head) : size * i / N_CUT;
        if (at + 3 > size) continue;
        files_write(p->dir, name, good, at);
        err = (qn_error){0};
        status = p->probe(p->dir, &err);
        check(name, "cut", at, status, &err);
        if (must_fail && status == QN_OK) fail_msg("%s cut at %zu of %zu opens", name, at, size);
    }
    for (int i = 0; i < N_DAMAGE; i++) {
        size_t at = draw(i % 5 == 0 ? size : head);
        memcpy(bad, good, size);
        size_t n = damage(bad, size, at);
        if (draw(4) == 0 && n > 0) n = damage(bad, n < size ? n : size, draw(n < head ? n : head));
        files_write(p->dir, name, bad, n);
        err = (qn_error){0};
        check(name, "damage", at, p->probe(p->dir, &err), &err);
    }
    files_write(p->dir, name, good, size);
    free(bad);
    free(good);
    free(path);
}

static qn_status probe_model(const char *dir, qn_error *err) {
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_session_options options = {.n_ctx = 16};
    int32_t ids[4] = {1, 2, 3, 4};
    qn_status status = qn_model_open(&model, device, dir, NULL, err);
    if (status == QN_OK) status = qn_session_create(&session, model, &options, err);
    if (status == QN_OK) status = qn_session_sync(session, ids, 4, NULL, err);
    if (status == QN_OK) {
        qn_sampler_params params;
        qn_sampler *sampler = NULL;
        int32_t id;
        int32_t n_vocab = qn_model_get_config(model)->n_vocab;
        qn_sampler_defaults(model, QN_SAMPLER_MODEL, &params);
        status = qn_sampler_create(&sampler, &params, n_vocab, 0, err);
        if (status == QN_OK) {
            status = qn_sampler_draw(sampler, &id, NULL, qn_session_logits(session), ids, 4, 4, 4, err);
        }
        if (status == QN_OK && (id < 0 || id >= n_vocab)) fail_msg("id %d of %d drawn", (int)id, (int)n_vocab);
        qn_sampler_free(sampler);
    }
    qn_session_free(session);
    qn_model_close(model);
    return status;
}

static qn_status probe_plan(const char *dir, qn_error *err) {
    qn_plan plan;
    return qn_model_plan(&plan, dir, NULL, err);
}

static qn_status probe_tokenizer(const char *dir, qn_error *err) {
    static const char text[] = "<|im_start|>Then the thin man's 12 e\xCC\x81 \n\n\xF0\x9F\x90\xB6 <think>";
    qn_tokenizer *tokenizer = NULL;
    qn_ids ids = {0};
    qn_text out = {0};
    qn_status status = qn_tokenizer_open(&tokenizer, dir, err);
    if (status == QN_OK) status = qn_tokenizer_encode(tokenizer, &ids, text, sizeof text - 1, true, err);
    for (size_t i = 0; i < ids.size; i++) {
        if (ids.data[i] < 0 || ids.data[i] >= qn_tokenizer_n_vocab(tokenizer)) fail_msg("id %d", (int)ids.data[i]);
    }
    if (status == QN_OK) status = qn_tokenizer_decode(tokenizer, &out, ids.data, ids.size, false, err);
    qn_ids_release(&ids);
    qn_text_release(&out);
    qn_tokenizer_close(tokenizer);
    return status;
}

static qn_status probe_template(const char *dir, qn_error *err) {
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"
        "\"assistant\",\"content\":\"<think>\\na\\n</think>\\n\\nb\"},{\"role\":\"user\","
        "\"content\":\"And?\"}]";
    qn_chat_template *chat_template = NULL;
    qn_prompt prompt = {0};
    qn_chat_input input = {.messages = messages, .add_generation_prompt = true};
    qn_status status = qn_chat_template_open(&chat_template, dir, err);
    if (status == QN_OK) status = qn_chat_render(chat_template, &prompt, &input, err);
    qn_prompt_release(&prompt);
    qn_chat_template_close(chat_template);
    return status;
}

static qn_status probe_text(const char *dir, qn_error *err) {
    qn_status status = probe_tokenizer(dir, err);
    return status == QN_OK ? probe_template(dir, err) : status;
}

static int open_all(void **state) {
    qn_device_options options = {.n_thread = 2};
    (void)state;
    return qn_device_open(&device, "cpu", &options, NULL) == QN_OK ? 0 : 1;
}

static int close_all(void **state) {
    (void)state;
    qn_device_close(device);
    return 0;
}

static void configs(void **state) {
    (void)state;
    random_state = 1;
    target p = {small_model_make(), probe_model};
    corrupt_file(&p, "config.json", 0, true);
    corrupt_file(&p, "generation_config.json", 0, true);
    p.probe = probe_plan;
    corrupt_file(&p, "config.json", 0, true);
    files_remove_dir(p.dir);
}

static void weights(void **state) {
    (void)state;
    random_state = 2;
    target p = {small_model_make(), probe_model};
    corrupt_file(&p, "model.safetensors", 3000, true);
    files_remove_dir(p.dir);
}

static void shards(void **state) {
    (void)state;
    random_state = 3;
    target p = {files_make_dir(), probe_model};
    files_copy_dir("tests/data/models/untied-bf16-sharded", p.dir, "golden");
    corrupt_file(&p, "model.safetensors.index.json", 0, true);
    corrupt_file(&p, "model-00002-of-00003.safetensors", 1500, true);
    files_remove_dir(p.dir);
}

static void quantized(void **state) {
    (void)state;
    random_state = 7;
    target p = {files_make_dir(), probe_model};
    files_copy_dir("tests/data/quantized/mlx-mixed-2-6-8", p.dir, "golden");
    corrupt_file(&p, "config.json", 0, true);
    corrupt_file(&p, "model.safetensors", 3000, true);
    files_remove_dir(p.dir);
    p.dir = files_make_dir();
    files_copy_dir("tests/data/quantized/fp8-block128", p.dir, "golden");
    corrupt_file(&p, "config.json", 0, true);
    corrupt_file(&p, "model.safetensors", 3000, true);
    files_remove_dir(p.dir);
}

static void tokenizers(void **state) {
    (void)state;
    random_state = 4;
    target p = {small_model_make(), probe_text};
    corrupt_file(&p, "tokenizer.json", 0, true);
    corrupt_file(&p, "tokenizer_config.json", 0, true);
    files_remove_dir(p.dir);
}

static void templates(void **state) {
    (void)state;
    random_state = 5;
    target p = {small_model_make(), probe_template};
    size_t size;
    char *text = files_read("tests/data/text/templates/qwen3-hybrid.jinja", &size);
    files_write(p.dir, "chat_template.jinja", text, size);
    free(text);
    corrupt_file(&p, "chat_template.jinja", 0, false);
    files_remove_dir(p.dir);
}

/* A session file has a checksum: truncation or any changed byte is rejected, and the session is unchanged. */
static void session_files(void **state) {
    (void)state;
    random_state = 6;
    char *dir = small_model_make(), *path = files_path(dir, "a.session");
    qn_model *model = NULL;
    qn_session *session = NULL, *other = NULL;
    qn_session_options options = {.n_ctx = 32};
    int32_t ids[12] = {5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 11, 10};
    qn_error err = {0};
    assert_int_equal(qn_model_open(&model, device, dir, NULL, &err), QN_OK);
    assert_int_equal(qn_session_create(&session, model, &options, &err), QN_OK);
    assert_int_equal(qn_session_create(&other, model, &options, &err), QN_OK);
    assert_int_equal(qn_session_sync(session, ids, 12, NULL, &err), QN_OK);
    assert_int_equal(qn_session_sync(other, ids, 3, NULL, &err), QN_OK);
    assert_int_equal(qn_session_save(session, path, &err), QN_OK);
    size_t size;
    char *good = files_read(path, &size), *bad = malloc(size);
    assert_non_null(bad);
    float *logits = malloc(512 * sizeof(float));
    assert_non_null(logits);
    memcpy(logits, qn_session_logits(other), 512 * sizeof(float));

    for (int i = 0; i < N_CUT + N_DAMAGE; i++) {
        size_t n = i < N_CUT ? size * (size_t)i / N_CUT : size;
        size_t at = draw(i % 2 != 0 ? size : 256);
        memcpy(bad, good, size);
        if (i >= N_CUT) bad[at] = (char)(bad[at] ^ (1 << draw(8)));
        files_write(dir, "a.session", bad, n);
        err = (qn_error){0};
        qn_status status = qn_session_restore(other, path, &err);
        check("session", i < N_CUT ? "cut" : "damage", i < N_CUT ? n : at, status, &err);
        if (status == QN_OK) fail_msg("session file of %zu bytes: %zu bytes, byte %zu changed: restored", size, n, at);
        assert_int_equal(qn_session_n_tok(other), 3);
        expect_same_bits("logits", QN_DTYPE_F32, qn_session_logits(other), logits, 512);
    }
    files_write(dir, "a.session", good, size);
    assert_int_equal(qn_session_restore(other, path, &err), QN_OK);
    assert_int_equal(qn_session_n_tok(other), 12);
    free(logits);
    free(bad);
    free(good);
    free(path);
    qn_session_free(other);
    qn_session_free(session);
    qn_model_close(model);
    files_remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs),       cmocka_unit_test(weights),    cmocka_unit_test(shards),
        cmocka_unit_test(quantized),     cmocka_unit_test(tokenizers), cmocka_unit_test(templates),
        cmocka_unit_test(session_files),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
