/* SPDX-License-Identifier: Apache-2.0 */
/* A session file goes from any device to any other: nothing in it says where it was saved. */
#include "support/files.h"
#include "support/sessions.h"

#include <stdlib.h>
#include <string.h>

enum { N_CTX = 100, N_SAVED = 70, N_VOCAB = 512 };

static const struct {
    qn_dtype dtype;
    double step; /* between two numbers of the cache, as a fraction of the greater (q8: of the greatest in a row) */
} kinds[] = {{QN_DTYPE_F32, 0}, {QN_DTYPE_BF16, 0x1p-8}, {QN_DTYPE_F16, 0x1p-11}, {QN_DTYPE_Q8, 1.0 / 127}};

/*
 * How far logits may differ that two devices compute from the same cache. Each is within 3e-5 of transformers'
 * (test_session_goldens). The new token's own key and value may be rounded to the next number of the cache's dtype on one
 * of them; in the attention it is one of N_SAVED + 1 positions.
 */
static double bound_of(int kind) {
    return 2 * 3e-5 + kinds[kind].step / (N_SAVED + 1);
}

typedef struct bench {
    qn_model *from, *to;
    const char *name;
    char *saved, *again; /* paths */
} bench;

static char *expect_saved(const qn_session *s, const char *path, size_t *size) {
    assert_ok(qn_session_save(s, path, err));
    return files_read(path, size);
}

/* Save on one device, restore on the other; what that saves has the same bytes, and both go on alike. */
static void transfer(const bench *b, int kind, const int32_t *ids) {
    const qn_session_options options = {.n_ctx = N_CTX, .n_batch = 16, .kv_dtype = kinds[kind].dtype};
    qn_session_options other = options;
    other.n_ctx = N_CTX + 40; /* another layout of the same KV */
    CASE(name, "%s, KV %s", b->name, qn_dtype_name(kinds[kind].dtype));
    size_t size, size_again;
    qn_session *a = open_session_with(b->from, &options), *c = open_session_with(b->to, &other);
    assert_ok(qn_session_append(a, ids, N_SAVED, NULL, NULL, err));
    assert_ok(qn_session_append(c, ids + 50, 30, NULL, NULL, err)); /* to be replaced */
    char *saved = expect_saved(a, b->saved, &size);
    assert_ok(qn_session_restore(c, b->saved, err));
    assert_int_equal(qn_session_n_tok(c), N_SAVED);
    char *again = expect_saved(c, b->again, &size_again);
    expect_that(size == size_again && size > 0, name, -1, size_again);
    expect_same_bits(case_text("%s, file", name), QN_DTYPE_F8, again, saved, size); /* bytes */
    expect_same_bits(case_text("%s, logits", name), QN_DTYPE_F32, qn_session_logits(c), qn_session_logits(a), N_VOCAB);
    assert_ok(qn_session_step(a, ids[N_SAVED], err));
    assert_ok(qn_session_step(c, ids[N_SAVED], err));
    expect_close(case_text("%s, continued", name), qn_session_logits(c), qn_session_logits(a), N_VOCAB, bound_of(kind));
    free(saved);
    free(again);
    qn_session_free(a);
    qn_session_free(c);
}

static void files_go_to_other_devices(void **state) {
    (void)state;
    enum { MAX = 16 };
    qn_model *models[MAX];
    int n = 0;
    const char *device;
    for (; n < MAX && (device = qn_backend_name(n)) != NULL; n++)
        models[n] = open_model(device, 2, GOLDEN_MODELS "/tied-f32");
    assert_true(n >= 2);
    char *dir = files_make_dir();
    test_rng rng = {12};
    int32_t *ids = random_ids(&rng, N_CTX);
    bench b = {.saved = files_path(dir, "saved"), .again = files_path(dir, "again")};
    for (int from = 0; from < n; from++) {
        for (int to = 0; to < n; to++) {
            if (from == to) continue;
            b.name = case_text("%s to %s", qn_backend_name(from), qn_backend_name(to));
            b.from = models[from];
            b.to = models[to];
            for (int kind = 0; kind < (int)(sizeof kinds / sizeof kinds[0]); kind++) transfer(&b, kind, ids);
        }
    }
    for (int i = 0; i < n; i++) qn_model_close(models[i]);
    free(ids);
    free(b.saved);
    free(b.again);
    files_remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_go_to_other_devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
