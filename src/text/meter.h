/* SPDX-License-Identifier: Apache-2.0 */
/* Insert callouts into a regular expression so that its steps can be counted. */
#ifndef QNI_METER_H
#define QNI_METER_H

#include "buffer.h"

/* Append a pattern produced by qni_pattern_translate() with "(?C)" inserted. The work between two callouts, or between
 * a start and the first callout, is bounded by a constant plus the bytes walked. Returns false when out of memory. */
bool qni_pattern_meter(qn_text *out, const char *pattern, size_t size);

#endif
