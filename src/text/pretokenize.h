/* SPDX-License-Identifier: Apache-2.0 */
/* Cut text into pre-tokens that are tokenized separately, by one or more regular expressions applied in turn, using
 * PCRE2. */
#ifndef QNI_PRETOKENIZE_H
#define QNI_PRETOKENIZE_H

#include "../base/error.h"
#include "buffer.h"

/* Immutable once its patterns are added; any number of threads may use it, each with its own scratch. */
typedef struct qni_splitting qni_splitting;
typedef struct qni_split_scratch qni_split_scratch;

/* Maximum number of expressions of one tokenizer. */
enum { QNI_SPLIT_STAGES = 8 };

typedef enum qni_split_engine {
    QNI_SPLIT_FASTEST,     /* JIT where PCRE2 and the machine support it */
    QNI_SPLIT_INTERPRETED, /* for tests: the fallback without JIT */
} qni_split_engine;

qn_status qni_splitting_create(qni_splitting **out, qni_split_engine engine, qn_error *err);
void qni_splitting_free(qni_splitting *splitting); /* NULL is allowed */

/* Add a stage: matches and the text between them become pre-tokens ("Isolated"). Errors: EUNSUPPORTED, EFORMAT,
 * ENOMEM. */
qn_status qni_splitting_add(qni_splitting *splitting, const char *pattern, size_t size, qn_error *err);

qni_split_scratch *qni_split_scratch_create(const qni_splitting *splitting); /* NULL: out of memory */
void qni_split_scratch_free(qni_split_scratch *scratch);                     /* NULL is allowed */

typedef qn_status (*qni_pretoken_fn)(void *user, const char *pretoken, size_t size, qn_error *err);

/* Start a text of `size` bytes: sets the step budget shared by all searches in it. */
void qni_split_begin(qni_split_scratch *scratch, size_t size);

/* Call `on_pretoken` for each pre-token of valid UTF-8, in order, never with an empty one; stops if it fails. Errors:
 * its own; EFULL: the step budget of the text is exhausted; ENOMEM. */
qn_status qni_splitting_run(const qni_splitting *splitting, qni_split_scratch *scratch, const char *text, size_t size,
                            qni_pretoken_fn on_pretoken, void *user, qn_error *err);

#endif
