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

enum { LONGEST = 4500 }; /* a path of PATH_MAX and what is said about it */

static bool continues(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* What is too long keeps its beginning, which names the thing, and its end, which tells what is wrong with it. Never
 * in the middle of a character. */
static void shorten(char *message, size_t size, const char *text, size_t n) {
    static const char gap[] = "…";
    size_t head = (size - sizeof gap) / 2, tail = n - (size - sizeof gap - head);
    while (head > 0 && continues(text[head])) head--;
    while (tail < n && continues(text[tail])) tail++;
    memcpy(message, text, head);
    memcpy(message + head, gap, sizeof gap - 1);
    memcpy(message + head + sizeof gap - 1, text + tail, n - tail + 1);
}

qn_status qni_fail(qn_error *err, qn_status status, const char *format, ...) {
    if (err == NULL) return status;
    char text[LONGEST];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0) text[0] = '\0';
    size_t n = strlen(text);
    if (length > (int)n) { /* cut: the last character may be a half one */
        while (n > 0 && continues(text[n - 1])) n--;
        if (n > 0 && (unsigned char)text[n - 1] >= 0xC0) n--;
        text[n] = '\0';
    }
    if (n < sizeof err->message) {
        memcpy(err->message, text, n + 1);
    } else {
        shorten(err->message, sizeof err->message, text, n);
    }
    /* Names from untrusted files are quoted: one line, no control characters. */
    for (char *p = err->message; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
    }
    err->status = status;
    return status;
}
