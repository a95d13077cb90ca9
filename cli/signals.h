/* SPDX-License-Identifier: Apache-2.0 */
/* Signals that end the program: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, and the others that terminate by default and
 * are sent from outside (SIGXCPU, SIGUSR1, SIGALRM, …). Exit codes are 128 + the signal number. SIGXFSZ is ignored, so
 * that a write beyond the file size limit fails with EFBIG and is reported like a full disk. */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* Install the handlers. Until interrupts_graceful() a signal ends the program at once. SIGHUP and the rarer signals
 * stay ignored if they were. */
void interrupts_install(void);

/* Add all these signals to a set. */
void interrupts_add(sigset_t *set);

/* From now on the first signal sets the flag returned by interrupted(), and a second one ends the program at once.
 * SIGPIPE also ends it at once, since nobody reads the output. With `keep` (the chat) all signals only set the flag;
 * only SIGQUIT as a second signal ends the program. */
void interrupts_graceful(bool keep);

bool interrupted(void);
void interrupted_clear(void); /* clears a SIGINT; signals that ask the program to end stay set */

/* The exit code after a signal: 128 + its number; 130 if it was cleared. */
int interrupted_code(void);

/* Call `function` before the program ends, by a signal or by exit(). It must be async-signal-safe. NULL: none. */
void interrupts_clean_up(void (*function)(void));

#endif
