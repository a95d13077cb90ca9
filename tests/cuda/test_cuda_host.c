/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host code of src/cuda over the stand-in: packing, bf16 models and their generations beside `ref`, graphs, memory
 * that runs out, a device that is lost, and what is said where there is no GPU.
 */
#include "../../src/backend/plugin.h"
#include "../support/checkpoints.h"
#include "../support/files.h"
#include "../support/linears.h"
#include "runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A model of bf16 weights: 512 ids, heads of 32. */
#define BF16_MODEL GOLDEN_MODELS "/untied-bf16-sharded"

static int restore(void **state) {
    (void)state;
    fake_reset();
    return 0;
}

static qn_device *open_cuda(void) {
    qn_device *device = NULL;
    const qn_device_options options = {.n_thread = 2};
    assert_ok(qn_device_open(&device, "cuda", &options, err));
    return device;
}

static qn_model *open_on(const char *name, const char *dir, qn_arith arith) {
    qn_device *device = NULL;
    qn_model *model = NULL;
    const qn_device_options options = {.n_thread = 2};
    const qn_model_options how = {.arith = arith};
    assert_ok(qn_device_open(&device, name, &options, err));
    assert_ok(qn_model_open(&model, device, dir, &how, err));
    qn_device_close(device);
    return model;
}

/* --- packing --- */

/* The values of a linear that `ref` and the stand-in have packed from the same codes. */
static void round_trip(coded c, test_rng *rng) {
    const int64_t group_out = c.group_out > 0 ? c.group_out : 1;
    const int64_t n_scale = (c.n_in + c.group - 1) / c.group * ((c.n_out + group_out - 1) / group_out);
    unsigned char *codes = malloc((size_t)(c.n_in * c.n_out));
    float *scales = malloc((size_t)n_scale * sizeof *scales), *biases = malloc((size_t)n_scale * sizeof *biases);
    for (int64_t i = 0; i < c.n_in * c.n_out; i++) {
        codes[i] = (unsigned char)rng_below(rng, 1 << c.bits);
        if (c.group_out > 0 && (codes[i] & 0x7F) == 0x7F) codes[i] = 0; /* e4m3's NaN */
    }
    for (int64_t i = 0; i < n_scale; i++) {
        scales[i] = (float)(1 + rng_below(rng, 255)) / 256;
        biases[i] = -(float)rng_below(rng, 256) / 16;
    }
    const bool symmetric = c.biases == NULL;
    c.codes = codes;
    c.scales = scales;
    c.biases = symmetric ? NULL : biases;
    CASE(name, "%lld by %lld, %d bits, group %d by %d, %s, %s", (long long)c.n_out, (long long)c.n_in, c.bits, c.group,
         c.group_out, qn_dtype_name(c.scale_dtype), symmetric ? "symmetric" : "biases");
    float *values[2];
    for (int d = 0; d < 2; d++) {
        const qn_device_options options = {.n_thread = 2};
        qn_linear *linear = NULL;
        assert_ok(qn_device_open(&c.device, d == 0 ? "ref" : "cuda", &options, err));
        assert_ok(coded_pack(&linear, &c, QN_ARITH_F32, err));
        values[d] = linear_values(c.device, linear);
        qn_linear_free(linear);
        qn_device_close(c.device);
    }
    expect_same_bits(name, QN_DTYPE_F32, values[1], values[0], c.n_in * c.n_out);
    for (int d = 0; d < 2; d++) free(values[d]);
    free(codes);
    free(scales);
    free(biases);
}

static void packs_affine(void **state) {
    (void)state;
    static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {8, 16, 32, 64, 128};
    static const float some;
    test_rng rng = {1};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
            const int64_t n_in = groups[g] < 32 ? 96 : 3 * groups[g], n_out = g % 2 == 0 ? 24 : 5;
            const qn_dtype dtype = (qn_dtype[]){QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16}[(w + g) % 3];
            coded c = {.n_in = n_in, .n_out = n_out, .bits = widths[w], .group = groups[g], .scale_dtype = dtype};
            round_trip(c, &rng);
            c.biases = &some;
            round_trip(c, &rng);
        }
    }
}

static void packs_fp8(void **state) {
    (void)state;
    static const int shapes[][4] = {/* n_out, n_in, group_out, group */
                                    {256, 256, 128, 128},
                                    {200, 136, 128, 128},
                                    {5, 7, 3, 2},
                                    {130, 40, 128, 16},
                                    {9, 64, 1, 64}};
    test_rng rng = {2};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int d = 0; d < 2; d++) {
            const coded c = {.n_in = shapes[i][1],
                             .n_out = shapes[i][0],
                             .bits = 8,
                             .group = shapes[i][3],
                             .group_out = shapes[i][2],
                             .scale_dtype = d == 0 ? QN_DTYPE_F32 : QN_DTYPE_BF16};
            round_trip(c, &rng);
        }
    }
}

/* More scales in a row than fit into the memory through which they travel. */
static void packs_long_rows_of_scales(void **state) {
    (void)state;
    enum { N_IN = 600000 };
    qn_device *device = open_cuda();
    unsigned char *codes = calloc(N_IN, 1);
    float *scales = malloc(N_IN * sizeof *scales), *x = malloc(N_IN * sizeof *x);
    for (int i = 0; i < N_IN; i++) {
        codes[i] = 0x38; /* 1 */
        scales[i] = (float)(i % 7);
        x[i] = i % 11 == 0 ? 1 : 0;
    }
    const coded c = {.device = device,
                     .n_in = N_IN,
                     .n_out = 1,
                     .bits = 8,
                     .group = 1,
                     .group_out = 1,
                     .codes = codes,
                     .scale_dtype = QN_DTYPE_F32,
                     .scales = scales};
    qn_linear *linear = NULL;
    assert_ok(coded_pack(&linear, &c, QN_ARITH_F32, err));
    float *got = linear_apply(device, linear, x, 1);
    double want = 0;
    for (int i = 0; i < N_IN; i += 11) want += i % 7;
    expect_near("long row", 0, (double)got[0], want, 0);
    free(got);
    qn_linear_free(linear);
    free(codes);
    free(scales);
    free(x);
    qn_device_close(device);
}

/* Rows longer than a piece of pinned memory, and many short ones; both layouts. */
static void packs_dense(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{2, 600000}, {3000, 33}, {7, 1}};
    qn_device *device = open_cuda();
    test_rng rng = {3};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int64_t n_out = shapes[s][0], n_in = shapes[s][1];
        float *values = malloc((size_t)(n_out * n_in) * sizeof *values), *x = calloc((size_t)n_in, sizeof *x);
        for (int64_t i = 0; i < n_out * n_in; i++) values[i] = (float)rng_below(&rng, 128);
        const matrix m = {device, QN_DTYPE_F32, n_in, n_out, values};
        qn_linear *linear = matrix_pack(&m, QN_ARITH_F32);
        const int64_t places[] = {0, n_in / 2, n_in - 1};
        for (int k = 0; k < 3; k++) {
            memset(x, 0, (size_t)n_in * sizeof *x);
            x[places[k]] = 1;
            float *got = linear_apply(device, linear, x, 1);
            for (int64_t o = 0; o < n_out; o++) {
                expect_near("dense", o, (double)got[o], (double)values[o * n_in + places[k]], 0);
            }
            free(got);
        }
        qn_linear_free(linear);
        free(values);
        free(x);
    }
    qn_device_close(device);
}

/* --- bf16 --- */

/* The greatest difference of bf16 arithmetic through a model of two layers: products of 2^-9 rounded inputs, as
 * session_goldens' bound for int8 counts them, 4 sigma of eight products in series, with 2^-9 / sqrt(3) each. */
#define BF16_BOUND 2e-2

static void computes_in_bf16(void **state) {
    (void)state;
    static const char *const dirs[] = {BF16_MODEL,
                                       GOLDEN_MODELS "/yarn-bf16",
                                       GOLDEN_MODELS "/new-config-bf16",
                                       "tests/data/quantized/mlx-4bit-g64",
                                       "tests/data/quantized/fp8-block128",
                                       "tests/data/quantized/mlx-mixed-2-6-8"};
    static const qn_dtype caches[] = {QN_DTYPE_BF16, QN_DTYPE_F32, QN_DTYPE_F16};
    enum { N = 24 };
    test_rng rng = {4};
    for (size_t m = 0; m < sizeof dirs / sizeof dirs[0]; m++) {
        int32_t *ids = random_ids(&rng, N);
        float *want = NULL;
        for (int k = -1; k < 3; k++) { /* first `ref` */
            qn_model *model = open_on(k < 0 ? "ref" : "cuda", dirs[m], k < 0 ? QN_ARITH_F32 : QN_ARITH_BF16);
            const int32_t n_vocab = qn_model_get_config(model)->n_vocab;
            qn_session *session = open_session_with(
                model, &(qn_session_options){.n_batch = 18, .kv_dtype = k < 0 ? QN_DTYPE_F32 : caches[k]});
            assert_ok(qn_session_append(session, ids, 21, NULL, NULL, err)); /* 18 and 3 */
            for (int i = 21; i < N; i++) assert_ok(qn_session_step(session, ids[i], err));
            const float *logits = qn_session_logits(session);
            if (k < 0) {
                want = malloc((size_t)n_vocab * sizeof *want);
                memcpy(want, logits, (size_t)n_vocab * sizeof *want);
            } else {
                expect_close(case_text("%s, cache %s", dirs[m], qn_dtype_name(caches[k])), logits, want, n_vocab,
                             BF16_BOUND);
            }
            qn_session_free(session);
            qn_model_close(model);
        }
        free(want);
        free(ids);
    }
}

/* --- generation --- */

enum { N_PROMPT = 5, MOST = 80, FEW_ROWS = 16 };

typedef struct text {
    int32_t ids[MOST], n_tok, finish;
} text;

/* Generate n ids: several sequences at once, each with another seed; sampled on the device unless `on_host`. */
static bool ignore_token(void *user, const qn_token *token) {
    (void)user;
    return token->logits != NULL;
}

typedef struct request {
    int n;
    int32_t n_predict;
    double temperature;
    int32_t end; /* -1: none */
    qn_dtype kv_dtype;
} request;

static void generate(qn_model *model, text *out, const request *r, bool on_host) {
    const int n = r->n;
    qn_generation *g[32], *left[32];
    qn_session *sessions[32];
    int which[32];
    qn_kv_pool *pool = NULL;
    const qn_kv_pool_options options = {.n_ctx = MOST, .n_batch = 128, .n_tok = 128 * n, .kv_dtype = r->kv_dtype};
    assert_true(n <= 32);
    assert_ok(qn_kv_pool_create(&pool, model, &options, err));
    for (int i = 0; i < n; i++) {
        const int32_t prompt[N_PROMPT] = {100 + i, 131, 162, 193 + i, 224};
        qn_sampler_params p;
        qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
        p.temperature = r->temperature;
        p.seed = (uint64_t)i;
        p.repetition_penalty = i % 2 == 1 ? 1.2 : 1;
        const qn_logit_bias bias = {7, 2};
        p.logit_bias = &bias;
        p.n_logit_bias = i % 3 == 0;
        sessions[i] = open_session_with(model, &(qn_session_options){.pool = pool, .n_ctx = MOST});
        assert_ok(qn_generation_create(&g[i], sessions[i], NULL,
                                       &(qn_generate_args){.ids = prompt,
                                                           .n_ids = N_PROMPT,
                                                           .sampler = &p,
                                                           .n_predict = r->n_predict,
                                                           .ignore_eos = true,
                                                           .stop_ids = &r->end,
                                                           .n_stop_id = r->end >= 0,
                                                           .on_token = on_host ? ignore_token : NULL},
                                       err));
        left[i] = g[i];
        which[i] = i;
    }
    for (size_t n_left = (size_t)n; n_left > 0;) {
        bool done[32];
        qn_error errors[32];
        assert_ok(qn_generation_next_batch(left, n_left, done, errors, err));
        size_t kept = 0;
        for (size_t i = 0; i < n_left; i++) {
            assert_int_equal(errors[i].status, QN_OK);
            if (done[i]) continue;
            which[kept] = which[i];
            left[kept++] = left[i];
        }
        n_left = kept;
    }
    for (int i = 0; i < n; i++) {
        qn_generate_result result;
        qn_generation_get_result(g[i], &result);
        qn_generation_free(g[i]);
        out[i].finish = (int32_t)result.finish;
        out[i].n_tok = qn_session_n_tok(sessions[i]);
        memcpy(out[i].ids, qn_session_ids(sessions[i]), (size_t)out[i].n_tok * sizeof *out[i].ids);
        qn_session_free(sessions[i]);
    }
    qn_kv_pool_free(pool);
}

static void expect_texts(const char *name, const text *got, const text *want, int n) {
    for (int i = 0; i < n; i++) {
        if (got[i].n_tok != want[i].n_tok || got[i].finish != want[i].finish ||
            memcmp(got[i].ids, want[i].ids, (size_t)want[i].n_tok * sizeof *want[i].ids) != 0) {
            fail_msg("%s: sequence %d is another: %d ids and finish %d, not %d and %d", name, i, got[i].n_tok,
                     got[i].finish, want[i].n_tok, want[i].finish);
        }
    }
}

/* In f32 as on `ref`; in bf16 sampled by steps on the device as on the host from the same logits. */
static void generates(void **state) {
    (void)state;
    static const int counts[] = {1, 3, 17};
    static const int32_t lengths[] = {1, 17, 36}; /* one from the prompt, then steps of up to 16 */
    text *got = calloc(32, sizeof *got), *want = calloc(32, sizeof *want);
    qn_model *ref = open_on("ref", BF16_MODEL, QN_ARITH_F32), *f32 = open_on("cuda", BF16_MODEL, QN_ARITH_F32);
    qn_model *bf16 = open_on("cuda", BF16_MODEL, QN_ARITH_BF16);
    for (int c = 0; c < 3; c++) {
        for (int k = 0; k < 3; k++) {
            for (int sampled = 0; sampled < 2; sampled++) {
                CASE(name, "%d sequences of %d, %s", counts[c], lengths[k], sampled ? "sampled" : "greedy");
                request r = {counts[c], lengths[k], sampled, -1, QN_DTYPE_BF16};
                generate(bf16, want, &r, true);
                generate(bf16, got, &r, false);
                expect_texts(name, got, want, r.n);
                if (r.n > FEW_ROWS) continue; /* fewer rows, once some have ended, are multiplied another way */
                r.end = want[0].ids[N_PROMPT + lengths[k] / 2]; /* ends one of them, or more */
                generate(bf16, want, &r, true);
                generate(bf16, got, &r, false);
                expect_texts(name, got, want, r.n);
                r.kv_dtype = QN_DTYPE_F32;
                generate(ref, want, &r, true);
                generate(f32, got, &r, false);
                expect_texts(name, got, want, r.n);
            }
        }
    }
    qn_model_close(ref);
    qn_model_close(f32);
    qn_model_close(bf16);
    free(got);
    free(want);
}

/* --- forks, cancellation --- */

/* Two forks of a session go on from the same place, each as one that was fed all the ids itself. */
static void forks(void **state) {
    (void)state;
    static const int32_t prompt[N_PROMPT] = {100, 131, 162, 193, 224};
    qn_model *model = open_on("cuda", BF16_MODEL, QN_ARITH_BF16);
    qn_session *a = open_session_with(model, &(qn_session_options){.n_ctx = MOST}), *b = NULL;
    assert_ok(qn_session_append(a, prompt, N_PROMPT, NULL, NULL, err));
    assert_ok(qn_session_fork(&b, a, err));
    assert_ok(qn_session_step(a, 7, err));
    assert_ok(qn_session_step(b, 8, err));
    for (int i = 0; i < 2; i++) {
        qn_session *alone = open_session_with(model, &(qn_session_options){.n_ctx = MOST});
        assert_ok(qn_session_append(alone, prompt, N_PROMPT, NULL, NULL, err));
        assert_ok(qn_session_step(alone, 7 + i, err));
        expect_same_bits("fork", QN_DTYPE_F32, qn_session_logits(i == 0 ? a : b), qn_session_logits(alone), 512);
        qn_session_free(alone);
    }
    qn_session_free(a);
    qn_session_free(b);
    qn_model_close(model);
}

/* A child of the process can end what it inherited, without a call of CUDA. */
static void closes_in_a_child(void **state) {
    (void)state;
    static const request r = {1, 20, 0, -1, QN_DTYPE_BF16};
    text *out = calloc(32, sizeof *out);
    qn_model *model = open_on("cuda", BF16_MODEL, QN_ARITH_BF16);
    generate(model, out, &r, false);
    qn_session *session = open_session_with(model, &(qn_session_options){.n_ctx = MOST});
    const pid_t child = fork();
    if (child == 0) {
        qn_session_free(session);
        qn_model_close(model);
        _exit(0);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    qn_session_free(session);
    qn_model_close(model);
    free(out);
}

/* --- graphs --- */

/* Greedily, after the prompt. */
static void generate_ids(qn_session *session, int32_t n) {
    static const int32_t prompt[N_PROMPT] = {100, 131, 162, 193, 224};
    qn_generate_result result;
    qn_sampler_params p;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    p.temperature = 0;
    const qn_generate_args args = {.ids = prompt, .n_ids = N_PROMPT, .sampler = &p, .n_predict = n, .ignore_eos = true};
    assert_ok(qn_generate(session, NULL, &args, &result, err));
}

static void keeps_graphs(void **state) {
    (void)state;
    qn_model *model = open_on("cuda", BF16_MODEL, QN_ARITH_BF16);
    qn_session *sessions[2];
    for (int i = 0; i < 2; i++) sessions[i] = open_session_with(model, &(qn_session_options){.n_ctx = MOST});
    int64_t launched = 0;
    for (int turn = 0; turn < 3; turn++) {           /* 40 ids: one from the prompt, 16, 16 and 7 */
        if (turn == 2) qn_session_free(sessions[1]); /* drops all graphs */
        if (turn == 2) assert_int_equal(fake_get().n_exec, 0);
        const fake_counts before = fake_get();
        generate_ids(sessions[0], 40);
        const fake_counts after = fake_get();
        /* later the cache holds the prompt but for its last id, which a step of one token computes */
        assert_int_equal(after.n_launched - before.n_launched, turn == 0 ? 39 : 40);
        assert_int_equal(after.n_instantiated - before.n_instantiated, turn == 1 ? 0 : 1);
        assert_int_equal(after.n_exec, 1);
        launched = after.n_launched;
    }
    assert_int_equal(launched, 39 + 40 + 40);
    qn_session_free(sessions[0]);
    qn_model_close(model);
    assert_int_equal(fake_living(), 0);
}

/* As many graphs are kept as the device has room for; the one that was not used for longest goes. */
static void drops_the_oldest_graph(void **state) {
    (void)state;
    enum { MAX_GRAPH = 32, N = MAX_GRAPH + 2 };
    static const struct {
        int session;
        bool captures;
    } uses[] = {{2, false}, {0, true}, {2, false}, {3, true}, {N - 1, false}, {1, true}};
    qn_model *model = open_on("cuda", BF16_MODEL, QN_ARITH_BF16);
    qn_session *sessions[N];
    /* each has a cache of its own, which is part of what a graph was captured for */
    for (int i = 0; i < N; i++) sessions[i] = open_session_with(model, &(qn_session_options){.n_ctx = MOST});
    for (int i = 0; i < N + (int)(sizeof uses / sizeof uses[0]); i++) {
        const int session = i < N ? i : uses[i - N].session;
        const int64_t before = fake_get().n_instantiated;
        generate_ids(sessions[session], 4);
        expect_that(fake_get().n_instantiated - before == (i < N || uses[i - N].captures), "captures", i, session);
        expect_that(fake_get().n_exec == (i < MAX_GRAPH ? i + 1 : MAX_GRAPH), "graphs", i, (int)fake_get().n_exec);
    }
    for (int i = 0; i < N; i++) qn_session_free(sessions[i]);
    qn_model_close(model);
    assert_int_equal(fake_living(), 0);
}

/* Tensors come and go on one thread while another one generates. */
typedef struct other_thread {
    qn_device *device;
    volatile bool *ends;
} other_thread;

static void *make_tensors(void *argument) {
    const other_thread *o = argument;
    for (int i = 0; i < 300; i++) {
        const int64_t shape[] = {4, 4};
        qn_tensor *t = NULL;
        if (qn_tensor_create(&t, o->device, QN_DTYPE_F32, 2, shape, NULL) != QN_OK) return "a tensor was not made";
        qn_tensor_free(t);
    }
    return NULL;
}

static void releases_on_other_threads(void **state) {
    (void)state;
    static const request r = {3, 50, 1, -1, QN_DTYPE_BF16};
    text *got = calloc(32, sizeof *got), *want = calloc(32, sizeof *want);
    qn_model *model = NULL;
    qn_device *device = open_cuda();
    assert_ok(qn_model_open(&model, device, BF16_MODEL, &(qn_model_options){.arith = QN_ARITH_BF16}, err));
    generate(model, want, &r, false);
    const other_thread other = {.device = device};
    pthread_t thread;
    void *what = NULL;
    assert_int_equal(pthread_create(&thread, NULL, make_tensors, (void *)(uintptr_t)&other), 0);
    for (int i = 0; i < 10; i++) {
        generate(model, got, &r, false);
        expect_texts("beside another thread", got, want, r.n);
    }
    assert_int_equal(pthread_join(thread, &what), 0);
    assert_null(what);
    qn_model_close(model);
    qn_device_close(device);
    free(got);
    free(want);
}

/* --- failures --- */

/* How far use_device() came, and the call of CUDA's before each stage: opening the device, the model, a session, generation. */
typedef struct progress {
    int stage;
    int64_t begin[4];
} progress;

static void begin_stage(progress *p, int stage) {
    p->stage = stage;
    p->begin[stage] = fake_get().n_call;
}

/* All that uses the device, from opening it to the end. The first error ends it. */
static qn_status use_device(qn_error *err, progress *p) {
    static const int32_t prompt[N_PROMPT] = {100, 131, 162, 193, 224};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_generate_result result;
    qn_sampler_params params;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &params);
    params.repetition_penalty = 1.1;
    const qn_generate_args args = {
        .ids = prompt, .n_ids = N_PROMPT, .sampler = &params, .n_predict = 20, .ignore_eos = true};
    const qn_device_options options = {.n_thread = 1}; /* the same calls in the same order each time */
    const qn_model_options how = {.arith = QN_ARITH_BF16};
    begin_stage(p, 0);
    qn_status status = qn_device_open(&device, "cuda", &options, err);
    if (status == QN_OK) {
        begin_stage(p, 1);
        status = qn_model_open(&model, device, BF16_MODEL, &how, err);
    }
    if (status == QN_OK) {
        begin_stage(p, 2);
        status = qn_session_create(&session, model, &(qn_session_options){.n_ctx = MOST}, err);
    }
    if (status == QN_OK) {
        begin_stage(p, 3);
        status = qn_generate(session, NULL, &args, &result, err);
        qn_error again = {0};
        if (status == QN_ENOMEM) { /* memory is there again: as if nothing had been */
            if (qn_generate(session, NULL, &args, &result, &again) != QN_OK) fail_msg("again: %s", again.message);
        }
        if (status == QN_ELOST && qn_generate(session, NULL, &args, &result, &again) != QN_ELOST) {
            fail_msg("a lost device: %s", again.message);
        }
    }
    qn_session_free(session);
    qn_model_close(model);
    qn_device_close(device);
    return status;
}

static void survives_every_failed_allocation(void **state) {
    (void)state;
    int stages[4] = {0};
    progress p;
    for (int64_t at = 1;; at++) {
        fake_settings s = fake_defaults();
        s.fail_malloc = at;
        fake_set(&s);
        qn_error err = {0};
        const qn_status status = use_device(&err, &p);
        if (fake_living() != 0) fail_msg("allocation %d: %d objects leak", (int)at, (int)fake_living());
        if (status == QN_OK) break;
        if (status != QN_ENOMEM || strstr(err.message, "no memory") == NULL) {
            fail_msg("allocation %d: %s: %s", (int)at, qn_status_name(status), err.message);
        }
        stages[p.stage]++;
    }
    for (int i = 0; i < 4; i++) expect_that(stages[i] > 0, "a stage without an allocation", i, stages[i]);
    fake_settings s = fake_defaults();
    s.fail_capture = 1;
    fake_set(&s);
    qn_error err = {0};
    assert_int_equal(use_device(&err, &p), QN_ENOMEM);
    assert_string_equal(err.message, "step: no memory on the GPU");
    assert_int_equal(fake_living(), 0);
}

static void survives_the_loss_of_the_device(void **state) {
    (void)state;
    progress p, whole;
    bool seen[4] = {false};
    fake_reset();
    qn_error err = {0};
    assert_int_equal(use_device(&err, &whole), QN_OK);
    const int64_t n_call = fake_get().n_call;
    const int64_t step =
        n_call / 150 + 1; /* every call of the first ones and while a session is made, some of the others */
    for (int64_t at = 1; at < n_call; at++) {
        if (at > 150 && (at <= whole.begin[2] || at > whole.begin[3]) && at % step != 0) continue;
        fake_settings s = fake_defaults();
        s.lose_at = at;
        fake_set(&s);
        err = (qn_error){0};
        const qn_status status = use_device(&err, &p);
        if (fake_living() != 0) fail_msg("call %d: %d objects leak", (int)at, (int)fake_living());
        if (status == QN_OK) continue; /* lost while all was being closed */
        if (status != QN_ELOST) fail_msg("call %d: %s: %s", (int)at, qn_status_name(status), err.message);
        if (strstr(err.message, "illegal memory access") == NULL && strstr(err.message, "failed") == NULL) {
            fail_msg("call %d: %s", (int)at, err.message);
        }
        seen[p.stage] = true;
    }
    for (int i = 0; i < 4; i++) expect_that(seen[i], "a stage that no loss hit", i, 0);
}

/* --- no GPU --- */

static void says_why_there_is_no_gpu(void **state) {
    (void)state;
    const struct {
        int driver, n_device;
        cudaError_t error;
        const char *message;
    } cases[] = {
        {0, 0, cudaErrorInsufficientDriver, "cuda: no NVIDIA driver is installed"},
        {0, 0, cudaErrorNoDevice, "cuda: no NVIDIA driver is installed"},
        {11080, 0, cudaErrorInsufficientDriver, "cuda: the NVIDIA driver is for CUDA 11.8, 12.4 is needed"},
        {12040, 0, cudaErrorNoDevice, "cuda: there is no NVIDIA GPU"},
        {12040, 0, cudaSuccess, "cuda: there is no NVIDIA GPU"},
        {12040, 1, cudaErrorUnknown, "cuda: another error"},
    };
    qni_plugin_backend_fn qni_plugin_backend;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_settings s = fake_defaults();
        s.driver = cases[i].driver;
        s.n_device = cases[i].n_device;
        s.count_error = cases[i].error;
        fake_set(&s);
        int32_t n = -1;
        qn_error reason = {0};
        assert_non_null(qni_plugin_backend(QNI_PLUGIN_ABI, &qni_this_host, &n, &reason));
        assert_int_equal(n, 0);
        assert_int_equal(reason.status, QN_EUNSUPPORTED);
        assert_string_equal(reason.message, cases[i].message);
    }
    fake_reset();
    int32_t n = -1;
    assert_non_null(qni_plugin_backend(QNI_PLUGIN_ABI, &qni_this_host, &n, NULL));
    assert_int_equal(n, 1);
    assert_null(qni_plugin_backend(QNI_PLUGIN_ABI + 1, &qni_this_host, &n, NULL));
}

static void refuses_old_gpus(void **state) {
    (void)state;
    fake_settings s = fake_defaults();
    s.major = 7;
    s.minor = 5;
    fake_set(&s);
    qn_device *device = NULL;
    qn_error err = {0};
    assert_int_equal(qn_device_open(&device, "cuda", NULL, &err), QN_EUNSUPPORTED);
    assert_string_equal(err.message, "cuda: Stand-in has compute capability 7.5; 8.0 or later is needed");
    assert_int_equal(fake_living(), 0);
}

static void describes_and_measures(void **state) {
    (void)state;
    qn_device *device = open_cuda();
    qn_device_info info;
    qn_device_peaks peaks = {0};
    qn_device_get_info(device, &info);
    assert_string_equal(info.name, "cuda");
    assert_string_equal(info.isa, "sm_90");
    assert_string_equal(info.description, "Stand-in");
    assert_true(info.memory_total_bytes == 4ull << 30 && info.memory_available_bytes == 3ull << 30);
    assert_ok(qn_device_measure_peaks(device, &peaks, err));
    expect_near("bytes read in a second", 0, peaks.read_bytes, (double)(2ull << 30) / 2e-3, 1e6);
    expect_near("bytes sent in a second", 0, peaks.upload_bytes, (double)(64ull << 20) / 2e-3, 1e6);
    qn_device_close(device);
    assert_int_equal(fake_living(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(packs_affine, restore),
        cmocka_unit_test_teardown(packs_fp8, restore),
        cmocka_unit_test_teardown(packs_dense, restore),
        cmocka_unit_test_teardown(packs_long_rows_of_scales, restore),
        cmocka_unit_test_teardown(computes_in_bf16, restore),
        cmocka_unit_test_teardown(generates, restore),
        cmocka_unit_test_teardown(forks, restore),
        cmocka_unit_test_teardown(closes_in_a_child, restore),
        cmocka_unit_test_teardown(keeps_graphs, restore),
        cmocka_unit_test_teardown(drops_the_oldest_graph, restore),
        cmocka_unit_test_teardown(releases_on_other_threads, restore),
        cmocka_unit_test_teardown(survives_every_failed_allocation, restore),
        cmocka_unit_test_teardown(survives_the_loss_of_the_device, restore),
        cmocka_unit_test_teardown(says_why_there_is_no_gpu, restore),
        cmocka_unit_test_teardown(refuses_old_gpus, restore),
        cmocka_unit_test_teardown(describes_and_measures, restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
