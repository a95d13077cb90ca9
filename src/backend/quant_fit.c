/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantize rows of dense weights group by group; quant.h defines the fit.
 *
 * Four values at a time, in compiler vectors, which every target supports. Partial sum j covers values j, j + 4, …; so
 * the result does not depend on the instruction set. Groups are multiples of four.
 *
 * A group whose magnitudes are far from 1 is scaled by a power of two before the fit, so that no square overflows or
 * vanishes. This changes a fit only where scales and biases are rounded to bf16; that is done in their original range,
 * where they may be subnormal or overflow.
 */
#include "quant.h"

#include "../base/half.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 4, MAX_GROUP = 64 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(float))));

/* Range of greatest magnitudes of groups that are fitted unscaled. */
static const float least_plain = 0x1p-50f, most_plain = 0x1p50f;

static const float bf16_max = 0x1.FEp127f, bf16_least = 0x1p-133f;

qni_quant qni_quant_of(qn_quantize to) {
    if (to == QN_QUANTIZE_Q8) {
        return (qni_quant){QNI_AFFINE, 8, 64, 1, QN_DTYPE_BF16, .symmetric = true};
    }
    return (qni_quant){QNI_AFFINE, 4, 32, 1, QN_DTYPE_BF16, .symmetric = false};
}

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

/* A group of finite values, with what every fit of it needs. All values, scales and biases are times 2^exponent. */
typedef struct group {
    const float *x;
    int64_t n;
    float low, high, sum;
    float most;   /* greatest code */
    float step;   /* nominal step of the format: range / 15, or greatest magnitude / 127 */
    int exponent; /* 0 for nearly all groups */
    bool coarse;  /* the step is a subnormal bf16 */
    bool huge;    /* weights of a fit may overflow */
} group;

/* The codes of a group under one scale and bias, which are bf16 values (times 2^exponent). */
typedef struct fit {
    float scale, bias;
    float error;                       /* sum of squares; infinite if a weight would be */
    float refined_scale, refined_bias; /* least-squares fit for these codes */
    float codes[MAX_GROUP];            /* whole numbers */
} fit;

/* Round to the nearest bf16, or to the one `shift` steps further from 0, with magnitude at most `limit`. */
static float rounded(const group *g, float x, float limit, int shift) {
    uint16_t bits = qni_bf16_of_f32(g->exponent == 0 ? x : ldexpf(x, -g->exponent));
    const uint16_t sign = bits & 0x8000, magnitude = bits & 0x7FFF;
    if (magnitude + shift >= 0) bits = (uint16_t)(sign | (magnitude + shift));
    float value = qni_f32_of_bf16(bits);
    if (!(value <= limit)) value = limit;
    if (!(value >= -limit)) value = -limit;
    return g->exponent == 0 ? value : ldexpf(value, g->exponent);
}

/* Codes to nearest; adding and subtracting 1.5 · 2^23 rounds to an integer. */
static lanes round_codes(lanes x, lanes bias, lanes inverse, lanes most) {
    const lanes to_integer = all_lanes(0x1.8p23f), zero = all_lanes(0);
    lanes c = (x - bias) * inverse;
    c = choose(c > zero, c, zero);
    c = choose(c < most, c, most);
    return (c + to_integer) - to_integer;
}

/* Whether all weights of a fit are finite and, for a coarse scale, which may be far from the ideal one, at most two
 * steps off. */
static bool is_sound(const fit *f, const group *g) {
    const float limit = ldexpf(FLT_MAX, g->exponent);
    for (int64_t i = 0; i < g->n; i++) {
        const float value = f->scale * f->codes[i] + f->bias;
        if (!(fabsf(value) <= limit) || (g->coarse && fabsf(value - g->x[i]) > 2 * g->step)) return false;
    }
    return true;
}

/* Scale and bias are bf16 values. */
static void make_fit(fit *f, const group *g, float scale, float bias) {
    f->scale = scale;
    f->bias = bias;
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
    if ((g->coarse || g->huge) && !is_sound(f, g)) f->error = INFINITY;
}

/* Classify the group. Values close together need no step finer than bf16 resolution, and no scale is below the smallest
 * bf16: smaller values are rounded to multiples of it. */
static void size_up(group *g, bool symmetric) {
    const float greatest = fmaxf(g->high, -g->low);
    if (g->exponent == 0) return;
    g->step = symmetric ? greatest / ((g->most - 1) / 2) : fmaxf((g->high - g->low) / g->most, greatest / 128);
    g->step = fmaxf(g->step, ldexpf(bf16_least, g->exponent));
    g->coarse = g->step < ldexpf(0x1p-126f, g->exponent);
    g->huge = g->exponent < 0 && greatest >= ldexpf(0x1p126f, g->exponent);
}

/* How many bf16 steps around the nearest scale to try on either side: where bf16 is coarse or near its limits, the
 * nearest may not cover an end of the group. */
static int most_shift(const group *g) {
    return g->coarse || g->huge ? 1 : 0;
}

/* Try ranges shrunk at both ends, together and separately; refine each fit once. */
static void fit_affine(fit *best, const group *g) {
    static const float pull[][2] = {{0, 0}, {0.06f, 0.06f}, {0.12f, 0.12f}, {0.1f, 0}, {0, 0.1f}};
    const int most = most_shift(g);
    bool any = false;
    for (size_t i = 0; i < sizeof pull / sizeof pull[0]; i++) {
        for (int shift = -most; shift <= most; shift++) {
            fit f, refined;
            const float range = g->high - g->low;
            const float from = g->low + range * pull[i][0], to = g->high - range * pull[i][1];
            make_fit(&f, g, rounded(g, (to - from) / g->most, bf16_max, shift), rounded(g, from, bf16_max, 0));
            make_fit(&refined, g, rounded(g, f.refined_scale, bf16_max, shift),
                     rounded(g, f.refined_bias, bf16_max, 0));
            const fit *better = refined.error < f.error ? &refined : &f;
            if (!any || better->error < best->error) *best = *better;
            any = true;
        }
    }
}

/* The greatest magnitude gets the last code on its side, or one beyond it if that lowers the total error. The bias must
 * be representable in bf16 too. False: the greatest value is out of range. */
static bool fit_symmetric(fit *best, const group *g) {
    const float zero = (g->most + 1) / 2, limit = bf16_max / zero, reach = ldexpf(limit, g->exponent);
    const float greatest = g->high > -g->low ? g->high : -g->low;
    const int most = most_shift(g);
    bool any = false;
    if (g->high > (zero - 0.5f) * reach || g->low < -(zero + 0.5f) * reach) return false;
    for (int shift = -most; shift <= most; shift++) {
        for (int beyond = 0; beyond < 2; beyond++) {
            fit f;
            const float scale = rounded(g, greatest / (beyond ? zero : zero - 1), limit, shift);
            make_fit(&f, g, scale, -zero * scale);
            if (!any || f.error < best->error) *best = f;
            any = true;
        }
    }
    for (int64_t i = 0; i < g->n && best->scale == 0; i++) best->codes[i] = zero;
    return true;
}

/* False: a value is a NaN or an infinity. */
static bool scan(group *g) {
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

/* Scale a group far from 1 by the power of two that brings its greatest magnitude to 0.5 … 1; the result is in `memory`
 * {n}. */
static void bring_near(group *g, float *memory) {
    const float greatest = fmaxf(g->high, -g->low);
    if (greatest == 0 || (greatest >= least_plain && greatest <= most_plain)) return;
    int exponent;
    (void)frexpf(greatest, &exponent);
    for (int64_t i = 0; i < g->n; i++) memory[i] = ldexpf(g->x[i], -exponent);
    g->x = memory;
    g->exponent = -exponent;
    (void)scan(g);
}

static void put_codes(unsigned char *to, const float *codes, int32_t bits, int64_t n) {
    if (bits == 8) {
        for (int64_t i = 0; i < n; i++) to[i] = (unsigned char)(int32_t)codes[i];
        return;
    }
    for (int64_t i = 0; i < n; i += 2) to[i / 2] = (unsigned char)((int32_t)codes[i] | (int32_t)codes[i + 1] << 4);
}

/* The first of n values that is a NaN or an infinity, else the one with the greatest magnitude. */
static int64_t worst_of(const float *x, int64_t n) {
    int64_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return i;
        if (fabsf(x[i]) > fabsf(x[worst])) worst = i;
    }
    return worst;
}

int64_t qni_quantize_row(unsigned char *codes, uint16_t *scales, uint16_t *biases, const qni_quant *q, const float *x,
                         int64_t n_in) {
    for (int64_t i = 0; i < n_in / q->group; i++) {
        fit f;
        float memory[MAX_GROUP];
        group g = {.x = x + i * q->group, .n = q->group, .most = (float)((1 << q->bits) - 1)};
        bool good = scan(&g);
        if (good) bring_near(&g, memory);
        if (good) size_up(&g, q->symmetric);
        if (good && q->symmetric) {
            good = fit_symmetric(&f, &g);
        } else if (good) {
            fit_affine(&f, &g);
        }
        if (!good) return i * q->group + worst_of(x + i * q->group, q->group);
        scales[i] = qni_bf16_of_f32(g.exponent == 0 ? f.scale : ldexpf(f.scale, -g.exponent));
        biases[i] = qni_bf16_of_f32(g.exponent == 0 ? f.bias : ldexpf(f.bias, -g.exponent));
        put_codes(codes + i * q->group * q->bits / 8, f.codes, q->bits, q->group);
    }
    return -1;
}
