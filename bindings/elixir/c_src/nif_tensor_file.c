/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the tensors of a safetensors file, one per turn of the loader. */
#include "quern_nif.h"

typedef struct file_job {
    object *device;
    char *path;
    ERL_NIF_TERM keys; /* metadata keys: a list of binaries, in the job's environment */
    qn_tensor_file *file;
    size_t index;
    ERL_NIF_TERM tensors; /* [{Name, {Reference, Shape, Type}}], reversed */
} file_job;

static void finish_file(job *j) {
    const file_job *s = j->state;
    if (s->path != NULL) enif_free(s->path);
    qn_tensor_file_close(s->file);
}

/* The values of the keys that exist. */
static ERL_NIF_TERM metadata(ErlNifEnv *env, const file_job *s) {
    ERL_NIF_TERM map = enif_make_new_map(env), list = s->keys, head;
    while (enif_get_list_cell(env, list, &head, &list)) {
        char key[128];
        ErlNifBinary text;
        if (!enif_inspect_binary(env, head, &text) || text.size >= sizeof key) continue;
        enif_snprintf(key, sizeof key, "%.*s", (int)text.size, (const char *)text.data);
        const char *value = qn_tensor_file_metadata(s->file, key);
        if (value != NULL) enif_make_map_put(env, map, head, string_term(env, value), &map);
    }
    return map;
}

static bool read_next(job *j) {
    file_job *s = j->state;
    ErlNifEnv *env = j->env;
    qn_error error;
    qn_status status = QN_OK;
    if (s->file == NULL) {
        status = qn_tensor_file_open(&s->file, s->path, &error);
        s->tensors = enif_make_list(env, 0);
        return status != QN_OK && job_error(j, status, &error);
    }
    const char *name = qn_tensor_file_name(s->file, s->index++);
    if (name == NULL) return job_value(j, enif_make_tuple2(env, s->tensors, metadata(env, s)));
    qn_tensor *tensor = NULL;
    qn_device *device = ((device_value *)s->device->value)->device;
    status = qn_tensor_file_read(&tensor, s->file, device, name, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    ERL_NIF_TERM term;
    if (!tensor_term(j, &term, tensor, s->device)) {
        return job_error(j, QN_ENOMEM, &(qn_error){.message = "tensor: no memory"});
    }
    s->tensors = enif_make_list_cell(env, enif_make_tuple2(env, string_term(env, name), term), s->tensors);
    return false;
}

/* Reference, Device, Path, Keys: returns {[{Name, {Reference, Shape, Type}}], #{Key => Value}}. */
NIF_FUNCTION(nif_tensor_file_read) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(file_job));
    object *device = call_object(&c, argv[1], "device", KIND_DEVICE);
    char *path = call_string(&c, argv[2], "path");
    call_length(&c, argv[3], "metadata", 1024);
    if (c.job != NULL && c.job->state != NULL) {
        *(file_job *)c.job->state =
            (file_job){.device = device,
                       .path = path,
                       .keys = c.has_failed ? enif_make_list(c.job->env, 0) : enif_make_copy(c.job->env, argv[3])};
    }
    return call_submit(&c, c.nif->loader, read_next, finish_file);
}
