/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of quern run. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "generator.h"

enum { MAX_STOP = 64 }; /* the library's limit */

/* Answer the requests on standard input, one per line. Returns an exit code. */
int run_jsonl(generator *g);

#endif
