/* SPDX-License-Identifier: Apache-2.0 */
/** @file status.h
 * Status codes, and the error message that goes with them.
 *
 * Threads: all functions here may be called from any thread. A qn_error is owned by the caller.
 */
#ifndef QUERN_STATUS_H
#define QUERN_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QN_API       __attribute__((visibility("default")))
#define QN_NODISCARD __attribute__((warn_unused_result))
#else
#define QN_API
#define QN_NODISCARD
#endif

/** All status codes: QN_ name, value, meaning. Bindings generate their names from this list. */
#define QN_STATUS_MAP(X)                                                                                               \
    X(OK, 0, "done")                                                                                                   \
    X(EINVAL, -1, "invalid argument")                                                                                  \
    X(ENOMEM, -2, "out of memory")                                                                                     \
    X(EIO, -3, "input/output error")                                                                                   \
    X(EFORMAT, -4, "malformed data")                                                                                   \
    X(EUNSUPPORTED, -5, "not supported")                                                                               \
    X(EDEVICE, -6, "device error")                                                                                     \
    X(ELOST, -7, "device lost")                                                                                        \
    X(EFULL, -8, "capacity exhausted")                                                                                 \
    X(EBUSY, -9, "busy")                                                                                               \
    X(ECANCELED, -10, "canceled")                                                                                      \
    X(ENUMERIC, -11, "not a finite number")

typedef enum qn_status {
#define QN_STATUS_ENUM(name, value, text) QN_##name = (value),
    QN_STATUS_MAP(QN_STATUS_ENUM)
#undef QN_STATUS_ENUM
} qn_status;

/**
 * Details of a failure. A successful call leaves both fields unchanged.
 *
 * message  one line of UTF-8 that names the cause: "k_proj: input width must be 1024, got 1000". An overlong message
 *          (a long path, say) is shortened in the middle, never at its end.
 */
typedef struct qn_error {
    qn_status status;
    char message[256];
} qn_error;

/** Progress callback of a long call, on the calling thread; return false to cancel (QN_ECANCELED). */
typedef struct qn_progress {
    bool (*report)(void *user, uint64_t done, uint64_t total);
    void *user;
} qn_progress;

/** Warning callback, on the calling thread. Each warning is one line ("config.json: key foo is not known and was
 * ignored"); `text` is valid during the call. Anything in the files that could change results but is not used is
 * reported here or is an error. */
typedef struct qn_log {
    void (*line)(void *user, const char *text);
    void *user;
} qn_log;

#ifdef __cplusplus
extern "C" {
#endif

/** "OK", "EINVAL", …; "?" for an unknown value. Static storage. */
QN_API const char *qn_status_name(qn_status status);

/** The meaning in words, such as "out of memory"; "unknown status" for an unknown value. Static storage. */
QN_API const char *qn_status_text(qn_status status);

#ifdef __cplusplus
}
#endif
#endif
