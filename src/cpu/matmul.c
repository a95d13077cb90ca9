/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of rows with weights. Work is split over groups of panels (and blocks of rows), never over inputs.
 *
 * f32 arithmetic: with at most one tile of rows (decode), the packed panels are streamed once, sequentially, n_stream
 * at a time, and converted on the fly. With more rows (prefill), a block of kc inputs of a group of panels is unpacked
 * to f32 once and all tiles run over it. Plain and quantized weights are gathered or unpacked into the same blocks.
 * bf16 and int8 arithmetic read the packed panels in place for any number of rows. The summation order is the same in
 * all cases.
 */
#include "../base/cut.h"
#include "pack.h"

enum {
    GROUP = 4,                     /* panels per task with many rows; 4 blocks of kc x nr floats fit in L2 */
    GROUP_DECODE = 32,             /* maximum panels per task with one tile of rows */
    BLOCK_ROWS = QNI_CUT(512, 32), /* approximate maximum rows per task: its sums fit in L2 */
    SUB_TILES = QNI_CUT(32, 2),    /* tiles run over one panel before the next: their inputs fit in L2 */
    FEW_TILES = 4, /* up to here converting 16-bit panels again on the fly is cheaper than going through memory */
    TASKS_PER_THREAD = 8, /* so that threads finish together */
};

typedef struct job {
    const qni_cpu_kernels *k;
    const qni_cpu_input *x;
    const qni_cpu_product *products;
    int32_t n_product;
    int64_t group;      /* panels per task */
    int64_t block_tile; /* tiles per task */
    int64_t n_block;
    float *scratch;
    int64_t scratch_floats; /* per thread */
} job;

/* Per-thread scratch. */
typedef struct work {
    float *c;      /* {rows of a task, group · nr} */
    float *c2;     /* the same for weight2 */
    float *w;      /* {GROUP, kc, nr} */
    float *gather; /* {nr, kc} */
    int64_t ldc;
} work;

static int64_t c_floats(const qni_cpu_kernels *k, int64_t n_row) {
    int64_t rows = qni_min_i64(n_row, BLOCK_ROWS) + 2 * k->mr; /* blocks are split at tile boundaries */
    return qni_max_i64(rows * GROUP * k->nr, k->mr * GROUP_DECODE * k->nr);
}
static int64_t work_floats(const qni_cpu_kernels *k, int64_t n_row) {
    return 2 * c_floats(k, n_row) + GROUP * k->kc * k->nr + k->nr * k->kc;
}

float *qni_cpu_alloc_linear(const qni_run *run, int64_t n_row) {
    qni_cpu *cpu = qni_cpu_of(run);
    return qni_cpu_alloc_floats(run, cpu->n_thread * work_floats(&cpu->kernels, n_row));
}

static int64_t n_panel_of(const job *j, const qni_weight *weight) {
    return qni_ceil_div(weight->n_out, j->k->nr);
}
static int64_t n_group_of(const job *j, const qni_weight *weight) {
    return qni_ceil_div(n_panel_of(j, weight), j->group);
}

static const void *weight_at(const qni_weight *w, int64_t in, int64_t out) {
    int64_t element = out / w->nr * w->panel_stride + in / w->ki * w->group_stride + out % w->nr * w->ki + in % w->ki;
    return (const unsigned char *)w->data + element * (int64_t)qn_dtype_bytes(w->dtype);
}

/* A plain weight's inputs [k0, k0 + n_k) of n_panel panels from `panel` on, as f32 panels {n_panel, n_k, nr}. */
static void gather_block(const job *j, const work *t, const qni_weight *w, int64_t panel, int64_t n_panel, int64_t k0,
                         int64_t n_k) {
    const qni_cpu_kernels *k = j->k;
    const int dtype = qni_cpu_dtype(w->dtype);
    const int64_t nr = k->nr;
    for (int64_t p = 0; p < n_panel; p++) {
        float *block = t->w + p * n_k * nr;
        int64_t first = (panel + p) * nr;
        int64_t n_valid = qni_min_i64(nr, w->n_out - first);
        if (w->nr == 1) { /* {out, in}: outputs are rows */
            for (int64_t o = 0; o < n_valid; o++) {
                k->widen[dtype](t->gather + o * k->kc, weight_at(w, k0, first + o), n_k);
            }
            k->transpose4((uint32_t *)(void *)block, (const uint32_t *)(const void *)t->gather, k->kc, n_valid, n_k);
            continue;
        }
        for (int64_t i = 0; i < n_k; i++) {
            k->widen[dtype](block + i * nr, weight_at(w, k0 + i, first), n_valid);
            for (int64_t o = n_valid; o < nr; o++) block[i * nr + o] = 0;
        }
    }
}

static const unsigned char *quantized_panel(const qni_weight *w, int64_t panel) {
    return (const unsigned char *)w->data + panel * w->panel_stride;
}

/* A block of inputs of some panels, as gemm reads it. */
typedef struct block {
    const unsigned char *data;
    int dtype;
    int64_t panel_stride; /* in elements */
} block;

/* Dense packed panels are used in place if they are f32 or `in_place` is set; everything else is converted to f32. */
static block load_block(const job *j, const work *t, const qni_weight *w, int64_t panel, int64_t n_panel, int64_t k0,
                        int64_t n_k, bool in_place) {
    if (w->packed && w->quant.kind == QNI_DENSE && (in_place || w->dtype == QN_DTYPE_F32)) {
        return (block){weight_at(w, k0, panel * w->nr), qni_cpu_dtype(w->dtype), w->panel_stride};
    }
    const int64_t stride = n_k * j->k->nr;
    if (!w->packed) {
        gather_block(j, t, w, panel, n_panel, k0, n_k);
    } else if (w->quant.kind != QNI_DENSE) {
        const qni_cpu_quant q = qni_cpu_quant_of(w);
        for (int64_t p = 0; p < n_panel; p++) {
            j->k->unpack(t->w + p * stride, quantized_panel(w, panel + p), &q, k0, n_k);
        }
    } else {
        void (*widen)(float *, const void *, int64_t) =
            w->dtype == QN_DTYPE_BF16 ? j->k->widen_panel_bf16 : j->k->widen[QNI_CPU_F16];
        for (int64_t p = 0; p < n_panel; p++) {
            widen(t->w + p * stride, weight_at(w, k0, (panel + p) * w->nr), stride);
        }
    }
    return (block){(const unsigned char *)t->w, QNI_CPU_F32, stride};
}

/* A tile of the F32 or BF16 layout, from input k0 on. */
static const void *tile_at(const job *j, const qni_cpu_row_layout *layout, int64_t tile, int64_t k0) {
    const int64_t element = layout->arith == QN_ARITH_F32 ? 4 : 2;
    return layout->data + tile * layout->tile_bytes + k0 * qni_cpu_tile_rows(j->x, tile) * element;
}

/* A task's share of a product: c {rows of tiles [tile, tile + n_tile), n_panel · nr} = x · W for the panels from
 * `panel` on. */
typedef struct part {
    float *c;
    const qni_weight *w;
    const qni_cpu_row_layout *x;
    int64_t panel, n_panel;
    int64_t tile, n_tile;
} part;

/* f32: by blocks of inputs, converted to f32 except for few tiles of a 16-bit weight. */
static void multiply(const job *j, const work *t, const part *a) {
    static const int64_t bytes[] = {4, 2, 2}; /* by dtype */
    const qni_cpu_kernels *k = j->k;
    for (int64_t k0 = 0; k0 < a->w->n_in; k0 += k->kc) {
        const int64_t n_k = qni_min_i64(k->kc, a->w->n_in - k0);
        const block w = load_block(j, t, a->w, a->panel, a->n_panel, k0, n_k, a->n_tile <= FEW_TILES);
        for (int64_t sub = 0; sub < a->n_tile; sub += SUB_TILES) {
            int64_t end = qni_min_i64(sub + SUB_TILES, a->n_tile);
            for (int64_t p = 0; p < a->n_panel; p++) {
                for (int64_t i = sub; i < end; i++) {
                    k->gemm[w.dtype](a->c + i * k->mr * t->ldc + p * k->nr, t->ldc, tile_at(j, a->x, a->tile + i, k0),
                                     qni_cpu_tile_rows(j->x, a->tile + i), w.data + p * w.panel_stride * bytes[w.dtype],
                                     w.panel_stride, 1, n_k, k0 > 0);
                }
            }
        }
    }
}

/* Of n panels, how many a dense kernel processes per call. */
static int64_t panels_per_call(const job *j, int64_t n) {
    return j->x->n_row <= j->k->stream_rows ? qni_min_i64(j->k->n_stream, n) : 1;
}

/* f32, one tile of rows, dense packed weight: read in place. */
static void stream(const job *j, const work *t, const part *a) {
    const qni_cpu_kernels *k = j->k;
    for (int64_t p = 0, n; p < a->n_panel; p += n) {
        n = panels_per_call(j, a->n_panel - p);
        for (int64_t k0 = 0; k0 < a->w->n_in; k0 += k->kc) {
            k->gemm[qni_cpu_dtype(a->w->dtype)](a->c + p * k->nr, t->ldc, tile_at(j, a->x, a->tile, k0),
                                                qni_cpu_tile_rows(j->x, a->tile),
                                                weight_at(a->w, k0, (a->panel + p) * a->w->nr), a->w->panel_stride, n,
                                                qni_min_i64(k->kc, a->w->n_in - k0), k0 > 0);
        }
    }
}

/* bf16: a block of inputs of the panels stays in cache while the tiles run over it. */
static void multiply_pairs(const job *j, const work *t, const part *a) {
    const qni_cpu_kernels *k = j->k;
    const int64_t n_in = a->w->n_in + a->w->n_in % 2;
    void (*const gemm)(float *, int64_t, const uint16_t *, int64_t, const uint16_t *, int64_t, int64_t, int64_t, bool) =
        a->w->far ? k->gemm_pairs_far : k->gemm_pairs;
    for (int64_t p = 0, n; p < a->n_panel; p += n) {
        n = panels_per_call(j, a->n_panel - p);
        for (int64_t k0 = 0; k0 < n_in; k0 += k->kc) {
            for (int64_t i = 0; i < a->n_tile; i++) {
                gemm(a->c + i * k->mr * t->ldc + p * k->nr, t->ldc, tile_at(j, a->x, a->tile + i, k0),
                     qni_cpu_tile_rows(j->x, a->tile + i), weight_at(a->w, k0, (a->panel + p) * a->w->nr),
                     a->w->panel_stride, n, qni_min_i64(k->kc, n_in - k0), k0 > 0);
            }
        }
    }
}

/* int8: whole panels; a panel's codes stay in cache while the tiles run over it. */
static void multiply_codes(const job *j, const work *t, const part *a) {
    const qni_cpu_kernels *k = j->k;
    const qni_cpu_quant q = qni_cpu_quant_of(a->w);
    const qni_cpu_int8 *kernel = qni_cpu_int8_of(k, q.bits);
    for (int64_t p = 0, n; p < a->n_panel; p += n) {
        n = a->n_tile == 1 ? qni_min_i64(k->n_stream, a->n_panel - p) : 1;
        for (int64_t i = 0; i < a->n_tile; i++) {
            const qni_cpu_codes codes = qni_cpu_codes_of(j->x, a->x, a->tile + i);
            kernel->gemm(a->c + i * k->mr * t->ldc + p * k->nr, t->ldc, &codes, qni_cpu_tile_rows(j->x, a->tile + i),
                         quantized_panel(a->w, a->panel + p), n, &q);
        }
    }
}

static void product(const job *j, const work *t, part a) {
    a.x = qni_cpu_row_layout_of(j->k, j->x, a.w);
    if (a.w->arith == QN_ARITH_INT8) {
        multiply_codes(j, t, &a);
    } else if (a.w->arith == QN_ARITH_BF16) {
        multiply_pairs(j, t, &a);
    } else if (a.w->packed && a.w->quant.kind == QNI_DENSE && j->x->n_row <= j->k->mr) {
        stream(j, t, &a);
    } else { /* blocks hold GROUP panels */
        const part all = a;
        for (int64_t p = 0; p < all.n_panel; p += GROUP) {
            a.c = all.c + p * j->k->nr;
            a.panel = all.panel + p;
            a.n_panel = qni_min_i64(GROUP, all.n_panel - p);
            multiply(j, t, &a);
        }
    }
}

/* Write one row of sums, n columns from `first` on, to its destination. */
static void finish_row(const job *j, const qni_cpu_product *p, float *c, const float *c2, int64_t row, int64_t first,
                       int64_t n) {
    const qni_cpu_kernels *k = j->k;
    if (p->epilogue == QNI_CPU_SWIGLU) k->swiglu(c, c, c2, n);
    if (p->epilogue == QNI_CPU_ADD) {
        enum { CHUNK = 64 };
        float chunk[CHUNK];
        size_t bytes = qn_dtype_bytes(p->hidden.dtype);
        const unsigned char *hidden = (const unsigned char *)qni_mat_row(&p->hidden, row) + (size_t)first * bytes;
        for (int64_t i = 0; i < n; i += CHUNK) {
            int64_t n_chunk = qni_min_i64(CHUNK, n - i);
            k->widen[qni_cpu_dtype(p->hidden.dtype)](chunk, hidden + (size_t)i * bytes, n_chunk);
            k->add(c + i, c + i, chunk, n_chunk);
        }
    }
    unsigned char *out = (unsigned char *)qni_mat_row(&p->out, row) + (size_t)first * qn_dtype_bytes(p->out.dtype);
    k->narrow[qni_cpu_dtype(p->out.dtype)](out, c, n);
}

/* The product that a task belongs to, and its panels. */
static const qni_cpu_product *product_of(const job *j, int32_t task, int64_t *panel, int64_t *n_panel) {
    const qni_cpu_product *p = j->products;
    int64_t group = task / j->n_block;
    while (group >= n_group_of(j, p->weight)) group -= n_group_of(j, (p++)->weight);
    *panel = group * j->group;
    *n_panel = qni_min_i64(j->group, n_panel_of(j, p->weight) - *panel);
    return p;
}

static void run_task(void *context, int32_t task, int32_t thread) {
    const job *j = context;
    const qni_cpu_kernels *k = j->k;
    int64_t panel, n_panel;
    const qni_cpu_product *p = product_of(j, task, &panel, &n_panel);
    int64_t tile = task % j->n_block * j->block_tile;
    int64_t n_tile = qni_min_i64(j->block_tile, qni_ceil_div(j->x->n_row, k->mr) - tile);

    float *base = j->scratch + thread * j->scratch_floats;
    const int64_t n_c = c_floats(k, j->x->n_row);
    work t = {.c = base, .c2 = base + n_c, .w = base + 2 * n_c, .ldc = n_panel * k->nr};
    t.gather = t.w + GROUP * k->kc * k->nr;

    part a = {.c = t.c, .w = p->weight, .panel = panel, .n_panel = n_panel, .tile = tile, .n_tile = n_tile};
    product(j, &t, a);
    a.c = t.c2, a.w = p->weight2;
    if (p->weight2 != NULL) product(j, &t, a);
    int64_t first_row = tile * k->mr;
    int64_t end_row = qni_min_i64(first_row + n_tile * k->mr, j->x->n_row);
    int64_t first = panel * k->nr;
    int64_t n = qni_min_i64(t.ldc, p->weight->n_out - first);
    for (int64_t r = first_row; r < end_row; r++) {
        int64_t at = (r - first_row) * t.ldc;
        finish_row(j, p, t.c + at, t.c2 + at, r, first, n);
    }
}

/* Panels per task: as few, large tasks as still let all threads finish together. */
static int64_t choose_group(const job *j, int32_t n_thread) {
    int64_t n_panel = 0;
    for (int32_t i = 0; i < j->n_product; i++) n_panel += n_panel_of(j, j->products[i].weight);
    int64_t fair = n_panel * j->n_block / ((int64_t)n_thread * TASKS_PER_THREAD);
    if (j->x->n_row > j->k->mr) return fair >= GROUP ? GROUP : fair >= 2 ? 2 : 1;
    int64_t n_stream = j->k->n_stream;
    return qni_max_i64(n_stream, qni_min_i64(GROUP_DECODE, fair) / n_stream * n_stream);
}

/* Split the products of x into tasks; returns their number. */
static int32_t split_tasks(job *j, int32_t n_thread) {
    const int64_t n_tile = qni_ceil_div(j->x->n_row, j->k->mr);
    j->n_block = qni_ceil_div(j->x->n_row, BLOCK_ROWS);
    j->block_tile = qni_ceil_div(n_tile, j->n_block);
    j->n_block = qni_ceil_div(n_tile, j->block_tile);
    j->group = choose_group(j, n_thread);
    int64_t n_task = 0;
    for (int32_t i = 0; i < j->n_product; i++) n_task += n_group_of(j, j->products[i].weight);
    return (int32_t)(n_task * j->n_block);
}

void qni_cpu_linear(const qni_run *run, const qni_cpu_input *x, const qni_cpu_product *products, int32_t n_product,
                    float *scratch) {
    qni_cpu *cpu = qni_cpu_of(run);
    job j = {.k = &cpu->kernels, .x = x, .products = products, .n_product = n_product, .scratch = scratch};
    j.scratch_floats = work_floats(j.k, x->n_row);
    qni_pool_run(cpu->pool, split_tasks(&j, cpu->n_thread), run_task, &j);
}

/* Write to each page of the panels that the task would read. */
static void touch_task(void *context, int32_t task, int32_t thread) {
    enum { PAGE = 4096 };
    (void)thread;
    int64_t panel, n_panel;
    const qni_cpu_product *p = product_of(context, task, &panel, &n_panel);
    const qni_weight *weights[] = {p->weight, p->weight2};
    for (int i = 0; i < 2 && weights[i] != NULL; i++) {
        const qni_weight *w = weights[i];
        const int64_t bytes = w->panel_stride * (w->quant.kind == QNI_DENSE ? (int64_t)qn_dtype_bytes(w->dtype) : 1);
        volatile unsigned char *data = (unsigned char *)(uintptr_t)w->data + panel * bytes; /* const for readers only */
        for (int64_t at = 0; at < n_panel * bytes; at += PAGE) data[at] = 0;
    }
}

void qni_cpu_touch(qni_cpu *cpu, const qni_cpu_product *products, int32_t n_product) {
    const qni_cpu_input x = {.n_row = 1};
    job j = {.k = &cpu->kernels, .x = &x, .products = products, .n_product = n_product};
    qni_pool_run(cpu->pool, split_tasks(&j, cpu->n_thread), touch_task, &j);
}
