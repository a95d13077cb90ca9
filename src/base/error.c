/* SPDX-License-Identifier: Apache-2.0 */
/* Status names and texts, and the one place where error messages are formatted. */
#include "error.h"

#include <quern/version.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *qn_version(void) {
    return QN_VERSION_STRING;
}

const char *qn_status_name(qn_status status) {
    switch (status) {
#define NAME_CASE(name, value, text)                                                                                   \
    case QN_##name:                                                                                                    \
        return #name;
        QN_STATUS_MAP(NAME_CASE)
#undef NAME_CASE
    }
    return "?";
}

const char *qn_status_text(qn_status status) {
    switch (status) {
#define TEXT_CASE(name, value, text)                                                                                   \
    case QN_##name:                                                                                                    \
        return text;
        QN_STATUS_MAP(TEXT_CASE)
#undef TEXT_CASE
    }
    return "unknown status";
}

/* Messages quote names from untrusted files: make them one line, and never end in half a character.
 */
static void tidy(char *message, size_t size, bool cut) {
    size_t n = strlen(message);
    if (cut) {
        while (n > 0 && ((unsigned char)message[n - 1] & 0xC0) == 0x80) n--;
        if (n > 0 && (unsigned char)message[n - 1] >= 0xC0) n--;
        if (n > size - 4) n = size - 4;
        while (n > 0 && ((unsigned char)message[n] & 0xC0) == 0x80) n--;
        memcpy(message + n, "…", sizeof "…");
    }
    for (char *p = message; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
    }
}

qn_status qni_fail(qn_error *err, qn_status status, const char *format, ...) {
    if (err == NULL) return status;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0) err->message[0] = '\0';
    err->status = status;
    tidy(err->message, sizeof err->message, n >= (int)sizeof err->message);
    return status;
}
