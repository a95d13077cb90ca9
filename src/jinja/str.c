/* SPDX-License-Identifier: Apache-2.0 */
/* Text as Python sees it: characters, stripping, searching, line ends. */
#include "str.h"

#include "../base/utf8.h"

size_t qni_j_char(const char *s, size_t size, uint32_t *code_point) {
    if (size > 0 && (unsigned char)*s < 0x80) {
        *code_point = (unsigned char)*s;
        return 1;
    }
    size_t n = qni_utf8_decode(s, size, code_point);
    if (n > 0) return n;
    *code_point = 0xFFFD; /* unreachable: texts are valid UTF-8 */
    return 1;
}

size_t qni_j_char_before(const char *s, size_t size, uint32_t *code_point) {
    size_t n = 1;
    while (n < 4 && n < size && ((unsigned char)s[size - n] & 0xC0) == 0x80) n++;
    return qni_j_char(s + size - n, n, code_point);
}

size_t qni_j_count(const char *s, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

size_t qni_j_offset(const char *s, size_t size, size_t points) {
    size_t i = 0;
    for (; i < size; i++) {
        if (((unsigned char)s[i] & 0xC0) != 0x80 && points-- == 0) break;
    }
    return i;
}

size_t qni_j_line_end(const char *s, size_t size) {
    uint32_t c;
    size_t n = qni_j_char(s, size, &c);
    if (c == '\r') return size > 1 && s[1] == '\n' ? 2 : 1;
    bool end = (c >= 0x0A && c <= 0x0C) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return end ? n : 0;
}

static bool is_among(uint32_t c, const char *s, size_t n, const jval *chars) {
    return chars == NULL ? qni_j_is_space(c) : qni_j_find(*chars, qni_j_text(s, n), 0) >= 0;
}

jval qni_j_strip(jval s, const jval *chars, int sides) {
    uint32_t c;
    size_t start = 0, end = s.size;
    while ((sides & 1) && start < end) {
        size_t n = qni_j_char(s.s + start, end - start, &c);
        if (!is_among(c, s.s + start, n, chars)) break;
        start += n;
    }
    while ((sides & 2) && start < end) {
        size_t n = qni_j_char_before(s.s + start, end - start, &c);
        if (!is_among(c, s.s + end - n, n, chars)) break;
        end -= n;
    }
    return qni_j_part(s, start, end - start);
}

int64_t qni_j_find(jval s, jval needle, size_t from) {
    if (from > s.size) return -1;
    if (needle.size == 0) return (int64_t)from;
    const char *p = memmem(s.s + from, s.size - from, needle.s, needle.size);
    return p != NULL ? p - s.s : -1;
}

int64_t qni_j_rfind(jval s, jval needle) {
    for (size_t at = s.size; needle.size <= s.size; at--) {
        if (at + needle.size <= s.size && memcmp(s.s + at, needle.s, needle.size) == 0) return (int64_t)at;
        if (at == 0) break;
    }
    return -1;
}
