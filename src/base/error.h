/* SPDX-License-Identifier: Apache-2.0 */
/* Filling a caller's qn_error: one line of UTF-8, shortened in the middle, control characters replaced. */
#ifndef QNI_ERROR_H
#define QNI_ERROR_H

#include <quern/status.h>

/* Sets *err (may be NULL) and returns status, so that `return qni_fail(err, QN_EINVAL, "…")` is one line. */
qn_status qni_fail(qn_error *err, qn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "WHAT: reason" for an errno: ENOMEM, or EIO. */
qn_status qni_fail_system(qn_error *err, const char *what, int code);

/* Bytes of the character at `text` (ended by a zero byte) if a terminal may have it; 0: it is no UTF-8, or it controls:
 * C0, DEL, C1, separators of lines and paragraphs, embeddings, overrides and isolates of direction. */
size_t qni_printable(const char *text);

/* The one macro that hides a return: hands on a failure whose message is already set. */
#define QN_TRY(call)                                                                                                   \
    do {                                                                                                               \
        qn_status qn_try_status = (call);                                                                              \
        if (qn_try_status != QN_OK) return qn_try_status;                                                              \
    } while (0)

#endif
