/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes at which work is cut, or buffers end. No result depends on them. Debug builds use small ones, so that small tests
 * meet several tasks, pieces and portions, and counters that wrap. */
#ifndef QNI_CUT_H
#define QNI_CUT_H

#if defined(QNI_DEBUG)
enum { QNI_CUTS_SMALL = 1 };
#else
enum { QNI_CUTS_SMALL = 0 };
#endif
#define QNI_CUT(size, small) (QNI_CUTS_SMALL ? (small) : (size))

#endif
