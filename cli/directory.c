/* SPDX-License-Identifier: Apache-2.0 */
/* A directory that is filled under a temporary name and takes its own when all is there. */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "options.h"
#include "output.h"

/* Where the new directory may stand: nowhere yet, or empty. */
static int check_target(const char *dir) {
    struct stat st;
    if (stat(dir, &st)) return errno == ENOENT ? EXIT_DONE : fail(dir, "%s", strerror(errno));
    if (!S_ISDIR(st.st_mode)) return fail(dir, "exists and is no directory");
    DIR *stream = opendir(dir);
    if (!stream) return fail(dir, "%s", strerror(errno));
    int n = 0;
    while (readdir(stream)) n++;
    closedir(stream);
    return n > 2 ? fail(dir, "exists and is not empty") : EXIT_DONE;
}

int directory_check_space(const char *parent, const char *dir, uint64_t bytes) {
    struct statvfs fs;
    if (statvfs(parent, &fs)) return EXIT_DONE;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (bytes <= free_bytes) return EXIT_DONE;
    char need[32], have[32];
    format_bytes(need, sizeof(need), (double)bytes);
    format_bytes(have, sizeof(have), (double)free_bytes);
    return fail(dir, "needs %s, and %s are free", need, have);
}

void directory_remove(const char *dir) {
    DIR *stream = opendir(dir);
    if (!stream) return;
    struct dirent *entry;
    while ((entry = readdir(stream))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *path = must_format("%s/%s", dir, entry->d_name);
        unlink(path);
        free(path);
    }
    closedir(stream);
    rmdir(dir);
}

static int write_beside(const char *dir, uint64_t bytes, directory_fn fill, const void *context) {
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/') length--;
    char *target = must_format("%.*s", (int)length, dir), *temporary = must_format("%s.XXXXXX", target);
    char *copy = must_format("%s", target);
    int code = directory_check_space(dirname(copy), target, bytes);
    if (!code && !mkdtemp(temporary)) code = fail(target, "%s", strerror(errno));
    if (!code) {
        code = fill(context, temporary);
        if (!code && chmod(temporary, 0755)) code = fail(target, "%s", strerror(errno));
        if (!code && rename(temporary, target)) code = fail(target, "%s", strerror(errno));
        if (code) directory_remove(temporary);
    }
    free(copy);
    free(temporary);
    free(target);
    return code;
}

int directory_make(const char *dir, uint64_t bytes, directory_fn fill, const void *context) {
    int code = *dir ? check_target(dir) : fail("DIR", "must not be empty");
    return code ? code : write_beside(dir, bytes, fill, context);
}
