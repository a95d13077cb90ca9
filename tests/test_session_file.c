/* SPDX-License-Identifier: Apache-2.0 */
/* Session files: a restored session equals the saved one, and any invalid or foreign file is rejected. */
#include "support/files.h"
#include "support/sessions.h"

#include "../src/base/sha256.h"
#include "../src/session/session.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIED GOLDEN_MODELS "/tied-f32"

enum { HEADER = 64, FINGERPRINT = 32, DIGEST = 32 };

/* Logits after some more ids, which depend on all of the session's KV. */
static void continue_with(qn_session *s, const int32_t *ids, size_t n, float *logits) {
    assert_ok(qn_session_append(s, ids, n, NULL, NULL, err));
    memcpy(logits, qn_session_logits(s), 512 * sizeof *logits);
}

static void test_round_trip(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DTYPE_F32, QN_DTYPE_F16, QN_DTYPE_BF16, QN_DTYPE_Q8};
    char *dir = files_make_dir(), *path = files_path(dir, "a.session");
    test_rng rng = {11};
    qn_model *model = open_model(qn_backend_name(0), 2, TIED);
    for (int round = 0; round < 16; round++) {
        const qn_session_options options = {.n_ctx = 100, .kv_dtype = dtypes[round / 4]};
        qn_session_options larger = options;
        larger.n_ctx = 140; /* another layout of the same KV */
        size_t n = round == 0 ? 0 : round == 1 ? 90 : 1 + (size_t)rng_below(&rng, 80);
        int32_t *ids = random_ids(&rng, 100);
        qn_session *a = open_session_with(model, &options), *b = open_session_with(model, &larger);
        if (n > 0) assert_ok(qn_session_append(a, ids, n, NULL, NULL, err));
        bool rewound = round % 4 == 3;
        if (rewound) assert_ok(qn_session_rewind(a, --n, err));
        assert_ok(qn_session_append(b, ids + 50, 30, NULL, NULL, err)); /* to be replaced */
        assert_ok(qn_session_save(a, path, err));
        assert_ok(qn_session_restore(b, path, err));
        assert_int_equal(qn_session_n_tok(b), n);
        CASE(name, "round %d, %zu tokens", round, n);
        expect_same_bits(name, QN_DTYPE_S32, qn_session_ids(b), ids, n);
        assert_true((qn_session_logits(b) != NULL) == (n > 0 && !rewound));
        if (qn_session_logits(b) != NULL) {
            expect_same_bits(name, QN_DTYPE_F32, qn_session_logits(b), qn_session_logits(a), 512);
        }
        float x[512], y[512];
        continue_with(a, ids + 90, 10, x);
        continue_with(b, ids + 90, 10, y);
        expect_same_bits(case_text("%s, continued", name), QN_DTYPE_F32, y, x, 512);
        qn_session_free(a);
        qn_session_free(b);
        free(ids);
    }
    qn_model_close(model);
    free(path);
    files_remove_dir(dir);
}

typedef struct bench {
    qn_model *model;
    qn_session *session; /* with 5 ids and logits */
    char *dir, *path;
    char *good; /* a valid file of 9 other ids */
    size_t size;
} bench;

static int32_t some_ids[] = {5, 4, 3, 2, 1, 9, 8, 7, 6};

static bench set_up(void) {
    bench x = {.model = open_model("ref", 1, TIED), .dir = files_make_dir()};
    x.path = files_path(x.dir, "x.session");
    x.session = open_session(x.model, 12, 4);
    assert_ok(qn_session_append(x.session, some_ids, 9, NULL, NULL, err));
    assert_ok(qn_session_save(x.session, x.path, err));
    x.good = files_read(x.path, &x.size);
    assert_ok(qn_session_rewind(x.session, 0, err));
    assert_ok(qn_session_append(x.session, some_ids + 4, 5, NULL, NULL, err));
    return x;
}

static void tear_down(bench *x) {
    qn_session_free(x->session);
    qn_model_close(x->model);
    free(x->path);
    free(x->good);
    files_remove_dir(x->dir);
}

/* Restoring `bytes` fails with a status, and the session is unchanged; the expected text may be NULL. */
static void expect_refused(bench *x, const char *bytes, size_t size, qn_status status, const char *text) {
    const qn_session *s = x->session;
    float logits[512], k[2 * 5 * 32], k_after[2 * 5 * 32];
    memcpy(logits, qn_session_logits(s), sizeof logits);
    assert_ok(qn_session_read_kv(s, 1, 0, 5, k, NULL, err));
    files_write(x->dir, "x.session", bytes, size);
    qn_error error = {0};
    qn_status got = qn_session_restore(x->session, x->path, &error);
    assert_int_equal(got, status);
    assert_int_equal(error.status, status);
    if (text != NULL && strstr(error.message, text) == NULL) fail_msg("\"%s\" lacks \"%s\"", error.message, text);
    assert_non_null(strstr(error.message, "x.session"));
    assert_int_equal(qn_session_n_tok(s), 5);
    expect_same_bits("ids", QN_DTYPE_S32, qn_session_ids(s), some_ids + 4, 5);
    expect_same_bits("logits", QN_DTYPE_F32, qn_session_logits(s), logits, sizeof logits / sizeof *logits);
    assert_ok(qn_session_read_kv(s, 1, 0, 5, k_after, NULL, err));
    expect_same_bits("KV", QN_DTYPE_F32, k_after, k, sizeof k / sizeof *k);
}

/* Change bytes and fix the checksum. */
static char *forged(const bench *x, size_t at, const void *bytes, size_t n) {
    char *copy = malloc(x->size);
    assert_non_null(copy);
    memcpy(copy, x->good, x->size);
    memcpy(copy + at, bytes, n);
    qni_sha256 hash;
    qni_sha256_init(&hash);
    qni_sha256_update(&hash, copy, x->size - DIGEST);
    qni_sha256_final(&hash, (uint8_t *)copy + x->size - DIGEST);
    return copy;
}

static void test_damaged(void **state) {
    (void)state;
    bench x = set_up();
    /* Truncated anywhere; one byte too many; any byte of the head, and many others, changed. */
    for (size_t cut = 0; cut < x.size; cut += cut < 200 ? 1 : 97) {
        expect_refused(&x, x.good, cut, QN_EFORMAT, cut < HEADER ? "too short" : NULL);
    }
    char *longer = calloc(x.size + 1, 1);
    memcpy(longer, x.good, x.size);
    expect_refused(&x, longer, x.size + 1, QN_EFORMAT, "damaged");
    free(longer);
    for (size_t at = 0; at < x.size; at += at < 200 ? 1 : 53) {
        x.good[at] ^= 0x10;
        expect_refused(&x, x.good, x.size, QN_EFORMAT, NULL);
        x.good[at] ^= 0x10;
    }
    files_write(x.dir, "x.session", x.good, x.size);
    assert_ok(qn_session_restore(x.session, x.path, err));
    assert_int_equal(qn_session_n_tok(x.session), 9);
    tear_down(&x);
}

static void expect_forgery_refused(bench *x, size_t at, const void *bytes, size_t n, qn_status status,
                                   const char *text) {
    char *copy = forged(x, at, bytes, n);
    expect_refused(x, copy, x->size, status, text);
    free(copy);
}

/* A valid checksum proves nothing about intent: inconsistent fields are rejected even if it is correct. */
static void test_forged(void **state) {
    (void)state;
    bench x = set_up();
    const int32_t numbers[] = {INT32_MIN, -1, 0, 1, 8, 10, 1 << 20, INT32_MAX};
    for (size_t at = 8; at < HEADER; at += 4) {
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            if (memcmp(x.good + at, &numbers[i], 4) == 0) continue;
            char *copy = forged(&x, at, &numbers[i], 4);
            bool kv_dtype = at == 16, yarn = at == 12 && (numbers[i] & 1) != 0;
            expect_refused(&x, copy, x.size, kv_dtype || yarn ? QN_EINVAL : QN_EFORMAT, NULL);
            free(copy);
        }
    }
    const uint32_t version = 2;
    expect_forgery_refused(&x, 0, "GGUF", 4, QN_EFORMAT, "not a session file");
    expect_forgery_refused(&x, 8, &version, 4, QN_EFORMAT, "version 2, not 1");
    expect_forgery_refused(&x, HEADER, "another model's", 15, QN_EINVAL, "another model");
    const int32_t low = -1, high = 512;
    expect_forgery_refused(&x, HEADER + FINGERPRINT + 8 * 4, &high, 4, QN_EFORMAT, "an id is out of range");
    expect_forgery_refused(&x, HEADER + FINGERPRINT, &low, 4, QN_EFORMAT, "an id is out of range");
    const float not_a_number = NAN, infinite = -INFINITY;
    expect_forgery_refused(&x, x.size - DIGEST - 4, &not_a_number, 4, QN_EFORMAT, "a logit is not finite");
    expect_forgery_refused(&x, x.size - DIGEST - 512 * 4, &infinite, 4, QN_EFORMAT, "a logit is not finite");

    /* Poisoned KV cannot be told from valid KV; it shows up in use. */
    size_t kv = HEADER + FINGERPRINT + 9 * 4;
    char *copy = forged(&x, kv, &not_a_number, 4);
    files_write(x.dir, "x.session", copy, x.size);
    free(copy);
    assert_ok(qn_session_restore(x.session, x.path, err));
    assert_int_equal(qn_session_step(x.session, 1, NULL), QN_ENUMERIC);
    tear_down(&x);
}

/* Another model, KV type or rope, or a shorter context. */
static void test_mismatched_session(void **state) {
    (void)state;
    char *dir = files_make_dir(), *path = files_path(dir, "x.session");
    qn_model *model = open_model("ref", 1, TIED), *other = open_model("ref", 1, GOLDEN_MODELS "/yarn-bf16");
    const qn_session_options full = {.n_ctx = 300}, small = {.n_ctx = 8},
                             f32 = {.n_ctx = 300, .kv_dtype = QN_DTYPE_F32}, plain = {.n_ctx = 200};
    qn_session *a = open_session_with(model, &full);
    assert_ok(qn_session_append(a, some_ids, 9, NULL, NULL, err));
    assert_ok(qn_session_save(a, path, err));
    qn_session *targets[] = {open_session_with(other, &full), open_session_with(model, &f32),
                             open_session_with(model, &small)};
    static const qn_status statuses[] = {QN_EINVAL, QN_EINVAL, QN_EFULL};
    static const char *const texts[] = {"x.session: belongs to another model",
                                        "x.session: its kv_dtype is f16, the session's is f32",
                                        "x.session: its 9 tokens do not fit into the context of 8"};
    for (int i = 0; i < 3; i++) {
        qn_error err = {0};
        assert_int_equal(qn_session_restore(targets[i], path, &err), statuses[i]);
        assert_non_null(strstr(err.message, texts[i]));
        qn_session_free(targets[i]);
    }
    qn_session_free(a);
    qn_session *scaled = open_session_with(other, &full), *unscaled = open_session_with(other, &plain);
    qn_error error = {0};
    assert_ok(qn_session_append(scaled, some_ids, 9, NULL, NULL, err));
    assert_ok(qn_session_save(scaled, path, err));
    assert_int_equal(qn_session_restore(unscaled, path, &error), QN_EINVAL);
    assert_non_null(strstr(error.message, "was made with YaRN, the session is without"));
    assert_ok(qn_session_append(unscaled, some_ids, 9, NULL, NULL, err));
    assert_ok(qn_session_save(unscaled, path, err));
    assert_int_equal(qn_session_restore(scaled, path, &error), QN_EINVAL);
    assert_non_null(strstr(error.message, "was made without YaRN, the session is with"));
    qn_session_free(scaled);
    qn_session_free(unscaled);
    qn_model_close(model);
    qn_model_close(other);
    free(path);
    files_remove_dir(dir);
}

/* Unreadable and unwritable files; an existing file is kept when writing a new one fails. */
static void test_paths(void **state) {
    (void)state;
    bench x = set_up();
    qn_error err = {0};
    char *missing = files_path(x.dir, "none"), *inside = files_path(x.dir, "none/x");
    assert_int_equal(qn_session_restore(x.session, missing, &err), QN_EIO);
    assert_non_null(strstr(err.message, "none: "));
    assert_int_equal(qn_session_restore(x.session, x.dir, &err), QN_EIO);
    assert_int_equal(qn_session_restore(x.session, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_session_restore(NULL, x.path, &err), QN_EINVAL);
    assert_int_equal(qn_session_save(x.session, inside, &err), QN_EIO);
    char *pipe = files_path(x.dir, "pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(qn_session_save(x.session, pipe, &err), QN_EIO);
    assert_non_null(strstr(err.message, "pipe: is not a regular file"));
    struct stat there;
    assert_int_equal(lstat(pipe, &there), 0);
    assert_true(S_ISFIFO(there.st_mode));
    assert_int_equal(unlink(pipe), 0);
    free(pipe);
    assert_int_equal(qn_session_save(x.session, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_session_save(NULL, x.path, &err), QN_EINVAL);

    /* A file that cannot grow to its size: the old one is kept, and nothing else remains. */
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 1000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    qn_status status = qn_session_save(x.session, x.path, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, QN_EIO);
    size_t size;
    char *kept = files_read(x.path, &size);
    assert_int_equal(size, x.size);
    assert_memory_equal(kept, x.good, size);
    free(kept);
    assert_int_equal(unlink(x.path), 0);
    assert_int_equal(rmdir(x.dir), 0);
    assert_int_equal(mkdir(x.dir, 0700), 0);
    assert_int_equal(qn_session_n_tok(x.session), 5);
    free(missing);
    free(inside);
    tear_down(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),         cmocka_unit_test(test_damaged), cmocka_unit_test(test_forged),
        cmocka_unit_test(test_mismatched_session), cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
