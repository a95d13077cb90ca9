/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resources. The VM may destroy them on any thread and in any order, and a scheduler must not block. So the destructor
 * passes the value to the reaper, which frees it and then releases its parents. Quern.free/1 does the same earlier: at
 * once, or when the last job and object that hold the value are gone.
 */
#include "quern_nif.h"

struct burial {
    task task;
    nif *nif;
    object_kind kind;
    void *value;
    object *parents[2];
};

static bool run_burial(task *t) {
    burial *b = (burial *)(void *)t;
    b->nif->free_value(b->kind, b->value);
    enif_mutex_lock(b->nif->lock);
    b->nif->n_object[b->kind]--;
    enif_mutex_unlock(b->nif->lock);
    for (int i = 0; i < 2; i++) {
        if (b->parents[i] != NULL) object_drop(b->parents[i]);
    }
    enif_free(b);
    return true;
}

bool session_occupy(object *session, const void *occupant) {
    enif_mutex_lock(session->nif->lock);
    const bool is_free = session->occupant == NULL;
    if (is_free) session->occupant = occupant;
    enif_mutex_unlock(session->nif->lock);
    return is_free;
}

void session_vacate(object *session, const void *occupant) {
    enif_mutex_lock(session->nif->lock);
    if (session->occupant == occupant) session->occupant = NULL;
    enif_mutex_unlock(session->nif->lock);
}

static void bury(object *o) {
    burial *b = o->burial;
    if (o->kind == KIND_GENERATION) session_vacate(o->parents[0], o->value);
    *b = (burial){.task = {.run = run_burial}, .nif = o->nif, .kind = o->kind, .value = o->value};
    for (int i = 0; i < 2; i++) b->parents[i] = o->parents[i];
    o->burial = NULL;
    o->value = NULL;
    worker_push(o->nif->reaper, &b->task);
}

static void object_destroyed(ErlNifEnv *env, void *resource) {
    (void)env;
    object *o = resource;
    if (o->burial != NULL) bury(o);
}

object *object_new(nif *n, object_kind kind, void *value, worker *w, object *parent0, object *parent1) {
    burial *b = enif_alloc(sizeof *b);
    object *o = b == NULL ? NULL : enif_alloc_resource(n->object_type, sizeof *o);
    if (o == NULL) {
        if (b != NULL) enif_free(b);
        n->free_value(kind, value);
        return NULL;
    }
    *o = (object){.nif = n, .kind = kind, .value = value, .worker = w, .parents = {parent0, parent1}, .burial = b};
    enif_mutex_lock(n->lock);
    for (int i = 0; i < 2; i++) {
        if (o->parents[i] == NULL) continue;
        enif_keep_resource(o->parents[i]);
        o->parents[i]->users++;
    }
    n->n_object[kind]++;
    enif_mutex_unlock(n->lock);
    return o;
}

ERL_NIF_TERM object_term(ErlNifEnv *env, object *o) {
    const ERL_NIF_TERM term = enif_make_resource(env, o);
    enif_release_resource(o);
    return term;
}

void object_free(object *o) {
    enif_mutex_lock(o->nif->lock);
    const bool now = !o->is_freed && o->users == 0;
    o->is_freed = true;
    enif_mutex_unlock(o->nif->lock);
    if (now) bury(o);
}

bool object_hold(object *o) {
    enif_mutex_lock(o->nif->lock);
    const bool there = !o->is_freed;
    if (there) o->users++;
    enif_mutex_unlock(o->nif->lock);
    if (there) enif_keep_resource(o);
    return there;
}

void object_drop(object *o) {
    enif_mutex_lock(o->nif->lock);
    const bool now = --o->users == 0 && o->is_freed;
    enif_mutex_unlock(o->nif->lock);
    if (now) bury(o);
    enif_release_resource(o);
}

NIF_FUNCTION(nif_free) {
    (void)argc;
    const nif *n = enif_priv_data(env);
    void *resource = NULL;
    if (!enif_get_resource(env, argv[0], n->object_type, &resource)) return enif_make_badarg(env);
    object_free(resource);
    return enif_make_atom(env, "ok");
}

/* Counts of live values by kind, and of unfinished jobs. For tests. */
NIF_FUNCTION(nif_counts) {
    (void)argc;
    (void)argv;
    static const char *const names[] = {"device",  "tensor",     "linear",    "model",
                                        "session", "generation", "tokenizer", "chat_template"};
    nif *n = enif_priv_data(env);
    int64_t counts[N_KIND];
    enif_mutex_lock(n->lock);
    for (int i = 0; i < N_KIND; i++) counts[i] = n->n_object[i];
    const int64_t n_job = n->n_job;
    enif_mutex_unlock(n->lock);
    ERL_NIF_TERM map = enif_make_new_map(env);
    for (int i = 0; i < N_KIND; i++) map = map_put(env, map, names[i], enif_make_int64(env, counts[i]));
    return map_put(env, map, "job", enif_make_int64(env, n_job));
}

bool object_type_open(ErlNifEnv *env, nif *n) {
    const ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    const ErlNifResourceTypeInit init = {.dtor = object_destroyed};
    n->object_type = enif_open_resource_type_x(env, "quern_object", &init, flags, NULL);
    return n->object_type != NULL;
}
