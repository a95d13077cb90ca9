/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: run on a worker, and send their result as a message. */
#include "quern_nif.h"

#include <string.h>

void job_end(job *j) {
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

bool job_run(task *t) {
    job *j = (job *)(void *)t;
    const bool is_alive = !atomic_load(&j->is_canceled);
    for (; is_alive && j->n_late > 0; j->n_late--) {
        const late_binary *b = &j->late[j->n_late - 1];
        enif_inspect_binary(j->env, b->term, b->to);
    }
    if (is_alive && !j->step(j)) return false;
    enif_demonitor_process(NULL, j, &j->monitor);
    if (is_alive) enif_send(NULL, &j->caller, j->env, enif_make_tuple2(j->env, j->ref, j->result));
    job_end(j);
    return true;
}

/* The caller of a job died: the worker checks this flag before the next step. */
static void caller_died(ErlNifEnv *env, void *resource, ErlNifPid *pid, ErlNifMonitor *monitor) {
    (void)env;
    (void)pid;
    (void)monitor;
    job *j = resource;
    atomic_store(&j->is_canceled, true);
}

static void job_destroyed(ErlNifEnv *env, void *resource) {
    (void)env;
    job *j = resource;
    if (j->env != NULL) enif_free_env(j->env);
}

bool job_type_open(ErlNifEnv *env, nif *n) {
    const ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    const ErlNifResourceTypeInit init = {.dtor = job_destroyed, .down = caller_died};
    n->job_type = enif_open_resource_type_x(env, "quern_job", &init, flags, NULL);
    return n->job_type != NULL;
}

bool job_unpack(job *j, packed_ids *ids) {
    if (ids->binary.size % sizeof *ids->data != 0) {
        return !job_error(j, QN_EINVAL, &(qn_error){.message = "ids: must be packed, 4 bytes each"});
    }
    ids->n = ids->binary.size / sizeof *ids->data;
    ids->data = enif_alloc(ids->binary.size + sizeof *ids->data);
    if (ids->data == NULL) return !job_error(j, QN_ENOMEM, &(qn_error){.message = "ids: no memory"});
    if (ids->n > 0) memcpy(ids->data, ids->binary.data, ids->binary.size);
    return true;
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
