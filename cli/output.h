/* SPDX-License-Identifier: Apache-2.0 */
/* Output: results go to stdout; errors, statistics and progress to stderr; color to terminals only. Also the allocator
 * that ends the program when memory is exhausted. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <quern/quern.h>

#include "signals.h"

/* Print "quern: SUBJECT: what is wrong" as one escaped line; returns EXIT_FAILED. subject may be NULL. */
int fail(const char *subject, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a library error; the subject is omitted if the message already names it. If an interrupt canceled the
 * call, nothing is printed and EXIT_INTERRUPTED is returned. */
int fail_error(const char *subject, const qn_error *err);

/* Ends the program with an error message. */
_Noreturn void out_of_memory(void);

/* realloc for n elements of `size` bytes; ends the program with an error message when memory is exhausted. */
void *must_realloc(void *pointer, size_t n, size_t size);
void *must_calloc(size_t n, size_t size);
char *must_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print library warnings on stderr as "quern: warning: SUBJECT: text", each once; quiet: none. subject must stay
 * valid. */
qn_log warnings_log(bool quiet, const char *subject);

/* Print text, escaping what is unsafe on a terminal (see qni_printable) as or \xNN. Returns the number of bytes
 * printed. */
size_t print_escaped(FILE *stream, const char *text);

/* Reopen standard streams that are closed: otherwise a file that got descriptor 0 to 2 would receive messages. */
void streams_open(void);

/* Progress bars and color are used on terminals only. */
bool is_terminal(FILE *stream);
const char *dim_begin(FILE *stream); /* "" without color */
const char *dim_end(FILE *stream);

/* A progress bar on stderr if that is a terminal, redrawn at most ten times a second. */
typedef struct progress_bar {
    const char *what;
    double started_s, drawn_s;
    bool visible;
} progress_bar;
void progress_begin(progress_bar *bar, const char *what);
bool progress_report(void *bar, uint64_t done, uint64_t total); /* a qn_progress callback; false after an interrupt */
void progress_end(progress_bar *bar);                           /* erases the bar */
void output_interrupt_line(void); /* call before a line on stderr: erases a bar or ends an open line */

/* Flush stdout and stderr and report any write failure. Returns an exit code. */
int output_finish(int code);

double now_s(void);
double peak_memory_bytes(void);
void format_bytes(char *text, size_t size, double bytes); /* "1.2 GB" */

#endif
