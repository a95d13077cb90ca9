/* SPDX-License-Identifier: Apache-2.0 */
/* Tiny checkpoints with random weights. */
#include "checkpoints.h"

#include "../../src/base/half.h"
#include "files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const tiny_linears[TINY_N_LINEAR] = {
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.k_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.0.self_attn.o_proj",
    "model.layers.0.mlp.gate_proj",
    "model.layers.0.mlp.up_proj",
    "model.layers.0.mlp.down_proj",
    "model.embed_tokens",
    "lm_head",
};

static size_t dtype_bytes(const char *dtype) {
    if (strcmp(dtype, "F8_E4M3") == 0 || strcmp(dtype, "I8") == 0) return 1;
    return strcmp(dtype, "F32") == 0 || strcmp(dtype, "U32") == 0 ? 4 : 2;
}

void tensors_add(tensors *t, const char *name, const char *dtype, int64_t rows, int64_t columns, const void *data) {
    size_t bytes = (size_t)rows * (size_t)(columns > 0 ? columns : 1) * dtype_bytes(dtype);
    if (t->header == NULL) t->header = json_object();
    t->data = realloc(t->data, t->bytes + bytes);
    assert_non_null(t->data);
    memcpy(t->data + t->bytes, data, bytes);
    json_t *shape =
        columns > 0 ? json_pack("[I, I]", (json_int_t)rows, (json_int_t)columns) : json_pack("[I]", (json_int_t)rows);
    json_object_set_new(t->header, name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                                  (json_int_t)t->bytes, (json_int_t)(t->bytes + bytes)));
    t->bytes += bytes;
}

void tensors_metadata(tensors *t, const char *key, const char *value) {
    if (t->header == NULL) t->header = json_object();
    json_object_set_new(t->header, "__metadata__", json_pack("{s:s}", key, value));
}

void tensors_write(tensors *t, const char *dir, const char *file) {
    char *header = json_dumps(t->header, JSON_COMPACT);
    uint64_t n = strlen(header);
    unsigned char *all = malloc(8 + n + t->bytes);
    assert_non_null(all);
    memcpy(all, &n, 8);
    memcpy(all + 8, header, n);
    memcpy(all + 8 + n, t->data, t->bytes);
    files_write(dir, file, all, 8 + n + t->bytes);
    free(all);
    free(header);
    free(t->data);
    json_decref(t->header);
    *t = (tensors){0};
}

/* Uniform in [-1, 1]. */
static float uniform(test_rng *rng) {
    return (float)(rng_next(rng) >> 40) * 0x1p-23f - 1;
}

/* Store a float in its dtype and set the value to what was stored. */
static void store_scale(unsigned char *to, int64_t index, const char *dtype, float *value) {
    uint16_t half = strcmp(dtype, "BF16") == 0 ? qni_bf16_of_f32(*value) : qni_f16_of_f32(*value);
    if (strcmp(dtype, "F32") == 0) {
        memcpy(to + index * 4, value, 4);
        return;
    }
    memcpy(to + index * 2, &half, 2);
    *value = strcmp(dtype, "BF16") == 0 ? qni_f32_of_bf16(half) : qni_f32_of_f16(half);
}

/* e4m3: 4 exponent bits with bias 7, 3 mantissa bits. */
static float of_e4m3(int code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    float size = exponent > 0 ? ldexpf(8 + (float)mantissa, exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 128 ? -size : size;
}

typedef struct linear {
    const char *name;
    int64_t rows, columns;
    storage how;
    tensors *weights, *scales;
} linear;

static void add(tensors *to, const linear *l, const char *part, const char *dtype, int64_t rows, int64_t columns,
                const void *data) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", l->name, part);
    tensors_add(to, name, dtype, rows, columns, data);
}

static void add_affine(const linear *l, float *values, test_rng *rng) {
    const int bits = l->how.bits, group = l->how.group;
    const int64_t words = l->columns * bits / 32, n_group = l->columns / group;
    uint32_t *codes = calloc((size_t)(l->rows * words), sizeof *codes);
    unsigned char *scales = calloc((size_t)(l->rows * n_group), 4), *biases = calloc((size_t)(l->rows * n_group), 4);
    for (int64_t o = 0; o < l->rows; o++) {
        float scale = 0, bias = 0;
        for (int64_t i = 0; i < l->columns; i++) {
            const int64_t g = o * n_group + i / group, bit = i * bits;
            if (i % group == 0) {
                scale = uniform(rng) * 0.3f / (float)(1 << bits);
                store_scale(scales, g, l->how.scale_dtype, &scale);
                bias = -(float)(1 << (bits - 1)) * scale * (l->how.symmetric ? 1 : 1 + 0.2f * uniform(rng));
                store_scale(biases, g, l->how.scale_dtype, &bias);
            }
            uint32_t code = (uint32_t)rng_below(rng, 1 << bits);
            uint64_t shifted = (uint64_t)code << bit % 32;
            codes[o * words + bit / 32] |= (uint32_t)shifted;
            if (shifted >> 32 != 0) codes[o * words + bit / 32 + 1] |= (uint32_t)(shifted >> 32);
            values[o * l->columns + i] = scale * (float)code + bias;
        }
    }
    add(l->weights, l, "weight", "U32", l->rows, words, codes);
    add(l->scales, l, "scales", l->how.scale_dtype, l->rows, n_group, scales);
    add(l->scales, l, "biases", l->how.scale_dtype, l->rows, n_group, biases);
    free(biases);
    free(scales);
    free(codes);
}

static void add_fp8(const linear *l, float *values, test_rng *rng) {
    const int64_t n_out = (l->rows + l->how.block_out - 1) / l->how.block_out;
    const int64_t n_in = (l->columns + l->how.group - 1) / l->how.group;
    unsigned char *codes = malloc((size_t)(l->rows * l->columns)), *scales = calloc((size_t)(n_out * n_in), 4);
    float *scale = calloc((size_t)(n_out * n_in), sizeof *scale);
    for (int64_t k = 0; k < n_out * n_in; k++) {
        scale[k] = uniform(rng) * 0.001f;
        store_scale(scales, k, l->how.scale_dtype, &scale[k]);
    }
    for (int64_t o = 0; o < l->rows; o++) {
        for (int64_t i = 0; i < l->columns; i++) {
            int code = rng_below(rng, 256);
            if ((code & 127) == 127) code ^= 1; /* not a NaN */
            codes[o * l->columns + i] = (unsigned char)code;
            values[o * l->columns + i] = scale[o / l->how.block_out * n_in + i / l->how.group] * of_e4m3(code);
        }
    }
    add(l->weights, l, "weight", "F8_E4M3", l->rows, l->columns, codes);
    add(l->scales, l, "weight_scale_inv", l->how.scale_dtype, n_out, n_in, scales);
    free(scale);
    free(scales);
    free(codes);
}

static void add_linear(const linear *l, tensors *twin, test_rng *rng) {
    float *values = malloc((size_t)(l->rows * l->columns) * sizeof *values);
    assert_non_null(values);
    if (l->how.block_out > 0) {
        add_fp8(l, values, rng);
    } else if (l->how.bits > 0) {
        add_affine(l, values, rng);
    } else {
        for (int64_t i = 0; i < l->rows * l->columns; i++) values[i] = 0.1f * uniform(rng);
        add(l->weights, l, "weight", "F32", l->rows, l->columns, values);
    }
    add(twin, l, "weight", "F32", l->rows, l->columns, values);
    free(values);
}

static void write_config(const tiny_model *model, const char *dir, const char *more) {
    char text[2048];
    int n = snprintf(text, sizeof text,
                     "{\"model_type\":\"qwen3\",\"hidden_act\":\"silu\",\"hidden_size\":64,\"num_attention_heads\":2,"
                     "\"num_key_value_heads\":1,\"head_dim\":32,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-6,"
                     "\"rope_theta\":1e4,\"tie_word_embeddings\":%s%s}",
                     model->tied ? "true" : "false", more);
    files_write(dir, "config.json", text, (size_t)n);
}

/* Write two shards and their index, or a single file. */
static void write_weights(tensors *weights, tensors *scales, const char *dir) {
    static const char *const names[] = {"a.safetensors", "b.safetensors"};
    if (scales == weights) {
        tensors_write(weights, dir, "model.safetensors");
        return;
    }
    json_t *map = json_object(), *value;
    const char *key;
    json_object_foreach(weights->header, key, value) json_object_set_new(map, key, json_string(names[0]));
    json_object_foreach(scales->header, key, value) json_object_set_new(map, key, json_string(names[1]));
    json_object_del(map, "__metadata__");
    json_t *root = json_pack("{s:o}", "weight_map", map);
    char *text = json_dumps(root, 0);
    files_write(dir, "model.safetensors.index.json", text, strlen(text));
    free(text);
    json_decref(root);
    tensors_write(weights, dir, names[0]);
    tensors_write(scales, dir, names[1]);
}

void tiny_write(const tiny_model *model, const char *dir, const char *twin, const char *config, uint64_t seed) {
    const int64_t d_ff = model->d_ff > 0 ? model->d_ff : TINY_D_FF;
    const int64_t shapes[TINY_N_LINEAR][2] = {{64, 64},   {32, 64},   {32, 64},         {64, 64},        {d_ff, 64},
                                              {d_ff, 64}, {64, d_ff}, {TINY_VOCAB, 64}, {TINY_VOCAB, 64}};
    static const char *const norms[] = {
        "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight", "model.norm.weight",
        "model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.k_norm.weight"};
    test_rng rng = {seed};
    tensors weights = {0}, apart = {0}, dense = {0};
    tensors *scales = model->scales_apart ? &apart : &weights;
    for (int i = 0; i < TINY_N_LINEAR - (model->tied ? 1 : 0); i++) {
        const storage *how = model->own[i] != NULL ? model->own[i] : &model->all;
        const linear l = {tiny_linears[i], shapes[i][0], shapes[i][1], *how, &weights, scales};
        add_linear(&l, &dense, &rng);
    }
    for (int i = 0; i < 5; i++) {
        float norm[64];
        for (int k = 0; k < 64; k++) norm[k] = 1 + 0.1f * uniform(&rng);
        tensors_add(&weights, norms[i], "F32", i < 3 ? 64 : 32, 0, norm);
        tensors_add(&dense, norms[i], "F32", i < 3 ? 64 : 32, 0, norm);
    }
    if (model->claims_symmetric) tensors_metadata(scales, "quern.symmetric", "8");
    write_config(model, dir, config);
    write_weights(&weights, scales, dir);
    if (twin != NULL) {
        write_config(model, twin, "");
        write_weights(&dense, &dense, twin);
    }
    free(dense.data);
    json_decref(dense.header);
}

static bool store_logits(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    memcpy((float *)user + (size_t)position * TINY_VOCAB, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

float *tiny_logits(const char *device_name, int32_t n_thread, const char *dir, const qn_model_options *options) {
    static const int32_t ids[8] = {5, 90, 17, 3, 3, 61, 42, 0};
    const qn_device_options device_options = {.n_thread = n_thread};
    qn_device *device = NULL;
    qn_model *model = NULL;
    float *logits = calloc(8 * TINY_VOCAB, sizeof *logits);
    assert_non_null(logits);
    assert_ok(qn_device_open(&device, device_name, &device_options, err));
    assert_ok(qn_model_open(&model, device, dir, options, err));
    qn_device_close(device);
    qn_session *session = open_session(model, 16, 0);
    assert_ok(qn_session_append(session, ids, 8, store_logits, logits, err));
    qn_session_free(session);
    qn_model_close(model);
    return logits;
}
