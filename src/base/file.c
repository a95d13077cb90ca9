/* SPDX-License-Identifier: Apache-2.0 */
/* Reads with pread; writes to a temporary file that is renamed once complete. */
#include "file.h"

#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* Why a file could not be opened. For a dangling symlink the message includes its target, because the name itself
 * exists. */
static qn_status open_error(qn_error *err, const char *path, int code) {
    char target[1024];
    ssize_t n = code == ENOENT || code == ELOOP ? readlink(path, target, sizeof target - 1) : -1;
    if (n < 0) return qni_fail_system(err, path, code);
    target[n] = '\0';
    return qni_fail(err, QN_EIO, "%s: is a link to %s, which %s", path, target,
                    code == ENOENT ? "is not there" : "leads back to itself");
}

qn_status qni_file_open(qni_file *out, const char *path, qn_error *err) {
    char *copy = qni_strndup(path, strlen(path));
    if (copy == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", path);
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on a regular file. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int code = errno;
        if (fd >= 0) close(fd);
        qni_free(copy);
        return open_error(err, path, code);
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        qni_free(copy);
        if (S_ISDIR(st.st_mode)) return qni_fail_system(err, path, EISDIR);
        return qni_fail(err, QN_EIO, "%s: not a regular file", path);
    }
    *out = (qni_file){.fd = fd, .size = (uint64_t)st.st_size, .path = copy};
    return QN_OK;
}

void qni_file_close(qni_file *file) {
    if (file->path == NULL) return;
    close(file->fd);
    qni_free(file->path);
    *file = (qni_file){.fd = -1};
}

qn_status qni_file_read(const qni_file *file, void *out, uint64_t offset, size_t bytes, qn_error *err) {
    char *to = out;
    while (bytes > 0) {
        ssize_t n = pread(file->fd, to, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return qni_fail_system(err, file->path, errno);
        if (n == 0) {
            return qni_fail(err, QN_EFORMAT, "%s: ends at byte %llu, where more was expected", file->path,
                            (unsigned long long)offset);
        }
        to += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return QN_OK;
}

/* Whether a text begins with a word, ignoring case. */
static bool begins(const char *text, size_t size, const char *word) {
    size_t n = strlen(word);
    return size >= n && strncasecmp(text, word, n) == 0;
}

qn_status qni_file_check_content(const char *path, const char *head, size_t size, qn_error *err) {
    static const struct {
        const char *begin, *what;
    } known[] = {
        {"version https://git-lfs.github.com/", "a Git LFS pointer"},
        {"version https://hawser.github.com/", "a Git LFS pointer"},
        {"<!doctype", "an HTML page"},
        {"<html", "an HTML page"},
        {"<head", "an HTML page"},
        {"<?xml", "an XML document"},
        {"<error>", "an XML document"},
    };
    if (size == 0) return qni_fail(err, QN_EFORMAT, "%s: is empty; the file itself was not downloaded", path);
    if (begins(head, size, "\xEF\xBB\xBF")) {
        head += 3;
        size -= 3;
    }
    while (size > 0 && (*head == ' ' || *head == '\t' || *head == '\r' || *head == '\n')) {
        head++;
        size--;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!begins(head, size, known[i].begin)) continue;
        return qni_fail(err, QN_EFORMAT, "%s: is %s; the file itself was not downloaded", path, known[i].what);
    }
    return QN_OK;
}

qn_status qni_file_slurp_any(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err) {
    qni_file file = {0};
    QN_TRY(qni_file_open(&file, path, err));
    qn_status status = QN_OK;
    char *data = NULL;
    if (file.size > max_bytes) {
        status = qni_fail(err, QN_EFORMAT, "%s: %llu bytes, more than the %zu that such a file may have", path,
                          (unsigned long long)file.size, max_bytes);
    } else if ((data = qni_calloc((size_t)file.size + 1, 1)) == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: no memory for %llu bytes", path, (unsigned long long)file.size);
    } else {
        status = qni_file_read(&file, data, 0, (size_t)file.size, err);
    }
    if (status == QN_OK) {
        *out = data;
        *size = (size_t)file.size;
    } else {
        qni_free(data);
    }
    qni_file_close(&file);
    return status;
}

qn_status qni_file_slurp(char **out, size_t *size, const char *path, size_t max_bytes, qn_error *err) {
    char *data = NULL;
    size_t n = 0;
    QN_TRY(qni_file_slurp_any(&data, &n, path, max_bytes, err));
    qn_status status = n > 0 ? qni_file_check_content(path, data, n, err) : QN_OK;
    if (status != QN_OK) {
        qni_free(data);
        return status;
    }
    *out = data;
    *size = n;
    return QN_OK;
}

char *qni_path_join(const char *dir, const char *name) {
    size_t n_dir = strlen(dir), n_name = strlen(name);
    char *path = qni_calloc(n_dir + n_name + 2, 1);
    if (path == NULL) return NULL;
    memcpy(path, dir, n_dir);
    if (n_dir > 0 && dir[n_dir - 1] != '/') path[n_dir++] = '/';
    memcpy(path + n_dir, name, n_name);
    return path;
}

const char *qni_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

bool qni_path_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

qn_status qni_writer_open(qni_writer *out, const char *path, qni_readers readers, qn_error *err) {
    static const char suffix[] = ".XXXXXX";
    size_t n = strlen(path);
    struct stat there;
    /* Renaming would replace a device or a pipe by a file. */
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode)) {
        return qni_fail(err, QN_EIO, "%s: is not a regular file", path);
    }
    qni_writer w = {.fd = -1, .path = qni_strndup(path, n), .temporary = qni_calloc(n + sizeof suffix, 1)};
    qn_status status = QN_OK;
    if (w.path == NULL || w.temporary == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", path);
    } else {
        memcpy(w.temporary, path, n);
        memcpy(w.temporary + n, suffix, sizeof suffix);
        w.fd = mkostemp(w.temporary, O_CLOEXEC);
        if (w.fd < 0) status = qni_fail_system(err, path, errno);
        if (w.fd >= 0) fchmod(w.fd, (mode_t)readers); /* best effort: some file systems have no modes */
    }
    if (status != QN_OK) {
        qni_free(w.path);
        qni_free(w.temporary);
        return status;
    }
    *out = w;
    return QN_OK;
}

qn_status qni_writer_write(qni_writer *writer, const void *data, size_t bytes, qn_error *err) {
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = write(writer->fd, from, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return qni_fail_system(err, writer->path, errno);
        from += n;
        bytes -= (size_t)n;
    }
    return QN_OK;
}

qn_status qni_writer_write_at(const qni_writer *writer, const void *data, uint64_t offset, size_t bytes,
                              qn_error *err) {
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = pwrite(writer->fd, from, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return qni_fail_system(err, writer->path, errno);
        from += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return QN_OK;
}

qn_status qni_writer_commit(qni_writer *writer, qn_error *err) {
    qn_status status = QN_OK;
    if (fsync(writer->fd) != 0) status = qni_fail_system(err, writer->path, errno);
    if (close(writer->fd) != 0 && status == QN_OK) status = qni_fail_system(err, writer->path, errno);
    writer->fd = -1;
    if (status == QN_OK && rename(writer->temporary, writer->path) != 0) {
        status = qni_fail_system(err, writer->path, errno);
    }
    if (status != QN_OK) {
        qni_writer_abandon(writer);
        return status;
    }
    qni_free(writer->temporary);
    qni_free(writer->path);
    *writer = (qni_writer){.fd = -1};
    return QN_OK;
}

void qni_writer_abandon(qni_writer *writer) {
    if (writer->path == NULL) return;
    if (writer->fd >= 0) close(writer->fd);
    unlink(writer->temporary);
    qni_free(writer->temporary);
    qni_free(writer->path);
    *writer = (qni_writer){.fd = -1};
}
