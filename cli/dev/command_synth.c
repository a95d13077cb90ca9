/* SPDX-License-Identifier: Apache-2.0 */
/* quern synth: parses the shape and writes its checkpoint, permanently or temporarily for quern bench. */
#include "synth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../directory.h"
#include "../options.h"
#include "../output.h"

/* The published dense sizes, from config.json of Qwen/Qwen3-*. */
static const struct {
    const char *name;
    model_shape shape;
} sizes[] = {
    {"0.6B", {28, 1024, 16, 8, 128, 3072, 151936, true}},  {"1.7B", {28, 2048, 16, 8, 128, 6144, 151936, true}},
    {"4B", {36, 2560, 32, 8, 128, 9728, 151936, true}},    {"8B", {36, 4096, 32, 8, 128, 12288, 151936, false}},
    {"14B", {40, 5120, 40, 8, 128, 17408, 151936, false}}, {"32B", {64, 5120, 64, 8, 128, 25600, 151936, false}},
};

static const struct {
    const char *name;
    size_t offset;
    int64_t max;
} keys[] = {
    {"layers", offsetof(model_shape, layers), 512},     {"d_model", offsetof(model_shape, d_model), 1 << 20},
    {"heads", offsetof(model_shape, heads), 1 << 16},   {"kv_heads", offsetof(model_shape, kv_heads), 1 << 16},
    {"head_dim", offsetof(model_shape, head_dim), 512}, {"d_ff", offsetof(model_shape, d_ff), 1 << 22},
    {"vocab", offsetof(model_shape, vocab), 1 << 24},
};

static int set_key(model_shape *out, const char *asker, const char *key, const char *value) {
    if (!strcmp(key, "tied")) {
        out->tied = !strcmp(value, "true") || !strcmp(value, "1");
        if (out->tied || !strcmp(value, "false") || !strcmp(value, "0")) return EXIT_DONE;
        return usage_error(asker, "tied=%s: must be true or false", value);
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        if (strcmp(key, keys[i].name) != 0) continue;
        const char *end;
        int64_t number;
        if (!number_whole(&number, value, &end) || *end || number < 1 || number > keys[i].max)
            return usage_error(asker, "%s=%s: must be a whole number from 1 to %lld", key, value,
                               (long long)keys[i].max);
        *(int64_t *)((char *)out + keys[i].offset) = number;
        return EXIT_DONE;
    }
    return usage_error(asker, "%s: no such key or size", key);
}

static int set_part(model_shape *out, const char *asker, char *part, bool first) {
    char *value = strchr(part, '=');
    if (value) {
        *value = '\0';
        return set_key(out, asker, part, value + 1);
    }
    for (size_t i = 0; first && i < sizeof(sizes) / sizeof(*sizes); i++) {
        if (strcmp(part, sizes[i].name) != 0) continue;
        *out = sizes[i].shape;
        return EXIT_DONE;
    }
    return usage_error(asker, "%s: must be 0.6B, 1.7B, 4B, 8B, 14B, 32B or key=value", part);
}

int shape_parse(model_shape *out, const char *asker, const char *text) {
    *out = sizes[0].shape;
    char *copy = must_format("%s", text), *rest = copy, *part;
    int code = EXIT_DONE;
    for (bool first = true; !code && (part = strsep(&rest, ",")); first = false)
        code = set_part(out, asker, part, first);
    free(copy);
    if (code) return code;
    if (out->heads % out->kv_heads)
        return usage_error(asker, "heads=%lld: must be a multiple of kv_heads=%lld", (long long)out->heads,
                           (long long)out->kv_heads);
    if (out->head_dim % 2) return usage_error(asker, "head_dim=%lld: must be even", (long long)out->head_dim);
    return EXIT_DONE;
}

typedef struct wanted {
    model_shape shape;
    qn_dtype dtype;
    uint64_t seed;
} wanted;

static int write_into(const void *context, const char *dir) {
    const wanted *w = context;
    return synth_write(&w->shape, w->dtype, w->seed, dir);
}

int synth_temporary(char **out, const model_shape *shape, qn_dtype dtype) {
    const char *parent = getenv("TMPDIR");
    if (!parent || !*parent) parent = "/tmp";
    uint64_t bytes = synth_bytes(shape, dtype);
    int code =
        bytes ? directory_check_space(parent, parent, bytes) : fail("--synthetic", "the checkpoint would be too large");
    if (code) return code;
    char *dir = must_format("%s/quern-bench.XXXXXX", parent);
    code = directory_make_temporary(dir, parent);
    if (!code) {
        code = synth_write(shape, dtype, 0, dir);
        if (code) directory_remove(dir);
    }
    if (!code) *out = dir;
    if (code) free(dir);
    return code;
}

int command_synth(const settings *s) {
    wanted w = {.dtype = s->dtype ? (qn_dtype)s->dtype : QN_DTYPE_BF16, .seed = (uint64_t)s->sampling.seed.value};
    interrupts_graceful(false);
    int code = shape_parse(&w.shape, "synth", s->operands[0]);
    if (code) return code;
    uint64_t bytes = synth_bytes(&w.shape, w.dtype);
    if (!bytes) return fail(s->operands[0], "the checkpoint would be too large");
    return directory_make(s->operands[1], bytes, write_into, &w);
}
