/* SPDX-License-Identifier: Apache-2.0 */
/* Callouts in a regular expression, so that its steps can be counted. */
#ifndef QNI_METER_H
#define QNI_METER_H

#include "buffer.h"

/* Appends a pattern that qni_pattern_translate() made, with "(?C)" at such places that the work between two of them,
 * or between a start and the first, is bounded by a constant and by the bytes that were walked. false: no memory. */
bool qni_pattern_meter(qn_text *out, const char *pattern, size_t size);

#endif
