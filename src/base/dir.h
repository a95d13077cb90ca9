/* SPDX-License-Identifier: Apache-2.0 */
/* Listing and creating directories. */
#ifndef QNI_DIR_H
#define QNI_DIR_H

#include "error.h"

typedef struct qni_names {
    char **name; /* {n}, sorted by bytes */
    size_t n, capacity;
} qni_names;

/* List all names except "." and "..". Errors: EIO with the system's reason, ENOMEM. */
qn_status qni_dir_list(qni_names *out, const char *dir, qn_error *err);
void qni_names_free(qni_names *names); /* fine on a zeroed struct */

/* Create a directory; an existing one is fine. Errors: EIO with the system's reason. */
qn_status qni_dir_make(const char *dir, qn_error *err);

#endif
