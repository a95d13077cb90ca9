/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a KV cache as operands of mma.m16n8k16, from global memory to registers without shared memory in between.
 *
 * The left operand has 16 rows for 8 heads: each number of a head is a sum of two 16-bit ones, the upper in row h and
 * the rest in row h + 8. So products with a cache of bf16, f16 or q8 (whose codes are exact in bf16) are as good as
 * with numbers of 16 bits (bf16) or 21 (f16), and the two halves of a result end in the same lane. Numbers of an f32
 * cache become such sums too.
 *
 * In a lane, g = lane / 4 is a column of the right operand and t = lane % 4 selects the inner indices 2t, 2t + 1,
 * 2t + 8 and 2t + 9. Which dimension is which index is free as long as both operands agree, so a lane loads runs:
 *
 *   keys      inner index = dimension, column = position: it reads dimensions 4F c + F t … + F - 1 of position g,
 *             whose 4 (of F = 8: 2 · 4) elements are all it multiplies in a step of 16
 *   values    inner index = position, column = dimension: it reads dimensions 8E i + E g … + E - 1 of 4 positions;
 *             product E i + e has dimension 8E i + E g + e in column g
 */
#ifndef QNI_CUDA_KV_OPERANDS_CUH
#define QNI_CUDA_KV_OPERANDS_CUH

#include "element.cuh"

namespace qni {

/* How rows of D elements of dtype T are read. */
template <int D, qn_dtype T> struct kv_rows {
    static constexpr bool is_q8 = T == QN_DTYPE_Q8, is_f16 = T == QN_DTYPE_F16;
    static constexpr int bytes = T == QN_DTYPE_F32 ? 4 : is_q8 ? 1 : 2;
    static constexpr int row_bytes = D * bytes + (is_q8 ? 4 : 0);
    static constexpr int align = is_q8 ? 4 : 16;
    static constexpr int n_part = T == QN_DTYPE_F32 ? 2 : 1; /* 16-bit numbers that an element is the sum of */
    static constexpr int F = D % 64 == 0 ? 8 : 4, E = D % 64 == 0 ? 8 : 2;
    static constexpr int k_run = F * bytes / 4, v_run = E * bytes < 4 ? 1 : E * bytes / 4; /* in words */
    static constexpr int k_words = D / (4 * F) * k_run, v_words = D / (8 * E) * v_run;
};

/* N bytes; zeros unless is_valid. Rows are aligned to ALIGN bytes. */
template <int N, int ALIGN> __device__ inline void load_run(uint32_t *out, const unsigned char *from, bool is_valid) {
    constexpr int unit = N < ALIGN ? N : ALIGN;
#pragma unroll
    for (int i = 0; i < N / unit; i++) {
        const unsigned char *at = from + i * unit;
        if constexpr (unit == 16) {
            const uint4 x = is_valid ? *reinterpret_cast<const uint4 *>(at) : uint4{};
            out[4 * i] = x.x, out[4 * i + 1] = x.y, out[4 * i + 2] = x.z, out[4 * i + 3] = x.w;
        } else if constexpr (unit == 8) {
            const uint2 x = is_valid ? *reinterpret_cast<const uint2 *>(at) : uint2{};
            out[2 * i] = x.x, out[2 * i + 1] = x.y;
        } else if constexpr (unit == 4) {
            out[i] = is_valid ? *reinterpret_cast<const uint32_t *>(at) : 0;
        } else {
            out[i] = is_valid ? *reinterpret_cast<const uint16_t *>(at) : 0;
        }
    }
}

template <int D, qn_dtype T>
__device__ inline void load_key(uint32_t (&k)[kv_rows<D, T>::k_words], const unsigned char *row, int t, bool is_valid) {
    using rows = kv_rows<D, T>;
#pragma unroll
    for (int c = 0; c < D / (4 * rows::F); c++) {
        constexpr int n = rows::F * rows::bytes;
        load_run<n, rows::align>(k + c * rows::k_run, row + (4 * c + t) * n, is_valid);
    }
}

template <int D, qn_dtype T>
__device__ inline void load_value(uint32_t (&v)[kv_rows<D, T>::v_words], const unsigned char *row, int g,
                                  bool is_valid) {
    using rows = kv_rows<D, T>;
#pragma unroll
    for (int i = 0; i < D / (8 * rows::E); i++) {
        constexpr int n = rows::E * rows::bytes;
        load_run<n, rows::align>(v + i * rows::v_run, row + (8 * i + g) * n, is_valid);
    }
}

/* Two floats as 16-bit numbers, a in the lower half, and back. */
template <bool IS_F16> __device__ inline uint32_t pack(float a, float b) {
    uint32_t x;
    if constexpr (IS_F16) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(b), "f"(a));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(b), "f"(a));
    }
    return x;
}
template <bool IS_F16> __device__ inline float2 unpack(uint32_t x) {
    if constexpr (IS_F16) {
        return __half22float2(*reinterpret_cast<const __half2 *>(&x));
    } else {
        return {__uint_as_float(x << 16), __uint_as_float(x & 0xFFFF0000)};
    }
}
template <bool IS_F16> __device__ inline void split(uint32_t &upper, uint32_t &rest, float a, float b) {
    upper = pack<IS_F16>(a, b);
    const float2 x = unpack<IS_F16>(upper);
    rest = pack<IS_F16>(a - x.x, b - x.y);
}

/* Codes in the lower bytes of the halves of x as bf16: 128 + the lower 7 bits, minus 128 or, if negative, 256. */
__device__ inline uint32_t bf16_of_codes(uint32_t x) {
    const uint32_t lower = (x & 0x007F007F) | 0x43004300, bias = (x & 0x00800080) | 0x43004300;
    const __nv_bfloat162 codes =
        __hsub2(*reinterpret_cast<const __nv_bfloat162 *>(&lower), *reinterpret_cast<const __nv_bfloat162 *>(&bias));
    return *reinterpret_cast<const uint32_t *>(&codes);
}

/* The right operand for step s of 16 dimensions of a key. */
template <int D, qn_dtype T>
__device__ inline void key_operand(uint32_t (&b)[kv_rows<D, T>::n_part][2], const uint32_t *k, int s) {
    using rows = kv_rows<D, T>;
    k += s * rows::bytes;
    if constexpr (T == QN_DTYPE_F32) {
        split<false>(b[0][0], b[1][0], __uint_as_float(k[0]), __uint_as_float(k[1]));
        split<false>(b[0][1], b[1][1], __uint_as_float(k[2]), __uint_as_float(k[3]));
    } else if constexpr (rows::is_q8) {
        b[0][0] = bf16_of_codes(__byte_perm(k[0], 0, 0x4140));
        b[0][1] = bf16_of_codes(__byte_perm(k[0], 0, 0x4342));
    } else {
        b[0][0] = k[0];
        b[0][1] = k[1];
    }
}

/* Element x of the values of two positions, as a register of the right operand (of each part of it). */
template <int D, qn_dtype T>
__device__ inline void value_pair(uint32_t (&b)[kv_rows<D, T>::n_part], const uint32_t *v, const uint32_t *w, int x) {
    using rows = kv_rows<D, T>;
    if constexpr (T == QN_DTYPE_F32) {
        split<false>(b[0], b[1], __uint_as_float(v[x]), __uint_as_float(w[x]));
    } else if constexpr (rows::is_q8) {
        constexpr int n = rows::E < 4 ? rows::E : 4; /* codes of a word */
        const uint32_t byte = static_cast<uint32_t>(x % n);
        b[0] = bf16_of_codes(__byte_perm(v[x / n], w[x / n], (4 + byte) << 8 | byte));
    } else {
        b[0] = __byte_perm(v[x / 2], w[x / 2], x % 2 ? 0x7632 : 0x5410);
    }
}

/* c += a · b. Lane (g, t) holds columns 2t and 2t + 1: c[0], c[1] of row g and c[2], c[3] of row g + 8. */
template <bool IS_F16> __device__ inline void mma(float (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
    if constexpr (IS_F16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    }
}

} // namespace qni

#endif
