/* SPDX-License-Identifier: Apache-2.0 */
/* The scan before the parser. It recognizes strings, brackets and numbers, and nothing else of the grammar. */
#include "json_scan.h"

#include "json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static const char *skip_digits(const char *at, const char *end) {
    while (at < end && is_digit(*at)) at++;
    return at;
}

static bool integer_is_large(const char *digits, size_t n, bool minus) {
    const char *most = minus ? "9223372036854775808" : "9223372036854775807";
    return n > 19 || (n == 19 && memcmp(digits, most, 19) > 0);
}

/* Whether digits with at most one point, times ten to the exponent, round to infinity. The digits are given to
 * strtod() without the point, because the decimal point depends on the locale. */
static bool real_is_large(const char *digits, const char *end, int64_t exponent) {
    enum { MOST = 320 }; /* a few more digits than the largest double has; one extra digit stands for all the rest */
    char text[MOST + 16];
    size_t n = 0;
    const char *point = memchr(digits, '.', (size_t)(end - digits));
    int64_t power = (point != NULL ? point : end) - digits - 1; /* power of ten of the current digit */
    int64_t first = 0;
    for (const char *at = digits; at < end; at++) {
        if (*at == '.') continue;
        if (n == 0 && *at != '0') first = power + exponent;
        if (n == MOST - 1 && *at != '0') {
            text[n++] = '1';
            break;
        }
        if (n < MOST - 1 && (n > 0 || *at != '0')) text[n++] = *at;
        power--;
    }
    if (n == 0 || first != 308) return n > 0 && first > 308; /* the largest double is 1.79…e308 */
    snprintf(text + n, sizeof text - n, "e%d", 308 - (int)(n - 1));
    return isinf(strtod(text, NULL));
}

/* Parse "e-12" up to `end`; false if it is not an exponent. The value saturates far beyond any useful size. */
static bool read_exponent(int64_t *out, const char *at, const char *end) {
    if (*at != 'e' && *at != 'E') return false;
    at++;
    bool minus = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+')) at++;
    if (at == end) return false;
    int64_t value = 0;
    for (; at < end && is_digit(*at); at++) {
        if (value < INT64_MAX / 100) value = value * 10 + (*at - '0');
    }
    *out = minus ? -value : value;
    return at == end;
}

/* Whether a run of number characters is a valid JSON number that fits no C type. Anything else is left to the
 * parser, which rejects it. */
static bool is_large(const char *token, size_t n) {
    const char *end = token + n, *whole = token + (*token == '-');
    const char *at = skip_digits(whole, end);
    if (at == whole || (*whole == '0' && at - whole > 1)) return false;
    if (at == end) return integer_is_large(whole, (size_t)(at - whole), *token == '-');
    if (*at == '.') {
        const char *fraction = at + 1;
        at = skip_digits(fraction, end);
        if (at == fraction) return false;
    }
    int64_t exponent = 0;
    if (at < end && !read_exponent(&exponent, at, end)) return false;
    return real_is_large(whole, at, exponent);
}

static size_t number_size(const char *text, size_t size) {
    size_t n = 0;
    while (n < size && (is_digit(text[n]) || (text[n] != '\0' && strchr("+-.eE", text[n]) != NULL))) n++;
    return n;
}

/* Bytes of the string whose opening quote is text[0], including the closing quote if present. */
static size_t string_size(const char *text, size_t size) {
    size_t i = 1;
    while (i < size && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
    return i < size ? i + 1 : size;
}

qni_json_survey qni_json_scan(const char *text, size_t size, qni_json_span *large) {
    qni_json_survey s = {0};
    int depth = 0;
    size_t token = 0, n_number = 0;
    for (size_t i = 0, step; i < size && s.depth <= QNI_JSON_DEPTH; i += step) {
        char c = text[i];
        step = 1;
        if (c == '{' || c == '[') {
            if (++depth > s.depth) s.depth = depth;
            token = 0;
        } else if (c == '}' || c == ']') {
            depth--;
            token = 0;
        } else if (c == ',' || c == ':' || c == ' ' || c == '\n' || c == '\t' || c == '\r') {
            token = 0;
        } else {
            if (c == '"') step = string_size(text + i, size - i);
            if (c == '-' || is_digit(c)) {
                step = number_size(text + i, size - i);
                if (is_large(text + i, step)) {
                    if (large != NULL) large[s.n_large] = (qni_json_span){i, step, n_number};
                    s.n_large++;
                }
                n_number++;
            }
            token += step;
        }
        if (token > s.longest) s.longest = token;
    }
    return s;
}
