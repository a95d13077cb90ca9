/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary directories and files for tests. */
#include "files.h"

#include "cmocka_all.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *files_make_dir(void) {
    const char *base = getenv("TMPDIR");
    char *dir = files_path(base != NULL && base[0] != '\0' ? base : "/tmp", "quern-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static bool is_dot(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

void files_remove_dir(char *dir) {
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (is_dot(e->d_name)) continue;
        char *path = files_path(dir, e->d_name);
        assert_int_equal(remove(path), 0);
        free(path);
    }
    closedir(d);
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

char *files_path(const char *dir, const char *name) {
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    assert_non_null(path);
    snprintf(path, n, "%s/%s", dir, name);
    return path;
}

void files_write(const char *dir, const char *name, const void *data, size_t bytes) {
    char *path = files_path(dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    free(path);
}

char *files_read(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s cannot be opened", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    char *data = calloc((size_t)n + 1, 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)n, f), n);
    fclose(f);
    if (bytes != NULL) *bytes = (size_t)n;
    return data;
}

void files_copy_dir(const char *from, const char *to, const char *skip) {
    DIR *d = opendir(from);
    if (d == NULL) fail_msg("%s cannot be opened", from);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (is_dot(e->d_name) || (skip != NULL && strncmp(e->d_name, skip, strlen(skip)) == 0)) continue;
        char *path = files_path(from, e->d_name);
        size_t bytes = 0;
        char *data = files_read(path, &bytes);
        files_write(to, e->d_name, data, bytes);
        free(data);
        free(path);
    }
    closedir(d);
}
