/* SPDX-License-Identifier: Apache-2.0 */
/* Backends in libraries of their own (src/backend/plugin.c): which is opened, and why none is. tests/plugin/ has the
 * libraries, which lie beside this program. */
#include "support/cmocka_all.h"

#include "../src/backend/plugin.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The path of a library of tests/plugin. */
static const char *library(const char *name) {
    static char path[PATH_MAX + 64];
    const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    assert_true(n > 0);
    path[n] = '\0';
    snprintf(strrchr(path, '/'), 64, "/plugin/%s.so", name);
    return path;
}

static void refused(const char *device, const char *path, const char *message) {
    const qni_backend *backend = NULL;
    int32_t index = -1;
    qn_error err = {0};
    assert_int_equal(qni_backend_find(&backend, &index, device, path, &err), QN_EUNSUPPORTED);
    if (strstr(err.message, message) == NULL) fail_msg("%s: %s", device, err.message);
    assert_null(strchr(err.message, '\n'));
}

static void finds_devices(void **state) {
    (void)state;
    static const char *const names[] = {"cuda", "cuda:0", "cuda:1"};
    for (int i = 0; i < 3; i++) {
        const qni_backend *backend = NULL;
        int32_t index = -1;
        assert_int_equal(qni_backend_find(&backend, &index, names[i], library("two_devices"), NULL), QN_OK);
        assert_string_equal(backend->name, "cuda");
        assert_int_equal(index, i == 2);
    }
}

static void refuses_names(void **state) {
    (void)state;
    const char *two = library("two_devices");
    refused("cuda:9", two, "cuda:9: there is no such GPU; there are 2");
    refused("cuda:2", two, "cuda:2: there is no such GPU; there are 2");
    refused("cuda:x", two, "device: \"cuda:x\" must be cuda or cuda:N");
    refused("cuda:", two, "device: \"cuda:\" must be cuda or cuda:N");
    refused("cuda:-1", two, "device: \"cuda:-1\" must be cuda or cuda:N");
    refused("cuda:1x", two, "device: \"cuda:1x\" must be cuda or cuda:N");
    refused("cuda:99999999999", two, "device: \"cuda:99999999999\" must be cuda or cuda:N");
    refused("cudax", two, "device: no backend is named \"cudax\"; this build has cpu, ref, cuda");
}

static void refuses_libraries(void **state) {
    (void)state;
    refused("cuda", "/nowhere/libquern-cuda.so", "/nowhere/libquern-cuda.so");
    refused("cuda", library("no_symbol"), "no_symbol.so is of another version of Quern");
    refused("cuda", library("other_abi"), "other_abi.so is of another version of Quern");
    refused("cuda", library("no_device"), "cuda: no device, says library 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_devices), cmocka_unit_test(refuses_names),
                                       cmocka_unit_test(refuses_libraries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
