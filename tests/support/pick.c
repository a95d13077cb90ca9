/* SPDX-License-Identifier: Apache-2.0 */
/* Selection of the cases to run. */
#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

void pick_cases(void) {
    static char pattern[256]; /* cmocka keeps the pointer */
    const char *word = getenv("TEST");
    if (word == NULL || word[0] == '\0') return;
    (void)snprintf(pattern, sizeof pattern, "*%s*", word);
    cmocka_set_test_filter(pattern);
}
