/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of activations in the layouts that products read. A tile of rows is first computed in f32 (converted, normed),
 * then stored once per layout. A single f32 row that needs no change is used in place.
 */
#include "../base/cut.h"
#include "cpu.h"

#include <string.h>

enum { ELEMENTS_PER_TASK = QNI_CUT(1 << 14, 1 << 7) }; /* below this, a parallel loop costs more than it saves */

/* The layout that a weight needs, without a buffer. */
static qni_cpu_row_layout layout_for(const qni_cpu_kernels *k, const qni_weight *w) {
    qni_cpu_row_layout layout = {.arith = w->arith};
    if (w->arith == QN_ARITH_INT8) {
        layout.group = w->quant.group;
        layout.words = qni_cpu_int8_of(k, w->quant.bits)->widen != NULL;
    }
    return layout;
}

static bool is_same_layout(const qni_cpu_row_layout *a, const qni_cpu_row_layout *b) {
    return a->arith == b->arith && a->group == b->group && a->words == b->words;
}

const qni_cpu_row_layout *qni_cpu_row_layout_of(const qni_cpu_kernels *k, const qni_cpu_input *input,
                                                const qni_weight *weight) {
    const qni_cpu_row_layout wanted = layout_for(k, weight);
    const qni_cpu_row_layout *layout = input->layouts;
    while (!is_same_layout(layout, &wanted)) layout++;
    return layout;
}

/* Parts of an INT8 tile: codes in rows of code_stride bytes, then scales, sums and, with words, the sums of even
 * inputs. The stride is an odd number of cache lines: rows a power of two apart would map to the same L1 sets. */
static int64_t code_stride(const qni_cpu_input *input, const qni_cpu_row_layout *layout) {
    return (qni_ceil_div(input->n_col * (layout->words ? 2 : 1), QNI_ALIGN) | 1) * QNI_ALIGN;
}

static int64_t tile_bytes(const qni_cpu_input *input, const qni_cpu_row_layout *layout) {
    const int64_t mr = input->mr;
    switch (layout->arith) {
    case QN_ARITH_BF16:
        return mr * (input->n_col + input->n_col % 2) * 2;
    case QN_ARITH_INT8:
        return mr * code_stride(input, layout) + mr * (input->n_col / layout->group) * (layout->words ? 12 : 8);
    default:
        return mr * input->n_col * 4;
    }
}

qni_cpu_codes qni_cpu_codes_of(const qni_cpu_input *input, const qni_cpu_row_layout *layout, int64_t tile) {
    unsigned char *data = layout->data + tile * layout->tile_bytes;
    const int64_t m = qni_cpu_tile_rows(input, tile), n_group = input->n_col / layout->group;
    qni_cpu_codes codes = {.codes = data, .stride = code_stride(input, layout)};
    data += m * codes.stride;
    codes.scale = (const float *)(const void *)data;
    codes.sum = (const int32_t *)(const void *)(data + m * n_group * 4);
    if (layout->words) codes.even = codes.sum + m * n_group;
    return codes;
}

qni_cpu_input qni_cpu_alloc_input(const qni_run *run, int64_t n_row, const qni_weight *const *weights, int32_t n) {
    const qni_cpu *cpu = qni_cpu_of(run);
    qni_cpu_input input = {.n_row = n_row, .n_col = weights[0]->n_in, .mr = cpu->kernels.mr};
    for (int32_t i = 0; i < n; i++) {
        qni_cpu_row_layout layout = layout_for(&cpu->kernels, weights[i]);
        int32_t index = 0;
        while (index < input.n_layout && !is_same_layout(&input.layouts[index], &layout)) index++;
        if (index < input.n_layout) continue;
        layout.tile_bytes = tile_bytes(&input, &layout);
        int64_t bytes = n_row < input.mr ? qni_ceil_div(layout.tile_bytes * n_row, input.mr) : layout.tile_bytes;
        layout.data = qni_scratch_array(run->scratch, qni_ceil_div(n_row, input.mr), bytes, 1);
        input.layouts[input.n_layout++] = layout;
    }
    input.rows = qni_cpu_alloc_floats(run, cpu->n_thread * input.mr * input.n_col);
    return input;
}

typedef struct pack_job {
    const qni_cpu_kernels *k;
    const qni_cpu_input *input;
    qni_mat x;
    const float *norm;
    double eps;
    int64_t tiles_per_task;
} pack_job;

/* A tile's rows in f32: those of a matrix, or normed or converted ones in scratch. */
typedef struct tile_rows {
    const qni_mat *matrix; /* NULL: in scratch */
    int64_t first;         /* row of the matrix */
    float *scratch;        /* {m, n_col} */
} tile_rows;

static const float *row_at(const tile_rows *rows, int64_t r, int64_t n_col) {
    return rows->matrix != NULL ? qni_mat_row(rows->matrix, rows->first + r) : rows->scratch + r * n_col;
}

static void store_tile_f32(float *out, const tile_rows *rows, int64_t m, int64_t n_col) {
    for (int64_t r = 0; r < m; r++) {
        const float *row = row_at(rows, r, n_col);
        for (int64_t i = 0; i < n_col; i++) out[i * m + r] = row[i];
    }
}

/* Rounds the rows in scratch first: the layouts that are written earlier no longer need them. */
static void store_tile_pairs(const qni_cpu_kernels *k, uint16_t *out, const tile_rows *rows, int64_t m, int64_t n_col) {
    for (int64_t r = 0; r < m; r++) {
        uint16_t *row = (uint16_t *)(void *)(rows->scratch + r * n_col);
        k->narrow[QNI_CPU_BF16](row, row_at(rows, r, n_col), n_col);
        uint16_t *to = out + 2 * r;
        int64_t i = 0;
        for (; i + 2 <= n_col; i += 2) memcpy(to + i * m, row + i, 2 * sizeof *to);
        if (i < n_col) to[i * m] = row[i], to[i * m + 1] = 0;
    }
}

static void store_tile_codes(const pack_job *j, const qni_cpu_row_layout *layout, int64_t tile, const tile_rows *rows,
                             int64_t m) {
    const int64_t n_col = j->input->n_col, n_group = n_col / layout->group;
    const qni_cpu_codes to = qni_cpu_codes_of(j->input, layout, tile);
    for (int64_t r = 0; r < m; r++) { /* const only for readers */
        int8_t *codes = (int8_t *)(uintptr_t)(to.codes + r * to.stride);
        int16_t *words = (int16_t *)(void *)codes;
        if (layout->words) codes += n_col;
        j->k->quantize(codes, (float *)(uintptr_t)(to.scale + r * n_group),
                       (int32_t *)(uintptr_t)(to.sum + r * n_group), row_at(rows, r, n_col), n_col, layout->group);
        if (!layout->words) continue;
        j->k->int8[QNI_CPU_8_BITS].widen(words, (int32_t *)(uintptr_t)(to.even + r * n_group), codes, n_col,
                                         layout->group);
    }
}

static tile_rows load_rows(const pack_job *j, int64_t tile, int64_t m, float *scratch) {
    const int64_t n_col = j->input->n_col, first = tile * j->input->mr;
    const bool is_f32 = j->x.dtype == QN_DTYPE_F32;
    if (is_f32 && j->norm == NULL) return (tile_rows){&j->x, first, scratch};
    for (int64_t r = 0; r < m; r++) {
        float *to = scratch + r * n_col;
        const float *row = is_f32 ? qni_mat_row(&j->x, first + r) : to;
        if (!is_f32) j->k->widen[qni_cpu_dtype(j->x.dtype)](to, qni_mat_row(&j->x, first + r), n_col);
        if (j->norm != NULL) qni_cpu_norm_row(j->k, to, row, j->norm, n_col, j->eps);
    }
    return (tile_rows){NULL, 0, scratch};
}

static void pack_tile(const pack_job *j, int64_t tile, float *scratch) {
    const qni_cpu_input *input = j->input;
    const int64_t m = qni_cpu_tile_rows(input, tile), n_col = input->n_col;
    const tile_rows rows = load_rows(j, tile, m, scratch);
    for (int32_t i = 0; i < input->n_layout; i++) {
        const qni_cpu_row_layout *layout = &input->layouts[i];
        void *out = layout->data + tile * layout->tile_bytes;
        if (layout->arith == QN_ARITH_F32) store_tile_f32(out, &rows, m, n_col);
        if (layout->arith == QN_ARITH_INT8) store_tile_codes(j, layout, tile, &rows, m);
    }
    for (int32_t i = 0; i < input->n_layout; i++) {
        const qni_cpu_row_layout *layout = &input->layouts[i];
        void *out = layout->data + tile * layout->tile_bytes;
        if (layout->arith == QN_ARITH_BF16) store_tile_pairs(j->k, out, &rows, m, n_col);
    }
}

static void pack_task(void *context, int32_t task, int32_t thread) {
    const pack_job *j = context;
    const qni_cpu_input *input = j->input;
    int64_t first = task * j->tiles_per_task;
    int64_t end = qni_min_i64(first + j->tiles_per_task, qni_ceil_div(input->n_row, input->mr));
    float *rows = input->rows + thread * input->mr * input->n_col;
    for (int64_t tile = first; tile < end; tile++) pack_tile(j, tile, rows);
}

void qni_cpu_pack_rows(const qni_run *run, qni_cpu_input *input, qni_mat x, const float *norm, double eps) {
    qni_cpu *cpu = qni_cpu_of(run);
    qni_cpu_row_layout *layout = &input->layouts[0];
    if (input->n_row == 1 && input->n_layout == 1 && layout->arith == QN_ARITH_F32 && norm == NULL &&
        x.dtype == QN_DTYPE_F32) {
        layout->data = qni_mat_row(&x, 0);
        return;
    }
    pack_job j = {&cpu->kernels, input, x, norm, eps, 0};
    j.tiles_per_task = qni_ceil_div(ELEMENTS_PER_TASK, input->mr * input->n_col);
    int64_t n_tile = qni_ceil_div(input->n_row, input->mr);
    qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(n_tile, j.tiles_per_task), pack_task, &j);
}
