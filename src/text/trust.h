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

/* Trusted ranges in order, non-empty and non-adjacent; zeros: nothing is trusted. */
typedef struct qni_trust {
    qni_range *range;
    size_t n, capacity;
} qni_trust;

void qni_trust_trim(qni_trust *trust, size_t keep_bytes); /* free the array if it is larger; 0: always */

/* Compute the trusted ranges of a text of `size` bytes. Errors: EINVAL: the runs do not add up to size; ENOMEM. */
qn_status qni_trust_from_runs(qni_trust *trust, const qn_text_run *runs, size_t n_run, size_t size, qn_error *err);

/* Map the ranges of `in` within a part of its text to the part's normal form. An edit that combines trusted and
 * untrusted characters is untrusted. Returns false when out of memory. */
bool qni_trust_map(qni_trust *out, const qni_trust *in, qni_range part, const qni_nfc_edits *edits);

/* Like qni_added_find, but only for matches that lie within one trusted range. */
size_t qni_trust_find(const qni_trust *trust, const qni_added *added, const char *text, size_t size, size_t from,
                      size_t *length, int32_t *id);

#endif
