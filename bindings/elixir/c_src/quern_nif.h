/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internals of the NIF, which decodes terms, calls the library and encodes results.
 *
 * A function of the module Quern.Nif whose first argument is a reference creates a job, submits it to a worker and
 * returns `ok` at once, or `{error, {Status, Message}}` if a term is invalid. When the job is done the worker sends
 * {Reference, ok | {ok, Result} | {error, {Status, Message}}} to the caller. If the caller has died, the job is dropped
 * before its next step. So no scheduler of the VM, normal or dirty, ever waits for a computation, for a lock held
 * during one, or for a file.
 */
#ifndef QUERN_NIF_H
#define QUERN_NIF_H

#include <erl_nif.h>
#include <quern/quern.h>

#include <stdatomic.h>

/* A unit of work for a worker. Embedded in jobs and burials. */
typedef struct task task;
struct task {
    task *next;
    bool (*run)(task *); /* false: not done, requeue; true: done, and the task may have been freed */
};

/* A thread with a FIFO queue. */
typedef struct worker worker;
worker *worker_start(const char *name); /* NULL: out of memory, or no thread */
void worker_push(worker *w, task *t);
void worker_stop(worker *w); /* drains the queue, joins the thread and frees the worker */

/* The kinds of objects: identifier, and name in messages. */
#define OBJECT_KIND_MAP(X)                                                                                             \
    X(DEVICE, "a device")                                                                                              \
    X(TENSOR, "a tensor")                                                                                              \
    X(LINEAR, "a linear")                                                                                              \
    X(MODEL, "a model")                                                                                                \
    X(SESSION, "a session")                                                                                            \
    X(GENERATION, "a generation")                                                                                      \
    X(TOKENIZER, "a tokenizer")                                                                                        \
    X(TEMPLATE, "a chat template")

typedef enum object_kind {
#define OBJECT_KIND_ENUM(name, text) KIND_##name,
    OBJECT_KIND_MAP(OBJECT_KIND_ENUM)
#undef OBJECT_KIND_ENUM
        N_KIND
} object_kind;

/* The private data of the module. */
typedef struct nif {
    ErlNifResourceType *object_type, *job_type;
    ErlNifMutex *lock;        /* guards the fields marked "under the lock" */
    worker *reaper;           /* frees the values of objects, which may take long */
    worker *loader;           /* opens files */
    worker *text;             /* tokenizers and chat templates */
    int64_t n_object[N_KIND]; /* live values; under the lock */
    int64_t n_job;            /* unfinished jobs; under the lock */
    /* Frees the value of an object. A pointer, because objects know nothing of the files that make them. */
    void (*free_value)(object_kind kind, void *value);
} nif;

typedef struct burial burial;

/* A resource: a library value and the objects that must outlive it. */
typedef struct object object;
struct object {
    nif *nif;
    object_kind kind;
    void *value;          /* qn_device *, qn_tensor *, …; for a generation see nif_generation.c */
    worker *worker;       /* runs its jobs */
    object *parents[2];   /* held until the value is freed */
    burial *burial;       /* frees the value on the reaper; allocated with the object, so it cannot fail */
    int users;            /* jobs and objects that hold it; under the lock */
    bool is_freed;        /* by Quern.free/1; under the lock */
    const void *occupant; /* for a session: the generation or job that has exclusive use; under the lock */
};

/* Create a resource that takes ownership of `value`. Returns NULL when out of memory, and then `value` has been freed.
 * Parents may be NULL. The caller owns one reference. */
object *object_new(nif *n, object_kind kind, void *value, worker *w, object *parent0, object *parent1);
/* The term of a new object, in `env`. Consumes the caller's reference. */
ERL_NIF_TERM object_term(ErlNifEnv *env, object *o);
/* Free its value as soon as nothing holds the object. */
void object_free(object *o);
/* Pin the value until object_drop(); false if it has been freed. */
bool object_hold(object *o);
void object_drop(object *o);
/* Acquire exclusive use of a session; false if it is already occupied. */
bool session_occupy(object *session, const void *occupant);
void session_vacate(object *session, const void *occupant);
bool object_type_open(ErlNifEnv *env, nif *n);
void generation_value_free(void *value); /* nif_generation.c */

typedef struct device_value {
    qn_device *device;
    worker *worker;
} device_value;

/* A binary to inspect before a job's first step. */
typedef struct late_binary {
    ERL_NIF_TERM term; /* in the job's environment */
    ErlNifBinary *to;
} late_binary;

/* A call executed on a worker. */
typedef struct job job;
struct job {
    task task;
    nif *nif;
    bool (*step)(job *);   /* one step; true: the job is done and `result` is set */
    void (*finish)(job *); /* frees what `state` holds; may be NULL */
    void *state;           /* private to the function that created the job; initially zeros */
    ErlNifEnv *env;        /* holds `ref`, `result` and the copies of arguments */
    ERL_NIF_TERM ref, result;
    ErlNifPid caller;
    ErlNifMonitor monitor;
    atomic_bool is_canceled; /* the caller died */
    object **used;           /* {n_used}: the objects it holds */
    size_t n_used, used_capacity;
    late_binary *late; /* {n_late} */
    int n_late;
};
bool job_type_open(ErlNifEnv *env, nif *n);
bool job_run(task *t); /* runs a step of the job that the task belongs to */
void job_end(job *j);  /* frees a job that is done or was never submitted */

/* The arguments of a NIF being decoded. After the first error the remaining arguments are skipped. */
typedef struct call {
    nif *nif;
    ErlNifEnv *env;
    job *job;
    bool has_failed;
    qn_error error;
} call;

/* A term as shown in an error message: a small number or atom itself, otherwise its kind. */
typedef struct term_text {
    char text[64];
} term_text;
term_text text_of(ErlNifEnv *env, ERL_NIF_TERM term);

call call_begin(ErlNifEnv *env, ERL_NIF_TERM ref, size_t state_bytes);
/* Submit the job to the worker, or drop it and return the decoding error. */
ERL_NIF_TERM call_submit(call *c, worker *w, bool (*step)(job *), void (*finish)(job *));
void call_fail(call *c, const char *format, ...);     /* EINVAL; no %T: it would print whole terms */
void *call_alloc(call *c, size_t count, size_t size); /* zeros; NULL after a failure; the caller's `finish` frees it */

/* Each decodes one term; `name` is for error messages. */
object *call_object(call *c, ERL_NIF_TERM term, const char *name, object_kind kind);
qn_tensor *call_tensor(call *c, ERL_NIF_TERM term, const char *name);
qn_tensor *call_tensor_or_nil(call *c, ERL_NIF_TERM term, const char *name);
qn_operand call_operand(call *c, ERL_NIF_TERM term, const char *name); /* a tensor or a linear */
int64_t call_int(call *c, ERL_NIF_TERM term, const char *name, int64_t low, int64_t high);
double call_number(call *c, ERL_NIF_TERM term, const char *name);
bool call_bool(call *c, ERL_NIF_TERM term, const char *name);
/* The index of a name in a NULL-terminated list. */
int call_choice(call *c, ERL_NIF_TERM term, const char *name, const char *const *names);
/* A binary that lives as long as the job. *to, in the job's memory, is filled in before its first step: inspecting a
 * binary that is not byte-aligned makes the VM copy it. */
void call_binary(call *c, ERL_NIF_TERM term, const char *name, ErlNifBinary *to);
/* The length of a list, at most `most` elements. */
unsigned call_length(call *c, ERL_NIF_TERM list, const char *name, unsigned most);
/* A path or token text as a C string, without zero bytes and at most 64 KB. */
char *call_string(call *c, ERL_NIF_TERM term, const char *name); /* `finish` frees it with enif_free */
/* Ids packed in a binary, four bytes each: decoding a long list would block a scheduler. */
typedef struct packed_ids {
    ErlNifBinary binary;
    int32_t *data; /* set by job_unpack(); `finish` frees it with enif_free */
    size_t n;
} packed_ids;
bool job_unpack(job *j, packed_ids *ids); /* false: the job is done, with an error */
qn_dtype call_dtype(call *c, ERL_NIF_TERM term, const char *name);

/* Results, in the job's environment. */
bool job_ok(job *j);
bool job_value(job *j, ERL_NIF_TERM value);                                       /* {ok, Value} */
bool job_error(job *j, qn_status status, const qn_error *error);                  /* {error, {Status, Message}} */
bool job_ids(job *j, qn_status status, const qn_ids *ids, const qn_error *error); /* the list of ids, or the error */
bool job_busy(job *j);                                                            /* error: the session is occupied */
ERL_NIF_TERM error_term(ErlNifEnv *env, qn_status status, const char *message);
ERL_NIF_TERM binary_term(ErlNifEnv *env, const void *data, size_t size);
ERL_NIF_TERM string_term(ErlNifEnv *env, const char *text);
ERL_NIF_TERM map_put(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM value);
ERL_NIF_TERM ids_term(ErlNifEnv *env, const int32_t *ids, size_t n);
/* Make {Reference, Shape, Type} for a new tensor on the device, taking ownership of it. Returns false when out of
 * memory; the tensor is then freed. */
bool tensor_term(job *j, ERL_NIF_TERM *out, qn_tensor *tensor, object *device);
bool job_tensor(job *j, qn_tensor *tensor, object *device); /* the same as the job's result */

extern const char *const dtype_names[]; /* by qn_dtype */
extern const char *const arith_names[]; /* by qn_arith */
object *device_of(object *o);           /* the object if it is a device, else its device */

#define NIF_FUNCTION(name) ERL_NIF_TERM name(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
NIF_FUNCTION(nif_device_open);
NIF_FUNCTION(nif_devices);
NIF_FUNCTION(nif_tensor_from_binary);
NIF_FUNCTION(nif_tensor_zeros);
NIF_FUNCTION(nif_tensor_to_binary);
NIF_FUNCTION(nif_tensor_reshape);
NIF_FUNCTION(nif_tensor_file_read);
NIF_FUNCTION(nif_linear_pack);
NIF_FUNCTION(nif_linear_quantize);
NIF_FUNCTION(nif_linear_pack_quantized);
NIF_FUNCTION(nif_mlp);
NIF_FUNCTION(nif_kv_attention);
NIF_FUNCTION(nif_attention_residual);
NIF_FUNCTION(nif_attention_block);
NIF_FUNCTION(nif_layer);
NIF_FUNCTION(nif_greedy);
NIF_FUNCTION(nif_forward_greedy);
NIF_FUNCTION(nif_model_open);
NIF_FUNCTION(nif_session_new);
NIF_FUNCTION(nif_session_append);
NIF_FUNCTION(nif_session_rewind);
NIF_FUNCTION(nif_session_ids);
NIF_FUNCTION(nif_session_logits);
NIF_FUNCTION(nif_generation_new);
NIF_FUNCTION(nif_generation_next);
NIF_FUNCTION(nif_generation_stop);
NIF_FUNCTION(nif_tokenizer_open);
NIF_FUNCTION(nif_tokenizer_encode);
NIF_FUNCTION(nif_tokenizer_decode);
NIF_FUNCTION(nif_tokenizer_id);
NIF_FUNCTION(nif_chat_open);
NIF_FUNCTION(nif_chat_render);
NIF_FUNCTION(nif_chat_encode);
NIF_FUNCTION(nif_chat_ends);
NIF_FUNCTION(nif_free);
NIF_FUNCTION(nif_counts);
NIF_FUNCTION(nif_version);

#endif
