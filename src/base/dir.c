/* SPDX-License-Identifier: Apache-2.0 */
/* Listing and creating directories. */
#include "dir.h"

#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool add_name(qni_names *names, const char *name) {
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return true;
    if (!qni_grow(&names->name, &names->capacity, names->n + 1, sizeof names->name[0])) return false;
    names->name[names->n] = qni_strndup(name, strlen(name));
    return names->name[names->n++] != NULL;
}

qn_status qni_dir_list(qni_names *out, const char *dir, qn_error *err) {
    DIR *stream = opendir(dir);
    if (stream == NULL) return qni_fail_system(err, dir, errno);
    qni_names names = {0};
    qn_status status = QN_OK;
    while (status == QN_OK) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            if (errno != 0) status = qni_fail_system(err, dir, errno);
            break;
        }
        if (!add_name(&names, entry->d_name)) status = qni_fail(err, QN_ENOMEM, "%s: out of memory", dir);
    }
    closedir(stream);
    if (status != QN_OK) {
        qni_names_free(&names);
        return status;
    }
    if (names.n > 0) qsort(names.name, names.n, sizeof names.name[0], by_bytes);
    *out = names;
    return QN_OK;
}

void qni_names_free(qni_names *names) {
    for (size_t i = 0; i < names->n; i++) qni_free(names->name[i]);
    qni_free(names->name);
    *names = (qni_names){0};
}

qn_status qni_dir_make(const char *dir, qn_error *err) {
    if (mkdir(dir, 0777) == 0 || errno == EEXIST) return QN_OK;
    return qni_fail_system(err, dir, errno);
}
