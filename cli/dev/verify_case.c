/* SPDX-License-Identifier: Apache-2.0 */
/* quern verify: a file with inputs and results of the layer's primitives. In f32 the results are compared with those in
 * the file. With 16-bit operands they are compared with those of "ref" in f32 on the same rounded inputs. */
#include "verify_case.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/base/half.h"
#include "../output.h"

const char *const case_inputs[CASE_INPUTS] = {"hidden", "norm1",  "norm2",  "q_norm",    "k_norm",  "q_proj",
                                              "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
                                              "q",      "k",      "v",      "attn",      "k_cache", "v_cache"};
const char *const case_results[CASE_RESULTS] = {
    "kv_attention.out",    "kv_attention.k_cache",    "kv_attention.v_cache",    "mlp.out",   "attention_residual.out",
    "attention_block.out", "attention_block.k_cache", "attention_block.v_cache", "layer.out", "layer.k_cache",
    "layer.v_cache"};

/* Kinds of operands that a run may round. */
enum { KIND_HIDDEN, KIND_WEIGHT, KIND_CACHE };

static int input_kind(int input) {
    if (input == IN_K_CACHE || input == IN_V_CACHE) return KIND_CACHE;
    return input == IN_HIDDEN || input >= IN_Q ? KIND_HIDDEN : KIND_WEIGHT;
}

static qn_dtype input_dtype(const case_types *types, int input) {
    int kind = input_kind(input);
    return kind == KIND_CACHE ? types->cache : kind == KIND_HIDDEN ? types->hidden : types->weight;
}

static bool load(primitive_case *c, golden *g) {
    double batch, offset;
    if (!golden_number(g, "scale", &c->scale) || !golden_number(g, "theta", &c->theta) ||
        !golden_number(g, "eps", &c->eps) || !golden_number(g, "offset", &offset) || !golden_number(g, "batch", &batch))
        return false;
    if (offset < 0 || offset > INT32_MAX)
        return verdict_fail(g->verdict, "metadata: offset must be from 0 to %d, not %g", INT32_MAX, offset);
    c->offset = (int64_t)offset;
    for (int i = 0; i < CASE_INPUTS; i++)
        if (!golden_floats(g, case_inputs[i], 0, NULL, &c->in[i])) return false;
    if (c->in[IN_HIDDEN].rank != 3 || c->in[IN_Q].rank != 4 || c->in[IN_K_CACHE].rank != 4)
        return verdict_fail(g->verdict, "hidden, q and k_cache: must have ranks 3, 4 and 4");
    const int64_t *hidden = c->in[IN_HIDDEN].shape, *q = c->in[IN_Q].shape, *cache = c->in[IN_K_CACHE].shape;
    if (hidden[0] != (int64_t)batch)
        return verdict_fail(g->verdict, "hidden: size of axis 0 must be %g, not %lld", batch, (long long)hidden[0]);
    c->attention_shape[0] = q[0];
    c->attention_shape[1] = q[1];
    c->attention_shape[2] = q[2] * q[3];
    for (int i = 0; i < CASE_RESULTS; i++) {
        bool is_cache = strstr(case_results[i], "cache") != NULL;
        const int64_t *shape = is_cache ? cache : i == OUT_ATTENTION ? c->attention_shape : hidden;
        if (!golden_floats(g, case_results[i], is_cache ? 4 : 3, shape, &c->want[i])) return false;
    }
    return true;
}

static void round_values(float *out, const float *in, size_t n, qn_dtype dtype) {
    for (size_t i = 0; i < n; i++)
        out[i] = dtype == QN_DTYPE_BF16  ? qni_f32_of_bf16(qni_bf16_of_f32(in[i]))
                 : dtype == QN_DTYPE_F16 ? qni_f32_of_f16(qni_f16_of_f32(in[i]))
                                         : in[i];
}

/* Copy the case with its inputs rounded to `types`; results are left out. */
static void round_case(primitive_case *out, const primitive_case *c, const case_types *types) {
    *out = *c;
    for (int i = 0; i < CASE_INPUTS; i++) {
        out->in[i].data = must_calloc(c->in[i].n, sizeof(float));
        round_values(out->in[i].data, c->in[i].data, c->in[i].n, input_dtype(types, i));
    }
    memset(out->want, 0, sizeof(out->want));
}

static void case_release(primitive_case *c) {
    for (int i = 0; i < CASE_INPUTS; i++) free(c->in[i].data);
    for (int i = 0; i < CASE_RESULTS; i++) free(c->want[i].data);
}

/* Run on one device with plain and packed linears and compare the results. */
static bool compare(const primitive_case *c, qn_device *device, const case_types *types, measure *m, verdict *v) {
    array got[CASE_RESULTS];
    for (int packed = 0; packed < 2; packed++) {
        bool good = case_run(c, device, types, packed, got, v);
        for (int i = 0; i < CASE_RESULTS; i++) {
            if (good) measure_add(&m[i], got[i].data, c->want[i].data, c->want[i].n);
            free(got[i].data);
        }
        if (!good) return false;
    }
    return true;
}

/* 16-bit operands: the expected results are those of `ref` in f32 on the rounded inputs. */
static bool compare_rounded(verifier *vf, const primitive_case *c, const case_types *types, const char *name,
                            double bound, verdict *v) {
    static const case_types f32 = {QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F32, QN_ARITH_F32};
    primitive_case rounded;
    measure m[CASE_RESULTS] = {{0}};
    round_case(&rounded, c, types);
    bool good = case_run(&rounded, vf->reference, &f32, false, rounded.want, v) &&
                compare(&rounded, vf->device, types, m, v) && compare(&rounded, vf->composed, types, m, v);
    for (int i = 0; good && i < CASE_RESULTS; i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s %s", case_results[i], name);
        verdict_tensor(v, text, &m[i], bound, false);
    }
    case_release(&rounded);
    return good;
}

static const struct {
    const char *name;
    case_types types;
} mixes[] = {
    {"bf16 weights", {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F32, QN_ARITH_F32}},
    {"f16 weights", {QN_DTYPE_F32, QN_DTYPE_F16, QN_DTYPE_F32, QN_ARITH_F32}},
    {"bf16 hidden", {QN_DTYPE_BF16, QN_DTYPE_F32, QN_DTYPE_F32, QN_ARITH_F32}},
    {"f16 hidden", {QN_DTYPE_F16, QN_DTYPE_F32, QN_DTYPE_F32, QN_ARITH_F32}},
    {"bf16 caches", {QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_BF16, QN_ARITH_F32}},
    {"f16 caches", {QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F16, QN_ARITH_F32}},
    {"all bf16", {QN_DTYPE_BF16, QN_DTYPE_BF16, QN_DTYPE_BF16, QN_ARITH_F32}},
    {"all f16", {QN_DTYPE_F16, QN_DTYPE_F16, QN_DTYPE_F16, QN_ARITH_F32}},
    {"bf16 weights, f16 caches", {QN_DTYPE_F32, QN_DTYPE_BF16, QN_DTYPE_F16, QN_ARITH_F32}},
};

/* If only weights are rounded, the f32 bound applies. A hidden state or cache row stored in 16 bits is rounded once or
 * twice on the way, in units of 2^-9 for bf16 and 2^-12 for f16. bf16 arithmetic has the bound of bf16. */
static double mix_bound(const case_types *types, double f32_bound) {
    bool bf16 = types->hidden == QN_DTYPE_BF16 || types->cache == QN_DTYPE_BF16 || types->arith == QN_ARITH_BF16;
    bool f16 = types->hidden == QN_DTYPE_F16 || types->cache == QN_DTYPE_F16;
    return bf16 ? 1.5e-2 : f16 ? 2e-3 : f32_bound;
}

void verify_case(verifier *vf, const char *path, verdict *v) {
    static const case_types f32 = {QN_DTYPE_F32, QN_DTYPE_F32, QN_DTYPE_F32, QN_ARITH_F32};
    golden g;
    primitive_case c = {.scale = 0};
    measure m[CASE_RESULTS] = {{0}};
    qn_device_info info;
    qn_device_get_info(vf->device, &info);
    v->bound = strcmp(info.name, "ref") ? 1e-5 : 2e-6;
    bool good = golden_open(&g, path, vf->reference, v) && load(&c, &g);
    golden_close(&g);
    good = good && compare(&c, vf->device, &f32, m, v) && compare(&c, vf->composed, &f32, m, v);
    for (int i = 0; good && i < CASE_RESULTS; i++) verdict_tensor(v, case_results[i], &m[i], v->bound, true);
    for (size_t i = 0; good && !interrupted() && i < sizeof(mixes) / sizeof(*mixes); i++) {
        case_types types = mixes[i].types;
        /* the requested arithmetic applies to bf16 weights */
        if (types.weight == QN_DTYPE_BF16) types.arith = (qn_arith)vf->compute.arith;
        good = compare_rounded(vf, &c, &types, mixes[i].name, mix_bound(&types, v->bound), v);
    }
    case_release(&c);
}
