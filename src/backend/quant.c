/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of quantised matrices: taken apart, and made. Element by element, in no hurry but for the two common widths. */
#include "quant.h"

#include "../base/half.h"
#include "../base/memory.h"
#include "backend.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Unsigned codes of `bits` bits from a little-endian stream. */
static void read_codes(uint8_t *codes, const unsigned char *stream, int32_t bits, int64_t n) {
    if (bits == 8) {
        memcpy(codes, stream, (size_t)n);
        return;
    }
    if (bits == 4) {
        for (int64_t i = 0; i < n; i++) codes[i] = stream[i / 2] >> (i % 2 * 4) & 15;
        return;
    }
    uint32_t buffer = 0;
    int32_t n_bit = 0;
    for (int64_t i = 0; i < n; i++) {
        if (n_bit < bits) {
            buffer |= (uint32_t)*stream++ << n_bit;
            n_bit += 8;
        }
        codes[i] = (uint8_t)(buffer & ((1u << bits) - 1));
        buffer >>= bits;
        n_bit -= bits;
    }
}

static void read_floats(float *out, const unsigned char *data, qn_dtype dtype, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = qni_load_f32(data, dtype, i);
}

void qni_quant_read_row(uint8_t *codes, float *scales, float *biases, const qni_quant *q, const qni_quant_rows *rows,
                        int64_t row, int64_t n_in) {
    const int64_t n_group = qni_quant_n_group(q, n_in);
    const int64_t scale_at = row / q->group_out * qni_quant_scale_bytes(q, n_in);
    read_codes(codes, rows->codes + row * qni_quant_code_bytes(q, n_in), q->bits, n_in);
    read_floats(scales, rows->scales + scale_at, q->scale_dtype, n_group);
    if (q->kind == QNI_FP8) return;
    if (rows->biases != NULL) {
        read_floats(biases, rows->biases + scale_at, q->scale_dtype, n_group);
        return;
    }
    for (int64_t g = 0; g < n_group; g++) biases[g] = -(float)(1 << (q->bits - 1)) * scales[g];
}

void qni_quant_values(float *out, const qni_quant *q, const uint8_t *codes, const float *scales, const float *biases,
                      int64_t n_in) {
    for (int64_t i = 0; i < n_in; i++) {
        const int64_t g = i / q->group;
        out[i] = q->kind == QNI_FP8 ? scales[g] * qni_f32_of_e4m3(codes[i]) : scales[g] * (float)codes[i] + biases[g];
    }
}

qn_status qni_quant_buffer_create(qni_quant_buffer *out, const qni_quant *q, int64_t n, int64_t n_in, qn_error *err) {
    const size_t n_scale = (size_t)(n * qni_quant_n_group(q, n_in));
    out->codes = qni_calloc((size_t)n, (size_t)n_in);
    out->scales = qni_calloc(2 * n_scale, sizeof *out->scales);
    out->biases = out->scales != NULL ? out->scales + n_scale : NULL;
    if (out->codes != NULL && out->scales != NULL) return QN_OK;
    qni_quant_buffer_free(out);
    return qni_fail(err, QN_ENOMEM, "linear: no memory for %lld quantised rows", (long long)n);
}

void qni_quant_buffer_free(qni_quant_buffer *buffer) {
    qni_free(buffer->codes);
    qni_free(buffer->scales);
    *buffer = (qni_quant_buffer){0};
}

qn_status qni_quant_dequantize(float *out, int64_t in_stride, int64_t out_stride, const qni_quant *q,
                               const qni_quant_rows *rows, int64_t n, int64_t n_in, qn_error *err) {
    qni_quant_buffer one;
    QN_TRY(qni_quant_buffer_create(&one, q, 1, n_in, err));
    float *row = qni_calloc((size_t)n_in, sizeof *row);
    if (row == NULL) {
        qni_quant_buffer_free(&one);
        return qni_fail(err, QN_ENOMEM, "linear: no memory for a row of %lld", (long long)n_in);
    }
    for (int64_t o = 0; o < n; o++) {
        qni_quant_read_row(one.codes, one.scales, one.biases, q, rows, o, n_in);
        qni_quant_values(row, q, one.codes, one.scales, one.biases, n_in);
        for (int64_t i = 0; i < n_in; i++) out[i * in_stride + o * out_stride] = row[i];
    }
    qni_free(row);
    qni_quant_buffer_free(&one);
    return QN_OK;
}

bool qni_quant_are_symmetric(const qni_quant *q, const void *scales, const void *biases, int64_t n) {
    const float factor = -(float)(1 << (q->bits - 1));
    for (int64_t i = 0; i < n; i++) {
        float wanted = factor * qni_load_f32(scales, q->scale_dtype, i), bias = qni_load_f32(biases, q->scale_dtype, i);
        if (qni_bits_of_float(wanted) != qni_bits_of_float(bias)) return false;
    }
    return true;
}

/* A value is not finite where all bits of its exponent are set; in f8 where all below the sign are. */
bool qni_quant_are_finite(const void *values, qn_dtype dtype, int64_t n) {
    bool bad = false;
    if (dtype == QN_DTYPE_F8) {
        for (int64_t i = 0; i < n; i++) bad |= (((const uint8_t *)values)[i] & 0x7F) == 0x7F;
    } else if (dtype == QN_DTYPE_F32) {
        for (int64_t i = 0; i < n; i++) bad |= (((const uint32_t *)values)[i] & 0x7F800000) == 0x7F800000;
    } else {
        const uint16_t mask = dtype == QN_DTYPE_BF16 ? 0x7F80 : 0x7C00;
        for (int64_t i = 0; i < n; i++) bad |= (((const uint16_t *)values)[i] & mask) == mask;
    }
    return !bad;
}

qni_quant qni_quant_of(qn_quantize to) {
    if (to == QN_QUANTIZE_Q8) {
        return (qni_quant){QNI_AFFINE, 8, 64, 1, QN_DTYPE_BF16, .symmetric = true};
    }
    return (qni_quant){QNI_AFFINE, 4, 32, 1, QN_DTYPE_BF16, .symmetric = false};
}

/* Four values at a time, in a compiler's vectors, which every target has. Part j of a sum is of values j, j + 4, …; so the
 * result depends on no instruction set. Groups are multiples of four. */
enum { LANES = 4, MAX_GROUP = 64 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(float))));

static lanes load_lanes(const float *x) {
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

static lanes all_lanes(float x) {
    return (lanes){x, x, x, x};
}

/* a where the mask is set, else b. */
static lanes choose(lane_bits mask, lanes a, lanes b) {
    return (lanes)(((lane_bits)a & mask) | ((lane_bits)b & ~mask));
}

static float sum_of(lanes parts) {
    return (parts[0] + parts[2]) + (parts[1] + parts[3]);
}

/* A group of finite values, with what each fit of it needs. */
typedef struct group {
    const float *x;
    int64_t n;
    float low, high, sum;
    float most; /* greatest code */
} group;

/* The group as codes under one scale and bias, which are bf16 values. */
typedef struct fit {
    float scale, bias;
    float error;                       /* sum of squares */
    float refined_scale, refined_bias; /* least squares for these codes */
    float codes[MAX_GROUP];            /* whole numbers */
} fit;

static float rounded_bf16(float x) {
    return qni_f32_of_bf16(qni_bf16_of_f32(x));
}

/* Codes to nearest; adding and taking away 1.5 · 2^23 rounds to an integer. */
static lanes round_codes(lanes x, lanes bias, lanes inverse, lanes most) {
    const lanes to_integer = all_lanes(0x1.8p23f), zero = all_lanes(0);
    lanes c = (x - bias) * inverse;
    c = choose(c > zero, c, zero);
    c = choose(c < most, c, most);
    return (c + to_integer) - to_integer;
}

static void make_fit(fit *f, const group *g, float scale, float bias) {
    f->scale = rounded_bf16(scale);
    f->bias = rounded_bf16(bias);
    const lanes scales = all_lanes(f->scale), biases = all_lanes(f->bias), most = all_lanes(g->most);
    const lanes inverse = all_lanes(f->scale != 0 ? 1.0f / f->scale : 0.0f);
    lanes error = all_lanes(0), sums = error, squares = error, products = error;
    for (int64_t i = 0; i < g->n; i += LANES) {
        const lanes x = load_lanes(g->x + i), c = round_codes(x, biases, inverse, most);
        const lanes e = scales * c + biases - x;
        memcpy(f->codes + i, &c, sizeof c);
        error += e * e;
        sums += c;
        squares += c * c;
        products += c * x;
    }
    const float n = (float)g->n, sum = sum_of(sums), spread = n * sum_of(squares) - sum * sum;
    f->error = sum_of(error);
    f->refined_scale = spread > 0 ? (n * sum_of(products) - sum * g->sum) / spread : f->scale;
    f->refined_bias = (g->sum - f->refined_scale * sum) / n;
}

/* The range is pulled in at both ends, alike and each alone; each fit is refined once. */
static void fit_affine(fit *best, const group *g) {
    static const float pull[][2] = {{0, 0}, {0.06f, 0.06f}, {0.12f, 0.12f}, {0.1f, 0}, {0, 0.1f}};
    best->error = FLT_MAX;
    for (size_t i = 0; i < sizeof pull / sizeof pull[0]; i++) {
        fit f, refined;
        const float range = g->high - g->low;
        const float from = g->low + range * pull[i][0], to = g->high - range * pull[i][1];
        make_fit(&f, g, (to - from) / g->most, from);
        make_fit(&refined, g, f.refined_scale, f.refined_bias);
        const fit *better = refined.error < f.error ? &refined : &f;
        if (better->error < best->error) *best = *better;
    }
}

/* The greatest magnitude takes the last code on its side; or, where that makes the others' errors less, one beyond it. */
static void fit_symmetric(fit *best, const group *g) {
    const float zero = (g->most + 1) / 2, greatest = g->high > -g->low ? g->high : -g->low;
    fit beyond;
    const float scale = rounded_bf16(greatest / (zero - 1)), less = rounded_bf16(greatest / zero);
    make_fit(best, g, scale, -zero * scale);
    make_fit(&beyond, g, less, -zero * less);
    if (beyond.error < best->error) *best = beyond;
    for (int64_t i = 0; i < g->n && best->scale == 0; i++) best->codes[i] = zero;
}

/* False: a value is a NaN or an infinity. */
static bool look_over(group *g) {
    lanes low = load_lanes(g->x), high = low, sum = all_lanes(0), bad = sum;
    for (int64_t i = 0; i < g->n; i += LANES) {
        const lanes x = load_lanes(g->x + i);
        low = choose(x < low, x, low);
        high = choose(x > high, x, high);
        sum += x;
        bad += x * 0;
    }
    g->low = low[0], g->high = high[0], g->sum = sum_of(sum);
    for (int j = 1; j < LANES; j++) {
        g->low = low[j] < g->low ? low[j] : g->low;
        g->high = high[j] > g->high ? high[j] : g->high;
    }
    return sum_of(bad) == 0;
}

static void put_codes(unsigned char *to, const float *codes, int32_t bits, int64_t n) {
    if (bits == 8) {
        for (int64_t i = 0; i < n; i++) to[i] = (unsigned char)(int32_t)codes[i];
        return;
    }
    for (int64_t i = 0; i < n; i += 2) to[i / 2] = (unsigned char)((int32_t)codes[i] | (int32_t)codes[i + 1] << 4);
}

void qni_quantize_row(unsigned char *codes, uint16_t *scales, uint16_t *biases, const qni_quant *q, const float *x,
                      int64_t n_in) {
    for (int64_t i = 0; i < n_in / q->group; i++) {
        fit f;
        group g = {.x = x + i * q->group, .n = q->group, .most = (float)((1 << q->bits) - 1)};
        if (!look_over(&g)) {
            memset(f.codes, 0, sizeof f.codes);
            f.scale = f.bias = NAN;
        } else if (q->symmetric) {
            fit_symmetric(&f, &g);
        } else {
            fit_affine(&f, &g);
        }
        scales[i] = qni_bf16_of_f32(f.scale);
        biases[i] = qni_bf16_of_f32(f.bias);
        put_codes(codes + i * q->group * q->bits / 8, f.codes, q->bits, q->group);
    }
}
