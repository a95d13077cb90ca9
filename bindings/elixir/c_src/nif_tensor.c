/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, tensors and packed linears. */
#include "quern_nif.h"

#include <string.h>

typedef struct device_job {
    char *name, *isa;
    qn_device_options options;
} device_job;

static bool open_device(job *j) {
    device_job *s = j->state;
    qn_error error;
    qn_device *device = NULL;
    qn_status status = qn_device_open(&device, s->name, &s->options, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    device_value *value = enif_alloc(sizeof *value);
    worker *w = value == NULL ? NULL : worker_start("quern_device");
    if (w == NULL) {
        if (value != NULL) enif_free(value);
        qn_device_close(device);
        return job_error(j, QN_ENOMEM, &(qn_error){.message = "device: no memory or no thread"});
    }
    *value = (device_value){device, w};
    qn_device_info info;
    qn_device_get_info(device, &info);
    ErlNifEnv *env = j->env;
    ERL_NIF_TERM map = enif_make_new_map(env);
    map = map_put(env, map, "name", enif_make_atom(env, info.name));
    map = map_put(env, map, "isa", string_term(env, info.isa));
    map = map_put(env, map, "description", string_term(env, info.description));
    map = map_put(env, map, "n_thread", enif_make_int(env, info.n_thread));
    map = map_put(env, map, "memory_total_bytes", enif_make_uint64(env, info.memory_total_bytes));
    object *o = object_new(j->nif, KIND_DEVICE, value, w, NULL, NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "device: no memory"});
    return job_value(j, enif_make_tuple2(env, object_term(env, o), map));
}

static void finish_device(job *j) {
    const device_job *s = j->state;
    if (s->name != NULL) enif_free(s->name);
    if (s->isa != NULL) enif_free(s->isa);
}

/* Reference, Name, {Threads, Pin, Isa | nil, Compose}. */
NIF_FUNCTION(nif_device_open) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(device_job));
    const ERL_NIF_TERM *options = NULL;
    int n = 0;
    if (!enif_get_tuple(env, argv[2], &n, &options) || n != 4) call_fail(&c, "options: must be a tuple of 4");
    char *name = call_string(&c, argv[1], "device");
    device_job *s = c.job == NULL ? NULL : c.job->state;
    if (s != NULL) s->name = name;
    if (!c.has_failed) {
        s->options.n_thread = (int32_t)call_int(&c, options[0], "threads", INT32_MIN, INT32_MAX);
        s->options.pin = call_bool(&c, options[1], "pin");
        const bool any = enif_is_identical(options[2], enif_make_atom(env, "nil"));
        if (!any) s->isa = call_string(&c, options[2], "isa");
        s->options.isa = s->isa;
        s->options.compose = call_bool(&c, options[3], "compose");
    }
    return call_submit(&c, c.nif->loader, open_device, finish_device);
}

/* Returns the names of the backends in this build. */
NIF_FUNCTION(nif_devices) {
    (void)argc;
    (void)argv;
    ERL_NIF_TERM names = enif_make_list(env, 0), out;
    const char *name;
    for (int32_t i = 0; (name = qn_backend_name(i)) != NULL; i++) {
        names = enif_make_list_cell(env, enif_make_atom(env, name), names);
    }
    return enif_make_reverse_list(env, names, &out) ? out : names;
}

typedef struct tensor_job {
    object *device;
    qn_tensor *tensor;
    qn_dtype dtype;
    int32_t rank;
    int64_t shape[QN_MAX_RANK];
    bool wraps;
    bool has_data;
    ErlNifBinary data;
    ErlNifEnv *keeper; /* keeps the wrapped binary alive */
    ERL_NIF_TERM kept;
} tensor_job;

/* A list of sizes. The library checks their values. */
static void decode_shape(call *c, ERL_NIF_TERM list) {
    const unsigned n = call_length(c, list, "shape", QN_MAX_RANK);
    if (c->has_failed) return;
    tensor_job *s = c->job->state;
    s->rank = (int32_t)n;
    ERL_NIF_TERM head;
    for (unsigned i = 0; enif_get_list_cell(c->env, list, &head, &list); i++) {
        s->shape[i] = call_int(c, head, "shape", INT64_MIN, INT64_MAX);
    }
}

static void release_keeper(void *keeper, void *data) {
    (void)data;
    enif_free_env(keeper);
}

static bool wrap_binary(job *j) {
    tensor_job *s = j->state;
    qn_error error;
    enif_inspect_binary(s->keeper, s->kept, &s->data);
    qn_wrap wrap = {.dtype = s->dtype,
                    .rank = s->rank,
                    .data = s->data.data,
                    .read_only = true,
                    .release = release_keeper,
                    .user = s->keeper};
    uint64_t bytes = qn_dtype_bytes(s->dtype);
    bool fits = true;
    for (int32_t i = 0; i < s->rank; i++) {
        wrap.shape[i] = s->shape[i];
        fits = fits && !__builtin_mul_overflow(bytes, (uint64_t)(s->shape[i] > 0 ? s->shape[i] : 0), &bytes);
    }
    if (!fits || bytes != s->data.size) {
        enif_snprintf(error.message, sizeof error.message, "tensor: %llu bytes do not fill its shape",
                      (unsigned long long)s->data.size);
        return job_error(j, QN_EINVAL, &error);
    }
    const device_value *device = s->device->value;
    qn_status status = qn_tensor_wrap(&s->tensor, device->device, &wrap, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    s->keeper = NULL; /* now owned by the tensor */
    return job_tensor(j, s->tensor, s->device);
}

static bool make_tensor(job *j) {
    tensor_job *s = j->state;
    qn_error error;
    if (s->wraps) return wrap_binary(j);
    const device_value *device = s->device->value;
    qn_status status = qn_tensor_create(&s->tensor, device->device, s->dtype, s->rank, s->shape, &error);
    if (status == QN_OK && s->has_data) {
        status = qn_tensor_write(s->tensor, s->data.data, s->data.size, &error);
        if (status != QN_OK) qn_tensor_free(s->tensor);
    }
    return status == QN_OK ? job_tensor(j, s->tensor, s->device) : job_error(j, status, &error);
}

static void finish_tensor(job *j) {
    const tensor_job *s = j->state;
    if (s->keeper != NULL) enif_free_env(s->keeper);
}

static ERL_NIF_TERM submit_tensor(call *c, ERL_NIF_TERM device, bool (*step)(job *)) {
    object *o = call_object(c, device, "device", KIND_DEVICE);
    if (o != NULL) ((tensor_job *)c->job->state)->device = o;
    return call_submit(c, o == NULL ? NULL : o->worker, step, finish_tensor);
}

/* Reference, Device, Binary, Type, Shape, Wraps. With Wraps the tensor uses the binary's memory, read only, without a
 * copy. */
NIF_FUNCTION(nif_tensor_from_binary) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(tensor_job));
    const bool wraps = call_bool(&c, argv[5], "wrap");
    const qn_dtype dtype = call_dtype(&c, argv[3], "type");
    decode_shape(&c, argv[4]);
    if (!c.has_failed) {
        tensor_job *s = c.job->state;
        s->dtype = dtype;
        s->wraps = wraps;
        s->has_data = true;
        if (!wraps) {
            call_binary(&c, argv[2], "data", &s->data);
        } else if (enif_is_binary(env, argv[2])) {
            s->keeper = enif_alloc_env();
            s->kept = enif_make_copy(s->keeper, argv[2]);
        } else {
            call_fail(&c, "data: must be a binary, got %s", text_of(env, argv[2]).text);
        }
    }
    return submit_tensor(&c, argv[1], make_tensor);
}

/* Reference, Device, Type, Shape. */
NIF_FUNCTION(nif_tensor_zeros) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(tensor_job));
    const qn_dtype dtype = call_dtype(&c, argv[2], "type");
    decode_shape(&c, argv[3]);
    if (!c.has_failed) ((tensor_job *)c.job->state)->dtype = dtype;
    return submit_tensor(&c, argv[1], make_tensor);
}

static bool read_tensor(job *j) {
    const tensor_job *s = j->state;
    qn_error error;
    ERL_NIF_TERM term;
    const size_t bytes = qn_tensor_bytes(s->tensor);
    unsigned char *to = enif_make_new_binary(j->env, bytes, &term);
    qn_status status = qn_tensor_read(s->tensor, to, bytes, &error);
    return status == QN_OK ? job_value(j, term) : job_error(j, status, &error);
}

static ERL_NIF_TERM submit_on_tensor(call *c, ERL_NIF_TERM term, bool (*step)(job *)) {
    object *o = call_object(c, term, "tensor", KIND_TENSOR);
    if (o != NULL) {
        tensor_job *s = c->job->state;
        s->tensor = o->value;
        s->device = device_of(o);
    }
    return call_submit(c, o == NULL ? NULL : o->worker, step, NULL);
}

/* Reference, Tensor. */
NIF_FUNCTION(nif_tensor_to_binary) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(tensor_job));
    return submit_on_tensor(&c, argv[1], read_tensor);
}

static bool reshape_tensor(job *j) {
    const tensor_job *s = j->state;
    qn_error error;
    qn_tensor *view = NULL;
    int64_t n_old = 1, n_new = 1;
    for (int32_t i = 0; i < qn_tensor_rank(s->tensor); i++) n_old *= qn_tensor_shape(s->tensor)[i];
    bool same = true;
    for (int32_t i = 0; i < s->rank; i++) same = same && !__builtin_mul_overflow(n_new, s->shape[i], &n_new);
    if (!same || n_new != n_old) {
        enif_snprintf(error.message, sizeof error.message, "shape: must have %lld elements like the tensor's",
                      (long long)n_old);
        return job_error(j, QN_EINVAL, &error);
    }
    qn_status status = qn_tensor_view(&view, s->tensor, 0, s->rank, s->shape, &error);
    return status == QN_OK ? job_tensor(j, view, s->device) : job_error(j, status, &error);
}

/* Reference, Tensor, Shape: returns a view of the same memory. */
NIF_FUNCTION(nif_tensor_reshape) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(tensor_job));
    decode_shape(&c, argv[2]);
    return submit_on_tensor(&c, argv[1], reshape_tensor);
}

typedef struct linear_job {
    object *like; /* a tensor on the device */
    const qn_tensor *weight;
    qn_linear_layout layout;
    qn_arith arith;
    qn_quantize to;
    qn_quantized quantized; /* used if its codes are set */
} linear_job;

static bool make_linear(job *j) {
    const linear_job *s = j->state;
    qn_error error;
    qn_linear *linear = NULL;
    qn_status status;
    if (s->quantized.codes != NULL) {
        status = qn_linear_pack_quantized(&linear, &s->quantized, s->arith, &error);
    } else if (s->to != QN_QUANTIZE_NONE) {
        status = qn_linear_quantize(&linear, s->weight, s->layout, s->to, s->arith, &error);
    } else {
        status = qn_linear_pack(&linear, s->weight, s->layout, s->arith, &error);
    }
    if (status != QN_OK) return job_error(j, status, &error);
    ErlNifEnv *env = j->env;
    ERL_NIF_TERM map = enif_make_new_map(env);
    map = map_put(env, map, "n_in", enif_make_int64(env, qn_linear_n_in(linear)));
    map = map_put(env, map, "n_out", enif_make_int64(env, qn_linear_n_out(linear)));
    map = map_put(env, map, "type", enif_make_atom(env, dtype_names[qn_linear_dtype(linear)]));
    map = map_put(env, map, "arith", enif_make_atom(env, arith_names[qn_linear_arith(linear)]));
    map = map_put(env, map, "bytes", enif_make_uint64(env, qn_linear_bytes(linear)));
    object *o = object_new(j->nif, KIND_LINEAR, linear, s->like->worker, device_of(s->like), NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "linear: no memory"});
    return job_value(j, enif_make_tuple2(env, object_term(env, o), map));
}

static ERL_NIF_TERM submit_linear(call *c, ERL_NIF_TERM weight, const char *name, linear_job s) {
    s.like = call_object(c, weight, name, KIND_TENSOR);
    if (!c->has_failed) {
        s.weight = s.like->value;
        if (s.quantized.scales != NULL) s.quantized.codes = s.like->value;
        *(linear_job *)c->job->state = s;
    }
    return call_submit(c, s.like == NULL ? NULL : s.like->worker, make_linear, NULL);
}

static const char *const layout_names[] = {"in_out", "out_in", NULL};

/* Reference, Weight, Layout, Arith. */
NIF_FUNCTION(nif_linear_pack) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(linear_job));
    const linear_job s = {.layout = (qn_linear_layout)call_choice(&c, argv[2], "layout", layout_names),
                          .arith = (qn_arith)call_choice(&c, argv[3], "arith", arith_names)};
    return submit_linear(&c, argv[1], "weight", s);
}

/* Reference, Weight, Layout, To, Arith. */
NIF_FUNCTION(nif_linear_quantize) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(linear_job));
    static const char *const to_names[] = {"q8", "q4", NULL};
    const linear_job s = {.layout = (qn_linear_layout)call_choice(&c, argv[2], "layout", layout_names),
                          .to = (qn_quantize)(call_choice(&c, argv[3], "to", to_names) + QN_QUANTIZE_Q8),
                          .arith = (qn_arith)call_choice(&c, argv[4], "arith", arith_names)};
    return submit_linear(&c, argv[1], "weight", s);
}

/* Reference, Codes, Scales, Biases | nil, Bits, Group, GroupOut, Arith. */
NIF_FUNCTION(nif_linear_pack_quantized) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(linear_job));
    const qn_quantized quantized = {.scales = call_tensor(&c, argv[2], "scales"),
                                    .biases = call_tensor_or_nil(&c, argv[3], "biases"),
                                    .bits = (int32_t)call_int(&c, argv[4], "bits", INT32_MIN, INT32_MAX),
                                    .group = (int32_t)call_int(&c, argv[5], "group", INT32_MIN, INT32_MAX),
                                    .group_out = (int32_t)call_int(&c, argv[6], "group_out", INT32_MIN, INT32_MAX)};
    const linear_job s = {.arith = (qn_arith)call_choice(&c, argv[7], "arith", arith_names), .quantized = quantized};
    return submit_linear(&c, argv[1], "codes", s);
}
