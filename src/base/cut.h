/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of work items and buffers. No result depends on them. Debug builds use small sizes, so that small tests
 * cover several tasks, chunks and portions, and counter wrap-around. */
#ifndef QNI_CUT_H
#define QNI_CUT_H

#if defined(QNI_DEBUG)
enum { QNI_CUTS_SMALL = 1 };
#else
enum { QNI_CUTS_SMALL = 0 };
#endif
#define QNI_CUT(size, small) (QNI_CUTS_SMALL ? (small) : (size))

#endif
