/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with fault/malloc.c into a build of the command: arms it as QUERN_FAULT says, "12" for the 12th allocation alone
 * and "12+" for it and all that follow, before main() begins. When main() has ended, the descriptor QUERN_FAULT_REPORT
 * gets a byte, 'y' if an allocation was refused and else 'n'. */
#include "malloc.h"

#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void arm(void) {
    const char *text = getenv("QUERN_FAULT");
    char *end = NULL;
    long n = text != NULL ? strtol(text, &end, 10) : 0;
    if (n > 0) fault_arm(n, *end == '+' ? FAULT_FROM : FAULT_ONE);
}

__attribute__((destructor)) static void report(void) {
    const char *text = getenv("QUERN_FAULT_REPORT");
    bool refused = fault_disarm();
    if (text != NULL && write((int)strtol(text, NULL, 10), refused ? "y" : "n", 1) != 1) _exit(99);
}
