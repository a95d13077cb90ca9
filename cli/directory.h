/* SPDX-License-Identifier: Apache-2.0 */
/* New directories: all of one, or none. */
#ifndef CLI_DIRECTORY_H
#define CLI_DIRECTORY_H

#include <stdint.h>

/* Write the files of a directory that is there; returns an exit code. */
typedef int (*directory_fn)(const void *context, const char *dir);

/* Make `dir`, which must not exist or be empty (it may be the current directory or a mount point), and fill it with
 * about `bytes` (0: not known). Whatever goes wrong, nothing is left behind. Returns an exit code. */
int directory_make(const char *dir, uint64_t bytes, directory_fn fill, const void *context);

/* mkdtemp() of a path that ends with XXXXXX. Until directory_remove() it is also removed when a signal or a lack of
 * memory ends the program; there is one at a time. Returns an exit code, and says of `what` why it failed. */
int directory_make_temporary(char *path, const char *what);

/* Whether `bytes` fit where `place` is; says so of `dir` if not. Returns an exit code. */
int directory_check_space(const char *place, const char *dir, uint64_t bytes);

/* Remove a directory and the files in it. */
void directory_remove(const char *dir);

#endif
