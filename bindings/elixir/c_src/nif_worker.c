/* SPDX-License-Identifier: Apache-2.0 */
/* Workers: a thread with a queue. Pushing blocks at most for a few instructions of another thread. */
#include "quern_nif.h"

/* In kilowords. The VM's default suits drivers that do little; ours parse templates and regular expressions. */
enum { STACK_KILOWORDS = 1024 };

struct worker {
    ErlNifTid thread;
    ErlNifMutex *lock;
    ErlNifCond *wake;
    task *first, *last; /* the queue; under the lock */
    bool is_stopping;   /* under the lock */
};

/* Wait for the next task; NULL: stop. */
static task *take(worker *w) {
    enif_mutex_lock(w->lock);
    while (w->first == NULL && !w->is_stopping) enif_cond_wait(w->wake, w->lock);
    task *t = w->first;
    if (t != NULL) w->first = t->next;
    if (w->first == NULL) w->last = NULL;
    enif_mutex_unlock(w->lock);
    return t;
}

static void *work(void *argument) {
    worker *w = argument;
    for (task *t; (t = take(w)) != NULL;) {
        if (!t->run(t)) worker_push(w, t);
    }
    return NULL;
}

void worker_push(worker *w, task *t) {
    t->next = NULL;
    enif_mutex_lock(w->lock);
    if (w->last != NULL) {
        w->last->next = t;
    } else {
        w->first = t;
    }
    w->last = t;
    enif_cond_signal(w->wake);
    enif_mutex_unlock(w->lock);
}

static void destroy(worker *w) {
    if (w->wake != NULL) enif_cond_destroy(w->wake);
    if (w->lock != NULL) enif_mutex_destroy(w->lock);
    enif_free(w);
}

worker *worker_start(const char *name) {
    worker *w = enif_alloc(sizeof *w);
    if (w == NULL) return NULL;
    *w = (worker){.lock = enif_mutex_create((char *)name), .wake = enif_cond_create((char *)name)};
    ErlNifThreadOpts *options = enif_thread_opts_create((char *)name);
    bool started = false;
    if (w->lock != NULL && w->wake != NULL && options != NULL) {
        options->suggested_stack_size = STACK_KILOWORDS;
        started = enif_thread_create((char *)name, &w->thread, work, w, options) == 0;
    }
    if (options != NULL) enif_thread_opts_destroy(options);
    if (started) return w;
    destroy(w);
    return NULL;
}

void worker_stop(worker *w) {
    enif_mutex_lock(w->lock);
    w->is_stopping = true;
    enif_cond_signal(w->wake);
    enif_mutex_unlock(w->lock);
    enif_thread_join(w->thread, NULL);
    destroy(w);
}
