/* SPDX-License-Identifier: Apache-2.0 */
/* Row ops: norms and the small elementwise ops. */
#include "../base/cut.h"
#include "pack.h"

#include <math.h>

enum {
    ELEMENTS_PER_TASK = QNI_CUT(1 << 14, 1 << 7), /* below this, a parallel loop costs more than it saves */
    LOGITS_PER_TASK = QNI_CUT(1 << 14, 1 << 6),
};

float *qni_cpu_alloc_floats(const qni_run *run, int64_t n) {
    return qni_scratch_array(run->scratch, 1, n, sizeof(float));
}

const float *qni_cpu_widen_vec(const qni_run *run, qni_vec vec) {
    if (vec.data == NULL) return NULL;
    float *out = qni_cpu_alloc_floats(run, vec.n);
    if (!qni_scratch_measures(run->scratch)) {
        qni_cpu_of(run)->kernels.widen[qni_cpu_dtype(vec.dtype)](out, vec.data, vec.n);
    }
    return out;
}

void qni_cpu_norm_row(const qni_cpu_kernels *k, float *out, const float *x, const float *w, int64_t n, double eps) {
    double mean = k->sum_squares(x, n) / (double)n;
    k->scale_mul(out, x, (float)(1.0 / sqrt(mean + eps)), w, n);
}

/* Rows per task of elementwise work. */
static int64_t rows_per_task(int64_t n_col) {
    return qni_max_i64(1, ELEMENTS_PER_TASK / n_col);
}

typedef struct row_job {
    const qni_cpu_kernels *k;
    qni_mat out, x, y;
    const float *norm;
    double eps;
    const qni_weight *table;
    const int32_t *ids;
    float *scratch; /* {n_thread}, each n_col + n_second floats */
    int64_t n_second;
    int64_t rows_per_task;
    void (*row)(const struct row_job *j, int64_t r, float *a, float *b);
} row_job;

static void row_task(void *context, int32_t task, int32_t thread) {
    const row_job *j = context;
    float *a = j->scratch + thread * (j->out.n_col + j->n_second);
    int64_t first = task * j->rows_per_task;
    int64_t end = qni_min_i64(first + j->rows_per_task, j->out.n_row);
    for (int64_t r = first; r < end; r++) j->row(j, r, a, a + j->out.n_col);
}

/* Run j.row over the rows of j.out. */
static qn_status run_rows(const qni_run *run, row_job j) {
    qni_cpu *cpu = qni_cpu_of(run);
    j.k = &cpu->kernels;
    j.n_second = qni_max_i64(j.out.n_col, cpu->kernels.kc * cpu->kernels.nr);
    j.scratch = qni_cpu_alloc_floats(run, cpu->n_thread * (j.out.n_col + j.n_second));
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    j.rows_per_task = rows_per_task(j.out.n_col);
    qni_pool_run(cpu->pool, (int32_t)qni_ceil_div(j.out.n_row, j.rows_per_task), row_task, &j);
    return QN_OK;
}

static void store_row(const row_job *j, int64_t r, const float *row) {
    j->k->narrow[qni_cpu_dtype(j->out.dtype)](qni_mat_row(&j->out, r), row, j->out.n_col);
}

static void norm_row(const row_job *j, int64_t r, float *a, float *b) {
    (void)b;
    j->k->widen[qni_cpu_dtype(j->x.dtype)](a, qni_mat_row(&j->x, r), j->x.n_col);
    qni_cpu_norm_row(j->k, a, a, j->norm, j->x.n_col, j->eps);
    store_row(j, r, a);
}

static void swiglu_row(const row_job *j, int64_t r, float *a, float *b) {
    j->k->widen[qni_cpu_dtype(j->x.dtype)](a, qni_mat_row(&j->x, r), j->x.n_col);
    j->k->widen[qni_cpu_dtype(j->y.dtype)](b, qni_mat_row(&j->y, r), j->x.n_col);
    j->k->swiglu(a, a, b, j->x.n_col);
    store_row(j, r, a);
}

static void embed_row(const row_job *j, int64_t r, float *a, float *b) {
    qni_cpu_read_output(j->k, a, j->table, j->ids[r], b);
    store_row(j, r, a);
}

qn_status qni_cpu_op_embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids) {
    size_t mark = run->scratch->used;
    qn_status status = run_rows(run, (row_job){.out = out, .table = table, .ids = ids, .row = embed_row});
    qni_scratch_reset(run->scratch, mark);
    return status;
}

qn_status qni_cpu_op_rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    size_t mark = run->scratch->used;
    const float *norm = qni_cpu_widen_vec(run, weight);
    qn_status status = run_rows(run, (row_job){.out = out, .x = x, .norm = norm, .eps = eps, .row = norm_row});
    qni_scratch_reset(run->scratch, mark);
    return status;
}

qn_status qni_cpu_op_swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up) {
    size_t mark = run->scratch->used;
    qn_status status = run_rows(run, (row_job){.out = out, .x = gate, .y = up, .row = swiglu_row});
    qni_scratch_reset(run->scratch, mark);
    return status;
}

typedef struct argmax_job {
    const qni_cpu_kernels *k;
    qni_mat logits;
    int64_t n_valid, n_chunk;
    float *scratch; /* {n_thread, LOGITS_PER_TASK} */
    int64_t *best;  /* {n_row, n_chunk}: index in the row, or -1 */
} argmax_job;

/* A chunk of a row of logits as f32. */
static const float *logits_chunk(const argmax_job *j, int64_t row, int64_t first, int64_t n, float *scratch) {
    const unsigned char *data = qni_mat_row(&j->logits, row);
    data += (size_t)first * qn_dtype_bytes(j->logits.dtype);
    if (j->logits.dtype == QN_DTYPE_F32) return (const float *)(const void *)data;
    j->k->widen[qni_cpu_dtype(j->logits.dtype)](scratch, data, n);
    return scratch;
}

static void argmax_task(void *context, int32_t task, int32_t thread) {
    const argmax_job *j = context;
    int64_t first = task % j->n_chunk * LOGITS_PER_TASK;
    int64_t n = qni_min_i64(LOGITS_PER_TASK, j->n_valid - first);
    float *scratch = j->scratch + (int64_t)thread * LOGITS_PER_TASK;
    int64_t best = j->k->argmax(logits_chunk(j, task / j->n_chunk, first, n, scratch), n);
    j->best[task] = best < 0 ? -1 : first + best;
}

/* The best of a row's chunks, scanned in ascending order so that the lowest index wins; -1: a NaN. */
static int64_t best_of_row(const argmax_job *j, int64_t row) {
    int64_t best = -1;
    float best_value = 0;
    for (int64_t p = 0; p < j->n_chunk; p++) {
        int64_t id = j->best[row * j->n_chunk + p];
        if (id < 0) return -1;
        float buffer, value = *logits_chunk(j, row, id, 1, &buffer);
        if (best < 0 || value > best_value) {
            best = id;
            best_value = value;
        }
    }
    return best;
}

qn_status qni_cpu_op_argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid) {
    qni_cpu *cpu = qni_cpu_of(run);
    size_t mark = run->scratch->used;
    argmax_job j = {.k = &cpu->kernels, .logits = logits, .n_valid = n_valid};
    j.n_chunk = qni_ceil_div(n_valid, LOGITS_PER_TASK);
    j.scratch = qni_cpu_alloc_floats(run, (int64_t)cpu->n_thread * LOGITS_PER_TASK);
    j.best = qni_scratch_take(run->scratch, (size_t)(logits.n_row * j.n_chunk) * sizeof *j.best);
    qn_status status = QN_OK;
    if (!qni_scratch_measures(run->scratch)) {
        qni_pool_run(cpu->pool, (int32_t)(logits.n_row * j.n_chunk), argmax_task, &j);
        for (int64_t r = 0; r < logits.n_row && status == QN_OK; r++) {
            if (best_of_row(&j, r) < 0) {
                status = qni_fail(run->err, QN_ENUMERIC, "logits of row %lld hold a NaN", (long long)r);
            }
        }
        for (int64_t r = 0; r < logits.n_row && status == QN_OK; r++) ids[r] = (uint32_t)best_of_row(&j, r);
    }
    qni_scratch_reset(run->scratch, mark);
    return status;
}
