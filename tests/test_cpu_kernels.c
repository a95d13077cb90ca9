/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of every level of the cpu backend on this machine, against plain double arithmetic: ragged sizes, all
 * element types, unaligned rows, and canaries around every output. */
#include "../src/base/half.h"
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

static const qn_dtype dtypes_all[] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16};

/* n random values of a dtype, misaligned by one element; *data points into the returned allocation. */
static void *random_array(void **data, qn_dtype dtype, int64_t n, uint64_t *seed) {
    size_t bytes = qn_dtype_bytes(dtype);
    unsigned char *block = malloc((size_t)(n + 1) * bytes);
    assert_non_null(block);
    *data = block + bytes;
    for (int64_t i = 0; i < n; i++) qni_store_f32(*data, dtype, i, (float)random_normal(seed));
    return block;
}

/* Guarded f32 output. */
enum { GUARD = 16 };
static const float canary = 12345.0f;
static float *guarded(int64_t n) {
    float *block = malloc((size_t)(n + 2 * GUARD) * sizeof *block);
    assert_non_null(block);
    for (int64_t i = 0; i < n + 2 * GUARD; i++) block[i] = canary;
    return block + GUARD;
}
static void check_guard(const char *name, float *data, int64_t n) {
    for (int i = 0; i < GUARD; i++) {
        expect_that(data[-1 - i] == canary, name, -1 - i, data[-1 - i]);
        expect_that(data[n + i] == canary, name, n + i, data[n + i]);
    }
    free(data - GUARD);
}

/* Index of output j in a row of a panel. */
static int64_t element_index(const qni_cpu_kernels *k, int dtype, int64_t j) {
    bool interleaved = dtype == QNI_CPU_BF16 && k->interleaves_bf16;
    return interleaved ? j % (k->nr / 2) * 2 + j / (k->nr / 2) : j;
}

static void check_gemm(const qni_cpu_kernels *k, int dtype, int64_t m, int64_t n_panel, int64_t n_k, uint64_t *seed) {
    const int64_t stride = (n_k + 3) * k->nr, ldc = n_panel * k->nr + 5;
    void *a, *w;
    void *a_block = random_array(&a, QN_DTYPE_F32, m * n_k, seed);
    void *w_block = random_array(&w, dtypes_all[dtype], n_panel * stride, seed);
    float *c = guarded(m * ldc);
    const float *x = a;
    char name[CASE_SIZE];
    for (int add = 0; add < 2; add++) {
        case_write(name, "gemm%s %s %s, m %d, panels %d, k %d", add ? " add" : "", k->isa,
                   qn_dtype_name(dtypes_all[dtype]), (int)m, (int)n_panel, (int)n_k);
        k->gemm[dtype](c, ldc, a, m, w, stride, n_panel, n_k, add);
        for (int64_t r = 0; r < m; r++) {
            for (int64_t o = 0; o < n_panel * k->nr; o++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < n_k; i++) {
                    int64_t at = o / k->nr * stride + i * k->nr + element_index(k, dtype, o % k->nr);
                    double p = (double)x[i * m + r] * (double)qni_load_f32(w, dtypes_all[dtype], at);
                    sum += p;
                    size += fabs(p);
                }
                /* A chain of at most 256 roundings of 2^-24, which add up like a random walk: 4 sigma. */
                expect_near(name, r * ldc + o, (double)c[r * ldc + o], (1 + add) * sum, 4e-6 * size + 1e-30);
            }
            for (int64_t o = n_panel * k->nr; o < ldc; o++) {
                expect_that(c[r * ldc + o] == canary, name, r * ldc + o, c[r * ldc + o]);
            }
        }
    }
    check_guard(name, c, m * ldc);
    free(a_block);
    free(w_block);
}

static void gemm(void **state) {
    (void)state;
    uint64_t seed = 1;
    FOR_EACH_LEVEL(k) {
        const int64_t n_ks[] = {1, 2, 7, 64, k.kc};
        for (int dtype = 0; dtype < QNI_CPU_N_DTYPE; dtype++) {
            for (int64_t m = 1; m <= k.mr; m++) {
                for (int64_t n_panel = 1; n_panel <= 9; n_panel++) {
                    check_gemm(&k, dtype, m, n_panel, n_ks[(m + n_panel) % 5], &seed);
                }
            }
        }
    }
}

/* Pairs of bf16; one row and one panel give the same bits as many. */
static void check_pairs(const qni_cpu_kernels *k, int64_t m, int64_t n_panel, int64_t n_k, uint64_t *seed) {
    const int64_t nr = k->nr, stride = (n_k + 4) * nr, ldc = n_panel * nr + 5;
    void *a, *w;
    void *a_block = random_array(&a, QN_DTYPE_BF16, m * n_k, seed);
    void *w_block = random_array(&w, QN_DTYPE_BF16, n_panel * stride, seed);
    uint16_t *row = malloc((size_t)n_k * sizeof *row);
    float *c = guarded(m * ldc), *alone = guarded(nr);
    assert_non_null(row);
    char name[CASE_SIZE];
    for (int add = 0; add < 2; add++) {
        case_write(name, "gemm_pairs%s %s%s, m %d, panels %d, k %d", add ? " add" : "", k->isa,
                   k->native_bf16 ? " native" : "", (int)m, (int)n_panel, (int)n_k);
        k->gemm_pairs(c, ldc, a, m, w, stride, n_panel, n_k, add);
        for (int64_t r = 0; r < m; r++) {
            for (int64_t o = 0; o < n_panel * nr; o++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < n_k; i++) {
                    double p =
                        (double)qni_load_f32(a, QN_DTYPE_BF16, (i / 2 * m + r) * 2 + i % 2) *
                        (double)qni_load_f32(w, QN_DTYPE_BF16, o / nr * stride + (i / 2 * nr + o % nr) * 2 + i % 2);
                    sum += p;
                    size += fabs(p);
                }
                /* Products are exact, sums as in check_gemm. */
                expect_near(name, r * ldc + o, (double)c[r * ldc + o], (1 + add) * sum, 4e-6 * size + 1e-30);
            }
            for (int64_t o = n_panel * nr; o < ldc; o++) {
                expect_that(c[r * ldc + o] == canary, name, r * ldc + o, c[r * ldc + o]);
            }
            if (add) continue;
            for (int64_t i = 0; i < n_k; i++) row[i] = ((uint16_t *)a)[(i / 2 * m + r) * 2 + i % 2];
            for (int64_t p = 0; p < n_panel; p++) {
                k->gemm_pairs(alone, nr, row, 1, (uint16_t *)w + p * stride, stride, 1, n_k, false);
                expect_same_bits(case_text("%s, row %d and panel %d alone", name, (int)r, (int)p), QN_DTYPE_F32, alone,
                                 c + r * ldc + p * nr, nr);
            }
        }
    }
    check_guard(name, c, m * ldc);
    check_guard(name, alone, nr);
    free(row);
    free(a_block);
    free(w_block);
}

static void check_all_pairs(const qni_cpu_kernels *k, uint64_t *seed) {
    const int64_t n_ks[] = {2, 4, 14, 64, k->kc};
    for (int64_t m = 1; m <= k->mr; m++) {
        for (int64_t n_panel = 1; n_panel <= 9; n_panel++) {
            check_pairs(k, m, n_panel, n_ks[(m + n_panel) % 5], seed);
        }
    }
}

static void bf16_pair_products(void **state) {
    (void)state;
    uint64_t seed = 4;
    FOR_EACH_LEVEL(k) {
        check_all_pairs(&k, &seed);
#if defined(__x86_64__)
        if (strcmp(k.isa, "avx512") == 0 && k.native_bf16) { /* the level without BF16 */
            qni_cpu_gemm_avx512(&k);
            check_all_pairs(&k, &seed);
        }
#endif
    }
}

static void conversions(void **state) {
    (void)state;
    enum { N = 65536 };
    uint16_t *half = malloc(N * sizeof *half), *back = malloc((N + 8) * sizeof *back);
    float *wide = malloc((N + 8) * sizeof *wide);
    assert_true(half != NULL && back != NULL && wide != NULL);
    for (int i = 0; i < N; i++) half[i] = (uint16_t)i;
    FOR_EACH_LEVEL(k) {
        for (int dtype = QNI_CPU_BF16; dtype < QNI_CPU_N_DTYPE; dtype++) {
            CASE(name, "%s %s", k.isa, qn_dtype_name(dtypes_all[dtype]));
            /* All bit patterns, cut so that each also falls into a tail. */
            for (int64_t n = 1; n <= 9; n += 4) {
                for (int64_t i = 0; i + n <= N; i += n) k.widen[dtype](wide + i, half + i, n);
                for (int64_t i = 0; i + n <= N; i += n) k.narrow[dtype](back + i, wide + i, n);
                for (int64_t i = 0; i < N / n * n; i++) {
                    float want = qni_load_f32(half, dtypes_all[dtype], i);
                    if (isnan(want)) {
                        expect_that(isnan(wide[i]), name, i, wide[i]);
                        expect_that(isnan(qni_load_f32(back, dtypes_all[dtype], i)), name, i, back[i]);
                    } else {
                        if (qni_bits_of_float(wide[i]) != qni_bits_of_float(want)) {
                            fail_msg("widen %s: 0x%04x becomes %a, not %a", name, half[i], (double)wide[i],
                                     (double)want);
                        }
                        expect_that(back[i] == half[i], name, i, back[i]);
                    }
                }
            }
            /* Rounding of arbitrary floats: random bits, ties included. */
            uint64_t seed = 7;
            for (int64_t i = 0; i < N; i++) {
                uint32_t bits = (uint32_t)(random_uniform(&seed) * 4294967296.0);
                wide[i] = qni_float_of_bits(i % 4 == 0 ? (bits & 0xFFFF0000u) | 0x8000u : bits);
            }
            k.narrow[dtype](back, wide, N);
            for (int64_t i = 0; i < N; i++) {
                uint16_t want = dtype == QNI_CPU_BF16 ? qni_bf16_of_f32(wide[i]) : qni_f16_of_f32(wide[i]);
                if (isnan(wide[i])) {
                    expect_that(isnan(qni_load_f32(back, dtypes_all[dtype], i)), name, i, back[i]);
                } else if (back[i] != want) {
                    fail_msg("narrow %s: %a becomes 0x%04x, not 0x%04x", name, (double)wide[i], back[i], want);
                }
            }
        }
        int8_t codes[256];
        for (int i = 0; i < 256; i++) codes[i] = (int8_t)(i - 128);
        for (int64_t n = 1; n <= 256; n += 51) {
            k.widen[QNI_CPU_Q8](wide, codes, n);
            for (int64_t i = 0; i < n; i++) expect_that(wide[i] == (float)(i - 128), k.isa, i, wide[i]);
        }
        float odd[3] = {1, -0.0f, 3}, out[4] = {0, 0, 0, canary};
        k.widen[QNI_CPU_F32](out, odd, 3);
        expect_same_bits(k.isa, QN_DTYPE_F32, out, odd, 3);
        expect_that(out[3] == canary, k.isa, 3, out[3]);
    }
    free(half);
    free(back);
    free(wide);
}

/* Error in units of the last place of the exact result. */
static double ulps(float got, double want) {
    double unit = ldexp(1.0, ilogb(want) - 23);
    return fabs((double)got - want) / unit;
}

static void exponential(void **state) {
    (void)state;
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    assert_true(x != NULL && y != NULL);
    FOR_EACH_LEVEL(k) {
        for (int i = 0; i < N; i++) x[i] = -87.3f + 176.0f * (float)i / N; /* all results are normal numbers */
        k.exp(y, x, N);
        for (int i = 0; i < N; i++) { /* the bound stated in kernels.h */
            if (!(ulps(y[i], exp((double)x[i])) <= 2.0)) {
                fail_msg("exp %s of %a is %a, not %a", k.isa, (double)x[i], (double)y[i], exp((double)x[i]));
            }
        }
        const float ends[] = {-INFINITY, -1e30f, -104.0f, -90.0f, 0.0f, -0.0f, 88.8f, 1e30f, INFINITY, NAN, 1.0f};
        float out[12];
        out[11] = canary;
        k.exp(out, ends, 11);
        for (int i = 0; i < 12; i++) {
            const bool is_right[] = {out[i] == 0, out[i] == 0,     out[i] < 1e-40f, out[i] < 1e-38f, out[i] == 1,
                                     out[i] == 1, isinf(out[i]),   isinf(out[i]),   isinf(out[i]),   isnan(out[i]),
                                     true,        out[i] == canary};
            expect_that(is_right[i], case_text("exp %s of the ends", k.isa), i, out[i]);
        }
        /* An element's result does not depend on its position. */
        float alone;
        for (int i = 0; i < 11; i++) {
            k.exp(&alone, ends + i, 1);
            CASE(name, "exp %s of end %d alone", k.isa, i);
            if (!isnan(alone)) expect_same_bits(name, QN_DTYPE_F32, &alone, out + i, 1);
        }
    }
    free(x);
    free(y);
}

static void rows(void **state) {
    (void)state;
    enum { MAX = 45 };
    uint64_t seed = 3;
    FOR_EACH_LEVEL(k) {
        for (int64_t n = 1; n <= MAX; n++) {
            CASE(name, "%s, n %d", k.isa, (int)n);
            float a[MAX], b[MAX];
            double squares = 0;
            for (int64_t i = 0; i < n; i++) {
                a[i] = (float)(4 * random_normal(&seed));
                b[i] = (float)random_normal(&seed);
                squares += (double)a[i] * (double)a[i];
            }
            expect_near(case_text("sum_squares %s", name), 0, k.sum_squares(a, n), squares, 1e-14 * squares);
            float *out = guarded(n);
            k.swiglu(out, a, b, n);
            for (int64_t i = 0; i < n; i++) {
                double want = (double)a[i] / (1 + exp(-(double)a[i])) * (double)b[i];
                /* exp 2 ulp, and four roundings */
                expect_near(name, i, (double)out[i], want, 6e-7 * fabs(want));
            }
            k.scale_mul(out, a, 0.3f, b, n);
            for (int64_t i = 0; i < n; i++) {
                expect_near(name, i, (double)out[i], (double)(a[i] * 0.3f * b[i]), 1e-6 * fabs((double)out[i]));
            }
            k.add(out, a, b, n);
            for (int64_t i = 0; i < n; i++) expect_that(out[i] == a[i] + b[i], name, i, out[i]);
            k.scale(out, 2.0f, n);
            for (int64_t i = 0; i < n; i++) expect_that(out[i] == 2 * (a[i] + b[i]), name, i, out[i]);
            check_guard(name, out, n);
            if (n % 2 != 0) continue;
            float turn[MAX], *x = guarded(n);
            memcpy(x, a, (size_t)n * sizeof *x);
            for (int64_t i = 0; i < n / 2; i++) {
                turn[i] = cosf(b[i]);
                turn[i + n / 2] = sinf(b[i]);
            }
            k.rope(x, turn, n);
            for (int64_t i = 0; i < n / 2; i++) {
                double u = a[i], v = a[i + n / 2], c = turn[i], s = turn[i + n / 2];
                double size = 2e-7 * (fabs(u) + fabs(v)); /* two or three roundings */
                expect_near(name, i, (double)x[i], u * c - v * s, size);
                expect_near(name, i + n / 2, (double)x[i + n / 2], v * c + u * s, size);
            }
            check_guard(name, x, n);
        }
    }
}

static void argmax(void **state) {
    (void)state;
    enum { MAX = 40 };
    float x[MAX];
    FOR_EACH_LEVEL(k) {
        for (int64_t n = 1; n <= MAX; n++) {
            CASE(name, "argmax %s, n %d", k.isa, (int)n);
            for (int64_t at = 0; at < n; at++) {
                for (int64_t i = 0; i < n; i++) x[i] = -3.0f - (float)(i % 3);
                x[at] = -1.0f;
                x[n - 1] = -1.0f; /* a tie: the lower index wins */
                expect_that(k.argmax(x, n) == at, name, at, k.argmax(x, n));
                x[at] = NAN;
                expect_that(k.argmax(x, n) == -1, name, at, k.argmax(x, n));
                x[at] = x[n - 1] = -INFINITY;
            }
            for (int64_t i = 0; i < n; i++) x[i] = -INFINITY;
            expect_that(k.argmax(x, n) == 0, name, 0, k.argmax(x, n));
        }
    }
}

static void transposition(void **state) {
    (void)state;
    enum { MAX_I = 50, STRIDE = 53 };
    static uint32_t in4[QNI_CPU_NR_MAX * STRIDE + 1], out4[(MAX_I + 1) * QNI_CPU_NR_MAX];
    static uint16_t in2[QNI_CPU_NR_MAX * STRIDE + 1], out2[(MAX_I + 1) * QNI_CPU_NR_MAX];
    static uint16_t interleaved[(MAX_I + 1) * QNI_CPU_NR_MAX];
    for (int i = 0; i < QNI_CPU_NR_MAX * STRIDE + 1; i++) in4[i] = in2[i] = (uint16_t)(i + 1);
    FOR_EACH_LEVEL(k) {
        for (int64_t n_j = 1; n_j <= k.nr; n_j += n_j == 1 ? 2 : 1) {
            for (int64_t n_i = 1; n_i <= MAX_I; n_i += 7) {
                CASE(name, "transpose %s, %d outputs, %d inputs", k.isa, (int)n_j, (int)n_i);
                memset(out4, 0xAA, sizeof out4);
                memset(out2, 0xAA, sizeof out2);
                memset(interleaved, 0xAA, sizeof interleaved);
                k.transpose4(out4, in4 + 1, STRIDE, n_j, n_i);
                k.transpose2(out2, in2 + 1, STRIDE, n_j, n_i);
                k.transpose_bf16(interleaved, in2 + 1, STRIDE, n_j, n_i);
                for (int64_t i = 0; i < n_i; i++) {
                    for (int64_t j = 0; j < k.nr; j++) {
                        uint32_t want = j < n_j ? in4[1 + j * STRIDE + i] : 0;
                        const int64_t at = i * k.nr + j, index = i * k.nr + element_index(&k, QNI_CPU_BF16, j);
                        expect_that(out4[at] == want, name, at, out4[at]);
                        expect_that(out2[at] == want, name, at, out2[at]);
                        expect_that(interleaved[index] == want, name, index, interleaved[index]);
                    }
                }
                expect_that(out4[n_i * k.nr] == 0xAAAAAAAAu, name, n_i * k.nr, out4[n_i * k.nr]);
                expect_that(out2[n_i * k.nr] == 0xAAAA, name, n_i * k.nr, out2[n_i * k.nr]);
                expect_that(interleaved[n_i * k.nr] == 0xAAAA, name, n_i * k.nr, interleaved[n_i * k.nr]);
            }
        }
    }
}

/* Element types of keys and values: floats, or codes. */
static const qn_dtype kv_dtypes[QNI_CPU_N_KV] = {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16, QN_DTYPE_Q8};

static double load_kv(const void *data, int dtype, int64_t i) {
    return dtype == QNI_CPU_Q8 ? ((const int8_t *)data)[i] : (double)qni_load_f32(data, dtypes_all[dtype], i);
}

static void *random_rows(void **data, int dtype, int64_t n, uint64_t *seed) {
    if (dtype != QNI_CPU_Q8) return random_array(data, dtypes_all[dtype], n, seed);
    int8_t *codes = malloc((size_t)n + 1);
    assert_non_null(codes);
    for (int64_t i = 0; i < n; i++) codes[i + 1] = (int8_t)(random_uniform(seed) * 255 - 127);
    *data = codes + 1;
    return codes;
}

/* Scores and values of n_q queries and n_k positions; bitwise equal for each query alone. */
static void check_attend(const qni_cpu_kernels *k, int dtype, int64_t n_q, int64_t n_k, int64_t d, uint64_t *seed) {
    const int64_t stride = d + 3, block = QNI_CPU_KV_BLOCK;
    void *q, *kv;
    void *q_block = random_array(&q, QN_DTYPE_F32, n_q * d, seed);
    void *kv_block = random_rows(&kv, dtype, n_k * stride, seed);
    float *s = guarded(n_q * block), *alone = guarded(block), *o = guarded(n_q * d), *o_alone = guarded(d);
    const qni_cpu_kv_rows rows = {kv, stride, n_k, NULL, 0};
    CASE(name, "attend %s %s, queries %d, positions %d, d %d", k->isa, qn_dtype_name(kv_dtypes[dtype]), (int)n_q,
         (int)n_k, (int)d);
    k->attend_scores[dtype](s, q, n_q, &rows, d);
    k->attend_values[dtype](o, s, n_q, &rows, d, false);
    for (int64_t i = 0; i < n_q; i++) {
        const float *query = (const float *)q + i * d;
        k->attend_scores[dtype](alone, query, 1, &rows, d);
        expect_same_bits(case_text("%s, scores of query %d alone", name, (int)i), QN_DTYPE_F32, alone, s + i * block,
                         n_k);
        for (int64_t j = 0; j < n_k; j++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < d; c++) {
                double p = (double)query[c] * load_kv(kv, dtype, j * stride + c);
                sum += p;
                size += fabs(p);
            }
            expect_near(name, i * block + j, (double)s[i * block + j], sum, 1e-6 * size); /* chains of at most 64 + 3 */
        }
        for (int64_t j = n_k; j < block; j++) {
            expect_that(s[i * block + j] == canary, name, i * block + j, s[i * block + j]);
        }
        /* Values in two parts form the same chain. */
        const int64_t half = n_k / 2;
        const size_t bytes = (size_t)(half * stride) * qn_dtype_bytes(kv_dtypes[dtype]);
        const qni_cpu_kv_rows head = {kv, stride, half, NULL, 0};
        const qni_cpu_kv_rows rest = {(const char *)kv + bytes, stride, n_k - half, NULL, 0};
        k->attend_values[dtype](o_alone, alone, 1, &head, d, false);
        k->attend_values[dtype](o_alone, alone + half, 1, &rest, d, true);
        expect_same_bits(case_text("%s, values of query %d in two pieces", name, (int)i), QN_DTYPE_F32, o_alone,
                         o + i * d, d);
        for (int64_t c = 0; c < d; c++) {
            double sum = 0, size = 0;
            for (int64_t j = 0; j < n_k; j++) {
                double p = (double)alone[j] * load_kv(kv, dtype, j * stride + c);
                sum += p;
                size += fabs(p);
            }
            expect_near(name, i * d + c, (double)o[i * d + c], sum, 4e-6 * size); /* a chain of at most 128 */
        }
    }
    check_guard(name, s, n_q * block);
    check_guard(name, alone, block);
    check_guard(name, o, n_q * d);
    check_guard(name, o_alone, d);
    free(q_block);
    free(kv_block);
}

/* Scores of keys in panels equal those of rows bit for bit; scores of nonexistent keys may be written. */
static void check_panels(const qni_cpu_kernels *k, int64_t n_q, int64_t n_k, int64_t d, uint64_t *seed) {
    const int64_t stride = d + 3, block = QNI_CPU_KV_BLOCK;
    void *q, *keys;
    void *q_block = random_array(&q, QN_DTYPE_F32, n_q * d, seed);
    void *key_block = random_array(&keys, QN_DTYPE_F32, n_k * stride, seed);
    float *s = guarded(n_q * block), *want = guarded(n_q * block), *panels = guarded(block * d);
    k->attend_scores[QNI_CPU_F32](want, q, n_q, &(qni_cpu_kv_rows){keys, stride, n_k, NULL, 0}, d);
    for (int64_t j = 0; j < n_k; j += k->nr) {
        const int64_t n = n_k - j < k->nr ? n_k - j : k->nr;
        k->transpose4((void *)(panels + j * d), (const void *)((const float *)keys + j * stride), stride, n, d);
    }
    k->attend_panels(s, q, n_q, panels, (n_k + k->nr - 1) / k->nr * k->nr, d);
    CASE(name, "attend_panels %s, queries %d, positions %d, d %d", k->isa, (int)n_q, (int)n_k, (int)d);
    for (int64_t i = 0; i < n_q; i++) {
        expect_same_bits(case_text("%s, query %d", name, (int)i), QN_DTYPE_F32, s + i * block, want + i * block, n_k);
    }
    check_guard(name, s, n_q * block);
    check_guard(name, want, n_q * block);
    check_guard(name, panels, block * d);
    free(q_block);
    free(key_block);
}

static void panels(void **state) {
    (void)state;
    const int64_t ds[] = {16, 32, 80, 128, 512}, n_ks[] = {1, 9, 16, 31, 48, 127, 128};
    uint64_t seed = 8;
    int n_level = 0;
    FOR_EACH_LEVEL(k) {
        if (k.attend_panels == NULL) continue;
        n_level++;
        for (int64_t n_q = 1; n_q <= 19; n_q++) {
            for (int i = 0; i < 7; i++) check_panels(&k, n_q, n_ks[i], ds[(n_q + i) % 5], &seed);
        }
    }
    if (n_level == 0) skip();
}

/* Two blocks of n scores: the first from the initial state, the second after the first. */
static void check_softmax(const qni_cpu_kernels *k, int64_t n, uint64_t *seed) {
    float max = -INFINITY, sum = 0;
    double want_max = -INFINITY, want_sum = 0;
    CASE(name, "attend_softmax %s, n %d", k->isa, (int)n);
    for (int block = 0; block < 2; block++) {
        float s[QNI_CPU_KV_BLOCK], given[QNI_CPU_KV_BLOCK];
        const float before = max;
        for (int j = 0; j < QNI_CPU_KV_BLOCK; j++) s[j] = given[j] = j < n ? (float)(5 * random_normal(seed)) : NAN;
        float factor = k->attend_softmax(s, n, &max, &sum);
        for (int64_t j = 0; j < n; j++) want_max = fmax(want_max, (double)given[j]);
        expect_near(name, block, (double)max, want_max, 0);
        double want_factor = exp((double)(before - max));
        expect_near(name, block, (double)factor, want_factor, 3e-7 * want_factor);
        expect_that(want_factor != 1 || factor == 1, name, block, factor); /* exact: results are then left unchanged */
        want_sum *= want_factor;
        for (int64_t j = 0; j < n; j++) {
            double want = exp((double)(given[j] - max));
            expect_near(name, j, (double)s[j], want, 3e-7 * want);
            want_sum += want;
        }
        expect_near(name, block, (double)sum, want_sum, 1e-6 * want_sum);
    }
}

static void attention(void **state) {
    (void)state;
    uint64_t seed = 5;
    FOR_EACH_LEVEL(k) {
        const int64_t ds[] = {k.d_align, 5 * k.d_align, 128, 512}, n_ks[] = {1, 2, 5, 9, 127, 128};
        for (int dtype = 0; dtype < QNI_CPU_N_KV; dtype++) {
            for (int64_t n_q = 1; n_q <= 7; n_q++) {
                for (int i = 0; i < 6; i++) check_attend(&k, dtype, n_q, n_ks[i], ds[(n_q + i) % 4], &seed);
            }
        }
        for (int64_t n = 1; n <= QNI_CPU_KV_BLOCK; n++) check_softmax(&k, n, &seed);
        enum { MAX_MERGED = 3 * 16 };
        float o[MAX_MERGED], b[MAX_MERGED];
        const int64_t n = 3 * k.d_align;
        assert_true(n <= MAX_MERGED);
        for (int i = 0; i < MAX_MERGED; i++) {
            o[i] = (float)i;
            b[i] = (float)(i * i);
        }
        k.attend_reduce(o, 0.5f, b, 0.25f, n);
        for (int i = 0; i < MAX_MERGED; i++) { /* exact in f32; elements beyond n are unchanged */
            assert_true(o[i] == (i < n ? 0.5f * (float)i + 0.25f * b[i] : (float)i));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm),          cmocka_unit_test(bf16_pair_products),
        cmocka_unit_test(conversions),   cmocka_unit_test(exponential),
        cmocka_unit_test(rows),          cmocka_unit_test(argmax),
        cmocka_unit_test(transposition), cmocka_unit_test(attention),
        cmocka_unit_test(panels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
