/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized checkpoints: every bit width, group and dtype of scales against a dense twin with the dequantized
 * weights. Inconsistent ones are rejected by name. Weights quantized while loading, or in advance. */
#include "support/checkpoints.h"
#include "support/files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LOGIT = 8 * TINY_VOCAB };
static const qn_model_options f32 = {.arith = QN_ARITH_F32};

/* The design's bound for f32 arithmetic through a whole model; ref keeps dequantized values, so there is no
 * difference. */
static void compare_with_twin(const char *what, const char *dir, const char *twin) {
    for (int d = 0; d < 2; d++) {
        const char *device = d == 0 ? "ref" : "cpu";
        float *got = tiny_logits(device, 2, dir, &f32), *wanted = tiny_logits(device, 1, twin, &f32);
        expect_close(case_text("%s on %s", what, device), got, wanted, N_LOGIT, d == 0 ? 0 : 3e-5);
        free(got);
        free(wanted);
    }
}

static void check_storage(const tiny_model *model, const char *config, uint64_t seed) {
    char *dir = files_make_dir(), *twin = files_make_dir(), what[128];
    const storage *s = &model->all;
    snprintf(what, sizeof what, "%d bits, group %d by %d, %s", s->bits, s->group, s->block_out, s->scale_dtype);
    tiny_write(model, dir, twin, config, seed);
    compare_with_twin(what, dir, twin);
    qn_model_config read, dense;
    assert_ok(qn_model_read_config(&read, dir, NULL, err));
    assert_ok(qn_model_read_config(&dense, twin, NULL, err));
    assert_int_equal(read.n_parameter, dense.n_parameter);
    assert_int_equal(read.dtype, s->block_out > 0 ? QN_DTYPE_F8 : QN_DTYPE_U32);
    assert_int_equal(read.bits, s->block_out > 0 ? 8 : s->bits);
    assert_int_equal(dense.bits, 0);
    files_remove_dir(dir);
    files_remove_dir(twin);
}

static const char *const scale_dtypes[] = {"F32", "BF16", "F16"};

static void reads_every_affine_form(void **state) {
    (void)state;
    static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {8, 32, 64};
    uint64_t seed = 1;
    for (size_t b = 0; b < sizeof widths / sizeof widths[0]; b++) {
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++, seed++) {
            char config[96];
            const tiny_model model = {.all = {widths[b], groups[g], 0, scale_dtypes[seed % 3], false},
                                      .tied = seed % 2 != 0,
                                      .scales_apart = seed % 4 == 0};
            snprintf(config, sizeof config, ",\"quantization\":{\"bits\":%d,\"group_size\":%d}", widths[b], groups[g]);
            check_storage(&model, config, seed);
        }
    }
}

static void reads_overrides(void **state) {
    (void)state;
    const storage dense = {0}, wide = {8, 32, 0, "F16", false}, narrow = {2, 16, 0, "F32", false};
    tiny_model model = {.all = {4, 64, 0, "BF16", false}};
    model.own[1] = &dense;
    model.own[6] = &wide;
    model.own[7] = &narrow;
    model.own[8] = &dense;
    check_storage(&model,
                  ",\"quantization\":{\"bits\":4,\"group_size\":64,\"mode\":\"affine\",\"lm_head\":false,"
                  "\"model.layers.0.mlp.up_proj\":true,\"model.layers.7.mlp.up_proj\":false,"
                  "\"model.layers.0.mlp.down_proj\":{\"bits\":8,\"group_size\":32,\"mode\":\"affine\"},"
                  "\"model.embed_tokens\":{\"group_size\":16,\"bits\":2}}",
                  100);
}

static void reads_fp8(void **state) {
    (void)state;
    static const int blocks[][2] = {{128, 128}, {24, 40}, {1, 64}, {1000, 7}, {3, 1}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        char config[128];
        const storage dense = {0};
        tiny_model model = {.all = {8, blocks[i][1], blocks[i][0], scale_dtypes[i % 2], false}, .scales_apart = i > 2};
        if (i != 1) model.own[7] = model.own[8] = &dense;
        snprintf(config, sizeof config,
                 ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[%d,%d]}", blocks[i][0],
                 blocks[i][1]);
        check_storage(&model, config, 200 + i);
    }
}

/* --- refusals --- */

#define Q4 ",\"quantization\":{\"bits\":4,\"group_size\":32}"

static void refuse(const char *dir, qn_status status, const char *why) {
    qn_model *model = NULL;
    qn_device *device = NULL;
    qn_error said = {0};
    assert_ok(qn_device_open(&device, "cpu", NULL, err));
    qn_status got = qn_model_open(&model, device, dir, NULL, &said);
    if (got != status || strstr(said.message, why) == NULL) {
        fail_msg("%s \"%s\", not %s \"%s\"", qn_status_name(got), said.message, qn_status_name(status), why);
    }
    assert_null(model);
    qn_device_close(device);
}

/* model.safetensors opened to change its header or data. */
typedef struct opened {
    json_t *header;
    unsigned char *data;
    size_t bytes;
    char *all;
} opened;

static opened open_weights(const char *dir) {
    opened f;
    uint64_t n;
    char *path = files_path(dir, "model.safetensors");
    f.all = files_read(path, &f.bytes);
    free(path);
    memcpy(&n, f.all, 8);
    f.header = json_loadb(f.all + 8, n, 0, NULL);
    f.data = (unsigned char *)f.all + 8 + n;
    f.bytes -= 8 + n;
    return f;
}

static void write_weights(opened *f, const char *dir) {
    tensors t = {f->header, malloc(f->bytes), f->bytes};
    assert_non_null(t.data);
    memcpy(t.data, f->data, f->bytes);
    tensors_write(&t, dir, "model.safetensors");
    free(f->all);
}

/* Hide a tensor: rename it to an ignored name. */
static void drop_tensor(const char *dir, const char *name) {
    opened f = open_weights(dir);
    json_t *entry = json_object_get(f.header, name);
    assert_non_null(entry);
    json_object_set(f.header, "rotary_emb.inv_freq", entry);
    json_object_del(f.header, name);
    write_weights(&f, dir);
}

/* Give a tensor another dtype and shape of the same size; columns 0: a vector. */
static void retype(const char *dir, const char *name, const char *dtype, int rows, int columns) {
    opened f = open_weights(dir);
    json_t *entry = json_object_get(f.header, name);
    assert_non_null(entry);
    json_object_set_new(entry, "dtype", json_string(dtype));
    json_object_set_new(entry, "shape", columns > 0 ? json_pack("[i, i]", rows, columns) : json_pack("[i]", rows));
    write_weights(&f, dir);
}

/* Overwrite bytes of a tensor. */
static void patch_tensor(const char *dir, const char *name, size_t at, const void *bytes, size_t n) {
    opened f = open_weights(dir);
    json_t *offsets = json_object_get(json_object_get(f.header, name), "data_offsets");
    assert_non_null(offsets);
    memcpy(f.data + (size_t)json_integer_value(json_array_get(offsets, 0)) + at, bytes, n);
    write_weights(&f, dir);
}

#define UP  "model.layers.0.mlp.up_proj"
#define FP8 ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[32,32]}"
#define EDIT(statement, status, why)                                                                                   \
    do {                                                                                                               \
        tiny_write(&model, dir, NULL, config, 1);                                                                      \
        statement;                                                                                                     \
        refuse(dir, status, why);                                                                                      \
    } while (0)

static void refuses_affine(void **state) {
    (void)state;
    char *dir = files_make_dir();
    tiny_model model = {.all = {4, 32, 0, "BF16", false}};
    const char *config = Q4;
    EDIT(drop_tensor(dir, UP ".scales"), QN_EFORMAT, UP ".weight is U32, but " UP ".scales is missing");
    EDIT(drop_tensor(dir, UP ".biases"), QN_EFORMAT, UP ".weight is U32, but " UP ".biases is missing");
    EDIT(drop_tensor(dir, UP ".weight"), QN_EFORMAT, "tensor " UP ".weight is missing");
    EDIT(retype(dir, UP ".scales", "BF16", 384, 0), QN_EFORMAT, UP ".scales: shape must be {192, 2}, got {384}");
    EDIT(retype(dir, UP ".biases", "BF16", 96, 4), QN_EFORMAT, UP ".biases: shape must be {192, 2}, got {96, 4}");
    EDIT(retype(dir, UP ".weight", "U32", 384, 4), QN_EFORMAT, UP ".weight: shape must be {192, 8}, got {384, 4}");
    EDIT(retype(dir, UP ".biases", "F16", 192, 2), QN_EUNSUPPORTED,
         UP ".biases: dtype must be that of the scales, BF16");
    EDIT(retype(dir, UP ".scales", "I16", 192, 2), QN_EUNSUPPORTED,
         UP ".scales: dtype must be F32, BF16 or F16, got I16");
    EDIT(retype(dir, UP ".weight", "I32", 192, 8), QN_EUNSUPPORTED, UP ".weight: dtype must be F32, BF16, F16, U32 or");
    EDIT(retype(dir, UP ".weight", "F16", 192, 16), QN_EFORMAT,
         UP ".scales exists, but " UP ".weight is not quantized");
    const uint16_t nan = 0x7FC0, infinity = 0x7F80;
    EDIT(patch_tensor(dir, UP ".scales", 100, &nan, 2), QN_EFORMAT, "tensor " UP ".scales holds a NaN or an infinity");
    EDIT(patch_tensor(dir, UP ".biases", 700, &infinity, 2), QN_EFORMAT,
         "tensor " UP ".biases holds a NaN or an infinity");
    config = "";
    EDIT((void)0, QN_EFORMAT, "embed_tokens.weight is U32, but config.json has no affine quantization");
    config = FP8;
    EDIT((void)0, QN_EFORMAT, "embed_tokens.weight is U32, but config.json has no affine quantization");
    config = ",\"quantization\":{\"bits\":4,\"group_size\":32,\"" UP "\":false}";
    EDIT((void)0, QN_EFORMAT, UP ".weight is U32, but config.json says that it is not quantized");
    config = ",\"quantization\":{\"bits\":8,\"group_size\":32}";
    EDIT((void)0, QN_EFORMAT, "embed_tokens.weight: shape must be {96, 16}, got {96, 8}");
    config = ",\"quantization\":{\"bits\":4,\"group_size\":48}";
    EDIT((void)0, QN_EFORMAT, "model.embed_tokens has 64 inputs, not a multiple of group_size 48");
    files_remove_dir(dir);
}

static void refuses_fp8(void **state) {
    (void)state;
    char *dir = files_make_dir();
    tiny_model model = {.all = {8, 32, 32, "F32", false}};
    const char *config = FP8;
    EDIT(drop_tensor(dir, UP ".weight_scale_inv"), QN_EFORMAT,
         UP ".weight is F8_E4M3, but " UP ".weight_scale_inv is missing");
    EDIT(retype(dir, UP ".weight_scale_inv", "F32", 12, 0), QN_EFORMAT,
         "weight_scale_inv: shape must be {6, 2}, got {12}");
    EDIT(retype(dir, UP ".weight", "F8_E4M3", 64, 192), QN_EFORMAT,
         UP ".weight: shape must be {192, 64}, got {64, 192}");
    EDIT(retype(dir, UP ".weight", "F8_E5M2", 192, 64), QN_EUNSUPPORTED, "U32 or F8_E4M3, got F8_E5M2");
    const unsigned char nan = 0xFF;
    const float infinity = INFINITY;
    EDIT(patch_tensor(dir, UP ".weight", 12000, &nan, 1), QN_EFORMAT,
         "tensor " UP ".weight holds a NaN or an infinity");
    EDIT(patch_tensor(dir, UP ".weight_scale_inv", 8, &infinity, 4), QN_EFORMAT, UP ".weight_scale_inv holds a NaN");
    config = "";
    EDIT((void)0, QN_EFORMAT, "is F8_E4M3, but config.json has no quantization_config with quant_method fp8");
    files_remove_dir(dir);
}

/* --- symmetric tensors --- */

static uint64_t weight_bytes(const char *dir, const qn_plan_options *options) {
    qn_plan plan;
    assert_ok(qn_model_plan(&plan, dir, options, err));
    return plan.weight_bytes;
}

static void checks_symmetry_metadata(void **state) {
    (void)state;
    static const char config[] = ",\"quantization\":{\"bits\":8,\"group_size\":32}";
    char *dir = files_make_dir(), *twin = files_make_dir();
    tiny_model model = {.all = {8, 32, 0, "BF16", true}};
    tiny_write(&model, dir, twin, config, 3);
    uint64_t with_biases = weight_bytes(dir, NULL);
    float *wanted = tiny_logits("cpu", 1, dir, &f32);
    model.claims_symmetric = true;
    tiny_write(&model, dir, twin, config, 3);
    assert_true(weight_bytes(dir, NULL) < with_biases);
    float *got = tiny_logits("cpu", 1, dir, &f32);
    expect_same_bits("symmetric", QN_DTYPE_F32, got, wanted, N_LOGIT);
    compare_with_twin("symmetric", dir, twin);
    const uint16_t other = 0x3F80;
    patch_tensor(dir, UP ".biases", 20, &other, 2);
    refuse(dir, QN_EFORMAT, "tensor " UP ".biases is not -128 times the scales, as metadata quern.symmetric says");
    /* Tensors of another bit width are not affected. */
    model = (tiny_model){.all = {4, 32, 0, "BF16", false}, .claims_symmetric = true};
    tiny_write(&model, dir, twin, Q4, 4);
    compare_with_twin("four bits beside", dir, twin);
    free(got);
    free(wanted);
    files_remove_dir(dir);
    files_remove_dir(twin);
}

/* --- quantizing --- */

static void count_line(void *user, const char *text) {
    (void)text;
    ++*(int *)user;
}

static bool cancel(void *user, uint64_t done, uint64_t total) {
    (void)user, (void)total;
    return done == 0;
}

static void remove_weights(const char *dir) {
    static const char *const names[] = {"config.json",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = files_path(dir, names[i]);
        remove(path);
        free(path);
    }
}

/* Quantizing in advance and at load gives the same bits: same logits, same memory, for any number of threads. */
static void quantizes_alike(void **state) {
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        const qn_quantize to = variant % 2 != 0 ? QN_QUANTIZE_Q4 : QN_QUANTIZE_Q8;
        const tiny_model model = {.tied = variant > 1, .d_ff = variant == 3 ? 200 : 0}; /* 200 inputs stay dense */
        char *dir = files_make_dir(), *out = files_make_dir();
        int n_remark = 0;
        tiny_write(&model, dir, NULL, "", 300 + (uint64_t)variant);
        const qn_model_options at_load = {.arith = QN_ARITH_F32, .quantize = to};
        for (int shards = 0; shards < 2; shards++) {
            const qn_quantize_options options = {.to = to,
                                                 .n_thread = 1 + 2 * shards,
                                                 .shard_bytes = shards != 0 ? 30000 : 0,
                                                 .log = {count_line, &n_remark}};
            remove_weights(out);
            assert_ok(qn_model_quantize(out, dir, &options, err));
            for (int d = 0; d < 2; d++) {
                const char *device = d == 0 ? "cpu" : "ref";
                float *a = tiny_logits(device, 3, dir, &at_load), *b = tiny_logits(device, 1, out, &f32);
                expect_same_bits(case_text("variant %d on %s, %s", variant, device, shards ? "shards" : "one file"),
                                 QN_DTYPE_F32, a, b, N_LOGIT);
                free(a);
                free(b);
            }
        }
        assert_int_equal(n_remark, variant == 3 ? 2 : 0);
        const qn_plan_options plan = {.quantize = to};
        assert_int_equal(weight_bytes(dir, &plan), weight_bytes(out, NULL));
        assert_true(weight_bytes(out, NULL) < weight_bytes(dir, NULL));
        files_remove_dir(dir);
        files_remove_dir(out);
    }
}

static void refuses_to_quantize(void **state) {
    (void)state;
    char *dir = files_make_dir(), *out = files_make_dir();
    qn_error said = {0};
    qn_quantize_options options = {.to = QN_QUANTIZE_Q4};
    tiny_model model = {.all = {0}};
    tiny_write(&model, dir, NULL, "", 5);
    assert_int_equal(qn_model_quantize(NULL, dir, &options, &said), QN_EINVAL);
    assert_int_equal(qn_model_quantize(out, NULL, &options, &said), QN_EINVAL);
    assert_int_equal(qn_model_quantize(out, dir, NULL, &said), QN_EINVAL);
    options.to = QN_QUANTIZE_NONE;
    assert_int_equal(qn_model_quantize(out, dir, &options, &said), QN_EINVAL);
    options.to = QN_QUANTIZE_Q8;
    assert_int_equal(qn_model_quantize("/nowhere", dir, &options, &said), QN_EIO);
    options.progress.report = cancel;
    assert_int_equal(qn_model_quantize(out, dir, &options, &said), QN_ECANCELED);
    const float nan = NAN;
    patch_tensor(dir, UP ".weight", 400, &nan, 4);
    options.progress.report = NULL;
    assert_int_equal(qn_model_quantize(out, dir, &options, &said), QN_EFORMAT);
    assert_non_null(
        strstr(said.message, "tensor " UP ".weight: output 1, input 36: nan cannot be quantized to 8 bits"));
    char *path = files_path(out, "model.safetensors");
    FILE *file = fopen(path, "rb");
    assert_null(file); /* no partial file */
    free(path);
    model.all = (storage){4, 32, 0, "BF16", false};
    tiny_write(&model, dir, NULL, Q4, 5);
    assert_int_equal(qn_model_quantize(out, dir, &options, &said), QN_EUNSUPPORTED);
    assert_non_null(strstr(said.message, "is quantized already"));
    qn_device *device = NULL;
    qn_model *opened_model = NULL;
    assert_ok(qn_device_open(&device, "cpu", NULL, err));
    qn_model_options wrong = {.quantize = (qn_quantize)7};
    assert_int_equal(qn_model_open(&opened_model, device, dir, &wrong, &said), QN_EINVAL);
    qn_plan plan;
    const qn_plan_options wrong_plan = {.quantize = (qn_quantize)7};
    assert_int_equal(qn_model_plan(&plan, dir, &wrong_plan, &said), QN_EINVAL);
    int n_remark = 0;
    qn_model_options again = {.quantize = QN_QUANTIZE_Q8, .log = {count_line, &n_remark}};
    assert_ok(qn_model_open(&opened_model, device, dir, &again, err)); /* stays unchanged, and the log says so */
    assert_int_equal(n_remark, 1);
    qn_model_close(opened_model);
    qn_device_close(device);
    files_remove_dir(dir);
    files_remove_dir(out);
}

/* A compute type applies to the linears that support it; if none does, the backend reports why. */
static void arith_applies_where_supported(void **state) {
    (void)state;
    const storage dense = {0};
    char *dir = files_make_dir();
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_error said = {0};
    tiny_model mixed = {.all = {4, 32, 0, "BF16", false}, .own = {&dense, NULL, &dense}};
    tiny_write(&mixed, dir, NULL, Q4, 6);
    qn_model_options options = {.arith = QN_ARITH_INT8};
    float *logits = tiny_logits("cpu", 1, dir, &options), *wanted = tiny_logits("cpu", 1, dir, &f32);
    expect_close("int8", logits, wanted, N_LOGIT, 6e-2); /* as in test_session_goldens */
    double error = relative_error(logits, wanted, N_LOGIT);
    if (!(error > 1e-5)) fail_msg("int8 was not used: relative error %g", error);
    free(logits);
    free(wanted);
    assert_ok(qn_device_open(&device, "cpu", NULL, err));
    options.arith = QN_ARITH_BF16; /* no linear is bf16 */
    assert_int_equal(qn_model_open(&model, device, dir, &options, &said), QN_EUNSUPPORTED);
    mixed = (tiny_model){.all = {4, 8, 0, "BF16", false}};
    tiny_write(&mixed, dir, NULL, ",\"quantization\":{\"bits\":4,\"group_size\":8}", 6);
    options.arith = QN_ARITH_INT8;
    assert_int_equal(qn_model_open(&model, device, dir, &options, &said), QN_EUNSUPPORTED);
    assert_non_null(strstr(said.message, "arith int8: for groups of a multiple of 32 inputs, these have 8"));
    qn_device_close(device);
    files_remove_dir(dir);
}

/* A session file whose cache was computed with other weights belongs to another model. */
static void quantizing_changes_the_fingerprint(void **state) {
    (void)state;
    static const int32_t ids[3] = {1, 2, 3};
    char *dir = files_make_dir(), *path = files_path(dir, "a.session");
    const tiny_model tiny = {.all = {0}};
    qn_device *device = NULL;
    qn_model *model = NULL, *quantized = NULL;
    qn_error said = {0};
    tiny_write(&tiny, dir, NULL, "", 7);
    const qn_model_options options = {.quantize = QN_QUANTIZE_Q8};
    assert_ok(qn_device_open(&device, "cpu", NULL, err));
    assert_ok(qn_model_open(&model, device, dir, NULL, err));
    assert_ok(qn_model_open(&quantized, device, dir, &options, err));
    qn_session *session = open_session(model, 16, 0), *other = open_session(quantized, 16, 0);
    assert_ok(qn_session_sync(session, ids, 3, NULL, err));
    assert_ok(qn_session_save(session, path, err));
    assert_int_equal(qn_session_restore(other, path, &said), QN_EINVAL);
    qn_session_free(session);
    qn_session_free(other);
    qn_model_close(model);
    qn_model_close(quantized);
    qn_device_close(device);
    free(path);
    files_remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_affine_form),
        cmocka_unit_test(reads_overrides),
        cmocka_unit_test(reads_fp8),
        cmocka_unit_test(refuses_affine),
        cmocka_unit_test(refuses_fp8),
        cmocka_unit_test(checks_symmetry_metadata),
        cmocka_unit_test(quantizes_alike),
        cmocka_unit_test(refuses_to_quantize),
        cmocka_unit_test(arith_applies_where_supported),
        cmocka_unit_test(quantizing_changes_the_fingerprint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
