/* SPDX-License-Identifier: Apache-2.0 */
/* Files left in a model directory by other programs, failed downloads and symlinks: each is used, logged by name, or
 * rejected with a helpful message. */
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/small_model.h"

#include <quern/chat.h>
#include <quern/model.h>
#include <quern/tokenizer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;
static char log_text[4096]; /* lines logged by the last check, each with a newline */

static int setup(void **state) {
    (void)state;
    dir = small_model_make();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    files_remove_dir(dir);
    return 0;
}

static void add_line(void *user, const char *text) {
    (void)user;
    size_t n = strlen(log_text);
    snprintf(log_text + n, sizeof log_text - n, "%s\n", text);
}

static qn_status check(qn_error *err) {
    const qn_log log = {.line = add_line};
    qn_model_config config;
    log_text[0] = '\0';
    *err = (qn_error){0};
    return qn_model_read_config(&config, dir, &log, err);
}

static void expect_log(const char *lines) {
    qn_error err;
    if (check(&err) != QN_OK) fail_msg("%s", err.message);
    assert_string_equal(log_text, lines);
}

static void refuse(qn_status status, const char *end) {
    qn_error err;
    qn_status got = check(&err);
    size_t n = strlen(err.message), n_end = strlen(end);
    if (got != status || n < n_end || strcmp(err.message + n - n_end, end) != 0) {
        fail_msg("%s \"%s\", not %s \"…%s\"", qn_status_name(got), err.message, qn_status_name(status), end);
    }
    assert_memory_equal(err.message, dir, strlen(dir));
}

static void write_text(const char *name, const char *text) {
    files_write(dir, name, text, strlen(text));
}

static void remove_file(const char *name) {
    char *path = files_path(dir, name);
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void link_file(const char *name, const char *target) {
    char *path = files_path(dir, name);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
    free(path);
}

/* Open the directory's tokenizer or template; it must fail with a message that contains `words`. */
static void refuse_text(const char *words) {
    qn_error err = {0};
    qn_tokenizer *tokenizer = NULL;
    qn_chat_template *chat_template = NULL;
    qn_status status = qn_tokenizer_open(&tokenizer, dir, &err);
    if (status == QN_OK) status = qn_chat_template_open(&chat_template, dir, &err);
    qn_tokenizer_close(tokenizer);
    qn_chat_template_close(chat_template);
    if (status == QN_OK || strstr(err.message, words) == NULL) fail_msg("\"%s\", not \"%s\"", err.message, words);
}

static void dangling_links(void **state) {
    (void)state;
    static const char target[] = "../../blobs/0123abcd";
    static const char end[] = ": is a link to ../../blobs/0123abcd, which is not there";
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors"};
    static const char *const of_text[] = {"chat_template.jinja", "tokenizer_config.json", "tokenizer.json"};
    for (size_t i = 0; i < 3; i++) {
        char *path = files_path(dir, names[i]), *kept = files_path(dir, "kept");
        bool there = rename(path, kept) == 0;
        link_file(names[i], target);
        char message[200];
        snprintf(message, sizeof message, "/%s%s", names[i], end);
        refuse(QN_EIO, message);
        remove_file(names[i]);
        if (there) assert_int_equal(rename(kept, path), 0);
        free(path);
        free(kept);
    }
    for (size_t i = 0; i < 3; i++) {
        link_file(of_text[i], target);
        char message[200];
        snprintf(message, sizeof message, "/%s%s", of_text[i], end);
        refuse_text(message);
    }
    link_file("generation_config.json", "generation_config.json");
    refuse(QN_EIO, "/generation_config.json: is a link to generation_config.json, which leads back to itself");
    remove_file("generation_config.json");
    expect_log("");
}

static void files_that_cannot_be_opened(void **state) {
    (void)state;
    if (geteuid() == 0) skip(); /* root may open everything */
    write_text("generation_config.json", "{}");
    char *path = files_path(dir, "generation_config.json");
    assert_int_equal(chmod(path, 0), 0);
    refuse(QN_EIO, "/generation_config.json: Permission denied");
    free(path);
}

static void folders_instead_of_files(void **state) {
    (void)state;
    char *path = files_path(dir, "generation_config.json");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refuse(QN_EIO, "/generation_config.json: Is a directory");
    assert_int_equal(rmdir(path), 0);
    free(path);
}

static const char lfs[] =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:0000000000000000000000000000000000000000000000000000000000000000\nsize 11549832\n";

static void undownloaded_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {lfs, "is a Git LFS pointer; the file itself was not downloaded"},
        {"<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML page; the file itself was not downloaded"},
        {"\xEF\xBB\xBF\r\n  <HTML lang=\"en\">", "is an HTML page; the file itself was not downloaded"},
        {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
         "is an XML document; the file itself was not downloaded"},
        {"<Error><Code>NoSuchKey</Code></Error>", "is an XML document; the file itself was not downloaded"},
        {"", "is empty; the file itself was not downloaded"},
    };
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors.index.json",
                                        "model.safetensors"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            char *path = files_path(dir, names[k]), *kept = files_path(dir, "kept");
            char *single = files_path(dir, "model.safetensors"), *kept_single = files_path(dir, "kept-single");
            bool there = rename(path, kept) == 0;
            if (k == 2) assert_int_equal(rename(single, kept_single), 0);
            write_text(names[k], cases[i].text);
            char message[200];
            snprintf(message, sizeof message, "/%s: %s", names[k], cases[i].what);
            refuse(QN_EFORMAT, message);
            remove_file(names[k]);
            if (there) assert_int_equal(rename(kept, path), 0);
            if (k == 2) assert_int_equal(rename(kept_single, single), 0);
            free(path);
            free(kept);
            free(single);
            free(kept_single);
        }
        write_text("tokenizer_config.json", cases[i].text);
        refuse_text(cases[i].what);
        write_text("tokenizer_config.json", "{}");
        if (cases[i].text[0] == '\0') continue; /* an empty template is a template */
        write_text("chat_template.jinja", cases[i].text);
        refuse_text(cases[i].what);
        remove_file("chat_template.jinja");
    }
    write_text("tokenizer.json", lfs);
    refuse_text("tokenizer.json: is a Git LFS pointer");
    write_text("model.safetensors", "Entry not found");
    refuse(QN_EFORMAT, "model.safetensors: is not a safetensors file; it begins with the text \"Entry not found\"");
    remove_file("model.safetensors");
    write_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"a.safetensors\"}}");
    write_text("a.safetensors", lfs);
    refuse(QN_EFORMAT, "a.safetensors: is a Git LFS pointer; the file itself was not downloaded");
}

static void reports_unused_files(void **state) {
    (void)state;
    static const char *const silent[] = {"pytorch_model.bin", "training_args.bin",  "optimizer.pt",  "README.md",
                                         "modules.json",      "golden.safetensors", ".gitattributes"};
    for (size_t i = 0; i < sizeof silent / sizeof *silent; i++) write_text(silent[i], "x");
    expect_log("");
    write_text("adapter_config.json", "{}");
    expect_log("adapter_config.json: an adapter beside the weights is not applied\n");
    write_text("adapter_model.safetensors", "x");
    write_text("adapters.safetensors", "x");
    write_text("my-LoRA.safetensors", "x");
    write_text("consolidated.safetensors", "x");
    write_text("model-00003-of-00003.safetensors", "x");
    write_text("quantize_config.json", "{}");
    expect_log("adapter_config.json, adapter_model.safetensors, adapters.safetensors, my-LoRA.safetensors: an adapter "
               "beside the weights is not applied\n"
               "consolidated.safetensors, model-00003-of-00003.safetensors: other weights beside those of the model "
               "are not used\n"
               "quantize_config.json: settings beside config.json are not read\n");
    for (int i = 0; i < 40; i++) {
        char name[64];
        snprintf(name, sizeof name, "shard-of-another-model-%02d.safetensors", i);
        write_text(name, "x");
    }
    qn_error err;
    assert_int_equal(check(&err), QN_OK);
    assert_non_null(strstr(log_text, "shard-of-another-model-00.safetensors and 39 more: other weights"));
}

static void reports_unreadable_files(void **state) {
    (void)state;
    remove_file("model.safetensors");
    static const char missing[] = ": neither model.safetensors nor model.safetensors.index.json is there";
    refuse(QN_EIO, missing);
    write_text("pytorch_model.bin", "x");
    write_text("model.fp16.safetensors", "x");
    char message[300];
    snprintf(message, sizeof message,
             "%s; these files cannot be read as weights: model.fp16.safetensors, pytorch_model.bin", missing);
    refuse(QN_EIO, message);
    remove_file("config.json");
    refuse(QN_EIO, "/config.json: No such file or directory");
    write_text("adapter_config.json", "{}");
    refuse(QN_EUNSUPPORTED, ": is an adapter (adapter_config.json) without a model (config.json)");
}

/* The template folder is copied too: without it, prompts of a quantized directory would change. */
static void copies_templates(void **state) {
    (void)state;
    static const char folder[] = "additional_chat_templates", text[] = "{{ tools }}";
    char *out = files_make_dir(), *in_folder = files_path(dir, folder), *out_folder = files_path(out, folder);
    assert_int_equal(mkdir(in_folder, 0700), 0);
    files_write(in_folder, "tool_use.jinja", text, sizeof text - 1);
    files_write(in_folder, "notes.txt", "x", 1);
    qn_error err = {0};
    const qn_quantize_options options = {.to = QN_QUANTIZE_Q8};
    for (int i = 0; i < 2; i++) { /* also into an existing directory */
        if (qn_model_quantize(out, dir, &options, &err) != QN_OK) fail_msg("%s", err.message);
    }
    char *path = files_path(out_folder, "tool_use.jinja"), *notes = files_path(out_folder, "notes.txt");
    char *copy = files_read(path, NULL);
    assert_string_equal(copy, text);
    assert_int_equal(access(notes, F_OK), -1);
    free(copy);
    free(path);
    free(notes);
    files_remove_dir(in_folder);
    files_remove_dir(out_folder);
    files_remove_dir(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(dangling_links, setup, teardown),
        cmocka_unit_test_setup_teardown(files_that_cannot_be_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_instead_of_files, setup, teardown),
        cmocka_unit_test_setup_teardown(undownloaded_files, setup, teardown),
        cmocka_unit_test_setup_teardown(reports_unused_files, setup, teardown),
        cmocka_unit_test_setup_teardown(reports_unreadable_files, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_templates, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
