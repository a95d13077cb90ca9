/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values that an f16 cache cannot represent, in a model that produces them for some tokens only: an infinity must reach
 * the logits of each token that attends to it, and of no other.
 */
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/sessions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CALM = 7, N_CTX = 32, N_VALUE = 2 * 32, N_LOGIT = 512 };

static char *dir;
static int32_t wild_id;

static void feed_f32(const char *from, int32_t id, float *v) {
    qn_model *model = open_model("cpu", 1, from);
    qn_session *s = open_session(model, N_CTX, 4);
    assert_ok(qn_session_step(s, id, err));
    assert_ok(qn_session_read_kv(s, 0, 0, 1, NULL, v, err));
    qn_session_free(s);
    qn_model_close(model);
}

/* Multiply output `row` of the first layer's v_proj. The checkpoint is f32, its JSON header laid out as safetensors
 * writes it. */
static void scale_row(const char *in, int64_t row, int64_t n_in, float factor) {
    size_t bytes;
    char *path = files_path(in, "model.safetensors"), *file = files_read(path, &bytes);
    const char *entry = strstr(file + 8, "\"model.layers.0.self_attn.v_proj.weight\"");
    assert_non_null(entry);
    const char *offsets = strstr(entry, "\"data_offsets\":");
    assert_non_null(offsets);
    const char *first = strchr(offsets, '[');
    assert_non_null(first);
    uint64_t header;
    memcpy(&header, file, sizeof header);
    char *at = file + 8 + header + strtoull(first + 1, NULL, 10) + (size_t)(row * n_in) * sizeof(float);
    for (int64_t i = 0; i < n_in; i++, at += sizeof(float)) {
        float w;
        memcpy(&w, at, sizeof w);
        w *= factor;
        memcpy(at, &w, sizeof w);
    }
    files_write(in, "model.safetensors", file, bytes);
    free(file);
    free(path);
}

/* Find a token for which a value of the first layer is far greater than for CALM; scale it beyond 65504 for that
 * token only. */
static int make_model(void **state) {
    (void)state;
    dir = files_make_dir();
    files_copy_dir("tests/data/models/tied-f32", dir, "golden");
    float calm[N_VALUE], v[N_VALUE], best = 0, factor = 0;
    int best_row = 0;
    feed_f32(dir, CALM, calm);
    for (int32_t id = 8; id < 40; id++) {
        feed_f32(dir, id, v);
        for (int i = 0; i < N_VALUE; i++) {
            if (fabsf(v[i]) < best * fabsf(calm[i])) continue;
            best = fabsf(v[i] / calm[i]);
            factor = 1e5f / fabsf(v[i]);
            best_row = i;
            wild_id = id;
        }
    }
    qn_model_config config;
    assert_ok(qn_model_read_config(&config, dir, NULL, err));
    assert_true(best > 4 && config.n_kv_head * config.head_dim == N_VALUE);
    scale_row(dir, best_row, config.d_model, factor);
    return 0;
}
static int remove_model(void **state) {
    (void)state;
    files_remove_dir(dir);
    return 0;
}

static qn_session *open_f16(qn_model *model) {
    return open_session_with(model, &(qn_session_options){.n_ctx = N_CTX, .n_batch = 4, .kv_dtype = QN_DTYPE_F16});
}

/* Feed one token and store its logits; false if they are not finite. */
static bool step(qn_session *s, int32_t id, float *logits) {
    qn_status status = qn_session_step(s, id, NULL);
    if (status == QN_ENUMERIC) {
        assert_null(qn_session_logits(s));
        return false;
    }
    assert_int_equal(status, QN_OK);
    memcpy(logits, qn_session_logits(s), N_LOGIT * sizeof *logits);
    return true;
}

typedef struct wanted {
    float first[N_LOGIT], second[N_LOGIT]; /* after CALM, and after CALM CALM */
} wanted;

static void assert_unaffected(qn_session *s, const wanted *want) {
    float logits[N_LOGIT];
    assert_true(step(s, CALM, logits));
    expect_same_bits("first", QN_DTYPE_F32, logits, want->first, N_LOGIT);
    assert_true(step(s, CALM, logits));
    expect_same_bits("second", QN_DTYPE_F32, logits, want->second, N_LOGIT);
}

static void infinities_reach_only_later_tokens(void **state) {
    (void)state;
    qn_model *model = open_model("cpu", 2, dir);
    assert_int_equal(qn_model_get_config(model)->n_vocab, N_LOGIT);
    qn_session *s = open_f16(model), *other = open_f16(model);
    wanted want;
    float logits[N_LOGIT];
    assert_true(step(s, CALM, want.first) && step(s, CALM, want.second));

    /* Later tokens see it, even after a rewind that keeps it; after a restart none does. */
    assert_false(step(s, wild_id, logits));
    assert_false(step(s, CALM, logits));
    assert_ok(qn_session_rewind(s, 3, err));
    assert_false(step(s, CALM, logits));
    assert_ok(qn_session_rewind(s, 2, err));
    assert_ok(qn_session_rewind(s, 1, err));
    assert_true(step(s, CALM, logits));
    expect_same_bits("second", QN_DTYPE_F32, logits, want.second, N_LOGIT);
    assert_ok(qn_session_rewind(s, 0, err));
    assert_unaffected(s, &want);

    /* In one step with other tokens, and with another session. */
    const int32_t calm[] = {CALM}, both[] = {wild_id, CALM};
    assert_ok(qn_session_rewind(s, 0, err));
    assert_int_equal(qn_session_append(s, both, 2, NULL, NULL, NULL), QN_ENUMERIC);
    const qn_span spans[] = {{.session = s, .ids = both, .n_ids = 2}, {.session = other, .ids = calm, .n_ids = 1}};
    assert_int_equal(qn_session_append_batch(spans, 2, NULL), QN_ENUMERIC);
    expect_same_bits("first", QN_DTYPE_F32, qn_session_logits(other), want.first, N_LOGIT);
    assert_true(step(other, CALM, logits));
    expect_same_bits("second", QN_DTYPE_F32, logits, want.second, N_LOGIT);

    /* Restored. */
    char *path = files_path(dir, "session");
    assert_ok(qn_session_save(s, path, err));
    assert_ok(qn_session_rewind(other, 0, err));
    assert_ok(qn_session_restore(other, path, err));
    assert_false(step(other, CALM, logits));
    assert_ok(qn_session_rewind(s, 0, err));
    assert_true(step(s, CALM, logits));
    assert_ok(qn_session_save(s, path, err));
    assert_ok(qn_session_restore(other, path, err));
    assert_true(step(other, CALM, logits));
    expect_same_bits("second", QN_DTYPE_F32, logits, want.second, N_LOGIT);
    free(path);
    qn_session_free(s);
    qn_session_free(other);
    qn_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(infinities_reach_only_later_tokens)};
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
