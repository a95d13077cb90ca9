/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the skinny kernels divide their work, and what a launch is told.
 *
 * A tile is 8 outputs. A row of a tile is divided into runs of 64 bytes (layout.h; of a dense row: 32 inputs), which are
 * dealt to the warps round robin, so that how an output is summed depends on n_in and the format only. A block of
 * threads computes a range of tiles in passes of at most TILES. A warp takes SLOTS (tile, run) pairs at a time: a step.
 */
#ifndef QNI_CUDA_SKINNY_JOB_CUH
#define QNI_CUDA_SKINNY_JOB_CUH

#include "element.cuh"

namespace qni::skinny {

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int ROWS = QNI_CUDA_SKINNY_ROWS;
constexpr int RUN_BYTES = 64;
constexpr int SLOTS = 4;
constexpr int SLOT_BYTES = 8 * RUN_BYTES; /* a run of each output of a tile: 16 bytes a lane */
constexpr int MAX_DEPTH = 6;              /* steps that a warp holds in shared memory */
/* Steps that a chained kernel keeps in flight before its input is there. More would delay what the kernels before it
 * read: the memory serves an SM's requests in order. */
constexpr int PACE = 2;

/* One weight. In a SwiGLU, blocks compute the same tiles of both. */
struct part {
    const unsigned char *codes, *scales, *biases;
    int32_t n_tile, n_scale_out;
    int32_t first_block; /* of those that compute it */
    int32_t column;      /* of `out` */
};

struct job {
    part parts[3];
    int32_t n_part;
    bool swiglu, paced, has_biases;
    int32_t n_row, n_in, n_run, row_bytes;
    int32_t n_unit;   /* of a block of threads: tiles, or pairs of them in a SwiGLU */
    int32_t per_pass; /* units of a pass */
    int32_t n_step;   /* of a pass */
    int32_t depth;    /* of the ring */
    int32_t chunk;    /* steps whose x is in shared memory at a time */

    /* Scales. */
    int32_t n_group, run_groups; /* groups that a run may touch */
    uint32_t group_magic;        /* block / (group / 32) = block · magic >> 32; 0: groups of 32 */
    int32_t group_out;
    qn_dtype scale_dtype;
    uint32_t minus; /* pair of bf16: what makes a code's bf16 signed */
    float center;   /* an operand is code - center */

    qn_dtype x_dtype, out_dtype, add_dtype, norm_dtype;
    const void *norm;
    float eps;

    /* Where x is converted: rows of a warp at a time (0: nothing to convert), bytes of each. */
    int32_t raw_rows, raw_stride;
    uint32_t unit_magic, piece_magic; /* n · magic >> 32: the row of unit or piece n of a chunk */

    /* Bytes: of a warp's part of a step, and of a row of x; offsets in shared memory. */
    int32_t warp_step_bytes, x_stride;
    int32_t table_at, x_at, raw_at, sums_at, norm_at, squares_at, partials_at;

    const void *x[ROWS];
    const void *add[ROWS];
    void *out[ROWS];
};

/* Words between the rows of partial sums: no bank conflict when lanes store rows 2 t and outputs g. */
template <int TILES> constexpr int PARTIAL_STRIDE = 8 * TILES + 4;

} // namespace qni::skinny

#endif
