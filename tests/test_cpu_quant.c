/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of quantized weights on every level of the cpu backend on this machine, against their definitions in
 * integers and double: all tile shapes, both bit widths, groups and scales of all kinds, and codes at the ends of
 * their ranges, where a 16-bit sum would saturate. */
#include "../src/base/half.h"
#include "../src/base/processor.h"
#include "../src/cpu/cpu.h"
#include "support/close.h"
#include "support/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Runs body for each level of this machine. */
#define FOR_EACH_LEVEL(k)                                                                                              \
    qni_cpu_kernels k;                                                                                                 \
    for (int level = 0; level_name(level) != NULL; level++)                                                            \
        if (qni_cpu_select(&k, level_name(level), NULL) == QN_OK)

static void *new_block(size_t bytes) {
    void *p = malloc(bytes);
    assert_non_null(p);
    return p;
}

/* Patterns of weight and activation codes. */
typedef enum pattern { RANDOM, ALL_HIGH, ALL_OPPOSED, ALTERNATING, N_PATTERN } pattern;

/* Panels and their source values; weights are indexed by panel, group, input in the group, output in the panel. */
typedef struct panels {
    qni_cpu_quant q;
    int64_t n_panel;
    unsigned char *data; /* exactly as large as kernels.h states */
    uint8_t *codes;      /* {n_panel, n_group, group, nr} */
    float *scale, *bias; /* {n_panel, n_group, nr} */
} panels;

static qni_cpu_quant layout(const qni_cpu_kernels *k, int bits, int scale_dtype, bool symmetric, int64_t group) {
    qni_cpu_quant q = {.bits = bits, .scale_dtype = scale_dtype, .symmetric = symmetric, .group = group, .nr = k->nr};
    q.ki = k->int8[bits == 8 ? QNI_CPU_8_BITS : QNI_CPU_4_BITS].ki;
    return q;
}

static void set_inputs(qni_cpu_quant *q, int64_t n_in) {
    q->n_in = n_in;
    q->n_group = (n_in + q->group - 1) / q->group;
    q->scales_bytes = q->nr * (q->scale_dtype == QNI_CPU_F32 ? 4 : 2);
    q->codes_at = q->scales_bytes * (q->symmetric || q->fp8 ? 1 : 2);
    q->group_bytes = q->codes_at + q->group * q->nr * q->bits / 8;
    q->panel_bytes = q->n_group * q->group_bytes;
}

static float store_scale(unsigned char *scales, const qni_cpu_quant *q, int64_t j, double value) {
    const qn_dtype dtype = q->scale_dtype == QNI_CPU_F32 ? QN_DTYPE_F32 : QN_DTYPE_BF16;
    qni_store_f32(scales, dtype, j, (float)value);
    return qni_load_f32(scales, dtype, j);
}

static uint8_t pick_code(const qni_cpu_quant *q, pattern kind, int64_t i, uint64_t *seed) {
    const int top = (1 << q->bits) - 1;
    if (kind == RANDOM) return (uint8_t)(random_uniform(seed) * (top + 1));
    return kind == ALTERNATING && i % 2 != 0 ? 0 : (uint8_t)top;
}

static void store_code(const qni_cpu_kernels *k, unsigned char *codes, const qni_cpu_quant *q, int64_t i, int64_t j,
                       uint8_t code) {
    const int64_t ki = q->ki, nr = q->nr;
    if (q->bits == 8) {
        const bool flipped = !q->fp8 && k->int8[QNI_CPU_8_BITS].widen != NULL && i % 2 != 0;
        codes[(i / ki * nr + j) * ki + i % ki] = flipped ? code ^ 0x80 : code;
    } else {
        unsigned char *at = &codes[(i / (2 * ki) * nr + j) * ki + i % ki];
        *at = (unsigned char)(i / ki % 2 == 0 ? (*at & 0xF0) | code : (*at & 0x0F) | code << 4);
    }
}

static panels make_panels(const qni_cpu_kernels *k, const qni_cpu_quant *q, int64_t n_panel, pattern kind,
                          uint64_t *seed) {
    const size_t n_scale = (size_t)(n_panel * q->n_group * q->nr);
    panels w = {.q = *q, .n_panel = n_panel};
    w.data = new_block((size_t)(n_panel * q->panel_bytes));
    w.codes = new_block(n_scale * (size_t)q->group);
    w.scale = new_block(n_scale * sizeof *w.scale);
    w.bias = new_block(n_scale * sizeof *w.bias);
    for (int64_t g = 0; g < n_panel * q->n_group; g++) {
        unsigned char *group = w.data + g * q->group_bytes;
        for (int64_t j = 0; j < q->nr; j++) {
            const int64_t at = g * q->nr + j;
            w.scale[at] = store_scale(group, q, j, 0.01 * random_normal(seed));
            w.bias[at] = q->symmetric || q->fp8 ? 0 : store_scale(group + q->scales_bytes, q, j, random_normal(seed));
            for (int64_t i = 0; i < q->group; i++) {
                uint8_t code = pick_code(q, kind, i, seed);
                w.codes[(g * q->group + i) * q->nr + j] = code;
                store_code(k, group + q->codes_at, q, i, j, code);
            }
        }
    }
    return w;
}
static void free_panels(panels *w) {
    free(w->data);
    free(w->codes);
    free(w->scale);
    free(w->bias);
}

/* Rows of codes. */
typedef struct activations {
    qni_cpu_codes x;
    unsigned char *data;
    int8_t *codes; /* {m, n_group · group} */
    float *scale;
    int32_t *sum, *even;
} activations;

/* Packs each four codes as x0, x2, x1 - 256 x0, x3 - 256 x2. */
static int16_t word_of(const int8_t *codes, int64_t i) {
    const int64_t at = i / 4 * 4 + i % 2 * 2;
    return (int16_t)(i % 4 < 2 ? codes[at] : codes[at + 1] - 256 * codes[at]);
}

static activations make_activations(const qni_cpu_quant *q, bool words, int64_t m, pattern kind, uint64_t *seed) {
    const int64_t n = q->n_group * q->group, stride = n * (words ? 2 : 1) + 12;
    activations a = {.data = new_block((size_t)(m * stride)),
                     .codes = new_block((size_t)(m * n)),
                     .scale = new_block((size_t)(m * q->n_group) * sizeof(float)),
                     .sum = new_block((size_t)(m * q->n_group) * sizeof(int32_t)),
                     .even = new_block((size_t)(m * q->n_group) * sizeof(int32_t))};
    memset(a.sum, 0, (size_t)(m * q->n_group) * sizeof(int32_t));
    memset(a.even, 0, (size_t)(m * q->n_group) * sizeof(int32_t));
    memset(a.data, 0x7F, (size_t)(m * stride));
    for (int64_t r = 0; r < m; r++) {
        for (int64_t i = 0; i < n; i++) {
            int code = kind == ALL_OPPOSED ? -127 : 127;
            if (kind == ALTERNATING) code = i % 2 == 0 ? -127 : 127;
            if (kind == RANDOM) code = (int)(random_uniform(seed) * 255) - 127;
            a.codes[r * n + i] = (int8_t)code;
            a.sum[r * q->n_group + i / q->group] += code;
            if (i % 2 == 0) a.even[r * q->n_group + i / q->group] += code;
            if (!words) ((int8_t *)a.data)[r * stride + i] = (int8_t)code;
        }
        for (int64_t i = 0; i < n && words; i++) {
            const int16_t word = word_of(a.codes + r * n, i);
            memcpy(a.data + r * stride + 2 * i, &word, sizeof word);
        }
        for (int64_t g = 0; g < q->n_group; g++) a.scale[r * q->n_group + g] = (float)(0.1 + random_uniform(seed));
    }
    a.x = (qni_cpu_codes){a.data, stride, a.scale, a.sum, words ? a.even : NULL};
    return a;
}
static void free_activations(activations *a) {
    free(a->data);
    free(a->codes);
    free(a->scale);
    free(a->sum);
    free(a->even);
}

/* One output in integers and double; *size is the magnitude that its rounding error is relative to. */
static double exact(const panels *w, const activations *a, int64_t r, int64_t o, double *size) {
    const qni_cpu_quant *q = &w->q;
    const int zero = q->symmetric ? 1 << (q->bits - 1) : 0;
    double total = 0;
    *size = 0;
    for (int64_t g = 0; g < q->n_group; g++) {
        const int64_t at = o / q->nr * q->n_group + g, j = o % q->nr;
        const int8_t *x = a->codes + (r * q->n_group + g) * q->group;
        int64_t sum = 0;
        for (int64_t i = 0; i < q->group; i++) sum += (w->codes[(at * q->group + i) * q->nr + j] - zero) * x[i];
        const double scale = (double)a->scale[r * q->n_group + g];
        const double product = (double)sum * (double)w->scale[at * q->nr + j] * scale;
        const double bias = (double)w->bias[at * q->nr + j] * scale * a->sum[r * q->n_group + g];
        total += product + bias;
        *size += fabs(product) + fabs(bias);
    }
    return total;
}

static void check_int8(const qni_cpu_kernels *k, const qni_cpu_quant *q, int64_t m, int64_t n_panel, pattern kind,
                       uint64_t *seed) {
    enum { GUARD = 5 };
    const qni_cpu_int8 *kernel = &k->int8[q->bits == 8 ? QNI_CPU_8_BITS : QNI_CPU_4_BITS];
    const float canary = 12345.0f;
    const int64_t n = n_panel * q->nr, ldc = n + GUARD;
    panels w = make_panels(k, q, n_panel, kind, seed);
    activations a = make_activations(q, kernel->widen != NULL, m, kind, seed);
    float *c = new_block((size_t)(m * ldc) * sizeof *c), *alone = new_block((size_t)q->nr * sizeof *alone);
    for (int64_t i = 0; i < m * ldc; i++) c[i] = canary;
    CASE(name, "int8 %s, %d bits, scales %s%s, %d groups of %d, m %d, panels %d, pattern %d", k->isa, q->bits,
         q->scale_dtype == QNI_CPU_F32 ? "f32" : "bf16", q->symmetric ? ", symmetric" : "", (int)q->n_group,
         (int)q->group, (int)m, (int)n_panel, (int)kind);
    kernel->gemm(c, ldc, &a.x, m, w.data, n_panel, q);
    for (int64_t r = 0; r < m; r++) {
        for (int64_t o = 0; o < n; o++) {
            double size, want = exact(&w, &a, r, o, &size);
            /* The sums of a group are integers below 2^24. A group adds two terms, of at most three roundings each,
             * to a chain with one rounding per term. */
            const double bound = (double)(2 * q->n_group + 3) * 0x1p-24 * size;
            expect_near(name, r * ldc + o, (double)c[r * ldc + o], want, bound);
        }
        for (int64_t o = n; o < ldc; o++) expect_that(c[r * ldc + o] == canary, name, r * ldc + o, c[r * ldc + o]);
        /* Bit for bit equal to one row and one panel. */
        const qni_cpu_codes row = {a.data + r * a.x.stride, a.x.stride, a.scale + r * q->n_group,
                                   a.sum + r * q->n_group, a.even + r * q->n_group};
        for (int64_t p = 0; p < n_panel; p++) {
            kernel->gemm(alone, q->nr, &row, 1, w.data + p * q->panel_bytes, 1, q);
            expect_same_bits(case_text("%s, row %d and panel %d alone", name, (int)r, (int)p), QN_DTYPE_F32, alone,
                             c + r * ldc + p * q->nr, q->nr);
        }
    }
    free(c);
    free(alone);
    free_panels(&w);
    free_activations(&a);
}

static void check_all_products(const qni_cpu_kernels *k, uint64_t *seed) {
    const int64_t groups[] = {32, 64, 96, 128};
    for (int form = 0; form < 8; form++) {
        const int bits = form & 1 ? 8 : 4, scales = form & 2 ? QNI_CPU_F32 : QNI_CPU_BF16;
        const bool symmetric = (form & 4) != 0;
        for (int64_t m = 1; m <= k->mr; m++) {
            for (int64_t n_panel = 1; n_panel <= 9; n_panel++) {
                qni_cpu_quant q = layout(k, bits, scales, symmetric, groups[(m + n_panel) % 4]);
                set_inputs(&q, q.group * (1 + (m + n_panel / 2) % 3));
                check_int8(k, &q, m, n_panel, (pattern)((m + n_panel / 4) % N_PATTERN), seed);
            }
        }
        /* Every group size with every pattern, and a row long enough for many groups. */
        for (int i = 0; i < 4 * N_PATTERN; i++) {
            qni_cpu_quant q = layout(k, bits, scales, symmetric, groups[i / N_PATTERN]);
            set_inputs(&q, q.group * 17);
            check_int8(k, &q, 1 + i % k->mr, 1, (pattern)(i % N_PATTERN), seed);
        }
    }
}

/* The kernels of a level, and its variants for processors with fewer features; calls check for each. */
static void check_with_less(qni_cpu_kernels *k, uint64_t *seed, void (*check)(const qni_cpu_kernels *, uint64_t *)) {
    check(k, seed);
#if defined(__aarch64__)
    if (strcmp(k->isa, "neon") != 0) return;
    const qni_cpu_features has = qni_cpu_detect();
    if (has.neon_i8mm && has.neon_dotprod) {
        qni_cpu_quant_neondot(k);
        check(k, seed);
    }
    if (has.neon_i8mm || has.neon_dotprod) {
        qni_cpu_quant_neon(k);
        check(k, seed);
    }
#endif
}

static void int8_products(void **state) {
    (void)state;
    uint64_t seed = 1;
    FOR_EACH_LEVEL(k) check_with_less(&k, &seed, check_all_products);
}

/* e4m3 by definition: 1.m · 2^(e-7), 0.m · 2^-6, NaN if all exponent and mantissa bits are set. */
static double e4m3(uint8_t code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    if (exponent == 15 && mantissa == 7) return NAN;
    double magnitude = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

/* A whole panel, in blocks as products use it, the last one ending at n_in. */
static void check_unpack(const qni_cpu_kernels *k, const qni_cpu_quant *q, uint64_t *seed) {
    enum { GUARD = 16 };
    const float canary = 12345.0f;
    const int64_t nr = q->nr;
    panels w = make_panels(k, q, 1, RANDOM, seed);
    float *block = new_block((size_t)(k->kc * nr + 2 * GUARD) * sizeof *block), *out = block + GUARD;
    for (int64_t k0 = 0; k0 < q->n_in; k0 += k->kc) {
        const int64_t n_k = qni_min_i64(k->kc, q->n_in - k0);
        for (int64_t i = 0; i < k->kc * nr + 2 * GUARD; i++) block[i] = canary;
        CASE(name, "unpack %s, %s%d bits, scales %s%s, groups of %d, inputs %d + %d", k->isa, q->fp8 ? "fp8, " : "",
             q->bits, q->scale_dtype == QNI_CPU_F32 ? "f32" : "bf16", q->symmetric ? ", symmetric" : "", (int)q->group,
             (int)k0, (int)n_k);
        k->unpack(out, w.data, q, k0, n_k);
        for (int64_t i = 0; i < n_k; i++) {
            for (int64_t j = 0; j < nr; j++) {
                const int64_t at = (k0 + i) / q->group * nr + j;
                const double scale = (double)w.scale[at];
                const int code = w.codes[(k0 + i) * nr + j];
                const double zero = q->symmetric ? -scale * (1 << (q->bits - 1)) : (double)w.bias[at];
                const double want = q->fp8 ? scale * e4m3((uint8_t)code) : scale * code + zero;
                const double size = q->fp8 ? fabs(want) : fabs(scale * code) + fabs(zero);
                const float got = out[i * nr + j];
                if (isnan(want)) {
                    expect_that(isnan(got), name, i * nr + j, got);
                } else { /* two roundings */
                    expect_near(name, i * nr + j, (double)got, want, 2 * 0x1p-24 * size);
                }
            }
        }
        for (int i = 0; i < GUARD; i++) {
            expect_that(block[i] == canary, name, i - GUARD, block[i]);
            expect_that(out[n_k * nr + i] == canary, name, n_k * nr + i, out[n_k * nr + i]);
        }
    }
    free(block);
    free_panels(&w);
}

static void check_all_unpacking(const qni_cpu_kernels *k, uint64_t *seed) {
    const int64_t groups[] = {32, 64, 96, 128};
    const int64_t n_ins[] = {32, 77, k->kc, k->kc + 1, 2 * k->kc + 45};
    for (int i = 0; i < 5; i++) {
        for (int form = 0; form < 32; form++) {
            qni_cpu_quant q =
                layout(k, form & 1 ? 8 : 4, form & 2 ? QNI_CPU_F32 : QNI_CPU_BF16, (form & 4) != 0, groups[form / 8]);
            set_inputs(&q, qni_ceil_div(n_ins[i], q.group) * q.group); /* affine groups are complete */
            check_unpack(k, &q, seed);
        }
        for (int form = 0; form < 2; form++) { /* fp8 allows any group */
            const int64_t fp8_groups[] = {128, 7};
            qni_cpu_quant q = layout(k, 8, form == 0 ? QNI_CPU_F32 : QNI_CPU_BF16, false, fp8_groups[form]);
            q.fp8 = true;
            q.ki = 1;
            set_inputs(&q, n_ins[i]);
            check_unpack(k, &q, seed);
        }
    }
}

static void unpacking(void **state) {
    (void)state;
    uint64_t seed = 2;
    FOR_EACH_LEVEL(k) check_with_less(&k, &seed, check_all_unpacking);
}

/* One row; codes are the nearest ones within the tolerance of the two roundings of x · (127 / max). */
static void check_quantize(const qni_cpu_kernels *k, const float *x, int64_t n, int64_t group) {
    enum { GUARD = 8 };
    int8_t *block = new_block((size_t)(n + 2 * GUARD)), *codes = block + GUARD;
    float scale[9];
    int32_t sum[9];
    memset(block, 0x55, (size_t)(n + 2 * GUARD));
    CASE(name, "quantize %s, n %d, groups of %d", k->isa, (int)n, (int)group);
    k->quantize(codes, scale, sum, x, n, group);
    for (int64_t g = 0; g < n / group; g++) {
        double max = 0;
        bool is_finite = true;
        int32_t total = 0;
        for (int64_t i = g * group; i < (g + 1) * group; i++) {
            is_finite = is_finite && isfinite(x[i]);
            max = fmax(max, fabs((double)x[i]));
            total += codes[i];
        }
        expect_that(sum[g] == total, name, g, sum[g]);
        if (!is_finite) {
            expect_that(isnan(scale[g]), name, g, scale[g]);
            continue;
        }
        if (max < 0x1p-100) { /* nearly zero */
            expect_that(scale[g] == 0 && total == 0, name, g, scale[g]);
            continue;
        }
        expect_near(name, g, (double)scale[g], max / 127, 0x1p-24 * max / 127);
        for (int64_t i = g * group; i < (g + 1) * group; i++) {
            expect_near(name, i, codes[i], 127 * (double)x[i] / max, 0.5 + 127 * 0x1p-23);
        }
    }
    for (int i = 0; i < GUARD; i++) {
        expect_that(block[i] == 0x55, name, i - GUARD, block[i]);
        expect_that(codes[n + i] == 0x55, name, n + i, codes[n + i]);
    }
    free(block);
}

/* Widen codes to words, in place: the codes are the second half of the words' memory. Their values are arbitrary. */
static void check_widen(const qni_cpu_kernels *k, int64_t n, int64_t group, uint64_t *seed) {
    enum { GUARD = 32 };
    if (k->int8[QNI_CPU_8_BITS].widen == NULL) return;
    int8_t *codes = new_block((size_t)n);
    int16_t *block = new_block((size_t)(n + GUARD) * sizeof *block);
    int32_t even[9];
    memset(block, 0x55, (size_t)(n + GUARD) * sizeof *block);
    int8_t *second = (int8_t *)block + n;
    for (int64_t i = 0; i < n; i++) second[i] = codes[i] = (int8_t)((int)(random_uniform(seed) * 255) - 127);
    CASE(name, "widen codes %s, n %d, groups of %d", k->isa, (int)n, (int)group);
    k->int8[QNI_CPU_8_BITS].widen(block, even, second, n, group);
    for (int64_t g = 0; g < n / group; g++) {
        int32_t total = 0;
        for (int64_t i = g * group; i < (g + 1) * group; i += 2) total += codes[i];
        expect_that(even[g] == total, name, g, even[g]);
    }
    for (int64_t i = 0; i < n; i++) expect_that(block[i] == word_of(codes, i), name, i, block[i]);
    for (int i = 0; i < GUARD; i++) expect_that(block[n + i] == 0x5555, name, n + i, block[n + i]);
    free(codes);
    free(block);
}

static void quantizing_rows(void **state) {
    (void)state;
    enum { MAX_GROUP = 160, N_GROUP = 8 };
    float row[MAX_GROUP * N_GROUP + 1], *x = row + 1; /* unaligned */
    uint64_t seed = 3;
    FOR_EACH_LEVEL(k) {
        for (int64_t group = 32; group <= MAX_GROUP; group += 32) {
            for (int64_t n_group = 1; n_group <= N_GROUP; n_group++) {
                const int64_t n = n_group * group;
                check_widen(&k, n, group, &seed);
                for (int64_t i = 0; i < n; i++) x[i] = (float)(random_normal(&seed) * exp(8 * random_uniform(&seed)));
                check_quantize(&k, x, n, group);
                /* The maximum and ties at each position; then a bad value in one group. */
                for (int64_t i = 0; i < n; i++) x[i] = ((float)(i % 127) + 0.5f) * (i % 2 == 0 ? 1 : -1);
                x[n - 1] = -127;
                check_quantize(&k, x, n, group);
                const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -0.0f};
                for (int j = 0; j < 5; j++) {
                    x[(n_group / 2) * group + (j * 31 + n) % group] = odd[j];
                    check_quantize(&k, x, n, group);
                }
                for (int64_t i = 0; i < n; i++) x[i] = 0x1p-110f * (float)(i % 3);
                for (int64_t i = 0; i < group; i++) x[i] = 0;
                check_quantize(&k, x, n, group);
                for (int64_t i = 0; i < n; i++) x[i] = 0x1p-90f * (float)(i % 3);
                check_quantize(&k, x, n, group);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_products),
        cmocka_unit_test(unpacking),
        cmocka_unit_test(quantizing_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
