/* SPDX-License-Identifier: Apache-2.0 */
/* Opening checkpoints: every weight is stored where it belongs, and every inconsistent set of files is rejected. */
#include "../src/base/memory.h"
#include "../src/format/weight_files.h"
#include "../src/model/model.h"
#include "support/cmocka_all.h"
#include "support/devices.h"
#include "support/files.h"

#include <quern/sampler.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const models[] = {
    "tests/data/models/long-f32",
    "tests/data/models/mha-f16",
    "tests/data/models/new-config-bf16",
    "tests/data/models/tied-f32",
    "tests/data/models/untied-bf16-sharded",
    "tests/data/models/yarn-bf16",
    "models/demo",
};
enum { N_MODEL = sizeof models / sizeof models[0] };

static qn_device *open_device(const char *name, int32_t n_thread, const qn_allocator *allocator) {
    qn_device_options options = {.n_thread = n_thread};
    if (allocator != NULL) options.allocator = *allocator;
    qn_device *device = NULL;
    qn_error err = {0};
    if (qn_device_open(&device, name, &options, &err) != QN_OK) fail_msg("%s: %s", name, err.message);
    return device;
}

static qn_model *open_model(qn_device *device, const char *dir, const qn_model_options *options) {
    qn_model *model = NULL;
    qn_error err = {0};
    if (qn_model_open(&model, device, dir, options, &err) != QN_OK) fail_msg("%s: %s", dir, err.message);
    return model;
}

static void refuse(const char *dir, qn_status status, const char *why) {
    qn_device *device = open_device("ref", 1, NULL);
    qn_model *model = (qn_model *)&device;
    qn_error err = {0};
    qn_status got = qn_model_open(&model, device, dir, NULL, &err);
    if (got != status || strstr(err.message, why) == NULL) {
        fail_msg("%s \"%s\", not %s \"%s\"", qn_status_name(got), err.message, qn_status_name(status), why);
    }
    assert_ptr_equal(model, &device);
    assert_int_equal(qn_model_open(&model, device, dir, NULL, NULL), status);
    qn_device_close(device);
}

/* A tensor of a checkpoint as f32. */
static float *read_f32(const qni_weight_files *files, const char *name, size_t *n) {
    for (size_t i = 0; i < files->n_file; i++) {
        const qni_st_tensor *t = qni_safetensors_find(&files->files[i], name);
        if (t == NULL) continue;
        qn_dtype dtype = t->dtype == QNI_ST_F32 ? QN_DTYPE_F32 : t->dtype == QNI_ST_BF16 ? QN_DTYPE_BF16 : QN_DTYPE_F16;
        *n = (size_t)t->bytes / qn_dtype_bytes(dtype);
        void *raw = malloc((size_t)t->bytes);
        float *values = malloc(*n * sizeof *values);
        assert_int_equal(qni_file_read(&files->files[i].file, raw, t->offset, (size_t)t->bytes, NULL), QN_OK);
        for (size_t k = 0; k < *n; k++) values[k] = qni_load_f32(raw, dtype, (int64_t)k);
        free(raw);
        return values;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

/* A copy of `bytes` bytes of device memory; the caller frees it. */
static void *host_copy(const qn_model *model, const void *data, size_t bytes) {
    void *copy = malloc(bytes);
    assert_non_null(copy);
    const qn_device *device = model->device;
    assert_int_equal(device->backend->memory->read(device->state, copy, data, bytes, NULL), QN_OK);
    return copy;
}

/* The formula of qni_weight in types.h. */
static float weight_at(const qni_weight *w, int64_t i, int64_t o) {
    int64_t j = o % w->nr;
    if (w->interleaved) j = j % (w->nr / 2) * 2 + j / (w->nr / 2);
    int64_t at = o / w->nr * w->panel_stride + i / w->ki * w->group_stride + j * w->ki + i % w->ki;
    return qni_load_f32(w->data, w->dtype, at);
}

static void check_weight(const qn_model *model, const qni_weight_files *files, const char *name,
                         const qni_weight *on_device) {
    size_t n = 0;
    float *values = read_f32(files, name, &n);
    qni_weight copy = *on_device, *w = &copy;
    const size_t n_element = (size_t)(qni_ceil_div(w->n_out, w->nr) * w->panel_stride);
    void *data = host_copy(model, w->data, n_element * qn_dtype_bytes(w->dtype));
    w->data = data;
    assert_int_equal(n, w->n_in * w->n_out);
    for (int64_t o = 0; o < w->n_out; o++) {
        for (int64_t i = 0; i < w->n_in; i++) {
            if (weight_at(w, i, o) != values[o * w->n_in + i]) {
                fail_msg("%s: input %d, output %d", name, (int)i, (int)o);
            }
        }
    }
    free(data);
    free(values);
}

static void check_norm(const qn_model *model, const qni_weight_files *files, const char *name, const qni_vec *norm) {
    size_t n = 0;
    float *values = read_f32(files, name, &n);
    assert_int_equal(n, norm->n);
    void *data = host_copy(model, norm->data, n * qn_dtype_bytes(norm->dtype));
    for (int64_t i = 0; i < norm->n; i++) assert_true(qni_load_f32(data, norm->dtype, i) == values[i]);
    free(data);
    free(values);
}

static void check_layer(const qn_model *model, const qni_weight_files *files, int32_t layer) {
    const qni_layer_view *w = &model->layers[layer];
    const struct {
        const char *name;
        const qni_weight *weight;
    } linears[] = {
        {"self_attn.q_proj", &w->attention.q_proj}, {"self_attn.k_proj", &w->attention.k_proj},
        {"self_attn.v_proj", &w->attention.v_proj}, {"self_attn.o_proj", &w->attention.o_proj},
        {"mlp.gate_proj", &w->mlp.gate_proj},       {"mlp.up_proj", &w->mlp.up_proj},
        {"mlp.down_proj", &w->mlp.down_proj},
    };
    const struct {
        const char *name;
        const qni_vec *norm;
    } norms[] = {{"input_layernorm", &w->attention.norm},
                 {"post_attention_layernorm", &w->mlp.norm},
                 {"self_attn.q_norm", &w->attention.q_norm},
                 {"self_attn.k_norm", &w->attention.k_norm}};
    char name[96];
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)layer, linears[i].name);
        check_weight(model, files, name, linears[i].weight);
    }
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)layer, norms[i].name);
        check_norm(model, files, name, norms[i].norm);
    }
}

static void check_model(const char *dir, const char *device_name) {
    qn_device *device = open_device(device_name, 2, NULL);
    qn_model *model = open_model(device, dir, &(qn_model_options){.arith = QN_ARITH_F32});
    qn_device_close(device); /* the model keeps a reference */
    qni_weight_files files;
    assert_int_equal(qni_weight_files_open(&files, dir, NULL, NULL), QN_OK);
    check_weight(model, &files, "model.embed_tokens.weight", model->embedding);
    check_weight(model, &files, model->config.tied ? "model.embed_tokens.weight" : "lm_head.weight", &model->lm_head);
    check_norm(model, &files, "model.norm.weight", &model->norm);
    for (int32_t i = 0; i < model->config.n_layer; i++) check_layer(model, &files, i);
    qni_weight_files_close(&files);

    qn_model_config config;
    assert_int_equal(qn_model_read_config(&config, dir, NULL, NULL), QN_OK);
    assert_int_equal(config.n_parameter, qn_model_get_config(model)->n_parameter);
    assert_ptr_equal(qn_model_device(model), model->device);
    assert_int_equal(qn_model_arith(model), QN_ARITH_F32); /* as requested */
    qni_model_retain(model);
    qn_model_close(model);
    assert_int_equal(qn_model_get_config(model)->n_layer, config.n_layer); /* one reference is left */
    qn_model_close(model);
}

static void loads_every_weight(void **state) {
    (void)state;
    const char *device;
    for (int32_t d = 0; (device = qn_backend_name(d)) != NULL; d++) {
        for (int i = 0; i < N_MODEL; i++) check_model(models[i], device);
    }
}

/* The fingerprint differs between models, and depends only on the files. */
static void has_a_fingerprint(void **state) {
    (void)state;
    qn_device *device = open_device("ref", 1, NULL);
    uint8_t prints[N_MODEL][32];
    for (int i = 0; i < N_MODEL; i++) {
        for (int pass = 0; pass < 2; pass++) {
            qn_model *model = open_model(device, models[i], NULL);
            if (pass == 1) assert_memory_equal(prints[i], model->fingerprint, 32);
            memcpy(prints[i], model->fingerprint, 32);
            qn_model_close(model);
        }
        for (int k = 0; k < i; k++) assert_memory_not_equal(prints[i], prints[k], 32);
    }
    qn_device_close(device);
}

/* Fine-tunes share configuration and headers: a weight distinguishes them. */
static void fingerprints_weights(void **state) {
    (void)state;
    static const char name[] = "model.safetensors", from[] = "tests/data/models/tied-f32";
    char *dir = files_make_dir();
    files_copy_dir(from, dir, "golden");
    char *path = files_path(dir, name);
    size_t bytes;
    char *data = files_read(path, &bytes);
    uint64_t header;
    memcpy(&header, data, sizeof header);
    data[sizeof header + header] ^= 1; /* the lowest bit of the first tensor's first element */
    files_write(dir, name, data, bytes);

    qn_device *device = open_device("ref", 1, NULL);
    qn_model *original = open_model(device, from, NULL), *tuned = open_model(device, dir, NULL);
    assert_memory_not_equal(original->fingerprint, tuned->fingerprint, 32);
    qn_model_close(tuned);
    qn_model_close(original);
    qn_device_close(device);
    free(data);
    free(path);
    files_remove_dir(dir);
}

static void reads_generation_config(void **state) {
    (void)state;
    qn_device *device = open_device("ref", 1, NULL);
    qn_model *model = open_model(device, "models/demo", NULL);
    const qni_generation_config *g = &model->generation;
    assert_true(g->has_do_sample && g->do_sample && g->has_temperature && g->has_top_k && g->has_top_p);
    assert_false(g->has_min_p || g->has_repetition_penalty);
    assert_true(g->temperature == 0.6 && g->top_k == 20 && g->top_p == 0.95);
    assert_int_equal(model->bos, 4087);
    assert_int_equal(model->config.n_eos, 2);
    qn_model_close(model);
    qn_device_close(device);
}

/* All settings that the sampler supports are taken from the file. */
static void reads_sampler_settings(void **state) {
    (void)state;
    static const char file[] =
        "{\"do_sample\": true, \"temperature\": 0.5, \"top_k\": 7, \"top_p\": 0.75, \"min_p\": 0.25,"
        " \"repetition_penalty\": 1.5, \"presence_penalty\": -0.5, \"frequency_penalty\": 2}";
    char *dir = files_make_dir();
    files_copy_dir("tests/data/models/tied-f32", dir, "golden");
    files_write(dir, "generation_config.json", file, sizeof file - 1);
    qn_device *device = open_device("ref", 1, NULL);
    qn_model *model = open_model(device, dir, NULL);
    static const qn_sampler_mode modes[] = {QN_SAMPLER_MODEL, QN_SAMPLER_THINKING};
    for (int i = 0; i < 2; i++) {
        qn_sampler_params p;
        qn_sampler_defaults(model, modes[i], &p);
        assert_true(p.temperature == 0.5 && p.top_k == 7 && p.top_p == 0.75 && p.min_p == 0.25);
        assert_true(p.repetition_penalty == 1.5 && p.presence_penalty == -0.5 && p.frequency_penalty == 2);
    }
    qn_model_close(model);
    qn_device_close(device);
    files_remove_dir(dir);
}

static void reports_longest_context(void **state) {
    (void)state;
    qn_model_config c = {.n_ctx_max = 40960};
    assert_int_equal(qni_config_n_ctx_trained(&c), 40960);
    assert_int_equal(qni_config_n_ctx_limit(&c), 40960);
    c.yarn = (qn_yarn){.factor = 4, .original_ctx = 32768};
    assert_int_equal(qni_config_n_ctx_trained(&c), 32768);
    assert_int_equal(qni_config_n_ctx_limit(&c), 131072);
    c.yarn.factor = 1.1; /* max_position_embeddings exceeds original_ctx · factor and is used */
    assert_int_equal(qni_config_n_ctx_limit(&c), 40960);
    c.yarn = (qn_yarn){.factor = 1024, .original_ctx = INT32_MAX};
    assert_int_equal(qni_config_n_ctx_limit(&c), INT32_MAX);
}

/* A checkpoint being built: tensors with zeroed data, written as one file. */
typedef struct maker {
    json_t *header;
    size_t bytes;
} maker;

static void add(maker *m, const char *name, const char *dtype, size_t element, int rank, int64_t a, int64_t b) {
    size_t bytes = element * (size_t)(rank == 2 ? a * b : a);
    json_t *shape = rank == 2 ? json_pack("[I,I]", (json_int_t)a, (json_int_t)b) : json_pack("[I]", (json_int_t)a);
    json_object_set_new(m->header, name,
                        json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape", shape, "data_offsets",
                                  (json_int_t)m->bytes, (json_int_t)(m->bytes + bytes)));
    m->bytes += bytes;
}

static void write_file(maker *m, const char *dir, const char *name) {
    char *text = json_dumps(m->header, JSON_COMPACT);
    size_t n = strlen(text);
    unsigned char *file = calloc(1, 8 + n + m->bytes);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, text, n);
    files_write(dir, name, file, 8 + n + m->bytes);
    free(file);
    free(text);
    json_decref(m->header);
    *m = (maker){json_object(), 0};
}

/* d_model 4, 2 heads, 1 kv head, head_dim 2, d_ff 6, vocab 8, 1 layer; neighboring tensors differ in dtype. */
static const char tiny_config[] =
    "{\"model_type\":\"qwen3\",\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-6,\"rope_theta\":10000,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":%s%s}";

static void add_layer(maker *m, int layer, const char *skip) {
    static const struct {
        const char *name;
        int rank;
        int64_t a, b;
    } tensors[] = {
        {"self_attn.q_proj", 2, 4, 4}, {"self_attn.k_proj", 2, 2, 4}, {"self_attn.v_proj", 2, 2, 4},
        {"self_attn.o_proj", 2, 4, 4}, {"mlp.gate_proj", 2, 6, 4},    {"mlp.up_proj", 2, 6, 4},
        {"mlp.down_proj", 2, 4, 6},    {"input_layernorm", 1, 4, 0},  {"post_attention_layernorm", 1, 4, 0},
        {"self_attn.q_norm", 1, 2, 0}, {"self_attn.k_norm", 1, 2, 0},
    };
    static const char *const dtypes[] = {"F32", "BF16", "F16"};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, tensors[i].name);
        if (strcmp(name, skip) != 0) {
            add(m, name, dtypes[i % 3], i % 3 == 0 ? 4 : 2, tensors[i].rank, tensors[i].a, tensors[i].b);
        }
    }
}
static void add_rest(maker *m, const char *skip) {
    if (strcmp(skip, "model.embed_tokens.weight") != 0) add(m, "model.embed_tokens.weight", "F16", 2, 2, 8, 4);
    if (strcmp(skip, "model.norm.weight") != 0) add(m, "model.norm.weight", "BF16", 2, 1, 4, 0);
    if (strcmp(skip, "lm_head.weight") != 0) add(m, "lm_head.weight", "F32", 4, 2, 8, 4);
}
static void write_config(const char *dir, bool tied, const char *more) {
    char text[512];
    int n = snprintf(text, sizeof text, tiny_config, tied ? "true" : "false", more);
    files_write(dir, "config.json", text, (size_t)n);
}

static void accepts_mixed_dtypes(void **state) {
    (void)state;
    char *dir = files_make_dir();
    maker m = {json_object(), 0};
    add_layer(&m, 0, "");
    add_rest(&m, "");
    add(&m, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 4, 1, 1, 0); /* ignored */
    write_file(&m, dir, "model.safetensors");
    write_config(dir, false, "");
    check_model(dir, "ref");
    write_config(dir, true, ""); /* opening it is rejected (test_tensor_names.c) */
    qn_model_config config;
    assert_int_equal(qn_model_read_config(&config, dir, NULL, NULL), QN_OK);
    assert_int_equal(config.dtype, QN_DTYPE_F32);
    assert_int_equal(config.n_parameter, 32 + 4 + 16 + 8 + 8 + 16 + 24 * 3 + 4 + 4 + 2 + 2);
    json_decref(m.header);
    files_remove_dir(dir);
}

static void refuses_mismatched_tensors(void **state) {
    (void)state;
    char *dir = files_make_dir();
    maker m = {json_object(), 0};
    write_config(dir, false, "");
    static const char *const needed[] = {"model.layers.0.self_attn.q_norm.weight", "model.layers.0.mlp.up_proj.weight",
                                         "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        char why[96];
        add_layer(&m, 0, needed[i]);
        add_rest(&m, needed[i]);
        write_file(&m, dir, "model.safetensors");
        snprintf(why, sizeof why, "tensor %s is missing", needed[i]);
        refuse(dir, QN_EFORMAT, why);
    }
    static const char *const extra[] = {"model.layers.0.self_attn.q_proj.bias",
                                        "model.layers.0.mlp.experts.0.up_proj.weight",
                                        "score.weight",
                                        "model.layers.00.mlp.up_proj.weight",
                                        "model.layers.x.mlp.up_proj.weight",
                                        "model.layers.",
                                        "lm_head.scale",
                                        "model.norm.scales",
                                        "scales",
                                        "model.layers.0.mlp.scales"};
    for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
        char why[128];
        add_layer(&m, 0, "");
        add_rest(&m, "");
        add(&m, extra[i], "F32", 4, 1, 1, 0);
        write_file(&m, dir, "model.safetensors");
        snprintf(why, sizeof why, "model.safetensors: tensor %s is not part of a dense Qwen3 model", extra[i]);
        refuse(dir, QN_EUNSUPPORTED, why);
    }
    /* A missing layer; a layer beyond the stated number; far too many. */
    add_layer(&m, 0, "");
    add_layer(&m, 2, "");
    add_rest(&m, "");
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "tensor model.layers.1.self_attn.q_proj.weight is missing");
    write_config(dir, false, ",\"num_hidden_layers\":1");
    refuse(dir, QN_EFORMAT, "but num_hidden_layers is 1");
    write_config(dir, false, "");
    add_layer(&m, 999999, "");
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "num_hidden_layers is missing, and the tensors name 1000000 layers");
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "the tensors name 0 layers");
    /* Dtypes and ranks. */
    add_layer(&m, 0, "model.layers.0.mlp.up_proj.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.mlp.up_proj.weight", "F8_E4M3", 1, 2, 6, 4);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "up_proj.weight is F8_E4M3, but model.layers.0.mlp.up_proj.weight_scale_inv is missing");
    add_layer(&m, 0, "model.layers.0.mlp.up_proj.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.mlp.up_proj.weight", "I8", 1, 2, 6, 4);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EUNSUPPORTED, "up_proj.weight: dtype must be F32, BF16, F16, U32 or F8_E4M3, got I8");
    add_layer(&m, 0, "model.layers.0.input_layernorm.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.input_layernorm.weight", "I8", 1, 1, 4, 0);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EUNSUPPORTED, "input_layernorm.weight: dtype must be F32, BF16 or F16, got I8");
    add_layer(&m, 0, "model.layers.0.mlp.up_proj.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.mlp.up_proj.weight", "F32", 4, 1, 24, 0);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "up_proj.weight: shape must be {6, 4}, got {24}");
    /* A size that cannot be inferred from any tensor. */
    add_layer(&m, 0, "model.layers.0.self_attn.q_norm.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.self_attn.q_norm.weight", "F32", 4, 1, 3, 0);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT, "head_dim must be even, got 3");
    add_layer(&m, 0, "model.layers.0.self_attn.q_norm.weight");
    add_rest(&m, "");
    add(&m, "model.layers.0.self_attn.q_norm.weight", "F32", 4, 1, 8, 0);
    write_file(&m, dir, "model.safetensors");
    refuse(dir, QN_EFORMAT,
           "num_attention_heads is missing and cannot be inferred from tensor model.layers.0.self_attn.q_proj.weight "
           "with");
    json_decref(m.header);
    files_remove_dir(dir);
}

static void write_index(const char *dir, const char *text) {
    files_write(dir, "model.safetensors.index.json", text, strlen(text));
}

/* A map of all tensors of one layer and the rest, in two shards, with one entry replaced or added. */
static void write_map(const char *dir, const char *name, json_t *shard) {
    static const char *const a[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                    "mlp.down_proj",    "input_layernorm",  "post_attention_layernorm",
                                    "self_attn.q_norm", "self_attn.k_norm"};
    static const char *const b[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
    json_t *map = json_object();
    char key[96];
    for (size_t i = 0; i < sizeof a / sizeof a[0]; i++) {
        snprintf(key, sizeof key, "model.layers.0.%s.weight", a[i]);
        json_object_set_new(map, key, json_string("a.safetensors"));
    }
    for (size_t i = 0; i < sizeof b / sizeof b[0]; i++) json_object_set_new(map, b[i], json_string("b.safetensors"));
    if (shard != NULL) {
        json_object_set_new(map, name, shard);
    } else if (name != NULL) {
        json_object_del(map, name);
    }
    json_t *root = json_pack("{s:{s:i},s:o}", "metadata", "total_size", 1, "weight_map", map);
    char *text = json_dumps(root, 0);
    write_index(dir, text);
    free(text);
    json_decref(root);
}

static void checks_shards_against_index(void **state) {
    (void)state;
    char *dir = files_make_dir();
    maker m = {json_object(), 0};
    write_config(dir, false, "");
    refuse(dir, QN_EIO, "neither model.safetensors nor model.safetensors.index.json is there");
    add_layer(&m, 0, "");
    write_file(&m, dir, "a.safetensors");
    add_rest(&m, "");
    write_file(&m, dir, "b.safetensors");
    write_map(dir, NULL, NULL);
    check_model(dir, "ref");

    write_map(dir, "model.norm.weight", NULL);
    refuse(dir, QN_EFORMAT, "index.json: tensor model.norm.weight of b.safetensors is not in the index");
    write_map(dir, "model.norm.weight", json_string("a.safetensors"));
    refuse(dir, QN_EFORMAT, "index.json: tensor model.norm.weight is not in its shard a.safetensors");
    write_map(dir, "more.weight", json_string("a.safetensors"));
    refuse(dir, QN_EFORMAT, "index.json: tensor more.weight is not in its shard a.safetensors");
    write_map(dir, "more.weight", json_string("c.safetensors"));
    refuse(dir, QN_EIO, "c.safetensors: No such file");
    write_map(dir, "more.weight", json_integer(1));
    refuse(dir, QN_EFORMAT, "the shard of tensor more.weight must be a string");
    static const char *const paths[] = {"../b.safetensors", "/etc/b.safetensors", "x/../b.safetensors", "..", "",
                                        "x\\b.safetensors", "a..safetensors"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        write_map(dir, "more.weight", json_string(paths[i]));
        refuse(dir, QN_EFORMAT, "must be a file name without a path");
    }
    write_map(dir, "more.weight", json_string("passwd"));
    refuse(dir, QN_EFORMAT, "shard \"passwd\" must end in .safetensors");
    write_index(dir, "{\"weight_map\":{}}");
    refuse(dir, QN_EFORMAT, "weight_map is empty");
    write_index(dir, "{\"weight_map\":[]}");
    refuse(dir, QN_EFORMAT, "weight_map must be an object");
    write_index(dir, "[]");
    refuse(dir, QN_EFORMAT, "weight_map must be an object");
    write_index(dir, "{");
    refuse(dir, QN_EFORMAT, "index.json: line");

    /* A tensor in both shards. */
    add_rest(&m, "");
    add(&m, "model.layers.0.mlp.up_proj.weight", "F32", 4, 2, 6, 4);
    write_file(&m, dir, "b.safetensors");
    write_map(dir, NULL, NULL);
    refuse(dir, QN_EFORMAT, "up_proj.weight is in b.safetensors, and in a.safetensors by the index");

    /* The single file takes precedence, as in transformers. */
    add_layer(&m, 0, "");
    add_rest(&m, "");
    write_file(&m, dir, "model.safetensors");
    check_model(dir, "ref");

    json_t *map = json_object();
    for (int i = 0; i <= QNI_MAX_SHARD; i++) {
        char shard[32];
        snprintf(shard, sizeof shard, "%d.safetensors", i);
        json_object_set_new(map, shard, json_string(shard));
    }
    json_t *index = json_pack("{s:o}", "weight_map", map);
    char *text = json_dumps(index, 0);
    write_index(dir, text);
    free(text);
    json_decref(index);
    char *path = files_path(dir, "model.safetensors");
    assert_int_equal(remove(path), 0);
    free(path);
    refuse(dir, QN_EUNSUPPORTED, "more than 256 shards");
    json_decref(m.header);
    files_remove_dir(dir);
}

typedef struct watcher {
    int n;
    uint64_t last, total;
    int stop_at;        /* cancel at this report; -1: never */
    const char *shrink; /* a file to truncate at the first report, or NULL */
} watcher;

static bool watch(void *user, uint64_t done, uint64_t total) {
    watcher *w = user;
    assert_true(w->n == 0 ? done == 0 : done > w->last);
    assert_true(done <= total);
    if (w->n == 0 && w->shrink != NULL) assert_int_equal(truncate(w->shrink, 100000), 0);
    w->last = done;
    w->total = total;
    return w->n++ != w->stop_at;
}

static void reports_progress(void **state) {
    (void)state;
    const char *name;
    for (int32_t d = 0; (name = qn_backend_name(d)) != NULL; d++) {
        qn_device *device = open_device(name, 1, NULL);
        watcher w = {.stop_at = -1};
        qn_model *model = open_model(device, "models/demo", &(qn_model_options){.progress = {watch, &w}});
        assert_int_equal(w.last, w.total);
        assert_int_equal(w.total, 2 * model->config.n_parameter); /* all bf16 */
        assert_true(w.n >= 2);
        qn_model_close(model);
        int n = w.n;
        for (int stop = 0; stop < n; stop += 1 + n / 32) { /* debug builds report a few thousand times */
            qn_error err = {0};
            w = (watcher){.stop_at = stop};
            model = NULL;
            qn_model_options options = {.progress = {watch, &w}};
            assert_int_equal(qn_model_open(&model, device, "models/demo", &options, &err), QN_ECANCELED);
            assert_non_null(strstr(err.message, "canceled"));
            assert_null(model);
            assert_int_equal(w.n, stop + 1);
        }
        qn_device_close(device);
    }
}

/* The file shrinks between check and read: an error, whichever thread detects it. */
static void survives_a_shrinking_file(void **state) {
    (void)state;
    char *dir = files_make_dir();
    const char *name;
    for (int32_t d = 0; (name = qn_backend_name(d)) != NULL; d++) {
        files_copy_dir("models/demo", dir, "tokenizer");
        char *path = files_path(dir, "model.safetensors");
        qn_device *device = open_device(name, 2, NULL);
        watcher w = {.stop_at = -1, .shrink = path};
        qn_model *model = NULL;
        qn_error err = {0};
        qn_model_options options = {.progress = {watch, &w}};
        assert_int_equal(qn_model_open(&model, device, dir, &options, &err), QN_EFORMAT);
        assert_non_null(strstr(err.message, "where more was expected"));
        assert_null(model);
        qn_device_close(device);
        free(path);
    }
    files_remove_dir(dir);
}

/* An allocator that counts, and fails at the n-th request. */
typedef struct counter {
    int n_call, fail_at;
    size_t bytes, blocks;
} counter;
static void *counted_alloc(void *user, size_t bytes, size_t alignment) {
    counter *c = user;
    if (c->n_call++ == c->fail_at) return NULL;
    void *p = aligned_alloc(alignment, qni_round_up(bytes, alignment));
    assert_non_null(p);
    c->bytes += bytes;
    c->blocks++;
    return p;
}
static void counted_free(void *user, void *pointer, size_t bytes) {
    counter *c = user;
    c->bytes -= bytes;
    c->blocks--;
    free(pointer);
}

static void survives_a_failing_allocator(void **state) {
    (void)state;
    const char *name;
    for (int32_t d = 0; (name = qn_backend_name(d)) != NULL; d++) {
        bool done = is_gpu(name);
        for (int at = 0; !done; at++) {
            counter c = {.fail_at = at};
            qn_allocator allocator = {counted_alloc, counted_free, &c};
            qn_device *device = open_device(name, 1, &allocator);
            qn_model *model = NULL;
            qn_error err = {0};
            qn_status status = qn_model_open(&model, device, "tests/data/models/mha-f16", NULL, &err);
            done = status == QN_OK;
            if (done) {
                assert_int_equal(at, 1); /* all weights are one block */
            } else {
                assert_int_equal(status, QN_ENOMEM);
                assert_non_null(strstr(err.message, "no memory for"));
                assert_int_equal(c.blocks, 0);
            }
            qn_model_close(model);
            qn_device_close(device);
            assert_int_equal(c.blocks, 0);
            assert_int_equal(c.bytes, 0);
        }
    }
}

static void refuses_bad_arguments(void **state) {
    (void)state;
    qn_device *device = open_device("ref", 1, NULL);
    qn_model *model = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open(NULL, device, "models/demo", NULL, &err), QN_EINVAL);
    assert_int_equal(qn_model_open(&model, NULL, "models/demo", NULL, &err), QN_EINVAL);
    assert_int_equal(qn_model_open(&model, device, NULL, NULL, &err), QN_EINVAL);
    qn_model_options options = {.arith = (qn_arith)9};
    assert_int_equal(qn_model_open(&model, device, "models/demo", &options, &err), QN_EINVAL);
    assert_non_null(strstr(err.message, "arith: unknown value 9"));
    options.arith = QN_ARITH_INT8; /* only for quantized weights */
    assert_int_equal(qn_model_open(&model, device, "models/demo", &options, &err), QN_EUNSUPPORTED);
    assert_null(model);
    assert_null(qn_model_get_config(NULL));
    assert_null(qn_model_device(NULL));
    qn_model_close(NULL);
    refuse("tests/data/models/absent", QN_EIO, "config.json: No such file");
    refuse("tests/data/models/tied-f32/config.json", QN_EIO, "Not a directory");
    qn_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_every_weight),          cmocka_unit_test(has_a_fingerprint),
        cmocka_unit_test(fingerprints_weights),        cmocka_unit_test(reads_generation_config),
        cmocka_unit_test(reads_sampler_settings),      cmocka_unit_test(reports_longest_context),
        cmocka_unit_test(accepts_mixed_dtypes),        cmocka_unit_test(refuses_mismatched_tensors),
        cmocka_unit_test(checks_shards_against_index), cmocka_unit_test(reports_progress),
        cmocka_unit_test(survives_a_shrinking_file),   cmocka_unit_test(survives_a_failing_allocator),
        cmocka_unit_test(refuses_bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
