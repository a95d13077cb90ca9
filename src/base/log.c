/* SPDX-License-Identifier: Apache-2.0 */
/* Warnings through the caller's callback. */
#include "log.h"

#include "error.h"

#include <stdarg.h>
#include <stdio.h>

void qni_log(const qn_log *log, const char *format, ...) {
    if (log == NULL || log->line == NULL) return;
    char text[sizeof((qn_error *)0)->message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0) return;
    qn_error line = {QN_OK, ""};
    qni_fail(&line, QN_OK, "%s", text); /* one line of complete characters, as in error messages */
    log->line(log->user, line.message);
}
