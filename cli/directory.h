/* SPDX-License-Identifier: Apache-2.0 */
/* Atomic creation of directories: complete, or not at all. */
#ifndef CLI_DIRECTORY_H
#define CLI_DIRECTORY_H

#include <stdint.h>

/* Write files into an existing directory. Returns an exit code. */
typedef int (*directory_fn)(const void *context, const char *dir);

/* Create `dir` and fill it with about `bytes` (0: unknown). It must not exist or must be empty; it may be the current
 * directory or a mount point. On any failure nothing is left behind. Returns an exit code. */
int directory_make(const char *dir, uint64_t bytes, directory_fn fill, const void *context);

/* mkdtemp() for a path that ends with XXXXXX. Until directory_remove(), the directory is also removed when a signal or
 * an allocation failure ends the program. Only one can exist at a time. Returns an exit code; error messages name
 * `what`. */
int directory_make_temporary(char *path, const char *what);

/* Check that the file system of `place` has `bytes` free. The error message names `dir`. Returns an exit code. */
int directory_check_space(const char *place, const char *dir, uint64_t bytes);

/* Remove a directory and the files in it. */
void directory_remove(const char *dir);

#endif
