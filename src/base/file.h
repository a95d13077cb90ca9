/* SPDX-License-Identifier: Apache-2.0 */
/* Reads untrusted files with pread (never mapped: truncating a mapped file raises SIGBUS), and replaces files
 * atomically. */
#ifndef QNI_FILE_H
#define QNI_FILE_H

#include "error.h"

typedef struct qni_file {
    int fd;
    uint64_t size;
    char *path; /* for messages */
} qni_file;

/* Open a regular file for reading; anything else (directory, FIFO, device) is EIO. */
qn_status qni_file_open(qni_file *out, const char *path, qn_error *err);
void qni_file_close(qni_file *file); /* accepts a zeroed struct and may be called twice; fd is -1 afterwards */

/* Read exactly `bytes` at `offset`. EFORMAT, naming the file, if it is shorter. Thread-safe. */
qn_status qni_file_read(const qni_file *file, void *out, uint64_t offset, size_t bytes, qn_error *err);

/* EFORMAT if a file's first bytes (all of them, or a few hundred) show that it was never downloaded: empty, a Git
 * LFS pointer, or a server's HTML or XML page. */
qn_status qni_file_check_content(const char *path, const char *head, size_t size, qn_error *err);

/* Read a whole file of at most max_bytes. *out is NUL-terminated and freed with qni_free(). The first function
 * checks the content as above but accepts an empty file; the second accepts anything. */
qn_status qni_file_slurp(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err);
qn_status qni_file_slurp_any(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err);

/* "dir/name", allocated; NULL if out of memory. */
char *qni_path_join(const char *dir, const char *name);
/* The last component of a path. */
const char *qni_base_name(const char *path);
/* Whether the name exists in its directory, even as a dangling symlink or an unreadable file. An optional file is
 * missing only if its name is; any other problem is reported on open. */
bool qni_path_exists(const char *path);

/* Permissions of a written file: session contents are private to the owner, weights are public. */
typedef enum qni_readers { QNI_FOR_OWNER = 0600, QNI_FOR_ALL = 0644 } qni_readers;

/* Writes a file that appears only once complete: a temporary file beside it, renamed on commit. */
typedef struct qni_writer {
    int fd;
    char *path;
    char *temporary;
} qni_writer;
qn_status qni_writer_open(qni_writer *out, const char *path, qni_readers readers, qn_error *err);
qn_status qni_writer_write(qni_writer *writer, const void *data, size_t bytes, qn_error *err);
/* Write at any offset, from any thread; the append position of qni_writer_write() does not change. */
qn_status qni_writer_write_at(const qni_writer *writer, const void *data, uint64_t offset, size_t bytes, qn_error *err);
qn_status qni_writer_commit(qni_writer *writer, qn_error *err); /* closes */
void qni_writer_abandon(qni_writer *writer);                    /* removes the temporary file; allowed after commit */

#endif
