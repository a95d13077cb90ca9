/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at most, measured: loops that only read, or only multiply and add, on all threads at once.
 * Stands alone, so that the benchmark of the ops (bench/) uses it too. */
#ifndef CLI_ROOF_H
#define CLI_ROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arithmetics of the linears: f32 multiply-add, bf16 and int8 dot product. */
typedef enum roof_arith { ROOF_F32, ROOF_BF16, ROOF_INT8, N_ROOF_ARITH } roof_arith;

/* The best of all rounds so far, over all threads. */
typedef struct roof {
    double read_gbps;
    int read_streams;            /* of a thread, that gave it */
    double gflops[N_ROOF_ARITH]; /* for int8 GOP/s; 0: the level has no such instruction */
    /* inside */
    const char *isa;
    int32_t n_thread;
    uint64_t *data;
    int n_round;
} roof;

/* isa: the level whose arithmetic counts, as qn_device_info names it; it must outlive the roof. False: no memory. */
bool roof_open(roof *out, const char *isa, int32_t n_thread);
void roof_close(roof *r);

/* One round: about half a second. Call it before, between and after what is measured: other work on the machine lowers
 * both. False: a thread could not be started. */
bool roof_measure(roof *r);

/* --- the loops, one file a level --- */

void roof_fill(uint64_t *data, size_t n);

/* Reads n words (a multiple of 8 * n_stream) as n_stream parallel streams; the result keeps the reads alive. */
uint64_t roof_read(const uint64_t *data, size_t n, int n_stream);

/* Independent chains of one instruction, `rounds` times; an arithmetic may have several candidates. */
typedef struct roof_loop {
    const char *isa;
    roof_arith arith;
    double ops; /* of a round; a multiply-add is two */
    double (*run)(int64_t rounds);
    bool (*usable)(void); /* NULL: with the level */
} roof_loop;

extern const roof_loop roof_loop_portable;
enum { N_ROOF_AVX2 = 2, N_ROOF_AVX512 = 3, N_ROOF_NEON = 5 };
extern const roof_loop roof_loops_avx2[N_ROOF_AVX2];
extern const roof_loop roof_loops_avx512[N_ROOF_AVX512];
extern const roof_loop roof_loops_neon[N_ROOF_NEON];

#endif
