/* SPDX-License-Identifier: Apache-2.0 */
/* The module Quern.Nif: its function table, loading, and how the values of its objects are freed. */
#include "quern_nif.h"

#include <dlfcn.h>

NIF_FUNCTION(nif_version) {
    (void)argc;
    (void)argv;
    return string_term(env, qn_version());
}

static void device_value_free(void *value) {
    device_value *d = value;
    worker_stop(d->worker); /* no job is left: a job holds objects, and each object holds the device */
    qn_device_close(d->device);
    enif_free(d);
}

static void free_value(object_kind kind, void *value) {
    switch (kind) {
    case KIND_DEVICE:
        device_value_free(value);
        break;
    case KIND_TENSOR:
        qn_tensor_free(value);
        break;
    case KIND_LINEAR:
        qn_linear_free(value);
        break;
    case KIND_MODEL:
        qn_model_close(value);
        break;
    case KIND_SESSION:
        qn_session_free(value);
        break;
    case KIND_GENERATION:
        generation_value_free(value);
        break;
    case KIND_TOKENIZER:
        qn_tokenizer_close(value);
        break;
    case KIND_TEMPLATE:
        qn_chat_template_close(value);
        break;
    case N_KIND:
        break;
    }
}

/*
 * The state shared by workers and objects: created when the module is first loaded, and kept. The VM may collect an
 * object after the module's code is purged, and a job may be running then. So the library stays mapped, and the module
 * finds its workers again when it is reloaded. (It recognizes earlier objects only if it was replaced, not if it was
 * deleted in between.)
 */
static nif *there;

static void stay_mapped(void) {
    Dl_info self;
    if (dladdr((void *)(uintptr_t)stay_mapped, &self) != 0)
        dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static nif *make(void) {
    nif *n = enif_alloc(sizeof *n);
    if (n == NULL) return NULL;
    *n = (nif){.free_value = free_value,
               .lock = enif_mutex_create("quern_objects"),
               .reaper = worker_start("quern_reaper"),
               .loader = worker_start("quern_loader"),
               .text = worker_start("quern_text")};
    if (n->lock != NULL && n->reaper != NULL && n->loader != NULL && n->text != NULL) return n;
    worker *const workers[] = {n->reaper, n->loader, n->text};
    for (int i = 0; i < 3; i++) {
        if (workers[i] != NULL) worker_stop(workers[i]);
    }
    if (n->lock != NULL) enif_mutex_destroy(n->lock);
    enif_free(n);
    return NULL;
}

/* The VM serializes code loading. */
static int load(ErlNifEnv *env, void **private_data, ERL_NIF_TERM info) {
    (void)info;
    if (there == NULL) there = make();
    if (there == NULL || !object_type_open(env, there) || !job_type_open(env, there)) return 1;
    stay_mapped();
    *private_data = there;
    return 0;
}

static int upgrade(ErlNifEnv *env, void **private_data, void **old_private_data, ERL_NIF_TERM info) {
    (void)old_private_data;
    return load(env, private_data, info);
}

static ErlNifFunc functions[] = {
    {"version", 0, nif_version, 0},
    {"counts", 0, nif_counts, 0},
    {"free", 1, nif_free, 0},
    {"devices", 0, nif_devices, 0},
    {"device_open", 3, nif_device_open, 0},
    {"tensor_from_binary", 6, nif_tensor_from_binary, 0},
    {"tensor_zeros", 4, nif_tensor_zeros, 0},
    {"tensor_to_binary", 2, nif_tensor_to_binary, 0},
    {"tensor_reshape", 3, nif_tensor_reshape, 0},
    {"tensor_file_read", 4, nif_tensor_file_read, 0},
    {"linear_pack", 4, nif_linear_pack, 0},
    {"linear_quantize", 5, nif_linear_quantize, 0},
    {"linear_pack_quantized", 8, nif_linear_pack_quantized, 0},
    {"mlp", 7, nif_mlp, 0},
    {"kv_attention", 9, nif_kv_attention, 0},
    {"attention_residual", 4, nif_attention_residual, 0},
    {"attention_block", 15, nif_attention_block, 0},
    {"layer", 19, nif_layer, 0},
    {"greedy", 5, nif_greedy, 0},
    {"forward_greedy", 13, nif_forward_greedy, 0},
    {"model_open", 4, nif_model_open, 0},
    {"session_new", 3, nif_session_new, 0},
    {"session_append", 4, nif_session_append, 0},
    {"session_rewind", 3, nif_session_rewind, 0},
    {"session_ids", 2, nif_session_ids, 0},
    {"session_logits", 2, nif_session_logits, 0},
    {"generation_new", 6, nif_generation_new, 0},
    {"generation_next", 2, nif_generation_next, 0},
    {"generation_stop", 2, nif_generation_stop, 0},
    {"tokenizer_open", 2, nif_tokenizer_open, 0},
    {"tokenizer_encode", 4, nif_tokenizer_encode, 0},
    {"tokenizer_decode", 4, nif_tokenizer_decode, 0},
    {"tokenizer_id", 3, nif_tokenizer_id, 0},
    {"chat_open", 3, nif_chat_open, 0},
    {"chat_render", 3, nif_chat_render, 0},
    {"chat_encode", 5, nif_chat_encode, 0},
    {"chat_ends", 3, nif_chat_ends, 0},
};

ERL_NIF_INIT(Elixir.Quern.Nif, functions, load, NULL, upgrade, NULL)
