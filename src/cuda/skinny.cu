/* SPDX-License-Identifier: Apache-2.0 */
/* Few rows times a weight: which kernel, and how its work is divided. */
#include "skinny_kernel.cuh"

namespace qni::skinny {
namespace {

constexpr int64_t RAW_BYTES = 4096;     /* of x, that a warp converts at a time; or one row */
constexpr int64_t TWO_BYTES = 36 << 10; /* of x, that each of two blocks of threads of an SM may hold */

struct form {
    int32_t n_block; /* of 32 inputs in a run */
    bool is_quantized, has_output_scales, is_split;
};

form form_of(const qni_weight &w) {
    if (w.quant.kind == QNI_DENSE) return {1, false, false, false};
    const int32_t width = qni_cuda_width(&w.quant);
    return {16 / width, true, w.quant.kind == QNI_AFFINE, width < 8};
}

/* Whether one launch can take both. */
bool are_alike(const qni_weight &a, const qni_weight &b) {
    const qni_quant &p = a.quant, &q = b.quant;
    if (a.n_in != b.n_in || p.kind != q.kind) return false;
    return p.kind == QNI_DENSE || (p.bits == q.bits && p.group == q.group && p.group_out == q.group_out &&
                                   p.scale_dtype == q.scale_dtype && p.symmetric == q.symmetric);
}

bool is_16bit_or_f32(qn_dtype dtype) {
    return dtype == QN_DTYPE_F32 || dtype == QN_DTYPE_BF16 || dtype == QN_DTYPE_F16;
}

template <typename Pointer> void set_rows(Pointer (&rows)[ROWS], const qni_mat &m, int64_t first, int64_t n_row) {
    for (int64_t i = 0; i < n_row && m.data != nullptr; i++) {
        const int64_t r = first + i, element = r / m.n_inner * m.outer_stride + r % m.n_inner * m.row_stride;
        rows[i] = static_cast<unsigned char *>(m.data) + element * element_bytes(m.dtype);
    }
}

/* Floor(n / by) = n · magic >> 32 for n < 2^16 and by > 1. */
uint32_t magic_of(int64_t by) {
    return static_cast<uint32_t>((1ll << 32) / by + 1);
}

void set_scales(job &j, const qni_weight &w, const form &f) {
    const qni_quant &q = w.quant;
    const int64_t run = 32 * f.n_block;
    j.has_biases = qni_cuda_has_biases(&q);
    j.n_group = static_cast<int32_t>(qni_cuda_n_group(&q, w.n_in));
    j.run_groups = static_cast<int32_t>(q.group % run == 0   ? 1
                                        : run % q.group == 0 ? run / q.group
                                                             : (run - 32) / q.group + 2);
    if (j.run_groups > f.n_block) j.run_groups = f.n_block;
    j.group_magic = q.group == 32 ? 0 : magic_of(q.group / 32);
    j.group_out = static_cast<int32_t>(q.group_out);
    j.scale_dtype = q.scale_dtype;
    if (q.kind == QNI_FP8) return;
    const uint32_t center = 1u << (q.bits - 1);
    j.minus = (0xC300u | center) * 0x10001u;
    j.center = static_cast<float>(center);
}

void set_parts(job &j, const qni_weight *w, int32_t n_weight, int32_t column) {
    j.n_part = n_weight;
    for (int32_t i = 0; i < n_weight; i++) {
        part &p = j.parts[i];
        p.codes = static_cast<const unsigned char *>(w[i].data);
        p.n_tile = static_cast<int32_t>(w[i].n_out / 8);
        p.column = column;
        if (!j.swiglu) column += static_cast<int32_t>(w[i].n_out);
        if (w[i].quant.kind == QNI_DENSE) continue;
        p.scales = p.codes + qni_cuda_scales_at(&w[i]);
        p.biases = p.codes + qni_cuda_biases_at(&w[i]);
        p.n_scale_out = static_cast<int32_t>(qni_cuda_n_scale_out(&w[i].quant, w[i].n_out));
    }
}

int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

/* The fewest units a block of threads must take for there to be at most `most` blocks. */
int32_t units_per_block(const job &j, int32_t most) {
    const int32_t n_part = j.swiglu ? 1 : j.n_part;
    for (int32_t n = 1;; n++) {
        int32_t blocks = 0;
        for (int32_t i = 0; i < n_part; i++) blocks += ceil_div(j.parts[i].n_tile, n);
        if (blocks <= most || blocks <= n_part) return n;
    }
}

/* Lay out shared memory; returns its size. */
int64_t lay_out(job &j, const form &f, int32_t tiles) {
    const int32_t items = SLOTS * j.run_groups, row_blocks = j.n_row > 8 ? 2 : 1;
    const int32_t scale_bytes = j.scale_dtype == QN_DTYPE_F32 ? 4 : 2;
    const int32_t item_bytes = f.has_output_scales ? 8 * scale_bytes * (j.has_biases ? 2 : 1) : 8;
    const int64_t step_pieces = SLOTS / tiles * f.n_block * 4, chunk_pieces = j.chunk * step_pieces;
    const int64_t x_bytes = j.x_dtype == QN_DTYPE_F32 ? 4 : 2, norm_bytes = j.norm_dtype == QN_DTYPE_F32 ? 4 : 2;
    j.warp_step_bytes = SLOTS * SLOT_BYTES + (f.is_quantized ? items * item_bytes : 0);
    j.x_stride = static_cast<int32_t>(WARPS * chunk_pieces * 16 + 64); /* + 64: no bank conflict between rows */
    const bool is_raw = j.norm != nullptr || x_bytes == 4 || f.is_split || j.has_biases;
    j.raw_stride = static_cast<int32_t>((j.norm != nullptr ? j.n_step * step_pieces : chunk_pieces) * 8 * x_bytes);
    j.raw_rows = !is_raw ? 0 : RAW_BYTES < j.raw_stride ? 1 : RAW_BYTES / j.raw_stride;
    if (j.raw_rows > j.n_row) j.raw_rows = j.n_row;
    j.unit_magic = magic_of(chunk_pieces * x_bytes / 2);
    j.piece_magic = magic_of(chunk_pieces);

    int64_t at = static_cast<int64_t>(j.depth) * WARPS * j.warp_step_bytes;
    const auto take = [&at](int32_t &where, int64_t bytes) {
        where = static_cast<int32_t>(at);
        at += (bytes + 127) / 128 * 128;
    };
    take(j.table_at, f.is_quantized ? WARPS * items * (f.has_output_scales ? 64 : 8) : 0);
    take(j.x_at, static_cast<int64_t>(j.n_row) * j.x_stride);
    take(j.raw_at, static_cast<int64_t>(WARPS) * j.raw_rows * j.raw_stride);
    take(j.sums_at, j.has_biases ? WARPS * chunk_pieces / 4 * row_blocks * 32 : 0);
    take(j.norm_at, j.norm != nullptr ? WARPS * j.n_step * step_pieces * 8 * norm_bytes : 0);
    take(j.squares_at, j.norm != nullptr ? ROWS * WARPS * 4 : 0);
    take(j.partials_at, 2 * WARPS * j.n_row * (8 * tiles + 4) * 4);
    return at;
}

/* Choose the depth of the ring, of at least `least` steps; whether all fits in `limit` bytes. */
bool fit(job &j, const form &f, int32_t tiles, int32_t depth, int32_t least, int64_t limit) {
    const int64_t n_step = static_cast<int64_t>(ceil_div(j.n_unit, j.per_pass)) * j.n_step;
    j.depth = depth < n_step ? depth : static_cast<int32_t>(n_step);
    while (lay_out(j, f, tiles) > limit && j.depth > least) j.depth--;
    return lay_out(j, f, tiles) <= limit;
}

/*
 * Divide the work; returns the tiles of a pass at most, 0 if shared memory does not suffice for all rows. A block of
 * threads takes half of it at most where possible: what is left is for the next kernel's first weights. Two blocks an SM
 * where x is small.
 */
int32_t divide(job &j, const form &f, int32_t n_sm, int64_t most) {
    const int32_t fewest = units_per_block(j, 2 * n_sm); /* the tiles must not depend on the rows */
    const int32_t tiles = j.swiglu ? (fewest == 1 ? 2 : 4) : fewest == 1 ? 1 : fewest == 2 ? 2 : 4;
    const int32_t pass_units = j.swiglu ? tiles / 2 : tiles;
    j.n_step = ceil_div(ceil_div(j.n_run, WARPS), SLOTS / tiles);
    j.chunk = j.n_step;
    const bool two = static_cast<int64_t>(j.n_row) * j.n_in * 2 <= TWO_BYTES;
    j.n_unit = two ? fewest : units_per_block(j, n_sm);
    j.per_pass = ceil_div(j.n_unit, ceil_div(j.n_unit, pass_units));
    const int64_t half = most / 2 - 1024;
    if (fit(j, f, tiles, two ? 4 : MAX_DEPTH, two ? 3 : 4, half)) return tiles;
    if (fit(j, f, tiles, MAX_DEPTH, 3, most)) return tiles;
    /* Not all of x at a time, which a norm would need. */
    while (j.norm == nullptr && j.chunk > 1 && !fit(j, f, tiles, 4, 4, half)) j.chunk = ceil_div(j.chunk, 2);
    return fit(j, f, tiles, 4, 1, most) ? tiles : 0;
}

struct size {
    int32_t n_block;
    int64_t bytes, most; /* of shared memory: of the launch, and of a block of threads on the device */
};

template <class Format, int TILES> cudaError_t start(cudaStream_t stream, const job &j, const size &s, bool chained) {
    const auto entry = j.n_row > 8 ? kernel<Format, TILES, 2> : kernel<Format, TILES, 1>;
    cudaError_t error =
        cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(s.most));
    if (error != cudaSuccess) return error;
    /* An SM must be empty to change its split of L1: kernels that overlap must agree on it. */
    error = cudaFuncSetAttribute(entry, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
    return launch(entry, dim3(static_cast<unsigned>(s.n_block)), dim3(THREADS), static_cast<size_t>(s.bytes), stream,
                  chained, j);
}

template <class Format>
cudaError_t start_tiles(cudaStream_t stream, const job &j, int32_t tiles, const size &s, bool chained) {
    return tiles == 1   ? start<Format, 1>(stream, j, s, chained)
           : tiles == 2 ? start<Format, 2>(stream, j, s, chained)
                        : start<Format, 4>(stream, j, s, chained);
}

cudaError_t start_format(cudaStream_t stream, const job &j, const form &f, int32_t tiles, const size &s, bool chained) {
    if (!f.is_quantized) return start_tiles<bf16_format>(stream, j, tiles, s, chained);
    if (!f.has_output_scales) return start_tiles<fp8_format>(stream, j, tiles, s, chained);
    return f.n_block == 2   ? start_tiles<affine_format<8>>(stream, j, tiles, s, chained)
           : f.n_block == 4 ? start_tiles<affine_format<4>>(stream, j, tiles, s, chained)
                            : start_tiles<affine_format<2>>(stream, j, tiles, s, chained);
}

/* What does not depend on the rows. */
job job_of(const qni_cuda_skinny &s, const qni_weight *w, int32_t n_weight, int32_t column) {
    job j = {};
    const form f = form_of(*w);
    j.swiglu = s.epilogue == QNI_CUDA_SWIGLU;
    j.n_in = static_cast<int32_t>(w->n_in);
    j.n_run = ceil_div(j.n_in, 32 * f.n_block);
    j.row_bytes = j.n_run * RUN_BYTES;
    j.x_dtype = s.x.dtype;
    j.out_dtype = s.out.dtype;
    j.add_dtype = s.add.dtype;
    j.norm = s.norm.data;
    j.norm_dtype = s.norm.dtype;
    j.eps = static_cast<float>(s.eps);
    if (f.is_quantized) set_scales(j, *w, f);
    set_parts(j, w, n_weight, column);
    return j;
}

/* Launch for weights that are alike; their outputs start at `column` of those of the whole job. */
cudaError_t run(cudaStream_t stream, const qni_cuda_skinny &s, const qni_weight *w, int32_t n_weight, int32_t column,
                int32_t n_sm, bool chained) {
    int device, most;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const form f = form_of(*w);
    /* As many rows at a time as there is shared memory for: all, but for a norm of very many inputs. */
    int32_t n = static_cast<int32_t>(s.x.n_row);
    for (int32_t done = 0; done < s.x.n_row && error == cudaSuccess; done += n) {
        job j = job_of(s, w, n_weight, column);
        j.paced = chained;
        int32_t tiles = 0;
        for (n = static_cast<int32_t>(s.x.n_row) - done;; n = ceil_div(n, 2)) {
            j.n_row = n;
            tiles = divide(j, f, n_sm, most);
            if (tiles > 0) break;
            if (n == 1) return cudaErrorInvalidValue;
        }
        set_rows(j.x, s.x, done, n);
        set_rows(j.out, s.out, done, n);
        if (s.epilogue == QNI_CUDA_ADD) set_rows(j.add, s.add, done, n);
        size size = {0, lay_out(j, f, tiles), most};
        for (int32_t i = 0; i < (j.swiglu ? 1 : n_weight); i++) {
            j.parts[i].first_block = size.n_block;
            size.n_block += ceil_div(j.parts[i].n_tile, j.n_unit);
        }
        error = start_format(stream, j, f, tiles, size, chained);
    }
    return error;
}

} // namespace
} // namespace qni::skinny

extern "C" bool qni_cuda_skinny_takes(const qni_weight *w) {
    if (!w->packed || w->arith != QN_ARITH_BF16) return false;
    if (w->n_in < 32 || w->n_in % 32 != 0 || w->n_in > 1 << 18) return false;
    if (w->n_out < 8 || w->n_out % 8 != 0 || w->n_out > 1 << 30) return false;
    const qni_quant &q = w->quant;
    if (q.kind == QNI_DENSE)
        return w->dtype == QN_DTYPE_BF16 && w->nr == 1 && w->ki == 1 && w->group_stride == 1 &&
               w->panel_stride == w->n_in;
    if (q.group < 32 || q.group % 32 != 0 || !qni::skinny::is_16bit_or_f32(q.scale_dtype)) return false;
    if (q.kind == QNI_FP8) return q.group_out >= 8 && q.group_out % 8 == 0;
    return q.group_out == 1 && q.bits >= 2 && q.bits <= 8 && q.bits != 7;
}

extern "C" cudaError_t qni_cuda_skinny_run(cudaStream_t stream, const qni_cuda_skinny *job, int32_t n_sm,
                                           bool chained) {
    using namespace qni::skinny;
    const bool swiglu = job->epilogue == QNI_CUDA_SWIGLU;
    if (job->x.n_row < 0 || job->x.n_row > ROWS || job->n_weight < 1 || job->n_weight > 3) return cudaErrorInvalidValue;
    if (reinterpret_cast<uintptr_t>(job->norm.data) % 16 != 0) return cudaErrorInvalidValue;
    if (swiglu && (job->n_weight != 2 || !are_alike(job->w[0], job->w[1]) || job->w[0].n_out != job->w[1].n_out))
        return cudaErrorInvalidValue;
    if (job->x.n_row == 0) return cudaSuccess;
    int64_t column = 0;
    for (int32_t first = 0, n; first < job->n_weight; first += n) {
        for (n = 1; first + n < job->n_weight && are_alike(job->w[first], job->w[first + n]);) n++;
        const cudaError_t error = run(stream, *job, job->w + first, n, static_cast<int32_t>(column), n_sm, chained);
        if (error != cudaSuccess) return error;
        for (int32_t i = 0; i < n; i++) column += job->w[first + i].n_out;
    }
    return cudaSuccess;
}
