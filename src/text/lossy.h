/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to UTF-8 as they come: whole characters at once, U+FFFD for each maximal subpart that is no character. */
#ifndef QNI_LOSSY_H
#define QNI_LOSSY_H

#include "buffer.h"

/* The start of a character whose rest has not come yet; zeros: none. */
typedef struct qni_lossy {
    char bytes[4];
    size_t n;
} qni_lossy;

/* Each returns false when there is no memory; text and state are as before then. */
bool qni_lossy_push(qni_lossy *state, qn_text *text, const char *data, size_t size);
bool qni_lossy_finish(qni_lossy *state, qn_text *text);

#endif
