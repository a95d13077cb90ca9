/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a caller's qn_error: one line of UTF-8, shortened in the middle, control characters replaced. */
#ifndef QNI_ERROR_H
#define QNI_ERROR_H

#include <quern/status.h>

/* Sets *err (may be NULL) and returns status, so that `return qni_fail(err, QN_EINVAL, "…")` is one line. */
qn_status qni_fail(qn_error *err, qn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "WHAT: reason" for an errno. Returns ENOMEM or EIO. */
qn_status qni_fail_system(qn_error *err, const char *what, int code);

/* Bytes of the character at `text` (NUL-terminated) if it is safe to print on a terminal. 0 if it is invalid UTF-8
 * or a control character: C0, DEL, C1, line and paragraph separators, bidirectional embeddings, overrides and
 * isolates. */
size_t qni_printable(const char *text);

/* The only macro that hides a return: propagates a failure whose message is already set. */
#define QN_TRY(call)                                                                                                   \
    do {                                                                                                               \
        qn_status qn_try_status = (call);                                                                              \
        if (qn_try_status != QN_OK) return qn_try_status;                                                              \
    } while (0)

#endif
