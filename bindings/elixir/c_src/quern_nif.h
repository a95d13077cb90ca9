/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the NIF: it decodes terms, calls the library, encodes results.
 *
 * A function of the module Quern.Nif whose first argument is a reference makes a job, gives it to a worker and returns
 * `ok` at once, or `{error, {Status, Message}}` where a term is not what it should be. When the job is done the worker
 * sends {Reference, ok | {ok, Result} | {error, {Status, Message}}} to the caller. A job of a caller that died is dropped
 * before its next pass. So no scheduler of the VM, normal or dirty, ever waits for a computation, a lock that is held
 * during one, or a file.
 */
#ifndef QUERN_NIF_H
#define QUERN_NIF_H

#include <erl_nif.h>
#include <quern/quern.h>

#include <stdatomic.h>

/* What a worker does. Embedded in jobs and burials. */
typedef struct task task;
struct task {
    task *next;
    bool (*run)(task *); /* false: not done, to be run again after what waits; true: done, and the task may be gone */
};

/* A thread with a queue, first in first out. */
typedef struct worker worker;
worker *worker_start(const char *name); /* NULL: no memory or no thread */
void worker_push(worker *w, task *t);
void worker_stop(worker *w); /* when its queue is empty; waits for the thread, and frees */

/* The kinds of objects: name, and what a message calls one. */
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
    ErlNifMutex *lock;        /* for what is said to be under it */
    worker *reaper;           /* frees what objects hold, which may take long */
    worker *loader;           /* opens files */
    worker *text;             /* tokenizers and chat templates */
    int64_t n_object[N_KIND]; /* values that are not freed yet; under the lock */
    int64_t n_job;            /* jobs that are not over; under the lock */
} nif;

typedef struct burial burial;

/* A resource: a value of the library and what it must not outlive. */
typedef struct object object;
struct object {
    nif *nif;
    object_kind kind;
    void *value;          /* qn_device *, qn_tensor *, …; of a generation: see nif_generation.c */
    worker *worker;       /* computes for it */
    object *parents[2];   /* held until the value is freed */
    burial *burial;       /* frees the value on the reaper; made with the object, so that it cannot fail */
    int users;            /* jobs and objects that hold it; under the lock */
    bool is_freed;        /* by Quern.free/1; under the lock */
    const void *occupant; /* of a session: what has it for itself, a generation or a job; under the lock */
};

/* A new resource over `value`, which it takes over (and frees if there is no memory for it: then NULL). Parents may be
 * NULL. The caller has one reference. */
object *object_new(nif *n, object_kind kind, void *value, worker *w, object *parent0, object *parent1);
/* The term of a new object, in `env`; takes over the caller's reference. */
ERL_NIF_TERM object_term(ErlNifEnv *env, object *o);
/* Free its value as soon as nothing holds it. */
void object_free(object *o);
/* Have its value there until it is dropped; false: it was freed. */
bool object_hold(object *o);
void object_drop(object *o);
/* Have a session for oneself; false: something else has it. */
bool session_occupy(object *session, const void *occupant);
void session_vacate(object *session, const void *occupant);
bool object_types_open(ErlNifEnv *env, nif *n);
void generation_value_free(void *value); /* nif_generation.c */

typedef struct device_value {
    qn_device *device;
    worker *worker;
} device_value;

/* A call that is done on a worker. */
typedef struct job job;
struct job {
    task task;
    nif *nif;
    bool (*step)(job *);   /* one pass; true: the job is done, and `result` is set */
    void (*finish)(job *); /* frees what `state` holds; may be NULL */
    void *state;           /* of the function that made the job; zeros at first */
    ErlNifEnv *env;        /* of `ref`, `result` and the copies of arguments */
    ERL_NIF_TERM ref, result;
    ErlNifPid caller;
    ErlNifMonitor monitor;
    atomic_bool is_canceled; /* the caller died */
    object **used;           /* {n_used}: the objects that it holds */
    size_t n_used, used_capacity;
    struct late_binary *late; /* binaries to look into before the first step */
    int n_late;
};

/* The arguments of a NIF being decoded: after the first that is wrong the others are passed over. */
typedef struct call {
    nif *nif;
    ErlNifEnv *env;
    job *job;
    bool has_failed;
    qn_error error;
} call;

/* What an error message says of a term: a small number or atom itself, else its kind. */
typedef struct term_text {
    char text[64];
} term_text;
term_text text_of(ErlNifEnv *env, ERL_NIF_TERM term);

call call_begin(ErlNifEnv *env, ERL_NIF_TERM ref, size_t state_bytes);
/* Give the job to the worker, or drop it and tell what was wrong. */
ERL_NIF_TERM call_submit(call *c, worker *w, bool (*step)(job *), void (*finish)(job *));
void call_fail(call *c, const char *format, ...);     /* EINVAL; no %T: the VM would write out all of a term */
void *call_alloc(call *c, size_t count, size_t size); /* zeros; NULL after a failure; the caller's `finish` frees it */

/* Each decodes one term; `name` is for the message. */
object *call_object(call *c, ERL_NIF_TERM term, const char *name, object_kind kind);
qn_tensor *call_tensor(call *c, ERL_NIF_TERM term, const char *name);
qn_tensor *call_tensor_or_nil(call *c, ERL_NIF_TERM term, const char *name);
qn_operand call_operand(call *c, ERL_NIF_TERM term, const char *name); /* a tensor or a linear */
int64_t call_int(call *c, ERL_NIF_TERM term, const char *name, int64_t low, int64_t high);
double call_number(call *c, ERL_NIF_TERM term, const char *name);
bool call_bool(call *c, ERL_NIF_TERM term, const char *name);
/* A name of a list, NULL at its end: its index. */
int call_choice(call *c, ERL_NIF_TERM term, const char *name, const char *const *names);
/* A binary that lives as long as the job. *to, in memory of the job, is filled before its first step: the VM copies a
 * binary that does not begin with a byte when it is looked into. */
void call_binary(call *c, ERL_NIF_TERM term, const char *name, ErlNifBinary *to);
/* The length of a list of at most `most` elements. */
unsigned call_length(call *c, ERL_NIF_TERM list, const char *name, unsigned most);
/* A path or the text of a token as a C string, without a zero byte and of at most 64 KB. */
char *call_string(call *c, ERL_NIF_TERM term, const char *name); /* `finish` frees it with enif_free */
/* Ids in a binary, four bytes each: a long list would take a scheduler too long. */
typedef struct packed_ids {
    ErlNifBinary binary;
    int32_t *data; /* of the step that unpacks it; `finish` frees it with enif_free */
    size_t n;
} packed_ids;
bool job_unpack(job *j, packed_ids *ids); /* false: the job is done, with an error */
qn_dtype call_dtype(call *c, ERL_NIF_TERM term, const char *name);

/* Results, in the environment of the job. */
bool job_ok(job *j);
bool job_value(job *j, ERL_NIF_TERM value);                                       /* {ok, Value} */
bool job_error(job *j, qn_status status, const qn_error *error);                  /* {error, {Status, Message}} */
bool job_ids(job *j, qn_status status, const qn_ids *ids, const qn_error *error); /* the list of ids, or the error */
bool job_busy(job *j);                                                            /* something else has the session */
ERL_NIF_TERM error_term(ErlNifEnv *env, qn_status status, const char *message);
ERL_NIF_TERM binary_term(ErlNifEnv *env, const void *data, size_t size);
ERL_NIF_TERM string_term(ErlNifEnv *env, const char *text);
ERL_NIF_TERM map_put(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM value);
ERL_NIF_TERM ids_term(ErlNifEnv *env, const int32_t *ids, size_t n);
/* {Reference, Shape, Type} of a new tensor on the device, which takes it over; false: no memory, and it is freed. */
bool tensor_term(job *j, ERL_NIF_TERM *out, qn_tensor *tensor, object *device);
bool job_tensor(job *j, qn_tensor *tensor, object *device); /* the same as the result */

extern const char *const dtype_names[]; /* by qn_dtype */
extern const char *const arith_names[]; /* by qn_arith */
object *device_of(object *o);           /* a device itself, or the device that an object lies on */

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
