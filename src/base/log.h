/* SPDX-License-Identifier: Apache-2.0 */
/* Warnings through the caller's callback. */
#ifndef QNI_LOG_H
#define QNI_LOG_H

#include <quern/status.h>

/* Pass one line, formatted like an error message, to the callback if one is set. `log` may be NULL. */
void qni_log(const qn_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
