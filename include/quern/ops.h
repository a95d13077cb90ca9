/* SPDX-License-Identifier: Apache-2.0 */
/** @file ops.h
 * The Qwen3 layer as fused primitives over {B, N_kv, T_max, D} caches.
 *
 *  Symbols   B batch, T new tokens, H hidden width, I MLP width, Nq query heads, Nkv key/value heads, D head width,
 *           C cache capacity in tokens, V vocabulary, A = Nq·D.
 * Math      rms(x, w) = w · x / sqrt(mean(x²) + eps) over the last axis; silu(x) = x / (1 + e^-x).
 * dtypes    hidden, q, k, v, attn: f32, bf16 or f16; each cache: f32, bf16 or f16; linears and norms: any of the
 *           three, independently. The result has the dtype of `hidden` (of `q` in qn_kv_attention). Every sum,
 *           softmax included, is accumulated in f32 or wider.
 * Aliasing  `out` may alias `hidden` exactly (same memory, same strides). Otherwise neither `out` nor a cache may overlap
 *           any other operand. Caches are updated in place.
 * Checks    in this order: nulls, rank, positive sizes, sizes independent of head counts, divisibility, sizes that
 *           depend on head counts (caches), dtype, device, read-only and alias, capacity. Nothing is written unless
 *           all pass.
 * Numerics  max |out − exact| / (1e-6 + max |exact|): "ref" 2e-6, "cpu" 1e-5 with f32 compute. Results on "cpu" are
 *           bit-identical for any number of threads, any batch, any chunking of a prompt into calls, and for plain
 *           and packed linears with f32 compute.
 * Errors    all primitives: EINVAL (an operand, named, with both numbers), EFULL (`offset + T` beyond the cache),
 *           ENOMEM (workspace), EDEVICE. The device is that of the first output.
 * Memory    the workspace belongs to the device and grows to the largest call; operands are borrowed for the call.
 * Threads   any; calls on one device are serialized.
 */
#ifndef QUERN_OPS_H
#define QUERN_OPS_H

#include "tensor.h"

/**
 * Compute type of a packed linear, fixed when it is packed.
 *
 * Subnormal numbers (below 2^-126) are not flushed, on "cpu" whatever the caller's floating-point mode. The native bf16
 * instructions (AVX-512 BF16, FEAT_BF16) do flush them to zero, as weights, activations and partial sums. They are
 * therefore used only if every weight of the linear is 0 or has a magnitude in 2^-100 … 2^20, where flushing changes an
 * output by less than n_in · 2^-105. Any other linear with bf16 compute runs without these instructions.
 */
typedef enum qn_arith {
    QN_ARITH_AUTO = 0, /**< bf16 for bf16 weights if the instruction set supports it natively; int8 for affine weights
                            whose group size is a multiple of 32; otherwise f32. On "ref" always f32 */
    QN_ARITH_F32 = 1,  /**< f32 activations and sums */
    QN_ARITH_BF16 = 2, /**< bf16 weights: activations rounded to bf16, products exact, f32 sums; slow without native
                            support */
    QN_ARITH_INT8 = 3, /**< affine weights: activations are rounded to int8 with one scale per group of inputs (to 0 if
                            the whole group is below 2^-100). Sums within a group are exact integers, sums over groups
                            f32. A group whose sum could overflow 32 bits (8-bit codes: 66,312 inputs or more) is
                            split into parts with the same scale. A linear with a scale other than 0 or
                            2^-100 … 2^20, or with a larger bias, is computed in f32; qn_linear_arith() reports that */
} qn_arith;

/** Memory layout of a matrix to be packed. */
typedef enum qn_linear_layout {
    QN_LAYOUT_IN_OUT = 0, /**< {in, out}, as the primitives expect it */
    QN_LAYOUT_OUT_IN = 1, /**< {out, in}, as checkpoints store it */
} qn_linear_layout;

/** A weight matrix packed into the layout of the device's kernels. Immutable; may be used by any thread. */
typedef struct qn_linear qn_linear;

/** Target format for quantizing a dense matrix (docs/quantization.md). */
typedef enum qn_quantize {
    QN_QUANTIZE_NONE = 0,
    QN_QUANTIZE_Q8 = 1, /**< 8 bits, symmetric, groups of 64 */
    QN_QUANTIZE_Q4 = 2, /**< 4 bits, affine, groups of 32 */
} qn_quantize;

/**
 * A quantized matrix {out, in} as checkpoints store it. The dtype of the codes selects one of two kinds:
 *
 *   u32  affine (MLX): W[o,i] = scales[o, i/group] · code + biases[o, i/group]; a row of codes is one little-endian
 *        stream of unsigned `bits`-wide integers
 *   f8   W[o,i] = scales[o/group_out, i/group] · e4m3 code; the last blocks may be partial
 */
typedef struct qn_quantized {
    const qn_tensor *codes;  /**< u32 {out, in·bits/32}, or f8 {out, in} */
    const qn_tensor *scales; /**< f32, bf16 or f16: {out, in/group}, or {⌈out/group_out⌉, ⌈in/group⌉} */
    const qn_tensor *biases; /**< affine: as scales, or NULL: -2^(bits-1) · scale; f8: NULL */
    int32_t bits;            /**< affine: 2, 3, 4, 5, 6 or 8; f8: 0 */
    int32_t group;           /**< inputs that share a scale, >= 1; affine: divides `in` */
    int32_t group_out;       /**< f8: outputs that share a scale, >= 1; affine: 0 */
} qn_quantized;

/** A linear operand: exactly one of the two is set. A plain matrix has shape {in, out} (lm_head and embedding:
 * {V, H}). */
typedef struct qn_operand {
    const qn_tensor *plain;
    const qn_linear *packed;
} qn_operand;

/** YaRN (arXiv 2309.00071). Zeros mean the default in parentheses. */
typedef struct qn_yarn {
    double factor;           /**< > 1 */
    int64_t original_ctx;    /**< trained context length, >= 1 */
    double beta_fast;        /**< (32) */
    double beta_slow;        /**< (1) */
    double attention_factor; /**< (0.1 ln factor + 1) multiplies cos and sin */
} qn_yarn;

/**
 * Rotary position embedding in the split-half form: pairs (i, i + D/2), angle position · inv_freq[i]. Set either
 * theta (and optionally yarn), giving inv_freq[i] = theta^(-2i/D), or an explicit table.
 */
typedef struct qn_rope {
    double theta;            /**< > 0 and finite; must be 0 with a table */
    const qn_yarn *yarn;     /**< NULL: none; must be NULL with a table */
    const float *inv_freq;   /**< {D/2} or NULL; finite values */
    int32_t n_inv_freq;      /**< D/2 with a table, else 0 */
    double attention_factor; /**< with a table: multiplies cos and sin; 0 means 1 */
} qn_rope;

/**
 * Position of the first token of a call. Set exactly one of three forms:
 *
 *   {.value = p}              p >= 0, for the whole batch
 *   {.rows = p, .n_rows = B}  one per batch row, each >= 0; borrowed for the call
 *   {.tensor = t}             s32 or s64, {1} for the whole batch or {B}. Values are read when the call runs and
 *                             clamped to [0, C - T] (in qn_forward_greedy to [0, C - T - count + 1])
 */
typedef struct qn_offset {
    int64_t value;
    const int64_t *rows;
    int64_t n_rows;
    const qn_tensor *tensor;
} qn_offset;

/** Operands of qn_kv_attention. */
typedef struct qn_kv_attention_args {
    qn_tensor *out;     /**< {B, T, Nq·D}, dtype of q */
    const qn_tensor *q; /**< {B, T, Nq, D}, after q_norm, before RoPE */
    const qn_tensor *k; /**< {B, T, Nkv, D}, after k_norm, before RoPE */
    const qn_tensor *v; /**< {B, T, Nkv, D} */
    qn_tensor *k_cache; /**< {B, Nkv, C, D}, in and out */
    qn_tensor *v_cache; /**< {B, Nkv, C, D}, in and out */
    qn_offset offset;
    double scale; /**< finite; D^-0.5 in Qwen3 */
    qn_rope rope;
} qn_kv_attention_args;

/** Operands of qn_mlp. */
typedef struct qn_mlp_args {
    qn_tensor *out;          /**< {B, T, H} */
    const qn_tensor *hidden; /**< {B, T, H} */
    const qn_tensor *norm;   /**< {H} */
    qn_operand gate_proj;    /**< {H, I} */
    qn_operand up_proj;      /**< {H, I} */
    qn_operand down_proj;    /**< {I, H} */
    double eps;              /**< > 0 and finite */
} qn_mlp_args;

/** Operands of qn_attention_residual. */
typedef struct qn_attention_residual_args {
    qn_tensor *out;          /**< {B, T, H} */
    const qn_tensor *hidden; /**< {B, T, H} */
    const qn_tensor *attn;   /**< {B, T, A} */
    qn_operand o_proj;       /**< {A, H} */
} qn_attention_residual_args;

/** Weights of an attention block. D is the length of q_norm. */
typedef struct qn_attention_weights {
    const qn_tensor *norm;   /**< {H} */
    qn_operand q_proj;       /**< {H, Nq·D} */
    qn_operand k_proj;       /**< {H, Nkv·D} */
    qn_operand v_proj;       /**< {H, Nkv·D} */
    qn_operand o_proj;       /**< {Nq·D, H} */
    const qn_tensor *q_norm; /**< {D} */
    const qn_tensor *k_norm; /**< {D} */
} qn_attention_weights;

/** Weights of an MLP. */
typedef struct qn_mlp_weights {
    const qn_tensor *norm; /**< {H} */
    qn_operand gate_proj;  /**< {H, I} */
    qn_operand up_proj;    /**< {H, I} */
    qn_operand down_proj;  /**< {I, H} */
} qn_mlp_weights;

/** Weights of a layer. In messages the norms are called norm1 and norm2. */
typedef struct qn_layer_weights {
    qn_attention_weights attention;
    qn_mlp_weights mlp;
} qn_layer_weights;

/** Operands of qn_attention_block. */
typedef struct qn_attention_block_args {
    qn_tensor *out;          /**< {B, T, H} */
    const qn_tensor *hidden; /**< {B, T, H} */
    qn_attention_weights weights;
    qn_tensor *k_cache; /**< {B, Nkv, C, D}, in and out */
    qn_tensor *v_cache; /**< {B, Nkv, C, D}, in and out */
    qn_offset offset;
    double scale;
    qn_rope rope;
    double eps;
} qn_attention_block_args;

/** Operands of qn_layer. */
typedef struct qn_layer_args {
    qn_tensor *out;          /**< {B, T, H} */
    const qn_tensor *hidden; /**< {B, T, H} */
    qn_layer_weights weights;
    qn_tensor *k_cache; /**< {B, Nkv, C, D}, in and out */
    qn_tensor *v_cache; /**< {B, Nkv, C, D}, in and out */
    qn_offset offset;
    double scale;
    qn_rope rope;
    double eps;
} qn_layer_args;

/** Operands of qn_greedy. */
typedef struct qn_greedy_args {
    qn_tensor *out;          /**< u32 {B} */
    const qn_tensor *hidden; /**< {B, T, H}; only the last position of each row is read */
    const qn_tensor *norm;   /**< {H} */
    qn_operand lm_head;      /**< {V, H} */
    int64_t n_valid;         /**< ids at or above it are excluded; 0 means V */
    double eps;
} qn_greedy_args;

/** Operands of qn_forward_greedy. Exactly one of `ids` and `hidden` is set. */
typedef struct qn_forward_greedy_args {
    qn_tensor *out;                 /**< u32 {B, count} */
    const qn_tensor *ids;           /**< s32, s64 or u32 {B, 1}, or NULL */
    const qn_tensor *hidden;        /**< {B, T, H}, or NULL; unchanged */
    qn_operand embedding;           /**< {V, H}; optional with `hidden` and count 1 */
    const qn_layer_weights *layers; /**< n_layer of them */
    qn_tensor *const *k_caches;     /**< n_layer tensors {B, Nkv, C, D}, in and out */
    qn_tensor *const *v_caches;     /**< n_layer tensors {B, Nkv, C, D}, in and out */
    int32_t n_layer;                /**< 1 … 512 */
    const qn_tensor *norm;          /**< {H} */
    qn_operand lm_head;             /**< {V, H} */
    int64_t n_valid;                /**< as in qn_greedy_args */
    int32_t count;                  /**< tokens to generate, 1 … 4096 */
    qn_offset offset;
    double scale;
    qn_rope rope;
    double eps;
} qn_forward_greedy_args;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Pack a matrix for the device's kernels.
 *
 * weight   rank 2, f32, bf16 or f16; the packed copy keeps its dtype. Borrowed for the call.
 * Shapes   QN_LAYOUT_IN_OUT {in, out}; QN_LAYOUT_OUT_IN {out, in}. An lm_head or embedding {V, H} is
 *          QN_LAYOUT_OUT_IN.
 * Errors   EINVAL: NULL, rank, dtype, layout or arith; EUNSUPPORTED: the compute type, on this instruction set or for
 *          this dtype; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_linear_pack(qn_linear **out, const qn_tensor *weight, qn_linear_layout layout,
                                             qn_arith arith, qn_error *err);

/**
 * Quantize and pack a matrix, as qn_model_options.quantize does for a model.
 *
 * weight   as in qn_linear_pack; its input size must be a multiple of the group size of `to`.
 * Scales   at least 2^-133, the smallest bf16. A group that would need a finer step is rounded to multiples of that.
 * Errors   as qn_linear_pack; EINVAL: a value that the format cannot represent, named by output and input: a NaN, an
 *          infinity, or, in 8 bits, a magnitude above 3.376e38.
 */
QN_NODISCARD QN_API qn_status qn_linear_quantize(qn_linear **out, const qn_tensor *weight, qn_linear_layout layout,
                                                 qn_quantize to, qn_arith arith, qn_error *err);

/**
 * Pack a quantized matrix without changing its values. "ref" stores it dequantized to f32, as does "cpu" if the affine
 * group size is not a multiple of 32.
 *
 * weight   its tensors must be contiguous and on one device. Borrowed for the call.
 * arith    AUTO, F32 or (affine only) INT8.
 * Errors   EINVAL: NULL, rank, shape, dtype, bits, group, or, without biases, a scale whose implied bias is not finite;
 *          EUNSUPPORTED: the compute type; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_linear_pack_quantized(qn_linear **out, const qn_quantized *weight, qn_arith arith,
                                                       qn_error *err);
QN_API void qn_linear_free(qn_linear *linear); /**< NULL is fine */
QN_API int64_t qn_linear_n_in(const qn_linear *linear);
QN_API int64_t qn_linear_n_out(const qn_linear *linear);
QN_API size_t qn_linear_bytes(const qn_linear *linear);   /**< device memory it occupies */
QN_API qn_dtype qn_linear_dtype(const qn_linear *linear); /**< of its elements; u32: affine codes; f8 */
QN_API qn_arith qn_linear_arith(const qn_linear *linear); /**< F32, BF16 or INT8, never AUTO */

/**
 * RoPE, cache write and causal grouped-query attention for T new tokens.
 *
 *   q' = rope(q), k' = rope(k) at positions p … p+T-1, where p is the row's offset; cache rows p … p+T-1 become k' and v;
 *   out[b,t,h,:] = sum_s softmax_s(scale · q'[b,t,h]·k_cache[b,g,s]) v_cache[b,g,s],  s = 0 … p+t,  g = h / (Nq/Nkv)
 *
 * Requires Nq % Nkv == 0; D even, 2 … 512; offset >= 0; offset + T <= C. Cache rows beyond p+T-1 are not touched.
 * Cost     4·Nq·D flop per query and visible position; reads each visible cache row once per tile of queries.
 * Source   GQA arXiv 2305.13245; RoPE arXiv 2104.09864; Qwen3Attention in transformers; tests/data/primitives.
 */
QN_NODISCARD QN_API qn_status qn_kv_attention(const qn_kv_attention_args *args, qn_error *err);

/**
 * The gated MLP with its norm and residual: out = hidden + (silu(x·gate) ⊙ (x·up))·down, x = rms(hidden, norm).
 *
 * Requires shapes as in qn_mlp_args; eps > 0.
 * Cost     6·H·I flop per token; reads the three matrices once per call.
 * Source   SwiGLU arXiv 2002.05202; Qwen3MLP in transformers; tests/data/primitives.
 */
QN_NODISCARD QN_API qn_status qn_mlp(const qn_mlp_args *args, qn_error *err);

/**
 * The attention output projection with its residual: out = hidden + attn·o_proj.
 *
 * Cost     2·A·H flop per token; reads the matrix once per call.
 * Source   Qwen3DecoderLayer in transformers; tests/data/primitives.
 */
QN_NODISCARD QN_API qn_status qn_attention_residual(const qn_attention_residual_args *args, qn_error *err);

/**
 * The attention half of a layer: x = rms(hidden, norm); q, k, v = x·q_proj, x·k_proj, x·v_proj; RMS norm of q and k per
 * head (q_norm, k_norm); qn_kv_attention; out = hidden + attn·o_proj.
 *
 * Requires projection widths divisible by D, and Nq % Nkv == 0; offset + T <= C.
 * Source   Qwen3Attention in transformers; tests/data/primitives.
 */
QN_NODISCARD QN_API qn_status qn_attention_block(const qn_attention_block_args *args, qn_error *err);

/**
 * A whole decoder layer: qn_attention_block, then qn_mlp.
 *
 * Source   Qwen3DecoderLayer in transformers; tests/data/primitives.
 */
QN_NODISCARD QN_API qn_status qn_layer(const qn_layer_args *args, qn_error *err);

/**
 * The next token of each row: argmax over v < n_valid of rms(hidden[:, T-1], norm)·lm_head[v]; ties go to the
 * lowest id.
 *
 * Errors   also ENUMERIC: a row's logits contain a NaN; `out` is then unchanged.
 * Source   Qwen3ForCausalLM in transformers.
 */
QN_NODISCARD QN_API qn_status qn_greedy(const qn_greedy_args *args, qn_error *err);

/**
 * `count` greedy steps of a whole model without leaving the device: embedding (or `hidden`), n_layer × qn_layer,
 * qn_greedy; each token is fed back.
 *
 * Requires offset + T + count - 1 <= C for every layer (T = 1 with ids); every id < V.
 * The hidden state between layers has the dtype of `hidden`, also for tokens fed back; with `ids` it is f32.
 * Errors   also ENUMERIC, as in qn_greedy: `out` is unchanged, but the caches keep the steps already computed.
 * Source   Qwen3ForCausalLM in transformers.
 */
QN_NODISCARD QN_API qn_status qn_forward_greedy(const qn_forward_greedy_args *args, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
