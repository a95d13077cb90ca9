/* SPDX-License-Identifier: Apache-2.0 */
/* Remarks that are no errors, through the caller's callback. */
#ifndef QNI_LOG_H
#define QNI_LOG_H

#include <quern/status.h>

/* One line to the callback, if there is one; made like an error's message. `log` may be NULL. */
void qni_log(const qn_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
