/* SPDX-License-Identifier: Apache-2.0 */
/* strftime_now(): Python's datetime.now().strftime() in the C locale, for a time given by the caller. */
#include "value.h"

#include <stdio.h>
#include <time.h>

static bool digits(const char *s, int n, int *out) {
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *out = 10 * *out + (s[i] - '0');
    }
    return true;
}

static bool is_leap(int year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_of_month(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

bool qni_jinja_time_parse(qni_jinja_time *out, const char *text) {
    qni_jinja_time t = {0};
    size_t n = strlen(text);
    bool dated = n >= 10 && digits(text, 4, &t.year) && text[4] == '-' && digits(text + 5, 2, &t.month) &&
                 text[7] == '-' && digits(text + 8, 2, &t.day);
    if (!dated || t.year < 1 || t.month < 1 || t.month > 12 || t.day < 1 || t.day > days_of_month(t.year, t.month))
        return false;
    bool timed = n == 19 && text[10] == 'T' && digits(text + 11, 2, &t.hour) && text[13] == ':' &&
                 digits(text + 14, 2, &t.minute) && text[16] == ':' && digits(text + 17, 2, &t.second) && t.hour < 24 &&
                 t.minute < 60 && t.second < 60;
    if (n != 10 && !timed) return false;
    *out = t;
    return true;
}

bool qni_jinja_time_now(qni_jinja_time *out) {
    struct timespec now;
    struct tm tm;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || localtime_r(&now.tv_sec, &tm) == NULL) return false;
    *out = (qni_jinja_time){.year = tm.tm_year + 1900,
                            .month = tm.tm_mon + 1,
                            .day = tm.tm_mday,
                            .hour = tm.tm_hour,
                            .minute = tm.tm_min,
                            .second = tm.tm_sec < 60 ? tm.tm_sec : 59,
                            .microsecond = (int)(now.tv_nsec / 1000)};
    return true;
}

static int day_of_year(const qni_jinja_time *t) {
    int day = t->day;
    for (int month = 1; month < t->month; month++) day += days_of_month(t->year, month);
    return day;
}

/* 0: Sunday. The calendar repeats every 400 years, a whole number of weeks. */
static int weekday(int year, int day_of_the_year) {
    int y = (year - 1) % 400;
    return (y * 365 + y / 4 - y / 100 + day_of_the_year) % 7;
}

/* The ISO 8601 week number and the year it belongs to. */
static int iso_week(const qni_jinja_time *t, int *year) {
    int day = day_of_year(t), from_monday = (weekday(t->year, day) + 6) % 7, week = (day - from_monday + 9) / 7;
    *year = t->year;
    if (week < 1) {
        --*year;
        int length = 365 + is_leap(*year);
        return (day + length - from_monday + 9) / 7;
    }
    int length = 365 + is_leap(t->year);
    if (week == 53 && day - from_monday + 3 > length) {
        ++*year;
        return 1;
    }
    return week;
}

typedef struct field {
    int value, width;
    char pad; /* '0', ' ' */
} field;

/* The numeric value of a directive. */
static bool number_field(const qni_jinja_time *t, char directive, field *out) {
    int day = day_of_year(t), wday = weekday(t->year, day), year, week = iso_week(t, &year);
    int hour12 = t->hour % 12 == 0 ? 12 : t->hour % 12;
    const struct {
        char directive;
        field field;
    } fields[] = {
        {'d', {t->day, 2, '0'}},
        {'e', {t->day, 2, ' '}},
        {'m', {t->month, 2, '0'}},
        {'y', {t->year % 100, 2, '0'}},
        {'Y', {t->year, 0, '0'}},
        {'C', {t->year / 100, 1, '0'}},
        {'H', {t->hour, 2, '0'}},
        {'k', {t->hour, 2, ' '}},
        {'I', {hour12, 2, '0'}},
        {'l', {hour12, 2, ' '}},
        {'M', {t->minute, 2, '0'}},
        {'S', {t->second, 2, '0'}},
        {'f', {t->microsecond, 6, '0'}},
        {'j', {day, 3, '0'}},
        {'w', {wday, 1, '0'}},
        {'u', {wday == 0 ? 7 : wday, 1, '0'}},
        {'U', {(day - 1 + 7 - wday) / 7, 2, '0'}},
        {'W', {(day - 1 + 7 - (wday + 6) % 7) / 7, 2, '0'}},
        {'V', {week, 2, '0'}},
        {'G', {year, 0, '0'}},
        {'g', {year % 100, 2, '0'}},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].directive != directive) continue;
        *out = fields[i].field;
        return true;
    }
    return false;
}

/* The expansion of a composite directive such as %D, or NULL. */
static const char *compound(char directive) {
    switch (directive) {
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'F':
        return "%Y-%m-%d";
    case 'R':
        return "%H:%M";
    case 'r':
        return "%I:%M:%S %p";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    default:
        return NULL;
    }
}

/* The text of a directive for a name or a character, and its length; or NULL. */
static const char *name_field(const qni_jinja_time *t, char directive, size_t *size) {
    static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
    static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
    const char *name = NULL;
    bool brief = false;
    switch (directive) {
    case 'a':
    case 'A':
        name = days[weekday(t->year, day_of_year(t))];
        brief = directive == 'a';
        break;
    case 'b':
    case 'B':
    case 'h':
        name = months[t->month - 1];
        brief = directive != 'B';
        break;
    case 'p':
        name = t->hour < 12 ? "AM" : "PM";
        break;
    case 'P':
        name = t->hour < 12 ? "am" : "pm";
        break;
    case '%':
        name = "%";
        break;
    case 'n':
        name = "\n";
        break;
    case 't':
        name = "\t";
        break;
    case 'z': /* a naive time has no zone name */
    case 'Z':
        name = "";
        break;
    default:
        return NULL;
    }
    *size = brief ? 3 : strlen(name);
    return name;
}

/* Write one directive with its flag ("-": no padding, "_": spaces, "0": zeros), or 0. */
static qn_status put_directive(jrun *run, jbuf *buf, char flag, char directive, bool trusted) {
    field f;
    size_t n;
    char text[16];
    const char *name = name_field(&run->now, directive, &n);
    if (name != NULL && flag == '\0') return qni_j_put(run, buf, name, n, trusted);
    if (name != NULL || !number_field(&run->now, directive, &f)) {
        return qni_j_fail(run, QN_EUNSUPPORTED, "strftime_now: the directive %%%.*s%c", flag != '\0', &flag, directive);
    }
    char pad = flag == '_' ? ' ' : flag == '0' ? '0' : f.pad;
    int size = snprintf(text, sizeof text, pad == '0' ? "%0*d" : "%*d", flag == '-' ? 0 : f.width, f.value);
    return qni_j_put(run, buf, text, (size_t)size, trusted);
}

/* `depth` 1: within a composite directive. */
static qn_status put_time(jrun *run, jbuf *buf, jval format, int depth) {
    for (size_t at = 0; at < format.size; at++) {
        bool trusted = qni_j_trusted_at(format, at);
        char c = format.s[at];
        if (c != '%') {
            QN_TRY(qni_j_put(run, buf, &c, 1, trusted));
            continue;
        }
        char flag = '\0';
        if (++at < format.size && strchr("-_0", format.s[at]) != NULL && format.s[at] != '\0') flag = format.s[at++];
        if (at >= format.size) return qni_j_put_part(run, buf, format, format.size - 1, 1);
        const char *parts = flag == '\0' && depth == 0 ? compound(format.s[at]) : NULL;
        if (parts != NULL) {
            QN_TRY(put_time(run, buf, qni_j_trust(qni_j_literal(parts), trusted), 1));
        } else {
            QN_TRY(put_directive(run, buf, flag, format.s[at], trusted));
        }
    }
    return QN_OK;
}

qn_status qni_j_strftime(jrun *run, jval format, jval *out) {
    jbuf buf = {0};
    if (format.kind != J_STRING)
        return qni_j_fail(run, QN_EINVAL, "strftime_now() takes a string, got a %s", qni_j_kind(format));
    QN_TRY(put_time(run, &buf, format, 0));
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}
