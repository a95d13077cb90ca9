/* SPDX-License-Identifier: Apache-2.0 */
/* The signals that end the program: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, and the others that end one by default
 * and come from outside (SIGXCPU, SIGUSR1, SIGALRM, …). Exit codes are 128 + the signal's number. SIGXFSZ is ignored, so that a write beyond a limit fails with EFBIG and is told like a full disk. */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* Until interrupts_graceful() a signal ends the program at once. SIGHUP and the rarer ones stay ignored
 * where they were. */
void interrupts_install(void);

/* Add these signals to a set. */
void interrupts_add(sigset_t *set);

/* From now on the first signal sets the flag that interrupted() tells, and a second one ends the program at once; so
 * does SIGPIPE, because nobody reads any more. `keep` (the chat): all of them set the flag, SIGQUIT alone ends it the
 * second time. */
void interrupts_graceful(bool keep);

bool interrupted(void);
void interrupted_clear(void); /* forgets a SIGINT; what asked the program to end stays */

/* The exit code after a signal: 128 + its number; 130 where it was forgotten. */
int interrupted_code(void);

/* Call `function` before the program ends at once, also by exit(); it must be safe in a signal handler. NULL: nothing. */
void interrupts_clean_up(void (*function)(void));

#endif
