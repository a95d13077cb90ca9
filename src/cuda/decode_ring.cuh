/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode attention: a warp's ring of tiles in shared memory, filled by asynchronous copies. A slot has the keys or the
 * values of a tile. No other warp reads it, so it needs no barrier but that of a warp.
 */
#ifndef QNI_CUDA_DECODE_RING_CUH
#define QNI_CUDA_DECODE_RING_CUH

#include "decode_cache.cuh"

namespace qni {
namespace {

/* The bytes of a slot are in units of 16, a unit of row r at its index ^ unit_shift(r): neither the 4 units of 2 rows
 * that 8 lanes read of keys share banks, nor the 2 units of 4 rows that they read of values. */
__device__ inline int unit_shift(int row) {
    return (row & 6) ^ (row & 1) << 2;
}

/* Begin to copy 16 bytes; of zeros unless is_valid. */
__device__ inline void copy_unit(uint32_t to, const unsigned char *from) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ inline void copy_unit(uint32_t to, const unsigned char *from, bool is_valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_valid ? 16 : 0)
                 : "memory");
}

/* Begin to copy a tile's rows to a slot, n of them and zeros; `from`: the first row. */
template <int D, qn_dtype T>
__device__ inline void copy_rows(uint32_t slot, const unsigned char *from, int pitch, int n) {
    constexpr int row_bytes = kv_rows<D, T>::row_bytes, n_unit = row_bytes / 16, n_row = 32 / n_unit; /* at a time */
    const int first = lane_id() / n_unit, unit = lane_id() % n_unit;
    const unsigned char *at = from + first * pitch + unit * 16;
    const uint32_t to = slot + static_cast<uint32_t>(first * row_bytes + (unit ^ unit_shift(first)) * 16);
    /* unit_shift(first + i n_row) is unit_shift(first) ^ unit_shift(i n_row): n_row is a power of two above `first`. */
    if (n >= tile_size) {
#pragma unroll
        for (int i = 0; i < tile_size / n_row; i++) {
            copy_unit((to ^ unit_shift(i * n_row) * 16) + i * 32 * 16, at + static_cast<int64_t>(i * n_row) * pitch);
        }
    } else {
#pragma unroll 1
        for (int i = 0; i < tile_size / n_row; i++) {
            const bool is_valid = first + i * n_row < n;
            copy_unit((to ^ unit_shift(i * n_row) * 16) + i * 32 * 16, is_valid ? at + i * n_row * pitch : from,
                      is_valid);
        }
    }
}
__device__ inline void end_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Wait until at most N groups of copies are under way; then the warp sees what the others brought. */
template <int N> __device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
    __syncwarp();
}

__device__ inline void read_unit(uint32_t *out, uint32_t from) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from)
                 : "memory");
}

/* The lane's run c of key g (8 r + g), as load_key loads it. */
template <int D, qn_dtype T> __device__ inline void ring_key(uint32_t *out, uint32_t slot, int r, int c) {
    const int g = lane_id() / 4, t = lane_id() % 4, row_bytes = kv_rows<D, T>::row_bytes;
    const int unit = (t ^ unit_shift(g)) ^ (c % 2 * 4);
    read_unit(out, slot + static_cast<uint32_t>(g * row_bytes + unit * 16 + 8 * r * row_bytes + c / 2 * 128));
}

/* The lane's run i of the values of its position j, as load_value loads it. */
template <int D, qn_dtype T> __device__ inline void ring_value(uint32_t *out, uint32_t slot, int i, int j) {
    const int g = lane_id() / 4, t = lane_id() % 4, row_bytes = kv_rows<D, T>::row_bytes;
    const int unit = (g ^ unit_shift(2 * t)) ^ (j % 2 * 4);
    const int row = j % 2 + j / 2 * 8;
    read_unit(out, slot + static_cast<uint32_t>(2 * t * row_bytes + unit * 16 + row * row_bytes + i * 128));
}

/* What is copied next: the keys or values of tile `at`, and `left` positions from there on. */
template <int D, qn_dtype T> struct ring {
    using plan = qni::plan<D, T>;
    static constexpr uint32_t bytes = plan::n_slot * plan::slot_bytes;
    uint32_t begin, to; /* addresses: of the ring, of the next slot */
    tile at, ahead;
    int left;

    __device__ void start(const decode_args &a, const work_item &w, unsigned char *own, const tile &now,
                          const tile &next, int n) {
        begin = to = static_cast<uint32_t>(__cvta_generic_to_shared(own));
        at = now;
        ahead = next;
        left = n;
#pragma unroll
        for (int i = 0; i < plan::n_slot; i++) {
            if (i % 2 == 0) {
                copy_keys(a, w);
            } else {
                copy_values(a, w);
            }
        }
    }
    __device__ void copy_keys(const decode_args &a, const work_item &w) {
        if (left > 0) {
            copy_rows<D, T>(to, keys_of(a, w.kv_head, at.block, at.in_block), a.k_token_bytes, left);
        }
        end_slot();
    }
    /* Then go to the next tile. */
    __device__ void copy_values(const decode_args &a, const work_item &w) {
        if (left > 0) {
            copy_rows<D, T>(to, values_of(a, w.kv_head, at.block, at.in_block), a.v_token_bytes, left);
        }
        end_slot();
        at = ahead;
        left -= plan::stride;
        if (left > plan::stride) ahead = tile_at(a, w, w.end - left + plan::stride);
    }
    /* What the slot just read takes. Keys and values alternate, so an odd number of slots later it is the other kind. */
    __device__ void copy_after_keys(const decode_args &a, const work_item &w) {
        __syncwarp(); /* all lanes have read the slot */
        if constexpr (plan::n_slot % 2 == 1) {
            copy_values(a, w);
        } else {
            copy_keys(a, w);
        }
    }
    __device__ void copy_after_values(const decode_args &a, const work_item &w) {
        __syncwarp();
        if constexpr (plan::n_slot % 2 == 1) {
            copy_keys(a, w);
        } else {
            copy_values(a, w);
        }
    }
    /* Wait for the oldest slot; its address. */
    __device__ uint32_t wait() const {
        wait_copies<plan::n_slot - 1>();
        return to;
    }

  private:
    __device__ void end_slot() {
        end_copies();
        to = to + plan::slot_bytes == begin + bytes ? begin : to + plan::slot_bytes;
    }
};

} // namespace
} // namespace qni

#endif
