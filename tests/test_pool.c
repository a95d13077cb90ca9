/* SPDX-License-Identifier: Apache-2.0 */
/* The thread pool: every task runs once, thread numbers are unique, many loops in a row, and more threads than
 * processors. */
#include "../src/base/cgroup.h"
#include "../src/base/processor.h"
#include "../src/base/thread_pool.h"
#include "support/cmocka_all.h"

#include <string.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_TASK = 1000, MAX_THREAD = 5 };

typedef struct loop {
    int count[MAX_TASK];             /* not atomic: TSan detects a task that two threads run */
    atomic_int busy[MAX_THREAD + 1]; /* tasks running with this thread number */
    atomic_int bad;
    int32_t n_thread;
} loop;

static void count_task(void *context, int32_t task, int32_t thread) {
    loop *l = context;
    if (thread < 0 || thread >= l->n_thread) {
        atomic_fetch_add(&l->bad, 1);
        return;
    }
    if (atomic_fetch_add(&l->busy[thread], 1) != 0) atomic_fetch_add(&l->bad, 1);
    l->count[task]++;
    atomic_fetch_sub(&l->busy[thread], 1);
}

static void every_task_runs_once(void **state) {
    (void)state;
    const int32_t sizes[] = {0, 1, 2, 3, 7, 64, MAX_TASK};
    for (int32_t n_thread = 1; n_thread <= MAX_THREAD; n_thread++) {
        qni_pool *pool = NULL;
        assert_int_equal(qni_pool_create(&pool, n_thread, false, NULL), QN_OK);
        assert_int_equal(qni_pool_n_thread(pool), n_thread);
        for (int round = 0; round < 200; round++) {
            int32_t n_task = sizes[round % 7];
            static loop l;
            memset(&l, 0, sizeof l);
            l.n_thread = n_thread;
            qni_pool_run(pool, n_task, count_task, &l);
            assert_int_equal(l.bad, 0);
            for (int32_t i = 0; i < MAX_TASK; i++) assert_int_equal(l.count[i], i < n_task ? 1 : 0);
        }
        qni_pool_free(pool);
    }
}

typedef struct chain {
    int64_t a[8], b[8];
} chain;

static void add_left(void *context, int32_t task, int32_t thread) {
    (void)thread;
    chain *c = context;
    c->b[task] = c->a[(task + 1) % 8] + 1;
}
static void add_right(void *context, int32_t task, int32_t thread) {
    (void)thread;
    chain *c = context;
    c->a[task] = c->b[(task + 1) % 8] + 1;
}

/* Each loop reads what other threads wrote in the previous one: the end of a loop is a barrier. Pauses let the
 * workers fall asleep in between. */
static void loops_end_with_a_barrier(void **state) {
    (void)state;
    for (int32_t n_thread = 1; n_thread <= MAX_THREAD; n_thread += 2) {
        qni_pool *pool = NULL;
        assert_int_equal(qni_pool_create(&pool, n_thread, false, NULL), QN_OK);
        chain c = {0};
        enum { ROUNDS = 2000 };
        for (int round = 0; round < ROUNDS; round++) {
            qni_pool_run(pool, 8, add_left, &c);
            if (round % 250 == 0) usleep(2000);
            qni_pool_run(pool, 8, add_right, &c);
        }
        for (int i = 0; i < 8; i++) assert_int_equal(c.a[i], 2 * ROUNDS);
        qni_pool_free(pool);
    }
}

static void slow_task(void *context, int32_t task, int32_t thread) {
    (void)thread;
    if (task == 0) usleep(3000);
    atomic_fetch_add((atomic_int *)context, 1);
}

/* The last task outlasts the caller's spinning: the caller sleeps and is woken. */
static void caller_waits_for_a_slow_worker(void **state) {
    (void)state;
    qni_pool *pool = NULL;
    assert_int_equal(qni_pool_create(&pool, 4, false, NULL), QN_OK);
    for (int round = 0; round < 20; round++) {
        atomic_int done = 0;
        qni_pool_run(pool, 4, slow_task, &done);
        assert_int_equal(done, 4);
    }
    qni_pool_free(pool);
}

typedef struct meeting {
    atomic_int n_come, n_missed;
} meeting;

/* A task waits until all have begun, so that each needs its own thread; one that does not arrive within 20 s counts
 * as missing. */
static void wait_for_all(void *context, int32_t task, int32_t thread) {
    (void)task;
    (void)thread;
    meeting *m = context;
    atomic_fetch_add(&m->n_come, 1);
    for (int i = 0; i < 200000 && m->n_come < MAX_THREAD && m->n_missed == 0; i++) usleep(100);
    if (m->n_come < MAX_THREAD) atomic_fetch_add(&m->n_missed, 1);
}

/* From the first loop on. Debug builds begin where the loop number wraps; 0 is what a new worker has last seen. */
static void every_thread_takes_part(void **state) {
    (void)state;
    qni_pool *pool = NULL;
    assert_int_equal(qni_pool_create(&pool, MAX_THREAD, false, NULL), QN_OK);
    for (int round = 0; round < 5; round++) {
        meeting m = {0};
        qni_pool_run(pool, MAX_THREAD, wait_for_all, &m);
        assert_int_equal(m.n_missed, 0);
        assert_int_equal(m.n_come, MAX_THREAD);
    }
    qni_pool_free(pool);
}

static void note_mask(void *context, int32_t task, int32_t thread) {
    (void)task;
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (thread > 0 && !sigismember(&mask, SIGINT)) atomic_fetch_add((atomic_int *)context, 1);
    usleep(1000);
}

static void workers_take_no_signals(void **state) {
    (void)state;
    qni_pool *pool = NULL;
    assert_int_equal(qni_pool_create(&pool, 3, false, NULL), QN_OK);
    atomic_int bad = 0;
    qni_pool_run(pool, 30, note_mask, &bad);
    assert_int_equal(bad, 0);
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_false(sigismember(&mask, SIGINT));
    qni_pool_free(pool);
    qni_pool_free(NULL);
}

static void note_cpus(void *context, int32_t task, int32_t thread) {
    (void)task;
    cpu_set_t own;
    if (sched_getaffinity(0, sizeof own, &own) == 0) ((int32_t *)context)[thread] = CPU_COUNT(&own);
    usleep(1000);
}

/* Each worker is pinned to one CPU, the caller keeps its affinity. */
static void workers_may_be_pinned(void **state) {
    (void)state;
    qni_pool *pool = NULL;
    cpu_set_t allowed;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    const int32_t n_cpu = CPU_COUNT(&allowed);
    int32_t count[3] = {n_cpu, 1, 1};
    assert_int_equal(qni_pool_create(&pool, 3, true, NULL), QN_OK);
    qni_pool_run(pool, 30, note_cpus, count);
    assert_int_equal(count[0], n_cpu);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 1);
    qni_pool_free(pool);
}

/* Thread creation fails: an error, and threads already started are joined. RLIMIT_NPROC does not bind root, so the
 * address space is exhausted instead: 512 stacks do not fit. */
static void refused_threads_are_an_error(void **state) {
    (void)state;
#if defined(QNI_DEBUG)
    skip(); /* the sanitizers' shadow memory needs the address space */
#else
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    small = old;
    small.rlim_cur = (rlim_t)1 << 30;
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    struct rlimit taken;
    assert_int_equal(getrlimit(RLIMIT_AS, &taken), 0);
    if (taken.rlim_cur != small.rlim_cur) skip(); /* qemu does not enforce the limit, and reports so */
    qni_pool *pool = NULL;
    qn_error err = {0};
    qn_status status = qni_pool_create(&pool, 512, false, &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_int_equal(status, QN_ENOMEM);
    assert_null(pool);
    assert_non_null(strstr(err.message, "of 511 cannot be started"));
#endif
}

static void reports_processor_and_memory(void **state) {
    (void)state;
    assert_true(qni_cpu_count() >= 1);
    char name[96], tiny[4];
    qni_cpu_name(name, sizeof name);
    assert_true(strlen(name) > 0 && strchr(name, '\n') == NULL);
    qni_cpu_name(tiny, sizeof tiny);
    assert_memory_equal(tiny, name, 3);
    assert_int_equal(tiny[3], '\0');
    uint64_t total, available;
    qni_memory_info(&total, &available);
    uint64_t expected = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    qni_cgroup_limits limits;
    qni_cgroup_read(&limits, "");
    assert_true(total == (expected < limits.memory_bytes ? expected : limits.memory_bytes));
    assert_true(available > 0 && available <= total);
    qni_cpu_features f = qni_cpu_detect();
    assert_true(!f.avx512 || f.avx2_fma_f16c);
    assert_true(!f.avx512_bf16 || f.avx512);
#if defined(__x86_64__)
    assert_int_equal(f.avx2_fma_f16c, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),           cmocka_unit_test(loops_end_with_a_barrier),
        cmocka_unit_test(caller_waits_for_a_slow_worker), cmocka_unit_test(workers_take_no_signals),
        cmocka_unit_test(every_thread_takes_part),        cmocka_unit_test(workers_may_be_pinned),
        cmocka_unit_test(refused_threads_are_an_error),   cmocka_unit_test(reports_processor_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
