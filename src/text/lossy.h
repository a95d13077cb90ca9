/* SPDX-License-Identifier: Apache-2.0 */
/* Incremental conversion of bytes to valid UTF-8: only complete characters are emitted, and U+FFFD replaces each
 * maximal subpart of an ill-formed sequence. */
#ifndef QNI_LOSSY_H
#define QNI_LOSSY_H

#include "buffer.h"

/* The start of an incomplete character; zeros: none. */
typedef struct qni_lossy {
    char bytes[4];
    size_t n;
} qni_lossy;

/* Each returns false when out of memory and then leaves text and state unchanged. */
bool qni_lossy_push(qni_lossy *state, qn_text *text, const char *data, size_t size);
bool qni_lossy_finish(qni_lossy *state, qn_text *text);

#endif
