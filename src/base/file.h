/* SPDX-License-Identifier: Apache-2.0 */
/* Reading untrusted files with pread (never mapped: a truncated mapping is a SIGBUS), and replacing files whole. */
#ifndef QNI_FILE_H
#define QNI_FILE_H

#include "error.h"

typedef struct qni_file {
    int fd;
    uint64_t size;
    char *path; /* for messages */
} qni_file;

/* Open a regular file for reading; anything else (folder, fifo, device) is EIO. */
qn_status qni_file_open(qni_file *out, const char *path, qn_error *err);
void qni_file_close(qni_file *file); /* fine on a zeroed struct and twice; fd is -1 afterwards */

/* Exactly `bytes` at `offset`; a shorter file is EFORMAT, naming it. Any thread. */
qn_status qni_file_read(const qni_file *file, void *out, uint64_t offset, size_t bytes, qn_error *err);

/* EFORMAT where the first bytes of a file (all of them, or some hundred) show that it was never downloaded: it is empty,
 * a Git LFS pointer, or an HTML or XML page of a server. */
qn_status qni_file_check_content(const char *path, const char *head, size_t size, qn_error *err);

/* A whole file of at most max_bytes; *out is followed by a zero byte and freed with qni_free(). The first function checks
 * its content as above but takes an empty file, the second takes anything. */
qn_status qni_file_slurp(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err);
qn_status qni_file_slurp_any(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err);

/* "dir/name" allocated; NULL: no memory. */
char *qni_path_join(const char *dir, const char *name);
/* Whether a directory has the name, be it a link that leads nowhere or a file that cannot be opened: a file that may be
 * missing is missing where its name is, and anything else is told by opening it. */
bool qni_path_exists(const char *path);

/* Who may read a file that is written: what was said in a session is its owner's, weights are everybody's. */
typedef enum qni_readers { QNI_FOR_OWNER = 0600, QNI_FOR_ALL = 0644 } qni_readers;

/* Writing a file that appears only when it is whole: a temporary file beside it, renamed by commit. */
typedef struct qni_writer {
    int fd;
    char *path;
    char *temporary;
} qni_writer;
qn_status qni_writer_open(qni_writer *out, const char *path, qni_readers readers, qn_error *err);
qn_status qni_writer_write(qni_writer *writer, const void *data, size_t bytes, qn_error *err);
/* At any place, from any thread; the end of what qni_writer_write() writes does not move. */
qn_status qni_writer_write_at(const qni_writer *writer, const void *data, uint64_t offset, size_t bytes, qn_error *err);
qn_status qni_writer_commit(qni_writer *writer, qn_error *err); /* closes */
void qni_writer_abandon(qni_writer *writer);                    /* removes the temporary file; fine after commit */

#endif
