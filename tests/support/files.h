/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary directories and files for tests. Every failure ends the test. */
#ifndef QNI_TEST_FILES_H
#define QNI_TEST_FILES_H

#include <stddef.h>

/* A fresh directory under $TMPDIR or /tmp, allocated; remove it with files_remove_dir. */
char *files_make_dir(void);
/* Remove a directory and the files in it (not subdirectories); frees `dir`. */
void files_remove_dir(char *dir);

/* "dir/name", allocated. */
char *files_path(const char *dir, const char *name);
/* Write a file, replacing any existing one. */
void files_write(const char *dir, const char *name, const void *data, size_t bytes);
/* Read a whole file, allocated and zero-terminated; bytes may be NULL. */
char *files_read(const char *path, size_t *bytes);
/* Copy every file of a directory into another, except those whose names start with `skip` (may be NULL). */
void files_copy_dir(const char *from, const char *to, const char *skip);

#endif
