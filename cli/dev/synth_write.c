/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a checkpoint of random weights in the layout of published ones: shards of at most 5 GB with an index, tensors
 * in layer order, streamed. A weight depends only on the seed, its tensor and its index in it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "../../src/base/half.h"
#include "../options.h"
#include "../output.h"
#include "synth.h"

static const uint64_t shard_bytes = 5000000000; /* transformers' shard size */

enum { BLOCK = 65536, LAYER_TENSORS = 11 };

/* A tensor of the checkpoint; cols 0: a norm vector. */
typedef struct weight {
    char name[80];
    int64_t rows, cols;
    int shard;
} weight;

typedef struct writer {
    const model_shape *shape;
    const char *dir;
    qn_dtype dtype;
    uint64_t seed, done, total;
    weight *weights;
    int n_weight, n_shard;
    progress_bar bar;
} writer;

static uint64_t weight_elements(const weight *w) {
    return (uint64_t)w->rows * (uint64_t)(w->cols ? w->cols : 1);
}

static weight *list_weights(const model_shape *s, int *n) {
    int64_t H = s->d_model, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int64_t rows, cols;
    } layer[LAYER_TENSORS] = {
        {"input_layernorm", H, 0},
        {"self_attn.q_proj", q, H},
        {"self_attn.k_proj", kv, H},
        {"self_attn.v_proj", kv, H},
        {"self_attn.o_proj", H, q},
        {"self_attn.q_norm", s->head_dim, 0},
        {"self_attn.k_norm", s->head_dim, 0},
        {"post_attention_layernorm", H, 0},
        {"mlp.gate_proj", s->d_ff, H},
        {"mlp.up_proj", s->d_ff, H},
        {"mlp.down_proj", H, s->d_ff},
    };
    weight *list = must_calloc((size_t)s->layers * LAYER_TENSORS + 3, sizeof(*list));
    *n = 0;
    list[(*n)++] = (weight){"model.embed_tokens.weight", s->vocab, H, 0};
    for (int64_t i = 0; i < s->layers; i++)
        for (int j = 0; j < LAYER_TENSORS; j++) {
            weight *w = &list[(*n)++];
            *w = (weight){"", layer[j].rows, layer[j].cols, 0};
            snprintf(w->name, sizeof(w->name), "model.layers.%d.%s.weight", (int)i, layer[j].name);
        }
    list[(*n)++] = (weight){"model.norm.weight", H, 0, 0};
    if (!s->tied) list[(*n)++] = (weight){"lm_head.weight", s->vocab, H, 0};
    return list;
}

uint64_t synth_bytes(const model_shape *shape, qn_dtype dtype) {
    int n;
    weight *list = list_weights(shape, &n);
    double bytes =
        0; /* upper bound first: each factor is below 2^24, a matrix below 2^46, but the total may overflow */
    uint64_t exact = 0;
    for (int i = 0; i < n; i++) {
        bytes += (double)weight_elements(&list[i]) * (double)qn_dtype_bytes(dtype);
        exact += weight_elements(&list[i]) * qn_dtype_bytes(dtype);
    }
    free(list);
    return bytes < 0x1p62 ? exact : 0;
}

static void assign_shards(writer *w) {
    uint64_t size = 0;
    w->n_shard = 1;
    for (int i = 0; i < w->n_weight; i++) {
        uint64_t bytes = weight_elements(&w->weights[i]) * qn_dtype_bytes(w->dtype);
        if (size && size + bytes > shard_bytes) {
            w->n_shard++;
            size = 0;
        }
        size += bytes;
        w->weights[i].shard = w->n_shard - 1;
    }
}

static void shard_name(const writer *w, int shard, char *text, size_t size) {
    if (w->n_shard == 1)
        snprintf(text, size, "model.safetensors");
    else
        snprintf(text, size, "model-%05d-of-%05d.safetensors", shard + 1, w->n_shard);
}

/* Counter-based random bits: splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t random_bits(uint64_t counter) {
    uint64_t x = counter * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Nearly normal with standard deviation 0.02, transformers' initializer_range: the sum of four uniform 16-bit numbers,
 * whose variance is 4 · 2^32 / 12. Norms are 1 ± 0.1, so that a skipped norm shows. */
static float random_weight(uint64_t bits, bool norm) {
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) + (int32_t)(bits >> 32 & 0xffff) +
                  (int32_t)(bits >> 48) - 131070;
    float normal = (float)sum * (1.0f / 37837.2f);
    return norm ? 1.0f + 0.05f * normal : 0.02f * normal;
}

static size_t fill_block(const writer *w, uint64_t key, uint64_t first, size_t n, bool norm, void *out) {
    for (size_t i = 0; i < n; i++) {
        float value = random_weight(random_bits(key + first + i), norm);
        if (w->dtype == QN_DTYPE_F32)
            ((float *)out)[i] = value;
        else
            ((uint16_t *)out)[i] = w->dtype == QN_DTYPE_BF16 ? qni_bf16_of_f32(value) : qni_f16_of_f32(value);
    }
    return n * qn_dtype_bytes(w->dtype);
}

static bool write_weight(writer *w, int index, FILE *file, void *block) {
    const weight *t = &w->weights[index];
    uint64_t n = weight_elements(t), key = random_bits(w->seed + 1) + random_bits((uint64_t)index + 1) * 2;
    for (uint64_t first = 0; first < n; first += BLOCK) {
        size_t count = n - first < BLOCK ? (size_t)(n - first) : BLOCK;
        size_t bytes = fill_block(w, key, first, count, !t->cols, block);
        if (fwrite(block, 1, bytes, file) != bytes) return false;
        w->done += bytes;
        if (!progress_report(&w->bar, w->done, w->total)) return false;
    }
    return true;
}

static char *shard_header(const writer *w, int shard) {
    static const char *const names[] = {[QN_DTYPE_F32] = "F32", [QN_DTYPE_BF16] = "BF16", [QN_DTYPE_F16] = "F16"};
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    uint64_t offset = 0;
    for (int i = 0; i < w->n_weight; i++) {
        const weight *t = &w->weights[i];
        if (t->shard != shard) continue;
        uint64_t end = offset + weight_elements(t) * qn_dtype_bytes(w->dtype);
        json_t *dims = t->cols ? json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->cols)
                               : json_pack("[I]", (json_int_t)t->rows);
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", names[w->dtype], "shape", dims, "data_offsets",
                                      (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

/* Header length, header padded with spaces to 8 bytes, tensors. */
static bool write_shard_body(writer *w, int shard, FILE *file, void *block) {
    char *header = shard_header(w, shard);
    if (!header) return false;
    size_t n = strlen(header), padding = (8 - n % 8) % 8;
    uint64_t length = n + padding;
    bool good = fwrite(&length, 8, 1, file) == 1 && fprintf(file, "%s%*s", header, (int)padding, "") == (int)length;
    free(header);
    for (int i = 0; good && i < w->n_weight; i++)
        if (w->weights[i].shard == shard) good = write_weight(w, i, file, block);
    return good;
}

static int write_shard(writer *w, int shard) {
    char name[64];
    shard_name(w, shard, name, sizeof(name));
    char *path = must_format("%s/%s", w->dir, name);
    FILE *file = fopen(path, "wbx");
    void *block = must_calloc(BLOCK, sizeof(float));
    bool good = file && write_shard_body(w, shard, file, block);
    int reason = errno;
    if (file && fclose(file) && good) {
        reason = errno;
        good = false;
    }
    int code = good ? EXIT_DONE : interrupted() ? EXIT_INTERRUPTED : fail(name, "%s", strerror(reason));
    free(block);
    free(path);
    return code;
}

static int write_json(const writer *w, const char *name, json_t *value) {
    char *path = must_format("%s/%s", w->dir, name);
    int failed = !value || json_dump_file(value, path, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    int code = failed ? fail(name, "could not be written") : EXIT_DONE;
    json_decref(value);
    free(path);
    return code;
}

static int write_index(const writer *w) {
    json_t *map = json_object();
    for (int i = 0; i < w->n_weight; i++) {
        char name[64];
        shard_name(w, w->weights[i].shard, name, sizeof(name));
        json_object_set_new(map, w->weights[i].name, json_string(name));
    }
    return write_json(w, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)w->total, "weight_map", map));
}

static int write_configs(const writer *w) {
    const model_shape *s = w->shape;
    static const char *const names[] = {
        [QN_DTYPE_F32] = "float32", [QN_DTYPE_BF16] = "bfloat16", [QN_DTYPE_F16] = "float16"};
    /* Qwen's ids if the vocabulary is large enough, else the last two */
    int bos = s->vocab > 151645 ? 151643 : (int)(s->vocab > 1 ? s->vocab - 2 : 0);
    int eos = s->vocab > 151645 ? 151645 : (int)s->vocab - 1;
    json_t *config = json_pack(
        "{s:[s], s:b, s:f, s:i, s:i, s:I, s:s, s:I, s:f, s:I, s:i, s:I, s:s, s:I, s:I, s:I, s:f, s:n, s:i, s:n, s:b, "
        "s:s, s:s, s:b, s:b, s:I}",
        "architectures", "Qwen3ForCausalLM", "attention_bias", 0, "attention_dropout", 0.0, "bos_token_id", bos,
        "eos_token_id", eos, "head_dim", (json_int_t)s->head_dim, "hidden_act", "silu", "hidden_size",
        (json_int_t)s->d_model, "initializer_range", 0.02, "intermediate_size", (json_int_t)s->d_ff,
        "max_position_embeddings", 40960, "max_window_layers", (json_int_t)s->layers, "model_type", "qwen3",
        "num_attention_heads", (json_int_t)s->heads, "num_hidden_layers", (json_int_t)s->layers, "num_key_value_heads",
        (json_int_t)s->kv_heads, "rms_norm_eps", 1e-6, "rope_scaling", "rope_theta", 1000000, "sliding_window",
        "tie_word_embeddings", (int)s->tied, "torch_dtype", names[w->dtype], "transformers_version", "4.51.0",
        "use_cache", 1, "use_sliding_window", 0, "vocab_size", (json_int_t)s->vocab);
    int code = write_json(w, "config.json", config);
    if (code) return code;
    return write_json(w, "generation_config.json",
                      json_pack("{s:i, s:b, s:[i, i], s:i, s:f, s:i, s:f, s:s}", "bos_token_id", bos, "do_sample", 1,
                                "eos_token_id", eos, bos, "pad_token_id", bos, "temperature", 0.6, "top_k", 20, "top_p",
                                0.95, "transformers_version", "4.51.0"));
}

int synth_write(const model_shape *shape, qn_dtype dtype, uint64_t seed, const char *dir) {
    writer w = {.shape = shape, .dir = dir, .dtype = dtype, .seed = seed, .total = synth_bytes(shape, dtype)};
    w.weights = list_weights(shape, &w.n_weight);
    assign_shards(&w);
    progress_begin(&w.bar, "writing");
    int code = write_configs(&w);
    for (int i = 0; !code && i < w.n_shard; i++) code = write_shard(&w, i);
    if (!code && w.n_shard > 1) code = write_index(&w);
    progress_end(&w.bar);
    free(w.weights);
    return code;
}
