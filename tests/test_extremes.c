/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized weights at the limits of f32: from huge, tiny and subnormal values, and decoded with extreme scales.
 * Each is correct within the format's step and equal on every device, or rejected by name. */
#include "../src/backend/quant.h"
#include "../src/base/half.h"
#include "support/files.h"
#include "support/linears.h"
#include "support/sessions.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_IN = 64, N_OUT = 5 };

static const float magnitudes[] = {1e-45f,   1e-44f,  1e-42f, 1e-40f,   3e-40f,     1e-39f, 5e-39f, 1.1e-38f,
                                   1.2e-38f, 2e-38f,  1e-37f, 1e-30f,   1e-20f,     1e-16f, 1e-15f, 1e-10f,
                                   1.0f,     1e10f,   1e15f,  1e16f,    1e19f,      5e19f,  1e20f,  1e30f,
                                   1e38f,    1.8e38f, 3e38f,  3.37e38f, 3.3895e38f, FLT_MAX};
enum { N_MAGNITUDE = sizeof magnitudes / sizeof magnitudes[0] };

/* Values of magnitude up to 1, inclusive. */
typedef enum shape { SPREAD, POSITIVE, NEGATIVE, EQUAL, ALMOST_EQUAL, ENDS, OUTLIER, MIXTURE, N_SHAPE } shape;

static double value_of(shape kind, int64_t i, uint64_t *seed) {
    const double x = i % 16 == 3 ? 1 : 2 * random_uniform(seed) - 1;
    switch (kind) {
    case SPREAD:
        return x;
    case POSITIVE:
        return fabs(x);
    case NEGATIVE:
        return -fabs(x);
    case EQUAL:
        return 1;
    case ALMOST_EQUAL:
        return 1 - (double)(i % 3) * 0x1p-12;
    case ENDS:
        return i % 2 == 0 ? 1 : -1;
    case OUTLIER:
        return i % 32 == 7 ? -1 : x / 32;
    default: /* all magnitudes at once */
        return x * exp2(-16.0 * (double)(i % 16));
    }
}

static void fill(float *w, shape kind, float magnitude, uint64_t *seed) {
    for (int64_t i = 0; i < N_IN * N_OUT; i++) w[i] = (float)(value_of(kind, i, seed) * (double)magnitude);
}

/* A group's greatest magnitude, and the nominal step of the format: range / 15, or greatest / 127. */
typedef struct measure {
    double greatest, low, high, step;
} measure;
static measure measure_of(const float *x, const qni_quant *q) {
    measure m = {.low = (double)x[0], .high = (double)x[0]};
    for (int64_t i = 0; i < q->group; i++) {
        m.low = fmin(m.low, (double)x[i]);
        m.high = fmax(m.high, (double)x[i]);
    }
    m.greatest = fmax(m.high, -m.low);
    m.step = q->bits == 4 ? (m.high - m.low) / 15 : m.greatest / 127;
    return m;
}

/* Whether quant.h allows a group to be rejected. */
static bool may_be_refused(const measure *m, int bits) {
    return bits == 8 && m->greatest > 3.376e38;
}

/* 8 bits: a step and a quarter, because the greatest value may be one code beyond the last and the scale is rounded
 * to bf16. 4 bits: two steps, because the range is narrowed if that pays, plus the error of a bias that is rounded
 * to bf16 or is the group's greatest. Two steps if the scale is a subnormal bf16, whose least value is a step. */
static double bound_of(const measure *m, int bits) {
    const bool coarse = m->step < 0x1p-126;
    if (bits == 8) return (coarse ? 2 : 1.26) * fmax(m->step, 0x1p-133);
    return 2 * fmax(fmax(m->step, coarse ? m->greatest / 128 : 0), 0x1p-133) + 0x1.1p-8 * m->greatest;
}

static void check_values(const float *got, const float *w, const qni_quant *q, shape kind, float magnitude) {
    for (int64_t g = 0; g < N_IN * N_OUT / q->group; g++) {
        const measure m = measure_of(w + g * q->group, q);
        const double bound = bound_of(&m, q->bits);
        for (int64_t i = g * q->group; i < (g + 1) * q->group; i++) {
            if (fabs((double)got[i] - (double)w[i]) <= bound) continue;
            fail_msg("%d bits, shape %d, magnitude %g: value %lld is %.9g, not %.9g within %g", (int)q->bits, (int)kind,
                     (double)magnitude, (long long)i, (double)got[i], (double)w[i], bound);
        }
    }
}

/* The weights after quantizing, allocated. NULL: they were rejected, which must be allowed and must name the
 * position. */
static float *quantize(const matrix *m, qn_quantize to, qn_arith arith, bool *refused) {
    const qni_quant q = qni_quant_of(to);
    qn_tensor *weight = matrix_tensor(m);
    qn_linear *linear = NULL;
    qn_error err = {0};
    const qn_status status = qn_linear_quantize(&linear, weight, QN_LAYOUT_OUT_IN, to, arith, &err);
    qn_tensor_free(weight);
    bool may = false, must = false;
    for (int64_t g = 0; g < N_IN * N_OUT / q.group; g++) {
        const measure part = measure_of(m->values + g * q.group, &q);
        may |= may_be_refused(&part, q.bits);
    }
    for (int64_t i = 0; i < N_IN * N_OUT; i++) must |= !isfinite(m->values[i]);
    *refused = status != QN_OK;
    if (*refused) {
        assert_true(may || must);
        assert_int_equal(status, QN_EINVAL);
        assert_non_null(strstr(err.message, "weight: output "));
        assert_non_null(strstr(err.message, q.bits == 4 ? "to 4 bits" : "to 8 bits"));
        return NULL;
    }
    assert_false(must);
    float *values = linear_values(m->device, linear);
    qn_linear_free(linear);
    return values;
}

/* ref, then each level. */
enum { MAX_LEVEL = 8 };
typedef struct all_devices {
    qn_device *ref, *level[MAX_LEVEL];
} all_devices;

static all_devices open_devices(void) {
    all_devices all = {0};
    assert_ok(qn_device_open(&all.ref, "ref", NULL, err));
    for (int level = 0; level_name(level) != NULL; level++) {
        const qn_device_options options = {.n_thread = 2, .isa = level_name(level)};
        assert_true(level < MAX_LEVEL);
        assert_ok(qn_device_open(&all.level[level], "cpu", &options, err));
    }
    return all;
}
static void close_devices(const all_devices *all) {
    qn_device_close(all->ref);
    for (int level = 0; level < MAX_LEVEL; level++) qn_device_close(all->level[level]);
}

/* On ref; then every level with f32 arithmetic, which gives the same, and with AUTO, where the activations of
 * linear_values() are exact in int8 too. */
static void check_matrix(const all_devices *all, const float *w, qn_quantize to, shape kind, float magnitude) {
    const qni_quant q = qni_quant_of(to);
    bool refused, refused_here;
    matrix m = {all->ref, QN_DTYPE_F32, N_IN, N_OUT, w};
    float *want = quantize(&m, to, QN_ARITH_AUTO, &refused);
    if (!refused) check_values(want, w, &q, kind, magnitude);
    for (int level = 0; level_name(level) != NULL; level++) {
        m.device = all->level[level];
        for (int arith = QN_ARITH_AUTO; arith <= QN_ARITH_F32; arith++) {
            float *got = quantize(&m, to, (qn_arith)arith, &refused_here);
            assert_int_equal(refused_here, refused);
            for (int64_t i = 0; !refused && i < N_IN * N_OUT; i++) {
                const double error = fabs((double)got[i] - (double)want[i]);
                if (error <= (arith == QN_ARITH_F32 ? 0 : 0x1p-20 * (double)magnitude)) continue;
                fail_msg("%s, arith %d, %d bits, shape %d, magnitude %g: value %lld is %.9g, on ref %.9g",
                         level_name(level), arith, (int)q.bits, (int)kind, (double)magnitude, (long long)i,
                         (double)got[i], (double)want[i]);
            }
            free(got);
        }
    }
    free(want);
}

static void extreme_weights(void **state) {
    (void)state;
    float w[N_IN * N_OUT];
    uint64_t seed = 1;
    const all_devices all = open_devices();
    for (int k = 0; k < N_MAGNITUDE; k++) {
        for (int kind = 0; kind < N_SHAPE; kind++) {
            fill(w, (shape)kind, magnitudes[k], &seed);
            check_matrix(&all, w, QN_QUANTIZE_Q8, (shape)kind, magnitudes[k]);
            check_matrix(&all, w, QN_QUANTIZE_Q4, (shape)kind, magnitudes[k]);
        }
    }
    close_devices(&all);
}

/* Values that must be accepted, whatever may be rejected: zeros of both signs, the greatest bf16 in 4 bits, the
 * least magnitudes. */
static void limits_are_accepted(void **state) {
    (void)state;
    static const struct {
        float magnitude;
        bool q8, q4;
    } ends[] = {{0, true, true},        {-0.0f, true, true},      {1.2e-38f, true, true},    {7e-40f, true, true},
                {1e-45f, true, true},   {1.1e-38f, true, true},   {3.37e38f, true, true},    {3.39e38f, false, true},
                {FLT_MAX, false, true}, {INFINITY, false, false}, {-INFINITY, false, false}, {NAN, false, false}};
    float w[N_IN * N_OUT];
    for (size_t k = 0; k < sizeof ends / sizeof ends[0]; k++) {
        for (int64_t i = 0; i < N_IN * N_OUT; i++) {
            w[i] = isfinite(ends[k].magnitude) ? (i % 3 == 0 ? -1.0f : 1.0f) * ends[k].magnitude : (float)i;
        }
        w[77] = ends[k].magnitude;
        matrix m = {.dtype = QN_DTYPE_F32, .n_in = N_IN, .n_out = N_OUT, .values = w};
        assert_ok(qn_device_open(&m.device, "ref", NULL, err));
        bool refused;
        free(quantize(&m, QN_QUANTIZE_Q8, QN_ARITH_AUTO, &refused));
        if (refused == ends[k].q8) fail_msg("8 bits, %g", (double)ends[k].magnitude);
        free(quantize(&m, QN_QUANTIZE_Q4, QN_ARITH_AUTO, &refused));
        if (refused == ends[k].q4) fail_msg("4 bits, %g", (double)ends[k].magnitude);
        qn_device_close(m.device);
    }
}

/* Fills the stack with a pattern, to expose reads of uninitialized memory. */
static __attribute__((noinline)) void dirty_stack(int byte) {
    volatile unsigned char memory[8192];
    for (size_t i = 0; i < sizeof memory; i++) memory[i] = (unsigned char)byte;
}

static void same_bytes_each_time(void **state) {
    (void)state;
    float w[N_IN * N_OUT];
    uint64_t seed = 2;
    for (int k = 0; k < N_MAGNITUDE * N_SHAPE; k++) {
        fill(w, (shape)(k % N_SHAPE), magnitudes[k / N_SHAPE], &seed);
        for (int to = QN_QUANTIZE_Q8; to <= QN_QUANTIZE_Q4; to++) {
            const qni_quant q = qni_quant_of((qn_quantize)to);
            unsigned char codes[2][N_IN] = {{0}};
            uint16_t scales[2][N_IN] = {{0}}, biases[2][N_IN] = {{0}};
            int64_t bad[2];
            for (int again = 0; again < 2; again++) {
                dirty_stack(again ? 0x41 : 0xFF);
                bad[again] = qni_quantize_row(codes[again], scales[again], biases[again], &q, w, N_IN);
            }
            assert_int_equal(bad[0], bad[1]);
            assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
            assert_memory_equal(scales[0], scales[1], sizeof scales[0]);
            assert_memory_equal(biases[0], biases[1], sizeof biases[0]);
            if (bad[0] < 0) {
                assert_true(qni_quant_are_finite(scales[0], QN_DTYPE_BF16, N_IN / q.group));
                assert_true(qni_quant_are_finite(biases[0], QN_DTYPE_BF16, N_IN / q.group));
            }
        }
    }
}

/* Scales and biases of any magnitude, and weights with an overflowing intermediate but a finite result. */
static const struct {
    float scale, bias;
} affine[] = {{1e-45f, 0},     {1e-45f, 1e-44f},  {1e-40f, -3e-39f}, {3e-39f, 0},       {1e-38f, 1},  {1, 1e-40f},
              {1e30f, -1e31f}, {4e37f, -3.3e38f}, {2e37f, -1.5e38f}, {-4e37f, 3.3e38f}, {0, 3.4e38f}, {0, -1e-45f}};

static void extreme_affine_scales(void **state) {
    (void)state;
    unsigned char codes[N_IN * N_OUT];
    float scales[2 * N_OUT], biases[2 * N_OUT];
    for (int64_t i = 0; i < N_IN * N_OUT; i++) codes[i] = (unsigned char)(i * 7 % 16);
    for (int group = 32; group <= 64; group += 32) {
        for (size_t k = 0; k < sizeof affine / sizeof affine[0]; k++) {
            for (int64_t i = 0; i < 2 * N_OUT; i++) {
                scales[i] = i == 1 ? 0.01f : affine[k].scale;
                biases[i] = i == 1 ? -0.1f : affine[k].bias;
            }
            for (int level = -1; level < 0 || level_name(level) != NULL; level++) {
                const qn_device_options options = {.n_thread = 1, .isa = level < 0 ? NULL : level_name(level)};
                coded c = {.n_in = N_IN, .n_out = N_OUT, .bits = 4, .group = group, .codes = codes};
                c.scale_dtype = QN_DTYPE_F32, c.scales = scales, c.biases = biases;
                assert_ok(qn_device_open(&c.device, level < 0 ? "ref" : "cpu", &options, err));
                qn_linear *linear;
                assert_ok(coded_pack(&linear, &c, QN_ARITH_AUTO, err));
                float *got = linear_values(c.device, linear);
                for (int64_t i = 0; i < N_IN * N_OUT; i++) {
                    const double want = (double)scales[i / group] * codes[i] + (double)biases[i / group];
                    const double size = fabs((double)scales[i / group]) * codes[i] + fabs((double)biases[i / group]);
                    const double bound = 0x1p-22 * size + 0x1p-148;
                    if (fabs((double)got[i] - want) <= bound) continue;
                    fail_msg("%s, scale %g, bias %g, code %d: %.9g, not %.9g", level < 0 ? "ref" : level_name(level),
                             (double)affine[k].scale, (double)affine[k].bias, codes[i], (double)got[i], want);
                }
                free(got);
                qn_linear_free(linear);
                qn_device_close(c.device);
            }
        }
    }
}

/* A symmetric code whose bias overflows is rejected; the greatest that does not is correct. */
static void extreme_symmetric_scales(void **state) {
    (void)state;
    unsigned char codes[N_IN];
    for (int64_t i = 0; i < N_IN; i++) codes[i] = (unsigned char)(4 * i);
    for (int level = -1; level < 0 || level_name(level) != NULL; level++) {
        const qn_device_options options = {.n_thread = 1, .isa = level < 0 ? NULL : level_name(level)};
        float scale = 2.65e36f;
        coded c = {.n_in = N_IN, .n_out = 1, .bits = 8, .group = N_IN, .codes = codes};
        c.scale_dtype = QN_DTYPE_F32, c.scales = &scale;
        assert_ok(qn_device_open(&c.device, level < 0 ? "ref" : "cpu", &options, err));
        qn_linear *linear = NULL;
        assert_ok(coded_pack(&linear, &c, QN_ARITH_AUTO, err));
        float *got = linear_values(c.device, linear);
        for (int64_t i = 0; i < N_IN; i++) {
            const double want = (double)scale * (codes[i] - 128);
            if (fabs((double)got[i] - want) <= 0x1p-22 * (double)scale * (codes[i] + 128)) continue;
            fail_msg("%s, code %d: %.9g, not %.9g", level < 0 ? "ref" : level_name(level), codes[i], (double)got[i],
                     want);
        }
        free(got);
        qn_linear_free(linear);
        scale = -2.7e36f;
        qn_error said = {0};
        assert_int_equal(coded_pack(&linear, &c, QN_ARITH_AUTO, &said), QN_EINVAL);
        assert_string_equal(said.message, "scales: -128 times -2.7e+36, the bias of a symmetric code, is not finite");
        qn_device_close(c.device);
    }
}

/* FP8 is scale · e4m3 in f32, rounded once, from subnormal to infinite. */
static void extreme_fp8_scales(void **state) {
    (void)state;
    static const float scales[] = {1e-45f, 3e-42f, 1e-39f, 1e-38f, 1e-30f, 1e30f, 7e35f, -7e35f};
    unsigned char codes[N_IN];
    for (int64_t i = 0; i < N_IN; i++) codes[i] = (unsigned char)(2 * i + (i >= 60 ? -1 : 0)); /* no NaN, 0x7F */
    for (size_t k = 0; k < sizeof scales / sizeof scales[0]; k++) {
        for (int level = -1; level < 0 || level_name(level) != NULL; level++) {
            const qn_device_options options = {.n_thread = 1, .isa = level < 0 ? NULL : level_name(level)};
            coded c = {.n_in = N_IN, .n_out = 1, .bits = 8, .group = N_IN, .group_out = 1, .codes = codes};
            c.scale_dtype = QN_DTYPE_F32, c.scales = &scales[k];
            assert_ok(qn_device_open(&c.device, level < 0 ? "ref" : "cpu", &options, err));
            qn_linear *linear;
            assert_ok(coded_pack(&linear, &c, QN_ARITH_AUTO, err));
            float *got = linear_values(c.device, linear);
            for (int64_t i = 0; i < N_IN; i++) {
                const int exponent = codes[i] >> 3, mantissa = codes[i] & 7;
                const double code = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
                const float want = (float)((double)scales[k] * code);
                if (got[i] == want) continue;
                fail_msg("%s, scale %g, code %d: %.9g, not %.9g", level < 0 ? "ref" : level_name(level),
                         (double)scales[k], codes[i], (double)got[i], (double)want);
            }
            free(got);
            qn_linear_free(linear);
            qn_device_close(c.device);
        }
    }
}

/* Multiply every bf16 element of the tensors whose names contain `part`, in a single-file checkpoint. */
static void scale_tensors(const char *dir, const char *part, float factor) {
    char *path = files_path(dir, "model.safetensors"), *data;
    size_t bytes;
    data = files_read(path, &bytes);
    uint64_t n_header;
    memcpy(&n_header, data, sizeof n_header);
    json_t *header = json_loadb(data + sizeof n_header, n_header, 0, NULL), *tensor;
    const char *name;
    int n_scaled = 0;
    json_object_foreach(header, name, tensor) {
        if (strstr(name, part) == NULL) continue;
        const json_t *at = json_object_get(tensor, "data_offsets");
        const size_t first = (size_t)json_integer_value(json_array_get(at, 0));
        const size_t end = (size_t)json_integer_value(json_array_get(at, 1));
        assert_string_equal(json_string_value(json_object_get(tensor, "dtype")), "BF16");
        for (size_t i = first; i < end; i += sizeof(uint16_t), n_scaled++) {
            char *element = data + sizeof n_header + n_header + i;
            uint16_t half;
            memcpy(&half, element, sizeof half);
            half = qni_bf16_of_f32(qni_f32_of_bf16(half) * factor);
            memcpy(element, &half, sizeof half);
        }
    }
    assert_true(n_scaled > 0);
    files_write(dir, "model.safetensors", data, bytes);
    json_decref(header);
    free(data);
    free(path);
}

/* The logits after a few ids, allocated. */
static float *model_logits(const char *dir, const char *backend, const qn_device_options *options,
                           const qn_model_options *how, int32_t *n_vocab) {
    static const int32_t ids[] = {1, 5, 9, 77, 3, 2, 2, 2};
    const qn_session_options small = {.n_ctx = 16, .kv_dtype = QN_DTYPE_F32};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_session *session = NULL;
    assert_ok(qn_device_open(&device, backend, options, err));
    assert_ok(qn_model_open(&model, device, dir, how, err));
    assert_ok(qn_session_create(&session, model, &small, err));
    assert_ok(qn_session_append(session, ids, 8, NULL, NULL, err));
    *n_vocab = qn_model_get_config(model)->n_vocab;
    float *logits = malloc((size_t)*n_vocab * sizeof *logits);
    assert_non_null(logits);
    memcpy(logits, qn_session_logits(session), (size_t)*n_vocab * sizeof *logits);
    qn_session_free(session);
    qn_model_close(model);
    qn_device_close(device);
    return logits;
}

/* Values of 2^-130 between two linears, compensated by later factors. bf16 rounds activations to 8 bits: through the
 * model that is 1 % or less of the greatest logit, while lost subnormals lose an entire attention. */
static void model_with_tiny_activations(void **state) {
    (void)state;
    char *dir = files_make_dir();
    files_copy_dir(GOLDEN_MODELS "/new-config-bf16", dir, "golden");
    scale_tensors(dir, "v_proj", 0x1p-125f);
    scale_tensors(dir, "o_proj", 0x1p125f);
    int32_t n = 0;
    float *want = model_logits(dir, "ref", NULL, NULL, &n);
    for (int level = 0; level_name(level) != NULL; level++) {
        const qn_device_options options = {.n_thread = 2, .isa = level_name(level)};
        for (int arith = QN_ARITH_AUTO; arith <= QN_ARITH_BF16; arith++) {
            const qn_model_options how = {.arith = (qn_arith)arith};
            float *got = model_logits(dir, "cpu", &options, &how, &n);
            const double error = relative_error(got, want, (size_t)n);
            if (!(error <= 0.02)) fail_msg("%s, arith %d: relative error %g", level_name(level), arith, error);
            free(got);
        }
    }
    free(want);
    files_remove_dir(dir);
}

/* Weights that 8 or 4 bits cannot represent are rejected with the tensor's name, while loading and in advance alike. */
static void unquantizable_weights_are_refused(void **state) {
    (void)state;
    static const struct {
        float factor;
        qn_quantize to;
        const char *message;
    } cases[] = {{INFINITY, QN_QUANTIZE_Q4, "cannot be quantized to 4 bits"},
                 {INFINITY, QN_QUANTIZE_Q8, "cannot be quantized to 8 bits"}};
    for (int k = 0; k < 2; k++) {
        char *dir = files_make_dir(), *out = files_make_dir();
        files_copy_dir(GOLDEN_MODELS "/new-config-bf16", dir, "golden");
        scale_tensors(dir, "layers.1.mlp.up_proj", cases[k].factor);
        qn_error said[2] = {{0}, {0}};
        qn_device *device = NULL;
        qn_model *model = NULL;
        const qn_model_options how = {.quantize = cases[k].to};
        const qn_quantize_options options = {.to = cases[k].to, .n_thread = 2};
        assert_ok(qn_device_open(&device, "cpu", NULL, err));
        assert_int_equal(qn_model_open(&model, device, dir, &how, &said[0]), QN_EFORMAT);
        assert_int_equal(qn_model_quantize(out, dir, &options, &said[1]), QN_EFORMAT);
        for (int i = 0; i < 2; i++) {
            assert_non_null(strstr(said[i].message, "tensor model.layers.1.mlp.up_proj.weight: output 0, input "));
            assert_non_null(strstr(said[i].message, cases[k].message));
        }
        qn_device_close(device);
        files_remove_dir(dir);
        files_remove_dir(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extreme_weights),
        cmocka_unit_test(limits_are_accepted),
        cmocka_unit_test(same_bytes_each_time),
        cmocka_unit_test(extreme_affine_scales),
        cmocka_unit_test(extreme_symmetric_scales),
        cmocka_unit_test(extreme_fp8_scales),
        cmocka_unit_test(model_with_tiny_activations),
        cmocka_unit_test(unquantizable_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
