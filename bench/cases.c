/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times each primitive at the cases of the tests (tests/data/primitives), on every backend and instruction set level, in
 * the form that models use: fused, with packed linears. Small shapes: what is seen is mostly what a call costs.
 *
 *   build/release/bench/cases [--threads N] [--repeat N]
 */
#include "../tests/support/problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_CASE = 9 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of some calls, in microseconds. The caches are written at the same place each time. */
static double time_us(primitive_id id, const bench *s, int repeat) {
    double best = 1e30;
    for (int i = 0; i < repeat; i++) {
        double start = now();
        (void)primitive_compute(id, s);
        double time = now() - start;
        if (time < best) best = time;
    }
    return best * 1e6;
}

static void time_case(const problem *p, const device_case *dc, int32_t n_thread, int repeat) {
    qn_device *device = device_open(dc, n_thread);
    bench s;
    bench_make(&s, p, device, all_f32, dc->packed);
    printf("  %-14s", dc->is_ref ? "ref" : dc->isa);
    for (primitive_id id = 0; id < N_PRIMITIVE; id++) printf(" %19.1f", time_us(id, &s, repeat));
    printf("\n");
    bench_free(&s);
    qn_device_close(device);
}

int main(int argc, char **argv) {
    int32_t n_thread = 0;
    int repeat = 200;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--threads") == 0) {
            n_thread = (int32_t)strtol(argv[i + 1], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "--repeat") == 0) {
            repeat = (int)strtol(argv[i + 1], NULL, 10);
        } else {
            fprintf(stderr, "usage: cases [--threads N] [--repeat N]\n");
            return 2;
        }
    }
    device_case cases[MAX_DEVICE_CASE];
    int n_case = device_cases(cases);
    printf("microseconds, best of %d\n%16s", repeat, "");
    for (primitive_id id = 0; id < N_PRIMITIVE; id++) printf(" %19s", primitive_name(id));
    printf("\n");
    for (int i = 0; i < N_CASE; i++) {
        char path[64];
        problem p;
        snprintf(path, sizeof path, "tests/data/primitives/case%d.safetensors", i);
        problem_golden(&p, path);
        printf("case%d: B %d T %d H %d I %d heads %d/%d of %d, offset %d\n", i, (int)p.b, (int)p.t, (int)p.h, (int)p.i,
               (int)p.nq, (int)p.nkv, (int)p.d, (int)p.offset);
        for (int c = 0; c < n_case; c++) {
            if (!cases[c].compose && cases[c].packed) time_case(&p, &cases[c], n_thread, repeat);
        }
        problem_free(&p);
    }
    return 0;
}
