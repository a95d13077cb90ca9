/* SPDX-License-Identifier: Apache-2.0 */
/* Models and sessions. */
#include "quern_nif.h"

typedef struct model_job {
    object *device;
    char *path;
    qn_model_options options;
    ErlNifEnv *env;        /* of the job, for the warnings */
    ERL_NIF_TERM warnings; /* warnings, a reversed list */
} model_job;

/* Continue while the caller is alive. */
static bool report_progress(void *user, uint64_t done, uint64_t total) {
    const job *j = user;
    (void)done;
    (void)total;
    return !atomic_load(&j->is_canceled);
}

static void on_warning(void *user, const char *text) {
    model_job *s = user;
    s->warnings = enif_make_list_cell(s->env, string_term(s->env, text), s->warnings);
}

static ERL_NIF_TERM config_term(ErlNifEnv *env, const qn_model *model) {
    const qn_model_config *c = qn_model_get_config(model);
    ERL_NIF_TERM map = enif_make_new_map(env);
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"n_layer", c->n_layer},
        {"n_head", c->n_head},
        {"n_kv_head", c->n_kv_head},
        {"head_dim", c->head_dim},
        {"d_model", c->d_model},
        {"d_ff", c->d_ff},
        {"n_vocab", c->n_vocab},
        {"n_ctx_max", c->n_ctx_max},
        {"bits", c->bits},
        {"group", c->group},
        {"n_parameter", (int64_t)c->n_parameter},
        {"file_bytes", (int64_t)c->file_bytes},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        map = map_put(env, map, numbers[i].name, enif_make_int64(env, numbers[i].value));
    }
    map = map_put(env, map, "rms_eps", enif_make_double(env, c->rms_eps));
    map = map_put(env, map, "rope_theta", enif_make_double(env, c->rope_theta));
    map = map_put(env, map, "tied", enif_make_atom(env, c->tied ? "true" : "false"));
    map = map_put(env, map, "type", enif_make_atom(env, dtype_names[c->dtype]));
    map = map_put(env, map, "arith", enif_make_atom(env, arith_names[qn_model_arith(model)]));
    return map_put(env, map, "eos", ids_term(env, c->eos, (size_t)c->n_eos));
}

static bool open_model(job *j) {
    model_job *s = j->state;
    qn_error error;
    qn_model *model = NULL;
    s->env = j->env;
    s->warnings = enif_make_list(j->env, 0);
    s->options.progress = (qn_progress){report_progress, j};
    s->options.log = (qn_log){on_warning, s};
    const device_value *device = s->device->value;
    qn_status status = qn_model_open(&model, device->device, s->path, &s->options, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    const ERL_NIF_TERM config = config_term(j->env, model);
    object *o = object_new(j->nif, KIND_MODEL, model, s->device->worker, s->device, NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "model: no memory"});
    return job_value(j, enif_make_tuple3(j->env, object_term(j->env, o), config, s->warnings));
}

static void finish_model(job *j) {
    const model_job *s = j->state;
    if (s->path != NULL) enif_free(s->path);
}

/* Reference, Device, Directory, {Arith, Quantize}. Runs on the loader, so the device serves other calls meanwhile. */
NIF_FUNCTION(nif_model_open) {
    (void)argc;
    static const char *const quantize_names[] = {"nil", "q8", "q4", NULL};
    call c = call_begin(env, argv[0], sizeof(model_job));
    const ERL_NIF_TERM *options = NULL;
    int n = 0;
    if (!enif_get_tuple(env, argv[3], &n, &options) || n != 2) call_fail(&c, "options: must be a pair");
    object *device = call_object(&c, argv[1], "device", KIND_DEVICE);
    char *path = call_string(&c, argv[2], "path");
    model_job *s = c.job == NULL ? NULL : c.job->state;
    if (s != NULL) s->path = path;
    if (!c.has_failed) {
        s->device = device;
        s->options.arith = (qn_arith)call_choice(&c, options[0], "arith", arith_names);
        s->options.quantize = (qn_quantize)call_choice(&c, options[1], "quantize", quantize_names);
    }
    return call_submit(&c, c.nif->loader, open_model, finish_model);
}

typedef struct session_job {
    object *model; /* for a new session */
    object *session;
    qn_session_options options;
    packed_ids ids;
    size_t n_done, n_batch;
    bool occupies; /* occupies the session while ids are appended over several turns */
    int64_t n_tok;
} session_job;

static bool new_session(job *j) {
    const session_job *s = j->state;
    qn_error error;
    qn_session *session = NULL;
    qn_status status = qn_session_create(&session, s->model->value, &s->options, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    const int32_t n_ctx = qn_session_n_ctx(session);
    object *o = object_new(j->nif, KIND_SESSION, session, s->model->worker, s->model, NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "session: no memory"});
    return job_value(j, enif_make_tuple2(j->env, object_term(j->env, o), enif_make_int(j->env, n_ctx)));
}

/* Reference, Model, {NCtx, NBatch, KvType | nil, Yarn}. */
NIF_FUNCTION(nif_session_new) {
    (void)argc;
    static const char *const yarn_names[] = {"auto", "on", "off", NULL};
    call c = call_begin(env, argv[0], sizeof(session_job));
    const ERL_NIF_TERM *options = NULL;
    int n = 0;
    if (!enif_get_tuple(env, argv[2], &n, &options) || n != 4) call_fail(&c, "options: must be a tuple of 4");
    object *model = call_object(&c, argv[1], "model", KIND_MODEL);
    if (!c.has_failed) {
        session_job *s = c.job->state;
        s->model = model;
        s->options = (qn_session_options){.n_ctx = (int32_t)call_int(&c, options[0], "n_ctx", INT32_MIN, INT32_MAX),
                                          .n_batch = (int32_t)call_int(&c, options[1], "n_batch", INT32_MIN, INT32_MAX),
                                          .kv_dtype = call_dtype(&c, options[2], "kv_type"),
                                          .yarn = (qn_yarn_mode)call_choice(&c, options[3], "yarn", yarn_names)};
    }
    return call_submit(&c, model == NULL ? NULL : model->worker, new_session, NULL);
}

static void finish_session(job *j) {
    const session_job *s = j->state;
    if (s->occupies) session_vacate(s->session, j);
    if (s->ids.data != NULL) enif_free(s->ids.data);
}

/* Submit a job on a session; it requires that no generation occupies the session when it runs. */
static ERL_NIF_TERM submit_on_session(call *c, ERL_NIF_TERM term, bool (*step)(job *)) {
    object *o = call_object(c, term, "session", KIND_SESSION);
    if (o != NULL) ((session_job *)c->job->state)->session = o;
    return call_submit(c, o == NULL ? NULL : o->worker, step, finish_session);
}

/* Whether the library would accept the remaining ids. */
static bool are_valid(const session_job *s) {
    const qn_session *session = s->session->value;
    const int32_t n_vocab = qn_model_get_config(qn_session_model(session))->n_vocab;
    bool good = s->ids.n - s->n_done <= (size_t)(qn_session_n_ctx(session) - qn_session_n_tok(session));
    for (size_t i = s->n_done; i < s->ids.n; i++) good = good && s->ids.data[i] >= 0 && s->ids.data[i] < n_vocab;
    return good;
}

/* Append one chunk of ids per turn. If the library will refuse some ids, pass all of them, so that nothing is
 * computed. */
static bool append(job *j) {
    session_job *s = j->state;
    qn_error error;
    if (!s->occupies) {
        if (!job_unpack(j, &s->ids)) return true;
        if (!session_occupy(s->session, j)) return job_busy(j);
        s->occupies = true;
    }
    size_t n = s->ids.n - s->n_done;
    if (n > s->n_batch && are_valid(s)) n = s->n_batch;
    qn_status status = qn_session_append(s->session->value, s->ids.data + s->n_done, n, NULL, NULL, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    s->n_done += n;
    return s->n_done == s->ids.n && job_ok(j);
}

/* Reference, Session, Ids, NBatch. */
NIF_FUNCTION(nif_session_append) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(session_job));
    const int64_t n_batch = call_int(&c, argv[3], "n_batch", 1, INT32_MAX);
    if (!c.has_failed) {
        session_job *s = c.job->state;
        s->n_batch = (size_t)n_batch;
        call_binary(&c, argv[2], "ids", &s->ids.binary);
    }
    return submit_on_session(&c, argv[1], append);
}

static bool rewind_session(job *j) {
    const session_job *s = j->state;
    qn_error error;
    if (!session_occupy(s->session, j)) return job_busy(j);
    qn_status status = qn_session_rewind(s->session->value, (size_t)s->n_tok, &error);
    session_vacate(s->session, j);
    return status == QN_OK ? job_ok(j) : job_error(j, status, &error);
}

/* Reference, Session, NTok. */
NIF_FUNCTION(nif_session_rewind) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(session_job));
    const int64_t n_tok = call_int(&c, argv[2], "n_tok", 0, INT32_MAX);
    if (!c.has_failed) ((session_job *)c.job->state)->n_tok = n_tok;
    return submit_on_session(&c, argv[1], rewind_session);
}

static bool read_ids(job *j) {
    const session_job *s = j->state;
    const qn_session *session = s->session->value;
    return job_value(j, ids_term(j->env, qn_session_ids(session), (size_t)qn_session_n_tok(session)));
}

/* Reference, Session. */
NIF_FUNCTION(nif_session_ids) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(session_job));
    return submit_on_session(&c, argv[1], read_ids);
}

static bool read_logits(job *j) {
    const session_job *s = j->state;
    const qn_session *session = s->session->value;
    const float *logits = qn_session_logits(session);
    if (logits == NULL) return job_value(j, enif_make_atom(j->env, "nil"));
    const size_t n = (size_t)qn_model_get_config(qn_session_model(session))->n_vocab;
    return job_value(j, binary_term(j->env, logits, n * sizeof *logits));
}

/* Reference, Session: returns {n_vocab} f32, or nil. */
NIF_FUNCTION(nif_session_logits) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(session_job));
    return submit_on_session(&c, argv[1], read_logits);
}
