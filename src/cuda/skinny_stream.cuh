/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A warp's stream of weights from memory: a ring of steps in shared memory, filled by asynchronous copies. A lane copies
 * the codes that it multiplies itself, so only scales need a barrier, and that of a warp.
 */
#ifndef QNI_CUDA_SKINNY_STREAM_CUH
#define QNI_CUDA_SKINNY_STREAM_CUH

#include "skinny_job.cuh"

namespace qni::skinny {

/* The codes are read once: they should not displace activations and the KV cache in L2. */
__device__ inline uint64_t read_once() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
__device__ inline void copy16(uint32_t to, const void *from, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "l"(policy)
                 : "memory");
}
__device__ inline void copy16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ inline void copy4(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ inline void end_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Wait until at most n groups of this thread are under way. */
__device__ inline void wait_groups(int32_t n) {
    switch (n) {
    case 0:
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        break;
    case 1:
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        break;
    case 2:
        asm volatile("cp.async.wait_group 2;" ::: "memory");
        break;
    case 3:
        asm volatile("cp.async.wait_group 3;" ::: "memory");
        break;
    case 4:
        asm volatile("cp.async.wait_group 4;" ::: "memory");
        break;
    case 5:
        asm volatile("cp.async.wait_group 5;" ::: "memory");
        break;
    default:
        asm volatile("cp.async.wait_group 6;" ::: "memory");
    }
}

/* The group of inputs of a block of 32. */
__device__ inline int32_t group_of(const job &j, int32_t block) {
    return j.group_magic == 0 ? block : static_cast<int32_t>(__umulhi(static_cast<uint32_t>(block), j.group_magic));
}

__device__ inline int32_t lane_id() {
    return threadIdx.x % 32;
}
__device__ inline int32_t warp_id() {
    return threadIdx.x / 32;
}

/*
 * Slot u · TILES + i of a step holds run u of tile i. Tiles i and i + HALF go through the tensor cores together: of a
 * SwiGLU the first half are of the gate, the others of up.
 *
 * Scales follow the slots: item 4 k + slot holds those of the k-th group that the run touches, of 8 outputs; then the
 * biases. Scales that outputs share lie at any 2 bytes: an item is the 4 bytes around it and which half it is.
 */
template <class Format, int TILES> struct stream {
    static constexpr int HALF = (TILES + 1) / 2, RUNS = SLOTS / TILES;

    const job &j;
    const unsigned char *codes[2]; /* of each half: the lane's 16 bytes of run 0 of the first tile of the pass */
    const unsigned char *scales, *biases;
    uint32_t slots; /* the warp's part of the ring's first step */
    uint64_t policy;
    int32_t tile;        /* of the lane's item of scales */
    int32_t n_scale_out; /* of its weight */
    int32_t left;        /* units from the pass on that is being loaded */
    int32_t step = 0, stage = 0;

    __device__ stream(const job &j, uint32_t memory, int32_t part, int32_t first, int32_t n)
        : j(j), slots(memory + warp_id() * j.warp_step_bytes), policy(read_once()), left(n) {
        const int32_t lane = lane_id(), tile_bytes = 8 * j.row_bytes;
        const int32_t at = lane / 4 * j.row_bytes + lane % 4 * 16;
        const skinny::part &second = j.parts[j.swiglu ? 1 : part];
        codes[0] = j.parts[part].codes + static_cast<int64_t>(first) * tile_bytes + at;
        codes[1] = second.codes + static_cast<int64_t>(j.swiglu ? first : first + HALF) * tile_bytes + at;
        const int32_t i = lane % SLOTS % TILES;
        const skinny::part &mine = i / HALF != 0 ? second : j.parts[part];
        scales = mine.scales;
        biases = mine.biases;
        n_scale_out = mine.n_scale_out;
        tile = first + i % HALF + (i / HALF != 0 && !j.swiglu ? HALF : 0);
    }

    /* Start to load the next step, if there is one, as a group of copies. */
    __device__ void load() {
        if (left > 0) {
            const int32_t units = min(left, j.per_pass);
            const int32_t valid[2] = {min(units, HALF), j.swiglu ? units : units - HALF};
            const uint32_t to = slots + stage * (WARPS * j.warp_step_bytes);
#pragma unroll
            for (int u = 0; u < RUNS; u++) {
                const int32_t run = (step * RUNS + u) * WARPS + warp_id();
                if (run >= j.n_run) break;
#pragma unroll
                for (int i = 0; i < TILES; i++) {
                    if (i % HALF >= valid[i / HALF]) continue;
                    copy16(to + (u * TILES + i) * SLOT_BYTES + lane_id() * 16,
                           codes[i / HALF] + (i % HALF * 8 * j.row_bytes + run * RUN_BYTES), policy);
                }
            }
            if constexpr (Format::QUANTIZED) load_scales(to + SLOTS * SLOT_BYTES, valid[0], valid[1]);
            if (++step == j.n_step) next_pass();
        }
        end_group();
        stage = stage + 1 == j.depth ? 0 : stage + 1;
    }

  private:
    __device__ void next_pass() {
        const int64_t bytes = static_cast<int64_t>(8 * j.row_bytes) * j.per_pass;
        codes[0] += bytes;
        codes[1] += bytes;
        tile += j.per_pass;
        left -= j.per_pass;
        step = 0;
    }

    __device__ void load_scales(uint32_t to, int32_t valid_lower, int32_t valid_upper) const {
        const int32_t lane = lane_id(), slot = lane % SLOTS, i = slot % TILES;
        const int32_t run = (step * RUNS + slot / TILES) * WARPS + warp_id();
        if (lane >= SLOTS * j.run_groups || run >= j.n_run) return;
        if (i % HALF >= (i / HALF != 0 ? valid_upper : valid_lower)) return;
        /* Padding may reach beyond the last group; x is 0 there. */
        const int32_t group = min(group_of(j, run * Format::BLOCKS) + lane / SLOTS, j.n_group - 1);
        const int32_t bytes = j.scale_dtype == QN_DTYPE_F32 ? 4 : 2;
        if constexpr (Format::OUTPUT_SCALES) {
            const int64_t from = (static_cast<int64_t>(group) * n_scale_out + 8 * tile) * bytes;
#pragma unroll 1
            for (int32_t a = 0; a < 1 + j.has_biases; a++) {
                const uint32_t item = to + (a * SLOTS * j.run_groups + lane) * 8 * bytes;
                copy16(item, (a == 0 ? scales : biases) + from);
                if (bytes == 4) copy16(item + 16, (a == 0 ? scales : biases) + from + 16);
            }
        } else {
            const int64_t from = (static_cast<int64_t>(group) * n_scale_out + 8 * tile / j.group_out) * bytes;
            copy4(to + lane * 8, scales + (from & ~3ll));
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + lane * 8 + 4), "r"(static_cast<uint32_t>(from >> 1 & 1))
                         : "memory");
        }
    }
};

} // namespace qni::skinny

#endif
