/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: decode arguments, run a job on a worker, send the result as a message. Numbers and texts are decoded in
 * nif_decode.c. */
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

typedef struct late_binary {
    ERL_NIF_TERM term; /* in the job's environment */
    ErlNifBinary *to;
} late_binary;

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

/* The job is done, or was never submitted. */
static void end(job *j) {
    if (j->finish != NULL && j->state != NULL) j->finish(j);
    for (size_t i = 0; i < j->n_used; i++) object_drop(j->used[i]);
    if (j->used != NULL) enif_free(j->used);
    if (j->late != NULL) enif_free(j->late);
    if (j->state != NULL) enif_free(j->state);
    enif_mutex_lock(j->nif->lock);
    j->nif->n_job--;
    enif_mutex_unlock(j->nif->lock);
    enif_release_resource(j);
}

static bool run(task *t) {
    job *j = (job *)(void *)t;
    const bool is_alive = !atomic_load(&j->is_canceled);
    for (; is_alive && j->n_late > 0; j->n_late--) {
        const late_binary *b = &j->late[j->n_late - 1];
        enif_inspect_binary(j->env, b->term, b->to);
    }
    if (is_alive && !j->step(j)) return false;
    enif_demonitor_process(NULL, j, &j->monitor);
    if (is_alive) enif_send(NULL, &j->caller, j->env, enif_make_tuple2(j->env, j->ref, j->result));
    end(j);
    return true;
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
        if (j != NULL) end(j);
        return error_term(c->env, c->error.status, c->error.message);
    }
    j->task.run = run;
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

bool job_ok(job *j) {
    j->result = enif_make_atom(j->env, "ok");
    return true;
}

bool job_value(job *j, ERL_NIF_TERM value) {
    j->result = enif_make_tuple2(j->env, enif_make_atom(j->env, "ok"), value);
    return true;
}

bool job_error(job *j, qn_status status, const qn_error *error) {
    j->result = error_term(j->env, status, error->message);
    return true;
}

ERL_NIF_TERM error_term(ErlNifEnv *env, qn_status status, const char *message) {
    char name[32];
    const char *from = qn_status_name(status);
    size_t i = 0;
    for (; from[i] != 0 && i + 1 < sizeof name; i++) {
        name[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] - 'A' + 'a' : from[i]);
    }
    name[i] = 0;
    const ERL_NIF_TERM detail = enif_make_tuple2(env, enif_make_atom(env, name), string_term(env, message));
    return enif_make_tuple2(env, enif_make_atom(env, "error"), detail);
}

ERL_NIF_TERM binary_term(ErlNifEnv *env, const void *data, size_t size) {
    ERL_NIF_TERM term;
    unsigned char *to = enif_make_new_binary(env, size, &term);
    if (to != NULL && size > 0) memcpy(to, data, size);
    return term;
}

ERL_NIF_TERM string_term(ErlNifEnv *env, const char *text) {
    return binary_term(env, text, strlen(text));
}

ERL_NIF_TERM map_put(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM value) {
    ERL_NIF_TERM out = map;
    enif_make_map_put(env, map, enif_make_atom(env, key), value, &out);
    return out;
}

ERL_NIF_TERM ids_term(ErlNifEnv *env, const int32_t *ids, size_t n) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    while (n-- > 0) list = enif_make_list_cell(env, enif_make_int(env, ids[n]), list);
    return list;
}

bool job_ids(job *j, qn_status status, const qn_ids *ids, const qn_error *error) {
    return status == QN_OK ? job_value(j, ids_term(j->env, ids->data, ids->size)) : job_error(j, status, error);
}

bool tensor_term(job *j, ERL_NIF_TERM *out, qn_tensor *tensor, object *device) {
    ErlNifEnv *env = j->env;
    const int64_t *shape = qn_tensor_shape(tensor);
    ERL_NIF_TERM sizes = enif_make_list(env, 0);
    for (int32_t i = qn_tensor_rank(tensor); i-- > 0;) {
        sizes = enif_make_list_cell(env, enif_make_int64(env, shape[i]), sizes);
    }
    const ERL_NIF_TERM type = enif_make_atom(env, dtype_names[qn_tensor_dtype(tensor)]);
    object *o = object_new(j->nif, KIND_TENSOR, tensor, device->worker, device, NULL);
    if (o == NULL) return false;
    *out = enif_make_tuple3(env, object_term(env, o), sizes, type);
    return true;
}

bool job_busy(job *j) {
    return job_error(j, QN_EBUSY, &(qn_error){.message = "session: another generation or append is using it"});
}

bool job_tensor(job *j, qn_tensor *tensor, object *device) {
    ERL_NIF_TERM term;
    if (tensor_term(j, &term, tensor, device)) return job_value(j, term);
    return job_error(j, QN_ENOMEM, &(qn_error){.message = "tensor: no memory"});
}
