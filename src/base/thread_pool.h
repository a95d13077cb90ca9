/* SPDX-License-Identifier: Apache-2.0 */
/* A thread pool that runs one parallel loop at a time. Workers spin briefly between loops, then sleep. */
#ifndef QNI_THREAD_POOL_H
#define QNI_THREAD_POOL_H

#include "error.h"

typedef struct qni_pool qni_pool;

/* task runs once for each index 0 … n_task-1, on any thread. `thread` is 0 … n_thread-1 and unique among tasks that
 * run concurrently (0 is the caller), so it can index per-thread scratch. */
typedef void (*qni_task)(void *context, int32_t task, int32_t thread);

/* n_thread >= 1 includes the caller: n_thread - 1 workers are started; free joins them. pin: pin each worker to its
 * own CPU; the first CPU is left to the caller. */
qn_status qni_pool_create(qni_pool **out, int32_t n_thread, bool pin, qn_error *err);
void qni_pool_free(qni_pool *pool); /* NULL is fine; in a forked child it only frees the memory */
int32_t qni_pool_n_thread(const qni_pool *pool);

/* Run all tasks and return when the last is done. One loop at a time: the caller holds the device. Not in a forked
 * child. */
void qni_pool_run(qni_pool *pool, int32_t n_task, qni_task task, void *context);

#endif
