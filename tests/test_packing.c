/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of level 1 large enough to be packed in several tasks: each task must pack its own rows, codes and scales,
 * in whole panels and whole groups of outputs. */
#include "../src/base/half.h"
#include "support/linears.h"
#include "support/sessions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_IN = 512, N_OUT = 1024, N_ROW = 2 }; /* 2^19 elements */

static qn_device *open_level(int level) {
    const qn_device_options options = {.n_thread = 2, .isa = level < 0 ? NULL : level_name(level)};
    qn_device *device = NULL;
    assert_ok(qn_device_open(&device, level < 0 ? "ref" : "cpu", &options, err));
    return device;
}
/* ref, then each level. */
#define FOR_EACH_DEVICE(level) for (int level = -1; level < 0 || level_name(level) != NULL; level++)

static float *random_floats(int64_t n, double size, uint64_t seed) {
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(size * random_normal(&seed));
    return x;
}

/* Result of a plain {in, out} matrix with these values {out, in}. */
static float *apply_plain(qn_device *device, const float *w, const float *x) {
    const int64_t shape[] = {N_IN, N_OUT}, in[] = {1, N_ROW, N_IN}, out[] = {1, N_ROW, N_OUT};
    float *transposed = malloc((size_t)(N_IN * N_OUT) * sizeof *transposed);
    assert_non_null(transposed);
    for (int64_t i = 0; i < N_IN * N_OUT; i++) transposed[i % N_IN * N_OUT + i / N_IN] = w[i];
    qn_tensor *weight = tensor_make(device, QN_DTYPE_F32, 2, shape, transposed);
    qn_tensor *attn = tensor_make(device, QN_DTYPE_F32, 3, in, x), *y = tensor_make(device, QN_DTYPE_F32, 3, out, NULL);
    const qn_attention_residual_args args = {.out = y, .hidden = y, .attn = attn, .o_proj.plain = weight};
    assert_ok(qn_attention_residual(&args, err));
    float *values = tensor_floats(y);
    qn_tensor_free(weight);
    qn_tensor_free(attn);
    qn_tensor_free(y);
    free(transposed);
    return values;
}

/* Bit for bit: plain and packed linears of f32 arithmetic add in the same order. */
static void assert_like_plain(const char *what, int level, qn_device *device, qn_linear *linear, const float *w,
                              const float *x) {
    float *got = linear_apply(device, linear, x, N_ROW), *want = apply_plain(device, w, x);
    for (int64_t i = 0; i < N_ROW * N_OUT; i++) {
        if (got[i] == want[i]) continue;
        fail_msg("%s on %s: row %lld, output %lld is %.9g, not %.9g", what, level < 0 ? "ref" : level_name(level),
                 (long long)(i / N_OUT), (long long)(i % N_OUT), (double)got[i], (double)want[i]);
    }
    free(got);
    free(want);
    qn_linear_free(linear);
}

static void dense_packing_matches_plain(void **state) {
    (void)state;
    static const qn_dtype types[] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16};
    float *w = random_floats(N_IN * N_OUT, 0.05, 1), *x = random_floats(N_ROW * N_IN, 1, 2);
    for (int64_t i = 0; i < N_IN * N_OUT; i++) { /* the same in all types */
        w[i] = qni_f32_of_f16(qni_f16_of_f32(w[i]));
        w[i] = qni_f32_of_bf16(qni_bf16_of_f32(fabsf(w[i]) < 1e-3f ? 0 : w[i]));
    }
    FOR_EACH_DEVICE(level) {
        for (int t = 0; t < 3; t++) {
            matrix m = {open_level(level), types[t], N_IN, N_OUT, w};
            assert_like_plain("dense", level, m.device, matrix_pack(&m, QN_ARITH_F32), w, x);
            qn_device_close(m.device);
        }
    }
    free(w);
    free(x);
}

/* Each row alone is one task. */
static void quantizing_while_packing(void **state) {
    (void)state;
    float *w = random_floats(N_IN * N_OUT, 0.05, 3), *x = random_floats(N_ROW * N_IN, 1, 4);
    for (int to = QN_QUANTIZE_Q8; to <= QN_QUANTIZE_Q4; to++) {
        FOR_EACH_DEVICE(level) {
            enum { PART = 128 };
            matrix m = {open_level(level), QN_DTYPE_F32, N_IN, N_OUT, w};
            qn_linear *all = matrix_quantize(&m, (qn_quantize)to, QN_ARITH_F32);
            float *got = linear_apply(m.device, all, x, N_ROW);
            m.n_out = PART;
            for (int64_t first = 0; first < N_OUT; first += PART) {
                m.values = w + first * N_IN;
                qn_linear *part = matrix_quantize(&m, (qn_quantize)to, QN_ARITH_F32);
                float *want = linear_apply(m.device, part, x, N_ROW);
                for (int64_t r = 0; r < N_ROW; r++) {
                    assert_memory_equal(got + r * N_OUT + first, want + r * PART, PART * sizeof *want);
                }
                free(want);
                qn_linear_free(part);
            }
            free(got);
            qn_linear_free(all);
            qn_device_close(m.device);
        }
    }
    free(w);
    free(x);
}

/* Codes and scales from outside. fp8: groups of 24 outputs, not whole panels, so that tasks end at multiples of
 * both; affine: groups that kernels support, and others. */
static void quantized_packing_matches_plain(void **state) {
    (void)state;
    static const struct {
        int bits, group, group_out;
        bool symmetric;
    } forms[] = {{8, 128, 24, false}, {8, 100, 24, false}, {8, 128, 128, false}, {8, 64, 0, true},
                 {4, 32, 0, false},   {3, 16, 0, false},   {6, 128, 0, false}};
    float *x = random_floats(N_ROW * N_IN, 1, 5), *w = random_floats(N_IN * N_OUT, 0, 6);
    unsigned char *codes = malloc(N_IN * N_OUT);
    assert_non_null(codes);
    for (size_t k = 0; k < sizeof forms / sizeof forms[0]; k++) {
        const bool fp8 = forms[k].group_out > 0;
        const int64_t n_group = (N_IN + forms[k].group - 1) / forms[k].group;
        float *scales = random_floats(N_OUT * n_group, 0.01, 7), *biases = random_floats(N_OUT * n_group, 0.1, 8);
        uint64_t seed = 9;
        for (int64_t i = 0; i < N_OUT * n_group; i++) { /* products with codes are exact */
            scales[i] = qni_f32_of_bf16(qni_bf16_of_f32(scales[i]));
            biases[i] = forms[k].symmetric ? -128 * scales[i] : qni_f32_of_bf16(qni_bf16_of_f32(biases[i]));
        }
        for (int64_t i = 0; i < N_IN * N_OUT; i++) {
            const int64_t o = i / N_IN, at = (fp8 ? o / forms[k].group_out : o) * n_group + i % N_IN / forms[k].group;
            codes[i] = (unsigned char)(random_uniform(&seed) * (fp8 ? 127 : 1 << forms[k].bits));
            w[i] = fp8 ? scales[at] * qni_f32_of_e4m3(codes[i]) : scales[at] * (float)codes[i] + biases[at];
        }
        FOR_EACH_DEVICE(level) {
            coded c = {.n_in = N_IN, .n_out = N_OUT, .codes = codes, .scale_dtype = QN_DTYPE_BF16, .scales = scales};
            c.device = open_level(level);
            c.bits = forms[k].bits, c.group = forms[k].group, c.group_out = forms[k].group_out;
            c.biases = fp8 || forms[k].symmetric ? NULL : biases;
            qn_linear *linear = NULL;
            assert_ok(coded_pack(&linear, &c, QN_ARITH_F32, err));
            assert_like_plain("quantized", level, c.device, linear, w, x);
            qn_device_close(c.device);
        }
        free(scales);
        free(biases);
    }
    free(codes);
    free(x);
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_packing_matches_plain),
        cmocka_unit_test(quantizing_while_packing),
        cmocka_unit_test(quantized_packing_matches_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
