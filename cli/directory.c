/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a directory under a temporary name. It is removed however the program ends, except by SIGKILL. */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "options.h"
#include "output.h"

/* The existing temporary directory; "" for none. */
static char temporary_dir[PATH_MAX];

/* Check that a directory is empty, except for ".", "..", the lost+found of a fresh disk, and `except`. */
static int check_empty(const char *dir, const char *except) {
    DIR *stream = opendir(dir);
    if (!stream) return fail(dir, "%s", strerror(errno));
    const char *const allowed[] = {".", "..", "lost+found", except};
    struct dirent *entry;
    bool empty = true;
    while ((entry = readdir(stream))) {
        bool known = false;
        for (int i = 0; i < 4; i++) known = known || !strcmp(entry->d_name, allowed[i]);
        empty = empty && known;
    }
    closedir(stream);
    return empty ? EXIT_DONE : fail(dir, "exists and is not empty");
}

/* The target must not exist or must be empty. */
static int check_target(const char *dir, bool *exists) {
    struct stat st;
    *exists = !stat(dir, &st);
    if (*exists) return S_ISDIR(st.st_mode) ? check_empty(dir, "") : fail(dir, "exists and is not a directory");
    if (errno != ENOENT) return fail(dir, "%s", strerror(errno));
    return lstat(dir, &st) ? EXIT_DONE : fail(dir, "is a link whose target does not exist");
}

int directory_check_space(const char *place, const char *dir, uint64_t bytes) {
    struct statvfs fs;
    if (statvfs(place, &fs)) return EXIT_DONE;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (bytes <= free_bytes) return EXIT_DONE;
    char need[32], have[32];
    format_bytes(need, sizeof(need), (double)bytes);
    format_bytes(have, sizeof(have), (double)free_bytes);
    return fail(dir, "needs %s, and %s are free", need, have);
}

static bool remove_files(int fd, bool folders);

/* Remove a file, or a folder of files. Uses system calls only, so it is async-signal-safe. */
static bool remove_entry(int fd, const char *name, bool folders) {
    if (!unlinkat(fd, name, 0)) return true;
    int folder = folders ? openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (folder < 0) return false;
    remove_files(folder, false);
    close(folder);
    return !unlinkat(fd, name, AT_REMOVEDIR);
}

/* Remove the files in a directory and, with `folders`, its folders of files. Returns true if nothing was left to
 * remove. */
static bool remove_files(int fd, bool folders) {
    char buffer[4096] __attribute__((aligned(8)));
    bool found = false;
    ssize_t n;
    lseek(fd, 0, SEEK_SET);
    while ((n = getdents64(fd, buffer, sizeof(buffer))) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *entry = (const void *)(buffer + at);
            at += entry->d_reclen;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            found = remove_entry(fd, entry->d_name, folders) || found;
        }
    return !found;
}

static void remove_temporary(void) {
    if (*temporary_dir) directory_remove(temporary_dir);
}

int directory_make_temporary(char *path, const char *what) {
    if (strlen(path) >= sizeof(temporary_dir)) return fail(what, "%s", strerror(ENAMETOOLONG));
    /* No signal between making the directory and being ready to remove it. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool made = mkdtemp(path);
    const int code = made ? EXIT_DONE : fail(what, "%s", strerror(errno));
    if (made) {
        memcpy(temporary_dir, path, strlen(path) + 1);
        interrupts_clean_up(remove_temporary);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static void forget_temporary(void) {
    interrupts_clean_up(NULL);
    temporary_dir[0] = '\0';
}

void directory_remove(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* other threads may still be writing */
    for (int i = 0; fd >= 0 && i < 1000 && !remove_files(fd, true); i++) continue;
    if (fd >= 0) close(fd);
    rmdir(dir);
    if (!strcmp(dir, temporary_dir)) forget_temporary();
}

static int by_name_config_last(const struct dirent **a, const struct dirent **b) {
    bool last_a = !strcmp((*a)->d_name, "config.json"), last_b = !strcmp((*b)->d_name, "config.json");
    return last_a != last_b ? last_a - last_b : strcmp((*a)->d_name, (*b)->d_name);
}

static int is_file_name(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Move the files of `from`, a subdirectory of `to`, up into `to`. config.json goes last: without it the directory is
 * not a checkpoint. */
static int move_up(const char *from, const char *to) {
    struct dirent **files;
    int n = scandir(from, &files, is_file_name, by_name_config_last), moved = 0;
    if (n < 0) return fail(to, "%s", strerror(errno));
    int code = EXIT_DONE, from_fd = open(from, O_PATH | O_DIRECTORY | O_CLOEXEC),
        to_fd = open(to, O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (moved < n && !renameat(from_fd, files[moved]->d_name, to_fd, files[moved]->d_name)) moved++;
    if (moved < n) {
        code = fail(to, "%s", strerror(errno));
        while (moved > 0) remove_entry(to_fd, files[--moved]->d_name, true);
    }
    if (from_fd >= 0) close(from_fd);
    if (to_fd >= 0) close(to_fd);
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
    return code;
}

/* An existing directory may be a mount point or the current one, which cannot be replaced by rename. So it is filled
 * through a temporary directory inside it. */
static int fill_existing(const char *dir, uint64_t bytes, directory_fn fill, const void *context) {
    int code = directory_check_space(dir, dir, bytes);
    if (code) return code;
    char *temporary = must_format("%s/.quern.XXXXXX", dir);
    code = directory_make_temporary(temporary, dir);
    if (!code) {
        code = fill(context, temporary);
        /* do not overwrite what others have put there meanwhile */
        if (!code) code = check_empty(dir, strrchr(temporary, '/') + 1);
        if (!code) code = move_up(temporary, dir);
        directory_remove(temporary);
    }
    free(temporary);
    return code;
}

static int fill_new(const char *dir, uint64_t bytes, directory_fn fill, const void *context) {
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/') length--;
    char *target = must_format("%.*s", (int)length, dir), *temporary = must_format("%s.XXXXXX", target);
    char *copy = must_format("%s", target);
    int code = directory_check_space(dirname(copy), target, bytes);
    if (!code) code = directory_make_temporary(temporary, target);
    if (!code) {
        code = fill(context, temporary);
        if (!code && chmod(temporary, 0755)) code = fail(target, "%s", strerror(errno));
        if (!code && rename(temporary, target)) code = fail(target, "%s", strerror(errno));
        if (code)
            directory_remove(temporary);
        else
            forget_temporary();
    }
    free(copy);
    free(temporary);
    free(target);
    return code;
}

int directory_make(const char *dir, uint64_t bytes, directory_fn fill, const void *context) {
    bool exists = false;
    int code = *dir ? check_target(dir, &exists) : fail("DIR", "must not be empty");
    if (code) return code;
    return exists ? fill_existing(dir, bytes, fill, context) : fill_new(dir, bytes, fill, context);
}
