/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: begin, decode the objects and binaries among the arguments, and submit the job. Numbers and texts are decoded
 * in nif_decode.c. */
#include "quern_nif.h"

#include <stdarg.h>
#include <string.h>

call call_begin(ErlNifEnv *env, ERL_NIF_TERM ref, size_t state_bytes) {
    nif *n = enif_priv_data(env);
    call c = {.nif = n, .env = env};
    job *j = enif_alloc_resource(n->job_type, sizeof *j);
    if (j == NULL) {
        call_fail(&c, "call: no memory");
        c.error.status = QN_ENOMEM;
        return c;
    }
    *j = (job){.nif = n, .env = enif_alloc_env()};
    enif_mutex_lock(n->lock);
    n->n_job++;
    enif_mutex_unlock(n->lock);
    atomic_init(&j->is_canceled, false);
    c.job = j;
    j->state = call_alloc(&c, 1, state_bytes > 0 ? state_bytes : 1);
    j->ref = enif_make_copy(j->env, ref);
    return c;
}

/* Remove a character that truncation has cut in half. */
static void trim(char *message, size_t capacity) {
    size_t n = strlen(message), begin = n;
    if (n + 1 < capacity) return;
    while (begin > 0 && (message[begin - 1] & 0xC0) == 0x80) begin--;
    if (begin > 0 && (message[begin - 1] & 0x80) != 0) message[begin - 1] = 0;
}

void call_fail(call *c, const char *format, ...) {
    if (c->has_failed) return;
    va_list arguments;
    va_start(arguments, format);
    enif_vsnprintf(c->error.message, sizeof c->error.message, format, arguments);
    va_end(arguments);
    trim(c->error.message, sizeof c->error.message);
    c->error.status = QN_EINVAL;
    c->has_failed = true;
}

void *call_alloc(call *c, size_t count, size_t size) {
    if (c->has_failed) return NULL;
    size_t bytes;
    void *at = __builtin_mul_overflow(count, size, &bytes) ? NULL : enif_alloc(bytes > 0 ? bytes : 1);
    if (at == NULL) {
        call_fail(c, "call: no memory");
        c->error.status = QN_ENOMEM;
        return NULL;
    }
    return memset(at, 0, bytes);
}

enum { MOST_LATE = 72 }; /* 64 stop strings, a prompt, and a few more */

void call_binary(call *c, ERL_NIF_TERM term, const char *name, ErlNifBinary *to) {
    if (c->has_failed) return;
    if (!enif_is_binary(c->env, term)) {
        call_fail(c, "%s: must be a binary, got %s", name, text_of(c->env, term).text);
        return;
    }
    job *j = c->job;
    if (j->late == NULL) j->late = call_alloc(c, MOST_LATE, sizeof *j->late);
    if (j->late == NULL) return;
    if (j->n_late == MOST_LATE) {
        call_fail(c, "%s: is a binary more than a call may have", name);
        return;
    }
    /* Large binaries are shared, not copied. */
    j->late[j->n_late++] = (late_binary){enif_make_copy(j->env, term), to};
}

ERL_NIF_TERM call_submit(call *c, worker *w, bool (*step)(job *), void (*finish)(job *)) {
    job *j = c->job;
    if (j != NULL) j->finish = finish;
    if (!c->has_failed) {
        enif_self(c->env, &j->caller);
        /* Fails only if the caller is already dead, and then nobody reads the error. */
        if (enif_monitor_process(c->env, j, &j->caller, &j->monitor) != 0) call_fail(c, "call: its process has ended");
    }
    if (c->has_failed) {
        if (j != NULL) job_end(j);
        return error_term(c->env, c->error.status, c->error.message);
    }
    j->task.run = job_run;
    j->step = step;
    worker_push(w, &j->task); /* the job may be done and freed before the next line */
    return enif_make_atom(c->env, "ok");
}

/* Count the job among the object's `users` until it is done. */
static bool use(call *c, object *o) {
    job *j = c->job;
    if (j->n_used == j->used_capacity) {
        const size_t capacity = j->used_capacity == 0 ? 16 : 2 * j->used_capacity;
        object **grown = call_alloc(c, capacity, sizeof(object *));
        if (grown == NULL) return false;
        if (j->n_used > 0) memcpy(grown, j->used, j->n_used * sizeof *grown);
        if (j->used != NULL) enif_free(j->used);
        j->used = grown;
        j->used_capacity = capacity;
    }
    if (!object_hold(o)) return false;
    j->used[j->n_used++] = o;
    return true;
}

static const char *const kind_texts[] = {
#define OBJECT_KIND_TEXT(name, text) text,
    OBJECT_KIND_MAP(OBJECT_KIND_TEXT)
#undef OBJECT_KIND_TEXT
};

static object *get_object(const call *c, ERL_NIF_TERM term) {
    void *resource = NULL;
    return enif_get_resource(c->env, term, c->nif->object_type, &resource) ? resource : NULL;
}

object *call_object(call *c, ERL_NIF_TERM term, const char *name, object_kind kind) {
    if (c->has_failed) return NULL;
    object *o = get_object(c, term);
    if (o == NULL || o->kind != kind) {
        if (o != NULL) {
            call_fail(c, "%s: must be %s, got %s", name, kind_texts[kind], kind_texts[o->kind]);
        } else {
            call_fail(c, "%s: must be %s, got %s", name, kind_texts[kind], text_of(c->env, term).text);
        }
        return NULL;
    }
    if (use(c, o)) return o;
    call_fail(c, "%s: is %s that was freed", name, kind_texts[kind]);
    return NULL;
}

qn_tensor *call_tensor(call *c, ERL_NIF_TERM term, const char *name) {
    object *o = call_object(c, term, name, KIND_TENSOR);
    return o == NULL ? NULL : o->value;
}

qn_tensor *call_tensor_or_nil(call *c, ERL_NIF_TERM term, const char *name) {
    return enif_is_identical(term, enif_make_atom(c->env, "nil")) ? NULL : call_tensor(c, term, name);
}

qn_operand call_operand(call *c, ERL_NIF_TERM term, const char *name) {
    if (c->has_failed) return (qn_operand){0};
    const object *o = get_object(c, term);
    if (o != NULL && o->kind == KIND_LINEAR) {
        o = call_object(c, term, name, KIND_LINEAR);
        return (qn_operand){.packed = o == NULL ? NULL : o->value};
    }
    if (o == NULL || o->kind != KIND_TENSOR) {
        call_fail(c, "%s: must be a tensor or a linear, got %s", name, text_of(c->env, term).text);
        return (qn_operand){0};
    }
    return (qn_operand){.plain = call_tensor(c, term, name)};
}

object *device_of(object *o) {
    return o->kind == KIND_DEVICE ? o : o->parents[0];
}
