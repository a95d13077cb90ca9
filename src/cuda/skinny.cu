/* SPDX-License-Identifier: Apache-2.0 */
/* Few rows times a weight: which kernel, and how its work is divided. */
#include "skinny_kernel.cuh"

namespace qni::skinny {
namespace {

constexpr int64_t X_BYTES = 48 << 10; /* of x, that a block of threads holds: two of them fit on an SM beside others */

/* Blocks of 32 inputs in a run. */
int32_t blocks_of(const qni_weight &w) {
    return w.quant.kind == QNI_DENSE ? 1 : 16 / qni_cuda_width(&w.quant);
}

/* Whether one launch can take both. */
bool are_alike(const qni_weight &a, const qni_weight &b) {
    const qni_quant &p = a.quant, &q = b.quant;
    if (a.n_in != b.n_in || p.kind != q.kind) return false;
    return p.kind == QNI_DENSE || (p.bits == q.bits && p.group == q.group && p.group_out == q.group_out &&
                                   p.scale_dtype == q.scale_dtype && p.symmetric == q.symmetric);
}

int32_t ceil_div(int64_t a, int64_t b) {
    return static_cast<int32_t>((a + b - 1) / b);
}

matrix matrix_of(const qni_mat &m) {
    return {static_cast<unsigned char *>(m.data), m.row_stride * element_bytes(m.dtype), m.dtype};
}

void set_parts(job &j, const qni_weight *w, int32_t n_weight) {
    j.n_part = n_weight;
    for (int32_t i = 0; i < n_weight; i++) {
        part &p = j.parts[i];
        p.codes = static_cast<const unsigned char *>(w[i].data);
        p.first_tile = j.swiglu ? 0 : j.n_tile;
        if (!j.swiglu || i == 0) j.n_tile += static_cast<int32_t>(w[i].n_out / 8);
        if (w[i].quant.kind == QNI_DENSE) continue;
        p.scales = p.codes + qni_cuda_scales_at(&w[i]);
        p.biases = p.codes + qni_cuda_biases_at(&w[i]);
        p.n_scale_out = static_cast<int32_t>(qni_cuda_n_scale_out(&w[i].quant, w[i].n_out));
    }
}

void set_scales(job &j, const qni_weight &w) {
    const qni_quant &q = w.quant;
    while (32ll << j.group_shift < q.group) j.group_shift++;
    j.n_group = static_cast<int32_t>(qni_cuda_n_group(&q, w.n_in));
    j.group_out = static_cast<int32_t>(q.group_out);
    j.scale_dtype = q.scale_dtype;
    j.has_biases = qni_cuda_has_biases(&q);
    const uint32_t center = q.kind == QNI_FP8 ? 0 : 1u << (q.bits - 1);
    j.minus = (0xC300u | center) * 0x10001u;
    j.center = static_cast<float>(center);
}

/* The tiles of a pass. Two share the inputs that are read; one if there are too few tiles for all SMs otherwise. */
int32_t tiles_for(const job &j, bool is_quantized, int32_t n_sm) {
    return is_quantized || j.swiglu || j.n_tile > n_sm ? 2 : 1;
}

/* Lay out shared memory; returns its size. */
int64_t lay_out(job &j, int32_t n_block, int32_t tiles, bool is_quantized) {
    const int64_t run_bytes = 64ll * n_block;
    const int32_t all = ceil_div(j.n_run, WARPS) * WARPS, unit = WARPS * (is_quantized ? 4 : 8) / tiles;
    j.chunk_runs = all;
    if (j.n_row * all * run_bytes > X_BYTES) { /* whole batches of all tiles */
        j.chunk_runs = static_cast<int32_t>(X_BYTES / (j.n_row * run_bytes) / unit) * unit;
        if (j.chunk_runs < unit) j.chunk_runs = unit;
    }
    j.x_stride = static_cast<int32_t>(j.chunk_runs * run_bytes + 64); /* + 64: rows in different banks */
    int64_t at = static_cast<int64_t>(j.n_row) * j.x_stride;
    const auto take = [&at](int32_t &where, int64_t bytes) {
        where = static_cast<int32_t>(at);
        at += (bytes + 127) / 128 * 128;
    };
    at = (at + 127) / 128 * 128;
    const int64_t scales = static_cast<int64_t>(j.n_group) * tiles * 8 * (j.scale_dtype == QN_DTYPE_F32 ? 4 : 2);
    take(j.scales_at, is_quantized ? scales * (j.has_biases ? 2 : 1) : 0);
    take(j.sums_at, j.has_biases ? static_cast<int64_t>(j.chunk_runs) * n_block * ROWS * 4 : 0);
    take(j.squares_at, WARPS * ROWS * 4);
    take(j.partials_at, 2ll * WARPS * j.n_row * (8 * tiles + 4) * 4);
    return at;
}

template <class Format, int TILES>
cudaError_t start(cudaStream_t stream, const job &j, int64_t bytes, int32_t n_sm, bool chained) {
    const auto entry = j.n_row > 8 ? kernel<Format, TILES, 2> : kernel<Format, TILES, 1>;
    const cudaError_t error =
        cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess) return error;
    const int32_t most = 2 * n_sm; /* blocks that stay and take one pass after another */
    const int32_t n_block = j.n_pass <= 2 * most ? j.n_pass : most;
    return launch(entry, dim3(static_cast<unsigned>(n_block)), dim3(THREADS), static_cast<size_t>(bytes), stream, chained,
                  j);
}

template <class Format>
cudaError_t start_tiles(cudaStream_t stream, const job &j, int32_t tiles, int64_t bytes, int32_t n_sm, bool chained) {
    if constexpr (!Format::QUANTIZED) {
        if (tiles == 1) return start<Format, 1>(stream, j, bytes, n_sm, chained);
    }
    return start<Format, 2>(stream, j, bytes, n_sm, chained);
}

/* Launch for weights that are alike; their outputs start at `column` of those of the whole job. */
cudaError_t run(cudaStream_t stream, const qni_cuda_skinny &s, const qni_weight *w, int32_t n_weight, int64_t column,
                int32_t n_sm, bool chained) {
    job j = {};
    const int32_t n_block = blocks_of(*w);
    const bool is_quantized = w->quant.kind != QNI_DENSE;
    j.swiglu = s.epilogue == QNI_CUDA_SWIGLU;
    j.n_row = static_cast<int32_t>(s.x.n_row);
    j.n_in = static_cast<int32_t>(w->n_in);
    j.n_run = ceil_div(j.n_in, 32 * n_block);
    j.row_bytes = is_quantized ? qni_cuda_row_bytes(&w->quant, w->n_in) : 2 * w->n_in;
    j.x = matrix_of(s.x);
    j.out = matrix_of(s.out);
    j.out.data += column * element_bytes(s.out.dtype);
    if (s.epilogue == QNI_CUDA_ADD) {
        j.add = matrix_of(s.add);
        j.add.data += column * element_bytes(s.add.dtype);
    }
    j.norm = s.norm.data;
    j.norm_dtype = s.norm.dtype;
    j.eps = static_cast<float>(s.eps);
    if (is_quantized) set_scales(j, *w);
    set_parts(j, w, n_weight);
    const int32_t tiles = tiles_for(j, is_quantized, n_sm);
    j.n_pass = ceil_div(j.n_tile, j.swiglu ? tiles / 2 : tiles);
    const int64_t bytes = lay_out(j, n_block, tiles, is_quantized);
    if (!is_quantized) return start_tiles<bf16_format>(stream, j, tiles, bytes, n_sm, chained);
    if (w->quant.kind == QNI_FP8) return start_tiles<fp8_format>(stream, j, tiles, bytes, n_sm, chained);
    return n_block == 2   ? start_tiles<affine_format<8>>(stream, j, tiles, bytes, n_sm, chained)
           : n_block == 4 ? start_tiles<affine_format<4>>(stream, j, tiles, bytes, n_sm, chained)
                          : start_tiles<affine_format<2>>(stream, j, tiles, bytes, n_sm, chained);
}

} // namespace
} // namespace qni::skinny

extern "C" bool qni_cuda_skinny_takes(const qni_weight *w) {
    if (!w->packed || w->arith != QN_ARITH_BF16) return false;
    if (w->n_in < 32 || w->n_in % 32 != 0 || w->n_in > 1 << 18) return false;
    if (w->n_out < 8 || w->n_out % 8 != 0 || w->n_out > 1 << 30) return false;
    const qni_quant &q = w->quant;
    if (q.kind == QNI_DENSE) return w->dtype == QN_DTYPE_BF16;
    if (q.group < 32 || (q.group & (q.group - 1)) != 0) return false;
    /* All scales of a pass are in shared memory at a time. */
    const int64_t scales = qni_cuda_n_group(&q, w->n_in) * 16 * qni_cuda_scale_element(&q);
    if (scales * (qni_cuda_has_biases(&q) ? 2 : 1) > 128 << 10) return false;
    if (q.kind == QNI_FP8) return q.group_out >= 8 && q.group_out % 8 == 0;
    return q.group_out == 1 && q.bits >= 2 && q.bits <= 8 && q.bits != 7;
}

extern "C" cudaError_t qni_cuda_skinny_run(cudaStream_t stream, const qni_cuda_skinny *job, int32_t n_sm,
                                           bool chained) {
    using namespace qni::skinny;
    const bool swiglu = job->epilogue == QNI_CUDA_SWIGLU;
    if (job->x.n_row < 0 || job->x.n_row > ROWS || job->n_weight < 1 || job->n_weight > 3) return cudaErrorInvalidValue;
    if (swiglu && (job->n_weight != 2 || !are_alike(job->w[0], job->w[1]) || job->w[0].n_out != job->w[1].n_out)) {
        return cudaErrorInvalidValue;
    }
    if (job->norm.data != nullptr && job->w[0].n_in % 128 != 0) return cudaErrorInvalidValue;
    if (job->x.n_row == 0) return cudaSuccess;
    int64_t column = 0;
    for (int32_t first = 0, n; first < job->n_weight; first += n) {
        for (n = 1; first + n < job->n_weight && are_alike(job->w[first], job->w[first + n]);) n++;
        const cudaError_t error = run(stream, *job, job->w + first, n, column, n_sm, chained);
        if (error != cudaSuccess) return error;
        for (int32_t i = 0; i < n; i++) column += job->w[first + i].n_out;
    }
    return cudaSuccess;
}
