/* SPDX-License-Identifier: Apache-2.0 */
/* The results of quern bench: a table, or rows of named fields as CSV or JSON. Fields that also exist in llama-bench
 * have its names and meaning. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "../open.h"
#include "../output.h"
#include "../records.h"
#include "bench.h"

static const char *arith_name(const bench *b) {
    static const char *const names[] = {[QN_ARITH_F32] = "f32", [QN_ARITH_BF16] = "bf16", [QN_ARITH_INT8] = "int8"};
    return names[qn_model_arith(b->model)];
}

static const char *roof_name(const bench *b, const bench_figures *f) {
    static const char *const names[N_ROOF_ARITH] = {[ROOF_F32] = "f32", [ROOF_BF16] = "bf16", [ROOF_INT8] = "int8"};
    return f->by_arith ? names[bench_arith(b)] : f->uploads ? "upload" : "read";
}

static const char *kv_name(const bench *b) {
    return qn_dtype_name(kv_dtype(b->settings));
}

/* "pp512", "tg128 @ d4096", "tg128 x16" for sixteen sequences. */
static void test_name(const bench_test *t, char *text, size_t size) {
    if (t->kind == TEST_LOAD) {
        snprintf(text, size, "load");
        return;
    }
    int n = snprintf(text, size, "%s%d", t->kind == TEST_PROMPT ? "pp" : "tg", t->n_tok);
    if (t->n_parallel > 1) n += snprintf(text + n, size - (size_t)n, " x%d", t->n_parallel);
    if (t->depth) snprintf(text + n, size - (size_t)n, " @ d%d", t->depth);
}

/* The weight format at run time: "bf16", "f8"; "q4" for 4-bit codes from the file or from --quantize. It is taken from
 * q_proj, like the file's type. --quantize skips weights that are already quantized or whose input width is not a
 * multiple of 32. */
static void weights_name(const bench *b, char *text, size_t size) {
    const qn_model_config *c = &b->config;
    const bool made = b->settings->quantize && !c->bits && c->d_model % 32 == 0;
    if (made)
        snprintf(text, size, "%s", b->settings->quantize == QN_QUANTIZE_Q4 ? "q4" : "q8");
    else if (c->dtype == QN_DTYPE_U32)
        snprintf(text, size, "q%d", c->bits);
    else
        snprintf(text, size, "%s", qn_dtype_name(c->dtype));
}

static void model_type(const bench *b, char *text, size_t size) {
    const double n = (double)b->config.n_parameter;
    const bool small = n < 0.95e8;
    char weights[16];
    weights_name(b, weights, sizeof(weights));
    snprintf(text, size, "qwen3 %.1f%c %s", n * (small ? 1e-6 : 1e-9), small ? 'M' : 'B', weights);
}

/* NaN if the ISA level has no such instruction. */
static double roof_of(const bench *b, roof_arith arith) {
    return b->roof.gflops[arith] > 0 ? b->roof.gflops[arith] : NAN;
}

static json_t *samples(const bench_test *t, double amount, double power) {
    json_t *list = json_array();
    for (int i = 0; i < t->n_sample; i++)
        json_array_append_new(list, json_number(amount * pow(t->samples_s[i], power)));
    return list;
}

/* The fields of the run, then those of the test. Values are numbers, strings or null. */
static json_t *describe_run(const bench *b) {
    char type[64];
    model_type(b, type, sizeof(type));
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:o, s:s, s:I, s:I, s:i, s:s, s:s}", "quern_version", qn_version(),
                     "cpu_info", json_text(b->info.description, strlen(b->info.description)), "backends", b->info.name,
                     "isa", b->info.isa, "arith", arith_name(b), "model_filename", json_text(b->name, strlen(b->name)),
                     "model_type", type, "model_size", (json_int_t)b->plan.weight_bytes, "model_n_params",
                     (json_int_t)b->config.n_parameter, "n_threads", (int)b->info.n_thread, "type_k", kv_name(b),
                     "type_v", kv_name(b));
}

static json_t *describe_test(const bench *b, const bench_test *t) {
    const bench_figures f = bench_evaluate(b, t);
    char name[64];
    test_name(t, name, sizeof(name));
    const bool loads = t->kind == TEST_LOAD;
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "test", name,
                     "n_prompt", t->kind == TEST_PROMPT ? (int)t->n_tok : 0, "n_gen",
                     t->kind == TEST_GENERATE ? (int)t->n_tok : 0, "n_depth", (int)t->depth, "n_parallel",
                     loads ? 0 : (int)t->n_parallel, "test_time", t->began, "avg_ns", json_number(1e9 * f.mean_s),
                     "stddev_ns", json_number(1e9 * f.deviation_s), "avg_ts", json_number(f.mean_rate), "stddev_ts",
                     json_number(f.deviation_rate), "gbps", json_number(f.gbps), "gflops", json_number(f.gflops),
                     "read_percent", json_number(f.read_percent), "arith_percent", json_number(f.arith_percent), "roof",
                     roof_name(b, &f), "percent", json_number(f.percent));
}

static json_t *describe_roof(const bench *b) {
    return json_pack("{s:o, s:i, s:o, s:o, s:o}", "roof_read_gbps", json_number(b->roof.read_gbps), "roof_read_streams",
                     b->roof.read_streams, "roof_f32_gflops", json_number(roof_of(b, ROOF_F32)), "roof_bf16_gflops",
                     json_number(roof_of(b, ROOF_BF16)), "roof_int8_gops", json_number(roof_of(b, ROOF_INT8)));
}

static json_t *describe(const bench *b, const bench_test *t) {
    json_t *row = describe_run(b), *test = describe_test(b, t), *roofs = describe_roof(b);
    if (!row || !test || !roofs) out_of_memory();
    json_object_update(row, test);
    json_object_update(row, roofs);
    json_decref(test);
    json_decref(roofs);
    return row;
}

/* --- output formats --- */

static void print_json(const bench *b) {
    for (int i = 0; i < b->n_done; i++) {
        const bench_test *t = &b->tests[i];
        json_t *row = describe(b, t);
        json_object_set_new(row, "samples_ns", samples(t, 1e9, 1));
        if (t->kind != TEST_LOAD)
            json_object_set_new(row, "samples_ts", samples(t, (double)t->n_tok * t->n_parallel, -1));
        fputs(i ? ",\n  " : "[\n  ", stdout);
        json_dumpf(row, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
        json_decref(row);
    }
    puts("\n]");
}

/* Every value is quoted, as in llama-bench; null is empty. */
static void print_csv_value(const json_t *value) {
    putchar('"');
    if (json_is_string(value)) {
        for (const char *p = json_string_value(value); *p; p++) {
            if (*p == '"') putchar('"');
            putchar(*p);
        }
    } else if (json_is_integer(value)) {
        printf("%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        printf("%.6f", json_real_value(value));
    }
    putchar('"');
}

static void print_csv(const bench *b) {
    for (int i = 0; i < b->n_done; i++) {
        json_t *row = describe(b, &b->tests[i]), *value;
        const char *key, *comma = "";
        if (!i) {
            json_object_foreach(row, key, value) {
                printf("%s%s", comma, key);
                comma = ",";
            }
            putchar('\n');
            comma = "";
        }
        json_object_foreach(row, key, value) {
            fputs(comma, stdout);
            print_csv_value(value);
            comma = ",";
        }
        putchar('\n');
        json_decref(row);
    }
}

static void print_md(const bench *b) {
    char type[64], backend[64];
    model_type(b, type, sizeof(type));
    snprintf(backend, sizeof(backend), "%s %s", b->info.name, b->info.isa);
    const int type_width = (int)strlen(type), backend_width = (int)strlen(backend);
    printf("| %-*s | %10s | %10s | %-*s | %7s | %-5s | %-4s | %18s | %20s | %14s | %14s |\n", type_width, "model",
           "size", "params", backend_width, "backend", "threads", "arith", "kv", "test", "t/s", "rate", "roof");
    printf("| %.*s | ---------: | ---------: | %.*s | ------: | ----- | ---- | -----------------: | "
           "-------------------: | -------------: | -------------: |\n",
           type_width, "----------------------------------------------------------------", backend_width,
           "----------------------------------------------------------------");
    for (int i = 0; i < b->n_done; i++) {
        const bench_test *t = &b->tests[i];
        const bench_figures f = bench_evaluate(b, t);
        char size[32], params[32], name[64], speed[64], rate[32], percent[32];
        snprintf(size, sizeof(size), "%.2f GiB", (double)b->plan.weight_bytes * 0x1p-30);
        const double n = (double)b->config.n_parameter;
        snprintf(params, sizeof(params), n < 1e9 ? "%.2f M" : "%.2f B", n < 1e9 ? n * 1e-6 : n * 1e-9);
        test_name(t, name, sizeof(name));
        if (t->kind == TEST_LOAD)
            snprintf(speed, sizeof(speed), "%.3f ± %.3f s", f.mean_s, f.deviation_s);
        else
            snprintf(speed, sizeof(speed), "%.2f ± %.2f", f.mean_rate, f.deviation_rate);
        snprintf(rate, sizeof(rate), f.by_arith ? "%.1f GFLOP/s" : "%.1f GB/s", f.by_arith ? f.gflops : f.gbps);
        snprintf(percent, sizeof(percent), "%.0f %% of %s", f.percent, roof_name(b, &f));
        /* ± is two bytes in UTF-8 but one column */
        printf("| %s | %10s | %10s | %s | %7d | %-5s | %-4s | %18s | %21s | %14s | %14s |\n", type, size, params,
               backend, b->info.n_thread, arith_name(b), kv_name(b), name, speed, rate, percent);
    }
    if (b->is_gpu) {
        printf("\n%s reads %.1f GB/s, takes %.1f GB/s from the host, f32 %.1f GFLOP/s", b->info.description,
               b->roof.read_gbps, b->upload_gbps, b->roof.gflops[ROOF_F32]);
    } else {
        printf("\n%s, %d threads read %.1f GB/s (%d streams each), f32 %.1f GFLOP/s", b->info.description,
               b->info.n_thread, b->roof.read_gbps, b->roof.read_streams, b->roof.gflops[ROOF_F32]);
    }
    if (b->roof.gflops[ROOF_BF16] > 0) printf(", bf16 %.1f GFLOP/s", b->roof.gflops[ROOF_BF16]);
    if (b->roof.gflops[ROOF_INT8] > 0) printf(", int8 %.1f GOP/s", b->roof.gflops[ROOF_INT8]);
    printf("; quern %s\n", qn_version());
}

void bench_print(const bench *b) {
    switch (b->settings->output) {
    case OUTPUT_CSV:
        print_csv(b);
        break;
    case OUTPUT_JSON:
        print_json(b);
        break;
    default:
        print_md(b);
    }
}
