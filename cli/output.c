/* SPDX-License-Identifier: Apache-2.0 */
/* Errors, warnings, progress, color, standard streams and memory. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../src/base/error.h"
#include "options.h"

static bool bar_is_drawn;

size_t print_escaped(FILE *stream, const char *text) {
    char buffer[512];
    size_t n = 0, all = 0;
    while (*text) {
        size_t bytes = qni_printable(text);
        if (sizeof(buffer) - n < 8) {
            all += fwrite(buffer, 1, n, stream);
            n = 0;
        }
        if (bytes)
            memcpy(buffer + n, text, bytes), n += bytes;
        else
            n += (size_t)snprintf(buffer + n, 8, *text == '\n' ? "\\n" : "\\x%02x", (unsigned char)*text);
        text += bytes ? bytes : 1;
    }
    return all + fwrite(buffer, 1, n, stream);
}

static void print_line(const char *kind, const char *subject, const char *text) {
    output_interrupt_line();
    fflush(stdout);
    fprintf(stderr, "quern: %s", kind);
    if (subject) print_escaped(stderr, subject);
    if (subject) fputs(": ", stderr);
    print_escaped(stderr, text);
    putc('\n', stderr);
}

static void print_failure(const char *subject, const char *text) {
    print_line("", subject, text);
}

int fail(const char *subject, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    print_failure(subject, text);
    return EXIT_FAILED;
}

int fail_error(const char *subject, const qn_error *err) {
    if (err->status == QN_ECANCELED && interrupted()) return EXIT_INTERRUPTED;
    const char *text = err->message[0] ? err->message : qn_status_text(err->status);
    print_failure(subject && !strstr(text, subject) ? subject : NULL, text);
    return EXIT_FAILED;
}

/* Warnings already printed, so that a file opened twice is reported once. */
static struct {
    char **lines;
    size_t n;
} told;

static void print_warning(void *subject, const char *text) {
    char *line = must_format("%s: %s", (const char *)subject, text);
    for (size_t i = 0; i < told.n; i++) {
        if (strcmp(told.lines[i], line) != 0) continue;
        free(line);
        return;
    }
    told.lines = must_realloc(told.lines, told.n + 1, sizeof(char *));
    told.lines[told.n++] = line;
    print_line("warning: ", subject, text);
}

qn_log warnings_log(bool quiet, const char *subject) {
    return quiet ? (qn_log){NULL, NULL} : (qn_log){print_warning, (void *)(uintptr_t)subject};
}

_Noreturn void out_of_memory(void) {
    print_failure(NULL, "out of memory");
    exit(EXIT_FAILED);
}

void *must_realloc(void *pointer, size_t n, size_t size) {
    if (size && n > SIZE_MAX / size) out_of_memory();
    void *p = realloc(pointer, n && size ? n * size : 1);
    if (!p) out_of_memory();
    return p;
}

void *must_calloc(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) out_of_memory();
    return p;
}

char *must_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) out_of_memory();
    return text;
}

bool is_terminal(FILE *stream) {
    return isatty(fileno(stream)) == 1;
}

static bool has_color(FILE *stream) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return is_terminal(stream) && !(no_color && *no_color) && !(term && !strcmp(term, "dumb"));
}

const char *dim_begin(FILE *stream) {
    return has_color(stream) ? "\033[2m" : "";
}

const char *dim_end(FILE *stream) {
    return has_color(stream) ? "\033[0m" : "";
}

double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(progress_bar *bar, const char *what) {
    *bar = (progress_bar){.what = what, .started_s = now_s(), .visible = is_terminal(stderr)};
}

bool progress_report(void *user, uint64_t done, uint64_t total) {
    progress_bar *bar = user;
    enum { WIDTH = 30, BEGIN_MS = 200, STEP_MS = 100 };
    double now = now_s();
    if (bar->visible && total && now - bar->started_s > BEGIN_MS / 1e3 && now - bar->drawn_s > STEP_MS / 1e3) {
        double part = (double)done / (double)total;
        int full = (int)(part * WIDTH);
        char blocks[WIDTH + 1];
        for (int i = 0; i < WIDTH; i++) blocks[i] = i < full ? '#' : '.';
        blocks[WIDTH] = '\0';
        fprintf(stderr, "\r%s [%s] %3.0f %%", bar->what, blocks, 100 * part);
        fflush(stderr);
        bar_is_drawn = true;
        bar->drawn_s = now;
    }
    return !interrupted();
}

void output_interrupt_line(void) {
    if (!bar_is_drawn) return;
    fprintf(stderr, "\r%*s\r", 78, "");
    bar_is_drawn = false;
}

void progress_end(progress_bar *bar) {
    bar->visible = false;
    output_interrupt_line();
}

void streams_open(void) {
    /* Opened with the opposite access mode, so that I/O fails as on a closed stream. stderr is writable: closing it
     * means that no messages are wanted. */
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) _exit(EXIT_FAILED);
}

int output_finish(int code) {
    bool failed = fflush(stdout) != 0;
    int reason = errno;
    if (code == EXIT_INTERRUPTED) code = interrupted_code();
    if (code == 128 + SIGPIPE) return code;
    if (failed || ferror(stdout)) fail("standard output", "%s", failed ? strerror(reason) : "could not be written");
    /* an error that stderr cannot show is reported by the exit code alone */
    bool lost = failed || ferror(stdout) || fflush(stderr) || ferror(stderr);
    return lost && code == EXIT_DONE ? EXIT_FAILED : code;
}

/* VmHWM rather than ru_maxrss, which includes a large parent's memory from before exec. */
double peak_memory_bytes(void) {
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    double kilobytes = 0;
    while (status && kilobytes <= 0 && fgets(line, sizeof(line), status))
        if (!strncmp(line, "VmHWM:", 6)) kilobytes = strtod(line + 6, NULL);
    if (status) fclose(status);
    if (kilobytes > 0) return 1024.0 * kilobytes;
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : 1024.0 * (double)usage.ru_maxrss;
}

void format_bytes(char *text, size_t size, double bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 999.5 && unit < 4) bytes /= 1000, unit++;
    snprintf(text, size,
             bytes >= 99.5 || unit == 0 ? "%.0f %s"
             : bytes >= 9.95            ? "%.1f %s"
                                        : "%.2f %s",
             bytes, units[unit]);
}
