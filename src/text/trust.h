/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of a text may become added tokens: those of the template, not those of a user. */
#ifndef QNI_TRUST_H
#define QNI_TRUST_H

#include "../base/error.h"
#include "added.h"
#include "normalize.h"

/* Bytes first … end-1 of a text. */
typedef struct qni_range {
    size_t first, end;
} qni_range;

/* Trusted ranges in order, none empty, none touching the next; zeros: nothing is trusted. */
typedef struct qni_trust {
    qni_range *range;
    size_t n, capacity;
} qni_trust;

void qni_trust_trim(qni_trust *trust, size_t keep_bytes); /* frees it if it is larger; 0: always */

/* The trusted ranges of a text of `size` bytes. Errors: EINVAL: the runs do not add up to size; ENOMEM. */
qn_status qni_trust_from_runs(qni_trust *trust, const qn_text_run *runs, size_t n_run, size_t size, qn_error *err);

/* The ranges that `in` leaves of a part of its text, in the part's normal form: what a change of the normalizer made of
 * trusted and other characters together is not trusted. false: no memory. */
bool qni_trust_map(qni_trust *out, const qni_trust *in, qni_range part, const qni_nfc_edits *edits);

/* As qni_added_find, for matches that lie in one trusted range. */
size_t qni_trust_find(const qni_trust *trust, const qni_added *added, const char *text, size_t size, size_t from,
                      size_t *length, int32_t *id);

#endif
