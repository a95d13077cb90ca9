/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weight formats of the skinny kernels: how a lane turns its 16 bytes of a run into operands of mma.m16n8k16. Codes
 * become small integers (fp8: e4m3 values), which bf16 holds exactly; scales are applied to sums.
 */
#ifndef QNI_CUDA_SKINNY_FORMAT_CUH
#define QNI_CUDA_SKINNY_FORMAT_CUH

#include "skinny_job.cuh"

namespace qni::skinny {

__device__ inline uint32_t bits_of(__nv_bfloat162 x) {
    return *reinterpret_cast<uint32_t *>(&x);
}
__device__ inline __nv_bfloat162 pair_of(uint32_t bits) {
    return *reinterpret_cast<__nv_bfloat162 *>(&bits);
}
__device__ inline uint32_t add_pairs(uint32_t a, uint32_t b) {
    return bits_of(__hadd2(pair_of(a), pair_of(b)));
}

/* BLOCKS: blocks of 32 inputs in a run. SPLIT: a register holds inputs s and s + 4 of 8, not 2 s and 2 s + 1. */
struct bf16_format {
    static constexpr int BLOCKS = 1;
    static constexpr bool QUANTIZED = false, SPLIT = false, OUTPUT_SCALES = false;
};

/* 0x4300 | c is the bf16 number 128 + c for c < 128. */
template <int WIDTH> struct affine_format {
    static constexpr int BLOCKS = 16 / WIDTH;
    static constexpr bool QUANTIZED = true, SPLIT = WIDTH < 8, OUTPUT_SCALES = true;

    /* The 8 codes of block b. minus: -(128 + center); with 8 bits -256, from which a code's top bit takes 128. */
    static __device__ void decode(uint32_t (&out)[4], const uint4 &codes, int b, uint32_t minus) {
        const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
        if constexpr (WIDTH == 8) {
#pragma unroll
            for (int s = 0; s < 4; s++) {
                const uint32_t two = __byte_perm(words[2 * b + s / 2], 0, s % 2 ? 0x4342 : 0x4140);
                out[s] = add_pairs((two & 0x007F007F) | 0x43004300, (two & 0x00800080) ^ minus);
            }
        } else {
            /* Bits of inputs 0 … 3 at the start of the lower half, of inputs 4 … 7 at that of the upper. */
            const uint32_t word = WIDTH == 4 ? words[b] : __byte_perm(words[b / 2], 0, b % 2 ? 0x4342 : 0x4140);
            constexpr uint32_t mask = ((1u << WIDTH) - 1) * 0x00010001;
#pragma unroll
            for (int s = 0; s < 4; s++) out[s] = add_pairs((word >> WIDTH * s & mask) | 0x43004300, minus);
        }
    }
};

/* e4m3 moved to the place of bf16's fields is the number times 2^-120, subnormal ones too. */
struct fp8_format {
    static constexpr int BLOCKS = 2;
    static constexpr bool QUANTIZED = true, SPLIT = false, OUTPUT_SCALES = false;

    static __device__ void decode(uint32_t (&out)[4], const uint4 &codes, int b, uint32_t) {
        const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (int s = 0; s < 4; s++) {
            const uint32_t two = __byte_perm(words[2 * b + s / 2], 0, s % 2 ? 0x3424 : 0x1404);
            const uint32_t tiny = (two & 0x80008000) | (two >> 4 & 0x07F007F0);
            out[s] = bits_of(__hmul2(pair_of(tiny), pair_of(0x7B807B80)));
        }
    }
};

/* d += A · B; A {16 outputs, 16 inputs}: lo are rows 0 … 7, hi 8 … 15. */
__device__ inline void mma(float (&d)[4], uint32_t lo0, uint32_t lo1, uint32_t hi0, uint32_t hi1, uint32_t b0,
                           uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(lo0), "r"(hi0), "r"(lo1), "r"(hi1), "r"(b0), "r"(b1));
}

/* 2-byte scale in the low bits. */
__device__ inline float scale_of(uint32_t bits, qn_dtype dtype) {
    if (dtype == QN_DTYPE_BF16) return __uint_as_float(bits << 16);
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

} // namespace qni::skinny

#endif
