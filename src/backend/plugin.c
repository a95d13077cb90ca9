/* SPDX-License-Identifier: Apache-2.0 */
/* Finds backends by a device's name: those linked into this build, and "cuda" in libquern-cuda.so. A library, once
 * opened, stays: the driver behind it cannot be unloaded. */
#include "plugin.h"

#include "../base/memory.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char cuda[] = "cuda", library[] = "libquern-cuda.so";

const qni_host qni_this_host = {.fail = qni_fail,
                                .calloc = qni_calloc,
                                .free = qni_free,
                                .pool_create = qni_pool_create,
                                .pool_run = qni_pool_run,
                                .pool_free = qni_pool_free};

/* The folder of the library or the program that contains this code. */
static bool own_folder(char *out, size_t size) {
    Dl_info info;
    char path[PATH_MAX];
    ssize_t n = -1;
    if (dladdr(&qni_this_host, &info) == 0 || info.dli_fname == NULL) return false;
    if (strchr(info.dli_fname, '/') != NULL && realpath(info.dli_fname, path) != NULL) {
        n = (ssize_t)strlen(path);
    } else { /* a program that was started by its bare name */
        n = readlink("/proc/self/exe", path, sizeof path - 1);
    }
    while (n > 0 && path[n - 1] != '/') n--;
    if (n <= 0 || (size_t)n >= size) return false;
    memcpy(out, path, (size_t)n);
    out[n] = '\0';
    return true;
}

/* Beside this library or program, or in ../lib from there, as both are installed. */
static void *open_library(const char *path, qn_error *err) {
    static const char *const places[] = {"", "../lib/"};
    char folder[PATH_MAX], name[PATH_MAX + sizeof library + 8];
    if (path != NULL) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (handle == NULL) (void)qni_fail(err, QN_EUNSUPPORTED, "%s", dlerror());
        return handle;
    }
    if (!own_folder(folder, sizeof folder)) folder[0] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(name, sizeof name, "%s%s%s", folder, places[i], library);
        if (access(name, F_OK) != 0) continue;
        void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (handle == NULL) (void)qni_fail(err, QN_EUNSUPPORTED, "%s: %s", cuda, dlerror());
        return handle;
    }
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); /* where the system looks */
    if (handle == NULL) {
        static const char absent[] = "libquern-cuda.so: cannot open"; /* else something that it needs is */
        const char *reason = dlerror();
        if (strncmp(reason, absent, sizeof absent - 1) != 0) {
            (void)qni_fail(err, QN_EUNSUPPORTED, "%s: %s", cuda, reason);
        } else {
            (void)qni_fail(err, QN_EUNSUPPORTED, "%s: there is no %s in %s: this is a build without CUDA", cuda,
                           library, folder);
        }
    }
    return handle;
}

static const qni_backend *find_cuda(const char *path, int32_t *n_device, qn_error *err) {
    void *handle = open_library(path, err);
    if (handle == NULL) return NULL;
    qni_plugin_backend_fn *entry;
    void *symbol = dlsym(handle, QNI_PLUGIN_SYMBOL);
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from an object's pointer to a function's */
    qn_error reason = {0};
    const qni_backend *backend = symbol != NULL ? entry(QNI_PLUGIN_ABI, &qni_this_host, n_device, &reason) : NULL;
    if (backend == NULL) {
        (void)qni_fail(err, QN_EUNSUPPORTED, "%s: %s is of another version of Quern", cuda,
                       path != NULL ? path : library);
    } else if (*n_device == 0) {
        (void)qni_fail(err, QN_EUNSUPPORTED, "%s", reason.message);
        return NULL;
    }
    return backend;
}

static qn_status fail_unknown(const char *name, qn_error *err) {
    char names[128] = "";
    size_t n = 0;
    const qni_backend *backend;
    for (int32_t i = 0; (backend = qni_backend_at(i)) != NULL && n < sizeof names; i++) {
        n += (size_t)snprintf(names + n, sizeof names - n, "%s, ", backend->name);
    }
    return qni_fail(err, QN_EUNSUPPORTED, "device: no backend is named \"%s\"; this build has %s%s", name, names, cuda);
}

/* The number after "cuda:"; -1 if it is not a number. */
static int32_t index_of(const char *text) {
    int32_t index = 0;
    if (text[0] == '\0') return -1;
    for (; *text >= '0' && *text <= '9' && index < 1000; text++) index = 10 * index + (*text - '0');
    return *text == '\0' ? index : -1;
}

qn_status qni_backend_find(const qni_backend **out, int32_t *index, const char *name, const char *path, qn_error *err) {
    const size_t n_cuda = sizeof cuda - 1;
    *index = 0;
    for (int32_t i = 0; (*out = qni_backend_at(i)) != NULL; i++) {
        if (strcmp((*out)->name, name) == 0) return QN_OK;
    }
    if (strncmp(name, cuda, n_cuda) != 0 || (name[n_cuda] != '\0' && name[n_cuda] != ':')) {
        return fail_unknown(name, err);
    }
    int32_t n_device = 0;
    if (name[n_cuda] == ':') *index = index_of(name + n_cuda + 1);
    if (*index < 0) return qni_fail(err, QN_EUNSUPPORTED, "device: \"%s\" must be cuda or cuda:N", name);
    *out = find_cuda(path, &n_device, err);
    if (*out == NULL) return QN_EUNSUPPORTED;
    if (*index < n_device) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: there is no such GPU; there %s %d", name, n_device == 1 ? "is" : "are",
                    (int)n_device);
}

const char *qn_backend_name(int32_t index) {
    static const char *const gpus[] = {"cuda",    "cuda:1",  "cuda:2",  "cuda:3", "cuda:4",  "cuda:5",
                                       "cuda:6",  "cuda:7",  "cuda:8",  "cuda:9", "cuda:10", "cuda:11",
                                       "cuda:12", "cuda:13", "cuda:14", "cuda:15"};
    int32_t n = 0, n_device = 0;
    for (; qni_backend_at(n) != NULL; n++) {
        if (n == index) return qni_backend_at(n)->name;
    }
    if (index < n || index - n >= (int32_t)(sizeof gpus / sizeof gpus[0])) return NULL;
    return find_cuda(NULL, &n_device, NULL) != NULL && index - n < n_device ? gpus[index - n] : NULL;
}
