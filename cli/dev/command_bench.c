/* SPDX-License-Identifier: Apache-2.0 */
/* quern bench: the list of tests, their order with roofline measurements in between, and their results. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../directory.h"
#include "../open.h"
#include "../output.h"
#include "synth.h"

static wholes or_default(const wholes *given, int64_t *value) {
    return given->n ? *given : (wholes){value, 1};
}

/* Loading, then for each depth the prompt and generation tests, in the order of the option lists. */
static void list_tests(bench *b) {
    const settings *s = b->settings;
    int64_t prompt = 512, gen = 128, depth = 0, parallel = 1;
    const wholes prompts = or_default(&s->n_prompt, &prompt), gens = or_default(&s->n_gen, &gen);
    const wholes depths = or_default(&s->n_depth, &depth), parallels = or_default(&s->n_parallel, &parallel);
    b->tests = must_calloc(1 + depths.n * (prompts.n + gens.n * parallels.n), sizeof(*b->tests));
    b->tests[b->n_test++] = (bench_test){.kind = TEST_LOAD};
    for (size_t d = 0; d < depths.n; d++) {
        const int32_t at = (int32_t)depths.data[d];
        for (size_t i = 0; i < prompts.n; i++) {
            if (!prompts.data[i]) continue;
            b->tests[b->n_test++] = (bench_test){TEST_PROMPT, (int32_t)prompts.data[i], at, 1, "", NULL, 0};
        }
        for (size_t i = 0; i < gens.n * parallels.n; i++) {
            const int64_t n = gens.data[i / parallels.n], together = parallels.data[i % parallels.n];
            if (!n) continue;
            b->tests[b->n_test++] = (bench_test){TEST_GENERATE, (int32_t)n, at, (int32_t)together, "", NULL, 0};
        }
    }
}

/* The context length that the longest test needs, and at least one token per sequence, so that one step covers them
 * all. */
static int settle_context(bench *b) {
    int64_t need = 1;
    for (int i = 0; i < b->n_test; i++) {
        const bench_test *t = &b->tests[i];
        const int64_t n = (int64_t)t->depth + t->n_tok;
        if (n > need) need = n;
        if (t->n_parallel > need) need = t->n_parallel;
    }
    if (need > INT32_MAX) return usage_error("bench", "-d: %lld tokens are too many", (long long)need);
    const whole *given = &b->settings->n_ctx;
    if (given->given && given->value < need)
        return usage_error("bench", "-c: must be at least %lld for these tests, not %lld", (long long)need,
                           (long long)given->value);
    b->n_ctx = given->given ? (int32_t)given->value : (int32_t)need;
    return EXIT_DONE;
}

static int find_checkpoint(bench *b) {
    const settings *s = b->settings;
    if (!s->synthetic) {
        b->dir = model_dir(s);
        b->name = b->dir;
        return EXIT_DONE;
    }
    model_shape shape;
    int code = shape_parse(&shape, "bench", s->synthetic);
    if (!code) code = synth_temporary(&b->dir, &shape, QN_DTYPE_BF16);
    b->name = s->synthetic;
    return code;
}

static int plan_memory(bench *b) {
    qn_plan_options options = plan_options(b->settings);
    options.n_ctx = b->n_ctx;
    qn_error err;
    return qn_model_plan(&b->plan, b->dir, &options, &err) ? fail_error(b->name, &err) : EXIT_DONE;
}

/* The best rates of all rounds, as roof_measure() keeps them. */
static int measure_peaks(bench *b) {
    qn_device_peaks now;
    qn_error err;
    if (qn_device_measure_peaks(b->device, &now, &err)) return fail_error("bench", &err);
    roof *r = &b->roof;
    r->read_gbps = fmax(r->read_gbps, now.read_bytes * 1e-9);
    r->gflops[ROOF_F32] = fmax(r->gflops[ROOF_F32], now.f32_ops * 1e-9);
    r->gflops[ROOF_BF16] = fmax(r->gflops[ROOF_BF16], now.bf16_ops * 1e-9);
    b->upload_gbps = fmax(b->upload_gbps, now.upload_bytes * 1e-9);
    return EXIT_DONE;
}

static int measure_roof(bench *b) {
    if (interrupted()) return EXIT_INTERRUPTED;
    if (b->is_gpu) return measure_peaks(b);
    return roof_measure(&b->roof) ? EXIT_DONE : fail("bench", "cannot measure the roof: out of memory or threads");
}

static int run_test(bench *b, bench_test *t) {
    int code = t->kind == TEST_LOAD ? bench_load(b, t) : bench_sessions(b, t);
    if (!code) b->n_done++;
    /* a synthetic checkpoint is in memory now */
    if (t->kind == TEST_LOAD && b->settings->synthetic) directory_remove(b->dir);
    return code ? code : measure_roof(b);
}

static int run_all(bench *b) {
    const settings *s = b->settings;
    int code = open_device(&b->device, s, s->device, false);
    if (code) return code;
    qn_device_get_info(b->device, &b->info);
    b->is_gpu = strncmp(b->info.name, "cuda", 4) == 0;
    if (!b->is_gpu && !roof_open(&b->roof, b->info.isa, b->info.n_thread)) out_of_memory();
    code = find_checkpoint(b);
    if (code) return code;
    code = plan_memory(b);
    if (!code) code = measure_roof(b);
    if (code && s->synthetic) directory_remove(b->dir);
    for (int i = 0; !code && i < b->n_test; i++) code = run_test(b, &b->tests[i]);
    return code;
}

static void release(bench *b) {
    for (int32_t i = 0; i < b->n_session; i++) qn_session_free(b->sessions[i]);
    for (int i = 0; i < b->n_test; i++) free(b->tests[i].samples_s);
    qn_kv_pool_free(b->pool);
    free(b->sessions);
    free(b->ids);
    free(b->tests);
    free(b->dir);
    roof_close(&b->roof);
    qn_model_close(b->model);
    qn_device_close(b->device);
}

int command_bench(const settings *s) {
    if (s->model && s->synthetic) return usage_error("bench", "-m and --synthetic: only one of them");
    bench b = {.settings = s};
    interrupts_graceful(false);
    list_tests(&b);
    int code = settle_context(&b);
    if (!code) code = run_all(&b);
    /* after an interrupt or a failure, the results so far */
    if (b.n_done) bench_print(&b);
    release(&b);
    return code;
}

/* --- results of a test --- */

/* Weights that a token is multiplied with in the layers, and in the LM head. */
static double layer_weights(const qn_model_config *c) {
    const double q = (double)c->n_head * c->head_dim, kv = (double)c->n_kv_head * c->head_dim;
    return (double)c->n_layer * ((double)c->d_model * (2 * q + 2 * kv) + 3.0 * c->d_model * c->d_ff);
}
static double head_weights(const qn_model_config *c) {
    return (double)c->d_model * c->n_vocab;
}

/* Total of the positions that each token of a test attends to, itself included. */
static double visible(const bench_test *t) {
    const double n = t->n_tok;
    return n * t->depth + n * (n + 1) / 2;
}

/* The bytes that must be read. A prompt reads weights and cache once. A generation step reads all weights and the
 * visible cache of each sequence. Of an untied embedding only single rows are read; they are not counted. */
static double bytes_of(const bench *b, const bench_test *t) {
    const double weights = (double)(b->plan.weight_bytes - b->plan.table_bytes), token = (double)b->plan.kv_token_bytes;
    if (t->kind == TEST_LOAD) return (double)b->config.file_bytes;
    if (t->kind == TEST_PROMPT) return weights + token * ((double)t->depth + t->n_tok);
    return weights * t->n_tok + token * t->n_parallel * visible(t);
}

/* Multiplications and additions of the linears and of attention (dot product with each key, weighted sum of values).
 * For a prompt the LM head computes the last token only. */
static double ops_of(const bench *b, const bench_test *t) {
    const qn_model_config *c = &b->config;
    if (t->kind == TEST_LOAD) return NAN;
    const double attention = 4.0 * c->n_layer * c->n_head * c->head_dim * visible(t);
    const double rows = t->n_tok, head_rows = t->kind == TEST_PROMPT ? 1 : rows;
    return t->n_parallel * (2 * rows * layer_weights(c) + 2 * head_rows * head_weights(c) + attention);
}

static void mean_of(double *mean, double *deviation, const bench_test *t, double amount) {
    double sum = 0, squares = 0;
    for (int i = 0; i < t->n_sample; i++) sum += amount > 0 ? amount / t->samples_s[i] : t->samples_s[i];
    *mean = sum / t->n_sample;
    for (int i = 0; i < t->n_sample; i++) {
        const double x = (amount > 0 ? amount / t->samples_s[i] : t->samples_s[i]) - *mean;
        squares += x * x;
    }
    *deviation = t->n_sample > 1 ? sqrt(squares / (t->n_sample - 1)) : 0;
}

roof_arith bench_arith(const bench *b) {
    static const roof_arith of[] = {
        [QN_ARITH_F32] = ROOF_F32, [QN_ARITH_BF16] = ROOF_BF16, [QN_ARITH_INT8] = ROOF_INT8};
    const roof_arith arith = of[qn_model_arith(b->model)];
    return b->roof.gflops[arith] > 0 ? arith : ROOF_F32;
}

bench_figures bench_evaluate(const bench *b, const bench_test *t) {
    bench_figures f = {.mean_rate = NAN, .deviation_rate = NAN};
    const double tokens = (double)t->n_tok * t->n_parallel, peak = b->roof.gflops[bench_arith(b)];
    mean_of(&f.mean_s, &f.deviation_s, t, 0);
    if (t->kind != TEST_LOAD) mean_of(&f.mean_rate, &f.deviation_rate, t, tokens);
    const double times_a_second = t->kind == TEST_LOAD ? 1 / f.mean_s : f.mean_rate / tokens;
    f.gbps = bytes_of(b, t) * times_a_second * 1e-9;
    f.gflops = ops_of(b, t) * times_a_second * 1e-9;
    f.uploads = b->is_gpu && t->kind == TEST_LOAD;
    f.read_percent = 100 * f.gbps / (f.uploads ? b->upload_gbps : b->roof.read_gbps);
    f.arith_percent = 100 * f.gflops / peak;
    /* a prompt is compute bound, a single sequence memory bound; several may be either */
    f.by_arith =
        t->kind == TEST_PROMPT || (t->kind == TEST_GENERATE && t->n_parallel > 1 && f.arith_percent > f.read_percent);
    f.percent = f.by_arith ? f.arith_percent : f.read_percent;
    return f;
}
