/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of the signals that end the program. */
#include "signals.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

typedef enum ending { AT_ONCE, FLAG_FIRST, FLAG_ALWAYS } ending;

static const int numbers[] = {SIGINT,  SIGTERM, SIGHUP,    SIGQUIT, SIGPIPE, SIGXCPU, SIGUSR1,
                              SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,   SIGPWR};
enum { N_NUMBER = sizeof(numbers) / sizeof(*numbers) };

static volatile sig_atomic_t signal_seen;
static volatile sig_atomic_t mode = AT_ONCE;
static void (*volatile clean_up)(void);

static void clean(void) {
    if (clean_up) clean_up();
}

static bool ends_at_once(int number) {
    if (mode == AT_ONCE) return true;
    if (mode == FLAG_FIRST) return signal_seen || number == SIGPIPE;
    return signal_seen && number == SIGQUIT;
}

static void on_signal(int number) {
    if (ends_at_once(number)) {
        clean();
        _exit(128 + number);
    }
    /* a SIGINT must not mask an earlier signal that asked the program to end */
    if (number != SIGINT || !signal_seen) signal_seen = number;
}

/* Whether to install the handler. A shell without job control starts background programs with SIGINT and SIGQUIT
 * ignored, and some parents ignore SIGPIPE: these are handled regardless. An ignored SIGHUP (nohup) is respected, and
 * so is any other signal that is ignored or already handled (a profiler). */
static bool is_taken(int number) {
    struct sigaction old;
    if (number == SIGINT || number == SIGQUIT || number == SIGPIPE || number == SIGTERM) return true;
    return !sigaction(number, NULL, &old) && old.sa_handler == SIG_DFL;
}

void interrupts_install(void) {
    /* no SA_RESTART, so that a blocking read is interrupted */
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    interrupts_add(&action.sa_mask);
    for (size_t i = 0; i < N_NUMBER; i++)
        if (is_taken(numbers[i])) sigaction(numbers[i], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    atexit(clean);
}

void interrupts_add(sigset_t *set) {
    for (size_t i = 0; i < N_NUMBER; i++) sigaddset(set, numbers[i]);
}

void interrupts_graceful(bool keep) {
    mode = keep ? FLAG_ALWAYS : FLAG_FIRST;
}

bool interrupted(void) {
    return signal_seen != 0;
}

void interrupted_clear(void) {
    if (signal_seen == SIGINT) signal_seen = 0;
}

int interrupted_code(void) {
    return 128 + (signal_seen ? signal_seen : SIGINT);
}

void interrupts_clean_up(void (*function)(void)) {
    clean_up = function;
}
