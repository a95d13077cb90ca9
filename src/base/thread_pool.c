/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread pool. One atomic word, the gate, opens and closes a loop: loop number, open bit, and number of workers
 * inside. A worker enters only an open gate. So the caller waits only for workers that entered, never for one that the
 * system has not scheduled: with more threads than processors a loop costs no more than with one thread per processor.
 *
 * The tasks of a loop are divided into equal ranges. A thread runs its own range in order, so that it accesses memory
 * sequentially and touches the same data in each loop. Then it steals from the ends of other threads' ranges.
 */
#include "thread_pool.h"

#include "cut.h"
#include "memory.h"
#include "processor.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* gate = loop number << 32 | open << 31 | workers inside */
#define GATE_OPEN   ((uint64_t)1 << 31)
#define GATE_INSIDE (GATE_OPEN - 1)

/* Polls of the gate before a thread sleeps: a wake-up costs about as much as SPIN_LONG pauses (some 20 to 50 us).
 * With more threads than processors, a spinning thread would keep a working one from running. */
enum { SPIN_LONG = QNI_CUT(1000, 50), SPIN_SHORT = QNI_CUT(16, 2) };

/* Initial loop number of a new pool: a debug build starts just before the counter wraps. */
#define LAST_LOOP QNI_CUT((uint64_t)0, (uint64_t)UINT32_MAX)

/* Tasks left to a thread: first << 32 | end. */
typedef struct share {
    _Alignas(QNI_ALIGN) _Atomic uint64_t range;
} share;

struct qni_pool {
    /* The current loop; written while the gate is closed and no worker is inside. */
    qni_task task;
    void *context;
    int64_t n_task;
    int32_t n_thread;
    int32_t n_spin;
    _Alignas(QNI_ALIGN) _Atomic uint64_t gate;
    _Alignas(QNI_ALIGN) atomic_bool stop;
    atomic_int n_asleep;      /* workers in wait(work), or about to be */
    atomic_bool caller_waits; /* in wait(left), or about to be */
    pthread_mutex_t mutex;
    pthread_cond_t work; /* a gate has opened, or stop */
    pthread_cond_t left; /* the last worker has left a closed gate */
    int32_t n_started;
    pid_t owner;   /* the process that started the workers: a forked child has none */
    share *shares; /* {n_thread} */
    struct worker {
        qni_pool *pool;
        pthread_t thread;
        int32_t index;
    } workers[];
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Round to nearest, subnormals enabled, exceptions masked. */
#if defined(__x86_64__)
enum { DEFAULT_ARITHMETIC = 0x1F80 };
#else
enum { DEFAULT_ARITHMETIC = 0 };
#endif

/* Set this thread's floating-point mode; returns the previous one. A host may flush subnormals to zero, and new
 * threads inherit that: results must not depend on it. */
static uint64_t set_arithmetic(uint64_t mode) {
    uint64_t before = mode;
#if defined(__x86_64__)
    before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr((uint32_t)mode);
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#endif
    return before;
}

static void divide_tasks(qni_pool *pool) {
    for (int64_t i = 0; i < pool->n_thread; i++) {
        uint64_t first = (uint64_t)(pool->n_task * i / pool->n_thread);
        uint64_t end = (uint64_t)(pool->n_task * (i + 1) / pool->n_thread);
        atomic_store_explicit(&pool->shares[i].range, first << 32 | end, memory_order_relaxed);
    }
}

/* The owner takes the first task of a share, other threads the last; -1: none left. */
static int64_t claim_task(share *from, bool is_own) {
    uint64_t range = atomic_load_explicit(&from->range, memory_order_relaxed), left;
    do {
        uint64_t first = range >> 32, end = (uint32_t)range;
        if (first >= end) return -1;
        left = is_own ? (first + 1) << 32 | end : first << 32 | (end - 1);
    } while (
        !atomic_compare_exchange_weak_explicit(&from->range, &range, left, memory_order_relaxed, memory_order_relaxed));
    return (int64_t)(is_own ? range >> 32 : (uint32_t)range - 1);
}

static void run_tasks(qni_pool *pool, int32_t thread) {
    for (int32_t i = 0; i < pool->n_thread; i++) {
        share *from = &pool->shares[(thread + i) % pool->n_thread];
        for (int64_t task; (task = claim_task(from, i == 0)) >= 0;) pool->task(pool->context, (int32_t)task, thread);
    }
}

/* Whether the gate is open for a loop after `seen`. */
static bool is_new(uint64_t gate, uint64_t seen) {
    return (gate & GATE_OPEN) != 0 && gate >> 32 != seen;
}

static void sleep_until_work(qni_pool *pool, uint64_t seen) {
    pthread_mutex_lock(&pool->mutex);
    /* Sequentially consistent with open(): either it sees us asleep, or we see its gate. */
    atomic_fetch_add(&pool->n_asleep, 1);
    while (!atomic_load(&pool->stop) && !is_new(atomic_load(&pool->gate), seen)) {
        pthread_cond_wait(&pool->work, &pool->mutex);
    }
    atomic_fetch_sub(&pool->n_asleep, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void leave_loop(qni_pool *pool) {
    uint64_t before = atomic_fetch_sub(&pool->gate, 1);
    bool is_last = (before & GATE_INSIDE) == 1 && (before & GATE_OPEN) == 0;
    if (is_last && atomic_load(&pool->caller_waits)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->left);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void *run_worker(void *argument) {
    struct worker *worker = argument;
    qni_pool *pool = worker->pool;
    uint64_t seen = 0;
    int32_t spun = 0;
    (void)set_arithmetic(DEFAULT_ARITHMETIC);
    for (;;) {
        uint64_t gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
        if (is_new(gate, seen)) {
            /* gate + 1 enters; on failure the loop re-examines the gate. */
            if (atomic_compare_exchange_strong(&pool->gate, &gate, gate + 1)) {
                seen = gate >> 32;
                run_tasks(pool, worker->index);
                leave_loop(pool);
            }
            spun = 0;
        } else if (atomic_load_explicit(&pool->stop, memory_order_acquire)) {
            return NULL;
        } else if (spun < pool->n_spin) {
            spun++;
            relax();
        } else {
            sleep_until_work(pool, seen);
            spun = 0;
        }
    }
}

static bool is_empty(const qni_pool *pool) {
    return (atomic_load(&pool->gate) & GATE_INSIDE) == 0;
}

static void wait_until_left(qni_pool *pool) {
    for (int32_t spun = 0; spun < pool->n_spin; spun++) {
        if (is_empty(pool)) return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    /* Sequentially consistent with leave_loop(): either it sees us wait, or we see that it has left. An exchange, not a
     * store: qemu lets the load of the gate overtake an AArch64 store-release. */
    atomic_exchange(&pool->caller_waits, true);
    while (!is_empty(pool)) pthread_cond_wait(&pool->left, &pool->mutex);
    atomic_store(&pool->caller_waits, false);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_with_workers(qni_pool *pool, int32_t n_task, qni_task task, void *context) {
    pool->task = task;
    pool->context = context;
    pool->n_task = n_task;
    divide_tasks(pool);
    /* 0 is no valid loop number: new workers start with it as the last one seen. */
    uint32_t number = (uint32_t)(atomic_load_explicit(&pool->gate, memory_order_relaxed) >> 32) + 1;
    if (number == 0) number = 1;
    atomic_store(&pool->gate, (uint64_t)number << 32 | GATE_OPEN);
    if (atomic_load(&pool->n_asleep) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
    run_tasks(pool, 0);
    atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    wait_until_left(pool);
}

void qni_pool_run(qni_pool *pool, int32_t n_task, qni_task task, void *context) {
    const uint64_t before = set_arithmetic(DEFAULT_ARITHMETIC);
    if (pool->n_started == 0 || n_task <= 1) {
        for (int32_t i = 0; i < n_task; i++) task(context, i, 0);
    } else {
        run_with_workers(pool, n_task, task, context);
    }
    (void)set_arithmetic(before);
}

/* Workers block all signals, which belong to the host program's threads. */
static int start_worker(struct worker *worker) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&worker->thread, NULL, run_worker, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}

qn_status qni_pool_create(qni_pool **out, int32_t n_thread, bool pin, qn_error *err) {
    const size_t fixed = qni_round_up(sizeof(qni_pool) + (size_t)n_thread * sizeof(struct worker), QNI_ALIGN);
    const size_t bytes = fixed + (size_t)n_thread * sizeof(share);
    qn_allocator c_library = {0};
    qni_pool *pool = qni_device_alloc(&c_library, bytes);
    if (pool == NULL) return qni_fail(err, QN_ENOMEM, "no memory for a pool of %d threads", n_thread);
    memset(pool, 0, bytes);
    pool->n_thread = n_thread;
    pool->owner = getpid();
    pool->shares = (share *)(void *)((unsigned char *)pool + fixed);
    pool->n_spin = n_thread <= qni_cpu_count() ? SPIN_LONG : SPIN_SHORT;
    atomic_init(&pool->gate, LAST_LOOP << 32);
    atomic_init(&pool->stop, false);
    atomic_init(&pool->n_asleep, 0);
    atomic_init(&pool->caller_waits, false);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->left, NULL);
    for (int32_t i = 0; i < n_thread - 1; i++) {
        pool->workers[i].pool = pool;
        pool->workers[i].index = i + 1;
        int failed = start_worker(&pool->workers[i]);
        if (failed != 0) {
            qni_pool_free(pool);
            return qni_fail(err, QN_ENOMEM, "thread %d of %d cannot be started: %s", i + 1, n_thread - 1,
                            strerrordesc_np(failed));
        }
        pool->n_started++;
        if (pin) qni_cpu_pin(pool->workers[i].thread, i + 1);
    }
    *out = pool;
    return QN_OK;
}

/* Stop the workers and destroy their synchronization objects. */
static void stop(qni_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->n_started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
}

void qni_pool_free(qni_pool *pool) {
    if (pool == NULL) return;
    /* A forked child has no workers to join. The lock and the conditions may be in the state of some parent thread;
     * leave them alone, and the parent's own as well. */
    if (pool->owner == getpid()) stop(pool);
    qn_allocator c_library = {0};
    qni_device_free(&c_library, pool, 0);
}

int32_t qni_pool_n_thread(const qni_pool *pool) {
    return pool->n_thread;
}
