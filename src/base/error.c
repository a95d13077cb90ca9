/* SPDX-License-Identifier: Apache-2.0 */
/* Status names and texts, and the only place that formats error messages. */
#include "error.h"

#include <quern/version.h>

#include <errno.h>
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

enum { LONGEST = 4500 }; /* a path of PATH_MAX and the rest of the message */

static bool is_continuation(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}

size_t qni_printable(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return s[0] >= 0x20 && s[0] != 0x7F;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    size_t n = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    unsigned char low = s[0] == 0xC2 || s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++) {
        if (!is_continuation(text[i])) return 0;
    }
    /* U+2028 … U+202E and U+2066 … U+2069 break lines or change text direction */
    if (s[0] == 0xE2 && s[1] == 0x80 && s[2] >= 0xA8 && s[2] <= 0xAE) return 0;
    if (s[0] == 0xE2 && s[1] == 0x81 && s[2] >= 0xA6 && s[2] <= 0xA9) return 0;
    return n;
}

/* Messages quote names from untrusted files, possibly truncated. Make them one line of complete characters. */
static void sanitize(char *text) {
    while (*text != '\0') {
        size_t n = qni_printable(text);
        if (n == 0) *text = '?';
        text += n > 0 ? n : 1;
    }
}

/* Shorten in the middle: the beginning names the thing, the end says what is wrong with it. Never splits a
 * character. */
static void shorten(char *message, size_t size, const char *text, size_t n) {
    static const char gap[] = "…";
    size_t head = (size - sizeof gap) / 2, tail = n - (size - sizeof gap - head);
    while (head > 0 && is_continuation(text[head])) head--;
    while (tail < n && is_continuation(text[tail])) tail++;
    memcpy(message, text, head);
    memcpy(message + head, gap, sizeof gap - 1);
    memcpy(message + head + sizeof gap - 1, text + tail, n - tail + 1);
}

qn_status qni_fail(qn_error *err, qn_status status, const char *format, ...) {
    if (err == NULL) return status;
    char text[LONGEST];
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = '\0';
    va_end(args);
    sanitize(text);
    size_t n = strlen(text);
    if (n < sizeof err->message) {
        memcpy(err->message, text, n + 1);
    } else {
        shorten(err->message, sizeof err->message, text, n);
    }
    err->status = status;
    return status;
}

qn_status qni_fail_system(qn_error *err, const char *what, int code) {
    /* strerror_r has two variants; this is the GNU one, which returns the text. */
    char buffer[128];
    const char *reason = strerror_r(code, buffer, sizeof buffer);
    return qni_fail(err, code == ENOMEM ? QN_ENOMEM : QN_EIO, "%s: %s", what, reason);
}
