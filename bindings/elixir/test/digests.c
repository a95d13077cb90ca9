/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reference results of the C API for the tests of the bindings, which must match bit for bit: SHA-256 of the results of
 * each primitive on the golden cases and of the models' logits, and the ids and text digests of generations. Run it in
 * the root of the tree. Output lines:
 *
 *   primitive CASE NAME plain|packed DIGEST     of out, and of k_cache and v_cache if present
 *   logits MODEL DIGEST                         of a model's directory, after the ids 1 … 20
 *   generate SEED ID,ID,… DIGEST                of the text
 */
#include "../../../src/base/sha256.h"
#include "../../../tests/support/cmocka_all.h"
#include "../../../tests/support/problem.h"

#include <quern/quern.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_GOLDEN = 9, N_SEED = 3, N_PREDICT = 50 };

static const char prompt[] = "Once upon a time there was a";

static void add_tensor(qni_sha256 *hash, const qn_tensor *t) {
    void *bits = tensor_bits(t);
    qni_sha256_update(hash, bits, qn_tensor_bytes(t));
    free(bits);
}

static void print_digest(qni_sha256 *hash) {
    uint8_t digest[32];
    qni_sha256_final(hash, digest);
    for (int i = 0; i < 32; i++) printf("%02x", digest[i]);
    printf("\n");
}

static void primitives(qn_device *device, int index, bool packed) {
    char path[64];
    problem p;
    bench s;
    snprintf(path, sizeof path, "tests/data/primitives/case%d.safetensors", index);
    problem_golden(&p, path);
    bench_make(&s, &p, device, all_f32, packed);
    for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
        qni_sha256 hash;
        bench_reset(&s);
        qni_sha256_init(&hash);
        add_tensor(&hash, primitive_compute(id, &s));
        if (primitive_has_cache(id)) {
            add_tensor(&hash, s.t[K_CACHE]);
            add_tensor(&hash, s.t[V_CACHE]);
        }
        printf("primitive %d %s %s ", index, primitive_name(id), packed ? "packed" : "plain");
        print_digest(&hash);
    }
    bench_free(&s);
    problem_free(&p);
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    (void)piece;
    qni_sha256_update(user, text, size);
    return true;
}

static bool on_token(void *user, const qn_token *token) {
    (void)user;
    printf("%d,", token->id);
    return true;
}

static void logits(qn_device *device, const char *dir) {
    qn_model *model = NULL;
    qn_session *session = NULL;
    qni_sha256 hash;
    int32_t ids[20];
    for (int32_t i = 0; i < 20; i++) ids[i] = i + 1;
    assert_int_equal(qn_model_open(&model, device, dir, NULL, NULL), QN_OK);
    assert_int_equal(qn_session_create(&session, model, &(qn_session_options){.n_ctx = 32}, NULL), QN_OK);
    assert_int_equal(qn_session_append(session, ids, 20, NULL, NULL, NULL), QN_OK);
    qni_sha256_init(&hash);
    qni_sha256_update(&hash, qn_session_logits(session), 4 * (size_t)qn_model_get_config(model)->n_vocab);
    printf("logits %s ", dir);
    print_digest(&hash);
    qn_session_free(session);
    qn_model_close(model);
}

static void logits_of_all(qn_device *device) {
    glob_t found = {0};
    logits(device, "models/demo");
    assert_int_equal(glob("tests/data/models/*/", 0, NULL, &found), 0);
    assert_int_equal(glob("tests/data/quantized/*/", GLOB_APPEND, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) logits(device, found.gl_pathv[i]);
    globfree(&found);
}

static void generations(qn_device *device) {
    qn_model *model = NULL;
    qn_tokenizer *tokenizer = NULL;
    qn_session *session = NULL;
    qni_sha256 hash;
    assert_int_equal(qn_model_open(&model, device, "models/demo", NULL, NULL), QN_OK);
    assert_int_equal(qn_tokenizer_open(&tokenizer, "models/demo", NULL), QN_OK);
    assert_int_equal(qn_session_create(&session, model, NULL, NULL), QN_OK);
    for (uint64_t seed = 0; seed < N_SEED; seed++) {
        qn_sampler_params sampler;
        qn_sampler_defaults(model, QN_SAMPLER_MODEL, &sampler);
        sampler.seed = seed;
        const qn_generate_args args = {.prompt = prompt,
                                       .sampler = &sampler,
                                       .n_predict = N_PREDICT,
                                       .ignore_eos = true,
                                       .on_text = on_text,
                                       .on_token = on_token,
                                       .user = &hash};
        qni_sha256_init(&hash);
        printf("generate %d ", (int)seed);
        assert_int_equal(qn_generate(session, tokenizer, &args, NULL, NULL), QN_OK);
        printf(" ");
        print_digest(&hash);
    }
    qn_session_free(session);
    qn_tokenizer_close(tokenizer);
    qn_model_close(model);
}

int main(void) {
    qn_device *device = NULL;
    assert_int_equal(qn_device_open(&device, "cpu", NULL, NULL), QN_OK);
    for (int i = 0; i < N_GOLDEN; i++) {
        primitives(device, i, false);
        primitives(device, i, true);
    }
    logits_of_all(device);
    generations(device);
    qn_device_close(device);
    return 0;
}
