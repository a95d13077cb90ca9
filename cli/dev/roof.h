/* SPDX-License-Identifier: Apache-2.0 */
/* Measures the machine's roofline: memory bandwidth and peak arithmetic rate, with loops that only read or only
 * multiply and add, on all threads at once. It depends on nothing else, so that the benchmark of the ops (bench/) can
 * use it too. */
#ifndef CLI_ROOF_H
#define CLI_ROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arithmetic of the linears: f32 multiply-add, bf16 and int8 dot product. */
typedef enum roof_arith { ROOF_F32, ROOF_BF16, ROOF_INT8, N_ROOF_ARITH } roof_arith;

/* The best of all rounds so far, summed over all threads. */
typedef struct roof {
    double read_gbps;
    int read_streams;            /* streams per thread that reached it */
    double gflops[N_ROOF_ARITH]; /* GOP/s for int8; 0: the level has no such instruction */
    /* internal */
    const char *isa;
    int32_t n_thread;
    uint64_t *data;
    int n_round;
} roof;

/* isa: the level whose arithmetic is measured, as named by qn_device_info; it must outlive the roof. Returns false if
 * out of memory. */
bool roof_open(roof *out, const char *isa, int32_t n_thread);
void roof_close(roof *r);

/* Run one round, about half a second. Call it before, between and after the benchmarked work: other load on the machine
 * lowers both. Returns false if a thread could not be started. */
bool roof_measure(roof *r);

/* --- the loops, one file per level --- */

void roof_fill(uint64_t *data, size_t n);

/* Read n words (a multiple of 8 * n_stream) as n_stream parallel streams. The result keeps the compiler from removing
 * the reads. */
uint64_t roof_read(const uint64_t *data, size_t n, int n_stream);

/* Independent chains of one instruction, repeated `rounds` times. An arithmetic may have several candidate loops. */
typedef struct roof_loop {
    const char *isa;
    roof_arith arith;
    double ops; /* per round; a multiply-add counts as two */
    double (*run)(int64_t rounds);
    bool (*usable)(void); /* NULL: whenever the level is */
} roof_loop;

extern const roof_loop roof_loop_portable;
enum { N_ROOF_AVX2 = 2, N_ROOF_AVX512 = 3, N_ROOF_NEON = 5 };
extern const roof_loop roof_loops_avx2[N_ROOF_AVX2];
extern const roof_loop roof_loops_avx512[N_ROOF_AVX512];
extern const roof_loop roof_loops_neon[N_ROOF_NEON];

#endif
