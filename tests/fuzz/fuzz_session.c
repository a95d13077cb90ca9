/* SPDX-License-Identifier: Apache-2.0 */
/* Session files. The input is a file without its checksum, which is put right here: a forged file has a right one.
 * Its size in the header too, if the first byte of the magic is not 'Q'. */
#include "../../src/base/sha256.h"

#include <quern/session.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE_AT = 40, HEADER = 64 };

/* A model of tests/data, opened once: the fuzzer runs in the project's root. */
static qn_session *open_session(void) {
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    const qn_device_options one = {.n_thread = 1};
    const qn_session_options options = {.n_ctx = 8, .n_batch = 4};
    qn_error err;
    if (qn_device_open(&device, "cpu", &one, &err) != QN_OK ||
        qn_model_open(&model, device, "tests/data/models/tied-f32", NULL, &err) != QN_OK ||
        qn_session_create(&session, model, &options, &err) != QN_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    qn_model_close(model);
    qn_device_close(device);
    return session;
}

static void write_all(int fd, const void *data, size_t size) {
    if (write(fd, data, size) != (ssize_t)size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static qn_session *session;
    if (session == NULL) session = open_session();
    if (size < HEADER || size > 1 << 16) return 0;
    unsigned char *copy = malloc(size);
    if (copy == NULL) return 0;
    memcpy(copy, data, size);
    if (copy[0] != 'Q') {
        uint64_t whole = size + 32;
        copy[0] = 'Q';
        memcpy(copy + SIZE_AT, &whole, sizeof whole);
    }
    uint8_t digest[32];
    qni_sha256 hash;
    qni_sha256_init(&hash);
    qni_sha256_update(&hash, copy, size);
    qni_sha256_final(&hash, digest);
    int fd = memfd_create("session", MFD_CLOEXEC);
    if (fd < 0) abort();
    write_all(fd, copy, size);
    write_all(fd, digest, sizeof digest);
    free(copy);

    char path[64];
    qn_error err;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    qn_status status = qn_session_restore(session, path, &err);
    if (status == QN_OK) {
        /* What was taken over can be computed with; poisoned KV may show in the logits. */
        if (qn_session_n_tok(session) > qn_session_n_ctx(session)) abort();
        if (qn_session_n_tok(session) < qn_session_n_ctx(session)) {
            status = qn_session_step(session, 1, &err);
            if (status != QN_OK && status != QN_ENUMERIC) abort();
        }
    } else if (status != QN_EFORMAT && status != QN_EINVAL && status != QN_EFULL) {
        abort();
    }
    close(fd);
    return 0;
}
