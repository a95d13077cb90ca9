/* SPDX-License-Identifier: Apache-2.0 */
/* Where everything goes: results to stdout, errors, figures and progress to stderr, color to terminals only. Also the
 * allocation that ends the program when there is no memory. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <quern/quern.h>

#include "signals.h"

/* "quern: SUBJECT: what is wrong", one line, escaped; returns EXIT_FAILED. subject may be NULL. */
int fail(const char *subject, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same from the library's error; the subject is left out when the message names it already. After an interrupt that
 * canceled the call nothing is printed and the code is EXIT_INTERRUPTED. */
int fail_error(const char *subject, const qn_error *err);

/* Ends the program with a line. */
_Noreturn void out_of_memory(void);

/* Like realloc for n elements of `size` bytes; ends the program with a line when there is no memory. */
void *must_realloc(void *pointer, size_t n, size_t size);
void *must_calloc(size_t n, size_t size);
char *must_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Warnings of the library on stderr, "quern: warning: SUBJECT: text", each once; quiet: none. subject lives on. */
qn_log warnings_log(bool quiet, const char *subject);

/* Text with what a terminal must not have (qni_printable) as \n or \xNN. Returns the bytes that were printed. */
size_t print_escaped(FILE *stream, const char *text);

/* Open the standard streams that are closed: a file that took such a number would get messages written into it. */
void streams_open(void);

/* Progress and color are for terminals. */
bool is_terminal(FILE *stream);
const char *dim_begin(FILE *stream); /* "" without color */
const char *dim_end(FILE *stream);

/* A bar on stderr, if that is a terminal, redrawn ten times a second at most. */
typedef struct progress_bar {
    const char *what;
    double started_s, drawn_s;
    bool visible;
} progress_bar;
void progress_begin(progress_bar *bar, const char *what);
bool progress_report(void *bar, uint64_t done, uint64_t total); /* false after an interrupt: fits qn_progress */
void progress_end(progress_bar *bar);                           /* takes the bar away */
void output_interrupt_line(void); /* a line of text follows on stderr: take a bar or an open line away first */

/* Flush stdout and stderr and tell whether all could be written; if not, says so. Returns an exit code. */
int output_finish(int code);

double now_s(void);
double peak_memory_bytes(void);
void format_bytes(char *text, size_t size, double bytes); /* "1.2 GB" */

#endif
