/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of activations in the layouts that products read. A tile of rows is first computed in f32 (converted, normed),
 * then stored once per layout. A single f32 row that needs no change is used in place.
 */
#include "../base/cut.h"
#include "cpu.h"

#include <string.h>

enum { ELEMENTS_A_TASK = QNI_CUT(1 << 14, 1 << 7) }; /* below this, a parallel loop costs more than it saves */

/* The layout that a weight needs, without a buffer. */
static qni_cpu_encoding wanted_by(const qni_cpu_kernels *k, const qni_weight *w) {
    qni_cpu_encoding e = {.arith = w->arith};
    if (w->arith == QN_ARITH_INT8) {
        e.group = w->quant.group;
        e.words = qni_cpu_int8_of(k, w->quant.bits)->widen != NULL;
    }
    return e;
}

static bool is_same(const qni_cpu_encoding *a, const qni_cpu_encoding *b) {
    return a->arith == b->arith && a->group == b->group && a->words == b->words;
}

const qni_cpu_encoding *qni_cpu_encoding_of(const qni_cpu_kernels *k, const qni_cpu_input *input,
                                            const qni_weight *weight) {
    const qni_cpu_encoding wanted = wanted_by(k, weight);
    const qni_cpu_encoding *e = input->encodings;
    while (!is_same(e, &wanted)) e++;
    return e;
}

/* Parts of an INT8 tile: codes in rows of code_stride bytes, then scales, sums and, with words, the sums of even
 * inputs. The stride is an odd number of cache lines: rows a power of two apart would map to the same L1 sets. */
static int64_t code_stride(const qni_cpu_input *input, const qni_cpu_encoding *e) {
    return (qni_ceil_div(input->n_col * (e->words ? 2 : 1), QNI_ALIGN) | 1) * QNI_ALIGN;
}

static int64_t tile_bytes(const qni_cpu_input *input, const qni_cpu_encoding *e) {
    const int64_t mr = input->mr;
    switch (e->arith) {
    case QN_ARITH_BF16:
        return mr * (input->n_col + input->n_col % 2) * 2;
    case QN_ARITH_INT8:
        return mr * code_stride(input, e) + mr * (input->n_col / e->group) * (e->words ? 12 : 8);
    default:
        return mr * input->n_col * 4;
    }
}

qni_cpu_codes qni_cpu_codes_of(const qni_cpu_input *input, const qni_cpu_encoding *e, int64_t tile) {
    unsigned char *data = e->data + tile * e->tile_bytes;
    const int64_t m = qni_cpu_tile_rows(input, tile), n_group = input->n_col / e->group;
    qni_cpu_codes codes = {.codes = data, .stride = code_stride(input, e)};
    data += m * codes.stride;
    codes.scale = (const float *)(const void *)data;
    codes.sum = (const int32_t *)(const void *)(data + m * n_group * 4);
    if (e->words) codes.even = codes.sum + m * n_group;
    return codes;
}

qni_cpu_input qni_cpu_take_input(const qni_run *run, int64_t n_row, const qni_weight *const *weights, int32_t n) {
    const qni_cpu *cpu = qni_cpu_of(run);
    qni_cpu_input input = {.n_row = n_row, .n_col = weights[0]->n_in, .mr = cpu->kernels.mr};
    for (int32_t i = 0; i < n; i++) {
        qni_cpu_encoding e = wanted_by(&cpu->kernels, weights[i]);
        int32_t at = 0;
        while (at < input.n_encoding && !is_same(&input.encodings[at], &e)) at++;
        if (at < input.n_encoding) continue;
        e.tile_bytes = tile_bytes(&input, &e);
        int64_t bytes = n_row < input.mr ? qni_ceil_div(e.tile_bytes * n_row, input.mr) : e.tile_bytes;
        e.data = qni_scratch_array(run->scratch, qni_ceil_div(n_row, input.mr), bytes, 1);
        input.encodings[input.n_encoding++] = e;
    }
    input.rows = qni_cpu_take_floats(run, cpu->n_thread * input.mr * input.n_col);
    return input;
}

typedef struct encode_job {
    const qni_cpu_kernels *k;
    const qni_cpu_input *input;
    qni_mat x;
    const float *norm;
    double eps;
    int64_t tiles_a_task;
} encode_job;

static void put_f32(float *out, const float *rows, int64_t m, int64_t n_col) {
    for (int64_t r = 0; r < m; r++) {
        for (int64_t i = 0; i < n_col; i++) out[i * m + r] = rows[r * n_col + i];
    }
}

/* Rounds the rows in place first: the f32 layout, which is written earlier, no longer needs `rows`. */
static void put_pairs(const qni_cpu_kernels *k, uint16_t *out, float *rows, int64_t m, int64_t n_col) {
    for (int64_t r = 0; r < m; r++) {
        uint16_t *row = (uint16_t *)(void *)(rows + r * n_col);
        k->narrow[QNI_CPU_BF16](row, rows + r * n_col, n_col);
        uint16_t *to = out + 2 * r;
        int64_t i = 0;
        for (; i + 2 <= n_col; i += 2) memcpy(to + i * m, row + i, 2 * sizeof *to);
        if (i < n_col) to[i * m] = row[i], to[i * m + 1] = 0;
    }
}

static void put_codes(const encode_job *j, const qni_cpu_encoding *e, int64_t tile, const float *rows, int64_t m) {
    const int64_t n_col = j->input->n_col, n_group = n_col / e->group;
    const qni_cpu_codes to = qni_cpu_codes_of(j->input, e, tile);
    for (int64_t r = 0; r < m; r++) { /* const only for readers */
        int8_t *codes = (int8_t *)(uintptr_t)(to.codes + r * to.stride);
        int16_t *words = (int16_t *)(void *)codes;
        if (e->words) codes += n_col;
        j->k->quantize(codes, (float *)(uintptr_t)(to.scale + r * n_group),
                       (int32_t *)(uintptr_t)(to.sum + r * n_group), rows + r * n_col, n_col, e->group);
        if (!e->words) continue;
        j->k->int8[QNI_CPU_8_BITS].widen(words, (int32_t *)(uintptr_t)(to.even + r * n_group), codes, n_col, e->group);
    }
}

static void encode_tile(const encode_job *j, int64_t tile, float *rows) {
    const qni_cpu_input *input = j->input;
    const int64_t m = qni_cpu_tile_rows(input, tile), n_col = input->n_col;
    for (int64_t r = 0; r < m; r++) {
        float *row = rows + r * n_col;
        j->k->widen[qni_cpu_dtype(j->x.dtype)](row, qni_mat_row(&j->x, tile * input->mr + r), n_col);
        if (j->norm != NULL) qni_cpu_norm_row(j->k, row, row, j->norm, n_col, j->eps);
    }
    for (int32_t i = 0; i < input->n_encoding; i++) {
        const qni_cpu_encoding *e = &input->encodings[i];
        void *out = e->data + tile * e->tile_bytes;
        if (e->arith == QN_ARITH_F32) put_f32(out, rows, m, n_col);
        if (e->arith == QN_ARITH_INT8) put_codes(j, e, tile, rows, m);
    }
    for (int32_t i = 0; i < input->n_encoding; i++) {
        const qni_cpu_encoding *e = &input->encodings[i];
        void *out = e->data + tile * e->tile_bytes;
        if (e->arith == QN_ARITH_BF16) put_pairs(j->k, out, rows, m, n_col);
    }
}

static void encode_task(void *context, int32_t task, int32_t thread) {
    const encode_job *j = context;
    const qni_cpu_input *input = j->input;
    int64_t first = task * j->tiles_a_task;
    int64_t end = qni_min_i64(first + j->tiles_a_task, qni_ceil_div(input->n_row, input->mr));
    float *rows = input->rows + thread * input->mr * input->n_col;
    for (int64_t tile = first; tile < end; tile++) encode_tile(j, tile, rows);
}

void qni_cpu_encode(const qni_run *run, qni_cpu_input *input, qni_mat x, const float *norm, double eps) {
    qni_cpu *cpu = qni_cpu_of(run);
    qni_cpu_encoding *e = &input->encodings[0];
    if (input->n_row == 1 && input->n_encoding == 1 && e->arith == QN_ARITH_F32 && norm == NULL &&
        x.dtype == QN_DTYPE_F32) {
        e->data = qni_mat_row(&x, 0);
        return;
    }
    encode_job j = {&cpu->kernels, input, x, norm, eps, 0};
    j.tiles_a_task = qni_ceil_div(ELEMENTS_A_TASK, input->mr * input->n_col);
    int64_t n_tile = qni_ceil_div(input->n_row, input->mr);
    qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(n_tile, j.tiles_a_task), encode_task, &j);
}
