/* SPDX-License-Identifier: Apache-2.0 */
/** @file version.h The version of the library. Until 1.0 the soname changes with every minor release. */
#ifndef QUERN_VERSION_H
#define QUERN_VERSION_H

#include "status.h"

#define QN_VERSION_MAJOR  0
#define QN_VERSION_MINOR  1
#define QN_VERSION_PATCH  0
#define QN_VERSION_STRING "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/** The version of the library that is linked, "MAJOR.MINOR.PATCH"; static storage. Any thread. */
QN_API const char *qn_version(void);

#ifdef __cplusplus
}
#endif
#endif
