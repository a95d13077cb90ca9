/* SPDX-License-Identifier: Apache-2.0 */
/* Model files with patched keys. */
#include "config_dir.h"
#include "cmocka_all.h"
#include "files.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char source[] = "tests/data/models/tied-f32";
char *config_dir;

int config_setup(void **state) {
    (void)state;
    config_dir = files_make_dir();
    files_copy_dir(source, config_dir, "golden");
    return 0;
}
int config_teardown(void **state) {
    (void)state;
    files_remove_dir(config_dir);
    return 0;
}

void config_write(const char *name, const char *patch, const char *removed) {
    char *path = files_path(source, name);
    json_t *root = json_load_file(path, 0, NULL), *changes = json_loads(patch, JSON_DECODE_ANY, NULL);
    assert_non_null(root);
    if (changes == NULL) fail_msg("bad patch %s", patch);
    assert_int_equal(json_object_update(root, changes), 0);
    char *keys = strdup(removed), *rest = keys;
    for (char *key; (key = strtok_r(rest, " ", &rest)) != NULL;) assert_int_equal(json_object_del(root, key), 0);
    char *text = json_dumps(root, 0);
    files_write(config_dir, name, text, strlen(text));
    free(text);
    free(keys);
    free(path);
    json_decref(root);
    json_decref(changes);
}

void config_expect(qn_status status, const char *why, const char *what) {
    qn_model_config config, before;
    memset(&config, 0x5A, sizeof config);
    before = config;
    qn_error err = {0};
    qn_status got = qn_model_read_config(&config, config_dir, NULL, &err);
    if (got != status || strstr(err.message, why) == NULL) {
        fail_msg("%s: %s \"%s\", not %s \"%s\"", what, qn_status_name(got), err.message, qn_status_name(status), why);
    }
    assert_int_equal(err.status, status);
    assert_memory_equal(&config, &before, sizeof config);
}

void config_refuse(const char *patch, const char *removed, qn_status status, const char *why) {
    config_write("config.json", patch, removed);
    config_expect(status, why, patch);
}
qn_model_config config_read(const char *patch, const char *removed, const qn_log *log) {
    qn_model_config config;
    qn_error err = {0};
    config_write("config.json", patch, removed);
    if (qn_model_read_config(&config, config_dir, log, &err) != QN_OK)
        fail_msg("%s -%s: %s", patch, removed, err.message);
    return config;
}

void config_count_line(void *user, const char *text) {
    config_lines *l = user;
    l->n++;
    snprintf(l->last, sizeof l->last, "%s", text);
}
