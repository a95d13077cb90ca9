/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting text into the pieces that are tokenized on their own: one or several regular expressions, one after the
 * other, over PCRE2. */
#ifndef QNI_PRETOKENIZE_H
#define QNI_PRETOKENIZE_H

#include "../base/error.h"
#include "buffer.h"

/* Immutable once its patterns are added; any number of threads may use it, each with its own scratch. */
typedef struct qni_splitting qni_splitting;
typedef struct qni_split_scratch qni_split_scratch;

/* Expressions that one tokenizer may apply in turn. */
enum { QNI_SPLIT_STAGES = 8 };

typedef enum qni_split_engine {
    QNI_SPLIT_FASTEST,     /* machine code where PCRE2 and the machine allow it */
    QNI_SPLIT_INTERPRETED, /* for tests: what is used where they do not */
} qni_split_engine;

qn_status qni_splitting_create(qni_splitting **out, qni_split_engine engine, qn_error *err);
void qni_splitting_free(qni_splitting *splitting); /* NULL is fine */

/* Adds a stage: matches and what lies between them are pieces ("Isolated"). Errors: EUNSUPPORTED, EFORMAT, ENOMEM. */
qn_status qni_splitting_add(qni_splitting *splitting, const char *pattern, size_t size, qn_error *err);

qni_split_scratch *qni_split_scratch_create(const qni_splitting *splitting); /* NULL: no memory */
void qni_split_scratch_free(qni_split_scratch *scratch);                     /* NULL is fine */

typedef qn_status (*qni_piece_take)(void *user, const char *piece, size_t size, qn_error *err);

/* Begins a text of `size` bytes: sets the steps that all searches in it may take together. */
void qni_split_begin(qni_split_scratch *scratch, size_t size);

/* Calls take for each piece of valid UTF-8, in order, never with an empty one; a failure of take ends it.
 * Errors: take's; EFULL: the expressions need more steps than the text may take; ENOMEM. */
qn_status qni_splitting_run(const qni_splitting *splitting, qni_split_scratch *scratch, const char *text, size_t size,
                            qni_piece_take take, void *user, qn_error *err);

#endif
