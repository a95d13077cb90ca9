/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backends in shared libraries of their own, opened when a device of that kind is asked for. Such a library exports one
 * function, QNI_PLUGIN_SYMBOL, and resolves nothing from its host: what it needs is in qni_host.
 */
#ifndef QNI_PLUGIN_H
#define QNI_PLUGIN_H

#include "backend.h"

/* Counts the changes of qni_backend and of everything that it refers to. */
enum { QNI_PLUGIN_ABI = 2 };

#define QNI_PLUGIN_SYMBOL "qni_plugin_backend"
/* NULL: the library is for another ABI. n_device: the number of its devices; if 0, `reason` says why. Thread-safe. */
typedef const qni_backend *qni_plugin_backend_fn(int32_t abi, const qni_host *host, int32_t *n_device,
                                                 qn_error *reason);

/* The backend of a device's name, linked or in a library, and the device's index. `path`: of the library; NULL: beside
 * this one. Errors: EUNSUPPORTED, with the reason. */
qn_status qni_backend_find(const qni_backend **out, int32_t *index, const char *name, const char *path, qn_error *err);

extern const qni_host qni_this_host;

#endif
