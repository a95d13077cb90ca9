/* SPDX-License-Identifier: Apache-2.0 */
/* Strict UTF-8 (Unicode, table 3-7): no surrogates, nothing above U+10FFFF, no overlong form. */
#ifndef QNI_UTF8_H
#define QNI_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* U+FFFD in UTF-8. */
#define QNI_UTF8_REPLACEMENT "\xEF\xBF\xBD"

typedef enum qni_utf8_state {
    QNI_UTF8_WHOLE,   /* a character */
    QNI_UTF8_PARTIAL, /* the text ends inside a possible character */
    QNI_UTF8_BAD,     /* no character starts like this */
} qni_utf8_state;

/* Examine the start of a text of size >= 1. *length is the number of bytes of the character, or of the maximal
 * subpart that one U+FFFD replaces (always >= 1). *code_point is 0 unless the character is complete. */
static inline qni_utf8_state qni_utf8_scan(const char *text, size_t size, size_t *length, uint32_t *code_point) {
    const unsigned char *s = (const unsigned char *)text;
    *length = 1;
    *code_point = 0;
    if (s[0] < 0x80) {
        *code_point = s[0];
        return QNI_UTF8_WHOLE;
    }
    if (s[0] < 0xC2 || s[0] > 0xF4) return QNI_UTF8_BAD;
    size_t need = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    /* The second byte alone rules out overlong forms, surrogates and numbers above U+10FFFF. */
    unsigned low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = s[0] & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if (i == size) return QNI_UTF8_PARTIAL;
        if (s[i] < low || s[i] > high) return QNI_UTF8_BAD;
        value = value << 6 | (s[i] & 0x3Fu);
        *length = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    *code_point = value;
    return QNI_UTF8_WHOLE;
}

/* Bytes of the character at the start of a text, 1 … 4; 0 if there is no valid one (also when size is 0). */
static inline size_t qni_utf8_decode(const char *text, size_t size, uint32_t *code_point) {
    size_t length;
    *code_point = 0;
    if (size == 0 || qni_utf8_scan(text, size, &length, code_point) != QNI_UTF8_WHOLE) return 0;
    return length;
}

/* Write a code point (not a surrogate, <= U+10FFFF); returns its length, 1 … 4 bytes. */
static inline size_t qni_utf8_encode(char out[4], uint32_t code_point) {
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t n = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    out[0] = (char)((0xF00u >> n & 0xFFu) | code_point);
    return n;
}

/* Bytes of the longest valid UTF-8 prefix: size if all of it is valid. */
static inline size_t qni_utf8_valid_prefix(const char *text, size_t size) {
    size_t i = 0;
    while (i < size) {
        uint64_t eight; /* eight bytes at once, while all are ASCII */
        while (size - i >= sizeof eight && (memcpy(&eight, text + i, sizeof eight), !(eight & 0x8080808080808080u))) {
            i += sizeof eight;
        }
        if (i == size) break;
        uint32_t code_point;
        size_t n = qni_utf8_decode(text + i, size - i, &code_point);
        if (n == 0) break;
        i += n;
    }
    return i;
}

static inline bool qni_utf8_is_valid(const char *text, size_t size) {
    return qni_utf8_valid_prefix(text, size) == size;
}

#endif
