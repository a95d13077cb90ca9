/* SPDX-License-Identifier: Apache-2.0 */
/* Terminal input for libedit, with signal handling during line editing. Signals that end the program end the read.
 * SIGTSTP and SIGCONT leave and re-enter raw mode. SIGWINCH redraws the line. */
#ifndef CLI_CHAT_KEYS_H
#define CLI_CHAT_KEYS_H

#include <histedit.h>

/* Call these around el_gets(). Between the two, signals are delivered only while waiting for a key. */
void chat_keys_begin(void);
void chat_keys_end(void);

/* For EL_GETCFN: reads one character of standard input. Returns 0 at end of input, -1 after a signal that ends the
 * read. */
int chat_keys_read(EditLine *editor, wchar_t *out);

#endif
