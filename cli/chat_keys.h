/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a terminal for libedit, with what signals do to a line that is being typed: those that end the program end the
 * read, SIGTSTP and SIGCONT leave and re-enter raw mode, SIGWINCH draws the line anew. */
#ifndef CLI_CHAT_KEYS_H
#define CLI_CHAT_KEYS_H

#include <histedit.h>

/* Around el_gets(): between the two, signals arrive only while a key is awaited. */
void chat_keys_begin(void);
void chat_keys_end(void);

/* For EL_GETCFN: a character of standard input; 0 at its end, -1 after a signal that ends the read. */
int chat_keys_read(EditLine *editor, wchar_t *out);

#endif
