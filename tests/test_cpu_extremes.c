/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend's arithmetic with extreme numbers or groups, on every level: int8 groups near the limit of 32-bit
 * sums; bf16 and int8 with weights far from 1, including subnormals; a caller whose thread flushes subnormals. */
#include "../src/backend/device.h"
#include "../src/base/half.h"
#include "support/linears.h"
#include "support/sessions.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static qn_device *open_level(int level, int32_t n_thread) {
    const qn_device_options options = {.n_thread = n_thread, .isa = level_name(level)};
    qn_device *device = NULL;
    assert_ok(qn_device_open(&device, "cpu", &options, err));
    return device;
}

static void *block(int64_t n, size_t size) {
    void *p = calloc((size_t)n, size);
    assert_non_null(p);
    return p;
}

/* --- int8 --- */

typedef enum signs { PLUS, MINUS, BY_TURNS, N_SIGNS } signs;

/* One output whose groups hold maximal codes, zeros or a mixture, times activations of ±1, whose codes are exact. */
static void check_group(qn_device *device, const char *level, int bits, bool symmetric, int64_t group,
                        int64_t n_group) {
    const int64_t n_in = group * n_group;
    const int zero = symmetric ? 1 << (bits - 1) : 0;
    unsigned char *codes = block(n_in, 1);
    float *x = block(N_SIGNS * n_in, sizeof *x), *scales = block(n_group, sizeof *scales);
    float *biases = block(n_group, sizeof *biases);
    double want[N_SIGNS] = {0}, size = 0;
    for (int64_t g = 0; g < n_group; g++) scales[g] = 0x1p-10f * (float)(g + 1), biases[g] = 0x1p-12f * (float)g;
    for (int64_t i = 0; i < n_in; i++) {
        codes[i] = (unsigned char)(i / group % 2 == 0 ? (1 << bits) - 1 : (i % 2) * 3);
        const double w = (double)scales[i / group] * (codes[i] - zero) + (symmetric ? 0 : (double)biases[i / group]);
        for (int s = 0; s < N_SIGNS; s++) {
            x[s * n_in + i] = s == MINUS || (s == BY_TURNS && i % 2 != 0) ? -1 : 1;
            want[s] += w * (double)x[s * n_in + i];
        }
        size += fabs(w);
    }
    coded c = {.device = device, .n_in = n_in, .n_out = 1, .bits = bits, .group = (int)group, .codes = codes};
    c.scale_dtype = QN_DTYPE_F32, c.scales = scales, c.biases = symmetric ? NULL : biases;
    for (int arith = QN_ARITH_AUTO; arith <= QN_ARITH_INT8; arith += QN_ARITH_INT8) {
        qn_linear *linear = NULL;
        assert_ok(coded_pack(&linear, &c, (qn_arith)arith, err));
        assert_int_equal(qn_linear_arith(linear), QN_ARITH_INT8);
        float *y = linear_apply(device, linear, x, N_SIGNS);
        for (int s = 0; s < N_SIGNS; s++) {
            if (fabs((double)y[s] - want[s]) <= 0x1p-21 * size) continue;
            fail_msg("%s, %d bits%s, %lld groups of %lld, signs %d: %.9g, not %.9g", level, bits,
                     symmetric ? " symmetric" : "", (long long)n_group, (long long)group, s, (double)y[s], want[s]);
        }
        free(y);
        qn_linear_free(linear);
    }
    free(codes);
    free(x);
    free(scales);
    free(biases);
}

/* The largest group whose sum fits, the next larger one, and more; also a prime multiple of 32, which divides only
 * into single 32s. */
static void int8_groups_at_the_limit(void **state) {
    (void)state;
    static const int widths[] = {8, 6, 5, 4, 2};
    for (int level = 0; level_name(level) != NULL; level++) {
        qn_device *device = open_level(level, 1);
        for (size_t b = 0; b < sizeof widths / sizeof widths[0]; b++) {
            const int64_t most = INT32_MAX / (127 * ((1 << widths[b]) - 1)) / 32 * 32;
            const int64_t groups[] = {most, most + 32, 3 * most / 96 * 32 + 96};
            for (int i = 0; i < (widths[b] == 8 ? 3 : widths[b] == 2 ? 0 : 2); i++) {
                check_group(device, level_name(level), widths[b], false, groups[i], 1);
            }
        }
        const int64_t large[] = {98304, 66304, 66336, 32 * 2083};
        for (int i = 0; i < 4; i++) {
            check_group(device, level_name(level), 8, false, large[i], 3);
            check_group(device, level_name(level), 8, true, large[i], 3);
        }
        check_group(device, level_name(level), 2, false, 65536, 2);
        qn_device_close(device);
    }
}

/* --- bf16 --- */

enum { N_IN = 70, N_OUT = 40, N_ROW = 14 };

static float rounded(float x) {
    return qni_f32_of_bf16(qni_bf16_of_f32(x));
}

/* Products of bf16 weights of one magnitude with activations of another, against sums in double. */
static void check_bf16(qn_device *device, const char *level, float w_size, float x_size, uint64_t *seed) {
    float *w = block(N_IN * N_OUT, sizeof *w), *x = block(N_IN * N_ROW, sizeof *x);
    for (int64_t i = 0; i < N_IN * N_OUT; i++) w[i] = rounded((float)(random_uniform(seed) * (double)w_size));
    for (int64_t i = 0; i < N_IN * N_ROW; i++) x[i] = (float)(random_uniform(seed) * (double)x_size);
    const matrix m = {device, QN_DTYPE_BF16, N_IN, N_OUT, w};
    qn_linear *linear = matrix_pack(&m, QN_ARITH_BF16);
    float *y = linear_apply(device, linear, x, N_ROW), *alone = linear_apply(device, linear, x, 1);
    for (int64_t r = 0; r < N_ROW; r++) {
        for (int64_t o = 0; o < N_OUT; o++) {
            double want = 0;
            for (int64_t i = 0; i < N_IN; i++) want += (double)w[o * N_IN + i] * (double)rounded(x[r * N_IN + i]);
            /* All terms are positive. The error is the rounding of a chain, of each product, and of subnormals. */
            const double bound = 2 * N_IN * (0x1p-24 * want + 0x1p-149);
            if (fabs((double)y[r * N_OUT + o] - want) <= bound) continue;
            fail_msg("%s, weights %g, activations %g: row %lld, output %lld is %.9g, not %.9g", level, (double)w_size,
                     (double)x_size, (long long)r, (long long)o, (double)y[r * N_OUT + o], want);
        }
    }
    assert_memory_equal(y, alone, N_OUT * sizeof *y); /* independent of the batch */
    free(w);
    free(x);
    free(y);
    free(alone);
    qn_linear_free(linear);
}

/* A processor's bf16 instruction that treats subnormals as zeros would lose these values. */
static void bf16_far_from_one(void **state) {
    (void)state;
    static const float sizes[][2] = {{1, 1},          {1e-38f, 1},     {1e-40f, 1},     {1e-40f, 1e-3f},
                                     {1e38f, 1e-38f}, {1e38f, 1e-40f}, {1e30f, 1e-36f}, {1e-30f, 1e-8f},
                                     {1e-37f, 1e30f}, {1e7f, 1e-39f}};
    uint64_t seed = 1;
    for (int level = 0; level_name(level) != NULL; level++) {
        qn_device *device = open_level(level, 2);
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            check_bf16(device, level_name(level), sizes[k][0], sizes[k][1], &seed);
        }
        qn_device_close(device);
    }
}

/* One weight decides for its linear, wherever it is, and only if it is far from 1; ordinary linears keep using the
 * instruction. */
static void one_extreme_weight_decides(void **state) {
    (void)state;
    static const struct {
        float weight;
        bool far;
    } cases[] = {{0, false},           {-0.0f, false},       {0x1p-100f, false}, {-0x1p-100f, false}, {0x1p20f, false},
                 {-0x1p20f, false},    {0x1.FEp-101f, true}, {0x1.02p20f, true}, {-0x1p-133f, true},  {0x1p-126f, true},
                 {-0x1.FEp127f, true}, {INFINITY, true},     {NAN, true}};
    float w[N_IN * N_OUT], column[N_IN * N_OUT];
    uint64_t seed = 2;
    qn_device *device = open_level(0, 2);
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        for (int at = 0; at < N_IN * N_OUT; at += N_IN * N_OUT - 1) {
            for (int i = 0; i < N_IN * N_OUT; i++) w[i] = (float)(0.02 * random_normal(&seed));
            w[at] = cases[k].weight;
            const matrix m = {device, QN_DTYPE_BF16, N_IN, N_OUT, w};
            qn_linear *linear = matrix_pack(&m, QN_ARITH_BF16);
            assert_int_equal(linear->weight.far, cases[k].far);
            assert_int_equal(qn_linear_arith(linear), QN_ARITH_BF16);
            qn_linear_free(linear);
            for (int i = 0; i < N_IN * N_OUT; i++) column[i % N_IN * N_OUT + i / N_IN] = w[i];
            const matrix transposed = {device, QN_DTYPE_BF16, N_OUT, N_IN, column};
            qn_tensor *weight = matrix_tensor(&transposed);
            assert_ok(qn_linear_pack(&linear, weight, QN_LAYOUT_IN_OUT, QN_ARITH_BF16, err));
            assert_int_equal(linear->weight.far, cases[k].far);
            qn_linear_free(linear);
            assert_ok(qn_linear_pack(&linear, weight, QN_LAYOUT_IN_OUT, QN_ARITH_F32, err));
            assert_int_equal(linear->weight.far, false); /* f32 needs no alternative path */
            qn_linear_free(linear);
            qn_tensor_free(weight);
        }
    }
    qn_device_close(device);
}

/* Affine weights with scales far from 1 are multiplied in f32: int8 would turn the activations into zeros, or
 * overflow. */
static void int8_far_from_one(void **state) {
    (void)state;
    static const struct {
        float scale, bias, x;
        qn_arith arith;
    } cases[] = {{0.01f, -0.1f, 1, QN_ARITH_INT8},      {0.01f, 1e-40f, 1, QN_ARITH_INT8},
                 {0, -0.1f, 1, QN_ARITH_INT8},          {1e36f, -4e36f, 1e-38f, QN_ARITH_F32},
                 {1e-38f, 1e-38f, 1e-3f, QN_ARITH_F32}, {1e-44f, 0, 1e6f, QN_ARITH_F32},
                 {4e37f, -3e38f, 0.001f, QN_ARITH_F32}, {0.01f, 3e38f, 1e-38f, QN_ARITH_F32},
                 {0x1p20f, 0x1p20f, 1, QN_ARITH_INT8},  {0x1p-100f, 0, 1, QN_ARITH_INT8},
                 {0x1.1p20f, 0x1p20f, 1, QN_ARITH_F32}, {0x1.FEp-101f, 0, 1, QN_ARITH_F32}};
    enum { GROUP = 32, N = 2 * GROUP };
    unsigned char codes[N];
    float x[N], scales[2] = {0.02f}, biases[2] = {-0.1f};
    uint64_t seed = 3;
    for (int i = 0; i < N; i++) codes[i] = (unsigned char)(i * 5 % 16);
    for (int level = 0; level_name(level) != NULL; level++) {
        qn_device *device = open_level(level, 1);
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            double want = 0, size = 0;
            scales[1] = cases[k].scale, biases[1] = cases[k].bias;
            for (int i = 0; i < N; i++) {
                x[i] = (float)((double)cases[k].x * (0.5 + 0.5 * random_uniform(&seed)));
                const double w = (double)scales[i / GROUP] * codes[i] + (double)biases[i / GROUP];
                want += w * (double)x[i];
                size += fabs(w * (double)x[i]) * (cases[k].arith == QN_ARITH_INT8 ? 0.01 : 0x1p-18);
            }
            coded c = {.device = device, .n_in = N, .n_out = 1, .bits = 4, .group = GROUP, .codes = codes};
            c.scale_dtype = QN_DTYPE_F32, c.scales = scales, c.biases = biases;
            for (int arith = QN_ARITH_AUTO; arith <= QN_ARITH_INT8; arith += QN_ARITH_INT8) {
                qn_linear *linear = NULL;
                assert_ok(coded_pack(&linear, &c, (qn_arith)arith, err));
                assert_int_equal(qn_linear_arith(linear), cases[k].arith);
                float *y = linear_apply(device, linear, x, 1);
                if (!(fabs((double)y[0] - want) <= size + 0x1p-140)) {
                    fail_msg("%s, scale %g, bias %g: %.9g, not %.9g", level_name(level), (double)cases[k].scale,
                             (double)cases[k].bias, (double)y[0], want);
                }
                free(y);
                qn_linear_free(linear);
            }
        }
        qn_device_close(device);
    }
}

/* --- the caller's mode --- */

#if defined(__x86_64__)
/* Rows of subnormals through qn_mlp, from a normal thread and from one with FTZ and DAZ set in MXCSR. The library
 * must not compute in that mode, and must restore it. */
static void caller_flushes_subnormals(void **state) {
    (void)state;
    enum { FLUSHING = 0x9FC0 };
    problem p = {.b = 1, .t = 9, .h = 37, .i = 53, .nq = 2, .nkv = 1, .d = 10, .c = 16, .theta = 1e4, .scale = 1};
    p.eps = 1e-6;
    problem_random(&p, 3);
    for (int64_t i = 0; i < operand_count(&p, HIDDEN); i++) p.values[HIDDEN][i] = i % 2 == 0 ? 1e-39f : -3e-40f;
    for (int level = 0; level_name(level) != NULL; level++) {
        for (int32_t n_thread = 1; n_thread <= 2; n_thread++) {
            qn_device *device = open_level(level, n_thread);
            for (int packed = 0; packed < 2; packed++) {
                bench s;
                bench_make(&s, &p, device, all_f32, packed);
                float *want = tensor_floats(primitive_compute(MLP, &s));
                const int64_t n = tensor_count(s.out);
                bool any = false;
                for (int64_t i = 0; i < n; i++) any |= want[i] != 0 && fabsf(want[i]) < FLT_MIN;
                assert_true(any);
                const uint32_t before = __builtin_ia32_stmxcsr();
                __builtin_ia32_ldmxcsr(FLUSHING);
                qn_tensor *out = primitive_compute(MLP, &s);
                const uint32_t after = __builtin_ia32_stmxcsr();
                __builtin_ia32_ldmxcsr(before);
                assert_int_equal(after & 0xFFC0, FLUSHING);
                float *got = tensor_floats(out);
                assert_memory_equal(got, want, (size_t)n * sizeof *want);
                free(want);
                free(got);
                bench_free(&s);
            }
            qn_device_close(device);
        }
    }
    problem_free(&p);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_groups_at_the_limit),
        cmocka_unit_test(bf16_far_from_one),
        cmocka_unit_test(one_extreme_weight_decides),
        cmocka_unit_test(int8_far_from_one),
#if defined(__x86_64__)
        cmocka_unit_test(caller_flushes_subnormals),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
