/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the loops of a round on its own threads and keeps the best result. */
#include "roof.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* Reads alternate between slices as large as the largest weights, so that neither a cache nor a burst of a few hundred
 * microseconds sets the result. */
enum { SLICE_BYTES = 256 << 20, N_SLICE = 2, LINE_WORDS = 8, MAX_STREAM = 8, N_STREAM_CASE = 4 };
/* A turn reads a slice once with each number of streams, and runs each loop several times. */
enum { N_TURN = 4, N_MULTIPLY = 6, MAX_LOOP = 8, MAX_STEP = N_TURN * (N_STREAM_CASE + N_MULTIPLY * MAX_LOOP) };
enum { MAX_THREAD = 512, LARGE_PAGE = 2 << 20 };
static const double multiply_ops = 2e8; /* per thread and step: some milliseconds */
static const double enough_s = 1;       /* no new turn after this time */

/* What all threads do simultaneously: read a slice, or run a loop. */
typedef struct step {
    const roof_loop *loop; /* NULL: read */
    int slice, n_stream;
    bool begins_turn;
} step;

typedef struct span {
    double begin_s, end_s;
} span;

typedef struct round_job {
    const roof *roof;
    step steps[MAX_STEP];
    int n_step;
    span *spans; /* {n_step, n_thread}; zero if the step was skipped */
    double begin_s;
    atomic_int n_arrived;
    atomic_bool ended;
} round_job;

typedef struct worker {
    round_job *job;
    int32_t thread;
    pthread_t id;
} worker;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int n_loop_of(const char *isa, const roof_loop *out[MAX_LOOP]) {
    int n = 0;
    const struct {
        const roof_loop *loops;
        int n;
    } levels[] = {
        {&roof_loop_portable, 1},
#if defined(__x86_64__)
        {roof_loops_avx2, N_ROOF_AVX2},
        {roof_loops_avx512, N_ROOF_AVX512},
#elif defined(__aarch64__)
        {roof_loops_neon, N_ROOF_NEON},
#endif
    };
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        for (int i = 0; i < levels[l].n; i++) {
            const roof_loop *loop = &levels[l].loops[i];
            if (strcmp(loop->isa, isa) == 0 && (loop->usable == NULL || loop->usable())) out[n++] = loop;
        }
    }
    if (n == 0) out[n++] = &roof_loop_portable;
    return n;
}

/* Words per thread and slice, a multiple of one iteration with all streams. */
static size_t part_words(const roof *r) {
    return (size_t)SLICE_BYTES / sizeof(uint64_t) / (size_t)r->n_thread / (LINE_WORDS * MAX_STREAM) *
           (LINE_WORDS * MAX_STREAM);
}

/* The parts of a thread are contiguous, so that first touch places their pages near it. */
static uint64_t *part_of(const roof *r, int32_t thread, int slice) {
    return r->data + ((size_t)thread * N_SLICE + (size_t)slice) * part_words(r);
}

/* Spin until all threads have reached this step. */
static bool meet(round_job *job, int index) {
    atomic_fetch_add(&job->n_arrived, 1);
    while (atomic_load(&job->n_arrived) < (index + 1) * job->roof->n_thread) {
        if (atomic_load(&job->ended)) return false;
        sched_yield();
    }
    return !atomic_load(&job->ended);
}

static void *work(void *context) {
    const worker *w = context;
    round_job *job = w->job;
    const roof *r = job->roof;
    volatile double sink;
    if (r->n_round == 0) roof_fill(part_of(r, w->thread, 0), N_SLICE * part_words(r));
    for (int i = 0; i < job->n_step; i++) {
        const step *s = &job->steps[i];
        /* one thread decides before the others pass the barrier */
        if (w->thread == 0 && i > 0 && s->begins_turn && seconds() - job->begin_s > enough_s) {
            atomic_store(&job->ended, true);
        }
        if (!meet(job, i)) break;
        span *time = &job->spans[(size_t)i * (size_t)r->n_thread + (size_t)w->thread];
        time->begin_s = seconds();
        sink = s->loop != NULL ? s->loop->run((int64_t)(multiply_ops / s->loop->ops))
                               : (double)roof_read(part_of(r, w->thread, s->slice), part_words(r), s->n_stream);
        time->end_s = seconds();
    }
    (void)sink;
    return NULL;
}

static bool run_on_threads(round_job *job) {
    worker workers[MAX_THREAD];
    int32_t n = 1; /* the calling thread is the first worker */
    workers[0] = (worker){.job = job};
    for (; n < job->roof->n_thread; n++) {
        workers[n] = (worker){.job = job, .thread = n};
        if (pthread_create(&workers[n].id, NULL, work, &workers[n]) != 0) break;
    }
    bool good = n == job->roof->n_thread;
    if (good) {
        (void)work(&workers[0]);
    } else {
        atomic_store(&job->ended, true);
    }
    while (--n > 0) pthread_join(workers[n].id, NULL);
    return good;
}

/* Time from the first thread's start to the last one's end. */
static double step_seconds(const round_job *job, int index) {
    const int32_t n = job->roof->n_thread;
    const span *times = job->spans + (size_t)index * (size_t)n;
    span all = times[0];
    for (int32_t i = 1; i < n; i++) {
        if (times[i].begin_s < all.begin_s) all.begin_s = times[i].begin_s;
        if (times[i].end_s > all.end_s) all.end_s = times[i].end_s;
    }
    return all.end_s - all.begin_s;
}

static void keep_best(roof *r, const round_job *job) {
    for (int i = 0; i < job->n_step; i++) {
        const step *s = &job->steps[i];
        double time = step_seconds(job, i), n_thread = r->n_thread;
        if (time <= 0) continue;
        if (s->loop != NULL) {
            double gflops = (double)(int64_t)(multiply_ops / s->loop->ops) * s->loop->ops * n_thread / time * 1e-9;
            if (gflops > r->gflops[s->loop->arith]) r->gflops[s->loop->arith] = gflops;
            continue;
        }
        double gbps = (double)(part_words(r) * sizeof(uint64_t)) * n_thread / time * 1e-9;
        if (gbps <= r->read_gbps) continue;
        r->read_gbps = gbps;
        r->read_streams = s->n_stream;
    }
}

bool roof_open(roof *out, const char *isa, int32_t n_thread) {
    *out = (roof){.isa = isa, .n_thread = n_thread < MAX_THREAD ? n_thread : MAX_THREAD};
    const size_t bytes = (size_t)SLICE_BYTES * N_SLICE;
    out->data = aligned_alloc(LARGE_PAGE, bytes);
    if (out->data == NULL) return false;
    (void)madvise(out->data, bytes, MADV_HUGEPAGE); /* as for weights */
    return true;
}

void roof_close(roof *r) {
    free(r->data);
    r->data = NULL;
}

static void plan_steps(round_job *job) {
    const roof_loop *loops[MAX_LOOP];
    const int n_loop = n_loop_of(job->roof->isa, loops);
    for (int turn = 0; turn < N_TURN; turn++) {
        for (int i = 0; i < N_STREAM_CASE; i++) {
            job->steps[job->n_step++] = (step){.slice = turn % N_SLICE, .n_stream = 1 << i, .begins_turn = i == 0};
        }
        for (int i = 0; i < n_loop * N_MULTIPLY; i++) job->steps[job->n_step++] = (step){.loop = loops[i % n_loop]};
    }
}

bool roof_measure(roof *r) {
    round_job job = {.roof = r, .begin_s = seconds()};
    plan_steps(&job);
    job.spans = calloc((size_t)job.n_step * (size_t)r->n_thread, sizeof *job.spans);
    bool good = job.spans != NULL && run_on_threads(&job);
    if (good) keep_best(r, &job);
    if (good) r->n_round++;
    free(job.spans);
    return good;
}
