/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of the cpu backend on each level. Against plain double arithmetic at odd shapes, with NaN in every cache
 * row that must not be read. Bit for bit against itself: one row at a time, in chunks, batched, threaded, pages of any
 * size, with infinities in the cache, and queries of any size. The fused layer against the composed one, bit for bit.
 */
#include "../src/backend/device.h"
#include "../src/base/half.h"
#include "../src/cpu/cpu.h"
#include "support/close.h"
#include "support/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static qn_device *open_cpu(int level, int32_t n_thread, bool compose) {
    qn_device *device = NULL;
    qn_device_options options = {.n_thread = n_thread, .isa = level_name(level), .compose = compose};
    assert_int_equal(qn_device_open(&device, "cpu", &options, NULL), QN_OK);
    return device;
}

#define RUN(device, call)                                                                                              \
    do {                                                                                                               \
        qni_scratch scratch;                                                                                           \
        qni_run context = qni_device_run(device, &scratch, true, NULL), *run = &context;                               \
        assert_int_equal(call, QN_OK);                                                                                 \
        size_t measured = scratch.peak;                                                                                \
        assert_int_equal(qni_device_reserve(device, measured, NULL), QN_OK);                                           \
        context = qni_device_run(device, &scratch, false, NULL);                                                       \
        assert_int_equal(call, QN_OK);                                                                                 \
        assert_true(scratch.peak <= measured && scratch.used == 0);                                                    \
    } while (0)

static void *new_block(size_t bytes) {
    void *p = calloc(1, bytes);
    assert_non_null(p);
    return p;
}
static float *random_floats(int64_t n, double size, uint64_t seed) {
    float *data = new_block((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++) data[i] = (float)(size * random_normal(&seed));
    return data;
}

typedef struct shape {
    int64_t n_seq, n_kv_head, group, d;
    int64_t page_tokens, pages;
    int64_t pos, n; /* first position and number of new rows of each sequence */
    qn_dtype k_dtype, v_dtype;
} shape;

/* A cache of random rows up to the position and NaN beyond, in pages in arbitrary order. */
typedef struct cache {
    void *k, *v;
    int32_t *blocks; /* {n_seq, pages} */
    qni_kv_layer kv;
} cache;

/* Contents of the cache and of the new rows. */
typedef enum content {
    NUMBERS,
    TINY, /* small values, mostly subnormal in f16 */
    WIDE, /* queries beyond the range of f16 */
    WILD, /* new keys of the first head and new values of the last one overflow to infinity in f16 */
} content;

/* Address of a row of k or v. */
static void *row_of(const shape *s, const cache *c, bool is_k, int64_t seq, int64_t head, int64_t pos) {
    qn_dtype dtype = is_k ? s->k_dtype : s->v_dtype;
    int64_t page = (s->n_seq * s->pages - 1) - (seq * s->pages + pos / s->page_tokens); /* in reverse order */
    int64_t row = (page * s->n_kv_head + head) * s->page_tokens + pos % s->page_tokens;
    size_t bytes = (size_t)qni_kv_row_elements(dtype, s->d) * qn_dtype_bytes(dtype);
    return (char *)(is_k ? c->k : c->v) + (size_t)row * bytes;
}
static void load_row(float *out, const shape *s, const cache *c, bool is_k, int64_t seq, int64_t head, int64_t pos) {
    qni_kv_load(out, row_of(s, c, is_k, seq, head, pos), is_k ? s->k_dtype : s->v_dtype, s->d);
}

/* The value depends only on the position, not on the pages. */
static float cached_value(int64_t seq, int64_t head, int64_t pos, int64_t c, int which) {
    uint64_t seed = (uint64_t)((((seq * 7 + head) * 1009 + pos) * 521 + c) * 2 + which) * 0x9E3779B97F4A7C15u + 1;
    random_uniform(&seed);
    return (float)random_normal(&seed);
}

static cache make_cache(const shape *s) {
    const int64_t k_row = qni_kv_row_elements(s->k_dtype, s->d), v_row = qni_kv_row_elements(s->v_dtype, s->d);
    const int64_t n_page = s->n_seq * s->pages, n_row = n_page * s->n_kv_head * s->page_tokens;
    cache c = {new_block((size_t)(n_row * k_row) * qn_dtype_bytes(s->k_dtype)),
               new_block((size_t)(n_row * v_row) * qn_dtype_bytes(s->v_dtype)),
               new_block((size_t)n_page * sizeof(int32_t)),
               {0}};
    for (int64_t seq = 0; seq < s->n_seq; seq++) {
        for (int64_t p = 0; p < s->pages; p++) {
            c.blocks[seq * s->pages + p] = (int32_t)((n_page - 1) - (seq * s->pages + p)); /* as in row_of() */
        }
        for (int64_t h = 0; h < s->n_kv_head; h++) {
            for (int64_t pos = 0; pos < s->pages * s->page_tokens; pos++) {
                float k[512], v[512];
                for (int64_t e = 0; e < s->d; e++) {
                    k[e] = pos < s->pos ? cached_value(seq, h, pos, e, 0) : NAN;
                    v[e] = pos < s->pos ? cached_value(seq, h, pos, e, 1) : NAN;
                }
                qni_kv_store(row_of(s, &c, true, seq, h, pos), s->k_dtype, k, s->d);
                qni_kv_store(row_of(s, &c, false, seq, h, pos), s->v_dtype, v, s->d);
            }
        }
    }
    c.kv = (qni_kv_layer){.k = c.k,
                          .v = c.v,
                          .k_dtype = s->k_dtype,
                          .v_dtype = s->v_dtype,
                          .block_tokens = s->page_tokens,
                          .n_kv_head = s->n_kv_head,
                          .head_dim = s->d,
                          .k_block_stride = s->n_kv_head * s->page_tokens * k_row,
                          .k_head_stride = s->page_tokens * k_row,
                          .k_token_stride = k_row,
                          .v_block_stride = s->n_kv_head * s->page_tokens * v_row,
                          .v_head_stride = s->page_tokens * v_row,
                          .v_token_stride = v_row};
    return c;
}
static void free_cache(cache *c) {
    free(c->k);
    free(c->v);
    free(c->blocks);
}

/* New rows of all sequences, sequences outer. */
typedef struct inputs {
    float *q, *k, *v, *cos_sin;
    int32_t *seq, *pos; /* for each row */
    int64_t n_row, q_width, kv_width;
} inputs;

static inputs make_inputs(const shape *s, content what) {
    inputs in = {.n_row = s->n_seq * s->n, .q_width = s->n_kv_head * s->group * s->d, .kv_width = s->n_kv_head * s->d};
    in.q = random_floats(in.n_row * in.q_width, 1, 21);
    in.k = random_floats(in.n_row * in.kv_width, 1, 22);
    in.v = random_floats(in.n_row * in.kv_width, 1, 23);
    in.cos_sin = new_block((size_t)(in.n_row * s->d) * sizeof(float));
    in.seq = new_block((size_t)in.n_row * sizeof(int32_t));
    in.pos = new_block((size_t)in.n_row * sizeof(int32_t));
    for (int64_t r = 0; r < in.n_row; r++) {
        in.seq[r] = (int32_t)(r / s->n);
        in.pos[r] = (int32_t)(s->pos + r % s->n);
    }
    double inv_freq[256], factor;
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = 1e4}, s->d);
    for (int64_t r = 0; r < in.n_row; r++) {
        const qni_batch one = {1, 1, 0, (const int32_t[]){0, 1}, &in.pos[r], NULL};
        qni_rope_fill(qni_mat_of(in.cos_sin + r * s->d, QN_DTYPE_F32, 1, s->d), &one,
                      &(qni_frequencies){inv_freq, factor});
    }
    const float size = what == TINY ? 1e-6f : 1;
    for (int64_t i = 0; i < in.n_row * in.kv_width; i++) {
        in.k[i] *= size;
        in.v[i] *= size;
    }
    for (int64_t i = 0; i < in.n_row * in.q_width && what == WIDE; i++) in.q[i] *= 1e6f;
    if (what == WILD) {
        in.k[2 * in.kv_width + 1] = 1e6f;
        in.v[4 * in.kv_width - 3] = -1e6f;
    }
    return in;
}
static void free_inputs(inputs *in) {
    free(in->q);
    free(in->k);
    free(in->v);
    free(in->cos_sin);
    free(in->seq);
    free(in->pos);
}

/* Rows [first, first + n) in one call. */
static void attend(qn_device *device, const shape *s, const inputs *in, const cache *c, float *out, int64_t first,
                   int64_t n) {
    enum { MAX_SEQ = 4 };
    assert_true(s->n_seq <= MAX_SEQ);
    int32_t tok_begin[MAX_SEQ + 1], pos_begin[MAX_SEQ], n_seq = 0;
    for (int64_t r = 0; r < n; r++) { /* the sequences with rows in this call */
        if (r > 0 && in->seq[first + r] == in->seq[first + r - 1]) continue;
        tok_begin[n_seq] = (int32_t)r;
        pos_begin[n_seq++] = in->pos[first + r];
    }
    tok_begin[n_seq] = (int32_t)n;
    const qni_batch batch = {n, n_seq, (int32_t)s->pages, tok_begin, pos_begin, c->blocks + in->seq[first] * s->pages};
    qni_attention_call call = {&batch, in->cos_sin + first * s->d, 1 / sqrt((double)s->d), 1e-6};
    qni_heads q = {qni_mat_of(in->q + first * in->q_width, QN_DTYPE_F32, n, in->q_width), s->n_kv_head * s->group, s->d,
                   s->d};
    qni_heads k = {qni_mat_of(in->k + first * in->kv_width, QN_DTYPE_F32, n, in->kv_width), s->n_kv_head, s->d, s->d};
    qni_heads v = k;
    v.rows.data = in->v + first * in->kv_width;
    qni_mat o = qni_mat_of(out + first * in->q_width, QN_DTYPE_F32, n, in->q_width);
    RUN(device, run->ops->kv_attention(run, o, q, k, v, &c->kv, &call));
}

static void rotated(double *out, const float *x, const float *cos_sin, int64_t d) {
    for (int64_t i = 0; i < d / 2; i++) {
        double a = x[i], b = x[i + d / 2], c = cos_sin[i], s = cos_sin[i + d / 2];
        out[i] = a * c - b * s;
        out[i + d / 2] = b * c + a * s;
    }
}

/* Attention of one head of one row in double, over the cache contents after the call. */
static void check_head(const char *name, const shape *s, const inputs *in, const cache *c, const float *out, int64_t r,
                       int64_t h) {
    double q[512], sum[512] = {0}, total = 0, largest = 0;
    float row[512];
    const int64_t g = h / s->group, seq = in->seq[r], n = in->pos[r] + 1;
    double *score = new_block((size_t)n * sizeof *score), max = -INFINITY;
    rotated(q, in->q + r * in->q_width + h * s->d, in->cos_sin + r * s->d, s->d);
    for (int64_t p = 0; p < n; p++) {
        load_row(row, s, c, true, seq, g, p);
        for (int64_t e = 0; e < s->d; e++) score[p] += q[e] * (double)row[e];
        score[p] /= sqrt((double)s->d);
        max = fmax(max, score[p]);
    }
    for (int64_t p = 0; p < n; p++) {
        double weight = exp(score[p] - max);
        total += weight;
        load_row(row, s, c, false, seq, g, p);
        for (int64_t e = 0; e < s->d; e++) {
            sum[e] += weight * (double)row[e];
            largest = fmax(largest, fabs((double)row[e]));
        }
    }
    for (int64_t e = 0; e < s->d; e++) {
        /* Scores of magnitude 5 have an absolute error of 1e-6, and so do the weights; outputs are averages of |v|
         * <= largest. */
        const int64_t at = r * in->q_width + h * s->d + e;
        expect_near(name, at, (double)out[at], sum[e] / total, 3e-6 * largest);
    }
    free(score);
}

/* The new cache rows: rotated k and unchanged v, both rounded to the cache's dtype. */
static void check_written(const char *name, const shape *s, const inputs *in, const cache *c, int64_t r, int64_t g) {
    double want[512], greatest = 0;
    float k[512], v[512], rounded[512];
    char place[4 * 512 + 8];
    rotated(want, in->k + r * in->kv_width + g * s->d, in->cos_sin + r * s->d, s->d);
    for (int64_t e = 0; e < s->d; e++) greatest = fmax(greatest, fabs(want[e]));
    const double unit = s->k_dtype == QN_DTYPE_F32 ? 2e-7 : s->k_dtype == QN_DTYPE_BF16 ? 0x1p-8 : 0x1p-11;
    load_row(k, s, c, true, in->seq[r], g, in->pos[r]);
    load_row(v, s, c, false, in->seq[r], g, in->pos[r]);
    qni_kv_store(place, s->v_dtype, in->v + r * in->kv_width + g * s->d, s->d);
    qni_kv_load(rounded, place, s->v_dtype, s->d);
    for (int64_t e = 0; e < s->d; e++) {
        double size = s->k_dtype == QN_DTYPE_Q8 ? greatest / 254 : fabs(want[e]) * unit;
        const int64_t at = r * in->kv_width + g * s->d + e;
        expect_near(name, at, (double)k[e], want[e], size + 1e-6);
        expect_near(name, at, (double)v[e], (double)rounded[e], 0);
    }
}

static void check_untouched(const char *name, const shape *s, const cache *c) {
    float row[512];
    for (int64_t seq = 0; seq < s->n_seq; seq++) {
        for (int64_t p = s->pos + s->n; p < s->pages * s->page_tokens; p++) {
            for (int is_k = 0; is_k < 2; is_k++) {
                load_row(row, s, c, is_k, seq, s->n_kv_head - 1, p);
                expect_that(isnan(row[s->d - 1]), name, p, row[s->d - 1]);
            }
        }
    }
}

/* Bitwise equal, except that any NaN equals any NaN. */
static void expect_same_floats(const char *name, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (isnan(got[i]) && isnan(want[i])) continue;
        if (qni_bits_of_float(got[i]) == qni_bits_of_float(want[i])) continue;
        expect_same_bits(case_text("%s, [%d] on", name, (int)i), QN_DTYPE_F32, got + i, want + i, 1);
    }
}

static void check_shape(int level, shape s, content what) {
    inputs in = make_inputs(&s, what);
    const int64_t n_out = in.n_row * in.q_width;
    float *out = new_block((size_t)n_out * sizeof *out), *again = new_block((size_t)n_out * sizeof *out);
    qn_device *device = open_cpu(level, 2, false);
    cache c = make_cache(&s);
    CASE(name, "attention %s, k %s, v %s, {%d, %d x %d, %d}, positions %d + %d, content %d", level_name(level),
         qn_dtype_name(s.k_dtype), qn_dtype_name(s.v_dtype), (int)s.n_seq, (int)s.n_kv_head, (int)s.group, (int)s.d,
         (int)s.pos, (int)s.n, (int)what);
    attend(device, &s, &in, &c, out, 0, in.n_row);
    for (int64_t r = 0; r < in.n_row && what != WILD; r++) {
        for (int64_t h = 0; h < s.n_kv_head * s.group && what != WIDE; h++) check_head(name, &s, &in, &c, out, r, h);
        for (int64_t g = 0; g < s.n_kv_head; g++) check_written(name, &s, &in, &c, r, g);
    }
    check_untouched(name, &s, &c);
    free_cache(&c);
    /* In chunks of 1 and of 3, on 1 and 3 threads, in one page and in small ones. */
    const int64_t capacity = s.pages * s.page_tokens;
    const struct {
        int64_t chunk, page_tokens;
        int32_t n_thread;
    } ways[] = {{1, s.page_tokens, 1}, {3, 7, 3}, {in.n_row, 48, 1}, {1, 48, 3}};
    for (int i = 0; i < 4; i++) {
        shape other = s;
        other.page_tokens = ways[i].page_tokens;
        other.pages = (capacity + other.page_tokens - 1) / other.page_tokens;
        qn_device *another = open_cpu(level, ways[i].n_thread, false);
        c = make_cache(&other);
        for (int64_t r = 0, n; r < in.n_row; r += n) {
            n = ways[i].chunk < in.n_row - r ? ways[i].chunk : in.n_row - r;
            attend(another, &other, &in, &c, again, r, n);
        }
        expect_same_floats(case_text("%s, chunks of %d on %d threads, pages of %d", name, (int)ways[i].chunk,
                                     (int)ways[i].n_thread, (int)ways[i].page_tokens),
                           again, out, n_out);
        free_cache(&c);
        qn_device_close(another);
    }
    qn_device_close(device);
    free(out);
    free(again);
    free_inputs(&in);
}

static void attention_of_unusual_shapes(void **state) {
    (void)state;
    const qn_dtype f32 = QN_DTYPE_F32, bf16 = QN_DTYPE_BF16, f16 = QN_DTYPE_F16, q8 = QN_DTYPE_Q8;
    const shape shapes[] = {
        {1, 1, 1, 2, 8, 1, 0, 1, f32, f32},
        {2, 2, 3, 40, 64, 6, 253, 5, bf16, f16},
        {1, 1, 8, 512, 160, 1, 110, 33, f16, bf16},
        {1, 2, 1, 128, 400, 1, 360, 33, bf16, bf16},
        {3, 2, 2, 128, 200, 1, 127, 1, f16, f16},
        {1, 2, 2, 16, 16, 12, 124, 33, f32, f32},
        {1, 1, 40, 8, 150, 1, 127, 5, bf16, f32},
        {2, 1, 3, 6, 150, 1, 126, 5, f32, bf16},
        /* More than one chunk of positions: separate tasks for one or three rows, not for all rows at once. */
        {1, 1, 2, 32, 600, 2, 1100, 33, bf16, f16},
        {3, 2, 1, 16, 70, 16, 1022, 4, f16, f32},
        {1, 2, 2, 128, 700, 1, 600, 3, q8, q8},
        {2, 1, 3, 42, 64, 6, 253, 5, q8, f16},
        {1, 1, 8, 6, 160, 1, 110, 33, bf16, q8},
    };
    for (int level = 0; level_name(level) != NULL; level++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) check_shape(level, shapes[i], NUMBERS);
    }
}

/* Subnormal, huge and infinite values. */
static void attention_of_extreme_values(void **state) {
    (void)state;
    const qn_dtype f16 = QN_DTYPE_F16;
    const shape shapes[] = {{1, 2, 2, 128, 200, 1, 120, 9, f16, f16},
                            {2, 1, 8, 48, 70, 20, 1022, 4, f16, QN_DTYPE_F32},
                            {1, 2, 1, 64, 64, 6, 254, 5, QN_DTYPE_BF16, f16}};
    for (int level = 0; level_name(level) != NULL; level++) {
        for (content what = TINY; what <= WILD; what++) {
            for (int i = 0; i < 3; i++) check_shape(level, shapes[i], what);
        }
#if defined(__x86_64__)
        /* A host thread that flushes subnormals: they still count, even in its own share of the work. */
        const uint32_t before = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(before | 0x8040);
        check_shape(level, shapes[0], TINY);
        assert_int_equal(__builtin_ia32_stmxcsr() & 0x8040, 0x8040);
        __builtin_ia32_ldmxcsr(before);
#endif
    }
}

/* A token whose key and value hold NaN affects its own row and later ones, never an earlier row of the same call. */
static void nan_never_reaches_earlier_tokens(void **state) {
    (void)state;
    for (int level = 0; level_name(level) != NULL; level++) {
        shape s = {1, 1, 2, 128, 150, 1, 120, 20, QN_DTYPE_F32, QN_DTYPE_F32};
        inputs in = make_inputs(&s, NUMBERS);
        in.k[7 * s.d] = NAN;
        in.v[7 * s.d + 3] = NAN;
        float *out = new_block((size_t)(in.n_row * in.q_width) * sizeof(float));
        qn_device *device = open_cpu(level, 2, false);
        cache c = make_cache(&s);
        attend(device, &s, &in, &c, out, 0, in.n_row);
        const char *isa = level_name(level);
        for (int64_t i = 0; i < 7 * in.q_width; i++) expect_that(isfinite(out[i]), isa, i, out[i]);
        for (int64_t r = 7; r < in.n_row; r++) {
            const int64_t at = r * in.q_width + 3;
            expect_that(isnan(out[at]), isa, at, out[at]);
        }
        free_cache(&c);
        qn_device_close(device);
        free(out);
        free_inputs(&in);
    }
}

/* All primitives, fused and composed, packed and plain, 1 and 3 threads: the same bits for all dtypes. */
static void fused_equals_composed(void **state) {
    (void)state;
    const dtypes kinds[] = {all_f32,
                            {QN_DTYPE_BF16, QN_DTYPE_BF16, QN_DTYPE_F16, QN_DTYPE_BF16, QN_DTYPE_BF16},
                            {QN_DTYPE_F16, QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16, QN_DTYPE_F32}};
    problem p = {.b = 2, .t = 9, .h = 72, .i = 300, .nq = 6, .nkv = 2, .d = 20, .c = 150, .offset = 125};
    p.theta = 1e6;
    p.scale = 0.2;
    p.eps = 1e-6;
    problem_random(&p, 31);
    for (int level = 0; level_name(level) != NULL; level++) {
        for (int kind = 0; kind < 3; kind++) {
            void *want[N_PRIMITIVE] = {0};
            for (int way = 0; way < 8; way++) {
                qn_device *device = open_cpu(level, way & 1 ? 3 : 1, (way & 2) != 0);
                bench s;
                bench_make(&s, &p, device, kinds[kind], (way & 4) != 0);
                for (primitive_id id = 0; id < N_PRIMITIVE; id++) {
                    bench_reset(&s);
                    qn_tensor *out = primitive_compute(id, &s);
                    void *bits = tensor_bits(out);
                    if (way == 0) {
                        want[id] = bits;
                        continue;
                    }
                    expect_same_bits(
                        case_text("%s %s, way %d, types %d", primitive_name(id), level_name(level), way, kind),
                        qn_tensor_dtype(out), bits, want[id], tensor_count(out));
                    free(bits);
                }
                bench_free(&s);
                qn_device_close(device);
            }
            for (int id = 0; id < N_PRIMITIVE; id++) free(want[id]);
        }
    }
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_of_unusual_shapes),
        cmocka_unit_test(attention_of_extreme_values),
        cmocka_unit_test(nan_never_reaches_earlier_tokens),
        cmocka_unit_test(fused_equals_composed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
